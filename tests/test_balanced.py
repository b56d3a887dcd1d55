"""The losses, draws and classifiers of rows that re-balance one network: against their authors' numbers, naive loops,
and what they are special cases of; and the same losses as modules."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import coloured, softmax
from hypothesis import given
from hypothesis import strategies as st
from test_rows import FEATURES, SHORT, N, W, Y, Z, replace, run
from torch.nn import functional as F

import mbib_core
from mbib_core import criteria
from mbib_core.batches import draw
from mbib_core.criteria import LogitLoss
from mbib_core.losses import balanced_softmax
from mbib_core.methods import METHODS
from mbib_core.networks.heads import WrappedCauchy
from mbib_core.rebalancing import (
    class_balanced,
    class_balanced_focal,
    effective_weights,
    focal,
    lade,
    ldam,
    seesaw,
    vector_scaling,
)

RANDOM = np.random.RandomState(0)
RANDOM.randint(0, 5, 8), RANDOM.randn(276)  # what `test_rows` has drawn, and five rows more
G = torch.from_numpy(RANDOM.randn(5))


def wrapped_cauchy(g: torch.Tensor, s_0: float) -> float:
    """The cross-entropy with the classifier's own parameters set."""
    head = WrappedCauchy(6, 5).double()
    head.load_state_dict({"weight": W, "g": g, "s_0": torch.tensor(s_0)})
    return float(F.cross_entropy(head(FEATURES), Y).detach())


@pytest.mark.parametrize("counts", [torch.from_numpy(N), torch.from_numpy(N).long()], ids=["float64", "int64"])
def test_losses_have_the_numbers_of_their_authors_code(counts: torch.Tensor) -> None:
    """Computed once in float64 with the published modules, or with their steps followed, on inputs of `test_rows`."""
    z, own = Z[0], {"counts": counts}
    halves = [(z, Y), (z[:4], Y[:4])]  # in the second, two classes have no image
    regulariser = [lade(f, y, lader=1, lader_square=0.01, **own) - balanced_softmax(f, y, **own) for f, y in halves]
    for name, (found, expected) in {
        "class-balanced": (class_balanced(z, Y, effective=0.9999, **own), 2.17589869),
        "sigmoid focal": (class_balanced_focal(z, Y, focus=2, effective=0, **own), 2.79629094),
        "class-balanced focal": (class_balanced_focal(z, Y, focus=0.5, effective=0.999, **own), 4.52585965),
        "CDT": (vector_scaling(z, Y, gamma=0.2, tau=0, **own), 1.83975064),
        "logit adjustment": (vector_scaling(z, Y, gamma=0, tau=1.5, **own), 3.87080074),
        "LADER": (regulariser[0], -0.44339911),
        "LADER, two classes absent": (regulariser[1], -0.44172090),
        "LADE": (lade(z, Y, lader=0.1, lader_square=0.01, **own), 3.05636013),
        "WCDAS": (wrapped_cauchy(torch.zeros(5), 0.0), 1.59100891),
        "WCDAS, scale 250": (wrapped_cauchy(G, 249.0), 18.58143460),
    }.items():
        assert float(found) == pytest.approx(expected, abs=1e-6), name


@given(st.integers(2, 5), st.integers(0, 10**6), st.floats(0, 2), st.floats(0, 3))
def test_losses_agree_with_naive_loops(classes: int, seed: int, p: float, q: float) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(6, classes, generator=random, dtype=torch.float64)
    y = torch.randint(classes, (6,), generator=random)
    n = torch.randint(1, 500, (classes,), generator=random).tolist()  # in no order
    share, w = [count / sum(n) for count in n], effective_weights(torch.tensor(n), 0.99).tolist()
    sees, scaled, sigmoids, every = 0.0, 0.0, 0.0, range(classes)
    for f, label in zip(logits.tolist(), y.tolist(), strict=True):
        s = softmax(f)
        weigh = [min(1, n[c] / n[label]) ** p * max(1, s[c] / max(s[label], 0.01)) ** q for c in every]
        weigh[label] = 1.0
        sees += math.log(math.fsum(v * math.exp(z) for v, z in zip(weigh, f, strict=True))) - f[label]
        scaled -= math.log(softmax([f[c] * (n[c] / max(n)) ** p + q * math.log(share[c]) for c in every])[label])
        right = [1 / (1 + math.exp(-z if c == label else z)) for c, z in enumerate(f)]
        sigmoids -= w[label] * math.fsum((1 - r) ** p * math.log(r) for r in right)
    lader = 0.0
    for c in every:
        rows = [f[c] for f, label in zip(logits.tolist(), y.tolist(), strict=True) if label == c]
        r = math.log(math.fsum(math.exp(f[c]) for f in logits.tolist()) / 6 / (classes * share[c]))
        lader += share[c] * (r + p * r**2 - (math.fsum(rows) / len(rows) if rows else 0))
    own: dict[str, Any] = {"counts": torch.tensor(n)}
    expected = float(balanced_softmax(logits, y, **own)) + q * lader
    assert float(seesaw(logits, y, mitigation=p, compensation=q, **own)) == pytest.approx(sees / 6, rel=1e-9)
    assert float(vector_scaling(logits, y, gamma=p, tau=q, **own)) == pytest.approx(scaled / 6, rel=1e-5)
    found = class_balanced_focal(logits, y, focus=p, effective=0.99, **own)
    assert float(found) == pytest.approx(sigmoids / 6, rel=1e-9)
    assert float(lade(logits, y, lader=q, lader_square=p, **own)) == pytest.approx(expected, rel=1e-9)


def test_losses_are_the_special_cases_that_their_papers_name() -> None:
    own = {"counts": torch.from_numpy(N).flip(0)}
    plain, balanced = F.cross_entropy(Z[0], Y), balanced_softmax(Z[0], Y, **own)
    for found, expected in [
        (vector_scaling(Z[0], Y, gamma=0, tau=0, **own), plain),
        (vector_scaling(Z[0], Y, gamma=0, tau=1, **own), balanced),
        (seesaw(Z[0], Y, mitigation=0, compensation=0, **own), plain),
        (lade(Z[0], Y, lader=0, lader_square=1, **own), balanced),
        (class_balanced(Z[0], Y, effective=0, **own), plain),
        (
            ldam(Z[0], Y, margin=0, effective=0.9, deferred=0, progress=0, **own),
            class_balanced(Z[0], Y, effective=0.9, **own),
        ),
        (class_balanced(Z[0], Y, effective=0.99, deferred=0.8, progress=0.79, **own), plain),
    ]:
        torch.testing.assert_close(found, expected)


def test_no_gradient_passes_through_the_weights_of_the_seesaw_loss() -> None:
    z = Z[0].clone().requires_grad_()
    seesaw(z, Y, counts=torch.from_numpy(N), mitigation=0.8, compensation=2.0).backward()
    n, s = torch.from_numpy(N), Z[0].softmax(1)
    of_own = s.gather(1, Y[:, None]).clamp(min=0.01)
    weigh = (n / n[Y, None]).clamp(max=1) ** 0.8 * (s / of_own).clamp(min=1) ** 2
    weigh.scatter_(1, Y[:, None], 1.0)
    expected = (weigh.log() + Z[0]).softmax(1) - F.one_hot(Y, 5)
    torch.testing.assert_close(z.grad, expected / len(Y))


def test_deferred_and_progressive_draws_have_the_shares_of_their_papers() -> None:
    labels = torch.arange(3).repeat_interleave(torch.tensor([90, 9, 1]))
    q = {name: METHODS[name].stages[0].q for name in ("ce-drs", "ldam-drs", "ce-progressive")}
    assert [q["ce-drs"](t) for t in (0.0, 0.795, 0.8, 0.995)] == [1.0, 1.0, 0.0, 0.0]
    assert q["ldam-drs"] is q["ce-drs"]
    for t in (0.0, 0.4, 1.0):
        rows = [draw(labels, seed=0, epoch=epoch, q=q["ce-progressive"](t)).rows for epoch in range(300)]
        found = labels[torch.cat(rows)].bincount(minlength=3) / 30_000
        expected = [(1 - t) * n / 100 + t / 3 for n in (90, 9, 1)]
        assert found.tolist() == pytest.approx(expected, abs=5 * math.sqrt(0.25 / 30_000))


def test_logit_adjustment_with_tau_1_is_the_balanced_softmax_to_the_bit_and_deferred_rows_start_as_cross_entropy() -> (
    None
):
    data = coloured([22, 9, 3])
    losses = {
        name: run(replace(SHORT, data="coloured", method=name, epochs=5), data).history["loss"]
        for name in ("ce", "bsce", "logit-adjustment", "ce-drw", "ce-drs")
    }
    assert losses["logit-adjustment"] == losses["bsce"]
    assert losses["ce-drw"][:4] == losses["ce-drs"][:4] == losses["ce"][:4]
    assert len({losses[name][4] for name in ("ce-drw", "ce-drs", "ce")}) == 3


# The losses as modules

MODULES: dict[type[LogitLoss], Callable[..., torch.Tensor]] = {
    criteria.BalancedSoftmaxLoss: balanced_softmax,
    criteria.VSLoss: lambda *given, **own: vector_scaling(*given, gamma=0.2, tau=1.2, **own),
    criteria.CDTLoss: lambda *given, **own: vector_scaling(*given, gamma=0.2, tau=0, **own),
    criteria.ClassBalancedLoss: lambda *given, **own: class_balanced(*given, effective=0.9999, **own),
    criteria.LDAMLoss: lambda *given, **own: ldam(
        *given, margin=0.5, effective=0.9999, deferred=0.8, progress=0.0, **own
    ),
    criteria.FocalLoss: lambda *given, counts: focal(*given, focus=1.0),
    criteria.ClassBalancedFocalLoss: lambda *given, **own: class_balanced_focal(
        *given, focus=0.5, effective=0.999, **own
    ),
    criteria.LADELoss: lambda *given, **own: lade(*given, lader=0.1, lader_square=0.01, **own),
    criteria.SeesawLoss: lambda *given, **own: seesaw(*given, mitigation=0.8, compensation=2.0, **own),
}
SMOOTH = [module for module in MODULES if module.__name__ not in ("FocalLoss", "ClassBalancedFocalLoss", "LADELoss")]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_its_function_keeps_its_counts_in_half_precision_and_refuses_what_bib_refuses(
    module: type[LogitLoss],
) -> None:
    assert getattr(mbib_core, module.__name__) is module
    criterion, counts = module(N.tolist()), torch.from_numpy(N).long()
    assert float(criterion(Z[0], Y)) == float(MODULES[module](Z[0], Y, counts=counts))
    half = module([10**6, 40, 19, 8, 3]).half()(Z[0].half(), Y)
    assert float(half) == pytest.approx(float(module([10**6, 40, 19, 8, 3])(Z[0].half().double(), Y)), rel=1e-4)
    with pytest.raises(ValueError, match=r"logits must be \[8, 5\], a row for each target .*, these are \[8, 4\]"):
        criterion(Z[0][:, :4], Y)
    with pytest.raises(TypeError, match=r"targets must be a tensor of class numbers, int64 \[B\], not torch"):
        criterion(Z[0], Y.double())
    with pytest.raises(ValueError, match=r"every class needs a training picture: classes \[1\]"):
        module([5, 0, 3])
    for name, value in criterion.settings.items():
        with pytest.raises((TypeError, ValueError), match=rf"^{name} is .*: it must be a"):
            module([5, 3, 1], **{name: "1" if name == "scale" else -value - 1})


@pytest.mark.parametrize("module", SMOOTH)
def test_reductions_smoothing_and_soft_targets_of_a_module_are_those_of_its_hard_mean(module: type[LogitLoss]) -> None:
    even: dict[str, Any] = {"effective": 0.0} if module is criteria.ClassBalancedLoss else {}  # a mean without weights
    each = module(N, reduction="none", **even)(Z[0], Y)
    assert float(each.mean()) == pytest.approx(float(module(N, **even)(Z[0], Y)))
    assert float(each.sum()) == pytest.approx(float(module(N, reduction="sum", **even)(Z[0], Y)))
    one_hot = F.one_hot(Y, 5).double()
    if module(N).soft:
        torch.testing.assert_close(module(N)(Z[0], one_hot), module(N)(Z[0], Y))
    else:
        with pytest.raises(TypeError, match="takes class numbers alone, int64"):
            module(N)(Z[0], one_hot)
    assert float(module(N, label_smoothing=0.1)(Z[0], Y)) != float(module(N)(Z[0], Y))


def test_a_deferred_module_weighs_the_classes_from_the_progress_that_it_is_told() -> None:
    for module, drw in ((criteria.LDAMLoss, {}), (criteria.ClassBalancedLoss, {"deferred": 0.8})):
        criterion = module(N, **drw)
        assert float(criterion(Z[0], Y, progress=0.79)) == float(criterion(Z[0], Y))
        assert float(criterion(Z[0], Y, progress=0.8)) == float(module(N, **drw | {"deferred": 0.0})(Z[0], Y))
        assert float(criterion(Z[0], Y, progress=0.8)) != float(criterion(Z[0], Y))
