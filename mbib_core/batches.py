"""From images on the device to batches: order, crops and flips drawn from seed and epoch, cut in one gather."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor, nn

from mbib_core.data.longtailed import Images


class Batch(NamedTuple):
    """What a step is made from: B images and their labels, on the device; and another batch where a stage wants two."""

    x: UInt8[Tensor, "b 3 h w"]
    y: Int[Tensor, " b"]
    second: "Batch | None" = None


class Draws(NamedTuple):
    """One epoch's choices for N images: which ones, in order; the corner of each crop; which are mirrored."""

    rows: Int[Tensor, " n"]
    crops: Int[Tensor, "n 2"]
    flips: Bool[Tensor, " n"]


class Source:
    """Training images on the device, padded once; `stream` cuts an epoch's batches from them."""

    def __init__(self, images: Images, padding: int, device: torch.device):
        self.labels, self.padding, self.device = images.y, padding, device
        self.x, self.y = pad(images.x.to(device), padding), images.y.to(device)

    def stream(
        self,
        draws: Draws,
        batch: int,
        *,
        second: Draws | None = None,
        scale: float = 1.0,
        rank: int = 0,
        ranks: int = 1,
    ) -> Iterator[Batch]:
        """The batches of one epoch, of images at `scale` times their size; every `ranks`-th image of each, from `rank`.
        With `second` draws, each has a batch of those beside it.

        All draws move to the device at once, so that no step waits. A last batch that has a single image for some rank
        is left out: batch norm needs two.
        """
        n = len(draws.rows)
        all_draws = [[part.to(self.device) for part in one] for one in (draws, second) if one is not None]
        for start in range(0, n, batch):
            stop = min(start + batch, n)
            if (stop - start) // ranks > 1:
                own = slice(start + rank, stop, ranks)
                first, *other = (
                    Batch(
                        resize(augment(self.x, rows[own], crops[own], flips[own], self.padding), scale),
                        self.y[rows[own]],
                    )
                    for rows, crops, flips in all_draws
                )
                yield first._replace(second=other[0]) if other else first


def draw(
    labels: Int[Tensor, " n"],
    *,
    seed: int,
    epoch: int,
    q: float | Mapping[float, float] = 1.0,
    padding: int = 4,
    flip: bool = True,
    stream: int = 0,
) -> Draws:
    """One epoch's choices, drawn on the CPU from (seed, epoch) alone: the same on every device, nothing to save for a
    resume.

    q = 1 takes each image once, in a fresh order; any other q draws as many with replacement, so that class i has the
    share n_i^q of them (0: every class equally often; Kang et al. 2020). {1: 0.7, 0: 0.3} draws seven tenths by q = 1
    and the rest by q = 0. `stream` 1, 2, ... are other draws.
    """
    random, n = torch.Generator().manual_seed(seed_of(seed, epoch, stream)), len(labels)
    if q == 1:
        rows = torch.randperm(n, generator=random)
    else:
        counts = labels.bincount().double()
        if isinstance(q, Mapping):
            parts = [part * counts ** (power - 1) / (counts**power).sum() for power, part in q.items()]
            share = torch.stack(parts).sum(0)
        else:
            share = counts ** (q - 1)
        rows = torch.multinomial(share[labels], n, replacement=True, generator=random)
    crops = torch.randint(0, 2 * padding + 1, (n, 2), generator=random)
    return Draws(rows, crops, torch.rand(n, generator=random, dtype=torch.float32) < 0.5 * flip)


def seed_of(seed: int, epoch: int, stream: int = 0) -> int:
    """The seed of a generator for one epoch's choices of one kind."""
    return seed * 1_000_003 + epoch + (stream << 56)


def pad(x: UInt8[Tensor, "n c h w"], padding: int) -> UInt8[Tensor, "n i j c"]:
    """Images with a black border of `padding` pixels, channels last: what `augment` cuts from."""
    return nn.functional.pad(x, (padding,) * 4).permute(0, 2, 3, 1).contiguous()


def augment(
    padded: UInt8[Tensor, "n i j c"],
    index: Int[Tensor, " b"],
    crop: Int[Tensor, "b 2"],
    flip: Bool[Tensor, " b"],
    padding: int,
) -> UInt8[Tensor, "b c h w"]:
    """A batch cut from `pad`ded images and mirrored where `flip`, in one gather; channels_last in memory."""
    height, width = (side - 2 * padding for side in padded.shape[1:3])
    down, across = (torch.arange(side, device=padded.device) for side in (height, width))
    rows = crop[:, :1] + down
    columns = crop[:, 1:] + torch.where(flip[:, None], width - 1 - across, across)
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def resize(x: UInt8[Tensor, "b c h w"], scale: float) -> UInt8[Tensor, "b c _i _j"]:
    """The images at `scale` times their height and width, rounded; averaged over what falls together."""
    if scale == 1:
        return x
    size = [round(side * scale) for side in x.shape[2:]]
    small = nn.functional.interpolate(x.float(), size, mode="bilinear", antialias=True)
    return small.round().to(torch.uint8).contiguous(memory_format=torch.channels_last)
