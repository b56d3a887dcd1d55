"""Stochastic bottlenecks: their rates, how they answer, and that a file answers the same way each time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mbib_core.evaluation import features_of
from mbib_core.losses import self_distillation
from mbib_core.methods import METHODS
from mbib_core.networks import Network
from mbib_core.networks.stochastic import Drop, Gaussian
from mbib_core.stochastic import (
    drop_rate,
    gaussian_rate,
    histogram_entropy,
    keep_mask,
    pairwise_rate,
    published_distillation,
)


def inputs() -> dict[str, torch.Tensor]:
    """Those of the numbers that the authors' code gave, in float64."""
    r = np.random.RandomState(0)
    r.randint(0, 5, 8)
    z = [2 * r.randn(8, 5) for _ in range(3)]
    f = [r.randn(8, 6) for _ in range(2)]
    r.randn(5, 6), r.randn(5, 6), r.randn(5), r.randn(12, 6), r.randint(0, 5, 12)
    mean, rho = r.randn(8, 6), r.randn(8, 6)
    return {k: torch.from_numpy(v) for k, v in {"z1": z[0], "z2": z[1], "f": f[0], "mean": mean, "rho": rho}.items()}


def test_rates_have_the_numbers_of_their_authors_code() -> None:
    i = inputs()
    p, entropy = i["f"][0].sigmoid(), torch.arange(2, 8, dtype=torch.float64).log()
    found = {
        "VIB": gaussian_rate(i["mean"], nn.functional.softplus(i["rho"] - 5)),
        "upper": pairwise_rate(i["f"], 0.5),
        "lower": pairwise_rate(i["f"], 0.5, upper=False),
        "drop": drop_rate(entropy, p),
        "mask": keep_mask(i["f"][0], i["f"][1:2].sigmoid())[0],
        "VSD": self_distillation(i["z1"], i["z2"], temperature=2.0),
        "VSD, published": published_distillation(i["z1"], i["z2"], temperature=2.0),
    }
    for name, expected in {
        "VIB": 30.58295570,
        "upper": 2.06208780,
        "lower": 1.49149251,
        "drop": 3.62319940,
        "mask": [0.9999848, 0.0000000, 0.4098739, 0.0000196, 0.8736090, 0.0352466],
        "VSD": 0.75686449,
        "VSD, published": -0.31891114,
    }.items():
        assert found[name].tolist() == pytest.approx(expected, abs=1e-6), name


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 10**6), st.floats(0.05, 20))
def test_rates_agree_with_naive_loops_and_the_pairwise_ones_lie_between_0_and_log_b(
    b: int, d: int, seed: int, variance: float
) -> None:
    random = torch.Generator().manual_seed(seed)
    h, x = (3 * torch.randn(b, d, generator=random, dtype=torch.float64) for _ in range(2))
    gaussian, entropy = 0.0, [0.0] * d
    for i in range(b):
        for j in range(d):
            mean, deviation = float(h[i, j]), 0.1 + abs(float(x[i, j]))
            gaussian += (deviation**2 + mean**2 - 1 - math.log(deviation**2)) / 2 / b
    assert float(gaussian_rate(h, 0.1 + x.abs())) == pytest.approx(gaussian)
    for upper, width in ((True, 2 * variance), (False, 8 * variance)):
        near = [[math.exp(-(math.dist(p, q) ** 2) / width) for q in h.tolist()] for p in h.tolist()]
        expected = math.log(b) - sum(math.log(sum(row)) for row in near) / b
        assert float(pairwise_rate(h, variance, upper=upper)) == pytest.approx(expected, abs=1e-9)
    low, high = (float(pairwise_rate(h, variance, upper=upper)) for upper in (False, True))
    assert -1e-9 <= low <= high + 1e-9 <= math.log(b) + 2e-9
    for j in range(d):
        counts = np.histogram(x[:, j].numpy(), 32)[0] if b > 1 else np.array([1])
        entropy[j] = -sum(n / b * math.log(n / b) for n in counts if n)
    assert histogram_entropy(x).tolist() == pytest.approx(entropy)


def test_a_drop_mask_keeps_as_often_as_its_chance_says_and_its_entropy_has_no_gradient() -> None:
    logits = torch.tensor([-2.0, 0.0, 1.0])
    uniform = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0))
    kept = (keep_mask(logits, uniform) > 0.5).float().mean(0)
    assert kept.tolist() == pytest.approx((1 - logits.sigmoid()).tolist(), abs=0.012), "three standard deviations"
    v = torch.randn(8, 3, requires_grad=True)
    drop = torch.tensor([0.1, 0.5, 0.9], requires_grad=True)
    drop_rate(histogram_entropy(v), drop).backward()
    assert v.grad is None
    assert bool((drop.grad < 0).all()), "what is dropped more often costs less"


def test_the_published_vsd_loss_is_least_at_a_nearly_uniform_student_and_not_at_its_teacher() -> None:
    teacher = torch.tensor([[4.0, 0.0, -1.0]], dtype=torch.float64)
    student = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    for _ in range(2000):
        [slope] = torch.autograd.grad(published_distillation(teacher, student), student)
        student = (student - 3 * slope).detach().requires_grad_()
    torch.testing.assert_close(student.softmax(1), teacher.softmax(1).softmax(1), atol=1e-6, rtol=0)
    assert published_distillation(teacher, student) < published_distillation(teacher, teacher) - 0.1
    assert self_distillation(teacher, teacher) < self_distillation(teacher, student) - 0.1


@pytest.mark.parametrize("kind", ["gaussian", "homoscedastic", "drop"])
def test_a_stochastic_z_is_drawn_in_training_and_answers_alike_in_every_batch_afterwards(kind: str) -> None:
    torch.manual_seed(0)
    network = Network(depth=8, with_v=False, stochastic=kind).build(4)
    x = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    one, other = network.train()(x), network(x)
    assert not torch.equal(one.z_logits, other.z_logits)
    assert float(one.rate.detach()) > 0
    whole, parts = features_of(network, x), features_of(network, x, batch=2)
    torch.testing.assert_close(whole, parts)
    assert torch.equal(whole["logits/z"], features_of(network, x)["logits/z"])
    assert len(features_of(network, x[:0])["logits/z"]) == 0


def test_vib_answers_with_the_mean_softmax_of_twelve_draws() -> None:
    torch.manual_seed(0)
    encoder, classify, v = Gaussian(5).eval(), nn.Linear(5, 3), torch.randn(4, 5)
    encoder.linear.bias.data[5:] = 6.0  # a deviation of about 1
    z, logits, _ = encoder(v, classify)
    mean, raw = encoder.linear(v).split(5, 1)
    draws = [classify(mean + nn.functional.softplus(raw - 5) * noise).softmax(1) for noise in encoder.noise]
    assert len(draws) == 12
    torch.testing.assert_close(logits.exp(), sum(draws) / 12)
    assert torch.equal(z, mean)


def test_drop_keeps_at_test_time_what_is_lost_less_than_half_the_time() -> None:
    encoder = Drop(4).eval()
    encoder.drop_logits.data = torch.tensor([-1.0, 0.5, -0.1, 2.0])
    z, _, _ = encoder(torch.ones(2, 4), nn.Identity())
    assert z.tolist() == [[2.0, 0.0, 2.0, 0.0]] * 2
    encoder.drop_logits.data.fill_(1.0)
    assert encoder(torch.ones(2, 4), nn.Identity())[0].tolist() == [[0.0] * 4] * 2, "nothing is kept, not even NaN"


def test_a_stochastic_bottleneck_has_the_size_that_its_paper_says() -> None:
    plain = sum(p.numel() for p in METHODS["ce"].network(100).parameters())
    found = {name: sum(p.numel() for p in METHODS[name].network(100).parameters()) for name in ("vib", "nib", "drop")}
    assert found == {"vib": plain + 2 * (64 * 64 + 64), "nib": plain + 64 * 64 + 64 + 1, "drop": plain + 64}
