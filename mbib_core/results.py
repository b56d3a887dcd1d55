"""One JSON record a run: written, read, tabulated."""

import hashlib
import json
import math
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mbib_core.files import write_atomically
from mbib_core.settings import Settings, run_id

Record = dict[str, Any]


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


def _digest(record: Record) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{number:.3g}" for number in value)
    return "" if _missing(value) else f"{value:g}" if isinstance(value, float) else str(value)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
