"""The benchmark says what the records say that are there now: a new record asks for a new run of the chapter."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from mbib_core import compare, results
from mbib_core.methods import METHODS, settle

BOOK = Path(__file__).parents[1] / "book"
RECORDS = results.read_records(BOOK / "results")
MAIN = ("ce", "bsce", "bib", "mbib", "mbib-beta0")
TITLES = {METHODS[name].title: name for name in MAIN}


def said_in(stem: str) -> list[str]:
    """The Markdown among a chapter's outputs."""
    cells = nbformat.read(BOOK / f"{stem}.ipynb", as_version=4).cells
    return [o.get("data", {}).get("text/markdown", "") for cell in cells for o in cell.get("outputs", [])]


def tables(stem: str) -> list[list[dict[str, str]]]:
    """Every Markdown table among a chapter's outputs, as rows by column."""
    found = []
    for text in said_in(stem):
        lines = [re.split(r" *\| *", line.strip())[1:-1] for line in text.splitlines() if line.startswith("|")]
        if lines:
            found.append([dict(zip(lines[0], line, strict=True)) for line in lines[2:]])
    return found


def with_columns(*names: str) -> list[list[dict[str, str]]]:
    return [table for table in tables("07_benchmark") if set(names) <= set(table[0])]


def runs(method: str, **where) -> list[dict]:
    """Final runs with the method's frozen settings, found in another way than the chapter does: by asking each."""
    found = results.find(RECORDS, method=method, purpose="final", **where)
    frozen = settle(results.Settings(method=method, **where)).plain()
    varied = ("seed", "threads")
    return [r for r in found if {k: v for k, v in results.settings_of(r).items() if k not in varied}
            == {k: v for k, v in frozen.items() if k not in varied}]  # fmt: skip


def accuracies(method: str, shot: str, **where) -> list[float]:
    return list(compare.by_seed(runs(method, **where), shot).values())


def test_table_1_has_the_papers_numbers_ours_and_their_difference():
    (table,) = with_columns("paper", "ours")
    assert {(row["factor"], TITLES[row["method"]]) for row in table} >= {
        ("100", m) for m in ("ce", "bsce", "bib", "mbib")
    }
    names = {"ce": "CE", "bsce": "BSCE", "bib": "BIB", "mbib": "MBIB"}
    for row in table:
        method, factor = TITLES[row["method"]], float(row["factor"])
        ours = accuracies(method, "all", data="cifar100-lt", imbalance=factor)
        assert row["ours"] == compare.spread(ours)
        assert int(row["seeds"]) == len(ours)
        paper = results.published(table=1, method=names.get(method), imbalance_factor=factor)["all"].tolist()
        assert row["paper"] == (f"{paper[0]:.1f}" if paper else "–")
        gap = f"{sum(ours) / len(ours) - paper[0]:+.1f}" if ours and paper else "–"
        assert row["difference"] == gap


@pytest.mark.parametrize("data", ["cifar100-lt", "glyphs-lt"])
def test_accuracy_by_shot_is_that_of_all_recorded_seeds(data):
    expected = {m: {shot: accuracies(m, shot, data=data) for shot in ("many", "medium", "few", "all")} for m in MAIN}
    rows = [
        {"method": METHODS[m].title}
        | {shot: compare.spread(v) for shot, v in own.items()}
        | {"seeds": str(len(own["all"]))}
        for m, own in expected.items()
        if own["all"]
    ]
    assert not rows or rows in with_columns("method", "many", "few", "seeds")


def test_the_speed_of_a_step_is_what_the_benchmark_left():
    speed = pd.read_csv(BOOK / "results" / "speed.csv")
    mine = speed[speed.method == "mbib"].set_index(["machine", "measure", "of"])["median"]
    pages = with_columns("loop", "pictures/s", "times plain")
    assert len(pages) == mine.index.get_level_values("machine").nunique()
    for page, (machine, _) in zip(pages, mine.groupby(level="machine"), strict=True):
        rates = {loop: mine[machine, "pictures/s", loop] for loop in ("plain", "ours", "compiled", "bare")}
        assert [row["pictures/s"] for row in page] == [f"{rate:.0f}" for rate in rates.values()]
        for row, loop in zip(page[1:3], ("ours", "compiled"), strict=True):
            assert row["times plain"].split(" ")[0] == f"{mine[machine, 'ratio', f'plain / {loop}']:.2f}"
            # A median of ratios is near the ratio of medians, or the two were not measured side by side.
            assert rates[loop] / rates["plain"] == pytest.approx(float(row["times plain"].split(" ")[0]), rel=0.1)
        for loop in ("ours", "compiled"):
            shares = [v for (m, kind, of), v in mine.items() if (m, kind) == (machine, "share") and of.startswith(loop)]
            assert sum(shares) == pytest.approx(1, abs=1e-3)


def test_every_run_behind_a_number_is_listed_with_its_commit_and_command():
    (table,) = with_columns("record", "command")
    where = [{"data": "cifar100-lt", "imbalance": f} for f in (100.0, 50.0, 10.0)] + [{"data": "glyphs-lt"}]
    used = {r["run_id"]: r for w in where for m in MAIN for r in runs(m, **w)}
    assert {row["record"].strip("`") for row in table} == used.keys()
    for row in table:
        record = used[row["record"].strip("`")]
        assert row["command"] == f"`{record['command']}`"
        assert row["commit"] == f"`{', '.join(record['commits'])}`"


@pytest.mark.parametrize(
    ("stem", "words", "where"),
    [
        ("08_ablations", r"(\d+) runs in `book/results`, commits", {}),
        ("09_representations", r"and (\d+) that the comparison of ρ", {"imbalance": 100.0, "epochs": 24}),
    ],
)
def test_a_chapter_was_executed_after_the_last_record_came(stem: str, words: str, where: dict):
    outputs = " ".join(said_in(stem))
    (number,) = re.findall(words, outputs)
    assert int(number) == len(results.find(RECORDS, data="glyphs-lt", imbalance=100, purpose="final", **where))


QUOTED = {
    "05_bib": {"cifar100-lt": ("ce", "bsce", "bib"), "glyphs-lt": ("bsce", "bsce-2branch", "bib")},
    "06_mbib": {
        "cifar100-lt": ("ce", "bsce", "bib", "mbib-beta0", "mbib"),
        "glyphs-lt": ("bsce", "bib", "bsce-2branch", "mbib-beta0", "mbib-deepest", "mbib"),
    },
}


@pytest.mark.parametrize("stem", QUOTED)
def test_every_run_that_a_chapter_quotes_is_in_its_list(stem: str):
    outputs = " ".join(said_in(stem))
    (number,) = re.findall(r"<summary>(\d+) runs</summary>", outputs)
    listed = re.findall(r"^- `(\S+)`, commit", outputs, re.M)
    assert len(listed) == int(number)
    wanted = [r for data, methods in QUOTED[stem].items() for m in methods for r in runs(m, data=data, imbalance=100.0)]
    if stem == "05_bib":  # its slider has other beta
        other = {
            "data": "glyphs-lt",
            "purpose": "final",
            "imbalance": 100.0,
            "epochs": 24,
            "k": METHODS["bib"].own["k"],
        }
        wanted += results.find(RECORDS, method="bib", **other)
    assert set(listed) == {r["run_id"] for r in wanted}


def test_what_another_machine_makes_of_a_seed_is_recomputed():
    """Each record in `again` is of a recorded run, made by the same command on another kind of machine."""
    once = {r["run_id"]: r for r in RECORDS}
    again = results.read_records(BOOK / "results" / "again")
    gaps = []
    for second in again:
        first = once[second["run_id"]]
        assert second["command"] == first["command"]
        assert second["machine"]["device"] != first["machine"]["device"]
        one, two = (r["test"]["accuracy"][r["test"]["default"]]["all"] for r in (first, second))
        gaps.append(100 * (two - one))
    outputs = " ".join(said_in("08_ablations"))
    (said,) = re.findall(r"(\d+) runs: ([^,]+) points, standard error of the mean (\d+\.\d)", outputs)
    assert said == (str(len(gaps)), compare.spread(gaps, "+.1f"), f"{compare.standard_error(gaps):.1f}")
