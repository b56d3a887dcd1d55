"""The metrics against naive loops, hand-made geometry and scikit-learn."""

import json
import math
from collections.abc import Callable
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from apple_gpu import OnApple
from beartype import beartype
from conftest import coloured, softmax
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, recall_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from mbib_core import metrics
from mbib_core.evaluation import evaluate, plain
from mbib_core.networks.bottleneck import Bottleneck
from mbib_core.networks.resnet import ResNet

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


@given(labelled(), st.integers(1, 7))
def test_top_k_accuracy_is_counted_by_sorting(given_: tuple[Tensor, Tensor, int], top: int) -> None:
    logits, targets, classes = given_
    logits = logits.round()  # with ties, which the smaller label wins as in argmax
    right: list[list[bool]] = [[] for _ in range(classes)]
    for row, y in zip(logits.tolist(), targets.tolist(), strict=True):
        right[y].append(y in sorted(range(classes), key=lambda i: (-row[i], i))[:top])
    expected = [sum(own) / len(own) if own else NAN for own in right]
    assert same(metrics.accuracy_by_class(logits, targets, top=top).tolist(), expected)


@given(labelled())
def test_micro_accuracy_and_macro_f1_are_those_of_scikit_learn(given_: tuple[Tensor, Tensor, int]) -> None:
    logits, targets, classes = given_
    predicted, present = logits.argmax(1), sorted(set(targets.tolist()))
    assert metrics.micro_accuracy(logits, targets) == pytest.approx(accuracy_score(targets, predicted))
    f1 = metrics.f1_by_class(logits, targets)
    expected = f1_score(targets, predicted, labels=present, average=None, zero_division=0)
    assert same(f1[present].tolist(), expected.tolist())
    assert f1.isnan().sum() == classes - len(present)


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


SQUARE = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])


@pytest.mark.equation(15)
@pytest.mark.equation(16)
@pytest.mark.equation(17)
@pytest.mark.parametrize(
    ("features", "targets", "intra", "inter"),
    [
        (torch.cat([SQUARE, 2 * SQUARE + torch.tensor([10.0, 0])]), [0] * 4 + [3] * 4, 1.5 * math.sqrt(2), 10),
        (torch.tensor([[-4.0], [4.0]] * 50 + [[99.0], [101.0]]), [0] * 100 + [1] * 2, (4 + 1) / 2, 100),
        (torch.tensor([[1.0], [-1.0], [2.0], [-2.0]]), [0, 0, 1, 1], 1.5, 0),
    ],
    ids=["two squares", "a large class does not outweigh a small one", "coinciding centres have no rho"],
)
def test_distances_of_what_was_drawn_by_hand(features: Tensor, targets: list[int], intra: float, inter: float) -> None:
    found = metrics.distances(features, torch.tensor(targets))
    rho = intra / inter if inter else NAN
    assert same(list(found.values()), [intra, inter, rho], 1e-6)
    assert (plain(found)["rho"] is None) == (inter == 0), "a record says None"


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


def test_no_pictures_have_no_scores() -> None:
    nothing, labels = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    assert all(math.isnan(value) for value in metrics.distances(nothing, labels).values())
    assert math.isnan(metrics.micro_accuracy(nothing, labels))
    assert metrics.f1_by_class(nothing, labels).isnan().all()
    assert metrics.calibration(nothing, labels, bins=3)["count"] == [0, 0, 0]


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


def test_neighbours_are_at_most_all_others_and_of_a_lone_picture_there_are_none() -> None:
    found = metrics.neighbour_accuracy(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1]), 2)
    assert found.tolist() == [1, 0], "the first two have a tie, which goes to the smaller label"
    for n in (0, 1):
        assert metrics.neighbour_accuracy(torch.zeros(n, 2), torch.zeros(n, dtype=torch.int64), 3).isnan().all()


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


# One rule for what all of them take

OF_LOGITS: dict[str, Callable[..., Any]] = {
    name: getattr(metrics, name)
    for name in ("accuracy_by_class", "micro_accuracy", "f1_by_class", "confusion", "posterior_means", "calibration")
}
OF_FEATURES: dict[str, Callable[..., Any]] = {
    "distances": metrics.distances,
    "distances_by_shot": lambda f, y: metrics.distances_by_shot(f, y, {"few": torch.tensor([True] * 3)}),
    "neighbour_accuracy": lambda f, y: metrics.neighbour_accuracy(f, y, 3),
}
MEASURES = OF_LOGITS | OF_FEATURES
every_measure = pytest.mark.parametrize("measure", MEASURES)


def as_numbers(found: Any) -> Any:
    return plain(found if not isinstance(found, dict) else list(found.values()))


@every_measure
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_may_be_any_whole_numbers(measure: str, dtype: torch.dtype) -> None:
    y = torch.arange(20).repeat(2)  # 20 times 20 is past the largest byte
    values = torch.randn(40, 20, generator=torch.Generator().manual_seed(0))
    measured = {"neighbour_accuracy": lambda f, y: metrics.neighbour_accuracy(f, y, 20)}
    measured["distances_by_shot"] = lambda f, y: metrics.distances_by_shot(f, y, {"few": torch.arange(20) < 9})
    of = measured.get(measure, MEASURES[measure])
    assert as_numbers(of(values, y.to(dtype))) == as_numbers(of(values, y))


@pytest.mark.parametrize("measure", OF_LOGITS)
def test_a_class_with_a_probability_of_zero_can_be_scored(measure: str) -> None:
    logits, y = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]]), torch.tensor([0, 1])
    assert as_numbers(OF_LOGITS[measure](logits, y)) == as_numbers(OF_LOGITS[measure](1e4 * torch.eye(2), y))


@pytest.mark.parametrize(
    ("measure", "value"),
    [(m, v) for m in MEASURES for v in (math.nan, math.inf, -math.inf) if m in OF_FEATURES or v != -math.inf],
)
@pytest.mark.fault("the logits or features of a network that diverged")
def test_values_of_a_network_that_diverged_are_not_scored(measure: str, value: float) -> None:
    values = torch.eye(3).index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(value))
    with pytest.raises(ValueError, match=r"some (logits|features) are NaN or .*infinite: the network has diverged"):
        MEASURES[measure](values, torch.arange(3))


@pytest.mark.parametrize(
    ("measure", "labels", "span"),
    [(measure, [-100, 0, 1], "-100 to 1") for measure in MEASURES]
    + [(measure, [0, 1, 3], "0 to 3") for measure in MEASURES if measure != "distances"],  # it is not told C
)
@pytest.mark.fault("labels that the logits or features have no class for")
def test_labels_outside_the_classes_are_refused(measure: str, labels: list[int], span: str) -> None:
    with pytest.raises(ValueError, match=f"labels run from {span}, outside 0 to"):
        MEASURES[measure](torch.eye(3), torch.tensor(labels))


@every_measure
@pytest.mark.parametrize(
    ("values", "labels", "error", "sentence"),
    [
        (torch.eye(3), torch.arange(2), ValueError, r"a row for each label is needed: these are \[3, 3\] and \[2\]"),
        (torch.eye(3), torch.eye(3).long(), ValueError, "a row for each label is needed"),
        (torch.ones(3), torch.arange(3), ValueError, "a row for each label is needed"),
        (torch.eye(3), torch.arange(3.0), TypeError, r"labels must be whole numbers \[N\], these are torch.float32"),
        (torch.eye(3), torch.ones(3) > 0, TypeError, r"labels must be whole numbers \[N\], these are torch.bool"),
        (torch.eye(3).long(), torch.arange(3), TypeError, "metrics take tensors: floats"),
        (np.eye(3), np.arange(3), TypeError, "metrics take tensors: floats"),
    ],
)
@pytest.mark.fault("arguments of a metric that do not fit")
def test_what_does_not_fit_is_refused(measure: str, values: Any, labels: Any, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        MEASURES[measure](values, labels)


@pytest.mark.fault("a metric of no bins or no neighbours")
def test_bins_and_neighbours_are_one_or_more() -> None:
    with pytest.raises(ValueError, match="bins is 0: it must be 1 or more"):
        metrics.calibration(torch.eye(3), torch.arange(3), bins=0)
    with pytest.raises(ValueError, match="neighbours is 0: it must be 1 or more"):
        metrics.neighbour_accuracy(torch.eye(3), torch.arange(3), 3, neighbours=0)


@every_measure
def test_what_lies_on_an_apple_gpu_is_scored_in_float64_on_the_cpu(measure: str) -> None:
    values, labels = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    there = MEASURES[measure](values.as_subclass(OnApple), labels.as_subclass(OnApple))
    assert as_numbers(there) == as_numbers(MEASURES[measure](values, labels))
    if isinstance(there, Tensor):
        masks = {"few": torch.tensor([True, False, True]).as_subclass(OnApple)}
        assert there.device.type == "cpu"
        assert set(metrics.by_shot(there.double().flatten()[:3], masks)) == {"all", "few"}


# In a record


def test_a_record_holds_top_5_micro_and_macro_f1() -> None:
    for counts in ([9, 7, 5, 4, 3, 2], [9, 5, 2]):
        data = coloured(counts)
        torch.manual_seed(0)
        found = evaluate(Bottleneck(ResNet(8, (3,)), len(counts)), data.test, data)
        if len(counts) > 5:
            missed = [sum(found["accuracy"][name].values()) < sum(top.values()) for name, top in found["top5"].items()]
            assert found["top5"].keys() == found["accuracy"].keys()
            assert all(missed), "five of six are right more often than one"
        else:
            assert "top5" not in found, "of three classes"
        assert found["micro"] == pytest.approx(found["accuracy"][found["default"]]["all"]), "classes of equal size"
        assert 0 <= found["macro_f1"] <= 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.inf, None),
        (np.float32("nan"), None),
        (torch.tensor([1.0, -math.inf]), [1.0, None]),
        (np.array([[1, 2]]), [[1, 2]]),
        ((np.int64(3), np.bool_(True), {"a": [1 / 3]}), [3, True, {"a": [0.333333]}]),
    ],
)
def test_whatever_is_measured_can_be_written_as_json(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)
