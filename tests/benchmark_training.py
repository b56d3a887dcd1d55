"""A training step beside a plain PyTorch loop: pictures a second on one processor thread, or on a GPU.

    python tests/benchmark_training.py               # about four minutes; nothing else should run
    python tests/benchmark_training.py --method ce --save book/results/speed.csv
    python tests/benchmark_training.py --device cuda # two or three minutes

`plain` is the loop of the tutorials: torchvision's transforms on PIL pictures, a DataLoader, float32. `ours` is an
epoch of `mbib_core.trainer.train`, `compiled` the same with `compiled=True` (built before). `bare` is forward, loss and
backward of the same network on one fixed batch, in the precision of `ours`: what no loop without a compiler can beat.
`data` is the drawing and augmenting of the batches alone. ResNet-32 with 100 classes, batches of 128, random pictures,
processor time. Each round takes all of them in turn; the medians and the ratios are over the rounds. Then a profile:
which share of a step goes where. `--save` puts the lines into a table, in place of those of this machine and method.

On a GPU by the clock, after two epochs that are not counted, with as many pictures as CIFAR-100-LT has: the plain loop,
its DataLoader on all cores; the trainer's steps launched one by one, captured as a CUDA graph, compiled, both; and
several captured runs side by side, the pictures of all of them together. A run on a CPU names these as not measured.
"""

import argparse
import multiprocessing
import os
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
from mbib_core.devices import autocast, name_of, pick_device, pick_precision
from mbib_core.methods import METHODS, method_of, settle
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings

BATCHES, CLASSES = 6, 100
ON_GPU, EPOCHS = 10_847, 6  # pictures of an epoch, and epochs
LOOPS = {  # on a GPU, and how `train` makes them
    "one by one": {"captured": False},
    "captured": {},
    "compiled": {"captured": False, "compiled": True},
    "compiled, captured": {"compiled": True},
}
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


def random_data(n: int = BATCHES * SCHEDULE.batch) -> LongTailed:
    random = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=random)
    images = Images(x, torch.arange(len(x)) % CLASSES)
    none = Images(x[:0], images.y[:0])
    return LongTailed("cifar100-lt", images, none, none, [str(i) for i in range(CLASSES)])


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


def plain_by_the_clock(method, data, device, precision):
    """Pictures a second of the plain loop, its second epoch."""
    network = method.network(CLASSES, depth=SCHEDULE.depth).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        network.parameters(), SCHEDULE.rate, SCHEDULE.momentum, weight_decay=SCHEDULE.weight_decay
    )
    workers = {"num_workers": os.cpu_count() or 1, "persistent_workers": True, "pin_memory": device.type == "cuda"}
    loader = DataLoader(Pictures(data.train), SCHEDULE.batch, shuffle=True, **workers)
    counts, starts = data.counts.to(device), []
    for _ in range(2):
        starts.append(now(device))
        for x, y in loader:
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            with autocast(device, precision):
                outputs = network(x.contiguous(memory_format=torch.channels_last))
            loss = method.loss(outputs, y, counts)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return len(data.train.y) / (now(device) - starts[1])


def now(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def by_the_clock(settings, data, device, how, meet=lambda: None):
    """When the third epoch began and when the last one did; `meet` waits for others before the third."""
    starts = []

    def watched(*y, **given):
        if len(starts) == 2:
            now(device)
            meet()
        starts.append(now(device))
        return draw(*y, **given)

    with patch.object(trainer, "draw", watched):
        run = trainer.train(settings, data, progress=False, device=device, **how)
    asked = how.get("compiled", False), device.type == "cuda" and how.get("captured", True)
    assert (run.compiled, run.captured) == asked, "it could not be compiled or captured here"
    return starts[2], starts[-1]


def one_of_several(settings, n, device, barrier, found):
    torch.set_num_threads(1)
    found.put(by_the_clock(settings, random_data(n), torch.device(device), {}, barrier.wait))


def side_by_side(many, settings, n, device):
    """Pictures a second of all processes together."""
    spawned = multiprocessing.get_context("spawn")
    barrier, found = spawned.Barrier(many), spawned.Queue()
    processes = [
        spawned.Process(target=one_of_several, args=(settings, n, str(device), barrier, found)) for _ in range(many)
    ]
    for process in processes:
        process.start()
    times = [found.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    spans = max(stop for _, stop in times) - min(start for start, _ in times)
    return many * (int(settings.epochs) - 3) * n / spans


def on_gpu(method_name, device, beside=(2, 4, 8), n=ON_GPU):
    settings = settle(Settings(data="cifar100-lt", method=method_name, epochs=EPOCHS, threads=1))
    data, method, precision = random_data(n), method_of(settings), pick_precision("auto", device)
    print(f"{method_name}, ResNet-{SCHEDULE.depth}, {name_of(device)}, {precision}, torch {torch.__version__}")
    base = plain_by_the_clock(method, data, device, precision)
    print(f"{'plain':20} {base:10,.0f} pictures/s", flush=True)
    for name, how in LOOPS.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            start, stop = by_the_clock(settings, data, device, how)
        except AssertionError as error:
            print(f"{name:20} not measured: {error}", flush=True)
            continue
        rate = (EPOCHS - 3) * n / (stop - start)
        peak = torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else 0.0
        print(f"{name:20} {rate:10,.0f} pictures/s, {rate / base:5.1f} x plain, {peak:.2f} GiB at most", flush=True)
    for many in beside:
        rate = side_by_side(many, settings, n, device)
        print(f"{f'{many} side by side':20} {rate:10,.0f} pictures/s, {rate / base:5.1f} x plain", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", default="mbib", choices=METHODS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--save", type=Path, help="a table, such as book/results/speed.csv")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args()
    if args.device != "cpu":
        return on_gpu(args.method, pick_device(args.device))
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
    for name in (*LOOPS, "side by side"):
        print(f"{'pictures/s':10}  {f'{name}, on a GPU':24} not measured")
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
