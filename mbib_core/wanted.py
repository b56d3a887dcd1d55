"""The list of wanted runs: what it asks for, and which of them have no record yet."""

import itertools
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mbib_core.data import glyphs
from mbib_core.data.longtailed import long_tailed_counts
from mbib_core.methods import settle
from mbib_core.results import read_record
from mbib_core.settings import Settings, named, run_id

RECORD_SUFFIXES = (".json", ".safetensors", ".npz")
# What is known of published data without reading them: an impossible imbalance factor raises ValueError.
PROFILES: dict[str, Callable[[float], Any]] = {
    "glyphs-lt": glyphs.counts,
    "cifar100-lt": partial(long_tailed_counts, 500, 100),
}


@dataclass(frozen=True)
class Wanted:
    """One run of the list; `keep` says what it leaves beside the record: "" (nothing), "weights", or "all" (weights
    and features)."""

    settings: Settings
    keep: str

    @property
    def id(self) -> str:
        return run_id(self.settings)

    @property
    def leaves(self) -> tuple[str, ...]:
        """The suffixes of the files that it leaves."""
        return RECORD_SUFFIXES[: 1 + ("", "weights", "all").index(self.keep)]


def read_wanted(path: Path) -> list[Wanted]:
    """The runs that a list asks for, in order.

    Each `[[run]]` gives settings by name; a list of values stands for one run per value (for `alphas` a list of
    lists), several lists for all combinations, the last one changing fastest. `keep = "weights"` keeps the weights,
    `keep = "all"` also the features of test pictures.
    Raises FileNotFoundError, or ValueError with the number of the entry that is wrong.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no list {path}; name the list of wanted runs")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from None
    entries = content.pop("run", [])
    if content or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} must hold [[run]] entries and nothing else{': ' * bool(content)}{', '.join(content)}")
    wanted: list[Wanted] = []
    for number, entry in enumerate(entries, start=1):
        try:
            keep = entry.get("keep", "")
            if keep not in ("", "weights", "all"):
                raise ValueError(f'keep is {keep!r}: it must be "weights" or "all"')
            wanted += [Wanted(_published(Settings.of(one)), keep) for one in _combinations(entry)]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, run {number}: {error}") from None
    most = {w.id: w.keep for w in sorted(wanted, key=lambda w: ("", "weights", "all").index(w.keep))}
    first = {w.id: w.settings for w in reversed(wanted)}
    return [Wanted(first[name], most[name]) for name in dict.fromkeys(w.id for w in wanted)]


def _published(settings: Settings) -> Settings:
    """Settled settings of a run on published data. Raises ValueError on other data, or an impossible imbalance."""
    if settings.own_pictures:
        raise ValueError(
            f"a campaign makes runs on {' and '.join(PROFILES)} only: use `mbib train` for images of your own and for "
            f"lists"
        )
    settled = settle(settings)
    named(PROFILES, settled.data, "data set")(settled.imbalance)
    return settled


def _combinations(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    choices = {}
    for name, value in entry.items():
        if name == "keep":
            continue
        several = isinstance(value, list) and (name != "alphas" or (value and isinstance(value[0], list)))
        choices[name] = value if several else [value]
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def missing(wanted: list[Wanted], *records: Path) -> list[Wanted]:
    """The wanted runs that have their record, and what they keep, in none of the folders `records`.

    Raises ValueError on a record that is not whole.
    """

    def made(w: Wanted, folder: Path) -> bool:
        files = [folder / f"{w.id}{suffix}" for suffix in w.leaves]
        return all(file.is_file() for file in files) and bool(read_record(files[0]))

    return [w for w in wanted if not any(made(w, folder) for folder in records)]


def named_like(only: str, wanted: list[Wanted]) -> list[Wanted]:
    """The runs in whose names the regular expression `only` is found."""
    try:
        found = [w for w in wanted if re.search(only, w.id)]
    except re.error as error:
        raise ValueError(f"{only!r} is no regular expression ({error}): give a part of a run's name") from None
    if wanted and not found:
        raise ValueError(f"no run has a name with {only!r} in it; one of them is {wanted[0].id}")
    return found
