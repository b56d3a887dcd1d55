"""Other methods that re-balance one network in one stage: by the loss, its schedule or the sampler.

All are trained by this project's schedules (its weight decay, crop and flip): the comparison is of methods, not of
recipes. Their networks pool, normalise and classify as the plain network of the paper does.
"""

import math
from functools import partial
from typing import Any

import torch

from mbib_core import rebalancing
from mbib_core.learners import Learner
from mbib_core.losses import balanced_softmax
from mbib_core.methods.method import Method, Stage, on_v
from mbib_core.methods.paper import CE, V_ALONE
from mbib_core.methods.staged import STEPS
from mbib_core.networks import Network

COSINE = Network(with_z=False, head="cosine")


@torch.no_grad()
def start_unlikely(learner: Learner, **_own: Any) -> None:
    """Biases of -log(C - 1): every sigmoid starts near 1 / C, where the C losses of an image are small."""
    for classifier in learner.network.v_classifiers:  # type: ignore[union-attr]
        classifier.bias.fill_(-math.log(max(1, len(classifier.bias) - 1)))


def deferred_balance(progress: float) -> float:
    """q of deferred re-sampling (DRS, Cao et al. 2019): images as they come, from 0.8 on every class equally often."""
    return 0.0 if progress >= 0.8 else 1.0


def progressive_balance(progress: float) -> dict[float, float]:
    """q of progressively balanced sampling (Kang et al. 2020): (1 - t) n_c / N + t / C."""
    return {1.0: 1 - progress, 0.0: progress}


BALANCED: dict[str, Method] = {
    "focal": Method(
        "focal loss",
        (Stage(on_v(rebalancing.focal)),),
        V_ALONE,
        {"focus": 1.0},
        biased=True,
        source="Lin et al. 2017",
        about="Cross-entropy in which an image counts less the surer the network is of its class.",
    ),
    # The scale 30 stands in the network and in the margin: the same function as Cao's, whose test needs neither.
    "ldam-drw": Method(
        "LDAM-DRW",
        (Stage(on_v(rebalancing.ldam)),),
        COSINE,
        {"margin": 0.5, "deferred": 0.8, "effective": 0.9999},
        source="Cao et al. 2019",
        about="Wider margins for rarer classes, between cosines; in the last fifth of the epochs classes are weighed.",
    ),
    # Draws every class equally often; the official code's sampler, by effective numbers, never reaches its loader. No
    # weights on top: an inference, the papers do not say.
    "ldam-drs": Method(
        "LDAM-DRS",
        (Stage(on_v(partial(rebalancing.ldam, deferred=1.0, effective=0.0)), q=deferred_balance),),
        COSINE,
        {"margin": 0.5},
        source="Cao et al. 2019",
        about="LDAM's margins; in the last fifth of the epochs every class is drawn equally often.",
    ),
    # Weighed as the class-balanced focal loss below: on Glyphs-LT it stays near chance, too (3 %).
    "cb-ce": Method(
        "class-balanced cross-entropy",
        (Stage(on_v(rebalancing.class_balanced)),),
        V_ALONE,
        {"effective": 0.9999},
        source="Cui et al. 2019",
        about="Cross-entropy, with classes weighed by the inverse of their effective number of images.",
    ),
    # Cui et al. spare the last bias the weight decay (from memory); here it has that of all parameters. Weights have
    # mean 1 over classes, not images: on Glyphs-LT an image weighs 0.16 on average, one of the head 0.04, one of the
    # tail 5. 24 epochs leave the row at chance there (2 %); with equal weights (effective 0) 8 epochs bring 25 %.
    "cb-focal": Method(
        "class-balanced focal loss",
        (Stage(on_v(rebalancing.class_balanced_focal), begin=start_unlikely),),
        V_ALONE,
        {"focus": 0.5, "effective": 0.999},
        source="Cui et al. 2019",
        about="A focal loss of one sigmoid a class, weighed by the inverse effective number of images.",
    ),
    "ce-drw": Method(
        "cross-entropy, DRW",
        (Stage(on_v(rebalancing.class_balanced)),),
        V_ALONE,
        {"deferred": 0.8, "effective": 0.9999},
        source="Cao et al. 2019",
        about="Cross-entropy; in the last fifth of the epochs weighed by the inverse effective number of images.",
    ),
    "ce-drs": Method(
        "cross-entropy, DRS",
        (Stage(CE.loss, q=deferred_balance),),
        V_ALONE,
        source="Cao et al. 2019",
        about="Cross-entropy; in the last fifth of the epochs every class is drawn equally often.",
    ),
    "ce-sqrt": Method(
        "cross-entropy, square-root sampling",
        (Stage(CE.loss, q=0.5),),
        V_ALONE,
        source="Kang et al. 2020",
        about="Cross-entropy on draws in which a class has the square root of its share of the images.",
    ),
    "ce-progressive": Method(
        "cross-entropy, progressively balanced",
        (Stage(CE.loss, q=progressive_balance),),
        V_ALONE,
        source="Kang et al. 2020",
        about="Cross-entropy on draws that pass, epoch by epoch, from all images alike to all classes alike.",
    ),
    "logit-adjustment": Method(
        "logit adjustment",
        (Stage(on_v(balanced_softmax)),),
        V_ALONE,
        {"tau": 1.0},
        source="Menon et al. 2021",
        about="Cross-entropy of the logits plus tau log n; tau = 1 is the balanced softmax, bsce, to the bit.",
    ),
    "cdt": Method(
        "CDT",
        (Stage(on_v(partial(rebalancing.vector_scaling, tau=0.0))),),
        V_ALONE,
        {"gamma": 0.2},
        source="Ye et al. 2020",
        about="Cross-entropy of logits divided by (n_max / n)^gamma; the test takes them undivided.",
    ),
    # 0.2 and 1.2 are the example of the official code for CIFAR-10; it has none for CIFAR-100.
    "vs": Method(
        "VS loss",
        (Stage(on_v(rebalancing.vector_scaling)),),
        V_ALONE,
        {"gamma": 0.2, "tau": 1.2},
        source="Kini et al. 2021",
        about="Vector scaling: CDT's division of the logits and logit adjustment's tau log n together.",
    ),
    "lade": Method(
        "LADE",
        (Stage(on_v(rebalancing.lade)),),
        V_ALONE,
        {"lader": 0.1, "lader_square": 0.01},
        source="Hong et al. 2021",
        about="Balanced softmax plus a regulariser by which logits estimate p(x|c) / p(x) of evenly spread classes.",
    ),
    # With the counts of the training set in place of those of the images seen so far, which run after them, and on the
    # plain network's linear classifier in place of a normalised one. p and q are those for instance segmentation.
    "seesaw": Method(
        "seesaw loss",
        (Stage(on_v(rebalancing.seesaw)),),
        V_ALONE,
        {"mitigation": 0.8, "compensation": 2.0},
        source="Wang et al. 2021",
        about="Softmax in which an image punishes rarer classes less, and classes it is mistaken for more.",
    ),
    # Stage 2 as in cRT, but at the official rate for CIFAR and from stage 1's classifier. The official one runs along
    # a cosine, on batches of 256 in which the classes take turns, and its batch norm follows these. Its stage 1 has
    # 700 epochs: the logits differ by at most 0.72 until the widths g are learned, and 8 epochs of Glyphs-LT bring 6
    # %.
    "wcdas": Method(
        "WCDAS",
        (
            CE,
            Stage(
                CE.loss,
                q=0.0,
                trains=("v_classifiers",),
                epochs=0.15,
                recipe={"rate": 0.005, **STEPS},
            ),
        ),
        Network(with_z=False, head="wrapped-cauchy"),
        source="Han 2023",
        about="A classifier of wrapped Cauchy densities with learned widths, trained on with all classes alike.",
    ),
}
