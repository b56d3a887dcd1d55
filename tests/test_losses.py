"""The losses against float64 loops written from the formulas of paper/method.md, and against what they promise."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch
from beartype import beartype
from conftest import softmax
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mbib_core import losses
from mbib_core.criteria import BIBLoss, MBIBLoss, check_settings
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
@given(batches())
def test_balanced_softmax_is_the_cross_entropy_of_the_posterior_times_the_counts(b: Batch) -> None:
    (v,), _, targets, counts = b.tensors()
    found = float(balanced_softmax(v, targets, counts=counts))
    assert found == pytest.approx(naive_balanced(b.v[0], b.targets, b.counts, 0.0), rel=1e-9, abs=1e-9)


@pytest.mark.equation(5)
@pytest.mark.equation(6)
@pytest.mark.equation(7)
@given(batches(), ks)
@example(Batch([[[0.0, 0.0]]], [[0.0, 0.0]], [1], [10**6, 1]), 2.0)
def test_class_weights_multiply_the_log_posterior_of_v_and_of_z(b: Batch, k: float) -> None:
    (v,), z, targets, counts = b.tensors()
    for logits, rows in ((v, b.v[0]), (z, b.z)):
        found = float(balanced_softmax(logits, targets, counts=counts, k=k))
        assert found == pytest.approx(naive_balanced(rows, b.targets, b.counts, k), rel=1e-5, abs=1e-5)


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
    assert float(mbib(v, z, targets, alphas=(0.0, 0.0), **shared)) == float(bib(v[-1], z, targets, **shared))


@pytest.mark.equation(12)
def test_mbib_with_beta_zero_is_deep_supervision_with_balanced_losses() -> None:
    v, z, targets, counts = BATCH.tensors()
    single = [float(balanced_softmax(f, targets, counts=counts, k=0.5)) for f in [*v, z]]
    expected = 0.1 * single[0] + 0.3 * single[1] + 0.6 * single[2] + single[3]
    found = mbib(v, z, targets, counts=counts, alphas=(0.1, 0.3), beta=0.0, k=0.5)
    assert float(found) == pytest.approx(expected)


@pytest.mark.equation(11)
def test_mbib_of_a_single_observation_needs_no_alphas() -> None:
    v, z, targets, counts = BATCH.tensors()
    found = mbib(v[-1:], z, targets, counts=counts, alphas=(), beta=2.0)
    assert float(found) == float(bib(v[-1], z, targets, counts=counts, beta=2.0))


@pytest.mark.equation(11)
@pytest.mark.parametrize("alphas", [(), (0.1,), (0.1, 0.2, 0.3)])
@pytest.mark.fault("a wrong number of alphas in the loss")
def test_mbib_refuses_a_wrong_number_of_alphas(alphas: tuple[float, ...]) -> None:
    v, z, targets, counts = BATCH.tensors()
    with pytest.raises(ValueError, match=f"3 observations need 2 alphas, not {len(alphas)}"):
        mbib(v, z, targets, counts=counts, alphas=alphas, beta=1.0)


# The variants of appendix F and the controls, as methods.py and the docstrings state them


@pytest.mark.equation(4)
@given(batches(), st.floats(0, 1), ks)
def test_tau_is_the_power_of_the_counts_in_the_training_posterior(b: Batch, tau: float, k: float) -> None:
    (v,), _, targets, counts = b.tensors()
    found = float(balanced_softmax(v, targets, counts=counts, k=k, tau=tau))
    assert found == pytest.approx(naive_balanced(b.v[0], b.targets, b.counts, k, tau), rel=1e-5, abs=1e-5)
    plain = float(balanced_softmax(v, targets, counts=counts, tau=0.0))
    assert plain == pytest.approx(float(F.cross_entropy(v, targets)), rel=1e-9, abs=1e-9)


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


@given(batches(observations=2), st.randoms(use_true_random=False))
def test_the_order_of_the_classes_does_not_matter(b: Batch, random) -> None:  # type: ignore[no-untyped-def]
    v, z, targets, counts = b.tensors()
    order = list(range(len(b.counts)))
    random.shuffle(order)
    place = torch.tensor([order.index(i) for i in range(len(order))])
    shared = {"alphas": (0.3,), "beta": 1.5, "k": 0.5, "gamma": 0.2}
    straight = mbib(v, z, targets, counts=counts, **shared)
    turned = mbib([f[:, order] for f in v], z[:, order], place[targets], counts=counts[order], **shared)
    assert float(turned) == pytest.approx(float(straight), rel=1e-6, abs=1e-6)


@given(batches(), st.floats(-100, 100), st.floats(-100, 100))
def test_a_shift_of_all_logits_of_a_picture_changes_nothing(b: Batch, a: float, c: float) -> None:
    (v,), z, targets, counts = b.tensors()
    straight = bib(v, z, targets, counts=counts, beta=1.0, k=0.5)
    shifted = bib(v + a, z + c, targets, counts=counts, beta=1.0, k=0.5)
    assert float(shifted) == pytest.approx(float(straight), rel=1e-6, abs=1e-6)


@given(batches(), st.integers(2, 9))
def test_only_the_proportions_of_the_counts_matter(b: Batch, times: int) -> None:
    (v,), z, targets, counts = b.tensors()
    shared = {"beta": 1.0, "k": 0.5, "gamma": 0.2}
    straight = float(bib(v, z, targets, counts=counts, **shared))
    assert float(bib(v, z, targets, counts=counts * times, **shared)) == pytest.approx(straight, rel=1e-5, abs=1e-5)


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


def test_a_batch_of_one_class_has_the_loss_of_that_class_alone() -> None:
    (_, _, v), _, _, counts = BATCH.tensors()
    tail = torch.full((len(v),), 2)
    for k in (0.0, 0.5, 1.2):
        expected = naive_balanced(BATCH.v[2], [2] * 4, BATCH.counts, 0.0)  # equal weights cancel
        assert float(balanced_softmax(v, tail, counts=counts, k=k)) == pytest.approx(expected, rel=1e-6)


def test_a_batch_of_the_largest_class_alone_survives_a_large_k() -> None:
    """The largest class's weight is the smallest number here: it must not vanish and leave 0 / 0."""
    logits, targets = torch.tensor([[0.0, 14.0]]), torch.tensor([0])
    counts = torch.tensor([10**6, 1])
    expected = naive_balanced([[0.0, 14.0]], [0], [10**6, 1], 0.0)
    for k in (1.2, 2.0, 5.0):
        assert float(balanced_softmax(logits, targets, counts=counts, k=k)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.equation(7)
def test_a_count_of_one_beside_a_million_keeps_its_digits() -> None:
    logits = [[0.5, -0.5], [0.25, 3.0]]
    for k in (0.0, 1.0, 1.2):
        found = balanced_softmax(torch.tensor(logits), torch.tensor([0, 1]), counts=torch.tensor([10**6, 1]), k=k)
        assert float(found) == pytest.approx(naive_balanced(logits, [0, 1], [10**6, 1], k), rel=1e-5)


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
@pytest.mark.parametrize("counts", [[6, 6, 6], [600, 60, 6]])
def test_the_minimiser_of_balanced_softmax_is_the_balanced_posterior(counts: list[int]) -> None:
    found, balanced = minimiser(counts, WORLD, k=0.0)
    torch.testing.assert_close(found, balanced, atol=1e-4, rtol=0)


@pytest.mark.equation(7)
@pytest.mark.parametrize("k", [0.5, 1.2])
def test_class_weights_tilt_the_minimiser_by_the_counts_to_the_minus_k(k: float) -> None:
    counts = [600, 60, 6]
    found, balanced = minimiser(counts, WORLD, k=k)
    tilted = balanced * torch.tensor(counts, dtype=torch.float64) ** -k
    torch.testing.assert_close(found, tilted / tilted.sum(1, keepdim=True), atol=1e-4, rtol=0)


@pytest.mark.equation(7)
@pytest.mark.parametrize("k", [0.5, 1.2])
def test_the_adjustment_n_to_the_1_minus_k_makes_class_weights_consistent(k: float) -> None:
    found, balanced = minimiser([600, 60, 6], WORLD, k=k, tau=1 - k)
    torch.testing.assert_close(found, balanced, atol=1e-4, rtol=0)


@pytest.mark.equation(7)
def test_the_tilt_between_tail_and_head_at_factor_100_is_251_for_the_literal_k() -> None:
    weights = class_weights(torch.tensor([500, 5]), 1.2)
    assert float(weights[1] / weights[0]) == pytest.approx(251, abs=0.5)


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


def test_counts_are_a_buffer_that_moves_and_is_saved_with_the_module() -> None:
    loss = MBIBLoss([500, 40, 5], alphas=(0.1, 0.3), beta=1.0)
    assert list(loss.parameters()) == []
    assert loss.to("meta").counts.device.type == "meta"
    loss = MBIBLoss([500, 40, 5], alphas=(0.1, 0.3), beta=1.0)
    other = MBIBLoss([7, 7, 7], alphas=(0.1, 0.3), beta=1.0)
    other.load_state_dict(loss.state_dict())
    assert other.counts.tolist() == [500, 40, 5]


@pytest.mark.parametrize("counts", [[10**6, 40, 1], torch.tensor([1e6, 40.0, 1.0])], ids=["whole", "float"])
def test_a_module_turned_to_half_precision_keeps_its_counts(counts: list[int] | Tensor) -> None:
    """`model.half()` turns every float buffer: a million would become infinite."""
    v, z, targets, _ = BATCH.tensors(torch.float16)
    expected = naive_bib(v[0].double().tolist(), z.double().tolist(), BATCH.targets, [10**6, 40, 1], 1.0, 0.5, 0.0)
    found = BIBLoss(counts, beta=1.0, k=0.5).half()(v[0], z, targets)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_a_module_does_not_share_its_counts_with_the_caller() -> None:
    counts = torch.tensor([500, 40, 5])
    loss = BIBLoss(counts, beta=1.0)
    counts[0] = 1
    assert loss.counts.tolist() == [500, 40, 5]


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ([5, 0, 3], r"every class needs a training picture: classes \[1\] have a count below 1"),
        ([5.0, float("nan")], r"classes \[1\] have a count below 1"),
        ([5], "two classes or more"),
        ([[5, 3]], r"not shape \[1, 2\]"),
        ([5, -3], "count below 1"),
        ([5.0, float("inf")], "finite"),
        ([0.5, 0.3, 0.2], "look like shares: give the numbers of training pictures"),
        ([1] + [0] * 7, r"classes \[1, 2, 3, 4, 5\], 7 in all have a count below 1"),
    ],
)
@pytest.mark.fault("counts that are zero, negative, of one class or of another shape")
def test_modules_refuse_counts_that_are_none(counts: list, sentence: str) -> None:
    for build in (lambda: BIBLoss(counts, beta=1.0), lambda: MBIBLoss(counts, alphas=(), beta=1.0)):
        with pytest.raises(ValueError, match=sentence):
            build()


@pytest.mark.parametrize(
    "counts", [Counter([2, 2, 0]), Counter([2, 2, 0]).values(), {0: 5, 1: 3}, pd.Series([0, 1, 1]).value_counts()]
)
@pytest.mark.fault("counts that do not say which class they are of")
def test_modules_refuse_counts_without_an_order(counts: Any) -> None:
    with pytest.raises(
        TypeError, match=r"counts must be a list, array or tensor .*: torch\.bincount\(labels, minlength"
    ):
        BIBLoss(counts, beta=1.0)


@pytest.mark.parametrize(
    "counts",
    [np.array([5, 3]), np.array([3, 5], dtype=np.uint16)[::-1], (5, 3), torch.tensor([5, 3], dtype=torch.uint8)],
)
def test_modules_take_counts_as_array_tuple_or_tensor(counts: Any) -> None:
    assert BIBLoss(counts, beta=1.0).counts.tolist() == [5, 3]


def test_counts_that_are_no_whole_numbers_are_kept() -> None:
    assert BIBLoss([5.5, 2.5], beta=1.0).counts.tolist() == [5.5, 2.5]


@pytest.mark.fault("a loss, logits and targets on different devices")
def test_what_is_on_another_device_is_named_with_what_to_do() -> None:
    logits, targets = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    criterion = BIBLoss([5, 3, 1], beta=1.0)
    with pytest.raises(ValueError, match=r"logits are on meta, the loss with its counts on cpu: criterion\.to\(device"):
        criterion(logits, logits.to("meta"), targets)
    with pytest.raises(ValueError, match=r"targets are on meta, the loss with its counts on cpu: targets\.to\(device"):
        criterion(logits, logits, targets.to("meta"))


@pytest.mark.fault("a list of logits, or of targets, for BIBLoss")
def test_lists_in_the_place_of_tensors_are_refused() -> None:
    logits, targets = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"logits must be tensors \[B, C\], not list: a list of them is for MBIBLoss"):
        BIBLoss([5, 3, 1], beta=1.0)([logits], logits, targets)
    with pytest.raises(TypeError, match=r"targets must be a tensor of class numbers, int64 \[B\], not list"):
        BIBLoss([5, 3, 1], beta=1.0)(logits, logits, [0, 1])


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


@pytest.mark.parametrize("name", ["beta", "k", "gamma"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
@pytest.mark.fault("a negative or infinite {name} in the loss")
def test_modules_refuse_settings_out_of_range_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}: it must be a finite number, 0 or larger"):
        MBIBLoss([5, 3], alphas=(), **({"beta": 1.0} | {name: value}))


@pytest.mark.parametrize("alphas", [(-0.1, 0.3), (0.6, 0.6), (float("nan"), 0.1)])
@pytest.mark.fault("alphas below 0 or past 1 in the loss")
def test_modules_refuse_alphas_that_are_no_proportions(alphas: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be 0 or larger and sum to at most 1: they are proportions"):
        MBIBLoss([5, 3], alphas=alphas, beta=1.0)


def test_alphas_that_sum_to_one_in_decimals_are_accepted() -> None:
    for alphas in ([0.2, 0.4, 0.3, 0.1], [0.33, 0.56, 0.11]):
        assert sum(alphas) > 1, "by the last digit"
        check_settings(alphas=alphas)
    check_settings(alphas=[1.0])
