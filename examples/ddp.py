"""MBIBLoss in DistributedDataParallel: `torchrun --nproc-per-node 2 examples/ddp.py [EPOCHS]`, on CPUs or GPUs.

Class weights (k > 0) divide by the weights of a batch. Each process would divide by those of its own share; so the
logits of all are brought together, and every process computes the loss of the whole batch, as one alone would.
"""

import os
import sys

import torch
from torch import distributed, nn

from mbib_core import METHODS, MBIBLoss, load
from mbib_core.evaluation import features_of
from mbib_core.metrics import accuracy_by_class, by_shot
from mbib_core.ranks import gathered, spread

on_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
device = torch.device(f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else "cpu")
distributed.init_process_group("nccl" if on_gpu else "gloo")
rank, ranks = distributed.get_rank(), distributed.get_world_size()

data = load("glyphs-lt")
torch.manual_seed(0)  # the same weights, and the same order of the images, in every process
network = METHODS["mbib"].network(len(data.classes), depth=8)
network = (nn.SyncBatchNorm.convert_sync_batchnorm(network) if on_gpu else network).to(device)
parallel = nn.parallel.DistributedDataParallel(network)
criterion = MBIBLoss(data.counts, alphas=(0.1, 0.3), beta=1.0, k=0.3).to(device)
optimizer = torch.optim.SGD(parallel.parameters(), 0.05, momentum=0.9, weight_decay=3e-4)
x, y = data.train.x.to(device), data.train.y.to(device)
for epoch in range(int(sys.argv[1]) if len(sys.argv) > 1 else 4):
    losses = []
    for rows in torch.randperm(len(y)).split(64):
        if len(rows) < 2 * ranks:
            continue  # batch norm needs two images in every process
        mine = rows[rank::ranks]
        outputs = parallel(x[mine])
        with spread(len(rows)):  # of so many images these are every `ranks`-th
            v_logits, z_logits, targets = gathered((outputs.v_logits, outputs.z_logits, y[mine]))
        loss = criterion(v_logits, z_logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    if rank == 0:
        print(f"epoch {epoch + 1}: the loss is {float(torch.stack(losses).mean()):.4f}")
if rank == 0:
    found = accuracy_by_class(features_of(network, data.test.x)["logits/mean"].cpu(), data.test.y)
    print(", ".join(f"{shot} {100 * value:.1f} %" for shot, value in by_shot(found, data.shots).items()))
distributed.destroy_process_group()
