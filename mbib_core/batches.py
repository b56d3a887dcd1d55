"""From pictures on the device to a batch: order, crops and flips drawn from seed and epoch, cut in one gather."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor, nn

from mbib_core.schedules import Schedule


def pad(x: UInt8[Tensor, "n c h w"], padding: int) -> UInt8[Tensor, "n i j c"]:
    """Pictures with a black border of `padding` pixels, channels last: what `augment` cuts from."""
    return nn.functional.pad(x, (padding,) * 4).permute(0, 2, 3, 1).contiguous()


def batches(
    n: int, schedule: Schedule, flip: bool, seed: int, epoch: int, device: torch.device
) -> Iterator[tuple[Int[Tensor, " b"], Int[Tensor, "b 2"], Bool[Tensor, " b"]]]:
    """One epoch's batches: positions in a fresh order, and for each picture a crop's corner and whether to flip.

    Drawn on the processor from (seed, epoch) alone and moved to `device` at once: the same on every device, nothing
    to save for a resume, no wait in a step. A last batch of a single picture is left out: batch norm needs two.
    """
    random = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(n, generator=random).to(device)
    crops = torch.randint(0, 2 * schedule.padding + 1, (n, 2), generator=random).to(device)
    flips = (torch.rand(n, generator=random) < 0.5 * flip).to(device)
    for part in range(0, n - 1, schedule.batch):
        rows = slice(part, part + schedule.batch)
        yield order[rows], crops[rows], flips[rows]


def augment(
    padded: UInt8[Tensor, "n i j c"],
    index: Int[Tensor, " b"],
    crop: Int[Tensor, "b 2"],
    flip: Bool[Tensor, " b"],
    padding: int,
) -> UInt8[Tensor, "b c h w"]:
    """A batch cut from `pad`ded pictures and mirrored where `flip`, in one gather; channels_last in memory."""
    height, width = (side - 2 * padding for side in padded.shape[1:3])
    down, across = (torch.arange(side, device=padded.device) for side in (height, width))
    rows = crop[:, :1] + down
    columns = crop[:, 1:] + torch.where(flip[:, None], width - 1 - across, across)
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def resize(x: UInt8[Tensor, "b c h w"], scale: float) -> UInt8[Tensor, "b c _i _j"]:
    """The pictures at `scale` times their height and width, rounded; averaged over what falls together."""
    if scale == 1:
        return x
    size = [round(side * scale) for side in x.shape[2:]]
    small = nn.functional.interpolate(x.float(), size, mode="bilinear", antialias=True)
    return small.round().to(torch.uint8).contiguous(memory_format=torch.channels_last)
