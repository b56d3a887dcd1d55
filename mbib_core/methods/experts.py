"""Other methods that train several networks, or several ends of one, as one.

All are trained by this project's schedules (its weight decay, crop and flip): the comparison is of methods, not of
recipes. Their networks pool, normalise and classify as the published ones do.
"""

from mbib_core import mixtures
from mbib_core.methods.method import Method, Stage, on_experts
from mbib_core.networks import Network
from mbib_core.settings import Value

OF_RIDE: dict[str, Value] = {"margin": 0.5, "deferred": 0.8, "effective": 0.9999, "diversity": 0.45, "tempering": 0.05}


def _ride(n: int) -> Method:
    """Without Nesterov's momentum, the weight decay of 5e-4 and the rotated images of the official recipe; and without
    the distillation from six experts."""
    return Method(
        f"RIDE, {n} experts",
        (Stage(on_experts(mixtures.ride)),),
        Network(with_z=False, head="cosine", experts=n),
        OF_RIDE,
        source="Wang et al. 2021",
        about=f"{n} experts share a trunk, learn by LDAM-DRW and are driven apart; their logits are averaged.",
    )


EXPERTS: dict[str, Method] = {
    # Without the rotated images of the official recipe, and answering with the plain mean of the experts' logits: the
    # weights that it can learn on unlabelled test images are left out.
    "sade": Method(
        "SADE",
        (Stage(on_experts(mixtures.sade)),),
        Network(with_z=False, head="cosine", experts=3),
        {"inverse": 2.0},
        source="Zhang et al. 2022",
        about="Three experts share a trunk and learn for many, for equal and for few images of the tail.",
    ),
    "ride-2": _ride(2),
    "ride-3": _ride(3),
    "ride-4": _ride(4),
}
