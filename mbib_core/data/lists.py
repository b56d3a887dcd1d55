"""Long-tailed data sets from lists of files and labels: "path label" lines, the published lists, tables."""

import csv
import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mbib_core.data.folders import split_off
from mbib_core.data.layout import PARTS
from mbib_core.data.longtailed import LongTailed, counted
from mbib_core.data.streamed import Paths, Streamed, leave_out_missing, streamed
from mbib_core.files import expand
from mbib_core.text import listed


class Published(NamedTuple):
    """What the files of a published data set are called, and how many classes and lines they have."""

    stem: str
    classes: int
    lines: Mapping[str, int]


# Liu et al. 2019 (ImageNet-LT, Places-LT) and iNaturalist 2018, whose test labels are not public.
PUBLISHED: dict[str, Published] = {
    "imagenet-lt": Published("ImageNet_LT", 1000, {"train": 115_846, "val": 20_000, "test": 50_000}),
    "inaturalist18": Published("iNaturalist18", 8142, {"train": 437_513, "val": 24_426}),
    "places-lt": Published("Places_LT", 365, {"train": 62_500, "val": 7_300, "test": 36_500}),
}
# Columns of a table, as they are often called.
COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "name"),
    "label": ("label", "class", "target", "category", "species", "class_name", "label_name", "y"),
    "part": ("split", "part", "set", "subset", "fold", "partition"),
}


class Lines(NamedTuple):
    """A list as it was read: files, their labels [N], and the SHA-256 of the list's bytes."""

    paths: Paths
    labels: np.ndarray
    digest: str


def load_lists(
    folder: str | Path,
    *,
    kind: str = "list",
    root: str | Path | None = None,
    size: int,
    skip_broken: bool | None = False,
) -> LongTailed:
    """The pictures that `train.txt`, `val.txt` and `test.txt` in `folder` list, streamed at `size` pixels a side.

    A line is a path, relative to `root` or else to `folder`, and a label from 0. Other names of the parts that a folder
    may have are taken, too. For the `kind` "imagenet-lt", "places-lt" and "inaturalist18" the files are those that are
    published (such as `ImageNet_LT_train.txt`), with as many lines. Class names are the lines of `classes.txt`, else
    the folders of the pictures where each class has one, else the numbers.

    Without a test list the validation list serves as the test set (as is usual on iNaturalist), and a validation part
    is held out of training as `folders.held_out` says; without either list, both parts are. The
    `fingerprint` is that of the lists, so that lists with other paths or another order make other runs.

    No picture is opened. Raises FileNotFoundError if there is no such folder or list, ValueError with a sentence on a
    line that is none, a label out of range, another number of lines than is published, and files that are missing.
    """
    folder = expand(folder)
    files = _list_files(folder, kind)
    read = {part: read_lines(file, expand(root) if root else folder) for part, file in files.items()}
    for part, lines in read.items():
        _check_lines(files[part], lines, files["train"], read["train"], PUBLISHED.get(kind))
    classes = _class_names(folder, read["train"])
    parts = {part: streamed(lines.paths, lines.labels, size, skip_broken=skip_broken) for part, lines in read.items()}
    digest = "".join(lines.digest for lines in read.values())
    name = kind if kind in PUBLISHED else f"{kind}:{folder.resolve().name}"
    return assembled(name, parts, classes, digest, {part: file.name for part, file in files.items()})


def load_table(
    file: str | Path, *, root: str | Path | None = None, size: int, skip_broken: bool | None = False
) -> LongTailed:
    """The pictures that a table lists, CSV with a head, separated by commas, semicolons or tabs; streamed.

    `COLUMNS` are the names that its columns may have: one of paths, relative to `root` or else to the table's folder,
    one of labels, numbers or names, and maybe one of parts (train, val, test; an empty one is train). Parts that are
    not there are held out of training, as of a list. Raises FileNotFoundError if there is no such file, ValueError with
    a sentence on columns that are not known and lines that lack one, and on files that are missing.
    """
    file = expand(file)
    if not file.is_file():
        hint = f", or class folders as folder:{file}" if file.is_dir() else ""
        raise FileNotFoundError(
            f"there is no table {file.absolute()}: name a CSV file with a line for each picture{hint}"
        )
    codes: dict[str, int] = {}
    labels, parts = array("q"), array("b")
    known = ("train", "validation", "test")

    def names() -> Iterator[str]:
        with file.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as lines:
            head = lines.readline()
            rows = csv.reader(lines, delimiter=max(",;\t", key=head.count))
            path, label, part = _columns(file, next(csv.reader([head], delimiter=max(",;\t", key=head.count)), []))
            for number, row in enumerate(rows, 2):
                if not any(row):
                    continue
                if len(row) <= max(path, label) or not row[path] or not row[label]:
                    raise ValueError(
                        f"{file}, line {number}, lacks a path or a label: fill it in or delete the line; at the end of "
                        f"the file, it may be cut off"
                    )
                word = row[part].strip().lower() if part is not None and part < len(row) else ""
                if word and word not in PARTS:
                    raise ValueError(
                        f"{file}, line {number}: {word!r} in the split column is not a part: write train, val or test"
                    )
                labels.append(codes.setdefault(row[label].strip(), len(codes)))
                parts.append(known.index(PARTS.get(word, "train")))
                yield row[path].strip()

    paths = Paths(names(), expand(root) if root else file.parent)
    classes = sorted(codes, key=int) if all(name.isdecimal() for name in codes) else sorted(codes)
    number = {name: i for i, name in enumerate(classes)}
    if not len(paths):
        raise ValueError(f"{file} lists no picture: below its head a line is a path and a label")
    y = np.array([number[name] for name in codes])[np.frombuffer(labels, np.int64)]
    whole = streamed(paths, y, size, skip_broken=skip_broken)
    of_part = torch.from_numpy(np.frombuffer(parts, np.int8).copy())
    found = {part: whole.subset(of_part == i) for i, part in enumerate(known)}
    found = {part: images for part, images in found.items() if len(images.y) or part == "train"}
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return assembled(f"csv:{file.name}", found, classes, digest, dict.fromkeys(found, file.name))


def assembled(
    name: str, parts: Mapping[str, Streamed], classes: list[str], digest: str, files: Mapping[str, str]
) -> LongTailed:
    """A data set of its `parts`, those that lack split off; `files` say where each of them is listed."""
    found: dict[str, Any] = {part: leave_out_missing(images, files[part]) for part, images in parts.items()}
    notes, left = [], [len(images.y) for images in found.values()]
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
        notes = [f"What is called test is {files['validation']}, as there is no test list."]
    if missing := [part for part in ("test", "validation") if part not in found]:
        found |= split_off(found["train"], missing)
        notes += [f"Held out of the training images, 15 % of each class: {' and '.join(missing)}."]
    fingerprint = hashlib.sha256(repr((digest, left)).encode()).hexdigest()[:8]
    return LongTailed(name, **found, classes=classes, fingerprint=fingerprint, notes=tuple(notes))


def read_lines(file: Path, root: Path) -> Lines:
    """A list of "path label" lines. Raises ValueError that names a line which is none."""
    labels, digest = array("q"), hashlib.sha256()

    def names() -> Iterator[bytes]:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                digest.update(line)
                path, *label = line.removeprefix(b"\xef\xbb\xbf").strip().rsplit(None, 1) or [b""]
                if not path:
                    continue
                if not (label and label[0].isdigit() and len(label[0]) < 10):
                    raise ValueError(
                        f"{file}, line {number}, is no path with a label from 0 behind it, as in birds/1.jpg 0: "
                        f"{line[:80].decode(errors='replace').strip()!r}; is the file cut off?"
                    )
                labels.append(int(label[0]))
                yield path

    paths = Paths(names(), root)
    if not len(paths):
        raise ValueError(f"{file} lists no picture: a line is a path and a label, as in birds/1.jpg 0")
    return Lines(paths, np.frombuffer(labels, np.int64), digest.hexdigest())


def _list_files(folder: Path, kind: str) -> dict[str, Path]:
    """The list of each part. Raises FileNotFoundError with what is not there."""
    if not folder.is_dir():
        hint = f", or a table as csv:{folder}" if folder.is_file() else ""
        raise FileNotFoundError(
            f"there is no folder {folder.absolute()}: name the one with the lists, as {kind}:FOLDER{hint}"
        )
    if kind in PUBLISHED:
        stem = PUBLISHED[kind].stem
        files = {part: folder / f"{stem}_{part}.txt" for part in PUBLISHED[kind].lines}
        if lost := [file.name for file in files.values() if not file.is_file()]:
            raise FileNotFoundError(f"{folder} has no {listed(lost)}: put the published lists there")
        return {PARTS[part]: file for part, file in files.items()}
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("*.txt")):
        if part := PARTS.get(file.stem.lower()):
            if part in found:
                raise ValueError(f"{found[part]} and {file} are both the {part} list: rename one of them")
            found[part] = file
    if "train" not in found:
        raise FileNotFoundError(
            f"{folder} has no train.txt: write a line for each picture there, a path and a label, as in birds/1.jpg 0"
        )
    return {part: found[part] for part in ("train", "validation", "test") if part in found}


def _check_lines(file: Path, lines: Lines, train: Path, trained: Lines, published: Published | None) -> None:
    if published:
        wanted, n = published.lines[file.stem.rpartition("_")[2]], len(lines.labels)
        if n != wanted:
            raise ValueError(
                f"{file} has {counted(n, 'line')}, the published list {wanted}: copy it again, or name a list of your "
                f"own as list:FOLDER"
            )
    last = published.classes - 1 if published else int(trained.labels.max())
    if last >= len(trained.labels):
        raise ValueError(
            f"{train}: labels run up to {last} in {counted(len(trained.labels), 'line')}: number the classes from 0, "
            f"with a picture of each"
        )
    if strange := np.flatnonzero(lines.labels > last)[:1].tolist():
        what = lines.paths.name(strange[0])
        raise ValueError(
            f"{file}: the label {lines.labels[strange[0]]} of {what} is not a class: labels run from 0 to {last}"
            + ("" if published else f" in {train.name}")
        )


def _class_names(folder: Path, train: Lines) -> list[str]:
    n = int(train.labels.max()) + 1
    if (file := folder / "classes.txt").is_file():
        names = file.read_text("utf-8-sig").splitlines()
        if len(names) != n:
            raise ValueError(f"{file} has {counted(len(names), 'line')}, and {n} classes are trained: a line for each")
        return names
    for depth in (1, 2, 3):
        pairs = set(zip(train.labels.tolist(), _folders(train.paths, depth), strict=True))
        if len(pairs) == n and len({name for _, name in pairs}) == n and all(name for _, name in pairs):
            return [name for _, name in sorted(pairs)]
    return [str(i) for i in range(n)]


def _folders(paths: Paths, depth: int) -> Iterable[str]:
    """The last `depth` folders of each path, joined by /."""
    return ("/".join(paths.name(row).split("/")[:-1][-depth:]) for row in range(len(paths)))


def _columns(file: Path, head: list[str]) -> tuple[int, int, int | None]:
    """Where the columns of paths, labels and parts are."""
    if any("\0" in word for word in head):
        raise ValueError(f"{file} is no CSV in UTF-8, perhaps Excel's Unicode text (UTF-16): save it as CSV UTF-8")
    words = [word.strip().lower() for word in head]
    found = {
        kind: next((words.index(name) for name in names if name in words), None) for kind, names in COLUMNS.items()
    }
    path, label = found["path"], found["label"]
    if path is None or label is None:
        lacking = "path" if path is None else "label"
        raise ValueError(
            f"{file} has no column of {lacking}s among {listed(head)}: call it {COLUMNS[lacking][0]} (known are "
            f"{', '.join(COLUMNS[lacking])})"
        )
    return path, label, found["part"]
