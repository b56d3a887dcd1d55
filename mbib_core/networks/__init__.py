"""Networks that return their stages, what is put on them, and how to build one from plain values."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mbib_core.networks.bottleneck import Bottleneck, Outputs, default_prediction, predictions
from mbib_core.networks.experts import Branches, Experts, Norms
from mbib_core.networks.heads import Aligned, Cosine, Nearest, Rotated, Scaled, WrappedCauchy
from mbib_core.networks.imagenet import backbone
from mbib_core.networks.resnet import ResNet, even_taps, multiply_adds
from mbib_core.networks.stochastic import STOCHASTIC, Drawn

__all__ = ["Bottleneck", "Experts", "Network", "Outputs", "default_prediction", "multiply_adds", "predictions"]

HEADS = {
    "linear": nn.Linear,
    "cosine": Cosine,
    "scaled": Scaled,
    "aligned": Aligned,
    "nearest": Nearest,
    "rotated": Rotated,
    "wrapped-cauchy": WrappedCauchy,
}


@dataclass(frozen=True)
class Network:
    """What a network consists of, as plain values: a weights file keeps them, so that no table is needed to build it.

    A CIFAR ResNet of `depth`, observed `taps` times at even distances; with `picture` the first observation is the
    image itself. In its place there may be a `backbone` by name, such as "resnet50" (see `imagenet.backbone`), observed
    after its last `taps` stages. `with_v` and `with_z` say which classifiers there are, `head` of which kind they are.
    With `experts` there are as many ends of the network: each with `private` "stages" and a classifier, or a bottleneck
    of three observations, if `with_z`; each with a "norm" of its own; or each with a "block". `routed` puts routers on
    them. `stochastic` is how z is drawn: "gaussian" (VIB), "homoscedastic" (nonlinear IB), "drop" (Drop-bottleneck), ""
    not at all.
    """

    depth: int = 32
    taps: int = 1
    picture: bool = False
    with_v: bool = True
    with_z: bool = True
    head: str = "linear"
    experts: int = 0
    private: str = "stages"
    routed: bool = False
    stochastic: str = ""
    backbone: str = ""

    def build(
        self,
        classes: int,
        *,
        mean: Sequence[float] | Tensor = (127.5,) * 3,
        std: Sequence[float] | Tensor = (64.0,) * 3,
    ) -> nn.Module:
        """A new network, in float32 whatever torch's default; `mean` and `std` [3] normalise the images."""
        head, dtype = HEADS[self.head], torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            if self.experts:
                kinds: dict[str, Any] = {"norm": Norms, "block": Branches}
                kinds["stages"] = partial(Experts, bottlenecks=self.with_z, routed=self.routed)
                return kinds[self.private](self.depth, classes, self.experts, head=head, mean=mean, std=std)
            more: dict[str, Any] = {"with_v": self.with_v, "head": head, "mean": mean, "std": std}
            if self.backbone:
                trunk: nn.Module = backbone(self.backbone, self.taps)
                more["fresh"] = False
            else:
                taps = even_taps(self.depth, self.taps - self.picture)
                trunk = ResNet(self.depth, (0, *taps) if self.picture else taps)
            if self.stochastic:
                return Drawn(trunk, classes, represent=STOCHASTIC[self.stochastic], **more)
            return Bottleneck(trunk, classes, with_z=self.with_z, **more)
        finally:
            torch.set_default_dtype(dtype)
