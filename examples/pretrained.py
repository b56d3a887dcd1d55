"""MBIB on a torchvision network that was trained before: `python examples/pretrained.py PATH`, for a GPU.

PATH holds train/ and test/, with one sub-folder a class in each. Pictures are seen as that network saw them, 224 pixels
a side. Every network that has layer2, layer3 and layer4 will do: resnet18 to resnet152, resnext50_32x4d ... What was
trained is kept in one file: that of the epoch which was best on PATH/validation/ if there is one, else of the last.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_model, save
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import models, transforms
from torchvision.datasets import ImageFolder
from torchvision.models.feature_extraction import create_feature_extractor

from mbib_core.criteria import MBIBLoss
from mbib_core.data import shots
from mbib_core.files import write_atomically
from mbib_core.metrics import accuracy_by_class, by_shot
from mbib_core.networks.bottleneck import Observation

STAGES = ("layer2", "layer3", "layer4")


class Network(nn.Module):
    """Observations after three layers of `trunk`, a classifier on each, and z with its own, made from the last."""

    def __init__(self, trunk: nn.Module, classes: int):
        super().__init__()
        self.stages = create_feature_extractor(trunk, list(STAGES))
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


def torchvision_network(name: str) -> tuple[nn.Module, models.WeightsEnum]:
    """The network `name`, drawn anew, and which weights there are for it. Raises SystemExit with a sentence."""
    try:
        weights, trunk = models.get_model_weights(name).DEFAULT, models.get_model(name)
    except ValueError:
        raise SystemExit(
            f"torchvision has no network {name}: take resnet18 to resnet152, resnext50_32x4d ..."
        ) from None
    if missing := [stage for stage in STAGES if not hasattr(trunk, stage)]:
        raise SystemExit(f"{name} has no {missing[0]}: take a network that has {', '.join(STAGES)}, such as resnet50")
    return trunk, weights


def fetch(weights: models.WeightsEnum) -> dict[str, Tensor]:
    """The weights as they were trained. Raises SystemExit with a sentence where none can be fetched."""
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise SystemExit(
            f"{weights.url} cannot be fetched ({error}): put that file into hub/checkpoints/ of the folder that "
            f"TORCH_HOME names, or train from nothing with --scratch"
        ) from None


def images(folder: Path, transform: object, classes: list[str] | None = None) -> ImageFolder:
    """The pictures of a part, whose sub-folders must be `classes`. Raises SystemExit with a sentence."""
    try:
        part = ImageFolder(folder, transform)
    except OSError as error:
        raise SystemExit(f"{folder} must hold a sub-folder with pictures for each class ({error})") from None
    if classes not in (None, part.classes):
        raise SystemExit(f"{folder} must have the same sub-folders as train/ beside it, one for each class")
    return part


def accuracies(network: Network, loader: DataLoader, counts: Tensor, device: str) -> dict[str, float]:
    """The share of right answers (0 to 1): mean over the classes of each shot, and over all."""
    network.eval()
    with torch.inference_mode():
        outputs = [network(x.to(device)) for x, _ in loader]
    logits = torch.cat([(v_logits[-1] + z_logits).cpu() / 2 for v_logits, z_logits in outputs])
    return by_shot(accuracy_by_class(logits, torch.tensor(loader.dataset.targets)), shots(counts))


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
    parser.add_argument("--out", type=Path, default="pretrained.safetensors", help="the file that keeps the network")
    args = parser.parse_args()
    if args.out.exists():
        raise SystemExit(f"{args.out} is there already: name another file with --out")

    trunk, weights = torchvision_network(args.network)
    as_then = weights.transforms()  # the size, the crop and the normalising of the first training
    augmented = transforms.Compose([
        transforms.RandomResizedCrop(as_then.crop_size[0], scale=(0.35, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(as_then.mean, as_then.std),
    ])  # fmt: skip
    train = images(args.path / "train", augmented)
    parts = ["validation", "test"] if (args.path / "validation").is_dir() else ["test"]
    held = {part: images(args.path / part, as_then, train.classes) for part in parts}
    counts = torch.bincount(torch.tensor(train.targets), minlength=len(train.classes))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    native = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

    if not args.scratch:
        trunk.load_state_dict(fetch(weights))
    network = Network(trunk, len(train.classes)).to(device)
    criterion = MBIBLoss(counts, alphas=(0.1, 0.3), beta=args.beta).to(device)  # the counts move, too
    optimizer = torch.optim.SGD(network.parameters(), args.rate, momentum=0.9, weight_decay=1e-4)
    reading = {"batch_size": args.batch, "num_workers": args.workers, "pin_memory": device == "cuda"}
    one_left = len(train) % args.batch == 1  # batch norm needs two
    loader = DataLoader(train, shuffle=True, drop_last=one_left, persistent_workers=args.workers > 0, **reading)
    unseen = {part: DataLoader(own, **reading) for part, own in held.items()}
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(loader))
    best = -1.0
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
        said, now = f"epoch {epoch + 1}: loss of the last batch {loss.item():.2f}", float(epoch)
        if "validation" in unseen:
            now = accuracies(network, unseen["validation"], counts, device)["all"]
            said += f", {100 * now:.1f} % of validation pictures right"
        print(said)
        if now > best:
            best, about = now, {"network": args.network, "classes": json.dumps(train.classes)}
            write_atomically(args.out, save(network.state_dict(), about))

    load_model(network, args.out)
    for shot, value in accuracies(network, unseen["test"], counts, device).items():
        print(f"{shot:8}{100 * value:5.1f} % of test pictures right")
    print(f"{args.out} keeps the network: read it with safetensors.torch.load_model")


if __name__ == "__main__":  # the workers import this file, too
    main()
