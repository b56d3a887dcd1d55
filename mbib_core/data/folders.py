"""A long-tailed data set from a folder of pictures: which file is in which part, and how a file becomes a picture."""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from mbib_core.data.longtailed import Images, LongTailed

SIDE = 32  # pixels a side that the CIFAR ResNets take
PARTS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
CLUTTER = ("thumbs.db", "desktop.ini", "__macosx")  # hidden files of other systems, beside those that start with a dot


class Refused(ValueError):
    """Why a file is not taken for a picture, as the end of a sentence that starts with its name."""


class File(NamedTuple):
    """One picture file: its class, the part it lies in (None: still to be split), and what was read of it."""

    path: Path
    label: str
    part: str | None
    digest: str = ""
    pixels: UInt8[np.ndarray, "3 h w"] = np.zeros((3, 0, 0), np.uint8)


def load_folder(path: str | Path, *, size: int = SIDE) -> LongTailed:
    """The pictures in the folder `path`, one sub-folder a class; the folder's own counts are the long tail.

    Class names are the sub-folders' names, sorted. Hidden files are passed over. If the folder holds `train` beside
    `validation` (or `val`) or `test`, these are the parts, each with one sub-folder a class. A part that is not there
    is split off the training pictures of each class: `held_out` says how many. Which ones is decided by a hash of the
    files' bytes: it stays the same on every machine and when a file is renamed, an added picture moves at most one
    other across each border, and copies of a file stay together. Each picture is read by `read_picture`.

    The pictures are `size` pixels a side. The networks are made for 32; they take others, at 224 for 49 times the
    multiply-adds and the memory.

    The data set's `fingerprint` changes when a picture, a class or a part changes. A line on stderr says if the same
    file lies in two parts, or if something beside the class folders was left out.
    Raises FileNotFoundError if there is no such folder, ValueError with a sentence if it has fewer than two classes,
    a class without training pictures, a file that is no whole picture, or nothing to test or validate on.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root.absolute()}: name one with a sub-folder for each class")
    files = _read(list(_files(root)), size)
    files = list(_split(files))
    _warn_of_leaks(root, files)
    classes = sorted({file.label for file in files})
    for part in ("validation", "test"):
        if all(file.part != part for file in files):
            raise ValueError(f"{root} leaves no picture for {part}: a class of three has one for each part")
    train, validation, test = (_images(files, part, classes, size) for part in ("train", "validation", "test"))
    content = sorted((str(file.part), file.label, file.digest) for file in files)
    return LongTailed(
        f"folder:{root.resolve().name}",
        train,
        validation,
        test,
        classes,
        fingerprint=hashlib.sha256(repr((size, content)).encode()).hexdigest()[:8],
    )


def held_out(n: int, missing: Iterable[str] = ("test", "validation")) -> dict[str, int]:
    """How many of a class's `n` different pictures are split off for each part of `missing`, in order.

    15 % each, rounded, but at least one as long as a training picture is left: of 3 to 9 pictures one is for each
    part, of 2 one is for training and one for the test, a single one is for training.
    """
    taken: dict[str, int] = {}
    for part in missing:
        taken[part] = min(max(1, (15 * n + 50) // 100), n - 1 - sum(taken.values()))
    return taken


def read_picture(content: bytes, size: tuple[int, int] = (SIDE, SIDE)) -> UInt8[np.ndarray, "3 h w"]:
    """The picture in the bytes of a file of any format that Pillow knows, as `size` (height, width).

    Turned as its EXIF tag says, cut to its largest centred piece of the right shape, resized with antialiasing.
    Grey becomes RGB, 16-bit grey is scaled by its full range, what is transparent is laid on white, of an animation the
    first frame is taken. Raises Refused if there is no such picture.
    """
    height, width = size
    try:
        file = Image.open(BytesIO(content))
        if file.format == "EPS":
            raise Refused("is a program that draws a picture (EPS): save it as PNG or JPEG")
        file.draft("RGB", (4 * width, 4 * height))  # a large JPEG is decoded at a fraction of its size
        picture = ImageOps.fit(_rgb(ImageOps.exif_transpose(file)), (width, height), Image.Resampling.BICUBIC)
    except Refused:
        raise
    except UnidentifiedImageError:
        raise Refused("is no picture, or of a format that Pillow cannot read") from None
    except Image.DecompressionBombError:
        raise Refused("has too many pixels to be opened safely") from None
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, struct.error, IndexError ...
        raise Refused(f"is a broken picture ({error})") from None
    return np.asarray(picture).transpose(2, 0, 1).copy()


def read_file(path: Path, size: tuple[int, int] = (SIDE, SIDE)) -> tuple[UInt8[np.ndarray, "3 h w"], str]:
    """The picture in the file `path`, and the SHA-256 of its bytes. Raises ValueError with a sentence that names it."""
    if not path.is_file():
        raise ValueError(f"{path} {'is no file' if path.exists() else 'is not there'}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None
    try:
        return read_picture(content, size), hashlib.sha256(content).hexdigest()
    except Refused as reason:
        raise ValueError(f"{path} {reason}") from None


def visible(folder: Path) -> list[Path]:
    """What lies in `folder`, sorted, without hidden files."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in CLUTTER)


def _files(root: Path) -> Iterator[File]:
    """Every file of every class. Raises ValueError if the folder is not laid out as it should be."""
    parts: dict[str, Path] = {}
    for folder in visible(root):
        part = PARTS.get(folder.name.lower())
        if part and folder.is_dir() and any(p.is_dir() for p in visible(folder)):  # a class may be called "train"
            if part in parts:
                raise ValueError(f"{parts[part]} and {folder} are both the {part} part: leave one")
            parts[part] = folder
    if "train" not in parts or len(parts) == 1:
        if parts:
            first = next(iter(parts.values()))
            raise ValueError(
                f"{first} holds folders, so it is a part and no class: beside train/ goes a validation/ or a "
                f"test/, and beside these a train/, each with one sub-folder a class; to have all parts split off, "
                f"name the folder of classes itself"
            )
        yield from _class_files(root, None)
        return
    _say_left_out(root, [p for p in visible(root) if p not in parts.values()])
    known = {p.name for p in visible(parts["train"])}
    for part, folder in parts.items():
        extra = [p for p in visible(folder) if p.is_dir() and p.name not in known]
        if extra:
            raise ValueError(f"{extra[0]} is a class without a training picture: add some, or take it out")
        whole = part != "train" or len(parts) == 3
        yield from _class_files(folder, part if whole else None)


def _class_files(folder: Path, part: str | None) -> Iterator[File]:
    for own in _class_folders(folder, least=1 if part in ("validation", "test") else 2):
        inside = visible(own)
        if not inside and part in (None, "train"):
            raise ValueError(f"{own} is a class without pictures: add some, or take the folder out")
        for path in inside:
            if path.is_dir():
                raise ValueError(f"{path} is a folder within a class: put its pictures into {own} itself")
            yield File(path, own.name, part)


def _class_folders(folder: Path, least: int = 2) -> list[Path]:
    inside = visible(folder)
    folders = [p for p in inside if p.is_dir()]
    if not folders:
        raise ValueError(f"{folder} has no sub-folders: make one for each class, named after it, and sort the pictures")
    if len(folders) < least:
        raise ValueError(f"{folder} has one class, {folders[0].name}: recognition needs two or more sub-folders")
    _say_left_out(folder, [p for p in inside if p not in folders])
    return folders


def _read(files: list[File], size: int) -> list[File]:
    """The files with their pixels and digests. Raises ValueError that names those that are broken, twenty at most."""

    def read(file: File) -> File | str:
        try:
            pixels, digest = read_file(file.path, (size, size))
        except ValueError as error:
            return str(error)
        return file._replace(pixels=pixels, digest=digest)

    with ThreadPoolExecutor() as pool:
        found = list(tqdm(pool.map(read, files), "reading", len(files), unit="picture", disable=None, delay=2))
    broken = [f for f in found if isinstance(f, str)]
    if len(broken) == 1:
        raise ValueError(f"{broken[0]}: repair it or take it out")
    if broken:
        more = f"\n  and {len(broken) - 20} more" if len(broken) > 20 else ""
        raise ValueError("\n  ".join([f"{len(broken)} files to repair or take out:", *broken[:20]]) + more)
    return [f for f in found if isinstance(f, File)]


def _split(files: list[File]) -> Iterator[File]:
    """The files, those without a part given one."""
    missing = [part for part in ("test", "validation") if all(file.part != part for file in files)]
    by_class: dict[str, set[str]] = {}
    for file in files:
        if file.part is None:
            by_class.setdefault(file.label, set()).add(file.digest)
    parts: dict[tuple[str, str], str] = {}
    for label, digests in by_class.items():
        held = held_out(len(digests), missing)
        test, validation = held.get("test", 0), held.get("validation", 0)
        own = ["test"] * test + ["train"] * (len(digests) - test - validation) + ["validation"] * validation
        parts |= {(label, digest): part for digest, part in zip(sorted(digests), own, strict=True)}
    for file in files:
        yield file if file.part else file._replace(part=parts[file.label, file.digest])


def _images(files: list[File], part: str, classes: list[str], size: int) -> Images:
    own = [file for file in files if file.part == part]
    x = np.stack([file.pixels for file in own]) if own else np.zeros((0, 3, size, size), np.uint8)
    number = {label: i for i, label in enumerate(classes)}
    return Images(torch.from_numpy(x), torch.tensor([number[file.label] for file in own], dtype=torch.int64))


def _warn_of_leaks(root: Path, files: list[File]) -> None:
    parts = Counter(digest for digest, _ in {(file.digest, file.part) for file in files})
    leaks = {file.digest: file.path for file in files if parts[file.digest] > 1}
    if leaks:
        _warn(
            f"{len(leaks)} pictures lie in two parts of {root}, as {next(iter(leaks.values()))} does: what was trained "
            f"on is no test"
        )


def _say_left_out(folder: Path, left: list[Path]) -> None:
    if left:
        names = ", ".join(p.name for p in left[:3]) + (" ..." if len(left) > 3 else "")
        _warn(f"{len(left)} things beside the class folders of {folder} are left out: {names}")


def _warn(words: str) -> None:
    print(f"mbib: warning: {words}", file=sys.stderr)


def _rgb(picture: Image.Image) -> Image.Image:
    """Any of Pillow's modes as RGB."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture)
        if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise Refused("has pixels of no known range (32 bits): save it with 8 or 16 bits")
        picture = Image.fromarray((values // 256).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")
