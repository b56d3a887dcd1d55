"""Other methods that re-balance one network in one stage: by the loss, its schedule or the sampler.

All are trained by this project's schedules (its weight decay, crop and flip): the comparison is of methods, not of
recipes. Their networks pool, normalise and classify as the plain network of the paper does.
"""

from mbib_core import rebalancing
from mbib_core.methods.method import Method, Stage, on_v
from mbib_core.methods.paper import V_ALONE
from mbib_core.networks import Network

BALANCED: dict[str, Method] = {
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
}
