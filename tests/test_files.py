"""Pictures that are read while training: the same bytes however they are read, lists and tables, broken files."""

import csv
import hashlib
import lzma
import multiprocessing
import os
import re
import time
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from test_rows import Killed, bits, kill_after, run
from torch import Tensor
from torch.utils.data import Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from mbib_core import cli, report, trainer
from mbib_core.augmentation import AUGMENTATIONS, resized_crop
from mbib_core.batches import Batch, FileSource, draw
from mbib_core.data import Images, LongTailed, describe, first_of_each_class, from_dataset, load
from mbib_core.data.checking import unreadable
from mbib_core.data.folders import load_folder
from mbib_core.data.lists import PUBLISHED, _class_names, read_lines
from mbib_core.data.pictures import read_file
from mbib_core.data.streamed import MARGIN, Paths, Streamed, streamed
from mbib_core.devices import readers, readers_here
from mbib_core.evaluation import answers, evaluate, features_of
from mbib_core.methods import METHODS, settle
from mbib_core.mistakes import surest_mistakes
from mbib_core.results import read_record
from mbib_core.settings import Settings, command_line, run_id

CPU = torch.device("cpu")
CROPS = AUGMENTATIONS["resized-crop"]
COUNTS = (24, 12, 5)
Hear = Callable[[str], None]


def jpeg(path: Path, label: int, number: int, **more: Any) -> None:
    """Noise on the colour of its class; every picture another one."""
    random = np.random.RandomState(1000 * label + number)
    colour = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]][label])
    pixels = (colour + random.randint(-40, 40, (22 + number % 7, 30, 3))).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=90, **more)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small JPEGs of three classes, and lists of them."""
    folder = tmp_path_factory.mktemp("photographs")
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, n in enumerate(COUNTS):
        (folder / ["red", "green", "blue"][label]).mkdir()
        for number in range(n + 4):
            name = f"{['red', 'green', 'blue'][label]}/photo {number}.jpg"
            jpeg(folder / name, label, number)
            part = "train" if number < n else "val" if number < n + 2 else "test"
            lines[part].append(f"{name} {label}\n")
    for part, listed in lines.items():
        (folder / f"{part}.txt").write_text("".join(listed))
    return folder


@pytest.fixture
def copy(photographs: Path, tmp_path: Path) -> Path:
    """A folder of one's own with links to the photographs, whose lists may be changed."""
    for path in photographs.rglob("*"):
        own = tmp_path / "copy" / path.relative_to(photographs)
        own.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            own.write_bytes(path.read_bytes())
    return tmp_path / "copy"


@pytest.fixture
def data(photographs: Path) -> LongTailed:
    return load(f"list:{photographs}", size=16)


def settings(**more: Any) -> Settings:
    given = {"method": "ce", "data": "list:photographs", "depth": 8, "epochs": 2, "batch": 16, "threads": 1}
    return Settings(**{**given, "size": 16, "rate": 0.05, "precision": "float32", **more})


def batches(images: Streamed, workers: int, epoch: int = 0, *, ranks: int = 1, rank: int = 0) -> list[Batch]:
    """An epoch of two views of each picture, as a stage with a second view has it."""
    drawn, other = (draw(images.y, seed=3, epoch=epoch, q=0.5, stream=i, augmentation=CROPS) for i in (0, 1))
    with readers(workers):
        source = FileSource(images, CROPS, CPU)
        try:
            second = other._replace(rows=drawn.rows)
            return list(source.stream(drawn, 16, second=second, rank=rank, ranks=ranks))
        finally:
            source.close()


def digest(found: list[Batch]) -> str:
    views = [view for batch in found for view in (batch, batch.second) if view]
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for v in views for t in (v.x, v.y))).hexdigest()


# What is read


def test_bytes_do_not_depend_on_who_reads_nor_on_where_a_run_starts(data: LongTailed) -> None:
    images: Any = data.train
    both = [digest(batches(images, 0, epoch)) for epoch in (0, 1)]
    assert both[0] != both[1]
    assert digest(batches(images, 1, epoch=1)) == both[1], "as a run that is resumed begins"
    drawn = [draw(images.y, seed=3, epoch=epoch, q=0.5, augmentation=CROPS) for epoch in (0, 1)]
    kept = []
    for workers in (0, 2):
        with readers(workers):
            source = FileSource(images, CROPS, CPU)
            kept += [[digest(list(source.stream(d, 16))) for d in drawn]]  # by processes that wait for the second epoch
            source.close()
    assert kept[0] == kept[1]
    assert not multiprocessing.active_children()


def test_two_ranks_read_what_one_process_reads(data: LongTailed) -> None:
    images: Any = data.train
    whole, *parts = (batches(images, 0, ranks=ranks, rank=rank) for ranks, rank in ((1, 0), (2, 0), (2, 1)))
    for one, *shares in zip(whole, *parts, strict=True):
        assert one.second is not None
        for name in ("x", "y"):
            assert torch.equal(getattr(one, name)[0::2], getattr(shares[0], name))
            assert torch.equal(getattr(one, name)[1::2], getattr(shares[1], name))
        assert torch.equal(one.second.x[1::2], shares[1].second.x)


def test_a_second_view_is_another_crop_of_the_same_pictures(data: LongTailed) -> None:
    images: Any = data.train
    for batch in batches(images, 0):
        assert batch.second is not None
        assert torch.equal(batch.y, batch.second.y)
        assert not any(torch.equal(one, two) for one, two in zip(batch.x, batch.second.x, strict=True))


@pytest.mark.parametrize("jitter", [False, True])
def test_a_training_picture_is_what_torchvision_makes_of_it(photographs: Path, jitter: bool) -> None:
    picture = Image.open(photographs / "red" / "photo 3.jpg").convert("RGB")
    steps: list[Any] = [v2.RandomResizedCrop(16), v2.RandomHorizontalFlip(1.0)]
    with torch.random.fork_rng():
        torch.manual_seed(77)
        expected = steps[0](picture)
        expected = ImageOps.mirror(expected)
        expected = v2.ColorJitter(0.4, 0.4, 0.4)(expected) if jitter else expected
    before = torch.get_rng_state()
    found = resized_crop(picture, 16, 77, flip=True, jitter=jitter)
    assert np.array_equal(np.asarray(found), np.asarray(expected))
    assert torch.equal(torch.get_rng_state(), before), "what a step draws is the run's own"
    unturned = resized_crop(picture, 16, 77, flip=False, jitter=jitter)
    assert np.array_equal(np.asarray(ImageOps.mirror(unturned)), np.asarray(found))


def test_a_picture_that_is_answered_is_what_torchvision_makes_of_it(photographs: Path) -> None:
    images = streamed(Paths(["red/photo 3.jpg", "green/photo 1.jpg"], photographs), [0, 1], 16)
    steps = v2.Compose([v2.Resize(18), v2.CenterCrop(16), v2.PILToTensor()])  # 18 = 16 * 8 / 7
    for row, x in enumerate(images.take(torch.tensor([0, 1])).x):
        assert isinstance(images.source, Paths)
        assert torch.equal(x, steps(Image.open(images.source[row]).convert("RGB")))


def test_a_turned_and_a_grey_photograph_are_read_as_they_are_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright = Image.new("RGB", (40, 80), "blue")
    upright.paste("red", (0, 0, 40, 40))  # red above, blue below
    upright.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    Image.new("L", (50, 40), 120).save(tmp_path / "grey.jpg")
    x = streamed(Paths(["turned.jpg", "grey.jpg"], tmp_path), [0, 1], 16).take(torch.arange(2)).x
    assert x[0, 0, 2, 8] > 200 > 60 > x[0, 0, 13, 8], "red is above"
    assert (x[1].long() - 120).abs().max() < 3
    picture = streamed(Paths(["turned.jpg"], tmp_path), [0], 16).source.picture(0, 16)
    assert picture.size == (40, 80)


def test_real_photographs_are_read_at_224_pixels_by_processes_as_by_none() -> None:
    folder = Path(os.environ.get("MBIB_SHARED", "")) / "data" / "imagenet_sample"
    if not folder.is_dir():
        pytest.skip("the photographs are not here: set MBIB_SHARED")
    names = sorted(p.name for p in folder.iterdir())[:40]
    images = streamed(Paths(names, folder), torch.zeros(40), 224)
    sums = []
    for workers in (0, 2):
        with readers(workers):
            sums += [[int(chunk.x.long().sum()) for chunk in images.chunks(25)]]
    assert sums[0] == sums[1]
    steps = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])
    first = images.take(torch.arange(2)).x
    for row, name in enumerate(names[:2]):
        assert torch.equal(first[row], steps(Image.open(folder / name).convert("RGB")))


def test_pictures_stay_on_disk_until_they_are_asked_for(data: LongTailed) -> None:
    assert data.streamed
    with pytest.raises(TypeError, match="these pictures are not in memory"):
        data.train.x  # noqa: B018
    few = first_of_each_class(data.train, 2)
    assert isinstance(few, Streamed)
    assert few.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert few.take(torch.arange(6)).x.shape == (6, 3, 16, 16)
    assert [len(chunk.y) for chunk in data.train.chunks(20)] == [20, 20, 1]
    assert [len(chunk.y) for chunk in data.train.chunks(20, even=True)] == [14, 14, 13]
    assert "Read while training, as 16 x 16 pixels; none was opened yet." in describe(data)


def test_as_many_processes_read_as_there_are_cores_but_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, here, n in ((1, 1, 0), (2, 1, 1), (16, 1, 8), (16, 4, 3)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
        assert readers_here() == n
    with readers(5):
        assert readers_here() == 5


@pytest.mark.fault("a number of workers that is none")
def test_workers_must_be_a_number() -> None:
    with pytest.raises(ValueError, match=r"workers is -1: it must be a whole number from 0"), readers(-1):
        pass


# Runs


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=[] if name in ("mbib", "kcl") else pytest.mark.slow)
        for name in ("mbib", "kcl", "crt", "bbn", "srepr", "ncm", "sam", "ssp", "sade", "glmc", "ride-3", "vib")
    ],
)
def test_a_run_that_was_killed_ends_in_the_bits_of_one_that_was_not_with_another_number_of_processes(
    method: str, data: LongTailed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(method=method, data=data.name, average="swa" if method == "mbib" else None)
    whole = run(given, data, workers=0)
    with monkeypatch.context() as patch:
        kill_after(1, patch)
        with pytest.raises(Killed):
            run(given, data, checkpoint=tmp_path / "run.pt", workers=2)
    assert not multiprocessing.active_children(), "processes end with the run"
    assert bits(run(given, data, checkpoint=tmp_path / "run.pt", workers=1)) == bits(whole)
    assert whole.size == (16, 16)
    assert whole.settings.stream


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_pictures_that_are_read_or_says_why_not(method: str, photographs: Path) -> None:
    if method == "mislas":
        with pytest.raises(ValueError, match="mislas trains with mixup"):
            run(settings(method=method, data=f"list:{photographs.name}"), load(f"list:{photographs}", size=16))
        return
    picture = METHODS[method].parts.picture  # as it is observed, it must have 32 pixels a side
    given = settings(method=method, data=f"list:{photographs.name}", epochs=1, size=None if picture else 16)
    losses = run(given, load(f"list:{photographs}", size=32 if picture else 16), workers=0).history["loss"]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.fault("a broken picture while training")
def test_a_broken_picture_ends_the_run_with_its_name(copy: Path, tmp_path: Path, workers: int) -> None:
    (copy / "green" / "photo 2.jpg").write_bytes((copy / "green" / "photo 2.jpg").read_bytes()[:200])
    data = load(f"list:{copy}", size=16)
    with pytest.raises(ValueError, match=r"photo 2.jpg is a broken picture .*; repair or remove it, or leave it out"):
        run(settings(data=data.name), data, workers=workers)
    assert not multiprocessing.active_children()


def test_in_place_of_a_broken_picture_comes_the_next_one_of_its_class(
    copy: Path, capsys: pytest.CaptureFixture
) -> None:
    clean: Any = load(f"list:{copy}", size=16).train
    for name in ("green/photo 2.jpg", "green/photo 3.jpg"):
        (copy / name).write_bytes(b"\xff\xd8 no JPEG")
    images: Any = load(f"list:{copy}", size=16, skip_broken=True).train
    first = int((clean.y == 1).nonzero()[0])
    drawn = draw(images.y, seed=3, epoch=0, augmentation=CROPS)
    rows = drawn.rows.clone()
    rows[(rows == first + 2) | (rows == first + 3)] = first + 4
    expected = digest(list(FileSource(clean, CROPS, CPU).stream(drawn._replace(rows=rows), 16)))
    for workers in (0, 2):
        with readers(workers):
            source = FileSource(images, CROPS, CPU)
            assert digest(list(source.stream(drawn, 16))) == expected
            source.close()
    said = capsys.readouterr().err
    assert said.count("warning: passed over as broken") == 2, "each is named once"
    found = [chunk.y for chunk in images.chunks(10)]
    assert len(torch.cat(found)) == len(images.y) - 2, "elsewhere they are left out"
    network: Any = METHODS["ce"].network(3, depth=8)
    found_of, y = answers(network, images)
    assert len(found_of["logits/v"]) == len(y) == len(images.y) - 2


@pytest.mark.fault("all pictures of a class broken")
def test_a_class_of_broken_pictures_ends_the_run(copy: Path) -> None:
    for path in (copy / "blue").iterdir():
        path.write_bytes(b"no picture")
    data = load(f"list:{copy}", size=16, skip_broken=True)
    with pytest.raises(ValueError, match="so is every other picture of its class: repair some, or"):
        run(settings(data=data.name), data, workers=0)


@pytest.mark.fault("a process that reads dies")
def test_a_process_that_dies_is_told_in_a_sentence(data: LongTailed, monkeypatch: pytest.MonkeyPatch) -> None:
    main = os.getpid()

    def die(self: Paths, row: int, side: int) -> Image.Image:
        assert os.getpid() != main
        os._exit(9)

    monkeypatch.setattr(Paths, "picture", die)
    images: Any = data.train
    with readers(2), pytest.raises(OSError, match=r"a process that reads pictures was ended .* try fewer --workers"):
        list(images.chunks(50))


def test_a_run_on_a_list_is_trained_recorded_scored_and_predicted(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = f"train ce --data list:{copy} --size 16 --depth 8 --epochs 2 --batch 16 --rate 0.02 --threads 1 --features"
    train = [*words.split(), "--precision", "float32", "--quiet", "--workers", "1", "--out", str(tmp_path / "runs")]
    assert cli.main(train) == 0
    record = read_record(next((tmp_path / "runs").glob("*.json")))
    assert record["settings"]["stream"] is True
    assert record["recipe"]["augmentation"] == "resized-crop"
    assert record["counts"] == list(COUNTS)
    assert record["classes"] == ["red", "green", "blue"]
    assert record["test"]["pictures"] == 6
    assert len(record["history"]["curve"]) == 2
    assert record["command"] == command_line(Settings.of(record["settings"]))
    assert "--stream" not in record["command"]
    weights = str(next((tmp_path / "runs").glob("*.safetensors")))
    capsys.readouterr()
    assert cli.main(["evaluate", weights]) == 0
    accuracy = f"{100 * record['test']['accuracy']['v']['all']:.1f}"
    assert accuracy in capsys.readouterr().out
    assert cli.main(["evaluate", weights, "--data", f"folder:{copy}", "--workers", "0"]) == 0
    said = capsys.readouterr()
    assert "all 53 pictures" in said.out, "its class folders are a test set as a whole"
    files = [str(copy / line.rpartition(" ")[0]) for line in (copy / "test.txt").read_text().splitlines()]
    assert cli.main(["predict", weights, *files]) == 0
    said = capsys.readouterr()
    assert f"6 pictures in folders named after a class {100 * record['test']['micro']:.1f} % are right" in said.err
    assert cli.main(train) == 0
    assert "this run was made before" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [0, 2])
def test_all_that_is_missing_and_all_that_is_broken_is_found(copy: Path, workers: int) -> None:
    for number in (0, 5, 22):
        (copy / "red" / f"photo {number}.jpg").unlink()
    (copy / "green" / "photo 0.jpg").write_bytes(b"")
    for name in ("green/photo 3.jpg", "blue/photo 8.jpg"):  # of training and of the test
        (copy / name).write_bytes((copy / name).read_bytes()[:200])
    data = load(f"list:{copy}", size=16, stream=True, skip_broken=None)
    with readers(workers):
        read, found = zip(*unreadable(data), strict=True)
    assert sum(read) == 53
    told = {one.name: one for some in found for one in some}
    assert {name for name, one in told.items() if one.missing} == {f"red/photo {n}.jpg" for n in (0, 5, 22)} | {
        "green/photo 0.jpg"
    }
    assert {name for name, one in told.items() if not one.missing} == {"green/photo 3.jpg", "blue/photo 8.jpg"}
    assert told["red/photo 5.jpg"].problem == "is not there"
    assert told["green/photo 0.jpg"].problem == "is empty"
    assert told["blue/photo 8.jpg"].problem.startswith("is a broken picture (")
    assert told["blue/photo 8.jpg"].file == copy / "blue" / "photo 8.jpg"


@pytest.mark.fault("broken pictures in a data set that is checked")
@pytest.mark.fault("missing pictures in a data set that is checked")
def test_check_counts_all_that_cannot_be_read_names_the_first_and_writes_all_to_a_file(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture, sentence: Hear
) -> None:
    check, out = ["check", f"list:{copy}", "--workers", "0"], tmp_path / "unreadable.csv"
    assert cli.main([*check, "--out", str(out)]) == 0
    assert "53 pictures were read; 0 are missing or empty, 0 are broken\n" in capsys.readouterr().out
    assert out.read_text() == "path,problem\n"
    for number in range(7):
        (copy / "red" / f"photo {number}.jpg").unlink()
    (copy / "red" / "photo 27.jpg").write_bytes(b"no picture")  # of the test
    assert cli.main(check) == 1
    said = capsys.readouterr()
    sentence(said.err)
    assert re.findall(r"\d\.jpg is not there", said.err) == [f"{number}.jpg is not there" for number in range(5)]
    assert "7 missing or empty:" in said.err
    assert "and 2 more; --out FILE lists all" in said.err
    assert "1 broken:" in said.err
    assert "photo 27.jpg is no picture" in said.err
    assert "53 pictures were read; 7 are missing or empty, 1 is broken, and --skip-broken leaves them out" in said.out
    assert cli.main([*check, "--out", str(out)]) == 2, "what is there is not written over"
    assert "is there already: name another file with --out" in capsys.readouterr().err
    out.unlink()
    assert cli.main([*check, "--out", str(out)]) == 1
    with out.open(newline="") as file:
        rows = {row["path"]: row["problem"] for row in csv.DictReader(file)}
    wanted = {f"red/photo {number}.jpg": "is not there" for number in range(7)}
    assert rows == wanted | {"red/photo 27.jpg": "is no picture, or of a format that Pillow cannot read"}


@pytest.mark.parametrize("kind", ["folder", "folder, streamed", "list", "csv", "list with a broken picture"])
def test_the_pictures_of_a_report_are_those_that_were_confused(kind: str, copy: Path, tmp_path: Path) -> None:
    name, broken = f"{kind.split()[0].strip(',')}:{copy}", "broken" in kind
    if kind == "csv":
        lines = [line.rpartition(" ") for line in (copy / "test.txt").read_text().splitlines()]
        lines += [line.rpartition(" ") for line in (copy / "train.txt").read_text().splitlines()]
        rows = [f"{path},{label},{'test' if row < 6 else 'train'}" for row, (path, _, label) in enumerate(lines)]
        name = f"csv:{copy / 'photos.csv'}"
        (copy / "photos.csv").write_text("\n".join(["path,label,split", *rows]))
    if broken:
        (copy / "green" / "photo 14.jpg").write_bytes(b"no picture")  # the first of green's test pictures
    data = load(name, size=16, stream="streamed" in kind, skip_broken=broken)
    assert data.streamed == (kind != "folder")
    network: Any = METHODS["ce"].network(3, depth=8)
    record = {
        **{"run_id": "x", "command": "mbib", "seconds": 1.0, "recipe": {"depth": 8}, "counts": data.counts.tolist()},
        **{"classes": data.classes, "shots": {shot: int(mask.sum()) for shot, mask in data.shots.items()}},
        "settings": {"method": "ce", "epochs": 1, "data": name},
        "test": evaluate(network, data.test, data),
    }
    run: Any = SimpleNamespace(network=network)
    page = report.write_report(run, data, record, tmp_path).read_text()
    x, y = data.test.take(torch.arange(len(data.test.y)))
    answer = features_of(network, x)["logits/v"].argmax(1)
    image = r'!\[A test picture of (\w+), taken for (\w+)\]\(data:image/png;base64,([\w+/=]+) "(.*?)"\)'
    shown = re.findall(image, page)
    tail = [i for i, n in enumerate(record["counts"]) if n < 20]
    wrong = sum(int(((y == i) & (answer != i)).sum()) for i in tail)
    assert len(shown) == wrong > 0
    for label, taken_for, content, file in shown:
        pixels = np.asarray(Image.open(BytesIO(b64decode(content))))[::6, ::6]
        same = [i for i, one in enumerate(x.permute(0, 2, 3, 1).numpy()) if np.array_equal(one, pixels)]
        assert [(data.classes[y[i]], data.classes[answer[i]]) for i in same] == [(label, taken_for)]
        assert label != taken_for
        read, _ = read_file(copy / file, (16, 16), MARGIN if data.streamed else 1)
        assert np.array_equal(read.transpose(1, 2, 0), pixels), "the name is that of the file which is shown"


def test_pictures_of_a_page_are_small_and_so_are_all_together(photographs: Path) -> None:
    noise = torch.randint(0, 256, (40, 3, 224, 160), dtype=torch.uint8)
    images, logits = Images(noise, torch.arange(40) % 2), torch.tensor([[0.0, 3.0, 1.0]]).repeat(40, 1)
    logits[4] *= 2
    found = surest_mistakes(images, logits, [1, 0])
    assert list(found) == [0], "class 1 is right"
    assert [one.answer for one in found[0]] == [1] * 4
    assert found[0][0].probability > found[0][1].probability == found[0][3].probability
    pictures = [Image.open(BytesIO(b64decode(one.uri.partition(",")[2]))) for one in found[0]]
    assert {(p.format, p.size) for p in pictures} == {("JPEG", (69, 96))}
    whole = sum(len(one.uri) for one in found[0])
    assert len(surest_mistakes(images, logits, [0], most=whole - 1)[0]) == 3
    assert surest_mistakes(images, logits, [1]) == {}


# Settings


def test_streamed_pictures_have_crops_of_their_own() -> None:
    found = settle(Settings(data="list:birds", method="ce"))
    assert (found.stream, found.augmentation, found.folder, found.kind) == (True, "resized-crop", "birds", "list")
    assert run_id(found).startswith("list-birds-ce-folder-s0-")
    asked = settle(Settings(data="list:/somewhere/birds", method="ce", augmentation="resized-crop", stream=True))
    assert run_id(asked) == run_id(found)
    assert run_id(settle(Settings(data="folder:birds", method="ce", stream=True))) != run_id(
        settle(Settings(data="folder:birds", method="ce"))
    )
    assert "--stream" in command_line(settle(Settings(data="folder:birds", method="ce", stream=True)))
    assert settle(Settings(data="list:birds", method="ce", augmentation="none")).augmentation == "none"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"augmentation": "mixup", "data": "list:a"}, "mixup is for images in memory; those that are read"),
        ({"augmentation": "resized-crop", "data": "folder:a"}, "say --stream with a folder, or leave it out"),
        ({"augmentation": "resized-crop"}, "resized-crop is for images that are read while training"),
        ({"method": "mislas", "data": "list:a"}, "mislas trains with mixup, which images that are read"),
        ({"stream": True}, "stream is for images of your own: leave it out for glyphs-lt"),
        ({"imbalance": 50, "data": "list:a"}, "imbalance does not apply to a list"),
    ],
)
@pytest.mark.fault("a setting that streamed pictures cannot have: {words}")
def test_what_streamed_pictures_cannot_have_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settle(Settings(**{"method": "ce", **given}))


@pytest.mark.fault("stream asked for arrays")
def test_arrays_do_not_stream(tiny_data: LongTailed) -> None:
    with pytest.raises(ValueError, match="the images of coloured are in memory: leave stream out"):
        trainer.settled_on(Settings(data="coloured", method="ce", stream=True), tiny_data)


# Lists


def test_a_list_names_files_and_labels(data: LongTailed, photographs: Path) -> None:
    assert data.name == f"list:{photographs.name}"
    assert data.classes == ["red", "green", "blue"]
    assert data.counts.tolist() == list(COUNTS)
    assert [len(part.y) for part in (data.validation, data.test)] == [6, 6]
    assert load(f"list:{photographs}", size=16).fingerprint == data.fingerprint


def test_paths_start_from_root_and_classes_have_names_of_their_own(photographs: Path, tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        (tmp_path / f"{part}.txt").write_bytes((photographs / f"{part}.txt").read_bytes().replace(b"\n", b"\r\n\r\n"))
    (tmp_path / "classes.txt").write_text("a robin\na wren\nan auk\n")
    data = load(f"list:{tmp_path}", root=photographs, size=16)
    assert data.classes == ["a robin", "a wren", "an auk"]
    assert data.counts.tolist() == list(COUNTS)


def test_without_a_test_list_the_validation_list_is_reported_and_validation_is_held_out(copy: Path) -> None:
    (copy / "test.txt").unlink()
    whole = load(f"list:{copy}", size=16)
    assert any("What is called test is val.txt" in note for note in whole.notes)
    assert len(whole.test.y) == 6
    assert whole.validation.y.bincount().tolist() == [4, 2, 1]  # 15 % of 24, 12 and 5
    assert whole.counts.tolist() == [20, 10, 4]
    (copy / "val.txt").unlink()
    data = load(f"list:{copy}", size=16)
    assert data.counts.tolist() == [16, 8, 3]
    parts: list[Any] = [data.train, data.validation, data.test]
    rows = [row for part in parts for row in part.rows.tolist()]
    assert sorted(rows) == list(range(41)), "each picture is in one part"


def real_list(name: str) -> bytes:
    file = Path(os.environ.get("MBIB_SHARED", "")) / "data" / "lists" / f"{name}.txt.xz"
    if not file.is_file():
        pytest.skip("the published lists are not here: set MBIB_SHARED")
    return lzma.decompress(file.read_bytes())


@pytest.mark.parametrize(
    ("name", "n", "most", "least", "last"),
    [
        ("Places_LT_train", 62_500, 4980, 5, "zen_garden"),
        ("Places_LT_val", 7_300, 20, 20, "zen_garden"),
        ("ImageNet_LT_val", 20_000, 20, 20, "n15075141"),
        ("iNaturalist18_val", 24_426, 3, 3, "8141"),
    ],
)
def test_published_lists_are_read(name: str, n: int, most: int, least: int, last: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(real_list(name))
    lines = read_lines(tmp_path / "list.txt", tmp_path)
    counts = np.bincount(lines.labels)
    kind = next(kind for kind, published in PUBLISHED.items() if name.startswith(published.stem))
    assert (len(lines.labels), counts.max(), counts.min()) == (n, most, least)
    assert len(counts) == PUBLISHED[kind].classes
    assert PUBLISHED[kind].lines[name.rpartition("_")[2]] == n
    names = _class_names(tmp_path, lines)
    assert len(set(names)) == len(counts)
    assert names[-1].endswith(last)


@pytest.mark.fault("a published list of another length")
def test_a_published_list_is_known_by_its_length(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        (tmp_path / f"ImageNet_LT_{part}.txt").write_text("a.jpg 0\n")
    with pytest.raises(ValueError, match=r"ImageNet_LT_train.txt has 1 line, the published list 115846: copy it again"):
        load(f"imagenet-lt:{tmp_path}")
    with pytest.raises(FileNotFoundError, match=r"has no iNaturalist18_train.txt, iNaturalist18_val.txt: put the publ"):
        load(f"inaturalist18:{tmp_path}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("train.txt", "\nred/cut off"),
            r"train.txt, line 42, is no path with a label from 0 .*: 'red/cut off'; is the",
        ),
        (("train.txt", "\nred/photo 1.jpg -1"), "train.txt, line 42, is no path with a label"),
        (
            ("test.txt", "\nred/photo 1.jpg 3"),
            r"test.txt: the label 3 of red/photo 1.jpg is not a class: labels run from 0 to 2",
        ),
        (("train.txt", "\nred/photo 1.jpg 4"), "no training picture of 3"),
        (("train.txt", "\nred/photo 1.jpg 99999999"), "labels run up to 99999999 in 42 lines"),
        (("val.txt", "\nred/nowhere.jpg 0"), r"missing or empty: 1 of the 7 pictures in val.txt(.|\n)*nowhere.jpg"),
        (("dev.txt", "red/photo 1.jpg 0"), r"dev.txt and .*val.txt are both the validation list: rename one"),
        (("classes.txt", "one\ntwo"), r"classes.txt has 2 lines, and 3 classes are trained"),
    ],
)
@pytest.mark.fault("a bad list: {words}")
def test_a_bad_list_is_refused(copy: Path, change: tuple[str, str], words: str) -> None:
    with (copy / change[0]).open("a") as file:
        file.write(change[1].removeprefix("\n") if change[0] != "dev.txt" else change[1])
    with pytest.raises(ValueError, match=words):
        load(f"list:{copy}", size=16)


@pytest.mark.fault("a list of which no file is there")
def test_a_list_of_which_nothing_is_there_says_where_paths_start_also_where_broken_files_are_left_out(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture, sentence: Hear
) -> None:
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    for part in ("train", "val", "test"):
        (copy / f"{part}.txt").rename(elsewhere / f"{part}.txt")
    for skip_broken in (False, True):
        with pytest.raises(ValueError, match=r"41 of the 41 pictures in .*; name the folder where they lie"):
            load(f"list:{elsewhere}", size=16, skip_broken=skip_broken)
    assert cli.main(["check", f"list:{elsewhere}", "--workers", "0"]) == 1
    said = capsys.readouterr()
    sentence(said.err)
    assert "0 are broken; name the folder where they lie with --root, or bring them there\n" in said.out
    assert cli.main(["check", f"list:{elsewhere}", "--workers", "0", "--root", str(copy)]) == 0


@pytest.mark.fault("links to files that are gone in a folder that is checked")
def test_a_link_that_leads_nowhere_is_among_what_is_missing_in_a_folder(copy: Path, sentence: Hear) -> None:
    (copy / "red" / "gone.jpg").symlink_to(copy / "nowhere.jpg")
    found = [one for _, some in unreadable(load(f"folder:{copy}", stream=True, skip_broken=None)) for one in some]
    assert [(one.name, one.missing, one.problem) for one in found] == [("red/gone.jpg", True, "is not there")]
    sentence(f"{found[0].file} {found[0].problem}")


@pytest.mark.fault("a folder named as a table, a table named as a folder")
def test_another_kind_of_data_is_named_where_it_is_there(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "photos.csv").write_text("path,label\n")
    monkeypatch.chdir(copy)
    for name, words in {
        "photos.csv": "for the table of that name write csv:photos.csv$",
        "red": "for the folder of that name write folder:red$",
        "csv:red": "name a CSV file with a line for each picture, or class folders as folder:red$",
        "list:photos.csv": "as list:FOLDER, or a table as csv:photos.csv$",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            load(name)


@pytest.mark.fault("no list")
def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere: name the one with the lists"):
        load(f"list:{tmp_path / 'nowhere'}")
    with pytest.raises(FileNotFoundError, match=r"has no train.txt: write a line for each picture there"):
        load(f"list:{tmp_path}")
    with pytest.raises(ValueError, match="list: names no path: write list:PATH"):
        load("list:")


def test_missing_files_are_left_out_where_broken_ones_are(copy: Path, capsys: pytest.CaptureFixture) -> None:
    whole = load(f"list:{copy}", size=16)
    (copy / "red" / "photo 0.jpg").unlink()
    (copy / "red" / "photo 1.jpg").write_bytes(b"")
    data = load(f"list:{copy}", size=16, skip_broken=True)
    assert data.counts.tolist() == [22, 12, 5]
    assert data.fingerprint != whole.fingerprint
    assert "missing or empty: 2 of the 41 pictures in train.txt" in capsys.readouterr().err


def test_a_long_list_is_read_in_seconds_and_packed(tmp_path: Path) -> None:
    n = 100_000
    line = "train/n{:08d}/n{:08d}_{}.JPEG {}\n"
    (tmp_path / "train.txt").write_text("".join(line.format(i % 1000, i % 1000, i, i % 1000) for i in range(n)))
    start = time.process_time()
    lines = read_lines(tmp_path / "train.txt", tmp_path)
    assert time.process_time() - start < 5
    held = lines.paths.packed.nbytes + lines.paths.ends.nbytes + lines.labels.nbytes
    assert held / n < 60
    assert lines.paths.name(n - 1) == "train/n00000999/n00000999_99999.JPEG"


# Tables


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_names_files_labels_and_parts(photographs: Path, separator: str, tmp_path: Path) -> None:
    rows = [["id", "Image", "species", "split"]]
    for part in ("train", "val", "test"):
        for line in (photographs / f"{part}.txt").read_text().splitlines():
            path, _, label = line.rpartition(" ")
            rows.append([str(len(rows)), path, ["robin", "wren", "auk"][int(label)], part])
    (tmp_path / "birds.csv").write_text("\ufeff" + "\n".join(separator.join(row) for row in rows), "utf-8")
    data = load(f"csv:{tmp_path / 'birds.csv'}", root=photographs, size=16)
    assert data.name == "csv:birds.csv"
    assert data.classes == ["auk", "robin", "wren"]
    assert data.counts.tolist() == [5, 24, 12]
    assert [len(part.y) for part in (data.validation, data.test)] == [6, 6]
    red: Any = data.train.take((data.train.y == 1).nonzero()[:1, 0]).x.float().mean((0, 2, 3))
    assert red[0] > 150 > red[1]


def test_a_table_without_parts_is_split_and_numbers_are_sorted_as_numbers(photographs: Path) -> None:
    rows = [
        f"{line.rpartition(' ')[0]},{9 + int(line[-1])}"
        for line in (photographs / "train.txt").read_text().split("\n")
        if line
    ]
    (photographs / "birds.csv").write_text("\n".join(["file,label", *rows]))
    data = load(f"csv:{photographs / 'birds.csv'}", size=16)
    assert data.classes == ["9", "10", "11"]
    assert data.counts.tolist() == [16, 8, 3]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("where,label\na,0", "has no column of paths among where, label: call it path"),
        ("path,kind\na,0", "has no column of labels among path, kind: call it label"),
        ("path,label\na,0\nb", "line 3, lacks a path or a label"),
        (
            "path,label,split\na,0,train\nb,1,tset",
            "line 3: 'tset' in the split column is not a part: write train, val or test",
        ),
        ("path,label\na,0\nb,\nc,1", "line 3, lacks a path or a label: fill it in or delete the line"),
        ("path,label\n", "lists no picture"),
        ("path,label\na,0".encode("utf-16").decode("latin-1"), "is no CSV in UTF-8, .*: save it as CSV UTF-8"),
        ("path,label\na\\b.jpg,0\nb\\c.jpg,1", r"missing or empty: 2 of the 2 .*; write / where these paths"),
    ],
)
@pytest.mark.fault("a bad table: {words}")
def test_a_bad_table_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "birds.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=words):
        load(f"csv:{tmp_path / 'birds.csv'}")


# Folders and others' data sets


def test_a_folder_streams_when_asked_or_when_it_would_fill_the_memory(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data = load(f"folder:{photographs}", size=16, stream=True)
    assert data.streamed
    assert data.classes == ["blue", "green", "red"]
    assert data.counts.tolist() == [7, 12, 20]
    assert load(f"folder:{photographs}", size=16).counts.tolist() == [7, 12, 20]
    capsys.readouterr()
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    large = load_folder(photographs, size=16)
    assert large.fingerprint == data.fingerprint
    assert "more than a quarter of the memory: they are read while training" in capsys.readouterr().err
    assert trainer.settled_on(Settings(data=f"folder:{photographs}", method="ce", size=16), large).stream


def test_the_parts_of_a_folder_are_taken_as_they_are(photographs: Path, tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        (tmp_path / part).mkdir()
        for name in ("red", "green", "blue"):
            (tmp_path / part / name).symlink_to(photographs / name)
    data = load(f"folder:{tmp_path}", size=16, stream=True)
    assert data.counts.tolist() == [9, 16, 28]
    assert len(data.test.y) == len(data.validation.y) == 53


class Columns:
    """As Hugging Face's data sets: items are dictionaries, columns can be had alone."""

    def __init__(self, folder: ImageFolder):
        self.folder, self.column_names = folder, ["image", "label"]
        self.features = {"image": None, "label": type("ClassLabel", (), {"names": folder.classes})}

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, key: Any) -> Any:
        return self.folder.targets if key == "label" else dict(zip(("image", "label"), self.folder[key], strict=True))


class Pairs:
    """The plainest data set: uint8 tensors and labels."""

    def __init__(self, folder: ImageFolder):
        self.folder, self.classes = folder, folder.classes

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        picture, label = self.folder[row]
        return v2.functional.pil_to_tensor(picture), label


@pytest.mark.parametrize("kind", [lambda folder: folder, Columns, Pairs], ids=["ImageFolder", "columns", "pairs"])
def test_data_sets_of_others_stream(photographs: Path, kind: Callable[[ImageFolder], Any]) -> None:
    folder = kind(ImageFolder(str(photographs)))
    order = torch.randperm(53, generator=torch.Generator().manual_seed(0)).tolist()
    parts = dict(zip(("train", "validation", "test"), (order[:33], order[33:43], order[43:]), strict=True))
    made = {part: Subset(folder, rows) for part, rows in parts.items()}
    if kind is Columns:
        made = dict.fromkeys(parts, folder)
    data = from_dataset("mine", **made, size=16)
    assert data.classes == ["blue", "green", "red"]
    labels = ImageFolder(str(photographs)).targets
    assert data.test.y.tolist() == ([labels[row] for row in parts["test"]] if kind is not Columns else labels)
    red = data.test.take((data.test.y == 2).nonzero()[:1, 0]).x.float().mean((0, 2, 3))
    assert red[0] > 150 > red[1]
    if kind is Pairs:
        history = run(settings(data="mine", size=None, epochs=1), data, workers=1).history
        assert np.isfinite(history["loss"]).all()


@pytest.mark.fault("a data set of floats")
def test_data_sets_of_others_give_pictures_and_numbers(photographs: Path) -> None:
    floats = ImageFolder(str(photographs), transform=v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]))
    data = from_dataset("mine", train=floats, validation=floats, test=floats, size=16)
    with pytest.raises(
        ValueError, match=r"picture 0 of mine train must be a PIL picture or a uint8 tensor .* ToTensor"
    ):
        data.train.take(torch.tensor([0]))
    with pytest.raises(TypeError, match="mine train must be a data set with a length and items by number, not int"):
        from_dataset("mine", train=3, validation=floats, test=floats)
    arrays = TensorDataset(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    assert isinstance(from_dataset("mine", train=arrays, validation=arrays, test=arrays).train, Images)
