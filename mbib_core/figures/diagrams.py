"""Drawings of the two networks, BIB's and MBIB's."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbib_core.figures.style import CARD, COLOURS, FAINT, INK, WIDTH, described, styled


def two_classifiers() -> Figure:
    """BIB's network and its losses: x -> v -> z, a classifier on each, the distillation and the way of its gradient."""
    places = {"$x$": (0.5, 1.5), "$v$": (4.4, 1.5), "$z$": (8.4, 1.5), "$f_v$": (4.4, 4.2), "$f_z$": (8.4, 4.2)}
    labels: dict[str, Any] = {"color": COLOURS["bsce"]}
    taught: dict[str, Any] = {"color": COLOURS["bib"]}
    with styled():
        figure, axes = blank((WIDTH, 3.3), (-0.2, 9.6), (0.1, 6.6))

        def between(start: str, end: str, **look: Any) -> None:
            arrow(axes, places[start], places[end], shrinkA=17, shrinkB=17, **look)

        for name, place in places.items():
            box(axes, name, *place)
        for start, end in (("$x$", "$v$"), ("$v$", "$z$"), ("$v$", "$f_v$"), ("$z$", "$f_z$")):
            between(start, end)
        for x, made in ((2.4, "trunk, pool,\nnorm"), (6.4, "linear, norm,\nReLU")):
            axes.text(x, 1.75, made, ha="center", va="bottom", fontsize=9)
        for x, loss in ((4.4, "$L_v$"), (8.4, "$L_z$")):
            arrow(axes, (x, 6.0), (x, 4.2), shrinkA=4, shrinkB=17, **labels)
            axes.text(x, 6.25, f"{loss}: labels", ha="center", va="center", fontweight="bold", **labels)
        between("$f_v$", "$f_z$", lw=1.8, ls=(0, (4, 2)), **taught)
        axes.text(6.4, 4.35, r"$L_\mathrm{VSD}$", ha="center", va="bottom", fontsize=11, **taught)
        axes.text(6.4, 4.05, "teaches", ha="center", va="top", fontsize=9, color=INK)
        back: dict[str, Any] = {"lw": 5, "alpha": 0.28, "shrinkA": 0, "shrinkB": 0, **taught}
        arrow(axes, (8.85, 4.0), (8.85, 1.9), **back)
        arrow(axes, (8.2, 0.75), (4.6, 0.75), **back)
        arrow(axes, (4.2, 0.75), (0.8, 0.75), **back)
        axes.text(
            4.4, 0.5, r"the way of the gradient of $L_\mathrm{VSD}$", ha="center", va="top", fontsize=9.5, **taught
        )
        axes.plot(4.95, 4.2, marker="x", color=COLOURS["ce"], markersize=10, mew=2.4, zorder=5)
        axes.text(4.1, 3.0, "no gradient\ninto $f_v$", ha="right", va="center", fontsize=9, color=COLOURS["ce"])
    words = (
        "L_VSD never trains the classifier on v, but it does train the trunk. The network of BIB: a trunk makes v of "
        "the image x, and a linear layer, normalisation and ReLU make z of v. One classifier stands on v, one on z; "
        "labels teach both, by L_v and L_z. L_VSD is an arrow from the classifier on v to that on z. Its gradient runs "
        "from the classifier on z through z and v into the trunk; the way into the classifier on v is cut."
    )
    return described(figure, words)


def three_teachers(shares: Sequence[float] = (0.1, 0.3, 0.6)) -> Figure:
    """MBIB as it is written, three teachers of z with their `shares`, and below as its gradient sees it: one."""
    pink = COLOURS["mbib"]
    columns = {"1": 2.6, "2": 5.1, "3": 7.6}
    z_at = 10.9
    with styled():
        figure = Figure(figsize=(WIDTH, 5.9), layout="constrained")
        upper, lower = figure.subplots(2, 1)
        for axes, title in ((upper, "As it is written: three teachers, one student"),
                            (lower, "As the gradient sees it: one teacher, their average")):  # fmt: skip
            cleared(axes, (-0.1, 12), (0.3, 8.6))
            axes.set_title(title)
            box(axes, "$x$", 0.5, 1)
            for i, x in columns.items():
                box(axes, f"stage {i}", x, 1, size=9)
                box(axes, f"$v_{i}$", x, 3.1)
                box(axes, f"$f_{i}$", x, 5.1)
                arrow(axes, (x - 1.68 if i != "1" else 0.85, 1), (x - 0.82, 1))
                arrow(axes, (x, 1.55), (x, 2.55))
                arrow(axes, (x, 3.65), (x, 4.55))
            box(axes, "$z$", z_at, 3.1)
            box(axes, "$f_z$", z_at, 5.1)
            arrow(axes, (8.05, 3.1), (z_at - 0.42, 3.1))
            arrow(axes, (z_at, 3.65), (z_at, 4.55))
        for (i, x), share in zip(columns.items(), shares, strict=True):
            thick: dict[str, Any] = {"color": pink, "lw": 1 + 5 * share, "mutation_scale": 9 + 9 * share}
            bend = f"arc3,rad={-0.13 * (4 - int(i)):.2f}"
            arrow(upper, (x + 0.1, 5.65), (z_at - 0.5 + 0.25 * int(i), 5.75), connectionstyle=bend, **thick)
            place = {"1": (5.2, 7.36), "2": (6.75, 6.42), "3": (9.0, 5.97)}[i]
            upper.text(*place, f"{share:g}", color=pink, fontweight="bold", ha="center", va="center", fontsize=10,
                       bbox={"fc": CARD, "ec": "none", "pad": 0.8})  # fmt: skip
            arrow(lower, (x + 0.1, 5.65), (8.2, 7.35), color=FAINT, lw=1 + 5 * share, mutation_scale=9 + 9 * share)
        box(lower, r"$\bar p$", 8.75, 7.5, edge=pink)
        lower.text(8.75, 8.2, "average", ha="center", va="bottom", fontsize=9, color=pink)
        arrow(lower, (9.2, 7.35), (z_at, 5.7), color=pink, lw=4, mutation_scale=15)
        lower.text(z_at - 0.1, 6.9, r"$\beta\,\mathrm{KL}(\bar p, q)$", ha="left", va="center", fontsize=10, color=pink)
    said = ", ".join(f"{share:g}" for share in shares)
    words = (
        "Three teachers act on z as one. Above, the network of MBIB: the image x goes through three stages, the pooled "
        "output of each is an observation, v_1 to v_3, with a classifier of its own; z is made from v_3, and an arrow "
        f"leads from each of the three classifiers to that of z, of weight {said}. Below, the same network with the "
        "three classifiers joined into their average, p bar, and one arrow from it to the classifier of z."
    )
    return described(figure, words)


def blank(size: tuple[float, float], x: tuple[float, float], y: tuple[float, float]) -> tuple[Figure, Axes]:
    """A figure to draw on, without axes."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    cleared(axes, x, y)
    return figure, axes


def cleared(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    axes.set(xlim=x, ylim=y, xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def box(axes: Axes, text: str, x: float, y: float, *, edge: str = INK, size: float = 12) -> None:
    """A part of a network."""
    look = {"boxstyle": "round,pad=0.4", "fc": CARD, "ec": edge, "lw": 1.2}
    axes.text(x, y, text, ha="center", va="center", fontsize=size, bbox=look)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], **look: Any) -> None:
    """An arrow between two places."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.3} | look)
