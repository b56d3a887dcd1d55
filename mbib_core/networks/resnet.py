"""Networks that return their stages: the ResNets for 32 x 32 pictures (He et al. 2016, section 4.2)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from mbib_core.networks.heads import Cosine, Rotated
from mbib_core.networks.imagenet import TimmStages


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without parameters (option A: subsampling, zero-padded channels)."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.extra = stride, channels - channels_in

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.extra:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return F.relu(x + y)


class ResNet(nn.Module):
    """ResNet-`depth` for 32 x 32 pictures; returns the feature maps after the blocks numbered in `taps`.

    Three stages of 16, 32 and 64 channels, each of (depth - 2) / 6 blocks; those behind the last tap are left out.
    Blocks count from 1; 0 taps the 32 x 32 image itself, every value a channel of its own [B, 3072, 1, 1]. `channels`
    lists the channels of what is returned, shallow to deep. ResNet-32 has 463,504 parameters.

    Raises ValueError if `depth` is not 6 n + 2 or a tap is no block of this network.
    """

    def __init__(self, depth: int, taps: tuple[int, ...]):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth {depth} is no CIFAR ResNet: it must be 6 n + 2, such as 8, 20 or 32")
        widths = [16 * 2**stage for stage in range(3) for _ in range((depth - 2) // 6)]
        if not taps or list(taps) != sorted(set(taps)) or taps[0] < 0 or taps[-1] > len(widths):
            raise ValueError(f"taps {taps} must be increasing block numbers between 0 and {len(widths)}")
        self.conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.blocks = nn.ModuleList(stages(depth, 16, (16, 32, 64))[: taps[-1]])
        self.taps = tuple(taps)
        self.channels = tuple(widths[t - 1] if t else 3 * 32 * 32 for t in taps)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _c _h _w"], ...]:
        maps = {0: x.flatten(1)[:, :, None, None]}
        x = F.relu(self.bn(self.conv(x)))
        for number, block in enumerate(self.blocks, start=1):
            maps[number] = x = block(x)
        return tuple(maps[t] for t in self.taps)


def stages(depth: int, channels: int, widths: tuple[int, ...]) -> list[Block]:
    """The blocks of stages of these `widths` behind `channels`, (depth - 2) / 6 blocks a stage; a wider one halves the
    map."""
    after = [width for width in widths for _ in range((depth - 2) // 6)]
    before = [channels, *after]
    return [Block(a, b, 1 if a == b else 2) for a, b in zip(before, after, strict=False)]


def even_taps(depth: int, n: int) -> tuple[int, ...]:
    """`n` blocks of ResNet-`depth` spaced evenly, the last one last: three are the ends of the stages.

    The paper's table 4 varies n without saying where the observations sit; even spacing is this project's reading.
    Raises ValueError if the network has fewer than `n` blocks.
    """
    blocks = (depth - 2) // 2
    if not 1 <= n <= blocks:
        raise ValueError(f"ResNet-{depth} has {blocks} blocks: ask for 1 to {blocks} observations, not {n}")
    return tuple(blocks * i // n for i in range(1, n + 1))


def multiply_adds(network: nn.Module, picture: Tensor) -> int:
    """Multiply-adds of convolutions and linear layers for one image `picture` [1, 3, H, W]; all else is left out, but
    for the matrix products of attention in a network of timm's.

    The network is left as it was, and in evaluation mode while it is measured.
    """
    total = 0
    attends = any(isinstance(module, TimmStages) for module in network.modules())

    counted = nn.Conv2d | nn.Linear | Cosine | Rotated

    def count(module: Any, _inputs: tuple, out: Tensor) -> None:
        nonlocal total
        total += out.numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, counted) and not attends]
    training = network.training
    try:
        with torch.no_grad():
            if not attends:
                network.eval()(picture)
                return total
            from torch.utils.flop_counter import FlopCounterMode  # late: where there is a GPU it loads a compiler

            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused, it is not counted
                network.eval()(picture)
            return counter.get_total_flops() // 2
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
