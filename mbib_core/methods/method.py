"""What a row of the table of methods is: a network, its settings, and the stages in which it is trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor

from mbib_core.learners import Learner, Loss
from mbib_core.networks import Network, Outputs, predictions
from mbib_core.settings import Value


def nothing(learner: Learner, **_own: Any) -> None:
    """What most stages begin and end with."""


@dataclass(frozen=True)
class Stage:
    """One optimizer with one learning-rate schedule; what changes within a schedule is a function of `progress`.

    `loss(outputs, targets, *, counts, progress, **own)` is a scalar in nats. `q` says which images an epoch has: 1 each
    once, else as many draws in which class i has the share n_i^q (0: every class equally often; Kang et al. 2020) or a
    mixture of such shares, {q: part}; it may be a function of `progress`. `second` puts another batch beside each, as
    `batch.second`: "view" is the same images cropped and mirrored anew, a number another stream with that q.

    `trains` are prefixes of parameter names, the network's as they are in it and the learner's own; what is not trained
    stands still, its batch norm too (`statistics_move` lets its running statistics follow the images). `rates` are
    factors of the learning rate by prefix. `begin(learner, images=, **own)` may add modules or draw some anew and is
    repeated when a run resumes; `each_epoch(learner, images=, progress=, **own)` comes after every epoch;
    `end(learner, images=, **own)` must keep the structure. `ascent(learner, **own)` takes each step's gradient from
    elsewhere: it moves the weights by their gradients, the gradients are computed anew there, and the step is made from
    where the weights were. `epochs` is a share of the run's, `recipe` what differs from its schedule.
    """

    loss: Loss
    q: float | Mapping[float, float] | Callable[[float], float | Mapping[float, float]] = 1.0
    second: float | str | None = None
    trains: tuple[str, ...] = ("",)
    statistics_move: bool = False
    rates: Mapping[str, float] = field(default_factory=dict)
    begin: Callable[..., None] = nothing
    ascent: Callable[..., None] | None = None
    each_epoch: Callable[..., None] = nothing
    end: Callable[..., None] = nothing
    epochs: float = 1.0
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """One way to train. `own` are its settings with their values; those in `shared` take what was chosen for BIB and
    MBIB on a data set. `predict(outputs, counts)` gives logits by name, the method's own answer first."""

    title: str
    stages: tuple[Stage, ...]
    parts: Network
    own: Mapping[str, Value] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    learner: type[Learner] = Learner
    predict: Callable[[Outputs, Tensor], dict[str, Tensor]] = lambda outputs, counts: predictions(outputs)
    biased: bool = False  # whether its probabilities carry the training set's shares of the classes
    source: str = "the paper"  # or the reference of another method
    about: str = ""  # what it does, in one sentence

    def network(self, classes: int, *, depth: int | None = None, **statistics: Sequence[float] | Tensor) -> Any:
        """A new network of this method on ResNet-`depth`; `mean` and `std` [3] normalise the images."""
        return replace(self.parts, depth=depth or self.parts.depth).build(classes, **statistics)

    def plan(self, epochs: int) -> list[tuple[Stage, int]]:
        """The stages with their epochs, where the first one's share of 1 is `epochs`."""
        return [(stage, max(1, round(stage.epochs * epochs))) for stage in self.stages]

    def loss(self, outputs: Outputs, targets: Tensor, counts: Tensor, progress: float = 0.0, **kept: Any) -> Tensor:
        """The first stage's loss of one batch, a scalar in nats; `targets` [B], training `counts` [C], and what the
        learner has `kept` for it."""
        return self.stages[0].loss(outputs, targets, counts=counts, progress=progress, **self.own, **kept)


def on_v(loss: Callable[..., Tensor]) -> Loss:
    """A loss of logits [B, C] as one of the deepest observation's."""
    return partial(_of_outputs, loss, lambda o: (o.v_logits[-1],))


def on_z(loss: Callable[..., Tensor]) -> Loss:
    """A loss of logits [B, C] as one of z's."""
    return partial(_of_outputs, loss, lambda o: (o.z_logits,))


def on_both(loss: Callable[..., Tensor]) -> Loss:
    """A loss of two logits as one of the deepest observation's and z's."""
    return partial(_of_outputs, loss, lambda o: (o.v_logits[-1], o.z_logits))


def on_all(loss: Callable[..., Tensor]) -> Loss:
    """A loss of all observations' logits, shallow to deep, and z's."""
    return partial(_of_outputs, loss, lambda o: (o.v_logits, o.z_logits))


def on_experts(loss: Callable[..., Tensor]) -> Loss:
    """A loss of the experts' logits, in order."""
    return partial(_of_outputs, loss, lambda o: (o.v_logits,))


def on_routers(loss: Callable[..., Tensor]) -> Loss:
    """A loss of the routers' logits and the experts'."""
    return partial(_of_outputs, loss, lambda o: (o.go_on, o.v_logits))


def on_bottlenecks(loss: Callable[..., Tensor]) -> Loss:
    """A loss of the observations' logits of each expert, shallow to deep, and of the experts' z's."""
    return partial(_of_outputs, loss, lambda o: ([e.v_logits for e in o.experts], [e.z_logits for e in o.experts]))


def _of_outputs(
    loss: Callable[..., Tensor],
    choose: Callable[[Outputs], tuple],
    outputs: Outputs,
    targets: Tensor,
    *,
    counts: Tensor,
    progress: float,
    **own: Any,
) -> Tensor:
    return loss(*choose(outputs), targets, **taken(loss, counts=counts, progress=progress, **own))


def taken(function: Callable, **given: Any) -> dict[str, Any]:
    """Those of the `given` that `function` names; with a `**` in its signature all but `progress`."""
    names, every = _names(function)
    return {name: value for name, value in given.items() if name in names or (every and name != "progress")}


def paced(loss: Loss) -> bool:
    """Whether a stage's loss may change with `progress`: certainly not if `on_v` or its kin made it of a function that
    does not name it."""
    made = isinstance(loss, partial) and loss.func is _of_outputs
    return not made or "progress" in _names(loss.args[0])[0]  # type: ignore[attr-defined]


@cache
def _names(function: Callable) -> tuple[frozenset[str], bool]:
    parameters = signature(function).parameters
    return frozenset(parameters), any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


@torch.no_grad()
def redraw(learner: Learner, **_own: Any) -> None:
    """Draws the classifiers on the observations anew."""
    classifiers: Any = learner.network.v_classifiers
    for classifier in classifiers:
        classifier.reset_parameters()
