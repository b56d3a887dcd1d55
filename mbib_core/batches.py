"""From images to batches: order, crops and flips drawn from seed and epoch; images on the device are cut in one gather,
others are read by processes of their own."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from mbib_core.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    Mixing,
    blend,
    cut_out,
    draw_mixing,
    draw_operations,
    operate,
    paste,
    relabelled,
)
from mbib_core.data.longtailed import Images
from mbib_core.data.streamed import Reader, Streamed


class Mixed(NamedTuple):
    """The labels of the images that a batch's were mixed with, and the share that its own labels have."""

    y: Int[Tensor, " b"]
    share: Float[Tensor, ""]


class Batch(NamedTuple):
    """What a step is made from: B images and their labels, on the device; another batch where a stage wants two; and
    what the images were mixed with. Of a batch that is spread over processes, `whole` is the number of all images."""

    x: UInt8[Tensor, "b 3 h w"]
    y: Int[Tensor, " b"]
    second: "Batch | None" = None
    mixed: Mixed | None = None
    whole: int = 0


class Draws(NamedTuple):
    """One epoch's choices for N images: which ones, in order; the corner of each crop; which are mirrored; and, where
    the augmentation has them, operations, centres of holes, what is mixed with what, and the number that decides the
    crop and colours of a picture that is read."""

    rows: Int[Tensor, " n"]
    crops: Int[Tensor, "n 2"]
    flips: Bool[Tensor, " n"]
    operations: Int[Tensor, "n 2"] | None = None
    holes: Float[Tensor, "n 2"] | None = None
    mixing: Mixing | None = None
    numbers: Int[Tensor, " n"] | None = None

    def to(self, device: torch.device) -> "Draws":
        """All that is used there on the device; the operations stay, images are sorted by them on the CPU."""
        mixing = self.mixing and Mixing(self.mixing.kind, *(part.to(device) for part in self.mixing[1:]))
        rows, crops, flips = (part.to(device) for part in self[:3])
        holes = self.holes if self.holes is None else self.holes.to(device)
        return Draws(rows, crops, flips, self.operations, holes, mixing, self.numbers)


class Source:
    """Training images on the device, padded once; `stream` cuts an epoch's batches from them."""

    def __init__(self, images: Images, padding: int, device: torch.device):
        self.labels, self.padding, self.device = images.y, padding, device
        self.x, self.y = pad(images.x.to(device), padding), images.y.to(device)
        self.counts = images.y.bincount().to(device)

    def close(self) -> None:
        """Nothing: there is no process to end."""

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

        All draws move to the device at once, so that no step waits. Batch norm needs two images: a last batch of one is
        left out, and one that has less than two for some rank goes to all of them whole.
        """
        n = len(draws.rows)
        draws, second = draws.to(self.device), second and second.to(self.device)
        for number, (own, whole) in enumerate(_shares(n, batch, rank, ranks)):
            yield self.batch(draws, own, number, second=second, scale=scale)._replace(whole=whole)

    def batch(
        self,
        draws: Draws,
        at: slice | Int[Tensor, " b"],
        number: int | Int[Tensor, " 1"],
        *,
        second: Draws | None = None,
        scale: float = 1.0,
    ) -> Batch:
        """The images at the places `at` of an order whose draws are on the device, where they are of batch `number`.

        Given as tensors, neither is looked at: what is captured once cuts any batch.
        """
        first = self._mixed(draws, at, number) if draws.mixing else self._cut(draws, at)
        other = second and self._cut(second, at)
        other = other and other._replace(x=resize(other.x, scale))
        return first._replace(x=resize(first.x, scale), second=other)

    def _cut(self, draws: Draws, at: slice | Int[Tensor, " b"]) -> Batch:
        """The images at these places of the order, not mixed."""
        x = augment(self.x, draws.rows[at], draws.crops[at], draws.flips[at], self.padding)
        if draws.operations is not None:
            x = operate(x, draws.operations[at])
        if draws.holes is not None:
            x = cut_out(x, draws.holes[at])
        return Batch(x, self.y[draws.rows[at]])

    def _mixed(self, draws: Draws, at: slice | Int[Tensor, " b"], number: int | Int[Tensor, " 1"]) -> Batch:
        """The images at these places, mixed with their partners, which are cut here whatever process has them."""
        assert draws.mixing is not None
        kind, partners, shares, centres = draws.mixing
        share, (x, y, *_), (x_other, y_other, *_) = (
            shares[number].view(()),
            self._cut(draws, at),
            self._cut(draws, partners[at]),
        )
        if kind == "cutmix":
            x, share = paste(x, x_other, share, centres[number].view(2))
        else:
            x = blend(x, x_other, share)
        if kind == "remix":
            y, y_other = relabelled(y, y_other, share, self.counts)
        return Batch(x, y, mixed=Mixed(y_other, share))


class FileSource:
    """Training images that are not in memory: `stream` reads an epoch's batches as `Source.stream` cuts them.

    Bytes come from the draws alone, with any number of processes that read, and of ranks.
    """

    def __init__(self, images: Streamed, augmentation: Augmentation, device: torch.device):
        self.labels = images.y
        self.reader = Reader(images, augmentation, most=len(images.y), kept=True, device=device)

    def close(self) -> None:
        """Ends the processes that read."""
        self.reader.close()

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
        """See `Source.stream`. Raises ValueError that names a picture which cannot be read."""
        views = [draws] if second is None else [draws, second]
        plan = np.stack([_plan(view) for view in views], 1)  # [n, views, 3]: two views of a picture read it once
        shares = _shares(len(plan), batch, rank, ranks)
        read = self.reader.read([plan[own].reshape(-1, 3) for own, _ in shares])
        for (x, y), (_, whole) in zip(read, shares, strict=True):
            first, *other = (Batch(resize(x[i :: len(views)], scale), y[i :: len(views)]) for i in range(len(views)))
            yield first._replace(second=other[0] if other else None, whole=whole)


def source_of(
    images: Images | Streamed, augmentation: Augmentation, padding: int, device: torch.device
) -> Source | FileSource:
    """Where the batches of a stage come from: the device's memory, or files."""
    if isinstance(images, Streamed):
        return FileSource(images, augmentation, device)
    return Source(images, padding, device)


def _shares(n: int, batch: int, rank: int, ranks: int) -> list[tuple[slice, int]]:
    """Which of N places in the order each batch takes on this rank, and the `Batch.whole` of it."""
    spans = [(start, min(start + batch, n)) for start in range(0, n, batch)]
    spread = {start: ranks > 1 and (stop - start) // ranks > 1 for start, stop in spans}
    return [
        (slice(start + rank, stop, ranks), stop - start) if spread[start] else (slice(start, stop), 0)
        for start, stop in spans
        if stop - start > 1
    ]


def _plan(draws: Draws) -> np.ndarray:
    """The draws as `streamed.Reader` takes them."""
    numbers = torch.zeros_like(draws.rows) if draws.numbers is None else draws.numbers
    return torch.stack([draws.rows, draws.flips.long(), numbers], 1).numpy()


def draw(
    labels: Int[Tensor, " n"],
    *,
    seed: int,
    epoch: int,
    q: float | Mapping[float, float] = 1.0,
    padding: int = 4,
    flip: bool = True,
    stream: int = 0,
    augmentation: Augmentation = AUGMENTATIONS["crop+flip"],
    batch: int = 128,
) -> Draws:
    """One epoch's choices, drawn on the CPU from (seed, epoch) alone: the same on every device, nothing to save for a
    resume.

    q = 1 takes each image once, in a fresh order; any other q draws as many with replacement, so that class i has the
    share n_i^q of them (0: every class equally often; Kang et al. 2020). {1: 0.7, 0: 0.3} draws seven tenths by q = 1
    and the rest by q = 0. `stream` 1, 2, ... are other draws. What the `augmentation` adds comes last, so that order,
    crops and flips are those of a run without it; images are mixed within a `batch`.
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
    flips = torch.rand(n, generator=random, dtype=torch.float32) < 0.5 * flip
    operations = draw_operations(augmentation.policy, n, random) if augmentation.policy else None
    holes = torch.rand(n, 2, generator=random, dtype=torch.float32) if augmentation.cutout else None
    mixing = draw_mixing(augmentation.mix, n, batch, random) if augmentation.mix else None
    numbers = torch.randint(2**32, (n,), generator=random) if augmentation.resized else None
    return Draws(rows, crops, flips, operations, holes, mixing, numbers)


def seed_of(seed: int, epoch: int, stream: int = 0) -> int:
    """The seed of a generator for one epoch's choices of one kind: they differ in the low 32 bits, the only ones that
    torch's generator on a CPU takes."""
    return (seed * 1_000_003 + epoch) ^ (0x9E3779B9 * stream)


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
