"""CIFAR-100-LT (Cao et al. 2019), made from the published files of CIFAR-100."""

import hashlib
import pickle
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from filelock import FileLock

from mbib_core.data.longtailed import Images, LongTailed, long_tailed_indices
from mbib_core.extras import extra

CIFAR100_MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}


def cifar100_lt(imbalance: float, root: Path) -> LongTailed:
    """CIFAR-100-LT from `root`/cifar-100-python, which is downloaded if it is missing. Raises as `data.load` does."""
    folder = root / "cifar-100-python"
    if not folder.is_dir():
        _download_cifar100(root)
    everything, test = (_cifar100_images(folder, part) for part in ("train", "test"))
    classes = _published_pickle(folder / "meta")["fine_label_names"]
    chosen = long_tailed_indices(everything.y, imbalance)
    unused = torch.ones(len(everything.y), dtype=torch.bool)
    unused[chosen] = False
    train, validation = (Images(everything.x[i], everything.y[i]) for i in (chosen, unused))
    return LongTailed("cifar100-lt", train, validation, test, classes)


def _cifar100_images(folder: Path, part: str) -> Images:
    content = _published_pickle(folder / part)
    x = torch.from_numpy(content["data"].reshape(-1, 3, 32, 32).copy())
    return Images(x, torch.tensor(content["fine_labels"]))


def _published_pickle(file: Path) -> dict:
    """The content of a CIFAR-100 file; its MD5 is checked first, since unpickling runs what a file says."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: move {file.parent} aside to download CIFAR-100 again")
    content = file.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != CIFAR100_MD5[file.name]:
        raise ValueError(
            f"{file} is not the published CIFAR-100 file (its MD5 differs: cut short or changed), so it was not "
            f"opened; move {file.parent} aside to download it again"
        )
    return pickle.loads(content, encoding="latin1")


def _download_cifar100(root: Path) -> None:
    """Downloads and unpacks CIFAR-100, once however many processes want it; `cifar-100-python` appears whole."""
    extra("torchvision", f"CIFAR-100 is not in {root}, and its download")
    from torchvision.datasets import CIFAR100
    from torchvision.datasets.utils import download_and_extract_archive

    folder = root / "cifar-100-python"
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = root / ".cifar-100-python.lock"
        with FileLock(lock), TemporaryDirectory(prefix=".cifar-100-", dir=root) as aside:
            if not folder.is_dir():  # else another process made it, while this one waited
                print(f"CIFAR-100 is not in {root}: downloading 169 MB from {CIFAR100.url}")
                download_and_extract_archive(CIFAR100.url, str(root), aside, md5=CIFAR100.tgz_md5)
                (Path(aside) / folder.name).rename(folder)
            with suppress(OSError):  # Windows removes it itself
                lock.unlink()
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"CIFAR-100 is not in {root} and could not be downloaded ({error}). Get cifar-100-python.tar.gz from "
            f"{CIFAR100.url}, unpack it into a folder, and name that folder with --root or MBIB_DATA"
        ) from None
