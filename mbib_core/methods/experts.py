"""Other methods that train several networks, or several ends of one, as one.

All are trained by this project's schedules (its weight decay, crop and flip): the comparison is of methods, not of
recipes. Their networks pool, normalise and classify as the published ones do.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from mbib_core import mixtures
from mbib_core.batches import Batch
from mbib_core.learners import Learner, Loss
from mbib_core.methods.method import Method, Stage, on_bottlenecks, on_experts, on_routers
from mbib_core.methods.paper import CE, START
from mbib_core.networks import Network, Outputs
from mbib_core.ranks import gathered
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


def _routed(n: int) -> Method:
    """Five epochs of 200, as published, but at this schedule's batch and with its drops from 0.01, not a cosine."""
    plain = _ride(n)
    routers = Stage(on_routers(mixtures.routing), q=0.0, trains=("router",), epochs=0.025, recipe={"rate": 0.01})
    return replace(
        plain,
        title=f"{plain.title}, routed",
        stages=(replace(plain.stages[0], trains=("trunk", "experts")), routers),
        parts=replace(plain.parts, routed=True),
        own={**OF_RIDE, "urgency": 100.0},
        about=f"RIDE with {n} experts, whose routers let an image go on to the next expert only if that may help.",
    )


START_OF_MBIB = {name: START[name] for name in ("alphas", "beta")}
THREE_BOTTLENECKS = Network(taps=3, head="cosine", experts=3)


class Bilateral(Learner):
    """BBN (Zhou et al. 2020): a CE(z, y) + (1 - a) CE(z, y'), a = 1 - progress^2, z = [2 a f_1, 2 (1 - a) f_2] W' + b.

    f_1 and y are of the batch and of the first branch, f_2 and y' of the second batch and branch.
    """

    def compile_for(self, x: Tensor, scales: Iterable[float], *, graphs: bool = True) -> str:
        return super().compile_for(torch.cat([x, x]), scales, graphs=graphs)

    def forward(self, batch: Batch, loss: Loss, progress: float) -> Tensor:
        if batch.second is None:
            raise ValueError("two branches need two batches: give the stage a `second`")
        first, second, share = batch, batch.second, 1 - progress**2
        v = gathered(self.outputs(torch.cat([first.x, second.x])).observations[-1])
        weighed = torch.cat([2 * w * f for w, f in zip((share, 1 - share), v.chunk(2, 1), strict=True)], 1)
        outputs = Outputs((v,), (self.network.classifier(weighed),), None, None)  # type: ignore[operator]
        losses = [loss(outputs, y, counts=self.counts, progress=progress) for y in gathered((first.y, second.y))]
        return share * losses[0] + (1 - share) * losses[1]


def summed(outputs: Outputs, _counts: Tensor) -> dict[str, Tensor]:
    """The sum of the branches' logits, and each branch by itself."""
    own = {f"expert_{k}": f for k, f in enumerate(outputs.v_logits, start=1)}
    return {"sum": torch.stack(outputs.v_logits).sum(0)} | own


EXPERTS: dict[str, Method] = {
    # Without the rotated images, Nesterov's momentum, weight decay 5e-4 and drops to a tenth of the official recipe;
    # and answering with the plain mean of the experts' logits: the shares that it can learn on unlabelled test images
    # (`mixtures.shares_without_labels`) are left out.
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
    "ride-4-routed": _routed(4),
    # "Incorporating MBIB into each expert" is all that appendix G says. Inferred: an expert observes the shared first
    # stage and its own two, each with batch norm and a cosine head of its own; no class weights, no temperatures. One
    # run of 24 epochs on Glyphs-LT ended at 20 % of the test images, its loss still falling; SADE's at 82 %.
    "sade-mbib": Method(
        "SADE + MBIB",
        (Stage(on_bottlenecks(mixtures.sade_mbib)),),
        THREE_BOTTLENECKS,
        {**START_OF_MBIB, "inverse": 2.0},
        shared=("alphas", "beta"),
        source="the paper, appendix G",
        about="SADE's experts, each a mixture of bottlenecks with a z of its own, under SADE's shifts of the logits.",
    ),
    # This project's own: the same experts under RIDE's loss. The paper says only that MBIB could go into others, too.
    "ride-mbib": Method(
        "RIDE + MBIB",
        (Stage(on_bottlenecks(mixtures.ride_mbib)),),
        THREE_BOTTLENECKS,
        {**START_OF_MBIB, **OF_RIDE},
        shared=("alphas", "beta"),
        source="this project",
        about="RIDE's three experts, each a mixture of bottlenecks with a z of its own, under LDAM-DRW.",
    ),
    # The groups are shares of the ordered classes, 35 and 70 of 100 in the official code. 0.995 is the official share
    # at factor 100 (0.99 at 50, 0.72 at 10). Without Nesterov's momentum, weight decay 5e-4 and drops to a tenth.
    "reslt": Method(
        "ResLT",
        (Stage(on_experts(mixtures.reslt)),),
        Network(with_z=False, experts=3, private="norm"),
        {"medium_from": 0.35, "tail_from": 0.7, "residual": 0.995},
        predict=summed,
        source="Cui et al. 2022",
        about="Three batch norms share a network and a classifier; the tail counts for all three, the head for one.",
    ),
    # The official rate drops after 60 and 80 % of the epochs and warms up from a third; here as in all rows.
    "bbn": Method(
        "BBN",
        (Stage(CE.loss, second=-1.0),),
        Network(with_z=False, experts=2, private="block"),
        learner=Bilateral,
        source="Zhou et al. 2020",
        about="Two branches, one on images as they come and one on rare classes first, take turns over the training.",
    ),
}
