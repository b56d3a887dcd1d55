"""One JSON record a run: its settings and their name, written, read, tabulated."""

import hashlib
import json
import math
import os
import re
import shlex
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

Record = dict[str, Any]


class Busy(ValueError):
    """Another process trains this run; `mbib train` then ends with this exit status."""

    status = 75


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


def write_record(record: Record, folder: Path) -> Path:
    """Writes `folder/{run_id}.json`, whole or not at all, sealed with a digest. Raises OSError with a sentence."""
    record = record | {"digest": _digest(record)}
    path = folder / f"{record['run_id']}.json"
    write_atomically(path, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    return path


def read_record(path: Path) -> Record:
    """One record. Raises ValueError if it is no record or was changed after it was written."""
    try:
        record = json.loads(path.read_text())
        digest = record.pop("digest")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ValueError(f"{path} is not a whole record; delete it, and the run can be made again") from None
    if digest != _digest(record):
        raise ValueError(f"{path} was changed after the run wrote it; restore it or make the run again")
    return record


def read_records(folder: Path) -> list[Record]:
    """All records in `folder`, by name; JSON that never was a record is passed over.

    Raises FileNotFoundError if there is no such folder, else as `read_record`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; `mbib train` writes records, into runs/ by default")
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            records.append(read_record(path))
        except ValueError:
            if not _foreign(path):
                raise
    return records


def _foreign(path: Path) -> bool:
    """Whether a file is whole JSON of another kind, such as package.json."""
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return False  # a record that was cut, maybe
    return not isinstance(content, dict) or "run_id" not in content


def settings_of(record: Record) -> dict[str, Any]:
    """The settings of a record as plain values; one that is newer than the record has its default."""
    return Settings.of(record["settings"]).plain()


def find(records: Iterable[Record], **settings: Any) -> list[Record]:
    """The records whose settings have these values, by seed: `find(records, data="cifar100-lt", method="ce")`."""
    asked = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    kept = [r for r in records if all(settings_of(r)[name] == value for name, value in asked.items())]
    return sorted(kept, key=lambda r: r["settings"]["seed"])


def over_seeds(records: Iterable[Record], settings: Settings) -> dict[int, Record]:
    """The records whose settings differ from settled `settings` in the seed alone (and in threads), by seed."""
    by_seed = [(r["settings"]["seed"], r) for r in records if r["settings"]["method"] == settings.method]
    return {s: r for s, r in sorted(by_seed, key=lambda p: p[0]) if r["run_id"] == run_id(replace(settings, seed=s))}


def table(records: Iterable[Record]) -> pd.DataFrame:
    """Accuracy in percent, one row for each run that differs in more than its seed: mean and sd over the seeds.

    A final run shows its test accuracy, a run for choosing its validation accuracy, in rows of their own, and so do
    runs in another precision, whatever was asked for. A shot that the data set lacks stays empty.
    """
    rows = []
    for record in {record["run_id"]: record for record in records}.values():  # a run given twice counts once
        settings = settings_of(record)
        part = "test" if settings["purpose"] == "final" else "validation"
        accuracy = record[part]["accuracy"][record[part]["default"]]
        rows.append(
            {name: _plain(settings[name]) for name in settings if name not in ("seed", "threads")}
            | ({"imbalance": None} if Settings.of(settings).folder is not None else {})
            | {"precision": record["machine"]["precision"]}
            | {"on": part}
            | {shot: 100 * accuracy[shot] for shot in ("many", "medium", "few", "all") if shot in accuracy}
        )
    if not rows:
        return pd.DataFrame()
    frame = pd.DataFrame(rows)
    shown = [name for name in ("many", "medium", "few", "all") if name in frame]
    keys = [name for name in frame.columns if name not in shown]
    groups = frame.groupby(keys, dropna=False, sort=False)
    result = groups[shown].agg(["mean", "std"])
    result[("seeds", "")] = groups.size()
    return result.reset_index()


def published(**where: Any) -> pd.DataFrame:
    """The numbers of the paper's tables: accuracy in percent, rho (table 5) and cost (table 6), as `quantity` says.

    Rows whose columns have the values of `where`: `published(table=1, method="MBIB", imbalance_factor=100)`. What the
    paper leaves out is NaN.
    """
    frame = pd.read_csv(Path(__file__).with_name("paper_tables.csv"))
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return frame


def show_table(frame: pd.DataFrame) -> str:
    """`table` as text: accuracy as mean ± sd in percent, and only the settings in which the rows differ."""
    if frame.empty:
        return "no records"
    lines = pd.DataFrame()
    for name in [column for column, second in frame.columns if second == "" and column != "seeds"]:
        values = frame[(name, "")]
        if name in ("data", "imbalance", "method", "schedule", "epochs", "on") or values.nunique(dropna=False) > 1:
            lines[name] = [_cell(v) for v in values]
    for shot in [s for s in ("many", "medium", "few", "all") if (s, "mean") in frame.columns]:
        cells = zip(frame[(shot, "mean")], frame[(shot, "std")], strict=True)
        lines[shot] = ["" if math.isnan(m) else f"{m:.1f}" + ("" if math.isnan(s) else f" ± {s:.1f}") for m, s in cells]
    lines["seeds"] = frame[("seeds", "")].astype(str)
    return lines.to_string(index=False)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: what was there stays until the new content is on the disk.

    Raises OSError with a sentence if it cannot be written (no space, no permission).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):  # nothing can be taken away where nothing can be written
            temporary.unlink()
        raise OSError(
            f"{path} could not be written ({error.strerror}); what was there before is untouched. Make room or "
            f"choose another folder, and run the same command again"
        ) from None


def commit_of_code() -> str:
    """The commit this package runs from, `+changes` behind it if files differ; "unknown" outside a git checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        git("ls-files", "--error-unmatch", "results.py")
        return commit + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


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


def _digest(record: Record) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def _number(value: Any) -> str:
    """Short where that is exact: 0.1, 100, 0.044444444444444446."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{number:.3g}" for number in value)
    return "" if _missing(value) else f"{value:g}" if isinstance(value, float) else str(value)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
