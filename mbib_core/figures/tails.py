"""Pictures of the first chapter: a long tail, and what it does to accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from matplotlib.figure import Figure

from mbib_core.figures.style import (
    CARD,
    COLOURS,
    FAINT,
    INK,
    MARKERS,
    NAMES,
    OTHERS,
    SHOTS,
    WIDTH,
    described,
    listed,
    one_axes,
    plain_log,
    styled,
)

# ---------------------------------------------------------------- a data set and its accuracy


def seen_and_right(rows: UInt8[np.ndarray, "r k 3 h w"], names: Sequence[str], right: Sequence[float]) -> Figure:
    """`rows` of up to K training images, the class's name at the left, its test accuracy (0 to 1) at the right."""
    r, k, _, height, _ = rows.shape
    with styled():
        figure = Figure(figsize=(WIDTH, WIDTH * r / (k + 3.4) + 0.3), layout="constrained")
        for index, (axes, row) in enumerate(zip(figure.subplots(r, 1, squeeze=False)[:, 0], rows, strict=True)):
            gap = np.full((3, height, 2), 255, dtype=np.uint8)
            strip = np.concatenate([part for image in row for part in (image, gap)][:-1], axis=2)
            axes.imshow(strip.transpose(1, 2, 0), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_ylabel(names[index], rotation=0, ha="right", va="center")
            axes.text(1.03, 0.5, f"{right[index]:.0%}", transform=axes.transAxes, va="center", fontweight="bold",
                      fontsize=12, color=COLOURS["ce"])  # fmt: skip
            if not index:
                axes.set_title("all that is there to learn from, up to nine", fontweight="normal", fontsize=9.5)
                axes.text(1.03, 1.12, "read right", transform=axes.transAxes, fontsize=9.5, va="bottom")
    parts = [f"{name}: {share:.0%}" for name, share in zip(names, right, strict=True)]
    return described(figure, f"The rarer the class, the fewer of its test images are read right: {listed(parts)}.")


def class_counts(counts: Int[np.ndarray, " c"], names: Sequence[str], profile: Any = None) -> Figure:
    """Training images of each class, largest first, on a log axis: a class is its name where that is one character.

    `profile` is a line to compare with, values [C]; dotted lines part many, medium and few shots.
    """
    counts = np.asarray(counts)
    order = np.argsort(-counts, kind="stable")
    with styled():
        figure = Figure(figsize=(1.3 * WIDTH, 3.5), layout="constrained")
        axes = figure.subplots()
        low, high = counts.min() / 1.5, counts.max() * 1.35
        axes.set_yscale("log")
        axes.set(ylim=(low, high), xlim=(0, len(counts) + 1), xlabel="class, largest first", ylabel="training images")
        if profile is not None:
            axes.plot(np.arange(1, len(counts) + 1), profile, color=COLOURS["bsce"], lw=1.2)
        for place, label in enumerate(order, 1):
            if len(names[label]) == 1:
                axes.text(place, counts[label], names[label], ha="center", va="center", fontsize=9, fontweight="bold")
            else:
                axes.plot(place, counts[label], "o", color=INK, markersize=3)
        for shot, (above, to) in SHOTS.items():
            bottom, top = max(above, low), min(to, high)
            inside = int(((counts > above) & (counts <= to)).sum())
            if bottom < top and inside:
                at, side = (0.02, "left") if shot == "few" else (0.99, "right")  # where the classes are not
                axes.text(at, np.sqrt(bottom * top), f"{shot} shots: {inside} classes", color=FAINT, ha=side,
                          va="center", transform=axes.get_yaxis_transform())  # fmt: skip
            if low < above < high:
                axes.axhline(above, color=FAINT, lw=0.9, ls=(0, (2, 2)))
        plain_log(axes, "y")
    sizes = [f"{((counts > a) & (counts <= b)).sum()} have {shot} shots" for shot, (a, b) in SHOTS.items()]
    words = f"From {counts.max()} training images of the largest class to {counts.min()} of the smallest, nearly a line"
    return described(figure, f"{words} on a log axis. Of {len(counts)} classes {listed(sizes)}.")


def two_tests(shares: Mapping[str, Sequence[float]], parts: Sequence[str], known: Sequence[bool]) -> Figure:
    """One bar for each test, divided into the `shares` of its `parts`; what the network does not know is hatched."""
    with styled():
        figure, axes = one_axes(2.1)
        for row, (name, own) in enumerate(shares.items()):
            left = 0.0
            for index, (share, knows) in enumerate(zip(own, known, strict=True)):
                axes.barh(row, 100 * share, left=left, height=0.5, edgecolor=CARD, lw=1.5,
                          hatch="////" * (not knows), color=(OTHERS[1], "#9db4c8", "#d9d2c4")[index % 3])  # fmt: skip
                if share > 0.06:
                    axes.text(left + 50 * share, row, parts[index], ha="center", va="center", fontsize=9,
                              color=CARD if index == 0 else INK,
                              bbox=None if knows else {"fc": CARD, "ec": "none", "pad": 1.5})  # fmt: skip
                left += 100 * share
            right = 100 * sum(share for share, knows in zip(own, known, strict=True) if knows)
            axes.text(0, row - 0.33, f"{name}: {right:.1f} % right", va="bottom", fontweight="bold")
        axes.set(xlim=(0, 100), ylim=(len(shares) - 0.6, -0.75), yticks=[], xlabel="share of the test images (%)")
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
    scores = [f"{100 * sum(s for s, k in zip(own, known, strict=True) if k):.1f} % of a {name.lower()}"
              for name, own in shares.items()]  # fmt: skip
    return described(figure, f"A network that knows only the frequent classes is right on {listed(scores)}.")


def taken_for(taken: Mapping[str, tuple[float, float]]) -> Figure:
    """For each group of classes: the share of the lost images that went there, and the share expected by chance."""
    with styled():
        figure, axes = one_axes(0.9 + 0.5 * len(taken))
        for row, (_, (found, chance)) in enumerate(taken.items()):
            axes.plot([100 * chance, 100 * found], [row, row], color=COLOURS["ce"], lw=5, alpha=0.35,
                      solid_capstyle="butt")  # fmt: skip
            axes.plot(100 * chance, row, "|", color=INK, markersize=16, mew=2)
            axes.plot(100 * found, row, "o", color=COLOURS["ce"], markersize=9)
            side = 1 if found > chance else -1
            axes.annotate(f"{found:.0%}", (100 * found, row), xytext=(9 * side, 0), textcoords="offset points",
                          va="center", ha="left" if side > 0 else "right", fontweight="bold")  # fmt: skip
            axes.annotate(f"{chance:.0%}", (100 * chance, row), xytext=(-6 * side, 0), textcoords="offset points",
                          va="center", ha="right" if side > 0 else "left")  # fmt: skip
            if not row:
                axes.annotate("by chance", (100 * chance, row), xytext=(-10, 11), textcoords="offset points",
                              fontsize=9)  # fmt: skip
        axes.set_yticks(range(len(taken)), [f"{shot} shots" for shot in taken])
        axes.set(xlabel="share of the lost images (%)", xlim=(-1, 82), ylim=(len(taken) - 0.5, -0.6))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    parts = [f"{found:.0%} for a class of {shot} shots ({chance:.0%} by chance)" for shot, (found, chance) in
             taken.items()]  # fmt: skip
    return described(figure, f"Lost images of few-shot classes are taken for larger classes: {listed(parts)}.")


def evidence(shift: float) -> Figure:
    """Probability of the rarer of two classes against the evidence for it in nats: balanced, and `shift` nats later."""
    x = np.linspace(-4, 4 + shift, 300)
    with styled():
        figure, axes = one_axes(3.0)
        for at, colour in ((0.0, COLOURS["bsce"]), (shift, COLOURS["ce"])):
            axes.plot(x, 1 / (1 + np.exp(at - x)), color=colour)
        said: dict[str, Any] = {"va": "center", "fontweight": "bold", "fontsize": 9.5}
        axes.text(-0.6, 0.62, "balanced\nanswer", color=COLOURS["bsce"], ha="right", **said)
        axes.text(shift + 0.6, 0.38, "answer for the\ntraining data", color=COLOURS["ce"], ha="left", **said)
        axes.annotate("", (shift, 0.5), (0, 0.5), arrowprops={"arrowstyle": "<|-|>", "color": INK, "lw": 1.2})
        axes.text(shift / 2, 0.52, f"log {np.exp(shift):.0f}\n= {shift:.2f} nats", ha="center", va="bottom")
        axes.plot(0, 1 / (1 + np.exp(shift)), "o", color=COLOURS["ce"])
        axes.annotate(f"an image\nthat fits both\ngets {1 / (1 + np.exp(shift)):.3f}", (0, 1 / (1 + np.exp(shift))),
                      xytext=(0.7, 0.16), arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.8}, fontsize=9,
                      color=COLOURS["ce"])  # fmt: skip
        axes.set(xlabel="evidence for the rare class in the image (nats)", ylabel="probability of the rare class")
        axes.set_ylim(-0.03, 1.03)
    words = f"With the prior of training, the rare class needs {shift:.2f} nats more evidence to reach one half"
    return described(figure, f"{words}; an even image gives it {1 / (1 + np.exp(shift)):.3f} instead of 0.5.")


def three_bars(bars: Mapping[str, float], steps: Sequence[str], dots: Mapping[str, Sequence[float]]) -> Figure:
    """Accuracy in % in rows, each with what it adds to the row above in a colour of its own, named by `steps`.

    `dots` are single runs, by the row's name.
    """
    colours = (COLOURS["ce"], COLOURS["bsce"], COLOURS["bib"])
    with styled():
        figure, axes = one_axes(3.1)
        done = 0.0
        for row, (name, value) in enumerate(bars.items()):
            if row:
                axes.barh(row, done, height=0.42, color="#d8dade")
                axes.plot([done, done], [row - 1 + 0.21, row - 0.21], color=FAINT, lw=1, ls=(0, (2, 2)))
            axes.barh(row, value - done, left=done, height=0.42, color=colours[row % 3])
            axes.plot(dots.get(name, ()), [row + 0.3] * len(dots.get(name, ())), "o", color=FAINT, markersize=3.5,
                      mew=0, alpha=0.8)  # fmt: skip
            axes.text(0, row - 0.27, name, va="bottom", fontweight="bold")
            axes.text(value + 1, row, f"{value:.1f}" if value > 99 else f"{value:.0f}", va="center", fontweight="bold")
            if row:
                axes.text((done + value) / 2, row, f"+{value - done:.0f}", ha="center", va="center", color=CARD,
                          fontweight="bold")  # fmt: skip
                axes.text(done - 1.5, row, steps[row - 1], ha="right", va="center", fontsize=9)
            done = value
        axes.set(xlim=(0, 112), ylim=(len(bars) - 0.45, -0.7), yticks=[], xticks=range(0, 101, 20))
        axes.set_xlabel("test accuracy of few-shot classes (%)")
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
    parts = [f"{name} {value:.1f} %" for name, value in bars.items()]
    return described(figure, f"Test accuracy of the few-shot classes rises in two steps: {listed(parts)}.")


def runs_by_part(runs: Mapping[str, Mapping[str, Sequence[float]]], *, xlabel: str) -> Figure:
    """Accuracy in % of single runs: a group for each part (few, all), a row for each method, a bar at the mean."""
    methods = list(dict.fromkeys(name for group in runs.values() for name in group))
    looks = {name: (COLOURS.get(name.split(",")[0], INK), MARKERS.get(name.split(",")[0], "o")) for name in methods}
    with styled():
        figure, axes = one_axes(0.8 + 0.34 * len(methods) * len(runs) + 0.3 * len(runs))
        row, ends = 0.0, []
        for part, group in runs.items():
            axes.text(0.0, row - 0.15, part, fontweight="bold", transform=axes.get_yaxis_transform(), va="bottom")
            for name, values in group.items():
                row += 0.8
                colour, marker = looks[name]
                filled: dict[str, Any] = {} if name in COLOURS else {"mfc": CARD, "mec": colour, "mew": 1.4}
                axes.plot(values, [row] * len(values), marker, color=colour, alpha=0.9, markersize=6.5, **filled)
                axes.plot([np.mean(values)] * 2, [row - 0.3, row + 0.3], color=colour, lw=2.4)
                ends.append((row, f"{NAMES.get(name, name.split(', ')[-1])}  {np.mean(values):.1f}"))
            row += 1.1
        axes.set_yticks([at for at, _ in ends], [text for _, text in ends])
        axes.set(ylim=(row - 0.5, -0.9), xlabel=xlabel)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    said = []
    for part, group in runs.items():
        spans = [f"{NAMES.get(n, n.split(', ')[-1])} {np.mean(v):.1f} ({min(v):.1f} to {max(v):.1f})"
                 for n, v in group.items()]  # fmt: skip
        said.append(f"{part}: {listed(spans)}")
    return described(figure, f"{xlabel[0].upper()}{xlabel[1:]}, mean and range over runs. {'; '.join(said)}.")
