"""Pictures of what a network says and of its features: posteriors by class, features in a plane, runs as points."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from mbib_core.figures.style import (
    CARD,
    FAINT,
    INK,
    MARKERS,
    NAMES,
    SHOTS,
    WIDTH,
    colour_of,
    described,
    legend,
    one_axes,
    styled,
)

GROUPS = (INK, "#0072b2", "#d55e00", "#a8457d", "#008f68")  # of points: the first, second, ... group of a picture


class Plane(NamedTuple):
    """One panel of `planes`: points `xy` [N, 2], a letter or "" for each, the name of each one's group, and words."""

    xy: Any
    marks: list[str]
    group: list[str]
    title: str
    below: str = ""


def differences_by_class(counts: Any, rows: Mapping[str, Any], *, ylabel: str, finding: str) -> Figure:
    """A panel a name: values [seeds, C] as a bar a class, largest class left, and a line from least to most seed.

    Dotted lines part the shots; orange bars are below 0. `finding` is the picture's alt text.
    """
    counts = np.asarray(counts)
    order = np.argsort(-counts, kind="stable")
    ordered = counts[order]
    edges = [(ordered > above).sum() - 0.5 for above, _ in list(SHOTS.values())[:-1]]
    most = 1.08 * max(float(np.abs(np.asarray(values)).max()) for values in rows.values())
    with styled():
        figure = Figure(figsize=(WIDTH, 0.55 + 1.45 * len(rows)), layout="constrained")
        panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, values) in zip(panels, rows.items(), strict=True):
            values = np.asarray(values).reshape(-1, len(counts))[:, order]
            mean, at = values.mean(0), np.arange(len(counts))
            colours = np.where(mean < 0, "#d55e00", "#0072b2").tolist()
            axes.bar(at, mean, color=colours, width=0.85)
            if len(values) > 1:
                axes.vlines(at, values.min(0), values.max(0), color=FAINT, lw=0.8)
            for edge in edges:
                if 0 < edge < len(counts) - 1:
                    axes.axvline(edge, color=FAINT, lw=0.9, ls=(0, (2, 2)))
            axes.axhline(0, color=INK, lw=0.8)
            axes.set(title=name, ylim=(-most, most), xlim=(-0.8, len(counts) - 0.2))
            axes.grid(axis="x", visible=False)
        panels[len(panels) // 2].set_ylabel(ylabel)
        shown = np.linspace(0, len(counts) - 1, 6).round().astype(int)
        panels[-1].set_xticks(shown, [f"{n:g}" for n in ordered[shown]])
        panels[-1].set_xlabel("training pictures of the class, largest class first")
    return described(figure, finding)


def planes(panels: Sequence[Plane], *, finding: str, height: float = 2.55, frame: bool = False) -> Figure:
    """Points in planes, two panels a row, each point in its group's colour.

    In a single panel a point is its class's letter. In smaller ones it is a dot, and the letter stands at the median of
    its class. Where a mark is "" there is no letter. Axes have no ticks unless `frame`. `finding` is the alt text.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.group))
    colours = {name: GROUPS[index % len(GROUPS)] for index, name in enumerate(names)}
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with styled():
        figure = Figure(figsize=(WIDTH, height * rows + 0.35), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(places, panels, strict=False):
            xy = np.asarray(panel.xy)
            shades = [colours[name] for name in panel.group]
            marks = np.array(panel.marks)
            dotted = (marks == "") if columns == 1 else np.full(len(marks), True)
            for (x, y), mark, shade in zip(xy, marks, shades, strict=True):
                if columns == 1 and mark:
                    _letter(axes, x, y, mark, shade, size=9.5)
            dots = [shade for shade, dot in zip(shades, dotted, strict=True) if dot]
            axes.scatter(xy[dotted, 0], xy[dotted, 1], s=9, c=dots, lw=0, alpha=0.6)
            for mark in dict.fromkeys(marks[(marks != "") & dotted].tolist()):
                x, y = np.median(xy[marks == mark], 0)
                _letter(axes, x, y, mark, shades[panel.marks.index(mark)], size=12, halo=True)
            middle, half = (xy.max(0) + xy.min(0)) / 2, 0.54 * (xy.max(0) - xy.min(0)).max()
            axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
            axes.set_title(panel.title, loc="left")
            axes.set_xlabel(panel.below, size=9)
            axes.grid(visible=frame)
            axes.spines[:].set(visible=True, color=FAINT if frame else "#dedfd9")
            axes.set_aspect("equal", adjustable="box")
            if not frame:
                axes.set(xticks=[], yticks=[])
        for axes in places[len(panels) :]:
            axes.set_visible(False)
        if len(names) > 1:
            keys = [Line2D([], [], ls="", marker="s", color=colours[name], label=name) for name in names]
            figure.legend(handles=keys, loc="outside upper center", ncols=len(names), handletextpad=0.2)
    return described(figure, finding)


def _letter(axes: Axes, x: float, y: float, mark: str, colour: str, *, size: float, halo: bool = False) -> None:
    """One letter at (x, y), with a rim in the card's colour so that it reads on dots."""
    rim = [withStroke(linewidth=2.5, foreground=CARD)] if halo else []
    axes.text(x, y, mark.replace("$", r"\$"), color=colour, size=size, weight="bold" if halo else "normal", ha="center",
              va="center", clip_on=True, in_layout=False, path_effects=rim, zorder=3)  # fmt: skip


def runs_as_points(
    groups: Mapping[str, Any], *, xlabel: str, ylabel: str, others: str, finding: str, named: Sequence[str] = ()
) -> Figure:
    """Runs [seeds, 2] of each group as faint points, their mean as a mark: `named` open and coloured, the others grey.

    `others` names the grey ones in the legend; `finding` is the picture's alt text.
    """
    with styled():
        figure, axes = one_axes(3.8)
        grey = [np.asarray(values) for name, values in groups.items() if name not in named]
        for index, values in enumerate(grey):
            axes.scatter(values[:, 0], values[:, 1], s=10, color=FAINT, alpha=0.35, lw=0)
            axes.scatter(values[:, 0].mean(), values[:, 1].mean(), s=34, color=FAINT, ec=CARD, lw=0.8,
                         label=None if index else others, zorder=2.5)  # fmt: skip
        for index, name in enumerate(n for n in named if n in groups):
            values, colour = np.asarray(groups[name]), colour_of(name, index)
            axes.scatter(values[:, 0], values[:, 1], s=16, color=colour, alpha=0.5, lw=0, marker=MARKERS.get(name, "o"))
            axes.scatter(values[:, 0].mean(), values[:, 1].mean(), s=90, fc="none", ec=colour, lw=2,
                         marker=MARKERS.get(name, "o"), label=NAMES.get(name, name), zorder=3)  # fmt: skip
        axes.set(xlabel=xlabel, ylabel=ylabel)
        legend(axes)
    return described(figure, finding)
