"""Reads every picture of a data set once, and says which are missing and which are broken."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mbib_core.data.longtailed import LongTailed
from mbib_core.data.streamed import PIECE, Paths, Reader, Streamed


class Unreadable(NamedTuple):
    """A picture that cannot be read: its name as the data set lists it, the file, whether that is `missing` (or empty),
    and what is wrong, in words that go behind the file's name."""

    name: str
    file: Path
    missing: bool
    problem: str


def unreadable(data: LongTailed) -> Iterator[tuple[int, list[Unreadable]]]:
    """Piece by piece, how many pictures were read and which of them cannot be, by the processes that `devices.readers`
    says.

    `data` is of files that are streamed, as `load(name, stream=True, skip_broken=None)` gives it: with those that are
    missing. Raises OSError if a process that reads died.
    """
    parts = (data.train, data.validation, data.test)
    for images in parts:
        assert isinstance(images, Streamed)
        assert isinstance(images.source, Paths)
        left = len(images.y)
        for broken in Reader(images, most=left).unreadable():
            rows = [int(images.rows[position]) for position, _ in broken]
            yield (
                min(PIECE, left),
                [_told(images.source, row, words) for row, (_, words) in zip(rows, broken, strict=True)],
            )
            left -= PIECE


def _told(paths: Paths, row: int, words: str) -> Unreadable:
    file = paths[row]
    try:
        missing = not os.stat(file).st_size
    except (OSError, ValueError):
        missing = True
    return Unreadable(paths.name(row), file, missing, words.removeprefix(f"{file} "))
