"""The campaign: makes the wanted runs that have no record yet, side by side, of code whose commit is known."""

import itertools
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout

from mbib_core.data import glyphs
from mbib_core.data.longtailed import long_tailed_counts
from mbib_core.devices import pick_device
from mbib_core.files import cache_folder, write_atomically
from mbib_core.methods import settle
from mbib_core.results import read_record
from mbib_core.runs import Busy
from mbib_core.settings import Settings, command_line, named, run_id

HERE = Path(__file__).resolve().parent
RECORD_SUFFIXES = (".json", ".safetensors", ".npz")
# What is known of published data without reading them: an impossible imbalance factor raises ValueError.
PROFILES: dict[str, Callable[[float], Any]] = {
    "glyphs-lt": glyphs.counts,
    "cifar100-lt": partial(long_tailed_counts, 500, 100),
}


@dataclass(frozen=True)
class Wanted:
    """One run of the list; `keep` says what it leaves beside the record: "" (nothing), "weights", or "all" (weights
    and features)."""

    settings: Settings
    keep: str

    @property
    def id(self) -> str:
        return run_id(self.settings)

    @property
    def leaves(self) -> tuple[str, ...]:
        """The suffixes of the files that it leaves."""
        return RECORD_SUFFIXES[: 1 + ("", "weights", "all").index(self.keep)]


def read_wanted(path: Path) -> list[Wanted]:
    """The runs that a list asks for, in order.

    Each `[[run]]` gives settings by name; a list of values stands for one run per value (for `alphas` a list of
    lists), several lists for all combinations, the last one changing fastest. `keep = "weights"` keeps the weights,
    `keep = "all"` also the features of test pictures.
    Raises FileNotFoundError, or ValueError with the number of the entry that is wrong.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no list {path}; name the list of wanted runs")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from None
    entries = content.pop("run", [])
    if content or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} must hold [[run]] entries and nothing else{': ' * bool(content)}{', '.join(content)}")
    wanted: list[Wanted] = []
    for number, entry in enumerate(entries, start=1):
        try:
            keep = entry.get("keep", "")
            if keep not in ("", "weights", "all"):
                raise ValueError(f'keep is {keep!r}: it must be "weights" or "all"')
            wanted += [Wanted(_published(Settings.of(one)), keep) for one in _combinations(entry)]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, run {number}: {error}") from None
    most = {w.id: w.keep for w in sorted(wanted, key=lambda w: ("", "weights", "all").index(w.keep))}
    first = {w.id: w.settings for w in reversed(wanted)}
    return [Wanted(first[name], most[name]) for name in dict.fromkeys(w.id for w in wanted)]


def _published(settings: Settings) -> Settings:
    """Settled settings of a run on published data. Raises ValueError on other data, or an impossible imbalance."""
    if settings.own_pictures:
        raise ValueError(
            f"a campaign makes runs on {' and '.join(PROFILES)} only: use `mbib train` for images of your own and for "
            f"lists"
        )
    settled = settle(settings)
    named(PROFILES, settled.data, "data set")(settled.imbalance)
    return settled


def missing(wanted: list[Wanted], *records: Path) -> list[Wanted]:
    """The wanted runs that have their record, and what they keep, in none of the folders `records`.

    Raises ValueError on a record that is not whole.
    """

    def made(w: Wanted, folder: Path) -> bool:
        files = [folder / f"{w.id}{suffix}" for suffix in w.leaves]
        return all(file.is_file() for file in files) and bool(read_record(files[0]))

    return [w for w in wanted if not any(made(w, folder) for folder in records)]


@dataclass(frozen=True)
class Code:
    """What runs are made from: worktrees of a `repository`, the first one at its `commit`; or without one this very
    package, of which $MBIB_COMMIT says the commit."""

    repository: Path | None
    commit: str


class Process(Protocol):
    """What of `subprocess.Popen` a campaign needs of a run that is being made."""

    returncode: int | None

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def wait(self) -> Any: ...


Start = Callable[[list[str], Path, Path], Process]  # words of a command, its folder and its log


def campaign(
    path: Path,
    *,
    out: Path | None = None,
    only: str = "",
    processes: int = 1,
    threads: int = 1,
    minutes: float = math.inf,
    root: Path | None = None,
    device: str | None = None,
    compiled: bool = False,
    captured: bool = True,
    dry: bool = False,
    cluster: str | None = None,
    hours: float = 24,
    partition: str | None = None,
) -> int:
    """Works through the list at `path`, or the runs in whose names the expression `only` is found; records go beside
    the list, or into `out`. Returns 0, or 1 if a run failed.

    A run starts from a worktree at this checkout's commit and, if it was cut, goes on at the commit it started from; in
    an unpacked archive, where $MBIB_COMMIT says what it is, all runs are of this very code. A run that another process
    is making is left to it. A dirty checkout is refused: a record must name its code. After so many `minutes` what runs
    is saved and left. On a `cluster` all are queued at once, each as a job of at most `hours`, which is queued again if
    that is too short.
    """
    if processes < 1 or threads < 1:
        raise ValueError(f"processes and threads must be 1 or more, not {processes} and {threads}")
    if cluster and minutes < math.inf:
        raise ValueError("minutes are for runs on this machine: a cluster's jobs take --hours")
    if not minutes > 0:
        raise ValueError(f"minutes must be more than 0, not {minutes:g}")
    records = (out or path.parent).resolve()
    wanted = _named_like(only, read_wanted(path))
    todo = missing(wanted, path.resolve().parent, records)
    say(f"{len(wanted)} runs wanted, {len(wanted) - len(todo)} have a record, {len(todo)} to make")
    if dry:
        print("\n".join(command_line(w.settings) for w in todo))
        return 0
    code = code_of(path)
    start: Start = _here
    if cluster:
        from mbib_core.cluster import Jobs

        start = Jobs(cluster, device=device, threads=threads, hours=hours, partition=partition)
    elif device and not (device.startswith("cuda") and torch.cuda.is_available()):  # the card is for the runs
        pick_device(device)
    more = ["--threads", str(threads)] + (["--device", device] if device else [])
    more += ["--root", str(root.resolve())] if root else []
    requested = ["--no-report", *["--compile"] * compiled, *["--no-capture"] * (not captured)]
    records.mkdir(parents=True, exist_ok=True)
    if threading.current_thread() is threading.main_thread():  # the only one that may: SIGTERM stops the runs, too
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    end = time.monotonic() + 60 * minutes
    running: dict[str, tuple[Process, float]] = {}
    done: set[str] = set()
    failed: list[str] = []
    try:
        while (todo or running) and time.monotonic() < end:
            for name, (process, started) in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    if process.returncode == Busy.status:
                        if cluster:  # nothing here tells when the other is done
                            done.add(name)
                            say(f"left to other processes: {name}")
                        continue
                    done.add(name)
                    spent = (time.monotonic() - started) / 60
                    if process.returncode == 0:
                        _commit_file(name).unlink(missing_ok=True)
                        say(f"made {name} in {spent:.0f} min")
                    else:
                        failed.append(name)
                        say(f"FAILED {name} (status {process.returncode}): see {_log_file(name)}")
            todo = [w for w in missing(todo, path.resolve().parent, records) if w.id not in done]
            free = (w for w in todo if w.id not in running and (cluster or not _is_locked(w.id)))
            while (cluster or len(running) < processes) and (chosen := next(free, None)):
                running[chosen.id] = (_start(chosen, records, code, more, requested, start), time.monotonic())
            if todo and not running:
                say(f"left to other processes: {', '.join(w.id for w in todo)}")
                todo = []
            time.sleep(1)
    except BaseException:
        _stop(running)
        kept = "stay in the queue" if cluster else "are saved and go on with the next campaign"
        say(f"stopped; {len(running)} runs {kept}")
        raise
    _stop(running)
    if running or todo:
        begun = f"{len(running)} runs are saved and go on with the next campaign"
        not_begun = f"{len([w for w in todo if w.id not in running])} are not begun"
        say(f"{minutes:g} minutes are over: {begun}, {not_begun}, {len(failed)} failed")
    else:
        say(f"done: {len(failed)} failed" if failed else "done")
    return 1 if failed else 0


def _named_like(only: str, wanted: list[Wanted]) -> list[Wanted]:
    """The runs in whose names the regular expression `only` is found."""
    try:
        found = [w for w in wanted if re.search(only, w.id)]
    except re.error as error:
        raise ValueError(f"{only!r} is no regular expression ({error}): give a part of a run's name") from None
    if wanted and not found:
        raise ValueError(f"no run has a name with {only!r} in it; one of them is {wanted[0].id}")
    return found


def _stop(running: dict[str, tuple[Process, float]]) -> None:
    for process, _ in running.values():
        process.terminate()
    for process, _ in running.values():
        process.wait()


def code_of(path: Path) -> Code:
    """The code that the runs of the list at `path` are made from: the checkout that the list lies in, if it is one of
    this project, else the one that this package runs from, else the archive that $MBIB_COMMIT names.

    Raises ValueError if there is none of them, or if files of the checkout differ from its commit.
    """
    said = []
    try:
        for folder in (path.resolve().parent, HERE.parent):
            try:
                ours = _git(folder, "ls-tree", "--full-tree", "--name-only", "HEAD", "mbib_core/cli.py")
            except subprocess.CalledProcessError as error:
                said.append(error.stderr.strip())
            else:
                if ours:
                    return Code(folder, clean_commit(folder))
    except FileNotFoundError:
        said = ["git is not installed"]
    if commit := os.environ.get("MBIB_COMMIT"):
        return Code(None, commit)
    raise ValueError(
        f"neither {path.parent} nor the code is in a git checkout with a commit of this project"
        f"{f' ({said[0]})' if said else ''}: a record names the commit of its run, so say in MBIB_COMMIT which one an "
        f"unpacked archive is of"
    )


def clean_commit(folder: Path) -> str:
    """The commit of the checkout that holds `folder`. Raises ValueError if files differ from it."""
    # Records count nowhere. A run that was killed while it wrote leaves a .part file.
    others = [f":(exclude)*{suffix}" for suffix in (*RECORD_SUFFIXES, ".part")]
    changes = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", ":/", *others).splitlines()
    if changes:
        names = ", ".join(line[3:] for line in changes[:3]) + (f" and {len(changes) - 3} more" * (len(changes) > 3))
        raise ValueError(
            f"{names} differ from the last commit: commit or stash what changed, so that a record can name the code it "
            f"was made with"
        )
    return _git(folder, "rev-parse", "HEAD").strip()


def say(words: str) -> None:
    print(time.strftime("%H:%M:%S"), words, flush=True)


def _start(wanted: Wanted, records: Path, code: Code, more: list[str], requested: list[str], start: Start) -> Process:
    checkpoint, commit_file = _checkpoint_file(wanted.id), _commit_file(wanted.id)
    resumed = checkpoint.is_file() and commit_file.is_file()
    began = commit_file.read_text(encoding="utf-8", errors="replace").strip() if resumed else code.commit
    folder, commit = HERE.parent, code.commit
    if code.repository is not None:
        if resumed and not _has_commit(code.repository, began):
            aside = checkpoint.with_suffix(f".{time.strftime('%Y%m%d-%H%M%S')}.aside")
            checkpoint.replace(aside)
            what = f"commit {began[:12]} of {wanted.id} is gone" if began else f"the commit of {wanted.id} is not known"
            say(f"{what}: the run starts anew; its checkpoint is kept as {aside}")
            resumed, began = False, commit
        commit = began
        folder = _worktree(code.repository, commit)
    if not (commit_file.is_file() and commit_file.read_bytes() == commit.encode()):
        write_atomically(commit_file, commit.encode())
    words = shlex.split(command_line(wanted.settings))[1:]
    words += [*more, "--out", str(records), "--checkpoints", str(checkpoint.parent)]
    words += {"": ["--no-weights"], "weights": [], "all": ["--features"]}[wanted.keep]
    if (records / f"{wanted.id}.json").is_file():  # a file that belongs beside the record is missing
        words += ["--again"]
    there = [folder / "mbib_core" / name for name in ("cli.py", "options.py")]
    known = "".join(file.read_text(encoding="utf-8") for file in there if file.is_file())
    words += [option for option in requested if option in known]  # a resumed run may be older than an option
    log = _log_file(wanted.id)
    log.parent.mkdir(parents=True, exist_ok=True)
    # -P and the working folder: the run imports the code of that folder, not an installed one.
    run = "import sys; sys.path.insert(0, '.'); from mbib_core.cli import main; sys.exit(main())"
    process = start([sys.executable, "-c", run, *words], folder, log)
    say(f"{'going on with' if resumed else 'started'} {wanted.id} at {commit[:12]}")
    return process


def _here(words: list[str], folder: Path, log: Path) -> Process:
    with log.open("ab") as file:
        return subprocess.Popen(words, cwd=folder, stdout=file, stderr=file, stdin=subprocess.DEVNULL)


def _worktree(repository: Path, commit: str) -> Path:
    folder = cache_folder() / "worktrees" / commit
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):  # two campaigns may want it at once
        if not _is_clean(folder, commit):  # missing, incomplete, edited, or of a repository that is gone
            shutil.rmtree(folder, ignore_errors=True)
            try:
                _git(repository, "worktree", "prune")
                _git(repository, "worktree", "add", "--detach", "--force", "--force", str(folder), commit)
            except subprocess.CalledProcessError as error:
                reason = error.stderr.strip().splitlines()[-1]
                raise OSError(
                    f"commit {commit[:12]} could not be checked out into {folder} ({reason}): make room there, or name "
                    f"another folder with MBIB_CACHE"
                ) from None
    return folder


def _is_clean(folder: Path, commit: str) -> bool:
    try:
        top, head = _git(folder, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        return Path(top) == folder.resolve() and head == commit and not _git(folder, "status", "--porcelain")
    except subprocess.CalledProcessError:
        return False


def _has_commit(repository: Path, commit: str) -> bool:
    if not re.fullmatch("[0-9a-f]{40,64}", commit):
        return False
    try:
        _git(repository, "cat-file", "-e", f"{commit}^{{commit}}")
    except subprocess.CalledProcessError:
        return False
    return True


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout


def _checkpoint_file(name: str) -> Path:
    return cache_folder() / "checkpoints" / f"{name}.pt"


def _commit_file(name: str) -> Path:
    return _checkpoint_file(name).with_suffix(".commit")


def _log_file(name: str) -> Path:
    return cache_folder() / "logs" / f"{name}.log"


def _is_locked(name: str) -> bool:
    lock = _checkpoint_file(name).with_suffix(".lock")
    if not lock.exists():
        return False
    try:
        with _locked(lock, timeout=0):
            return False
    except Timeout:
        return True


def _locked(path: Path, timeout: float = -1) -> AbstractContextManager[Any]:
    """The held lock. Raises Timeout, or OSError with a sentence where files cannot be locked."""
    try:
        return FileLock(path, timeout=timeout).acquire()
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        raise OSError(
            f"{path} cannot be locked ({error}), so two processes might make one run: name a folder on a local disk "
            f"with MBIB_CACHE"
        ) from None


def _combinations(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    choices = {}
    for name, value in entry.items():
        if name == "keep":
            continue
        several = isinstance(value, list) and (name != "alphas" or (value and isinstance(value[0], list)))
        choices[name] = value if several else [value]
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))
