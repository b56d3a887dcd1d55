"""What is done to training images after crop and flip: operations of a policy, holes, and mixing two into one; and the
crops of pictures that are read while training.

All of it is drawn on the CPU from the generator of the epoch and applied on the device (crops of pictures where they
are read), so that it hangs on seed and epoch alone. Images stay uint8: mixed ones are rounded to whole grey levels.
"""

import math
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from mbib_core.extras import extra

Pixels = UInt8[Tensor, "b c h w"]


class Augmentation(NamedTuple):
    """Whether images are cropped and mirrored, and what comes after: the operations of a `policy` ("autoaugment" or
    "randaugment"), a hole (`cutout`), or mixing with another image ("mixup", "cutmix" or "remix"). If `resized`,
    crops are of any size, made by `resized_crop` where a picture is read; with `jitter` colours are drawn, too."""

    crops: bool = True
    policy: str = ""
    cutout: bool = False
    mix: str = ""
    resized: bool = False
    jitter: bool = False

    @property
    def streams(self) -> bool:
        """Whether it can be had of pictures that are read while training."""
        return self.resized or self == Augmentation(crops=False)


AUGMENTATIONS: dict[str, Augmentation] = {
    "crop+flip": Augmentation(),
    "none": Augmentation(crops=False),
    "cutout": Augmentation(cutout=True),
    "autoaugment+cutout": Augmentation(policy="autoaugment", cutout=True),
    "randaugment": Augmentation(policy="randaugment"),
    "mixup": Augmentation(mix="mixup"),
    "cutmix": Augmentation(mix="cutmix"),
    "remix": Augmentation(mix="remix"),
    "resized-crop": Augmentation(resized=True),
    "resized-crop+jitter": Augmentation(resized=True, jitter=True),
}


# Crops of pictures on disk


def resized_crop(picture: Image.Image, side: int, number: int, *, flip: bool, jitter: bool) -> Image.Image:
    """A piece of 8 % to 100 % of the picture, 3/4 to 4/3 as wide as high, as `side` x `side` pixels (Szegedy et al.
    2015), mirrored if `flip`; with `jitter` brightness, contrast and saturation times 0.6 to 1.4 (torchvision's
    `RandomResizedCrop` and `ColorJitter`). `number` alone decides which piece and which colours."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        picture = _transform("RandomResizedCrop", (side, side))(picture)
        if flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return _transform("ColorJitter", 0.4, 0.4, 0.4)(picture) if jitter else picture


@cache
def _transform(name: str, *given: Any) -> Any:
    v2 = extra("torchvision.transforms.v2", "reading pictures while training")
    return getattr(v2, name)(*given)


# Cutout


def cut_out(x: Pixels, centres: Float[Tensor, "b 2"]) -> Pixels:
    """Cutout (DeVries & Taylor 2017): a black square half as wide as the image (16 of 32 pixels), clipped at its edges.

    `centres` are uniform in [0, 1); the square reaches from 8 pixels before its centre to 7 behind it.
    """
    height, width = x.shape[2:]
    half = min(height, width) // 4
    inside = []
    for side, centre in ((height, centres[:, :1]), (width, centres[:, 1:])):
        distance = torch.arange(side, device=x.device) - (centre * side).long()
        inside.append((distance >= -half) & (distance < half))
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return torch.where(hole[:, None], 0, x)  # masked_fill would give up channels_last


# Mixing


class Mixing(NamedTuple):
    """One epoch's choices for N images in batches: each image's partner, a place of the same batch; the share of the
    first image in each batch; and the centre of its box. `kind` is "mixup", "cutmix" or "remix"."""

    kind: str
    partners: Int[Tensor, " n"]
    shares: Float[Tensor, " batches"]
    centres: Float[Tensor, "batches 2"]


def draw_mixing(kind: str, n: int, batch: int, random: torch.Generator) -> Mixing:
    """Shares from Beta(1, 1), which is uniform; the partners are a permutation of each batch."""
    starts = range(0, n, batch)
    partners = [start + torch.randperm(min(batch, n - start), generator=random) for start in starts]
    uniform = torch.rand(len(starts), 3, generator=random, dtype=torch.float32)
    return Mixing(kind, torch.cat(partners), uniform[:, 0], uniform[:, 1:])


def blend(x: Pixels, other: Pixels, share: Float[Tensor, ""]) -> Pixels:
    """mixup (Zhang et al. 2018): share x + (1 - share) other."""
    return torch.lerp(other.float(), x.float(), share).round().to(torch.uint8)


def paste(
    x: Pixels, other: Pixels, share: Float[Tensor, ""], centre: Float[Tensor, " 2"]
) -> tuple[Pixels, Float[Tensor, ""]]:
    """CutMix (Yun et al. 2019): a box of sqrt(1 - share) of each side, rounded up, clipped, comes from `other`.

    Returns the images, and the share of the pixels that are still x's.
    """
    inside = []
    for side, middle in zip(x.shape[2:], centre, strict=True):
        length = (side * (1 - share).sqrt()).ceil().long()
        place = torch.arange(side, device=x.device) - ((middle * side).long() - length // 2)
        inside.append((place >= 0) & (place < length))
    box = inside[0][:, None] & inside[1]
    return torch.where(box, other, x), 1 - box.float().mean()


def relabelled(
    y: Int[Tensor, " b"],
    other: Int[Tensor, " b"],
    share: Float[Tensor, ""],
    counts: Int[Tensor, " c"],
    kappa: float = 3.0,
    tau: float = 0.5,
) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
    """Remix (Chou et al. 2020): an image that mixes a frequent and a rare class, and is mostly rare, is all rare.

    If n_y / n_other >= kappa and share < tau, both labels become `other`; if n_y / n_other <= 1 / kappa and
    1 - share < tau, both become y: then one share serves all images of the batch.
    """
    n, n_other = counts[y], counts[other]
    to_other, to_y = (n >= kappa * n_other) & (share < tau), (kappa * n <= n_other) & (1 - share < tau)
    return torch.where(to_other, other, y), torch.where(to_y, y, other)


# Policies

# AutoAugment's policy for CIFAR-10 (Cubuk et al. 2019): 25 pairs of (operation, chance, level from 0 to 9).
PAIRS: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
SIGNED = (
    "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness",
)  # fmt: skip
RANDOM = (*SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize", "Identity")  # what RandAugment draws from
# RandAugment (Cubuk et al. 2020): two operations of magnitude 10, inferred to be of 30, as torchvision counts.
MAGNITUDE = 10 / 30

# The operations of both policies with their strengths, from -1 to 1: a drawn operation is a number in this list.
OPERATIONS: list[tuple[str, float]] = sorted(
    {
        (name, sign * strength)
        for name, strength in [
            *((name, level / 9) for pair in PAIRS for name, _, level in pair),
            *((name, MAGNITUDE) for name in RANDOM),
        ]
        for sign in ((1, -1) if name in SIGNED else (1,))
    }
)


def draw_operations(policy: str, n: int, random: torch.Generator) -> Int[Tensor, "n 2"]:
    """Two operations for each of `n` images, as numbers in `OPERATIONS`, -1 for none."""
    signs = torch.randint(2, (n, 2), generator=random)
    if policy == "randaugment":
        names = torch.randint(len(RANDOM), (n, 2), generator=random)
        return torch.tensor([_numbers(name, MAGNITUDE) for name in RANDOM])[names, signs]
    pairs = torch.randint(len(PAIRS), (n,), generator=random)
    numbers = torch.tensor([[_numbers(name, level / 9) for name, _, level in pair] for pair in PAIRS])
    chances = torch.tensor([[chance for _, chance, _ in pair] for pair in PAIRS])
    done = torch.rand(n, 2, generator=random, dtype=torch.float32) <= chances[pairs]
    return torch.where(done, numbers[pairs].gather(2, signs[:, :, None])[:, :, 0], -1)


def _numbers(name: str, strength: float) -> list[int]:
    """The numbers of an operation and of its opposite, or twice the same."""
    return [OPERATIONS.index((name, sign * strength if name in SIGNED else strength)) for sign in (1, -1)]


def operate(x: Pixels, operations: Int[Tensor, "b 2"]) -> Pixels:
    """Two operations on each image, in order; images that have the same one are done together."""
    x = x.clone(memory_format=torch.channels_last)
    for numbers in operations.cpu().T:
        for number in numbers.unique().tolist():
            if number >= 0:
                rows = (numbers == number).nonzero()[:, 0].to(x.device)
                x[rows] = operation(x[rows], *OPERATIONS[number])
    return x


def operation(x: Pixels, name: str, strength: float) -> Pixels:
    """One operation of AutoAugment on all images alike; `strength` from -1 to 1 as a share of its largest. Moved images
    are sampled at the nearest pixel, and black outside."""
    tv = extra("torchvision.transforms.v2.functional", "this augmentation")  # late: it takes a second to import

    def affine(angle: float = 0.0, shift: tuple[int, int] = (0, 0), **more: list[float]) -> Pixels:
        return tv.affine(x, angle, list(shift), 1.0, **{"shear": [0.0, 0.0], **more})

    height, width = x.shape[2:]
    slant = math.degrees(math.atan(0.3 * strength))
    match name:
        case "ShearX":
            return affine(shear=[slant, 0.0], center=[0, 0])
        case "ShearY":
            return affine(shear=[0.0, slant], center=[0, 0])
        case "TranslateX":
            return affine(shift=(int(150 / 331 * width * strength), 0))
        case "TranslateY":
            return affine(shift=(0, int(150 / 331 * height * strength)))
        case "Rotate":
            return tv.rotate(x, 30 * strength)
        case "Brightness":
            return tv.adjust_brightness(x, 1 + 0.9 * strength)
        case "Color":
            return tv.adjust_saturation(x, 1 + 0.9 * strength)
        case "Contrast":
            return tv.adjust_contrast(x, 1 + 0.9 * strength)
        case "Sharpness":
            return tv.adjust_sharpness(x, 1 + 0.9 * strength)
        case "Posterize":
            return tv.posterize(x, round(8 - 4 * strength))
        case "Solarize":
            return tv.solarize(x, 255 * (1 - strength))
        case "AutoContrast":
            return tv.autocontrast(x)
        case "Equalize":
            return tv.equalize(x)
        case "Invert":
            return tv.invert(x)
    return x
