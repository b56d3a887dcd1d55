"""Files on disk: written whole or not at all, and where data and checkpoints live between runs."""

import glob
import os
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: what was there stays until the new content is on the disk.

    Temporary files that killed processes left beside it are removed. Raises OSError with a sentence if it cannot be
    written (no space, no permission).
    """
    with suppress(OSError):  # of a folder that cannot be read or written
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            if not _may_run(left.name.split(".")[-2]):
                left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):  # nothing can be taken away where nothing can be written
            temporary.unlink()
        raise OSError(
            f"{path} could not be written ({error.strerror}); what was there before is untouched. Make room or "
            f"choose another folder, and run the same command again"
        ) from None


def check_writable(folder: Path) -> None:
    """Makes the folder and writes into it, so that a run is not trained in vain. Raises OSError with a sentence."""
    probe = folder / f".probe.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error.strerror}): make room, or choose another folder") from None


def expand(path: str | Path) -> Path:
    """`path` with its ~ or ~user replaced. Raises OSError with a sentence if there is no such home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise OSError(f"the home directory in {path} is not known: write the path without ~") from None


def _may_run(pid: str) -> bool:
    """Whether a process of this number may exist. On Windows always: signal 0 would end it there."""
    if os.name == "posix":
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except (OSError, ValueError, OverflowError):  # another user's, or no number
            return True
    return True


def cache_folder() -> Path:
    """Where data and checkpoints live between runs: $MBIB_CACHE, else `mbib` in the user's cache folder.

    Raises OSError with a sentence if neither is given and the user has no home directory (as in some containers).
    """
    if own := os.environ.get("MBIB_CACHE"):
        return expand(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mbib"
    except RuntimeError:
        raise OSError(
            "there is no home directory to keep data and checkpoints in: name a folder with MBIB_CACHE"
        ) from None
