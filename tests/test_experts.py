"""Methods of several experts or branches: their networks, their losses, and how they answer."""

import math

import numpy as np
import pytest
import torch
from conftest import softmax
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mbib_core.methods import METHODS
from mbib_core.mixtures import ride, ride_temperatures, sade_mbib, sade_shifts
from mbib_core.rebalancing import ldam

# The inputs on which the published modules, or their lines, were computed once in float64.
R = np.random.RandomState(0)
N = torch.tensor([120, 48, 19, 8, 3])
Y = torch.from_numpy(R.randint(0, 5, 8))
Z = [torch.from_numpy(2 * R.randn(8, 5)) for _ in range(3)]
F1, F2 = (torch.from_numpy(R.randn(8, 6)) for _ in range(2))
W1, W2 = (torch.from_numpy(R.randn(5, 6)) for _ in range(2))
B = torch.from_numpy(R.randn(5))
Q, _ = R.randn(12, 6), R.randint(0, 5, 12)
MU, RHO = (torch.from_numpy(R.randn(8, 6)) for _ in range(2))
OTHER = Y[torch.from_numpy(R.permutation(8))]
COSINES = [F.normalize(f) @ F.normalize(w).T for f, w in ((F1, W1), (F2, W2))]
LDAM = {"margin": 0.5, "deferred": 0.8, "effective": 0.9999}


def values(x: torch.Tensor) -> list[float]:
    return x.flatten().tolist()


def test_the_inputs_are_those_of_the_published_numbers() -> None:
    assert (int(Y.sum()), float(Z[0][0, 0]), float(B[-1])) == pytest.approx((19, 1.90017684, -1.04525337))


def test_ride_has_the_numbers_of_its_authors_code_before_and_after_the_weights_come() -> None:
    answers = [30 * COSINES[0], 30 * COSINES[1], 12 * (COSINES[0] + COSINES[1])]
    found = [float(ride(answers, Y, counts=N, progress=p, diversity=0.45, tempering=0.05, **LDAM)) for p in (0.79, 0.8)]
    assert found == pytest.approx([53.39887346, 70.45680638], abs=1e-6)
    expected = [1.0, 0.9174691, 0.8842274, 0.8716185, 0.8658872]
    assert values(ride_temperatures(N, 0.05)) == pytest.approx(expected, abs=1e-6)


def test_the_third_shift_of_sade_has_the_numbers_of_its_authors_code() -> None:
    expected = [7.8785341, 5.0005849, 2.3438280, -0.3746934, -3.1881041]
    assert values(sade_shifts(N.double(), 2.0)[2]) == pytest.approx(expected, abs=1e-6)


@given(st.integers(2, 4), st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_ride_agrees_with_a_naive_loop_whatever_the_order_of_the_counts(
    experts: int, seed: int, diversity: float, tempering: float
) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(experts, 6, 4, generator=random, dtype=torch.float64)
    y, n = torch.randint(4, (6,), generator=random), torch.randint(1, 500, (4,), generator=random)
    own = {"counts": n, "progress": 0.9, **LDAM}
    u = [tempering * 4 * count / int(n.sum()) + 1 - tempering for count in n.tolist()]
    t = [one / max(u) for one in u]
    expected = math.fsum(float(ldam(f, y, **own)) for f in logits)
    for b in range(6):
        p = softmax([math.fsum(logits[:, b, c].tolist()) / experts / t[c] for c in range(4)])
        for f in logits[:, b].tolist():
            q = softmax([f[c] / t[c] for c in range(4)])
            kl = math.fsum(p[c] * math.log(p[c] / q[c]) for c in range(4))
            expected -= diversity * (sum(t) / 4) ** 2 * kl / 6
    found = ride(list(logits), y, diversity=diversity, tempering=tempering, **own)
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_no_gradient_reaches_rides_mean_answer() -> None:
    logits = [f.clone().requires_grad_() for f in Z]
    own = {"counts": N, "progress": 0.0, "tempering": 0.05, **LDAM}
    ride(logits, Y, diversity=1.0, **own).backward()
    p = torch.stack(Z).mean(0).softmax(1)
    for f in logits:
        (plain,) = torch.autograd.grad(ldam(f, Y, counts=N, progress=0.0, **LDAM), f)
        torch.testing.assert_close(f.grad - plain, (p - f.detach().softmax(1)) / 8)


def test_sade_with_a_bottleneck_in_each_expert_agrees_with_a_naive_loop_and_a_number() -> None:
    own = {"counts": N.flip(0), "alphas": (0.1, 0.3), "beta": 1.5, "inverse": 2.0}  # in another order
    v, z = [Z, Z[::-1], [Z[1], Z[2], Z[0]]], [(Z[0] + Z[2]) / 2, Z[1], Z[0]]
    n, total = N.flip(0).tolist(), 0.0
    rare = dict(zip(sorted(n), sorted(n, reverse=True), strict=True))
    for k in range(3):
        d = [[0, math.log(i / 198), math.log(i / 198) - 2 * math.log(rare[i] / 198)][k] for i in n]
        for alpha, teacher in zip((0.1, 0.3, 0.6), v[k], strict=True):
            for b, label in enumerate(Y.tolist()):
                a, c = teacher[b].tolist(), z[k][b].tolist()
                p, q = softmax(a), softmax(c)
                own_loss = -sum(math.log(softmax([f + s for f, s in zip(g, d, strict=True)])[label]) for g in (a, c))
                kl = math.fsum(p[i] * math.log(p[i] / q[i]) for i in range(5))
                total += alpha * (own_loss + 1.5 * kl) / 8
    assert float(sade_mbib(v, z, Y, **own)) == pytest.approx(total, rel=1e-6)
    level = torch.zeros(8, 5, dtype=torch.float64)
    third = sade_mbib([[level] * 3, [level] * 3, Z], [level, level, z[0]], Y, **(own | {"counts": N}))
    level_ones = 2 * math.log(5) - 2 * float((N / N.sum()).double().log()[Y].mean())
    assert float(third) - level_ones == pytest.approx(14.20130848, abs=1e-6)


PARAMETERS = {"ride-2": 530_512, "ride-3": 783_856, "ride-4": 1_037_200, "sade-mbib": 818_128}


@pytest.mark.parametrize("method", list(PARAMETERS))
def test_a_network_of_experts_has_the_published_number_of_parameters(method: str) -> None:
    network = METHODS[method].network(100)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[method]
