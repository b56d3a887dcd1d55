"""Several experts or branches on one trunk: the networks of RIDE and SADE, of ResLT and of BBN."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from mbib_core.networks.bottleneck import Bottleneck, Normalising, Outputs, draw_weights
from mbib_core.networks.resnet import ResNet, stages

WIDTHS = 24, 48  # channels of the stages that an expert has of its own


class Expert(nn.Module):
    """Stages 2 and 3 of a CIFAR ResNet, pooled to features v [B, 48], and a classifier on them."""

    def __init__(self, depth: int, classes: int, head: Callable[[int, int], nn.Module]):
        super().__init__()
        self.blocks = nn.Sequential(*stages(depth, 16, WIDTHS))
        self.classifier = head(WIDTHS[-1], classes)

    def forward(self, x: Float[Tensor, "b 16 h w"]) -> Outputs:
        v = self.blocks(x).mean((2, 3), dtype=torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            return Outputs((v,), (self.classifier(v),), None, None)


class OwnStages(nn.Module):
    """Stages 2 and 3 of an expert; returns what it is given and the maps after both, all that it can be observed at."""

    channels = 16, *WIDTHS

    def __init__(self, depth: int):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(*stages(depth, a, (b,))) for a, b in zip(self.channels, WIDTHS, strict=False)
        )

    def forward(self, x: Float[Tensor, "b 16 h w"]) -> tuple[Float[Tensor, "b _c _h _w"], ...]:
        maps = [x]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return tuple(maps)


class Router(nn.Module):
    """RIDE's routers (Wang et al. 2021), one after each expert but the last: logits [B, n - 1] that an image goes on.

    o_i = v . [the `top` largest logits of the first i experts' mean, in order; ReLU(H_i f_i + h_i)] + v_0, f_i the
    features of expert i at unit length; v is shared. 2,399 weights for four experts of 48 features.
    """

    def __init__(self, features: int, classes: int, n: int, *, top: int = 30, hidden: int = 16):
        super().__init__()
        self.top = min(top, classes)
        self.hidden = nn.ModuleList(nn.Linear(features, hidden) for _ in range(n - 1))
        self.decide = nn.Linear(self.top + hidden, 1)

    def forward(
        self, features: Sequence[Float[Tensor, "b d"]], logits: Sequence[Float[Tensor, "b c"]]
    ) -> Float[Tensor, "b _k"]:
        answers, found = torch.zeros_like(logits[0]), []
        for i, (layer, f) in enumerate(zip(self.hidden, features, strict=False), start=1):
            answers = answers + logits[i - 1]
            seen = torch.cat([(answers / i).topk(self.top).values, F.relu(layer(F.normalize(f)))], 1)
            found.append(self.decide(seen))
        return torch.cat(found, 1)


class Experts(Normalising):
    """`n` experts that share a CIFAR ResNet's stem and first stage. Takes uint8 images, as `Bottleneck` does.

    `Outputs.experts` has the answer of each; `v_logits` and `observations` have their deepest ones in the same order.
    With `bottlenecks` each expert is a `Bottleneck`, with observations after all three stages and a z of its own. On
    ResNet-32 and 100 classes with cosine heads: 783,856 parameters for three experts, 1,037,200 for four, 818,128 for
    three bottlenecks. With `routed` a `Router` says after which expert an image is done; all are computed nevertheless.
    """

    def __init__(
        self,
        depth: int,
        classes: int,
        n: int,
        *,
        head: Callable[[int, int], nn.Module],
        bottlenecks: bool = False,
        routed: bool = False,
        mean: Sequence[float] | Tensor = (127.5, 127.5, 127.5),
        std: Sequence[float] | Tensor = (64.0, 64.0, 64.0),
    ):
        super().__init__(mean, std)
        self.trunk = ResNet(depth, ((depth - 2) // 6,))
        self.experts = nn.ModuleList(
            Bottleneck(OwnStages(depth), classes, head=head, mean=None) if bottlenecks else Expert(depth, classes, head)
            for _ in range(n)
        )
        draw_weights(self.modules())
        self.router = Router(WIDTHS[-1], classes, n) if routed else None

    def forward(self, x: UInt8[Tensor, "b 3 h w"]) -> Outputs:
        (shared,) = self.trunk(self.normalised(x))
        answers = tuple(expert(shared) for expert in self.experts)
        v, v_logits = (tuple(a.observations[-1] for a in answers), tuple(a.v_logits[-1] for a in answers))
        if self.router is None:
            return Outputs(v, v_logits, None, None, answers)
        with torch.autocast(x.device.type, enabled=False):
            return Outputs(v, v_logits, None, None, answers, self.router(v, v_logits))


class Norms(Normalising):
    """A whole CIFAR ResNet whose last map is batch-normalised `n` times over, and one linear classifier for all of them
    (Cui et al. 2022, ResLT). 470,388 parameters for three on ResNet-32 and 100 classes."""

    def __init__(
        self,
        depth: int,
        classes: int,
        n: int,
        *,
        head: Callable[[int, int], nn.Module],
        mean: Sequence[float] | Tensor = (127.5, 127.5, 127.5),
        std: Sequence[float] | Tensor = (64.0, 64.0, 64.0),
    ):
        super().__init__(mean, std)
        self.trunk = ResNet(depth, ((depth - 2) // 2,))
        self.experts = nn.ModuleList(nn.BatchNorm2d(self.trunk.channels[-1]) for _ in range(n))
        self.classifier = head(self.trunk.channels[-1], classes)
        draw_weights(self.modules())

    def forward(self, x: UInt8[Tensor, "b 3 h w"]) -> Outputs:
        (shared,) = self.trunk(self.normalised(x))
        v = tuple(norm(shared).mean((2, 3), dtype=torch.float32) for norm in self.experts)
        with torch.autocast(x.device.type, enabled=False):
            v_logits = tuple(self.classifier(v_k) for v_k in v)
        experts = tuple(Outputs((v_k,), (f,), None, None) for v_k, f in zip(v, v_logits, strict=True))
        return Outputs(v, v_logits, None, None, experts)


class Branches(Normalising):
    """A CIFAR ResNet with two last blocks side by side, and one classifier on both pooled maps (Zhou et al. 2020, BBN).

    In training the first half of the images goes through the first block and the second half through the second, and
    row i of the features has those of image i of each half; the trunk sees one half after the other. Otherwise every
    image goes through both. 550,388 parameters on ResNet-32 and 100 classes.
    """

    def __init__(
        self,
        depth: int,
        classes: int,
        n: int,
        *,
        head: Callable[[int, int], nn.Module],
        mean: Sequence[float] | Tensor = (127.5, 127.5, 127.5),
        std: Sequence[float] | Tensor = (64.0, 64.0, 64.0),
    ):
        super().__init__(mean, std)
        self.trunk = ResNet(depth, ((depth - 2) // 2 - 1,))
        self.experts = nn.ModuleList(stages(depth, 16, (16, 32, 64))[-1] for _ in range(n))
        self.classifier = head(n * 64, classes)
        draw_weights(self.modules())

    def forward(self, x: UInt8[Tensor, "b 3 h w"]) -> Outputs:
        n = len(self.experts)
        parts = x.chunk(n) if self.training else (x,)
        maps = [self.trunk(self.normalised(part))[0] for part in parts] * (n // len(parts))
        pooled = [block(m).mean((2, 3), dtype=torch.float32) for block, m in zip(self.experts, maps, strict=True)]
        with torch.autocast(x.device.type, enabled=False):
            v = torch.cat(pooled, 1)
            return Outputs((v,), (self.classifier(v),), None, None)
