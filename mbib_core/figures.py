"""The book's pictures: functions of arrays that return a Figure, in one style; `show` puts one on the page.

A picture is a light card with dark ink, so that it reads the same on a light and on a dark page; type is set for the
width of a phone. Each method has one colour and one marker everywhere. Training needs nothing of this module.
"""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

WIDTH = 4.8  # inches: about 540 pixels on a page, and the whole width of a phone
DPI = 200
SHOWN = 112  # pixels an inch on a page
CARD, INK, FAINT, GRID = "#fafaf7", "#22272e", "#6b7280", "#dedfd9"

# Okabe and Ito's colours, the light ones darkened to a contrast of 3 or more with the card.
COLOURS = {"ce": "#d55e00", "bsce": "#0072b2", "bib": "#008f68", "mbib": "#a8457d", "mbib-beta0": "#9a6a00"}
MARKERS = {"ce": "o", "bsce": "s", "bib": "^", "mbib": "D", "mbib-beta0": "v"}
NAMES = {
    "ce": "cross-entropy",
    "bsce": "balanced softmax",
    "bib": "BIB",
    "mbib": "MBIB",
    "mbib-beta0": "MBIB, β = 0",
}
OTHERS = ("#22272e", "#56799b", "#7a5c86", "#8a5a44")  # for what is not a method, in order
SHOTS = {"many": (100, np.inf), "medium": (19.5, 100), "few": (0, 19.5)}  # training pictures: above, to

STYLE: dict[str, Any] = {
    "figure.facecolor": CARD,
    "figure.dpi": DPI,
    "savefig.facecolor": CARD,
    "axes.facecolor": CARD,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "text.color": INK,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
}


def contact_sheet(rows: UInt8[np.ndarray, "r k 3 h w"], names: Sequence[str]) -> Figure:
    """`rows` of K pictures each, one name to the left of each row; places in the card's colour stay empty."""
    r, k, _, height, _ = rows.shape
    with _style():
        figure = Figure(figsize=(WIDTH, WIDTH * r / (k + 1.6) + 0.1), layout="constrained")
        for axes, row, name in zip(figure.subplots(r, 1, squeeze=False)[:, 0], rows, names, strict=True):
            gap = np.full((3, height, 2), 250, dtype=np.uint8)
            strip = np.concatenate([part for picture in row for part in (picture, gap)][:-1], axis=2)
            axes.imshow(strip.transpose(1, 2, 0), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_ylabel(name, rotation=0, ha="right", va="center")
    return _described(figure, f"Pictures in rows, one class each: {', '.join(names)}.")


def class_counts(profiles: Mapping[str, Int[np.ndarray, " c"]]) -> Figure:
    """Training pictures of each class, largest class first, on a log axis; dotted lines part the three shots."""
    with _style():
        figure, axes = _figure(3.1)
        low, high = min(map(min, profiles.values())) / 1.3, max(map(max, profiles.values())) * 1.3
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        for index, (name, counts) in enumerate(profiles.items()):
            ordered = np.sort(np.asarray(counts))[::-1]
            axes.step(np.arange(1, len(ordered) + 1), ordered, where="mid", color=OTHERS[index],
                      ls=("-", "--", "-.", ":")[index % 4], label=name)  # fmt: skip
        for shot, (above, to) in SHOTS.items():
            bottom, top = max(above, low), min(to, high)
            if bottom < top:
                axes.text(0.99, np.sqrt(bottom * top), f"{shot} shots", color=FAINT, ha="right", va="center",
                          transform=axes.get_yaxis_transform())  # fmt: skip
            if low < above < high:
                axes.axhline(above, color=FAINT, lw=0.9, ls=(0, (2, 2)))
        axes.set(xlabel="class, largest first", ylabel="training pictures")
        _plain_log(axes, "y")
        if len(profiles) > 1:
            _legend(axes)
    lines = [
        f"{name} falls from {max(counts)} to {min(counts)}: {_listed(_sizes(counts))}"
        for name, counts in profiles.items()
    ]
    return _described(figure, f"Training pictures of each class on a log axis. {'; '.join(lines)}.")


def accuracy_by_class(counts: Int[np.ndarray, " c"], accuracies: Mapping[str, Float[np.ndarray, " c"]]) -> Figure:
    """Accuracy of each class (0 to 1) against its training pictures: a mark a class and a bar a shot, by method."""
    series = {name: 100 * np.asarray(values) for name, values in accuracies.items()}
    with _style():
        figure, axes = _figure(3.6)
        _by_class(axes, counts, series)
        axes.set(ylabel="accuracy on test pictures (%)", ylim=(-3, 103))
    means = _means_in_words(counts, series, ".0f", " %")
    return _described(figure, f"Accuracy of each class against its number of training pictures. {means}.")


def predicted_shares(counts: Int[np.ndarray, " c"], shares: Mapping[str, Float[np.ndarray, " c"]]) -> Figure:
    """How often each class is predicted (shares sum to 1), as multiples of 1/C, against its training pictures.

    Two lines compare: the class's share of the training set, and its share of a balanced test set, which is 1.
    """
    counts = np.asarray(counts)
    series = {name: np.asarray(values) * len(counts) for name, values in shares.items()}
    with _style():
        figure, axes = _figure(3.6)
        by_size = np.sort(counts)
        axes.plot(by_size, by_size * len(counts) / counts.sum(), color=INK, lw=1.2, ls="--", label="share in training")
        axes.axhline(1, color=FAINT, lw=1.4, ls=(0, (1, 1.5)), label="share in the test")
        _by_class(axes, counts, series, bars=False)
        axes.set(ylabel="predicted, in multiples of 1/C")
        axes.set_ylim(bottom=-0.02 * axes.get_ylim()[1])
    means = _means_in_words(counts, series, ".1f", " times 1/C")
    return _described(figure, f"How often each class is predicted on a balanced test set, against class size. {means}.")


def learning_curves(curves: Mapping[str, Sequence[float]], *, epochs: Sequence[int], ylabel: str) -> Figure:
    """One value for each of `epochs` and each method."""
    with _style():
        figure, axes = _figure(3.1)
        for index, (name, values) in enumerate(curves.items()):
            axes.plot(epochs, values, color=_colour(name, index), label=NAMES.get(name, name),
                      marker=MARKERS.get(name), markevery=max(1, len(values) // 6))  # fmt: skip
        axes.set(xlabel="epoch", ylabel=ylabel)
        _legend(axes)
    last = ", ".join(f"{NAMES.get(name, name)} {values[-1]:.0f}" for name, values in curves.items())
    return _described(figure, f"{ylabel} by epoch. After epoch {epochs[-1]}: {last}.")


def posterior_curves(
    v: Float[np.ndarray, " n"],
    known: Mapping[str, Float[np.ndarray, " n"]],
    learned: Mapping[str, Float[np.ndarray, " n"]],
    *,
    ylabel: str,
) -> Figure:
    """Probabilities (0 to 1) over one number `v`: what is `known` as lines, what methods have `learned` as marks."""
    with _style():
        figure, axes = _figure(3.3)
        for (name, values), dashes in zip(known.items(), ("-", "--", ":"), strict=False):
            axes.plot(v, values, color=INK, lw=1.4, ls=dashes, label=name)
        for index, (name, values) in enumerate(learned.items()):
            axes.plot(v, values, ls="", marker=MARKERS.get(name, "x"), color=_colour(name, index), markersize=5.5,
                      markevery=max(1, len(v) // 20), label=NAMES.get(name, name))  # fmt: skip
        axes.set(xlabel="observation v", ylabel=ylabel, ylim=(-0.04, 1.04))
        _legend(axes)
    series = {NAMES.get(name, name): values for name, values in {**known, **learned}.items()}
    halves = [f"{name} at v = {v[np.abs(values - 0.5).argmin()]:.1f}" for name, values in series.items()]
    return _described(figure, f"{ylabel} against v, rising from 0 to 1. One half is passed by {_listed(halves)}.")


def class_regions(
    centres: Float[np.ndarray, "c 2"],
    log_factors: Float[np.ndarray, " c"],
    names: Sequence[str],
    *,
    reach: float = 4.0,
) -> Figure:
    """Where each class has the largest p_t(i|v) exp(log_factors_i), p(v|i) being normal around `centres`, deviation 1.

    The dashed lines bound the regions without factors, a circle is one deviation wide. Under each name stands the share
    of the class's pictures that fall into its region, which is its accuracy.
    """
    side = np.linspace(-reach, reach, 321)
    grid = np.stack(np.meshgrid(side, side), -1)
    log_p = -0.5 * ((grid[:, :, None] - centres) ** 2).sum(-1)
    region, balanced = (log_p + log_factors).argmax(-1), log_p.argmax(-1)
    density = np.exp(log_p) / np.exp(log_p).sum((0, 1))
    accuracy = [100 * density[..., i][region == i].sum() for i in range(len(names))]
    tints = ("#c3d4e6", "#eadfb4", "#ecc3b2", "#cfdcc6")
    with _style():
        figure, axes = _figure(4.4)
        for i, (name, (x, y), tint) in enumerate(zip(names, centres, tints, strict=False)):
            axes.contourf(side, side, region == i, levels=[0.5, 1.5], colors=[tint])
            axes.contour(side, side, balanced == i, levels=[0.5], colors=[FAINT], linewidths=0.9, linestyles="--")
            axes.contour(side, side, log_p[..., i], levels=[-0.5], colors=[INK], linewidths=0.8, linestyles="-")
            axes.text(x, y, f"{name}\n{accuracy[i]:.0f} %", ha="center", va="center", fontweight="bold")
        axes.set(xlabel="first number of v", ylabel="second number of v", aspect="equal")
        axes.grid(False)
    parts = [f"{name} {share:.0f} %" for name, share in zip(names, accuracy, strict=True)]
    return _described(
        figure, f"The plane of v divided among the classes. Of each class falls into its own region: {_listed(parts)}."
    )


def boundary_paths(paths: Mapping[str, tuple[np.ndarray, np.ndarray]], *, shown: tuple[float, float]) -> Figure:
    """Where a boundary lies (v) against the training time, log, for each method; `shown` are the limits of v."""
    with _style():
        figure, axes = _figure(3.3)
        for index, (name, (time, boundary)) in enumerate(paths.items()):
            axes.plot(time, boundary, color=_colour(name, index), label=NAMES.get(name, name),
                      ls=("-", "--", "-.")[index % 3])  # fmt: skip
        axes.set_xscale("log")
        axes.set(xlabel="training time (plain steps of rate 1, log)", ylabel="boundary at v =", ylim=shown)
        _legend(axes)
    ends = [f"{NAMES.get(name, name)} {boundary[-1]:z.2f}" for name, (_, boundary) in paths.items()]
    return _described(figure, f"The boundary between the classes against training time. It ends at {_listed(ends)}.")


def reliability(bins: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Accuracy against confidence, `metrics.calibration`'s answer for each name; on the diagonal both are equal."""
    with _style():
        figure, axes = _figure(3.9)
        axes.plot([0, 1], [0, 1], color=FAINT, lw=1, ls="--")
        for index, (name, found) in enumerate(bins.items()):
            filled = np.array(found["count"]) > 0.002 * sum(found["count"])
            x, y = (np.array(found[key])[filled] for key in ("confidence", "accuracy"))
            axes.plot(x, y, marker=("o", "s", "^", "D")[index % 4], color=_colour(name, index), label=name)
        axes.set(xlabel="confidence of the prediction", ylabel="share that is right")
        _legend(axes)
    errors = [f"{name} {found['error']:.3f}" for name, found in bins.items()]
    return _described(figure, f"Accuracy against confidence. Expected calibration error: {_listed(errors)}.")


def png(figure: Figure) -> bytes:
    """The picture as a PNG, of 256 colours where that is smaller; the same bytes for the same figure."""
    from PIL import Image

    with _style():
        buffer = BytesIO()
        figure.savefig(buffer, dpi=DPI, metadata={"Software": None})
    small = BytesIO()
    picture = Image.open(buffer).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return min(buffer.getvalue(), small.getvalue(), key=len)


def show(figure: Figure, *, alt: str = "") -> None:
    """Displays `figure` in a notebook with `alt`, the text that states what the picture shows.

    Without `alt`, the figure's own words are taken, which every function here gives its figure. The text goes into
    the output's metadata, where notebooks and the built page find it, and stands alone where no picture can be drawn.
    Raises ValueError if there is no text.
    """
    from IPython.display import display

    alt = alt or str(figure.get_label())
    if not alt.strip():
        raise ValueError("a picture needs an alt text that says what it shows")
    width = round(figure.get_size_inches()[0] * SHOWN)
    metadata = {"image/png": {"alt": alt, "width": width}}
    display({"image/png": png(figure), "text/plain": alt}, metadata=metadata, raw=True)


@contextmanager
def _style():
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _colour(name: str, index: int) -> str:
    return COLOURS.get(name, OTHERS[index % len(OTHERS)])


def _by_class(axes: Axes, counts: Any, series: Mapping[str, np.ndarray], bars: bool = True) -> None:
    """Marks of one value a class over log class size, and each shot's mean as a bar."""
    counts = np.asarray(counts)
    axes.set_xscale("log")
    axes.set_xlabel("training pictures of the class (log)")
    for index, (name, values) in enumerate(series.items()):
        colour, size = _colour(name, index), 18 if len(series) > 2 else 24
        axes.scatter(counts, values, s=size, marker=MARKERS.get(name, "o"), color=colour, alpha=0.75, lw=0,
                     label=NAMES.get(name, name), zorder=2.5)  # fmt: skip
        for inside in _shot_masks(counts).values() if bars else ():
            span = counts[inside].min() / 1.06, counts[inside].max() * 1.06
            for line_colour, thickness in ((CARD, 5.5), (colour, 3)):
                axes.plot(span, [np.nanmean(values[inside])] * 2, color=line_colour, lw=thickness,
                          solid_capstyle="butt", zorder=3)  # fmt: skip
    _plain_log(axes, "x")
    _legend(axes)


def _shot_masks(counts: Any) -> dict[str, np.ndarray]:
    """Which classes each shot has; shots without classes are left out."""
    counts = np.asarray(counts)
    masks = {shot: (counts > above) & (counts <= to) for shot, (above, to) in SHOTS.items()}
    return {shot: mask for shot, mask in masks.items() if mask.any()}


def _sizes(counts: Any) -> list[str]:
    return [f"{mask.sum()} classes have {shot} shots" for shot, mask in _shot_masks(counts).items()]


def _means_in_words(counts: Any, series: Mapping[str, np.ndarray], digits: str, unit: str) -> str:
    """'Mean over the many-, medium- and few-shot classes: cross-entropy 80, 40 and 3 %; ...'."""
    masks = _shot_masks(counts)
    lines = [
        f"{NAMES.get(name, name)} {_listed([f'{np.nanmean(values[mask]):{digits}}' for mask in masks.values()])}{unit}"
        for name, values in series.items()
    ]
    return f"Mean over the {_listed([f'{shot}-' for shot in masks])}shot classes: {'; '.join(lines)}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _described(figure: Figure, text: str) -> Figure:
    figure.set_label(text)
    return figure


def _plain_log(axes: Axes, which: str) -> None:
    """Ticks at 1, 2, 5, 10, ... written as plain numbers."""
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(FixedLocator([m * 10**e for e in range(-3, 7) for m in (1, 2, 5)]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(axes: Axes) -> None:
    """Above the axes, so that it never covers a mark; two columns leave room on a phone."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handlelength=1.8,
                columnspacing=1.2)  # fmt: skip


# ---------------------------------------------------------------- pictures of information


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
    shades = ("#22272e", "#0072b2", "#a8457d", "#9a6a00", "#008f68", "#d55e00")
    with _style():
        figure, axes = _figure(3.4)
        for index, (name, values) in enumerate(series.items()):
            axes.plot(x, values, color=shades[index % 6], ls=("-", "--", "-.", (0, (1, 1.2)), (0, (6, 1, 1, 1, 1, 1)),
                      (0, (8, 2)))[index % 6], label=name, drawstyle="steps-post" if step else "default")  # fmt: skip
        for name, place in (marked or {}).items():
            axes.axvline(place, color=FAINT, lw=0.9, ls=(0, (2, 2)))
            axes.text(place, 0.98, f" {name}", color=FAINT, ha="left", va="top",
                      transform=axes.get_xaxis_transform())  # fmt: skip
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if log_x:
            axes.set_xscale("log")
            _plain_log(axes, "x")
        if step:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if len(series) > 1:
            _legend(axes)
    return _described(figure, finding)


def heat_map(
    values: Any, rows: Sequence[str], columns: Sequence[str], *, xlabel: str, ylabel: str, finding: str
) -> Figure:
    """Probabilities [rows, columns]: the darker, the nearer to 1. `finding` is the picture's alt text."""
    with _style():
        figure, axes = _figure(3.9)
        _heat(axes, values, rows)
        axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
        axes.set(xlabel=xlabel, ylabel=ylabel)
    return _described(figure, finding)


def information_plane(
    curves: Mapping[str, tuple[Any, Any]], *, finding: str, points: Mapping[str, tuple[Any, Any]] | None = None
) -> Figure:
    """I(T;Y) over I(X;T) in nats: curves, and points that have a name of their own. `finding` is the alt text."""
    with _style():
        figure, axes = _figure(3.5)
        for index, (name, (i_xt, i_ty)) in enumerate(curves.items()):
            axes.plot(i_xt, i_ty, color=OTHERS[index % 4], ls=("-", "--", "-.", ":")[index % 4], label=name)
        for index, (name, (i_xt, i_ty)) in enumerate((points or {}).items()):
            axes.plot(i_xt, i_ty, ls="", marker="osD^"[index % 4], color=list(COLOURS.values())[index % 4], label=name,
                      markersize=6 if np.size(i_xt) < 20 else 3, zorder=3)  # fmt: skip
        axes.set(xlabel="I(X;T) in nats", ylabel="I(T;Y) in nats")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        _legend(axes)
    return _described(figure, finding)


def bottleneck(ib: Any, beta: float, *, curve: Any, inputs: Sequence[str], i_xy: float) -> Figure:
    """One of Eq. 1's optima: its point on the `curve` with the tangent of slope beta, and its encoder q(t|x)."""
    used = ib.q_t_given_x.sum(0) > 1e-9
    words, share = int(used.sum()), ib.i_ty / i_xy
    told = f"I(X;T) = {ib.i_xt:.2f} nats, I(T;Y) = {ib.i_ty:.2f} nats, which is {share:.0%} of I(X;Y)"
    with _style():
        figure = Figure(figsize=(WIDTH, 5.1), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=(1, 1.15))
        above.plot(curve.i_xt, curve.i_ty, color=OTHERS[1])
        above.axhline(i_xy, color=FAINT, lw=1, ls=(0, (2, 2)))
        along = np.array([-0.35, 0.35]) / np.hypot(1, 2 * beta)
        above.plot(ib.i_xt + along, ib.i_ty + beta * along, color=COLOURS["ce"], lw=1.4)
        above.plot(ib.i_xt, ib.i_ty, "o", color=COLOURS["ce"], markersize=8)
        right, top = 1.04 * np.max(curve.i_xt), 1.12 * i_xy
        above.set(xlabel="I(X;T) in nats", ylabel="I(T;Y) in nats", xlim=(-0.03 * right, right), ylim=(-0.03, top))
        above.set_title(f"{ib.i_xt:.2f} nats of X, {ib.i_ty:.2f} nats of Y ({share:.0%})")
        _heat(below, ib.q_t_given_x[:, used], inputs)
        below.set_xticks(range(words), range(1, words + 1))
        below.set(xlabel="code word t", title=f"q(t|x): {words} code word{'s' * (words > 1)} in use")
    return _described(figure, f"{told}. {words} code word{'s' * (words > 1)} in use.")


def _heat(axes: Axes, values: Any, rows: Sequence[str]) -> None:
    """A map from 0, the card's colour, to 1, dark blue, with a name at each row."""
    shades = mpl.colors.LinearSegmentedColormap.from_list("card", [CARD, "#6fa3cf", "#08306b"])
    axes.imshow(values, vmin=0, vmax=1, cmap=shades, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set(visible=True, color=GRID)


def bands(x: Any, series: Mapping[str, Any], *, xlabel: str, ylabel: str, finding: str) -> Figure:
    """Values [n, seeds] as their mean and the band they fill, one step for each of `x`; `finding` is the alt text."""
    with _style():
        figure, axes = _figure(3.4)
        at = range(len(x))
        for index, (name, values) in enumerate(series.items()):
            values, colour = np.asarray(values), list(COLOURS.values())[index % 5]
            axes.plot(at, values.mean(1), color=colour, ls=("-", "--", "-.", ":")[index % 4], marker="osD^"[index % 4],
                      label=name)  # fmt: skip
            axes.fill_between(at, values.min(1), values.max(1), color=colour, alpha=0.2, lw=0)
        axes.set_xticks(at, [f"{value:g}".removeprefix("0") or "0" for value in x])
        axes.set(xlabel=xlabel, ylabel=ylabel)
        _legend(axes)
    return _described(figure, finding)


def digit_plane(z: Any, digits: Any, nats: Mapping[str, float], title: str, *, reach: float, most: float) -> Figure:
    """Digits at their places z [n, 2], and bars of `nats` below; the axes end at `reach` and `most`.

    A circle of radius 2 shows how wide the prior N(0, I) is. What lies beyond `reach` is drawn at the edge.
    """
    colours = (*COLOURS.values(), INK, *OTHERS[1:], "#4f7a28")
    with _style():
        figure = Figure(figsize=(WIDTH, WIDTH + 1), layout="constrained")
        axes, below = figure.subplots(2, 1, height_ratios=(5, 1))
        for digit in range(10):
            own = np.clip(z[digits == digit], -reach, reach)
            axes.scatter(*own.T, marker=f"${digit}$", s=24, lw=0, color=colours[digit])
        turn = np.linspace(0, 2 * np.pi, 90)
        axes.plot(2 * np.cos(turn), 2 * np.sin(turn), color=INK, lw=1, ls="--")
        limits = (-1.04 * reach, 1.04 * reach)
        axes.set(title=title, xlabel="first number of z", ylabel="second", xlim=limits, ylim=limits, aspect="equal")
        bars = below.barh(list(nats), list(nats.values()), color=OTHERS[1], height=0.65)
        below.bar_label(bars, fmt="%.1f", padding=3)
        below.set(xlabel="nats", xlim=(0, most))
        below.invert_yaxis()
        below.grid(axis="y", visible=False)
    spread = float(np.sqrt((np.asarray(z) ** 2).sum(1).mean()))
    parts = [f"{name} {value:.1f}" for name, value in nats.items()]
    words = f"{title}. Digits in the plane of z, at a distance of about {spread:.1f} from the middle"
    return _described(figure, f"{words}. In nats: {_listed(parts)}.")


def encoder_plane(cloud: Any, named: Mapping[str, tuple[float, float]], *, finding: str) -> Figure:
    """Encoders of v by the nats of y that z misses, I(v;y|z), and those beside y that it keeps, I(v;z|y)."""
    with _style():
        figure, axes = _figure(3.8)
        grey_x, grey_y = np.transpose(cloud)
        axes.scatter(grey_x, grey_y, s=8, color=FAINT, alpha=0.5, lw=0)
        for index, (name, (x, y)) in enumerate(named.items()):
            axes.plot(x, y, "os^Dv"[index % 5], color=list(COLOURS.values())[index % 5], markersize=8)
            axes.annotate(name, (x, y), xytext=(8, 5), textcoords="offset points", fontweight="bold", zorder=4)
        axes.set(xlabel="I(v;y|z): missing of y (nats)", ylabel="I(v;z|y): kept beside y (nats)")
        axes.margins(x=0.2, y=0.12)
    return _described(figure, finding)


# ---------------------------------------------------------------- pictures of BIB


def two_classifiers() -> Figure:
    """BIB's network and its three losses: x -> v -> z, classifiers on v and on z, and the distillation between them."""
    places = {"$x$": (0.6, 1.5), "$v$": (4.6, 1.5), "$z$": (8.6, 1.5), "$f_v(v)$": (4.6, 4.2), "$f_z(z)$": (8.6, 4.2)}
    labels: dict[str, Any] = {"color": COLOURS["bsce"]}
    taught: dict[str, Any] = {"color": COLOURS["bib"]}
    with _style():
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
        axes.text(6.6, 3.9, "teaches", ha="center", va="top", fontsize=9, **taught)
    words = (
        "The network of BIB. A trunk makes v of the picture x, and a linear layer, normalisation and ReLU make z of v. "
        "One classifier stands on v, one on z, and labels teach both, by L_v and L_z. L_VSD is an arrow from the "
        "answer of the classifier on v to that of the classifier on z."
    )
    return _described(figure, words)


def teacher_and_student(
    p_v: Float[np.ndarray, " n"],
    p_z: Float[np.ndarray, " n"],
    groups: Mapping[str, np.ndarray],
    accuracies: Mapping[str, Mapping[str, float]],
    title: str,
) -> Figure:
    """The true class's probability by z against that by v, for each group of pictures (masks [n]), and accuracy below.

    A map's cell is the darker, the more of the group's pictures fall into it; the dashed diagonal is agreement.
    `accuracies` are by classifier and group, 0 to 1.
    """
    shades = mpl.colors.LinearSegmentedColormap.from_list("card", [CARD, "#6fa3cf", "#08306b"])
    with _style():
        figure = Figure(figsize=(WIDTH, 4.1), layout="constrained")
        (maps,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.35, 1))
        maps.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        row = maps.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, (name, inside) in zip(row, groups.items(), strict=True):
            edges = np.linspace(0, 1, 13)
            share = np.histogram2d(p_z[inside], p_v[inside], edges)[0] / max(1, inside.sum())
            axes.imshow(share**0.4, origin="lower", extent=(0, 1, 0, 1), vmin=0, vmax=1, cmap=shades)
            axes.plot([0, 1], [0, 1], color=COLOURS["ce"], lw=1, ls="--")
            axes.set_title(f"{name} shots", fontweight="normal")
            axes.set(xticks=[0, 1], yticks=[0, 1], xlabel="p(y|v)")
            axes.grid(False)
            axes.spines[:].set(visible=True, color=GRID)
        row[0].set_ylabel("p(y|z)")
        axes = below.subplots()
        for index, (name, by_group) in enumerate(accuracies.items()):
            at = np.arange(len(groups)) + 0.38 * index
            bars = axes.barh(at, [100 * by_group[g] for g in groups], height=0.34, color=OTHERS[1 + index],
                             hatch=("", "///")[index % 2], edgecolor=CARD, lw=0, label=f"by {name}")  # fmt: skip
            axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=9)
        axes.set_yticks(np.arange(len(groups)) + 0.19, list(groups))
        axes.set(xlim=(0, 108), xlabel="accuracy on test pictures (%)")
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        _legend(axes)
    parts = [
        f"{group} shots {_listed([f'{100 * a[group]:.0f} % by {name}' for name, a in accuracies.items()])}"
        for group in groups
    ]
    spread = {g: float(np.mean(np.abs(p_v[m] - p_z[m]))) for g, m in groups.items()}
    apart = _listed([f"{gap:.2f} for {group} shots" for group, gap in spread.items()])
    words = f"{title}. The two probabilities of the true class differ on average by {apart}. Right"
    return _described(figure, f"{words}: {'; '.join(parts)}.")


# ---------------------------------------------------------------- pictures of the mixture


def three_teachers() -> Figure:
    """MBIB's network: three stages, an observation of each, z made from the deepest, and three teachers of z."""
    with _style():
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
    return _described(figure, words)


def grouped_bars(
    values: Mapping[str, Mapping[str, float]], *, xlabel: str, finding: str, digits: str = ".0f", most: float = 100
) -> Figure:
    """Horizontal bars: a group for each name of `values`, a bar in it for each series; a missing one is left out.

    `most` is the end of the axis; `finding` is the picture's alt text.
    """
    names = list(dict.fromkeys(name for group in values.values() for name in group))
    shades = ("#22272e", "#0072b2", "#a8457d", "#9a6a00", "#008f68", "#d55e00")
    thick = 0.8 / len(names)
    with _style():
        figure, axes = _figure(0.9 + len(values) * (0.24 * len(names) + 0.16))
        for index, name in enumerate(names):
            own = {g: [n for n in names if n in group] for g, group in enumerate(values.values()) if name in group}
            at = [g + thick * (present.index(name) - 0.5 * (len(present) - 1)) for g, present in own.items()]
            bars = axes.barh(at, [group[name] for group in values.values() if name in group], height=0.88 * thick,
                             color=shades[index % 6], label=name)  # fmt: skip
            axes.bar_label(bars, fmt=f"%{digits}", padding=3, fontsize=9)
        axes.set_yticks(range(len(values)), list(values))
        axes.set(xlabel=xlabel, xlim=(0, 1.09 * most))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        if len(names) > 1:
            _legend(axes)
    return _described(figure, finding)


def paired_differences(differences: Mapping[str, Sequence[float]], *, xlabel: str, finding: str) -> Figure:
    """A row for each name: a mark a seed and a bar for the mean; the line at 0 is no difference."""
    with _style():
        figure, axes = _figure(0.8 + 0.46 * len(differences))
        axes.axvline(0, color=INK, lw=1.2)
        for row, values in enumerate(differences.values()):
            mean = float(np.mean(values))
            axes.plot([0, mean], [row, row], color=OTHERS[1], lw=9, alpha=0.3, solid_capstyle="butt")
            axes.plot(values, [row] * len(values), "o", color=OTHERS[1], mec=CARD, mew=0.6, markersize=6)
            axes.plot([mean, mean], [row - 0.3, row + 0.3], color=COLOURS["ce"], lw=2.4)
        axes.set_yticks(range(len(differences)), list(differences))
        axes.set(xlabel=xlabel, ylim=(len(differences) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    return _described(figure, finding)
