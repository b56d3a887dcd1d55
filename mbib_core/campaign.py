"""The campaign: makes the wanted runs that have no record yet, in parallel, each from a clean checkout."""

import itertools
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
from typing import Any

from filelock import FileLock, Timeout

from mbib_core.data import NAMES, glyphs
from mbib_core.data.longtailed import long_tailed_counts
from mbib_core.files import cache_folder, write_atomically
from mbib_core.methods import settle
from mbib_core.results import read_record
from mbib_core.runs import Busy
from mbib_core.settings import Settings, command_line, named, run_id

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
            "a campaign makes runs on published data: give folders to `mbib train`, and leave pictures out"
        )
    settled = settle(settings)
    named(dict.fromkeys(NAMES), settled.data, "data set")
    PROFILES.get(settled.data, float)(settled.imbalance)
    return settled


def missing(wanted: list[Wanted], records: Path) -> list[Wanted]:
    """The wanted runs that lack their record, or what they keep, in the folder `records`.

    Raises ValueError on a record that is not whole.
    """

    def made(w: Wanted) -> bool:
        files = [records / f"{w.id}{suffix}" for suffix in w.leaves]
        return all(file.is_file() for file in files) and bool(read_record(files[0]))

    return [w for w in wanted if not made(w)]


def campaign(
    path: Path,
    *,
    processes: int = 1,
    threads: int = 1,
    root: Path | None = None,
    compiled: bool = False,
    dry: bool = False,
) -> int:
    """Works through the list at `path`; records go beside it. Returns 0, or 1 if a run failed.

    A run starts from a worktree at this checkout's commit and, if it was cut, goes on at the commit it started from.
    A run that another process is making is left to it. A dirty checkout is refused: a record must name its code.
    """
    if processes < 1 or threads < 1:
        raise ValueError(f"processes and threads must be 1 or more, not {processes} and {threads}")
    records = path.resolve().parent
    wanted = read_wanted(path)
    todo = missing(wanted, records)
    say(f"{len(wanted)} runs wanted, {len(wanted) - len(todo)} have a record, {len(todo)} to make")
    if dry:
        print("\n".join(command_line(w.settings) for w in todo))
        return 0
    head = clean_commit(records)
    if threading.current_thread() is threading.main_thread():  # the only one that may: SIGTERM stops the runs, too
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    running: dict[str, tuple[subprocess.Popen, float]] = {}
    done: set[str] = set()
    failed: list[str] = []
    try:
        while todo or running:
            for name, (process, started) in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    if process.returncode == Busy.status:
                        continue
                    done.add(name)
                    minutes = (time.monotonic() - started) / 60
                    if process.returncode == 0:
                        _commit_file(name).unlink(missing_ok=True)
                        say(f"made {name} in {minutes:.0f} min")
                    else:
                        failed.append(name)
                        say(f"FAILED {name} (status {process.returncode}): see {_log_file(name)}")
            todo = [w for w in missing(todo, records) if w.id not in done]
            free = (w for w in todo if w.id not in running and not _is_locked(w.id))
            while len(running) < processes and (chosen := next(free, None)):
                running[chosen.id] = (_start(chosen, records, head, threads, root, compiled), time.monotonic())
            if todo and not running:
                say(f"left to other processes: {', '.join(w.id for w in todo)}")
                break
            time.sleep(1)
    except BaseException:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()
        say(f"stopped; {len(running)} runs are saved and go on with the next campaign")
        raise
    say(f"done: {len(failed)} failed" if failed else "done")
    return 1 if failed else 0


def clean_commit(records: Path) -> str:
    """The commit of the checkout that holds `records`. Raises ValueError if there is none or files differ from it."""
    try:
        # Of this folder; all else counts. A run that was killed while it wrote leaves a .part file.
        others = [f":(exclude)*{suffix}" for suffix in (*RECORD_SUFFIXES, ".part")]
        changes = _git(records, "status", "--porcelain", "--untracked-files=all", "--", ":/", *others).splitlines()
        commit = _git(records, "rev-parse", "HEAD").strip()
    except FileNotFoundError:
        raise ValueError("git is not installed: a campaign records the commit of every run, so it needs git") from None
    except subprocess.CalledProcessError as error:
        raise ValueError(f"{records} is in no git checkout with a commit ({error.stderr.strip()})") from None
    if changes:
        names = ", ".join(line[3:] for line in changes[:3]) + (f" and {len(changes) - 3} more" * (len(changes) > 3))
        raise ValueError(
            f"{names} differ from the last commit: commit or stash what changed, so that a record can name the code it "
            f"was made with"
        )
    return commit


def say(words: str) -> None:
    print(time.strftime("%H:%M:%S"), words, flush=True)


def _start(
    wanted: Wanted, records: Path, head: str, threads: int, root: Path | None, compiled: bool
) -> subprocess.Popen:
    checkpoint, commit_file = _checkpoint_file(wanted.id), _commit_file(wanted.id)
    resumed = checkpoint.is_file() and commit_file.is_file()
    commit = commit_file.read_text(encoding="utf-8", errors="replace").strip() if resumed else head
    if resumed and not _has_commit(records, commit):
        aside = checkpoint.with_suffix(f".{time.strftime('%Y%m%d-%H%M%S')}.aside")
        checkpoint.replace(aside)
        what = f"commit {commit[:12]} of {wanted.id} is gone" if commit else f"the commit of {wanted.id} is not known"
        say(f"{what}: the run starts anew; its checkpoint is kept as {aside}")
        resumed, commit = False, head
    code = _worktree(records, commit)
    if not (commit_file.is_file() and commit_file.read_bytes() == commit.encode()):
        write_atomically(commit_file, commit.encode())
    words = shlex.split(command_line(wanted.settings))[1:]
    words += ["--threads", str(threads), "--out", str(records), "--checkpoints", str(checkpoint.parent)]
    words += {"": ["--no-weights"], "weights": [], "all": ["--features"]}[wanted.keep]
    if (records / f"{wanted.id}.json").is_file():  # a file that belongs beside the record is missing
        words += ["--again"]
    known = (code / "mbib_core" / "cli.py").read_text(encoding="utf-8")  # a resumed run may be older than an option
    requested = ["--no-report", *["--compile"] * compiled]
    words += [option for option in requested if option in known]
    words += ["--root", str(root.resolve())] if root else []
    _log_file(wanted.id).parent.mkdir(parents=True, exist_ok=True)
    with _log_file(wanted.id).open("ab") as log:
        # -P and the working folder: the run imports the worktree's package, not an installed one.
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.path.insert(0, '.'); from mbib_core.cli import main; "
             "sys.exit(main())", *words],
            cwd=code, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    say(f"{'going on with' if resumed else 'started'} {wanted.id} at {commit[:12]}")
    return process


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
