"""Methods of several experts or branches: their networks, their losses, and how they answer."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import coloured, softmax
from hypothesis import given
from hypothesis import strategies as st
from test_rows import SHORT, run
from torch.nn import functional as F

from mbib_core.batches import Batch, draw
from mbib_core.methods import METHODS, settle
from mbib_core.methods.experts import Bilateral
from mbib_core.mixtures import (
    reslt,
    ride,
    ride_mbib,
    ride_temperatures,
    routing,
    sade_mbib,
    sade_shifts,
    shares_without_labels,
    stability,
)
from mbib_core.networks import Network, Outputs, multiply_adds, predictions
from mbib_core.networks.experts import Router
from mbib_core.rebalancing import ldam
from mbib_core.runs import make
from mbib_core.settings import Settings

# The inputs on which the published modules, or their lines, were computed once in float64.
R = np.random.RandomState(0)
N = torch.tensor([120, 48, 19, 8, 3])
Y = torch.from_numpy(R.randint(0, 5, 8))
Z = [torch.from_numpy(2 * R.randn(8, 5)) for _ in range(3)]
F1, F2 = (torch.from_numpy(R.randn(8, 6)) for _ in range(2))
W1, W2 = (torch.from_numpy(R.randn(5, 6)) for _ in range(2))
B = torch.from_numpy(R.randn(5))
R.randn(12, 6), R.randint(0, 5, 12)  # of other methods
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


def test_ride_with_bottlenecks_is_ride_where_all_classifiers_agree_and_tells_them_apart_otherwise() -> None:
    own = {"counts": N, "progress": 0.9, "tempering": 0.05, **LDAM}
    same = ride_mbib([[f] * 3 for f in Z], Z, Y, alphas=(0.1, 0.3), beta=2.0, diversity=0.0, **own)
    assert float(same) == pytest.approx(2 * float(ride(Z, Y, diversity=0.0, **own)))
    a, b, c = Z
    found = ride_mbib([[a, b], [b, c]], [c, a], Y, alphas=(0.25,), beta=2.0, diversity=0.3, **own)
    margins = {f: float(ldam(f, Y, counts=N, progress=0.9, **LDAM)) for f in Z}
    expected = 0.25 * margins[a] + 0.75 * margins[b] + margins[c] + 0.25 * margins[b] + 0.75 * margins[c] + margins[a]
    for teacher, student, share in ((a, c, 0.25), (b, c, 0.75), (b, a, 0.25), (c, a, 0.75)):
        p = teacher.softmax(1)
        expected += 2 * share * float((p * (p / student.softmax(1)).log()).sum()) / 8
    answers = [(b + c) / 2, (c + a) / 2]
    expected += float(ride(answers, Y, diversity=0.3, **own) - ride(answers, Y, diversity=0.0, **own))
    assert float(found) == pytest.approx(expected)


def test_reslt_has_the_number_of_its_authors_lines_whatever_the_order_of_the_classes() -> None:
    own = {"medium_from": 0.4, "tail_from": 0.6, "residual": 0.9}  # from class 2 and from class 3
    assert float(reslt(Z, Y, counts=N, **own)) == pytest.approx(2.51693421, abs=1e-6)
    order = torch.tensor([3, 0, 4, 2, 1])
    moved = reslt([f[:, order] for f in Z], order.argsort()[Y], counts=N[order], **own)
    assert float(moved) == pytest.approx(2.51693421, abs=1e-6)


def test_routing_has_the_number_of_its_authors_lines() -> None:
    answers = [30 * COSINES[0], 30 * COSINES[1], 12 * (COSINES[0] + COSINES[1])]
    router = Router(6, 5, 3, top=3, hidden=2).double()
    for layer, rows, bias in ((router.hidden[0], 0, B[0:2]), (router.hidden[1], 1, B[2:4])):
        layer.weight.data, layer.bias.data = torch.stack([MU[rows], RHO[rows]]), bias
    router.decide.weight.data = torch.cat([Z[0][0, :3], Z[1][0, :2]])[None]
    router.decide.bias.data.fill_(0.1)
    go_on = router((F1, F2), answers)
    assert float(routing(go_on, answers, Y, urgency=100.0).detach()) == pytest.approx(20.57127524, abs=1e-6)


def test_a_routed_image_is_answered_by_the_mean_of_the_experts_that_it_goes_to() -> None:
    go_on = torch.tensor([[-1.0, 5.0], [2.0, -3.0], [0.1, 4.0], [0.0, 0.0]])
    experts = tuple(Outputs((), (f[:4],), None, None) for f in Z)
    found = predictions(Outputs((), tuple(f[:4] for f in Z), None, None, experts, go_on))
    assert list(found) == ["routed", "mean", "expert_1", "expert_2", "expert_3"]
    expected = torch.stack([Z[0][0], (Z[0][1] + Z[1][1]) / 2, (Z[0][2] + Z[1][2] + Z[2][2]) / 3, Z[0][3]])
    torch.testing.assert_close(found["routed"], expected)


def test_routers_leave_what_ride_learned_and_a_record_says_what_they_save(tmp_path: Path) -> None:
    settings = replace(SHORT, data="coloured", epochs=4, batch=8)
    data = coloured([16, 12, 9])
    made = make(replace(settings, method="ride-4-routed"), data, out=tmp_path, progress=False, report=False)
    routed, plain = made.run.network.state_dict(), run(replace(settings, method="ride-4"), data).network.state_dict()
    assert all(torch.equal(routed[name], value) for name, value in plain.items())
    assert {name.split(".")[0] for name in set(routed) - set(plain)} == {"router"}
    used = made.record["test"]["experts_used"]
    outputs = made.run.network(data.test.x)
    assert used == pytest.approx(float((1 + (outputs.go_on > 0).long().cumprod(1).sum(1)).double().mean()), abs=1e-5)
    costs = [
        multiply_adds(Network(depth=8, experts=k, head="cosine", with_z=False).build(3), data.test.x[:1])
        for k in (4, 3)
    ]
    full, spent = made.record["multiply_adds"], made.record["multiply_adds_routed"]
    assert full - spent == pytest.approx((4 - used) * (costs[0] - costs[1]), rel=1e-4)


def test_shares_without_labels_have_sades_number_and_favour_the_expert_that_does_not_waver() -> None:
    found = stability(torch.stack(Z), torch.stack(Z[::-1]), torch.tensor([0.2, -0.1, 0.4], dtype=torch.float64))
    assert float(found) == pytest.approx(0.98467415, abs=1e-6)
    random = torch.Generator().manual_seed(0)
    first, second = (3 * torch.randn(3, 400, 5, generator=random) for _ in range(2))
    second[1] = first[1]
    shares = shares_without_labels(first, second)
    assert int(shares.argmax()) == 1
    assert float(shares.sum()) == pytest.approx(1)
    assert stability(first, second, shares.log()) > stability(first, second, torch.zeros(3))


class Given(torch.nn.Module):
    """A network whose two branches have the features above, whatever they see."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = torch.nn.Linear(12, 5).double()
        self.classifier.weight.data, self.classifier.bias.data = torch.cat([W1, W2], 1), B

    def forward(self, x: torch.Tensor) -> Outputs:
        assert x.flatten().tolist() == [*range(8), *range(10, 18)], "the first batch, then the second"
        return Outputs((torch.cat([F1, F2], 1),), (), None, None)


def test_bbn_has_the_number_of_its_authors_lines() -> None:
    first, second = (torch.arange(start, start + 8).view(8, 1, 1, 1) for start in (0, 10))
    batch = Batch(first, Y, Batch(second, OTHER))
    loss = Bilateral(Given(), N)(batch, METHODS["bbn"].stages[0].loss, 0.5)  # a = 1 - 0.5^2
    assert float(loss.detach()) == pytest.approx(3.43676046, abs=1e-6)


def test_in_training_each_branch_of_bbn_sees_its_own_batch_and_else_every_image_goes_through_both() -> None:
    network = METHODS["bbn"].network(3, depth=8)
    x = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    swapped = network(torch.cat([x[:3], x[3:].flip(0)])).observations[-1]
    plain = network(x).observations[-1]
    torch.testing.assert_close(plain[:, :64], swapped[:, :64])
    torch.testing.assert_close(plain[:, 64:], swapped[:, 64:].flip(0))
    whole = network.eval()(x).observations[-1]
    assert whole.shape == (6, 128)
    torch.testing.assert_close(whole[:1], network(x[:1]).observations[-1])


def test_the_second_batch_of_bbn_has_each_class_by_the_inverse_of_its_count() -> None:
    labels = torch.arange(3).repeat_interleave(torch.tensor([60, 30, 10]))
    rows = torch.cat([draw(labels, seed=0, epoch=e, q=METHODS["bbn"].stages[0].second).rows for e in range(400)])
    share = labels[rows].bincount() / len(rows)
    assert values(share) == pytest.approx([1 / 9, 2 / 9, 6 / 9], abs=0.01)  # 60^-1 : 30^-1 : 10^-1 = 1 : 2 : 6


@pytest.mark.fault("other observations of an expert")
def test_an_experts_observations_are_three() -> None:
    with pytest.raises(ValueError, match="sade-mbib has 3 observations: leave taps out"):
        settle(Settings(method="sade-mbib", taps=4))


PARAMETERS = {
    "ride-2": 530_512,
    "ride-3": 783_856,
    "ride-4": 1_037_200,
    "ride-4-routed": 1_037_200 + 2_399,
    "sade-mbib": 818_128,
    "ride-mbib": 818_128,
    "reslt": 470_388,
    "bbn": 550_388,
}


@pytest.mark.parametrize("method", list(PARAMETERS))
def test_a_network_of_experts_has_the_published_number_of_parameters(method: str) -> None:
    network = METHODS[method].network(100)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[method]
