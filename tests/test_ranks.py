"""Several processes that train as one: the same losses as one process alone, and what happens when one of them ends.

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
from typing import Any

import pytest
import torch
from conftest import coloured
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from mbib_core import cli, ranks, trainer
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
WORDS = "train mbib --data coloured --schedule glyphs --epochs 2 --batch 9 --rate 0.05 --seed 1 --precision float32"


class Double(TorchFunctionMode):
    """Networks pool in float32; within this in the precision that they are given."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kept = {name: v for name, v in (kwargs or {}).items() if (name, v) != ("dtype", torch.float32)}
        return function(*args, **(kept if function is torch.Tensor.mean else kwargs or {}))


def losses_in_float64(settings: Settings) -> list[float]:
    """In float32 rounding grows by a factor of a thousand within two epochs, which could hide a fault."""
    moving = settings.method in TOGETHER
    optimizer_for = trainer.optimizer_for

    def doubled(learner: Any, *given: Any) -> Any:
        return optimizer_for(learner.double(), *given)  # in each stage: the counts, which are whole numbers, stay

    with pytest.MonkeyPatch.context() as patch, Double():
        patch.setattr(trainer, "optimizer_for", doubled)
        if not moving:
            patch.setattr(_BatchNorm, "train", lambda norm, mode=True: nn.Module.train(norm, False))
        return train(settings, coloured([22, 9, 3]), device="cpu", progress=False, sync_bn=moving).history["loss"]


def work(out: Path) -> None:
    """What both processes do for the comparisons."""
    distributed.init_process_group("gloo")
    found = {name: losses_in_float64(settings) for name, settings in ROWS.items()}
    found["own share"] = train(OWN_SHARE, coloured([22, 9, 3]), device="cpu", progress=False).history["loss"]
    (out / f"{distributed.get_rank()}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def command(words: list[str], ends: str) -> int:
    """`mbib train` on the images of these tests; the second process `ends` in the second epoch, or says nothing."""
    from mbib_core import runs

    runs.load = lambda *_given, **_more: coloured([22, 9, 3])
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


def ended(*words: str) -> list[tuple[int, str]]:
    """The exit status and the messages of both."""
    started = processes(*words)
    try:
        return [(p.returncode, messages) for p in started for _, messages in [p.communicate(timeout=250)]]
    finally:
        for process in started:
            process.kill()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    out = tmp_path_factory.mktemp("two")
    for status, messages in ended("work", str(out)):
        assert status == 0, messages[-3000:]
    first, second = (json.loads((out / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    return first


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ROWS))
def test_two_processes_have_the_losses_of_one(name: str, of_two: dict[str, list[float]]) -> None:
    alone = losses_in_float64(ROWS[name])
    assert len(alone) == len(of_two[name]) >= 2
    assert of_two[name] == pytest.approx(alone, rel=1e-9)


@pytest.mark.slow
def test_batch_norm_of_each_share_is_another_run_which_the_record_can_tell(of_two: dict[str, list[float]]) -> None:
    alone = train(OWN_SHARE, coloured([22, 9, 3]), device="cpu", progress=False).history["loss"]
    assert of_two["own share"] != pytest.approx(alone, rel=1e-3)
    assert of_two["own share"][0] == pytest.approx(alone[0], rel=0.5)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.fault("one of two processes is killed while both train")
def test_a_process_that_is_killed_ends_the_run_which_resumes(
    tmp_path: Path, of_two: dict[str, list[float]], sentence: Callable[[str], None]
) -> None:
    folders = ["--out", str(tmp_path / "runs"), "--checkpoints", str(tmp_path)]
    words = [*WORDS.split(), "--device", "cpu", "--threads", "1", "--quiet", "--no-report", *folders]
    (status, messages), (killed, _) = ended("ends", *words)  # at once, not after the ten minutes of a silent process
    assert (status, killed) == (2, 9)
    assert messages.count("mbib: another of the 2 processes has ended or did not answer for 10 minutes") == 1
    assert "the same command resumes there" in messages
    assert "Traceback" not in messages
    sentence(messages.strip())
    [checkpoint] = tmp_path.glob("*.pt")
    assert len(torch.load(checkpoint, weights_only=True)["history"]["loss"]) == 1
    for status, messages in ended("", *words):
        assert status == 0, messages[-3000:]
    [record] = [json.loads(file.read_text()) for file in (tmp_path / "runs").glob("*.json")]
    assert record["machine"]["processes"] == 2
    assert record["machine"]["sync_bn"] is False
    assert record["test"]["pictures"] == 12, "each image once, whichever process classified it"
    assert record["history"]["loss"] == pytest.approx(of_two["own share"], rel=1e-4)
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.slow
@pytest.mark.fault("one of two processes no longer answers")
def test_a_process_that_says_nothing_is_waited_for_no_longer_than_agreed(
    tmp_path: Path, sentence: Callable[[str], None]
) -> None:
    folders = ["--out", str(tmp_path / "runs"), "--checkpoints", str(tmp_path)]
    words = [*WORDS.split(), "--device", "cpu", "--quiet", "--no-report", *folders]
    first, second = processes("sleeps", *words)
    try:
        _, messages = first.communicate(timeout=240)
        assert "did not answer" in messages
        sentence(messages.strip())
        assert first.returncode == 2
        assert second.poll() is None
    finally:
        second.kill()


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
    kind, *words = sys.argv[1:]
    if kind == "work":
        work(Path(words[0]))
    else:
        if kind == "sleeps":
            ranks.PATIENCE = ranks.timedelta(seconds=30)
        sys.exit(command(words, kind))
