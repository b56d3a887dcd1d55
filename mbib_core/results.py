"""One JSON record a run: written, read, tabulated."""

import hashlib
import importlib.metadata
import json
import math
import os
import subprocess
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbib_core.extras import extra
from mbib_core.files import write_atomically
from mbib_core.settings import Settings, describe
from mbib_core.text import cell

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]
SHOTS = ("many", "medium", "few", "all")


def write_record(record: Record, folder: Path) -> Path:
    """Writes `folder/{run_id}.json`, whole or not at all: the record as `compact` makes it, sealed with a digest.

    A key stands on a line of its own, a list on one line. Raises OSError with a sentence.
    """
    record = compact(record)
    path = folder / f"{record['run_id']}.json"
    write_atomically(path, f"{_lines(record | {'digest': _digest(record)})}\n".encode())
    return path


def compact(record: Record) -> Record:
    """A record without what nobody reads: in lists of measurements (by epoch, class or bin) numbers have 5 digits, and
    `by_class` is that of the default prediction alone. Numbers outside of lists stay as they are."""
    measured = {name: _rounded(record[name]) for name in ("history", "validation", "test") if name in record}
    for part in measured.values():
        if "default" in part and "by_class" in part:
            part["by_class"] = {part["default"]: part["by_class"][part["default"]]}
    return record | measured


def read_record(path: Path) -> Record:
    """One record. Raises ValueError if it is no record or was changed after it was written."""
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
        digest = record.pop("digest")
        changed = digest != _digest(record)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ValueError(f"{path} is not a whole record; restore it, or delete it and make the run again") from None
    if changed:
        raise ValueError(f"{path} was changed after the run wrote it; restore it or make the run again")
    for name, kind in (("run_id", str), ("settings", dict)):
        if not isinstance(record.get(name), kind):
            raise ValueError(f"{path} is not a record of a run: it has no {name}; move it to another folder")
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
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return False  # a record that was cut, maybe
    names = content.keys() if isinstance(content, dict) else set()
    return "run_id" not in names and not {"settings", "digest"} <= names  # whichever key of a record is damaged


def settings_of(record: Record) -> dict[str, Any]:
    """The settings of a record as plain values; one that is newer than the record has its default.

    Raises ValueError, with the name of the run, on settings that this version does not know.
    """
    try:
        return Settings.of(record["settings"]).plain()
    except ValueError as error:
        raise ValueError(f"the record {record['run_id']}: {error}") from None


def find(records: Iterable[Record], **settings: Any) -> list[Record]:
    """The records whose settings have these values, by seed: `find(records, data="cifar100-lt", method="ce")`.

    A setting that a record's method does not have is None. Raises ValueError on a name that is no setting.
    """
    requested = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    if unknown := ", ".join(sorted(requested.keys() - describe().keys())):
        raise ValueError(f"{unknown}: no such setting; there are {', '.join(sorted(describe()))}")
    recorded = [(record, settings_of(record)) for record in records]
    found = [(r, s) for r, s in recorded if all(s.get(name) == value for name, value in requested.items())]
    return [record for record, _ in sorted(found, key=lambda pair: pair[1]["seed"])]


def conditions(words: Iterable[str]) -> dict[str, Any]:
    """The arguments of `find` from text: `["method=ce", "beta=1"]` is `{"method": "ce", "beta": 1}`.

    A value is read as JSON, else as text. Raises ValueError on a word that is not NAME=VALUE.
    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise ValueError(f"{word!r} is no condition: write NAME=VALUE, such as method=mbib or imbalance=100")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found


def table(records: Iterable[Record]) -> "pd.DataFrame":
    """Accuracy in percent, one row for each run that differs in more than its seed: mean and sd over the seeds.

    A final run shows its test accuracy, a run for choosing its validation accuracy, in rows of their own, and so do
    runs in another precision, whatever was requested. A shot that the data set lacks stays empty. Raises ValueError,
    with the name of the run, on a record that lacks what a row needs.
    """
    pd = extra("pandas", "a table")
    rows = [_row(record) for record in {record["run_id"]: record for record in records}.values()]  # each run once
    if not rows:
        return pd.DataFrame()
    frame = pd.DataFrame(rows)
    shown = [name for name in SHOTS if name in frame]
    keys = [name for name in frame.columns if name not in shown]
    groups = frame.groupby(keys, dropna=False, sort=False)
    result = groups[shown].agg(["mean", "std"])
    result[("seeds", "")] = groups.size()
    return result.reset_index()


def _row(record: Record) -> dict[str, Any]:
    settings = settings_of(record)
    given, part = Settings.of(settings), "test" if settings["purpose"] == "final" else "validation"
    name = None if given.folder is None else f"{given.kind}:{Path(given.folder).name}"
    try:
        accuracy = record[part]["accuracy"][record[part]["default"]]
        return (
            {name: _plain(settings[name]) for name in settings if name not in ("seed", "threads")}
            | ({} if name is None else {"data": name, "imbalance": None})
            | {"precision": record["machine"]["precision"]}
            | {"on": part}
            | {shot: 100 * float(accuracy[shot]) for shot in SHOTS if shot in accuracy}
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"the record {record['run_id']} has no {part} accuracy or precision that could be tabulated "
            f"({type(error).__name__}: {error}); take it out of the folder"
        ) from None


def published(**where: Any) -> "pd.DataFrame":
    """The paper's tables: accuracy in percent, rho (table 5) and cost (table 6), as the column `quantity` says.

    Only rows whose columns have the values of `where`: `published(table=1, method="MBIB", imbalance_factor=100)`. What
    the paper leaves out is NaN.
    """
    pd = extra("pandas", "a table")
    frame = pd.read_csv(Path(__file__).with_name("paper_tables.csv"))
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return frame


def show_table(frame: "pd.DataFrame") -> str:
    """`table` as text: accuracy as mean ± sd in percent, the method, and the settings that tell rows apart.

    A setting that all runs have gets a column if it differs between rows of one data set (epochs: of one schedule), a
    method's own setting if it differs between rows of one method. The line below the table names what all rows share.
    """
    pd = extra("pandas", "a table")
    if frame.empty:
        return "no records"
    general = {field.name for field in fields(Settings)} | {"on"}
    columns = {name: list(frame[(name, "")]) for name, second in frame.columns if second == "" and name != "seeds"}
    lines, shared = pd.DataFrame(), []
    for name, values in columns.items():
        within = ("data", "schedule") if name == "epochs" else ("data",) if name in general else ("data", "method")
        groups = [columns[key] for key in within if key != name]
        if name == "method" or (name != "purpose" and _vary(values, groups)):  # "on" says what the purpose was
            lines[name] = [_cell(v) for v in values]
        elif name in ("data", "imbalance", "schedule", "epochs", "on") and not _vary(values, []) and _cell(values[0]):
            shared.append(f"{name} {_cell(values[0])}")
    for shot in [s for s in SHOTS if (s, "mean") in frame.columns]:
        cells = zip(frame[(shot, "mean")], frame[(shot, "std")], strict=True)
        lines[shot] = ["" if math.isnan(m) else f"{m:.1f}" + ("" if math.isnan(s) else f" ± {s:.1f}") for m, s in cells]
    lines["seeds"] = frame[("seeds", "")].astype(str)
    return "\n".join([lines.to_string(index=False), *[f"all rows: {', '.join(shared)}"] * bool(shared)])


def csv_table(frame: "pd.DataFrame") -> str:
    """`table` with all of its columns as comma-separated values: every setting, then many_mean, many_std, ..., seeds.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    flat = frame.apply(lambda column: column.map(_csv_cell))
    flat.columns = ["_".join(filter(None, names)) for names in frame.columns]
    return flat.to_csv(index=False, lineterminator="\n")


def commit_of_code() -> str:
    """The commit this package runs from, `+changes` behind it if files differ.

    Outside a git checkout (a container, an unpacked archive) it is what $MBIB_COMMIT says, else "unknown".
    """
    return commit_of_checkout() or os.environ.get("MBIB_COMMIT") or "unknown"


def commit_of_checkout() -> str:
    """The commit as git knows it; "" outside a git checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        # The code that runs is trusted, whoever owns its folder.
        command = ["git", "-c", "safe.directory=*", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        git("ls-files", "--error-unmatch", "results.py")
        return commit + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def version_of_code() -> str:
    """The version of the installed package, "unknown" where it runs without being installed."""
    try:
        return importlib.metadata.version("mbib-core")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _digest(record: Record) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def _rounded(value: Any, in_list: bool = False) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(v, in_list) for name, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v, True) for v in value]
    return float(f"{value:.5g}") if in_list and isinstance(value, float) else value


def _lines(value: Any, depth: int = 1) -> str:
    """JSON with one key a line, but for a dictionary of plain values, or a list: these are one line each."""
    if not isinstance(value, dict) or not any(isinstance(v, dict | list) for v in value.values()):
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    keys = [f"\n{' ' * depth}{json.dumps(name)}: {_lines(v, depth + 1)}" for name, v in value.items()]
    return f"{{{','.join(keys)}\n{' ' * (depth - 1)}}}"


def _vary(values: list[Any], groups: list[list[Any]]) -> bool:
    """Whether `values` differ where all of `groups` agree."""
    seen: dict[Any, Any] = {}
    plain = ["" if _missing(v) else v for v in values]
    return any(seen.setdefault(tuple(key), v) != v for v, *key in zip(plain, *groups, strict=True))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{number:.3g}" for number in value)
    text = "" if _missing(value) else f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _csv_cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, float):
        return float(f"{value:.10g}")  # no 18.099999999999998
    return cell(value) if isinstance(value, str) else value


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
