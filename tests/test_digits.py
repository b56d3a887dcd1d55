"""The theory chapters' small networks: each sees only its own weights, and the losses are those they say they are."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mbib_core import digits
from mbib_core.information import vib_loss
from mbib_core.losses import self_distillation


@pytest.fixture(scope="module")
def data():
    pytest.importorskip("sklearn")
    return digits.load_digits()


def test_the_digits_are_split_once_and_for_all(data):
    assert data.train_x.shape == (900, 64)
    assert data.new_x.shape == (897, 64)
    assert float(data.train_x.min()) == 0.0
    assert float(data.train_x.max()) == 1.0
    assert torch.bincount(data.train_y).min() > 60
    assert torch.equal(data.train_y, digits.load_digits().train_y)


def test_a_network_beside_others_is_trained_as_if_alone(data):
    together = digits.train_vib([0.0, 0.3], [0, 0], data.train_x, data.train_y, epochs=2)
    again = digits.train_vib([0.5, 0.3], [0, 0], data.train_x, data.train_y, epochs=2)
    for a, b in zip(together.parameters(), again.parameters(), strict=True):
        assert torch.allclose(a[1], b[1], atol=1e-5)  # another neighbour changes nothing
        assert not torch.allclose(a[0], b[0], atol=1e-5)


def test_a_seed_gives_the_weights_whatever_stands_beside_it():
    one, two = digits.SideBySide(5, 3, [7]), digits.SideBySide(5, 3, [2, 7])
    assert torch.equal(one.weight[0], two.weight[1])


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (1.0, 4.0, 0.0), (5.0, 0.0, 0.0), (1.0, 0.0, 0.03)])
def test_the_loss_of_a_pair_is_the_sum_it_says(data, weights):
    net, x, y = digits.Pair([0, 1], normalised=False), data.train_x[:60].expand(2, -1, -1), data.train_y[:60]
    own = torch.tensor(weights)[:, None].expand(3, 2)
    found = digits.pair_losses(net, x, y, torch.Generator().manual_seed(0), own)
    logits, mean = net(x)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    of_z = net.layers["f_z"](mean + digits.NOISE * noise)
    for s in range(2):
        # the rate to a prior as wide as the noise is VIB's for z / NOISE and a log-variance of 0
        scaled = mean[s] / digits.NOISE
        rate = vib_loss(scaled, torch.zeros_like(scaled), of_z[s], y, 1.0) - F.cross_entropy(of_z[s], y)
        parts = F.cross_entropy(of_z[s], y), self_distillation(logits[s], of_z[s]), rate
        total = F.cross_entropy(logits[s], y) + sum(w * part for w, part in zip(weights, parts, strict=True))
        assert torch.isclose(found[s], total, atol=1e-5)


def test_normalised_means_have_mean_zero_and_variance_one(data):
    _, mean = digits.Pair([3], normalised=True)(data.train_x[None])
    assert torch.allclose(mean.mean(1), torch.zeros(1, 8), atol=1e-5)
    assert torch.allclose(mean.std(1), torch.ones(1, 8), atol=0.01)


def test_what_is_kept_is_between_nothing_and_the_images_number(data):
    nets = digits.train_pairs(data.train_x, data.train_y, [(1.0, 0.0, 0.0)], normalised=True, seeds=(0, 1), epochs=3)
    kept = digits.kept_by(nets, data.train_x, data.train_y, images=200)
    assert set(kept) == {"I(z;y)", "I(v;z|y)"}
    total = kept["I(z;y)"] + kept["I(v;z|y)"]
    assert kept["I(z;y)"].shape == (2,)
    assert np.all(kept["I(z;y)"] > 0.3)
    assert np.all(total < np.log(200) + 1e-6)
