"""The metrics against naive loops, hand-made geometry and scikit-learn."""

import math
from collections.abc import Callable

import jaxtyping
import pytest
import torch
from beartype import beartype
from conftest import softmax
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import recall_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from mbib_core import metrics

NAN = float("nan")


@st.composite
def labelled(draw: st.DrawFn, width: int | None = None) -> tuple[Tensor, Tensor, int]:
    """Values [N, D], targets [N] and C: some classes have no picture."""
    classes, n = draw(st.integers(2, 6)), draw(st.integers(1, 30))
    targets = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    random = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    values = 3 * torch.randn(n, width or classes, generator=random)
    return values, torch.tensor(targets), classes


def same(found: list[float], expected: list[float], tolerance: float = 1e-9) -> bool:
    return found == pytest.approx(expected, rel=tolerance, abs=tolerance, nan_ok=True)


# Accuracy


@given(labelled())
def test_accuracy_by_class_is_the_share_of_right_pictures_of_each_class(given_: tuple[Tensor, Tensor, int]) -> None:
    logits, targets, classes = given_
    expected = []
    for label in range(classes):
        own = [row for row, y in zip(logits.tolist(), targets.tolist(), strict=True) if y == label]
        expected.append(sum(row.index(max(row)) == label for row in own) / len(own) if own else NAN)
    assert same(metrics.accuracy_by_class(logits, targets).tolist(), expected)
    present = sorted(set(targets.tolist()))
    recall = recall_score(targets, logits.argmax(1), labels=present, average=None)
    assert same(metrics.accuracy_by_class(logits, targets)[present].tolist(), recall.tolist())


def test_means_by_shot_are_over_classes_not_pictures_and_leave_out_classes_without_pictures() -> None:
    values = torch.tensor([1.0, 0.5, NAN, 0.25], dtype=torch.float64)
    shots = {
        "many": torch.tensor([True, True, False, False]),
        "medium": torch.tensor([False, False, True, True]),
        "few": torch.tensor([False, False, True, False]),
    }
    found = metrics.by_shot(values, shots)
    assert found == {"all": pytest.approx(1.75 / 3), "many": 0.75, "medium": 0.25}
    assert "few" not in found, "a shot without any accuracy is absent, not zero or NaN"


def test_a_shot_without_classes_is_absent() -> None:
    found = metrics.by_shot(torch.tensor([1.0, 0.0]), {"many": torch.tensor([True, True])})
    assert found == {"all": 0.5, "many": 0.5}


# Posteriors and calibration


@pytest.mark.equation(14)
@given(labelled())
def test_posterior_means_average_the_own_class_probability_of_each_class(
    given_: tuple[Tensor, Tensor, int],
) -> None:
    logits, targets, classes = given_
    expected = []
    for label in range(classes):
        own = [softmax(f)[label] for f, y in zip(logits.tolist(), targets.tolist(), strict=True) if y == label]
        expected.append(math.fsum(own) / len(own) if own else NAN)
    assert same(metrics.posterior_means(logits, targets).tolist(), expected)


@pytest.mark.equation(14)
def test_a_perfect_posterior_has_mean_one() -> None:
    targets = torch.tensor([0, 1, 1, 2])
    assert metrics.posterior_means(1e4 * torch.eye(3)[targets], targets).tolist() == [1, 1, 1]


@given(labelled(), st.integers(1, 20))
def test_calibration_is_that_of_a_loop_over_bins(given_: tuple[Tensor, Tensor, int], bins: int) -> None:
    logits, targets, _ = given_
    content: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for f, y in zip(logits.tolist(), targets.tolist(), strict=True):
        p = softmax(f)
        content[min(int(max(p) * bins), bins - 1)].append((max(p), p.index(max(p)) == y))
    n = len(targets)
    confidence = [math.fsum(c for c, _ in b) / len(b) if b else 0.0 for b in content]
    accuracy = [sum(right for _, right in b) / len(b) if b else 0.0 for b in content]
    error = math.fsum(abs(a - c) * len(b) / n for a, c, b in zip(accuracy, confidence, content, strict=True))
    found = metrics.calibration(logits, targets, bins=bins)
    assert found["count"] == [len(b) for b in content]
    assert same(found["confidence"], confidence)
    assert same(found["accuracy"], accuracy)
    assert found["error"] == pytest.approx(error, abs=1e-9)


def test_a_confidence_on_the_edge_of_two_bins_counts_in_the_upper_and_one_in_the_last() -> None:
    half, sure = [0.0, 0.0], [1e4, 0.0]
    found = metrics.calibration(torch.tensor([half, sure, sure]), torch.tensor([0, 0, 1]), bins=4)
    assert found["count"] == [0, 0, 1, 2]
    assert found["confidence"] == [0, 0, 0.5, 1]
    assert found["accuracy"] == [0, 0, 1, 0.5]
    assert found["error"] == pytest.approx(1 / 3 * 0.5 + 2 / 3 * 0.5)


def test_calibration_of_no_pictures_has_empty_bins() -> None:
    found = metrics.calibration(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), bins=3)
    assert found["count"] == [0, 0, 0]


# Distances


@pytest.mark.equation(15)
@pytest.mark.equation(16)
@pytest.mark.equation(17)
@given(labelled(width=3))
def test_distances_are_those_of_naive_loops_over_classes_and_ordered_pairs(
    given_: tuple[Tensor, Tensor, int],
) -> None:
    features, targets, classes = given_
    rows = {i: [f for f, y in zip(features.tolist(), targets.tolist(), strict=True) if y == i] for i in range(classes)}
    rows = {i: own for i, own in rows.items() if own}
    centres = {i: [math.fsum(column) / len(own) for column in zip(*own, strict=True)] for i, own in rows.items()}
    intra = math.fsum(math.fsum(math.dist(f, centres[i]) for f in own) / len(own) for i, own in rows.items()) / len(
        rows
    )
    pairs = [math.dist(centres[i], centres[j]) for i in centres for j in centres if i != j]
    inter = math.fsum(pairs) / len(pairs) if pairs else NAN
    found = metrics.distances(features, targets)
    assert same([found["intra"], found["inter"], found["rho"]], [intra, inter, intra / inter if pairs else NAN], 1e-6)


@pytest.mark.equation(15)
@pytest.mark.equation(16)
@pytest.mark.equation(17)
def test_rho_of_two_squares_drawn_by_hand() -> None:
    """Corners of a square of side 2 around (0, 0) and of side 4 around (10, 0)."""
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    features = torch.cat([corners, 2 * corners + torch.tensor([10.0, 0])])
    found = metrics.distances(features, torch.tensor([0] * 4 + [3] * 4))
    assert found["intra"] == pytest.approx((math.sqrt(2) + 2 * math.sqrt(2)) / 2)
    assert found["inter"] == pytest.approx(10)
    assert found["rho"] == pytest.approx(0.15 * math.sqrt(2))


@pytest.mark.equation(15)
def test_a_large_class_does_not_outweigh_a_small_one() -> None:
    wide, narrow = [[-4.0], [4.0]], [[99.0], [101.0]]
    found = metrics.distances(torch.tensor(wide * 50 + narrow), torch.tensor([0] * 100 + [1] * 2))
    assert found["intra"] == pytest.approx((4 + 1) / 2)


@pytest.mark.equation(17)
def test_distances_by_shot_take_centres_and_pairs_within_the_shot() -> None:
    features = torch.tensor([[0.0], [2.0], [10.0], [12.0], [100.0], [106.0]])
    targets = torch.tensor([0, 0, 1, 1, 2, 2])
    shots = {"many": torch.tensor([True, True, False]), "few": torch.tensor([False, False, True])}
    found = metrics.distances_by_shot(features, targets, shots)
    assert found["many"] == {"intra": 1, "inter": 10, "rho": pytest.approx(0.1)}
    assert found["few"]["intra"] == 3
    assert math.isnan(found["few"]["inter"]), "one class has no pair"
    assert found["all"]["inter"] == pytest.approx((10 + 102 + 92) / 3)


def test_distances_of_no_pictures_are_nan() -> None:
    found = metrics.distances(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.equation(17)
@given(labelled(width=4), st.floats(0.5, 20), st.floats(-5, 5))
def test_rho_knows_neither_scale_nor_place(given_: tuple[Tensor, Tensor, int], scale: float, shift: float) -> None:
    features, targets, _ = given_
    straight = metrics.distances(features.double(), targets)["rho"]
    moved = metrics.distances(features.double() * scale + shift, targets)["rho"]
    assert moved == pytest.approx(straight, rel=1e-6, abs=1e-9, nan_ok=True)


# Neighbours


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from([1, 3, 10]))
def test_neighbour_accuracy_is_leave_one_out_as_scikit_learn_does_it(seed: int, neighbours: int) -> None:
    random = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (40,), generator=random)
    features = torch.randn(40, 4, generator=random) + targets[:, None]
    right = []
    for i in range(40):
        others = [j for j in range(40) if j != i]
        oracle = KNeighborsClassifier(neighbours).fit(features[others].numpy(), targets[others].numpy())
        right.append(int(oracle.predict(features[i : i + 1].numpy())[0]) == int(targets[i]))
    expected = [
        sum(r for r, y in zip(right, targets.tolist(), strict=True) if y == c) / max(1, int((targets == c).sum()))
        for c in range(3)
    ]
    found = metrics.neighbour_accuracy(features, targets, 4, neighbours=neighbours).tolist()
    assert found[:3] == pytest.approx(expected, nan_ok=True)
    assert math.isnan(found[3]), "a class without pictures"


def test_a_picture_is_not_its_own_neighbour_also_in_later_chunks() -> None:
    """Pairs of far-apart twins with different labels: whoever counts itself is right, whoever does not is wrong."""
    places = torch.arange(1100, dtype=torch.float64).repeat_interleave(2)
    features = torch.stack([places * 10, torch.zeros(2200)], 1)
    targets = torch.tensor([0, 1] * 1100)
    assert metrics.neighbour_accuracy(features, targets, 2, neighbours=1).tolist() == [0, 0]


def test_twins_far_from_the_origin_are_still_nearest() -> None:
    """Distances by way of inner products lose small differences between large features."""
    places = torch.arange(60, dtype=torch.float32)[:, None] * 5
    features = torch.cat([places, places + 1]) + 4000 * torch.ones(1, 64)
    targets = torch.arange(60).repeat(2)
    assert metrics.neighbour_accuracy(features, targets, 60, neighbours=1).tolist() == [1.0] * 60


def test_more_neighbours_than_pictures_vote_with_all_others() -> None:
    found = metrics.neighbour_accuracy(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1]), 2)
    assert found.tolist() == [1, 0], "the first two have a tie, which goes to the smaller label"


@pytest.mark.parametrize("n", [0, 1])
def test_neighbours_of_a_lone_picture_do_not_exist(n: int) -> None:
    found = metrics.neighbour_accuracy(torch.zeros(n, 2), torch.zeros(n, dtype=torch.int64), 3)
    assert all(math.isnan(value) for value in found.tolist())


def test_labels_may_be_bytes() -> None:
    y = torch.arange(20).repeat(2)
    found = metrics.confusion(torch.nn.functional.one_hot(y).float(), y.to(torch.uint8))
    assert torch.equal(found, 2 * torch.eye(20, dtype=torch.int64)), "20 times 20 is past the largest byte"


def test_the_shapes_in_the_signatures_are_checked_and_true() -> None:
    f, y = torch.rand(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    shots = {"few": torch.tensor([True, True, False])}
    typed = {
        name: jaxtyping.jaxtyped(typechecker=beartype)(getattr(metrics, name))
        for name in ("accuracy_by_class", "confusion", "by_shot", "posterior_means", "distances", "neighbour_accuracy")
    }
    for name in ("accuracy_by_class", "confusion", "posterior_means", "distances"):
        typed[name](f, y)
        with pytest.raises(Exception, match="targets"):
            typed[name](f, y[:5])
    typed["by_shot"](typed["neighbour_accuracy"](f, y, 3), shots)
    with pytest.raises(Exception, match="shots"):
        typed["by_shot"](torch.ones(4), shots)


def test_a_class_with_a_probability_of_zero_can_be_scored() -> None:
    logits = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]])
    assert metrics.accuracy_by_class(logits, torch.tensor([0, 1])).tolist() == [1, 1]


@pytest.mark.parametrize("measure", [metrics.accuracy_by_class, metrics.confusion])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.fault("the logits of a network that diverged")
def test_logits_that_are_no_numbers_are_not_scored_as_the_first_class(measure: Callable, value: float) -> None:
    with pytest.raises(ValueError, match=r"some logits are NaN or \+infinite: the network has diverged"):
        measure(torch.full((2, 3), value), torch.tensor([0, 1]))


@pytest.mark.parametrize("measure", [metrics.accuracy_by_class, metrics.confusion])
@pytest.mark.parametrize(("labels", "span"), [([0, 3], "0 to 3"), ([-1, 2], "-1 to 2")])
@pytest.mark.fault("labels that the logits have no class for")
def test_labels_outside_the_logits_are_refused(measure: Callable, labels: list[int], span: str) -> None:
    with pytest.raises(ValueError, match=f"labels run from {span}, outside 0 to 2, the classes of the logits"):
        measure(torch.zeros(2, 3), torch.tensor(labels))
