"""What defines a run: its settings, the name that follows from them, and the command that makes it again."""

import difflib
import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """Everything that defines a run. Empty values are filled in by `methods.settle`: the data set's schedule, the
    schedule's epochs, the loss settings of the method on that data set. `threads` and the hardware do not change which
    run it is."""

    data: str = "glyphs-lt"
    imbalance: float = 100
    method: str = "mbib"
    schedule: str | None = None
    epochs: int | None = None
    seed: int = 0
    alphas: tuple[float, ...] | None = None
    beta: float | None = None
    k: float | None = None
    gamma: float | None = None
    taps: int | None = None  # observations
    precision: str = "auto"  # or float32, bfloat16, float16
    threads: int = 0  # 0: as many as the machine has
    purpose: str = "final"  # or "choosing": validation pictures only, the test set is never touched
    pictures: str | None = None  # the data's fingerprint, where they are one's own: filled in by `train`
    flip: bool = True  # mirror training pictures by chance, where the data set allows it

    @property
    def folder(self) -> str | None:
        """The path of "folder:PATH"; None for other data."""
        return self.data.removeprefix("folder:") if self.data.startswith("folder:") else None

    @property
    def own_pictures(self) -> bool:
        """Whether the data are a folder or arrays, whose counts are what they are; no imbalance was asked for."""
        return self.folder is not None or self.pictures is not None

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Settings":
        """From plain values, as in a record or `wanted.toml`. Raises ValueError on a name that is no setting."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"{', '.join(unknown)}: no such setting; there are {', '.join(sorted(known))}")
        return cls(**{name: _checked(name, value) for name, value in values.items()})

    def plain(self) -> dict[str, Any]:
        """As plain values, for a record or a checkpoint."""
        values = asdict(self)
        return values | {"alphas": None if self.alphas is None else list(self.alphas)}


def run_id(settings: Settings) -> str:
    """The name of a run: what it is at a glance, and a hash of all settings but the threads.

    Values that are the default are left out of the hash, so that a setting added later renames no run. Of a folder
    the last name and the pictures count, not the path; its imbalance is its own.
    """
    name = settings.data if settings.folder is None else f"folder:{Path(settings.folder).name}"
    settings = replace(settings, data=name)
    defaults, values = Settings().plain(), settings.plain()
    values = {name: v for name, v in values.items() if v != defaults[name] and name != "threads"}
    values = {name: _as_floats(v) for name, v in values.items()}  # 1 and 1.0 are one setting
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    data = re.sub(r"[^a-z0-9]+", "-", settings.data.lower()).strip("-")
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
        elif isinstance(value, list):
            words += [f"--{name}", *map(_number, value)]
        else:
            words += [f"--{name}", _number(value)]
    return shlex.join(words)


def named(table: Mapping[str, T], name: str, kind: str) -> T:
    """`table[name]`, or a ValueError that names what there is and what is nearest."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]}?" if near else "."
    raise ValueError(f"no {kind} is called {name!r}{guess} There are: {', '.join(table)}")


def _checked(name: str, value: Any) -> Any:
    """A plain value with the type of its setting. Raises ValueError if it has another."""
    if name == "flip":
        if not isinstance(value, bool):
            raise ValueError(f"flip is {value!r}: it must be true or false")
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "alphas" and isinstance(value, list | tuple):
        return tuple(_checked("each of alphas", alpha) for alpha in value)
    if name in ("imbalance", "beta", "k", "gamma", "each of alphas"):
        wants, fits = "a number", number
    elif name in ("epochs", "seed", "taps", "threads"):
        wants, fits = "a whole number", number and value == value // 1
        value = int(value) if fits else value
    else:
        wants, fits = ("a list of numbers", False) if name == "alphas" else ("text", isinstance(value, str))
    if value is not None and not fits:
        raise ValueError(f"{name} is {value!r}: it must be {wants}")
    return float(value) if wants == "a number" and value is not None else value


def _as_floats(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_floats(v) for v in value]
    return float(value) if type(value) is int else value


def _number(value: Any) -> str:
    """Short where that is exact: 0.1, 100, 0.044444444444444446."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)
