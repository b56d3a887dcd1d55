"""The picture of the front page: who gains by a method, the rare classes or the frequent ones."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbib_core.figures.style import FAINT, GRID, MARKERS, WIDTH, colour_of, described, styled

ROWS = {
    "few": "few-shot\n(under 20)",
    "medium": "medium-shot\n(20 to 100)",
    "many": "many-shot\n(over 100)",
    "all": "all classes",
}


def who_gains(points: Mapping[str, Mapping[str, float]], paper: Mapping[str, float], keys: Mapping[str, str]) -> Figure:
    """Test accuracy in per cent, a row for few, medium, many and all, a mark for each method of `points`.

    `paper` are published accuracies over all classes, drawn hollow below; `keys` the methods' keys, which fix colours.
    """
    with styled():
        figure = Figure(figsize=(WIDTH * 1.25, 3.9), layout="constrained")
        axes = figure.subplots()
        places = {shot: -i for i, shot in enumerate(ROWS)}
        for shot, y in places.items():
            values = [by[shot] for by in points.values()]
            axes.plot([min(values), max(values)], [y, y], color=GRID, lw=5, solid_capstyle="round", zorder=1)
        for index, (name, by) in enumerate(points.items()):
            colour = colour_of(keys[name], index)
            for shot, y in places.items():
                axes.plot(by[shot], y, MARKERS.get(keys[name], "o"), color=colour, markersize=8, zorder=3)
            if name in paper:
                axes.plot(
                    paper[name],
                    places["all"] - 0.32,
                    MARKERS.get(keys[name], "o"),
                    mfc="none",
                    mec=colour,
                    mew=1.6,
                    markersize=7,
                    zorder=3,
                )
        _name_marks(axes, {name: by["few"] for name, by in points.items()}, places["few"], keys)
        if paper:
            axes.text(min(paper.values()) - 1.2, places["all"] - 0.32, "the paper", ha="right", va="center",
                      fontsize=9, color=FAINT)  # fmt: skip
        axes.set_yticks(list(places.values()), list(ROWS.values()))
        axes.set(xlabel="test accuracy (%)", ylim=(min(places.values()) - 0.6, 1.35), xlim=(0, None))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
    parts = [
        f"{name} {by['few']:.1f}, {by['medium']:.1f}, {by['many']:.1f} and {by['all']:.1f} %"
        for name, by in points.items()
    ]
    words = f"Test accuracy on few-, medium- and many-shot and on all classes: {'; '.join(parts)}."
    return described(figure, words)


def _name_marks(axes: Axes, values: Mapping[str, float], y: float, keys: Mapping[str, str]) -> None:
    """Names above the marks of a row, each in its colour, set apart where the marks are close."""
    last = -np.inf
    for index, (name, x) in enumerate(sorted(values.items(), key=lambda pair: pair[1])):
        last = max(x, last + 4.2)
        colour = colour_of(keys[name], index)
        axes.plot([x, last], [y + 0.08, y + 0.34], color=colour, lw=0.8)
        axes.text(last, y + 0.36, name, rotation=30, rotation_mode="anchor", fontsize=9, color=colour)
