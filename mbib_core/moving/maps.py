"""Two maps of the same images, side by side, in which the reader chooses what is drawn and points at a class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mbib_core.moving import _show

SIDE = 276  # units of a map, margins apart
COLOURS = {"many": "#2f7fc1", "medium": "#8a8f98", "few": "#d55e00"}


def two_maps(
    maps: Mapping[str, Mapping[str, Any]],
    y: Any,
    *,
    names: Sequence[str],
    counts: Sequence[int],
    groups: Sequence[str],
    right: Mapping[str, Sequence[int]],
    start: tuple[str, str],
    variant: str,
    chosen: str = "",
    finding: str,
    caption: str = "",
    name: str = "",
) -> None:
    """Displays two maps of the same images: the reader chooses features and variant, and points at a class.

    maps: places [N, 2] of the N images by features and by variant; each is turned, mirrored and scaled onto the first,
    which changes no picture of t-SNE. y: the class of each image, 0 to K - 1. names, counts, groups: of the K classes:
    their names, training images, and many, medium or few. right: of each class, how many images their neighbours name
    right in these features. start, variant, chosen: the features left and right, the variant and the class seen first.
    Raises ValueError if a shape does not fit or a start is not among the maps.
    """
    y = np.asarray(y)
    variants = list(next(iter(maps.values())))
    if (
        any(list(drawn) != variants for drawn in maps.values())
        or variant not in variants
        or not set(start) <= set(maps)
    ):
        raise ValueError("all features need the same variants, and the start must be one of them")
    if not len(names) == len(counts) == len(groups) == y.max() + 1 or any(len(right[m]) != len(names) for m in maps):
        raise ValueError(f"{y.max() + 1} classes need as many names, counts, groups and numbers of right images")
    if chosen and chosen not in names:
        raise ValueError(f"no class is called {chosen!r}")
    pattern = unit(next(iter(maps.values()))[variant])
    kinds = list(dict.fromkeys(groups))
    data = {
        "maps": [
            [
                title,
                [places(xy, pattern) for xy in drawn.values()],
                [int(n) for n in right[title]],
                int(sum(right[title])),
            ]
            for title, drawn in maps.items()
        ],
        "variants": variants,
        "variant": variants.index(variant),
        "y": y.tolist(),
        "each": round(len(y) / len(names)),
        "classes": [[n, int(c), kinds.index(g)] for n, c, g in zip(names, counts, groups, strict=True)],
        "groups": [[kind, COLOURS[kind]] for kind in kinds],
        "start": [list(maps).index(one) for one in start],
        "chosen": list(names).index(chosen) if chosen else -1,
    }
    _show("maps", data, "Two maps of features, to be changed", finding, caption, name)


def places(xy: Any, pattern: np.ndarray) -> list[list[int]]:
    """`xy` [N, 2] turned and mirrored towards `pattern`, in whole units of a map that it fills."""
    xy = unit(xy)
    left, _, right = np.linalg.svd(xy.T @ pattern)
    xy = xy @ left @ right
    low, high = xy.min(0), xy.max(0)
    scaled = (xy - (low + high) / 2) / (high - low).max() + 0.5
    return np.rint(SIDE * scaled).astype(int).tolist()


def unit(xy: Any) -> np.ndarray:
    """Points [N, 2] about their mean, of mean square 1."""
    xy = np.asarray(xy, dtype=float)
    if xy.ndim != 2 or xy.shape[1] != 2 or not np.isfinite(xy).all():
        raise ValueError(f"a map is made of finite points [N, 2], these are {list(xy.shape)}")
    xy = xy - xy.mean(0)
    return xy / np.sqrt((xy**2).sum(1).mean())
