"""The picture of README and intro, and the words under it: what the records say, and nothing else."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from statistics import mean, stdev

import pytest

from mbib_core.methods import METHODS, settle
from mbib_core.results import write_record
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings, run_id

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("chapters", ROOT / "book" / "chapters.py")
chapters = importlib.util.module_from_spec(spec)
spec.loader.exec_module(chapters)

PAGES = {ROOT / "README.md": "book/", ROOT / "book" / "intro.md": ""}
NAMES = {"ce": "cross-entropy", "bsce": "balanced softmax", "mbib": "MBIB"}


REAL = "*The paper's data"


def block(page: Path) -> str:
    return page.read_text(encoding="utf-8").split(chapters.BEGIN)[1].split(chapters.END)[0]


def rows(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines[2:]}


def recorded(folder: Path) -> dict[str, dict[int, dict]]:
    """Read here without the package: final records with frozen settings on Glyphs-LT, by method and seed."""
    found: dict[str, dict[int, dict]] = {name: {} for name in NAMES}
    for path in folder.glob("glyphs-lt-100-*.json"):
        record = json.loads(path.read_text())
        s = record["settings"]
        frozen = METHODS.get(s["method"])
        own = {k: list(v) if isinstance(v, tuple) else v for k, v in frozen.own.items()}
        epochs = SCHEDULES["glyphs"].epochs
        usual = (s["schedule"], s["epochs"], s["taps"], s["purpose"]) == ("glyphs", epochs, frozen.parts.taps, "final")
        if s["method"] in NAMES and usual and all(s[k] == v for k, v in own.items()):
            found[s["method"]][s["seed"]] = record
    return found


def quoted(page: Path) -> tuple[dict[str, dict[int, dict]], list[int], str]:
    """The records, the seeds that all methods have, and what the page says of them. Without any it must say nothing."""
    runs, text = recorded(ROOT / "book" / "results"), block(page).split(REAL)[0]
    seeds = sorted(set.intersection(*(set(own) for own in runs.values())))
    if not seeds:
        assert text.strip() == "", "numbers of records that are gone: run `python book/chapters.py headline`"
        pytest.skip("no seed has a record of ce, bsce and mbib yet")
    return runs, seeds, text


def points(records: dict[int, dict], seeds: list[int], shot: str) -> list[float]:
    tests = [records[seed]["test"] for seed in seeds]
    return [100 * test["accuracy"][test["default"]][shot] for test in tests]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_states_what_the_records_say(page: Path) -> None:
    """If the records have changed, `python book/chapters.py headline` writes the page again."""
    runs, seeds, text = quoted(page)
    assert f"{len(seeds)} seed" in text
    table = rows(text)
    for method, name in NAMES.items():
        for column, shot in enumerate(("many", "medium", "few", "all")):
            values = points(runs[method], seeds, shot)
            spread = f"\xa0±\xa0{stdev(values):.1f}" if shot == "all" and len(seeds) > 1 else ""
            assert table[name][column] == f"{mean(values):.1f}{spread}", (name, shot)
        for column, cost in ((4, "parameters"), (5, "multiply_adds")):
            here, plain = runs[method][seeds[0]][cost], runs["ce"][seeds[0]][cost]
            assert table[name][column] == (f"{here:,}" if method == "ce" else f"× {here / plain:.2f}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_claims_a_difference_only_where_all_seeds_agree(page: Path) -> None:
    runs, seeds, text = quoted(page)
    places = {"few": "On classes with fewer than 20", "medium": "On classes with 20 to 100"}
    places |= {"many": "On classes with more than 100", "all": "Over all classes"}
    for shot, place in places.items():
        sentence = re.search(rf"{place}.*?seed\)\.", text)[0]
        for other in ("ce", "bsce"):
            pairs = zip(points(runs["mbib"], seeds, shot), points(runs[other], seeds, shot), strict=True)
            gaps = [a - b for a, b in pairs]
            span = f"from {min(gaps):+.1f} to {max(gaps):+.1f}" if len(seeds) > 1 else "(1 seed)"
            side = "above" if mean(gaps) > 0 else "below"
            agree = min(gaps) > 0 or max(gaps) < 0
            assert (f"{abs(mean(gaps)):.1f} points {side} {NAMES[other]}" in sentence) == agree
            assert bool(re.search(rf"not told apart from (.*? or from )?{NAMES[other]}", sentence)) != agree
            assert span in sentence


@pytest.mark.parametrize(("page", "folder"), PAGES.items(), ids=lambda value: getattr(value, "name", ""))
def test_the_picture_is_there_and_its_alt_text_has_the_means(page: Path, folder: str) -> None:
    runs, seeds, text = quoted(page)
    alt, path = re.search(r"!\[([^\]]+)\]\(([^)]+)\)", text).groups()
    assert path == f"{folder}headline.png"
    assert (page.parent / path).is_file()
    assert f"({folder}what_the_paper_leaves_open.md#" in text
    for method, name in NAMES.items():
        values = [f"{mean(points(runs[method], seeds, shot)):.0f}" for shot in ("many", "medium", "few")]
        assert "{} {}, {} and {} %".format(name, *values) in alt


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_states_what_the_records_of_the_papers_data_say(page: Path) -> None:
    found: dict[str, dict[int, dict]] = {}
    for path in (ROOT / "book" / "results").glob("cifar100-lt-100-*-paper-*.json"):
        record = json.loads(path.read_text())
        s = record["settings"]
        usual = (s["epochs"], s["purpose"], s["beta"], s["k"], s["gamma"], s["alphas"])
        if s["method"] not in ("ce", "bsce"):
            beta = 0 if s["method"] == "mbib-beta0" else 1
            assert usual == (200, "final", beta, 0.1, 0, None if s["method"] == "bib" else [0.1, 0.3]), path.name
        found.setdefault(s["method"], {})[s["seed"]] = record
    _, there, text = block(page).partition(REAL)
    assert bool(there) == (set(NAMES) <= found.keys()), "run `python book/chapters.py headline`"
    names = NAMES | {"bib": "BIB", "mbib-beta0": "MBIB, β = 0"}
    assert rows(text).keys() == {names[method] for method in found} | {"the same, log n taken off afterwards"}
    adjusted = [100 * r["test"]["accuracy"]["adjusted"]["all"] for r in found["ce"].values()]
    assert rows(text)["the same, log n taken off afterwards"][3].startswith(f"{mean(adjusted):.1f}")
    assert ("no verdicts" in text) == (min(len(own) for own in found.values()) < 3)
    for method, own in found.items():
        values = {shot: points(own, list(own), shot) for shot in ("many", "medium", "few", "all")}
        stated = [f"{mean(v):.1f}" for v in values.values()]
        stated[3] += f"\xa0±\xa0{stdev(values['all']):.1f}" if len(own) > 1 else ""
        assert rows(text)[names[method]][:4] == stated
        assert rows(text)[names[method]][5] == str(len(own))
    printed = {"cross-entropy": "38.3", "balanced softmax": "42.7", "BIB": "44.9", "MBIB": "47.5", "MBIB, β = 0": "–"}
    assert {name: row[4] for name, row in rows(text).items()} == {name: printed.get(name, "–") for name in rows(text)}


# With records that were made up


def record(method: str, seed: int, few: float, **settings: object) -> dict:
    s = settle(Settings(method=method, seed=seed, **settings))
    accuracy = {"many": 0.9, "medium": 0.8, "few": few, "all": few}
    test = {"default": "v", "accuracy": {"v": accuracy}, "by_class": {"v": [0.9, 0.8, few]}}
    cost = {"parameters": 110 if method == "mbib" else 100, "multiply_adds": 1000}
    return {"run_id": run_id(s), "settings": s.plain(), "counts": [200, 50, 5], "test": test} | cost


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "book" / "results").mkdir(parents=True)
    for page in PAGES:
        shutil.copy(page, tmp_path / page.relative_to(ROOT))
    return tmp_path


def made(copy: Path, *records: dict) -> str:
    for one in records:
        write_record(one, copy / "book" / "results")
    written = chapters.headline(copy / "book" / "results", copy)
    assert sorted(p.name for p in written) == ["README.md", "headline.png", "intro.md"]
    assert written[0].read_bytes()[:4] == b"\x89PNG"
    return block(copy / "README.md")


def three(seed: int, ce: float, bsce: float, mbib: float, **settings: object) -> list[dict]:
    return [record(m, seed, few, **settings) for m, few in (("ce", ce), ("bsce", bsce), ("mbib", mbib))]


def test_runs_with_other_settings_and_seeds_that_one_method_lacks_do_not_count(copy: Path) -> None:
    other = [record("mbib", 0, 0.99, beta=4.0), record("mbib", 7, 0.99), record("ce", 7, 0.01)]
    text = made(copy, *three(0, 0.2, 0.5, 0.6), *three(1, 0.3, 0.5, 0.4), *other)
    assert "2 seeds" in text
    assert "| MBIB | 90.0 | 80.0 | 50.0 | 50.0\xa0±\xa014.1 | × 1.10 | × 1.00 |" in text
    assert "MBIB is 25.0 points above cross-entropy (from +10.0 to +40.0 seed by seed)" in text
    assert "not told apart from balanced softmax (+0.0 points, from -10.0 to +10.0 seed by seed)" in text


def test_one_seed_is_called_one_seed_and_has_no_deviation(copy: Path) -> None:
    text = made(copy, *three(0, 0.2, 0.5, 0.6))
    assert "Test pictures, 1 seed. MBIB" in text
    assert "40.0 points above cross-entropy (1 seed)" in text
    assert "±" not in text


def test_the_papers_data_stand_below_with_the_control_paired_by_seed(copy: Path) -> None:
    real = {"data": "cifar100-lt", "imbalance": 100.0}
    runs = [*three(0, 0.2, 0.5, 0.6, **real), *three(1, 0.2, 0.5, 0.5, **real)]
    text = made(copy, *three(0, 0.2, 0.5, 0.4), *runs, record("mbib-beta0", 1, 0.7, **real))
    assert "| MBIB | 90.0 | 80.0 | 55.0 | 55.0\xa0±\xa07.1 | 47.5 | 2 |" in text
    assert "| MBIB, β = 0 | 90.0 | 80.0 | 70.0 | 70.0 | – | 1 |" in text
    assert "over all classes, MBIB is 35.0 points above cross-entropy (from +30.0 to +40.0 seed by seed)" in text
    assert "not told apart from balanced softmax (+5.0 points, from +0.0 to +10.0 seed by seed)" in text
    assert "it is 20.0 points below MBIB, β = 0 (1 seed)" in text


def test_what_stands_around_the_picture_stays(copy: Path) -> None:
    page = copy / "README.md"
    before = page.read_text(encoding="utf-8")
    made(copy, *three(0, 0.2, 0.5, 0.6))
    after = page.read_text(encoding="utf-8")
    assert after != before
    assert [part.split(chapters.END)[-1] for part in after.split(chapters.BEGIN)] == [
        part.split(chapters.END)[-1] for part in before.split(chapters.BEGIN)
    ]
    chapters.headline(copy / "book" / "results", copy)
    assert page.read_text(encoding="utf-8") == after, "a second time gives the same bytes"


def test_without_records_there_is_a_sentence_and_nothing_is_claimed(copy: Path) -> None:
    made(copy, *three(0, 0.2, 0.5, 0.6))
    shutil.rmtree(copy / "book" / "results")
    (copy / "book" / "results").mkdir()
    with pytest.raises(SystemExit, match="mbib campaign makes them"):
        made(copy, record("ce", 0, 0.2), record("mbib", 1, 0.6))
    assert [block(copy / page.relative_to(ROOT)).strip() for page in PAGES] == ["", ""]


def test_a_page_without_its_marks_is_named(copy: Path) -> None:
    (copy / "README.md").write_text("nothing")
    with pytest.raises(SystemExit, match=r"README.md needs the lines"):
        made(copy, *three(0, 0.2, 0.5, 0.6))
