"""The long-tailed split of Cao et al. 2019, its shots, and CIFAR-100's files, checked before they are opened."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mbib_core.data import (
    Images,
    LongTailed,
    also_in,
    channel_statistics,
    describe,
    load,
    long_tailed_counts,
    long_tailed_indices,
    shots,
)
from mbib_core.data.cifar import CIFAR100_MD5
from mbib_core.files import cache_folder

TOTALS = {100: 10_847, 50: 12_608, 10: 19_573}
SHOTS = {
    100: {"many": 35, "medium": 35, "few": 30},
    50: {"many": 41, "medium": 41, "few": 18},
    10: {"many": 69, "medium": 31},
}
BALANCED = torch.arange(50_000) * 7 % 100  # 500 of each class, well mixed
BALANCED = BALANCED[torch.randperm(50_000, generator=torch.Generator().manual_seed(1))]


def cao_2019(labels: np.ndarray, imbalance: float) -> list[int]:
    """The published code's way: one global stream seeded with 0, classes in order, the first after a shuffle."""
    state = np.random.get_state()  # noqa: NPY002 - the published split hangs on this stream
    try:
        np.random.seed(0)  # noqa: NPY002
        classes = np.unique(labels)
        most = len(labels) / len(classes)
        keep: list[int] = []
        for i, label in enumerate(classes):
            n = int(most * ((1 / imbalance) ** (i / (len(classes) - 1.0))))
            positions = np.where(labels == label)[0]
            np.random.shuffle(positions)  # noqa: NPY002
            keep.extend(positions[:n].tolist())
        return keep
    finally:
        np.random.set_state(state)  # noqa: NPY002


# The split


@pytest.mark.parametrize("imbalance", [100, 50, 10, 1])
def test_the_split_is_the_published_one(imbalance: float) -> None:
    assert long_tailed_indices(BALANCED, imbalance).tolist() == cao_2019(BALANCED.numpy(), imbalance)


@given(st.integers(2, 12), st.integers(1, 30), st.floats(1, 30), st.integers(0, 2**32 - 1))
def test_any_balanced_labels_are_split_as_published(classes: int, each: int, imbalance: float, seed: int) -> None:
    labels = torch.arange(classes).repeat_interleave(each)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    if int(each * (1 / imbalance)) < 1:
        with pytest.raises(ValueError, match="leaves the last class empty"):
            long_tailed_indices(labels, imbalance)
    else:
        assert long_tailed_indices(labels, imbalance).tolist() == cao_2019(labels.numpy(), imbalance)


@pytest.mark.parametrize("imbalance", [100, 50, 10])
def test_the_split_has_the_published_total_and_shots(imbalance: int) -> None:
    chosen = long_tailed_indices(BALANCED, imbalance)
    assert len(chosen) == TOTALS[imbalance]
    assert len(chosen.unique()) == len(chosen)
    counts = BALANCED[chosen].bincount()
    assert (int(counts[0]), int(counts[-1])) == (500, 500 // imbalance)
    assert {shot: int(mask.sum()) for shot, mask in shots(counts).items()} == SHOTS[imbalance]


def test_splits_of_larger_imbalance_lie_within_those_of_smaller() -> None:
    hundred, fifty, ten = (set(long_tailed_indices(BALANCED, f).tolist()) for f in (100, 50, 10))
    assert hundred < fifty < ten


def test_the_split_leaves_the_random_numbers_of_numpy_and_torch_alone() -> None:
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    expected = np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    long_tailed_indices(BALANCED, 100)
    assert (np.random.rand(), torch.rand(1).item()) == expected  # noqa: NPY002


@pytest.mark.parametrize("imbalance", [0.5, 0, -1, float("nan")])
@pytest.mark.fault("an imbalance below 1")
def test_an_imbalance_below_one_is_refused(imbalance: float) -> None:
    with pytest.raises(ValueError, match="must be 1 or larger: it is the largest count over the smallest"):
        long_tailed_counts(500, 100, imbalance)


@pytest.mark.parametrize("imbalance", [501, 1e9, float("inf")])
@pytest.mark.fault("an imbalance that leaves a class empty")
def test_an_imbalance_that_empties_a_class_is_refused(imbalance: float) -> None:
    with pytest.raises(ValueError, match="leaves the last class empty: the largest has 500 pictures"):
        long_tailed_counts(500, 100, imbalance)


@pytest.mark.fault("labels of a single class")
def test_a_single_class_or_none_has_no_tail_and_is_refused() -> None:
    for n, words in ((5, "a long tail needs two classes or more, not 1"), (0, "there are no labels to draw a long-t")):
        with pytest.raises(ValueError, match=words):
            long_tailed_indices(torch.zeros(n, dtype=torch.int64), 1)


@pytest.mark.fault("labels too unbalanced for the split")
def test_unbalanced_labels_that_lack_pictures_are_refused() -> None:
    labels = torch.tensor([0] * 2 + [1] * 8)
    with pytest.raises(ValueError, match="class 0 has 2 pictures, the long-tailed set wants 5 of them"):
        long_tailed_indices(labels, 2)


def test_shots_change_at_20_and_at_100_training_pictures() -> None:
    masks = shots(torch.tensor([101, 100, 20, 19, 1]))
    assert {shot: mask.tolist() for shot, mask in masks.items()} == {
        "many": [True, False, False, False, False],
        "medium": [False, True, True, False, False],
        "few": [False, False, False, True, True],
    }
    assert list(shots(torch.tensor([500, 50]))) == ["many", "medium"], "a shot without classes is absent"


# What a data set must be


def images(labels: list[int], side: int = 4) -> Images:
    return Images(torch.zeros(len(labels), 3, side, side, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64))


def long_tailed(train: Images, classes: int = 2, test: Images | None = None) -> LongTailed:
    return LongTailed("mine", train, images([0]), test or images([1]), [f"class {i}" for i in range(classes)])


def test_counts_are_those_of_the_training_pictures() -> None:
    data = long_tailed(images([0, 1, 0, 0]))
    assert data.counts.tolist() == [3, 1]
    assert list(data.shots) == ["few"]


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, 3, 4, 4),
        torch.zeros(2, 4, 4, 3, dtype=torch.uint8),
        torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        torch.zeros(2, 3, 16, dtype=torch.uint8),
    ],
    ids=["float", "channels last", "grey", "flat"],
)
@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.fault("pictures of another dtype or shape, floats among them")
def test_pictures_that_are_not_uint8_n3hw_are_refused(x: Tensor, part: str) -> None:
    bad = Images(x, torch.tensor([0, 1]))
    with pytest.raises(TypeError, match=rf"mine {part}: pictures must be uint8 \[N, 3, H, W\], these are"):
        long_tailed(*((bad,) if part == "train" else (images([0, 1]), 2, bad)))


@pytest.mark.parametrize("y", [torch.tensor([0, 1], dtype=torch.int32), torch.tensor([0.0, 1.0]), torch.tensor([0])])
@pytest.mark.fault("labels of another dtype or shape")
def test_labels_that_are_not_int64_one_a_picture_are_refused(y: Tensor) -> None:
    with pytest.raises(TypeError, match=r"mine train: labels must be int64 \[2\], these are"):
        long_tailed(Images(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), y))


@pytest.mark.parametrize(("labels", "span"), [([0, 2], "0 to 2"), ([-1, 1], "-1 to 1")])
@pytest.mark.fault("labels out of range")
def test_labels_outside_the_classes_are_refused(labels: list[int], span: str) -> None:
    with pytest.raises(ValueError, match=f"labels run from {span}, outside 0 to 1"):
        long_tailed(images(labels))


@pytest.mark.fault("a class without training pictures")
def test_a_class_without_training_pictures_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="mine: no training picture of class 1; add some, or drop the class \\(where"):
        long_tailed(images([0, 0, 2]), classes=3)


@pytest.mark.fault("a data set of one class")
def test_fewer_than_two_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="mine has 1 class: recognition needs two or more"):
        LongTailed("mine", images([0]), images([]), images([]), ["only"])


# Channel statistics


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_channel_statistics_are_mean_and_deviation_in_float64(n: int, side: int, seed: int) -> None:
    x = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    mean, std = channel_statistics(x)
    assert mean.tolist() == pytest.approx(x.numpy().astype(np.float64).mean((0, 2, 3)).tolist(), rel=1e-6)
    expected = x.numpy().astype(np.float64).std((0, 2, 3)).clip(min=1)
    assert std.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_channel_statistics_are_those_of_all_pictures_however_many() -> None:
    x = torch.zeros(2500, 3, 1, 1, dtype=torch.uint8)
    x[1500:] = 100
    mean, std = channel_statistics(x)
    assert mean.tolist() == pytest.approx([40.0] * 3)
    assert std.tolist() == pytest.approx([100 * 0.24**0.5] * 3)


def test_a_channel_of_one_colour_is_not_divided_by_zero() -> None:
    x = torch.full((2, 3, 4, 4), 200, dtype=torch.uint8)
    mean, std = channel_statistics(x)
    assert mean.tolist() == [200, 200, 200]
    assert std.tolist() == [1, 1, 1]


# CIFAR-100's files


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small data set in CIFAR-100's format, whose checksums pass as the published ones."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    random = np.random.default_rng(0)

    def part(each: int) -> dict:
        labels = random.permutation(np.repeat(np.arange(10), each))
        pixels = random.integers(0, 256, (len(labels), 3 * 32 * 32), dtype=np.uint8)
        return {"data": pixels, "fine_labels": labels.tolist()}

    content = {"train": part(20), "test": part(3), "meta": {"fine_label_names": [f"animal {i}" for i in range(10)]}}
    for name, value in content.items():
        (folder / name).write_bytes(pickle.dumps(value))
        monkeypatch.setitem(CIFAR100_MD5, name, hashlib.md5((folder / name).read_bytes()).hexdigest())
    return tmp_path


def test_files_in_cifars_format_become_a_split_without_overlap(published: Path) -> None:
    data = load("cifar100-lt", imbalance=10, root=published)
    with (published / "cifar-100-python" / "train").open("rb") as file:
        raw = pickle.load(file)
    chosen = cao_2019(np.array(raw["fine_labels"]), 10)
    assert data.train.y.tolist() == [raw["fine_labels"][i] for i in chosen]
    assert data.train.x.flatten(1).tolist() == raw["data"][chosen].tolist()
    unused = sorted(set(range(200)) - set(chosen))
    assert data.validation.y.tolist() == [raw["fine_labels"][i] for i in unused]
    assert data.validation.x.flatten(1).tolist() == raw["data"][unused].tolist()
    assert len(data.test.y) == 30
    assert data.classes[3] == "animal 3"
    assert data.flip is True


class Bomb:
    """What a hostile pickle does: unpickling it creates a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple:
        return open, (str(self.file), "w")


@pytest.mark.parametrize("name", ["train", "test", "meta"])
@pytest.mark.fault("a pickle bomb in place of a CIFAR-100 file")
def test_a_file_that_is_not_the_published_one_is_never_unpickled(published: Path, tmp_path: Path, name: str) -> None:
    trace = tmp_path / "executed"
    content = pickle.dumps(Bomb(trace))
    (published / "cifar-100-python" / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"is not the published CIFAR-100 file .*so it was not opened; move"):
        load("cifar100-lt", imbalance=10, root=published)
    assert not trace.exists()
    pickle.loads(content).close()
    assert trace.exists(), "the bomb must work, or the test says nothing"


@pytest.mark.parametrize("name", ["train", "test", "meta"])
@pytest.mark.parametrize("damage", ["truncated", "tampered", "empty", "longer"])
@pytest.mark.fault("a CIFAR-100 file that is {damage}")
def test_a_damaged_file_is_refused_with_what_to_do(published: Path, name: str, damage: str) -> None:
    file = published / "cifar-100-python" / name
    content = file.read_bytes()
    middle = len(content) // 2
    others = {f: f.read_bytes() for f in file.parent.iterdir() if f != file}
    file.write_bytes(
        {
            "truncated": content[:-1],
            "tampered": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "empty": b"",
            "longer": content + b"\0",
        }[damage]
    )
    with pytest.raises(ValueError, match=f"{name} is not the published CIFAR-100 file .* to download it again"):
        load("cifar100-lt", imbalance=10, root=published)
    assert {f: f.read_bytes() for f in file.parent.iterdir() if f != file} == others
    assert file.exists(), "the owner of the file deletes it, nobody else"


@pytest.mark.parametrize("name", ["train", "test", "meta"])
@pytest.mark.fault("a missing CIFAR-100 file")
def test_a_missing_file_is_named_with_what_to_do(published: Path, name: str) -> None:
    (published / "cifar-100-python" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} is missing: move .*cifar-100-python aside to download"):
        load("cifar100-lt", imbalance=10, root=published)
    assert len(list((published / "cifar-100-python").iterdir())) == 2, "the others stay"


@pytest.mark.parametrize(
    "error", [URLError("no network"), OSError("disk full"), RuntimeError("File not found or corrupted.")]
)
@pytest.mark.fault("a download that fails")
def test_missing_data_that_cannot_be_downloaded_name_the_way_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: Callable[[str], None]
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", fail)
    with pytest.raises(FileNotFoundError) as caught:
        load("cifar100-lt", root=tmp_path)
    words = str(caught.value)
    sentence(words)
    for part in (str(tmp_path), "https://", "cifar-100-python.tar.gz", "--root", "MBIB_DATA", str(error)):
        assert part in words


def test_missing_data_are_downloaded_once_with_a_checksum(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "elsewhere"
    asked = []

    def download(url: str, _root: str, folder: str, md5: str) -> None:
        asked.append((url, md5))
        (published / "cifar-100-python").rename(Path(folder) / "cifar-100-python")

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", download)
    for _ in range(2):
        load("cifar100-lt", imbalance=10, root=root)
    assert asked == [("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85")]


def test_the_folder_of_the_data_comes_from_the_environment(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(published.parent))
    for name, value in (("MBIB_DATA", str(published)), ("MBIB_DATA", f"~/{published.name}"), ("MBIB_CACHE", "~/cache")):
        monkeypatch.setenv(name, value)
        assert len(load("cifar100-lt", imbalance=np.float32(10)).train.y) == sum(long_tailed_counts(20, 10, 10))
    assert len(load("cifar100-lt", imbalance=10, root=f"~/{published.name}").test.y) == 30
    assert cache_folder() == published.parent / "cache"


@pytest.mark.fault("no home directory")
def test_without_a_home_directory_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MBIB_CACHE", "MBIB_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("Could not determine home directory.")))
    with pytest.raises(
        OSError, match="no home directory to keep data and checkpoints in: name a folder with MBIB_CACHE"
    ):
        load("cifar100-lt")
    monkeypatch.setenv("MBIB_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")


@pytest.mark.fault("an unknown data set")
def test_an_unknown_data_set_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data set is called 'cifar10-lt': there are glyphs-lt, cifar100-lt"):
        load("cifar10-lt", root=tmp_path)
    for imbalance in ("much", None):
        with pytest.raises(ValueError, match=f"imbalance is {imbalance!r}: it must be a number"):
            load("glyphs-lt", imbalance=imbalance)  # type: ignore[arg-type]


# The real CIFAR-100


@pytest.fixture(scope="module")
def cifar(cifar_root: Path) -> dict[int, LongTailed]:
    return {imbalance: load("cifar100-lt", imbalance=imbalance, root=cifar_root) for imbalance in (100, 50, 10)}


def test_cifar_100_lt_has_the_published_totals_and_shots(cifar: dict[int, LongTailed]) -> None:
    assert {f: len(data.train.y) for f, data in cifar.items()} == TOTALS
    for imbalance, data in cifar.items():
        assert {shot: int(mask.sum()) for shot, mask in data.shots.items()} == SHOTS[imbalance]
        assert data.counts.tolist() == long_tailed_counts(500, 100, imbalance)
        assert data.train.x.shape[1:] == (3, 32, 32)
        assert (len(data.test.y), data.test.y.bincount().unique().tolist()) == (10_000, [100])
        assert (data.classes[0], data.classes[99]) == ("apple", "worm")


def test_cifar_100_lt_is_drawn_as_published(cifar: dict[int, LongTailed], cifar_root: Path) -> None:
    with (cifar_root / "cifar-100-python" / "train").open("rb") as file:
        raw = pickle.load(file, encoding="latin1")
    for imbalance, data in cifar.items():
        chosen = cao_2019(np.array(raw["fine_labels"]), imbalance)
        assert torch.equal(data.train.x.flatten(1), torch.from_numpy(raw["data"][chosen]))
        assert data.train.y.tolist() == [raw["fine_labels"][i] for i in chosen]


def test_cifar_100_lt_validates_on_every_unused_picture_and_on_no_other(cifar: dict[int, LongTailed]) -> None:
    for data in cifar.values():
        assert len(data.train.y) + len(data.validation.y) == 50_000
        held_out = data.validation.y.bincount(minlength=100)
        assert (held_out + data.counts).tolist() == [500] * 100
        assert int(held_out[0]) == 0, "class 0 keeps all its pictures: none is left to validate on"
        assert also_in(data.validation, data.train) < 10, "CIFAR-100 holds a few pictures twice; the split adds none"


def test_pictures_of_cifar_100_that_its_training_set_holds_too_are_counted(cifar: dict[int, LongTailed]) -> None:
    known = {picture.numpy().tobytes() for picture in cifar[10].train.x}
    shared = sum(picture.numpy().tobytes() in known for picture in cifar[10].test.x)
    assert also_in(cifar[10].test, cifar[10].train) == shared > 0
    assert f"Also in the training set: {shared} test picture" in describe(cifar[10])
