"""A run that is not finished, on disk: written whole after every epoch, read again only by the run that it is of."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mbib_core.files import write_atomically
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings, run_id

PARTS = {"settings", "network", "optimizer", "scaler", "history", "precision", "seconds", "commits"}


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes plain values and tensors, whole or not at all. Raises OSError with a sentence."""
    content = io.BytesIO()
    torch.save(dict(state), content)
    write_atomically(path, content.getvalue())


def read_checkpoint(path: Path, settings: Settings) -> dict[str, Any] | None:
    """What was saved of the run of `settings`, or None where nothing was. Only values and tensors are loaded, no code.

    Raises ValueError if the file is not whole, or is of another run or of a schedule that was another.
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
    except Exception:
        raise ValueError(f"{path} is no whole checkpoint of this program: delete it to start the run anew") from None
    if run_id(own) != run_id(settings):
        raise ValueError(
            f"{path} belongs to the run {run_id(own)}, not to {run_id(settings)}: delete it, or name another file"
        )
    recipe = SCHEDULES[str(settings.schedule)].recipe
    if saved.get("recipe", recipe) != recipe:
        raise ValueError(f"{path} was begun when the schedule {settings.schedule} was another: delete it to start anew")
    return saved
