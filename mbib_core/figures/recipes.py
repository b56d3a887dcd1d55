"""What recipes do beside losses: accuracy against the price of a training, and images as they reach the network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from mbib_core.figures.charts import Interval
from mbib_core.figures.style import CARD, FAINT, MARKERS, NAMES, WIDTH, apart, colour_of, described, legend, styled

SAME = 1.2  # what costs less than so many times as much stands in one column


def accuracy_by_price(
    found: Mapping[str, Mapping[str, tuple[float, Interval]]],
    *,
    unit: float,
    xlabel: str,
    ylabel: str,
    finding: str,
) -> Figure:
    """Accuracy against multiply-adds of the training: for each method its recipes, by name, each with its price and its
    mean and interval. The first recipe, of price `unit`, is the filled mark; a line joins the best for their price,
    which are named. What costs nearly the same stands in one column, the methods side by side. `finding` is the
    picture's alt text.
    """
    with styled():
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        prices = sorted(price for recipes in found.values() for price, _ in recipes.values())
        columns = [p for i, p in enumerate(prices) if i == 0 or p > SAME * prices[i - 1]]
        labels: dict[float, list[tuple[float, str, str]]] = {column: [] for column in columns}
        for place, (method, recipes) in enumerate(found.items()):
            colour, marker = colour_of(method, place), MARKERS.get(method, "o")
            shift = 1.055 ** (place - len(found) + 1)
            best: list[tuple[float, float]] = []
            for column in columns:
                here = {n: v for n, (p, v) in recipes.items() if column <= p < SAME * column}
                if not here:
                    continue
                top = max(here, key=lambda name: here[name][0])
                for name, (mean, low, high) in here.items():
                    plain = name == next(iter(recipes))
                    face, size, label = (colour, 7, NAMES.get(method, method)) if plain else (CARD, 5, "_")
                    if plain or name == top:
                        axes.vlines(column * shift, low, high, color=colour, lw=2.6, alpha=0.4)
                    axes.plot(column * shift, mean, marker, color=colour, mfc=face, mew=1.2, markersize=size, zorder=4,
                              label=label)  # fmt: skip
                if not best or here[top][0] > best[-1][1]:
                    best.append((column * shift, here[top][0]))
                    labels[column].append((here[top][0], top, colour))
            axes.plot(*np.array(best).T, color=colour, lw=1.3, alpha=0.7, zorder=2)
        axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(columns[0] / 2.7, columns[-1] * 2.2))
        for column, named in labels.items():
            first = column == columns[0]
            x = column / 1.055 ** len(found) / 1.03 if first else column * 1.07
            _beside(axes, x, sorted(named), "right" if first else "left")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        middle = 1.055 ** ((1 - len(found)) / 2)
        axes.set_xticks(
            [column * middle for column in columns],
            [f"{column / 1e12:.1f}\n{column / unit:.0f} ×" for column in columns],
        )
        axes.grid(axis="x", visible=False)
        legend(axes)
    return described(figure, finding)


def _beside(axes: Axes, x: float, named: Sequence[tuple[float, str, str]], side: str) -> None:
    """Names that end or begin at `x`, each (height, name, colour), moved apart where they would touch."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    for height, (_, name, colour) in zip(apart([y for y, *_ in named], 0.05 * (high - low)), named, strict=True):
        axes.text(x, height, name, color=colour, ha=side, va="center", fontsize=8.5, zorder=5)


def rows_of_images(rows: Mapping[str, Sequence[tuple[Any, str]]], *, finding: str) -> Figure:
    """A row of images [3, H, W] of 0 to 255 for each name, with words below each. `finding` is the alt text."""
    columns = max(map(len, rows.values()))
    with styled():
        figure = Figure(figsize=(WIDTH, 0.88 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for (name, images), line in zip(rows.items(), grid, strict=True):
            for axes in line:
                axes.set_axis_off()
            for (image, words), axes in zip(images, line, strict=False):
                axes.imshow(np.asarray(image).transpose(1, 2, 0), interpolation="nearest")
                axes.text(0.5, -0.06, words, transform=axes.transAxes, ha="center", va="top", fontsize=7.5, color=FAINT)
            line[0].text(-0.12, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    return described(figure, finding)
