"""Each method by its publication's own recipe, and constants chosen with the same effort: the tables and their runs."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mbib_core import cli, overview, standings
from mbib_core.compare import Noise
from mbib_core.data.longtailed import long_tailed_counts
from mbib_core.methods import METHODS, settle
from mbib_core.methods.published import COMMON, FACTORS, OUT_OF_REACH, PUBLISHED
from mbib_core.results import write_record
from mbib_core.settings import Settings, run_id
from mbib_core.wanted import read_choices, read_wanted

LIST = Path(__file__).parents[1] / "book" / "results" / "wanted.toml"
# Where the survey of the published accuracies has each number: the row of its table, and which number of the row.
IN_SURVEY = {
    **{"ce": ("CE", 0), "focal": ("Focal", 0), "cb-ce": ("CB-CE; CB-focal", 0), "cb-focal": ("CB-CE; CB-focal", 1)},
    **{"ldam-drw": ("LDAM; LDAM-DRW", 1), "ce-drs": ("CE-DRS (CBS)", 0), "cdt": ("CDT", 1), "bsce": ("BSCE", 1)},
    **{"logit-adjustment": ("Logit adjustment", 0), "lade": ("LADE", 0), "mislas": ("MiSLAS", 0), "bbn": ("BBN", 0)},
    **{"crt": ("cRT; tau-norm; LWS; NCM", 1), "tau-norm": ("cRT; tau-norm; LWS; NCM", 3), "ssp": ("SSP", 0)},
    **{"lws": ("cRT; tau-norm; LWS; NCM", 4), "reslt": ("ResLT", 0), "dive": ("DiVE", 1), "paco": ("PaCo", 0)},
    **{"ride-2": ("RIDE 2E; 3E; 4E distilled", 0), "ride-3": ("RIDE 2E; 3E; 4E distilled", 1)},
    **{"ride-4": ("RIDE 2E; 3E; 4E distilled", 3), "sade": ("SADE; + MBIB", 0), "sade-mbib": ("SADE; + MBIB", 2)},
    **{"bib": ("BIB; MBIB", 0), "mbib": ("BIB; MBIB", 1)},
}


def record(settings: Settings, test: float, validation: float = 0.5, **more: Any) -> dict[str, Any]:
    """A made-up record of a run, with these accuracies of all classes."""
    settled = settle(settings)
    made = {"run_id": run_id(settled), "settings": settled.plain(), "parameters": 1, "seconds": 1.0, **more}
    made["counts"] = long_tailed_counts(500, 100, 100.0)
    parts = {"validation": validation} if settled.purpose == "choosing" else {"validation": validation, "test": test}
    return made | {name: {"default": "v", "accuracy": {"v": {"all": share}}} for name, share in parts.items()}


# Each its own recipe


@pytest.mark.parametrize("factor", FACTORS)
def test_every_published_recipe_can_be_asked_for_and_says_so_where_it_is_the_common_one(factor: float) -> None:
    common = Settings(data="cifar100-lt", schedule="paper", imbalance=factor)
    for name, recipe in PUBLISHED.items():
        settled = settle(recipe.ask(name, factor))
        assert recipe.differs
        assert (settled == settle(replace(common, method=name))) == recipe.differs.startswith(COMMON), name
    assert not PUBLISHED.keys() & OUT_OF_REACH.keys()
    assert PUBLISHED.keys() | OUT_OF_REACH.keys() <= METHODS.keys()


def test_the_published_accuracies_are_those_of_the_survey() -> None:
    file = Path(os.environ.get("MBIB_SHARED", "")) / "paper" / "peers.md"
    if "MBIB_SHARED" not in os.environ or not file.is_file():
        pytest.skip("the survey is not here: set MBIB_SHARED to the folder that holds paper/peers.md")
    (text,) = re.findall(r"^## 8\. Published accuracy.*?(?=^## 9\.)", file.read_text(encoding="utf-8"), re.M | re.S)
    rows = [line.split("|")[1:] for line in text.splitlines() if line.startswith("| ")]
    survey = {row[0].strip(): row[1:] for row in rows}
    letters = {"paper, table": "S", "BagofTricks-LT": "T", "its README": "R", "not checked at its source": "M"}
    for name, (row, place) in IN_SURVEY.items():
        recipe, said = PUBLISHED[name], []
        letter = ""
        for source, numbers in re.findall(r"(?:\b([STRM]) )?(\d\d\.\d(?:/(?:\d\d\.\d|–))*)", survey[row][0]):
            letter = source or letter
            said.append((letter, [None if text == "–" else float(text) for text in numbers.split("/")]))
        source, numbers = said[place]
        assert next(letter for words, letter in letters.items() if recipe.source.startswith(words)) == source, name
        printed = list(recipe.accuracy)
        if name == "ride-3":
            assert "M 3E {}/{} at 50/10".format(*printed[1:]) in survey[row][2]
            printed[1:] = None, None
        assert printed == numbers + [None] * (3 - len(numbers)), name
    unknown = {name for name, recipe in PUBLISHED.items() if recipe.accuracy == (None, None, None)}
    assert set(PUBLISHED) == set(IN_SURVEY) | unknown


def test_a_constant_of_another_factor_is_asked_for_there() -> None:
    assert [settle(PUBLISHED["reslt"].ask("reslt", factor)).residual for factor in FACTORS] == [0.995, 0.99, 0.72]
    assert PUBLISHED["ride-3"].printed(50.0) == 51.7
    assert PUBLISHED["ride-3"].printed(20) is None


def test_the_books_list_has_every_published_recipe_the_cheapest_first() -> None:
    wanted = [w.settings for w in read_wanted(LIST)]
    assert all(settle(recipe.ask(name)) in wanted for name, recipe in PUBLISHED.items())
    kept = overview.costs()
    longer = {name: settle(recipe.ask(name)).epochs / 200 for name, recipe in PUBLISHED.items()}
    costs = [round(kept[name].training / kept["ce"].training * share, 2) for name, share in longer.items()]
    assert costs == sorted(costs)


def entries(folder: Path, text: str) -> list[Settings]:
    (folder / "wanted.toml").write_text(text, encoding="utf-8")
    return [w.settings for w in read_wanted(folder / "wanted.toml")]


def test_a_list_takes_the_settings_of_a_published_recipe_from_the_table(tmp_path: Path) -> None:
    made = entries(
        tmp_path, '[[run]]\nrecipe = "published"\nmethod = ["paco", "mislas"]\nimbalance = 50\nseed = [0, 1]'
    )
    asked = [PUBLISHED[name].ask(name, 50, seed=seed) for name in ("paco", "mislas") for seed in (0, 1)]
    assert made == [settle(one) for one in asked]
    assert (made[0].epochs, made[0].augmentation, made[-1].head_smoothing) == (400, "autoaugment+cutout", 0.3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('recipe = "own"', "run 1: recipe is 'own': it must be \"published\""),
        ('recipe = "published"\nmethod = "glmc"', "run 1: no published recipe is called 'glmc'. There are: bib, "),
        ('recipe = "published"\nmethod = 3', "run 1: method is 3: it must be text"),
        ('recipe = "published"\nrate = 0.3', "run 1: rate is given, which a published recipe says: leave one of them"),
        (
            'recipe = "published"\nchoose = { beta = [1, 2] }',
            "run 1: a published recipe leaves nothing to choose: leave",
        ),
        ('recipe = "published"\nimbalance = 1000', "run 1: imbalance factor 1000 leaves the last class empty"),
    ],
)
@pytest.mark.fault("a list that asks for published recipes as {text:.80}")
def test_a_recipe_that_cannot_be_followed_is_refused_with_the_entry(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        entries(tmp_path, f"[[run]]\n{text}")


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody counts multiply-adds, which takes half a second a row."""
    monkeypatch.setattr(standings, "training_multiply_adds", lambda *_: 1)


def test_the_two_tables_share_no_run_but_those_of_the_common_recipe(uncounted) -> None:
    ours, common = PUBLISHED["focal"].ask("focal"), Settings(data="cifar100-lt", method="focal")
    records = [record(ours, 0.5), record(replace(ours, seed=1), 0.52), record(common, 0.4)]
    records.append(record(PUBLISHED["bib"].ask("bib"), 0.42))
    by_one = {row.name: row.accuracy["all"] for row in standings.reached(records, data="cifar100-lt")}
    rows = {row.name: row for row in standings.reached_as_published(records)}
    assert by_one == {"bib": pytest.approx([42.0]), "focal": pytest.approx([40.0])}
    assert {name: row.accuracy["all"] for name, row in rows.items()} == {
        "bib": pytest.approx([42.0]),
        "focal": pytest.approx([50.0, 52.0]),
    }
    cells = standings.cells_as_published(rows["focal"])
    assert (cells["published"], cells["difference"], cells["printed in"]) == ("38.4", "+12.6", "paper, table 1")
    assert not standings.reached_as_published(records, imbalance=50)
    text = standings.show_as_published(list(rows.values()), imbalance=100)
    assert standings.differences(["ce", "sade", "focal"])[PUBLISHED["ce"].differs] == ["ce", "focal"]
    assert f"  focal: {PUBLISHED['focal'].differs}" in text
    assert "not run: mbib, ce, " in text
    assert f"  glmc: {OUT_OF_REACH['glmc']}" in text
    nothing = standings.show_as_published([], imbalance=100)
    assert f"not run: {', '.join(PUBLISHED)}" in nothing


def test_a_longer_run_costs_more_and_one_without_a_published_number_has_no_difference() -> None:
    (row,) = standings.reached_as_published([record(PUBLISHED["rbl"].ask("rbl"), 0.5)])
    assert row.training == pytest.approx(3 * overview.costs()["rbl"].training)
    cells = standings.cells_as_published(row)
    assert (cells["published"], cells["difference"], cells["printed in"]) == ("", "", "not seen")


# Chosen with the same effort

CHOOSE = """
[[run]]
data = "cifar100-lt"
schedule = "paper"
seed = [0, 1, 2]
method = ["bib", "focal"]
choose = { {} = [0.5, 1, 2], seed = 0 }
"""


@pytest.fixture
def choices(tmp_path: Path) -> Callable[..., Any]:
    def read(method: str, constant: str, *more: str) -> Any:
        text = CHOOSE.replace("{}", constant).replace('["bib", "focal"]', f'"{method}"')
        (tmp_path / "wanted.toml").write_text("\n".join([text, *more]), encoding="utf-8")
        return read_choices(tmp_path / "wanted.toml")

    return read


def runs(choice: Any, validation: dict[float, float], test: dict[float, list[float]], name: str) -> list[dict]:
    """Runs that choose, by value, and final runs, by value and seed."""
    tried = [record(s, 0.0, validation[s.own[name]]) for s in choice.choosing if s.own[name] in validation]
    values = [(c, seed, share) for c in choice.candidates for seed, share in enumerate(test.get(c.own[name], []))]
    return tried + [record(replace(c, seed=seed), share) for c, seed, share in values]


WHERE = {"data": "cifar100-lt", "known": Noise(1.0, 20)}


def test_what_was_chosen_stands_beside_the_usual_value_with_the_difference_on_test_images(choices) -> None:
    (choice,) = choices("focal", "focus")
    made = runs(choice, {0.5: 0.3, 1: 0.4, 2: 0.5}, {1: [0.40], 2: [0.42, 0.44]}, "focus")
    (row,) = standings.tuned([choice], made, **WHERE)
    assert (row.method, row.constant, row.usual, row.chosen) == ("focal", "focus", 1.0, 2.0)
    assert row.scores == {0.5: pytest.approx([30.0]), 1.0: pytest.approx([40.0]), 2.0: pytest.approx([50.0])}
    assert (row.at_usual, row.at_chosen) == (pytest.approx([40.0]), pytest.approx([42.0, 44.0]))
    assert row.gain is not None
    assert row.gain.mean == pytest.approx(3.0)
    half = standings.compare.student_t(20) * (1 / 1 + 1 / 2) ** 0.5
    assert row.gain.high - row.gain.mean == pytest.approx(half), "the spread is borrowed"
    text = standings.show_tuned([row], WHERE["known"])
    assert "1 of 1 choices are made" in text
    assert "0.5: 30.0, 1: 40.0, 2: 50.0" in text.replace("\u00a0", " ")


def test_nothing_is_chosen_while_a_run_is_missing_and_the_usual_value_is_compared_with_nothing(choices) -> None:
    (choice,) = choices("focal", "focus")
    (row,) = standings.tuned([choice], runs(choice, {0.5: 0.3, 2: 0.5}, {1: [0.4], 2: [0.5]}, "focus"), **WHERE)
    assert (row.chosen, row.at_chosen, row.gain) == (None, [], None)
    assert row.scores[1.0] == []
    made = runs(choice, {0.5: 0.3, 1: 0.6, 2: 0.5}, {1: [0.4]}, "focus")
    (row,) = standings.tuned([choice], made, **WHERE)
    assert (row.chosen, row.at_chosen, row.gain) == (1.0, row.at_usual, None)
    assert standings.cells_of_choice(row)["test, chosen"] == "as usual"
    (row,) = standings.tuned([choice], [], **WHERE)
    assert standings.show_tuned([row], None).endswith("0 of 1 choices are made")


def test_other_data_other_schedules_and_what_is_no_constant_of_a_method_are_left_out(choices) -> None:
    more = [
        '[[run]]\nmethod = "focal"\nchoose = { focus = [1, 2] }',
        "[[run]]\nchoose = { weight_decay = [1e-4, 1e-3] }",
    ]
    found = choices("focal", "focus", *more)
    assert len(found) == 3
    assert [row.method for row in standings.tuned(found, [], data="cifar100-lt")] == ["focal"]
    assert [row.method for row in standings.tuned(found, [])] == ["focal"]
    assert not standings.tuned(found, [], data="cifar100-lt", schedule="short")
    assert not standings.tuned(found, [], data="cifar100-lt", imbalance=50)


@pytest.mark.parametrize("data", ["glyphs-lt", "cifar100-lt"])
def test_the_books_list_tries_three_values_of_each_constant_the_usual_one_among_them(data: str) -> None:
    rows = standings.tuned(read_choices(LIST), [], data=data)
    assert len(rows) > 30
    assert len({row.method for row in rows}) == len(rows)
    for row in rows:
        assert len(row.scores) == 3
        assert row.usual in row.scores, row.method


def test_the_command_prints_three_tables_and_reads_the_choices_of_the_folders_list(
    choices, tmp_path: Path, capsys: pytest.CaptureFixture, uncounted
) -> None:
    (choice,) = choices("focal", "focus")
    made = runs(choice, {0.5: 0.3, 1: 0.4, 2: 0.5}, {1: [0.40], 2: [0.42, 0.44]}, "focus")
    for one in [*made, record(PUBLISHED["lade"].ask("lade"), 0.5)]:
        write_record(one, tmp_path)
    assert cli.main(["table", str(tmp_path), "--methods", "--data", "cifar100-lt"]) == 0
    first, rest = capsys.readouterr().out.split("Each its own recipe, as published: cifar100-lt, factor 100")
    second, third = rest.split("Constants chosen on validation images")
    assert re.search(r"^ *focal .* 40\.0 ", first, re.M)
    assert not re.search(r"^ *lade ", first, re.M)
    assert re.search(r"^ *lade +50\.0 +1 +45\.4 +\+4\.6 ", second, re.M)
    assert not re.search(r"^ *focal .* 4\d\.\d ", second, re.M)
    assert re.search(r"^ *focal +focus .* 43\.0", third, re.M)
    assert cli.main(["table", str(tmp_path), "--methods"]) == 0
    assert "that is for --data cifar100-lt" in capsys.readouterr().out
