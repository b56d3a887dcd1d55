"""Steps that are captured and replayed: the numbers are those of the plain steps, and what cannot be captured says so.

Without a GPU a `Tape` stands in for a CUDA graph: it writes down the operations of a step on their tensors, and plays
them again on the same tensors. A number that a step took from Python would be as frozen on it as in a graph.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextlib import nullcontext as nothing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK, coloured
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mbib_core import steps, trainer
from mbib_core.data import LongTailed
from mbib_core.learners import Learner
from mbib_core.methods import METHODS, Method, Stage
from mbib_core.methods.method import on_v
from mbib_core.networks import Network
from mbib_core.runs import record_of
from mbib_core.schedules import SCHEDULES, OneCycle, Schedule
from mbib_core.settings import Settings
from mbib_core.steps import WARM_UP
from mbib_core.trainer import Trained, train

TINY = Settings(data="coloured", method="mbib", schedule="tiny", precision="float32", threads=1)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


class Tape(TorchDispatchMode):
    """The operations of a piece of work; to `play` them is to do the work once more."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = operation(*args, **(kwargs or {}))
        self.operations.append((operation, args, kwargs or {}, found))
        return found

    @torch.no_grad()
    def play(self) -> None:
        for operation, args, kwargs, found in self.operations:
            given = {one.untyped_storage().data_ptr() for one in tensors((args, kwargs))}
            for old, new in zip(tensors(found), tensors(operation(*args, **kwargs)), strict=True):
                if old.untyped_storage().data_ptr() not in given:  # a view, or what was written in place, is there
                    old.copy_(new)


def tensors(values: Any) -> list[Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, Tensor)]


class Recorder:
    """Captures on a `Tape`; `log` says what was done, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def try_out(self, work: Callable[[], None]) -> bool:
        self.log.append("tried")
        work()
        return False

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.log.append("captured")
        tape, done = Tape(), []

        def replay() -> None:
            self.log.append("replayed")
            if done:
                return tape.play()
            with tape:  # the first time: a graph that is captured has not done its work yet
                work()
            done.append(True)

        return replay


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(trainer, "graph_on", lambda _device: made)
    return made


def quietly(settings: Settings, data: LongTailed, **more: Any) -> Trained:
    return train(settings, data, device="cpu", progress=False, **more)


def plainly(settings: Settings, data: LongTailed, **more: Any) -> Trained:
    return quietly(settings, data, captured=False, **more)


def same_bits(one: Trained, other: Trained) -> bool:
    a, b = one.network.state_dict(), other.network.state_dict()
    return one.history == other.history and list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


# The same numbers


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=[] if name in ("mbib", "crt", "ldam-drw", "sam") else pytest.mark.slow)
        for name, row in METHODS.items()
        if not row.parts.picture and name not in ("tsc", "rbl")  # these look at values, and no graph is made of them
    ],
)
def test_replayed_steps_end_in_the_bits_of_plain_ones(
    method: str, tiny_data: LongTailed, tiny_schedule: Schedule, recorder: Recorder
) -> None:
    settings = replace(TINY, method=method, epochs=5)
    found = quietly(settings, tiny_data)
    assert found.captured
    assert recorder.log.count("replayed") > recorder.log.count("captured") > 0
    assert same_bits(found, plainly(settings, tiny_data))


@pytest.mark.parametrize(
    "more",
    [
        {"augmentation": "cutout"},
        {"augmentation": "mixup"},
        {"augmentation": "cutmix"},
        {"augmentation": "remix"},
        {"augmentation": "none"},
        {"average": "ema"},
        {"average": "swa"},
        {"precision": "bfloat16"},
        {"method": "sade", "rate": 0.03},
    ],
    ids=lambda more: " ".join(map(str, more.values())),
)
def test_whatever_a_step_is_made_with_is_replayed_too(
    more: dict[str, Any], tiny_data: LongTailed, tiny_schedule: Schedule, recorder: Recorder
) -> None:
    settings = replace(TINY, **{"method": "bsce", **more})
    assert same_bits(quietly(settings, tiny_data), plainly(settings, tiny_data))
    assert "replayed" in recorder.log


@pytest.mark.parametrize("counts", [[22, 9, 3], [20, 9, 4], [20, 9, 3]], ids=["two left", "one left", "none left"])
def test_the_last_batch_is_a_step_of_its_own_unless_one_image_would_be_alone(
    counts: list[int], tiny_schedule: Schedule, recorder: Recorder
) -> None:
    data = coloured(counts)
    assert same_bits(quietly(TINY, data), plainly(TINY, data))
    assert recorder.log == ["tried"] * WARM_UP + ["captured"] + ["replayed"] * (3 * 4 - WARM_UP)


def test_growing_pictures_have_a_graph_for_each_size(
    tiny_data: LongTailed, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCHEDULES, "tiny", OneCycle(depth=8, epochs=5, batch=8))
    assert same_bits(quietly(TINY, tiny_data), plainly(TINY, tiny_data))
    assert recorder.log.count("captured") == 3
    assert recorder.log.count("tried") == 3 * WARM_UP


@pytest.mark.parametrize(("method", "captures"), [("bsce", 1), ("ldam-drw", 6), ("bbn", 6), ("ce-drs", 1), ("crt", 2)])
def test_a_loss_that_follows_the_progress_is_captured_anew_in_every_epoch(
    method: str, captures: int, tiny_data: LongTailed, tiny_schedule: Schedule, recorder: Recorder
) -> None:
    quietly(replace(TINY, method=method, epochs=6), tiny_data)
    assert recorder.log.count("captured") == captures


def test_a_trunk_that_starts_frozen_is_captured_anew_when_it_moves(
    tiny_data: LongTailed, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCHEDULES, "tiny", Schedule(depth=8, epochs=4, batch=8, frozen=0.5))
    monkeypatch.setattr("mbib_core.methods._check_trunk", lambda *_: None)  # which wants pretrained weights
    found = quietly(TINY, tiny_data)
    assert recorder.log.count("captured") == 2
    assert recorder.log.count("tried") == 2 * WARM_UP
    assert same_bits(found, plainly(TINY, tiny_data))


def test_a_loss_without_a_signature_that_tells_is_captured_anew_too(
    tiny_data: LongTailed, tiny_schedule: Schedule, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(outputs: Any, targets: Tensor, *, progress: float, **_: Any) -> Tensor:
        return (1 + progress) * torch.nn.functional.cross_entropy(outputs.v_logits[-1], targets)

    monkeypatch.setitem(METHODS, "own", Method("own", (Stage(loss),), Network(with_z=False)))
    assert same_bits(quietly(replace(TINY, method="own"), tiny_data), plainly(replace(TINY, method="own"), tiny_data))
    assert recorder.log.count("captured") == 3


@contextmanager
def cut_in_epoch_4(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it a run must be stopped by Ctrl-C before its fourth epoch."""
    drawn = trainer.draw

    def cut(*given: Any, epoch: int, **more: Any) -> Any:
        if epoch == 3:
            raise KeyboardInterrupt
        return drawn(*given, epoch=epoch, **more)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "draw", cut)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_a_run_that_was_cut_in_captured_epochs_goes_on_to_the_same_bits(
    tiny_data: LongTailed, tiny_schedule: Schedule, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, checkpoint = replace(TINY, method="ldam-drw", epochs=6), tmp_path / "run.pt"
    with cut_in_epoch_4(monkeypatch):
        quietly(settings, tiny_data, checkpoint=checkpoint)
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["captured"] is True
    assert [type(group["lr"]) for group in saved["optimizer"]["param_groups"]] == [float]
    assert same_bits(quietly(settings, tiny_data, checkpoint=checkpoint), plainly(settings, tiny_data))


def test_a_captured_run_may_go_on_uncaptured_and_the_record_says_that_it_was_captured(
    tiny_data: LongTailed, tiny_schedule: Schedule, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "run.pt"
    whole = quietly(TINY, tiny_data)
    monkeypatch.setattr(steps.Captured, "epoch", lambda *_, real=steps.Captured.epoch, **__: stop(real, *_, **__))

    def stop(real: Any, self: Any, *given: Any, progress: float, **more: Any) -> Any:
        if progress > 0.5:
            raise KeyboardInterrupt
        return real(self, *given, progress=progress, **more)

    with pytest.raises(KeyboardInterrupt):
        quietly(TINY, tiny_data, checkpoint=checkpoint)
    found = plainly(TINY, tiny_data, checkpoint=checkpoint)
    assert same_bits(found, whole)
    assert record_of(found, tiny_data, "")["machine"]["captured"] is True
    assert record_of(plainly(TINY, tiny_data), tiny_data, "")["machine"]["captured"] is False


def test_a_loss_that_is_no_number_is_reported_with_its_step(
    tiny_data: LongTailed, tiny_schedule: Schedule, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(logits: Tensor, targets: Tensor) -> Tensor:  # infinite for the rarest class
        return torch.where((targets == 2).any(), torch.inf, 1.0) * torch.nn.functional.cross_entropy(logits, targets)

    monkeypatch.setitem(METHODS, "own", Method("own", (Stage(on_v(loss)),), Network(with_z=False)))
    said = []
    for run in (quietly, plainly):
        with pytest.raises(FloatingPointError) as caught:
            run(replace(TINY, method="own"), tiny_data)
        said.append(str(caught.value))
    assert said[0] == said[1]


# What is not captured


def test_on_a_cpu_nothing_is_captured(tiny_data: LongTailed, tiny_schedule: Schedule) -> None:
    assert steps.graph_on(torch.device("cpu")) is None
    assert not quietly(replace(TINY, epochs=1), tiny_data).captured


def test_fewer_pictures_than_a_batch_leave_nothing_to_capture(tiny_schedule: Schedule, recorder: Recorder) -> None:
    assert not quietly(replace(TINY, epochs=1), coloured([3, 2])).captured
    assert recorder.log == []


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"precision": "float16"}, "in float16 the gradients must be checked for overflow"),
        ({"augmentation": "randaugment"}, "randaugment sorts the images of a batch by operation on the CPU"),
    ],
)
def test_what_cannot_be_captured_is_told_once_and_trained_as_it_is(
    more: dict[str, Any], sentence: str, tiny_data: LongTailed, tiny_schedule: Schedule, recorder: Recorder
) -> None:
    settings = replace(TINY, **more)
    with pytest.warns(UserWarning, match=f"steps run without a CUDA graph, which is slower: {sentence}") as heard:
        found = quietly(settings, tiny_data)
    assert len(heard) == 1
    assert not found.captured
    assert recorder.log == []
    assert same_bits(found, plainly(settings, tiny_data))


def test_several_processes_and_streamed_images_are_not_captured() -> None:
    assert "wait for each other" in steps.obstacle(None, precision="float32", ranks=2, policy="")
    assert "read from files" in steps.obstacle(object(), precision="float32", ranks=1, policy="")


@pytest.mark.parametrize("where", ["in the first graph", "in a later one"])
@pytest.mark.fault("a step that CUDA cannot capture, {where}")
def test_a_capture_that_fails_is_told_once_and_the_run_ends_in_the_bits_of_plain_steps(
    where: str,
    tiny_data: LongTailed,
    tiny_schedule: Schedule,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    sentence: Callable[[str], None],
) -> None:
    capture, settings = recorder.capture, replace(TINY, method="ldam-drw")

    def fail(work: Callable[[], None]) -> Callable[[], None]:
        if where == "in a later one" and "captured" not in recorder.log:
            return capture(work)
        raise RuntimeError("operation not permitted when stream is capturing\nand a long trace")

    monkeypatch.setattr(recorder, "capture", fail)
    with pytest.warns(UserWarning, match="slower: operation not permitted when stream is capturing$") as heard:
        found = quietly(settings, tiny_data)
    assert len(heard) == 1
    sentence(str(heard[0].message))
    assert found.captured is (where == "in a later one")
    assert same_bits(found, plainly(settings, tiny_data))


@pytest.mark.fault("a step that waits for the GPU")
def test_a_step_that_waits_for_the_gpu_is_never_captured(
    tiny_data: LongTailed,
    tiny_schedule: Schedule,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    sentence: Callable[[str], None],
) -> None:
    monkeypatch.setattr(recorder, "try_out", lambda work: work() is None)
    with pytest.warns(UserWarning, match="slower: it waits for the GPU in the middle of a step$") as heard:
        found = quietly(TINY, tiny_data)
    sentence(str(heard[0].message))
    assert "captured" not in recorder.log
    assert same_bits(found, plainly(TINY, tiny_data))


@pytest.mark.fault("no memory for a graph")
def test_a_graph_that_does_not_fit_into_the_memory_is_an_error_and_no_reason_to_go_slower(
    tiny_data: LongTailed, tiny_schedule: Schedule, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_work: Callable[[], None]) -> Callable[[], None]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(recorder, "capture", full)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        quietly(TINY, tiny_data)


def test_compiled_passes_that_are_captured_have_no_graphs_of_their_own(
    tiny_data: LongTailed, tiny_schedule: Schedule, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(Learner, "compile_for", lambda *_, graphs: (asked.append(graphs), "")[1])
    quietly(replace(TINY, epochs=1), tiny_data, compiled=True)
    plainly(replace(TINY, epochs=1), tiny_data, compiled=True)
    assert asked == [False, True]


# On a GPU


def on_gpu(settings: Settings, data: LongTailed, **more: Any) -> Trained:
    """With algorithms of cuDNN that add up in one order."""
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False, deterministic=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "full_float32", lambda: exact)
        return train(settings, data, device="cuda", progress=False, **more)


@gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", [*QUICK, "ldam-drw", "sam", "glmc", "paco"])
def test_fifty_steps_on_a_gpu_have_the_losses_of_plain_ones(
    method: str, precision: str, tiny_schedule: Schedule
) -> None:
    data = coloured([40, 30, 20])  # eleven whole batches and one of two
    settings = replace(TINY, method=method, precision=precision, epochs=5, rate=0.01)
    found, plain = on_gpu(settings, data), on_gpu(settings, data, captured=False)
    assert found.captured
    assert not plain.captured
    close = {"float32": 1e-3, "bfloat16": 3e-2}[precision]
    assert found.history["loss"] == pytest.approx(plain.history["loss"], rel=close)
    for name, value in found.network.state_dict().items():
        other = plain.network.state_dict()[name]
        torch.testing.assert_close(value, other, rtol=10 * close, atol=10 * close)


@gpu
def test_a_step_on_a_gpu_is_one_launch(tiny_schedule: Schedule, monkeypatch: pytest.MonkeyPatch) -> None:
    launched, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (launched.append(graph), replay(graph))[1])
    on_gpu(replace(TINY, epochs=4), coloured([40, 30, 20]))
    assert len(launched) == 4 * 11 - WARM_UP
    assert len(set(map(id, launched))) == 1


@gpu
@pytest.mark.parametrize("method", ["bsce", "ldam-drw", "vib"])
def test_a_run_that_was_cut_on_a_gpu_goes_on_to_the_same_numbers(
    method: str, tiny_schedule: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = coloured([40, 30, 20]), replace(TINY, method=method, epochs=5, rate=0.01)
    checkpoint, whole = tmp_path / "run.pt", on_gpu(settings, data)
    with cut_in_epoch_4(monkeypatch):
        on_gpu(settings, data, checkpoint=checkpoint)
    found = on_gpu(settings, data, checkpoint=checkpoint)
    assert found.history["loss"] == pytest.approx(whole.history["loss"], rel=1e-3)


@gpu
@pytest.mark.parametrize("method", ["tsc", "rbl"])
def test_a_step_that_looks_at_a_value_on_a_gpu_is_told_and_trained_as_it_is(
    method: str, tiny_schedule: Schedule
) -> None:
    with pytest.warns(UserWarning, match="steps run without a CUDA graph"):
        found = on_gpu(replace(TINY, method=method, epochs=2), coloured([40, 30, 20]))
    assert len(found.history["loss"]) >= 2


@gpu
@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if not row.parts.picture])
def test_every_row_trains_on_a_gpu_whether_captured_or_not(method: str, tiny_schedule: Schedule) -> None:
    settings, data = replace(TINY, method=method, epochs=3, rate=0.01), coloured([40, 30, 20])
    with pytest.warns() if method in ("tsc", "rbl") else nothing():
        found = on_gpu(settings, data)
    assert found.history["loss"] == pytest.approx(on_gpu(settings, data, captured=False).history["loss"], rel=1e-2)
