"""The list of wanted runs: what it asks for, and which of them have no record yet."""

import itertools
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mbib_core.choices import Choice
from mbib_core.data import glyphs
from mbib_core.data.longtailed import long_tailed_counts
from mbib_core.methods import settle
from mbib_core.methods.published import PUBLISHED
from mbib_core.results import Record, read_record
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


Entry = tuple[Settings | Choice, str]  # a run or a choice, and what it keeps


def read_wanted(path: Path, *records: Path) -> list[Wanted]:
    """The runs that a list asks for, as far as the records beside it, or in the folders `records`, say."""
    return runs_of(read_entries(path), path.parent, *records)


def runs_of(entries: Iterable[Entry], *records: Path) -> list[Wanted]:
    """The runs that the entries of a list ask for, in order and once each.

    A choice asks for the runs that choose and, once all of them have a record in one of the folders `records`, for
    those of what was chosen. Raises ValueError on a record that is not whole.
    """
    wanted: list[Wanted] = []
    for entry, keep in entries:
        if isinstance(entry, Settings):
            wanted.append(Wanted(entry, keep))
            continue
        wanted += [Wanted(settings, "") for settings in entry.choosing]
        best = entry.best(_records(entry.choosing, records))
        wanted += [Wanted(replace(best, seed=seed), keep) for seed in entry.seeds] if best else []
    most = {w.id: w.keep for w in sorted(wanted, key=lambda w: ("", "weights", "all").index(w.keep))}
    first = {w.id: w.settings for w in reversed(wanted)}
    return [Wanted(first[name], most[name]) for name in dict.fromkeys(w.id for w in wanted)]


def read_choices(path: Path) -> list[Choice]:
    """What a list has chosen, in order. Raises what `read_entries` raises."""
    return [entry for entry, _ in read_entries(path) if isinstance(entry, Choice)]


def read_entries(path: Path) -> list[Entry]:
    """The runs and choices of a list, in order.

    Each `[[run]]` gives settings by name; a list of values stands for one run per value (for `alphas` a list of
    lists), several lists for all combinations, the last one changing fastest. `keep = "weights"` keeps the weights,
    `keep = "all"` also the features of test pictures. `choose = { beta = [0.5, 1, 2], seed = 0 }` has one of the
    values chosen, for each of the other combinations by itself and by runs of that seed (by default, of each of the
    entry's seeds). `recipe = "published"` takes all settings but `imbalance` and `seed` from `methods.published`, for
    the methods of its table or for those of `method`.
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
    found: list[Entry] = []
    for number, entry in enumerate(entries, start=1):
        try:
            keep, choose = entry.pop("keep", ""), entry.pop("choose", None)
            if keep not in ("", "weights", "all"):
                raise ValueError(f'keep is {keep!r}: it must be "weights" or "all"')
            parts = map(_published, _runs(entry)) if choose is None else _choices(entry, choose)
            found += [(part, keep) for part in parts]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, run {number}: {error}") from None
    return found


def _runs(entry: dict[str, Any]) -> Iterator[Settings]:
    """The runs of an entry that has nothing chosen, by what it says itself or by each method's publication."""
    if "recipe" not in entry:
        yield from map(Settings.of, _combinations(entry))
        return
    if (recipe := entry.pop("recipe")) != "published":
        raise ValueError(f'recipe is {recipe!r}: it must be "published"')
    if more := sorted(entry.keys() - {"method", "imbalance", "seed"}):
        raise ValueError(f"{more[0]} is given, which a published recipe says: leave one of them out")
    for values in _combinations({"method": list(PUBLISHED)} | entry):
        s = Settings.of(values)
        yield named(PUBLISHED, s.method, "published recipe").ask(s.method, s.imbalance, seed=s.seed)


def _choices(entry: dict[str, Any], choose: Any) -> Iterator[Choice]:
    """The choices of an entry, one for each combination of what is not chosen."""
    if not isinstance(choose, dict) or not choose.keys() - {"seed"}:
        raise ValueError(f"choose is {choose!r}: it must be a table such as {{ beta = [0.5, 1, 2], seed = 0 }}")
    if twice := sorted((choose.keys() - {"seed"}) & entry.keys()):
        raise ValueError(f"{twice[0]} is given and to be chosen: leave one of them out")
    if "recipe" in entry:
        raise ValueError("a published recipe leaves nothing to choose: leave recipe or choose out")
    if "purpose" in {*entry, *choose}:
        raise ValueError("an entry that has something chosen says the purpose of its runs itself: leave purpose out")
    seed = entry.pop("seed", 0)
    tries, seeds = _seeds(choose.pop("seed", seed)), _seeds(seed)
    values = list(_combinations(choose))
    if len(values) < 2:
        raise ValueError("a single value leaves nothing to choose: give a list of values")
    for fixed in _combinations(entry):
        yield Choice(tuple(_published(Settings.of(fixed | one)) for one in values), tries, seeds)


def _seeds(value: Any) -> tuple[int, ...]:
    return tuple(Settings.of(one).seed for one in _combinations({"seed": value}))


def _records(runs: Iterable[Settings], folders: Iterable[Path]) -> list[Record]:
    """The records of these runs that lie in one of the folders."""
    files = ([folder / f"{run_id(settings)}.json" for folder in folders] for settings in runs)
    return [read_record(file) for own in files for file in [f for f in own if f.is_file()][:1]]


def _published(settings: Settings) -> Settings:
    """Settled `settings` of a run on published data. Raises ValueError on other data, or an impossible imbalance."""
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
