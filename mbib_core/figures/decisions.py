"""Pictures of the second chapter: how decisions move with the prior, and what their confidence is worth."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbib_core.figures.style import (
    CARD,
    COLOURS,
    FAINT,
    INK,
    NAMES,
    OTHERS,
    WIDTH,
    colour_of,
    described,
    listed,
    one_axes,
    plain_log,
    styled,
)

TINTS = ("#c3d4e6", "#eadfb4", "#ecc3b2", "#cfdcc6")  # regions of the plane, in the order of the classes


def region_shares(centres: Float[np.ndarray, "c 2"], log_factors: Any) -> Float[np.ndarray, " c"]:
    """Share of each class in its own region (see `class_regions`), over the whole plane, to six digits.

    The plane is turned so that no boundary is upright; a region is then an interval of y at each x, exact in y.
    """
    turn = np.exp(0.37j) * (np.asarray(centres) @ [1, 1j])  # by 0.37, as complex numbers
    offset = np.asarray(log_factors) - 0.5 * np.abs(turn) ** 2
    x, step = np.linspace(-12, 12, 4001, retstep=True)
    normal = np.vectorize(lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2))))
    shares = []
    for i, own in enumerate(turn):
        low, high = np.full_like(x, -np.inf), np.full_like(x, np.inf)
        for j, other in enumerate(turn):
            if j != i:  # score_i >= score_j, solved for y
                slope = (own - other).imag
                edge = -((own - other).real * x + offset[i] - offset[j]) / slope
                low, high = (np.maximum(low, edge), high) if slope > 0 else (low, np.minimum(high, edge))
        inside = np.maximum(0, normal(high - own.imag) - normal(low - own.imag))
        shares.append(step * np.sum(np.exp(-0.5 * (x - own.real) ** 2) * inside) / math.sqrt(2 * math.pi))
    return np.array(shares)


def class_regions(
    centres: Float[np.ndarray, "c 2"], log_factors: Float[np.ndarray, " c"], names: Sequence[str], *, reach: float = 4.0
) -> Figure:
    """Where each class has the largest p_t(i|v) exp(log_factors_i), p(v|i) being normal around `centres`, variance 1.

    The dashed lines bound the regions without factors; a circle has the radius of one standard deviation. Under each
    name stands the share of the class that falls into its region, which is its accuracy.
    """
    with styled():
        figure, axes = one_axes(4.4)
        shares = _regions(axes, centres, log_factors, names, reach)
        axes.set(xlabel="first number of v", ylabel="second number of v")
    parts = [f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True)]
    return described(figure, f"The plane of v divided among classes. Share of each in its own region: {listed(parts)}.")


def three_regions(
    centres: Float[np.ndarray, "c 2"], panels: Mapping[str, Any], names: Sequence[str], *, reach: float = 3.6
) -> Figure:
    """`class_regions` of several log factors side by side, a title above each."""
    with styled():
        figure = Figure(figsize=(1.25 * WIDTH, 2.45), layout="constrained")
        found = {}
        for axes, (title, factors) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            found[title] = _regions(axes, centres, factors, names, reach, size=9)
            axes.set(xticks=[], yticks=[])
            axes.set_title(title, fontsize=10)
    parts = [f"{title.replace(chr(10), ' ')}: " + listed([f"{n} {s:.0%}" for n, s in zip(names, shares, strict=True)])
             for title, shares in found.items()]  # fmt: skip
    return described(figure, f"The same classes, other regions. Share of each in its own region: {'; '.join(parts)}.")


def _divided(centres: Any, log_factors: Any, reach: float, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Over a square grid: the region's class, the one without factors, and log p(v|i) up to a constant."""
    side = np.linspace(-reach, reach, points)
    grid = np.stack(np.meshgrid(side, side), -1)
    log_p = -0.5 * ((grid[:, :, None] - np.asarray(centres)) ** 2).sum(-1)
    return (log_p + np.asarray(log_factors)).argmax(-1), log_p.argmax(-1), log_p


def _regions(
    axes: Axes, centres: Any, log_factors: Any, names: Sequence[str], reach: float, size: float = 10
) -> np.ndarray:
    side = np.linspace(-reach, reach, 321)
    region, balanced, log_p = _divided(centres, log_factors, reach, 321)
    shares = region_shares(centres, log_factors)
    for i, (name, (x, y)) in enumerate(zip(names, np.asarray(centres), strict=True)):
        axes.contourf(side, side, region == i, levels=[0.5, 1.5], colors=[TINTS[i % 4]])
        axes.contour(side, side, balanced == i, levels=[0.5], colors=[FAINT], linewidths=0.9, linestyles="--")
        axes.contour(side, side, log_p[..., i], levels=[-0.5], colors=[INK], linewidths=0.8, linestyles="-")
        axes.text(x, y, f"{name}\n{shares[i]:.0%}", ha="center", va="center", fontweight="bold", fontsize=size)
    axes.set(aspect="equal")
    axes.grid(False)
    return shares


def stacked_posteriors(answers: Mapping[str, Float[np.ndarray, "c v"]], names: Sequence[str]) -> Figure:
    """What each formula says of each v: probabilities of the classes stacked, which should end at 1."""
    with styled():
        figure = Figure(figsize=(1.2 * WIDTH, 3.0), layout="constrained")
        row = figure.subplots(1, len(answers), sharey=True)
        for axes, (title, p) in zip(row, answers.items(), strict=True):
            bottom = np.zeros(p.shape[1])
            for i, name in enumerate(names):
                axes.bar(np.arange(1, p.shape[1] + 1), p[i], bottom=bottom, width=0.7, edgecolor=CARD,
                         color=(OTHERS[1], "#d0b35c", COLOURS["ce"])[i % 3], label=name)  # fmt: skip
                bottom += p[i]
            for place, total in enumerate(bottom, 1):
                axes.text(place, total + 0.03, f"{total:.2f}", ha="center", va="bottom", fontsize=9)
            axes.axhline(1, color=INK, lw=1.2, ls="--")
            axes.set(xlabel="v", xticks=range(1, p.shape[1] + 1))
            axes.set_title(title, fontsize=10)
            axes.grid(axis="x", visible=False)
        row[0].set(ylabel="probability, stacked", ylim=(0, 1.12 * max(p.sum(0).max() for p in answers.values())))
        row[-1].legend(loc="upper right", handlelength=1.0, labelspacing=0.2, reverse=True)
    sums = [f"{title}: {listed([f'{total:.2f}' for total in p.sum(0)])}" for title, p in answers.items()]
    return described(figure, f"Probabilities must sum to 1 at every v. Their sums: {'; '.join(sums)}.")


def tilt(exponents: Sequence[float], learned: Sequence[float], names: Sequence[str], factor: float) -> Figure:
    """Odds of tail to head at an even observation against k + tau: factor^(k + tau - 1) as a line, marks as learned."""
    with styled():
        figure, axes = one_axes(3.4)
        x = np.linspace(min(exponents) - 0.1, max(exponents) + 0.1, 50)
        axes.plot(x, factor ** (x - 1), color=INK, lw=1.3)
        axes.axhline(1, color=FAINT, lw=1, ls=(0, (2, 2)))
        axes.plot(exponents, learned, "o", color=COLOURS["bsce"], markersize=7, zorder=3)
        for at, odds, name in zip(exponents, learned, names, strict=True):
            if name:
                left = at > 1.5
                axes.annotate(name, (at, odds), xytext=(-9, 2) if left else (8, -3), textcoords="offset points",
                              fontsize=9, ha="right" if left else "left", va="bottom" if left else "top")  # fmt: skip
        axes.set_yscale("log")
        axes.set(xlabel="k + τ", ylabel="tail : head, where a fair answer is 1 : 1", xlim=(x[0], x[-1]))
        plain_log(axes, "y")
        axes.set_yticks([0.01, 0.1, 1, 10, 100])
    ends = [f"{odds:.3g} at k + τ = {at:g}" for at, odds in sorted(set(zip(exponents, learned, strict=True)))]
    return described(figure, f"The odds of tail to head follow the line F^(k + τ − 1): {listed(ends)}.")


def boundary_paths(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], *, shown: tuple[float, float]
) -> Figure:
    """Where a boundary lies (v) against the training time, log: a panel each, cut where its first path ends."""
    said = []
    with styled():
        figure = Figure(figsize=(1.35 * WIDTH, 3.3), layout="constrained")
        for axes, (title, paths) in zip(
            figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True
        ):
            last, ends = min(time[-1] for time, _ in paths.values()), []
            for index, (name, (time, boundary)) in enumerate(paths.items()):
                end = float(np.interp(np.log(last), np.log(time), boundary))
                ends.append(f"{NAMES.get(name, name)} {end:z.2f}")
                inside = time <= last
                axes.plot(time[inside], boundary[inside], color=colour_of(name, index), ls=("-", "--", "-.")[index % 3],
                          label=NAMES.get(name, name))  # fmt: skip
            for place, name in ((-1, "head"), (1, "tail")):
                axes.axhline(place, color=FAINT, lw=2.5, alpha=0.5)
                axes.text(last, place + 0.06, name, color=FAINT, ha="right", va="bottom", fontsize=9)
            axes.set_xscale("log")
            axes.set_title(title, fontsize=10)
            axes.set(xlabel="training time (log)", ylim=shown)
            said.append(f"{title}: {listed(ends)}")
        figure.axes[0].set_ylabel("boundary at v")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, handlelength=1.8)
    return described(figure, f"The boundary at the last moment of training that all share. {'; '.join(said)}.")


def calibration_bins(bins: Mapping[str, Mapping[str, Any]], *, of: str) -> Figure:
    """Accuracy against confidence with each bin's 95 % sampling noise, `metrics.calibration`'s answer for each name."""
    said = []
    with styled():
        figure, axes = one_axes(3.7)
        axes.plot([0, 1], [0, 1], color=FAINT, lw=1, ls="--")
        for index, (name, found) in enumerate(bins.items()):
            count = np.array(found["count"])
            filled = count > max(5, 0.002 * count.sum())
            x, y, n = (np.array(found[key])[filled] for key in ("confidence", "accuracy", "count"))
            noise = 1.96 * np.sqrt(np.clip(x * (1 - x), 1e-4, None) / n)
            colour = colour_of(name, index)
            axes.errorbar(x, y, noise, color=colour, marker="os^D"[index % 4], lw=1.4, elinewidth=1.6)
            axes.annotate(name, (x[-1], y[-1]), xytext=(-8, 2), textcoords="offset points", ha="right", va="bottom",
                          color=colour, fontweight="bold", fontsize=9)  # fmt: skip
            off = np.sum(n * np.maximum(0, np.abs(y - x) - noise)) / n.sum()
            side = "on the diagonal within its sampling noise" if off < 0.01 else "far below the diagonal"
            said.append(f"{name} is {side}, expected calibration error {found['error']:.2f}")
        axes.set(xlabel="confidence of the prediction", ylabel="share that is right", xlim=(0.45, 1.02), ylim=(0, 1.03))
    return described(figure, f"Accuracy against confidence, {of}: {'; '.join(said)}.")


def curves_by_examples(n: Any, curves: Mapping[str, Any], *, ceiling: float, xlabel: str, ylabel: str) -> Figure:
    """Accuracy in % against training examples of the tail, log; each curve is labelled at its left end."""
    with styled():
        figure, axes = one_axes(3.4)
        axes.axhline(ceiling, color=FAINT, lw=1, ls=(0, (2, 2)))
        for index, (name, values) in enumerate(curves.items()):
            colour = (INK, COLOURS["bsce"], COLOURS["mbib"], COLOURS["ce"])[index % 4]
            axes.plot(n, values, color=colour, marker="os^D"[index % 4])
            side = (1, 0, 4)[index % 3]
            axes.annotate(name, (n[side], values[side]), xytext=((0, 9), (9, -5), (8, -6))[index % 3], color=colour,
                          textcoords="offset points", va="center", fontsize=9, fontweight="bold")  # fmt: skip
        axes.set_xscale("log")
        axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(-3, 100))
        plain_log(axes, "x")
    parts = [f"{name}: {values[0]:.0f} % with {n[0]} to {values[-1]:.0f} % with {n[-1]}" for name, values in
             curves.items()]  # fmt: skip
    return described(figure, f"{ylabel} against {xlabel}. {'; '.join(parts)}.")
