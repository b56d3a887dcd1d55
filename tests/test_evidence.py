"""The benchmark says what the records say that are there now: a new record asks for a new run of the chapter."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from mbib_core import compare, results
from mbib_core.figures import NAMES
from mbib_core.methods import METHODS, settle
from mbib_core.methods.paper import PAPER

BOOK = Path(__file__).parents[1] / "book"
RECORDS = results.read_records(BOOK / "results")
MAIN = ("ce", "bsce", "bib", "mbib", "mbib-beta0")
TITLES = {NAMES[name]: name for name in MAIN}


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


def accuracies(method: str, shot: str = "all", by: str | None = None, **where) -> list[float]:
    return compare.accuracies(runs(method, **where), shot, by=by)


def alts(stem: str) -> list[str]:
    """What the pictures of a chapter show, in words."""
    cells = nbformat.read(BOOK / f"{stem}.ipynb", as_version=4).cells
    outputs = [o for cell in cells for o in cell.get("outputs", [])]
    return [o["metadata"]["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})]


def test_the_benchmarks_table_has_the_papers_numbers_ours_and_their_difference():
    (table,) = with_columns("paper", "ours", "difference")
    after = "CE − log n"
    assert {row["method"] for row in table} == {*TITLES, after}
    names = {"ce": "CE", "bsce": "BSCE", "bib": "BIB", "mbib": "MBIB"}
    for row in table:
        method, by = ("ce", "adjusted") if row["method"] == after else (TITLES[row["method"]], None)
        ours = {s: accuracies(method, s, by, data="cifar100-lt", imbalance=100.0) for s in results.SHOTS}
        assert row["ours"] == compare.spread(ours["all"])
        assert int(row["runs"]) == len(ours["all"])
        assert all(row[shot] == compare.spread(ours[shot]) for shot in ("many", "medium", "few"))
        name = None if by else names.get(method)
        paper = results.published(table=1, method=name, imbalance_factor=100)["all"].tolist()
        assert row["paper"] == (f"{paper[0]:.1f}" if paper else "–")
        assert row["difference"] == (compare.signed(sum(ours["all"]) / len(ours["all"]) - paper[0]) if paper else "–")


@pytest.mark.parametrize("step", [("bib", "bsce"), ("mbib", "bib"), ("mbib", "bsce"), ("mbib-beta0", "bsce"),
                                  ("mbib", "mbib-beta0")])  # fmt: skip
def test_the_steps_on_glyphs_are_shown_at_the_k_of_the_papers_data_too(step: tuple[str, str]):
    k = settle(results.Settings(data="cifar100-lt", method="mbib")).k
    one, other = (compare.accuracies(compare.runs_of(RECORDS, settle(results.Settings(method=m, k=k)))) for m in step)
    said = f"{NAMES[step[0]]} − {NAMES[step[1]]}: {compare.difference(one, other)}"
    assert any(said in alt.partition(f"Glyphs-LT, k = {k:g}:")[2] for alt in alts("07_benchmark"))


@pytest.mark.parametrize("step", [("bsce", "ce"), ("bib", "bsce"), ("mbib", "bib"), ("mbib", "bsce"),
                                  ("mbib-beta0", "bsce"), ("mbib", "mbib-beta0")])  # fmt: skip
def test_the_steps_on_glyphs_are_differences_of_all_recorded_runs(step: tuple[str, str]):
    one, other = (accuracies(method, data="glyphs-lt") for method in step)
    said = f"{NAMES[step[0]]} − {NAMES[step[1]]}: {compare.difference(one, other)}"
    assert any(said in alt for alt in alts("07_benchmark"))


def test_the_speed_of_a_step_is_what_the_benchmark_left():
    speed = pd.read_csv(BOOK / "results" / "speed.csv")
    mine = speed[speed.method == "mbib"].set_index(["machine", "measure", "of"])["median"]
    pages = with_columns("loop", "images/s", "times plain")
    assert len(pages) == mine.index.get_level_values("machine").nunique()
    for page, (machine, _) in zip(pages, mine.groupby(level="machine"), strict=True):
        rates = {loop: mine[machine, "pictures/s", loop] for loop in ("plain", "ours", "compiled", "bare")}
        assert [row["images/s"] for row in page] == [f"{rate:.0f}" for rate in rates.values()]
        for row, loop in zip(page[1:3], ("ours", "compiled"), strict=True):
            assert row["times plain"] == f"{mine[machine, 'ratio', f'plain / {loop}']:.2f}"
            # A median of ratios is near the ratio of medians, or the two were not measured side by side.
            assert rates[loop] / rates["plain"] == pytest.approx(float(row["times plain"]), rel=0.1)


def test_every_run_behind_a_number_is_listed_with_its_commit_and_command():
    where = [{"data": "cifar100-lt", "imbalance": 100.0}, {"data": "glyphs-lt"}]
    used = [r for w in where for m in MAIN for r in runs(m, **w)]
    mild = [settle(results.Settings(method=m, k=0.1)) for m in MAIN if m != "ce"]
    used += [r for settings in mild for r in compare.runs_of(RECORDS, settings)]
    lines = {
        f"- `{r['run_id']}`, commit {', '.join(r['commits'])}, {r['machine']['device']}, {r['machine']['precision']}, "
        f"{r['seconds']:.0f} s: `{r['command']}`"
        for r in used
    }
    assert set(re.findall(r"^- `.*, commit .*`$", "\n".join(said_in("07_benchmark")), re.M)) == lines


@pytest.mark.parametrize(
    ("stem", "words", "where"),
    [
        ("08_ablations", r"(\d+) runs in `book/results`, commits", {}),
    ],
)
def test_a_chapter_was_executed_after_the_last_record_came(stem: str, words: str, where: dict):
    outputs = " ".join(said_in(stem))
    (number,) = re.findall(words, outputs)
    found = results.find(RECORDS, data="glyphs-lt", imbalance=100, purpose="final", **where)
    plain = [*compare.by_recipe(found), *results.find(found, epochs=96, k=1.2)]
    own = PAPER if stem == "08_ablations" else METHODS
    assert int(number) == len([r for r in plain if r["settings"]["method"] in own])


def test_the_representations_were_looked_at_after_the_last_run_of_a_method_of_the_paper_came():
    cells = nbformat.read(BOOK / "09_representations.ipynb", as_version=4).cells
    quoted = {
        output.metadata.scrapbook.name: "".join(output.data.values())
        for cell in cells
        for output in cell.get("outputs", [])
        if "scrapbook" in output.get("metadata", {})
    }
    runs_of_24 = results.find(compare.by_recipe(RECORDS), data="glyphs-lt", purpose="final", imbalance=100.0)
    assert int(quoted["all_runs"]) == sum(r["settings"]["method"] in PAPER for r in runs_of_24)


QUOTED = {
    "05_bib": {"cifar100-lt": ("ce", "bsce", "bib"), "glyphs-lt": ("bsce", "bsce-2branch", "bib-untaught", "bib")},
    "06_mbib": {
        "cifar100-lt": ("ce", "bsce", "bib", "mbib-beta0", "mbib"),
        "glyphs-lt": (
            *("bsce", "bib", "bsce-2branch", "mbib-beta0", "mbib-deepest", "mbib"),
            *("bib-untaught", "mbib-untaught"),
        ),
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
        wanted += results.find(compare.by_recipe(RECORDS), method="bib", **other)
        tilted = {"data": "glyphs-lt", "imbalance": 100.0, "k": 0.1}
        wanted += [r for m in ("bib", "bsce") for r in runs(m, **tilted)]
    if stem == "06_mbib":  # with the class weights of CIFAR-100-LT, too
        for m in ("bsce", "bib", "mbib-beta0", "mbib"):
            wanted += compare.runs_of(RECORDS, settle(results.Settings(method=m, k=0.1)))
    assert set(listed) == {r["run_id"] for r in wanted}
