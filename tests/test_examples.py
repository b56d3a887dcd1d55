"""The examples run, learn, and stay short; one whose library is not installed is skipped."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def output_of(*words: str, needs: tuple[str, ...] = ()) -> str:
    if missing := [name for name in needs if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{missing[0]} is not installed: pip install '.[examples]'")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        [sys.executable, *words], cwd=EXAMPLES, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "needs"),
    [
        ("lightning_module.py", ("lightning",)),
        ("hf_trainer.py", ("transformers", "accelerate")),
        ("timm_model.py", ("timm",)),
    ],
)
def test_a_loss_in_the_loop_of_another_library_raises_the_accuracy(file: str, needs: tuple[str, ...]) -> None:
    shown = output_of(file, needs=needs)
    found = re.findall(r"^(\w+) +([\d.]+) % of test images right before, +([\d.]+) % after$", shown, re.M)
    assert [shot for shot, _, _ in found] == ["all", "many", "medium", "few"]
    before, after = ([float(row[column]) for row in found] for column in (1, 2))
    assert before[0] < 6, "chance is 2.5"
    assert after[0] > before[0] + 1
    assert after[1] > before[1] + 10, "many-shot classes come first"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["amp_compile.py", "2", "aot_eager"], [*TORCHRUN, "ddp.py", "2"]])
def test_a_loop_of_torch_alone_lowers_the_loss(words: list[str]) -> None:
    shown = output_of(*words)
    losses = [float(loss) for loss in re.findall(r"^epoch \d: the loss is ([\d.]+)$", shown, re.M)]
    assert len(losses) == 2
    assert losses[1] < 0.95 * losses[0]
    assert re.search(r"^all [\d.]+ %, many [\d.]+ %, medium [\d.]+ %, few [\d.]+ %$", shown, re.M)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.name)
def test_an_example_is_short_and_in_the_index(file: Path) -> None:
    assert f"]({file.name})" in (EXAMPLES / "README.md").read_text()
    assert len(file.read_text().splitlines()) <= 60 or file.name == "pretrained.py", "which fetches and keeps weights"


def test_the_index_names_no_example_that_is_not_there() -> None:
    named = re.findall(r"\]\((\w+\.py)\)", (EXAMPLES / "README.md").read_text())
    assert sorted(named) == sorted(file.name for file in EXAMPLES.glob("*.py"))
