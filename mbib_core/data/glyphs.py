"""Glyphs-LT, the embedded default data set: 50 letters, digits and signs in 21 typefaces, 32 x 32 pixels in colour.

The letter shapes lie in ``glyphs.npz``, which ``python -m mbib_core.data.glyphs`` makes again from the fonts that
matplotlib carries. Everything after that is integer arithmetic on the frozen stream of
``numpy.random.RandomState``, so the same picture has the same bytes on every machine.

The classes are capitals, ten small letters, digits and six signs that all 21 faces have. Left out is what cannot be
told apart once size, position and face say nothing: I and l (a 1 in some faces), 0 (an O), small letters that are
their capital made small (c, o, s, ...), and q (a 9).
"""

import hashlib
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Int64, UInt8

from mbib_core.data.longtailed import Images, LongTailed

CHARACTERS = "ABCDEFGHJKLMNOPQRSTUVWXYZabdeghmnrt123456789#%&*?@"
CLASSES: list[str] = [CHARACTERS[i] for i in np.random.RandomState(0).permutation(len(CHARACTERS))]
LARGEST = 140  # training pictures of label 0
HELD_OUT = 50  # pictures of each class in validation, and as many in test
SEEDS = {"train": 0, "validation": 1, "test": 2}

PACK = Path(__file__).with_name("glyphs.npz")
PACK_SHA256 = "482d6473c1c1327543ebaaee093913481333c406a05be4e52a61dd3504355c75"
DEJAVU = [
    f"DejaVu{family}{style}"
    for family, italic in (("Sans", "Oblique"), ("SansMono", "Oblique"), ("Serif", "Italic"))
    for style in ("", "-Bold", f"-{italic}", f"-Bold{italic}")
]
STIX = [f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")]
COMPUTER_MODERN = ["cmr10", "cmb10", "cmss10", "cmti10", "cmtt10"]
FACES = DEJAVU + STIX + COMPUTER_MODERN
GRID = 28  # pixels a side of a packed shape
SPAN = 26  # pixels of its longer side, so that a blank border of one remains
LEVELS = 15  # the shade of a pixel that is wholly covered

SIDE = 32  # pixels a side of a picture
DRAWS = 32  # 16-bit random numbers that stand before the noise of each picture


def glyphs_lt(imbalance: float) -> LongTailed:
    """Glyphs-LT with the largest class `imbalance` times the smallest. Raises ValueError as `counts` does."""
    arrays = splits(imbalance)
    train, validation, test = (Images(*map(torch.from_numpy, arrays[part])) for part in ("train", "validation", "test"))
    return LongTailed("glyphs-lt", train, validation, test, list(CLASSES), flip=False)


def counts(imbalance: float = 100) -> Int64[np.ndarray, " C"]:
    """Training pictures of each class, ``n_i = int(n_1 * imbalance ** (-i / (C - 1)))`` (Cao et al. 2019), shape [C].

    Decided in exact integer arithmetic: n_i is the largest n with ``n^(C-1) * imbalance^i <= n_1^(C-1)``.
    Raises ValueError for an imbalance under 1 or so large that a class has no picture.
    """
    if not 1 <= imbalance <= LARGEST:
        raise ValueError(f"the imbalance factor of Glyphs-LT must lie between 1 and {LARGEST}, not {imbalance}")
    last, factor = len(CLASSES) - 1, Fraction(float(imbalance))
    sizes, n = [], LARGEST
    for i in range(last + 1):
        bound = LARGEST**last * factor.denominator**i
        while n**last * factor.numerator**i > bound:
            n -= 1
        sizes.append(n)
    return np.array(sizes, dtype=np.int64)


def pictures(labels: Int[np.ndarray, " n"], seed: int) -> UInt8[np.ndarray, "n 3 32 32"]:
    """Draw one picture for each label, uint8 [N, 3, 32, 32], values 0 to 255.

    Every class has a stream of its own, started by (seed, label): the j-th picture of a class is the same whatever
    else is drawn. Raises ValueError for labels that are not integers from 0 to C - 1, and for a negative seed.
    """
    labels = np.asarray(labels)
    if labels.size and (labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(CLASSES)):
        raise ValueError(f"labels of Glyphs-LT are integers from 0 to {len(CLASSES) - 1}")
    out = np.empty((len(labels), 3, SIDE, SIDE), dtype=np.uint8)
    for label in np.unique(labels):
        where = np.flatnonzero(labels == label)
        out[where] = _draw(int(label), len(where), np.random.RandomState([seed, int(label)]))
    return out


def splits(imbalance: float = 100) -> dict[str, tuple[UInt8[np.ndarray, "n 3 32 32"], Int64[np.ndarray, " n"]]]:
    """Pictures and labels of "train" (long-tailed), "validation" and "test" (both balanced), each sorted by label.

    The training sets of different factors are nested: the smaller holds the first pictures of each class of the larger.
    Raises ValueError like ``counts``.
    """
    held_out = np.full(len(CLASSES), HELD_OUT)
    sizes = {"train": counts(imbalance), "validation": held_out, "test": held_out}
    labels = {name: np.repeat(np.arange(len(CLASSES), dtype=np.int64), size) for name, size in sizes.items()}
    return {name: (pictures(y, SEEDS[name]), y) for name, y in labels.items()}


def _draw(label: int, n: int, stream: np.random.RandomState) -> UInt8[np.ndarray, "n 3 32 32"]:
    """The first n pictures of a class's stream. Each uses the same number of random bytes, hence the nesting."""
    bits = np.frombuffer(stream.bytes(n * (2 * DRAWS + 3 * SIDE * SIDE)), dtype=np.uint8).reshape(n, -1)
    draws = iter(np.ascontiguousarray(bits[:, : 2 * DRAWS]).view("<u2").astype(np.int32).T)
    noise = bits[:, 2 * DRAWS :].reshape(n, 3, SIDE, SIDE).astype(np.int32) - 128

    def uniform(low: int, high: int, channels: int = 1) -> Int[np.ndarray, "n channels 1 1"]:
        """Integers from low to high, both included, one for each picture and channel."""
        words = np.stack([next(draws) for _ in range(channels)], axis=1)
        return (low + (words * (high - low + 1) >> 16))[..., None, None]

    face, cover = uniform(0, len(FACES) - 1).ravel(), _shapes()[CHARACTERS.index(CLASSES[label])]
    ink = _place(cover[face], size=uniform(304, 400), turn=uniform(-100, 100), shear=uniform(-400, 400),
                 right=uniform(-32, 32), down=uniform(-32, 32))  # fmt: skip

    # Two colours, one darker than the other in every channel; the letter is either the dark or the light one.
    dark, step = uniform(0, 96, 3), uniform(112, 127, 3)
    ink = np.where(uniform(0, 1) == 1, ink, 255 - ink)
    paint = dark + (step * ink >> 8)

    # Light that falls off to one side, then grain.
    ramp: np.ndarray = np.arange(1 - SIDE, SIDE, 2, dtype=np.int32)
    light = uniform(-16, 16) * ramp + uniform(-16, 16) * ramp[:, None] >> 5
    grain = uniform(4, 40) * noise >> 7
    return np.clip(paint + light + grain, 0, 255).astype(np.uint8)


def _place(
    cover: UInt8[np.ndarray, "n g g"],
    *,
    size: Int[np.ndarray, "n 1 1 1"],
    turn: Int[np.ndarray, "n 1 1 1"],
    shear: Int[np.ndarray, "n 1 1 1"],
    right: Int[np.ndarray, "n 1 1 1"],
    down: Int[np.ndarray, "n 1 1 1"],
) -> Int[np.ndarray, "n 1 32 32"]:
    """Lay a shape on a picture by bilinear sampling, 0 (background) to 255 (letter), in fixed point throughout.

    ``size`` of the longer side and the shifts ``right`` and ``down`` in 1/16 pixel, ``shear`` in 1/4096. ``turn`` is
    t = 1024 tan(angle / 2): cos = (1 - t^2) / (1 + t^2) and sin = 2t / (1 + t^2) are then quotients of integers.
    """
    square, unit = turn * turn, 1024 * 1024
    cos, sin = ((unit - square) << 10) // (unit + square), ((2048 * turn) << 10) // (unit + square)  # in 1/1024
    # From a picture's pixel back to the shape's: turn, shear, scale. `shrink` is in 1/4096.
    shrink = (SPAN * 16 << 12) // size
    matrix = [cos + (shear * sin >> 12), -sin + (shear * cos >> 12), sin, cos]
    a, b, c, d = (entry * shrink >> 10 for entry in matrix)
    centred = 16 * np.arange(SIDE, dtype=np.int32) - 8 * (SIDE - 1)  # in 1/16 pixel
    x, y = centred - right, centred[:, None] - down
    middle = (GRID - 1) << 15  # in 1/65536 pixel, as are u and v
    # Beyond the blank border everything is blank, so clipping to it changes nothing.
    u, v = (np.clip(p, 0, ((GRID - 1) << 16) - 1) for p in (a * x + b * y + middle, c * x + d * y + middle))
    left, top, u, v = u >> 16, v >> 16, u >> 8 & 255, v >> 8 & 255
    flat = cover.astype(np.int32).ravel()
    first = (np.arange(len(cover), dtype=np.int32) * GRID * GRID)[:, None, None, None] + top * GRID + left
    upper = flat[first] * (256 - u) + flat[first + 1] * u
    lower = flat[first + GRID] * (256 - u) + flat[first + GRID + 1] * u
    return (upper * (256 - v) + lower * v) * (255 // LEVELS) >> 16


@cache
def _shapes() -> UInt8[np.ndarray, "characters faces g g"]:
    """The packed letter shapes, 0 (blank) to 15 (covered). Raises OSError when the file is missing or damaged."""
    data = PACK.read_bytes() if PACK.is_file() else b""
    if hashlib.sha256(data).hexdigest() != PACK_SHA256:
        state = "damaged" if data else "missing"
        raise OSError(f"the letter shapes in {PACK} are {state}: install mbib-core again")
    with np.load(BytesIO(data), allow_pickle=False) as pack:
        return pack["shapes"]


def trace() -> UInt8[np.ndarray, "characters faces g g"]:
    """Trace every character in every face from matplotlib's fonts, 0 (blank) to 15 (covered), longer side 26 pixels."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import PathPatch
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D, IdentityTransform

    fine = 8  # drawn at eight times the size, then averaged
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"

    def shade(character: str, face: str) -> np.ndarray:
        outline = TextPath((0, 0), character, size=100, prop=FontProperties(fname=str(folder / f"{face}.ttf")))
        box = outline.get_extents()
        grow = SPAN * fine / max(box.width, box.height)
        move = Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2).scale(grow)
        figure = Figure(figsize=(GRID * fine / 100, GRID * fine / 100), dpi=100)
        canvas = FigureCanvasAgg(figure)
        centred = outline.transformed(move.translate(GRID * fine / 2, GRID * fine / 2))
        figure.add_artist(PathPatch(centred, transform=IdentityTransform(), facecolor="black", linewidth=0))
        canvas.draw()
        blank = np.asarray(canvas.buffer_rgba())[..., 0].reshape(GRID, fine, GRID, fine).mean(axis=(1, 3))
        return np.rint(LEVELS * (1 - blank / 255)).astype(np.uint8)

    return np.array([[shade(character, face) for face in FACES] for character in CHARACTERS])


def main() -> None:
    """Write glyphs.npz and print its SHA-256."""
    np.savez_compressed(PACK, shapes=trace())
    print(f'PACK_SHA256 = "{hashlib.sha256(PACK.read_bytes()).hexdigest()}"')


if __name__ == "__main__":
    main()
