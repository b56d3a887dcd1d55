"""The campaign: makes the wanted runs that have no record yet, side by side, of code whose commit is known."""

import math
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import Timeout

from mbib_core import checkouts
from mbib_core.checkouts import Code, code_of, has_commit, locked, worktree
from mbib_core.devices import pick_device
from mbib_core.files import cache_folder, write_atomically
from mbib_core.runs import Busy
from mbib_core.settings import command_line
from mbib_core.wanted import Wanted, missing, named_like, read_entries, runs_of


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
    that is too short; what an earlier campaign queued is waited for.
    """
    if processes < 1 or threads < 1:
        raise ValueError(f"processes and threads must be 1 or more, not {processes} and {threads}")
    if cluster and minutes < math.inf:
        raise ValueError("minutes are for runs on this machine: a cluster's jobs take --hours")
    if not minutes > 0:
        raise ValueError(f"minutes must be more than 0, not {minutes:g}")
    records = (out or path.parent).resolve()
    folders, entries = (path.resolve().parent, records), read_entries(path)
    wanted = named_like(only, runs_of(entries, *folders))
    todo = missing(wanted, *folders)
    say(f"{len(wanted)} runs wanted, {len(wanted) - len(todo)} have a record, {len(todo)} to make")
    if dry:
        print("\n".join(command_line(w.settings) for w in todo))
        return 0
    code = code_of(path)
    start: Start = _here
    jobs = None
    if cluster:
        from mbib_core.cluster import Jobs

        start = jobs = Jobs(cluster, device=device, threads=threads, hours=hours, partition=partition)
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
            still = missing(todo, *folders)
            if len(still) < len(todo):  # the last run of those that choose may have said what is wanted next
                still = missing(named_like(only, runs_of(entries, *folders)), *folders)
            todo = [w for w in still if w.id not in done]
            free = (w for w in todo if w.id not in running and (cluster or not _is_locked(w.id)))
            while (cluster or len(running) < processes) and (chosen := next(free, None)):
                waiting = jobs.queued(chosen.id) if jobs else None
                if waiting:
                    say(f"in the queue already: {chosen.id}")
                begun = waiting or _start(chosen, records, code, more, requested, start)
                running[chosen.id] = (begun, time.monotonic())
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
        saved = f"{len(running)} runs are saved and go on with the next campaign"
        not_begun = f"{len([w for w in todo if w.id not in running])} are not begun"
        say(f"{minutes:g} minutes are over: {saved}, {not_begun}, {len(failed)} failed")
    else:
        say(f"done: {len(failed)} failed" if failed else "done")
    return 1 if failed else 0


def _stop(running: dict[str, tuple[Process, float]]) -> None:
    for process, _ in running.values():
        process.terminate()
    for process, _ in running.values():
        process.wait()


def say(words: str) -> None:
    print(time.strftime("%H:%M:%S"), words, flush=True)


def _start(wanted: Wanted, records: Path, code: Code, more: list[str], requested: list[str], start: Start) -> Process:
    checkpoint, commit_file = _checkpoint_file(wanted.id), _commit_file(wanted.id)
    resumed = checkpoint.is_file() and commit_file.is_file()
    began = commit_file.read_text(encoding="utf-8", errors="replace").strip() if resumed else code.commit
    folder, commit = checkouts.HERE.parent, code.commit
    if code.repository is not None:
        if resumed and not has_commit(code.repository, began):
            aside = checkpoint.with_suffix(f".{time.strftime('%Y%m%d-%H%M%S')}.aside")
            checkpoint.replace(aside)
            what = f"commit {began[:12]} of {wanted.id} is gone" if began else f"the commit of {wanted.id} is not known"
            say(f"{what}: the run starts anew; its checkpoint is kept as {aside}")
            resumed, began = False, commit
        commit = began
        folder = worktree(code.repository, commit)
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
        with locked(lock, timeout=0):
            return False
    except Timeout:
        return True
