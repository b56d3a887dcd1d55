"""How a file becomes a picture: any format that Pillow reads, turned, in RGB, at the size that a network takes."""

import hashlib
import operator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

SIDE = 32  # pixels a side that the CIFAR ResNets take
LARGEST_SIDE = 1024
LARGEST_PICTURE = 50_000_000  # pixels that are decoded: 0.4 GB at most, for each of the workers
HEIC = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


class Refused(ValueError):
    """Why a file is not taken for a picture, as the end of a sentence that starts with its name."""


def read_picture(
    content: bytes, size: tuple[int, int] = (SIDE, SIDE), margin: float = 1.0
) -> UInt8[np.ndarray, "3 h w"]:
    """The picture in the bytes of a file of any format that Pillow knows, as `size` (height, width).

    See `open_picture` and `centre`. Raises Refused if there is no such picture.
    """
    return np.asarray(centre(open_picture(content, size), size, margin)).transpose(2, 0, 1).copy()


def open_picture(content: bytes, size: tuple[int, int]) -> Image.Image:
    """The picture in the bytes of a file, in RGB, for a network that takes `size` (height, width).

    Turned as its EXIF tag says. Grey becomes RGB, 12- and 16-bit grey is scaled by its full range, what is transparent
    is laid on white, of an animation the first frame is taken. A JPEG of more than eight times `size` is decoded at a
    fraction of its own. HEIC needs pillow-heif. Raises Refused if there is no such picture.
    """
    height, width = (checked_size(side) for side in size)
    try:
        file = _opened(content)
        if file.format == "EPS":
            raise Refused("is a program that draws a picture (EPS): save it as PNG or JPEG")
        file.draft("RGB", (4 * width, 4 * height))  # it stays four times as large, or larger
        if file.width * file.height > LARGEST_PICTURE:
            raise Image.DecompressionBombError
        bits = _bits(file)
        ImageOps.exif_transpose(file, in_place=True)
        return _rgb(file, bits)
    except (Refused, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = f"more than {LARGEST_PICTURE // 10**6} million"
        raise Refused(f"has too many pixels to be opened safely ({limit}): make it smaller") from None
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, struct.error, IndexError ...
        raise Refused(f"is a broken picture ({error})") from None


def centre(picture: Image.Image, size: tuple[int, int], margin: float = 1.0) -> Image.Image:
    """The middle of a picture as `size` (height, width): its largest piece of that shape, resized with antialiasing.

    With a `margin` above 1 as ImageNet's networks are tested: the shorter side becomes `margin` times that of `size`,
    and the middle of it is cut out (256 and 224 pixels for 8/7).
    """
    height, width = size
    if margin == 1:
        return ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
    short, (across, down) = round(margin * max(size)), picture.size
    if across <= down:
        across, down = short, int(short * down / across)
    else:
        across, down = int(short * across / down), short
    left, top = round((across - width) / 2), round((down - height) / 2)
    return picture.resize((across, down), Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))


def read_file(
    path: Path, size: tuple[int, int] = (SIDE, SIDE), margin: float = 1.0
) -> tuple[UInt8[np.ndarray, "3 h w"], str]:
    """The picture in the file `path`, and the SHA-256 of its bytes. Raises ValueError with a sentence that names it."""
    content = read_bytes(path)
    try:
        return read_picture(content, size, margin), hashlib.sha256(content).hexdigest()
    except Refused as reason:
        raise ValueError(f"{path} {reason}") from None


def read_bytes(path: Path) -> bytes:
    """What is in the file `path`. Raises ValueError with a sentence that names it if that is nothing."""
    if not path.is_file():
        raise ValueError(f"{path} {'is no file' if path.exists() else 'is not there'}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None
    if not content:
        raise ValueError(f"{path} is empty")
    return content


def checked_size(size: Any) -> int:
    """`size` as a whole number of pixels a side. Raises ValueError if it is none, or out of a network's range."""
    with suppress(TypeError):
        if not isinstance(size, bool) and 1 <= operator.index(size) <= LARGEST_SIDE:
            return operator.index(size)
    raise ValueError(f"a picture's size is {size!r}: it must be a whole number of pixels, from 1 to {LARGEST_SIDE}")


def _opened(content: bytes) -> Image.Image:
    heic = content[4:12] in HEIC
    if heic:
        with suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()
    try:
        return Image.open(BytesIO(content))
    except UnidentifiedImageError:
        if heic:
            raise Refused("is HEIC, which needs pillow-heif: pip install pillow-heif") from None
        raise Refused("is no picture, or of a format that Pillow cannot read") from None


def _bits(file: Image.Image) -> int:
    """The bits of a grey pixel of more than eight. Raises Refused if its range is not known."""
    depth, signed = 16, False
    if file.format == "TIFF":
        depth, signed = file.tag_v2.get(258, (1,))[0], file.tag_v2.get(339, (1,))[0] == 2  # type: ignore[attr-defined]
    elif file.mode == "I" and file.format not in ("PNG", "PPM"):  # these keep 16 bits in 32
        depth = 32
    if file.mode == "F" or (file.mode.startswith("I") and (depth > 16 or signed)):
        raise Refused("has pixels of no known range (32 bits, or signed): save it with 8 or 16 bits")
    return depth


def _rgb(picture: Image.Image, bits: int) -> Image.Image:
    """Any of Pillow's modes as RGB."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture) >> (bits - 8)).astype(np.uint8))
    if picture.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in picture.info:
        return picture.convert("RGB")
    whole = Image.new("RGB", picture.size)
    for top in range(0, picture.height, 256):  # in bands: four copies of a large picture would fill the memory
        band = picture.crop((0, top, picture.width, min(top + 256, picture.height))).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        whole.paste(Image.alpha_composite(white, band).convert("RGB"), (0, top))
    return whole
