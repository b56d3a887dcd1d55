"""The command line: as a process where that matters, else in this one; and a run from training to the table."""

import csv
import io
import json
import os
import pickle
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import coloured
from filelock import FileLock
from PIL import Image
from safetensors.torch import save_file

from mbib_core import cli, data, figures, options, runs, trainer
from mbib_core.augmentation import operation
from mbib_core.contrast import matched
from mbib_core.data.cifar import cifar100_lt
from mbib_core.methods import method_of, settle
from mbib_core.results import read_record
from mbib_core.schedules import OVERRIDES, SCHEDULES
from mbib_core.settings import Settings, command_line, run_id
from mbib_core.weights import read_weights

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
MBIB = Path(sys.executable).with_name("mbib")
EXTRA = ("pandas", "matplotlib", "seaborn", "sklearn", "scipy", "torchvision")


def process(*words: str, **more: Any) -> subprocess.CompletedProcess:
    return subprocess.run([MBIB, *words], env=ENVIRONMENT, capture_output=True, text=True, **more)


Said = tuple[int, str, str]
Say = Callable[..., Said]
Hear = Callable[[str], None]
Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture


@pytest.fixture
def mbib(capsys: Capture, tmp_path: Path, monkeypatch: Patch) -> Say:
    """Runs a command in this process, in an empty folder: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Said:
        capsys.readouterr()
        try:
            status = cli.main(list(words))
        except SystemExit as error:
            status = int(error.code or 0)
        return (status, *capsys.readouterr())

    return run


# Help


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["campaign", "--help"]])
def test_help_comes_at_once_without_torch(words: list[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = (
        "import sys\nfrom mbib_core.cli import main\n"
        f"try: main({words})\nfinally: print({{'torch', 'numpy', 'pandas', 'matplotlib'}} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert found.stdout.endswith("set()\n"), found.stdout + found.stderr
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 1, "processor time, which a busy machine does not stretch"


def test_the_installed_command_helps_and_refuses_other_words() -> None:
    found = process("--help")
    assert found.returncode == 0
    for part in ("train", "evaluate", "campaign", "table", "mbib train mbib"):
        assert part in found.stdout
    assert [process(*words).returncode for words in (["no-such-command"], [])] == [2, 2]
    assert process("--version").stdout == f"mbib {version('mbib-core')}\n"


@pytest.mark.slow
def test_pictures_are_drawn_with_libraries_that_are_imported_then() -> None:
    modules = "mbib_core.report, mbib_core.sliders, mbib_core.serving"
    code = f"import sys, {modules}; print({{'matplotlib', 'pandas'}} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == "set()\n", found.stdout + found.stderr


# Refusals


@pytest.mark.parametrize(("words", "wanted"), [
    ("train mbibb", "no method is called 'mbibb'; did you mean mbib"),
    ("train bcse", "no method is called 'bcse'; did you mean bsce"),
    ("train mbib --schedule glyph", "no schedule is called 'glyph'; did you mean glyphs"),
    ("train mbib --data cifar10", "no data set is called 'cifar10': there are glyphs-lt, cifar100-lt"),
    ("train mbib --epochs 0", "epochs is 0: it must be a whole number from 1"),
    ("train mbib --seed -1", "seed is -1: it must be a whole number from 0"),
    ("train mbib --seed 99999999999999999999", "seed is 99999999999999999999: it must be a whole number from 0"),
    ("train mbib --threads -1", "threads is -1: it must be a whole number from 0"),
    ("train mbib --beta -1", "beta is -1.0: it must be a finite number, 0 or larger"),
    ("train mbib --k nan", "k is nan: it must be a finite number"),
    ("train mbib --gamma inf", "gamma is inf: it must be a finite number"),
    ("train mbib --gamma 1e300", "float32 cannot hold the class temperatures; choose a smaller gamma"),
    ("train mbib --alphas 0.9 0.9", "sum to at most 1: they are proportions"),
    ("train mbib --alphas 0.1", "3 observations need 2 alphas, not 1"),
    ("train mbib --alphas", "3 observations need 2 alphas, not 0"),
    ("train mbib --taps 0", "taps is 0: it must be a whole number, 1 or larger"),
    ("train ce --beta 1", "ce has no beta: leave it out"),
    ("train mbib --precision half", "precision is 'half': it must be one of auto, float32, bfloat16, float16"),
    ("train mbib --head cosin", "head is 'cosin': it must be cosine"),
    ("train mbib --device gpu", "torch can use no device gpu here: leave --device out, or say cpu or cuda"),
    ("train mbib --imbalance 0.5", "imbalance"),
    ("train mbib --imbalance 1e9", "imbalance"),
    ("train mbib --imbalance nan", "imbalance"),
    ("evaluate none.safetensors", "there is no file none.safetensors; `mbib train` writes weights"),
    ("table none", "there is no folder none; `mbib train` writes records, into runs/ by default"),
    ("table", "there is no folder runs; `mbib train` writes records"),
    ("campaign none.toml", "there is no list none.toml; name the list of wanted runs"),
    ("campaign --processes 0", "processes and threads must be 1 or more"),
])  # fmt: skip
@pytest.mark.fault("mbib {words}")
def test_what_cannot_be_done_is_told_in_one_sentence(
    mbib: Say, tmp_path: Path, words: str, wanted: str, sentence: Hear
) -> None:
    status, out, err = mbib(*words.split())
    assert status == 2
    sentence(err)
    assert err.startswith("mbib: ")
    assert err.count("\n") == 1
    assert wanted in err
    assert out == ""
    assert os.listdir(tmp_path) == [], "nothing is left behind"


@pytest.mark.parametrize(("words", "hint"), [
    ("train mbib --epochs two", "argument --epochs: invalid int value: 'two'"),
    ("train", "required: method"),
    ("train ce --betta 1", "unrecognized arguments: --betta 1; did you mean --beta?"),
    ("train ce --devise=cpu", "unrecognized arguments: --devise=cpu; did you mean --device?"),
    ("train ce --output x", "unrecognized arguments: --output x; did you mean --out?"),
    ("train ce --weights x", "unrecognized arguments: --weights x; did you mean --pretrained?"),
    ("train ce --b 1", "unrecognized arguments: --b 1"),
    ("predict W x.png --top 0", "0 is no whole number from 1"),
    ("predict W x.png --lr 1", "unrecognized arguments: --lr 1; `mbib predict --help` lists what there is"),
    ("evaluate W --train", "unrecognized arguments: --train; `mbib evaluate --help` lists what there is"),
])  # fmt: skip
def test_a_wrong_option_is_told_with_the_usage_of_its_command_and_the_nearest_option(
    mbib: Say, words: str, hint: str
) -> None:
    status, _, err = mbib(*words.split())
    assert status == 2
    assert err.startswith(f"usage: mbib {words.split()[0]} ")
    assert f"mbib {words.split()[0]}: error: " in err
    assert hint in err
    assert err.count("\n") < 8, "a long usage does not hide it"


@pytest.mark.parametrize(("about", "wanted"), [
    (b"", "holds no weights"),
    (b"no weights", "holds no weights"),
    (pickle.dumps({"a": 1}), "holds no weights"),
    ({}, "holds no weights"),
    ({"classes": ["a", "b"]}, "holds no weights"),
    ({"classes": {"a": 0, "b": 1, "c": 2}}, "is damaged: its classes are not names, each once"),
    ({"classes": "abc"}, "is damaged: its classes are not names, each once"),
    ({"classes": [1, 2, 3]}, "is damaged: its classes are not names, each once"),
    ({"classes": ["a", "b", "a"]}, "is damaged: its classes are not names, each once"),
    ({"size": [0, 0]}, "is damaged: its images would have (0, 0) pixels"),
    ({"size": [100000, 100000]}, "is damaged: its images would have (100000, 100000) pixels"),
    ({"size": [32, "32"]}, "is damaged: its images would have"),
    ({"size": [[[]] * 3]}, "holds no weights"),
    ({"settings": []}, "holds no weights"),
    ({"settings": 3}, "holds no weights"),
    ({"settings": "text"}, "holds no weights"),
    ({"settings": {"method": 1}}, "holds no weights"),
    ({"network": {"depth": 3}}, "holds no weights"),
    ({"counts": 3}, "holds no weights"),
    ({"sha256": "0"}, "was damaged after it was written: copy it again"),
])  # fmt: skip
@pytest.mark.fault("weights of another program, or that say what cannot be: {about}")
def test_foreign_and_damaged_weights_are_refused(
    mbib: Say, tmp_path: Path, about: dict[str, Any] | bytes, wanted: str, sentence: Hear
) -> None:
    if isinstance(about, bytes):
        (tmp_path / "x.safetensors").write_bytes(about)
    else:
        settings = settle(Settings(method="ce"))
        parts = method_of(settings).parts
        network = parts.build(3) if about else torch.nn.Linear(1, 1)
        values = {"settings": settings.plain(), "network": asdict(parts), "classes": ["a", "b", "c"], "counts": []}
        metadata = {"mbib": json.dumps(values | {"size": [32, 32]} | about)} if about else {}
        save_file(dict(network.state_dict()), tmp_path / "x.safetensors", metadata=metadata)
    for words in (["evaluate", "x.safetensors"], ["predict", "x.safetensors", "x.png"]):
        status, out, err = mbib(*words)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert f"x.safetensors {wanted}" in err
    sentence(err)


def test_a_reader_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """As in `mbib table | head -1`."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    found = subprocess.run(
        [MBIB, "table", str(tmp_path)], env=ENVIRONMENT, stdout=write_end, stderr=subprocess.PIPE, text=True
    )
    os.close(write_end)
    assert (found.returncode, found.stderr) == (0, "")


# A quick run: a small data set and schedule in place of the real ones


@pytest.fixture
def quick(tiny_schedule: object, monkeypatch: Patch) -> str:
    for module in (data, runs):
        monkeypatch.setattr(module, "load", lambda name, **_: replace(coloured([22, 9, 3]), name=name))
    return "--schedule tiny --threads 1 --precision float32 --device cpu --quiet --no-report"


def one_record(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*.json")
    return read_record(path)


def test_a_run_leaves_record_and_weights_and_no_checkpoint(mbib: Say, quick: str, tmp_path: Path) -> None:
    status, out, err = mbib("train", "mbib", *quick.split())
    record = one_record(tmp_path / "runs")
    name = record["run_id"]
    assert (status, err) == (0, "")
    assert sorted(os.listdir(tmp_path / "runs")) == [f"{name}.json", f"{name}.safetensors"]
    assert f"record   runs/{name}.json" in out
    assert f"weights  runs/{name}.safetensors" in out
    assert list((tmp_path / "own-cache" / "checkpoints").glob("*.pt")) == []
    assert record["command"] == command_line(settle(cli_settings(record["command"])))
    assert run_id(settle(cli_settings(record["command"]))) == name
    for shot in ("medium", "few", "all", "mean_probability"):
        assert shot in out


def cli_settings(command: str) -> Any:
    return cli._settings(options.parser().parse_args(shlex.split(command)[1:]))


def test_options_say_what_is_kept(mbib: Say, quick: str, tmp_path: Path) -> None:
    words = ["train", "mbib", *quick.split(), "--out", "kept", "--no-weights", "--features"]
    assert mbib(*words)[0] == 0
    name = one_record(tmp_path / "kept")["run_id"]
    assert sorted(os.listdir(tmp_path / "kept")) == [f"{name}.json", f"{name}.npz"]
    with np.load(tmp_path / "kept" / f"{name}.npz") as found:
        assert {part: (found[part].shape, str(found[part].dtype)) for part in found.files} == {
            "labels": ((12,), "int16"),
            "v": ((12, 64), "float16"),
            "z": ((12, 64), "float16"),
            "probabilities": ((12, 3), "float16"),
        }
        assert found["probabilities"].astype(float).sum(1) == pytest.approx(1, abs=2e-3)


def test_a_run_that_was_made_is_not_made_again_unless_asked(
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    words = ["train", "ce", *quick.split()]
    first = mbib(*words)[1]
    before = (tmp_path / "runs").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(runs, "train", None)
        status, out, _ = mbib(*words)
    assert status == 0
    assert out.startswith("this run was made before; --again trains it anew")
    assert first.splitlines()[0] in out, "it shows what came of it"
    assert (tmp_path / "runs").stat().st_mtime_ns == before
    status, out, _ = mbib(*words, "--again")
    assert (status, "made before" in out) == (0, False)


def test_a_run_made_again_that_was_cut_goes_on_and_its_record_stays_until_then(
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    words = ["train", "ce", *quick.split(), "--checkpoints", str(tmp_path)]
    mbib(*words)
    before, draw, epochs = one_record(tmp_path / "runs"), trainer.draw, []

    def cut(labels: Any, **given: Any) -> Any:
        epochs.append(given["epoch"])
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return draw(labels, **given)

    monkeypatch.setattr(trainer, "draw", cut)
    assert mbib(*words, "--again")[0] == 130
    assert one_record(tmp_path / "runs") == before
    assert mbib(*words, "--again")[0] == 0
    assert epochs[:3] == [0, 1, 1], "from the checkpoint, not from the start"
    assert one_record(tmp_path / "runs")["history"] == before["history"]
    (tmp_path / f"{before['run_id']}.pt").write_text("torn")
    status, _, err = mbib(*words, "--again")
    assert status == 2
    assert f"{before['run_id']}.pt is not a complete checkpoint: delete it to start the run anew" in err


def test_a_run_of_a_schedule_that_was_changed_is_not_taken_for_the_run(
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    words = ["train", "ce", *quick.split()]
    mbib(*words)
    schedule = one_record(tmp_path / "runs")["settings"]["schedule"]
    monkeypatch.setitem(SCHEDULES, schedule, replace(SCHEDULES[schedule], weight_decay=0.01))
    status, _, err = mbib(*words)
    assert status == 2
    assert f"was made when the schedule {schedule} was another: --again replaces it" in err
    assert mbib(*words, "--again")[0] == 0
    assert one_record(tmp_path / "runs")["recipe"]["weight_decay"] == 0.01


def test_a_run_made_before_says_which_of_the_wanted_files_are_not_there(mbib: Say, quick: str, tmp_path: Path) -> None:
    words = ["train", "ce", *quick.split()]
    mbib(*words, "--no-weights")
    out = mbib(*words, "--features")[1]
    assert out.count("is not there: --again makes it, too") == 2
    assert mbib(*words, "--features", "--again")[0] == 0
    assert "is not there" not in mbib(*words, "--features")[1]


def test_pictures_with_a_left_and_a_right_are_never_mirrored_if_asked(
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    seen, draw = [], trainer.draw
    monkeypatch.setattr(trainer, "draw", lambda y, **given: (seen.append(given["flip"]), draw(y, **given))[1])
    mbib("train", "ce", *quick.split())
    assert seen == [True] * 3
    seen.clear()
    mbib("train", "ce", *quick.split(), "--no-flip")
    assert seen == [False] * 3
    records = [read_record(path) for path in sorted((tmp_path / "runs").glob("*.json"))]
    assert sorted(record["settings"]["flip"] for record in records) == [False, True]
    assert ["--no-flip" in record["command"] for record in records].count(True) == 1


@pytest.mark.fault("a run that another process trains")
def test_a_run_that_another_process_trains_is_left_alone(mbib: Say, quick: str, tmp_path: Path, sentence: Hear) -> None:
    words = ["train", "ce", *quick.split(), "--checkpoints", str(tmp_path)]
    mbib(*words)
    name = one_record(tmp_path / "runs")["run_id"]
    (tmp_path / f"{name}.pt").write_text("the other's")
    with FileLock(tmp_path / f"{name}.lock"):
        status, _, err = mbib(*words, "--again")
    sentence(err)
    assert status == 75, "a campaign tells it from a failure"
    assert f"{name} is being trained by another process; wait for it, or stop it" in err
    assert (tmp_path / f"{name}.pt").read_text() == "the other's"


def test_a_run_that_another_process_finishes_meanwhile_is_not_made_twice(
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    words = ["train", "ce", *quick.split()]
    mbib(*words)
    record = next((tmp_path / "runs").glob("*.json"))
    content = record.read_bytes()
    record.unlink()
    load = runs.load

    def slow(*a: Any, **k: Any) -> Any:
        record.write_bytes(content)  # while this process reads its data
        return load(*a, **k)

    monkeypatch.setattr(runs, "load", slow)
    monkeypatch.setattr(runs, "train", None)
    status, out, _ = mbib(*words)
    assert status == 0
    assert "this run was made before" in out


@pytest.mark.fault("a loss of NaN from the command line")
def test_a_loss_that_is_no_number_ends_a_run_with_a_sentence(
    mbib: Say, quick: str, monkeypatch: Patch, sentence: Hear
) -> None:
    monkeypatch.setattr("mbib_core.losses._full", lambda logits: logits.float() * float("nan"))
    status, _, err = mbib("train", "mbib", *quick.split())
    sentence(err)
    assert status == 2
    assert err.startswith(
        "mbib: the loss is nan at epoch 1, step 1: try --precision float32, a smaller beta than 1, or"
    )


@pytest.mark.parametrize(("option", "wanted"), [
    ("--out", "mbib: file/x cannot be written (Not a directory): make room, or choose another folder\n"),
    ("--checkpoints", "mbib: file/x, where a run is saved while it trains, cannot be used (Not a directory)"),
])  # fmt: skip
@pytest.mark.fault("a file in place of a folder for {option}")
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_trained(
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: Patch, option: str, wanted: str, sentence: Any
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(runs, "train", None)
    status, _, err = mbib("train", "ce", *quick.split(), option, "file/x")
    sentence(err)
    assert status == 2
    assert err.startswith(wanted)
    assert (tmp_path / "file").read_text() == "no folder"
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".pt", ".json", ".safetensors")] == []


def test_python_makes_the_files_and_the_record_of_the_command(mbib: Say, quick: str, tmp_path: Path) -> None:
    assert mbib("train", "mbib", *quick.split(), "--features", "--out", "command")[0] == 0
    settings = Settings(method="mbib", schedule="tiny", threads=1, precision="float32")
    made = runs.make(settings, out="python", device="cpu", features=True, report=False, progress=False)
    names = sorted(os.listdir(tmp_path / "command"))
    assert (
        names == sorted(os.listdir(tmp_path / "python")) == sorted(f.name for f in [made.file, *made.beside.values()])
    )
    one, other = (tmp_path / folder / made.beside["weights"].name for folder in ("command", "python"))
    assert one.read_bytes() == other.read_bytes()
    by_command, by_python = one_record(tmp_path / "command"), one_record(tmp_path / "python")
    changing = {"seconds", "pictures_per_second", "commits"}
    assert {name for name in by_command if by_command[name] != by_python[name]} <= changing


@pytest.mark.parametrize(("words", "recipe"), [
    ("--batch 6", {"batch": 6}),
    ("--rate 0.02", {"rate": 0.02}),
    ("--weight-decay 0.001", {"weight_decay": 0.001}),
    ("--depth 14", {"depth": 14}),
    ("--augmentation none", {"augmentation": "none"}),
    ("--average swa", {"average": "swa"}),
    ("--head cosine", {"head": "cosine"}),
])  # fmt: skip
def test_an_option_of_the_recipe_reaches_name_record_and_weights(
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: Patch, words: str, recipe: dict[str, Any]
) -> None:
    command = ["train", "ce", *quick.split(), "--epochs", "1"]
    usual = run_id(settle(cli_settings(shlex.join(["mbib", *command]))))
    said = mbib(*command, *words.split())[1].splitlines()
    record = one_record(tmp_path / "runs")
    assert record["run_id"] == said[0] != usual
    assert words in record["command"]
    assert record["recipe"] == SCHEDULES["tiny"].recipe | {n: x for n, x in recipe.items() if n in OVERRIDES}
    assert {name: record["settings"][name] for name in recipe} == recipe
    weights = tmp_path / "runs" / f"{record['run_id']}.safetensors"
    assert read_weights(weights).settings.plain() == record["settings"]
    Image.new("RGB", (9, 9), "red").save(tmp_path / "x.png")
    monkeypatch.setitem(SCHEDULES, "tiny", replace(SCHEDULES["tiny"], depth=20))  # the file says what network it is of
    assert mbib("evaluate", str(weights), "--device", "cpu")[1].splitlines()[-3:-1] == said[-4:-2]
    assert mbib("predict", str(weights), "x.png", "--device", "cpu")[1].startswith("x.png: colour ")


@pytest.mark.fault("a report that cannot be made")
def test_a_report_that_fails_leaves_record_and_weights_and_a_note(
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: Patch, sentence: Hear
) -> None:
    monkeypatch.setattr("mbib_core.report.write_report", Mock(side_effect=RuntimeError("no fonts")))
    status, out, err = mbib("train", "ce", *quick.replace("--no-report", "").split())
    sentence(err)
    assert (status, err) == (0, "mbib: the report could not be made (no fonts); record and weights are there\n")
    assert one_record(tmp_path / "runs")["missing"] == ["report: no fonts"]
    assert sorted(path.suffix for path in (tmp_path / "runs").iterdir()) == [".json", ".safetensors"]
    assert "report " not in out


@pytest.mark.fault("pandas, matplotlib, seaborn, torchvision not installed")
def test_without_the_extra_a_run_is_kept_and_what_needs_it_says_how_to_get_it(
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: Patch, sentence: Hear
) -> None:
    for name in EXTRA:
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    get = 'pip install "mbib-core[book]"'
    status, _, err = mbib("train", "ce", *quick.replace("--no-report", "").split())
    words = f"the report could not be made (its figure needs matplotlib: {get}); record and weights are there"
    assert (status, err) == (0, f"mbib: {words}\n")
    assert sorted(path.suffix for path in (tmp_path / "runs").iterdir()) == [".json", ".safetensors"]
    status, out, err = mbib("table")
    sentence(err)
    assert (status, out, err) == (2, "", f"mbib: a table needs pandas: {get}\n")
    with pytest.raises(ImportError, match=r"CIFAR-100 is not in .* and its download needs torchvision: pip install"):
        cifar100_lt(100, tmp_path)
    with pytest.raises(ImportError, match="this augmentation needs torchvision: pip install"):
        operation(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "rotate", 1.0)
    with pytest.raises(ImportError, match="classes needs scipy: pip install"):
        matched(torch.eye(2), torch.eye(2))
    with pytest.raises(ImportError, match="a map of scores needs seaborn: pip install"):
        figures.score_map([[1.0]], "a", "b", xlabel="", finding="")


@pytest.mark.fault("a package of the extra that was built for another torch")
def test_a_package_that_fails_as_it_is_imported_is_told_with_its_cure(
    mbib: Say, tmp_path: Path, monkeypatch: Patch, sentence: Hear
) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    status, _, err = mbib("train", "ce", "--data", "folder:x", "--backbone", "resnet18")
    sentence(err)
    assert status == 2
    assert (
        "torchvision, which is installed but does not work (operator torchvision::nms does not exist): install" in err
    )


@pytest.mark.slow
def test_without_the_extra_all_but_the_figures_are_imported() -> None:
    code = f"""import pkgutil, sys; sys.modules.update(dict.fromkeys({EXTRA})); import mbib_core
for module in pkgutil.walk_packages(mbib_core.__path__, "mbib_core.", onerror=print):
    if "figures" not in module.name: __import__(module.name); print(module.name)"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert {"mbib_core.losses", "mbib_core.runs", "mbib_core.serving"} <= {*found.stdout.split()}, found.stderr
    assert found.returncode == 0, found.stderr


def test_a_finished_checkpoint_that_stayed_is_recorded_or_if_asked_trained_anew(
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    words = ["train", "ce", *quick.split(), "--checkpoints", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_record", Mock(side_effect=OSError("no room")))
        assert mbib(*words)[0] == 2
    (left,) = tmp_path.glob("*.pt")
    finished, epochs, draw = left.read_bytes(), [], trainer.draw
    monkeypatch.setattr(trainer, "draw", lambda y, **given: (epochs.append(given["epoch"]), draw(y, **given))[1])
    for more, trained in (([], []), (["--again"], [0, 1, 2])):
        left.write_bytes(finished)
        assert mbib(*words, *more)[0] == 0
        assert (epochs, left.exists()) == (trained, False)


def test_weights_are_evaluated_to_the_accuracy_of_the_record(mbib: Say, quick: str, tmp_path: Path) -> None:
    trained = mbib("train", "ce", *quick.split())[1].splitlines()
    weights = str(next((tmp_path / "runs").glob("*.safetensors")))
    status, out, _ = mbib("evaluate", weights, "--device", "cpu")
    assert status == 0
    rows = [line for line in trained if line.lstrip().startswith(("v", "adjusted", "mean over"))]
    *found, also = out.splitlines()[1:]
    assert found == rows
    test = one_record(tmp_path / "runs")["test"]
    values = [test["micro"], test["macro_f1"], test["calibration"]["all"]["error"]]
    names = ["over pictures", "macro-F1", "calibration error"]
    assert also == "v: " + ", ".join(f"{name} {100 * value:.1f}" for name, value in zip(names, values, strict=True))
    assert "on 12 test pictures" in out
    assert "on 15 validation pictures" in mbib("evaluate", weights, "--validation")[1]


@pytest.mark.fault("the test set for a run for choosing")
def test_a_run_for_choosing_settings_shows_validation_and_its_weights_never_meet_the_test_set(
    mbib: Say, quick: str, tmp_path: Path, sentence: Hear
) -> None:
    status, out, _ = mbib("train", "ce", *quick.split(), "--choosing", "--features")
    assert status == 0
    assert "15 validation pictures" in out
    assert "test" not in one_record(tmp_path / "runs")
    (features,) = (tmp_path / "runs").glob("*.npz")
    assert len(np.load(features)["labels"]) == 15
    weights = str(next((tmp_path / "runs").glob("*.safetensors")))
    status, _, err = mbib("evaluate", weights)
    sentence(err)
    assert status == 2
    assert "are of a run for choosing settings" in err
    assert "on 15 validation pictures" in mbib("evaluate", weights, "--validation")[1]


def test_the_table_gathers_seeds_from_several_folders(mbib: Say, quick: str, tmp_path: Path) -> None:
    for seed in ("0", "1"):
        mbib("train", "ce", *quick.split(), "--seed", seed, "--out", f"seed{seed}")
    status, out, _ = mbib("table", "seed0", "seed1")
    assert status == 0
    accuracy = [100 * one_record(tmp_path / f"seed{s}")["test"]["accuracy"]["v"]["all"] for s in (0, 1)]
    assert f"{np.mean(accuracy):.1f} ± {np.std(accuracy, ddof=1):.1f}" in out
    assert out.splitlines()[1].split()[-1] == "2"
    chosen = mbib("table", "seed0", "seed1", "--where", "seed=1", "--where", "method=ce")[1]
    assert chosen.splitlines()[1].split()[-1] == "1"
    (row,) = csv.DictReader(mbib("table", "seed0", "seed1", "--csv")[1].splitlines())
    assert (row["method"], row["seeds"], float(row["all_mean"])) == ("ce", "2", pytest.approx(np.mean(accuracy)))
    assert mbib("table", "seed0", "--where", "method=bib")[1] == "no records\n"
    assert "'method' is no condition: write NAME=VALUE" in mbib("table", "seed0", "--where", "method")[2]
    assert "metod: no such setting; there are " in mbib("table", "seed0", "--where", "metod=ce")[2]
    (tmp_path / "empty").mkdir()
    assert mbib("table", "empty", "--csv")[1] == "no records\n"


# A real process on Glyphs-LT


@pytest.mark.slow
def test_train_table_and_evaluate_agree(mbib: Say, tmp_path: Path) -> None:
    words = shlex.split("train bsce --epochs 1 --threads 1 --precision float32 --device cpu --quiet --no-report")
    said = process(*words, cwd=tmp_path).stdout.splitlines()
    record = one_record(tmp_path / "runs")
    row = [f"{100 * record['test']['accuracy']['v'][shot]:.1f}" for shot in ("many", "medium", "few", "all")]
    assert said[0] == record["run_id"]
    assert next(line for line in said if line.startswith("  v")).split()[1:] == row
    assert mbib("table")[1].splitlines()[1].split()[-5:] == [*row, "1"]
    evaluated = mbib("evaluate", f"runs/{record['run_id']}.safetensors", "--device", "cpu")[1]
    assert evaluated.splitlines()[-2].split()[1:] == row
    assert mbib(*words)[1].startswith("this run was made before")
    assert record["counts"][0] > 100 > record["counts"][-1]
    assert len(record["history"]["loss"]) == 1


# What goes wrong within a command


CPU_FULL = (
    "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
)


@pytest.mark.parametrize(("words", "error", "wanted"), [
    ("table", MemoryError(), "the memory is full: close what else uses it"),
    (
        "predict W x --batch 64",
        RuntimeError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"),
        "the memory is full (2.50 GiB more were wanted): try a smaller --batch than 64, another --device, or close "
        "what else uses it",
    ),
    ("evaluate W --batch 1", RuntimeError(CPU_FULL),
        "the memory is full (9 bytes more were wanted): try another --dev"),
    ("evaluate W", MemoryError("Unable to allocate 3 TiB for"),
        "(3 TiB more were wanted): try a smaller --batch, another --device"),
    ("campaign --processes 4", MemoryError(), "try a smaller --processes than 4, another --dev"),
    ("table", RuntimeError("Could not determine home directory."), "no home folder is known: write paths without ~"),
    ("table", RecursionError("maximum recursion depth exceeded while decoding a JSON array"), "is nested too deeply"),
    ("table", PermissionError(13, "Permission denied", "a/b"), "a/b cannot be used (Permission denied)"),
    ("table", ValueError("no \x1b[31m red \u202e"), "no \\x1b[31m red \\u202e\n"),
    ("table", RuntimeError("a bug"), None),
    ("table", RecursionError("maximum recursion depth exceeded"), None),
    ("table", KeyError("a bug"), None),
])  # fmt: skip
@pytest.mark.fault("within mbib {words}: {error!r}")
def test_faults_of_the_machine_are_told_in_a_sentence_and_bugs_stay_loud(
    mbib: Say, monkeypatch: Patch, words: str, error: Exception, wanted: str | None, sentence: Any
) -> None:
    def fails(_: object) -> None:
        raise error

    monkeypatch.setitem(cli.COMMANDS, words.split()[0], fails)
    if wanted is None:
        with pytest.raises(type(error), match=str(error)):
            mbib(*words.split())
        sentence("(a traceback)")
        return
    status, out, err = mbib(*words.split())
    sentence(err)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("mbib: ")
    assert wanted in err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp874", "utf-8"])
def test_names_outside_the_code_page_are_escaped_and_a_row_ends_once(
    encoding: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    """As on Windows, where a newline is two characters, and with a name that is not UTF-8."""
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding=encoding, newline="\r\n")
    frame = pd.DataFrame([["知", 1.5]], columns=pd.MultiIndex.from_tuples([("data", ""), ("all", "mean")]))
    monkeypatch.setattr("mbib_core.results.table", lambda _: frame)
    monkeypatch.setattr("mbib_core.results.show_table", lambda _: "knew 知 ± caf\udce9")
    monkeypatch.setattr(sys, "stdout", stream)
    assert [cli.main(["table", str(tmp_path)]), cli.main(["table", str(tmp_path), "--csv"])] == [0, 0]
    stream.flush()
    shown, *rows = content.getvalue().split(b"\r\n")
    assert b"\r" not in shown
    assert shown.decode(encoding).endswith(r"caf\udce9")
    assert shown.decode(encoding).startswith("knew 知 ±" if encoding == "utf-8" else r"knew \u77e5")
    assert [row.decode(encoding).count(",") for row in rows] == [1, 1, 0]


@pytest.mark.parametrize(
    "command", ["evaluate ~/w", "evaluate W --root ~/w", "table ~/w", "train ce --out ~/w", "campaign ~/w"]
)
def test_a_tilde_is_the_home_folder_where_there_is_one(command: str, monkeypatch: Patch) -> None:
    monkeypatch.setenv("HOME", "/there")
    values = vars(options.parser().parse_args(command.split())).values()
    assert any(Path("/there/w") in (value if isinstance(value, list) else [value]) for value in values)
    unknown = vars(options.parser().parse_args(command.replace("~", "~nobody-of-that-name").split())).values()
    assert any("~nobody-of-that-name/w" in str(value) for value in unknown), "as a shell has it"
