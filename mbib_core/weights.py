"""Weights on disk: a safetensors file with the settings, the classes and the picture size that belong to them."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mbib_core.files import write_atomically
from mbib_core.methods import method_of
from mbib_core.runs import Trained
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings


def write_weights(run: Trained, path: Path) -> None:
    """Writes the network of `run`, whole or not at all, for `read_weights`. Raises OSError with a sentence."""
    state = {name: value.detach().cpu().contiguous() for name, value in run.network.state_dict().items()}
    values = {"settings": run.settings.plain(), "classes": run.classes, "size": run.size}
    about = {name: json.dumps(value) for name, value in values.items()}
    write_atomically(path, save(state, metadata=about))


def read_weights(path: Path) -> Trained:
    """The network of a .safetensors file that `mbib train` wrote, in evaluation mode on the processor.

    Nothing in the file is executed. Raises FileNotFoundError, or ValueError if the file is not such a file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; `mbib train` writes weights beside its record")
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        settings, classes = Settings.of(json.loads(about["settings"])), json.loads(about["classes"])
        height, width = json.loads(about.get("size", "[32, 32]"))
        network = method_of(settings).network(len(classes), depth=SCHEDULES[str(settings.schedule)].depth)
        network.load_state_dict(state)
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no weights that `mbib train` wrote ({type(error).__name__})") from None
    return Trained(network.eval(), settings, {}, "float32", 0.0, classes=classes, size=(height, width))
