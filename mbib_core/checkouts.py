"""The code that runs are made from: a checkout at one of its commits, or this very package."""

import os
import re
import shutil
import subprocess
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mbib_core.files import cache_folder
from mbib_core.wanted import RECORD_SUFFIXES

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Code:
    """What runs are made from: worktrees of a `repository`, the first one at its `commit`; or without one this very
    package, of which $MBIB_COMMIT says the commit."""

    repository: Path | None
    commit: str


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


def worktree(repository: Path, commit: str) -> Path:
    folder = cache_folder() / "worktrees" / commit
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):  # two campaigns may want it at once
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


def has_commit(repository: Path, commit: str) -> bool:
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


def locked(path: Path, timeout: float = -1) -> AbstractContextManager[Any]:
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
