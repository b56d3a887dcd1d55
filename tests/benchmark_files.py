"""What reading pictures while training costs: decoding, augmenting and stepping apart, and lists by their length.

    python tests/benchmark_files.py FOLDER               # any folder of photographs; nothing else should run

Processor seconds of this one process (no workers), so the numbers add up: pictures a second of one core that decodes a
file, crops it for training (with and without jitter of the colours), prepares it for an answer, and makes a step of
ResNet-10-sized work on it. At 224 pixels 1,197 were decoded, 760 cropped and 11 stepped, which is why there is no
`mbib pack`: reading does not bind. The rate of a run is the smaller of the step's and of `--workers` times that of
reading.
And lists of 1,000, 100,000 and 1,000,000 made-up lines: seconds to read, and how much the process grew.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torchvision.models.resnet import BasicBlock, ResNet

from mbib_core.augmentation import resized_crop
from mbib_core.data.lists import read_lines
from mbib_core.data.pictures import centre
from mbib_core.data.streamed import MARGIN, Paths

PICTURES, BATCH = 100, 32


def per_second(n: int, work: Callable[[], object]) -> float:
    work()
    start = time.process_time()
    work()
    return n / (time.process_time() - start)


def pictures(folder: Path, side: int) -> dict[str, float]:
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix.lower() in (".jpeg", ".jpg"))
    paths = Paths(names[:PICTURES], folder)
    n = len(paths)
    opened = [paths.picture(row, side) for row in range(n)]
    size = np.mean([picture.width * picture.height for picture in opened]) / 1e6
    print(f"{n} photographs of {size:.2f} megapixels on average, {side} x {side} pixels")
    network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=1000)
    x, y = torch.rand(BATCH, 3, side, side), torch.zeros(BATCH, dtype=torch.int64)

    def step() -> None:
        torch.nn.functional.cross_entropy(network(x), y).backward()

    return {
        "decode": per_second(n, lambda: [paths.picture(row, side) for row in range(n)]),
        "crop": per_second(n, lambda: [resized_crop(p, side, 7, flip=True, jitter=False) for p in opened]),
        "crop, jitter": per_second(n, lambda: [resized_crop(p, side, 7, flip=True, jitter=True) for p in opened]),
        "for an answer": per_second(n, lambda: [centre(p, (side, side), MARGIN) for p in opened]),
        "step, ResNet-10": per_second(BATCH, step),
    }


def lists() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.txt"
        for n in (1_000, 100_000, 1_000_000):
            with file.open("w") as out:
                out.writelines(f"train/n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG {i % 1000}\n" for i in range(n))
            before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
            lines = read_lines(file, Path(folder))
            seconds = time.process_time() - start
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            kept = (lines.paths.packed.nbytes + lines.paths.ends.nbytes + lines.labels.nbytes) / 2**20
            print(f"{n:>9} lines: {seconds:6.2f} s, {kept:6.1f} MiB are kept, the process grew by {grown:6.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lists()  # first, while the process is small
    for what, rate in pictures(args.folder, args.size).items():
        print(f"{what:16} {rate:8.0f} pictures a second of one core")


if __name__ == "__main__":
    main()
