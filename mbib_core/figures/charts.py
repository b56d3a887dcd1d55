"""Charts of plain numbers: curves, marks with intervals, heat maps. The caller says what they show, the alt text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mbib_core.compare import signed
from mbib_core.extras import extra
from mbib_core.figures.style import (
    CARD,
    COLOURS,
    FAINT,
    GRID,
    INK,
    MARKERS,
    NAMES,
    SHADES,
    SHARES,
    apart,
    colour_of,
    described,
    legend,
    listed,
    one_axes,
    plain_log,
    styled,
)


def lines(
    x: Any,
    series: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
    finding: str,
    log_x: bool = False,
    step: bool = False,
    marked: Mapping[str, float] | None = None,
) -> Figure:
    """Curves over one `x`, told apart by dashes and shade; `marked` are named places on the x axis.

    `finding` is what the curves show, in words: the picture's alt text.
    """
    with styled():
        figure, axes = one_axes(3.4)
        for index, (name, values) in enumerate(series.items()):
            axes.plot(x, values, color=COLOURS.get(name, SHADES[index % 6]),
                      ls=("-", "--", "-.", (0, (1, 1.2)), (0, (6, 1, 1, 1, 1, 1)), (0, (8, 2)))[index % 6],
                      label=NAMES.get(name, name), drawstyle="steps-post" if step else "default")  # fmt: skip
        for name, place in (marked or {}).items():
            axes.axvline(place, color=FAINT, lw=0.9, ls=(0, (2, 2)))
            axes.text(place, 0.98, f" {name}", color=FAINT, ha="left", va="top",
                      transform=axes.get_xaxis_transform())  # fmt: skip
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if log_x:
            axes.set_xscale("log")
            plain_log(axes, "x")
        if step:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if len(series) > 1:
            legend(axes)
    return described(figure, finding)


def score_map(values: Any, rows: Sequence[str], columns: Sequence[str], *, xlabel: str, finding: str) -> Figure:
    """Mean scores [rows, columns] written in shaded cells, the darker the higher; NaN stays empty.

    `finding` is the picture's alt text.
    """
    seaborn = extra("seaborn", "a map of scores")  # takes a second, which no other image should
    values = np.asarray(values, dtype=float)
    low, span = np.nanmin(values), max(np.nanmax(values) - np.nanmin(values), 1e-9)
    with styled():
        figure, axes = one_axes(0.9 + 0.46 * len(rows))
        seaborn.heatmap(values, vmin=low - 0.2 * span, vmax=low + 2 * span, cmap=SHARES, cbar=False, annot=True,
                        fmt=".1f", annot_kws={"color": INK, "size": 11}, linewidths=1, linecolor=CARD,
                        xticklabels=list(columns), yticklabels=list(rows), ax=axes)  # fmt: skip
        axes.tick_params(length=0, rotation=0)
        axes.grid(False)
        axes.set(xlabel=xlabel)
    return described(figure, finding)


def reliability(bins: Mapping[str, Mapping[str, Any]], *, of: str = "") -> Figure:
    """Accuracy against confidence, `metrics.calibration`'s answer for each name; on the diagonal both are equal.

    `of` says in words which pictures these are. Bins with less than 0.2 % of them are left out.
    """
    with styled():
        figure, axes = one_axes(3.9)
        axes.plot([0, 1], [0, 1], color=FAINT, lw=1, ls="--")
        for index, (name, found) in enumerate(bins.items()):
            filled = np.array(found["count"]) > 0.002 * sum(found["count"])
            x, y = (np.array(found[key])[filled] for key in ("confidence", "accuracy"))
            axes.plot(x, y, marker=("o", "s", "^", "D")[index % 4], color=colour_of(name, index),
                      label=NAMES.get(name, name))  # fmt: skip
        axes.set(xlabel="confidence of the prediction", ylabel="share that is right")
        legend(axes)
    errors = [f"{NAMES.get(name, name)} {found['error']:.3f}" for name, found in bins.items()]
    words = [f"{NAMES.get(name, name)} lies {_beside_the_diagonal(found)}" for name, found in bins.items()]
    title = f"Accuracy against confidence{f', {of}' * bool(of)}"
    return described(figure, f"{title}: {'; '.join(words)}. Expected calibration error: {listed(errors)}.")


def _beside_the_diagonal(found: Mapping[str, Any]) -> str:
    """Where most of the pictures lie: "along", within a point of it, "above", "below" or "on both sides of" it."""
    count, gap = np.array(found["count"]), np.array(found["accuracy"]) - np.array(found["confidence"])
    along, above, below = (
        count[side].sum() / max(1, count.sum()) for side in (abs(gap) <= 0.01, gap > 0.01, gap < -0.01)
    )
    one_side = "above" if above > 4 * below else "below" if below > 4 * above else "on both sides of"
    side = "along" if along > 0.5 else one_side
    return f"{side} the diagonal"


Interval = tuple[float, float, float]  # mean, low and high; the last two NaN where there is none


def forest(
    series: Mapping[str, Mapping[str, Interval]],
    *,
    xlabel: str,
    finding: str,
    wide: Mapping[str, Interval] | None = None,
    hollow: Sequence[str] = (),
    span: tuple[float, float] | None = None,
    numbers: bool = True,
) -> Figure:
    """A row for each name: a mark at the mean and a bar over its interval, below one another for each series.

    `wide` adds a thin line over a second interval of the first series. The series of `hollow` have hollow marks. What
    lies outside of `span` is an arrow at its end. With `numbers` the first series' means stand at the right. A name
    that begins with a line break opens a group. `finding` is the picture's alt text.
    """
    rows = list(dict.fromkeys(name for group in series.values() for name in group))
    thick = min(0.24, 0.62 / len(series))
    height = [0.0]
    for name in rows[1:]:
        height.append(height[-1] + (1.35 if name.startswith("\n") else 1))
    at = dict(zip(rows, height, strict=True))
    with styled():
        figure, axes = one_axes(0.75 + (0.25 + 0.1 * (len(series) - 1)) * (height[-1] + 1) + 0.2 * (len(series) > 1))
        axes.axvline(0, color=INK, lw=1)
        drawn = [*series.values(), wide or {}]
        every = [x for group in drawn for entry in group.values() for x in entry if np.isfinite(x)]
        left, right = span or (min(0, *every), max(0, *every))
        room = 0.04 * (right - left)
        for index, (label, group) in enumerate(series.items()):
            colour = colour_of(label, index) if len(series) > 1 else SHADES[1]
            marker, shift = MARKERS.get(label, "osD^"[index % 4]), thick * (index - (len(series) - 1) / 2)
            face = CARD if label in hollow else colour
            named = NAMES.get(label, label)
            for name, (mean, low, high) in group.items():
                y = at[name] + shift
                if wide and index == 0 and name in wide:
                    axes.plot(np.clip(wide[name][1:], left, right), [y, y], color=colour, lw=0.9, alpha=0.8)
                if mean < left or mean > right:
                    end, way = (left, "<") if mean < left else (right, ">")
                    axes.plot(end, y, way, color=colour, markersize=7, clip_on=False)
                    continue
                if np.isfinite(low):
                    axes.plot(np.clip([low, high], left, right), [y, y], color=colour, lw=3.2, alpha=0.45,
                              solid_capstyle="butt")  # fmt: skip
                axes.plot(mean, y, marker, color=colour, mfc=face, mew=1.4, markersize=5.5, label=named, zorder=3)
                named = "_"
        axes.set_yticks(height, [name.lstrip("\n") for name in rows])
        axes.set(xlabel=xlabel, xlim=(left - room, right + room), ylim=(height[-1] + 0.6, -0.6))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        if numbers:
            for name, (mean, *_) in next(iter(series.values())).items():
                axes.text(1.015, at[name], signed(mean), va="center", fontsize=9,
                          transform=axes.get_yaxis_transform())  # fmt: skip
        if len(series) > 1:
            short = sum(map(len, series)) < 36
            figure.legend(loc="outside upper left", ncols=len(series) if short else 1, handlelength=1.2,
                          borderaxespad=0.1, columnspacing=1.2)  # fmt: skip
    return described(figure, finding)


def with_intervals(
    series: Mapping[str, Mapping[Any, Interval]],
    *,
    xlabel: str,
    ylabel: str,
    finding: str,
    hollow: Sequence[str] = (),
    zero: bool = False,
    wide: float = 0.3,
) -> Figure:
    """Means over evenly spaced settings with bars over their intervals, joined by a line, its name at its right end.

    The series of `hollow` have hollow marks and a dashed line. `zero` draws a line at 0. `wide` is the share of the
    picture that the names take. `finding` is the picture's alt text.
    """
    places = list(dict.fromkeys(x for group in series.values() for x in group))
    places = sorted(places) if all(isinstance(x, int | float) for x in places) else places
    with styled():
        figure, axes = one_axes(3.3)
        if zero:
            axes.axhline(0, color=INK, lw=1)
        ends = []
        for index, (name, group) in enumerate(series.items()):
            colour, shift = colour_of(name, index), 0.1 * (index - (len(series) - 1) / 2)
            at = np.array([places.index(x) for x in group]) + shift
            mean, low, high = np.array(list(group.values()), dtype=float).T
            face = CARD if name in hollow else colour
            axes.plot(at, mean, MARKERS.get(name, "osD^"[index % 4]), color=colour, mfc=face, mew=1.4, lw=1.3,
                      ls="--" if name in hollow else "-", markersize=5.5, zorder=3)  # fmt: skip
            axes.vlines(at, low, high, color=colour, lw=2.6, alpha=0.4)
            ends.append((float(mean[-1]), NAMES.get(name, name), colour, float(at[-1])))
        axes.set_xticks(range(len(places)), [f"{x:g}" if isinstance(x, int | float) else x for x in places])
        last = len(places) - 1
        axes.set_xlim(-0.35, last + 0.35 + (last + 0.7) * wide / (1 - wide))
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(axis="x", visible=False)
        named_ends(axes, ends, last + 0.32)
    return described(figure, finding)


def named_ends(axes: Axes, ends: Sequence[tuple[float, str, str, float]], x: float) -> None:
    """Names at `x`, one for each end (height, name, colour, its x) of a line, moved apart where they would touch."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    order = sorted(ends)
    heights = apart([end[0] for end in order], 0.062 * (high - low))
    for (y, name, colour, end), height in zip(order, heights, strict=True):
        axes.plot([end + 0.06, x - 0.03], [y, height], color=colour, lw=0.6, alpha=0.7)
        axes.text(x, height, name, color=colour, va="center", fontsize=9.5)


def accuracy_and_cost(
    ours: Mapping[str, Interval],
    printed: Mapping[str, tuple[float, float]],
    *,
    cost: Mapping[str, float],
    xlabel: str,
    ylabel: str,
    finding: str,
    named: Mapping[str, str] | None = None,
) -> Figure:
    """Accuracy against what the training costs: `ours` as filled marks with their intervals, side by side on a shaded
    band, and hollow marks of what is `printed`, as (cost, accuracy), of the same methods and of others in grey.

    All of `ours` cost the same within two in a hundred, which the band says, or a ValueError is raised.
    `named` are words for methods that have no name in the book. `finding` is the picture's alt text.
    """
    order = sorted(ours, key=lambda name: ours[name][0], reverse=True)
    if max(cost[name] for name in ours) > 1.02 * min(cost[name] for name in ours):
        raise ValueError("the methods side by side must cost the same")
    with styled():
        figure, axes = one_axes(4.4)
        axes.set_xscale("log")
        left = min(cost.values()) / 1.055 ** (len(order) + 1)
        axes.axvspan(left * 1.03, min(cost.values()) * 1.028, color=GRID, alpha=0.45, lw=0)
        axes.text(left * 1.06, 0.985, "all cost 1 ×", color=FAINT, fontsize=8.5, va="top",
                  transform=axes.get_xaxis_transform())  # fmt: skip
        ends = []
        for place, name in enumerate(order):
            colour, x = colour_of(name, place), cost[name] / 1.055 ** (len(order) - place)
            mean, low, high = ours[name]
            axes.vlines(x, low, high, color=colour, lw=3, alpha=0.4)
            axes.plot(x, mean, MARKERS.get(name, "o"), color=colour, markersize=7, zorder=4)
            ends.append((mean, f"{(named or NAMES).get(name, NAMES.get(name, name))}  {mean:.1f}", colour, x))
        for name, (x, y) in printed.items():
            own = name in ours
            colour = colour_of(name, 0) if own else FAINT
            axes.plot(x, y, MARKERS.get(name, "o"), color=colour, mfc=CARD, mew=1.3, markersize=7 if own else 5,
                      zorder=4 if own else 3)  # fmt: skip
        axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(left / 3.7, 1.3 * max(x for x, _ in printed.values())))
        low, high = axes.get_ylim()
        axes.set_ylim(low, high)
        heights = apart([end[0] for end in sorted(ends)], 0.055 * (high - low))
        for (mean, text, colour, x), height in zip(sorted(ends), heights, strict=True):
            axes.plot([left, left * 1.03, x], [height, mean, mean], color=colour, lw=0.6, alpha=0.6)
            axes.text(left / 1.01, height, text, color=colour, ha="right", va="center", fontsize=9.5)
        for near in (True, False):  # at the ones' cost, where many stand above one another, and further to the right
            others = sorted((y, x, name) for name, (x, y) in printed.items() if name not in ours and (x < 1.2) == near)
            for (_, x, name), height in zip(others, apart([y for y, _, _ in others], 0.04 * (high - low)), strict=True):
                axes.annotate(name, (x, height), (7, 0), textcoords="offset points", va="center", fontsize=8.5,
                              color=FAINT)  # fmt: skip
        plain_log(axes, "x")
        axes.set_xticks([1, 1.5, 2, 3], ["1 ×", "1.5 ×", "2 ×", "3 ×"])
    return described(figure, finding)


def moved_boundaries(
    curves: Mapping[str, Any], marks: Mapping[str, Sequence[tuple[float, float]]], *, finding: str
) -> Figure:
    """Head and tail accuracy as a boundary moves: for each method a curve [steps, 2] of (head, tail) in per cent, named
    at its last point, and marks on it, the first of them filled. `finding` is the picture's alt text."""
    with styled():
        figure, axes = one_axes(4.1)
        for index, (name, curve) in enumerate(curves.items()):
            colour, curve = colour_of(name, index), np.asarray(curve)
            axes.plot(*curve.T, color=colour, lw=1.5, alpha=0.85)
            for place, (x, y) in enumerate(marks[name]):
                axes.plot(x, y, MARKERS.get(name, "o"), color=colour, mfc=CARD if place else colour, mew=1.4,
                          markersize=7.5, zorder=4)  # fmt: skip
            axes.annotate(NAMES.get(name, name), curve[-1], (-4, 3), textcoords="offset points", color=colour,
                          fontsize=9.5, ha="right", va="center")  # fmt: skip
        left, right = axes.get_xlim()
        axes.set_xlim(left - 0.22 * (right - left), right)
        axes.set(xlabel="many-shot accuracy (%)", ylabel="few-shot accuracy (%)")
    return described(figure, finding)
