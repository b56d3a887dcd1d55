"""What is trained: a network and whatever else a method keeps, all of it in one `state_dict()`."""

import ctypes
import sys
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from mbib_core.batches import Batch, resize
from mbib_core.devices import autocast
from mbib_core.networks import Outputs
from mbib_core.ranks import gathered

Loss = Callable[..., Float[Tensor, ""]]


class Learner(nn.Module):
    """A network, the training counts [C], and how to get from a batch to its loss.

    A method that keeps more (a teacher, a queue, a mean of weights) derives from this and registers it as buffers and
    modules: then resuming and moving need to know nothing of it. Those whose names begin with one of `still` are never
    trained. What a step draws comes from torch's default generators, which are seeded by (seed, epoch) before every
    epoch, alike in all processes. A `forward` of its own gives the loss what `ranks.gathered` brings together.
    """

    still: tuple[str, ...] = ()
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

    def compile_for(self, x: UInt8[Tensor, "b 3 h w"], scales: Iterable[float], *, graphs: bool = True) -> str:
        """Compiles the network for batches like `x` at all `scales`, on a GPU as CUDA `graphs` of its own.

        Returns why that could not be done, in which case the network is called as it is, or "". Weights and statistics
        are left as they were.
        """
        network, device = self.network.train(), self.counts.device
        kept = {name: value.clone() for name, value in network.state_dict().items()}
        x = x.to(device).contiguous(memory_format=torch.channels_last)
        try:
            if device.type == "cpu" and sys.platform == "linux":
                # A compiled step asks for all its memory at once, and glibc would fetch it from the system each time.
                for option, value in ((-3, 1 << 30), (-1, 2**31 - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
                    getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)(option, value)
            torch.compiler.reset()  # eight versions of a network are built and no more, those of earlier runs counted
            mode = "reduce-overhead" if graphs and device.type == "cuda" else None
            self.compiled, self.full_batch = torch.compile(network.forward, dynamic=False, mode=mode), len(x)
            for scale in sorted(scales):  # both passes once: what cannot be built shows here
                outputs = self.outputs(resize(x, scale))
                logits = [f.sum() for f in (*outputs.v_logits, outputs.z_logits, outputs.go_on) if f is not None]
                torch.stack(logits).sum().backward()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # compilers fail in many ways
            self.compiled = None
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            half = ".so: file too short" in said or ".so: invalid ELF header" in said  # a compiler was ended
            return said + ("; that file was left half-written: delete it" if half else "")
        finally:
            network.zero_grad(set_to_none=True)
            network.load_state_dict(kept)
        return ""

    def forward(self, batch: Batch, loss: Loss, progress: float) -> Float[Tensor, ""]:
        """`loss(outputs, targets, counts=..., progress=...)` of one batch; `progress` is the stage's, in [0, 1).

        Of mixed images it is the mean of the losses for both labels, by their shares. Of a batch that is spread over
        processes it is the loss of all its images.
        """
        outputs, more = gathered(self.outputs(batch.x)), {"counts": self.counts, "progress": progress}
        nats = loss(outputs, gathered(batch.y), **more)
        if batch.mixed is None:
            return nats
        return torch.lerp(loss(outputs, gathered(batch.mixed.y), **more), nats, batch.mixed.share)
