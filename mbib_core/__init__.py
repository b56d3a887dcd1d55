"""Balanced information bottlenecks for long-tailed recognition: losses, networks, data sets, a trainer.

The names below are imported when they are first used, so that importing the package needs no torch.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbib_core.criteria import BIBLoss, MBIBLoss
    from mbib_core.data import from_arrays, from_dataset, load
    from mbib_core.evaluation import evaluate, features_of
    from mbib_core.methods import METHODS
    from mbib_core.networks import Bottleneck
    from mbib_core.runs import make
    from mbib_core.settings import Settings
    from mbib_core.trainer import train
    from mbib_core.weights import read_weights, write_weights

# Threads that wait for each other sleep instead of spinning: about as fast on idle cores, while on busy ones an epoch
# of a small network on two threads took eight times as long. Read when torch is loaded, so set before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_OF_ONE_CLASSIFIER = (
    "BalancedSoftmax",
    "VS",
    "CDT",
    "ClassBalanced",
    "LDAM",
    "Focal",
    "ClassBalancedFocal",
    "LADE",
    "Seesaw",
)
_WHERE = {f"{name}Loss": "criteria" for name in _OF_ONE_CLASSIFIER} | {
    "BIBLoss": "criteria",
    "MBIBLoss": "criteria",
    "from_arrays": "data",
    "from_dataset": "data",
    "load": "data",
    "evaluate": "evaluation",
    "features_of": "evaluation",
    "METHODS": "methods",
    "Bottleneck": "networks",
    "make": "runs",
    "Settings": "settings",
    "train": "trainer",
    "read_weights": "weights",
    "write_weights": "weights",
}
__all__ = [
    "METHODS",
    "BIBLoss",
    "Bottleneck",
    "MBIBLoss",
    "Settings",
    "evaluate",
    "features_of",
    "from_arrays",
    "from_dataset",
    "load",
    "make",
    "read_weights",
    "train",
    "write_weights",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("mbib_core.results").version_of_code()
    if name in _WHERE:
        return getattr(importlib.import_module(f"mbib_core.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE, "__version__"])
