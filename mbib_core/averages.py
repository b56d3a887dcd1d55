"""Averages of a network's weights over a stage of training, and the batch norm that belongs to them."""

import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

LATE = 0.75  # the share of the epochs after which weights are averaged


def renew_batch_norm(network: nn.Module, x: UInt8[Tensor, "n 3 h w"], batch: int = 500) -> None:
    """Takes batch norm's running statistics anew: means over batches of all images `x`, as they are."""
    device = next(network.parameters()).device
    parts = x.tensor_split(-(-len(x) // batch))  # nearly alike, for the batches weigh alike; no last one of one image
    update_bn((part.to(device).contiguous(memory_format=torch.channels_last) for part in parts), network)
