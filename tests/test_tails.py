"""The pictures of the first two chapters: printed shares are integrals over the whole plane, and the words are true."""

import math
from pathlib import Path

import numpy as np
import pytest

from mbib_core import figures, results

CENTRES = np.array([[-1.2, -0.7], [1.2, -0.7], [0.0, 1.4]])
SIZES = np.array([1, 0.5, 0])


def normal(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


@pytest.mark.parametrize("centres", [[[-1, 0], [1, 0]], [[0.3, -1.1], [0.3, 0.9]]])
@pytest.mark.parametrize("factor", [1, 7, 1000])
def test_the_shares_of_two_classes_are_those_of_the_closed_form(centres, factor):
    distance = math.dist(*centres)
    shift = math.log(factor) / distance
    expected = [normal(distance / 2 + shift), normal(distance / 2 - shift)]
    assert figures.region_shares(np.array(centres), [math.log(factor), 0]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("factor", [1, 100, 1000])
def test_the_shares_of_three_classes_are_those_of_a_large_sample(factor):
    random = np.random.default_rng(0)
    log_factors = math.log(factor) * SIZES
    for i, share in enumerate(figures.region_shares(CENTRES, log_factors)):
        v = CENTRES[i] + random.standard_normal((400_000, 2))
        scores = -0.5 * ((v[:, None] - CENTRES) ** 2).sum(-1) + log_factors
        assert share == pytest.approx((scores.argmax(1) == i).mean(), abs=0.003)


def test_the_printed_shares_are_not_those_of_the_window():
    """A reader's integration over the whole plane; over the window of 8 by 8 they were up to a point lower."""
    shares = figures.region_shares(CENTRES, math.log(1000) * SIZES)
    assert [f"{share:.0%}" for share in shares] == ["100%", "41%", "4%"]
    label = figures.class_regions(CENTRES, -1.2 * math.log(100) * SIZES, "abc").get_label()
    assert "a 12%, b 53% and c 99%" in label


def test_paths_of_boundaries_are_compared_at_a_moment_that_all_have_reached():
    short, long = np.array([1.0, 10.0, 100.0]), np.array([1.0, 10.0, 100.0, 1000.0])
    paths = {"ce": (short, np.array([3.0, 2.0, 1.0])), "bsce": (long, np.array([0.4, 0.3, 0.2, 0.1]))}
    label = figures.boundary_paths({"p": paths}, shown=(0, 3)).get_label()
    assert "cross-entropy 1.00 and balanced softmax 0.20" in label


@pytest.mark.parametrize(("right", "words"), [(0.76, "within its sampling noise"), (0.2, "far below the diagonal")])
def test_noise_is_not_told_as_a_finding(right, words):
    bins = {"count": [400], "confidence": [0.74], "accuracy": [right], "error": abs(right - 0.74)}
    assert words in figures.calibration_bins({"p": bins}, of="of all").get_label()


def test_the_second_step_of_the_three_bars_is_what_the_records_say():
    """Without a tail, the classes that are rare in Glyphs-LT are read: nothing but examples was missing."""
    folder = Path(__file__).parents[1] / "book" / "results"
    records = results.read_records(folder)
    even = results.find(records, data="glyphs-lt", imbalance=1, method="ce")
    tail = next(iter(results.find(records, data="glyphs-lt", imbalance=100, method="ce", purpose="final")))["counts"]
    few = [i for i, n in enumerate(tail) if n < 20]
    assert len(even) == 3
    assert all(set(r["counts"]) == {140} for r in even)
    assert all(np.mean([r["test"]["by_class"]["v"][i] for i in few]) > 0.99 for r in even)
