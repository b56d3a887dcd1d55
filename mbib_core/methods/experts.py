"""Other methods that train several networks, or several ends of one, as one.

All are trained by this project's schedules (its weight decay, crop and flip): the comparison is of methods, not of
recipes. Their networks pool, normalise and classify as the plain network of the paper does.
"""

from mbib_core import rebalancing
from mbib_core.methods.method import Method, Stage, on_experts
from mbib_core.networks import Network

EXPERTS: dict[str, Method] = {
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
