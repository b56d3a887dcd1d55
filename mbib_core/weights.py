"""Weights on disk: a safetensors file with the settings, the network and the classes that belong to them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mbib_core.files import write_atomically
from mbib_core.methods import method_of
from mbib_core.networks import Network
from mbib_core.settings import Settings

SIDES = range(8, 4097)  # pixels a side of the images that a network may take


@dataclass
class Saved:
    """A trained network, its settled settings, the names of its classes, the size (height, width) of the images that it
    takes, and the training images of each class (empty for files that are older than this)."""

    network: nn.Module
    settings: Settings
    classes: list[str]
    size: tuple[int, int] = (32, 32)
    counts: list[int] = field(default_factory=list)


def write_weights(run: Saved, path: Path) -> None:
    """Writes the network of `run`, whole or not at all, for `read_weights`. Raises OSError with a sentence."""
    state = {name: value.detach().cpu().contiguous() for name, value in run.network.state_dict().items()}
    about = {
        "settings": run.settings.plain(),
        "network": asdict(method_of(run.settings).parts),
        "classes": run.classes,
        "size": run.size,
        "counts": run.counts,
        "sha256": digest(state),
    }
    # Under one name: safetensors keeps several in no order, and two equal runs would differ in their bytes.
    write_atomically(path, save(state, metadata={"mbib": json.dumps(about)}))


def read_weights(path: Path) -> Saved:
    """The network of a .safetensors file that `mbib train` wrote, in evaluation mode on the CPU.

    Nothing in the file is executed, and torch's random numbers are left as they are. Raises FileNotFoundError, or
    ValueError if the file is not such a file or was damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; `mbib train` writes weights beside its record")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        about = json.loads(metadata["mbib"]) if "mbib" in metadata else _older(metadata)
        settings, (height, width), classes = Settings.of(about["settings"]), about["size"], about["classes"]
        counts = list(about["counts"])
        _check(path, classes, (height, width))
        with torch.random.fork_rng(devices=[]):
            network = Network(**about["network"]).build(len(classes))
        network.load_state_dict(state)
    except Damaged:
        raise
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} holds no weights that `mbib train` wrote ({type(error).__name__})") from None
    if about.get("sha256", wanted := digest(state)) != wanted:
        raise ValueError(f"{path} was damaged after it was written: copy it again, or train the run anew")
    return Saved(network.eval(), settings, classes, (height, width), counts)


class Damaged(ValueError):
    """Weights that say what cannot be."""


def _check(path: Path, classes: Any, size: tuple[Any, Any]) -> None:
    names = classes if isinstance(classes, list) and all(isinstance(name, str) for name in classes) else []
    if not names or len(set(names)) < len(names):
        raise Damaged(f"{path} is damaged: its classes are not names, each once; restore it or train again")
    if not all(type(side) is int and side in SIDES for side in size):
        raise Damaged(f"{path} is damaged: its images would have {size} pixels; restore it or train again")


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the tensors: names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name, value in sorted(state.items()):
        total.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        total.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _older(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What files say that were written before they described their network."""
    about = {name: json.loads(value) for name, value in metadata.items()}
    network = asdict(method_of(Settings.of(about["settings"])).parts)
    return {"size": [32, 32], "counts": [], "network": network} | about
