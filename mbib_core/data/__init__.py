"""Long-tailed data sets by name: `load("glyphs-lt")`, `load("folder:PATH")`, `load("list:PATH")` ..."""

import os
from pathlib import Path

from mbib_core.data.cifar import cifar100_lt
from mbib_core.data.folders import load_folder
from mbib_core.data.foreign import from_dataset
from mbib_core.data.glyphs import glyphs_lt
from mbib_core.data.lists import PUBLISHED, load_lists, load_table
from mbib_core.data.longtailed import (
    Images,
    LongTailed,
    also_in,
    channel_statistics,
    describe,
    first_of_each_class,
    from_arrays,
    long_tailed_counts,
    long_tailed_indices,
    shots,
)
from mbib_core.data.pictures import SIDE, checked_size
from mbib_core.files import cache_folder, expand
from mbib_core.settings import PLACES

__all__ = [
    "Images",
    "LongTailed",
    "also_in",
    "channel_statistics",
    "describe",
    "first_of_each_class",
    "from_arrays",
    "from_dataset",
    "load",
    "long_tailed_counts",
    "long_tailed_indices",
    "shots",
]


NAMES = ("glyphs-lt", "cifar100-lt", "folder:PATH", "csv:FILE", *(f"{kind}:PATH" for kind in ("list", *PUBLISHED)))


def load(
    name: str,
    *,
    imbalance: float = 100,
    root: str | Path | None = None,
    size: int = SIDE,
    skip_broken: bool | None = False,
    stream: bool = False,
) -> LongTailed:
    """The long-tailed data set `name`: "glyphs-lt" (embedded), "cifar100-lt", "folder:PATH", or one that is listed.

    A folder is read by `folders.load_folder` at `size` pixels a side, without its broken files if `skip_broken`; a
    relative PATH starts from `root`, if given. `imbalance` does not apply: the folder's own counts are the long tail.
    With `stream` its pictures are read when they are needed. Those of "list:FOLDER", "imagenet-lt:FOLDER",
    "inaturalist18:FOLDER" and "places-lt:FOLDER" (see `lists.load_lists`) and of "csv:FILE" (`lists.load_table`) always
    are; their paths start from `root`, if given, else from where the list lies. Streamed with `skip_broken` None,
    missing files are neither refused nor left out: that is for `checking.unreadable`.

    For CIFAR-100-LT `root` is the folder that holds (or gets) `cifar-100-python`, torchvision's layout; without it
    $MBIB_DATA or the user's cache folder. Its validation pictures are all training pictures of CIFAR-100 that the
    long-tailed set leaves unused (class 0 has none).
    Raises ValueError on an unknown name, imbalance or size, FileNotFoundError if the data are missing and cannot be
    downloaded, ValueError if a file is not the published one, OSError if a ~ leads to no home directory.
    """
    if not isinstance(name, str):
        raise TypeError(f"a data set is called by its name, such as 'glyphs-lt' or 'folder:PATH', not {name!r}")
    size = checked_size(size)
    if name.startswith("folder:"):
        if name == "folder:":
            raise ValueError("folder: names no folder: write folder:PATH")
        path = expand(root or "") / expand(name.removeprefix("folder:"))
        return load_folder(path, size=size, skip_broken=skip_broken, stream=stream)
    kind, colon, path_of = name.partition(":")
    if colon and kind in PLACES:
        if not path_of:
            raise ValueError(f"{kind}: names no path: write {kind}:PATH")
        given = {"root": root, "size": size, "skip_broken": skip_broken}
        return load_table(path_of, **given) if kind == "csv" else load_lists(path_of, kind=kind, **given)  # type: ignore
    if name not in NAMES:
        here = Path(name)
        hint = f"; for the folder of that name write folder:{name}" if here.is_dir() else ""
        hint = hint or (f"; for the table of that name write csv:{name}" if here.is_file() else "")
        raise ValueError(f"no data set is called {name!r}: there are {', '.join(NAMES)}{hint}")
    if size != SIDE:
        raise ValueError(
            f"{name} has pictures of {SIDE} x {SIDE} pixels: a size of {size} is for folder:PATH and lists"
        )
    try:
        imbalance = float(imbalance)
    except (TypeError, ValueError):
        raise ValueError(
            f"imbalance is {imbalance!r}: it must be a number, the largest count over the smallest"
        ) from None
    if name == "glyphs-lt":
        return glyphs_lt(imbalance)
    return cifar100_lt(imbalance, expand(root or os.environ.get("MBIB_DATA") or cache_folder() / "data"))
