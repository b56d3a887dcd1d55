"""What lies in a folder of pictures: which file is a picture, of which class, and in which part."""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mbib_core.text import listed

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "validate", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Files and folders that systems and programs leave, beside those that start with a dot.
CLUTTER = ("thumbs.db", "desktop.ini", "__macosx", "@eadir", "__pycache__")
NO_PICTURES = re.compile(  # suffixes
    r"\.(7z|aae|avi|csv|db|docx?|gz|html?|ini|ipynb|jsonl?|lnk|log|mat|md|mov|mp4|np[yz]|parquet|pdf|pkl|pth?|py|rar|rst|"
    r"sh|svg|tar|tsv|txt|xlsx?|xml|ya?ml|zip)",
    re.IGNORECASE,
)
TABLES = (".csv", ".tsv", ".parquet", ".xls", ".xlsx")


class File(NamedTuple):
    """One picture file: its class, the part it lies in (None: still to be split), and what was read of it."""

    path: Path
    label: str
    part: str | None
    digest: str = ""
    pixels: UInt8[np.ndarray, "3 h w"] = np.zeros((3, 0, 0), np.uint8)


class Folder(NamedTuple):
    """What lies in a folder, `depth` levels below the one that was named, apart from its sub-folders."""

    path: Path
    depth: int
    pictures: list[Path]
    others: list[Path]


def visible(folder: Path) -> list[Path]:
    """What lies in `folder`, sorted, without hidden files. Raises OSError with a sentence if it cannot be read."""
    try:
        inside = list(folder.iterdir())
    except OSError as error:
        raise OSError(f"the folder {folder} cannot be read ({error.strerror}): change who may read it") from None
    return sorted(p for p in inside if not p.name.startswith(".") and p.name.lower() not in CLUTTER)


def files_of(root: Path) -> tuple[list[File], list[str]]:
    """Every file of every class, and what is to be said of the layout. Raises ValueError if it is not known."""
    folders = [p for p in visible(root) if p.is_dir()]
    named = {p: PARTS[p.name.lower()] for p in folders if p.name.lower() in PARTS}
    parts: dict[str, Path] = {}
    for folder, part in named.items():
        if any(p.is_dir() for p in visible(folder)):  # a class may be called "train"
            if part in parts:
                raise ValueError(f"{parts[part]} and {folder} are both the {part} part: rename one of them")
            parts[part] = folder
    if not parts:
        if len(named) == len(folders) and "train" in named.values():
            raise ValueError(_without_classes(next(p for p in named if named[p] == "train"), root))
        return _class_files(root, None)
    if "train" not in parts:
        first = next(iter(parts.values()))
        raise ValueError(
            f"{root} has no train/ beside {first.name}/, which holds class folders of its own: put the class folders "
            f"for training into {root / 'train'}"
        )
    if len(parts) == 1:
        flat = [p for p in named if p not in parts.values()]
        why = f"{flat[0]} has no class folders, so its pictures have no labels" if flat else "no test/ lies beside it"
        raise ValueError(
            f"write folder:{parts['train']} to train on it alone, with a validation and a test part split off its "
            f"pictures: {why}"
        )
    _say_left_out(root, [p for p in visible(root) if p not in parts.values()])
    whole = len(parts) == 3
    files, notes = _class_files(parts.pop("train"), "train" if whole else None, inside_part=True)
    known = {file.label for file in files}
    for part, folder in parts.items():
        held, _ = _class_files(folder, part, inside_part=True)
        if extra := [file for file in held if file.label not in known]:
            raise ValueError(f"{extra[0].path.parent} is a class without a training picture: add some, or take it out")
        files += held
    return files, notes


def _class_files(folder: Path, part: str | None, inside_part: bool = False) -> tuple[list[File], list[str]]:
    """The files of the class folders in `folder`, and what is to be said of them."""
    top, *below = _tree(folder)
    holders = [own for own in below if own.pictures]
    depth = _depth_of_classes(folder, holders, inside_part) if holders else 1
    classes = [own for own in below if own.depth == depth and (own.pictures or depth == 1)]
    if not classes:
        raise ValueError(_without_classes(folder, folder))
    trained = part in (None, "train")
    if len(classes) == 1 and trained:
        if any(p.suffix.lower() in TABLES for p in top.others):
            raise ValueError(_without_classes(classes[0].path, folder))
        raise ValueError(f"{folder} has one class, {classes[0].path.name}: recognition needs two or more sub-folders")
    if trained and (empty := [own.path for own in classes if not own.pictures]):
        raise ValueError(f"{empty[0]} is a class without pictures: add some, or take the folder out")
    taken = {own.path for own in classes}
    above = {parent for path in taken for parent in path.parents}
    unused = [own.path for own in below if own.path not in taken and own.path not in above]
    _say_left_out(folder, [*top.pictures, *(p for own in (top, *below) for p in own.others), *unused])
    _say_hidden(folder)
    said = [f"The classes are the deepest folders, such as {classes[0].path}."] if depth > 1 else []
    return [File(path, own.path.name, part) for own in classes for path in own.pictures], said


def _tree(folder: Path, depth: int = 0, above: tuple[Path, ...] = ()) -> Iterator[Folder]:
    """`folder` and all below it, but links back to a folder above, and `tmp` within a class."""
    inside, above = visible(folder), (*above, folder.resolve())
    pictures: list[Path] = []
    others: list[Path] = []
    folders: list[Path] = []
    for path in inside:
        if path.is_dir():
            (others if depth and path.name.lower() == "tmp" else folders).append(path)
        else:
            (others if _is_no_picture(path) else pictures).append(path)
    yield Folder(folder, depth, pictures, others)
    for path in folders:
        if path.resolve() not in above:
            yield from _tree(path, depth + 1, above)


def _is_no_picture(path: Path) -> bool:
    """By its suffix, and because Pillow agrees."""
    if not NO_PICTURES.fullmatch(path.suffix) and path.name.lower() != "tmp":
        return False
    try:
        Image.open(path).close()
    except Exception:  # as in `read_picture`
        return True
    return False


def _depth_of_classes(folder: Path, holders: list[Folder], inside_part: bool) -> int:
    """How deep the class folders lie in `folder`. Raises ValueError with what to name instead if that is open."""
    depths = {own.depth for own in holders}
    parents = Counter(own.path.parent for own in holders)
    most, n = parents.most_common(1)[0]
    for own in holders:
        if outer := next((other.path for other in holders if other.path in own.path.parents), None):
            raise ValueError(
                f"{own.path} holds pictures inside the class folder {outer}: if {own.path.name} is a class of its own, "
                f"put that folder beside {outer.name}; to leave it out, begin its name with a dot"
            )
    if depths == {1}:
        return 1
    guess = f"did you mean folder:{most}?" if most != folder and n > 1 else "all class folders must lie at one depth"
    if len(depths) > 1:
        low, high = (pick(holders, key=lambda own: own.depth).path for pick in (min, max))
        raise ValueError(f"{folder} has pictures at different depths, in {low} and in {high}: {guess}")
    above = {parent.parent for parent in parents}
    if len(above) == 1 and all(parent.name.lower() in PARTS for parent in parents):
        raise ValueError(f"the pictures in {folder} lie deeper: did you mean folder:{above.pop()}?")
    if len(parents) == 1 and not inside_part:
        if n == 1:
            raise ValueError(_without_classes(holders[0].path, folder))
        raise ValueError(f"the pictures in {folder} lie deeper: {guess}")
    twins = [name for name, k in Counter(own.path.name for own in holders).items() if k > 1]
    if twins:
        first, second, *_ = (own.path for own in holders if own.path.name == twins[0])
        raise ValueError(
            f"{first} and {second} have the same name, so it is open which folders are the classes: {guess}"
        )
    return depths.pop()


def _without_classes(pictures: Path, folder: Path) -> str:
    """What to say where no folder says which class a picture is of."""
    tables = [p for f in (folder, pictures) for p in visible(f) if p.suffix.lower() in TABLES]
    if tables:
        return (
            f"{pictures} has no class folders, from whose names labels are read: if {tables[0].name} has the labels, "
            f"name it as csv:FILE, a table with the columns path and label (saved as CSV), and the folder where paths "
            f"start with --root"
        )
    return f"{pictures} has no class folders: make one for each class, named after it, and copy its pictures there"


def _say_left_out(folder: Path, left: list[Path]) -> None:
    if left:
        names = listed([str(p.relative_to(folder)) for p in left], 3)
        warn(f"left out of {folder}, as no pictures in a class folder: {names}")


def _say_hidden(folder: Path) -> None:
    known = Image.registered_extensions()
    hidden = []
    for own in folder.iterdir():
        with suppress(OSError):
            if own.name.startswith(".") and any(p.suffix.lower() in known for p in own.iterdir()):
                hidden.append(own.name)
    if hidden:
        warn(f"left out of {folder}, since their names begin with a dot: {listed(sorted(hidden))}")


def warn(words: str) -> None:
    print(f"mbib: warning: {words}", file=sys.stderr)
