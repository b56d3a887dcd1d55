"""Weights that a backbone starts from: what they are called, where they come from, and how they are put into it."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mbib_core.extras import extra
from mbib_core.files import expand
from mbib_core.networks.imagenet import TIMM, TimmStages, timm, timm_network
from mbib_core.text import listed

# ImageNet's, which torchvision's weights were trained on.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SHA256 = "sha256:"
WRAPPERS = "state_dict", "model_state_dict", "model"  # what a checkpoint keeps the weights under
PREFIXES = "module.", "_orig_mod.", "backbone.", "network."  # of a parallel, compiled or `Bottleneck` network
HEADS = "fc.", "head", "classifier", "conv_head"  # of a network whose stages alone are wanted


class Trunk(NamedTuple):
    """The weights of a backbone: what they are called, the tensors by parameter, and `mean` and `std` [3] (0 to 255) of
    the images that they were trained on."""

    name: str
    state: dict[str, Tensor]
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def put_into(self, backbone: nn.Module) -> None:
        """Gives a backbone these weights. Raises ValueError that names what does not fit."""
        network: Any = backbone.network if isinstance(backbone, TimmStages) else backbone
        wanted, state = network.state_dict(), self.state
        lacking = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
        other = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
        more = [key for key in state if key not in wanted and not key.startswith(HEADS)]
        faults = (("they lack", lacking), ("another shape has", other), ("they also have", more))
        if said := "; ".join(f"{words} {listed(keys, 3)}" for words, keys in faults if keys):
            cure = "" if lacking and not other else "; name the network that they are of with --backbone"
            raise ValueError(f"the weights {self.name} do not fit this backbone: {said}{cure}")
        network.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


def name_of(pretrained: str, backbone: str) -> str:
    """What a run calls the weights that were asked for: "ResNet50_Weights.IMAGENET1K_V2", "timm:resnet18.a1_in1k", or
    the SHA-256 of a file, "sha256:...". A name that already starts with "timm:" or "sha256:" is returned unchanged.

    "default" are the library's recommended ones. Raises ValueError or FileNotFoundError with a sentence if there are no
    such weights.
    """
    if pretrained.startswith((SHA256, TIMM)):
        return pretrained
    if backbone.startswith(TIMM):
        found = timm(backbone).get_pretrained_cfg(backbone.removeprefix(TIMM)) if pretrained == "default" else None
        if found is not None and found.has_weights:
            return f"{TIMM}{found.architecture}.{found.tag}"
        known: list[Any] = []
    else:
        models = extra("torchvision.models", f"the backbone {backbone}")
        known = [] if backbone == "resnet10" else list(models.get_model_weights(backbone))
        if known and pretrained == "default":
            return str(models.get_model_weights(backbone).DEFAULT)
        if names := [str(weights) for weights in known if pretrained in (weights.name, str(weights))]:
            return names[0]
    if path := file_of(pretrained):
        return SHA256 + _digest(path)
    takes = "".join(f"{weights.name}, " for weights in known)
    takes = f"default, {takes}or " if known else ""
    raise FileNotFoundError(
        f"there are no weights {pretrained} of {backbone}, and no file of that name: --pretrained takes {takes}a file "
        f"(.pth or .safetensors)"
    )


def file_of(pretrained: str | None) -> Path | None:
    """The file that `pretrained` names, if it does. Raises OSError if a ~ leads to no home directory."""
    path = expand(pretrained) if pretrained else None
    return path if path and path.is_file() else None


def read_trunk(name: str, file: Path | None = None) -> Trunk:
    """The weights of that name, as `name_of` gives it; those of "sha256:..." are read from `file`.

    Nothing in a file is executed. Raises OSError with a sentence where weights are not here and cannot be fetched,
    ValueError if the file is another one, holds no weights, or was damaged.
    """
    if name.startswith(TIMM):
        try:
            network = timm_network(name, pretrained=True)
        except ImportError:
            raise
        except Exception as error:  # its hub fails in many ways
            raise OSError(
                f"timm cannot fetch {name.removeprefix(TIMM)} ({' '.join(str(error).split())}): save the state_dict() "
                f"of that network, made with features_only=True, where it can, and name the file with --pretrained"
            ) from None
        mean, std = (tuple(255 * value for value in network.pretrained_cfg[part]) for part in ("mean", "std"))
        return Trunk(name, network.state_dict(), mean, std)
    if not name.startswith(SHA256):
        file = _fetched(extra("torchvision.models", f"the weights {name}").get_weight(name).url)
    elif file is None or SHA256 + _digest(file) != name:
        raise ValueError(
            f"the run starts from the weights {name}: name the file that has this digest with --pretrained"
        )
    state = _read(file)
    if "mean" in state and "std" in state:  # a file of `mbib train`
        mean, std = (tuple(state[part].flatten().tolist()) for part in ("mean", "std"))
        return Trunk(name, _stripped(state), mean, std)
    return Trunk(name, _stripped(state))


def _fetched(url: str) -> Path:
    """The file of torchvision's weights in torch's cache, fetched first where it is not there."""
    folder, digest = Path(torch.hub.get_dir()) / "checkpoints", url.rpartition("-")[2].partition(".")[0]
    file = folder / url.rpartition("/")[2]
    if not file.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=digest)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"{url} cannot be fetched ({getattr(error, 'reason', error)}): put that file into {folder}, or name a "
                f"file of your own with --pretrained"
            ) from None
    if not _digest(file).startswith(digest):
        raise ValueError(f"{file} was damaged: delete it, and it is fetched again")
    return file


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict in a file, out of what a checkpoint wraps them in."""
    try:
        if file.suffix == ".safetensors":
            found: Any = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
        while wrapper := next((key for key in WRAPPERS if isinstance(found.get(key), Mapping)), None):
            found = found[wrapper]
        state = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, KeyError, ValueError):
        state = {}
    if not state:
        raise ValueError(
            f"{file} holds no weights that can be read without running code from it: keep them with "
            f"torch.save(network.state_dict(), FILE), or as .safetensors"
        )
    return state


def _stripped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the innermost of the known prefixes, without it."""
    for prefix in PREFIXES:
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)} or state
    return state


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
