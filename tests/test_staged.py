"""Rows that balance a classifier after its features: published numbers, naive loops, and what each stage may touch."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import coloured, softmax
from hypothesis import given
from hypothesis import strategies as st
from test_rows import SHORT, bits, easy, run, uncut
from torch import Tensor
from torch.nn import functional as F

from mbib_core import classifiers
from mbib_core.evaluation import features_of
from mbib_core.methods import METHODS, settle
from mbib_core.methods.staged import DOWN, Drawing, debiased, draw_members, take_mean
from mbib_core.networks import Outputs, heads
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings

R = np.random.RandomState(0)
N = torch.tensor([120.0, 48, 19, 8, 3], dtype=torch.float64)
Y, Z = torch.from_numpy(R.randint(0, 5, 8)), [torch.from_numpy(2 * R.randn(8, 5)) for _ in range(3)]
F1, F2 = (torch.from_numpy(R.randn(8, 6)) for _ in range(2))
W, W2 = (torch.from_numpy(R.randn(5, 6)) for _ in range(2))
B, Q, QY = (torch.from_numpy(R.randn(5)), torch.from_numpy(R.randn(12, 6)), torch.from_numpy(R.randint(0, 5, 12)))
MU = torch.from_numpy(R.randn(8, 6))


def filled(head: Any, **values: Tensor) -> Any:
    """A head in float64 with these values."""
    head = head.double()
    for name, value in values.items():
        getattr(head, name).data = value
    return head


def test_classifiers_and_their_losses_have_the_numbers_of_their_authors_code() -> None:
    """Computed once in float64 with the published modules, on the inputs above."""
    lws = filled(heads.Scaled(6, 5), weight=W, bias=B, scale=1 + 0.1 * torch.arange(5).double())
    ncm = filled(heads.Nearest(6, 5))
    ncm.fit(Q, QY)
    aligned = filled(heads.Aligned(6, 5), weight=W, bias=B, alpha=1 + 0.1 * B, beta=0.3 * B, a=F2[0])
    aligned.a_0.data = torch.tensor(0.2).double()
    rbl = filled(heads.Rotated(6, 5))
    rbl.weight = torch.eye(6).double() - 2 * torch.outer(MU[0], MU[0]) / MU[0].dot(MU[0])
    rotated = rbl(F1).detach()
    found = {
        "inputs": float(B[-1]),
        "rbl": [float(F.cross_entropy(rotated, Y)), *debiased(Outputs((), (rotated,), None, None), N)["adjusted"][0]],
        "lws": float(F.cross_entropy(lws(F1).detach(), Y)),
        "ncm": ncm(F1)[0].tolist(),
        "disalign": float(classifiers.weighted(aligned(F1).detach(), Y, counts=N, k=1.2)),
        "weight balancing": float(classifiers.binary_balanced(Z[0], Y, counts=N, effective=0.9999)),
        "max-norm": classifiers.max_norm(W, classifiers.norm_radius(W, 0.1))[0].tolist(),
        "las": float(classifiers.label_aware_smoothing(Z[0], Y, counts=N, head_smoothing=0.4, tail_smoothing=0.1)),
        "srepr": float(classifiers.agreeing([*Z[1:], Z[0]], Y, counts=N, k=1.0, self_agreement=0.5, softness=2.0)),
    }
    for name, expected in {
        "inputs": -1.04525337,
        "rbl": [2.02872185, 0.0691462, 2.9942761, 2.7478927, 2.9729864, 3.1486342],
        "lws": 2.38303765,
        "ncm": [-2.5513737, -1.8205176, -1.6071941, -0.5207058, -0.5558255],
        "disalign": 3.17206328,
        "weight balancing": 0.68599023,
        "max-norm": [-0.4635960, 0.4814815, -1.5407970, 0.0632620, 0.1565065, 0.2321810],
        "las": 2.13408417,
        "srepr": 2.29162649,
    }.items():
        assert found[name] == pytest.approx(expected, abs=1e-6), name


@given(st.integers(2, 6), st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_losses_of_second_stages_agree_with_naive_loops(classes: int, seed: int, head: float, tail: float) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(3, 7, classes, generator=random, dtype=torch.float64)
    y = torch.randint(classes, (7,), generator=random)
    n = torch.randint(1, 500, (classes,), generator=random)  # in no order
    w = [1 / sum(0.99**j for j in range(count)) for count in n.tolist()]
    w = [value * classes / sum(w) for value in w]
    k = [(1 / count) * classes / sum(1 / m for m in n.tolist()) for count in n.tolist()]
    binary = smooth = agree = own = 0.0
    for b, label in enumerate(y.tolist()):
        p = softmax(logits[0, b].tolist())
        for i in range(classes):
            binary -= w[label] * math.log(p[i] if i == label else 1 - p[i]) / (7 * classes)
        low, high = min(n.tolist()), max(n.tolist())
        angle = math.pi * (int(n[label]) - low) / (2 * (high - low)) if high > low else 0.0
        eps = tail + (head - tail) * math.sin(angle)
        smooth += -(1 - eps) * math.log(p[label]) / 7 - eps * sum(map(math.log, p)) / classes / 7
        soft = [softmax([f / 2 for f in logits[m, b].tolist()]) for m in range(3)]
        means = [(s + t) / 2 for s, t in zip(*soft[1:], strict=True)]
        agree += sum(t * math.log(t / s) for t, s in zip(means, soft[0], strict=True)) / 7
        own -= k[label] * math.log(p[label])
    own = 0.7 * own / sum(k[label] for label in y.tolist()) + 0.3 * 4 * agree
    smoothing = {"head_smoothing": head, "tail_smoothing": tail}
    sr = classifiers.agreeing([*logits[1:], logits[0]], y, counts=n, k=1.0, self_agreement=0.3, softness=2.0)
    found = classifiers.binary_balanced(logits[0], y, counts=n, effective=0.99)
    assert float(found) == pytest.approx(binary, rel=1e-7)
    assert float(classifiers.label_aware_smoothing(logits[0], y, counts=n, **smoothing)) == pytest.approx(smooth)
    assert float(sr) == pytest.approx(own, rel=1e-7)


def test_the_binary_loss_of_an_image_that_is_wholly_right_or_wrong_has_a_finite_gradient() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
    loss = classifiers.binary_balanced(logits, torch.tensor([0, 0]), counts=torch.tensor([9, 3, 3]), effective=0.9)
    loss.backward()
    assert bool(logits.grad.isfinite().all())
    assert float(logits.grad[1, 1]) > 0


def test_a_rotated_frame_has_equal_angles_and_stays_one_when_it_is_trained() -> None:
    found, _ = easy("rbl")
    weight = found.network.v_classifiers[0].weight
    torch.testing.assert_close(weight.T @ weight, torch.eye(64), rtol=0, atol=1e-4)
    head = heads.Rotated(5, 5)
    frame = F.normalize(head(torch.eye(5)).detach().T)  # a row for each class
    torch.testing.assert_close(frame @ frame.T, 1.25 * torch.eye(5) - 0.25, rtol=0, atol=1e-5)


def test_a_second_stage_goes_from_the_full_rate_down_half_a_cosine() -> None:
    recipe = replace(SCHEDULES["paper"], **DOWN)
    expected = [0.1, 0.1 * (2 + math.sqrt(2)) / 4, 0.05, 0.1 * (2 - math.sqrt(2)) / 4]
    assert [recipe.learning_rate(epoch, 4) for epoch in range(4)] == pytest.approx(expected)


# What each stage may touch


MOVED = {
    "lws": ["scale"],
    "ncm": ["m", "centres", "fitted"],
    "disalign": ["alpha", "beta", "a", "a_0"],
}


@pytest.mark.parametrize("method", list(MOVED))
def test_a_second_stage_moves_its_own_numbers_and_leaves_what_cross_entropy_learned_to_the_bit(method: str) -> None:
    whole, first = uncut(method), uncut("ce")
    assert whole[0][:10] == first[0]
    values, before = dict(whole[1]), dict(first[1])
    assert {name: values.pop(f"v_classifiers.0.{name}") for name in MOVED[method]}
    assert values == before


def test_the_nearest_class_mean_is_that_of_the_training_images_as_they_are() -> None:
    found, data = easy("ncm")
    answers = features_of(found.network, data.train.x)
    x = answers["features/v"].double()
    g = torch.stack([row / row.norm() for row in x - x.mean(0)])
    centres = torch.stack([g[data.train.y == label].mean(0) for label in range(3)])
    expected = torch.stack([torch.stack([-((row - c) ** 2).sum() for c in centres]) for row in g])
    torch.testing.assert_close(answers["logits/v"].double(), expected, rtol=0, atol=1e-5)


def first_stage(method: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(METHODS, method, replace(METHODS[method], stages=METHODS[method].stages[:1]))
    return dict(bits(run(replace(SHORT, data="coloured", method=method, epochs=10), coloured([22, 9, 3])))[1])


def test_the_rows_of_weight_balancing_are_no_longer_than_the_bound_that_its_first_stage_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, first = dict(uncut("weight-balancing")[1]), first_stage("weight-balancing", monkeypatch)
    head = "v_classifiers.0.weight"
    assert [name for name in whole if whole[name] != first[name]] == [head, "v_classifiers.0.bias"]
    bound = float(classifiers.norm_radius(torch.tensor(first[head]), 0.1))
    assert max(math.hypot(*row) for row in whole[head]) < bound * (1 + 1e-6)
    assert max(math.hypot(*row) for row in first[head]) > bound


def test_the_second_stage_of_mislas_moves_the_statistics_of_batch_norm_and_the_classifier_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, first = dict(uncut("mislas")[1]), first_stage("mislas", monkeypatch)
    moved = {name.rsplit(".", 1)[1] if "running" in name else name for name in whole if whole[name] != first[name]}
    tracked = {name for name in whole if name.endswith("num_batches_tracked")}
    added = {f"v_classifiers.0.{name}" for name in ("weight", "bias", "scale")}
    assert moved == {"running_mean", "running_var"} | tracked | added
    assert set(first["v_classifiers.0.scale"]) == {1.0}


def test_networks_are_drawn_with_the_moments_of_the_weights_that_were_seen() -> None:
    learner = Drawing(METHODS["srepr"].network(5, depth=8), torch.ones(5))
    weights = []
    for _ in range(4):
        for parameter in learner.network.parameters():
            parameter.data.add_(torch.randn_like(parameter))
        weights.append(torch.cat([p.detach().flatten() for p in learner.network.parameters()]).double())
        learner.see()
    mean, deviation = torch.stack(weights).mean(0), torch.stack(weights).std(0, correction=0)
    torch.testing.assert_close(learner.mean.double(), mean, rtol=1e-4, atol=1e-5)
    images = coloured([6, 4]).train
    take_mean(learner, images=images)
    draw_members(learner, images=images)
    drawn = torch.stack([torch.cat([p.detach().flatten() for p in m.parameters()]) for m in learner.members]).double()
    z = (drawn - mean) / deviation  # 10 draws of each of 78,000 weights
    assert len(z) == 10
    assert abs(float(z.mean())) < 0.01
    assert float(z.std()) == pytest.approx(1, abs=0.01)


@pytest.mark.fault("a weight decay for a method that has its own")
def test_a_weight_decay_that_would_change_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="weight-balancing has a weight_decay of its own in every stage: leave it out"):
        settle(Settings(method="weight-balancing", weight_decay=0.01))
