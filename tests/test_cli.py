"""The command line: as a process where that matters, else in this one; and a run from training to the table."""

import json
import os
import pickle
import random
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import coloured
from filelock import FileLock
from safetensors.torch import load_file, save_file

from mbib_core import cli, data, trainer
from mbib_core.methods import settle
from mbib_core.results import read_record
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings, command_line, run_id

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
MBIB = Path(sys.executable).with_name("mbib")


def process(*words: str, **more: Any) -> subprocess.CompletedProcess:
    return subprocess.run([MBIB, *words], env=ENVIRONMENT, capture_output=True, text=True, **more)


Said = tuple[int, str, str]
Say = Callable[..., Said]


@pytest.fixture
def mbib(capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
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


def test_the_installed_command_helps_and_shows_examples() -> None:
    found = process("--help")
    assert found.returncode == 0
    for part in ("train", "evaluate", "campaign", "table", "mbib train mbib"):
        assert part in found.stdout


def test_a_bad_word_ends_an_installed_command_with_status_2() -> None:
    assert process("no-such-command").returncode == 2
    assert process().returncode == 2


# Refusals


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
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
        ("train mbib --alphas 0.9 0.9", "sum to at most 1: they are proportions"),
        ("train mbib --alphas 0.1", "3 observations need 2 alphas, not 1"),
        ("train mbib --alphas", "3 observations need 2 alphas, not 0"),
        ("train mbib --taps 0", "ask for 1 to 3 observations, not 0"),
        ("train ce --beta 1", "ce has no beta: leave it out"),
        ("train mbib --precision half", "precision is 'half': it must be one of auto, float32, bfloat16, float16"),
        ("train mbib --device gpu", "torch can use no device gpu here: leave --device out, or say cpu or cuda"),
        ("train mbib --imbalance 0.5", "imbalance"),
        ("train mbib --imbalance 1e9", "imbalance"),
        ("train mbib --imbalance nan", "imbalance"),
        ("evaluate none.safetensors", "there is no file none.safetensors; `mbib train` writes weights"),
        ("table none", "there is no folder none; `mbib train` writes records, into runs/ by default"),
        ("table", "there is no folder runs; `mbib train` writes records"),
        ("campaign none.toml", "there is no list none.toml; name the list of wanted runs"),
        ("campaign --processes 0", "processes and threads must be 1 or more"),
    ],
)
@pytest.mark.fault("mbib {words}")
def test_what_cannot_be_done_is_told_in_one_sentence(
    mbib: Say, tmp_path: Path, words: str, wanted: str, sentence: Callable[[str], None]
) -> None:
    status, out, err = mbib(*words.split())
    assert status == 2
    sentence(err)
    assert err.startswith("mbib: ")
    assert err.count("\n") == 1
    assert wanted in err
    assert out == ""
    assert os.listdir(tmp_path) == [], "nothing is left behind"


@pytest.mark.parametrize("words", ["train mbib --epochs two", "train mbib --beta high", "train", "train ce --betta 1"])
def test_words_that_are_no_numbers_or_options_are_refused_with_the_usage(mbib: Say, words: str) -> None:
    status, _, err = mbib(*words.split())
    assert status == 2
    assert "usage: mbib" in err


def test_an_unknown_method_ends_a_process_with_status_2_and_no_traceback() -> None:
    found = process("train", "mbibb")
    assert found.returncode == 2
    assert found.stderr.startswith("mbib: no method is called 'mbibb'; did you mean mbib")
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x80\x02c", pickle.dumps({"a": 1})])
@pytest.mark.fault("a file that holds no weights")
def test_a_file_that_holds_no_weights_is_refused(
    mbib: Say, tmp_path: Path, content: bytes, sentence: Callable[[str], None]
) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    status, _, err = mbib("evaluate", "x.safetensors")
    sentence(err)
    assert status == 2
    assert "x.safetensors holds no weights that `mbib train` wrote" in err


@pytest.mark.fault("weights of another program")
def test_foreign_weights_are_refused(mbib: Say, tmp_path: Path, sentence: Callable[[str], None]) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "x.safetensors")
    assert "holds no weights that `mbib train` wrote" in mbib("evaluate", "x.safetensors")[2]
    about = {"settings": json.dumps(settle(Settings()).plain())}
    sentence(mbib("evaluate", "x.safetensors")[2])
    save_file({"weight": torch.zeros(3)}, tmp_path / "y.safetensors", metadata=about | {"classes": '["a", "b"]'})
    assert "holds no weights that `mbib train` wrote" in mbib("evaluate", "y.safetensors")[2]


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
def quick(tiny_schedule: object, monkeypatch: pytest.MonkeyPatch) -> str:
    for where in ("mbib_core.data.load", "mbib_core.serving.load"):
        monkeypatch.setattr(where, lambda name, **_: replace(coloured([22, 9, 3]), name=name))
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
    return cli._settings(cli._parser().parse_args(shlex.split(command)[1:]))


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
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "ce", *quick.split()]
    first = mbib(*words)[1]
    before = (tmp_path / "runs").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train", None)
        status, out, _ = mbib(*words)
    assert status == 0
    assert out.startswith("this run was made before; --again trains it anew")
    assert first.splitlines()[0] in out, "it shows what came of it"
    assert (tmp_path / "runs").stat().st_mtime_ns == before
    status, out, _ = mbib(*words, "--again")
    assert (status, "made before" in out) == (0, False)


def test_a_run_made_again_that_was_cut_goes_on_and_its_record_stays_until_then(
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "ce", *quick.split(), "--checkpoints", str(tmp_path)]
    mbib(*words)
    before, draw, epochs = one_record(tmp_path / "runs"), trainer.batches, []

    def cut(*given: Any) -> Any:
        epochs.append(given[4])
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return draw(*given)

    monkeypatch.setattr(trainer, "batches", cut)
    assert mbib(*words, "--again")[0] == 130
    assert one_record(tmp_path / "runs") == before
    assert mbib(*words, "--again")[0] == 0
    assert epochs[:3] == [0, 1, 1], "from the checkpoint, not from the start"
    assert one_record(tmp_path / "runs")["history"] == before["history"]
    (tmp_path / f"{before['run_id']}.pt").write_text("torn")
    status, _, err = mbib(*words, "--again")
    assert status == 2
    assert f"{before['run_id']}.pt is no whole checkpoint of this program: delete it to start the run anew" in err


def test_a_run_of_a_schedule_that_was_changed_is_not_taken_for_the_run(
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, draw = [], trainer.batches
    monkeypatch.setattr(trainer, "batches", lambda *given: (seen.append(given[2]), draw(*given))[1])
    mbib("train", "ce", *quick.split())
    assert all(seen)
    seen.clear()
    mbib("train", "ce", *quick.split(), "--no-flip")
    assert not any(seen)
    records = [read_record(path) for path in sorted((tmp_path / "runs").glob("*.json"))]
    assert sorted(record["settings"]["flip"] for record in records) == [False, True]
    assert ["--no-flip" in record["command"] for record in records].count(True) == 1


@pytest.mark.fault("a run that another process trains")
def test_a_run_that_another_process_trains_is_left_alone(
    mbib: Say, quick: str, tmp_path: Path, sentence: Callable[[str], None]
) -> None:
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
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "ce", *quick.split()]
    mbib(*words)
    record = next((tmp_path / "runs").glob("*.json"))
    content = record.read_bytes()
    record.unlink()
    load = data.load

    def slow(*a: Any, **k: Any) -> Any:
        record.write_bytes(content)  # while this process reads its data
        return load(*a, **k)

    monkeypatch.setattr(data, "load", slow)
    monkeypatch.setattr(trainer, "train", None)
    status, out, _ = mbib(*words)
    assert status == 0
    assert "this run was made before" in out


@pytest.mark.fault("Ctrl-C within an epoch")
def test_ctrl_c_keeps_the_checkpoint_and_the_same_command_goes_on(
    mbib: Say, quick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentence: Callable[[str], None]
) -> None:
    words = ["train", "mbib", *quick.split()]
    mbib(*words, "--out", "whole")
    real = trainer.batches

    def stop(n: int, schedule: Any, flip: bool, seed: int, epoch: int, device: Any) -> Any:
        if epoch == 2:
            raise KeyboardInterrupt
        return real(n, schedule, flip, seed, epoch, device)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "batches", stop)
        status, _, err = mbib(*words)
    sentence(err)
    assert status == 130
    assert "mbib: stopped; what was saved is kept, and the same command goes on from there" in err
    assert len(list((tmp_path / "own-cache" / "checkpoints").glob("*.pt"))) == 1
    assert mbib(*words)[0] == 0
    whole, resumed = (load_file(next((tmp_path / f).glob("*.safetensors"))) for f in ("whole", "runs"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert one_record(tmp_path / "whole")["test"] == one_record(tmp_path / "runs")["test"]


@pytest.mark.fault("a loss of NaN from the command line")
def test_a_loss_that_is_no_number_ends_a_run_with_a_sentence(
    mbib: Say, quick: str, monkeypatch: pytest.MonkeyPatch, sentence: Callable[[str], None]
) -> None:
    monkeypatch.setattr("mbib_core.losses._full", lambda logits: logits.float() * float("nan"))
    status, _, err = mbib("train", "mbib", *quick.split())
    sentence(err)
    assert status == 2
    assert err.startswith(
        "mbib: the loss is nan at epoch 1, step 1: try --precision float32, a smaller beta than 1, or"
    )


@pytest.mark.fault("a folder of records that is a file")
def test_a_folder_that_cannot_be_written_ends_a_run_with_a_sentence(
    mbib: Say, quick: str, tmp_path: Path, sentence: Callable[[str], None]
) -> None:
    (tmp_path / "file").write_text("")
    status, _, err = mbib("train", "ce", *quick.split(), "--out", "file/x")
    sentence(err)
    assert status == 2
    assert "could not be written" in err
    assert len(list((tmp_path / "own-cache" / "checkpoints").glob("*.pt"))) == 1, "what was trained is kept"
    assert mbib("train", "ce", *quick.split())[0] == 0


def test_weights_are_evaluated_to_the_accuracy_of_the_record(mbib: Say, quick: str, tmp_path: Path) -> None:
    trained = mbib("train", "ce", *quick.split())[1].splitlines()
    weights = str(next((tmp_path / "runs").glob("*.safetensors")))
    status, out, _ = mbib("evaluate", weights, "--device", "cpu")
    assert status == 0
    rows = [line for line in trained if line.lstrip().startswith(("v", "adjusted", "mean over"))]
    assert out.splitlines()[1:] == rows
    assert "on 12 test pictures" in out
    assert "on 15 validation pictures" in mbib("evaluate", weights, "--validation")[1]


@pytest.mark.fault("the test set for a run for choosing")
def test_a_run_for_choosing_settings_shows_validation_and_its_weights_never_meet_the_test_set(
    mbib: Say, quick: str, tmp_path: Path, sentence: Callable[[str], None]
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
    (tmp_path / "empty").mkdir()
    assert mbib("table", "empty")[1] == "no records\n"


# Real processes on Glyphs-LT


RUN = shlex.split("train bsce --epochs 1 --threads 1 --precision float32 --device cpu --quiet --no-report")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One uninterrupted run: the folder it was started in, and what it said."""
    folder = tmp_path_factory.mktemp("trained")
    found = subprocess.run(
        [MBIB, *RUN], cwd=folder, env=ENVIRONMENT | {"MBIB_CACHE": str(folder)}, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return folder, found.stdout


@pytest.mark.slow
def test_train_table_and_evaluate_agree(trained: tuple[Path, str], mbib: Say) -> None:
    folder, said = trained
    record = one_record(folder / "runs")
    accuracy = record["test"]["accuracy"]["v"]
    row = [f"{100 * accuracy[shot]:.1f}" for shot in ("many", "medium", "few", "all")]
    assert said.splitlines()[0] == record["run_id"]
    assert next(line for line in said.splitlines() if line.startswith("  v")).split()[1:] == row
    assert mbib("table", str(folder / "runs"))[1].splitlines()[1].split()[-5:] == [*row, "1"]
    weights = next((folder / "runs").glob("*.safetensors"))
    evaluated = mbib("evaluate", str(weights), "--device", "cpu")[1]
    assert evaluated.splitlines()[-1].split()[1:] == row
    assert mbib(*RUN, "--out", str(folder / "runs"))[1].startswith("this run was made before")
    assert record["counts"][0] > 100 > record["counts"][-1]
    assert len(record["history"]["loss"]) == 1


@pytest.mark.slow
def test_a_process_killed_at_random_moments_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """On a folder of small pictures, so that what takes time is to kill and to start again."""
    from PIL import Image

    noise = np.random.default_rng(0)
    for label, n in {"one": 20, "two": 12, "three": 8}.items():
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(n):
            pixels = noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{number}.png")
    words = "train mbib --data folder:pictures --schedule glyphs --epochs 10 --threads 1 --precision float32"
    command = [MBIB, *words.split(), "--device", "cpu", "--quiet", "--no-report"]

    def start(cache: str, out: str) -> subprocess.Popen:
        environment = ENVIRONMENT | {"MBIB_CACHE": str(tmp_path / cache)}
        return subprocess.Popen([*command, "--out", out], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)

    def checkpoints() -> list[Path]:
        return list((tmp_path / "cut" / "checkpoints").glob("*.pt"))

    assert start("whole", "whole").wait() == 0
    usual = one_record(tmp_path / "whole")["seconds"]
    moments = random.Random(0)
    epochs = []
    for _ in range(2):
        running = start("cut", "cut-runs")
        for _ in range(moments.randint(1, 3)):  # epochs
            seen = checkpoints()[0].stat().st_mtime_ns if checkpoints() else 0
            while not checkpoints() or checkpoints()[0].stat().st_mtime_ns == seen:
                assert running.poll() is None, "it ended before it could be killed"
                time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.1) * usual)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        epochs.append(len(torch.load(checkpoints()[0], weights_only=True)["history"]["loss"]))
    assert 0 < epochs[0] < epochs[1] < 10, "cut twice, and it went on in between"
    assert start("cut", "cut-runs").wait() == 0
    whole, resumed = (load_file(next((tmp_path / f).glob("*.safetensors"))) for f in ("whole", "cut-runs"))
    assert all(torch.equal(whole[part], resumed[part]) for part in whole)
    one, other = one_record(tmp_path / "whole"), one_record(tmp_path / "cut-runs")
    for part in ("history", "test", "validation", "settings", "machine", "run_id", "command"):
        assert one[part] == other[part]


def test_options_are_not_guessed_from_their_first_letters(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "mbib", "--b", "1"])
    assert "--b" in capsys.readouterr().err


@pytest.mark.fault("a full memory")
def test_full_memory_is_one_sentence_and_other_runtime_errors_stay_loud(monkeypatch, capsys, sentence):
    def fails(words):
        def run(_):
            raise RuntimeError(words)

        return run

    monkeypatch.setattr("mbib_core.cli._table", fails("CUDA out of memory. Tried to allocate 2 GiB"))
    assert cli.main(["table"]) == 2
    said = capsys.readouterr().err
    sentence(said)
    assert said.startswith("mbib: the memory is full")
    monkeypatch.setattr("mbib_core.cli._table", fails("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["table"])
