"""A training step beside a plain PyTorch loop: pictures a second on one processor thread, side by side in one run.

    python tests/benchmark_training.py               # about four minutes; nothing else should run
    python tests/benchmark_training.py --method ce --save book/results/speed.csv

`plain` is the loop of the tutorials: torchvision's transforms on PIL pictures, a DataLoader, float32. `ours` is an
epoch of `mbib_core.trainer.train`, `compiled` the same with `compiled=True` (built before). `bare` is forward, loss and
backward of the same network on one fixed batch, in the precision of `ours`: what no loop without a compiler can beat.
`data` is the drawing and augmenting of the batches alone. ResNet-32 with 100 classes, batches of 128, random pictures,
processor time. Each round takes all of them in turn; the medians and the ratios are over the rounds. Then a profile:
which share of a step goes where. `--save` puts the lines into a table, in place of those of this machine and method.
"""

import argparse
import statistics
import time
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from mbib_core import trainer
from mbib_core.batches import Source, draw
from mbib_core.data import Images, LongTailed
from mbib_core.devices import name_of, pick_precision
from mbib_core.methods import METHODS, method_of, settle
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings

BATCHES, CLASSES = 6, 100
SCHEDULE = SCHEDULES["paper"]
# Processor times: how often the one goes into the other. `data / ours` is a share.
RATIOS = (("plain", "ours"), ("plain", "compiled"), ("ours", "bare"), ("ours", "compiled"), ("data", "ours"))
KINDS = {  # of work, and how the profiler names it
    "convolutions": ("convolution",),
    "batch norm": ("batch_norm",),
    "ReLU": ("clamp_min", "threshold_backward"),
    "additions": ("aten::add",),
    "built code": ("CompiledFxGraph",),  # batch norm, ReLU and additions in one
    "all else": (),
}


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


def ours(settings, data, compiled=False):
    """The second of three epochs: from its draws to those of the third."""
    starts = []
    with patch.object(trainer, "draw", lambda *y, **given: (starts.append(time.process_time()), draw(*y, **given))[1]):
        run = trainer.train(settings, data, progress=False, device="cpu", compiled=compiled)
    assert run.compiled == compiled, "the network could not be compiled here"
    return starts[2] - starts[1]


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
    source = Source(data.train, SCHEDULE.padding, torch.device("cpu"))
    for _ in source.stream(draw(source.labels, seed=0, epoch=0, padding=SCHEDULE.padding), SCHEDULE.batch):
        pass
    return time.process_time() - start


def shares(settings, data, compiled):
    """Which part of the processor time of an epoch goes to which kind of work."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        trainer.train(settings, data, progress=False, device="cpu", compiled=compiled)
    spent = dict.fromkeys(KINDS, 0.0)
    for event in seen.key_averages():
        if "compile" in event.key.lower() and "Call CompiledFxGraph" not in event.key:
            continue  # the building itself
        kind = next((k for k, names in KINDS.items() if any(name in event.key for name in names)), "all else")
        spent[kind] += event.self_cpu_time_total
    return {kind: value / sum(spent.values()) for kind, value in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", default="mbib", choices=METHODS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--save", type=Path, help="a table, such as book/results/speed.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = settle(Settings(data="cifar100-lt", method=args.method, epochs=3, threads=1))
    data, method = random_data(), method_of(settings)
    precision = pick_precision("auto", torch.device("cpu"))
    loader = DataLoader(Pictures(data.train), SCHEDULE.batch, shuffle=True)
    kinds = {
        "plain": lambda: plain(method, data, loader),
        "ours": lambda: ours(settings, data),
        "compiled": lambda: ours(settings, data, compiled=True),
        "bare": lambda: bare(method, data, precision),
        "data": lambda: data_alone(data),
    }
    for measure in kinds.values():
        measure()  # the first time builds kernels
    rounds = [{name: measure() for name, measure in kinds.items()} for _ in range(args.rounds)]
    pictures = BATCHES * SCHEDULE.batch
    lines = [("pictures/s", name, sorted(pictures / one[name] for one in rounds)) for name in kinds]
    lines += [
        ("ratio", f"{top} / {bottom}", sorted(one[top] / one[bottom] for one in rounds)) for top, bottom in RATIOS
    ]
    for name, compiled in (("ours", False), ("compiled", True)):
        found = shares(settings, data, compiled)
        lines += [("share", f"{name}: {kind}", [share]) for kind, share in found.items() if share]
    machine = f"{name_of(torch.device('cpu'))}, {precision}"
    print(f"{args.method}, ResNet-{SCHEDULE.depth}, one thread of {machine}, torch {torch.__version__}")
    rows = [
        {"machine": machine, "torch": torch.__version__, "method": args.method, "measure": measure, "of": what}
        | {"median": f"{statistics.median(v):.4g}", "least": f"{v[0]:.4g}", "most": f"{v[-1]:.4g}"}
        for measure, what, v in lines
    ]
    for row in rows:
        print("{measure:10}  {of:24} {median:>8}   ({least} to {most})".format(**row))
    if args.save:
        save(pd.DataFrame(rows, dtype=str), args.save)


def save(rows: pd.DataFrame, path: Path) -> None:
    """Puts `rows` into the table, in place of those of the same machine and method."""
    if path.is_file():
        old = pd.read_csv(path, dtype=str)
        same = (old[["machine", "method"]] == rows[["machine", "method"]].iloc[0]).all(axis=1)
        rows = pd.concat([old[~same], rows])
    rows.sort_values(["machine", "method"], kind="stable").to_csv(path, index=False)


if __name__ == "__main__":
    main()
