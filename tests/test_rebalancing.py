"""Appendix A (Eqs. 18 to 25) and what the chapter adds to it, on random worlds with finitely many observations."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mbib_core.losses import balanced_softmax, class_temperatures, class_weights, self_distillation

CLASSES, VALUES = 4, 6


def world(seed: int) -> tuple[torch.Tensor, ...]:
    """Counts [C], p(v|i) [C, V], and p_s(i|v), p_t(i|v) [V, C], p_s(v), p_t(v) [V] by Bayes' rule, Eqs. 18 and 19."""
    random = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 500, (CLASSES,), generator=random)
    looks = torch.rand(CLASSES, VALUES, generator=random, dtype=torch.float64) ** 3 + 1e-3
    looks /= looks.sum(1, keepdim=True)
    answers = []
    for prior in (counts / counts.sum().double(), torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)):
        joint = prior[:, None] * looks
        answers += [(joint / joint.sum(0)).T, joint.sum(0)]
    p_s, v_s, p_t, v_t = answers
    return counts, looks, p_s, p_t, v_s, v_t


worlds = given(st.integers(0, 10_000).map(world))


@pytest.mark.equation(18)
@pytest.mark.equation(19)
@pytest.mark.equation(21)
@worlds
def test_the_training_posterior_is_n_times_the_balanced_one(made):
    counts, _, p_s, p_t, _, _ = made
    weighed = counts * p_t
    torch.testing.assert_close(weighed / weighed.sum(1, keepdim=True), p_s)


@pytest.mark.equation(20)
@worlds
def test_the_ratio_of_posteriors_needs_the_ratio_of_the_observations(made):
    """Eq. 20 lacks p_t(v) / p_s(v), which is 1 for every v only if the shares are equal (C independent rows)."""
    counts, looks, p_s, p_t, v_s, v_t = made
    shares = counts / counts.sum().double() * CLASSES
    torch.testing.assert_close(p_s / p_t, shares * (v_t / v_s)[:, None])
    torch.testing.assert_close((p_t * shares).sum(1), v_s / v_t)  # the normaliser is the factor that was dropped
    if torch.linalg.svdvals(looks)[-1] > 1e-3 and counts.unique().numel() > 1:
        assert (v_s - v_t).abs().max() > 1e-7


@pytest.mark.equation(22)
@pytest.mark.equation(23)
@worlds
def test_the_loss_of_balanced_logits_is_the_likelihood_under_the_training_posterior(made):
    counts, _, p_s, p_t, _, _ = made
    for i in range(CLASSES):
        loss = balanced_softmax(p_t.log(), torch.full((VALUES,), i), counts=counts)
        torch.testing.assert_close(loss, -p_s[:, i].log().mean())


@pytest.mark.equation(24)
@pytest.mark.equation(25)
@worlds
def test_no_other_logits_have_a_smaller_expected_loss(made):
    """Over the training data, with weights n^(-k) and tau log n: the minimum is at n^(1-k-tau) p_t. Eqs. 24 and 25."""
    counts, _, p_s, p_t, v_s, _ = made
    for k, tau in ((0.0, 1.0), (0.0, 0.0), (1.0, 0.0), (0.5, 0.5), (1.2, 1.0)):
        weights = class_weights(counts, k)

        def expected(logits, k=k, tau=tau, weights=weights):
            total = torch.zeros((), dtype=torch.float64)
            for v in range(VALUES):
                for i in range(CLASSES):
                    one = balanced_softmax(logits[v : v + 1], torch.tensor([i]), counts=counts, k=k, tau=tau)
                    total = total + v_s[v] * p_s[v, i] * weights[i] * one  # a mean over one picture drops its weight
            return total

        best = (p_t * counts.double() ** (1 - k - tau)).log().requires_grad_()
        loss = expected(best)
        (slope,) = torch.autograd.grad(loss, best)
        assert slope.abs().max() < 1e-6 * weights.max()
        noise = torch.randn(best.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert expected(best.detach() + 0.3 * noise) > loss


@pytest.mark.parametrize(("k", "tau"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.2, 1.0), (0.3, 0.7)])
def test_separated_data_leave_an_offset_of_half_k_plus_two_tau_minus_one_log_f(k, tau):
    """Two points, far apart in logits: the slope of the offset vanishes at (k + 2 tau - 1) log(F) / 2."""
    counts, factor = torch.tensor([100, 1]), 100
    y = torch.arange(2).repeat_interleave(counts)
    offset = torch.tensor(0.5 * (k + 2 * tau - 1) * math.log(factor), dtype=torch.float64, requires_grad=True)
    logit = 15 * (2.0 * y.double() - 1) + offset
    loss = balanced_softmax(torch.stack([torch.zeros_like(logit), logit], 1), y, counts=counts, k=k, tau=tau)
    (slope,) = torch.autograd.grad(loss, offset)
    assert abs(slope) < 1e-4 * loss


@pytest.mark.equation(8)
@given(st.floats(0.05, 0.5), st.floats(-2, 2), st.integers(0, 1000))
def test_equal_softened_posteriors_leave_a_constant_times_the_temperature_free(gamma, c, seed):
    counts = torch.tensor([500, 50, 5])
    temperature = class_temperatures(counts, gamma).double()
    f_v = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert abs(self_distillation(f_v, f_v + c * temperature, temperature=temperature)) < 1e-9
