"""A training step: what it moves, how it is made, and an epoch of them, launched one by one or from a CUDA graph."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbib_core.batches import Batch, Draws, Source
from mbib_core.learners import Learner, Loss
from mbib_core.methods.method import Stage, paced
from mbib_core.ranks import spread
from mbib_core.schedules import Schedule

TRUNK = "backbone."  # what the names of a backbone's parameters begin with
WARM_UP = 3  # steps of each picture size that are made as they are before one is captured


def optimizer_for(
    learner: Learner, stage: Stage, recipe: Schedule, device: torch.device
) -> tuple[torch.optim.SGD, torch.amp.GradScaler]:
    """SGD for the parameters that the stage trains; the others need no gradient. Each group has a `factor` of the rate:
    the stage's for these parameters, times `trunk_rate` in the backbone."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in set_trained(learner, stage).items():
        factor = next((f for prefix, f in stage.rates.items() if name.startswith(prefix)), 1.0)
        factor *= recipe.trunk_rate if name.startswith(TRUNK) else 1.0
        # What thaws later has a group of its own: fused, all parameters of a group must have momentum, or none.
        groups.setdefault((factor, recipe.frozen > 0 and name.startswith(TRUNK)), []).append(parameter)
    trained = [{"params": parameters, "factor": factor} for (factor, _), parameters in groups.items()]
    # Not fused in float16: fused momentum also moves in steps that the scaler skips for overflow (torch 2.15).
    half = learner.precision == "float16"
    sgd = torch.optim.SGD(
        trained, recipe.rate, recipe.momentum, weight_decay=recipe.weight_decay, fused=not half and device.type != "mps"
    )
    return sgd, torch.amp.GradScaler(device.type, enabled=half)


def set_trained(learner: Learner, stage: Stage, *, frozen: bool = False) -> dict[str, nn.Parameter]:
    """Lets those parameters need a gradient that the stage trains, but for the backbone's if it is `frozen`; returns
    them by name."""
    trained = {}
    for full_name, parameter in learner.named_parameters():
        name = full_name.removeprefix("network.")
        still = name.startswith(learner.still) or (frozen and name.startswith(TRUNK))
        if parameter.requires_grad_(name.startswith(stage.trains) and not still).requires_grad:
            trained[name] = parameter
    return trained


def train_mode(learner: Learner, stage: Stage) -> None:
    """Training mode, but for what the stage does not train: batch norm, and what else depends on the mode."""
    learner.train()
    for module in learner.modules():
        inside = list(module.parameters())
        if inside and not stage.statistics_move and not any(p.requires_grad for p in inside):
            module.eval()


@dataclass
class Step:
    """A step of SGD on one batch; `step(batch, progress)` returns its loss, on the device.

    `module` is the learner, or what shares it out among processes; `ascent` takes the gradient from elsewhere (see
    `Stage`), and `after` runs after every step and is never captured.
    """

    learner: Learner
    module: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ascent: Callable[[Learner], None] | None = None
    after: Callable[[], None] = lambda: None

    def __call__(self, batch: Batch, progress: float) -> Float[Tensor, ""]:
        with spread(batch.whole):
            loss = self.module(batch, self.loss, progress)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.ascent is not None:
            with restored(self.learner), spread(batch.whole):
                self.ascent(self.learner)
                self.optimizer.zero_grad(set_to_none=True)
                self.scaler.scale(self.module(batch, self.loss, progress)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()


def epoch_of(step: Step, batches: Iterable[Batch], progress: float) -> Float[Tensor, " steps"]:
    """A step on each of the batches; their losses, which stay on the device."""
    losses = []
    for batch in batches:
        losses.append(step(batch, progress))
        step.after()
    return torch.stack(losses)


class Graph:
    """Captures work on a GPU once, so that it is launched as one from then on."""

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device)

    def try_out(self, work: Callable[[], None]) -> bool:
        """Does the work, on the stream on which it will be captured; whether the CPU had to wait for it, which is
        what a graph cannot have."""
        here, before = torch.cuda.current_stream(self.stream.device), torch.cuda.get_sync_debug_mode()
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream), warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                work()
            finally:
                torch.cuda.set_sync_debug_mode(before)
        here.wait_stream(self.stream)
        said = [str(one.message) for one in heard]
        for one, words in zip(heard, said, strict=True):
            if "ynchroniz" not in words:  # not the debug mode's own
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        return any("called a synchronizing" in words for words in said)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """What launches the work, which is not done here. Raises RuntimeError if CUDA cannot capture it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            work()
        return graph.replay


def graph_on(device: torch.device) -> Graph | None:
    return Graph(device) if device.type == "cuda" else None


def obstacle(source: object, *, precision: str, ranks: int, policy: str) -> str:
    """Why steps cannot be captured whatever the method, in words that end a sentence; "" if they may be.

    `policy` is the augmentation's.
    """
    if precision == "float16":
        return "in float16 the gradients must be checked for overflow before each step"
    if ranks > 1:
        return "several processes wait for each other in every step"
    if policy:
        return f"{policy} sorts the images of a batch by operation on the CPU"
    return "" if isinstance(source, Source) else "images are read from files while it trains"


class Captured:
    """The epochs of one stage, whose whole batches are cut and stepped by one launch each.

    The draws of an epoch, the place in them, the learning rates and the losses lie in tensors that stay where they are.
    The first steps at each size of the pictures are made as they are; the next is captured. A loss that follows the
    `progress` of the stage is captured anew in every epoch; the last, smaller batch never is. Where capturing fails,
    one warning says why and all steps are made as they are. The numbers are those of the steps as they are, but that
    on a GPU the rate is rounded to float32.
    """

    def __init__(self, step: Step, source: Source, batch: int, graph: Graph):
        self.step, self.source, self.batch, self.graph = step, source, batch, graph
        self.paced = paced(step.loss) or type(step.learner).forward is not Learner.forward
        self.number = torch.zeros(1, dtype=torch.int64, device=source.device)
        self.places = torch.arange(batch, device=source.device)
        # Fused SGD reads a rate on a GPU as float32, whatever it is.
        self.rates = [torch.zeros((), device=source.device) for _ in step.optimizer.param_groups]
        self.drawn: tuple[Draws, Draws | None] | None = None
        self.losses: Tensor | None = None
        self.failed = False
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forgets what was captured, as another part of the network is trained from now on."""
        self.tried: dict[float, int] = {}
        self.replay: Callable[[], None] | None = None
        self.captured_for: tuple[float, float] | None = None

    def epoch(
        self, draws: Draws, second: Draws | None = None, *, scale: float = 1.0, progress: float = 0.0
    ) -> Float[Tensor, " steps"]:
        """As `epoch_of` the batches of `source.stream(draws, batch, second=second, scale=scale)`."""
        n = len(draws.rows)
        whole, rest = n // self.batch, n % self.batch
        first, other = self._in_place(draws, second)
        self.number.zero_()
        work = partial(self._next, scale, progress)
        key = scale, progress if self.paced else 0.0
        with self._rates_in_tensors():
            for _ in range(whole):
                self._launch(work, key)
                self.step.after()
            if rest > 1:
                own = slice(whole * self.batch, n)
                loss = self.step(self.source.batch(first, own, whole, second=other, scale=scale), progress)
                self.step.after()
                return torch.cat([self._kept(loss)[:whole], loss[None]])
        assert self.losses is not None
        return self.losses[:whole].clone()

    def _launch(self, work: Callable[[], None], key: tuple[float, float]) -> None:
        scale, tried = key[0], self.tried.get(key[0], 0)
        if self.failed:
            work()
        elif tried < WARM_UP:
            self.tried[scale] = tried + 1
            waited = self.graph.try_out(work)
            if waited and tried + 1 == WARM_UP:  # in the first ones libraries get ready
                self._give_up("it waits for the GPU in the middle of a step")
        else:
            if key != self.captured_for:
                self.replay = None  # gives its memory back
                try:
                    self.replay, self.captured_for = self.graph.capture(work), key
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError as error:
                    self._give_up((str(error).strip() or type(error).__name__).splitlines()[0])
            (self.replay or work)()

    def _next(self, scale: float, progress: float) -> None:
        """The step on the next whole batch, wherever the counter says that this is."""
        assert self.drawn is not None
        (first, other), at = self.drawn, self.number * self.batch + self.places
        loss = self.step(self.source.batch(first, at, self.number, second=other, scale=scale), progress)
        self._kept(loss).index_copy_(0, self.number, loss[None])
        self.number += 1

    def _kept(self, loss: Tensor) -> Tensor:
        if self.losses is None:
            self.losses = loss.new_zeros(len(self.source.labels) // self.batch)
        return self.losses

    def _in_place(self, draws: Draws, second: Draws | None) -> tuple[Draws, Draws | None]:
        """The epoch's draws, where those of the first epoch lie."""
        if self.drawn is None:
            self.drawn = draws.to(self.source.device), second and second.to(self.source.device)
        for there, drawn in zip(self.drawn, (draws, second), strict=True):
            for old, new in zip(_tensors(there), _tensors(drawn), strict=True):
                old.copy_(new)
        return self.drawn

    @contextmanager
    def _rates_in_tensors(self) -> Iterator[None]:
        """Within it the optimizer reads its rates from tensors; a checkpoint has the numbers."""
        groups = self.step.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group, tensor, rate in zip(groups, self.rates, rates, strict=True):
            group["lr"] = tensor.fill_(rate)
        try:
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate

    def _give_up(self, why: str) -> None:
        self.failed, self.replay = True, None
        warnings.warn(f"steps run without a CUDA graph, which is slower: {why}", stacklevel=2)


def _tensors(draws: Draws | None) -> list[Tensor]:
    """The parts that move to the device."""
    if draws is None:
        return []
    mixing = draws.mixing[1:] if draws.mixing else ()
    return [part for part in (*draws[:3], draws.holes, *mixing) if part is not None]


@contextmanager
def restored(learner: Learner) -> Iterator[None]:
    """Afterwards weights and statistics have the bits that they had before; the gradients stay."""
    tensors = [*learner.parameters(), *learner.buffers()]
    kept = [tensor.detach().clone() for tensor in tensors]
    yield
    with torch.no_grad():
        torch._foreach_copy_(tensors, kept)
