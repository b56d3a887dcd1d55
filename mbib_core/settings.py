"""What defines a run: its settings, the name that follows from them, and the command that makes it again."""

import difflib
import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from math import inf
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
Value = float | int | str | bool | tuple[float, ...]


class Setting(NamedTuple):
    """What the command line, records and checks know of one setting: its meaning, its type, its range."""

    help: str
    kind: type = float
    low: float = -inf
    high: float = inf
    choices: tuple[str, ...] = ()
    several: bool = False  # a list of numbers


# Settings that belong to a method. Its row says which ones it has and what they are if nothing is asked for.
SETTINGS: dict[str, Setting] = {
    "alphas": Setting("shares of the shallow observations, Eq. 11", low=0, high=1, several=True),
    "beta": Setting("price of disagreement, Eq. 9; in other bottlenecks of the rate", low=0),
    "k": Setting("exponent of the class weights, Eq. 7", low=0),
    "gamma": Setting("exponent of the class temperatures, Eq. 8", low=0),
    "focus": Setting("exponent of (1 - p) in the focal loss", low=0),
    "margin": Setting("margin of the rarest class in LDAM", low=0),
    "deferred": Setting("share of the epochs after which LDAM weighs the classes", low=0, high=1),
    "effective": Setting("beta of the effective number of images, (1 - beta^n) / (1 - beta)", low=0, high=1),
    "norm_power": Setting("tau of tau-normalisation: classifier rows are divided by their norm to this power", low=0),
    "inverse": Setting("tau of SADE: how far its third expert favours the tail", low=0),
    "tau": Setting("factor of log n in logit adjustment and the VS loss", low=0),
    "lader": Setting("weight of LADE's regulariser", low=0),
    "lader_square": Setting("lambda of LADE: weight of the square in its regulariser", low=0),
    "mitigation": Setting("p of the seesaw loss: how far it spares the rarer classes", low=0),
    "compensation": Setting("q of the seesaw loss: how far it punishes a wrong answer", low=0),
    "diversity": Setting("how far RIDE drives its experts apart, its -lambda", low=0),
    "tempering": Setting("eta of RIDE: how far its class temperatures follow the counts", low=0, high=1),
    "urgency": Setting("how heavy an image counts for RIDE's routers that a later expert would put right", low=0),
    "medium_from": Setting(
        "share of the classes, by falling counts, at which ResLT's medium group begins", low=0, high=1
    ),
    "tail_from": Setting("share of the classes, by falling counts, at which ResLT's tail group begins", low=0, high=1),
    "residual": Setting("beta of ResLT: share of its branches' own losses", low=0, high=1),
    "radius": Setting("of MaxNorm: how far from the smallest norm of classifier rows to the largest", low=0, high=1),
    "head_smoothing": Setting("label smoothing of the largest class in MiSLAS", low=0, high=1),
    "tail_smoothing": Setting("label smoothing of the smallest class in MiSLAS", low=0, high=1),
    "self_agreement": Setting("share of SRepr's loss that asks for the answer of the drawn networks", low=0, high=1),
    "softness": Setting("temperature of the answers that SRepr compares", low=0.01),
    "class_noise": Setting("how far CC-SAM moves the classifier for a class", low=0),
    "consistency": Setting("weight of the agreement of two views in GLMC", low=0),
    "contrast_temperature": Setting("temperature of the cosines of features in KCL, TSC and PaCo", low=1e-3),
    "distil_share": Setting("share of the teacher in DiVE's loss", low=0, high=1),
    "distil_temperature": Setting("temperature of teacher and student in DiVE", low=1e-3),
    "key_momentum": Setting("momentum of the running mean of the weights that makes keys", low=0, high=1),
    "key_weight": Setting("weight of a key of the same class in PaCo, that of the class itself being 1", low=0),
    "positives": Setting("keys of an image's class that KCL and TSC draw from the queue", int, low=0),
    "queue": Setting("keys that are kept to contrast an image with", int, low=1, high=10**7),
    "rho": Setting("how far uphill SAM takes the gradient of its step", low=0),
    "target_share": Setting("weight of the class' target in TSC, that of the other view being 1", low=0),
}

# What training images may go through; `augmentation.AUGMENTATIONS` says what each of them is.
AUGMENTATIONS = (
    "crop+flip",
    "none",
    "cutout",
    "autoaugment+cutout",
    "randaugment",
    "mixup",
    "cutmix",
    "remix",
    "resized-crop",
    "resized-crop+jitter",
)

PLACES = ("folder", "list", "csv", "imagenet-lt", "inaturalist18", "places-lt")  # data that lie at a path, KIND:PATH


def _of(kind: type, words: str, default: Any = None, **more: Any) -> Any:
    return field(default=default, metadata={"setting": Setting(words, kind, **more)})


@dataclass(frozen=True, init=False)
class Settings:
    """Everything that defines a run: `Settings(data="cifar100-lt", method="mbib", beta=2.0)`.

    The settings of `SETTINGS` are the method's own and lie in `own`; `settings.beta` is `settings.own.get("beta")`.
    Empty values are filled in by `methods.settle`; `batch`, `rate`, `weight_decay`, `depth`, `backbone`, `trunk_rate`,
    `frozen`, `augmentation`, `average` and `size` are the schedule's unless they are given. `pretrained` becomes what
    `networks.pretrained.name_of` calls the weights: a file's SHA-256, not its path. `threads` and the hardware do not
    change which run it is.

    Numbers may be NumPy's, torch's or pandas'. Raises ValueError on a name that is no setting and on a value of another
    type.
    """

    data: str = _of(
        str,
        "glyphs-lt (default), cifar100-lt, or folder:PATH with a sub-folder a class; read while training: list:FOLDER "
        "with train.txt, val.txt and test.txt, csv:FILE, imagenet-lt:FOLDER, inaturalist18:FOLDER, places-lt:FOLDER",
        "glyphs-lt",
    )
    imbalance: float = _of(float, "largest count over smallest (default 100); not of a folder", 100, low=1)
    method: str = _of(str, "ce, bsce, bib, mbib, ...: an unknown name lists them all", "mbib")
    schedule: str | None = _of(
        str,
        "paper (200 epochs, ResNet-32), short (60), fast (100, growing images), glyphs (24, ResNet-8), folder (100, "
        "ResNet-20), imagenet-lt (90, ResNet-10), inaturalist (90, ResNet-50), finetune (30, pretrained ResNet-50)",
    )
    epochs: int | None = _of(int, "other than the schedule's", low=1, high=10**6)
    batch: int | None = _of(int, "images a step, other than the schedule's", low=2, high=10**6)
    rate: float | None = _of(float, "largest learning rate, other than the schedule's", low=0)
    weight_decay: float | None = _of(float, "other than the schedule's", low=0)
    depth: int | None = _of(int, "of the ResNet: 6 n + 2, such as 8, 20, 32 or 56", low=8, high=1202)
    backbone: str | None = _of(
        str, "a network for photographs: resnet10, a ResNet of torchvision's such as resnet50, or timm:NAME"
    )
    pretrained: str | None = _of(
        str,
        "weights that the backbone starts from: default (those its library recommends), the name of others, such as "
        "IMAGENET1K_V1, or a file (.pth, .safetensors)",
    )
    trunk_rate: float | None = _of(float, "factor of the learning rate in the backbone", low=0)
    frozen: float | None = _of(
        float, "share of the epochs, from the first, during which a pretrained backbone is frozen", low=0, high=1
    )
    augmentation: str | None = _of(
        str,
        f"{', '.join(AUGMENTATIONS)} (in memory all but none follow crop+flip; images read while training take the "
        f"resized crops or none)",
        choices=AUGMENTATIONS,
    )
    average: str | None = _of(str, "weights that are kept: ema, or swa, of the last quarter", choices=("ema", "swa"))
    size: int | None = _of(
        int,
        "pixels a side that your images are resized to (default 32; imagenet-lt, inaturalist, finetune: 224)",
        low=8,
        high=1024,
    )
    seed: int = _of(int, "of initial weights and augmentation (default 0)", 0, low=0, high=2**32 - 1)
    own: Mapping[str, Value] = field(default_factory=dict, hash=False)
    taps: int | None = _of(int, "number of observations", low=1)
    head: str | None = _of(str, "classifiers other than linear ones: cosine, 30 times the cosine", choices=("cosine",))
    precision: str = _of(
        str, "auto (default), float32, bfloat16 or float16", "auto", choices=("auto", "float32", "bfloat16", "float16")
    )
    threads: int = _of(int, "CPU threads (default: all)", 0, low=0, high=1024)
    purpose: str = _of(str, "final or choosing", "final", choices=("final", "choosing"))
    pictures: str | None = _of(str, "fingerprint of images of one's own: filled in by `train`")
    flip: bool = _of(bool, "mirror training images by chance, where the data set allows it", True)
    test_curve: bool = _of(
        bool, "score the test images after every epoch: what choosing the best one would gain", False
    )
    stream: bool = _of(bool, "read the images of a folder while training, not before: however many there are", False)

    def __init__(self, **values: Any):
        known = describe()
        if unknown := sorted(set(values) - set(known) - {"own"}):
            raise ValueError(f"{', '.join(unknown)}: no such setting; there are {', '.join(sorted(known))}")
        own = dict(values.pop("own", {}))
        own |= {name: values.pop(name) for name in SETTINGS if name in values}
        own = {name: _checked(name, value) for name, value in own.items() if value is not None}
        for f in fields(self):
            value = own if f.name == "own" else _checked(f.name, values.get(f.name, f.default))
            object.__setattr__(self, f.name, value)

    def __getattr__(self, name: str) -> Any:
        if name in SETTINGS:
            return self.own.get(name)
        raise AttributeError(f"Settings have no {name}")

    @property
    def folder(self) -> str | None:
        """The path of "folder:PATH", "list:PATH" and the like; None for other data."""
        return self.data.partition(":")[2] if self.kind else None

    @property
    def kind(self) -> str:
        """What "folder:PATH" and the like begin with; "" for other data."""
        kind, colon, _ = self.data.partition(":")
        return kind if colon and kind in PLACES else ""

    @property
    def own_pictures(self) -> bool:
        """Whether the data are a folder or arrays, whose counts are what they are; no imbalance was asked for."""
        return self.folder is not None or self.pictures is not None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Settings":
        """From flat plain values, as in a record or `wanted.toml`. Raises ValueError as the constructor does."""
        return cls(**values)

    def plain(self) -> dict[str, Any]:
        """As flat plain values, for a record or a checkpoint: the method's own settings among the others."""
        values: dict[str, Any] = {}
        for f in fields(self):
            values |= (
                {n: self.own[n] for n in SETTINGS if n in self.own}
                if f.name == "own"
                else {f.name: getattr(self, f.name)}
            )
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@cache
def describe() -> dict[str, Setting]:
    """Every setting by name: those that all runs have, and those of the methods."""
    return {f.name: f.metadata["setting"] for f in fields(Settings) if f.name != "own"} | SETTINGS


def run_id(settings: Settings) -> str:
    """The name of a run: what it is at a glance, and a hash of all settings but the threads.

    Values that are the default are left out of the hash, so that a setting added later renames no run. Of a folder
    or list the last name and the images count, not the path; its imbalance is its own.
    """
    name = settings.data if settings.folder is None else f"{settings.kind}:{Path(settings.folder).name}"
    settings = replace(settings, data=name)
    defaults, values = Settings().plain(), settings.plain()
    values = {name: v for name, v in values.items() if v != defaults.get(name) and name != "threads"}
    values = {name: _as_floats(v) for name, v in values.items()}  # 1 and 1.0 are one setting
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    data = re.sub(r"[^a-z0-9]+", "-", settings.data.lower()).strip("-")[:80]  # a file name has 255 letters at most
    data += "" if settings.own_pictures else f"-{settings.imbalance:g}"
    return f"{data}-{settings.method}-{settings.schedule}-s{settings.seed}-{digest}"


def command_line(settings: Settings) -> str:
    """The command that makes a run again, every setting of settled `settings` spelled out (of arrays there is none)."""
    words = ["mbib", "train", settings.method]
    for name, value in settings.plain().items():
        if name in ("method", "pictures") or (name == "imbalance" and settings.own_pictures):
            continue
        if value in (None, []) or (name, value) in (("precision", "auto"), ("threads", 0)):
            continue
        if name == "purpose":
            words += ["--choosing"] if value == "choosing" else []
        elif name == "flip":
            words += [] if value else ["--no-flip"]
        elif name == "test_curve":
            words += ["--test-curve"] if value else []
        elif name == "stream":
            words += ["--stream"] if value and settings.kind == "folder" else []
        else:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(_number, values)]
    return shlex.join(words)


def named(table: Mapping[str, T], name: str, kind: str) -> T:
    """`table[name]`, or a ValueError that names what there is and what is nearest."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]}?" if near else "."
    raise ValueError(f"no {kind} is called {name!r}{guess} There are: {', '.join(table)}")


def check_range(name: str, value: Value) -> None:
    """Raises ValueError if the setting `name` cannot be `value`: out of range, no choice, no ResNet's depth."""
    setting = describe()[name]
    if setting.choices and value not in setting.choices:
        one_of = "one of " if len(setting.choices) > 1 else ""
        raise ValueError(f"{name} is {value!r}: it must be {one_of}{', '.join(setting.choices)}")
    numbers = value if isinstance(value, tuple) else (value,) if setting.kind in (int, float) else ()
    for number in numbers:
        if not setting.low <= float(number) <= setting.high or abs(float(number)) == inf:
            what = "a whole number" if setting.kind is int else "a finite number"
            span = (
                f"from {setting.low:g} to {setting.high:.10g}" if setting.high < inf else f"{setting.low:g} or larger"
            )
            raise ValueError(f"{name} is {number}: it must be {what}{',' * (setting.high == inf)} {span}")
    if name == "depth" and (int(numbers[0]) - 2) % 6:
        raise ValueError(f"depth {value} is no CIFAR ResNet: it must be 6 n + 2, such as 8, 20 or 32")


def _checked(name: str, value: Any) -> Any:
    """A value with the plain type of its setting. Raises ValueError if it has another."""
    setting = describe()[name]
    if value is None and name not in SETTINGS and Settings.__dataclass_fields__[name].default is None:
        return None
    if setting.several:
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise ValueError(f"{name} is {value!r}: it must be a list of numbers")
        return tuple(_plain_number(f"each of {name}", v, float) for v in value)
    if setting.kind in (int, float):
        return _plain_number(name, value, setting.kind)
    if not isinstance(value, setting.kind):
        raise ValueError(f"{name} is {value!r}: it must be {'true or false' if setting.kind is bool else 'text'}")
    return value


def _plain_number(name: str, value: Any, kind: type) -> Any:
    """An int or a float from any library's number."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    wanted = isinstance(value, Integral | Real) and not isinstance(value, bool)
    if not wanted or (kind is int and value != value // 1):
        raise ValueError(f"{name} is {value!r}: it must be {'a whole number' if kind is int else 'a number'}")
    return kind(value)


def _as_floats(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_floats(v) for v in value]
    return float(value) if type(value) is int else value


def _number(value: Any) -> str:
    """Short where that is exact: 0.1, 100, 0.044444444444444446."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)
