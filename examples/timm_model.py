"""MBIBLoss on a network of timm, with timm's optimizer and schedule: `pip install timm`, then run this file [EPOCHS].

timm's own train script takes no loss from outside. The network is drawn at random: `pretrained=True` would download it.
"""

import sys

import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from mbib_core import Bottleneck, MBIBLoss, load
from mbib_core.evaluation import features_of
from mbib_core.metrics import accuracy_by_class, by_shot


class Trunk(nn.Module):
    """Three maps of a timm network and their channels: what `Bottleneck` observes."""

    def __init__(self, name: str, **options: object):
        super().__init__()
        self.stages = timm.create_model(name, features_only=True, out_indices=(2, 3, 4), **options)
        self.channels = tuple(self.stages.feature_info.channels())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.stages(x))


torch.manual_seed(0)
data = load("glyphs-lt")
epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
# With pretrained weights: mean and std of ImageNet, in 0 to 255. `fresh=False` keeps the trunk's weights as they are.
network = Bottleneck(Trunk("test_resnet", pretrained=False), len(data.classes), fresh=False)
criterion = MBIBLoss(data.counts, alphas=(0.1, 0.3), beta=1.0)
optimizer = create_optimizer_v2(network, opt="adamw", lr=3e-3, weight_decay=0.02)  # no decay on biases and batch norm
schedule, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=epochs, warmup_epochs=1, warmup_lr=1e-4)


def accuracy() -> dict[str, float]:
    logits = features_of(network, data.test.x)["logits/mean"]
    return by_shot(accuracy_by_class(logits, data.test.y), data.shots)


before = accuracy()
for epoch in range(epochs):
    schedule.step(epoch)
    network.train()
    for rows in torch.randperm(len(data.train.y)).split(64):
        if len(rows) < 2:
            continue  # batch norm needs two images
        outputs = network(data.train.x[rows])  # uint8: the network normalises
        loss = criterion(outputs.v_logits, outputs.z_logits, data.train.y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
for shot, value in accuracy().items():
    print(f"{shot:8}{100 * before[shot]:5.1f} % of test images right before, {100 * value:5.1f} % after")
