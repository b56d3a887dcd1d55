"""Classifiers other than a linear layer."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import orthogonal


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


class Scaled(nn.Linear):
    """Logits s (W x + b) with a factor s for each class, from 1 (LWS, Kang et al. 2020; MiSLAS, Zhong et al. 2021)."""

    def __init__(self, features: int, classes: int):
        super().__init__(features, classes)
        self.scale = nn.Parameter(torch.ones(classes))

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        return self.scale * super().forward(x)


class Aligned(nn.Linear):
    """DisAlign (Zhang et al. 2021): (1 - s) z + s (alpha z + beta), z = W x + b, with s = sigmoid(a x + a_0).

    alpha and beta are numbers for each class, from 1 and 0, where the logits are z; s is one number for each image.
    """

    def __init__(self, features: int, classes: int):
        super().__init__(features, classes)
        self.alpha, self.beta = nn.Parameter(torch.ones(classes)), nn.Parameter(torch.zeros(classes))
        self.a, self.a_0 = nn.Parameter(torch.full((features,), 0.1)), nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        z, s = super().forward(x), torch.sigmoid(x @ self.a + self.a_0)[:, None]
        return z + s * ((self.alpha - 1) * z + self.beta)


class Nearest(nn.Linear):
    """A linear classifier until `fit`, then the nearest class mean (Kang et al. 2020): -|unit(x - m) - centre_c|^2.

    `m` [D] is the mean of all training features, a centre the mean of a class's unit(x - m), itself not of unit length.
    """

    m: Tensor
    centres: Tensor
    fitted: Tensor

    def __init__(self, features: int, classes: int):
        super().__init__(features, classes)
        self.register_buffer("m", torch.zeros(features))
        self.register_buffer("centres", torch.zeros(classes, features))
        self.register_buffer("fitted", torch.zeros(()))

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "n d"], y: Int[Tensor, " n"]) -> None:
        self.m.copy_(x.mean(0))
        own = F.one_hot(y, len(self.centres)).to(x.dtype)
        self.centres.copy_(own.T @ F.normalize(x - self.m) / own.sum(0)[:, None])
        self.fitted.fill_(1)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        unit, c = F.normalize(x.detach() - self.m), self.centres
        near = 2 * F.linear(unit, c) - c.square().sum(1) - unit.square().sum(1, keepdim=True)
        return torch.where(self.fitted > 0, near, super().forward(x))  # an `if` would wait for the device


class Rotated(nn.Module):
    """Logits on a balanced frame that is fixed but for its rotation (RBL, Gao et al. 2023): M R x, no bias.

    `weight` [d, D] has orthonormal columns, d the larger of classes C and features D; it is learned as the exponential
    of a skew matrix. M takes the mean of its rows off and keeps the first C.
    """

    weight: Tensor

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.classes = classes
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(max(features, classes), features)))
        orthogonal(self, "weight", orthogonal_map="matrix_exp")

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        weight = self.weight
        return F.linear(x, weight[: self.classes] - weight.mean(0))
