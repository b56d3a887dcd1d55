"""What saved weights answer to images: their accuracy on a labelled data set, and the class of each image."""

import csv
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbib_core import data as data_sets
from mbib_core import metrics
from mbib_core.data import Images, LongTailed, shots
from mbib_core.data.layout import PARTS, visible
from mbib_core.data.pictures import Refused, read_file, read_picture
from mbib_core.data.streamed import MARGIN, Paths, joined, streamed
from mbib_core.evaluation import all_finite, answers, batch_of, of_kind
from mbib_core.methods import method_of
from mbib_core.networks import Outputs, default_prediction, predictions
from mbib_core.settings import Settings
from mbib_core.text import listed, printable
from mbib_core.weights import Saved


@dataclass(frozen=True)
class Labelled:
    """Images to score, their labels numbered as the classes of the weights; `what` they are, in words; the training
    images of each class (empty where nobody knows); and what a reader of the scores should know."""

    images: Images
    what: str
    counts: list[int]
    warnings: list[str]


def labelled(
    run: Saved,
    name: str | None = None,
    *,
    root: str | Path | None = None,
    validation: bool = False,
    skip_broken: bool = False,
) -> Labelled:
    """The test images (or the `validation` images) of the data set `name`, by default the one `run` was trained on.

    Another data set has classes of the same names, in any order; it may lack some. Of a folder the sub-folder `test/`
    is taken. Without one, the folder of the training, wherever it lies now, has the test images that were split off
    then; any other folder of class folders is a test set as a whole, and all its images are scored. With `skip_broken`
    broken images are named and left out.
    Raises ValueError or FileNotFoundError with a sentence that says what is not there, or which class is not known.
    """
    settings, part = run.settings, "validation" if validation else "test"
    if settings.purpose == "choosing" and not validation:
        raise ValueError("the weights are of a run for choosing settings, which no test set may judge: --validation")
    if name is None and settings.own_pictures and settings.folder is None:
        raise ValueError(
            f"the weights are of arrays, {settings.data}, and no name leads to them: name a data set of the same "
            f"classes with --data folder:PATH"
        )
    wanted, warnings = name or settings.data, []
    if Settings(data=wanted).kind not in ("", "folder"):
        return _listed(run, wanted, part, root, name is None, skip_broken)
    folder = _folder(wanted, root)
    if name is None and folder and not folder.is_dir():
        raise FileNotFoundError(
            f"the folder of the training, {folder.absolute()}, is not there: say where it is now, or name other "
            f"pictures of its classes, with --data folder:PATH"
        )
    other = folder if name else None
    within = _part(other, part) if other else None
    whole = other is not None and other.is_dir() and not within and not _part(other, "train")
    try:
        data: LongTailed | None = data_sets.load(
            wanted,
            imbalance=settings.imbalance,
            root=root,
            size=run.size[0],
            skip_broken=skip_broken,
            stream=settings.stream and folder is not None,
        )
    except ValueError:
        if other is None or not (within or whole):
            raise
        data = None  # a test set need not hold what training takes
    if data is None:
        classes, images = _class_folders(within or Path(str(other)), run.size[0], skip_broken)
    else:
        whole = whole and data.fingerprint != settings.pictures
        parts = (data.train, data.validation, data.test) if whole else (getattr(data, part),)
        classes, images = data.classes, joined(parts)
    kind = "pictures" if whole else f"{part} pictures"
    what = f"{'all ' * whole}{len(images.y)} {kind}"
    if whole:
        warnings.append(f"{wanted} has no {part}/, so all of it is scored: none of it may have been trained on")
    elif data and data.fingerprint != settings.pictures and not within:
        warnings.append(
            f"the pictures in {wanted} are not those of the training run: unless they lie in train/ and test/, some of "
            f"these may have been trained on"
        )
    images, lacking = _renumbered(_prepared(run, images), classes, run.classes, wanted)
    if lacking and name:
        warnings.append(f"{wanted} has no {kind} of {_some(lacking)}: means are over the other classes")
    counts = list(run.counts)
    if not counts and data and (name is None or data.fingerprint == settings.pictures) and classes == run.classes:
        counts = data.counts.tolist()
    if not counts:
        warnings.append("the weights do not say how many training pictures a class had: no accuracy by shot")
    return Labelled(images, what + (f" of {name}" if name else ""), counts, warnings)


def score(run: Saved, given: Labelled, *, batch: int | None = None) -> dict[str, Any]:
    """`accuracy` (0 to 1) of each prediction over all classes and by shot, means over classes; and of the `default` one
    `micro` (over pictures), `macro_f1`, `top5` where there are more than 5 classes, and the `calibration` error.
    Raises FloatingPointError if the answers are not finite."""
    counts = torch.tensor(given.counts)
    found, y = _answers(run, given.images, batch, counts)
    y = y.cpu()
    logits = {name: f.cpu() for name, f in of_kind("logits", found).items()}
    masks = shots(counts) if given.counts else {}
    by_class = {name: metrics.accuracy_by_class(f, y) for name, f in logits.items()}
    default = default_prediction(logits)
    own = logits[default]
    return {
        "default": default,
        "accuracy": {name: metrics.by_shot(value, masks) for name, value in by_class.items()},
        "micro": metrics.micro_accuracy(own, y),
        "macro_f1": float(metrics.f1_by_class(own, y).nanmean()),
        **({"top5": float(metrics.accuracy_by_class(own, y, top=5).nanmean())} if len(run.classes) > 5 else {}),
        "calibration": metrics.calibration(own, y)["error"],
    }


def predict(
    run: Saved, pictures: Iterable[str | Path], *, prior: Sequence[float] | str | None = None, batch: int | None = None
) -> Iterator[tuple[str, Float[Tensor, " c"] | ValueError]]:
    """Of each picture its name and the probabilities of the classes, or why it could not be read, in order.

    `pictures` are files and folders of them, at any depth, or "-", a picture on standard input. `prior` is the share
    of each class where the pictures come from, "train" those of the training set: see `log_shift`.
    Raises FloatingPointError if the answers are not finite, ValueError if the training shares are needed and unknown.
    """
    shift, batch = 0.0 if prior is None else log_shift(run, prior), batch or batch_of(run.size)
    for chunk in _read_ahead(picture_files(pictures), run, batch):
        x = [torch.from_numpy(pixels) for _, pixels in chunk if not isinstance(pixels, ValueError)]
        rows: Iterator[Tensor] = iter(())
        if x:
            images = Images(torch.stack(x), torch.zeros(len(x), dtype=torch.int64))
            logits = of_kind("logits", _answers(run, images, batch)[0])
            chosen = logits[default_prediction(logits)].cpu().double().log_softmax(1)
            rows = iter((chosen + shift).softmax(1))
        for name, pixels in chunk:
            yield str(name), pixels if isinstance(pixels, ValueError) else next(rows)


def log_shift(run: Saved, prior: Sequence[float] | str) -> Float[Tensor, " c"]:
    """What is added to the logits where the classes have the shares `prior`, or "train", those of the training set:
    p_i becomes p_i prior_i / learned_i, over their sum (Saerens et al. 2002).

    A balanced loss has learned equal shares, plain cross-entropy those of the training set. Raises ValueError if these
    are needed and the weights file, of an earlier version, does not hold them.
    """
    counts, plain = run.counts, method_of(run.settings).biased
    if prior == "train" and plain:
        return torch.zeros(len(run.classes), dtype=torch.float64)
    if not counts and (prior == "train" or plain):
        cure = "write them, or their shares, into a file for --prior" if prior == "train" else "train again"
        raise ValueError(f"the weights do not say how many training pictures a class had: {cure}")
    shift = torch.tensor(counts if prior == "train" else prior, dtype=torch.float64).log()
    return shift - torch.tensor(counts, dtype=torch.float64).log() if plain else shift


def read_prior(path: Path, classes: list[str]) -> list[float]:
    """The shares of a class mix, one number for each of `classes`: a CSV file with a line `class,number` for each.

    The numbers are shares or counts; a head line is passed over. Raises ValueError with a sentence on anything else.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path} of shares: --prior takes train, or a file of class,share")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
        found = {row[0]: row[1] for row in rows}
    except (UnicodeDecodeError, csv.Error, IndexError):
        raise ValueError(f"{path} is no list of classes and shares: write lines such as {classes[0]},0.25") from None
    if rows and rows[0][0] not in classes:
        del found[rows[0][0]]
    _matches(list(found), classes, str(path))
    if missing := [name for name in classes if name not in found]:
        raise ValueError(f"{path} has no share of {_some(missing)}: write 0 for a class that cannot come up")
    try:
        shares = [float(found[name]) for name in classes]
    except ValueError as error:
        raise ValueError(f"{path}: {error}: write lines such as {classes[0]},0.25") from None
    if not all(0 <= share < math.inf for share in shares) or not 0 < sum(shares) < math.inf:
        raise ValueError(f"{path}: shares must be finite numbers, 0 or larger, and not all of them 0")
    return shares


def accuracy_in_folders(answers: Iterable[tuple[str, str]], classes: list[str]) -> str:
    """One line on how many files, each with the class it was given, lie in a folder of that name; "" if none lies in
    a folder named after a class."""
    known = set(classes)
    right: dict[str, list[bool]] = {}
    for name, answer in answers:
        if (folder := Path(name).absolute().parent.name) in known and name != "-":
            right.setdefault(folder, []).append(folder == answer)
    if not right:
        return ""
    n, hits = sum(map(len, right.values())), sum(map(sum, right.values()))
    mean = sum(sum(of) / len(of) for of in right.values()) / len(right)
    over = f", mean over {len(right)} classes {100 * mean:.1f} %" if len(right) > 1 else ""
    return f"of {n} picture{'s' * (n > 1)} in folders named after a class {100 * hits / n:.1f} % are right{over}"


def picture_files(names: Iterable[str | Path]) -> Iterator[str | Path]:
    """The files themselves, and all that lie in the folders, at any depth, but hidden ones; each folder once, whatever
    links lead to it."""
    seen: set[str] = set()

    def within(path: Path) -> Iterator[Path]:
        real = os.path.realpath(path)
        if real in seen:
            return
        seen.add(real)
        for inside in visible(path):
            yield from within(inside) if inside.is_dir() else [inside]

    for name in names:
        path = _home(name)
        if name not in ("-", "") and path.is_dir():
            yield from within(path)
        else:
            yield name if "://" in str(name) or name in ("-", "") else path


def _read_ahead(names: Iterable[str | Path], run: Saved, batch: int) -> Iterator[list[tuple[str | Path, Any]]]:
    """The names in lists of `batch`, each with its pixels, in order; one list is read while another one is in use."""
    names, margin = iter(names), _margin(run)
    with ThreadPoolExecutor() as pool:
        ahead: list[tuple[str | Path, Any]] = []
        while ahead or (ahead := _asked(pool, names, run.size, margin, batch)):
            now, ahead = ahead, _asked(pool, names, run.size, margin, batch)
            yield [(name, pixels.result()) for name, pixels in now]


def _asked(pool: ThreadPoolExecutor, names: Iterator[str | Path], *how: Any) -> list[tuple[str | Path, Any]]:
    *given, batch = how
    return [(name, pool.submit(_read, name, *given)) for name in islice(names, batch)]


def _read(name: str | Path, size: tuple[int, int], margin: float) -> Any:
    """Pixels [3, H, W], or a ValueError that says why there are none."""
    try:
        if name == "-":
            return read_picture(sys.stdin.buffer.read(), size, margin)
        if "://" in str(name) and not Path(name).exists():
            return ValueError(f"{name} is an address on the web: download the picture, and name the file")
        return (
            read_file(Path(name), size, margin)[0] if name != "" else ValueError("a file without a name is not there")
        )
    except Refused as reason:
        return ValueError(f"what comes on standard input {reason}")
    except ValueError as error:
        return error


def _answers(
    run: Saved, images: Images, batch: int | None, counts: Tensor | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Logits by prediction and features, and the labels; what needs the training `counts` is left out where nobody
    knows them."""

    def predict(outputs: Outputs) -> dict[str, Tensor]:
        if counts is None or not len(counts):
            return predictions(outputs)
        return method_of(run.settings).predict(outputs, counts.to(device))

    device = next(run.network.parameters()).device
    found, y = answers(run.network, images, batch, predict)
    if not all_finite(found):
        raise FloatingPointError(
            "the answers of these weights are not finite: the file is damaged, or its training diverged; restore it or "
            "train again"
        )
    return found, y


def _renumbered(images: Images, classes: list[str], known: list[str], where: str) -> tuple[Images, list[str]]:
    """`images` with labels in the order of `known`, and the classes of `known` without images."""
    _matches(classes, known, where)
    number = torch.tensor([known.index(name) for name in classes], dtype=torch.int64)
    images = images.labelled(number[images.y])
    return images, [known[i] for i in (images.y.bincount(minlength=len(known)) == 0).nonzero().flatten().tolist()]


def _matches(classes: list[str], known: list[str], where: str) -> None:
    if extra := [name for name in classes if name not in known]:
        raise ValueError(
            f"{where} has {_some(extra)}, which the weights do not know: their {len(known)} classes are {_some(known)}"
        )


def _some(names: list[str]) -> str:
    return listed([printable(name) for name in names])


def _folder(name: str, root: str | Path | None) -> Path | None:
    """The path of "folder:PATH"; None for other data."""
    return Path(root or "") / _home(name.removeprefix("folder:")) if name.startswith("folder:") else None


def _home(path: str | Path) -> Path:
    return Path(os.path.expanduser(path))


def _part(folder: Path, part: str) -> Path | None:
    """The sub-folder of `folder` that is this part and holds class folders."""
    inside = visible(folder) if folder.is_dir() else []
    parts = (p for p in inside if PARTS.get(p.name.lower()) == part and p.is_dir())
    return next((p for p in parts if any(q.is_dir() for q in visible(p))), None)


def _margin(run: Saved) -> float:
    """How much more than the middle of an image is resized: as it was where the validation images were read."""
    return MARGIN if run.settings.stream else 1.0


def _prepared(run: Saved, images: Any) -> Any:
    """Streamed images as those of the training were prepared for an answer."""
    return images if isinstance(images, Images) else replace(images, margin=_margin(run))


def _listed(run: Saved, name: str, part: str, root: str | Path | None, own: bool, skip_broken: bool) -> Labelled:
    """Images of a list: of that of the training, or of another one with classes of the same names."""
    data = data_sets.load(name, root=root, size=run.size[0], skip_broken=skip_broken)
    images, lacking = _renumbered(_prepared(run, getattr(data, part)), data.classes, run.classes, name)
    what, warnings = f"{len(images.y)} {part} pictures" + ("" if own else f" of {name}"), list(data.notes)
    if data.fingerprint != run.settings.pictures:
        warnings.append(f"the lists of {name} are not those of the training run, which may have seen some of these")
    if lacking and not own:
        warnings.append(f"{name} has no {part} pictures of {_some(lacking)}: means are over the other classes")
    if not run.counts:
        warnings.append("the weights do not say how many training pictures a class had: no accuracy by shot")
    return Labelled(images, what, list(run.counts), warnings)


def _class_folders(folder: Path, side: int, skip_broken: bool) -> tuple[list[str], Any]:
    """Every image of every class folder, which are read when they are scored."""
    files = [(path, own.name) for own in visible(folder) if own.is_dir() for path in visible(own)]
    if not files:
        raise ValueError(f"{folder} has no pictures in sub-folders: make one for each class, named after it")
    classes = sorted({label for _, label in files})
    number = {label: i for i, label in enumerate(classes)}
    paths = Paths((str(path) for path, _ in files), "")
    return classes, streamed(paths, [number[label] for _, label in files], side, skip_broken=skip_broken)
