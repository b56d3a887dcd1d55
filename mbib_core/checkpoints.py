"""A run that is not finished, on disk: written whole after an epoch, read again only by the run that it is of."""

import io
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from mbib_core.files import write_atomically
from mbib_core.schedules import same_recipe, schedule_of
from mbib_core.settings import Settings, check_range, run_id

PARTS = {
    *("settings", "recipe", "stage", "epoch", "learner", "optimizer", "scaler"),
    *("history", "precision", "seconds", "commits", "compiled", "ranks"),
}
SHARE = 0.02  # of a run's time that saving may take


class Saver:
    """Saves a run after every epoch: on the disk if that costs at most `SHARE` of the time since the last one was
    written there, else in memory, from where it is written when the run is left, by an error or Ctrl-C too.

    A killed process loses what is in memory: fifty times what writing takes, a second or two. Without a path nothing is
    saved. Raises OSError as `write_checkpoint` does.
    """

    def __init__(self, path: Path | None):
        self.path, self.cost, self.written = path, 0.0, time.perf_counter()
        self.waiting: Mapping[str, Any] | None = None

    def __enter__(self) -> "Saver":
        return self

    def save(self, state: Mapping[str, Any], *, last: bool) -> None:
        """`last`: of a stage, which is always written."""
        if self.path is None:
            return
        now = time.perf_counter()
        if last or self.cost <= SHARE * (now - self.written):
            write_checkpoint(self.path, state)
            self.waiting, self.written = None, time.perf_counter()
            self.cost = self.written - now
        else:
            self.waiting = tree_map_only(torch.Tensor, torch.clone, dict(state))  # the next epoch changes what it holds

    def __exit__(self, *_: object) -> None:
        if self.path is not None and self.waiting is not None:
            write_checkpoint(self.path, self.waiting)


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes plain values and tensors, whole or not at all. Raises OSError with a sentence."""
    content = io.BytesIO()
    torch.save(dict(state), content)
    write_atomically(path, content.getvalue())


def read_checkpoint(path: Path, settings: Settings, ranks: int = 1) -> dict[str, Any] | None:
    """What was saved of the run of `settings`, or None where nothing was. Only values and tensors are loaded, no code.

    Raises ValueError if the file is not complete, or is of another run, of a schedule that was another, or of another
    number of processes than `ranks`.
    """
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as file:  # torch itself does not check the checksums
            if file.testzip():
                raise ValueError("a part was changed")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        own = Settings.of(saved["settings"])
        if missing := PARTS - saved.keys():
            raise KeyError(missing)
        check_range("precision", saved["precision"])
        if not isinstance(saved["seconds"], float) or not isinstance(saved["commits"], list):
            raise TypeError("seconds or commits")
    except Exception:
        raise ValueError(f"{path} is not a complete checkpoint: delete it to start the run anew") from None
    if run_id(own) != run_id(settings):
        raise ValueError(
            f"{path} belongs to the run {run_id(own)}, not to {run_id(settings)}: delete it, or name another file"
        )
    if not same_recipe(saved["recipe"], schedule_of(settings)):
        raise ValueError(f"{path} was begun when the schedule {settings.schedule} was another: delete it to start anew")
    if saved["ranks"] != ranks:
        raise ValueError(
            f"{path} is of a run on {saved['ranks']} processes, this one has {ranks}, and batch norm would differ: "
            f"start as many, or delete it to start anew"
        )
    return saved


def restore(saved: Mapping[str, Any], parts: Mapping[str, Any], history: Mapping[str, list[Any]]) -> int:
    """Puts the saved states back into `parts` (learner, optimizer, scaler, average) and `history`.

    Returns the epochs of the stage that are done. Raises ValueError if a state does not fit.
    """
    try:
        if not torch.equal(saved["learner"]["counts"], parts["learner"].counts.cpu()):
            raise ValueError("counts")
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        for name, values in history.items():
            values[:] = saved["history"][name]
        return int(saved["epoch"])
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError):
        name = run_id(Settings.of(saved["settings"]))
        raise ValueError(
            f"the checkpoint of {name} does not fit this network, the data or the code has changed: delete it to start "
            f"the run anew"
        ) from None
