"""Other methods that train a network first and balance its classifier afterwards.

All are trained by this project's schedules (its weight decay, crop and flip): the comparison is of methods, not of
recipes. Their networks pool, normalise and classify as the plain network of the paper does.
"""

from typing import Any

import torch

from mbib_core.learners import Learner
from mbib_core.methods.method import Method, Stage, redraw
from mbib_core.methods.paper import CE, V_ALONE


@torch.no_grad()
def normalise(learner: Learner, *, norm_power: float, **_own: Any) -> None:
    """Divides each row of the deepest classifier by its norm to the power `norm_power`, and drops the bias."""
    classifiers: Any = learner.network.v_classifiers
    classifier = classifiers[-1]
    classifier.weight.div_(classifier.weight.norm(dim=1, keepdim=True) ** norm_power)
    classifier.bias.zero_()


STAGED: dict[str, Method] = {
    # Thirty of 200 epochs, rate / 10 after a third and two thirds of them, as BagofTricks-LT has it. Here batch norm
    # stands still with the features; there it follows the class-balanced images.
    "crt": Method(
        "cRT",
        (
            CE,
            Stage(
                CE.loss,
                q=0.0,
                trains=("v_classifiers",),
                begin=redraw,
                epochs=0.15,
                recipe={"decay": 0.1, "drops": (1 / 3, 2 / 3), "warm_up": 6.0},
            ),
        ),
        V_ALONE,
        source="Kang et al. 2020",
    ),
    # 0.7 is a starting value: Kang et al. choose it on validation images.
    "tau-norm": Method(
        "tau-norm", (Stage(CE.loss, end=normalise),), V_ALONE, {"norm_power": 0.7}, source="Kang et al. 2020"
    ),
}
