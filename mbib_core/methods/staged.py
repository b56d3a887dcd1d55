"""Other methods that train a network first and balance its classifier afterwards.

All are trained by this project's schedules (its weight decay, crop and flip): the comparison is of methods, not of
recipes. Their networks pool, normalise and classify as the plain network of the paper does.
"""

from typing import Any

import torch
from torch import Tensor

from mbib_core import classifiers
from mbib_core.batches import Batch
from mbib_core.data.longtailed import Images
from mbib_core.evaluation import features_of
from mbib_core.learners import Learner, Loss
from mbib_core.methods.method import Method, Stage, on_v, redraw
from mbib_core.methods.paper import CE, V_ALONE
from mbib_core.networks import Network, Outputs

V = "v_classifiers.0"
PLAIN = ("backbone", "observe", f"{V}.weight", f"{V}.bias")  # all but what a later stage adds to the classifier


@torch.no_grad()
def normalise(learner: Learner, *, norm_power: float, **_own: Any) -> None:
    """Divides each row of the deepest classifier by its norm to the power `norm_power`, and drops the bias."""
    classifiers: Any = learner.network.v_classifiers
    classifier = classifiers[-1]
    classifier.weight.div_(classifier.weight.norm(dim=1, keepdim=True) ** norm_power)
    classifier.bias.zero_()


def class_means(learner: Learner, *, images: Images, **_own: Any) -> None:
    """Fits `heads.Nearest` to the features of all training images, as they are."""
    network: Any = learner.network
    features = features_of(network, images.x)["features/v"]
    network.v_classifiers[-1].fit(features, images.y.to(features.device))



STEPS = {"decay": 0.1, "drops": (1 / 3, 2 / 3), "warm_up": 6.0}
DOWN = {"cosine": True, "warm_up": 1e6}  # from the full rate in the first epoch

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
                recipe=STEPS,
            ),
        ),
        V_ALONE,
        source="Kang et al. 2020",
    ),
    # As cRT, but for the classifier, of which nothing is drawn anew.
    "lws": Method(
        "LWS",
        (Stage(CE.loss, trains=PLAIN), Stage(CE.loss, q=0.0, trains=(f"{V}.scale",), epochs=0.15, recipe=STEPS)),
        Network(with_z=False, head="scaled"),
        source="Kang et al. 2020",
        about="A factor for each class's logit is learned on class-balanced images, all else as cross-entropy left it.",
    ),
    # 0.7 is a starting value: Kang et al. choose it on validation images.
    "tau-norm": Method(
        "tau-norm", (Stage(CE.loss, end=normalise),), V_ALONE, {"norm_power": 0.7}, source="Kang et al. 2020"
    ),
    # The features are batch-normalised here and may be negative; there they are pooled behind a ReLU.
    "ncm": Method(
        "NCM",
        (Stage(CE.loss, end=class_means),),
        Network(with_z=False, head="nearest"),
        source="Kang et al. 2020",
        about="The features of cross-entropy, classified by the nearest class mean of centred features of length 1.",
    ),
    # alpha starts from 1, the paper's form; the official code begins at (1 + s) z. Its 10 of 90 epochs are 0.05 here,
    # as in the other second stages on CIFAR; k is its rho of ImageNet-LT. Batch norm stands still: inferred.
    "disalign": Method(
        "DisAlign",
        (
            Stage(CE.loss, trains=PLAIN),
            Stage(
                on_v(classifiers.weighted),
                trains=tuple(f"{V}.{name}" for name in ("alpha", "beta", "a")),
                epochs=0.05,
                recipe=DOWN,
            ),
        ),
        Network(with_z=False, head="aligned"),
        {"k": 1.2},
        source="Zhang et al. 2021",
        about="A shift and a factor of each class's logits, as strong as the image asks for, are learned afterwards.",
    ),
}
