"""Comparing runs: by seed, paired, and no more said than the seeds show."""

import math
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbib_core import compare, results

RECORDS = Path(__file__).parent.parent / "book" / "results"
numbers = st.floats(-100, 100, allow_nan=False)


def run(seed, accuracy, purpose="final", default="mean"):
    part = {"accuracy": {default: {"all": accuracy}}, "default": default}
    settings = results.Settings(seed=seed, purpose=purpose).plain()
    other = {"validation": part} if purpose == "choosing" else {"test": part, "validation": {"accuracy": {}}}
    return {"run_id": f"run-{seed}", "settings": settings} | other


def test_accuracy_by_seed_is_of_the_test_set_or_of_validation_for_choosing():
    assert compare.by_seed([run(3, 0.5), run(1, 0.25)]) == {3: 50, 1: 25}
    assert compare.by_seed([run(0, 0.5, "choosing")]) == {0: 50}
    assert compare.by_seed([run(0, 0.5)], "few") == compare.by_seed([run(0, 0.5)], by="z") == {}


def test_validation_can_be_asked_of_a_final_run():
    final, choosing = run(0, 0.5), run(1, 0.25, "choosing")
    final["validation"] = {"accuracy": {"mean": {"all": 0.75}}, "default": "mean"}
    assert compare.by_seed([final, choosing], on="validation") == {0: 75, 1: 25}
    assert compare.by_seed([final, choosing], on="test") == {0: 50}


def test_the_standard_error_of_a_mean():
    assert compare.standard_error([1.0, 3.0]) == pytest.approx(1)
    assert compare.standard_error([1.0, 3.0] * 8) == pytest.approx(0.25 * (16 / 15) ** 0.5)
    assert math.isnan(compare.standard_error([1.0]))


def test_two_settings_are_not_mixed_under_one_seed():
    with pytest.raises(ValueError, match="seed 2"):
        compare.by_seed([run(2, 0.5), run(2, 0.6)])


def test_by_seed_agrees_with_the_table():
    records = results.find(results.read_records(RECORDS), data="glyphs-lt", method="ce")
    values = compare.by_seed(records, "few")
    row = results.table(records).iloc[0]
    assert len(values) > 1
    assert statistics.fmean(values.values()) == pytest.approx(row[("few", "mean")])
    assert compare.spread(list(values.values())) == f"{row[('few', 'mean')]:.1f}\u00a0±\u00a0{row[('few', 'std')]:.1f}"


def test_only_shared_seeds_are_paired():
    assert compare.paired({0: 5.0, 2: 1.0, 1: 3.0}, {1: 1.0, 0: 1.0, 7: 9.0}) == [4, 2]


@given(st.dictionaries(st.integers(0, 9), numbers), st.dictionaries(st.integers(0, 9), numbers))
def test_differences_turn_their_sign_with_the_order(one, other):
    assert compare.paired(one, other) == [-d for d in compare.paired(other, one)]


def test_spread_says_no_deviation_where_there_is_none():
    assert compare.spread([]) == "–"
    assert compare.spread([1.25]) == "1.2"
    assert compare.spread([1.0, 3.0], "+.1f") == "+2.0\u00a0±\u00a01.4"
    assert (compare.seeds(1), compare.seeds(5)) == ("1 seed", "5 seeds")


@given(st.lists(numbers, max_size=8))
def test_a_verdict_is_clear_only_where_three_or_more_seeds_agree(values):
    agree = len(values) >= 3 and (all(v > 0 for v in values) or all(v < 0 for v in values))
    assert bool(compare.clear(values)) == agree
    assert ("agree in the sign" in compare.verdict(values)) == agree
    assert compare.clear([-v for v in values]) == -compare.clear(values)


@pytest.mark.parametrize(
    ("differences", "sign", "words"),
    [
        ([1.0, 2.0, 3.0], 1, "+2.0 points; all 3 seeds agree in the sign"),
        (
            [-1.0, -2.0, -3.0],
            -1,
            "-2.0 points; all 3 seeds agree in the sign, by luck alone this happens once in 4 times",
        ),
        ([-1.0, -2.0, 6.0, 1.0], 0, "+1.0 points; positive for 2 of 4 seeds"),
        ([-1.0, -2.0, -6.0, 1.0], 0, "-2.0 points; positive for 1 of 4 seeds"),
    ],
)
def test_the_sign_of_a_verdict_is_that_of_the_differences(differences, sign, words):
    assert compare.clear(differences) == sign
    assert compare.verdict(differences).startswith(words)
