"""Charts of plain numbers: curves, bands, bars, heat maps. The caller says what they show, the picture's alt text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.ticker import MaxNLocator

from mbib_core.extras import extra
from mbib_core.figures.style import (
    CARD,
    COLOURS,
    FAINT,
    INK,
    MARKERS,
    NAMES,
    OTHERS,
    SHADES,
    SHARES,
    WIDTH,
    colour_of,
    described,
    heat,
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


def bands(x: Any, series: Mapping[str, Any], *, xlabel: str, ylabel: str, finding: str) -> Figure:
    """Values [n, seeds] as their mean and the band they fill, one step for each of `x`; `finding` is the alt text."""
    with styled():
        figure, axes = one_axes(3.4)
        at = range(len(x))
        for index, (name, values) in enumerate(series.items()):
            values, colour = np.asarray(values), list(COLOURS.values())[index % 5]
            axes.plot(at, values.mean(1), color=colour, ls=("-", "--", "-.", ":")[index % 4], marker="osD^"[index % 4],
                      label=name)  # fmt: skip
            axes.fill_between(at, values.min(1), values.max(1), color=colour, alpha=0.2, lw=0)
        axes.set_xticks(at, [f"{value:g}".removeprefix("0") or "0" for value in x])
        axes.set(xlabel=xlabel, ylabel=ylabel)
        legend(axes)
    return described(figure, finding)


def heat_map(
    values: Any, rows: Sequence[str], columns: Sequence[str], *, xlabel: str, ylabel: str, finding: str
) -> Figure:
    """Probabilities [rows, columns]: the darker, the nearer to 1. `finding` is the picture's alt text."""
    with styled():
        figure, axes = one_axes(3.9)
        heat(axes, values, rows)
        axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
        axes.set(xlabel=xlabel, ylabel=ylabel)
    return described(figure, finding)


def grouped_bars(
    values: Mapping[str, Mapping[str, float]], *, xlabel: str, finding: str, digits: str = ".0f", most: float = 100
) -> Figure:
    """Horizontal bars: a group for each name of `values`, a bar in it for each series; a missing one is left out.

    `most` is the end of the axis; `finding` is the picture's alt text.
    """
    names = list(dict.fromkeys(name for group in values.values() for name in group))
    thick = 0.8 / len(names)
    with styled():
        figure, axes = one_axes(0.9 + len(values) * (0.24 * len(names) + 0.16))
        for index, name in enumerate(names):
            own = {g: [n for n in names if n in group] for g, group in enumerate(values.values()) if name in group}
            at = [g + thick * (present.index(name) - 0.5 * (len(present) - 1)) for g, present in own.items()]
            bars = axes.barh(at, [group[name] for group in values.values() if name in group], height=0.88 * thick,
                             color=SHADES[index % 6], label=name)  # fmt: skip
            axes.bar_label(bars, fmt=f"%{digits}", padding=3, fontsize=9)
        axes.set_yticks(range(len(values)), list(values))
        axes.set(xlabel=xlabel, xlim=(0, 1.09 * most))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        if len(names) > 1:
            legend(axes)
    return described(figure, finding)


def paired_differences(differences: Mapping[str, Sequence[float]], *, xlabel: str, finding: str) -> Figure:
    """A row for each name: a mark a seed, at three heights by its rank, and a bar for the mean; at 0 no difference."""
    with styled():
        figure, axes = one_axes(0.8 + 0.46 * len(differences))
        axes.axvline(0, color=INK, lw=1.2)
        for row, values in enumerate(differences.values()):
            mean = float(np.mean(values))
            axes.plot([0, mean], [row, row], color=OTHERS[1], lw=9, alpha=0.3, solid_capstyle="butt")
            axes.plot([mean, mean], [row - 0.3, row + 0.3], color=COLOURS["ce"], lw=2.4)
            apart = row + 0.15 * (np.arange(len(values)) % 3 - 1)  # neighbours do not hide one another
            axes.plot(sorted(values), apart, "o", color=OTHERS[1], mec=CARD, mew=0.6, markersize=6)
        axes.set_yticks(range(len(differences)), list(differences))
        axes.set(xlabel=xlabel, ylim=(len(differences) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    return described(figure, finding)


def named_marks(
    marks: Mapping[str, tuple[float, float, float]],
    *,
    xlabel: str,
    ylabel: str,
    finding: str,
    colours: Mapping[str, str],
    span: float = 0.0,
) -> Figure:
    """A mark (x, y, half of y's interval or NaN) for each name; a thin line leads to the name and its y at the right.

    `colours` are of some names; the others are grey. The x axis is `span` long at least. `finding` is the picture's alt
    text.
    """
    order = sorted(marks, key=lambda name: marks[name][1], reverse=True)
    with styled():
        figure = Figure(figsize=(WIDTH, max(2.6, 0.8 + 0.145 * len(order))), layout="constrained")
        axes, side = figure.subplots(1, 2, width_ratios=(4, 3))
        side.set_axis_off()
        side.set(xlim=(0, 1), ylim=(0, 1))
        for place, name in enumerate(order):
            x, y, half = marks[name]
            colour = colours.get(name, FAINT)
            on_top = 3 + (name in colours)
            if not np.isnan(half):
                axes.plot([x, x], [y - half, y + half], color=colour, lw=1.2, alpha=0.4, zorder=2)
            axes.plot(x, y, MARKERS.get(name, "o"), color=colour, mec=CARD, mew=0.6, markersize=6, zorder=on_top)
            height = 1 - (place + 0.5) / len(order)
            said = f"{name}  {y:.1f}" + ("" if np.isnan(half) else f" ± {half:.1f}")
            side.text(0.04, height, said, va="center", fontsize=8, color=colours.get(name, INK))
            ends: dict[str, Any] = {"xyA": (x, y), "coordsA": axes.transData, "xyB": (0.02, height)}
            figure.add_artist(ConnectionPatch(**ends, coordsB=side.transData, color=colour, lw=0.5, alpha=0.5))
        left, right = min(x for x, _, _ in marks.values()), max(x for x, _, _ in marks.values())
        right = max(right, left + span)
        axes.set_xlim(left - 0.1 * (right - left), right + 0.1 * (right - left))
        axes.set(xlabel=xlabel, ylabel=ylabel)
    return described(figure, finding)


def sweep(series: Mapping[str, Mapping[float, Sequence[float]]], *, xlabel: str, ylabel: str, finding: str) -> Figure:
    """Values by seed for each value of a setting, evenly spaced: a mark a seed, the mean and its standard error.

    `finding` is the picture's alt text.
    """
    settings = sorted({value for group in series.values() for value in group})
    with styled():
        figure, axes = one_axes(3.4)
        for index, (name, group) in enumerate(series.items()):
            colour, shift = colour_of(name, index), 0.16 * (index - (len(series) - 1) / 2)
            at = [settings.index(value) + shift for value in sorted(group)]
            runs = [np.asarray(group[value]) for value in sorted(group)]
            for x, values in zip(at, runs, strict=True):
                axes.plot([x] * len(values), values, MARKERS.get(name, "o"), color=colour, alpha=0.4, mew=0)
            errors = [r.std(ddof=1) / len(r) ** 0.5 if len(r) > 1 else 0 for r in runs]
            axes.errorbar(at, [r.mean() for r in runs], errors, color=colour, marker="_", markersize=11, mew=2.4,
                          elinewidth=2.4, lw=1.2, ls=("-", "--", "-.")[index % 3],
                          label=NAMES.get(name, name))  # fmt: skip
        axes.set_xticks(range(len(settings)), [f"{value:g}" for value in settings])
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(axis="x", visible=False)
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


def learning_curves(curves: Mapping[str, Any], *, epochs: Sequence[int], ylabel: str) -> Figure:
    """Values [epochs] of each method, or [epochs, seeds], then drawn as their mean and the band they fill."""
    means = {name: np.asarray(values).reshape(len(epochs), -1).mean(1) for name, values in curves.items()}
    with styled():
        figure, axes = one_axes(3.1)
        for index, (name, values) in enumerate(curves.items()):
            rows, colour = np.asarray(values).reshape(len(epochs), -1), colour_of(name, index)
            axes.fill_between(epochs, rows.min(1), rows.max(1), color=colour, alpha=0.2, lw=0)
            axes.plot(epochs, means[name], color=colour, label=NAMES.get(name, name), marker=MARKERS.get(name),
                      markevery=max(1, len(epochs) // 6))  # fmt: skip
        axes.set(xlabel="epoch", ylabel=ylabel)
        legend(axes)
    last = ", ".join(f"{NAMES.get(name, name)} {mean[-1]:.0f}" for name, mean in means.items())
    return described(figure, f"{ylabel} by epoch. After epoch {epochs[-1]}: {last}.")


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
