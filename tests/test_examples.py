"""The examples run, learn, and stay short; one whose library is not installed is skipped."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.models.resnet import BasicBlock, ResNet

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


@pytest.mark.slow
def test_the_afternoon_with_photographs_is_what_its_commands_do(tmp_path: Path) -> None:
    """On made-up photographs at 32 pixels, from the weights of a ResNet-10 that was never trained."""
    random, lines = torch.Generator().manual_seed(0), ["path,label"]
    (tmp_path / "new").mkdir()
    for number in range(60):
        label = min(number.bit_length(), 5)  # 1 to 29 images a class
        pixels = torch.randint(40 * label, 40 * label + 50, (40, 60, 3), dtype=torch.uint8, generator=random)
        Image.fromarray(pixels.numpy()).save(tmp_path / "new" / f"{number}.jpg")
        lines.append(f"new/{number}.jpg,{('ant', 'bee', 'cat', 'dog', 'elk', 'fox')[label]}")
    (tmp_path / "photos.csv").write_text("\n".join(lines))
    torch.save(ResNet(BasicBlock, [1, 1, 1, 1]).state_dict(), tmp_path / "weights.pth")
    small = "--backbone resnet10 --pretrained weights.pth --size 32 --epochs 1 --batch 16 --workers 0"
    commands = re.findall(r"^mbib .*", (EXAMPLES / "photographs.md").read_text(), re.M)
    assert [line.split()[1] for line in commands] == [
        "check",
        "train",
        "train",
        "table",
        "predict",
        "evaluate",
        "export",
    ]
    shown = {}
    for line in commands:
        if "--onnx" in line and importlib.util.find_spec("onnxscript") is None:
            continue
        words = line.replace("--pretrained default", small).replace("runs/NAME", "runs/*mbib*").split()[1:]
        words = [str(*tmp_path.glob(word)) if "*" in word else word for word in words]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES.parent)}
        done = subprocess.run(
            [sys.executable, "-m", "mbib_core.cli", *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}: {done.stderr[-2000:]}"
        shown[words[0]] = done.stdout + done.stderr
    assert "41 in all; 9 for validation, 10 for the test" in shown["check"]
    assert all(method in shown["table"] for method in ("bsce", "mbib"))
    assert len(re.findall(r"^\S*\d+\.jpg,", shown["predict"], re.M)) == 60
    assert "mean over classes" in shown["evaluate"]
