"""Comparing runs: as independent samples, and no more said than their interval shows."""

import math
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from mbib_core import compare, results
from mbib_core.methods import settle
from mbib_core.settings import run_id

RECORDS = Path(__file__).parent.parent / "book" / "results"


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
    records = compare.runs_of(results.read_records(RECORDS), settle(results.Settings(method="ce")))
    values = compare.by_seed(records, "few")
    row = results.table(records).iloc[0]
    assert len(values) > 1
    assert statistics.fmean(values.values()) == pytest.approx(row[("few", "mean")])
    assert compare.spread(list(values.values())) == f"{row[('few', 'mean')]:.1f}\u00a0±\u00a0{row[('few', 'std')]:.1f}"


def test_spread_says_no_deviation_where_there_is_none():
    assert compare.spread([]) == "–"
    assert compare.spread([1.25]) == "1.2"
    assert compare.spread([1.0, 3.0], "+.1f") == "+2.0\u00a0±\u00a01.4"


samples = st.lists(st.floats(0, 100), min_size=2, max_size=9)


@pytest.mark.parametrize("freedom", [1, 2, 2.7, 4, 7.31, 30, 200.5])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_students_t_is_scipys(freedom, level):
    assert compare.student_t(freedom, level) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)


def test_students_t_has_its_closed_forms_at_one_and_two():
    assert compare.student_t(1) == pytest.approx(math.tan(math.pi / 2 * 0.95))
    assert compare.student_t(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)))


@given(st.floats(0.3, 60), st.floats(0.3, 60), st.floats(0, 1))
def test_the_incomplete_beta_is_scipys(a, b, x):
    assert compare.incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), abs=1e-11)


@given(samples, samples)
def test_a_difference_has_welchs_interval(one, other):
    found = compare.difference(one, other)
    if np.std(one) + np.std(other) > 1e-3:
        theirs = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-7)
    assert found.n == (len(one), len(other))
    assert found.low <= found.mean <= found.high
    turned = compare.difference(other, one)
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-found.mean, -found.high, -found.low))
    assert turned.sign == -found.sign


def test_an_interaction_is_the_difference_of_two_differences():
    a, b, c, d = [1.0, 2.0, 4.0], [0.0, 3.0], [5.0, 6.0, 7.0, 9.0], [2.0, 2.5]
    found = compare.contrast([(1, a), (-1, b), (-1, c), (1, d)])
    assert found.mean == pytest.approx(np.mean(a) - np.mean(b) - np.mean(c) + np.mean(d))
    parts = [np.var(x, ddof=1) / len(x) for x in (a, b, c, d)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (a, b, c, d), strict=True))
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts)))
    assert found.n == (5, 6)
    halved = compare.contrast([(0.5, a), (-0.5, b)])
    assert halved[:3] == pytest.approx(np.array(compare.difference(a, b)[:3]) / 2)


def test_equal_spreads_and_sizes_give_the_t_of_both_together():
    found = compare.difference([1.0, 3.0], [0.0, 2.0])  # sd sqrt(2) on both sides, 2 degrees of freedom
    half = compare.student_t(2) * math.sqrt(2)
    assert (found.mean, found.low, found.high) == pytest.approx((1, 1 - half, 1 + half))


@pytest.mark.parametrize(("n", "m", "wide"), [(5, 5, 1), (5, 10, 1), (5, 5, 4), (3, 10, 2)])
@pytest.mark.slow
def test_the_interval_holds_the_true_difference_in_95_of_100_experiments(n, m, wide):
    rng = np.random.default_rng(0)
    draws = 800
    a, b = rng.normal(3, 1, (draws, n)), rng.normal(1, wide, (draws, m))
    found = [compare.difference(x, y) for x, y in zip(a, b, strict=True)]
    covered = np.mean([d.low <= 2 <= d.high for d in found])
    assert covered == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (3, 10), (97, 100), (0, 40)])
def test_the_interval_of_a_share_is_wilsons(right, n):
    found = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert compare.share_interval(right, n) == pytest.approx((found.low, found.high), abs=1e-6)
    assert compare.share_interval(0, 0) == (0, 1)


def test_one_run_has_no_interval_unless_the_noise_of_a_run_is_known():
    found = compare.difference([45.0], [41.0, 42.0])
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.sign == 0
    known = compare.noise([[1.0, 3.0], [4.0, 6.0, 5.0], [9.0]])
    assert known == pytest.approx((math.sqrt((2 + 2) / 3), 3))
    found = compare.difference([45.0], [41.0, 42.0], known=known)
    assert found.high - found.mean == pytest.approx(compare.student_t(3) * known.sd * math.sqrt(1.5))


def test_a_mean_has_students_interval_or_that_of_known_noise():
    known = compare.Noise(0.7, 9)
    low, high = stats.t.interval(0.95, 2, 2, stats.sem([1.0, 2.0, 3.0]))
    assert compare.around([1.0, 2.0, 3.0]) == pytest.approx((2, low, high))
    half = stats.t.ppf(0.975, 9) * 0.7
    assert compare.around([5.0], known) == pytest.approx((5, 5 - half, 5 + half))
    assert compare.around([4.0, 6.0], known) == pytest.approx((5, 5 - half / 2**0.5, 5 + half / 2**0.5))
    assert compare.around([5.0])[0] == 5
    assert math.isnan(compare.around([5.0])[1])
    with pytest.raises(ValueError, match="no values"):
        compare.around([])


def test_the_noise_within_settings_needs_two_runs_of_one():
    with pytest.raises(ValueError, match="two runs"):
        compare.noise([[1.0], []])


def test_a_difference_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 and 2"):
        compare.difference([], [1.0, 2.0])


@given(samples, samples)
def test_a_verdict_names_a_side_exactly_where_the_interval_has_one(one, other):
    found = compare.difference(one, other)
    words = compare.verdict(found)
    assert words.startswith("higher") == (found.low > 0) == (found.sign == 1)
    assert words.startswith("lower") == (found.high < 0) == (found.sign == -1)
    assert words.startswith("not resolved") == (found.low <= 0 <= found.high)


@pytest.mark.parametrize(
    ("found", "words", "short"),
    [
        (compare.Difference(2.0, 0.7, 3.4, (10, 10)), "higher by 2.0 points (95 % interval 0.7 to 3.4)",
         "+2.0 (+0.7 to +3.4)"),
        (compare.Difference(-3.0, -4.6, -1.3, (10, 10)), "lower by 3.0 points (95 % interval 1.3 to 4.6)",
         "−3.0 (−4.6 to −1.3)"),
        (compare.Difference(0.9, -1.7, 3.5, (5, 5)), "not resolved: +0.9 points (95 % interval −1.7 to +3.5)",
         "+0.9 (−1.7 to +3.5)"),
        (compare.difference([45.2], [41.0]), "+4.2 points; one run each, no interval", "+4.2"),
        (compare.difference([45.2], [41.0] * 3), "+4.2 points; 1 and 3 runs, no interval", "+4.2"),
    ],
)  # fmt: skip
def test_a_verdict_in_words(found, words, short):
    assert compare.verdict(found) == words
    assert str(found) == short


def test_signs_are_printed_as_such():
    assert [compare.signed(x) for x in (0.04, -0.04, -1.25, 3)] == ["0.0", "0.0", "−1.2", "+3.0"]


def test_accuracies_are_one_value_a_run_in_their_order():
    assert compare.accuracies([run(3, 0.5), run(3, 0.75), run(1, 0.25)]) == [50, 75, 25]
    assert compare.accuracies([run(0, 0.5)], "few") == compare.accuracies([run(0, 0.5)], by="z") == []
    assert compare.accuracies([run(0, 0.5, "choosing")]) == [50]
    with pytest.raises(ValueError, match="differs from the first of these runs in purpose"):
        compare.accuracies([run(0, 0.5), run(1, 0.5, "choosing")])


def test_a_run_by_another_recipe_is_none_of_the_plain_method():
    plain = settle(results.Settings(method="mbib", beta=2.0, seed=3))
    other = [{"augmentation": "cutout"}, {"average": "ema"}, {"weight_decay": 1e-3}, {"epochs": 48}, {"rate": 0.1}]
    other += [{"test_curve": True}, {"flip": False}, {"precision": "bfloat16"}]
    changed = [settle(replace(plain, **setting)) for setting in other]
    records = [{"run_id": run_id(s), "settings": s.plain()} for s in (plain, *changed)]
    assert compare.by_recipe(records) == records[:1]
    assert compare.runs_of(records, plain) == records[:1]


def test_what_the_best_epoch_on_the_test_set_would_have_added_is_of_runs_that_scored_every_epoch() -> None:
    curve = [{"all": 0.4, "few": 0.1}, {"all": 0.5, "few": 0.2}, {"all": 0.5, "few": 0.9}, {"all": 0.47, "few": 0.25}]
    runs = [{"history": {"test_curve": curve}}, {"history": {}}, {"history": {"test_curve": curve[:2]}}]
    assert compare.flattery(runs) == pytest.approx([3.0, 0.0])
    assert compare.flattery(runs, "few") == pytest.approx([-5.0, 0.0]), "of the epoch that all classes choose"
    assert compare.flattery(runs, until=3) == pytest.approx([0.0, 0.0])
    assert compare.flattery(runs, "few", until=3) == pytest.approx([-70.0, 0.0]), "of equals the first"


def test_a_loss_with_two_names_has_one_run_of_each_seed() -> None:
    named, twin = ([{"run_id": f"{name}{s}", "settings": {"seed": s}} for s in seeds]
                   for name, seeds in (("bib", (0,)), ("bsce-2branch", (2, 0, 1))))  # fmt: skip
    assert [r["run_id"] for r in compare.of_each_seed(named, twin)] == ["bib0", "bsce-2branch1", "bsce-2branch2"]


def test_the_double_run_of_two_balanced_branches_is_the_same_training_to_the_last_digit() -> None:
    two_names = results.Settings(method="bib", beta=0.0), results.Settings(method="bsce-2branch")
    one, other = (compare.runs_of(results.read_records(RECORDS), settle(s)) for s in two_names)
    both = {r["settings"]["seed"]: r for r in other}
    for record in one:
        assert record["history"]["loss"] == both[record["settings"]["seed"]]["history"]["loss"]
    assert len(compare.of_each_seed(one, other)) == len(other)
