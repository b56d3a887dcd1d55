"""Pictures of the theory: posteriors and boundaries, the information plane, encoders, teacher and student."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from mbib_core.compare import difference, signed
from mbib_core.figures.style import (
    CARD,
    COLOURS,
    FAINT,
    GRID,
    INK,
    MARKERS,
    NAMES,
    OTHERS,
    SHADES,
    SHARES,
    WIDTH,
    colour_of,
    described,
    legend,
    listed,
    one_axes,
    styled,
)


def posterior_curves(
    v: Float[np.ndarray, " n"],
    known: Mapping[str, Float[np.ndarray, " n"]],
    learned: Mapping[str, Float[np.ndarray, " n"]],
    *,
    ylabel: str,
) -> Figure:
    """Probabilities (0 to 1) over one number `v`: what is `known` as lines, what methods have `learned` as marks."""
    with styled():
        figure, axes = one_axes(3.3)
        for index, (name, values) in enumerate(known.items()):
            axes.plot(v, values, color=INK, lw=1.4, ls=("-", "--", ":", "-.")[index % 4], label=name)
        for index, (name, values) in enumerate(learned.items()):
            axes.plot(v, values, ls="", marker=MARKERS.get(name, "x"), color=colour_of(name, index), markersize=5.5,
                      markevery=max(1, len(v) // 20), label=NAMES.get(name, name))  # fmt: skip
        axes.set(xlabel="observation v", ylabel=ylabel, ylim=(-0.04, 1.04))
        legend(axes)
    series = {NAMES.get(name, name): values for name, values in {**known, **learned}.items()}
    halves = "; ".join(f"{name} at {v[np.abs(values - 0.5).argmin()]:.1f}" for name, values in series.items())
    return described(figure, f"{ylabel} against v, rising from 0 to 1. The v at which each passes one half: {halves}.")


def information_plane(
    curves: Mapping[str, tuple[Any, Any]], *, finding: str, points: Mapping[str, tuple[Any, Any]] | None = None
) -> Figure:
    """I(T;Y) over I(X;T) in nats: curves, and points that have a name of their own. `finding` is the alt text."""
    with styled():
        figure, axes = one_axes(3.5)
        for index, (name, (i_xt, i_ty)) in enumerate(curves.items()):
            axes.plot(i_xt, i_ty, color=OTHERS[index % 4], ls=("-", "--", "-.", ":")[index % 4], label=name)
        for index, (name, (i_xt, i_ty)) in enumerate((points or {}).items()):
            axes.plot(i_xt, i_ty, ls="", marker="osD^"[index % 4], color=list(COLOURS.values())[index % 4], label=name,
                      markersize=6 if np.size(i_xt) < 20 else 3, zorder=3)  # fmt: skip
        axes.set(xlabel="I(X;T) in nats", ylabel="I(T;Y) in nats")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        legend(axes)
    return described(figure, finding)


def digit_plane(z: Any, digits: Any, nats: Mapping[str, float], title: str, *, reach: float, most: float) -> Figure:
    """Digits at their places z [n, 2], and bars of `nats` below; the axes end at `reach` and `most`.

    A circle of radius 2 shows how wide the prior N(0, I) is. What lies beyond `reach` is drawn at the edge.
    """
    with styled():
        figure = Figure(figsize=(WIDTH, WIDTH + 1), layout="constrained")
        axes, below = figure.subplots(2, 1, height_ratios=(5, 1))
        _cloud(axes, z, digits, reach, size=24)
        axes.set(title=title, xlabel="first number of z", ylabel="second")
        bars = below.barh(list(nats), list(nats.values()), color=OTHERS[1], height=0.65)
        below.bar_label(bars, fmt="%.1f", padding=3)
        below.set(xlabel="nats, training images", xlim=(0, most))
        below.invert_yaxis()
        below.grid(axis="y", visible=False)
    spread = float(np.sqrt((np.asarray(z) ** 2).sum(1).mean()))
    parts = [f"{name} {value:.1f}" for name, value in nats.items()]
    words = f"{title}. Digits in the plane of z, at a distance of about {spread:.1f} from the middle"
    words += f"; those beyond {reach:g} at the edge"
    return described(figure, f"{words}. In nats, of the training images: {listed(parts)}.")


def digit_planes(panels: Mapping[str, tuple[Any, Any]], *, reach: float, finding: str) -> Figure:
    """Planes of z beside one another: places [n, 2] and digits [n] under each title; the dashed circle is the prior.

    What lies beyond `reach` is drawn at the edge. `finding` is the alt text.
    """
    with styled():
        figure = Figure(figsize=(1.25 * WIDTH, 0.5 * WIDTH), layout="constrained")
        for axes, (title, (z, digits)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            _cloud(axes, z, digits, reach, size=13)
            axes.set(xticks=[], yticks=[])
            axes.set_title(title, fontsize=9.5, loc="center")
            axes.spines[:].set(visible=True, color=GRID)
    return described(figure, finding)


def _cloud(axes: Axes, z: Any, digits: Any, reach: float, *, size: float) -> None:
    """Digits at their places z [n, 2], those beyond `reach` at the edge, and the circle of the prior."""
    colours = (*COLOURS.values(), INK, *OTHERS[1:], "#4f7a28")
    for digit in range(10):
        x, y = np.clip(z[digits == digit], -reach, reach).T
        axes.scatter(x, y, marker=f"${digit}$", s=size, lw=0, color=colours[digit])
    turn = np.linspace(0, 2 * np.pi, 90)
    axes.plot(2 * np.cos(turn), 2 * np.sin(turn), color=INK, lw=1, ls="--")
    limits = (-1.04 * reach, 1.04 * reach)
    axes.set(xlim=limits, ylim=limits, aspect="equal")


def vib_network() -> Figure:
    """VIB's network: an encoder gives mean and width of z, a draw of z is classified; the rate is against a prior."""
    with styled():
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 11.5), ylim=(0, 6.4), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.grid(False)
        paid, told = COLOURS["ce"], COLOURS["bsce"]
        for text, x in (("$x$", 0.6), ("encoder", 2.7), ("$z$", 7.3), ("classifier", 9.9)):
            axes.text(x, 3.6, text, ha="center", va="center", fontsize=11 if "$" in text else 9.5,
                      bbox={"boxstyle": "round,pad=0.42", "fc": CARD, "ec": INK, "lw": 1.2})  # fmt: skip
        for start, end in ((1.05, 1.55), (3.85, 4.35), (6.2, 6.85), (7.75, 8.55)):
            axes.annotate("", (end, 3.6), (start, 3.6), arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.3})
        at = np.linspace(-1, 1, 60)
        axes.fill_between(5.25 + 0.85 * at, 3.05, 3.05 + 1.25 * np.exp(-8 * at**2), color=paid, alpha=0.3, lw=0)
        axes.plot(5.25 + 0.85 * at, 3.05 + 1.25 * np.exp(-8 * at**2), color=paid)
        axes.text(5.25, 2.72, "$\\mu(x),\\ \\sigma(x)$", ha="center", va="center", fontsize=10)
        axes.text(6.5, 4.05, "draw", ha="center", va="bottom", fontsize=9)
        axes.fill_between(5.25 + 1.5 * at, 0.75, 0.75 + 0.7 * np.exp(-3 * at**2), color=FAINT, alpha=0.3, lw=0)
        axes.text(5.25, 0.35, "prior $r(z)$", ha="center", va="center", fontsize=9)
        axes.annotate("", (5.25, 1.55), (5.25, 2.4), arrowprops={"arrowstyle": "<|-|>", "color": paid, "lw": 1.8})
        axes.text(5.55, 1.95, "rate: the price is on this distance", ha="left", va="center", fontsize=9, color=paid)
        axes.annotate("", (9.9, 4.25), (9.9, 5.35), arrowprops={"arrowstyle": "-|>", "color": told, "lw": 1.8})
        axes.text(9.9, 5.5, "cross-entropy with y", ha="center", va="bottom", fontsize=9, color=told)
    words = (
        "The network from left to right. The encoder gives each image x a mean and a width, a little Gaussian. One z "
        "is drawn from it and classified; cross-entropy with the label judges the answer. The rate is the divergence "
        "of the little Gaussian from a wide prior that is the same for all images."
    )
    return described(figure, words)


def encoder_plane(cloud: Any, named: Mapping[str, tuple[float, float]], *, finding: str) -> Figure:
    """Encoders of v by the nats of y that z misses, I(v;y|z), and those beside y that it keeps, I(v;z|y)."""
    with styled():
        figure, axes = one_axes(3.8)
        grey_x, grey_y = np.transpose(cloud)
        axes.scatter(grey_x, grey_y, s=8, color=FAINT, alpha=0.4, lw=0)
        far = np.vstack([np.transpose([grey_x, grey_y]), list(named.values())]).max(0)
        right, top = float(1.25 * far[0]), float(1.15 * far[1])
        axes.set(xlim=(-0.04 * right, right), ylim=(-0.04 * top, top))
        axes.plot([0, 0], [0, top], color=COLOURS["bib"], lw=4, alpha=0.35, solid_capstyle="butt")
        axes.text(
            0.015 * right, 0.99 * top, "sufficient: nothing missing", color=COLOURS["bib"], va="top", fontsize=9.5
        )
        axes.plot([0, right], [0, 0], color=OTHERS[1], lw=4, alpha=0.35, solid_capstyle="butt")
        axes.text(0.02 * right, 0.015 * top, "nothing superfluous", color=OTHERS[1], va="bottom", fontsize=9.5)
        for index, (name, (x, y)) in enumerate(named.items()):
            axes.plot(x, y, "os^Dv"[index % 5], color=SHADES[index % 6], markersize=8, zorder=4)
            words = axes.annotate(name, (x, y), xytext=(8, 6), textcoords="offset points", fontweight="bold", zorder=5)
            words.set_path_effects([withStroke(linewidth=3, foreground=CARD)])
        axes.set(xlabel="I(v;y|z): missing of y (nats)", ylabel="I(v;z|y): kept beside y (nats)")
    return described(figure, finding)


def teacher_and_student(
    p_v: Float[np.ndarray, " n"],
    p_z: Float[np.ndarray, " n"],
    groups: Mapping[str, np.ndarray],
    accuracies: Mapping[str, Mapping[str, float]],
    title: str,
) -> Figure:
    """The true class's probability by z against that by v, for each group of images (masks [n]), and accuracy below.

    A map's cell is the darker, the more of the group's images fall into it; the dashed diagonal is agreement.
    `accuracies` are by classifier and group, 0 to 1.
    """
    with styled():
        figure = Figure(figsize=(WIDTH, 4.1), layout="constrained")
        (maps,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.35, 1))
        maps.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        row = maps.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, (name, inside) in zip(row, groups.items(), strict=True):
            edges = np.linspace(0, 1, 13)
            share = np.histogram2d(p_z[inside], p_v[inside], edges)[0] / max(1, inside.sum())
            axes.imshow(share**0.4, origin="lower", extent=(0, 1, 0, 1), vmin=0, vmax=1, cmap=SHARES)
            axes.plot([0, 1], [0, 1], color=COLOURS["ce"], lw=1, ls="--")
            axes.set_title(f"{name}-shot", fontweight="normal")
            axes.set(xticks=[0, 1], yticks=[0, 1], xlabel="p(y|v)")
            axes.grid(False)
            axes.spines[:].set(visible=True, color=GRID)
        row[0].set_ylabel("p(y|z)")
        axes = below.subplots()
        for index, (name, by_group) in enumerate(accuracies.items()):
            at = np.arange(len(groups)) + 0.38 * index
            colour = (FAINT, COLOURS["bib"])[index % 2]
            bars = axes.barh(at, [100 * by_group[g] for g in groups], height=0.34, color=colour,
                             hatch=("", "///")[index % 2], edgecolor=CARD, lw=0, label=f"by {name}")  # fmt: skip
            axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=9)
        axes.set_yticks(np.arange(len(groups)) + 0.19, list(groups))
        axes.set(xlim=(0, 108), xlabel="test accuracy (%)")
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        legend(axes)
    parts = [
        f"{group}-shot {listed([f'{100 * a[group]:.0f} % by {name}' for name, a in accuracies.items()])}"
        for group in groups
    ]
    spread = {g: float(np.mean(np.abs(p_v[m] - p_z[m]))) for g, m in groups.items()}
    apart = listed([f"{gap:.2f} for {group} shots" for group, gap in spread.items()])
    words = f"{title}. The two probabilities of the true class differ on average by {apart}. Right"
    return described(figure, f"{words}: {'; '.join(parts)}.")


def changes_by_loss(
    groups: Mapping[str, Mapping[str, Float[np.ndarray, " runs"]]], *, baseline: str, xlabel: str
) -> Figure:
    """Change of a number against the `baseline` loss, for each other loss in each group of runs.

    A dot is a run minus the baseline's mean, a bar the difference of means with Welch's 95 % interval, the mean at the
    right. The alt text has the formulas without TeX.
    """
    rows = [(group, loss) for group, runs in groups.items() for loss in runs if loss != baseline]
    losses = list(dict.fromkeys(loss for _, loss in rows))
    found, y = {}, 0.0
    with styled():
        figure, axes = one_axes(0.32 * len(rows) + 0.42 * len(groups) + 0.7)
        for group, runs in groups.items():
            axes.text(0, y, group, transform=axes.get_yaxis_transform(), fontweight="bold", va="center", fontsize=9.5)
            y += 1
            for loss in (name for name in runs if name != baseline):
                change = difference(runs[loss], runs[baseline])
                mean, half = change.mean, change.high - change.mean
                colour = OTHERS[losses.index(loss) % 4] if loss != losses[0] else COLOURS["bib"]
                axes.plot(runs[loss] - runs[baseline].mean(), np.full(len(runs[loss]), y), "o", color=colour,
                          markersize=4, alpha=0.55, lw=0)  # fmt: skip
                axes.errorbar(mean, y, xerr=half, fmt="|", color=colour, markersize=11, lw=2, capsize=0)
                axes.text(0.02, y, loss, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
                ends = [signed(end, 2) for end in (mean - half, mean + half)]
                found[f"{loss}, {group}"] = f"{signed(mean, 2)} ({' to '.join(ends)})"
                axes.text(
                    1.0, y, signed(mean, 2), transform=axes.get_yaxis_transform(), va="center", ha="right", fontsize=9
                )
                y += 0.85
            y += 0.25
        axes.axvline(0, color=INK, lw=1)
        low = min(float(np.min(runs[n] - runs[baseline].mean())) for runs in groups.values() for n in runs)
        high = max(float(np.max(runs[n] - runs[baseline].mean())) for runs in groups.values() for n in runs)
        width = high - low
        axes.set(xlabel=xlabel, yticks=[], ylim=(y - 0.3, -0.6), xlim=(low - 0.75 * width, high + 0.45 * width))
        axes.set_xticks([t for t in axes.get_xticks() if low - 0.1 * width <= t <= high + 0.1 * width])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
    words = "; ".join(f"{name} {words}" for name, words in found.items())
    return described(figure, f"{xlabel}: {words}.")
