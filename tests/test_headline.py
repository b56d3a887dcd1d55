"""The answer of README and front page: what the records say, and nothing else."""

import importlib.util
import json
import re
import shutil
from collections import defaultdict
from functools import cache
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

import pytest
from scipy import stats

from mbib_core.methods import METHODS, settle
from mbib_core.results import write_record
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings, run_id

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("headline", ROOT / "book" / "headline.py")
headline = importlib.util.module_from_spec(spec)
spec.loader.exec_module(headline)

PAGES = {ROOT / "README.md": "book/", ROOT / "book" / "intro.md": ""}
DATA = {"cifar100-lt": "paper", "glyphs-lt": "glyphs"}
OTHER_RECIPES = ("augmentation", "average", "batch", "head", "rate", "weight_decay")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def block(page: Path) -> str:
    return page.read_text(encoding="utf-8").split(headline.BEGIN)[1].split(headline.END)[0]


@cache
def recorded(data: str, times: int = 1, **other: float) -> dict[str, dict[str, list[float]]]:
    """Read here without the package: accuracy in per cent by method and shot, of final runs with frozen settings, but
    for the `other` ones, and so many times the usual epochs."""
    found: dict[str, dict[str, list[float]]] = {m: defaultdict(list) for m in headline.METHODS}
    for path in (ROOT / "book" / "results").glob(f"{data}-100-*-{DATA[data]}-*.json"):
        record = json.loads(path.read_text())
        s, test = record["settings"], record.get("test")
        if s["method"] not in found or s["purpose"] != "final" or s["epochs"] != times * SCHEDULES[DATA[data]].epochs:
            continue
        if s.get("test_curve") or any(s.get(name) is not None for name in OTHER_RECIPES):
            continue
        frozen = METHODS[s["method"]]
        own = {k: list(v) if isinstance(v, tuple) else v for k, v in frozen.own.items()}
        if data == "cifar100-lt" and s["method"] not in ("ce", "bsce"):
            own["k"] = 0.1  # chosen on validation images of these data
        own |= other if s["method"] != "ce" else {}
        if s["taps"] == frozen.parts.taps and all(s[k] == v for k, v in own.items()):
            for shot, value in test["accuracy"][test["default"]].items():
                found[s["method"]][shot].append(100 * value)
    return found


@cache
def noise() -> tuple[float, int]:
    """The standard deviation of a run of 60 epochs, pooled over settings with several seeds, and its freedom."""
    groups = defaultdict(list)
    for path in (ROOT / "book" / "results").glob("cifar100-lt-*-short-*.json"):
        record = json.loads(path.read_text())
        if record["settings"]["purpose"] == "choosing":
            setting = {"flip": True} | {k: v for k, v in record["settings"].items() if k not in ("seed", "threads")}
            part = record["validation"]
            groups[json.dumps(setting, sort_keys=True)].append(100 * part["accuracy"][part["default"]]["all"])
    several = [values for values in groups.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    return sqrt(sum(stdev(values) ** 2 * (len(values) - 1) for values in several) / freedom), freedom


def gap(one: list[float], other: list[float], level: float = 0.95) -> tuple[float, float, float]:
    """The difference of means and its interval, by SciPy: Welch's, or with the known noise for single runs."""
    difference = mean(one) - mean(other)
    if min(len(one), len(other)) > 2:
        found = stats.ttest_ind(one, other, equal_var=False).confidence_interval(level)
        return difference, found.low, found.high
    sd, freedom = noise()
    half = stats.t.ppf((1 + level) / 2, freedom) * sd * sqrt(1 / len(one) + 1 / len(other))
    return difference, difference - half, difference + half


def words(difference: float, low: float, high: float, method: str = "MBIB") -> str:
    if low > 0:
        return f"{method}'s accuracy is higher by {difference:.1f} points (95 % interval {low:.1f} to {high:.1f})"
    if high < 0:
        return f"{method}'s accuracy is lower by {-difference:.1f} points (95 % interval {-high:.1f} to {-low:.1f})"
    of = "" if method == "MBIB" else f" of {method}"
    text = f"the difference{of} is not resolved: {difference:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"
    return text.replace("-", "−")


@every_page
def test_a_page_states_the_means_the_differences_and_the_intervals_of_the_records(page: Path) -> None:
    """If the records have changed, `python book/chapters.py headline` writes the page again."""
    text = block(page)
    on, which, small = (part for part in text.split("\n\n") if re.match(r"\*\*(On|Is)", part))
    real, glyphs = recorded("cifar100-lt"), recorded("glyphs-lt")
    for method in ("mbib", "bsce", "ce"):
        assert f"{mean(real[method]['all']):.1f} %" in on
    assert f"{mean(real['mbib-beta0']['all']):.1f} %" in which
    for found, other, where in ((real, "bsce", on), (real, "mbib-beta0", which)):
        assert words(*gap(found["mbib"]["all"], found[other]["all"])) in where
    for other in ("bsce", "mbib-beta0"):
        assert words(*gap(glyphs["mbib"]["all"], glyphs[other]["all"])) in small
    assert words(*gap(glyphs["bib"]["all"], glyphs["bsce"]["all"]), "BIB") in small
    costs = gap(glyphs["mbib"]["all"], glyphs["mbib-beta0"]["all"])
    assert ("the distillation costs accuracy" in small.split("**")[1]) == (costs[2] < 0)
    assert f"{len(glyphs['mbib']['all'])} runs of MBIB" in small
    few = min(len(found["all"]) for found in real.values()) < 3
    assert (f"a standard deviation of {noise()[0]:.1f} points" in text) == few


def signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


@every_page
def test_a_page_tells_what_the_small_set_says_with_the_class_weights_of_the_papers_data(page: Path) -> None:
    """Else two data sets with two values of k are compared as if they differed in nothing but the data."""
    small = block(page).split("\n\n")[-2]
    usual, tilted = recorded("glyphs-lt"), recorded("glyphs-lt", k=0.1)
    signs = []
    for other in ("bsce", "mbib-beta0"):
        for found in (usual, tilted):
            mean, low, high = gap(found["mbib"]["all"], found[other]["all"])
            signs.append(int(low > 0) - int(high < 0))
        assert f"{signed(mean)} ({signed(low)} to {signed(high)})" in small
    title = small.split("**")[1]
    assert ("with class weights" in title) == (signs[0] != signs[1])
    assert ("without class weights" in title) == (signs[2] != signs[3])


@every_page
def test_a_page_tells_what_twice_the_epochs_make_of_the_small_set(page: Path) -> None:
    longer = recorded("glyphs-lt", times=2)
    for other in ("bsce", "mbib-beta0"):
        mean, low, high = gap(longer["mbib"]["all"], longer[other]["all"])
        said = block(page).partition("[twice the epochs]")[2]
        assert f"{signed(mean)} ({signed(low)} to {signed(high)})" in said


@every_page
def test_a_difference_that_the_benchmarks_six_questions_leave_open_is_said_to_be_open(page: Path) -> None:
    found = recorded("cifar100-lt")
    one, other = found["mbib"]["all"], found["mbib-beta0"]["all"]
    _, low, high = gap(one, other, 1 - 0.05 / 6)
    cut = f"as one of the benchmark's six it is not resolved ({signed(low)} to {signed(high)})"
    assert (cut in block(page)) == (low < 0 < gap(one, other)[1])
    cells = json.loads((ROOT / "book" / "07_benchmark.ipynb").read_text(encoding="utf-8"))["cells"]
    (steps,) = re.findall(r"^STEPS = {(.*?)^}", "\n".join("".join(cell["source"]) for cell in cells), re.M | re.S)
    assert steps.count("(") == headline.ASKED


@every_page
def test_the_word_of_an_answer_follows_from_the_interval(page: Path) -> None:
    for paragraph in block(page).split("\n\n"):
        more = r"(, [^.*]* runs? against \w+)?(, with class weights [\w ]+)?(, and the distillation [\w ]+)?"
        if said := re.match(rf"\*\*[^*]*?(probably yes|yes|no|not resolved){more}\.\*\*", paragraph):
            words = {"yes": "is higher by", "no": "is lower by", "not resolved": "is not resolved"}
            words["probably yes"] = words["yes"]
            assert (said[1] != "yes") == bool(said[2]) or said[1] in ("no", "not resolved"), "few runs give no firm yes"
            first = min((paragraph.find(w), w) for w in words.values() if w in paragraph)[1]
            assert first == words[said[1]], paragraph


@every_page
def test_the_picture_is_there_and_its_alt_text_has_the_means(page: Path) -> None:
    alt, path = re.search(r"!\[([^\]]+)\]\(([^)]+headline\.png|headline\.png)\)", block(page)).groups()
    assert path == f"{PAGES[page]}headline.png"
    assert (page.parent / path).is_file()
    for by in recorded("cifar100-lt").values():
        assert (
            "{:.1f}, {:.1f}, {:.1f} and {:.1f} %".format(*(mean(by[s]) for s in ("few", "medium", "many", "all")))
            in alt
        )


# With records that were made up


def record(method: str, seed: int, value: float, data: str = "glyphs-lt", **settings: object) -> dict:
    s = settle(Settings(method=method, seed=seed, data=data, imbalance=100.0, **settings))
    part = {"default": "v", "accuracy": {"v": dict.fromkeys(("many", "medium", "few", "all"), value)}}
    part["by_class"] = {"v": [value] * 50}
    made = {"run_id": run_id(s), "settings": s.plain(), "counts": [200, 50, 5], "validation": part}
    return made | ({"test": part} if s.purpose == "final" else {})


def records(**values: list[float]) -> list[dict]:
    """Two runs for choosing that tell the noise, and runs on both data sets: by method ("_" for "-"), 0.5 otherwise."""
    found = [record("mbib", seed, 0.5 + 0.01 * seed, "cifar100-lt", schedule="short", purpose="choosing")
             for seed in (0, 1)]  # fmt: skip
    for data in DATA:
        for method in headline.METHODS:
            own = values.get(method.replace("-", "_"), [0.5, 0.505, 0.51])
            found += [record(method, seed, value, data) for seed, value in enumerate(own)]
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "book" / "results").mkdir(parents=True)
    for page in PAGES:
        shutil.copy(page, tmp_path / page.relative_to(ROOT))
    return tmp_path


def made(copy: Path, *given: dict) -> str:
    for one in given:
        write_record(one, copy / "book" / "results")
    written = headline.headline(copy / "book" / "results", copy)
    assert {p.name for p in written} >= {"README.md", "headline.png", "intro.md"}
    assert (copy / "book" / "headline.png").read_bytes()[:4] == b"\x89PNG"
    return block(copy / "README.md")


@pytest.mark.parametrize(
    ("mbib", "word"), [([0.8, 0.81, 0.82], "yes"), ([0.2, 0.21, 0.22], "no"), ([0.2, 0.5, 0.8], "not resolved")]
)
def test_the_answer_turns_with_the_records(copy: Path, mbib: list[float], word: str) -> None:
    text = made(copy, *records(mbib=mbib))
    assert f"**On the paper's data: {word}.**" in text
    assert f"MBIB classifies {100 * mean(mbib):.1f} % of the test images correctly, the balanced softmax 50.5 %" in text
    assert "the distillation helps on one data set and hurts" not in text


def test_other_settings_do_not_count_and_single_runs_borrow_the_noise_of_shorter_ones(copy: Path) -> None:
    one_each = {m.replace("-", "_"): [0.5] for m in headline.METHODS} | {"mbib": [0.56]}
    text = made(copy, *records(**one_each), record("mbib", 0, 0.99, beta=4.0), record("mbib", 7, 0.99, k=1.2))
    assert "one run each" in text
    assert "standard deviation of 0.7 points" in text, "0.5 and 0.51: 0.0071"
    half = stats.t.ppf(0.975, 1) * 100 * stdev([0.5, 0.51]) * sqrt(2)
    assert f"the difference is not resolved: +6.0 points (95 % interval −{half - 6:.1f} to +{half + 6:.1f})" in text


def test_two_runs_are_too_few_for_a_spread_of_their_own_and_the_answer_says_how_many_there_are(copy: Path) -> None:
    each = {m.replace("-", "_"): [0.5] for m in headline.METHODS} | {"mbib": [0.56, 0.58], "bsce": [0.5, 0.52]}
    text = made(copy, *records(**each))
    half = stats.t.ppf(0.975, 1) * 100 * stdev([0.5, 0.51])
    assert f"+6.0 points (95 % interval −{half - 6:.1f} to +{half + 6:.1f})" in text
    assert "**On the paper's data: not resolved, two runs against two.**" in text
    assert "On these data: not resolved, two runs against one.**" in text
    assert "Each method has one or two runs so far" in text


def test_what_stands_around_the_answer_stays_and_a_second_time_gives_the_same_bytes(copy: Path) -> None:
    page = copy / "README.md"
    before = page.read_text(encoding="utf-8")
    made(copy, *records(mbib=[0.9, 0.91]))
    after = page.read_text(encoding="utf-8")
    assert after != before
    for mark, part in ((headline.BEGIN, 0), (headline.END, 1)):
        assert after.split(mark)[part] == before.split(mark)[part]
    headline.headline(copy / "book" / "results", copy)
    assert page.read_text(encoding="utf-8") == after


def test_without_a_record_of_every_method_nothing_is_claimed(copy: Path) -> None:
    few = [one for one in records() if one["settings"]["method"] != "bib"]
    with pytest.raises(SystemExit, match="no record of bib on cifar100-lt, bib on glyphs-lt: mbib campaign makes them"):
        made(copy, *few)
    assert [block(copy / page.relative_to(ROOT)).strip() for page in PAGES] == ["", ""]


def test_a_page_without_its_marks_is_named(copy: Path) -> None:
    (copy / "README.md").write_text("nothing")
    with pytest.raises(SystemExit, match=r"README.md needs the lines"):
        made(copy, *records())
