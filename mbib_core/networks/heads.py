"""Classifiers other than a linear layer."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Cosine(nn.Module):
    """Logits `scale` cos(w_c, x): rows and features of unit length, no bias (LDAM, RIDE, SADE).

    The rows are drawn uniform from -1 to 1 and brought to unit length.
    """

    def __init__(self, features: int, classes: int, scale: float = 30.0):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        self.scale = scale
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.uniform_(-1, 1).copy_(F.normalize(self.weight))

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        return self.scale * F.linear(F.normalize(x), F.normalize(self.weight))


class WrappedCauchy(Cosine):
    """Logits s (1 - G_c^2) / (1 + G_c^2 - 2 G_c cos(w_c, x)) / (2 pi): s times the density of a wrapped Cauchy
    distribution of the angle to each class's direction w_c (WCDAS, Han 2023).

    The concentrations G = sigmoid(g) and the scale s = softplus(s_0) + 1 are learned, from g = 0 and s_0 = 0 (the
    values for CIFAR).
    """

    def __init__(self, features: int, classes: int):
        super().__init__(features, classes, scale=1.0)
        self.g = nn.Parameter(torch.zeros(classes))
        self.s_0 = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        g, s = self.g.sigmoid(), F.softplus(self.s_0) + 1
        return s / (2 * math.pi) * (1 - g**2) / (1 + g**2 - 2 * g * super().forward(x))
