"""Drawings of the two networks, BIB's and MBIB's."""

from typing import Any

from matplotlib.figure import Figure

from mbib_core.figures.style import CARD, COLOURS, FAINT, INK, WIDTH, described, styled


def two_classifiers() -> Figure:
    """BIB's network and its three losses: x -> v -> z, classifiers on v and on z, and the distillation between them."""
    places = {"$x$": (0.6, 1.5), "$v$": (4.6, 1.5), "$z$": (8.6, 1.5), "$f_v(v)$": (4.6, 4.2), "$f_z(z)$": (8.6, 4.2)}
    labels: dict[str, Any] = {"color": COLOURS["bsce"]}
    taught: dict[str, Any] = {"color": COLOURS["bib"]}
    with styled():
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 9.8), ylim=(0.3, 6.7), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)

        def arrow(start: tuple[float, float], end: tuple[float, float], **look: Any) -> None:
            usual = {"arrowstyle": "-|>", "color": INK, "lw": 1.4, "shrinkA": 17, "shrinkB": 17}
            axes.annotate("", end, start, arrowprops=usual | look)

        for name, place in places.items():
            box = {"boxstyle": "round,pad=0.45", "fc": CARD, "ec": INK, "lw": 1.2}
            axes.text(*place, name, ha="center", va="center", fontsize=12, bbox=box)
        for start, end in (("$x$", "$v$"), ("$v$", "$z$"), ("$v$", "$f_v(v)$"), ("$z$", "$f_z(z)$")):
            arrow(places[start], places[end])
        for x, made in ((2.6, "trunk, pool,\nnorm"), (6.6, "linear, norm,\nReLU")):
            axes.text(x, 1.15, made, ha="center", va="top", fontsize=9)
        for x, loss in ((4.6, "$L_v$"), (8.6, "$L_z$")):
            arrow((x, 6.1), (x, 4.2), **labels)
            axes.text(x, 6.3, f"{loss}: labels", ha="center", va="center", fontweight="bold", **labels)
        arrow(places["$f_v(v)$"], places["$f_z(z)$"], lw=1.8, ls=(0, (4, 2)), shrinkA=32, shrinkB=32, **taught)
        axes.text(6.6, 4.45, r"$L_\mathrm{VSD}$", ha="center", va="bottom", fontsize=11, **taught)
        axes.text(6.6, 3.9, "teaches", ha="center", va="top", fontsize=9, color=INK)
    words = (
        "The network of BIB. A trunk makes v of the picture x, and a linear layer, normalisation and ReLU make z of v. "
        "One classifier stands on v, one on z, and labels teach both, by L_v and L_z. L_VSD is an arrow from the "
        "answer of the classifier on v to that of the classifier on z."
    )
    return described(figure, words)


def three_teachers() -> Figure:
    """MBIB's network: three stages, an observation of each, z made from the deepest, and three teachers of z."""
    with styled():
        figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 12), ylim=(0.3, 8.3), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        box = {"boxstyle": "round,pad=0.4", "fc": CARD, "ec": INK, "lw": 1.2}
        columns = {"1": 2.9, "2": 5.6, "3": 8.3}
        ink = {"arrowstyle": "-|>", "color": INK, "lw": 1.3}
        taught = {"arrowstyle": "-|>", "color": COLOURS["mbib"], "lw": 1.8, "ls": (0, (4, 2))}
        z_at = 11.0

        def arrow(start: tuple[float, float], end: tuple[float, float], **look: Any) -> None:
            axes.annotate("", end, start, arrowprops=look)

        def part(text: str, x: float, y: float) -> None:
            axes.text(x, y, text, ha="center", va="center", fontsize=10, bbox=box)

        part("x", 0.6, 1)
        for i, x in columns.items():
            part(f"stage {i}", x, 1)
            part(f"$v_{i}$", x, 3.1)
            part(f"$f_{i}$", x, 5.2)
            arrow((x - 1.85 if i != "1" else 1.0, 1), (x - 0.85, 1), **ink)
            arrow((x, 1.5), (x, 2.6), **ink)
            arrow((x, 3.6), (x, 4.7), **ink)
            bend = {"connectionstyle": f"arc3,rad={-0.16 * (4 - int(i)):.2f}"}
            arrow((x + 0.1, 5.72), (z_at - 0.55 + 0.22 * int(i), 5.75), **taught | bend)
        part("$z$", z_at, 3.1)
        part("$f_z$", z_at, 5.2)
        arrow((8.85, 3.1), (z_at - 0.5, 3.1), **ink)
        arrow((z_at, 3.6), (z_at, 4.7), **ink)
        axes.text(0.2, 7.9, "three teachers, one student", color=COLOURS["mbib"], fontweight="bold", va="center")
        axes.text(0.2, 3.1, "pooled", color=FAINT, va="center")
        axes.text(0.2, 5.2, "classifier", color=FAINT, va="center")
    words = (
        "The network of MBIB. The picture x goes through three stages. The pooled output of each is an observation, "
        "v_1 to v_3, with a classifier of its own. z is made from v_3 and has a classifier, too. Three dashed arrows "
        "lead from the classifiers of the observations to that of z: each teaches it."
    )
    return described(figure, words)
