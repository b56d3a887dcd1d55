"""Wrong answers with the pictures themselves, small enough to stand in a page."""

import io
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mbib_core.data.streamed import Paths, Streamed

OF_EACH = 4  # wrong answers of a class
SIDE = 96  # pixels of the longer side, at the most
BYTES = 300_000  # of all pictures of a page together


class Mistake(NamedTuple):
    """A picture that was given the class `answer` with this `probability`: a data URI, and the file's name if known."""

    answer: int
    probability: float
    uri: str
    name: str


def surest_mistakes(
    images: Any,
    logits: Float[Tensor, "n c"],
    classes: Iterable[int],
    *,
    names: Sequence[str] | None = None,
    of_each: int = OF_EACH,
    most: int = BYTES,
) -> dict[int, list[Mistake]]:
    """For each of these classes the wrong answers to its pictures, the most probable ones first, `of_each` at most.

    `images` are in memory or streamed; of streamed ones those that are shown are read again. `names` are those
    of their files, which streamed ones know themselves. The data URIs of all have `most` bytes together: what comes
    after that is left out.
    """
    probability, answer = logits.softmax(1).max(1)
    rows: list[int] = []
    for label in classes:
        wrong = ((images.y == label) & (answer != label)).nonzero().flatten()
        rows += wrong[probability[wrong].argsort(descending=True, stable=True)][:of_each].tolist()
    found: dict[int, list[Mistake]] = {}
    pixels = images.take(torch.tensor(rows)).x if rows else ()
    for row, x in zip(rows, pixels, strict=True):
        uri = data_uri(x)
        most -= len(uri)
        if most < 0:
            break
        own = Mistake(int(answer[row]), float(probability[row]), uri, names[row] if names else _name(images, row))
        found.setdefault(int(images.y[row]), []).append(own)
    return found


def data_uri(x: UInt8[Tensor, "3 h w"]) -> str:
    """A picture at no more than `SIDE` pixels a side: enlarged by a whole number as PNG, or else as JPEG."""
    from PIL import Image

    picture, content = Image.fromarray(x.permute(1, 2, 0).contiguous().numpy()), io.BytesIO()
    if (times := SIDE // max(picture.size)) > 1:
        kind, side = "png", (times * picture.width, times * picture.height)
        picture.resize(side, Image.Resampling.NEAREST).save(content, kind, optimize=True)
    else:
        kind = "jpeg"
        picture.thumbnail((SIDE, SIDE))
        picture.save(content, kind, quality=80)
    return f"data:image/{kind};base64,{b64encode(content.getvalue()).decode()}"


def _name(images: Any, position: int) -> str:
    if isinstance(images, Streamed) and isinstance(images.source, Paths):
        return images.source.name(int(images.rows[position]))
    return ""
