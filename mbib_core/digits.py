"""Small networks on scikit-learn's digits, many side by side: what the chapters on theory train while one reads.

A layer holds the weights of S networks, and network s sees only its own: a sweep over prices and seeds takes seconds.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mbib_core.information import gaussian_information, gaussian_rate, vib_loss
from mbib_core.losses import self_distillation

NOISE = 0.5  # standard deviation of the noise on z in `Pair`


class Digits(NamedTuple):
    """900 images for training and the other 897: pixels from 0 to 1, 64 an image, and classes."""

    train_x: Float[Tensor, "900 64"]
    train_y: Int[Tensor, "900"]
    new_x: Float[Tensor, "897 64"]
    new_y: Int[Tensor, "897"]


def load_digits() -> Digits:
    """The handwritten digits that come with scikit-learn, in a fixed random order (Alpaydin and Kaynak 1998)."""
    from sklearn.datasets import load_digits as sklearn_digits

    pixels, digits = sklearn_digits(return_X_y=True)
    x, y = torch.tensor(pixels / 16).float(), torch.tensor(digits)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return Digits(x[order[:900]], y[order[:900]], x[order[900:]], y[order[900:]])


class SideBySide(nn.Module):
    """A linear layer of each of S networks, [S, B, n_in] -> [S, B, n_out]."""

    def __init__(self, n_in: int, n_out: int, seeds: Sequence[int]) -> None:
        super().__init__()
        weights = []
        for seed in seeds:
            random = torch.Generator().manual_seed(1000 * seed + n_in + n_out)
            weights.append(torch.randn(n_in, n_out, generator=random) / n_in**0.5)
        self.weight = nn.Parameter(torch.stack(weights))
        self.bias = nn.Parameter(torch.zeros(len(seeds), 1, n_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


# --- the variational information bottleneck
class VIB(nn.Module):
    """x [S, B, 64] -> mean and log-variance of z [S, B, 2];  z -> logits [S, B, 10]."""

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.encoder = nn.Sequential(SideBySide(64, 64, seeds), nn.ReLU(), SideBySide(64, 4, seeds))
        self.decoder = nn.Sequential(SideBySide(2, 60, seeds), nn.ReLU(), SideBySide(60, 10, seeds))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z."""
        mu, log_var = self.encoder(x).chunk(2, dim=-1)
        return mu, log_var - 2


def draw(mu: Tensor, log_var: Tensor, random: torch.Generator) -> Tensor:
    """One z from each p(z|x), in a way that gradients pass through."""
    return mu + (log_var / 2).exp() * torch.randn(mu.shape, generator=random)


def train_vib(betas: Sequence[float], seeds: Sequence[int], x: Tensor, y: Tensor, epochs: int, batch: int = 100) -> VIB:
    """One network for each pair of beta and seed, trained with Adam. x [n, 64], or [S, n, 64]."""
    net, random, prices = VIB(seeds), torch.Generator().manual_seed(0), torch.tensor(betas)
    losses: Any = torch.vmap(vib_loss, in_dims=(0, 0, 0, None, 0))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    steps = epochs * (len(y) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(epochs):
        order = torch.randperm(len(y), generator=random)
        for chosen in order.split(batch)[: len(y) // batch]:
            mu, log_var = net.encode(x[..., chosen, :].expand(len(seeds), -1, -1))
            logits = net.decoder(draw(mu, log_var, random))
            optimiser.zero_grad()
            losses(mu, log_var, logits, y[chosen], prices).sum().backward()
            optimiser.step()
            schedule.step()
    return net.requires_grad_(False)


def posterior(net: VIB, x: Tensor, draws: int = 16) -> Tensor:
    """The answer for an image, the mean of q(y|z) over draws of z: [S, n, 10]."""
    random, mu_log_var = torch.Generator().manual_seed(0), net.encode(x)
    return torch.stack([net.decoder(draw(*mu_log_var, random)).softmax(-1) for _ in range(draws)]).mean(0)


def nats(net: VIB, x: Tensor, y: Tensor, which: int) -> dict[str, float]:
    """The rate, I(X;Z) and I(Z;Y) of network `which` on these images."""
    mu, log_var = (part[which].numpy() for part in net.encode(x))
    i_xz, i_zy = (gaussian_information(mu, log_var, targets=t, samples=2)[0] for t in (None, y.numpy()))
    return {"rate": float(gaussian_rate(mu, log_var).mean()), "I(X;Z)": i_xz, "I(Z;Y)": i_zy}


# --- two classifiers, one on v and one on z
class Pair(nn.Module):
    """x -> v -> means of z, and a classifier on each, for S networks side by side; z is its mean and noise.

    normalised: the means of each number of z have mean 0 and variance 1 over the batch, so that noise of a fixed width
    limits what z can hold. Otherwise the means may grow.
    """

    def __init__(self, seeds: Sequence[int], *, normalised: bool) -> None:
        super().__init__()
        sizes = {"first": (64, 60), "trunk": (60, 32), "f_v": (32, 10), "z": (32, 8), "f_z": (8, 10)}
        self.layers = nn.ModuleDict({name: SideBySide(*size, seeds) for name, size in sizes.items()})
        self.networks, self.normalised = len(seeds), normalised

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v's logits and z's means."""
        v = self.layers["trunk"](self.layers["first"](x).relu()).relu()
        mean = self.layers["z"](v)
        if self.normalised:
            mean = (mean - mean.mean(1, keepdim=True)) / (mean.std(1, keepdim=True) + 1e-4)
        return self.layers["f_v"](v), mean


def pair_losses(
    net: Pair, x: Tensor, y: Tensor, random: torch.Generator, weights: Float[Tensor, "3 S"]
) -> Float[Tensor, " S"]:
    """L_v + a L_z + b L_VSD + c rate of each network, with `weights` a, b, c; the prior is as wide as the noise."""
    v_logits, mean = net(x)
    z_logits = net.layers["f_z"](mean + NOISE * torch.randn(mean.shape, generator=random))
    on_v, on_z = (torch.vmap(F.cross_entropy, in_dims=(0, None))(f, y) for f in (v_logits, z_logits))
    rate = mean.square().sum(-1).mean(1) / (2 * NOISE**2)
    of_z, of_vsd, of_rate = weights
    return on_v + of_z * on_z + of_vsd * torch.vmap(self_distillation)(v_logits, z_logits) + of_rate * rate


def train_pairs(
    x: Tensor,
    y: Tensor,
    losses: Sequence[tuple[float, float, float]],
    *,
    normalised: bool,
    seeds: Sequence[int] = (0, 1, 2, 3),
    epochs: int = 60,
) -> Pair:
    """A network for each loss, given as the weights of L_z, L_VSD and the rate, and each seed: loss 0's seeds first."""
    net = Pair(list(seeds) * len(losses), normalised=normalised)
    random, weights = torch.Generator().manual_seed(0), torch.tensor(losses).T.repeat_interleave(len(seeds), 1)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * math.ceil(len(y) / 150))
    for _ in range(epochs):
        for chosen in torch.randperm(len(y), generator=random).split(150):
            optimiser.zero_grad()
            own = x[chosen].expand(weights.shape[1], -1, -1)
            pair_losses(net, own, y[chosen], random, weights).sum().backward()
            optimiser.step()
            schedule.step()
    return net.requires_grad_(False)


def kept_by(net: Pair, x: Tensor, y: Tensor, width: float = NOISE, images: int = 450) -> dict[str, Any]:
    """I(z;y) and the superfluous I(v;z|y) = I(v;z) - I(z;y) of each network, in nats; z has noise of that width."""
    means = net(x.expand(net.networks, -1, -1))[1][:, :images].numpy()
    noise = np.full(means.shape[1:], 2 * math.log(width))
    i_vz, i_zy = (
        np.array([gaussian_information(mean, noise, targets=t, samples=2)[0] for mean in means])
        for t in (None, y[:images].numpy())
    )
    return {"I(z;y)": i_zy, "I(v;z|y)": i_vz - i_zy}
