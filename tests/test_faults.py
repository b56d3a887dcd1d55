"""Faults around a run, real ones: a full disk, a read-only folder, a kill, Ctrl-C, no network, torn files.

The faults of one part of the package are in that part's tests; all bear the mark `fault`.
"""

import ctypes
import functools
import hashlib
import http.server
import io
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from mbib_core import batches, cli, files, trainer
from mbib_core.criteria import BIBLoss, MBIBLoss
from mbib_core.data import LongTailed, cifar, load
from mbib_core.results import read_record
from mbib_core.schedules import Schedule
from mbib_core.settings import Settings
from mbib_core.trainer import train
from mbib_core.wanted import read_wanted
from mbib_core.weights import read_weights

ROOT = Path(__file__).parent.parent
Hear = Callable[[str], None]
Patch = pytest.MonkeyPatch
TINY = Settings(data="coloured", method="mbib", schedule="tiny", precision="float32", threads=1)


def quietly(settings: Settings, data: LongTailed, checkpoint: Path | None = None) -> trainer.Trained:
    return train(settings, data, device="cpu", progress=False, checkpoint=checkpoint)


# Whole runs of the command: a folder of 24 small pictures, three epochs

WORDS = "train mbib --data folder:pictures --schedule glyphs --epochs 3 --threads 1 --precision float32 --device cpu"
TRAIN = [*WORDS.split(), "--quiet", "--no-report"]
CANNOT_MOUNT = 77


def pictures(folder: Path) -> Path:
    noise = np.random.default_rng(0)
    for label, n in {"one": 12, "two": 8, "three": 4}.items():
        (folder / "pictures" / label).mkdir(parents=True)
        for number in range(n):
            pixels = noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / label / f"{number}.png")
    return folder


def command(folder: Path, *more: str, **environment: str) -> int:
    """`mbib train` in `folder`, its checkpoints in `cache`; returns the exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in {"MBIB_CACHE": str(folder / "cache"), **environment}.items():
            patch.setenv(name, value)
        return cli.main([*TRAIN, *more])


def child(work: Callable[[], Any], said: Path | None = None) -> int:
    """The exit status of `work` in a process of its own, whose stderr goes to `said`."""

    def run() -> None:
        if said:
            sys.stderr = said.open("w")
        status = work()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    return int(process.exitcode or 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, and in `runs` what an uncut run on them leaves."""
    folder = pictures(tmp_path_factory.mktemp("whole"))
    assert command(folder) == 0
    return folder


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Path:
    """The same pictures, nothing trained yet."""
    shutil.copytree(whole / "pictures", tmp_path / "pictures")
    return tmp_path


def ends_as(whole: Path, place: Path, **environment: str) -> None:
    """The same command goes on from what is saved in `cache`, and leaves the uncut run's bits."""
    assert command(place, **environment) == 0
    (one,), (other,) = (list((folder / "runs").glob("*.safetensors")) for folder in (whole, place))
    assert one.name == other.name
    a, b = load_file(one), load_file(other)
    assert all(torch.equal(a[name], b[name]) for name in a)
    first, second = (read_record(path.with_suffix(".json")) for path in (one, other))
    parts = ("history", "validation", "test", "settings", "run_id", "command")
    assert all(first[part] == second[part] for part in parts)
    assert first["machine"] == second["machine"] | {"checkout": first["machine"]["checkout"]}
    left = [path.name for path in (place / "cache" / "checkpoints").iterdir() if path.suffix != ".lock"]
    assert left == [], "no checkpoint is left, whole or half"


def epochs_saved(folder: Path) -> int:
    (path,) = folder.glob("checkpoints/*.pt")
    return len(torch.load(path, weights_only=True)["history"]["loss"])


def own_namespace() -> None:
    """From here on this process, which has one thread, mounts what only it sees."""
    user, group = os.getuid(), os.getgid()
    new_mounts, new_user = 0x00020000, 0x10000000
    if ctypes.CDLL(None, use_errno=True).unshare(new_mounts | (new_user if user else 0)):
        raise OSError(ctypes.get_errno(), "unshare")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True, capture_output=True)


def on_a_disk(folder: Path, mounts: list[str], *more: str, **environment: str) -> tuple[int, str]:
    """`mbib train` where `disk` is a file system of its own, copied to `after` at the end: status, stderr."""
    (folder / "disk").mkdir(exist_ok=True)

    def work() -> int:
        try:
            own_namespace()
            for words in mounts:
                subprocess.run(["mount", *words.split()], cwd=folder, check=True, capture_output=True)
        except (OSError, AttributeError, subprocess.CalledProcessError):
            return CANNOT_MOUNT
        status = command(folder, *more, **environment)
        shutil.copytree(folder / "disk", folder / "after")
        return status

    status = child(work, folder / "said")
    if status == CANNOT_MOUNT:
        pytest.skip("this machine lets the tests mount nothing")
    return status, (folder / "said").read_text()


READ_ONLY = ["--bind disk disk", "-o remount,bind,ro disk"]
NOT_WRITTEN = (
    r"could not be written \({}\); what was there before is untouched\. Make room or choose another folder, and"
)


@pytest.mark.fault("a full disk while a checkpoint is written")
def test_on_a_full_disk_the_checkpoint_before_survives(whole: Path, place: Path, sentence: Hear) -> None:
    """A checkpoint has 676 kB: one fits, the next one beside it does not."""
    status, said = on_a_disk(place, ["-t tmpfs -o size=1000k none disk"], MBIB_CACHE=str(place / "disk"))
    sentence(said)
    assert status == 2
    words = NOT_WRITTEN.format("No space left on device")
    assert re.fullmatch(rf"mbib: \S+\.pt {words} run the same command again\n", said)
    assert epochs_saved(place / "after") == 1
    assert {path.suffix for path in (place / "after" / "checkpoints").iterdir()} <= {".pt", ".lock"}, "nothing half"
    assert os.listdir(place / "runs") == []
    (place / "after").rename(place / "cache")
    ends_as(whole, place)


@pytest.mark.fault("a full disk while weights are written")
def test_on_a_full_disk_for_weights_the_training_is_kept(whole: Path, place: Path, sentence: Hear) -> None:
    status, said = on_a_disk(place, ["-t tmpfs -o size=100k none disk"], "--out", "disk")
    sentence(said)
    assert status == 2
    words = NOT_WRITTEN.format("No space left on device")
    assert re.fullmatch(rf"mbib: \S+\.safetensors {words} run the same command again\n", said)
    assert os.listdir(place / "after") == [], "no record without its weights, and nothing half written"
    assert epochs_saved(place / "cache") == 3
    ends_as(whole, place)


@pytest.mark.fault("a read-only folder of records")
def test_a_read_only_folder_of_records_is_told_before_anything_is_trained(place: Path, sentence: Hear) -> None:
    (place / "disk").mkdir()
    (place / "disk" / "earlier.json").write_text("an earlier record")
    status, said = on_a_disk(place, READ_ONLY, "--out", "disk")
    sentence(said)
    assert status == 2
    assert said == "mbib: disk cannot be written (Read-only file system): make room, or choose another folder\n"
    assert os.listdir(place / "after") == ["earlier.json"]
    assert (place / "after" / "earlier.json").read_text() == "an earlier record"
    assert not (place / "cache").exists()


@pytest.mark.fault("a read-only folder of checkpoints")
def test_a_read_only_cache_is_told_before_anything_is_trained(place: Path, sentence: Hear) -> None:
    status, said = on_a_disk(place, READ_ONLY, MBIB_CACHE=str(place / "disk"))
    sentence(said)
    assert status == 2
    assert said == (
        f"mbib: {place}/disk/checkpoints, where a run is saved while it trains, cannot be used (Read-only file "
        f"system): name another folder with --checkpoints or MBIB_CACHE\n"
    )
    assert os.listdir(place / "after") == os.listdir(place / "runs") == []


# The command, but the step after the first checkpoint takes a minute: Ctrl-C meets it wherever the machine is busy.
SLOW = """
import signal, sys, time
from pathlib import Path
from mbib_core import batches, cli

def slow(*step):
    time.sleep(60 if list(Path("cache/checkpoints").glob("*.pt")) else 0)
    return augment(*step)

augment, batches.augment = batches.augment, slow
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.exit(cli.main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
@pytest.mark.fault("{stop.name} in a terminal")
def test_a_process_that_is_stopped_or_killed_says_so_if_it_can_and_the_same_command_goes_on(
    whole: Path, place: Path, stop: signal.Signals, status: int, sentence: Hear
) -> None:
    own = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MBIB_CACHE": str(place / "cache")}
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW, *TRAIN], cwd=place, env=own, stderr=subprocess.PIPE, text=True
    )
    while not list(place.glob("cache/checkpoints/*.pt")):
        assert running.poll() is None, "it ended before it could be stopped"
        time.sleep(0.002)
    running.send_signal(stop)
    said = running.communicate(timeout=60)[1]
    sentence(said or "(nothing can be said)")
    assert running.returncode == status
    told = "\nmbib: stopped; what was saved is kept, and the same command goes on from there\n"
    assert said == (told if status > 0 else "")
    assert epochs_saved(place / "cache") == 1
    ends_as(whole, place)


@pytest.mark.fault("no git while a run is trained")
def test_without_git_a_run_is_trained_and_its_record_says_so(whole: Path, place: Path, sentence: Hear) -> None:
    ends_as(whole, place, PATH="/nowhere")
    (record,) = (read_record(path) for path in (place / "runs").glob("*.json"))
    assert record["commits"] == ["unknown"]
    assert record["machine"]["checkout"] is False
    sentence(f"(nothing is said; the record's commit is {record['commits'][0]})")


# SIGKILL


@pytest.mark.slow
@pytest.mark.fault("SIGKILL at 20 random steps")
def test_a_run_killed_at_20_random_steps_ends_in_the_same_bits(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path, sentence: Hear
) -> None:
    """Every fifth kill hits a checkpoint that is written and not yet in its place."""
    settings, checkpoint, steps = replace(TINY, epochs=24), tmp_path / "run.pt", 5  # steps an epoch
    uncut = quietly(settings, tiny_data)
    moments = random.Random(0)
    saved = []

    def killed(step: int, writing: bool) -> None:
        left = iter(range(step))
        augment = batches.augment

        def kill(*_: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def counted(*a: Any) -> Tensor:
            if next(left, None) is None:
                if not writing:
                    kill()
                files.os.replace = kill  # type: ignore[assignment]
            return augment(*a)

        batches.augment = counted
        quietly(settings, tiny_data, checkpoint)

    for number in range(20):
        status = child(functools.partial(killed, moments.randrange(2 * steps), number % 5 == 4))
        assert status == -signal.SIGKILL
        if checkpoint.is_file():
            saved.append(len(torch.load(checkpoint, weights_only=True)["history"]["loss"]))
    assert saved == sorted(saved), "no epoch that was saved is lost"
    assert 3 < saved[-1] < 24
    again = quietly(settings, tiny_data, checkpoint)
    a, b = uncut.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert again.history == uncut.history
    sentence(
        f"(nothing can be said; killed 20 times, {saved[-1]} epochs saved, and the end is the uncut run's, bit for bit)"
    )


# No network, and archives that are none


@pytest.fixture
def no_proxy(monkeypatch: Patch) -> None:
    monkeypatch.setattr("urllib.request._opener", None)  # an earlier request of this process has settled on its proxies
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.fault("no network for a download")
def test_without_a_network_the_way_to_the_data_is_told(no_proxy: None, tmp_path: Path, monkeypatch: Patch) -> None:
    """Port 9 of this machine answers nobody: what a cable that is out looks like."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    (tmp_path / "mine.txt").write_text("something else")
    with pytest.raises(
        FileNotFoundError, match=r"could not be downloaded \(.*refused.*unpack it .* --root or MBIB_DATA"
    ):
        load("cifar100-lt", root=tmp_path)
    assert [name for name in os.listdir(tmp_path) if not name.endswith(".lock")] == ["mine.txt"]


class Served(http.server.SimpleHTTPRequestHandler):
    """Sends `content`, and says it is as long as `length`."""

    content, length = b"", 0

    def do_GET(self) -> None:
        if not self.content:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(self.length))
        self.end_headers()
        self.wfile.write(self.content)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def archive(no_proxy: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Patch) -> Iterator[Any]:
    """A small data set in CIFAR-100's archive, served by this machine under the published checksums' names."""
    import torchvision.datasets

    folder = tmp_path_factory.mktemp("archive") / "cifar-100-python"
    folder.mkdir()
    noise = np.random.default_rng(0)

    def part(each: int) -> dict[str, Any]:
        labels = np.repeat(np.arange(4), each)
        return {"data": noise.integers(0, 256, (len(labels), 3072), dtype=np.uint8), "fine_labels": labels.tolist()}

    content = {"train": part(20), "test": part(2), "meta": {"fine_label_names": list("abcd")}}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, value in content.items():
            (folder / name).write_bytes(pickle.dumps(value))
            monkeypatch.setitem(cifar.CIFAR100_MD5, name, hashlib.md5((folder / name).read_bytes()).hexdigest())
            tar.add(folder / name, f"cifar-100-python/{name}")

    class Here(Served):
        whole = packed.getvalue()
        content, length = whole, len(whole)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Here)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kind = torchvision.datasets.CIFAR100
    monkeypatch.setattr(kind, "url", f"http://127.0.0.1:{server.server_port}/cifar-100-python.tar.gz")
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(Here.whole).hexdigest())
    yield Here
    server.shutdown()
    server.server_close()


@pytest.mark.fault("an archive that arrives {damage}")
@pytest.mark.parametrize("damage", ["truncated", "tampered", "cut off by the server", "not at all"])
def test_an_archive_that_arrives_damaged_is_not_unpacked_and_the_next_one_is(
    archive: type[Served], tmp_path: Path, damage: str
) -> None:
    good = archive.content
    middle = len(good) // 2
    archive.content = {
        "truncated": good[:middle],
        "tampered": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
        "cut off by the server": good[:middle],
        "not at all": b"",
    }[damage]
    archive.length = len(archive.content) if damage != "cut off by the server" else len(good)
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded \(.*\)\. Get cifar-100-python.tar.gz from"):
        load("cifar100-lt", imbalance=10, root=tmp_path)
    assert not (tmp_path / "cifar-100-python").exists(), "nothing of it is unpacked"
    archive.content, archive.length = good, len(good)
    assert load("cifar100-lt", imbalance=10, root=tmp_path).classes == list("abcd")


def test_two_processes_that_want_cifar_100_at_once_download_it_once(archive: type[Served], tmp_path: Path) -> None:
    """The second one comes while the first one's archive is on its way."""
    asked: list[str] = []
    send = archive.do_GET

    def slowly(self: Served) -> None:
        asked.append(self.path)
        time.sleep(0.5)
        send(self)

    archive.do_GET = slowly  # type: ignore[method-assign]
    load("cifar100-lt", imbalance=10, root=tmp_path / "alone")
    alone = len(asked)
    forked = multiprocessing.get_context("fork")
    processes = [
        forked.Process(target=load, args=("cifar100-lt",), kwargs={"imbalance": 10, "root": tmp_path / "both"})
        for _ in range(3)
    ]
    for process in processes:
        process.start()
        time.sleep(0.2)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(asked) == 2 * alone
    assert sorted(os.listdir(tmp_path / "both")) == ["cifar-100-python", "cifar-100-python.tar.gz"]


# Checkpoints, weights, lists and records that are not what they seem


@pytest.mark.fault("a checkpoint with one bit changed")
def test_a_checkpoint_with_a_changed_bit_is_refused(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path
) -> None:
    """torch.load takes it for whole, and the run would go on from other weights."""
    settings, checkpoint = replace(TINY, epochs=1), tmp_path / "run.pt"
    network = quietly(settings, tiny_data, checkpoint).network
    weight = next(p for p in network.parameters() if p.dim() == 2 and p.numel() > 1000).detach().numpy().tobytes()
    content = checkpoint.read_bytes()
    start = content.find(weight[:64])
    assert start > 0
    changed = content[:start] + bytes([content[start] ^ 1]) + content[start + 1 :]
    checkpoint.write_bytes(changed)
    torch.load(checkpoint, weights_only=True)
    with pytest.raises(ValueError, match=r"run.pt is not a complete checkpoint: delete it to start"):
        quietly(settings, tiny_data, checkpoint)
    assert checkpoint.read_bytes() == changed


@pytest.mark.fault("a checkpoint whose {part} is of another kind")
@pytest.mark.parametrize("part", ["learner", "optimizer", "scaler", "history", "seconds", "commits"])
def test_a_checkpoint_with_parts_of_another_kind_is_refused(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path, part: str
) -> None:
    checkpoint, precision = tmp_path / "run.pt", "float16" if part == "scaler" else "float32"
    settings = replace(TINY, epochs=1, precision=precision)
    quietly(settings, tiny_data, checkpoint)
    odd = 1 if part == "commits" else {}
    torch.save(torch.load(checkpoint, weights_only=True) | {part: odd}, checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=r"delete it to start the run anew$"):
        quietly(settings, tiny_data, checkpoint)
    assert checkpoint.read_bytes() == before


@pytest.mark.fault("weights that are cut short")
def test_weights_that_are_cut_short_are_refused(whole: Path, tmp_path: Path) -> None:
    (weights,) = (whole / "runs").glob("*.safetensors")
    content = weights.read_bytes()
    for length in (len(content) - 1, len(content) // 2, 100, 7):
        (tmp_path / "x.safetensors").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"x\.safetensors holds no weights that `mbib train` wrote"):
            read_weights(tmp_path / "x.safetensors")


@pytest.mark.fault("a list of runs that is no text")
def test_a_list_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "wanted.toml").write_bytes(b'[[run]]\nmethod = "\xff"\n')
    with pytest.raises(ValueError, match=r"wanted\.toml is no TOML: 'utf-8' codec can't decode"):
        read_wanted(tmp_path / "wanted.toml")


# The loss in a loop of one's own


@pytest.mark.fault("logits of another shape than targets and counts")
@pytest.mark.parametrize("shape", [(4, 2), (4, 1), (4, 4), (3, 3), (4,), (1, 4, 3)])
def test_logits_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """A single column would fit by broadcasting, and give a number that means nothing."""
    targets, good, bad = torch.tensor([0, 1, 2, 0]), torch.zeros(4, 3), torch.zeros(shape)
    words = rf"logits must be \[4, 3\], a row for each target .*, these are {re.escape(str(list(shape)))}"
    for v, z in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match=words):
            BIBLoss([5, 3, 1], beta=1.0)(v, z, targets)
        with pytest.raises(ValueError, match=words):
            MBIBLoss([5, 3, 1], alphas=(0.5,), beta=1.0)([good, v], z, targets)
    assert BIBLoss([5, 3, 1], beta=1.0)(good, good, targets).isfinite()


NO_NUMBERS = r"targets must be a tensor of class numbers, int64 \[B\], not torch"


@pytest.mark.fault("targets that are no class numbers, or out of range")
@pytest.mark.parametrize(("targets", "error", "words"), [
    (torch.zeros(3), TypeError, NO_NUMBERS), (torch.ones(3) > 0, TypeError, NO_NUMBERS),
    (torch.eye(3).long(), TypeError, NO_NUMBERS), (torch.zeros(3, 1).long(), TypeError, NO_NUMBERS),
    (torch.tensor([0, 3, 0]), IndexError, "Target 3 is out of bounds"),
    (torch.tensor([0, -1, 0]), IndexError, "Target -1 is out of bounds"),
])  # fmt: skip
def test_targets_that_are_no_class_numbers_are_refused(targets: Tensor, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        BIBLoss([5, 3, 1], beta=1.0)(torch.zeros(3, 3), torch.zeros(3, 3), targets)


# The list itself


def test_forty_faults_or_more_are_asked_for() -> None:
    code = "\n".join(path.read_text() for path in sorted((ROOT / "tests").glob("test_*.py")))
    marked = re.findall(r'^@pytest\.mark\.fault\("(.+)"\)\n(?:@.+\n|[ \])].*\n)*def test_', code, re.M)
    assert len(marked) == len(set(marked)), "one name, one fault"
    assert len(marked) >= 40, "tests, however many rows they have"
    for fault in (
        "a missing CIFAR-100 file", "a CIFAR-100 file that is {damage}", "an archive that arrives {damage}",
        "a folder's layout: {layout}", "a file among the pictures: {kind}", "labels out of range", "arrays: {kind}",
        "pictures of another dtype or shape, floats among them", "labels of another dtype or shape",
        "{name} of a loss that is out of range, no number, or explodes", "a wrong number of alphas in the loss",
        "mbib {words}", "a checkpoint that is torn: {damage}",
        "counts that are zero, negative, of one class, of another shape, without an order or no numbers",
        "a pickle bomb in place of a checkpoint",
        "a checkpoint of another method, seed, beta or length", "a checkpoint of another {other}",
        "a record edited by hand", "a loss of NaN", "{stop.name} in a terminal", "SIGKILL at 20 random steps",
        "a full disk while a checkpoint is written", "a read-only folder of records", "two campaigns on one list",
        "the lock of a dead campaign", "a campaign without git", "no network for a download",
    ):  # fmt: skip
        assert fault in marked, f"no test asks for: {fault}"
