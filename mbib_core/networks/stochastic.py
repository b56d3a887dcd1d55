"""Representations z that are drawn: other bottlenecks' encoders, each between an observation and its classifier.

Each takes v [B, D] and the classifier of z, and returns z [B, D], its logits [B, C] and its rate, a scalar in nats.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from mbib_core.networks.bottleneck import Bottleneck, Outputs, draw_weights
from mbib_core.ranks import drawn, gathered
from mbib_core.stochastic import drop_rate, gaussian_rate, histogram_entropy, keep_mask, pairwise_rate

SAMPLES = 12  # of z for each image at test time, as in Alemi's code


class Noisy(nn.Module):
    """z = mean + deviation * noise: one draw in training; at test time the mean softmax over 12 draws.

    These 12 are drawn once, with the weights, and kept among them: the same for all images, so that an answer depends
    on the file and the image alone, not on the batch or on chance. z itself is then the mean.
    """

    noise: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("noise", torch.randn(SAMPLES, width))

    def encode(self, v: Float[Tensor, "b d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [B, D] and deviation of z, and the rate."""
        raise NotImplementedError

    def forward(self, v: Float[Tensor, "b d"], classify: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        mean, deviation, rate = self.encode(v)
        if self.training:
            z = mean + deviation * drawn(torch.randn_like, mean)
            return z, classify(z), rate
        logits = classify(mean + deviation * self.noise[:, None])
        return mean, logits.log_softmax(2).logsumexp(0) - math.log(SAMPLES), rate


class Gaussian(Noisy):
    """VIB's encoder (Alemi et al. 2017): mean and deviation of every dimension are linear in v."""

    def __init__(self, width: int):
        super().__init__(width)
        self.linear = nn.Linear(width, 2 * width)

    def encode(self, v: Float[Tensor, "b d"]) -> tuple[Tensor, Tensor, Tensor]:
        mean, raw = self.linear(v).chunk(2, 1)
        deviation = F.softplus(raw - 5)
        return mean, deviation, gaussian_rate(*gathered((mean, deviation)))


class Homoscedastic(Noisy):
    """The nonlinear IB's encoder (Kolchinsky et al. 2019): a linear map, and noise of one variance, trained from 1."""

    def __init__(self, width: int):
        super().__init__(width)
        self.linear = nn.Linear(width, width)
        self.raw_variance = nn.Parameter(torch.tensor(math.log(math.e - 1)))  # softplus of it is 1

    def encode(self, v: Float[Tensor, "b d"]) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = self.linear(v), F.softplus(self.raw_variance)
        return mean, variance.sqrt(), pairwise_rate(gathered(mean), variance)


class Drop(nn.Module):
    """Drop-bottleneck (Kim et al. 2021): each dimension of v is lost with a chance of its own, which is trained.

    At test time those are kept that are lost with a chance below 1/2, and scaled up to the number of all.
    """

    def __init__(self, width: int):
        super().__init__()
        self.drop_logits = nn.Parameter(torch.empty(width).uniform_(-2, 1))

    def forward(self, v: Float[Tensor, "b d"], classify: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Any]:
        drop = self.drop_logits.sigmoid()
        if self.training:
            z = v * keep_mask(self.drop_logits, drawn(torch.rand_like, v)) / (1 - drop).mean()
            return z, classify(z), drop_rate(histogram_entropy(gathered(v)), drop)
        kept = drop < 0.5
        z = v * kept * (len(kept) / kept.sum().clamp(min=1))
        return z, classify(z), None  # its entropies are those of a batch that is trained on


class Drawn(Bottleneck):
    """A `Bottleneck` whose z is drawn by `represent(dimensions)`, one of `STOCHASTIC`."""

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        *,
        represent: Callable[[int], nn.Module],
        head: Callable[[int, int], nn.Module] = nn.Linear,
        **more: Any,
    ):
        super().__init__(backbone, classes, with_z=False, head=head, **more)
        width = int(self.backbone.channels[-1])  # type: ignore[index]
        self.draw, self.z_classifier = represent(width), head(width, classes)
        draw_weights((*self.draw.modules(), self.z_classifier))

    def forward(self, x: UInt8[Tensor, "b 3 h w"]) -> Outputs:
        outputs = super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            z, z_logits, rate = self.draw(outputs.observations[-1], self.z_classifier)
        return outputs._replace(z=z, z_logits=z_logits, rate=rate)


STOCHASTIC: dict[str, Callable[[int], nn.Module]] = {"gaussian": Gaussian, "homoscedastic": Homoscedastic, "drop": Drop}
