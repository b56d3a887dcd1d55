"""What a long-tailed data set is: its images, counts, split and shots; and one made from your own arrays."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral, Number
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from mbib_core.text import listed


class Images(NamedTuple):
    """N pictures and their labels."""

    x: UInt8[Tensor, "n 3 h w"]
    y: Int[Tensor, " n"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a picture."""
        return self.x.shape[2], self.x.shape[3]

    def subset(self, rows: Tensor) -> "Images":
        """The pictures at these positions, or where a mask is true."""
        return Images(self.x[rows], self.y[rows])

    def labelled(self, y: Int[Tensor, " n"]) -> "Images":
        """The same pictures with these labels."""
        return self._replace(y=y)

    def take(self, rows: Tensor) -> "Images":
        """As `subset`, which of streamed pictures reads none, while this does."""
        return self.subset(rows)

    def chunks(self, batch: int, *, even: bool = False) -> Iterator["Images"]:
        """The pictures in order, as `spans` cuts them."""
        for span in spans(len(self.y), batch, even=even):
            yield Images(self.x[span], self.y[span])

    def statistics(self) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
        """What the network normalises by: see `channel_statistics`."""
        return channel_statistics(self.x)


def spans(n: int, batch: int, *, even: bool = False) -> list[slice]:
    """Slices of 0 .. n-1 with `batch` positions each, the last one with fewer; or, if `even`, with at most `batch`, as
    many in each as in the others but for one. Of nothing one empty slice."""
    k = max(1, -(-n // batch))
    sizes = [n // k + (i < n % k) for i in range(k)] if even else [batch] * k
    ends = [min(n, end) for end in np.cumsum(sizes).tolist()]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


@dataclass(frozen=True)
class LongTailed:
    """A long-tailed training set with validation and test pictures of the same classes.

    A part is `Images`, or `streamed.Streamed` pictures, which are read when they are needed: all three alike.
    `flip` says whether a mirrored picture still shows its class: true of animals, not of letters. `fingerprint`
    tells your own pictures apart from others of the same name; None for a published data set. `notes` are sentences
    about how the set was made, which `describe` repeats. `files` are the names of pictures in memory that came from
    files, in the order of their part.
    Raises ValueError or TypeError with a sentence if the pictures are not uint8 [N, 3, H, W], the labels are not
    int64 in 0 .. C-1, there are fewer than two classes, a class name is no text or occurs twice, or a class has no
    training picture.
    """

    name: str
    train: Images
    validation: Images
    test: Images
    classes: list[str]
    flip: bool = True
    fingerprint: str | None = None
    notes: tuple[str, ...] = ()
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = (self.train, self.validation, self.test)
        if len({isinstance(part, Images) for part in parts}) > 1:
            raise TypeError(f"{self.name}: either all three parts are in memory, or all are read when they are needed")
        if len(self.classes) < 2:
            raise ValueError(f"{self.name} has {counted(len(self.classes), 'class')}: recognition needs two or more")
        check_names(self.name, self.classes)
        for part in ("train", "validation", "test"):
            _check_images(f"{self.name} {part}", getattr(self, part), len(self.classes))
        empty = [self.classes[i] for i in (self.counts == 0).nonzero().flatten().tolist()]
        if empty:
            raise ValueError(
                f"{self.name}: no training picture of {listed(empty)}; add some, or drop the class (where labels are "
                f"numbers, number the others anew, from 0)"
            )

    @property
    def streamed(self) -> bool:
        """Whether pictures are read when they are needed."""
        return not isinstance(self.train, Images)

    @cached_property
    def counts(self) -> Int[Tensor, " c"]:
        """Training pictures of each class, n_i."""
        return self.train.y.bincount(minlength=len(self.classes))

    @cached_property
    def shots(self) -> dict[str, Bool[Tensor, " c"]]:
        """The classes of each shot that the data set has: see `shots`."""
        return shots(self.counts)


def describe(data: LongTailed) -> str:
    """What is in a data set, as one paragraph: classes, counts and parts, and the pictures (the same if all their
    pixels are) that occur twice, stand under two class names, or are in the training set and another part. Of streamed
    pictures no pixels are looked at: `mbib check` reads them all."""
    counts, classes = data.counts.tolist(), data.classes
    most, least = max(counts), min(counts)
    span = f"{most} ({classes[counts.index(most)]}) to {least} ({classes[counts.index(least)]}) training pictures"
    each = span if most > least else f"{counted(most, 'training picture')} each"
    said = [
        f"{data.name}: {len(classes)} classes with {each}, "
        f"{sum(counts)} in all; {len(data.validation.y)} for validation, {len(data.test.y)} for the test.",
        *data.notes,
    ]
    untested = [name for name, n in zip(classes, data.test.y.bincount(minlength=len(classes)), strict=True) if not n]
    if untested:
        said += [f"Without a test picture: {counted(len(untested), 'class')} ({listed(untested)})."]
    if data.streamed:
        side = data.train.size[0]
        return " ".join([*said, f"Read while training, as {side} x {side} pixels; none was opened yet."])
    parts = {"training": data.train, "validation": data.validation, "test": data.test}
    digests = {part: _digests(images.x) for part, images in parts.items()}
    labels: dict[bytes, set[int]] = {}
    for part, images in parts.items():
        for digest, label in zip(digests[part], images.y.tolist(), strict=True):
            labels.setdefault(digest, set()).add(label)
    disputed = [sorted(own) for own in labels.values() if len(own) > 1]
    if disputed:
        example = " and ".join(classes[i] for i in disputed[0])
        said += [f"Under more than one class name: {counted(len(disputed), 'picture')} (such as {example})."]
    copies = len(data.train.y) - len(set(zip(digests["training"], data.train.y.tolist(), strict=True)))
    if copies:
        said += [f"Copies of another picture of the same class: {counted(copies, 'training picture')}."]
    for held in ("validation", "test"):
        if shared := _shared(digests[held], digests["training"]):
            said += [f"Also in the training set: {counted(shared, f'{held} picture')}."]
    return " ".join(said)


def also_in(images: Images, others: Images) -> int:
    """How many of `images` are, pixel for pixel, among `others` too."""
    return _shared(_digests(images.x), _digests(others.x))


def shots(counts: Int[Tensor, " c"]) -> dict[str, Bool[Tensor, " c"]]:
    """Classes with many (> 100), medium (20 to 100) and few (< 20) training pictures, as masks [C] (Liu et al. 2019).

    A shot without classes is left out: it has no accuracy, not one of zero.
    """
    masks = {"many": counts > 100, "medium": (counts >= 20) & (counts <= 100), "few": counts < 20}
    return {shot: mask for shot, mask in masks.items() if bool(mask.any())}


def long_tailed_counts(largest: int, classes: int, imbalance: float) -> list[int]:
    """n_i = int(n_1 F^(-i / (C - 1))): an exponential profile from `largest` pictures down to `largest` / F.

    Raises ValueError if there are fewer than two classes, the imbalance factor F is below 1 or leaves a class without
    pictures.
    """
    if classes < 2:
        raise ValueError(f"a long tail needs two classes or more, not {classes}")
    if not imbalance >= 1:
        raise ValueError(
            f"imbalance factor {imbalance:g} must be 1 or larger: it is the largest count over the smallest"
        )
    counts = [int(largest * (1 / imbalance) ** (i / (classes - 1.0))) for i in range(classes)]
    if counts[-1] < 1:
        raise ValueError(
            f"imbalance factor {imbalance:g} leaves the last class empty: the largest has {largest} pictures"
        )
    return counts


def long_tailed_indices(labels: Int[Tensor, " n"], imbalance: float, *, seed: int = 0) -> Int[Tensor, " m"]:
    """Positions of a long-tailed subset of balanced `labels` [N], drawn as Cao et al. 2019 draw CIFAR-LT.

    In label order, class i keeps the first `long_tailed_counts` of its positions after a shuffle by
    `numpy.random.RandomState(seed)`. The published split's seed is 0, whatever the seed of a run. Subsets of a larger
    imbalance lie inside those of a smaller one. Raises ValueError as `long_tailed_counts` does, and if a class has
    too few pictures.
    """
    y = labels.numpy()
    classes = np.unique(y)
    if not len(y):
        raise ValueError("there are no labels to draw a long-tailed set from")
    counts = long_tailed_counts(len(y) // len(classes), len(classes), imbalance)
    random = np.random.RandomState(seed)
    chosen = []
    for label, n in zip(classes, counts, strict=True):
        positions = np.where(y == label)[0]
        if len(positions) < n:
            raise ValueError(
                f"class {label} has {counted(len(positions), 'picture')}, the long-tailed set wants {n} of them"
            )
        random.shuffle(positions)
        chosen.append(positions[:n])
    return torch.from_numpy(np.concatenate(chosen))


def from_arrays(
    name: str,
    *,
    train: tuple[Any, Any],
    validation: tuple[Any, Any],
    test: tuple[Any, Any],
    classes: Iterable[Any] | None = None,
    flip: bool = True,
) -> LongTailed:
    """A data set of your own from three pairs of pictures and labels: NumPy arrays, tensors or lists.

    Pictures are uint8 [N, H, W, 3] or [N, 3, H, W], all of one size (32 x 32 is what the networks are made for), labels
    whole numbers [N] from 0. Without `classes` the names are the numbers, up to the largest training label. Raises
    TypeError or ValueError with a sentence on anything else, and as `LongTailed` does.
    """
    pairs = {"train": train, "validation": validation, "test": test}
    parts = {part: _own_images(f"{name} {part}", pair) for part, pair in pairs.items()}
    sizes = {part: tuple(images.x.shape[2:]) for part, images in parts.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{name}: the pictures of all parts must have one size (H, W), these have {sizes}")
    digest = hashlib.sha256()
    for images in parts.values():
        digest.update(images.x.numpy().tobytes() + images.y.numpy().tobytes())
    if classes is None:
        y = parts["train"].y
        if not 0 <= int(y.min()) <= int(y.max()) < len(y):  # before a name is made for each number up to it
            raise ValueError(
                f"{name} train: labels run from {int(y.min())} to {int(y.max())}: they must be 0 to C-1, with a "
                f"picture of each; np.unique(labels, return_inverse=True)[1] numbers them anew"
            )
        classes = range(int(y.max()) + 1)
    classes = classes.tolist() if isinstance(classes, Tensor) else classes
    names: list[Any] = [str(c) if isinstance(c, str | Number | np.generic) else c for c in classes]
    ours = parts["train"], parts["validation"], parts["test"]
    return LongTailed(str(name), *ours, names, flip=flip, fingerprint=digest.hexdigest()[:8])


def channel_statistics(x: UInt8[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Mean and standard deviation of each colour channel over all pictures, in 0 to 255."""
    n = x.numel() / 3
    totals = torch.zeros(3, 256, dtype=torch.float64)
    for part in x.split(1000):  # as whole numbers a picture takes eight times its memory
        totals += torch.stack([part[:, c].flatten().long().bincount(minlength=256) for c in range(3)])
    levels = torch.arange(256, dtype=torch.float64)
    mean = totals @ levels / n
    variance = totals @ levels**2 / n - mean**2
    return mean.float(), variance.clamp(min=1).sqrt().float()


def first_of_each_class(images: Images, n: int) -> Images:
    """The first `n` pictures of each class, in the order they stand; streamed ones are not read."""
    order, counts = images.y.argsort(stable=True), images.y.bincount()
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - (counts.cumsum(0) - counts)[images.y[order]]
    return images.subset(rank < n)


def counted(n: int, noun: str) -> str:
    """1 picture, 2 pictures, 3 classes."""
    return f"{n} {noun}" + ("" if n == 1 else "es" if noun.endswith("s") else "s")


def check_names(what: str, classes: list[str]) -> None:
    """Raises TypeError or ValueError with a sentence if class names are no text, or two are the same."""
    for name in classes:
        if not isinstance(name, str):
            raise TypeError(f"{what}: class names must be text, {name!r} is none")
        if (printable := name.encode(errors="backslashreplace").decode()) != name:
            raise ValueError(f"{what}: the class name {printable} is not UTF-8: rename it")
    if twice := [name for name, n in Counter(classes).items() if n > 1]:
        raise ValueError(f"{what}: two classes are called {listed(twice)}: every class needs a name of its own")


def _digests(x: UInt8[Tensor, "n 3 h w"]) -> list[bytes]:
    return [hashlib.sha256(picture.numpy().tobytes()).digest() for picture in x]


def _shared(digests: list[bytes], others: list[bytes]) -> int:
    known = set(others)
    return sum(digest in known for digest in digests)


def _own_images(what: str, pair: Any) -> Images:
    """Pictures and labels of `from_arrays` as the trainer wants them."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{what}: give a pair (pictures, labels)")
    x, y = (_array(what, v, kind) for v, kind in zip(pair, ("pictures", "labels"), strict=True))
    if x.dtype != np.uint8:
        hint = "; multiply what runs from 0 to 1 by 255, round it, and convert it" if x.dtype.kind == "f" else ""
        raise TypeError(f"{what}: pictures must be uint8, from 0 to 255, these are {x.dtype}{hint}")
    first, last = x.ndim == 4 and x.shape[1] == 3, x.ndim == 4 and x.shape[3] == 3
    if first == last:
        if first:
            reason = "either could be the colours"
        elif x.ndim == 4 and 4 in (x.shape[1], x.shape[3]):
            reason = "leave out the transparency, as x[..., :3] or x[:, :3] does"
        elif x.ndim == 3 or (x.ndim == 4 and 1 in (x.shape[1], x.shape[3])):
            reason = "a grey picture needs its channel three times"
        else:
            reason = "reshape them, as x.reshape(-1, 3, 32, 32) does with rows of 3072"
        raise ValueError(f"{what}: pictures must be [N, H, W, 3] or [N, 3, H, W], these are {list(x.shape)}: {reason}")
    if y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
        hint = "; np.unique(labels, return_inverse=True)[1] numbers names" if y.dtype.kind in "OUS" else ""
        raise TypeError(f"{what}: labels must be whole numbers [{len(x)}], these are {y.dtype} {list(y.shape)}{hint}")
    if not len(y):
        raise ValueError(f"{what}: there are no pictures")
    if int(y.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{what}: the label {int(y.max())} is no class number: they run from 0 to C-1")
    pixels = torch.from_numpy(x)
    return Images((pixels if first else pixels.permute(0, 3, 1, 2)).contiguous(), torch.from_numpy(y.astype(np.int64)))


def _array(what: str, values: Any, kind: str) -> np.ndarray:
    """A copy as a NumPy array of this machine's byte order; whole numbers that are kept as objects become integers."""
    try:
        if isinstance(values, Tensor):
            values = (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()
        array = np.array(values)
        if array.dtype == object and all(isinstance(v, Integral) and not isinstance(v, bool) for v in array.flat):
            array = array.astype(np.int64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise TypeError(f"{what}: the {kind} are no array of numbers, all of one shape ({error})") from None
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_images(what: str, images: Images, classes: int) -> None:
    y, n = images.y, len(images.y)
    if isinstance(images, Images):
        x, n = images.x, len(images.x)
        if x.dtype != torch.uint8 or x.dim() != 4 or x.shape[1] != 3:
            raise TypeError(f"{what}: pictures must be uint8 [N, 3, H, W], these are {x.dtype} {list(x.shape)}")
    if y.dtype != torch.int64 or y.shape != (n,):
        raise TypeError(f"{what}: labels must be int64 [{n}], these are {y.dtype} {list(y.shape)}")
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(f"{what}: labels run from {int(y.min())} to {int(y.max())}, outside 0 to {classes - 1}")
