"""MBIBLoss in a training loop of your own, on a network of your own: `python examples/own_loop.py`, some seconds.

Nothing here is this package's but the loss, the data and the way accuracy is averaged. Feature maps are hooked from a
plain network; each is pooled to an observation v_i with a linear classifier, and the last one is made into z.
"""

import torch
from torch import nn

from mbib_core.criteria import MBIBLoss
from mbib_core.data import load
from mbib_core.metrics import accuracy_by_class, by_shot

torch.manual_seed(0)
data = load("glyphs-lt")
classes, counts = len(data.classes), data.counts
x_train, x_test = ((part.x.float() - 127.5) / 64 for part in (data.train, data.test))  # as your loader gives them


def stage(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, 2, 1), nn.BatchNorm2d(out), nn.ReLU())


network = nn.Sequential(stage(3, 16), stage(16, 32), stage(32, 64), stage(64, 64), nn.Flatten(), nn.Dropout(0.1))
observed: list[torch.Tensor] = []
for layer, size in ((1, 4), (2, 4), (5, None)):  # the last observation is the network's own output, 64 x 2 x 2
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Flatten()) if size else nn.Identity()
    network[layer].register_forward_hook(lambda _module, _inputs, out, pool=pool: observed.append(pool(out)))
v_classifiers = nn.ModuleList(nn.Linear(width, classes) for width in (32 * 16, 64 * 16, 256))
represent = nn.Sequential(nn.Linear(256, 64), nn.BatchNorm1d(64), nn.ReLU())
z_classifier = nn.Linear(64, classes)
everything = nn.ModuleList([network, v_classifiers, represent, z_classifier])


def forward(x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    observed.clear()
    network(x)
    v_logits = [classifier(v) for classifier, v in zip(v_classifiers, observed, strict=True)]
    return v_logits, z_classifier(represent(observed[-1]))


criterion = MBIBLoss(counts, alphas=(0.1, 0.3), beta=1.0)  # .to(device), if your network is on a GPU
optimizer = torch.optim.AdamW(everything.parameters(), 3e-3)
for _epoch in range(8):
    for rows in torch.randperm(len(data.train.y)).split(64):
        if len(rows) < 2:
            continue  # batch norm needs two pictures
        v_logits, z_logits = forward(x_train[rows])
        loss = criterion(v_logits, z_logits, data.train.y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

everything.eval()
with torch.inference_mode():
    v_logits, z_logits = forward(x_test)
accuracy = accuracy_by_class((v_logits[-1] + z_logits) / 2, data.test.y)
for shot, value in by_shot(accuracy, data.shots).items():
    print(f"{shot:8}{100 * value:5.1f} % of test pictures right")
