"""A run that was made: what training leaves."""

from dataclasses import dataclass, field
from typing import Any

from mbib_core.networks.bottleneck import Bottleneck
from mbib_core.settings import Settings


class Busy(ValueError):
    """Another process trains this run; `mbib train` then ends with this exit status."""

    status = 75


@dataclass
class Trained:
    """What training leaves: the network in evaluation mode, the settled settings, and the road there; the names of
    the classes and the size (height, width) of the pictures that it takes; whether its steps were compiled."""

    network: Bottleneck
    settings: Settings
    history: dict[str, list[Any]]
    precision: str
    seconds: float
    commits: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    size: tuple[int, int] = (32, 32)
    compiled: bool = False
