"""Data of one's own: folders of pictures, arrays, the report, `mbib predict`, the losses in a foreign loop."""

import csv
import importlib.util
import json
import os
import pickle
import re
import shlex
import shutil
import struct
import subprocess
import sys
import types
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import markdown_it
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import load_model, save_file
from torchvision import transforms

from mbib_core import cli, metrics, options, report, serving, trainer
from mbib_core.data import LongTailed, describe, from_arrays, load
from mbib_core.data.folders import held_out, load_folder
from mbib_core.data.pictures import Refused, read_picture
from mbib_core.evaluation import features_of
from mbib_core.methods import settle
from mbib_core.mistakes import Mistake
from mbib_core.results import read_record, show_table, table
from mbib_core.schedules import SCHEDULES, Schedule
from mbib_core.settings import Settings, command_line, run_id
from mbib_core.text import printable
from mbib_core.weights import read_weights

ROOT = Path(__file__).parent.parent
Hear = Callable[[str], None]
Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture


def file_of(picture: Image.Image, kind: str = "png", **more: Any) -> bytes:
    content = BytesIO()
    picture.save(content, kind, **more)
    return content.getvalue()


def flat(colour: Any, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def colour(name: str) -> tuple[int, int, int]:
    """A colour of its own for every class."""
    return sum(map(ord, name)) * 37 % 256, sum(map(ord, name)) * 91 % 256, 40


def fill(folder: Path, numbers: dict[str, int], start: int = 0) -> Path:
    """`numbers` pictures in a sub-folder a class: one colour a class, a shade of it for every picture."""
    for name, n in numbers.items():
        red, green, blue = colour(name)
        (folder / name).mkdir(parents=True, exist_ok=True)
        for shade in range(start, start + n):
            (folder / name / f"{shade}.png").write_bytes(file_of(flat((red, green, blue + shade % 55))))
    return folder


def shades(data: LongTailed, part: str, name: str = "robin") -> set[int]:
    """Which pictures of `fill` are in a part."""
    images = getattr(data, part)
    return {int(x[2, 0, 0]) - 40 for x in images.x[images.y == data.classes.index(name)]}


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    return fill(tmp_path / "birds", {"robin": 30, "wren": 8, "auk": 3})


@pytest.fixture
def quick(monkeypatch: Patch) -> None:
    """A folder's schedule made short: ResNet-8, two epochs."""
    monkeypatch.setitem(SCHEDULES, "folder", Schedule(depth=8, epochs=2, batch=16))


# A folder's layout


def test_a_folder_of_class_folders_becomes_a_long_tailed_set(birds: Path) -> None:
    data = load(f"folder:{birds}", root="/nowhere")
    assert load("folder:birds", root=birds.parent).fingerprint == data.fingerprint
    assert data.classes == ["auk", "robin", "wren"]
    assert data.name == "folder:birds"
    assert data.counts.tolist() == [1, 20, 6]
    for part, counts in {"validation": [1, 5, 1], "test": [1, 5, 1]}.items():
        assert getattr(data, part).y.bincount(minlength=3).tolist() == counts
    for part in ("train", "validation", "test"):
        x, y = getattr(data, part)
        assert x.shape[1:] == (3, 32, 32)
        colours = torch.tensor([colour(data.classes[i]) for i in y])
        assert torch.equal(x[:, :2, 0, 0].long(), colours[:, :2])
    assert shades(data, "train") | shades(data, "validation") | shades(data, "test") == set(range(30))


@pytest.mark.parametrize("name", ["validation", "val", "valid", "Val", "validate", "dev", "eval"])
def test_parts_that_lie_in_folders_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "train", {"robin": 10, "wren": 2})
    fill(tmp_path / name, {"robin": 4, "wren": 1}, start=20)
    fill(tmp_path / "test", {"robin": 5, "wren": 5}, start=30)
    data = load_folder(tmp_path)
    assert [len(getattr(data, part).y) for part in ("train", "validation", "test")] == [12, 5, 10]
    assert shades(data, "train") == set(range(10))
    assert shades(data, "validation") == set(range(20, 24))
    assert shades(data, "test", "wren") == set(range(30, 35))


@pytest.mark.parametrize(("there", "split"), [("test", "validation"), ("val", "test")])
def test_a_part_that_is_not_there_is_split_off_the_training_pictures(tmp_path: Path, there: str, split: str) -> None:
    fill(tmp_path / "train", {"robin": 20, "wren": 2})
    fill(tmp_path / there, {"robin": 4, "wren": 1}, start=30)
    data = load_folder(tmp_path)
    assert data.counts.tolist() == [17, 1]
    assert getattr(data, split).y.tolist() == [0, 0, 0, 1]
    assert shades(data, "test" if there == "test" else "validation") == set(range(30, 34))


@pytest.mark.parametrize("names", [("bus", "car", "train"), ("bus", "test", "train"), ("bus", "val", "valid")])
def test_a_class_may_be_called_train(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert load_folder(fill(tmp_path, dict.fromkeys(names, 5))).classes == list(names)


def test_hidden_files_are_passed_over(birds: Path, capsys: Capture) -> None:
    before = load_folder(birds)
    for path in (".DS_Store", "robin/.notes.txt", "robin/Thumbs.db", "wren/desktop.ini"):
        (birds / path).write_text("no picture")
    (birds / ".git").mkdir()
    assert load_folder(birds).fingerprint == before.fingerprint
    assert capsys.readouterr().err == ""


def test_what_lies_beside_the_class_folders_is_named(birds: Path, capsys: Capture) -> None:
    (birds / "README.txt").write_text("about")
    assert len(load_folder(birds).classes) == 3
    within = ("auk/boxes.XML", "auk/tmp", "wren/@eaDir/thumb.jpg", "wren/labels.csv")
    for path in (*within, "__pycache__/x.pyc", ".owl/a.png"):
        (birds / path).parent.mkdir(exist_ok=True)
        (birds / path).write_text("no picture")
    (birds / "robin" / "photo.txt").write_bytes((birds / "robin" / "0.png").read_bytes())
    capsys.readouterr()
    assert load_folder(birds).counts.tolist() == [1, 21, 6], "a picture is one by its content, whatever its suffix"
    assert capsys.readouterr().err == (
        f"mbib: warning: left out of {birds}, as no pictures in a class folder: README.txt, auk/boxes.XML, auk/tmp and "
        f"1 more\nmbib: warning: left out of {birds}, since their names begin with a dot: .owl\n"
    )


# The split


@pytest.mark.parametrize(("n", "parts"), [
    (1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (9, (7, 1, 1)),
    (10, (6, 2, 2)), (20, (14, 3, 3)), (100, (70, 15, 15)),
])  # fmt: skip
def test_shares_of_small_classes(n: int, parts: tuple[int, int, int]) -> None:
    held = held_out(n)
    assert (n - sum(held.values()), held["validation"], held["test"]) == parts


@given(st.integers(1, 10_000))
def test_every_class_keeps_a_training_picture_and_one_more_picture_moves_one_border(n: int) -> None:
    held, more = held_out(n), held_out(n + 1)
    assert sum(held.values()) < n
    assert all(0 <= more[part] - held[part] <= 1 for part in held)
    assert n < 20 or abs(held["test"] / n - 0.15) < 0.03


def test_the_split_hangs_on_the_bytes_alone(birds: Path, tmp_path: Path) -> None:
    before = load_folder(birds)
    other = tmp_path / "elsewhere"
    shutil.copytree(birds, other)
    for path in sorted((other / "robin").iterdir()):
        path.rename(path.with_name(f"renamed-{path.name}"))
    after = load_folder(other)
    assert before.fingerprint == after.fingerprint
    for part in ("train", "validation", "test"):
        assert shades(before, part) == shades(after, part)


def test_an_added_picture_moves_at_most_one_other_across_each_border(tmp_path: Path) -> None:
    fill(tmp_path, {"robin": 10, "wren": 3})
    before = load_folder(tmp_path)
    for n in range(10, 30):
        fill(tmp_path, {"robin": 1}, start=n)
        after = load_folder(tmp_path)
        assert len(shades(before, "test") - shades(after, "test")) <= 1
        assert len(shades(before, "validation") - shades(after, "validation")) <= 1
        assert len(shades(before, "train") - shades(after, "train")) <= 2
        assert not shades(before, "test") & shades(after, "validation")
        assert not shades(before, "validation") & shades(after, "test")
        assert before.fingerprint != after.fingerprint
        before = after


def test_copies_of_a_picture_stay_in_one_part(birds: Path, capsys: Capture) -> None:
    for path in sorted((birds / "robin").iterdir()):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    data = load_folder(birds)
    assert len(data.train.y[data.train.y == 1]) == 40
    parts = [shades(data, part) for part in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 30
    assert capsys.readouterr().err == ""


@pytest.mark.fault("a picture that lies in training and test")
def test_a_picture_in_two_parts_is_reported(tmp_path: Path, capsys: Capture, sentence: Hear) -> None:
    for part in ("train", "val", "test"):
        fill(tmp_path / part, {"robin": 3, "wren": 2}, start=10 * len(part))
    shutil.copy(tmp_path / "train" / "robin" / "50.png", tmp_path / "test" / "robin" / "a.png")
    load_folder(tmp_path)
    said = capsys.readouterr().err
    sentence(said)
    assert said == (
        f"mbib: warning: in two parts of {tmp_path}: 1 picture, such as {tmp_path}/test/robin/a.png; a picture that "
        f"was trained on is no test\n"
    )


@pytest.mark.fault("a picture under two class names")
def test_a_picture_under_two_names_and_copies_are_counted(birds: Path, capsys: Capture, sentence: Hear) -> None:
    content = (birds / "robin" / "3.png").read_bytes()
    for path in ("wren/same.png", "robin/copy.png", "robin/again.png"):
        (birds / path).write_bytes(content)
    said = describe(load_folder(birds))
    warned = capsys.readouterr().err
    sentence(warned)
    one, other = birds / "robin" / "3.png", birds / "wren" / "same.png"
    assert f"under two class names in {birds}: 1 picture, such as {one} and {other}; keep the one whose" in warned
    assert said == (
        "folder:birds: 3 classes with 22 (robin) to 1 (auk) training pictures, 30 in all; 7 for validation, 7 for the "
        "test. Split off the training pictures, 15 % of each class: test and validation. Under more than one class "
        "name: 1 picture (such as robin and wren). Copies of another picture of the same class: 2 training pictures."
    ) + (" Also in the training set: 1 test picture." if "two parts" in warned else "")


def test_the_fingerprint_follows_pictures_classes_and_parts(birds: Path) -> None:
    found = {load_folder(birds).fingerprint, load_folder(birds, size=16).fingerprint}
    (birds / "robin" / "0.png").write_bytes(file_of(flat((1, 2, 3))))
    found.add(load_folder(birds).fingerprint)
    (birds / "robin").rename(birds / "redbreast")
    found.add(load_folder(birds).fingerprint)
    swapped = birds.parent / "parts"
    for part, start in (("train", 0), ("val", 10), ("test", 20)):
        fill(swapped / part, {"robin": 2, "wren": 2}, start=start)
    found.add(load_folder(swapped).fingerprint)
    for old, new in (("test", "x"), ("val", "test"), ("x", "val")):
        (swapped / old).rename(swapped / new)
    found.add(load_folder(swapped).fingerprint)
    assert len(found) == 6
    assert all(re.fullmatch("[0-9a-f]{8}", str(one)) for one in found)


# How a file becomes a picture


def upright() -> Image.Image:
    """Four quarters of four colours, 64 wide and 48 high."""
    picture = flat("red", (64, 48))
    for box, colour in (((32, 0), "lime"), ((0, 24), "blue"), ((32, 24), "white")):
        picture.paste(flat(colour, (32, 24)), box)
    return picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_pictures_are_turned_as_their_exif_tag_says(orientation: int, kind: str) -> None:
    turn = Image.Transpose
    # What a camera held in another way would have stored: the inverse of the turn that the tag asks for.
    turns = (turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM)
    turns += (turn.TRANSPOSE, turn.ROTATE_90, turn.TRANSVERSE, turn.ROTATE_270)
    picture = upright().transpose(turns[orientation - 2]) if orientation > 1 else upright()
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read_picture(
        file_of(picture, kind, exif=exif, **({"quality": 98, "subsampling": 0} if kind == "jpeg" else {}))
    )
    wanted = read_picture(file_of(upright()))
    assert np.abs(found.astype(int) - wanted).max() <= (0 if kind != "jpeg" else 24)
    assert wanted[:, 4, 4].tolist() == [255, 0, 0]
    assert wanted[:, 4, 27].tolist() == [0, 255, 0]


def sixteen_bits(value: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8), value, dtype=np.uint16))


def twelve_bits(value: int) -> bytes:
    """A TIFF of two grey pixels, which Pillow cannot write: three bytes at its end."""
    tags = ((256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 110), (278, 1), (279, 3))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + (value << 12 | value).to_bytes(3, "big")


KINDS = {
    "grey": (file_of(flat(100, mode="L")), [100, 100, 100]),
    "1-bit": (file_of(flat(1, mode="1")), [255, 255, 255]),
    "opaque": (file_of(flat((10, 20, 30, 255), mode="RGBA")), [10, 20, 30]),
    "clear": (file_of(flat((10, 20, 30, 0), mode="RGBA")), [255, 255, 255]),
    "shadow": (file_of(flat((0, 0, 0, 51), mode="RGBA")), [204, 204, 204]),
    "grey-alpha": (file_of(flat((0, 0), mode="LA")), [255, 255, 255]),
    "palette": (file_of(flat((9, 8, 7)).convert("P", palette=Image.Palette.ADAPTIVE)), [9, 8, 7]),
    "clear-palette": (file_of(flat((9, 8, 7)).quantize(2), transparency=0), [255, 255, 255]),
    "clear-rgb": (file_of(flat((9, 8, 7)), transparency=(9, 8, 7)), [255, 255, 255]),
    "white-16": (file_of(sixteen_bits(65535)), [255, 255, 255]),
    "16-bit": (file_of(sixteen_bits(25700)), [100, 100, 100]),
    "16-bit-tiff": (file_of(sixteen_bits(25700), "tiff"), [100, 100, 100]),
    "16-bit-pgm": (file_of(sixteen_bits(25700), "ppm"), [100, 100, 100]),
    "cmyk": (file_of(flat((0, 255, 255, 0), mode="CMYK"), "tiff"), [255, 0, 0]),
    "bmp": (file_of(flat((9, 8, 7)), "bmp"), [9, 8, 7]),
    "webp": (file_of(flat((9, 8, 7)), "webp", lossless=True), [9, 8, 7]),
    "animation": (file_of(flat("red"), "gif", save_all=True, append_images=[flat("blue")]), [255, 0, 0]),
    "12-bit-tiff": (twelve_bits(1600), [100, 100, 100]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_comes_out_in_its_colours(kind: str) -> None:
    content, rgb = KINDS[kind]
    found = read_picture(content)
    assert found.shape == (3, 32, 32)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - np.array(rgb)[:, None, None]).max() <= 1


@pytest.mark.parametrize("size", [(96, 32), (32, 96), (97, 31), (640, 200)])
def test_a_picture_is_cut_to_its_centre(size: tuple[int, int]) -> None:
    picture = flat("red", size)
    side, middle = min(size), max(size) / 2
    first, last = int(middle - side / 2), int(np.ceil(middle + side / 2))
    across = size[0] > size[1]
    picture.paste(flat("lime", size), (first, 0) if across else (0, first))
    picture.paste(flat("red", size), (last, 0) if across else (0, last))
    found = read_picture(file_of(picture))
    assert (found[:, 2:-2, 2:-2] == np.array([0, 255, 0])[:, None, None]).all()
    assert found[1].min() > 200  # the filter at the border looks at the pixels beyond


def test_resizing_is_antialiased() -> None:
    checks = Image.fromarray((np.indices((320, 320)).sum(0) % 2 * 255).astype(np.uint8))
    found = read_picture(file_of(checks))
    assert 120 <= found.min() <= found.max() <= 135


def test_a_large_jpeg_is_read_as_a_small_one(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    scene = Image.fromarray(random.randint(0, 255, (9, 12, 3), dtype=np.uint8)).resize(
        (2400, 1800), Image.Resampling.BICUBIC
    )
    content = file_of(scene, "jpeg", quality=95)
    wanted = np.asarray(ImageOps.fit(scene, (32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.abs(read_picture(content).astype(int) - wanted).max() <= 6
    assert read_picture(content, (20, 40)).shape == (3, 20, 40)


# What is refused, and how


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in a few bytes of its head."""
    small = file_of(flat(0, mode="1"))
    head = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + small[24:29]
    import zlib

    return small[:12] + head + zlib.crc32(head).to_bytes(4, "big") + small[33:]


NOISE = Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 64, 3), dtype=np.uint8))
NO_PICTURE, NO_RANGE = (
    "is no picture, or of a format that Pillow cannot read",
    "has pixels of no known range (32 bits, or",
)
BAD_FILES = {
    "text": (b"class,file\n", NO_PICTURE),
    "empty": (b"", "is empty"),
    "cut JPEG": (file_of(NOISE, "jpeg")[:1500], "is a broken picture (image file is truncated"),
    "cut PNG": (file_of(NOISE)[:3000], "is a broken picture ("),
    "bomb": (bomb(), "has too many pixels to be opened safely (more than 50 million): make it smaller"),
    "large": (file_of(flat(0, (7200, 7000), "1")), "has too many pixels to be opened safely (more than 50 million)"),
    "float": (file_of(flat(0.5, mode="F"), "tiff"), NO_RANGE),
    "32 bits": (file_of(flat(200, mode="I"), "tiff"), NO_RANGE),
    "EPS": (file_of(flat("red"), "eps"), "is a program that draws a picture (EPS): save it as PNG or JPEG"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is HEIC, which needs pillow-heif: pip install pillow-heif"),
    "pickle": (pickle.dumps({"a": 1}), NO_PICTURE),
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.fault("a file among the pictures: {kind}")
def test_what_is_no_whole_picture_is_refused_by_its_name_or_left_out(
    birds: Path, kind: str, monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    before, (content, reason) = load_folder(birds).fingerprint, BAD_FILES[kind]
    bad = birds / "wren" / "bad.jpg"
    bad.write_bytes(content)
    words = re.escape(f"{bad} {reason}") + ".*; repair or remove it, or leave it out with --skip-broken$"
    with pytest.raises(ValueError, match=f"^{words}"):
        load_folder(birds)
    assert bad.read_bytes() == content, "it stays for its owner to look at"
    assert load(f"folder:{birds}", skip_broken=True).fingerprint == before
    assert capsys.readouterr().err.startswith(f"mbib: warning: left out as broken, 1 file:\n  {bad} {reason}")


def test_pillow_heif_is_used_where_it_is(monkeypatch: Patch) -> None:
    asked: list[bool] = []
    heif = types.SimpleNamespace(register_heif_opener=lambda: asked.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif", heif)
    with pytest.raises(Refused):
        read_picture(BAD_FILES["HEIC"][0])
    assert asked == [True]


def test_a_memory_that_is_full_is_no_broken_picture(monkeypatch: Patch) -> None:
    monkeypatch.setattr(ImageOps, "fit", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        read_picture(file_of(NOISE))


@pytest.mark.fault("several broken pictures")
def test_several_broken_pictures_are_named(birds: Path) -> None:
    for i in range(22):
        (birds / "auk" / f"{i:02}.jpg").write_text("no picture")
    with pytest.raises(
        ValueError, match=r"^22 files to repair or remove, or to leave out with --skip-broken:\n"
    ) as caught:
        load_folder(birds)
    lines = str(caught.value).splitlines()
    named = [re.search(r"(\d\d)\.jpg is no picture", line)[1] for line in lines[1:21]]
    assert named == [f"{i:02}" for i in range(20)]
    assert lines[21:] == ["  and 2 more"]
    for path in (birds / "auk").glob("?.png"):
        path.write_text("no picture")
    with pytest.raises(ValueError, match=r"all pictures of auk are broken$"):
        load_folder(birds, skip_broken=True)


@pytest.mark.fault("a dangling link, a pipe and a folder that cannot be read")
def test_what_is_no_file_is_refused(birds: Path, monkeypatch: Patch) -> None:
    odd = birds / "wren" / "odd.png"
    for make, reason in (
        (lambda: odd.symlink_to(birds / "none"), "is not there"),
        (lambda: os.mkfifo(odd), "is no file"),
    ):
        make()
        with pytest.raises(ValueError, match=rf"odd\.png {reason}; repair"):
            load_folder(birds)
        odd.unlink()
    odd.symlink_to(birds)
    assert load_folder(birds).counts.tolist() == [1, 20, 6], "a link to a folder above ends"
    monkeypatch.setattr(Path, "iterdir", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(OSError, match=r"the folder .*birds cannot be read \(Permission denied\): change"):
        load_folder(birds)


def made(folder: Path, *paths: str) -> None:
    """Three pictures in each of the folders, or else a file."""
    for number, path in enumerate(paths):
        if "." in path:
            (folder / path).write_text("id,label")
        else:
            fill(folder / Path(path).parent, {Path(path).name: 3}, start=3 * number)


NO_CLASSES = "{f} has no class folders: make one for each class, named after it, and copy its pictures there"
FROM_TABLE = (
    "{p} has no class folders, from whose names labels are read: if y.csv has the labels, name it as csv:FILE, a table "
    "with the columns path and label (saved as CSV), and the folder where paths start with --root"
)
ALONE = "write folder:{f}/train to train on it alone, with a validation and a test part split off its pictures: "
NO_VALIDATION = "{f} leaves no picture for validation: a class of three has one for each part"
LAYOUTS: dict[str, tuple[tuple[str, ...], str]] = {
    "no classes": (("",), NO_CLASSES),
    "one class": (("a",), "{f} has one class, a: recognition needs two or more sub-folders"),
    "pictures beside a table": (("", "y.csv"), FROM_TABLE.replace("{p}", "{f}")),
    "one folder beside a table": (("images", "y.csv"), FROM_TABLE.replace("{p}", "{f}/images")),
    "parts beside a table": (("train", "test", "y.csv"), FROM_TABLE.replace("{p}", "{f}/train")),
    "parts without classes": (("train", "test"), NO_CLASSES.replace("{f}", "{f}/train")),
    "one level deeper": (("pic/a", "pic/b", "about.txt"),
        "the pictures in {f} lie deeper: did you mean folder:{f}/pic?"),
    "parts one level deeper": (("set/train/a", "set/train/b", "set/test/a"),
        "the pictures in {f} lie deeper: did you mean folder:{f}/set?"),
    "pictures and masks": (
        ("pic/a", "pic/b", "mask/a", "mask/b"),
        "{f}/mask/a and {f}/pic/a have the same name, so it is open which folders are the classes: did you mean "
        "folder:{f}/mask?",
    ),
    "two depths": (("sample", "pic/a", "pic/b"),
        "{f} has pictures at different depths, in {f}/sample and in {f}/pic/a: did you mean folder:{f}/pic?"),
    "a class in a class": (
        ("a", "a/more", "b"),
        "{f}/a/more holds pictures inside the class folder {f}/a: if more is a class of its own, put that folder "
        "beside a; to leave it out, begin its name with a dot",
    ),
    "train alone": (("train/a", "train/b"), ALONE + "no test/ lies beside it"),
    "unlabelled test": (("train/a", "train/b", "test"),
        ALONE + "{f}/test has no class folders, so its pictures have no labels"),
    "test beside the classes": (
        ("a", "b", "test/a", "test/b"),
        "{f} has no train/ beside test/, which holds class folders of its own: put the class folders for training into "
        "{f}/train",
    ),
    "two names": (("train/a", "val/a", "dev/a"),
        "{f}/dev and {f}/val are both the validation part: rename one of them"),
    "new class": (("train/a", "train/b", "test/a", "test/c"),
        "{f}/test/c is a class without a training picture: add some, or take it out"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.fault("a folder's layout: {layout}")
def test_a_folder_of_another_layout_is_refused_in_a_sentence(tmp_path: Path, layout: str) -> None:
    paths, sentence = LAYOUTS[layout]
    made(tmp_path / "set", *paths)
    with pytest.raises(ValueError, match=f"^{re.escape(sentence.format(f=tmp_path / 'set'))}$"):
        load(f"folder:{tmp_path / 'set'}")


@pytest.mark.fault("a folder's counts: {numbers}")
@pytest.mark.parametrize(("numbers", "words"), [
    ({"a": 3, "b": 3, "c": 0}, "{f}/c is a class without pictures: add some, or take the folder out"),
    ({"a": 2, "b": 2}, NO_VALIDATION),
    ({"a": 1, "b": 1}, NO_VALIDATION),
    ({"a": 3, "b\udce9": 3}, r"{f}: the class name b\udce9 is not UTF-8: rename it"),
])  # fmt: skip
def test_a_folder_with_an_odd_class_is_refused(tmp_path: Path, numbers: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words.format(f=tmp_path))}$"):
        load_folder(fill(tmp_path, numbers))


@pytest.mark.parametrize("root", ["", "val2018", "train"])
def test_the_deepest_folders_are_the_classes(tmp_path: Path, root: str) -> None:
    made(tmp_path / root, "Aves/2700", "Aves/2701", "Plantae/5000")
    if root == "train":
        made(tmp_path / "testing", "2700", "5000")
    data = load_folder(tmp_path)
    assert data.classes == ["2700", "2701", "5000"]
    assert f"The classes are the deepest folders, such as {tmp_path / root / 'Aves' / '2700'}." in describe(data)
    assert ("Without a test picture: 1 class (2701)." in describe(data)) == (root == "train")


@pytest.mark.fault("a path that is not called folder:PATH, leads to no folder or has no such home")
def test_a_path_that_leads_to_no_folder_is_hinted_at(birds: Path) -> None:
    no_home = "the home directory in ~nobody-here/x is not known: write the path without ~"
    no_folder = "^there is no folder .*/no: name one with a sub-folder for each class$"
    for name, kind, words in (
        (str(birds), ValueError, rf"for the folder of that name write folder:{birds}$"),
        ("folder:", ValueError, "^folder: names no folder: write folder:PATH$"),
        (f"folder:{birds}/no", FileNotFoundError, no_folder),
        ("folder:~nobody-here/x", OSError, no_home),
        (birds, TypeError, "a data set is called by its name, such as 'glyphs-lt' or 'folder:PATH', not PosixPath"),
    ):
        with pytest.raises(kind, match=words):
            load(name)  # type: ignore[arg-type]


@pytest.mark.fault("a size of pictures: {size}")
@pytest.mark.parametrize("size", [0, -3, 1.5, None, True, "32", 10**6, 64])
def test_a_size_that_cannot_be_is_refused(birds: Path, size: Any) -> None:
    if size == 64:
        assert load(f"folder:{birds}", size=np.int64(64)).test.x.shape[2:] == (64, 64)
        with pytest.raises(
            ValueError, match="glyphs-lt has pictures of 32 x 32 pixels: a size of 64 is for folder:PATH"
        ):
            load("glyphs-lt", size=size)
        return
    for call in (lambda: load("glyphs-lt", size=size), lambda: load_folder(birds, size=size)):
        with pytest.raises(ValueError, match=f"size is {size!r}: it must be a whole number of pixels, from 1 to 1024"):
            call()


# Real photographs


@pytest.fixture(scope="module")
def photographs() -> Path:
    """100 JPEGs of odd sizes, some of them grey: $MBIB_SHARED/data/imagenet_sample."""
    folder = Path(os.environ.get("MBIB_SHARED", "")) / "data" / "imagenet_sample"
    if "MBIB_SHARED" in os.environ and folder.is_dir():
        return folder
    reason = "the photographs are not here: set MBIB_SHARED to the folder that holds data/imagenet_sample"
    if os.environ.get("CI") and not os.environ.get("GITHUB_ACTIONS"):  # they lie in no public place
        pytest.fail(reason)
    pytest.skip(reason)


def test_real_photographs_of_odd_sizes(photographs: Path, tmp_path: Path) -> None:
    files = sorted(photographs.glob("*.JPEG"))
    modes = {path: Image.open(path).mode for path in files}
    assert set(modes.values()) == {"RGB", "L"}
    for path in files:
        own = tmp_path / ("grey" if modes[path] == "L" else "colour")
        own.mkdir(exist_ok=True)
        (own / path.name).symlink_to(path)
    data = load_folder(tmp_path)
    assert data.classes == ["colour", "grey"]
    assert sum(len(getattr(data, part).y) for part in ("train", "validation", "test")) == len(files) == 100
    grey = data.train.x[data.train.y == 1]
    assert (grey[:, 0] == grey[:, 1]).all()
    assert (grey[:, 1] == grey[:, 2]).all()
    for path in files[:20]:
        whole = Image.open(path).convert("RGB")
        slow = np.asarray(ImageOps.fit(whole, (32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        assert np.abs(read_picture(path.read_bytes()).astype(int) - slow).mean() < 2


# Arrays


def arrays(n: int = 6, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    return np.random.RandomState(0).randint(0, 255, (n, side, side, 3), dtype=np.uint8), np.arange(n) % 2


def test_arrays_of_every_layout_and_kind_are_the_same_data() -> None:
    x, y = arrays()
    wanted = from_arrays("mine", train=(x, y), validation=(x, y), test=(x, y))
    assert wanted.classes == ["0", "1"]
    assert torch.equal(wanted.train.x, torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    assert wanted.train.y.dtype == torch.int64
    x.setflags(write=False)
    for own_x, own_y in [
        (x.transpose(0, 3, 1, 2), y.astype(np.int32)),
        (torch.tensor(x), torch.tensor(y, dtype=torch.uint8)),
        (torch.tensor(x).permute(0, 3, 1, 2), y.tolist()),
        (x[::-1][::-1], y.astype(np.uint8)),
        (list(x), y.astype(">i8")),
        (list(map(torch.tensor, x)), pd.Series(y, dtype="Int64")),
        (torch.tensor(x), pd.Series(y).astype("category")),
    ]:
        data = from_arrays("mine", train=(own_x, own_y), validation=(own_x, own_y), test=(own_x, own_y))
        assert torch.equal(data.train.x, wanted.train.x)
        assert torch.equal(data.test.y, wanted.test.y)
        assert data.fingerprint == wanted.fingerprint
    other = from_arrays("mine", train=(x[:4], y[:4]), validation=(x, y), test=(x, y), classes=["a", "b"])
    assert other.fingerprint != wanted.fingerprint
    assert other.classes == ["a", "b"]


X, Y = arrays()
BAD_ARRAYS = {
    "float": ((X / 255, Y), TypeError,
        "must be uint8, from 0 to 255, these are float64; multiply what runs from 0 to 1"),
    "int64": ((X.astype(int), Y), TypeError, "must be uint8, from 0 to 255, these are int64$"),
    "grey": ((X[..., 0], Y), ValueError,
        r"must be \[N, H, W, 3\] or \[N, 3, H, W\], these are \[6, 8, 8\]: a grey picture"),
    "which": ((X[:, :3], Y), ValueError, r"these are \[6, 3, 8, 3\]: either could be the colours"),
    "float labels": ((X, Y / 2), TypeError, r"labels must be whole numbers \[6\], these are float64 \[6\]"),
    "one-hot labels": ((X, np.eye(2, dtype=int)[Y]), TypeError,
        r"labels must be whole numbers \[6\], these are .* \[6, 2\]"),
    "short labels": ((X, Y[:5]), TypeError, r"labels must be whole numbers \[6\], these are int64 \[5\]"),
    "large label": ((X, Y + 1), ValueError, "labels run from 1 to 2, outside 0 to 1"),
    "negative label": ((X, Y - 1), ValueError, "labels run from -1 to 0, outside 0 to 1"),
    "RGBA": ((X[..., [0, 1, 2, 0]], Y), ValueError, r"are \[6, 8, 8, 4\]: leave out the transparency, as x\[..., :3\]"),
    "rows": ((X.reshape(6, -1), Y), ValueError, r"these are \[6, 192\]: reshape them, as x.reshape\(-1, 3, 32, 32\)"),
    "sizes": (([X[0], X[1, :4]], Y[:2]), TypeError, "the pictures are no array of numbers, all of one shape"),
    "no pair": (X, TypeError, r"mine test: give a pair \(pictures, labels\)"),
    "text": ((X, Y.astype(str)), TypeError,
        r"these are <U21 \[6\]; np.unique\(labels, return_inverse=True\)\[1\] numbers"),
    "category": ((X, pd.Series(list("ababab"), dtype="category")), TypeError,
        r"np.unique\(labels, return_inverse=True"),
    "wild label": ((X, Y.astype(np.uint64) - 1), ValueError,
        "mine test: the label 18446744073709551615 is no class number"),
    "nothing": ((X[:0], Y[:0]), ValueError, "mine test: there are no pictures"),
    "other size": ((X[:, :6], Y), ValueError, r"the pictures of all parts must have one size \(H, W\), these have"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_ARRAYS)
@pytest.mark.fault("arrays: {kind}")
def test_other_arrays_are_refused_in_a_sentence(kind: str) -> None:
    pair, error, sentence = BAD_ARRAYS[kind]
    with pytest.raises(error, match=sentence):
        from_arrays("mine", train=(X, Y), validation=(X, Y), test=pair)


@pytest.mark.fault("arrays with odd classes: {labels}, {classes}")
@pytest.mark.parametrize(("labels", "classes", "error", "words"), [
    (Y, ["a", "b", "c"], ValueError, "no training picture of c"),
    (Y * 0, None, ValueError, "has 1 class: recognition needs two or more"),
    (Y * 2**40, None, ValueError, "mine train: labels run from 0 to 1099511627776: they must be 0 to C-1"),
    (Y - 1, None, ValueError, "mine train: labels run from -1 to 0: they must be 0 to C-1"),
    (Y, ["a", "a"], ValueError, "two classes are called a: every class needs a name of its own"),
    (Y, ["a", None], TypeError, "class names must be text, None is none"),
    (Y, ["a", "\udce9"], ValueError, r"the class name \\udce9 is not UTF-8"),
])  # fmt: skip
def test_arrays_with_odd_classes_are_refused(labels: Any, classes: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        from_arrays("mine", train=(X, labels), validation=(X, labels), test=(X, labels), classes=classes)


@pytest.mark.parametrize("classes", [np.unique([30, 10]), torch.tensor([10, 30]), pd.Series([10, 30]), ["10", "30"]])
def test_class_names_that_are_numbers_become_text(classes: Any) -> None:
    data = from_arrays("mine", train=(X, Y), validation=(X, Y), test=(X, Y), classes=classes)
    assert data.classes == ["10", "30"]
    assert all(type(name) is str for name in data.classes)


@pytest.mark.fault("a checkpoint of other arrays of that name")
def test_a_checkpoint_of_other_arrays_is_refused(tiny_schedule: Schedule, tmp_path: Path) -> None:
    settings = Settings(data="mine", schedule="tiny", precision="float32", threads=1)
    one = from_arrays("mine", train=(X, Y), validation=(X, Y), test=(X, Y))
    other = from_arrays("mine", train=(X, Y), validation=(X, Y), test=(255 - X, Y))
    run = trainer.train(settings, one, device="cpu", progress=False, checkpoint=tmp_path / "c.pt")
    before = (tmp_path / "c.pt").read_bytes()
    assert run.settings.pictures == one.fingerprint
    assert run.size == (8, 8)
    with pytest.raises(ValueError, match="belongs to the run"):
        trainer.train(settings, other, device="cpu", progress=False, checkpoint=tmp_path / "c.pt")
    assert (tmp_path / "c.pt").read_bytes() == before


# A run's name


def test_a_run_is_named_after_the_folder_and_its_pictures_not_its_path() -> None:
    settings = settle(Settings(data="folder:/home/somebody/secret/My Birds", pictures="12345678"))
    name = run_id(settings)
    assert re.fullmatch("folder-my-birds-mbib-folder-s0-[0-9a-f]{8}", name)
    assert run_id(replace(settings, data="folder:My Birds/")) == name
    assert run_id(replace(settings, pictures="87654321")) != name
    assert run_id(replace(settings, threads=2)) == name


@pytest.mark.fault("an imbalance for a folder")
def test_imbalance_is_a_folders_own() -> None:
    settings = settle(Settings(data="folder:birds"))
    assert settings.schedule == "folder"
    assert "imbalance" not in command_line(settings)
    with pytest.raises(ValueError, match="imbalance does not apply to a folder"):
        settle(Settings(data="folder:birds", imbalance=10))


# Training, report, prediction


@pytest.fixture
def trained(birds: Path, quick: None, tmp_path: Path) -> Path:
    """Weights of two epochs on `birds`."""
    return train_on(birds, tmp_path / "runs")


def train_on(folder: Path, out: Path, *more: str) -> Path:
    words = ["train", "mbib", "--data", f"folder:{folder.name}", "--root", str(folder.parent), "--threads", "1"]
    words += ["--precision", "float32", "--device", "cpu", "--quiet", "--out", str(out), *more]
    before = set(out.glob("*.safetensors"))
    assert cli.main(words) == 0
    new = set(out.glob("*.safetensors")) - before
    return new.pop() if new else Path()


def test_a_folder_is_trained_and_reported(trained: Path, birds: Path) -> None:
    assert {path.suffix for path in trained.parent.iterdir()} == {".json", ".safetensors", ".md", ".png"}
    assert trained.name.startswith("folder-birds-mbib-folder-s0-")
    record = read_record(trained.with_suffix(".json"))
    assert record["settings"]["pictures"] == load_folder(birds).fingerprint
    assert str(birds.parent) not in json.dumps(record)
    assert "imbalance" not in record["command"]
    page = trained.with_suffix(".md").read_text()
    assert "MBIB on folder:birds: 3 classes with 20 to 1\ntraining pictures, 27 in all" in page
    assert "| auk | 1 | 1 | " in page
    assert f"]({trained.stem}.png)" in page
    assert Image.open(trained.with_suffix(".png")).size == (1680, 720)
    assert "100" not in show_table(table([record])).split("mbib")[0]


@pytest.mark.fault("weights of other classes than the folder has now")
def test_a_run_is_made_once_but_again_when_a_picture_changes(
    trained: Path, birds: Path, capsys: Capture, sentence: Hear
) -> None:
    assert train_on(birds, trained.parent) == Path()
    assert "this run was made before" in capsys.readouterr().out
    fill(birds, {"robin": 1}, start=40)
    other = train_on(birds, trained.parent)
    assert f"report   {other.with_suffix('.md')}" in capsys.readouterr().out
    assert other.stem != trained.stem
    assert cli.main(["evaluate", str(other), "--root", str(birds.parent), "--device", "cpu"]) == 0
    assert capsys.readouterr().err == ""
    assert cli.main(["evaluate", str(trained), "--root", str(birds.parent), "--device", "cpu"]) == 0
    assert "are not those of the training run" in capsys.readouterr().err
    fill(birds, {"owl": 3})
    assert cli.main(["evaluate", str(trained), "--root", str(birds.parent), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    sentence(said)
    assert "folder:birds has owl, which the weights do not know: their 3 classes are auk, robin, wren" in said
    assert read_record(trained.with_suffix(".json"))["classes"] == ["auk", "robin", "wren"]


def test_predictions_are_those_of_the_network(trained: Path, birds: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert cli.main(["predict", str(trained), "--csv", "--device", "cpu", str(birds)]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(rows) == 41
    run = read_weights(trained)
    assert run.classes == ["auk", "robin", "wren"]
    assert run.size == (32, 32)
    for row in (rows[0], rows[20], rows[40]):
        x = torch.from_numpy(read_picture(Path(row["file"]).read_bytes()))[None]
        p = features_of(run.network, x)["logits/mean"].softmax(1)[0]
        assert row["class"] == run.classes[int(p.argmax())]
        assert float(row["probability"]) == pytest.approx(float(p.max()), abs=2e-4)
        assert float(row["runner_up_probability"]) == pytest.approx(float(p.sort().values[-2]), abs=2e-4)
    assert cli.main(["predict", str(trained), "--device", "cpu", rows[0]["file"]]) == 0
    first = rows[0]
    wanted = f"{first['file']}: {first['class']} {100 * float(first['probability']):.0f} %, then {first['runner_up']} "
    assert capsys.readouterr().out.startswith(wanted)


@pytest.mark.fault("broken and missing pictures among those to predict")
def test_a_broken_picture_does_not_stop_the_others(trained: Path, birds: Path, capsys: Capture, sentence: Hear) -> None:
    capsys.readouterr()
    bad = birds / "bad.txt"
    bad.write_text("no picture")
    files = [str(birds / "auk" / "0.png"), str(bad), str(birds / "none.png"), str(birds / "wren")]
    assert cli.main(["predict", str(trained), "--device", "cpu", *files]) == 2
    said = capsys.readouterr()
    sentence(said.err)
    assert len(said.out.splitlines()) == 1 + 8
    assert said.err.startswith(
        f"mbib: {bad} is no picture, or of a format that Pillow cannot read\nmbib: {birds / 'none.png'} is not there\n"
    )
    (birds / "empty").mkdir()
    assert cli.main(["predict", str(trained), str(birds / "empty")]) == 2
    assert capsys.readouterr().err == f"mbib: there is no picture in {birds / 'empty'}\n"
    assert cli.main(["predict", str(bad), files[0]]) == 2
    assert "holds no weights that `mbib train` wrote" in capsys.readouterr().err


def probabilities(weights: Path, files: list[Path]) -> torch.Tensor:
    """[N, C], by the network itself, in float64."""
    run = read_weights(weights)
    x = torch.stack([torch.from_numpy(read_picture(file.read_bytes(), run.size)) for file in files])
    return features_of(run.network, x)["logits/mean"].double().softmax(1)


@pytest.mark.parametrize(("there", "part", "said"), [
    ({"wren": 2, "robin": 1}, "", "has no pictures of auk: means are over the other classes"),
    ({"wren": 4, "auk": 3, "robin": 9}, "", "has no test/, so all of it is scored: none of it may have been"),
    ({"wren": 2, "auk": 1, "robin": 1}, "test", ""),
    ({"auk": 1}, "", "has no pictures of robin, wren: means are over the other classes"),
    ({"auk": 2}, "Test", "has no test pictures of robin, wren: means are over the other classes"),
])  # fmt: skip
def test_weights_are_scored_on_another_folder_whose_classes_have_the_same_names(
    trained: Path, tmp_path: Path, capsys: Capture, there: dict[str, int], part: str, said: str
) -> None:
    files = sorted(fill(tmp_path / "other" / part, there, start=40).glob("*/*.png"))
    if part:
        fill(tmp_path / "other" / ("train" if len(there) > 2 else "val"), {"robin": 2, "wren": 1, "auk": 1})
    capsys.readouterr()
    words = ["evaluate", str(trained), "--data", "folder:other", "--root", str(tmp_path), "--device", "cpu"]
    assert cli.main([*words, "--batch", "3"]) == 0
    out, err = capsys.readouterr()
    assert f"{len(files)} {'test ' if part else ''}pictures of folder:other" in out
    names = ["auk", "robin", "wren"]
    answers = [names[i] for i in probabilities(trained, files).argmax(1)]
    right = {name: [a == name for a, f in zip(answers, files, strict=True) if f.parent.name == name] for name in there}
    mean = np.mean([np.mean(values) for values in right.values()])
    assert next(line for line in out.splitlines() if "mean *" in line).split()[-1] == f"{100 * mean:.1f}"
    assert said in err


@pytest.mark.fault("a folder that was moved, or has another class")
def test_weights_are_scored_on_their_own_test_pictures_when_the_folder_has_moved(
    birds: Path, quick: None, tmp_path: Path, capsys: Capture, sentence: Hear
) -> None:
    words = ["train", "ce", "--data", f"folder:{birds}", "--epochs", "1", "--threads", "1", "--quiet", "--no-report"]
    assert cli.main([*words, "--device", "cpu", "--out", str(tmp_path / "runs")]) == 0
    (weights,) = (tmp_path / "runs").glob("*.safetensors")
    capsys.readouterr()
    assert cli.main(["evaluate", str(weights)]) == 0
    before = capsys.readouterr().out.splitlines()
    moved = birds.rename(tmp_path / "moved")
    assert cli.main(["evaluate", str(weights)]) == 2
    said = capsys.readouterr().err
    sentence(said)
    assert f"the folder of the training, {birds}, is not there: say where it is now" in said
    assert cli.main(["evaluate", str(weights), "--data", f"folder:{moved}"]) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines()[1:], err) == (before[1:], "")
    assert "on 7 test pictures of folder:" in out
    fill(moved, {"owl": 3, "emu": 2})
    assert cli.main(["evaluate", str(weights), "--data", f"folder:{moved}"]) == 2
    assert (
        "has emu, owl, which the weights do not know: their 3 classes are auk, robin, wren" in capsys.readouterr().err
    )


@pytest.mark.parametrize("method", ["mbib", "ce"])
@pytest.mark.parametrize("prior", ["train", "\ufeffclass,share\nwren,3\nrobin,0\nauk,1\n"])
def test_a_prior_multiplies_the_probabilities_and_is_not_counted_twice(
    birds: Path, quick: None, tmp_path: Path, capsys: Capture, monkeypatch: Any, method: str, prior: str
) -> None:
    """Cross-entropy's answers hold the shares of the training set already, a balanced loss's do not."""
    run = trainer.train(
        Settings(data=f"folder:{birds}", method=method, epochs=1, threads=1), load_folder(birds), device="cpu"
    )
    file, counts = birds / "wren" / "0.png", np.array([1, 20, 6])
    (tmp_path / "mix.csv").write_text(prior)
    monkeypatch.setattr("mbib_core.weights.read_weights", lambda _: run)
    words = ["predict", "w", str(file), "--top", "3", "--probabilities", "--device", "cpu"]
    words += ["--prior", "train" if prior == "train" else str(tmp_path / "mix.csv")]
    capsys.readouterr()
    run.counts = []
    assert cli.main(words) == (0 if (prior == "train") == (method == "ce") else 2)
    out, err = capsys.readouterr()
    assert bool(out) != ("the weights do not say how many training pictures a class had" in err)
    run.counts = counts.tolist()
    assert cli.main(words) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    x = torch.from_numpy(read_picture(file.read_bytes()))[None]
    p = features_of(run.network, x)["logits/mean" if method == "mbib" else "logits/v"].double().softmax(1)[0].numpy()
    p = p * (counts if prior == "train" else np.array([1, 0, 3])) / (counts if method == "ce" else 1)
    p /= p.sum()
    assert [float(row[f"P({name})"]) for name in run.classes] == pytest.approx(p, rel=1e-5)
    ranked = [run.classes[i] for i in (-p).argsort()]
    assert [row["class"], row["runner_up"], row["class_3"]] == ranked
    assert float(row["class_3_probability"]) == pytest.approx(p.min(), abs=1e-4)


@pytest.mark.parametrize(("content", "wanted"), [
    (b"auk,1\nwren,1\n", "has no share of robin: write 0 for a class that cannot come up"),
    (b"auk,1\nwren,1\nrobin,1\nowl,1\n", "has owl, which the weights do not know"),
    (b"auk,1\nwren,x\nrobin,1\n", "could not convert string to float: 'x': write lines such as auk,0.25"),
    (b"auk,0\nwren,0\nrobin,0\n", "shares must be finite numbers, 0 or larger, and not all of them 0"),
    (b"auk,-1\nwren,1\nrobin,1\n", "shares must be finite numbers"),
    (b"auk,nan\nwren,1\nrobin,inf\n", "shares must be finite numbers"),
    (b"auk\nwren\n", "is no list of classes and shares: write lines such as auk,0.25"),
    (b"\xff\xfe", "is no list of classes and shares"),
    (b"", "has no share of auk, robin, wren"),
])  # fmt: skip
@pytest.mark.fault("a class mix for --prior: {content!r}")
def test_a_class_mix_that_cannot_be_is_refused(tmp_path: Path, content: bytes, wanted: str) -> None:
    (tmp_path / "mix.csv").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(wanted)):
        serving.read_prior(tmp_path / "mix.csv", ["auk", "robin", "wren"])


@pytest.mark.fault("a class mix for --prior that is not there")
def test_a_class_mix_that_is_not_there_is_told_with_what_prior_takes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*trian of shares: --prior takes train, or a file of class,"):
        serving.read_prior(tmp_path / "trian", ["auk", "robin"])


@pytest.mark.fault("weights whose answers are not finite")
def test_answers_that_are_not_finite_name_no_class(trained: Path, birds: Path, capsys: Capture, sentence: Hear) -> None:
    with safe_open(trained, "pt") as file:
        state, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    next(value for name, value in state.items() if name.endswith("bias"))[0] = float("nan")
    save_file(state, trained, metadata=about)
    assert cli.main(["predict", str(trained), str(birds)]) == 2
    assert f"{trained} was damaged after it was written: copy it again, or train" in capsys.readouterr().err
    unsealed = {name: value for name, value in json.loads(about["mbib"]).items() if name != "sha256"}
    save_file(state, trained, metadata={"mbib": json.dumps(unsealed)})
    for words in (["predict", str(trained), str(birds)], ["predict", str(trained), str(birds), "--csv"]):
        capsys.readouterr()
        assert cli.main(words) == 2
        said = capsys.readouterr()
        assert said.out == ""
    sentence(said.err)
    assert said.err.startswith("mbib: the answers of these weights are not finite: the file is damaged")


@pytest.mark.fault("links that lead in circles, addresses and odd names among what to predict")
def test_odd_names_are_predicted_once_and_do_no_harm(
    trained: Path, tmp_path: Path, capsys: Capture, monkeypatch: Any, sentence: Hear
) -> None:
    place = tmp_path / "place"
    for name in ("=1+1", "@SUM(A1)", "-2", "\x1b[31mred\u202e", "caf\udce9", "two\nlines"):
        (place / "robin").mkdir(parents=True, exist_ok=True)
        (place / "robin" / f"{name}.png").write_bytes(file_of(flat(colour("robin"))))
    for link in ("one", "two", "robin/up"):
        (place / link).symlink_to(place)
    monkeypatch.chdir(place / "robin")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=BytesIO(file_of(flat(colour("wren"))))))
    capsys.readouterr()
    assert cli.main(["predict", str(trained), "--device", "cpu", ".", "-", "", "https://a.b/c.png"]) == 2
    out, err = capsys.readouterr()
    sentence(err)
    assert len(out.splitlines()) == 7, "each picture once, each on a line"
    assert not any(c in out for c in "\x1b\u202e\udce9")
    assert [line for line in out.splitlines() if line.startswith("-: ")]
    assert "a file without a name is not there" in err
    assert "https://a.b/c.png is an address on the web: download the picture" in err
    assert re.search(r"of 6 pictures in folders named after a class (100|0).0 % are right$", err, re.M)
    assert cli.main(["predict", str(trained), "--device", "cpu", "--csv", "--top", "1", "=1+1.png"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("'=1+1.png,")


def test_pictures_of_another_size_are_trained_evaluated_and_predicted_at_that_size(
    birds: Path, quick: None, tmp_path: Path, capsys: Capture
) -> None:
    weights = train_on(birds, tmp_path / "runs", "--size", "16", "--no-report")
    record = read_record(weights.with_suffix(".json"))
    assert (record["settings"]["size"], record["settings"]["pictures"]) == (16, load_folder(birds, size=16).fingerprint)
    assert "--size 16" in record["command"]
    assert weights.stem != train_on(birds, tmp_path / "runs", "--no-report", "--no-flip", "--size", "32").stem
    assert read_weights(weights).size == (16, 16)
    capsys.readouterr()
    assert cli.main(["evaluate", str(weights), "--root", str(birds.parent), "--device", "cpu"]) == 0
    assert capsys.readouterr().err == "", "no warning of other pictures"
    assert cli.main(["predict", str(weights), str(birds / "wren" / "0.png"), "--device", "cpu", "--probabilities"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    wanted = probabilities(weights, [birds / "wren" / "0.png"])[0].tolist()
    assert [float(row[f"P({name})"]) for name in record["classes"]] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.fault("a broken picture, left out of a run")
def test_broken_pictures_are_left_out_if_asked_and_what_is_trained_on_is_said_first(
    birds: Path, quick: None, tmp_path: Path, capsys: Capture, sentence: Hear
) -> None:
    (birds / "wren" / "bad.png").write_text("no picture")
    words = ["train", "ce", "--data", f"folder:{birds}", "--threads", "1", "--device", "cpu", "--no-report"]
    words += ["--out", str(tmp_path / "runs")]
    assert cli.main(words) == 2
    assert "bad.png is no picture, or of a format that Pillow cannot read; repair" in capsys.readouterr().err
    assert cli.main([*words, "--skip-broken"]) == 0
    said = capsys.readouterr().err
    sentence(said)
    assert said.startswith(f"mbib: warning: left out as broken, 1 file:\n  {birds}/wren/bad.png is no picture")
    paragraph = describe(load_folder(birds, skip_broken=True))
    assert "27 in all" in paragraph
    assert "Left out as broken: 1 file." in paragraph
    assert 0 < said.index(f"mbib: {paragraph}\n") < said.index("ce on folder:"), "before the first epoch"


def test_a_class_without_test_pictures_has_no_accuracy(tmp_path: Path, quick: None) -> None:
    fill(tmp_path / "set" / "train", {"robin": 12, "a|b": 4, "wren": 1})
    fill(tmp_path / "set" / "test", {"robin": 2, "a|b": 2}, start=30)
    path = train_on(tmp_path / "set", tmp_path / "runs")
    record = read_record(path.with_suffix(".json"))
    assert record["test"]["by_class"]["mean"][2] is None
    accuracy = record["test"]["by_class"]["mean"][:2]
    assert record["test"]["accuracy"]["mean"]["all"] == pytest.approx(sum(accuracy) / 2, abs=1e-5)
    page = path.with_suffix(".md").read_text()
    assert "| wren | 1 | 0 of 0 |  |" in page
    assert "| wren | 1 | 0 |  |  |" in page
    assert "| a\\|b | 3 | 2 | " in page


def test_a_run_for_choosing_is_reported_on_validation_pictures(birds: Path, quick: None, tmp_path: Path) -> None:
    assert not train_on(birds, tmp_path / "runs", "--no-report").with_suffix(".md").exists()
    path = train_on(birds, tmp_path / "runs", "--choosing")
    page = path.with_suffix(".md").read_text()
    assert "Measured on 7 validation pictures." in page
    assert "test" not in page


def test_confusion_counts_pictures() -> None:
    logits = torch.tensor([[2.0, 1, 0], [0, 2, 1], [0, 2, 1], [0, 1, 2]])
    found = metrics.confusion(logits, torch.tensor([0, 0, 1, 1]))
    assert found.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("counts", "classes"),
    [([200, 19, 3, 19], [2, 1, 3]), ([300, 40, 20, 100], [2, 1]), ([50, 20], [1]), ([5, 5], [0, 1])],
)
def test_the_tail_is_the_few_shots_or_the_rarest_third(counts: list[int], classes: list[int]) -> None:
    assert report.tail(torch.tensor(counts)).tolist() == classes


def test_the_report_says_what_the_tail_is_taken_for() -> None:
    record = made_up_record()
    confusion = torch.tensor([[40, 0, 0], [6, 3, 1], [2, 0, 0]])
    page = report.report(record, confusion, about="birds")
    assert "| owl | 3 | 0 of 2 | robin (2) |" in page
    assert "| wren | 15 | 3 of 10 | robin (6), owl (1) |" in page
    assert page.index("| owl | 3 | 0 of 2") < page.index("| wren | 15 | 3 of 10")
    assert "a probability of 90 %, and is right less often: 62 %\nof the time" in page
    assert "| few | 10 | 90.0 | 62.0 | 28.0 |" in page


def test_the_report_says_how_sure_each_accuracy_is_and_what_to_look_at_next() -> None:
    page = report.report(made_up_record(), torch.tensor([[40, 0, 0], [6, 3, 1], [2, 0, 0]]), about="birds")
    assert "| 11 to 60 |" in page, "3 of 10"
    advice = page.split("## What to look at next")[1]
    assert "1 class of 3 has fewer than 10 test pictures" in advice
    assert "wren is mostly taken for robin (6 of 7 wrong answers)" in advice
    assert "too sure, by 28 points" in advice
    good = made_up_record()
    good["test"]["calibration"]["all"]["accuracy"] = [0.0, 0.9]
    assert "Nothing here stands out" in report.report(good, 50 * torch.eye(3).long())


MOVES = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}  # the sides of a bidirectional text
WILD = [
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1)) ![t](https://evil.example/p.png)",
    "`a` **b** _c_ $x$ ~~y~~ \\",
    "www.evil.example https://evil.example",
    "\x1b[31m\u202e caf\udce9",
    "a\n\n# b | c",
]


@pytest.mark.parametrize("name", WILD)
def test_names_on_a_report_stay_plain_words(name: str) -> None:
    """Rendered with raw HTML, tables, links and strikethrough switched on, a name brings nothing but its text."""
    record = made_up_record()
    plain, wild = (
        report.report(
            record | {"classes": ["robin", c, "owl"], "command": c},
            torch.ones(3, 3).long(),
            about=c,
            mistakes={1: [Mistake(1, 0.5, "data:image/png;base64,AAAA", f'{c}"')]},
        )
        for c in ("wren", name)
    )
    wild.encode()
    assert not any(c in wild for c in "\x1b\u202e")
    parser = markdown_it.MarkdownIt("gfm-like", {"html": True})
    kinds = [[(t.type, [c.type for c in t.children or []]) for t in parser.parse(page)] for page in (plain, wild)]
    assert kinds[0] == kinds[1]
    shown = "".join(c.content for t in parser.parse(wild) for c in t.children or [] if c.type.startswith("text"))
    assert shown.count(" ".join(printable(" ".join(name.split())).split())) >= 4


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_what_is_printed_moves_no_terminal_and_can_be_encoded(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not any(unicodedata.category(c) == "Cc" or unicodedata.bidirectional(c) in MOVES for c in shown)
    assert printable(shown) == shown


def test_the_report_gives_what_else_a_record_has() -> None:
    record = made_up_record()
    record["test"] |= {"top5": {"mean": 0.81}, "macro_f1": {"mean": {"all": 0.305, "few": 0.1}}}
    page = report.report(record, torch.ones(3, 3).long())
    assert "Top-5 accuracy: 81.0 %.\nMacro-F1: 30.5 %." in page
    assert "Top-5" not in report.report(made_up_record(), torch.ones(3, 3).long())


def test_nothing_on_a_report_is_too_wide_for_a_narrow_page_but_what_scrolls() -> None:
    """Tables and blocks of code scroll in a viewer, words do not."""
    record = made_up_record()
    record["settings"]["pretrained"] = f"sha256:{'ab' * 32}"
    record["command"] = f"mbib train mbib --pretrained sha256:{'ab' * 32}"
    page = report.report(record, torch.ones(3, 3).long())
    tokens = markdown_it.MarkdownIt("gfm-like").parse(page)
    assert [t.content for t in tokens if t.type == "fence"] == [record["command"] + "\n"]
    lines = [c.content for t in tokens for c in t.children or [] if c.type in ("text", "code_inline")]
    assert max(len(word) for line in lines for word in line.split()) < 30
    assert "ResNet-20 from the weights of the file with SHA-256 abababab...,\n1 epoch in" in page


def test_no_column_of_a_report_is_without_a_name() -> None:
    page = report.report(made_up_record(), torch.ones(3, 3).long())
    heads = [line for line, rule in zip(page.split("\n"), page.split("\n")[1:], strict=False) if rule[:5] == "| ---"]
    assert len(heads) == 4
    assert all(cell.strip() for head in heads for cell in head.split("|")[1:-1])
    assert "| many (1 class) | few (2 classes) |" in heads[0]


def made_up_record() -> dict[str, Any]:
    bins = {"count": [0, 10], "confidence": [0.0, 0.9], "accuracy": [0.0, 0.62], "error": 0.28}
    found = {
        "pictures": 52, "default": "mean", "accuracy": {"mean": {"all": 0.43, "many": 1.0, "few": 0.15}},
        "by_class": {"mean": [1.0, 0.3, 0.0]}, "posterior_means": [0.9, 0.3, 0.1],
        "calibration": {"all": bins, "many": bins, "few": bins},
    }  # fmt: skip
    return {
        "run_id": "x", "settings": {"method": "mbib", "epochs": 1, "data": "folder:x"}, "recipe": {"depth": 20},
        "command": "mbib", "seconds": 1.0, "classes": ["robin", "wren", "owl"], "counts": [200, 15, 3],
        "shots": {"many": 1, "few": 2}, "test": found,
    }  # fmt: skip


# What the page on using it and the example say


def run_python(*words: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    own = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, *words], cwd=folder, env=own, capture_output=True, text=True, timeout=280)


def blocks(language: str) -> Iterator[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "book" / "using.md").read_text(), re.MULTILINE | re.DOTALL)
    yield from (text for kind, text in found if kind == language)


@pytest.mark.slow
def test_the_example_trains_a_foreign_network_in_a_foreign_loop() -> None:
    done = run_python("examples/own_loop.py")
    assert done.returncode == 0, done.stderr
    accuracy = {shot: float(value) for shot, value in re.findall(r"^(\w+) +([\d.]+) % of test", done.stdout, re.M)}
    assert list(accuracy) == ["all", "many", "medium", "few"]
    assert accuracy["many"] > 70
    assert accuracy["all"] > 35  # chance is 2.5
    assert accuracy["few"] > 12


@pytest.mark.slow
def test_the_example_for_colab_says_on_what_it_runs_and_then_does_what_mbib_does() -> None:
    done = run_python("examples/colab.py", "methods")
    assert done.returncode == 0, done.stderr
    assert re.match(r"Python 3\.\d+\.\d+, torch \d+\.\d+\S*, \S", done.stdout)
    assert "balanced softmax" in done.stdout


def test_the_example_is_short() -> None:
    assert len((ROOT / "examples" / "own_loop.py").read_text().splitlines()) < 60


def page_code(about: str) -> str:
    (code,) = (code for code in blocks("python") if about in code)
    return code


def test_the_losses_of_the_page_run() -> None:
    torch.manual_seed(0)
    logits = ("v_logits", "v1_logits", "v2_logits", "v3_logits", "z_logits")
    names: dict[str, Any] = {name: torch.randn(5, 4, requires_grad=True) for name in logits}
    names |= {"labels": [2, 2, 2, 2, 0, 1, 3], "classes": 4, "targets": torch.tensor([0, 1, 2, 3, 0]), "device": "cpu"}
    exec(page_code("BIBLoss"), names)
    assert names["criterion"].counts.tolist() == [1, 1, 4, 1], "in the order of the labels, not of first sight"
    assert names["loss"].isfinite()
    names["loss"].backward()
    assert names["v1_logits"].grad is not None


@pytest.mark.slow
def test_the_arrays_of_the_page_are_trained_and_predicted(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for part in ("", "_val", "_test"):
        y = np.array([0] * 5 + [1] * 2)
        names |= {"y" + part: y, "x" + part: np.repeat(200 * y[:, None, None, None], 32, 1).repeat(32, 2).repeat(3, 3)}
        names["x" + part] = names["x" + part].astype(np.uint8)
    monkeypatch.setitem(SCHEDULES, "folder", Schedule(depth=8, epochs=40, batch=16))
    exec(page_code("from_arrays"), names)
    assert names["made"].record["settings"]["schedule"] == "folder", "as for a folder"
    weights = str(names["made"].beside["weights"])
    Image.new("RGB", (40, 40), (200, 200, 200)).save("bright.png")
    found = run_python("-m", "mbib_core.cli", "predict", weights, "bright.png", folder=tmp_path)
    assert found.stdout.startswith("bright.png: 1 "), found.stderr
    refused = run_python("-m", "mbib_core.cli", "evaluate", weights, folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "are of arrays, mine, and no name leads to them" in refused.stderr


@pytest.mark.slow
def test_the_example_of_a_torchvision_network_trains_and_keeps_what_it_trained(tmp_path: Path) -> None:
    for part, n in (("train", {"a": 5, "b": 2}), ("test", {"a": 2, "b": 2})):
        fill(tmp_path / part, n)
    out = tmp_path / "kept.safetensors"
    words = ("--network", "resnet10", "--weights", "none", "--epochs", "2", "--batch", "3", "--workers", "0")
    done = run_python("examples/pretrained.py", str(tmp_path), *words, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^epoch (\d): loss of the last batch [\d.]+$", done.stdout, re.M) == ["1", "2"]
    scores = dict(re.findall(r"^(\w+) +([\d.]+) % of test pictures right$", done.stdout, re.M))
    assert list(scores) == ["all", "few"]
    example = pretrained()
    network = example.pretrained("resnet10", "none", classes=2)
    assert load_model(network, out) == (set(), []), "every tensor of it, and no other"
    test = example.images(tmp_path / "test", transforms.Resize(256), transforms.CenterCrop(224))
    with torch.no_grad():
        x = torch.stack([image for image, _ in test])
        logits = example.predictions(network.eval()(x))["mean"]
    right = metrics.accuracy_by_class(logits, torch.tensor(test.targets)).mean()
    assert f"{100 * float(right):.1f}" == scores["all"]
    again = example.pretrained("resnet10", str(out), classes=2)  # what it kept can be started from
    assert torch.equal(again.backbone.conv1.weight, network.backbone.conv1.weight)


def pretrained() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("pretrained", ROOT / "examples" / "pretrained.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("PATH --network vit_b_16", "the backbone vit_b_16 is no ResNet of torchvision's: take resnet10, resnet18"),
        ("PATH --network resnet10", "there are no weights default of resnet10, .*: --pretrained takes a file"),
        ("/nowhere", "/nowhere/train must hold a sub-folder with pictures for each class"),
        ("PATH --out PATH/test/a/0.png", "0.png is there already: name another file with --out"),
        ("PATH", "resnet18-f37072fd.pth cannot be fetched .*: put that file into .*hub/checkpoints"),
    ],
)
@pytest.mark.fault("examples/pretrained.py {words}")
def test_the_example_of_a_torchvision_network_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, sentence: str
) -> None:
    for part in ("train", "test"):
        fill(tmp_path / part, {"a": 1, "b": 1})
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setattr(sys, "argv", ["", "--network", "resnet18", *words.replace("PATH", str(tmp_path)).split()])
    with pytest.raises(SystemExit, match=sentence):
        pretrained().main()


def test_the_readmes_commands_are_commands() -> None:
    lines = [line for block in blocks("") for line in block.splitlines() if line.startswith("mbib ")]
    assert len(lines) >= 6
    for line in lines:
        options.parser().parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.slow
def test_superclasses_of_cifar_as_a_folder_from_the_readme_alone(cifar_root: Path, tmp_path: Path) -> None:
    parts = (cifar_root / "cifar-100-python" / part for part in ("train", "meta"))
    raw, meta = (pickle.loads(part.read_bytes(), encoding="latin1") for part in parts)
    names, labels = meta["coarse_label_names"], np.array(raw["coarse_labels"])
    for label, name in enumerate(names):
        (tmp_path / "super" / name).mkdir(parents=True)
        for i in np.where(labels == label)[0][: round(60 * 0.84**label)]:
            picture = Image.fromarray(raw["data"][i].reshape(3, 32, 32).transpose(1, 2, 0))
            picture.save(tmp_path / "super" / name / f"{i}.png")
    command, without_flips, predict = (
        line
        for line in "\n".join(blocks("")).splitlines()
        if re.match("mbib (train|predict).*(PATH|photo)", line) and not re.search("--(pretrained|stream)", line)
    )
    assert "--no-flip" in without_flips

    def mbib(words: str, *more: str) -> str:
        start, cache = "import sys; from mbib_core.cli import main; sys.exit(main())", str(tmp_path / "cache")
        done = run_python("-c", start, *shlex.split(words)[1:], *more, folder=tmp_path, MBIB_CACHE=cache)
        assert done.returncode == 0, done.stderr
        return done.stdout

    mbib(command.split("#")[0].replace("PATH", "super"), "--epochs", "2", "--threads", "1", "--quiet")
    weights = next((tmp_path / "runs").glob("*.safetensors"))
    assert weights.name.startswith("folder-super-mbib-folder-s0-")
    assert json.loads(weights.with_suffix(".json").read_text())["classes"] == names
    assert all(f"| {name} |" in weights.with_suffix(".md").read_text() for name in names)
    lines = mbib(predict.split("photo.jpg")[0].replace("NAME", weights.stem), f"super/{names[0]}").splitlines()
    assert len(lines) == 60
    assert all(re.match(r"super/.*\.png: \S+ \d+ %, then \S+ \d+ %$", line) for line in lines)
