"""What is trained: a network and whatever else a method keeps, all of it in one `state_dict()`."""

from collections.abc import Callable

from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from mbib_core.batches import Batch
from mbib_core.devices import autocast
from mbib_core.networks import Outputs

Loss = Callable[..., Float[Tensor, ""]]


class Learner(nn.Module):
    """A network, the training counts [C], and how to get from a batch to its loss.

    A method that keeps more (a teacher, a queue, a mean of weights) derives from this and registers it as buffers and
    modules: then resuming, moving and sharing out among processes need to know nothing of it.
    """

    counts: Tensor

    def __init__(self, network: nn.Module, counts: Int[Tensor, " c"], precision: str = "float32"):
        super().__init__()
        self.network = network
        self.register_buffer("counts", counts.clone())  # what is resumed must not write into the data
        self.precision = precision
        self.compiled: Callable[[Tensor], Outputs] | None = None  # the network's passes, for full batches
        self.full_batch = 0

    def outputs(self, x: UInt8[Tensor, "b 3 h w"]) -> Outputs:
        """The network's answer in the run's precision; a smaller last batch would be compiled once more."""
        call = self.compiled if self.compiled and len(x) == self.full_batch else self.network
        with autocast(x.device, self.precision):
            return call(x)

    def forward(self, batch: Batch, loss: Loss, progress: float) -> Float[Tensor, ""]:
        """`loss(outputs, targets, counts=..., progress=...)` of one batch; `progress` is the stage's, in [0, 1)."""
        return loss(self.outputs(batch.x), batch.y, counts=self.counts, progress=progress)
