"""Other published methods, one row each, with its reference and what differs from it here.

All are trained by this project's schedules (its weight decay, crop and flip): the comparison is of methods, not of
recipes. Their networks pool, normalise and classify as the plain network of the paper does.
"""

from typing import Any

import torch

from mbib_core import rebalancing
from mbib_core.learners import Learner
from mbib_core.methods.method import Method, Stage, on_experts, on_v, redraw
from mbib_core.methods.paper import CE, V_ALONE
from mbib_core.networks import Network


@torch.no_grad()
def normalise(learner: Learner, *, norm_power: float, **_own: Any) -> None:
    """Divides each row of the deepest classifier by its norm to the power `norm_power`, and drops the bias."""
    classifiers: Any = learner.network.v_classifiers
    classifier = classifiers[-1]
    classifier.weight.div_(classifier.weight.norm(dim=1, keepdim=True) ** norm_power)
    classifier.bias.zero_()


OTHERS: dict[str, Method] = {
    "focal": Method(
        "focal loss", (Stage(on_v(rebalancing.focal)),), V_ALONE, {"focus": 1.0}, biased=True, source="Lin et al. 2017"
    ),
    # The scale 30 stands in the network and in the margin: the same function as Cao's, whose test needs neither.
    "ldam-drw": Method(
        "LDAM-DRW",
        (Stage(on_v(rebalancing.ldam)),),
        Network(with_z=False, head="cosine"),
        {"margin": 0.5, "deferred": 0.8, "effective": 0.9999},
        source="Cao et al. 2019",
    ),
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
    # Without the rotated images of the official recipe, and answering with the plain mean of the experts' logits: the
    # weights that it can learn on unlabelled test images are left out.
    "sade": Method(
        "SADE",
        (Stage(on_experts(rebalancing.sade)),),
        Network(with_z=False, head="cosine", experts=3),
        {"inverse": 2.0},
        source="Zhang et al. 2022",
    ),
}
