"""Glyphs-LT: the same bytes everywhere, the counts, the nesting, and what is refused."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbib_core.data import glyphs

SHA256 = {
    "train": "7429dd85307d05af142bdedf796dfbed945780a10a6790c61265d87c4bc44545",
    "validation": "a5d5f7cac98c6869c8fa1c42bb5acfa7c545a91ae8ee2678d7b5475a05e81cce",
    "test": "84df381db26731b92371afe68c234bcb808ad29e5c6f5e486fef9670f2f6345a",
}
C = len(glyphs.CLASSES)


@pytest.fixture(scope="module")
def splits():
    return glyphs.splits()


def digests(x: np.ndarray) -> set[bytes]:
    return {picture.tobytes() for picture in x}


def test_every_machine_makes_the_same_bytes(splits):
    found = {
        name: hashlib.sha256(x.tobytes() + y.astype("<i8").tobytes()).hexdigest() for name, (x, y) in splits.items()
    }
    assert found == SHA256


def test_splits_have_the_shapes_and_types_of_the_interface(splits):
    assert list(splits) == ["train", "validation", "test"]
    for x, y in splits.values():
        assert x.dtype == np.uint8
        assert x.shape == (len(y), 3, 32, 32)
        assert y.dtype == np.int64


def test_only_integers_meet_a_picture(monkeypatch):
    """What is clipped, coordinates on the way in and colours on the way out, is integer: a float before would show."""
    seen = []
    clip = np.clip

    def watch(values, *args):
        seen.append(values.dtype)
        return clip(values, *args)

    monkeypatch.setattr(np, "clip", watch)
    with np.errstate(all="raise"):
        glyphs.pictures(np.arange(C), 0)
    assert seen
    assert all(dtype == np.int32 for dtype in seen)


def test_no_sum_overflows_at_the_ends_of_every_range(monkeypatch):
    """All random bytes 0, all 255: the 32-bit sums agree with the same sums in 64 bits."""

    class Stuck:
        def __init__(self, byte: int):
            self.byte = byte

        def bytes(self, n: int) -> bytes:
            return bytes([self.byte]) * n

    narrow = [glyphs._draw(0, 1, Stuck(byte)) for byte in (0, 255)]
    monkeypatch.setattr(np, "int32", np.int64)
    wide = [glyphs._draw(0, 1, Stuck(byte)) for byte in (0, 255)]
    assert np.array_equal(narrow, wide)


def test_torch_and_global_seeds_change_nothing():
    import torch

    first = glyphs.pictures(np.arange(C), 3)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    assert np.array_equal(glyphs.pictures(np.arange(C), 3), first)


@given(st.fractions(1, glyphs.LARGEST))
@settings(max_examples=30, deadline=None)
def test_counts_are_the_floor_of_the_exact_power(factor):
    """n <= n_1 F^(-i/(C-1)) < n + 1, both sides raised to the power C - 1, in fractions."""
    factor = Fraction(float(factor))
    for i, n in enumerate(glyphs.counts(float(factor)).tolist()):
        exact = Fraction(glyphs.LARGEST) ** (C - 1) / factor**i
        assert n ** (C - 1) <= exact < (n + 1) ** (C - 1)


@pytest.mark.parametrize("factor", [1, 10, 50, 100, glyphs.LARGEST])
def test_counts_fall_from_the_largest_to_the_imbalance(factor):
    n = glyphs.counts(factor)
    assert n.dtype == np.int64
    assert n[0] == glyphs.LARGEST
    assert n[-1] == glyphs.LARGEST // factor
    assert (np.diff(n) <= 0).all()


@pytest.mark.parametrize("factor", [0, 0.5, -1, glyphs.LARGEST + 1, float("inf"), float("nan")])
@pytest.mark.fault("an imbalance that Glyphs-LT cannot have")
def test_an_impossible_imbalance_is_refused_in_a_sentence(factor):
    with pytest.raises(ValueError, match="must lie between 1 and"):
        glyphs.counts(factor)


def test_many_medium_and_few_shots_are_all_present():
    n = glyphs.counts(100)
    assert (n > 100).sum() >= 3
    assert ((n >= 20) & (n <= 100)).sum() >= 10
    assert (n < 20).sum() >= 10


def test_training_set_has_the_counts_and_the_others_are_balanced(splits):
    assert np.array_equal(np.bincount(splits["train"][1]), glyphs.counts(100))
    for name in ("validation", "test"):
        assert np.array_equal(np.bincount(splits[name][1]), [glyphs.HELD_OUT] * C)


def test_a_stronger_imbalance_keeps_the_first_pictures_of_each_class(splits):
    x, y = splits["train"]
    larger, labels = glyphs.splits(10)["train"]
    for label in range(C):
        n = (y == label).sum()
        assert np.array_equal(larger[labels == label][:n], x[y == label])


def test_no_picture_occurs_twice_in_a_split_or_in_two(splits):
    everything = np.concatenate([x for x, _ in splits.values()])
    assert len(digests(everything)) == len(everything)


def test_a_picture_does_not_depend_on_what_else_is_drawn():
    mixed = np.array([5, 0, 5, C - 1, 5])
    x = glyphs.pictures(mixed, 7)
    for label in (0, 5, C - 1):
        assert np.array_equal(x[mixed == label], glyphs.pictures(mixed[mixed == label], 7))
    assert not np.array_equal(x, glyphs.pictures(mixed, 8))


@pytest.mark.parametrize("labels", [[-1], [C], [0.0], [True]])
@pytest.mark.fault("a glyph out of range")
def test_labels_out_of_range_are_refused(labels):
    with pytest.raises(ValueError, match=f"integers from 0 to {C - 1}"):
        glyphs.pictures(np.array(labels), 0)


def test_no_labels_make_no_pictures():
    assert glyphs.pictures(np.array([], dtype=np.int64), 0).shape == (0, 3, 32, 32)


def test_classes_are_the_characters_in_a_shuffled_order():
    assert sorted(glyphs.CLASSES) == sorted(set(glyphs.CHARACTERS))
    assert "".join(glyphs.CLASSES) != glyphs.CHARACTERS


def test_every_picture_shows_its_letter_and_lies_within_its_borders(splits):
    """Letter and background differ by a bound in every channel, whatever light and grain did."""
    for x, _ in splits.values():
        assert (np.percentile(x, 99, axis=(2, 3)) - np.percentile(x, 1, axis=(2, 3))).min() >= 24


def test_every_shape_fills_its_grid_inside_a_blank_border_and_differs_from_other_letters():
    shapes = glyphs._shapes()
    assert shapes.shape == (len(glyphs.CHARACTERS), len(glyphs.FACES), glyphs.GRID, glyphs.GRID)
    assert shapes.max() == glyphs.LEVELS
    inner = shapes[..., 1:-1, 1:-1]
    assert shapes.sum() == inner.sum()
    for shape in inner.reshape(-1, glyphs.GRID - 2, glyphs.GRID - 2):
        assert max(np.ptp(where) for where in np.nonzero(shape)) + 1 == glyphs.SPAN
    by_letter = [digests(faces) for faces in shapes]  # a sign may look the same in two faces, never as another sign
    assert len(set.union(*by_letter)) == sum(map(len, by_letter))


def test_a_turned_shape_keeps_its_area():
    """The rotation is one: at full size a disc of ink stays as large at any turn."""
    y, x = np.mgrid[: glyphs.GRID, : glyphs.GRID] - (glyphs.GRID - 1) / 2
    disc = (np.hypot(x, y) < 11).astype(np.uint8)[None] * glyphs.LEVELS
    zero = np.zeros((1, 1, 1, 1), dtype=np.int32)
    area = [
        glyphs._place(disc, size=zero + 16 * glyphs.SPAN, turn=zero + t, shear=zero, right=zero, down=zero).sum() / 255
        for t in (-180, 0, 180)
    ]
    assert np.allclose(area, np.pi * 11**2, rtol=0.02)


@pytest.mark.parametrize(("change", "state"), [(lambda path: path.unlink(), "missing"), (None, "damaged")])
@pytest.mark.fault("a pack of glyphs that is {state}")
def test_a_missing_or_damaged_pack_is_refused_before_it_is_read(tmp_path, monkeypatch, change, state):
    pack = tmp_path / "glyphs.npz"
    data = bytearray(glyphs.PACK.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    if change:
        change(pack)
    monkeypatch.setattr(glyphs, "PACK", pack)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("the file was read before it was checked"))
    with pytest.raises(OSError, match=f"are {state}: install mbib-core again"):
        glyphs._shapes.__wrapped__()


def test_the_command_makes_the_pack_again(tmp_path, monkeypatch, capsys):
    """Roughly: another version of FreeType may move an edge by a little."""
    monkeypatch.setattr(glyphs, "PACK", tmp_path / "glyphs.npz")
    glyphs.main()
    assert "PACK_SHA256" in capsys.readouterr().out
    assert glyphs.PACK.stat().st_size < 150_000
    with np.load(glyphs.PACK, allow_pickle=False) as pack:
        made = pack["shapes"].astype(int)
    difference = np.abs(made - glyphs._shapes())
    assert difference.mean() < 0.1
    assert (difference > glyphs.LEVELS // 2).mean() < 0.005
