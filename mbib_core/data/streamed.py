"""Labelled pictures that are read when they are needed: names and labels in memory, pixels on disk.

What comes out depends on the rows and numbers that are asked for alone, not on how many processes read.
"""

import os
import signal
import sys
import warnings
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mbib_core.augmentation import Augmentation, resized_crop
from mbib_core.data.longtailed import Images, counted, spans
from mbib_core.data.pictures import Refused, centre, open_picture, read_bytes
from mbib_core.devices import readers_here
from mbib_core.networks.pretrained import MEAN, STD

MARGIN = 8 / 7  # of the shorter side to what is cut from its middle when a network answers: 256 to 224 pixels
PIECE = 32  # pictures that a process reads at a time
# Of ImageNet's training pictures, 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225 of 255: as published networks have them.
CURE = "repair or remove it, or leave it out with --skip-broken"


class Source(Protocol):
    """Where pictures come from: files, or somebody's data set."""

    def picture(self, row: int, side: int) -> Image.Image:
        """The picture of this row in RGB, for a network of `side` x `side` pixels. Raises ValueError that names it."""


class Paths(Sequence[Path]):
    """Names of files below `root`, packed in one array (a million short names: 60 MB), which forked processes share."""

    def __init__(self, names: Iterable[str | bytes], root: str | Path = ""):
        packed, ends = bytearray(), array("q", [0])
        for name in names:
            packed += os.fsencode(name)
            ends.append(len(packed))
        self.packed, self.ends = np.frombuffer(packed, np.uint8), np.frombuffer(ends, np.int64)
        self.root = str(root)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def name(self, row: int) -> str:
        """As it was given."""
        return os.fsdecode(self.packed[self.ends[row] : self.ends[row + 1]].tobytes())

    def __getitem__(self, row: Any) -> Any:
        return Path(self.root, self.name(row))

    def picture(self, row: int, side: int) -> Image.Image:
        path = self[row]
        try:
            return open_picture(read_bytes(path), (side, side))
        except Refused as reason:
            raise ValueError(f"{path} {reason}") from None

    def there(self) -> np.ndarray:
        """A mask of the files that are there and not empty; none of them is opened."""

        def look(span: slice) -> list[bool]:
            found = []
            for row in range(span.start, span.stop):
                try:
                    found.append(os.stat(os.path.join(self.root, self.name(row))).st_size > 0)
                except (OSError, ValueError):
                    found.append(False)
            return found

        with ThreadPoolExecutor(8) as pool:  # on a disk of the network each answer takes its time
            return np.array([is_there for part in pool.map(look, spans(len(self), 1000)) for is_there in part], bool)


@dataclass(frozen=True)
class Streamed:
    """N labelled pictures in a `source`, read as `side` x `side` pixels: `Images` of what is not in memory.

    `rows` are their places in the source. Outside of training a picture's shorter side becomes `margin` times `side`,
    and the middle is cut out. A picture that cannot be read ends a run with a sentence; with `skip_broken` it is named
    and passed over: in training the next one of its class takes its place, elsewhere it is left out; None is for
    `checking`, which wants missing files, too. Networks normalise by the mean and standard deviation of ImageNet,
    `MEAN` and `STD`.
    """

    source: Source
    y: Int[Tensor, " n"]
    side: int
    rows: Int[Tensor, " n"]
    margin: float = MARGIN
    skip_broken: bool | None = False
    told: set[str] = field(default_factory=set, compare=False)  # broken pictures are named once

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a picture."""
        return self.side, self.side

    @property
    def x(self) -> Tensor:
        raise TypeError("these pictures are not in memory: `take(rows)` reads some of them, `chunks(n)` all in turn")

    def subset(self, rows: Tensor) -> "Streamed":
        """The pictures at these positions, or where a mask is true; none is read."""
        return replace(self, y=self.y[rows], rows=self.rows[rows])

    def labelled(self, y: Int[Tensor, " n"]) -> "Streamed":
        """The same pictures with these labels."""
        return replace(self, y=y)

    def take(self, rows: Tensor) -> Images:
        """The pictures at these positions, or where a mask is true, read as they are outside of training."""
        return Images(*map(torch.cat, zip(*self.subset(rows).chunks(PIECE), strict=True)))

    def chunks(self, batch: int, *, even: bool = False) -> Iterator[Images]:
        """The pictures in order, as `spans` cuts them, read as they are outside of training. What is left out as broken
        is missing from its chunk."""
        n, plan = len(self.y), every(len(self.y))
        yield from Reader(self, most=n).read([plan[span] for span in spans(n, batch, even=even)])

    def statistics(self) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
        """What the network normalises by: ImageNet's mean and standard deviation."""
        return torch.tensor(MEAN), torch.tensor(STD)

    @cached_property
    def _by_class(self) -> tuple[Tensor, Tensor]:
        """Positions class by class, and where each class begins."""
        counts = self.y.bincount()
        return self.y.argsort(stable=True), counts.cumsum(0) - counts

    def after(self, position: int) -> Iterator[int]:
        """The positions of the other pictures of its class, the one behind `position` first."""
        order, starts = self._by_class
        label = int(self.y[position])
        own = order[starts[label] :][: int((self.y == label).sum())].tolist()
        at = own.index(position)
        yield from own[at + 1 :] + own[:at]


def streamed(source: Source, labels: Any, side: int, *, skip_broken: bool | None = False) -> Streamed:
    """All pictures of a `source` with their labels [N]."""
    y = torch.as_tensor(labels, dtype=torch.int64)
    return Streamed(source, y, side, torch.arange(len(y)), skip_broken=skip_broken)


def joined(parts: Sequence[Any]) -> Any:
    """Several parts of a data set as one: all in memory, or all of one source."""
    if isinstance(parts[0], Images):
        return Images(*map(torch.cat, zip(*parts, strict=True)))
    return replace(parts[0], y=torch.cat([part.y for part in parts]), rows=torch.cat([part.rows for part in parts]))


def every(n: int) -> np.ndarray:
    """A plan of all `n` pictures in order, as they are outside of training."""
    return np.stack([np.arange(n), np.zeros(n, np.int64), np.zeros(n, np.int64)], 1)


class Reader:
    """Reads pictures in the order of a plan, by as many processes as `devices.readers` says.

    A plan is int64 [n, 3]: the position of a picture, whether it is mirrored, and the number that decides its crop and
    colours. With an `augmentation` pictures are read for training; `kept` processes wait for the next plan. At most
    `most` pictures are read at once.
    """

    def __init__(
        self,
        images: Streamed,
        augmentation: Augmentation | None = None,
        *,
        most: int,
        kept: bool = False,
        device: torch.device | None = None,
    ):
        self.images, self.device, self.pieces = images, device or torch.device("cpu"), list[np.ndarray]()
        pieces = -(-most // PIECE)
        n = min(readers_here(), pieces) if pieces > 1 else 0
        self.reading: Any = None
        self.kept, self.training = kept, augmentation is not None
        self.loader: Any = DataLoader(
            _Work(images, augmentation),
            batch_sampler=self.pieces,  # type: ignore[arg-type]
            num_workers=n,
            collate_fn=_as_it_is,
            worker_init_fn=_leave_signals,
            persistent_workers=kept and n > 0,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # a loader draws a seed, which must not come from the run's
        )

    def read(self, plans: Sequence[np.ndarray]) -> Iterator[Images]:
        """The pictures of each plan, in channels_last. Raises ValueError that names a picture which cannot be read,
        OSError if a process died."""
        lengths = [-(-len(plan) // PIECE) for plan in plans]
        self._begin(plans)
        try:
            for length in lengths:
                parts = [self._next() for _ in range(length)]
                parts = parts or [Images(*_stacked([], [], self.images.size))]
                x, y = ([v.to(self.device, non_blocking=True) for v in kind] for kind in zip(*parts, strict=True))
                yield Images(torch.cat(x).permute(0, 3, 1, 2), torch.cat(y))
        finally:
            if not self.kept:
                self.close()

    def unreadable(self) -> Iterator[list[tuple[int, str]]]:
        """Reads all pictures: of each `PIECE` of them the positions of those that cannot be read, and why, in words
        that name them. Raises OSError if a process died."""
        self._begin([every(len(self.images.y))])
        try:
            for _ in self.pieces:
                yield self._piece()[2]
        finally:
            self.close()

    def close(self) -> None:
        """Ends the processes, which torch does only when nothing holds them any more, not even a traceback."""
        getattr(self.reading, "_shutdown_workers", lambda: None)()
        self.loader = self.reading = None

    def _begin(self, plans: Sequence[np.ndarray]) -> None:
        self.pieces[:] = [plan[start : start + PIECE] for plan in plans for start in range(0, len(plan), PIECE)]
        self.reading = iter(self.loader)

    def _piece(self) -> tuple[Tensor, Tensor, list[tuple[int, str]]]:
        try:
            return next(self.reading)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise OSError(
                f"a process that reads pictures was ended ({str(error).splitlines()[0]}): try fewer --workers, close "
                f"what else uses the memory, or give more shared memory (docker: --shm-size)"
            ) from None

    def _next(self) -> Images:
        x, y, broken = self._piece()
        for _, words in broken:
            if not self.images.skip_broken:
                raise ValueError(f"{words}; {CURE}")
            if words not in self.images.told:
                self.images.told.add(words)
                print(f"mbib: warning: passed over as broken: {words}", file=sys.stderr)
        if broken and not len(y) and self.training:
            raise ValueError(
                f"{broken[-1][1]}, and so is every other picture of its class: repair some, or remove the class"
            )
        return Images(x, y)


class _Work(Dataset):
    """What one process does at a time: a piece of a plan in, pixels [n, h, w, 3], labels [n] and what is broken out."""

    def __init__(self, images: Streamed, augmentation: Augmentation | None):
        self.images, self.augmentation = images, augmentation
        self.last: tuple[int, Image.Image] | None = None

    def __getitems__(self, plan: np.ndarray) -> tuple[Tensor, Tensor, list[tuple[int, str]]]:
        pixels, labels, broken = [], [], list[tuple[int, str]]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of what it reads nevertheless
            for position, flip, number in plan.tolist():
                picture = self._picture(position, broken)
                if picture is None and self.augmentation:
                    if not self.images.skip_broken:
                        break
                    others = (self._picture(other, broken) for other in self.images.after(position))
                    picture = next((other for other in others if other), None)
                    if picture is None:
                        return *_stacked([], [], self.images.size), broken
                if picture is not None:
                    pixels.append(np.asarray(self._prepared(picture, bool(flip), number)))
                    labels.append(int(self.images.y[position]))
        return *_stacked(pixels, labels, self.images.size), broken

    def _picture(self, position: int, broken: list[tuple[int, str]]) -> Image.Image | None:
        """None, with the reason among the `broken`, if it cannot be read; two views of a picture read it once."""
        if self.last is None or self.last[0] != position:
            try:
                row = int(self.images.rows[position])
                self.last = position, self.images.source.picture(row, self.images.side)
            except ValueError as error:
                broken.append((position, str(error)))
                return None
        return self.last[1]

    def _prepared(self, picture: Image.Image, flip: bool, number: int) -> Image.Image:
        images, augmentation = self.images, self.augmentation
        if augmentation is None or not augmentation.resized:
            return centre(picture, images.size, images.margin)
        return resized_crop(picture, images.side, number, flip=flip, jitter=augmentation.jitter)


def _stacked(pixels: list[np.ndarray], labels: list[int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    x = np.stack(pixels) if pixels else np.zeros((0, *size, 3), np.uint8)
    return torch.from_numpy(x), torch.tensor(labels, dtype=torch.int64)


def _as_it_is(found: Any) -> Any:
    return found


def _leave_signals(_: int) -> None:
    """Ctrl-C and SIGTERM are the main process's to answer, which then ends those that read."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def whereabouts(names: list[str]) -> str:
    """What to do where none of the files of a list is there."""
    if os.sep == "/" and all("\\" in name for name in names):
        return "write / where these paths have \\, which divides folders on Windows alone"
    return "name the folder where they lie with --root, or bring them there"


def leave_out_missing(images: Streamed, where: str) -> Streamed:
    """`images` without the files that are missing or empty, if broken ones are skipped; else, or if nothing is left,
    ValueError that names the first of them. No file is opened: `mbib check` does that."""
    if images.skip_broken is None:
        return images
    paths = images.source
    assert isinstance(paths, Paths)
    there = torch.from_numpy(paths.there())[images.rows]
    missing = (~there).nonzero().flatten().tolist()
    if not missing:
        return images
    some = [f"{paths[int(images.rows[i])]}" for i in missing[:5]]
    named = "\n  ".join([*some, f"and {len(missing) - 5} more"] if len(missing) > 5 else some)
    what = f"missing or empty: {len(missing)} of the {counted(len(there), 'picture')} in {where}"
    if len(missing) == len(there):
        raise ValueError(f"{what}; {whereabouts(some)}:\n  {named}")
    if not images.skip_broken:
        raise ValueError(
            f"{what}; name the folder where they lie with --root, bring them there, or leave them out with "
            f"--skip-broken:\n  {named}"
        )
    print(f"mbib: warning: left out, {what}:\n  {named}", file=sys.stderr)
    return images.subset(there)
