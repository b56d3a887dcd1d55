"""Pictures of the flower garden and of information: colour wheel, chain, two areas; lines named at their ends."""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, Rectangle, Wedge
from matplotlib.ticker import MaxNLocator

from mbib_core.figures.style import (
    CARD,
    COLOURS,
    FAINT,
    INK,
    NAMES,
    OTHERS,
    SHADES,
    WIDTH,
    apart,
    described,
    listed,
    one_axes,
    plain_log,
    styled,
)

DASHES = ("-", "--", "-.", (0, (1, 1.2)), (0, (6, 1, 1, 1, 1, 1)), (0, (8, 2)))


def hue_colour(degrees: float, saturation: float = 0.72, value: float = 0.86) -> tuple[float, float, float]:
    """The colour at `degrees` of the colour wheel, 0 being red."""
    return colorsys.hsv_to_rgb(degrees / 360 % 1, saturation, value)


def colour_wheel(
    hues: Any,
    own_hues: Any,
    names: Sequence[str],
    panels: Mapping[str, tuple[Any, Float[np.ndarray, "X Y"], Float[np.ndarray, "X T"]]],
) -> Figure:
    """Gardens as colour wheels: the hues outside, what a note makes of them inside.

    A panel is counts [Y], a joint p(x, y) and an encoder q(t|x). The inner ring has for each hue the mean colour of its
    likeliest code word; where neighbours share a word there is no gap. Around the wheel stand the flowers at their own
    hues, with their counts.
    """
    said = []
    with styled():
        figure = Figure(figsize=(1.2 * WIDTH, 0.51 * WIDTH), layout="constrained")
        for axes, (title, (counts, p_xy, q)) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            _empty(axes, (-2.0, 2.0), (-1.42, 1.38))
            axes.set_title(title, loc="center")
            word = q.argmax(1)
            p_x, turn = p_xy.sum(1), np.exp(1j * np.radians(hues))
            step = 360 / len(hues)
            for x, hue in enumerate(hues):
                ends = 90 - hue - step / 2, 90 - hue + step / 2  # red at the top, clockwise
                axes.add_patch(Wedge((0, 0), 1, *ends, width=0.24, fc=hue_colour(hue), ec=CARD, lw=1))
                mean = np.degrees(np.angle((p_x * turn)[word == word[x]].sum()))
                axes.add_patch(Wedge((0, 0), 0.7, *ends, width=0.34, fc=hue_colour(mean), ec=hue_colour(mean), lw=0.5))
                if word[x] != word[(x + 1) % len(hues)]:
                    angle = np.radians(90 - hue - step / 2)
                    axes.plot(*(np.array([[0.34], [0.72]]) * [np.cos(angle), np.sin(angle)]).T, color=CARD, lw=4)
            for name, own, count in zip(names, own_hues, counts, strict=True):
                angle = np.radians(90 - own)
                x, y = 1.08 * np.cos(angle), 1.08 * np.sin(angle)
                align = "center" if abs(x) < 0.3 else "left" if x > 0 else "right"
                axes.text(
                    x, y + 0.1 * np.sign(y), f"{name}\n{count:,}", ha=align, va="center", fontsize=9, linespacing=1
                )
            n = len(set(word))
            axes.text(0, 0, f"{n}\nwords", ha="center", va="center", fontsize=8.5, fontweight="bold", linespacing=1.1)
            shared = [
                listed([f"{hues[x]:g}°" for x in np.flatnonzero(word == t)])
                for t in sorted(set(word))
                if (word == t).sum() > 1
            ]
            said.append(f"{title}: {n} words; these hues share one: {'; '.join(shared) or 'none'}")
    return described(figure, f"Colour wheels of two gardens with the words of their notes. {'. '.join(said)}.")


def posterior_bars(
    hues: Any,
    own_hues: Any,
    names: Sequence[str],
    panels: Mapping[str, Float[np.ndarray, "X Y"]],
) -> Figure:
    """p(y|x) of each joint p(x, y) as one bar a hue, divided among the flowers in their own colours."""
    said = []
    with styled():
        figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
        for place, (axes, (title, p_xy)) in enumerate(
            zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True)
        ):
            posterior = p_xy / p_xy.sum(1, keepdims=True)
            left = np.zeros(len(hues))
            for y, own in enumerate(own_hues):
                share = 100 * posterior[:, y]
                axes.barh(range(len(hues)), share, left=left, color=hue_colour(own), height=0.86, lw=0)
                left = left + share
            for x, hue in enumerate(hues):
                axes.add_patch(Rectangle((-7.5, x - 0.43), 6, 0.86, color=hue_colour(hue), lw=0))
            axes.set(xlim=(-8, 100), xlabel="p(y|x) in %", xticks=[0, 50, 100])
            axes.set_title(title, loc="center")
            axes.grid(False)
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0)
            if not place:
                rows = {int(own): name for own, name in zip(own_hues, names, strict=True)}
                axes.set_yticks(range(len(hues)), [f"{rows.get(int(h), '')} {h:g}°".strip() for h in hues])
                for label, hue in zip(axes.get_yticklabels(), hues, strict=True):
                    label.set_fontweight("bold" if int(hue) in rows else "normal")
                axes.invert_yaxis()
            at_own = posterior[[list(hues).index(own) for own in own_hues], range(len(names))]
            said.append(
                f"{title}: "
                + ", ".join(f"{name} {100 * share:.0f} %" for name, share in zip(names, at_own, strict=True))
            )
    return described(
        figure, f"What a hue says of the flower. The flower's own share at its own hue: {'. '.join(said)}."
    )


def note_chain() -> Figure:
    """y, x, t in a row: the flower shows a hue, the note is written about the hue alone, a classifier reads it."""
    with styled():
        figure = Figure(figsize=(WIDTH, 1.75), layout="constrained")
        axes = figure.subplots()
        _empty(axes, (0, 12), (0, 4.3))
        places = {"$y$": (1.2, "flower"), "$x$": (4.6, "hue"), "$t$": (8.0, "note"), "$\\hat y$": (11.1, "guess")}
        for angle in range(0, 360, 60):  # a flower of six petals
            turn = np.radians(angle)
            axes.add_patch(Ellipse((1.2 + 0.42 * np.cos(turn), 2.5 + 0.42 * np.sin(turn)), 0.62, 0.36, angle=angle,
                                   fc=hue_colour(0), ec=CARD, lw=0.6))  # fmt: skip
        axes.add_patch(Circle((1.2, 2.5), 0.2, fc=hue_colour(55), ec=CARD))
        axes.add_patch(Circle((4.6, 2.5), 0.62, fc=hue_colour(15), ec=INK, lw=1))
        for x, text in ((8.0, "“red”"), (11.1, "poppy?")):
            axes.text(x, 2.5, text, ha="center", va="center", fontsize=10,
                      bbox={"boxstyle": "round,pad=0.45", "fc": CARD, "ec": INK, "lw": 1.2})  # fmt: skip
        for name, (x, word) in places.items():
            axes.text(x, 1.05, f"{name}, {word}", ha="center", va="center", fontsize=10)
        for start, end, text in ((2.1, 3.7, "p(x|y)"), (5.5, 6.9, "q(t|x)"), (9.1, 10.0, "")):
            axes.annotate("", (end, 2.5), (start, 2.5), arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.4})
            axes.text((start + end) / 2, 2.85, text, ha="center", va="bottom", fontsize=9)
        axes.text(4.6, 3.75, "the camera", ha="center", va="center", fontsize=9, color=FAINT)
        axes.text(8.0, 3.75, "sees x only", ha="center", va="center", fontsize=9, color=FAINT)
        axes.text(11.1, 3.75, "sees t only", ha="center", va="center", fontsize=9, color=FAINT)
    words = (
        "A chain from left to right. The flower y shows the camera a hue x. A note t is written about the hue, and by "
        "somebody who sees only the hue. A classifier that sees only the note guesses the flower."
    )
    return described(figure, words)


def two_areas() -> Figure:
    """What v knows of y and what z keeps of v as two areas that overlap; beside it, the missing and the superfluous."""
    with styled():
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        axes = figure.subplots()
        _empty(axes, (-5.2, 5.2), (-3.35, 3.35))
        missing, wanted, superfluous = COLOURS["bsce"], COLOURS["bib"], COLOURS["ce"]
        axes.add_patch(Ellipse((0, 0), 10.2, 6.6, fc="none", ec=FAINT, lw=1.2, ls=(0, (4, 2))))
        left, right = (Ellipse((x, 0), 5.0, 3.9) for x in (-1.55, 1.55))
        for shape, colour in ((left, missing), (right, superfluous)):
            axes.add_patch(Ellipse(shape.center, 5.0, 3.9, fc=colour, alpha=0.16, ec="none"))
            axes.add_patch(Ellipse(shape.center, 5.0, 3.9, fc="none", ec=colour, lw=1.8))
        overlap = Ellipse((-1.55, 0), 5.0, 3.9, fc=wanted, alpha=0.35, ec="none")
        axes.add_patch(overlap)
        overlap.set_clip_path(axes.add_patch(Ellipse((1.55, 0), 5.0, 3.9, fc="none", ec="none")))
        for x, y, text, colour in (
            (-2.65, 0.25, "missing", missing), (-2.65, -0.35, "I(v;y|z)", missing),
            (0, 0.25, "about y", wanted), (0, -0.35, "I(z;y)", wanted),
            (2.65, 0.25, "superfluous", superfluous), (2.65, -0.35, "I(v;z|y)", superfluous),
        ):  # fmt: skip
            axes.text(x, y, text, ha="center", va="center", color=INK if text[0] == "I" else colour,
                      fontweight="normal" if text[0] == "I" else "bold", fontsize=9.5)  # fmt: skip
        for x, text, colour in (
            (-1.85, "I(v;y)\nwhat v knows of y", missing),
            (1.85, "I(v;z)\nwhat z keeps of v", superfluous),
        ):
            axes.text(x, 2.08, text, ha="center", va="bottom", fontsize=9, color=colour, linespacing=1.1)
        axes.text(0, -2.6, "H(v): all there is in v", ha="center", va="center", fontsize=9, color=FAINT)
    words = (
        "Two overlapping areas inside H(v). The left one, I(v;y), is what v knows of y. The right one, I(v;z), is what "
        "z keeps of v. Their overlap is I(z;y). What is left of the left area, I(v;y|z), is missing in z; what is left "
        "of the right area, I(v;z|y), is superfluous."
    )
    return described(figure, words)


def named_lines(
    x: Any,
    series: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
    finding: str,
    log_x: bool = False,
    evenly: bool = False,
    step: bool = False,
    height: float = 3.2,
    marked: Mapping[str, float] | None = None,
    dots: Mapping[str, tuple[float, float]] | None = None,
    colours: Mapping[str, Any] | None = None,
) -> Figure:
    """Curves over one `x`, each with its name at its right end; values [n, runs] are drawn as mean and range.

    evenly: one step for each x, whatever its value. marked: places on the x axis. dots: named points. `finding` is the
    alt text.
    """
    at = np.arange(len(x)) if evenly else np.asarray(x, dtype=float)
    with styled():
        figure, axes = one_axes(height)
        ends = {}
        for index, (name, values) in enumerate(series.items()):
            rows = np.asarray(values, dtype=float).reshape(len(at), -1)
            colour = (colours or {}).get(name, COLOURS.get(name, SHADES[index % 6]))
            if rows.shape[1] > 1:
                axes.fill_between(at, rows.min(1), rows.max(1), color=colour, alpha=0.18, lw=0)
            axes.plot(at, rows.mean(1), color=colour, ls=DASHES[index % 6], marker="osD^vP"[index % 6] * evenly,
                      drawstyle="steps-post" if step else "default")  # fmt: skip
            ends[NAMES.get(name, name)] = (rows.mean(1)[-1], colour)
        for name, place in (marked or {}).items():
            axes.axvline(place, color=FAINT, lw=0.9, ls=(0, (2, 2)))
            axes.text(place, 1.0, name, color=FAINT, ha="center", va="bottom", fontsize=9,
                      transform=axes.get_xaxis_transform())  # fmt: skip
        for name, (px, py) in (dots or {}).items():
            axes.plot(px, py, "o", color=INK, markersize=6, zorder=4)
            axes.annotate(name, (px, py), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if evenly:
            axes.set_xticks(at, [f"{value:g}".removeprefix("0") or "0" for value in x])
        if log_x:
            axes.set_xscale("log")
            plain_log(axes, "x")
        if step:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(at[0] - 0.3 * evenly, at[-1] + 0.3 * evenly)
        if len(series) > 1:
            name_ends(axes, ends, height)
    return described(figure, finding)


def name_ends(axes: Axes, ends: Mapping[str, tuple[float, Any]], height: float) -> None:
    """Names at the right of the axes, each at its height, pushed apart where they would touch; the figure's height."""
    low, high = axes.get_ylim()
    line = 0.2 / height  # of the axes' height
    order = sorted(ends, key=lambda name: ends[name][0])
    tall = [line * (1 + name.count("\n")) for name in order]
    at = [(ends[name][0] - low) / (high - low) for name in order]
    for name, y in zip(order, apart(at, tall), strict=True):
        axes.text(1.02, y, name, color=ends[name][1], transform=axes.transAxes, va="center", ha="left", fontsize=9,
                  linespacing=1.05)  # fmt: skip


def kept_by_size(
    counts: Sequence[int], kept: Float[np.ndarray, "gardens Y"], *, reference: float, reference_name: str, ylabel: str
) -> Figure:
    """Per cent kept of each class against its size: a dot a garden, a bar the mean; a dashed line is the reference."""
    with styled():
        figure, axes = one_axes(3.2)
        shift = np.random.default_rng(0).uniform(-0.22, 0.22, len(kept))
        for y in range(len(counts)):
            axes.plot(y + shift, 100 * kept[:, y], "o", color=OTHERS[1], alpha=0.35, markersize=3.5, mew=0)
            axes.plot([y - 0.3, y + 0.3], [100 * kept[:, y].mean()] * 2, color=INK, lw=2.4)
            axes.text(y + 0.33, 100 * kept[:, y].mean(), f"{100 * kept[:, y].mean():.0f}", va="center", fontsize=9)
        axes.axhline(100 * reference, color=COLOURS["bib"], ls="--", lw=1.4)
        axes.text(0.99, 100 * reference, reference_name, color=COLOURS["bib"], ha="right", va="bottom", fontsize=9,
                  transform=axes.get_yaxis_transform())  # fmt: skip
        axes.set_xticks(range(len(counts)), [f"{count:,}" for count in counts])
        axes.set(xlabel="images of the class", ylabel=ylabel, xlim=(-0.5, len(counts) - 0.3))
        axes.grid(axis="x", visible=False)
    means = ", ".join(f"{100 * m:.0f} % of one of {n:,} images" for m, n in zip(kept.mean(0), counts, strict=True))
    return described(
        figure, f"{ylabel}, mean over {len(kept)} gardens: {means}. {reference_name}: {100 * reference:.0f} %."
    )


def _empty(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    """No axes, no ticks, equal units."""
    axes.set(xlim=x, ylim=y, xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    axes.grid(False)
