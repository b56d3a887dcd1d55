"""Classifiers other than a linear layer."""

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
