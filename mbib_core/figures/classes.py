"""Pictures of a data set and of what becomes of its classes: counts, accuracy, predictions, by class size."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbib_core.figures.style import (
    FAINT,
    INK,
    MARKERS,
    NAMES,
    SHOTS,
    colour_of,
    described,
    legend,
    listed,
    one_axes,
    plain_log,
    styled,
)


def accuracy_by_class(counts: Int[np.ndarray, " c"], accuracies: Mapping[str, Float[np.ndarray, " c"]]) -> Figure:
    """Accuracy of each class (0 to 1) against its training images: a mark a class and a bar a shot, by method."""
    series = {name: 100 * np.asarray(values) for name, values in accuracies.items()}
    with styled():
        figure, axes = one_axes(3.6)
        _by_class(axes, counts, series)
        axes.set(ylabel="test accuracy (%)", ylim=(-3, 103))
    means = _means_in_words(counts, series, ".0f", " %")
    return described(figure, f"Accuracy of each class against its number of training images. {means}.")


def predicted_shares(counts: Int[np.ndarray, " c"], shares: Mapping[str, Float[np.ndarray, " c"]]) -> Figure:
    """How often each class is predicted (shares sum to 1), as multiples of 1/C, against its training images.

    Two lines compare: the class's share of the training set, and its share of a balanced test set, which is 1.
    """
    counts = np.asarray(counts)
    series = {name: np.asarray(values) * len(counts) for name, values in shares.items()}
    with styled():
        figure, axes = one_axes(3.6)
        by_size = np.sort(counts)
        axes.plot(by_size, by_size * len(counts) / counts.sum(), color=INK, lw=1.2, ls="--", label="share in training")
        axes.axhline(1, color=FAINT, lw=1.4, ls=(0, (1, 1.5)), label="share in the test")
        _by_class(axes, counts, series, bars=False)
        axes.set(ylabel="predicted, in multiples of 1/C")
        axes.set_ylim(bottom=-0.02 * axes.get_ylim()[1])
    means = _means_in_words(counts, series, ".1f", " times 1/C")
    even = counts * len(counts) / counts.sum()
    lines = (
        f"A dashed line, the share in training, rises from {even.min():.1f} to {even.max():.1f}; a dotted one lies at 1"
    )
    words = f"How often each class is predicted on a balanced test set, against class size. {means}. {lines}."
    return described(figure, words)


def _by_class(axes: Axes, counts: Any, series: Mapping[str, np.ndarray], bars: bool = True) -> None:
    """Marks of one value a class over log class size, and each shot's mean as a bar; equal bars lie in each other."""
    counts = np.asarray(counts)
    axes.set_xscale("log")
    axes.set_xlabel("training images of the class (log)")
    for index, (name, values) in enumerate(series.items()):
        colour, size = colour_of(name, index), 18 if len(series) > 2 else 24
        axes.scatter(counts, values, s=size, marker=MARKERS.get(name, "o"), color=colour, alpha=0.65, lw=0,
                     label=NAMES.get(name, name), zorder=3.5)  # fmt: skip
        for inside in _shot_masks(counts).values() if bars else ():
            span = counts[inside].min() / 1.06, counts[inside].max() * 1.06
            axes.plot(span, [np.nanmean(values[inside])] * 2, color=colour, lw=2 + 1.6 * (len(series) - 1 - index),
                      solid_capstyle="butt", zorder=3)  # fmt: skip
    plain_log(axes, "x")
    legend(axes)


def _shot_masks(counts: Any) -> dict[str, np.ndarray]:
    """Which classes each shot has; shots without classes are left out."""
    counts = np.asarray(counts)
    masks = {shot: (counts > above) & (counts <= to) for shot, (above, to) in SHOTS.items()}
    return {shot: mask for shot, mask in masks.items() if mask.any()}


def _means_in_words(counts: Any, series: Mapping[str, np.ndarray], digits: str, unit: str) -> str:
    """'Mean over the many-, medium- and few-shot classes: cross-entropy 80, 40 and 3 %; ...'."""
    masks = _shot_masks(counts)
    lines = [
        f"{NAMES.get(name, name)} {listed([f'{np.nanmean(values[mask]):{digits}}' for mask in masks.values()])}{unit}"
        for name, values in series.items()
    ]
    return f"Mean over the {listed([f'{shot}-' for shot in masks])}shot classes: {'; '.join(lines)}"
