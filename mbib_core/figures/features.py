"""Pictures of what a network says and of its features: maps, lines by class size, reliability, runs, photographs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator

from mbib_core.figures.style import (
    CARD,
    COLOURS,
    FAINT,
    GRID,
    INK,
    MARKERS,
    NAMES,
    SHOTS,
    WIDTH,
    apart,
    colour_of,
    described,
    one_axes,
    styled,
)

# Of the groups of a map: the first, second, ... one.
GROUPS = ("#0072b2", "#d55e00", "#008f68", "#a8457d", "#9a6a00", "#22272e", "#5aa9d6", "#b07aa1", "#8a5a44", "#6b8f23",
          "#e0873a", "#6b7280")  # fmt: skip
WRONG, RIGHT = "#b3402a", "#00704f"


class Plane(NamedTuple):
    """One panel of `planes`: points `xy` [N, 2], the name of each one's group, a title, and words below."""

    xy: Any
    group: Sequence[str]
    title: str
    below: str = ""


def planes(
    panels: Sequence[Plane], *, finding: str, named: bool = False, frame: bool = False, height: float = 2.35
) -> Figure:
    """Points in planes, two panels a row, in the colour of their group, whose name stands on it if `named`.

    The axes have no ticks unless `frame`. `finding` is the alt text.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.group))
    colours = {name: GROUPS[index % len(GROUPS)] for index, name in enumerate(names)}
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with styled():
        figure = Figure(figsize=(WIDTH, height * rows + 0.35), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(places, panels, strict=False):
            xy, group = np.asarray(panel.xy), np.array(panel.group)
            axes.scatter(xy[:, 0], xy[:, 1], s=10, c=[colours[name] for name in group], lw=0, alpha=0.8)
            for name in dict.fromkeys(group.tolist()) if named else ():
                x, y = xy[group == name].mean(0)
                _outlined(axes.text(x, y, name, color=colours[name], size=9.5, weight="bold", ha="center", va="center"))
            middle, half = (xy.max(0) + xy.min(0)) / 2, 0.56 * (xy.max(0) - xy.min(0)).max()
            axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
            axes.set_title(panel.title, loc="left")
            axes.set_xlabel(panel.below, size=9)
            axes.grid(visible=frame)
            axes.spines[:].set(visible=True, color=FAINT if frame else GRID)
            axes.set_aspect("equal", adjustable="box")
            if not frame:
                axes.set(xticks=[], yticks=[])
        for axes in places[len(panels) :]:
            axes.set_visible(False)
    return described(figure, finding)


def many_to_few(panels: Mapping[str, Mapping[str, Mapping[str, float]]], *, ylabel: str, finding: str) -> Figure:
    """A panel a title: for each method a line over its groups (many, medium, few), with its name at the last one."""
    with styled():
        figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        for place, (axes, (title, methods)) in enumerate(
            zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True)
        ):
            groups = list(next(iter(methods.values())))
            ends = []
            for index, (name, values) in enumerate(methods.items()):
                colour = colour_of(name, index)
                axes.plot(groups, [values[g] for g in groups], color=colour, marker=MARKERS.get(name, "o"))
                ends.append((values[groups[-1]], NAMES.get(name, name), colour))
            axes.set_title(title)
            axes.set_xlim(-0.15, len(groups) - 0.85)
            axes.set_ylim(bottom=0)
            axes.grid(axis="x", visible=False)
            if place == 0:
                axes.set_ylabel(ylabel)
            if place == len(panels) - 1:
                _at_the_end(axes, ends)
    return described(figure, finding)


def along_the_tail(counts: Any, panels: Mapping[str, Mapping[str, Any]], *, finding: str, width: float = 6.0) -> Figure:
    """A panel a title: for each name values [C] of the classes, smoothed over class size, and a 95 % band of that mean.

    The mean is weighted by a Gaussian over the classes' ranks, `width` classes wide; the band comes from how the
    classes scatter about it. Dotted lines part many, medium and few. `finding` is the alt text.
    """
    counts = np.asarray(counts)
    order = np.argsort(counts, kind="stable")
    size, at = counts[order], np.arange(len(counts))
    with styled():
        figure = Figure(figsize=(WIDTH, 0.5 + 1.95 * len(panels)), layout="constrained")
        rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (title, lines) in zip(rows, panels.items(), strict=True):
            ends = []
            for index, (name, values) in enumerate(lines.items()):
                mean, half = smoothed(np.asarray(values)[order], width)
                colour = SERIES[index % len(SERIES)]
                axes.fill_between(at, mean - half, mean + half, color=colour, alpha=0.16, lw=0)
                axes.plot(at, mean, color=colour, ls=("-", "--", "-.")[index % 3])
                ends.append((mean[-1], name, colour))
            axes.axhline(0, color=INK, lw=0.9)
            for above, _ in SHOTS.values():
                if size[0] < above < size[-1]:
                    axes.axvline((size <= above).sum() - 0.5, color=FAINT, lw=0.9, ls=(0, (2, 2)))
            axes.set(title=title, ylabel="points", xlim=(at[0], at[-1]))
            _at_the_end(axes, ends)
        ticks = [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if size[0] <= n <= size[-1]]
        rows[-1].set_xticks([int(np.abs(size - n).argmin()) for n in ticks], [str(n) for n in ticks])
        rows[-1].set_xlabel("training images of the class, smallest class left")
    return described(figure, finding)


SERIES = ("#d55e00", "#008f68", "#a8457d", "#0072b2")


def smoothed(values: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the values [C] in a Gaussian window `width` ranks wide about each one, and half of its 95 % interval."""
    at = np.arange(len(values))
    weight = np.exp(-(((at[:, None] - at) / width) ** 2) / 2)
    weight /= weight.sum(1, keepdims=True)
    mean = weight @ values
    return mean, 1.96 * np.sqrt((weight**2) @ (values - mean) ** 2)


def reliabilities(rows: Mapping[str, Mapping[str, Mapping[str, Any]]], *, finding: str, fewest: float = 0.01) -> Figure:
    """A row a method, a column a group: accuracy against confidence, the gap to the diagonal shaded.

    Each is what `metrics.calibration` answers; bins with less than `fewest` of the images are left out. In the corner
    stands mean confidence minus accuracy, in points.
    """
    groups = list(next(iter(rows.values())))
    with styled():
        figure = Figure(figsize=(WIDTH, 0.55 + 1.32 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), len(groups), sharex=True, sharey=True, squeeze=False)
        for row, (name, parts) in enumerate(rows.items()):
            for column, group in enumerate(groups):
                axes = grid[row, column]
                found, colour = parts[group], COLOURS.get(name, INK)
                n, x, y = (np.array(found[key], dtype=float) for key in ("count", "confidence", "accuracy"))
                kept = n > fewest * n.sum()
                axes.plot([0, 1], [0, 1], color=FAINT, lw=1, ls="--")
                axes.fill_between(x[kept], x[kept], y[kept], color=colour, alpha=0.28, lw=0)
                axes.plot(x[kept], y[kept], color=colour, lw=1.6)
                gap = f"{100 * ((x - y) * n).sum() / n.sum():+.0f}".replace("-", "−")
                axes.text(0.04, 0.94, gap, color=colour, weight="bold", size=11, va="top", transform=axes.transAxes)
                axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
                axes.set_xticklabels(["0", "50", "100"])
                axes.set_yticklabels(["0", "50", "100"])
                if row == 0:
                    axes.set_title(group, loc="center")
                if column == 0:
                    axes.set_ylabel(NAMES.get(name, name), color=colour, weight="bold", size=9)
        figure.supxlabel("confidence (%)", size=10)
        figure.supylabel("of these, classified right (%)", size=10)
    return described(figure, finding)


def against_rho(
    groups: Mapping[str, Any], few: Mapping[str, tuple[float, float]], *, titles: tuple[str, str], finding: str
) -> Figure:
    """Accuracy against rho. Left, runs [seeds, 2] of each setting: their mean as a mark, those of NAMES in colour.

    Right, one mark a method of `few`; one whose name begins with that of another and a comma is joined to it by an
    arrow.
    """
    with styled():
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name, values in groups.items():
            values = np.asarray(values)
            colour, size = COLOURS.get(name, FAINT), 46 if name in COLOURS else 22
            left.scatter(values[:, 0], values[:, 1], s=5, color=colour, alpha=0.3, lw=0)
            left.scatter(*values.mean(0), s=size, color=colour, marker=MARKERS.get(name, "o"), ec=CARD, lw=0.7,
                         zorder=3 + (name in COLOURS))  # fmt: skip
        named = {n: np.asarray(v).mean(0) for n, v in groups.items() if n in COLOURS}
        for name, (x, y) in named.items():
            _named(left, x, y, NAMES[name], COLOURS[name], left=name == "bib")
        for name, (x, y) in few.items():
            start = name.split(",")[0]
            colour = COLOURS.get(name, COLOURS.get(start, INK))
            right.scatter(x, y, s=46, color=colour, marker=MARKERS.get(name, MARKERS.get(start, "o")), zorder=3)
            if name not in NAMES and start in few:
                right.annotate(
                    "", (x, y), few[start], arrowprops={"arrowstyle": "->", "color": colour, "shrinkA": 5, "shrinkB": 5}
                )
            known = name in NAMES
            _named(right, x, y, NAMES[name] if known else name.removeprefix(f"{start}, "), colour, left=not known)
        left.set(title=titles[0], xlabel="ρ", ylabel="accuracy (%)")
        right.set(title=titles[1], xlabel="ρ")
        for axes, room in ((left, 0.3), (right, 1.0)):
            low, high = axes.get_xlim()
            axes.set_xlim(low - 0.1 * (high - low) - 0.25 * (axes is right) * (high - low), high + room * (high - low))
            axes.margins(y=0.12)
    return described(figure, finding)


class Card(NamedTuple):
    """What `photographs` shows of one image: itself and its neighbours uint8 [3, H, W], names, and who says what."""

    image: Any
    name: str
    said: Mapping[str, tuple[str, float]]
    neighbours: Sequence[tuple[Any, str]]


def photographs(cards: Sequence[Card], *, finding: str, columns: int = 3) -> Figure:
    """Cards in rows: an image with its true name; what each method calls it, how surely; its nearest neighbours."""
    rows = -(-len(cards) // columns)
    with styled():
        figure = Figure(figsize=(WIDTH, 1.62 * rows))
        wide, high = 1 / columns, 1 / rows
        for index, card in enumerate(cards):
            x, y = index % columns * wide, 1 - (index // columns + 1) * high
            _picture(figure, card.image, (x + 0.005, y + 0.45 * high, 0.38 * wide, 0.38 * high))
            figure.text(x + 0.005, y + 0.93 * high, card.name, size=9.5, weight="bold", va="center")
            for line, (method, (label, sure)) in enumerate(card.said.items()):
                colour = RIGHT if label == card.name else WRONG
                at = y + (0.80 - 0.105 * line) * high
                figure.text(x + 0.41 * wide, at, "●", size=6, color=COLOURS.get(method, INK), va="center")
                figure.text(x + 0.465 * wide, at, f"{label} {sure:.0%}", size=6.6, color=colour, va="center")
            for place, (image, label) in enumerate(card.neighbours):
                left = x + 0.005 + 0.325 * place * wide
                _picture(figure, image, (left, y + 0.12 * high, 0.23 * wide, 0.23 * high))
                colour = RIGHT if label == card.name else WRONG
                figure.text(left, y + 0.07 * high, label, size=5.8, color=colour, va="center")
        return described(figure, finding)


def _picture(figure: Figure, image: Any, place: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(place)
    axes.imshow(np.asarray(image).transpose(1, 2, 0), interpolation="bicubic")
    axes.set_axis_off()


def _named(axes: Axes, x: float, y: float, name: str, colour: str, left: bool = False) -> None:
    """The name of a mark, to its right unless `left`."""
    where: dict[str, Any] = {"xytext": (-6 if left else 6, 0), "textcoords": "offset points"}
    _outlined(axes.annotate(name, (x, y), color=colour, size=8, va="center", ha="right" if left else "left", **where))


def _outlined(text: Any) -> None:
    text.set_path_effects([withStroke(linewidth=2.5, foreground=CARD)])


def _at_the_end(axes: Axes, ends: Sequence[tuple[float, str, str]], gap: float = 0.07) -> None:
    """Names (height, name, colour) at the right of the axes, `gap` of their height from one another at least."""
    low, high = axes.get_ylim()
    ordered = sorted(ends)
    heights = apart([(y - low) / (high - low) for y, _, _ in ordered], gap)
    for height, (_, name, colour) in zip(heights, ordered, strict=True):
        axes.text(1.03, height, name, color=colour, size=8.5, va="center", transform=axes.transAxes)
    axes.set_ylim(low, high)


def tempered(
    factors: Any, curves: Mapping[str, Any], marks: Mapping[str, tuple[float, float]], *, ylabel: str, finding: str
) -> Figure:
    """A curve a method over a factor on its logits, its name at the right end, and a dot at `marks`."""
    with styled():
        figure, axes = one_axes(3.2)
        axes.axvline(1, color=FAINT, lw=0.9, ls=(0, (2, 2)))
        axes.text(1, 0.98, " as trained", color=FAINT, va="top", transform=axes.get_xaxis_transform())
        ends = []
        for index, (name, values) in enumerate(curves.items()):
            colour = colour_of(name, index)
            axes.plot(factors, values, color=colour)
            axes.plot(*marks[name], marker=MARKERS.get(name, "o"), color=colour, mec=CARD, markersize=7)
            ends.append((values[-1], NAMES.get(name, name), colour))
        axes.set(xlabel="factor on all logits (log)", ylabel=ylabel, xscale="log", xlim=(factors[0], factors[-1]))
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(FixedLocator([0.2, 0.5, 1, 2, 5]))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
        _at_the_end(axes, ends)
    return described(figure, finding)


def ranked(
    marks: Mapping[str, tuple[float, float]],
    cost: Mapping[str, float],
    *,
    xlabel: str,
    finding: str,
    hollow: Collection[str] = (),
) -> Figure:
    """A row for each name, the best on top: a mark at `marks`' mean (%) with a bar of its half interval, and its cost.

    The marks of `hollow` are so, and those without an interval, whose half is NaN. What lies far below the others is an
    arrow with its number.
    Methods of the paper have their colour. `finding` is the alt text.
    """
    order = sorted(marks, key=lambda name: marks[name][0], reverse=True)
    means = np.array([marks[name][0] for name in order])
    shown = means[means > np.median(means) - 4 * max(2.0, float(np.median(np.abs(means - np.median(means)))))]
    halves = [marks[name][1] for name in order if marks[name][0] in shown and not np.isnan(marks[name][1])]
    low, high = shown.min() - max([1, *halves]), min(shown.max() + max([1, *halves]), 101)
    with styled():
        figure, axes = one_axes(0.75 + 0.185 * len(order))
        for row, name in enumerate(order):
            mean, half = marks[name]
            colour, marker = COLOURS.get(name, FAINT), MARKERS.get(name, "o")
            if mean < low:
                axes.plot(low, row, "<", color=colour, markersize=6, clip_on=False)
                axes.text(low + 0.02 * (high - low), row, f"{mean:.0f}", color=colour, size=8, va="center")
            else:
                if not np.isnan(half):
                    ends = [max(low, mean - half), min(mean + half, 100)]
                    axes.plot(ends, [row, row], color=colour, lw=3, alpha=0.35, solid_capstyle="butt")
                face = CARD if name in hollow or np.isnan(half) else colour
                axes.plot(mean, row, marker, color=colour, mfc=face, mew=1.3, markersize=5)
            axes.text(
                1.02, row, f"× {cost[name]:.1f}", size=8, va="center", color=INK, transform=axes.get_yaxis_transform()
            )
        axes.text(1.02, -1.1, "cost", size=8, va="center", color=FAINT, transform=axes.get_yaxis_transform())
        axes.set_yticks(range(len(order)), order, size=8)
        for label, name in zip(axes.get_yticklabels(), order, strict=True):
            label.set_color(COLOURS.get(name, INK))
        axes.set(xlabel=xlabel, xlim=(low, high), ylim=(len(order) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    return described(figure, finding)
