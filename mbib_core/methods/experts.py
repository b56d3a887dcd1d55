"""Other methods that train several networks, or several ends of one, as one.

All are trained by this project's schedules (its weight decay, crop and flip): the comparison is of methods, not of
recipes. Their networks pool, normalise and classify as the published ones do.
"""

from mbib_core import mixtures
from mbib_core.methods.method import Method, Stage, on_bottlenecks, on_experts
from mbib_core.methods.paper import START
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


START_OF_MBIB = {name: START[name] for name in ("alphas", "beta")}
THREE_BOTTLENECKS = Network(taps=3, head="cosine", experts=3)

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
    # "Incorporating MBIB into each expert" is all that appendix G says. Inferred: an expert observes the shared first
    # stage and its own two, each with batch norm and a cosine head of its own; no class weights, no temperatures.
    "sade-mbib": Method(
        "SADE + MBIB",
        (Stage(on_bottlenecks(mixtures.sade_mbib)),),
        THREE_BOTTLENECKS,
        {**START_OF_MBIB, "inverse": 2.0},
        shared=("alphas", "beta"),
        source="the paper, appendix G",
        about="SADE's experts, each a mixture of bottlenecks with a z of its own, under SADE's shifts of the logits.",
    ),
}
