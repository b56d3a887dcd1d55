"""A run that is not finished, on disk: written whole after every epoch, read again only by the run that it is of."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mbib_core.files import write_atomically
from mbib_core.schedules import same_recipe, schedule_of
from mbib_core.settings import Settings, check_range, run_id

PARTS = {
    *("settings", "recipe", "stage", "epoch", "learner", "optimizer", "scaler"),
    *("history", "precision", "seconds", "commits", "compiled", "ranks"),
}


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
