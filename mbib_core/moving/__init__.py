"""Figures that the reader moves: one output each, with its own script and data, that needs neither kernel nor network.

information_plane(worlds, ...)    the frontier of the information bottleneck, and the encoder at each of its points
regions(centres, names, ...)      decision regions under cross-entropy and balanced softmax as the class counts change
by_class(sets, ...)               accuracy of each class against its size, for two methods of the reader's choice
teachers(probabilities, ...)      one image: what three observations say of it, and what the loss of MBIB asks of z
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

# No ids, no global names: a page may hold any number of figures, and the same one twice. What cannot run scripts shows
# the finding in words.
_PAGE = """\
<div class="moving" data-moving="{key}" role="group" aria-label="{label}">
<style>
{style}</style>
<p class="moving-still">{finding}</p>
<script>((data, draw, kit) => {{
  for (const box of document.querySelectorAll('[data-moving="{key}"]:not([data-ready])')) {{
    box.dataset.ready = '';
    box.querySelector('.moving-still').remove();
    draw(box, data, kit(box));
  }}
}})({data},
{draw},
{kit})</script>
</div>"""


_CLASS_COLOURS = ("#56799b", "#96731a", "#b5533c", "#5f8a4f")  # no method's; three to one on white and on black


def moving_html(script: str, data: Mapping[str, Any], *, label: str, finding: str) -> str:
    """The HTML of a figure that `script` ("plane", say) draws from `data`; the same bytes for the same arguments.

    `label` names the figure, `finding` says what it shows. Raises ValueError if one of them is blank.
    """
    if not (label.strip() and finding.strip()):
        raise ValueError("the label and the finding must say something")
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    style, kit, draw = (_read(name) for name in ("moving.css", "kit.js", f"{script}.js"))
    return _PAGE.format(
        key=sha256(f"{label}{finding}{text}{style}{kit}{draw}".encode()).hexdigest()[:12],
        label=escape(label),
        finding=escape(finding),
        style=style,
        data=text,
        draw=draw.rstrip().removesuffix(";"),
        kit=kit.rstrip().removesuffix(";"),
    )


def _read(name: str) -> str:
    """A file of this folder without its comment on top."""
    text = files("mbib_core.moving").joinpath(name).read_text(encoding="utf-8")
    return text.partition("*/\n")[2] if text.startswith("/*") else text


def _show(script: str, data: Mapping[str, Any], label: str, finding: str, caption: str, name: str) -> None:
    from IPython.display import display

    html = moving_html(script, data, label=label, finding=finding)
    display({"text/html": html, "text/plain": finding}, raw=True)
    if caption:
        from mbib_core.figures import caption_of

        caption_of("Figure", caption, name)


def information_plane(
    worlds: Mapping[str, Float[np.ndarray, "X Y"]],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    hues: tuple[Sequence[float], Sequence[float]],
    finding: str,
    betas: Sequence[float] | None = None,
    start: float = 0.3,
    nouns: tuple[str, str] = ("hue", "flower"),
    caption: str = "",
    name: str = "",
) -> None:
    """Displays the information plane of each world: drag the point along the frontier, and see its encoder as flows.

    worlds: joints [X, Y] of one shape, by name; where there are two, the reader chooses. inputs, outputs: the names of
    x and y; hues: their places on the colour wheel in degrees, which colour them. betas: the points of the frontier, 48
    from 0.01 to 0.9 unless told; start: the beta that is seen first. Below stands what is kept of each y: of what x
    tells of "is it this y?" in a balanced world, the share that t tells. Raises ValueError if the shapes do not fit.
    """
    prices = np.geomspace(0.01, 0.9, 48) if betas is None else np.sort(np.asarray(betas, dtype=float))
    for p in worlds.values():
        if np.shape(p) != (len(inputs), len(outputs)) or [*map(len, hues)] != [len(inputs), len(outputs)]:
            raise ValueError(f"names and hues are for {len(inputs)} x {len(outputs)}, a world is {np.shape(p)}")
    frontiers = [_frontier(world, np.asarray(p), prices) for world, p in worlds.items()]
    data = {
        "betas": [round(float(beta), 4) for beta in prices],
        "start": int(np.abs(prices - start).argmin()),
        "nouns": nouns,
        "x": [[name, _colour(hue)] for name, hue in zip(inputs, hues[0], strict=True)],
        "y": [[name, _colour(hue)] for name, hue in zip(outputs, hues[1], strict=True)],
        "worlds": frontiers,
        "first": _cut([world["words"] for world in frontiers], len(inputs)),
    }
    _show("plane", data, "The information plane, to be moved", finding, caption, name)


def _frontier(name: str, p_xy: np.ndarray, betas: np.ndarray) -> dict[str, Any]:
    """What is seen of one world: informations, encoders in thousandths, what is kept of each y in per cent."""
    from mbib_core.information import entropy, information_curve, mutual_information

    curve = information_curve(p_xy, betas)
    even = p_xy / p_xy.sum(0) / p_xy.shape[1]
    kept = []
    for q in curve.q_t_given_x:
        shares = []
        for i in range(even.shape[1]):
            yes_no = np.stack([even[:, i], even.sum(1) - even[:, i]], 1)
            told = mutual_information(q.T @ yes_no, "t", "y", axes="ty")
            shares.append(round(100 * told / mutual_information(yes_no, "x", "y", axes="xy")))
        kept.append(shares)
    return {
        "name": name,
        "p": [[round(float(value), 6) for value in row] for row in p_xy],
        "h": round(entropy(p_xy, "x", axes="xy"), 3),
        "i": round(mutual_information(p_xy, "x", "y", axes="xy"), 3),
        "points": [[round(float(a), 3), round(float(b), 3)] for a, b in np.stack([curve.i_xt, curve.i_ty], 1)],
        "words": [_thousandths(q) for q in curve.q_t_given_x],
        "kept": kept,
    }


def _thousandths(q: np.ndarray) -> list[list[int]]:
    """An encoder [X, T] as a row for each word t: x, q(t|x) in thousandths, another x, ...; without zeros."""
    rounded = np.rint(1000 * q).astype(int)
    return [[int(n) for x in np.flatnonzero(word) for n in (x, word[x])] for word in rounded.T if word.any()]


def _cut(curves: Sequence[list[list[list[int]]]], n: int) -> int:
    """Where to cut the circle of inputs: before the one that least often shares a word with the one before it."""
    shared = np.zeros(n)
    for word in (word for curve in curves for words in curve for word in words):
        share = np.zeros(n)
        share[word[::2]] = word[1::2]
        shared += np.minimum(share, np.roll(share, 1))
    return int(shared.argmin())


def _colour(hue: float) -> str:
    from colorsys import hls_to_rgb

    return "#" + "".join(f"{round(255 * part):02x}" for part in hls_to_rgb(hue % 360 / 360, 0.53, 0.62))


def regions(
    centres: Float[np.ndarray, "C 2"],
    names: Sequence[str],
    *,
    counts: Sequence[int],
    finding: str,
    exponent: float | None = None,
    reach: float = 4.0,
    caption: str = "",
    name: str = "",
) -> None:
    """Displays the decision regions of Gaussian classes in a plane, and a slider for the training images of each class.

    p(v|i) is normal around `centres` with standard deviation 1. Cross-entropy learns p_s, which prefers class i where
    n_i p(v|i) is largest; the raw softmax of the balanced softmax learns p_t, whatever the counts are. With `exponent`
    there is a slider k, too, of class weights n^-k in the balanced softmax, which tilt it by n^-k. The share of a class
    that its region keeps is an integral over the whole plane. counts: where the sliders start, 1 to 1,000, rounded to
    a twentieth of a power of ten. Raises ValueError for other counts or if the lengths differ.
    """
    if not len(centres) == len(names) == len(counts) >= 2 or not all(1 <= n <= 1000 for n in counts):
        raise ValueError(f"centres, names and counts from 1 to 1000 are for the same classes, got {counts} for {names}")
    places = [[*(round(float(v), 4) for v in centre)] for centre in centres]
    classes = zip(names, places, _CLASS_COLOURS, strict=False)
    data = {
        "classes": [[name, *place, colour] for name, place, colour in classes],
        "counts": [round(10 ** (round(20 * np.log10(n)) / 20)) for n in counts],
        "exponent": exponent,
        "reach": reach,
        "most": 1000,
    }
    _show("regions", data, "Decision regions, to be moved", finding, caption, name)


def by_class(
    sets: Mapping[str, Mapping[str, Any]],
    *,
    finding: str,
    start: tuple[str, str] = ("mbib", "ce"),
    caption: str = "",
    name: str = "",
) -> None:
    """Displays the accuracy of each class against its size, for two methods and a data set that the reader picks.

    sets: by the name of a data set, its "counts" [C], "names" [C] (numbers where there are none), and "methods": by the
    method's key, as in `figures.NAMES` or a name of its own, the accuracy of each class [C], 0 to 1; "runs": of how
    many runs that is the mean, by method, one unless told; "means": by method and shot, or "all", the accuracy in % as
    the text has it, where it has one, so that both round one number. Lines are local, weighted by the distance in
    log n. Raises ValueError if lengths differ, or if a data set lacks a method of `start`.
    """
    from mbib_core.figures.style import COLOURS, MARKERS, NAMES, OTHERS, SHOTS

    found: list[dict[str, Any]] = []
    methods: dict[str, dict[str, Any]] = {}
    for title, one in sets.items():
        n = len(one["counts"])
        labels = one.get("names") or [f"class {i + 1}" for i in range(n)]
        if any(len(values) != n for values in (labels, *one["methods"].values())):
            raise ValueError(f"{title} has {n} counts: names and accuracies must be as many")
        if missing := [method for method in start if method not in one["methods"]]:
            raise ValueError(f"{title} has no accuracies of {missing[0]}")
        for method in one["methods"]:
            spare = OTHERS[1 + len(methods) % (len(OTHERS) - 1)]
            look = {"colour": COLOURS.get(method, spare), "mark": MARKERS.get(method, "o")}
            methods.setdefault(method, {"name": NAMES.get(method, method), **look})
        found.append(
            {
                "name": title,
                "counts": [int(count) for count in one["counts"]],
                "names": [str(label).replace("_", " ") for label in labels],
                "accuracy": {m: [round(100 * float(a), 1) for a in v] for m, v in one["methods"].items()},
                "means": {m: {s: float(a) for s, a in v.items()} for m, v in one.get("means", {}).items()},
                "runs": {method: one.get("runs", {}).get(method, 1) for method in one["methods"]},
            }
        )
    groups = [[shot, above, min(to, 1e9)] for shot, (above, to) in SHOTS.items()]
    data = {"sets": found, "methods": methods, "start": start, "groups": groups}
    _show("classes", data, "Accuracy by class size, to be chosen", finding, caption, name)


def teachers(
    probabilities: Float[np.ndarray, "n S C"],
    targets: Sequence[int],
    *,
    names: Sequence[str],
    counts: Sequence[int],
    alphas: Sequence[float],
    beta: float,
    finding: str,
    k: float = 0.0,
    titles: Sequence[str] | None = None,
    pictures: UInt8[np.ndarray, "n 3 h w"] | None = None,
    stages: Sequence[str] = ("v₁", "v₂", "v₃"),
    caption: str = "",
    name: str = "",
) -> None:
    """Displays what the observations say of an image, their average, and the best z, with sliders for alphas and beta.

    The best z is the q that minimises the image's own L_z + beta sum_s alpha_s KL(p_s, q) with all temperatures at 1,
    exactly and over all classes: q_i (w n_i / m + beta) = w [i = y] + beta p_i, with m = sum_j n_j q_j, w the weight
    n_y^-k of the image's class and p the mean of the p_s by alpha (the deepest has the rest of 1). Five classes are
    shown, and the others together.

    probabilities: p_s of n images, S observations and C classes; targets [n]: their classes; titles [n]: what an image
    is called; pictures: the images themselves. Raises ValueError if lengths differ.
    """
    shape = np.shape(probabilities)
    titles = [f"image {i + 1}" for i in range(len(targets))] if titles is None else titles
    if (
        shape != (len(targets), len(stages), len(counts))
        or len(titles) != len(targets)
        or len(names) != len(counts)
        or len(alphas) != len(stages) - 1
    ):
        raise ValueError(
            f"probabilities are {shape}, for {len(targets)} targets, {len(stages)} stages and {len(counts)} counts"
        )
    weights = np.asarray(counts, dtype=float) ** -k
    images = [
        {"title": str(title), "y": int(y), "p": [[round(float(v), 5) for v in row] for row in p]}
        for title, y, p in zip(titles, targets, probabilities, strict=True)
    ]
    for image, picture in zip(images, [] if pictures is None else np.asarray(pictures), strict=False):
        raw = np.ascontiguousarray(picture.transpose(1, 2, 0), dtype=np.uint8)
        image |= {"pixels": b64encode(raw.tobytes()).decode(), "size": list(raw.shape[:2])}
    data = {
        "images": images,
        "stages": stages,
        "names": [str(one).replace("_", " ") for one in names],
        "counts": [int(n) for n in counts],
        "weights": [round(float(w), 6) for w in weights / weights.mean()],
        "alphas": [round(float(a), 2) for a in alphas],
        "beta": round(float(beta), 1),
    }
    _show("teachers", data, "Teachers of z, to be moved", finding, caption, name)
