"""MBIB on a pretrained network, in a plain PyTorch loop: `python examples/pretrained.py PATH`, for a GPU.

PATH holds train/ and test/, with one sub-folder a class in each. `mbib train mbib --data folder:PATH --pretrained
default` does this without a line of code, resumes, and keeps a record; here is what a loop of your own needs.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from mbib_core.criteria import MBIBLoss
from mbib_core.data import shots
from mbib_core.files import write_atomically
from mbib_core.metrics import accuracy_by_class, by_shot
from mbib_core.networks import Bottleneck, predictions
from mbib_core.networks.imagenet import backbone
from mbib_core.networks.pretrained import MEAN, STD, file_of, name_of, read_trunk


def images(folder: Path, *steps: object) -> ImageFolder:
    """The images of a part, uint8 [3, 224, 224], which the network normalises itself. Raises SystemExit."""
    try:
        return ImageFolder(folder, transforms.Compose([*steps, transforms.PILToTensor()]))
    except OSError as error:
        raise SystemExit(f"{folder} must hold a sub-folder with pictures for each class ({error})") from None


def pretrained(name: str, weights: str, classes: int) -> Bottleneck:
    """Observations after the last three stages of the network `name`. Raises SystemExit with a sentence."""
    try:
        trunk, mean, std = backbone(name, 3), MEAN, STD
        if weights != "none":
            found = read_trunk(name_of(weights, name), file_of(weights))
            found.put_into(trunk)
            mean, std = found.mean, found.std
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(str(error)) from None
    return Bottleneck(trunk, classes, fresh=False, mean=mean, std=std)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--network", default="resnet50", help="a ResNet of torchvision's, or timm:NAME")
    parser.add_argument("--weights", default="default", help="default, a file, or none")
    for option, value in (("--epochs", 30), ("--batch", 64), ("--workers", 4)):
        parser.add_argument(option, type=int, default=value)
    parser.add_argument("--out", type=Path, default="pretrained.safetensors", help="the file that keeps the network")
    args = parser.parse_args()
    if args.out.exists():
        raise SystemExit(f"{args.out} is there already: name another file with --out")

    crop, mirror = transforms.RandomResizedCrop(224, scale=(0.35, 1.0)), transforms.RandomHorizontalFlip()
    train = images(args.path / "train", crop, mirror)
    test = images(args.path / "test", transforms.Resize(256), transforms.CenterCrop(224))
    if test.classes != train.classes:
        raise SystemExit(f"{args.path / 'test'} must have the same sub-folders as train/ beside it, one for each class")
    counts = torch.bincount(torch.tensor(train.targets), minlength=len(train.classes))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = pretrained(args.network, args.weights, len(train.classes)).to(device)
    criterion = MBIBLoss(counts, alphas=(0.1, 0.3), beta=1.0).to(device)  # the counts move, too
    heads = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    groups = [{"params": heads}, {"params": network.backbone.parameters(), "lr": 0.001}]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=1e-4)
    reading = {"batch_size": args.batch, "num_workers": args.workers, "pin_memory": device == "cuda"}
    one_left = len(train) % args.batch == 1  # batch norm needs two
    loader = DataLoader(train, shuffle=True, drop_last=one_left, persistent_workers=args.workers > 0, **reading)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(loader))
    for epoch in range(args.epochs):
        network.train()
        for x, y in loader:
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                outputs = network(x.to(device))
            loss = criterion(outputs.v_logits, outputs.z_logits, y.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.2f}")

    network.eval()
    with torch.inference_mode():
        logits = [predictions(network(x.to(device)))["mean"].cpu() for x, _ in DataLoader(test, **reading)]
    for shot, value in by_shot(accuracy_by_class(torch.cat(logits), torch.tensor(test.targets)), shots(counts)).items():
        print(f"{shot:8}{100 * value:5.1f} % of test pictures right")
    write_atomically(args.out, save(network.state_dict()))
    print(f"{args.out} keeps the network: read it with safetensors.torch.load_model")


if __name__ == "__main__":  # the workers import this file, too
    main()
