"""Networks for photographs that return their stages: torchvision's ResNets and timm's networks."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbib_core.extras import extra

STAGES = "layer1", "layer2", "layer3", "layer4"
TIMM = "timm:"


class Stages(nn.Module):
    """A ResNet of torchvision's without its classifier (He et al. 2016, Xie et al. 2017).

    Returns the maps after the last `n` of its four stages, whose height and width are 1/4, 1/8, 1/16 and 1/32 of the
    image's; `channels` lists theirs, shallow to deep. Parameters keep the names that torchvision gives them.
    """

    def __init__(self, network: Any, n: int):
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = network.conv1, network.bn1, network.relu, network.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = (getattr(network, name) for name in STAGES)
        self.channels = tuple(64 * 2**i * network.layer1[0].expansion for i in range(len(STAGES)))[-n:]

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _c _h _w"], ...]:
        maps = [self.maxpool(self.relu(self.bn1(self.conv1(x))))]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return tuple(maps[-len(self.channels) :])


class TimmStages(nn.Module):
    """A timm network made with `features_only=True`; returns the maps of its last `n` stages."""

    def __init__(self, network: Any, n: int):
        super().__init__()
        self.network, self.channels = network, tuple(network.feature_info.channels()[-n:])

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _c _h _w"], ...]:
        maps = self.network(x)[-len(self.channels) :]
        # The channels of Swin's maps, and of a few others', come last.
        return tuple(m if m.shape[1] == c else m.permute(0, 3, 1, 2) for m, c in zip(maps, self.channels, strict=True))


def backbone(name: str, n: int) -> Stages | TimmStages:
    """A new network that returns the maps of its last `n` stages, its weights drawn as its library draws them.

    `name` is "resnet10" (one block of two convolutions a stage), a ResNet of torchvision's (resnet18 to resnet152,
    resnext50_32x4d, wide_resnet50_2 ...) or "timm:NAME". Raises ValueError if there is no such network or it has fewer
    stages, and ImportError if its library is not installed.
    """
    network = timm_network(name) if name.startswith(TIMM) else _torchvision_network(name)
    stages = len(network.feature_info.channels()) if name.startswith(TIMM) else len(STAGES)
    if not 1 <= n <= stages:
        raise ValueError(f"{name} has {stages} stages: ask for 1 to {stages} observations, not {n}")
    return TimmStages(network, n) if name.startswith(TIMM) else Stages(network, n)


def check_backbone(name: str, n: int) -> None:
    """Raises what `backbone(name, n)` would and draws no weights; how many stages a timm network has is known only when
    it is built."""
    if name.startswith(TIMM):
        if not timm(name).is_model(name.removeprefix(TIMM)):
            raise _unknown(name)
    else:
        with torch.device("meta"):
            backbone(name, n)


def timm_network(name: str, **more: Any) -> Any:
    """The network "timm:NAME", which returns its stages. Raises ValueError if there is none."""
    library, known = timm(name), name.removeprefix(TIMM)
    if not library.is_model(known):
        raise _unknown(name)
    return library.create_model(known, features_only=True, **more)


def timm(name: str) -> Any:
    """The library of the backbone `name`. Raises ImportError if it is not installed."""
    return extra("timm", f"the backbone {name}", install="timm")


def _torchvision_network(name: str) -> Any:
    models = extra("torchvision.models", f"the backbone {name}")
    if name == "resnet10":
        return models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1])
    try:
        network = models.get_model(name, weights=None)
    except ValueError:
        network = None
    if not isinstance(network, models.ResNet):
        raise _unknown(name)
    return network


def _unknown(name: str) -> ValueError:
    if name.startswith(TIMM):
        return ValueError(f"timm has no network {name.removeprefix(TIMM)}: timm.list_models() lists what there is")
    return ValueError(
        f"the backbone {name} is no ResNet of torchvision's: take resnet10, resnet18, resnet34, resnet50, resnet101, "
        f"resnet152, resnext50_32x4d ..., or a network of timm's as timm:NAME"
    )
