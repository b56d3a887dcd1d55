"""MBIBLoss with automatic mixed precision and torch.compile: `python examples/amp_compile.py [EPOCHS] [BACKEND]`.

Half-precision logits are computed in float32 by the loss, whose counts stay whole numbers. On a GPU without bfloat16
take float16 and a `torch.amp.GradScaler`.
"""

import sys

import torch

from mbib_core import METHODS, MBIBLoss, load
from mbib_core.evaluation import features_of
from mbib_core.metrics import accuracy_by_class, by_shot

device = "cuda" if torch.cuda.is_available() else "cpu"
epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 4
backend = sys.argv[2] if len(sys.argv) > 2 else "inductor"

torch.manual_seed(0)
data = load("glyphs-lt")
network = METHODS["mbib"].network(len(data.classes), depth=8).to(device)
criterion = MBIBLoss(data.counts, alphas=(0.1, 0.3), beta=1.0).to(device)
optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=3e-4)
x, y = data.train.x.to(device), data.train.y.to(device)


@torch.compile(backend=backend, dynamic=False)
def loss_of(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Network and loss in one; a batch of another size would be compiled once more."""
    with torch.autocast(device, torch.bfloat16):
        outputs = network(images)
        return criterion(outputs.v_logits, outputs.z_logits, targets)


for epoch in range(epochs):
    network.train()
    losses = []
    for rows in torch.randperm(len(y)).split(64):
        if len(rows) < 64:
            continue
        loss = loss_of(x[rows], y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    print(f"epoch {epoch + 1}: the loss is {float(torch.stack(losses).mean()):.4f}")
found = accuracy_by_class(features_of(network, data.test.x)["logits/mean"].cpu(), data.test.y)
print(", ".join(f"{shot} {100 * value:.1f} %" for shot, value in by_shot(found, data.shots).items()))
