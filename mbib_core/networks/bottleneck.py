"""From a backbone's stages to observations v_i, the representation z, and a linear classifier on each (figure 2)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn


class Outputs(NamedTuple):
    """What a network returns: B images, C classes, observations shallow to deep; the answers of its K experts, with the
    logits that an image should `go_on` from each to the next one; and the rate of a stochastic z, what it keeps of the
    deepest observation in nats."""

    observations: tuple[Float[Tensor, "b _d"], ...]
    v_logits: tuple[Float[Tensor, "b c"], ...]
    z: Float[Tensor, "b d"] | None
    z_logits: Float[Tensor, "b c"] | None
    experts: tuple["Outputs", ...] = ()
    go_on: Float[Tensor, "b _k"] | None = None
    rate: Float[Tensor, ""] | None = None


class Normalising(nn.Module):
    """Takes uint8 images [B, 3, H, W] and normalises them by `mean` and `std` [3] (0 to 255), which travel with the
    weights. Without a `mean` it is part of a network that has done so, and takes what it is given."""

    mean: Tensor | None
    std: Tensor

    def __init__(self, mean: Sequence[float] | Tensor | None, std: Sequence[float] | Tensor):
        super().__init__()
        if mean is None:
            self.mean = None
            return
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).view(3, 1, 1))

    def normalised(self, x: Tensor) -> Float[Tensor, "b _c _h _w"]:
        if self.mean is None:
            return x
        if x.dtype != torch.uint8 or x.dim() != 4 or x.shape[1] != 3:
            raise TypeError(
                f"pictures must be uint8 [B, 3, H, W], 0 to 255, these are {x.dtype} {list(x.shape)}; the network "
                f"normalises them itself"
            )
        return (x - self.mean) / self.std


def draw_weights(modules: Iterable[nn.Module]) -> None:
    """Draws the weights of convolutions and linear layers among `modules` anew (Kaiming, normal)."""
    for module in modules:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)


class Observation(nn.Sequential):
    """Global average pool and batch norm: a feature map [B, D, H, W] becomes an observation v_i [B, D]."""

    def __init__(self, channels: int):
        super().__init__(nn.BatchNorm1d(channels))

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d"]:
        return super().forward(x.mean((2, 3), dtype=torch.float32))


class Bottleneck(Normalising):
    """Observations v_i of any backbone, their classifiers, and one z with its own, made from the deepest observation.

    `backbone(x)` returns a tuple of feature maps, `backbone.channels` their channels. z = ReLU(BN(Linear(v_n))) has
    as many dimensions as v_n; `with_z=False` leaves it out (plain networks), `with_v=False` leaves out the
    classifiers of the observations; `head(features, classes)` makes them all. All convolutions and linear
    layers are drawn anew, the backbone's too; `fresh=False` keeps those of the backbone, such as pretrained ones, which
    want their own `mean` and `std` (ImageNet's: 123.675, 116.28, 103.53 and 58.395, 57.12, 57.375).

    On ResNet-32 and 100 classes: 486,016 parameters with three observations (MBIB), 480,920 with one (BIB).
    Raises TypeError on a backbone without `channels` and on other pictures, ValueError on maps that are not
    [B, channels, H, W].
    """

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        *,
        with_v: bool = True,
        with_z: bool = True,
        fresh: bool = True,
        head: Callable[[int, int], nn.Module] = nn.Linear,
        mean: Sequence[float] | Tensor | None = (127.5, 127.5, 127.5),
        std: Sequence[float] | Tensor = (64.0, 64.0, 64.0),
    ):
        super().__init__(mean, std)
        widths = getattr(backbone, "channels", None)
        if not widths:
            raise TypeError(
                "the backbone needs an attribute channels: those of each map that it returns, shallow first"
            )
        self.backbone = backbone
        self.observe = nn.ModuleList(Observation(width) for width in widths)
        self.v_classifiers = nn.ModuleList(head(width, classes) for width in widths if with_v)
        last = widths[-1]
        self.represent = nn.Sequential(nn.Linear(last, last), nn.BatchNorm1d(last), nn.ReLU()) if with_z else None
        self.z_classifier = head(last, classes) if with_z else None
        kept = () if fresh else set(backbone.modules())
        draw_weights(module for module in self.modules() if module not in kept)

    def forward(self, x: UInt8[Tensor, "b 3 h w"]) -> Outputs:
        maps = self.backbone(self.normalised(x))
        self._check_maps(maps)
        # The heads are a thousandth of the work: in float32 the logits keep the digits that bfloat16 would drop.
        with torch.autocast(x.device.type, enabled=False):
            v = tuple(observe(m) for observe, m in zip(self.observe, maps, strict=True))
            v_logits = tuple(f(v_i) for f, v_i in zip(self.v_classifiers, v, strict=False))
            if self.represent is None or self.z_classifier is None:
                return Outputs(v, v_logits, None, None)
            z = self.represent(v[-1])
            return Outputs(v, v_logits, z, self.z_classifier(z))

    def _check_maps(self, maps: Any) -> None:
        wanted = tuple(self.backbone.channels)  # type: ignore[arg-type]

        def axis(i: int) -> Any:
            return isinstance(maps, tuple | list) and tuple(m.shape[i] if m.dim() == 4 else None for m in maps)

        if axis(1) != wanted:
            shapes = [list(m.shape) for m in maps] if isinstance(maps, tuple | list) else type(maps).__name__
            cure = (
                ": their channels come last, permute(0, 3, 1, 2) makes them [B, D, H, W]" if axis(3) == wanted else ""
            )
            raise ValueError(
                f"the backbone must return a tuple of maps [B, D, H, W] with D = {wanted}, its channels, not {shapes}"
                f"{cure}"
            )


def predictions(outputs: Outputs) -> dict[str, Float[Tensor, "b c"]]:
    """Every way to predict from `outputs`, as logits, the network's own way first.

    With v and z: the `mean` of the two logits (the paper's), `v` (deepest observation), `z`, and `mean_probability`.
    A network that lacks one of the two classifiers has the other alone. With experts: the `mean` of their logits, and
    each by itself, from `expert_1`; before these, with routers, the `routed` mean of those that an image goes to.
    """
    if outputs.experts:
        own = [next(iter(predictions(expert).values())) for expert in outputs.experts]
        found = {"mean": torch.stack(own).mean(0)} | {f"expert_{i}": logits for i, logits in enumerate(own, start=1)}
        if outputs.go_on is None:
            return found
        used = experts_used(outputs.go_on)[:, None]
        routed = torch.stack(own).cumsum(0).gather(0, (used - 1).expand_as(own[0])[None])[0] / used
        return {"routed": routed} | found
    v, z = outputs.v_logits[-1] if outputs.v_logits else None, outputs.z_logits
    if v is None or z is None:
        return {name: logits for name, logits in (("v", v), ("z", z)) if logits is not None}
    probability = (v.softmax(1) + z.softmax(1)) / 2
    return {"mean": (v + z) / 2, "v": v, "z": z, "mean_probability": probability.log()}


def experts_used(go_on: Float[Tensor, "b k"]) -> Int[Tensor, " b"]:
    """To how many experts, in their order, each image goes: on to the next one as long as sigmoid(go_on) > 1/2."""
    return 1 + (go_on > 0).long().cumprod(1).sum(1)


def default_prediction(names: Iterable[str]) -> str:
    """The prediction that counts as the network's own: the first one of `predictions`."""
    return next(iter(names))
