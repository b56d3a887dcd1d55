"""A trained network as one file for other programs: ONNX, or PyTorch's exported program; checked as it is written."""

import copy
import io
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mbib_core.extras import extra
from mbib_core.files import write_atomically
from mbib_core.networks import default_prediction, predictions
from mbib_core.results import version_of_code
from mbib_core.serving import log_shift
from mbib_core.settings import run_id
from mbib_core.weights import Saved

TOLERANCE = 1e-4  # how far a probability may be from PyTorch's
CHECKED = 1, 2, 7  # images at a time


class Exported(NamedTuple):
    """The file, its bytes, and the largest difference of a probability from PyTorch's."""

    file: Path
    size: int
    difference: float


class Answering(nn.Module):
    """From uint8 images [B, 3, H, W] to the probabilities [B, C] that `mbib predict` gives: all that is needed to serve
    a network. `shift` [C] is added to the logits (`serving.log_shift`)."""

    shift: Tensor

    def __init__(self, network: nn.Module, shift: Float[Tensor, " c"]):
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
        for module in self.network.modules():  # what a parameter is computed from is needed no more
            for name in list(getattr(module, "parametrizations", ())):
                parametrize.remove_parametrizations(module, name)
        self.register_buffer("shift", shift.float())

    def forward(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b c"]:
        found = predictions(self.network(images))
        return (found[default_prediction(found)].log_softmax(1) + self.shift).softmax(1)


def export_onnx(run: Saved, file: Path, *, prior: Sequence[float] | str | None = None) -> Exported:
    """Writes an ONNX model: `images`, uint8 [B, 3, H, W] for any B, in, and `probabilities` [B, C] out.

    H and W are those of the training. `prior` is as in `serving.predict`. The metadata have `classes` (JSON), `height`,
    `width`, `run_id`, `prior` and `version`. ONNX Runtime answers some images as PyTorch does, or nothing is written.
    Raises ImportError without onnx, onnxscript or onnxruntime; ValueError if the network cannot be exported, the
    answers differ by more than `TOLERANCE`, or `prior` needs counts that the weights lack; OSError with a sentence.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        runtime: Any = extra(package, "an ONNX file", install='"mbib-core[export]"')
    answering = Answering(run.network, _shift(run, prior))

    def converted(x: Tensor) -> bytes:
        program = torch.onnx.export(
            answering,
            (x,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
        assert program is not None
        program.model.metadata_props.update(about(run, prior))
        return program.model_proto.SerializeToString()

    content = _converted(converted, run)
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    [output] = session.get_outputs()
    return _checked(
        answering, run, file, content, lambda x: torch.from_numpy(session.run([output.name], {"images": x.numpy()})[0])
    )


def export_torch(run: Saved, file: Path, *, prior: Sequence[float] | str | None = None) -> Exported:
    """Writes what `torch.export.load(file).module()` reads: a network that takes and gives what `export_onnx` says.

    The metadata are in the extra file `mbib.json`. Raises as `export_onnx` does, but for ImportError.
    """
    answering = Answering(run.network, _shift(run, prior))

    def converted(x: Tensor) -> bytes:
        program = torch.export.export(answering, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        content = io.BytesIO()
        torch.export.save(program, content, extra_files={"mbib.json": json.dumps(about(run, prior))})
        return content.getvalue()

    content = _converted(converted, run)
    return _checked(answering, run, file, content, torch.export.load(io.BytesIO(content)).module())


def about(run: Saved, prior: Sequence[float] | str | None = None) -> dict[str, str]:
    """What a file says of the network in it."""
    height, width = run.size
    mix = "as learned" if prior is None else prior if isinstance(prior, str) else json.dumps(list(prior))
    words = {"classes": json.dumps(run.classes), "height": str(height), "width": str(width), "prior": mix}
    return words | {"run_id": run_id(run.settings), "version": version_of_code()}


def _shift(run: Saved, prior: Sequence[float] | str | None) -> Float[Tensor, " c"]:
    return torch.zeros(len(run.classes)) if prior is None else log_shift(run, prior)


def _images(run: Saved, n: int) -> UInt8[Tensor, "n 3 h w"]:
    random = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, 3, *run.size), dtype=torch.uint8, generator=random)


def _converted(convert: Callable[[Tensor], bytes], run: Saved) -> bytes:
    """Raises ValueError with the first line of what torch says if it cannot convert the network."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch about itself
            return convert(_images(run, 2))
    except Exception as error:  # exporters fail in many ways
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"torch {torch.__version__} cannot export the network of {run.settings.method}: {said}"
        ) from error


def _checked(
    answering: nn.Module, run: Saved, file: Path, content: bytes, other: Callable[[Tensor], Tensor]
) -> Exported:
    difference = 0.0
    with torch.inference_mode():
        for n in CHECKED:
            wanted, found = answering(_images(run, n)), other(_images(run, n))
            if not (wanted.isfinite().all() and found.shape == wanted.shape):
                raise ValueError(f"these weights give no finite answer to each image in a batch of {n}")
            difference = max(difference, float((found - wanted).abs().max()))
    if not difference <= TOLERANCE:
        raise ValueError(
            f"the exported network's probabilities differ from PyTorch's by {difference:.1g}, more than {TOLERANCE:g}: "
            f"{file} was not written; try another version of torch or of the runtime"
        )
    write_atomically(file, content)
    return Exported(file, len(content), difference)
