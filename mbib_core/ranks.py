"""Processes that train as one: a batch is spread over them, and its loss is that of the whole batch.

Each process takes every `ranks`-th image. A loss may weigh, normalise, compare or queue up the images of a batch, so
the answers are brought together first, a few numbers an image, and every process computes the loss of all of them.
"""

import atexit
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

T = TypeVar("T")
Rows = Shaped[Tensor, "b *_d"]

PATIENCE = timedelta(minutes=10)  # how long a process waits for the others: two may differ by a compilation
OF_THE_GROUP = "gloo", "NCCL", "nccl", "onnection", "process group"  # words of the errors of torch's backends

_whole = 0  # the images of the batch that is spread over the processes at present; 0: each has all that there is


class Gone(ConnectionError):
    """Another process of the group has ended, or does not answer."""


def ranks_here() -> tuple[int, int]:
    """The number of this process, and how many there are, in torch's process group; 0 of 1 outside of one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def join(device: str | torch.device | None) -> str | torch.device | None:
    """Joins torch's process group where `torchrun` started this process; its device."""
    if "RANK" not in os.environ or distributed.is_initialized():
        return device
    on_gpu = str(device or "cuda").startswith("cuda") and torch.cuda.is_available()
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    atexit.register(distributed.destroy_process_group)  # a second group of the same `torchrun` would never come about
    return device


@contextmanager
def waiting_for_the_others(checkpoint: Path) -> Iterator[None]:
    """Within it an error of the process group is raised as `Gone`, with a sentence."""
    try:
        yield
    except RuntimeError as error:
        ranks = int(os.environ.get("WORLD_SIZE", ranks_here()[1]))
        known = isinstance(error, distributed.DistError) or any(words in str(error) for words in OF_THE_GROUP)
        if ranks == 1 or not known:
            raise
        raise Gone(
            f"another of the {ranks} processes has ended or did not answer for {PATIENCE.seconds // 60} minutes; its "
            f"own message says why. Finished epochs are kept in {checkpoint}: the same command resumes there"
        ) from error


def together(learner: nn.Module) -> nn.Module:
    """`learner` with gradients that are averaged over the processes; it has the first one's weights everywhere.

    Call it again whenever the set of trained parameters changes.
    """
    if ranks_here()[1] == 1:
        return learner
    parallel: Any = nn.parallel.DistributedDataParallel(learner)
    parallel.broadcast_buffers = False  # no step needs it: they are alike everywhere, but for batch norm's
    return parallel


@contextmanager
def spread(whole: int) -> Iterator[None]:
    """Within it this process has every `ranks`-th image of a batch of `whole`; 0: it has them all."""
    global _whole
    before, _whole = _whole, whole
    try:
        yield
    finally:
        _whole = before


def gathered(found: T) -> T:
    """The rows of all processes, in the order of the whole batch, of each tensor in `found` but scalars.

    What every process computes of them alike has the gradient of the whole batch, once the processes' gradients are
    averaged: for parameters behind this call and before it. Where no batch is `spread`, `found` itself.
    """
    return tree_map_only(Tensor, _gathered, found) if _whole else found


def own(rows: Rows) -> Rows:
    """The rows of this process among those of the whole batch: undoes `gathered`."""
    rank, ranks = ranks_here()
    return rows[rank::ranks] if _whole else rows


def drawn(draw: Callable[[Tensor], Tensor], like: Rows) -> Rows:
    """`draw(like)`, such as `torch.randn_like`, with the rows that one process alone would draw for these images."""
    return own(draw(like.new_empty(_whole, *like.shape[1:]))) if _whole else draw(like)


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of `values` over the processes, all of which must call this."""
    ranks = ranks_here()[1]
    if ranks > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values / ranks


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Running statistics of batch norm that is trained become their means over the processes."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.training]
    moved: list[Any] = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
    if moved and ranks_here()[1] > 1:
        mean = mean_over_ranks(torch.cat(moved))
        torch._foreach_copy_(moved, list(mean.split([len(value) for value in moved])))


@torch.compiler.disable
def _gathered(x: Tensor) -> Tensor:
    return _Gather.apply(x, _whole) if x.dim() else x  # type: ignore[no-untyped-call]


class _Gather(torch.autograd.Function):
    """No message goes back: every process knows the gradient of all rows, and takes its own, times their number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, whole: int) -> Tensor:
        ctx.rank, ctx.ranks = ranks_here()
        rows = -(-whole // ctx.ranks)
        mine = x.new_zeros(rows, *x.shape[1:])  # the shares differ by one row at the most
        mine[: len(x)] = x
        return torch.stack(_everybodys(mine), 1).flatten(0, 1)[:whole]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.ranks * gradient[ctx.rank :: ctx.ranks], None


class _Together(_BatchNorm):
    """Batch norm with the mean and variance of a whole batch that is `spread`, on any device.

    `nn.SyncBatchNorm` knows no CPU, and would wait for the others in batches that are not spread.
    """

    @torch.compiler.disable
    def forward(self, x: Float[Tensor, "b c *_d"]) -> Float[Tensor, "b c *_d"]:
        if not (self.training and _whole):
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            wide = x.to(self.running_mean.dtype)
            axes, here = _all_but_channels(x), torch.full_like(self.running_mean, x.numel() / x.shape[1])
            variance, mean = torch.var_mean(wide, axes, correction=0)
            means, squares, numbers = torch.stack(_everybodys(torch.stack([mean, variance * here, here])), 1)
            n = numbers.sum(0)
            mean = (numbers * means).sum(0) / n
            squares = (squares + numbers * (means - mean) ** 2).sum(0)
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(squares / (n - 1), self.momentum)
        return _Normalise.apply(x, self.weight, self.bias, mean, squares / n, n, self.eps)  # type: ignore


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, with the gradient through a mean and variance of all rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *given: Any) -> Tensor:
        weight, bias, mean, variance, n, eps = given
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), n)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, mean, inverse, n = ctx.saved_tensors
        shape, axes = (1, -1, *(1,) * (x.dim() - 2)), _all_but_channels(x)
        unit = (x.to(mean.dtype) - mean.view(shape)) * inverse.view(shape)
        wide = gradient.to(mean.dtype)
        of_weight, of_bias = (wide * unit).sum(axes), wide.sum(axes)
        sums = torch.stack([of_bias, of_weight])
        distributed.all_reduce(sums)
        along_mean, along_unit = (part.view(shape) for part in sums / n)
        of_x = (wide - along_mean - unit * along_unit) * (weight * inverse).view(shape)
        return of_x.to(x.dtype), of_weight, of_bias, None, None, None, None


def _everybodys(mine: Tensor) -> list[Tensor]:
    found = [torch.empty_like(mine) for _ in range(ranks_here()[1])]
    distributed.all_gather(found, mine)
    return found


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


class _Together1d(_Together, nn.BatchNorm1d):
    pass


class _Together2d(_Together, nn.BatchNorm2d):
    pass


def synchronise(modules: Iterable[nn.Module]) -> None:
    """From now on batch norm among `modules` takes mean and variance from the images of all processes."""
    kinds: dict[type, type] = {nn.BatchNorm1d: _Together1d, nn.BatchNorm2d: _Together2d}
    for module in modules:
        module.__class__ = kinds.get(type(module), type(module))
