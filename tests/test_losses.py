"""The losses against float64 loops written from the formulas of paper/method.md, and against what they promise."""

import copy
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from apple_gpu import OnApple
from beartype import beartype
from conftest import softmax
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mbib_core import losses
from mbib_core.checks import check_settings
from mbib_core.criteria import BIBLoss, MBIBLoss
from mbib_core.losses import balanced_softmax, bib, class_temperatures, class_weights, mbib
from mbib_core.losses import self_distillation as distil

Rows = list[list[float]]


class Batch(NamedTuple):
    v: list[Rows]  # logits of each observation, shallow to deep
    z: Rows
    targets: list[int]
    counts: list[int]

    def tensors(self, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        v = [torch.tensor(rows, dtype=dtype) for rows in self.v]
        return v, torch.tensor(self.z, dtype=dtype), torch.tensor(self.targets), torch.tensor(self.counts)


@st.composite
def batches(draw: st.DrawFn, observations: int = 1) -> Batch:
    classes, pictures = draw(st.integers(2, 5)), draw(st.integers(1, 4))
    row = st.lists(st.floats(-30, 30, width=32), min_size=classes, max_size=classes)
    rows = st.lists(row, min_size=pictures, max_size=pictures)
    targets = st.lists(st.integers(0, classes - 1), min_size=pictures, max_size=pictures)
    counts = st.lists(st.integers(1, 10**6), min_size=classes, max_size=classes)
    return Batch([draw(rows) for _ in range(observations)], draw(rows), draw(targets), draw(counts))


ks = st.floats(0, 2)
gammas = st.floats(0, 0.5)
betas = st.floats(0, 8)

BATCH = Batch(
    v=[
        [[0.3, -1.2, 2.0], [1.0, 0.5, -0.7], [0.1, 0.2, 0.3], [-2.0, 1.0, 0.4]],
        [[1.3, 0.2, -0.5], [0.7, -0.4, 0.9], [0.6, 0.1, -1.3], [0.0, 0.8, 1.7]],
        [[2.3, -0.2, 0.1], [0.2, 0.5, 0.7], [-0.6, 1.1, 0.3], [0.4, -0.3, 1.2]],
    ],
    z=[[1.0, 0.0, -1.0], [0.5, 0.9, 0.2], [-0.4, 0.3, 0.8], [1.5, -0.2, 0.6]],
    targets=[0, 1, 2, 0],
    counts=[500, 40, 5],
)


def naive_weights(counts: Sequence[float], k: float) -> list[float]:
    total = math.fsum((1 / n) ** k for n in counts)
    return [len(counts) * (1 / n) ** k / total for n in counts]


def naive_temperatures(counts: Sequence[float], gamma: float) -> list[float]:
    return [(max(counts) / n) ** gamma for n in counts]


def naive_balanced(logits: Rows, targets: Sequence[int], counts: Sequence[float], k: float, tau: float = 1.0) -> float:
    weights = naive_weights(counts, k)
    numerator, denominator = [], []
    for f, y in zip(logits, targets, strict=True):
        top = max(f)
        p_y = counts[y] ** tau * math.exp(f[y] - top)
        everything = math.fsum(n**tau * math.exp(f_i - top) for n, f_i in zip(counts, f, strict=True))
        numerator.append(-weights[y] * (math.log(p_y) - math.log(everything)))
        denominator.append(weights[y])
    return math.fsum(numerator) / math.fsum(denominator)


def naive_distillation(teacher: Rows, student: Rows, temperatures: Sequence[float]) -> float:
    divergences = []
    for f_v, f_z in zip(teacher, student, strict=True):
        p = softmax([f / t for f, t in zip(f_v, temperatures, strict=True)])
        q = softmax([f / t for f, t in zip(f_z, temperatures, strict=True)])
        divergences.append(math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return math.fsum(divergences) / len(divergences)


def naive_bib(
    v: Rows, z: Rows, targets: Sequence[int], counts: Sequence[float], beta: float, k: float, gamma: float
) -> float:
    distillation = naive_distillation(v, z, naive_temperatures(counts, gamma))
    return naive_balanced(v, targets, counts, k) + naive_balanced(z, targets, counts, k) + beta * distillation


# The formulas


@pytest.mark.equation(4)
@pytest.mark.equation(5)
@pytest.mark.equation(6)
@pytest.mark.equation(7)
@given(batches(), ks, st.sampled_from([0.0, 1.0]) | st.floats(0, 1))
@example(Batch([[[0.0, 0.0]]], [[0.0, 0.0]], [1], [10**6, 1]), 2.0, 1.0)
def test_class_weights_multiply_the_log_posterior_of_logits_plus_tau_times_log_counts(
    b: Batch, k: float, tau: float
) -> None:
    (v,), z, targets, counts = b.tensors()
    for logits, rows in ((v, b.v[0]), (z, b.z)):
        for power, tolerance in ((0.0, 1e-9), (k, 1e-5)):
            found = float(balanced_softmax(logits, targets, counts=counts, k=power, tau=tau))
            expected = naive_balanced(rows, b.targets, b.counts, power, tau)
            assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.equation(7)
@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=30), ks)
def test_class_weights_are_powers_of_the_counts_with_mean_one(counts: list[int], k: float) -> None:
    weights = class_weights(torch.tensor(counts), k)
    assert weights.tolist() == pytest.approx(naive_weights(counts, k), rel=2e-5)
    assert float(weights.double().mean()) == pytest.approx(1, abs=1e-6)


@pytest.mark.equation(8)
@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=30), gammas)
def test_class_temperatures_grow_from_one_as_classes_get_smaller(counts: list[int], gamma: float) -> None:
    temperatures = class_temperatures(torch.tensor(counts), gamma)
    assert temperatures.tolist() == pytest.approx(naive_temperatures(counts, gamma), rel=1e-5)
    assert float(temperatures.min()) == 1


@pytest.mark.equation(8)
@pytest.mark.equation(13)
@given(batches(), gammas)
def test_self_distillation_is_the_divergence_of_student_from_teacher(b: Batch, gamma: float) -> None:
    (v,), z, _, counts = b.tensors()
    found = float(distil(v, z, temperature=class_temperatures(counts, gamma)))
    expected = naive_distillation(b.v[0], b.z, naive_temperatures(b.counts, gamma))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.equation(9)
@given(batches(), betas, ks, gammas)
def test_bib_is_two_balanced_losses_and_beta_times_the_distillation(
    b: Batch, beta: float, k: float, gamma: float
) -> None:
    (v,), z, targets, counts = b.tensors()
    found = float(bib(v, z, targets, counts=counts, beta=beta, k=k, gamma=gamma))
    expected = naive_bib(b.v[0], b.z, b.targets, b.counts, beta, k, gamma)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.equation(11)
@pytest.mark.equation(12)
@given(batches(observations=3), st.floats(0, 0.5), st.floats(0, 0.5), betas, ks, gammas)
def test_mbib_mixes_the_bibs_of_all_observations_with_one_z(
    b: Batch, a_1: float, a_2: float, beta: float, k: float, gamma: float
) -> None:
    v, z, targets, counts = b.tensors()
    found = float(mbib(v, z, targets, counts=counts, alphas=(a_1, a_2), beta=beta, k=k, gamma=gamma))
    bibs = [naive_bib(v_i, b.z, b.targets, b.counts, beta, k, gamma) for v_i in b.v]
    expected = a_1 * bibs[0] + a_2 * bibs[1] + (1 - a_1 - a_2) * bibs[2]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.equation(11)
@given(batches(observations=3), betas, ks, gammas)
def test_mbib_with_alphas_of_zero_is_bib_of_the_deepest_observation(
    b: Batch, beta: float, k: float, gamma: float
) -> None:
    v, z, targets, counts = b.tensors()
    shared = {"counts": counts, "beta": beta, "k": k, "gamma": gamma}
    for observations, alphas in ((v, (0.0, 0.0)), (v[-1:], ())):
        assert float(mbib(observations, z, targets, alphas=alphas, **shared)) == float(bib(v[-1], z, targets, **shared))


@pytest.mark.equation(11)
@pytest.mark.parametrize("alphas", [(), (0.1,), (0.1, 0.2, 0.3)])
@pytest.mark.fault("a wrong number of alphas in the loss")
def test_mbib_refuses_a_wrong_number_of_alphas(alphas: tuple[float, ...]) -> None:
    v, z, targets, counts = BATCH.tensors()
    with pytest.raises(ValueError, match=f"3 observations need 2 alphas, not {len(alphas)}"):
        mbib(v, z, targets, counts=counts, alphas=alphas, beta=1.0)


# The variants of appendix F and the controls, as methods.py and the docstrings state them


@given(batches(observations=3), betas, ks, gammas)
def test_se_mbib_distils_each_observation_into_the_next_and_the_last_into_z(
    b: Batch, beta: float, k: float, gamma: float
) -> None:
    v, z, targets, counts = b.tensors()
    found = losses.se_mbib(v, z, targets, counts=counts, alphas=(0.1, 0.3), beta=beta, k=k, gamma=gamma)
    pairs = [(b.v[0], b.v[1]), (b.v[1], b.v[2]), (b.v[2], b.z)]
    bibs = [naive_bib(t, s, b.targets, b.counts, beta, k, gamma) for t, s in pairs]
    assert float(found) == pytest.approx(0.1 * bibs[0] + 0.3 * bibs[1] + 0.6 * bibs[2], rel=1e-4, abs=1e-4)


def test_se_mbib_sends_no_divergence_back_to_a_teacher() -> None:
    v, z, targets, counts = BATCH.tensors()
    first = v[0].requires_grad_()
    loss = losses.se_mbib(v, z, targets, counts=counts, alphas=(0.1, 0.3), beta=5.0)
    own = 0.1 * balanced_softmax(first, targets, counts=counts)
    torch.testing.assert_close(torch.autograd.grad(loss, first)[0], torch.autograd.grad(own, first)[0])


def test_all_mbib_is_half_mbib_and_half_se_mbib() -> None:
    v, z, targets, counts = BATCH.tensors()
    settings = {"counts": counts, "alphas": (0.1, 0.3), "beta": 1.5, "k": 0.5, "gamma": 0.1}
    halves = [float(loss(v, z, targets, **settings)) / 2 for loss in (mbib, losses.se_mbib)]
    assert float(losses.all_mbib(v, z, targets, **settings)) == pytest.approx(sum(halves))


def test_deepest_mbib_has_mbibs_classifiers_and_one_teacher() -> None:
    v, z, targets, counts = BATCH.tensors()
    settings = {"counts": counts, "alphas": (0.1, 0.3), "k": 0.5}
    found = losses.deepest_mbib(v, z, targets, beta=2.0, gamma=0.1, **settings)
    supervised = float(mbib(v, z, targets, beta=0.0, **settings))
    divergence = naive_distillation(BATCH.v[2], BATCH.z, naive_temperatures(BATCH.counts, 0.1))
    assert float(found) == pytest.approx(supervised + 2 * divergence, rel=1e-6)


@pytest.mark.equation(8)
def test_a_perfect_teacher_pulls_as_l_z_does_with_equal_counts_and_otherwise_not() -> None:
    """Labels drawn from the training posterior of a teacher that is right: the mean gradient of L_z and of L_VSD."""
    z = torch.tensor([[0.4, 0.0, -0.3]], dtype=torch.float64, requires_grad=True)
    v = torch.tensor([[0.1, 0.2, 0.0]], dtype=torch.float64)
    (of_teacher,) = torch.autograd.grad(losses.self_distillation(v, z), z)
    for counts in (torch.tensor([5, 5, 5]), torch.tensor([100, 10, 1])):
        seen = (v + counts.log()).softmax(1)[0]  # p_s(y|v)
        each = losses.balanced_softmax(z.expand(3, 3), torch.arange(3), counts=counts, reduction="none")
        (of_labels,) = torch.autograd.grad(seen @ each, z)
        assert torch.allclose(of_labels, (z + counts.log()).softmax(1) - seen)
        assert torch.allclose(of_labels, of_teacher) == bool(counts[0] == counts[2])
    assert (of_teacher[0, 2] / of_labels[0, 2]).abs() > 10, "the tail is pulled far less by its labels"


# Soft targets, label smoothing, reductions, masked classes


def all_losses(v: list[Tensor], z: Tensor, targets: Tensor, counts: Tensor, **settings: Any) -> dict[str, Tensor]:
    own: dict[str, Any] = {"counts": counts, "beta": 1.5, "gamma": 0.2} | settings
    mixtures = ("mbib", "se_mbib", "all_mbib", "deepest_mbib", "untaught_mbib")
    found = {name: getattr(losses, name)(v, z, targets, alphas=(0.1, 0.3), **own) for name in mixtures}
    return found | {"bib": bib(v[-1], z, targets, **own), "untaught_bib": losses.untaught_bib(v[-1], z, targets, **own)}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("k", [0.0, 0.7])
def test_one_hot_rows_are_as_class_numbers(k: float, label_smoothing: float, reduction: str) -> None:
    """With class weights, too, where PyTorch divides the mean over one-hot rows by the pictures, not by the weights."""
    v, z, targets, counts = BATCH.tensors()
    own = {"k": k, "label_smoothing": label_smoothing, "reduction": reduction}
    hard, soft = (all_losses(v, z, y, counts, **own) for y in (targets, F.one_hot(targets, 3).float()))
    for name in hard:
        assert hard[name].shape == ((4,) if reduction == "none" else ()), name
        torch.testing.assert_close(soft[name], hard[name], msg=name)


@pytest.mark.equation(7)
@given(batches(), ks, st.floats(0, 1), st.floats(0, 0.5))
def test_soft_targets_share_a_picture_among_its_classes(b: Batch, k: float, share: float, smoothing: float) -> None:
    (v,), _, targets, counts = b.tensors()
    pair, weights = (targets, targets.flip(0)), torch.tensor(naive_weights(b.counts, k), dtype=torch.float64)
    soft = sum(s * F.one_hot(y, v.shape[1]) for s, y in zip((share, 1 - share), pair, strict=True))
    own: dict[str, Any] = {"counts": counts, "k": k, "label_smoothing": smoothing}
    hard = [float(balanced_softmax(v, y, reduction="sum", **own)) for y in pair]
    total = share * hard[0] + (1 - share) * hard[1]
    of_weights = float(share * weights[pair[0]].sum() + (1 - share) * weights[pair[1]].sum())
    found = [float(balanced_softmax(v, soft, reduction=r, **own)) for r in ("sum", "mean")]
    assert found == pytest.approx([total, total / of_weights], rel=1e-5, abs=1e-5)


def test_reductions_add_up_and_smoothing_is_pytorchs() -> None:
    v, z, targets, counts = BATCH.tensors()
    for k in (0.0, 0.7):
        of = {r: all_losses(v, z, targets, counts, k=k, reduction=r) for r in ("mean", "sum", "none")}
        for name in of["mean"]:
            torch.testing.assert_close(of["none"][name].sum(), of["sum"][name])
            if k == 0:
                torch.testing.assert_close(of["none"][name].mean(), of["mean"][name])
    adjusted = z + counts.double().log()
    found = balanced_softmax(z, targets, counts=counts, label_smoothing=0.2)
    torch.testing.assert_close(found, F.cross_entropy(adjusted, targets, label_smoothing=0.2))


@pytest.mark.equation(8)
@pytest.mark.parametrize("soft", [False, True])
def test_a_masked_class_is_as_one_that_is_not_there(soft: bool) -> None:
    """Masked by a logit of -inf in all classifiers: 0 log 0 = 0, for the value and for the gradient."""
    v, z, _, counts = BATCH.tensors()
    targets = torch.tensor([0, 1, 1, 0])
    y = torch.tensor([[0.7, 0.3, 0.0]] * 4) if soft else targets

    def of(columns: int) -> tuple[Tensor, ...]:
        inputs = [f[:, :2].clone().requires_grad_() for f in (*v, z)]
        masked = [F.pad(f, (0, columns - 2), value=-math.inf) for f in inputs]
        rows = y[:, :columns] if soft else y
        loss = mbib(masked[:3], masked[3], rows, counts=counts[:columns], alphas=(0.1, 0.3), beta=2.0, k=0.5, gamma=0.1)
        return loss.detach(), *torch.autograd.grad(loss, inputs)

    for with_mask, without in zip(of(3), of(2), strict=True):
        torch.testing.assert_close(with_mask, without)


def test_a_student_that_rules_out_what_the_teacher_allows_is_infinitely_far() -> None:
    zero, masked = torch.zeros(1, 2), torch.tensor([[0.0, -math.inf]])
    assert float(distil(zero, masked)) == math.inf
    assert float(distil(masked, zero)) == pytest.approx(math.log(2))


@pytest.mark.equation(11)
def test_the_deepest_observation_gets_exactly_what_is_left_of_one() -> None:
    """On every Python: before 3.12, `sum` makes a little more than 1 of these decimals."""
    *v, z = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_().unbind()
    loss = mbib(v, z, torch.tensor([0, 1]), counts=torch.tensor([5, 3, 1]), alphas=(0.2, 0.4, 0.3, 0.1), beta=1.0)
    gradient = torch.autograd.grad(loss, v[-1])[0]
    assert float(gradient.abs().max()) == 0


# What follows from the formulas


@pytest.mark.equation(4)
@given(batches(), st.integers(1, 10**6))
def test_equal_counts_leave_plain_cross_entropy(b: Batch, n: int) -> None:
    (v,), _, targets, _ = b.tensors()
    counts = torch.full((v.shape[1],), n)
    for k in (0.0, 1.2):
        found = float(balanced_softmax(v, targets, counts=counts, k=k))
        assert found == pytest.approx(float(F.cross_entropy(v, targets)), rel=1e-6, abs=1e-6)
    assert class_temperatures(counts, 0.2).tolist() == [1.0] * len(counts)


@pytest.mark.equation(7)
def test_the_weighted_mean_divides_by_the_weights_of_the_batch_as_pytorch_does() -> None:
    (_, _, v), _, targets, counts = BATCH.tensors()
    weights = torch.tensor(naive_weights(BATCH.counts, 0.7), dtype=torch.float64)
    expected = F.cross_entropy(v + counts.double().log(), targets, weight=weights)
    assert float(balanced_softmax(v, targets, counts=counts, k=0.7)) == pytest.approx(float(expected), rel=1e-6)
    own = F.cross_entropy(v + counts.double().log(), targets, reduction="none")
    by_size = float((weights[targets] * own).mean())
    assert abs(by_size - float(expected)) > 0.1, "the two readings must differ here, or the test says nothing"


@given(batches(observations=2), st.randoms(use_true_random=False), st.integers(2, 9), st.floats(-100, 100))
def test_neither_the_order_of_the_classes_nor_a_shift_of_logits_nor_the_scale_of_counts_matters(
    b: Batch, random: Any, times: int, shift: float
) -> None:
    v, z, targets, counts = b.tensors()
    order = list(range(len(b.counts)))
    random.shuffle(order)
    place = torch.tensor([order.index(i) for i in range(len(order))])
    shared = {"alphas": (0.3,), "beta": 1.5, "k": 0.5, "gamma": 0.2}
    straight = float(mbib(v, z, targets, counts=counts, **shared))
    turned = mbib([f[:, order] for f in v], z[:, order], place[targets], counts=counts[order], **shared)
    assert float(turned) == pytest.approx(straight, rel=1e-6, abs=1e-6)
    assert float(mbib(v, z, targets, counts=counts * times, **shared)) == pytest.approx(straight, rel=1e-5, abs=1e-5)
    shared["gamma"] = 0.0  # a shift is no shift any more once it is divided by temperatures
    straight = float(mbib(v, z, targets, counts=counts, **shared))
    shifted = mbib([f + shift for f in v], z - shift, targets, counts=counts, **shared)
    assert float(shifted) == pytest.approx(straight, rel=1e-6, abs=1e-6)


@pytest.mark.equation(8)
@given(batches())
def test_distillation_is_never_negative_and_zero_for_a_student_equal_to_its_teacher(b: Batch) -> None:
    (v,), z, _, _ = b.tensors()
    assert float(distil(v, z)) >= -1e-12
    assert float(distil(v, v + 3)) == pytest.approx(0, abs=1e-12)


@pytest.mark.equation(8)
def test_with_class_temperatures_no_divergence_means_logits_apart_by_a_multiple_of_them() -> None:
    (_, _, v), _, _, counts = BATCH.tensors()
    temperature = class_temperatures(counts, 0.3).double()
    student = v + 5 * temperature
    assert float(distil(v, student, temperature=temperature)) == pytest.approx(0, abs=1e-12)
    assert student.argmax(1).tolist() != v.argmax(1).tolist(), "and that can change the decision"


@pytest.mark.equation(7)
@pytest.mark.parametrize("k", [0.0, 0.5, 1.0, 1.2, 2.0, 5.0])
def test_a_class_of_one_beside_one_of_a_million_keeps_its_weight_and_its_digits(k: float) -> None:
    """In a batch of one class equal weights cancel; the smallest number here, of the larger, must not leave 0 / 0."""
    logits, counts = [[0.0, 14.0], [1.0, -2.0]], [10**6, 1]
    for y in ([0, 0], [1, 1], [0, 1]):
        found = balanced_softmax(torch.tensor(logits), torch.tensor(y), counts=torch.tensor(counts), k=k)
        alone = 0.0 if y[0] == y[1] else k
        assert float(found) == pytest.approx(naive_balanced(logits, y, counts, alone), rel=1e-3 if alone != k else 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_logits_of_ten_thousand_give_a_finite_loss_and_gradient(dtype: torch.dtype) -> None:
    v = [torch.tensor([[1e4, -1e4, 0.0], [0.0, 1e4, -1e4]], dtype=dtype, requires_grad=True) for _ in range(2)]
    z = torch.tensor([[-1e4, 1e4, 0.0], [0.0, 1e4, 1e4]], dtype=dtype, requires_grad=True)
    counts = torch.tensor([10**6, 500, 1])
    loss = mbib(v, z, torch.tensor([1, 2]), counts=counts, alphas=(0.4,), beta=1.0, k=1.2, gamma=0.1)
    loss.backward()
    # 2e4 nats for the first picture's v and as many for the second's, and the divergence is of that size too
    assert 1e4 < float(loss.detach()) < 1e5
    for f in (*v, z):
        assert f.grad is not None
        assert bool(f.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    v, z, targets, counts = BATCH.tensors()
    v, z = [f.to(dtype) for f in v], z.to(dtype)
    settings = {"alphas": (0.1, 0.3), "beta": 1.5, "k": 0.5, "gamma": 0.1}
    found = mbib(v, z, targets, counts=counts, **settings)
    assert found.dtype == torch.float32
    exact = Batch([f.double().tolist() for f in v], z.double().tolist(), BATCH.targets, BATCH.counts)
    bibs = [naive_bib(v_i, exact.z, exact.targets, exact.counts, 1.5, 0.5, 0.1) for v_i in exact.v]
    assert float(found) == pytest.approx(0.1 * bibs[0] + 0.3 * bibs[1] + 0.6 * bibs[2], rel=2e-6)
    for name, single in {
        "balanced": balanced_softmax(z, targets, counts=counts, k=1.0),
        "distillation": distil(v[0], z),
        "bib": bib(v[0], z, targets, counts=counts, beta=1.0),
    }.items():
        assert single.dtype == torch.float32, name


def test_losses_under_autocast_stay_in_float32() -> None:
    v, z, targets, counts = BATCH.tensors(torch.float32)
    settings = {"alphas": (0.1, 0.3), "beta": 1.5, "k": 0.5, "gamma": 0.1}
    plain = mbib(v, z, targets, counts=counts, **settings)
    with torch.autocast("cpu", torch.bfloat16):
        cast = mbib(v, z, targets, counts=counts, **settings)
    assert cast.dtype == torch.float32
    assert float(cast) == float(plain)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.float64])
def test_counts_may_be_any_kind_of_number(dtype: torch.dtype) -> None:
    v, z, targets, counts = BATCH.tensors()
    expected = naive_bib(BATCH.v[0], BATCH.z, BATCH.targets, BATCH.counts, 1.0, 0.5, 0.1)
    found = bib(v[0], z, targets, counts=counts.to(dtype), beta=1.0, k=0.5, gamma=0.1)
    assert float(found) == pytest.approx(expected, rel=1e-5)


# Gradients


@pytest.mark.equation(5)
@pytest.mark.parametrize("k", [0.0, 0.7])
def test_the_gradient_of_balanced_softmax_is_right(k: float) -> None:
    (v, _, _), _, targets, counts = BATCH.tensors()
    assert torch.autograd.gradcheck(lambda f: balanced_softmax(f, targets, counts=counts, k=k), v.requires_grad_())


@pytest.mark.equation(4)
def test_the_gradient_at_one_logit_is_the_training_posterior_minus_the_target() -> None:
    logits = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    balanced_softmax(logits, torch.tensor([1]), counts=torch.tensor([500, 40, 5])).backward()
    posterior = softmax([f + math.log(n) for f, n in zip([0.5, -1.0, 2.0], [500, 40, 5], strict=True)])
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([posterior[0], posterior[1] - 1, posterior[2]])


@pytest.mark.equation(8)
@pytest.mark.parametrize("gamma", [0.0, 0.2])
def test_the_gradient_of_distillation_reaches_the_student_alone(gamma: float) -> None:
    (v, _, _), z, _, counts = BATCH.tensors()
    temperature = class_temperatures(counts, gamma).double()
    v.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: distil(v.detach(), f, temperature=temperature), z.requires_grad_())
    loss = distil(v, z, temperature=temperature)
    v_gradient, z_gradient = torch.autograd.grad(loss, (v, z), allow_unused=True)
    assert v_gradient is None
    assert float(z_gradient.abs().max()) > 0


@pytest.mark.equation(9)
def test_bib_reaches_v_only_through_its_own_classification() -> None:
    (v, _, _), z, targets, counts = BATCH.tensors()
    v.requires_grad_()
    whole = bib(v, z.requires_grad_(), targets, counts=counts, beta=7.0, k=0.5, gamma=0.1)
    own = balanced_softmax(v, targets, counts=counts, k=0.5)
    assert torch.equal(torch.autograd.grad(whole, v)[0], torch.autograd.grad(own, v)[0])
    assert torch.autograd.gradcheck(lambda f: bib(v.detach(), f, targets, counts=counts, beta=7.0, k=0.5, gamma=0.1), z)


@pytest.mark.equation(11)
@pytest.mark.equation(12)
def test_mbib_gives_every_observation_its_share_and_z_the_whole() -> None:
    v, z, targets, counts = BATCH.tensors()
    for f in (*v, z):
        f.requires_grad_()
    settings = {"counts": counts, "beta": 2.0, "k": 0.5, "gamma": 0.1}
    loss = mbib(v, z, targets, alphas=(0.1, 0.3), **settings)
    *v_gradients, z_gradient = torch.autograd.grad(loss, (*v, z))
    expected_z = torch.zeros_like(z)
    for share, f, gradient in zip((0.1, 0.3, 0.6), v, v_gradients, strict=True):
        own = torch.autograd.grad(balanced_softmax(f, targets, counts=counts, k=0.5), f)[0]
        torch.testing.assert_close(gradient, share * own)
        expected_z += share * torch.autograd.grad(bib(f, z, targets, **settings), z)[0]
    torch.testing.assert_close(z_gradient, expected_z)


# Minimisers


def minimiser(counts: list[int], given_class: list[list[int]], k: float, tau: float = 1.0) -> tuple[Tensor, Tensor]:
    """The softmax that minimises the loss over every f(x), and p_t(i|x), the posterior of equally frequent classes.

    A discrete world: `given_class[i][x]` is p(x|i) in sixths, so that class i has counts[i] * p(x|i) pictures at x.
    """
    xs, ys = [], []
    for i, row in enumerate(given_class):
        for x, sixths in enumerate(row):
            xs += [x] * (counts[i] * sixths // 6)
            ys += [i] * (counts[i] * sixths // 6)
    f = torch.zeros(len(given_class[0]), len(counts), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [f], max_iter=500, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = balanced_softmax(f[xs], torch.tensor(ys), counts=torch.tensor(counts), k=k, tau=tau)
        loss.backward()
        return loss

    optimizer.step(closure)
    p = torch.tensor(given_class, dtype=torch.float64).T
    return f.detach().softmax(1), p / p.sum(1, keepdim=True)


WORLD = [[4, 1, 1], [1, 4, 1], [2, 1, 3]]  # p(x|i) in sixths


@pytest.mark.equation(4)
@pytest.mark.equation(7)
@pytest.mark.parametrize("counts", [[6, 6, 6], [600, 60, 6]])
@pytest.mark.parametrize(("k", "tau"), [(0.0, 1.0), (0.5, 1.0), (1.2, 1.0), (0.5, 0.5), (1.2, 1 - 1.2)])
def test_the_minimiser_is_the_balanced_posterior_which_weights_tilt_unless_k_and_tau_sum_to_one(
    counts: list[int], k: float, tau: float
) -> None:
    found, balanced = minimiser(counts, WORLD, k=k, tau=tau)
    tilted = balanced * torch.tensor(counts, dtype=torch.float64) ** (1 - k - tau)
    torch.testing.assert_close(found, tilted / tilted.sum(1, keepdim=True), atol=1e-4, rtol=0)


# The modules


@pytest.mark.equation(9)
@pytest.mark.equation(11)
@given(batches(observations=3), betas, ks, gammas)
def test_modules_equal_the_functions(b: Batch, beta: float, k: float, gamma: float) -> None:
    v, z, targets, counts = b.tensors(torch.float32)
    settings = {"beta": beta, "k": k, "gamma": gamma}
    for own_counts in (b.counts, counts):
        one = BIBLoss(own_counts, **settings)(v[-1], z, targets)
        assert float(one) == float(bib(v[-1], z, targets, counts=counts, **settings))
        mixture = MBIBLoss(own_counts, alphas=[0.1, 0.3], **settings)(v, z, targets)
        assert float(mixture) == float(mbib(v, z, targets, counts=counts, alphas=(0.1, 0.3), **settings))


@pytest.mark.equation(9)
@pytest.mark.equation(12)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_terms_of_a_loss_add_up_to_it(reduction: str) -> None:
    v, z, targets, counts = BATCH.tensors()
    own = {"beta": 2.0, "k": 0.5, "gamma": 0.2, "tau": 0.5, "label_smoothing": 0.1, "reduction": reduction}
    for loss, observed in ((BIBLoss(counts, **own), v[2]), (MBIBLoss(counts, alphas=(0.1, 0.3), **own), v)):
        terms = loss.terms(observed, z, targets)
        torch.testing.assert_close(terms.l_v + terms.l_z + 2 * terms.l_vsd, loss(observed, z, targets))
    own = {name: value for name, value in own.items() if name not in ("beta", "gamma")}
    alone = [balanced_softmax(f, targets, counts=counts, **own) for f in (*v, z)]
    torch.testing.assert_close(terms.l_v, 0.1 * alone[0] + 0.3 * alone[1] + 0.6 * alone[2])
    torch.testing.assert_close(terms.l_z, alone[3])


def test_counts_are_a_buffer_that_moves_and_is_saved_with_the_module_and_not_shared_with_the_caller() -> None:
    counts = torch.tensor([500, 40, 5])
    loss, other = BIBLoss(counts, beta=1.0), BIBLoss([7, 7, 7], beta=1.0)
    counts[0] = 1
    assert list(loss.parameters()) == []
    other.load_state_dict(loss.state_dict())
    assert other.counts.tolist() == loss.counts.tolist() == [500, 40, 5]
    assert loss.to("meta").counts.device.type == "meta"


@pytest.mark.parametrize("counts", [[10**6, 40, 1], [1e6, 40.0, 1.0], [10**6 + 0.5, 40, 1]], ids=str)
def test_a_module_turned_to_half_precision_keeps_its_counts(counts: list[float]) -> None:
    """`model.half()` turns every float buffer: a million would become infinite."""
    v, z, targets, _ = BATCH.tensors(torch.float16)
    expected = naive_bib(v[0].double().tolist(), z.double().tolist(), BATCH.targets, counts, 1.0, 0.5, 0.0)
    found = BIBLoss(counts, beta=1.0, k=0.5).half()(v[0], z, targets)
    assert float(found) == pytest.approx(expected, rel=1e-4)


MASKED = np.ma.array([5, 3], mask=[False, True])
ORDERLESS = [Counter([2, 2, 0]), Counter([2, 2, 0]).values(), {0: 5, 1: 3}, pd.Series([1, 2]).value_counts(), MASKED]
NUMBERLESS = [5, "53", ["5", "3"], [5, None], [5, 3j], torch.tensor([5, 3j]), [True, False]]


@pytest.mark.parametrize(
    ("counts", "error", "sentence"),
    [
        ([5, 0, 3], ValueError, r"every class needs a training picture: classes \[1\] have a count below 1"),
        ([5.0, float("nan")], ValueError, r"classes \[1\] have a count below 1"),
        ([5], ValueError, "two classes or more"),
        ([[5, 3]], ValueError, r"not shape \[1, 2\]"),
        ([5, -3], ValueError, "count below 1"),
        ([5.0, float("inf")], ValueError, "finite"),
        ([0.5, 0.3, 0.2], ValueError, "look like shares: give the numbers of training pictures"),
        ([1] + [0] * 7, ValueError, r"classes \[1, 2, 3, 4, 5\], 7 in all have a count below 1"),
        *((n, TypeError, r"be a list, array or tensor .*: torch\.bincount\(labels, minlength") for n in ORDERLESS),
        *((n, TypeError, r"counts must be (numbers|a list, array or tensor)") for n in NUMBERLESS),
    ],
)
@pytest.mark.fault("counts that are zero, negative, of one class, of another shape, without an order or no numbers")
def test_modules_refuse_counts_that_are_none(counts: Any, error: type, sentence: str) -> None:
    for build in (lambda: BIBLoss(counts, beta=1.0), lambda: MBIBLoss(counts, alphas=(), beta=1.0)):
        with pytest.raises(error, match=sentence):
            build()


@pytest.mark.parametrize(
    "counts",
    [
        (5, 3),
        np.array([3, 5], dtype=np.uint16)[::-1],
        np.array([5, 3], dtype=">i4"),
        np.array([5, 3], dtype=object),
        pd.array([5, 3]),
        torch.tensor([5, 3], dtype=torch.uint8),
        [torch.tensor(5), np.float32(3)],
        [5.5, 3.25],
        np.array([5.5, 3.25], dtype=">f8"),
    ],
    ids=repr,
)
def test_modules_take_counts_of_every_kind_of_number(counts: Any) -> None:
    expected = [float(n) for n in counts]
    assert BIBLoss(counts, beta=1.0).counts.tolist() == expected


ZEROS, LABELS = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("v", "z", "targets", "error", "sentence"),
    [
        (ZEROS, ZEROS.to("meta"), LABELS, ValueError, r"logits are on meta, the loss .* on cpu: criterion\.to\(device"),
        (ZEROS, ZEROS, LABELS.to("meta"), ValueError, r"targets are on meta, the loss .* on cpu: targets\.to\(device"),
        ([ZEROS], ZEROS, LABELS, TypeError, r"logits must be tensors \[B, C\], not list: a list .* is for MBIBLoss"),
        (ZEROS, ZEROS, [0, 1], TypeError, r"targets must be a tensor of class numbers, int64 \[B\], not list"),
    ],
)
@pytest.mark.fault("a loss, logits and targets on different devices, or lists of them")
def test_what_is_on_another_device_or_a_list_is_named_with_what_to_do(
    v: Any, z: Any, targets: Any, error: type, sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        BIBLoss([5, 3, 1], beta=1.0)(v, z, targets)


def test_labels_may_be_bytes_also_when_the_loss_is_compiled() -> None:
    v, z, targets, _ = BATCH.tensors(torch.float32)
    criterion = MBIBLoss([50, 9, 2], alphas=(0.1,), beta=1.0)
    compiled = torch.compile(criterion, backend="eager")
    assert torch.equal(compiled(v[:2], z, targets.to(torch.uint8)), criterion(v[:2], z, targets))


def test_the_shapes_in_the_signatures_are_checked_and_true() -> None:
    f, y, counts = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]), torch.tensor([5, 3, 1])
    typed = {
        name: jaxtyping.jaxtyped(typechecker=beartype)(getattr(losses, name))
        for name in ("class_weights", "class_temperatures", "balanced_softmax", "self_distillation", "bib", "mbib")
    }
    typed["class_weights"](counts, 0.5)
    typed["class_temperatures"](counts, 0.5)
    typed["balanced_softmax"](f, y, counts=counts)
    typed["self_distillation"](f, f, temperature=torch.ones(3))
    typed["bib"](f, f, y, counts=counts, beta=1.0)
    typed["mbib"]([f, f], f, y, counts=counts, alphas=(0.1,), beta=1.0)
    for name, wrong in {"counts": counts[:2], "targets": y[:3], "z_logits": f[:, :2]}.items():
        given = {"v_logits": f, "z_logits": f, "targets": y, "counts": counts, "beta": 1.0}
        with pytest.raises(Exception, match=name):
            typed["bib"](**given | {name: wrong})


@pytest.mark.parametrize(
    ("name", "value", "error", "sentence"),
    [
        *(
            (name, value, ValueError, f"{name} is {value}: it must be a finite number, 0 or larger")
            for name in ("beta", "k", "gamma")
            for value in (-0.1, float("nan"), float("inf"))
        ),
        *(
            ("alphas", value, ValueError, "must be 0 or larger and sum to at most 1: they are proportions")
            for value in ((-0.1, 0.3), (0.6, 0.6), (float("nan"), 0.1))
        ),
        (
            "k",
            1e12,
            ValueError,
            "k is .*: for counts from 5 to 500, float32 cannot hold the class weights; choose a sm",
        ),
        ("gamma", 1000, ValueError, "gamma is 1000: for .* float32 cannot hold the class temperatures; choose a small"),
        ("tau", float("nan"), ValueError, "tau is nan: it must be a finite number"),
        ("label_smoothing", 1.5, ValueError, "label_smoothing is 1.5: it must be a number from 0 to 1"),
        ("reduction", "average", ValueError, "reduction is 'average': it must be mean, sum or none"),
        ("alphas", "13", TypeError, "alphas are '13': they must be numbers, one for each observation but the deepest"),
        ("alphas", ("a", 0.3), TypeError, "an alpha is 'a': it must be a number"),
        *(("beta", value, TypeError, "beta is .*: it must be a number") for value in ("1", None, 1j, torch.ones(2))),
    ],
)
@pytest.mark.fault("{name} of a loss that is out of range, no number, or explodes")
def test_modules_refuse_settings_that_mean_nothing(name: str, value: Any, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        MBIBLoss([500, 40, 5], **{"alphas": (0.1, 0.3), "beta": 1.0} | {name: value})


@pytest.mark.parametrize("number", [np.float32, np.float64, np.array, torch.tensor])
def test_settings_may_be_numbers_of_numpy_and_torch(number: Any) -> None:
    v, z, targets, counts = BATCH.tensors()
    loss = MBIBLoss(counts, alphas=number([0.5, 0.25]), beta=number(2), k=number(0.5), tau=number(0.5))
    expected = mbib(v, z, targets, counts=counts, alphas=(0.5, 0.25), beta=2.0, k=0.5, tau=0.5)
    assert float(loss(v, z, targets)) == float(expected)


def test_alphas_that_sum_to_one_in_decimals_are_accepted() -> None:
    for alphas in ([0.2, 0.4, 0.3, 0.1], [0.33, 0.56, 0.11], [1.0]):
        check_settings(alphas=alphas)


# On Apple's GPUs, which have no float64


@pytest.mark.parametrize("counts", [BATCH.counts, [500.5, 40, 5]])
@pytest.mark.parametrize("k", [0.0, 1.2])
def test_a_loss_on_an_apple_gpu_is_that_on_the_cpu(counts: list[float], k: float) -> None:
    v, z, targets, _ = BATCH.tensors(torch.float32)
    here = MBIBLoss(counts, alphas=(0.1, 0.3), beta=2.0, k=k, gamma=0.1)
    there = copy.deepcopy(here)._apply(on_apple)  # what .to("mps") does
    inputs = [on_apple(f).requires_grad_() for f in (*v, z)]
    found = there(inputs[:3], inputs[3], on_apple(targets))
    found.backward()
    assert (found.device.type, found.dtype) == ("mps", torch.float32)
    assert found.item() == pytest.approx(float(here(v, z, targets)), rel=1e-6)
    assert all(bool(f.grad.isfinite().all()) for f in inputs)


def on_apple(tensor: Tensor) -> Tensor:
    return tensor.clone().as_subclass(OnApple)
