"""Pictures of who teaches whom: what z learns from, what it is worth, and what each stage of a network knows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mbib_core.figures.style import (
    CARD,
    COLOURS,
    FAINT,
    GRID,
    INK,
    MARKERS,
    NAMES,
    WIDTH,
    apart,
    described,
    one_axes,
    styled,
)

# The classifiers of one MBIB network: the teachers in grey, from shallow to deep, their average and the student.
HEADS = {"v_1": "#8b929c", "v_2": "#5d6875", "v_3": INK, "average": "#0072b2", "z": COLOURS["mbib"]}
HEAD_NAMES = {"v_1": "v₁", "v_2": "v₂", "v_3": "v₃", "average": "average", "z": "z"}
HEAD_MARKS = {"v_1": "o", "v_2": "s", "v_3": "^", "average": "P", "z": "D"}


def gradient_map(norms: Mapping[str, Mapping[str, float | None]], *, finding: str) -> Figure:
    """A disc for each loss (row) and part of the network (column), as large as the gradient's norm; None: no path."""
    parts = list(next(iter(norms.values())))
    largest = max(value for row in norms.values() for value in row.values() if value is not None)
    with styled():
        figure, axes = one_axes(0.7 + 0.62 * len(norms))
        for y, row in enumerate(norms.values()):
            for x, value in enumerate(row.values()):
                if value is None:
                    axes.plot(x, y, marker="x", color=COLOURS["ce"], markersize=10, mew=2.2)
                    continue
                size = 300 + 800 * value / largest
                axes.scatter(x, y, s=size, color=COLOURS["bib"], alpha=0.25, lw=0)
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=9.5)
        axes.set_xticks(range(len(parts)), parts)
        axes.set_yticks(range(len(norms)), list(norms), fontsize=11)
        axes.set(xlim=(-0.5, len(parts) - 0.5), ylim=(len(norms) - 0.5, -0.5))
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(False)
        for y in range(1, len(norms)):
            axes.axhline(y - 0.5, color=GRID, lw=0.8)
    return described(figure, finding)


def pursuit(paths: Mapping[str, tuple[Any, Any]], *, ylabel: str, finding: str) -> Figure:
    """A panel for each name: the teacher's and the student's value [steps] on their way to agreement."""
    with styled():
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        row = figure.subplots(1, len(paths), sharey=True, squeeze=False)[0]
        for axes, (name, (teacher, student)) in zip(row, paths.items(), strict=True):
            for who, values, look in (("teacher", teacher, {"color": INK, "ls": "--"}),
                                      ("student", student, {"color": COLOURS["mbib"]})):  # fmt: skip
                axes.plot(np.arange(1, 1 + len(values)), values, **look)
                above = who == "teacher"
                at = min(2, len(values) - 1)
                axes.annotate(who, (1 + at, values[at]), (2, 6 if above else -8), textcoords="offset points",
                              color=look["color"], va="bottom" if above else "top", fontsize=9.5)  # fmt: skip
            axes.set_title(name, fontweight="normal")
            axes.set(xscale="log", xlabel="steps", ylim=(0.2, 1.09))
        row[0].set_ylabel(ylabel)
    return described(figure, finding)


def by_group(
    rows: Mapping[str, Mapping[str, Sequence[float]]], *, finding: str, colours: Mapping[str, str] | None = None,
    hollow: Sequence[str] = (),
) -> Figure:  # fmt: skip
    """Test accuracy (%) of each row over the groups of classes: a panel for each group, a mark a run, the mean beside.

    Names that are methods have their own colour and mark; `colours` are of other names, `hollow` marks are not filled.
    """
    groups = list(next(iter(rows.values())))
    with styled():
        figure = Figure(figsize=(WIDTH, 0.85 + 0.33 * len(rows)), layout="constrained")
        panels = figure.subplots(1, len(groups), sharey=True)
        for axes, group in zip(panels, groups, strict=True):
            every = [v for row in rows.values() for v in row[group]]
            low, high = min(every), max(every)
            room = max(high - low, 3)
            axes.set_xlim(low - 0.25 * room, high + 0.85 * room)
            for y, (name, row) in enumerate(rows.items()):
                values = row[group]
                if not values:
                    continue
                colour = (colours or {}).get(name, COLOURS.get(name, FAINT))
                face = CARD if name in hollow else colour
                axes.plot(values, [y] * len(values), MARKERS.get(name, "o"), color=face, mec=colour, mew=1.3,
                          markersize=6.5, ls="")  # fmt: skip
                axes.annotate(f"{np.mean(values):.1f}", (max(values), y), (7, 0), textcoords="offset points",
                              va="center", fontsize=9, color=colour)  # fmt: skip
            axes.set_title(group, fontweight="normal" if group != "all" else "bold")
            axes.set_xticks([])
            axes.grid(False)
            axes.spines[["bottom", "left"]].set_visible(False)
            axes.tick_params(axis="y", length=0)
            for y in range(len(rows)):
                axes.axhline(y, color=GRID, lw=0.7, zorder=0)
        panels[0].set_yticks(range(len(rows)), [NAMES.get(name, name) for name in rows])
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return described(figure, finding)


def two_by_two(
    panels: Mapping[str, Mapping[tuple[str, str], Mapping[float, Sequence[float]]]], *, ylabel: str, finding: str
) -> Figure:
    """What shallow classifiers and the distillation do, a panel for each data set and setting.

    A panel has lines by (method, answer), such as ("mbib", "z"): values of single runs by beta. Answers of z are filled
    and solid, those of v hollow and dashed. A line with one beta is a mark alone.
    """
    with styled():
        figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, series) in zip(row, panels.items(), strict=True):
            ends: list[tuple[float, str, str]] = []
            for (method, answer), by_beta in series.items():
                colour, filled = COLOURS[method], answer == "z"
                betas = sorted(by_beta)
                means = [float(np.mean(by_beta[b])) for b in betas]
                axes.plot(betas, means, color=colour, ls="-" if filled else (0, (4, 2)), lw=1.8, zorder=2)
                for b in betas:
                    values = np.sort(by_beta[b])
                    side = (-1 if b == 0 else 1) * (0.04 if filled else 0.09) * (len(values) > 1)
                    axes.plot(b + side * np.ones(len(values)), values, MARKERS[method], mec=colour, mew=0.9, ls="",
                              color=colour if filled else CARD, markersize=3.5, alpha=0.5, zorder=3)  # fmt: skip
                    axes.plot(b, np.mean(values), MARKERS[method], color=colour if filled else CARD, mec=colour,
                              mew=1.4, markersize=7.5, zorder=4)  # fmt: skip
                ends.append((means[-1], f"{NAMES[method]}, {'z' if filled else 'v₃'}", colour))
            low, high = axes.get_ylim()
            for (_, name, colour), y in zip(sorted(ends), apart(sorted(e[0] for e in ends), 0.075 * (high - low)),
                                            strict=True):  # fmt: skip
                axes.text(1.25, y, name, color=colour, va="center", fontsize=9.5)
            axes.set_xticks([0, 1])
            axes.set(xlim=(-0.3, 2.7))
            axes.set_title(title)
            axes.grid(axis="x", visible=False)
        row[0].set_ylabel(ylabel)
        figure.supxlabel("β, weight of the distillation into z", fontsize=10)
    return described(figure, finding)


def lessons(rows: Mapping[str, Mapping[str, float]], *, caps: Mapping[str, float], xlabel: str, finding: str) -> Figure:
    """A line for each group of classes, a mark for each classifier; "z, β = 0" is hollow, `caps` are strokes."""
    looks = {name: (HEADS[name], HEADS[name], HEAD_MARKS[name], HEAD_NAMES[name]) for name in HEADS}
    looks["z, β = 0"] = (CARD, COLOURS["mbib-beta0"], MARKERS["mbib-beta0"], "z, β = 0")
    with styled():
        figure, axes = one_axes(1.0 + 1.05 * len(rows))
        for y, (group, row) in enumerate(rows.items()):
            axes.axhline(y, color=GRID, lw=1, zorder=0)
            axes.plot([caps[group]] * 2, [y - 0.17, y + 0.17], color=COLOURS["mbib"], lw=2.4, zorder=2)
            above = sorted((n for n in row if n in ("v_1", "v_2", "average", "z")), key=row.__getitem__)
            below = sorted((n for n in row if n not in above), key=row.__getitem__)
            for names, side in ((above, -1), (below, 1)):
                at = apart([row[n] for n in names], 0.12)
                shift = max(0, at[-1] - 1.06)
                for name, x in zip(names, at, strict=True):
                    face, edge, mark, said = looks[name]
                    axes.plot(row[name], y, mark, color=face, mec=edge, mew=1.4, markersize=7, zorder=3)
                    text = f"{said}\n{row[name]:.2f}" if y == 0 else f"{row[name]:.2f}"
                    axes.annotate(text, (row[name], y), (x - shift, y + 0.26 * side), color=edge, ha="center",
                                  va="bottom" if side < 0 else "top", fontsize=9, linespacing=1.05)  # fmt: skip
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set(xlim=(-0.03, 1.1), ylim=(len(rows) - 0.45, -0.8), xlabel=xlabel)
        axes.tick_params(axis="y", length=0)
        axes.grid(False)
        axes.spines["left"].set_visible(False)
    return described(figure, finding)


def head_and_tail(
    curves: Mapping[str, tuple[Any, Any]], *, marked: int, xlabel: str, ylabel: str, finding: str,
    labels_at: Mapping[str, tuple[int, float, float]] | None = None,
) -> Figure:  # fmt: skip
    """Tail accuracy against head accuracy of each classifier while log n is subtracted more and more.

    `curves` are (head, tail) by the names of HEADS, or others, dashed; the step number `marked`, where nothing is
    subtracted, has a mark. `labels_at` moves a curve's name: its step, and the offset in points.
    """
    with styled():
        figure, axes = one_axes(3.6)
        for name, (head, tail) in curves.items():
            colour = HEADS.get(name, COLOURS["mbib-beta0"])
            axes.plot(head, tail, color=colour, lw=2.2 if name in ("v_3", "z") else 1.6,
                      ls="-" if name in HEADS else (0, (4, 2)))  # fmt: skip
            axes.plot(head[marked], tail[marked], HEAD_MARKS.get(name, "v"), color=colour, mec=CARD, mew=0.8,
                      markersize=9, zorder=4)  # fmt: skip
            step, right, up = (labels_at or {}).get(name, (marked, 8, 4))
            axes.annotate(HEAD_NAMES.get(name, name), (head[step], tail[step]), (right, up), textcoords="offset points",
                          color=colour, fontsize=11, fontweight="bold", zorder=5)  # fmt: skip
        axes.set(xlabel=xlabel, ylabel=ylabel)
    return described(figure, finding)


def maps_and_means(images: Mapping[str, Mapping[str, Any]], *, finding: str) -> Figure:
    """A row for each image, a column for each map [H, W] of it, with the map's mean, what pooling leaves, below."""
    with styled():
        columns = list(next(iter(images.values())))
        figure = Figure(figsize=(WIDTH, 1.75 * len(images) + 0.2), layout="constrained")
        grid = figure.subplots(len(images), len(columns), squeeze=False)
        for place, (row, (name, maps)) in enumerate(zip(grid, images.items(), strict=True)):
            for axes, (stage, values) in zip(row, maps.items(), strict=True):
                values = np.asarray(values)
                axes.imshow(1 - values, cmap="gray", vmin=0, vmax=1)
                axes.set_xticks(np.arange(0.5, values.shape[1] - 1), [])
                axes.set_yticks(np.arange(0.5, values.shape[0] - 1), [])
                axes.grid(True, color=GRID, lw=1)
                axes.tick_params(length=0)
                axes.spines[:].set(visible=True, color=FAINT)
                if place == 0:
                    axes.set_title(stage, loc="center", fontweight="normal")
                if stage != columns[0]:
                    axes.set_xlabel(f"mean {values.mean():.2f}", fontweight="bold")
            row[0].set_ylabel(name)
    return described(figure, finding)


def read_by_stage(
    series: Mapping[str, Sequence[float]], stages: Sequence[str], *, ylabel: str, most: float, finding: str
) -> Figure:
    """Nats that a probe reads at each stage, a line for each way to look at it; `most` is all there is to read."""
    looks = ((INK, "-", "o"), (COLOURS["mbib"], "--", "D"))
    with styled():
        figure, axes = one_axes(3.2)
        for (name, values), (colour, dashes, mark) in zip(series.items(), looks, strict=False):
            at = range(len(values))
            axes.plot(at, values, color=colour, ls=dashes, marker=mark, markersize=6)
            first = name == next(iter(series))
            axes.annotate(name, (0, values[0]), (0, 30 if first else -18), textcoords="offset points", color=colour,
                          fontweight="bold", ha="left", va="bottom" if first else "top")  # fmt: skip
            for x, value in zip(at, values, strict=True):
                axes.annotate(f"{value:.2f}", (x, value), (6, 5 if first else -5), textcoords="offset points",
                              color=colour, fontsize=9, va="bottom" if first else "top")  # fmt: skip
        axes.axhline(most, color=FAINT, lw=1, ls=(0, (2, 2)))
        axes.text(0, most, f" all there is: {most:.2f}", color=FAINT, va="bottom", fontsize=9.5)
        axes.set_xticks(range(len(stages)), stages)
        axes.set(xlim=(-0.2, len(stages) - 0.55), ylim=(0, 1.12 * most), ylabel=ylabel)
        axes.grid(axis="x", visible=False)
    return described(figure, finding)
