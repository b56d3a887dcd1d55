"""The table of methods: each row's loss is the one that its title says, on the network that it says."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mbib_core import contrast, losses, methods, mixtures, rebalancing, stochastic
from mbib_core.methods import METHODS, method_of, settle, shared_alphas
from mbib_core.networks import Outputs
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings

COUNTS = torch.tensor([500, 40, 5])
TARGETS = torch.tensor([0, 1, 2, 0])


def outputs(taps: int, with_z: bool = True) -> Outputs:
    random = torch.Generator().manual_seed(0)
    v = tuple(torch.randn(4, 3, generator=random, dtype=torch.float64) for _ in range(taps))
    z = torch.randn(4, 3, generator=random, dtype=torch.float64) if with_z else None
    return Outputs(v, v, z, z, rate=torch.tensor(0.7))


V, Z = outputs(3).v_logits, outputs(3).z_logits
OWN = {"counts": COUNTS, "alphas": (0.1, 0.3), "beta": 2.0, "gamma": 0.1}


def balanced(f: Tensor, k: float, tau: float = 1.0) -> Tensor:
    return losses.balanced_softmax(f, TARGETS, counts=COUNTS, k=k, tau=tau)


def kl(teacher: Tensor, student: Tensor, gamma: float) -> Tensor:
    return losses.self_distillation(teacher, student, temperature=losses.class_temperatures(COUNTS, gamma))


def mixture(k: float, tau: float, beta: float, gamma: float) -> Tensor:
    own = [balanced(v, k, tau) + balanced(Z, k, tau) + beta * kl(v, Z, gamma) for v in V]
    return 0.1 * own[0] + 0.3 * own[1] + 0.6 * own[2]


OF_RIDE = {"margin": 0.5, "deferred": 0.8, "effective": 0.9999, "diversity": 0.45, "tempering": 0.05}
OF_RIDE_MBIB = OF_RIDE | {"alphas": (0.1, 0.3), "beta": 2.0}


def ride() -> Tensor:
    """Before LDAM's weights and RIDE's temperatures come."""
    own = {"counts": COUNTS, "progress": 0.0, "margin": 0.5, "deferred": 0.8, "effective": 0.9999}
    return sum(rebalancing.ldam(v, TARGETS, **own) - 0.45 * kl(sum(V) / 3, v, 0.0) for v in V)


EXPECTED = {
    "ce": lambda: F.cross_entropy(V[2], TARGETS),
    "bsce": lambda: balanced(V[2], 0.4),
    "bib": lambda: balanced(V[2], 0.4) + balanced(Z, 0.4) + 2 * kl(V[2], Z, 0.1),
    "mbib": lambda: mixture(0.4, 1, 2, 0.1),
    "ce-2branch": lambda: F.cross_entropy(V[2], TARGETS) + F.cross_entropy(Z, TARGETS),
    "sdib": lambda: F.cross_entropy(V[2], TARGETS) + F.cross_entropy(Z, TARGETS) + 2 * kl(V[2], Z, 0.1),
    "bsce-mlp": lambda: balanced(Z, 0.4),
    "bsce-2branch": lambda: balanced(V[2], 0.4) + balanced(Z, 0.4),
    "mbib-no-adjustment": lambda: mixture(0.4, 0, 2, 0.1),
    "mbib-no-weights": lambda: mixture(0, 1, 2, 0.1),
    "mbib-no-balance": lambda: mixture(0, 0, 2, 0.1),
    "mbib-beta0": lambda: mixture(0.4, 1, 0, 0.1),
    "mbib-deepest": lambda: mixture(0.4, 1, 0, 0.1) + 2 * kl(V[2], Z, 0.1),
    "bib-untaught": lambda: balanced(V[2], 0.4) + 3 * balanced(Z, 0.4),
    "mbib-untaught": lambda: mixture(0.4, 1, 0, 0) + 2 * balanced(Z, 0.4),
    "mbib-consistent": lambda: mixture(0.4, 0.6, 2, 0.1),
    "mbib-x": lambda: mixture(0.4, 1, 2, 0.1),
    "focal": lambda: rebalancing.focal(V[2], TARGETS, focus=1.0),
    "ldam-drw": lambda: rebalancing.ldam(
        V[2], TARGETS, counts=COUNTS, progress=0.0, margin=0.5, deferred=0.8, effective=0.9999
    ),
    "ldam-drs": lambda: rebalancing.ldam(
        V[2], TARGETS, counts=COUNTS, progress=0.0, margin=0.5, deferred=0.8, effective=0.9999
    ),
    "cb-ce": lambda: F.cross_entropy(V[2], TARGETS, weight=rebalancing.effective_weights(COUNTS, 0.9999)),
    "cb-focal": lambda: rebalancing.class_balanced_focal(V[2], TARGETS, counts=COUNTS, focus=0.5, effective=0.999),
    "ce-drw": lambda: F.cross_entropy(V[2], TARGETS),
    "ce-drs": lambda: F.cross_entropy(V[2], TARGETS),
    "ce-sqrt": lambda: F.cross_entropy(V[2], TARGETS),
    "ce-progressive": lambda: F.cross_entropy(V[2], TARGETS),
    "logit-adjustment": lambda: balanced(V[2], 0.0),
    "cdt": lambda: F.cross_entropy(V[2] / losses.class_temperatures(COUNTS, 0.1), TARGETS),
    "vs": lambda: balanced(V[2] / losses.class_temperatures(COUNTS, 0.1), 0.0, 1.2),
    "lade": lambda: rebalancing.lade(V[2], TARGETS, counts=COUNTS, lader=0.1, lader_square=0.01),
    "seesaw": lambda: rebalancing.seesaw(V[2], TARGETS, counts=COUNTS, mitigation=0.8, compensation=2.0),
    "wcdas": lambda: F.cross_entropy(V[2], TARGETS),
    "crt": lambda: F.cross_entropy(V[2], TARGETS),
    "tau-norm": lambda: F.cross_entropy(V[2], TARGETS),
    "sade": lambda: mixtures.sade(V, TARGETS, counts=COUNTS, inverse=2.0),
    "lws": lambda: F.cross_entropy(V[2], TARGETS),
    "ncm": lambda: F.cross_entropy(V[2], TARGETS),
    "disalign": lambda: F.cross_entropy(V[2], TARGETS),
    "weight-balancing": lambda: F.cross_entropy(V[2], TARGETS),
    "mislas": lambda: F.cross_entropy(V[2], TARGETS),
    "rbl": lambda: F.cross_entropy(V[2], TARGETS),
    "srepr": lambda: F.cross_entropy(V[2], TARGETS),
    "se-mbib": lambda: losses.se_mbib(V, Z, TARGETS, k=0.4, **OWN),
    "all-mbib": lambda: losses.all_mbib(V, Z, TARGETS, k=0.4, **OWN),
    "sade-mbib": lambda: mixtures.sade_mbib(
        [V] * 3, [Z] * 3, TARGETS, counts=COUNTS, alphas=(0.1, 0.3), beta=2.0, inverse=2.0
    ),
    "ride-mbib": lambda: mixtures.ride_mbib([V] * 3, [Z] * 3, TARGETS, counts=COUNTS, progress=0.0, **OF_RIDE_MBIB),
    "reslt": lambda: mixtures.reslt(V, TARGETS, counts=COUNTS, medium_from=0.35, tail_from=0.7, residual=0.995),
    "bbn": lambda: F.cross_entropy(V[2], TARGETS),
    "ride-2": lambda: ride(),
    "ride-3": lambda: ride(),
    "ride-4": lambda: ride(),
    "ride-4-routed": lambda: ride(),
    "vib": lambda: F.cross_entropy(Z, TARGETS) + 2 * 0.7,
    "vib-bsce": lambda: balanced(Z, 0) + 2 * 0.7,
    "nib": lambda: F.cross_entropy(Z, TARGETS) + 2 * 0.7**2,
    "drop": lambda: F.cross_entropy(Z, TARGETS) + 2 * 0.7,
    "vsd": lambda: F.cross_entropy(V[2], TARGETS) + F.cross_entropy(Z, TARGETS) + 2 * kl(V[2], Z, 0),
    "vsd-published": lambda: (
        F.cross_entropy(V[2], TARGETS) + F.cross_entropy(Z, TARGETS) + 2 * stochastic.published_distillation(V[2], Z)
    ),
    "dive": lambda: balanced(V[2], 0),
    "sam": lambda: F.cross_entropy(V[2], TARGETS),
    "bsce-sam": lambda: balanced(V[2], 0),
    "cc-sam": lambda: contrast.cc_sam(V[2], TARGETS, counts=COUNTS, class_noise=1e-6, **KEPT["cc-sam"]),
    "ssp": lambda: F.cross_entropy(V[2], TARGETS),
    "kcl": lambda: contrast.kcl(V[0], V[1], V[2], SAME, contrast_temperature=0.07),
    "tsc": lambda: contrast.tsc(V[0], V[1], V[2], SAME, TARGETS, V[1][:3], contrast_temperature=0.07, target_share=0.2),
    "paco": lambda: contrast.paco(
        V[2], TARGETS, counts=COUNTS, contrast_temperature=0.05, key_weight=0.01, **KEPT["paco"]
    ),
    "glmc": lambda: contrast.glmc(V, TARGETS, counts=COUNTS, progress=0.0, k=0.4, consistency=4.0, **KEPT["glmc"]),
}
SAME = TARGETS[:, None] == TARGETS
QUEUE = {"q": V[0], "k": V[1], "keys": V[2], "key_labels": TARGETS}
KEPT = {  # what a learner gives to its loss beside the outputs
    "cc-sam": {"features": V[2], "weight": V[1][:3], "bias": V[0][0]},
    "kcl": QUEUE,
    "tsc": QUEUE | {"own": TARGETS, "sphere": V[1][:3]},
    "paco": QUEUE,
    "glmc": {"plain": V, "predicted": V, "projected": V, "partners": TARGETS.flip(0), "share": torch.tensor(0.3)},
}


@pytest.mark.parametrize(
    ("name", "other"),
    [("logit-adjustment", "bsce"), ("mbib-no-weights", "mbib"), ("mbib-no-adjustment", "mbib-no-balance")],
)
def test_with_the_settings_of_glyphs_lt_a_row_without_a_run_is_another_to_the_bit(name: str, other: str) -> None:
    """So that "The field" may say so of the rows that have none there."""
    one, two = (method_of(settle(Settings(data="glyphs-lt", method=m))) for m in (name, other))
    assert one.parts == two.parts
    assert len(one.stages) == len(two.stages) == 1
    out = outputs(3)
    assert torch.equal(one.loss(out, TARGETS, COUNTS), two.loss(out, TARGETS, COUNTS))


def test_every_method_has_its_row_here() -> None:
    assert set(EXPECTED) == set(METHODS)


@pytest.mark.parametrize("name", list(EXPECTED))
def test_a_method_has_the_loss_that_it_is_named_after(name: str) -> None:
    method = METHODS[name]
    beta = 0.0 if name == "mbib-beta0" else 2.0
    asked = {"k": 0.4, "beta": beta, "gamma": 0.1}
    asked = {setting: value for setting, value in asked.items() if setting in method.own}
    if "alphas" in method.own:
        asked |= {"alphas": (0.1, 0.3), "taps": 3}
    settings = settle(Settings(data="cifar100-lt", method=name, **asked))
    o = outputs(3) if method.parts.with_z else Outputs(V, V, None, None)
    o = o._replace(experts=(o,) * method.parts.experts)
    found = method_of(settings).loss(o, TARGETS, COUNTS, **KEPT.get(name, {}))
    assert float(found) == pytest.approx(float(EXPECTED[name]()), rel=1e-6)


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("schedule", [name for name, one in SCHEDULES.items() if not one.backbone])
def test_every_method_can_be_trained_by_every_schedule(name: str, schedule: str) -> None:
    if METHODS[name].parts.picture and SCHEDULES[schedule].scale(0, 100) < 1:
        pytest.skip("observes the picture itself, which this schedule makes smaller: refused (test_trainer)")
    settings = settle(Settings(method=name, schedule=schedule))
    network = method_of(settings).network(3, depth=SCHEDULES[schedule].depth)
    method = METHODS[name]
    if method.parts.experts:
        assert len(network.experts) == method.parts.experts
    else:
        assert len(network.observe) == settings.taps
        assert len(network.v_classifiers) == (settings.taps if method.parts.with_v else 0)
        assert (network.z_classifier is not None) is method.parts.with_z


def test_frozen_settings_are_those_of_their_data_set_and_leave_alone_what_a_variant_fixes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = {"alphas": (0.2, 0.4), "beta": 3.0, "k": 0.7, "gamma": 0.3}
    monkeypatch.setattr(methods, "CHOSEN", {"cifar100-lt": own})
    fixed = {"bsce": {"k": 0.0}, "mbib-beta0": {"beta": 0.0}, "mbib-consistent": {"k": 0.5}}
    fixed |= {"mbib-x": {"alphas": shared_alphas(4)}}
    others = {
        name: row for family, rows in methods.FAMILIES.items() if family != "the paper" for name, row in rows.items()
    }
    fixed |= {name: dict(row.own) for name, row in others.items() if not row.shared}
    for name, method in METHODS.items():
        usual = method_of(settle(Settings(method=name, data="glyphs-lt")))
        assert usual.own == method.own, "no other data set is touched"
        found = method_of(settle(Settings(method=name, data="cifar100-lt"))).own
        assert found == {**method.own, **{s: (own | fixed.get(name, {}))[s] for s in method.own if s in own}}


def test_a_setting_that_is_asked_for_replaces_the_frozen_one_and_no_other() -> None:
    plain, asked = (method_of(settle(Settings(method="mbib", beta=beta))) for beta in (None, 7.0))
    assert asked.own == {**plain.own, "beta": 7.0}
    assert asked.parts == plain.parts
    assert METHODS["mbib"].own == plain.own != asked.own, "the table itself stays"


@pytest.mark.equation(11)
@pytest.mark.parametrize("n", range(1, 8))
def test_shared_alphas_give_the_shallow_observations_two_fifths_in_odd_proportions(n: int) -> None:
    alphas = shared_alphas(n)
    assert len(alphas) == n - 1
    assert math.fsum(alphas) == pytest.approx(0.4 if n > 1 else 0)
    assert [a / alphas[0] for a in alphas] == pytest.approx([1, 3, 5, 7, 9, 11][: n - 1])
    if n == 3:
        assert alphas == pytest.approx((0.1, 0.3))
