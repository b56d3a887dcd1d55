"""Rows that balance a classifier after its features: published numbers, naive loops, and what each stage may touch."""

from typing import Any

import numpy as np
import pytest
import torch
from test_rows import easy, uncut
from torch import Tensor
from torch.nn import functional as F

from mbib_core import classifiers
from mbib_core.evaluation import features_of
from mbib_core.methods.staged import debiased
from mbib_core.networks import Outputs, heads

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
        "srepr": float(classifiers.agreeing([*Z[1:], Z[0]], Y, counts=N, k=1.0, agreement=0.5, softness=2.0)),
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
