"""The look of the book's pictures: size, colours, type; `show` puts one on the page.

A picture is dark ink on white; a dark page turns it round (book.css). Type is set for the width of a phone. Each method
has one colour and one marker everywhere.
"""

import re
from collections.abc import Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

WIDTH = 4.8  # inches: about 540 pixels on a page, and the whole width of a phone
DPI = 200
SHOWN = 112  # pixels an inch on a page
CARD, INK, FAINT, GRID = "#ffffff", "#22272e", "#6b7280", "#dedfd9"

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
SHADES = (
    "#22272e",
    "#0072b2",
    "#a8457d",
    "#9a6a00",
    "#008f68",
    "#d55e00",
)  # of curves and bars that are no methods, dark first
SHARES = mpl.colors.LinearSegmentedColormap.from_list("card", [CARD, "#6fa3cf", "#08306b"])  # from 0 to 1
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


def png(figure: Figure) -> bytes:
    """The picture as a PNG, of 256 colours where that is smaller; the same bytes for the same figure."""
    from PIL import Image

    with styled():
        buffer = BytesIO()
        figure.savefig(buffer, dpi=DPI, metadata={"Software": None})
    small = BytesIO()
    picture = Image.open(buffer).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return min(buffer.getvalue(), small.getvalue(), key=len)


def show(figure: Figure, *, alt: str = "", caption: str = "", name: str = "", photographs: bool = False) -> None:
    """Displays `figure` in a notebook with `alt`, the text that states what the picture shows, above its `caption`.

    Without `alt`, the figure's own words are taken, which every function here gives its figure. The text goes into
    the output's metadata, where notebooks and the built page find it, and stands alone where no picture can be drawn.
    `name`, such as fig-tail, is what `{numref}` refers to. A dark page turns ink and paper round unless the picture is
    of `photographs` or of colours that mean themselves. Raises ValueError if there is no text.
    """
    from IPython.display import display

    alt = alt or str(figure.get_label())
    if not alt.strip():
        raise ValueError("a picture needs an alt text that says what it shows")
    width = round(figure.get_size_inches()[0] * SHOWN)
    metadata = {"image/png": {"alt": alt, "width": width} | ({"photographs": True} if photographs else {})}
    display({"image/png": png(figure), "text/plain": alt}, metadata=metadata, raw=True)
    if caption:
        caption_of("Figure", caption, name)


def caption_of(kind: str, text: str, name: str = "") -> None:
    """Displays a caption, "Figure: ..." below or "Table: ..." above what it belongs to; the page numbers it.

    Raises ValueError if `kind` is neither, if the caption has no text or more than one paragraph, or if `name` has no
    hyphen, which tells it from the name of a quoted number.
    """
    from IPython.display import Markdown, display

    if kind not in ("Figure", "Table") or "\n\n" in text or not text.strip():
        raise ValueError(f"a caption is one paragraph for a Figure or a Table, not {kind!r}: {text!r}")
    if name and "-" not in name:
        raise ValueError(f"{name!r} names no caption: use something like fig-{name}")
    display(Markdown(f"{kind}: {text}" + (f"<!-- {name} -->" if name else "")))


@contextmanager
def styled():
    """Matplotlib in the book's style, whatever the caller's settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def one_axes(height: float) -> tuple[Figure, Axes]:
    """A figure as wide as the page's card and `height` inches high, and its only axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def colour_of(name: str, index: int) -> str:
    """The method's own colour, or for what is not a method the one of its place in the order."""
    return COLOURS.get(name, OTHERS[index % len(OTHERS)])


def legend(axes: Axes) -> None:
    """Above the axes, so that it never covers a mark; two columns leave room on a phone."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handlelength=1.8,
                columnspacing=1.2)  # fmt: skip


def plain_log(axes: Axes, which: str) -> None:
    """Ticks at 1, 2, 5, 10, ... written as plain numbers."""
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(FixedLocator([m * 10**e for e in range(-3, 7) for m in (1, 2, 5)]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def heat(axes: Axes, values: Any, rows: Sequence[str]) -> None:
    """A map from 0, the card's colour, to 1, dark blue, with a name at each row."""
    axes.imshow(values, vmin=0, vmax=1, cmap=SHARES, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set(visible=True, color=GRID)


def plain(text: str) -> str:
    """TeX as a screen reader should say it: $L_z + 4\\,L_{VSD}$ is L_z + 4 L_VSD."""
    return re.sub(r"\\mathrm|[${}]", "", text.replace("\\,", " "))


def described(figure: Figure, text: str) -> Figure:
    """`figure` with `text` as its own words, the alt text that `show` takes, without TeX."""
    figure.set_label(plain(text))
    return figure


def listed(words: Sequence[str]) -> str:
    """Words in a row: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def apart(heights: Sequence[float], room: float | Sequence[float]) -> list[float]:
    """Ascending `heights` of names, moved as little as needed for each to have its `room` between its neighbours."""
    found, rooms = list(heights), [room] * len(heights) if isinstance(room, float) else room
    for _ in range(300):
        for i in range(len(found) - 1):
            short = (rooms[i] + rooms[i + 1]) / 2 - (found[i + 1] - found[i])
            if short > 1e-9:
                found[i], found[i + 1] = found[i] - short / 2, found[i + 1] + short / 2
    return found
