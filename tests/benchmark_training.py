"""A training step beside a plain PyTorch loop: pictures a second on one processor thread, side by side in one run.

    python tests/benchmark_training.py               # about four minutes; nothing else should run
    python tests/benchmark_training.py --method mbib --rounds 9

`plain` is the loop of the tutorials: torchvision's transforms on PIL pictures, a DataLoader, float32. `ours` is one
epoch of `mbib_core.trainer.train`. `bare` is forward, loss and backward of the same network on one fixed batch, in the
precision of `ours`: what no loop can beat. `data` is the drawing and augmenting of the batches alone. ResNet-32 with
100 classes, batches of 128, random pictures, processor time. Each round takes all of them in turn; the medians and the
ratios are over the rounds.
"""

import argparse
import statistics
import time

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from mbib_core import trainer
from mbib_core.datasets import Images, LongTailed
from mbib_core.methods import METHODS, SCHEDULES, settle
from mbib_core.results import Settings

BATCHES, CLASSES = 6, 100
SCHEDULE = SCHEDULES["paper"]


class Pictures(Dataset):
    """PIL pictures through the usual transforms, as torchvision's CIFAR100 gives them."""

    def __init__(self, images: Images):
        self.pictures, self.labels = [to_pil_image(x) for x in images.x], images.y.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, SCHEDULE.padding),
                transforms.RandomHorizontalFlip(),
                transforms.PILToTensor(),  # uint8: the network normalises, as it does for `ours`
            ]
        )

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(self.pictures[index]), self.labels[index]


def random_data() -> LongTailed:
    random = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (BATCHES * SCHEDULE.batch, 3, 32, 32), dtype=torch.uint8, generator=random)
    images = Images(x, torch.arange(len(x)) % CLASSES)
    none = Images(x[:0], images.y[:0])
    return LongTailed("random", images, none, none, [str(i) for i in range(CLASSES)])


def plain(method, data, loader):
    network = method.network(CLASSES, depth=SCHEDULE.depth).train()
    optimizer = torch.optim.SGD(
        network.parameters(), SCHEDULE.rate, SCHEDULE.momentum, weight_decay=SCHEDULE.weight_decay
    )
    start = time.process_time()
    for x, y in loader:
        loss = method.loss(network(x), y, data.counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.process_time() - start


def ours(settings, data):
    start = time.process_time()
    trainer.train(settings, data, progress=False, device="cpu")
    return time.process_time() - start


def bare(method, data, precision):
    network = method.network(CLASSES, depth=SCHEDULE.depth).to(memory_format=torch.channels_last).train()
    x = data.train.x[: SCHEDULE.batch].contiguous(memory_format=torch.channels_last)
    y = data.train.y[: SCHEDULE.batch]
    start = time.process_time()
    for _ in range(BATCHES):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            outputs = network(x)
        method.loss(outputs, y, data.counts).backward()
        network.zero_grad(set_to_none=True)
    return time.process_time() - start


def data_alone(data):
    start = time.process_time()
    padded = trainer.pad(data.train.x, SCHEDULE.padding)
    for index, crop, flip in trainer.batches(len(padded), SCHEDULE, True, 0, 0, torch.device("cpu")):
        trainer.augment(padded, index, crop, flip, SCHEDULE.padding)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", default="mbib", choices=METHODS)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, method = random_data(), METHODS[args.method]
    settings = settle(Settings(data="cifar100-lt", method=args.method, epochs=1, threads=1))
    precision = trainer.pick_precision("auto", torch.device("cpu"))
    loader = DataLoader(Pictures(data.train), SCHEDULE.batch, shuffle=True)
    kinds = {
        "plain": lambda: plain(method, data, loader),
        "ours": lambda: ours(settings, data),
        "bare": lambda: bare(method, data, precision),
        "data": lambda: data_alone(data),
    }
    for measure in kinds.values():
        measure()  # the first time builds kernels
    rounds = [{name: measure() for name, measure in kinds.items()} for _ in range(args.rounds)]
    pictures = BATCHES * SCHEDULE.batch
    print(f"{args.method}, ResNet-{SCHEDULE.depth}, {precision}, one thread of {trainer._processor()}")
    for name in kinds:
        rates = sorted(pictures / one[name] for one in rounds)
        print(f"{name:6} {statistics.median(rates):8.0f} pictures/s   ({rates[0]:.0f} to {rates[-1]:.0f})")
    for words, top, bottom in (
        ("ours is faster than plain by", "plain", "ours"),
        ("ours is slower than bare by ", "ours", "bare"),
        ("data takes of ours the share", "data", "ours"),
    ):
        ratios = sorted(one[top] / one[bottom] for one in rounds)
        print(f"{words} {statistics.median(ratios):6.3f}   ({ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
