"""What publications trained their methods with on CIFAR-100-LT, as far as a run can be asked for it, and what they
print.

It is not the common recipe, the schedule "paper", unless it says so. Published networks are ResNet-32 where nothing
else is said.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mbib_core.settings import Settings, Value

FACTORS = (100, 50, 10)
COMMON = "nothing, it is the common recipe"
TABLE_1 = "paper, table 1"
GALLERY = "BagofTricks-LT"  # others' table, of which the recipe is, too
README = "its README"
UNCHECKED = "not checked at its source"
BEST = "the best epoch on the test set"
ROTATED = f"images turned by up to 15 degrees; Nesterov's momentum; {BEST}"
EARLIER = "drops after 60 and 80 % of the epochs"
TENTH = "drops to a tenth"


class Recipe(NamedTuple):
    """What a run of a method is asked for to follow its publication, and what was published.

    `settings` are those at factor 100; `at` has what differs at other factors. `differs` says what the publication's
    recipe has that cannot be asked for. `accuracy` is in per cent over all classes of the test set at FACTORS, None
    where none is known, and `source` says who prints it.
    """

    settings: Mapping[str, Value]
    differs: str
    accuracy: tuple[float | None, float | None, float | None]
    source: str
    at: Mapping[float, Mapping[str, Value]] = {}

    def ask(self, method: str, imbalance: float = 100, **more: Any) -> Settings:
        """The settings of a run of `method`, not settled."""
        values = {**self.settings, **self.at.get(imbalance, {}), **more}
        return Settings(data="cifar100-lt", schedule="paper", method=method, imbalance=imbalance, **values)

    def printed(self, imbalance: float) -> float | None:
        """The published accuracy at this factor."""
        return dict(zip(FACTORS, self.accuracy, strict=True)).get(imbalance)  # type: ignore[call-overload]


CAO: dict[str, Value] = {"weight_decay": 2e-4}  # Cao et al. 2019, whose recipe most others took
HEAVIER: dict[str, Value] = {"weight_decay": 5e-4}
STRONG: dict[str, Value] = {"weight_decay": 5e-4, "augmentation": "autoaugment+cutout"}

# The cheapest run first: `book/results/wanted.toml` takes this order. What table 1 prints for "ce", "focal" and
# "ldam-drw" is probably what Cao et al. print (not checked); of the others it is not known whose runs they are.
PUBLISHED: dict[str, Recipe] = {
    "bib": Recipe({}, f"{COMMON}; beta, k and gamma are lost from its text", (44.9, 49.8, 60.4), TABLE_1),
    "mbib": Recipe({}, f"{COMMON}; alphas, beta, k and gamma are lost from its text", (47.5, 51.2, 60.9), TABLE_1),
    "ce": Recipe(CAO, BEST, (38.3, 43.9, 55.7), TABLE_1),
    # Its authors' recipe is of factor 200, with AutoAugment, Cutout and batches of 512.
    "bsce": Recipe(CAO, f"{BEST}; not its authors' recipe, which is of factor 200", (43.0, 46.6, None), GALLERY),
    "focal": Recipe(CAO, BEST, (38.4, 44.3, 55.8), TABLE_1),
    "ldam-drw": Recipe(CAO, BEST, (42.0, 46.6, 58.7), TABLE_1),
    # The gallery's settings files have 0.9 and 1 in place of the defaults of its code, 0.999 and 0.5.
    "cb-ce": Recipe({**CAO, "effective": 0.9}, BEST, (39.0, 43.8, None), GALLERY),
    "cb-focal": Recipe(
        {**CAO, "effective": 0.9, "focus": 1.0}, f"biases as they are drawn; {BEST}", (38.6, 42.4, None), GALLERY
    ),
    "ce-drs": Recipe(CAO, BEST, (40.6, 45.4, None), GALLERY),
    "cdt": Recipe(CAO, f"{BEST}; the paper's table 1 has 44.3 at factor 100", (39.6, 44.8, None), GALLERY),
    "tau-norm": Recipe({**CAO, "norm_power": 1.0}, f"the bias is kept; {BEST}", (41.0, 45.7, None), GALLERY),
    "lade": Recipe(
        {**HEAVIER, "rate": 0.2, "batch": 256},
        f"a network of 128 features, 550,388 parameters; a split drawn by the run's seed; {EARLIER}",
        (45.4, 50.5, 61.7),
        UNCHECKED,
    ),
    "reslt": Recipe(
        HEAVIER,
        f"Nesterov's momentum; {TENTH}; {BEST}",
        (48.2, 52.7, 62.0),
        UNCHECKED,
        {50: {"residual": 0.99}, 10: {"residual": 0.72}},
    ),
    # Its README advises a weight decay of 5e-4, its settings files have 2e-4. At 50 and 10 the classifier has half the
    # rate.
    "mislas": Recipe(
        CAO,
        f"{TENTH}; {BEST}, in both stages",
        (47.0, 52.3, 63.2),
        README,
        {50: {"head_smoothing": 0.3, "tail_smoothing": 0.0}, 10: {"head_smoothing": 0.2, "tail_smoothing": 0.0}},
    ),
    "crt": Recipe(CAO, f"a weight decay of 5e-4 in the second stage; {BEST}", (40.3, 45.4, None), GALLERY),
    "lws": Recipe(CAO, f"a weight decay of 5e-4 in the second stage; {BEST}", (40.2, 45.2, None), GALLERY),
    "ride-2": Recipe(HEAVIER, ROTATED, (47.0, None, None), TABLE_1),
    "ride-3": Recipe(HEAVIER, ROTATED, (48.0, 51.7, 61.8), f"{TABLE_1}; at 50 and 10 {UNCHECKED}"),
    "sade": Recipe(HEAVIER, f"{ROTATED}; {TENTH}", (49.8, 53.9, 63.6), TABLE_1),
    "sade-mbib": Recipe(
        HEAVIER, f"that the recipe is SADE's is inferred; {ROTATED}; {TENTH}", (50.3, None, None), "paper, table 8"
    ),
    "ride-4": Recipe(HEAVIER, f"distilled from six experts; {ROTATED}", (49.4, None, None), README),
    "ssp": Recipe(CAO, "that LDAM-DRW comes second is remembered, not read", (43.4, 47.1, 58.9), TABLE_1),
    "bbn": Recipe(CAO, f"{EARLIER}; a warm-up from a third of the rate; {BEST}", (42.6, 47.0, 59.1), TABLE_1),
    "dive": Recipe(CAO, f"{EARLIER}; {BEST}", (45.5, 50.8, None), GALLERY),
    "paco": Recipe(
        {**STRONG, "epochs": 400, "rate": 0.05},
        f"SimCLR's colours in the second view, which has AutoAugment, too, here; {TENTH}; {BEST}",
        (52.0, 56.0, 64.2),
        UNCHECKED,
    ),
    "rbl": Recipe(
        {**STRONG, "epochs": 600, "batch": 256},
        f"a frame of 256 directions, 545,680 parameters; a split of its own; Nesterov's momentum; a cosine; {BEST}",
        (None, None, None),
        "not seen",
    ),
    "wcdas": Recipe(
        {"weight_decay": 1e-4, "epochs": 700, "batch": 256, "rate": 0.2},
        f"30 epochs in the second stage, which has 105 here; a cosine; {BEST}",
        (None, None, None),
        "not seen",
    ),
    "logit-adjustment": Recipe(
        {**CAO, "epochs": 1419},
        "a network of bottleneck blocks with a third fewer parameters; Nesterov's momentum; drops to a tenth after 49, "
        "75 and 91 % of the epochs; no weight decay on batch norm; padding by 2",
        (44.1, None, None),
        README,
    ),
}

# Published on CIFAR-100-LT, and not to be come near by what a run can be asked for.
OUT_OF_REACH: dict[str, str] = {
    "weight-balancing": "a ResNet-34 of 21 million parameters that answers for an image and its mirror image",
    "glmc": "a network four times as wide, of 7.5 million parameters",
    "cc-sam": "mixup, which its row cannot have, and a network of 30 layers",
    "kcl": "no script for these images was found",
    "tsc": "its script for these images has no queue, which the row has",
}
