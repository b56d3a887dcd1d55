"""Long-tailed data sets by name: `load("glyphs-lt")`, `load("cifar100-lt")`, `load("folder:PATH")`."""

import os
from pathlib import Path

from mbib_core.data.cifar import cifar100_lt
from mbib_core.data.folders import load_folder
from mbib_core.data.glyphs import glyphs_lt
from mbib_core.data.longtailed import (
    Images,
    LongTailed,
    channel_statistics,
    first_of_each_class,
    from_arrays,
    long_tailed_counts,
    long_tailed_indices,
    shots,
)
from mbib_core.files import cache_folder

__all__ = [
    "Images",
    "LongTailed",
    "channel_statistics",
    "first_of_each_class",
    "from_arrays",
    "load",
    "long_tailed_counts",
    "long_tailed_indices",
    "shots",
]


NAMES = ("glyphs-lt", "cifar100-lt", "folder:PATH")


def load(name: str, *, imbalance: float = 100, root: str | Path | None = None, size: int = 32) -> LongTailed:
    """The long-tailed data set `name`: "glyphs-lt" (embedded), "cifar100-lt", or "folder:PATH".

    A folder is read by `folders.load_folder` at `size` pixels a side; a relative PATH starts from `root`, where it is
    given, and `imbalance` does not apply: the folder's own counts are the long tail.

    `root` is the folder that holds (or gets) `cifar-100-python`, torchvision's layout; without it $MBIB_DATA or the
    user's cache folder. Validation pictures come from outside the training set: for CIFAR-100-LT all training
    pictures of CIFAR-100 that the long-tailed set leaves unused (class 0 has none).
    Raises ValueError on an unknown name or imbalance, FileNotFoundError if the data are missing and cannot be
    downloaded, ValueError if a file is not the published one.
    """
    if name == "glyphs-lt":
        return glyphs_lt(imbalance)
    if name == "cifar100-lt":
        return cifar100_lt(imbalance, Path(root or os.environ.get("MBIB_DATA") or cache_folder() / "data"))
    if name.startswith("folder:"):
        if name == "folder:":
            raise ValueError("folder: names no folder: write folder:PATH")
        return load_folder(Path(root or "") / Path(name.removeprefix("folder:")).expanduser(), size=size)
    hint = f"; for the folder of that name write folder:{name}" if Path(name).is_dir() else ""
    raise ValueError(f"no data set is called {name!r}: there are {', '.join(NAMES)}{hint}")
