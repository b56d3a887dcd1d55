"""MBIB on a torchvision network that was trained before: `python examples/pretrained.py PATH`, for a GPU.

PATH holds train/ and test/, with one sub-folder a class in each. Pictures are seen as that network saw them, 224 pixels
a side. Every network that has layer2, layer3 and layer4 will do: resnet18 to resnet152, resnext50_32x4d ...
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import models, transforms
from torchvision.datasets import ImageFolder
from torchvision.models.feature_extraction import create_feature_extractor

from mbib_core.criteria import MBIBLoss
from mbib_core.data import shots
from mbib_core.metrics import accuracy_by_class, by_shot
from mbib_core.networks.bottleneck import Observation


class Network(nn.Module):
    """Observations after three layers of `trunk`, a classifier on each, and z with its own, made from the last."""

    def __init__(self, trunk: nn.Module, classes: int):
        super().__init__()
        self.stages = create_feature_extractor(trunk, ["layer2", "layer3", "layer4"])
        with torch.no_grad():
            widths = [m.shape[1] for m in self.stages.eval()(torch.zeros(1, 3, 64, 64)).values()]
        last = widths[-1]
        self.observe = nn.ModuleList(Observation(width) for width in widths)
        self.v_classifiers = nn.ModuleList(nn.Linear(width, classes) for width in widths)
        self.represent = nn.Sequential(nn.Linear(last, last), nn.BatchNorm1d(last), nn.ReLU())
        self.z_classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = self.stages(x).values()
        with torch.autocast(x.device.type, enabled=False):  # the heads cost nothing, and keep their digits in float32
            v = [observe(m) for observe, m in zip(self.observe, maps, strict=True)]
            v_logits = [classifier(v_i) for classifier, v_i in zip(self.v_classifiers, v, strict=True)]
            return v_logits, self.z_classifier(self.represent(v[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--scratch", action="store_true", help="do not fetch the trained weights")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=4, help="processes that read pictures")
    args = parser.parse_args()

    weights = models.get_model_weights(args.network).DEFAULT
    as_then = weights.transforms()  # the size, the crop and the normalising of the first training
    augmented = transforms.Compose([
        transforms.RandomResizedCrop(as_then.crop_size[0], scale=(0.35, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(as_then.mean, as_then.std),
    ])  # fmt: skip
    train, test = ImageFolder(args.path / "train", augmented), ImageFolder(args.path / "test", as_then)
    if train.classes != test.classes:
        raise SystemExit("train/ and test/ must have the same sub-folders, one for each class")
    counts = torch.bincount(torch.tensor(train.targets), minlength=len(train.classes))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    native = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

    trunk = models.get_model(args.network, weights=None if args.scratch else weights)
    network = Network(trunk, len(train.classes)).to(device)
    criterion = MBIBLoss(counts, alphas=(0.1, 0.3), beta=args.beta).to(device)  # the counts move, too
    optimizer = torch.optim.SGD(network.parameters(), args.rate, momentum=0.9, weight_decay=1e-4)
    reading = {"batch_size": args.batch, "num_workers": args.workers, "pin_memory": device == "cuda"}
    one_left = len(train) % args.batch == 1  # batch norm needs two
    loader = DataLoader(train, shuffle=True, drop_last=one_left, persistent_workers=args.workers > 0, **reading)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(loader))
    for epoch in range(args.epochs):
        network.train()
        for x, y in loader:
            with torch.autocast(device, torch.bfloat16, enabled=native):
                v_logits, z_logits = network(x.to(device))
            loss = criterion(v_logits, z_logits, y.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.2f}")

    network.eval()
    answers = []
    with torch.inference_mode():
        for x, _ in DataLoader(test, **reading):
            v_logits, z_logits = network(x.to(device))
            answers.append((v_logits[-1] + z_logits).cpu() / 2)  # nothing is added at test time
    accuracy = accuracy_by_class(torch.cat(answers), torch.tensor(test.targets))
    for shot, value in by_shot(accuracy, shots(counts)).items():
        print(f"{shot:8}{100 * value:5.1f} % of test pictures right")


if __name__ == "__main__":  # the workers import this file, too
    main()
