"""A long-tailed data set from a folder of pictures: reads them, and splits off the parts that are not there."""

import hashlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from mbib_core.data.layout import File, files_of, warn
from mbib_core.data.longtailed import Images, LongTailed, check_names, counted
from mbib_core.data.pictures import SIDE, checked_size, read_file
from mbib_core.data.streamed import Paths, Streamed, leave_out_missing, streamed
from mbib_core.files import expand
from mbib_core.text import listed

WORKERS = min(4, os.cpu_count() or 1)


def load_folder(
    path: str | Path, *, size: int = SIDE, skip_broken: bool | None = False, stream: bool = False
) -> LongTailed:
    """The pictures in the folder `path`, one sub-folder a class; the folder's own counts are the long tail.

    Class names are the sub-folders' names, sorted. If the pictures lie deeper, all at one depth and in folders of
    different names (Aves/2700, Plantae/5000), the deepest folders are the classes. Hidden files are passed over, and
    files that are no pictures by their suffix are left out. If the folder holds `train` beside `validation` (or `val`,
    `valid`, `dev`, `eval`) or `test`, these are the parts, each with one sub-folder a class. A part that is not there
    is split off the training pictures of each class: `held_out` says how many. Which ones is decided by a hash of the
    files' bytes: it stays the same on every machine and when a file is renamed, an added picture moves at most one
    other across each border, and copies of a file stay together. Each picture is read by `read_picture`.

    The pictures are `size` pixels a side. The networks are made for 32; they take others, at 224 for 49 times the
    multiply-adds and the memory. With `skip_broken` broken pictures are left out and named.

    With `stream`, or if all pixels would take more than a quarter of the machine's memory (which is said), pictures are
    read when they are needed, as `streamed.Streamed`: then the split goes by a hash of a file's name, copies are not
    looked for, and the fingerprint is that of names and sizes.

    The data set's `fingerprint` changes when a picture, a class or a part changes. Lines on stderr say what was left
    out, and which file lies in two parts or under two class names.
    Raises FileNotFoundError if there is no such folder, OSError if one cannot be read, ValueError with a sentence if
    it is laid out in another way, has fewer than two classes, a class without training pictures, a file that is no
    whole picture, or nothing to test or validate on.
    """
    size, root = checked_size(size), expand(path)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root.absolute()}: name one with a sub-folder for each class")
    name = f"folder:{root.resolve().name}"
    check_names("the folder's own name", [name])
    files, notes = files_of(root)
    check_names(str(root), sorted({file.label for file in files}))
    if stream or _too_large(root, len(files), size):
        return _streamed(name, root, files, notes, size, skip_broken)
    files, broken = _read(root, files, size, skip_broken)
    if broken:
        notes += [f"Left out as broken: {counted(broken, 'file')}."]
    missing = [part for part in ("test", "validation") if all(file.part != part for file in files)]
    if missing:
        notes += [f"Split off the training pictures, 15 % of each class: {' and '.join(missing)}."]
    files = list(_split(files, missing))
    _warn_of_copies(root, files)
    classes = sorted({file.label for file in files})
    for part in ("validation", "test"):
        if all(file.part != part for file in files):
            raise ValueError(f"{root} leaves no picture for {part}: a class of three has one for each part")
    train, validation, test = (_images(files, part, classes, size) for part in ("train", "validation", "test"))
    content = sorted((str(file.part), file.label, file.digest) for file in files)
    fingerprint = hashlib.sha256(repr((size, content)).encode()).hexdigest()[:8]
    names = {
        part: [str(file.path.relative_to(root)) for file in files if file.part == part]
        for part in ("train", "validation", "test")
    }
    return LongTailed(name, train, validation, test, classes, fingerprint=fingerprint, notes=tuple(notes), files=names)


def held_out(n: int, missing: Iterable[str] = ("test", "validation")) -> dict[str, int]:
    """How many of a class's `n` different pictures are split off for each part of `missing`, in order.

    15 % each, rounded, but at least one as long as a training picture is left: of 3 to 9 pictures one is for each
    part, of 2 one is for training and one for the test, a single one is for training.
    """
    taken: dict[str, int] = {}
    for part in missing:
        taken[part] = min(max(1, (15 * n + 50) // 100), n - 1 - sum(taken.values()))
    return taken


def _read(root: Path, files: list[File], size: int, skip_broken: bool | None) -> tuple[list[File], int]:
    """The files with their pixels and digests, and how many were broken. Raises ValueError that names those, twenty at
    most, unless they are to be left out."""

    def read(file: File) -> File | str:
        try:
            pixels, digest = read_file(file.path, (size, size))
        except ValueError as error:
            return str(error)
        return file._replace(pixels=pixels, digest=digest)

    with ThreadPoolExecutor(WORKERS) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a limit of our own is lower, but for JPEG
        found = list(tqdm(pool.map(read, files), "reading", len(files), unit="picture", disable=None, delay=2))
    whole, broken = [f for f in found if isinstance(f, File)], [f for f in found if isinstance(f, str)]
    more = f"\n  and {len(broken) - 20} more" if len(broken) > 20 else ""
    if broken and not skip_broken:
        if len(broken) == 1:
            raise ValueError(f"{broken[0]}; repair or remove it, or leave it out with --skip-broken")
        head = f"{len(broken)} files to repair or remove, or to leave out with --skip-broken:"
        raise ValueError("\n  ".join([head, *broken[:20]]) + more)
    if lost := sorted({file.label for file in files} - {file.label for file in whole}):
        raise ValueError(f"{root}: all pictures of {listed(lost)} are broken")
    if broken:
        warn("\n  ".join([f"left out as broken, {counted(len(broken), 'file')}:", *broken[:20]]) + more)
    return whole, len(broken)


def _split(files: list[File], missing: list[str]) -> Iterator[File]:
    """The files, those without a part given one, of `missing` or train."""
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


def split_off(images: Streamed, missing: list[str]) -> dict[str, Streamed]:
    """The parts of `missing` and the rest, "train": `held_out` of each class, by a hash of the files' names."""
    assert isinstance(images.source, Paths)
    names = map(images.source.name, images.rows.tolist())
    keys = [hashlib.sha256(os.fsencode(name)).digest()[:8] for name in names]
    order = torch.from_numpy(np.lexsort((np.frombuffer(b"".join(keys), ">u8"), images.y.numpy())))
    rows: dict[str, list[torch.Tensor]] = {"test": [], "train": [], "validation": []}
    for own in order.split(images.y.bincount().tolist()):
        held = held_out(len(own), missing) if len(own) else {}
        test, validation = held.get("test", 0), held.get("validation", 0)
        for part, some in zip(rows, own.split([test, len(own) - test - validation, validation]), strict=True):
            rows[part].append(some)
    wanted = ("train", *missing)
    return {part: images.subset(torch.cat(some).sort().values) for part, some in rows.items() if part in wanted}


def _too_large(root: Path, n: int, size: int) -> bool:
    """Whether the pixels would fill more than a quarter of the memory, of which reading takes twice as much. It is that
    of the machine, not what is free at present: a run that is resumed must read as it began."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**34
    if large := 4 * n * 3 * size**2 > memory:
        print(
            f"mbib: the {n} pictures of {root} would take {n * 3 * size**2 / 2**30:.1f} GiB at {size} x {size} pixels, "
            f"more than a quarter of the memory: they are read while training, as with --stream",
            file=sys.stderr,
        )
    return large


def _streamed(
    name: str, root: Path, files: list[File], notes: list[str], size: int, skip_broken: bool | None
) -> LongTailed:
    """The files as pictures that are read when they are needed."""
    classes = sorted({file.label for file in files})
    number = {label: i for i, label in enumerate(classes)}
    paths = Paths((str(file.path.relative_to(root)) for file in files), root)
    whole = streamed(paths, [number[file.label] for file in files], size, skip_broken=skip_broken)
    whole = leave_out_missing(whole, str(root))
    files = [files[row] for row in whole.rows.tolist()]
    found: dict[str, Any] = {
        part: whole.subset(torch.tensor([(file.part or "train") == part for file in files]))
        for part in ("train", "validation", "test")
    }
    missing = [part for part in ("test", "validation") if all(file.part != part for file in files)]
    if missing:
        notes = [*notes, f"Split off the training pictures, 15 % of each class: {' and '.join(missing)}."]
        found |= split_off(found["train"], missing)
    for part in ("validation", "test"):
        if not len(found[part].y):
            raise ValueError(f"{root} leaves no picture for {part}: a class of three has one for each part")
    content = sorted((str(file.part), str(file.path.relative_to(root)), _bytes_in(file.path)) for file in files)
    fingerprint = hashlib.sha256(repr(("streamed", size, content)).encode()).hexdigest()[:8]
    return LongTailed(name, **found, classes=classes, fingerprint=fingerprint, notes=tuple(notes))


def _bytes_in(file: Path) -> int:
    """How many, or none of a file that is not there, as `mbib check` meets them."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _images(files: list[File], part: str, classes: list[str], size: int) -> Images:
    own = [file for file in files if file.part == part]
    x = np.stack([file.pixels for file in own]) if own else np.zeros((0, 3, size, size), np.uint8)
    number = {label: i for i, label in enumerate(classes)}
    return Images(torch.from_numpy(x), torch.tensor([number[file.label] for file in own], dtype=torch.int64))


def _warn_of_copies(root: Path, files: list[File]) -> None:
    """Says which file lies in two parts, or under two class names."""
    by_digest: dict[str, list[File]] = {}
    for file in files:
        by_digest.setdefault(file.digest, []).append(file)
    leaks = [own for own in by_digest.values() if len({file.part for file in own}) > 1]
    if leaks:
        warn(
            f"in two parts of {root}: {counted(len(leaks), 'picture')}, such as {leaks[0][-1].path}; a picture that "
            f"was trained on is no test"
        )
    disputed = [own for own in by_digest.values() if len({file.label for file in own}) > 1]
    if disputed:
        one = disputed[0][0]
        other = next(file.path for file in disputed[0] if file.label != one.label)
        warn(
            f"under two class names in {root}: {counted(len(disputed), 'picture')}, such as {one.path} and {other}; "
            f"keep the one whose class is right"
        )
