"""Networks that return their stages, what is put on them, and how to build one from plain values."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mbib_core.networks.bottleneck import Bottleneck, Outputs, default_prediction, predictions
from mbib_core.networks.experts import Experts
from mbib_core.networks.heads import Cosine
from mbib_core.networks.resnet import ResNet, even_taps, multiply_adds
from mbib_core.networks.stochastic import STOCHASTIC

__all__ = ["Bottleneck", "Experts", "Network", "Outputs", "default_prediction", "multiply_adds", "predictions"]

HEADS = {"linear": nn.Linear, "cosine": Cosine}


@dataclass(frozen=True)
class Network:
    """What a network consists of, as plain values: a weights file keeps them, so that no table is needed to build it.

    A CIFAR ResNet of `depth`, observed `taps` times at even distances; with `picture` the first observation is the
    image itself. `with_v` and `with_z` say which classifiers there are, `head` of which kind those of v are. With
    `experts` there are as many ends of the network, each with a classifier, and no z. `stochastic` is how z is drawn:
    "gaussian" (VIB), "homoscedastic" (nonlinear IB), "drop" (Drop-bottleneck), "" not at all.
    """

    depth: int = 32
    taps: int = 1
    picture: bool = False
    with_v: bool = True
    with_z: bool = True
    head: str = "linear"
    experts: int = 0
    stochastic: str = ""

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
                return Experts(self.depth, classes, self.experts, head=head, mean=mean, std=std)
            taps = even_taps(self.depth, self.taps - self.picture)
            backbone = ResNet(self.depth, (0, *taps) if self.picture else taps)
            return Bottleneck(
                backbone,
                classes,
                with_v=self.with_v,
                with_z=self.with_z,
                head=head,
                stochastic=STOCHASTIC[self.stochastic] if self.stochastic else None,
                mean=mean,
                std=std,
            )
        finally:
            torch.set_default_dtype(dtype)
