"""Several processes that train as one: the same losses as one process alone, and what happens when one of them ends.

Processes start slowly, so there are few of them, whose work is shared by all tests: two pairs of which one process ends
or says nothing, and one that trains every row and resumes what the others left.

`python tests/test_ranks.py ...` is what the processes run.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from conftest import coloured
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torchvision.utils import save_image

from mbib_core import cli, ranks, trainer
from mbib_core.data import LongTailed, load
from mbib_core.devices import readers
from mbib_core.losses import balanced_softmax
from mbib_core.methods import METHODS
from mbib_core.ranks import gathered, own, spread
from mbib_core.settings import Settings
from mbib_core.trainer import train

TINY = Settings(data="coloured", schedule="glyphs", epochs=2, batch=9, rate=0.005, precision="float32", threads=1)
# One of each kind of learner, and losses that look at a batch as a whole. Batches of 9 and 7 give the processes 5 and
# 4, 4 and 3 images; of 34 images in batches of 8 two are left, which both processes take.
ROWS = {
    **{name: replace(TINY, method=name) for name in ("lade", "sade", "crt", "bbn", "dive", "sam", "cc-sam", "glmc")},
    **{name: replace(TINY, method=name) for name in ("paco", "kcl", "vib", "nib", "srepr")},
    "mbib": replace(TINY, method="mbib", batch=8, own={"k": 0.7}),
    "bib": replace(TINY, method="bib", own={"k": 0.7}, augmentation="mixup", average="ema"),
}
TOGETHER = "mbib", "crt"  # with batch norm of the whole batch; that of the others stands still, which is faster
OWN_SHARE = replace(TINY, method="mbib", seed=1, rate=0.05)
WORDS = (
    "train mbib --schedule glyphs --epochs 2 --batch 9 --rate 0.05 --seed 1 --precision float32 --device cpu --quiet"
)


class Double(TorchFunctionMode):
    """Networks pool in float32; within this in the precision that they are given."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kept = {name: v for name, v in (kwargs or {}).items() if (name, v) != ("dtype", torch.float32)}
        return function(*args, **(kept if function is torch.Tensor.mean else kwargs or {}))


def in_memory() -> LongTailed:
    return coloured([22, 9, 3])


def write_list(folder: Path) -> None:
    """The images of these tests as files, and lists of them."""
    for part, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        lines = []
        for number, (x, y) in enumerate(zip(*getattr(in_memory(), part), strict=True)):
            save_image(x / 255, folder / f"{part}{number}.png")
            lines.append(f"{part}{number}.png {y}")
        (folder / f"{name}.txt").write_text("\n".join(lines))


def losses_of_files(folder: Path, workers: int) -> list[float]:
    """Of images that are read while training, by so many processes, in float64."""
    data = load(f"list:{folder}", size=8)
    with readers(workers):
        return losses_in_float64(replace(ROWS["mbib"], data=data.name, size=8), data)


def losses_in_float64(settings: Settings, data: LongTailed | None = None) -> list[float]:
    """In float32 rounding grows by a factor of a thousand within two epochs, which could hide a fault."""
    moving = settings.method in TOGETHER
    optimizer_for = trainer.optimizer_for

    def doubled(learner: Any, *given: Any) -> Any:
        return optimizer_for(learner.double(), *given)  # in each stage: the counts, which are whole numbers, stay

    with pytest.MonkeyPatch.context() as patch, Double():
        patch.setattr(trainer, "optimizer_for", doubled)
        if not moving:
            patch.setattr(_BatchNorm, "train", lambda norm, mode=True: nn.Module.train(norm, False))
        found = train(settings, data or in_memory(), device="cpu", progress=False, sync_bn=moving)
    return found.history["loss"]


def work(out: Path) -> None:
    """What both processes do for the comparisons; then they resume what was cut."""
    distributed.init_process_group("gloo")
    found = {name: losses_in_float64(settings) for name, settings in ROWS.items()}
    found |= {f"files, {workers} workers": losses_of_files(out, workers) for workers in (0, 2)}
    found["own share"] = train(OWN_SHARE, in_memory(), device="cpu", progress=False).history["loss"]
    data = load(f"list:{out}", size=8)
    found["own share, files"] = train(
        replace(OWN_SHARE, data=data.name, size=8), data, device="cpu", progress=False
    ).history["loss"]
    (out / f"{distributed.get_rank()}.json").write_text(json.dumps(found))
    assert command(words(out, "sleeps"), "") == command(words(out, "ends", workers=0), "") == 0
    distributed.destroy_process_group()


def words(out: Path, ends: str, workers: int = 2) -> list[str]:
    """The command of the pair of which a process `ends`, on images that are read, or says nothing, on others."""
    data = (
        ["--data", f"list:{out}", "--size", "8", "--workers", str(workers)]
        if ends == "ends"
        else ["--data", "coloured"]
    )
    folders = ["--out", str(out / ends / "runs"), "--checkpoints", str(out / ends)]
    return [*WORDS.split(), *data, "--threads", "1", "--no-report", *folders]


def command(words: list[str], ends: str) -> int:
    """`mbib train` on the images of these tests; the second process `ends` in the second epoch, or says nothing."""
    from mbib_core import runs

    runs.load = lambda name, **more: load(name, **more) if name.startswith("list:") else in_memory()
    draw, drawn = trainer.draw, []

    def failing(*given: Any, **more: Any) -> Any:
        drawn.append(more["epoch"])
        if ends and os.environ["RANK"] == "1" and len(drawn) == 2:
            os._exit(9) if ends == "ends" else time.sleep(280)
        return draw(*given, **more)

    trainer.draw = failing
    return cli.main(words)


def processes(*words: str) -> list[subprocess.Popen]:
    """Two of this file, as `torchrun` would start them; nobody stops one when the other ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, __file__, *words],
            env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def ended(started: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """The exit status and the messages of both."""
    try:
        return [(p.returncode, messages) for p in started for _, messages in [p.communicate(timeout=280)]]
    finally:
        for process in started:
            process.kill()


class OfTwo(NamedTuple):
    """What pairs of processes left: losses by row; the exit status and messages of those of which one was killed or
    said nothing, and how many epochs they had kept; and the folder."""

    losses: dict[str, list[float]]
    killed: list[tuple[int, str]]
    silent: tuple[int, str]
    kept: list[int]
    out: Path


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> OfTwo:
    out = tmp_path_factory.mktemp("two")
    write_list(out)
    first, second = processes("sleeps", str(out))
    try:
        killed = ended(processes("ends", str(out)))  # at once, not after the ten minutes of a silent process
        _, messages = first.communicate(timeout=280)
        assert second.poll() is None, "it says nothing, and is there"
    finally:
        first.kill()
        second.kill()
    kept = []
    for folder in ("ends", "sleeps"):
        [checkpoint] = (out / folder).glob("*.pt")
        kept.append(len(torch.load(checkpoint, weights_only=True)["history"]["loss"]))
    for status, said in ended(processes("work", str(out))):
        assert status == 0, said[-3000:]
    losses, others = (json.loads((out / f"{rank}.json").read_text()) for rank in range(2))
    assert losses == others
    return OfTwo(losses, killed, (first.returncode, messages), kept, out)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", list(ROWS))
def test_two_processes_have_the_losses_of_one(name: str, of_two: OfTwo) -> None:
    alone = losses_in_float64(ROWS[name])
    assert len(alone) == len(of_two.losses[name]) >= 2
    assert of_two.losses[name] == pytest.approx(alone, rel=1e-9)


@pytest.mark.slow
def test_two_processes_that_read_files_have_the_losses_of_one_whoever_reads(of_two: OfTwo) -> None:
    alone = losses_of_files(of_two.out, 0)
    assert len(alone) == 2
    for workers in (0, 2):
        assert of_two.losses[f"files, {workers} workers"] == pytest.approx(alone, rel=1e-9)
    assert of_two.losses["files, 0 workers"] == of_two.losses["files, 2 workers"]
    assert alone != pytest.approx(of_two.losses["mbib"], rel=1e-3), "crops are others"


@pytest.mark.slow
def test_batch_norm_of_each_share_is_another_run_which_the_record_can_tell(of_two: OfTwo) -> None:
    alone = train(OWN_SHARE, in_memory(), device="cpu", progress=False).history["loss"]
    assert of_two.losses["own share"] != pytest.approx(alone, rel=1e-3)
    assert of_two.losses["own share"][0] == pytest.approx(alone[0], rel=0.5)


@pytest.mark.slow
@pytest.mark.fault("one of two processes is killed while both train")
def test_a_process_that_is_killed_ends_the_run(of_two: OfTwo, sentence: Callable[[str], None]) -> None:
    (status, messages), (killed, _) = of_two.killed
    assert (status, killed) == (2, 9)
    assert messages.count("mbib: another of the 2 processes has ended or did not answer for 10 minutes") == 1
    assert "the same command resumes there" in messages
    assert "Traceback" not in messages
    sentence(messages.strip())


@pytest.mark.slow
@pytest.mark.fault("one of two processes no longer answers")
def test_a_process_that_says_nothing_is_waited_for_no_longer_than_agreed(
    of_two: OfTwo, sentence: Callable[[str], None]
) -> None:
    status, messages = of_two.silent
    assert status == 2
    assert "did not answer" in messages
    sentence(messages.strip())


@pytest.mark.slow
@pytest.mark.parametrize(("cut", "losses"), [("ends", "own share, files"), ("sleeps", "own share")])
def test_a_run_of_two_processes_that_was_cut_resumes(cut: str, losses: str, of_two: OfTwo) -> None:
    """On files and in memory; the files were read by two processes each, and then by none."""
    assert of_two.kept == [1, 1], "the first epoch"
    [record] = [json.loads(file.read_text()) for file in (of_two.out / cut / "runs").glob("*.json")]
    assert record["machine"]["processes"] == 2
    assert record["machine"]["sync_bn"] is False
    assert record["test"]["pictures"] == 12, "each image once, whichever process classified it"
    assert record["history"]["loss"] == pytest.approx(of_two.losses[losses], rel=1e-4)
    assert not list((of_two.out / cut).glob("*.pt"))


# Without processes: those of a group play their parts one after the other


@cache
def model() -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(0)
    shapes = (7, 4), (4, 5), (5, 3)
    x, before, behind = (torch.randn(*shape, dtype=torch.float64, generator=random) for shape in shapes)
    return x, before, behind, torch.tensor([0, 1, 2, 0, 0, 1, 0]), torch.tensor([40, 9, 2])


def gradients(processes: int, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Of the parameters before and behind what is brought together, averaged over the processes."""
    x, *weights, y, counts = model()
    before, behind = (weight.clone().requires_grad_() for weight in weights)
    hidden = (x @ before).relu().detach()
    rows = -(-len(x) // processes)
    for rank in range(processes):
        monkeypatch.setattr(ranks, "ranks_here", lambda rank=rank: (rank, processes))
        with spread(len(x)):

            def everybodys(mine: Tensor) -> list[Tensor]:
                assert len(mine) == rows
                parts = [(hidden if mine.is_floating_point() else y)[r::processes] for r in range(processes)]
                return [torch.cat([part, part.new_zeros(rows - len(part), *part.shape[1:])]) for part in parts]

            monkeypatch.setattr(ranks, "_everybodys", everybodys)
            h, targets = gathered(((own(x) @ before).relu(), own(y)))
            assert torch.equal(targets, y)
            assert torch.equal(h, hidden), "in the order of the whole batch"
            loss = balanced_softmax(h @ behind, targets, counts=counts, k=0.7)
            (loss + h.logsumexp(0).sum()).div(processes).backward()
    return [before.grad, behind.grad]  # type: ignore[list-item]


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_gradients_that_are_averaged_are_those_of_the_whole_batch(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, *weights, y, counts = model()
    before, behind = (weight.clone().requires_grad_() for weight in weights)
    hidden = (x @ before).relu()
    (balanced_softmax(hidden @ behind, y, counts=counts, k=0.7) + hidden.logsumexp(0).sum()).backward()
    for found, wanted in zip(gradients(processes, monkeypatch), (before.grad, behind.grad), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_alone_nothing_is_brought_together_or_taken_apart() -> None:
    x = torch.randn(5, 2)
    assert gathered(x) is x
    assert own(x) is x
    torch.manual_seed(0)
    a = ranks.drawn(torch.randn_like, x)
    torch.manual_seed(0)
    assert torch.equal(a, torch.randn_like(x))


def test_every_kind_of_learner_is_compared() -> None:
    kinds = {METHODS[settings.method].learner for settings in ROWS.values()}
    others = {method.learner.__name__ for method in METHODS.values()} - {kind.__name__ for kind in kinds}
    # The first only adds to a queue what the second does; the other turns each process's rows by all four quarters.
    assert others == {"Targeted", "Turning"}


if __name__ == "__main__":
    kind, folder = sys.argv[1], Path(sys.argv[2])
    if kind == "work":
        work(folder)
    else:
        if kind == "sleeps":
            ranks.PATIENCE = ranks.timedelta(seconds=30)
        sys.exit(command(words(folder, kind), kind))
