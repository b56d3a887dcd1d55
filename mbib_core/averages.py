"""Averages of a network's weights over a stage of training, and the batch norm that belongs to them."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from mbib_core.data.longtailed import Images
from mbib_core.evaluation import batch_of

LATE = 0.75  # the share of the epochs after which weights are averaged


def averaged(network: nn.Module, kind: str) -> AveragedModel:
    """A mean of the weights that `update_parameters(network)` adds to.

    "ema" forgets: after n steps it keeps min(0.999, (1 + n) / (10 + n)) of itself. "swa" weighs all alike (Izmailov et
    al. 2018).
    """

    def forgetting(mean: Any, weights: Any, n: Any) -> None:
        get_ema_multi_avg_fn(min(0.999, (1 + int(n)) / (10 + int(n))))(mean, weights, n)

    return AveragedModel(network, multi_avg_fn=forgetting if kind == "ema" else get_swa_multi_avg_fn())


def put_into(network: nn.Module, mean: AveragedModel, images: Images) -> None:
    """Gives `network` the averaged weights, and the statistics of batch norm that they have on the `images`.

    Batch norm that was not trained has those that it had, as its features are what they were.
    """
    network.load_state_dict(mean.module.state_dict())
    renew_batch_norm(network, images)


@torch.no_grad()
def renew_batch_norm(network: nn.Module, images: Images, batch: int | None = None) -> None:
    """Takes the running statistics of batch norm that is trained anew: means over batches of all `images`, as they
    are. torch's `update_bn` would do so to all of it."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    renewed = [module for module in norms if any(p.requires_grad for p in module.parameters())]
    if not renewed:
        return
    device, training = next(network.parameters()).device, network.training
    momenta = [module.momentum for module in renewed]
    network.train()
    for module in norms:
        module.train(module in renewed)
    for module in renewed:
        module.reset_running_stats()
        module.momentum = None  # a plain mean
    batch = batch or batch_of(images.size)
    for part, _ in images.chunks(batch, even=True):  # nearly alike, for they weigh alike; no last one of one image
        network(part.to(device).contiguous(memory_format=torch.channels_last))
    for module, momentum in zip(renewed, momenta, strict=True):
        module.momentum = momentum
    network.train(training)
