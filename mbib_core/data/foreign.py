"""Data sets as others have them: torchvision's, Hugging Face's, any `torch.utils.data.Dataset` of labelled pictures."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from mbib_core.data.longtailed import LongTailed, from_arrays
from mbib_core.data.pictures import checked_size
from mbib_core.data.streamed import streamed

PICTURES = ("image", "img", "picture", "pixel_values")
LABELS = ("label", "labels", "fine_label", "class", "target", "y")


class Foreign:
    """The pictures of somebody's data set, one by one, whatever it makes of an item."""

    def __init__(self, what: str, dataset: Any):
        self.what, self.dataset = what, dataset

    def picture(self, row: int, side: int) -> Image.Image:
        try:
            item = self.dataset[row]
            picture = item[_column(self.what, item, PICTURES)] if isinstance(item, dict) else item[0]
        except Exception as error:  # somebody's code, which may do anything
            raise ValueError(f"picture {row} of {self.what} cannot be read ({type(error).__name__}: {error})") from None
        if isinstance(picture, Image.Image):
            return picture.convert("RGB")
        if getattr(picture, "dtype", None) == torch.uint8 and picture.dim() == 3 and len(picture) in (1, 3):
            return Image.fromarray(picture.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
        kind = f"{picture.dtype} {list(picture.shape)}" if isinstance(picture, Tensor) else type(picture).__name__
        raise ValueError(
            f"picture {row} of {self.what} must be a PIL picture or a uint8 tensor [3, H, W], this is {kind}: leave "
            f"transforms such as ToTensor out of the data set"
        )


def from_dataset(
    name: str,
    *,
    train: Any,
    validation: Any,
    test: Any,
    classes: Iterable[Any] | None = None,
    size: int = 224,
    flip: bool = True,
    skip_broken: bool = False,
) -> LongTailed:
    """A data set of three map-style data sets of labelled pictures: torchvision's `ImageFolder`, Hugging Face's with a
    column of images and one of labels, or any that gives (PIL picture or uint8 tensor [3, H, W], whole number).

    Pictures are read while training, at `size` pixels a side, and cropped there, so leave transforms out; a
    `TensorDataset` is taken as arrays, at its own size, if all three are one. Pictures are taken as they are, neither
    turned by their EXIF tag nor put on white. Labels come from `targets`, `labels` or the column of labels if there is
    one, else every item is read once. Without `classes` the names are those of the training set, or the numbers. The
    fingerprint is of the labels, not the pixels: give other pictures another name. Raises TypeError or ValueError with
    a sentence on anything else, and as `LongTailed` does.
    """
    given, size = {"train": train, "validation": validation, "test": test}, checked_size(size)
    if all(isinstance(dataset, TensorDataset) for dataset in given.values()):
        return from_arrays(name, **{p: d.tensors[:2] for p, d in given.items()}, classes=classes, flip=flip)
    digest = hashlib.sha256(repr((name, size)).encode())
    parts: dict[str, Any] = {}
    for part, dataset in given.items():
        what = f"{name} {part}"
        y = _labels(what, dataset)
        digest.update(y.numpy().tobytes())
        parts[part] = streamed(Foreign(what, dataset), y, size, skip_broken=skip_broken)
    y = parts["train"].y
    if not len(y) or not 0 <= int(y.min()) <= int(y.max()) < len(y):
        raise ValueError(f"{name} train: labels must be 0 to C-1, with a picture of each")
    known: Iterable[Any] = (_names(train) or range(int(y.max()) + 1)) if classes is None else classes
    names = [c if isinstance(c, str) else str(c) for c in known]
    return LongTailed(str(name), **parts, classes=names, flip=flip, fingerprint=digest.hexdigest()[:8])


def _labels(what: str, dataset: Any) -> Tensor:
    """The label of every item, without reading its picture where that can be had."""
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(f"{what} must be a data set with a length and items by number, not {type(dataset).__name__}")
    if isinstance(dataset, Subset):
        return _labels(what, dataset.dataset)[torch.as_tensor(dataset.indices, dtype=torch.int64)]
    labels: Any
    if columns := list(getattr(dataset, "column_names", None) or []):
        labels = list(dataset[_column(what, columns, LABELS)])
    else:
        labels = getattr(dataset, "targets", getattr(dataset, "labels", None))
        labels = [dataset[row][1] for row in range(len(dataset))] if labels is None else labels
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or array.shape != (len(dataset),):
        raise TypeError(
            f"{what}: labels must be whole numbers [{len(dataset)}], these are {array.dtype} {list(array.shape)}"
        )
    return torch.from_numpy(array.astype(np.int64))


def _column(what: str, columns: Iterable[str], known: tuple[str, ...]) -> str:
    there = list(columns)
    for name in known:
        if name in there:
            return name
    raise ValueError(f"{what} has no column {' or '.join(known[:2])} among {', '.join(there)}: rename one")


def _names(dataset: Any) -> Any:
    """The names of the classes where a data set knows them."""
    if isinstance(dataset, Subset):
        return _names(dataset.dataset)
    features = getattr(dataset, "features", None) or {}
    column = next((name for name in LABELS if name in features), None)
    return getattr(dataset, "classes", None) or getattr(features[column] if column else None, "names", None)
