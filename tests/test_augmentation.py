"""What images go through after crop and flip: exact shapes, the distribution of what is drawn, and equal bits after a
resume and for any number of processes."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import coloured
from hypothesis import given
from hypothesis import strategies as st
from test_rows import SHORT, Killed, bits, glyphs, kill_after, run
from torchvision.transforms import AutoAugmentPolicy, v2

from mbib_core import settings as all_settings
from mbib_core.augmentation import (
    AUGMENTATIONS,
    MAGNITUDE,
    OPERATIONS,
    PAIRS,
    RANDOM,
    SIGNED,
    blend,
    cut_out,
    draw_mixing,
    draw_operations,
    operate,
    operation,
    paste,
    relabelled,
)
from mbib_core.batches import Batch, Mixed, Source, draw
from mbib_core.data import Images
from mbib_core.learners import Learner
from mbib_core.methods import METHODS, settle
from mbib_core.settings import Settings

NEW = [name for name in AUGMENTATIONS if name not in ("none", "crop+flip")]
MIXES = ["mixup", "cutmix", "remix"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, side: int = 32, low: int = 1) -> torch.Tensor:
    return torch.randint(low, 256, (n, 3, side, side), dtype=torch.uint8, generator=seeded())


# Cutout


@given(st.integers(4, 12), st.integers(4, 12), st.floats(0, 0.999), st.floats(0, 0.999))
def test_cutout_is_a_clipped_square_half_as_wide_as_the_image(
    height: int, width: int, down: float, right: float
) -> None:
    x, centre = torch.full((1, 3, height, width), 9, dtype=torch.uint8), torch.tensor([[down, right]])
    half, (row, column) = min(height, width) // 4, (int(centre[0, 0] * height), int(centre[0, 1] * width))
    found = cut_out(x, centre)
    for i, j in product(range(height), range(width)):
        inside = row - half <= i < row + half and column - half <= j < column + half
        assert found[0, :, i, j].tolist() == [0 if inside else 9] * 3


def test_a_hole_of_32_pixels_is_16_wide_and_every_pixel_is_reached_alike() -> None:
    holes = cut_out(torch.ones(20_000, 1, 32, 32, dtype=torch.uint8), torch.rand(20_000, 2, generator=seeded())) == 0
    assert int(holes.sum((1, 2, 3)).max()) == 256
    assert int(holes.sum((1, 2, 3)).min()) == 64, "clipped at a corner"
    assert 0.23 < float(holes[:, 0, 16, 16].float().mean()) < 0.27, "(16 / 32)^2"


# Mixing


def test_shares_are_uniform_and_partners_a_permutation_of_each_batch() -> None:
    mixing = draw_mixing("mixup", 4000 * 8 - 3, 8, seeded())
    shares = mixing.shares.sort().values
    gap = (shares - torch.arange(4000) / 4000).abs().max()
    assert float(gap) < 1.63 / math.sqrt(4000), "Kolmogorov and Smirnov's 1 %"
    for places in mixing.partners.split(8):
        assert places.sort().values.tolist() == list(range(int(places.min()), int(places.max()) + 1))
    assert mixing.partners[-5:].min() == len(mixing.partners) - 5


def test_mixup_is_the_weighted_mean_to_half_a_grey_level() -> None:
    x, other, share = images(5), images(5).flip(0), torch.tensor(0.3)
    expected = 0.3 * x.double() + 0.7 * other.double()
    assert float((blend(x, other, share) - expected).abs().max()) <= 0.501
    assert torch.equal(blend(x, x, share), x)


@given(st.floats(0, 1), st.floats(0, 0.999), st.floats(0, 0.999), st.sampled_from([7, 8, 16]))
def test_cutmix_pastes_a_clipped_box_and_tells_the_share_that_is_left(
    share: float, down: float, right: float, side: int
) -> None:
    x, other = torch.zeros(2, 3, side, side, dtype=torch.uint8), torch.ones(2, 3, side, side, dtype=torch.uint8)
    given_share, centre = torch.tensor(share), torch.tensor([down, right])
    found, left = paste(x, other, given_share, centre)
    length = math.ceil(float(side * (1 - given_share).sqrt()))
    row, column = (int(c * side) - length // 2 for c in centre)
    for i, j in product(range(side), range(side)):
        inside = row <= i < row + length and column <= j < column + length
        assert found[:, :, i, j].unique().tolist() == [int(inside)]
    assert float(left) == pytest.approx(1 - float(found[0, 0].float().mean()), abs=1e-6)
    if 0 <= row <= side - length and 0 <= column <= side - length:
        assert float(left) == pytest.approx(1 - (length / side) ** 2, abs=1e-6)


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_remix_gives_a_mostly_rare_image_to_its_rare_class(seed: int, share: float) -> None:
    counts = torch.tensor([90, 3, 30, 10, 9])
    y, other = torch.randint(5, (2, 40), generator=seeded(seed))
    found = relabelled(y, other, torch.tensor(share, dtype=torch.float64), counts)
    for mine, theirs, a, b in zip(y.tolist(), other.tolist(), *(part.tolist() for part in found), strict=True):
        label_share = share
        if counts[mine] / counts[theirs] >= 3 and share < 0.5:
            label_share = 0.0
        elif counts[theirs] / counts[mine] >= 3 and 1 - share < 0.5:
            label_share = 1.0
        expected, got = [0.0] * 5, [0.0] * 5
        for shares, first, second, s in ((expected, mine, theirs, label_share), (got, a, b, share)):
            shares[first] += s
            shares[second] += 1 - s
        assert got == pytest.approx(expected)


@pytest.mark.parametrize("method", ["ce", "mbib", "ldam-drw", "sade", "vib"])
def test_the_loss_of_mixed_images_is_that_of_soft_targets_or_the_mean_by_shares(method: str) -> None:
    row, data = METHODS[method], coloured([9, 5, 3])
    learner = Learner(replace(row.parts, depth=8).build(3), data.counts).eval()
    if row.parts.stochastic:
        learner.network.draw.eval()
    loss = lambda *given, **more: row.stages[0].loss(*given, **row.own, **more)  # noqa: E731
    x, y, other = data.train.x[:8], data.train.y[:8], data.train.y[8:16]
    if row.parts.taps > 1:
        x = images(8)
    of = lambda labels, mixed=None: learner(Batch(x, labels, mixed=mixed), loss, 0.0).detach()  # noqa: E731
    found = of(y, Mixed(other, torch.tensor(0.3)))
    torch.testing.assert_close(found, 0.3 * of(y) + 0.7 * of(other))
    if method == "ce":
        one = torch.nn.functional.one_hot
        soft = 0.3 * one(y, 3) + 0.7 * one(other, 3)
        torch.testing.assert_close(
            found, torch.nn.functional.cross_entropy(learner.outputs(x).v_logits[0], soft).detach()
        )


@pytest.mark.fault("mixed images for a method that has two batches")
@pytest.mark.parametrize("mix", MIXES)
def test_mixing_is_refused_where_a_loss_compares_images_or_has_two_batches(
    mix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = type("Own", (Learner,), {"forward": lambda self, batch, loss, progress: None})
    two = replace(METHODS["ce"], stages=(replace(METHODS["ce"].stages[0], second="view"),))
    for row in (replace(METHODS["ce"], learner=own), two):
        monkeypatch.setitem(METHODS, "mine", row)
        with pytest.raises(ValueError, match=f"^{mix} gives every image two labels, which mine cannot take"):
            settle(Settings(method="mine", augmentation=mix))
        settle(Settings(method="mine", augmentation="cutout"))


# Policies


def test_the_policy_is_autoaugments_for_cifar_10_and_the_operations_are_torchvisions() -> None:
    theirs = v2.AutoAugment(AutoAugmentPolicy.CIFAR10)
    assert [[(name, p, level or 0) for name, p, level in pair] for pair in theirs._policies] == list(map(list, PAIRS))
    assert set(RANDOM) == set(v2.RandAugment._AUGMENTATION_SPACE)
    assert {name for name, (_, signed) in theirs._AUGMENTATION_SPACE.items() if signed} == set(SIGNED)
    x = images(3)
    for name, strength in OPERATIONS:
        of_ten = not math.isclose(abs(strength), MAGNITUDE)
        magnitudes, signed = (v2.AutoAugment if of_ten else v2.RandAugment)._AUGMENTATION_SPACE[name]
        values = magnitudes(10 if of_ten else 31, 32, 32)
        level = round(abs(strength) * (9 if of_ten else 30))
        magnitude = 0.0 if values is None else float(values[level]) * (math.copysign(1, strength) if signed else 1)
        expected = theirs._apply_image_or_video_transform(
            x, name, magnitude, interpolation=theirs.interpolation, fill={torch.Tensor: None}
        )
        off = (operation(x, name, strength).int() - expected.int()).abs().max()
        assert int(off) <= (name in SIGNED[5:]), f"{name} {strength}: colours round to one grey level"


def test_operations_are_drawn_as_often_as_the_policies_say() -> None:
    n = 50_000
    drawn = draw_operations("autoaugment", n, seeded())
    for slot in (0, 1):
        for name in {name for name, _ in OPERATIONS}:
            expected = sum(pair[slot][1] for pair in PAIRS if pair[slot][0] == name) / 25
            numbers = torch.tensor([i for i, (other, _) in enumerate(OPERATIONS) if other == name])
            found = float(torch.isin(drawn[:, slot], numbers).float().mean())
            assert found == pytest.approx(expected, abs=0.01), (slot, name)
    shares = draw_operations("randaugment", n, seeded()).flatten().bincount(minlength=len(OPERATIONS)) / (2 * n)
    for (name, strength), share in zip(OPERATIONS, shares.tolist(), strict=True):
        of_it = name in RANDOM and math.isclose(abs(strength), MAGNITUDE)
        assert share == pytest.approx(of_it / len(RANDOM) / (1 + (name in SIGNED)), abs=0.004), (name, strength)


def test_operations_on_a_batch_are_those_on_each_image_in_order() -> None:
    x, drawn = images(60).contiguous(memory_format=torch.channels_last), draw_operations("autoaugment", 60, seeded(1))
    before = x.clone()
    found = operate(x, drawn)
    assert torch.equal(x, before)
    assert found.is_contiguous(memory_format=torch.channels_last)
    for image, numbers, expected in zip(x, drawn.tolist(), found, strict=True):
        one = image[None]
        for number in numbers:
            one = operation(one, *OPERATIONS[number]) if number >= 0 else one
        assert torch.equal(one[0], expected)


# All of them


def test_a_second_stream_is_another_draw_whatever_the_seed() -> None:
    """torch's generator takes the low 32 bits of its seed: what differs above them is the same draw."""
    labels = torch.zeros(400, dtype=torch.int64)
    for seed in (0, 1, 2**32 - 1):
        first, second, next_epoch = (
            draw(labels, seed=seed, epoch=epoch, stream=stream) for epoch, stream in ((0, 0), (0, 1), (1, 0))
        )
        for other in (second, next_epoch):
            assert 0.4 < float((first.flips == other.flips).double().mean()) < 0.6
            assert float((first.crops == other.crops).double().mean()) < 0.2
            assert float((first.rows == other.rows).double().mean()) < 0.05


def test_every_augmentation_can_be_asked_for_and_leaves_order_crops_and_flips_alone() -> None:
    assert tuple(AUGMENTATIONS) == all_settings.AUGMENTATIONS
    labels = torch.arange(40) % 4
    usual = draw(labels, seed=3, epoch=2)
    for name in NEW:
        drawn = draw(labels, seed=3, epoch=2, augmentation=AUGMENTATIONS[name], batch=16)
        assert all(torch.equal(a, b) for a, b in zip(drawn[:3], usual[:3], strict=True))
        assert any(part is not None for part in drawn[3:]), name


@pytest.mark.parametrize("name", NEW)
def test_processes_share_the_very_batches_of_one(name: str) -> None:
    source = Source(Images(images(50), torch.arange(50) % 7), 4, torch.device("cpu"))
    drawn = draw(source.labels, seed=0, epoch=1, augmentation=AUGMENTATIONS[name], batch=16)
    whole, *parts = (source.stream(drawn, 16, rank=r, ranks=n) for r, n in ((0, 1), (0, 2), (1, 2)))
    batches = 0
    for one, first, second in zip(whole, *parts, strict=False):
        assert one.x.is_contiguous(memory_format=torch.channels_last)
        for rank, part in enumerate((first, second)):
            own = slice(rank, None, 2) if part.whole else slice(None)
            assert torch.equal(one.x[own], part.x)
            assert torch.equal(one.y[own], part.y)
            if one.mixed:
                assert torch.equal(one.mixed.y[own], part.mixed.y)
                assert torch.equal(one.mixed.share, part.mixed.share)
        batches += 1
        assert (first.whole, second.whole) == ((16, 16) if batches < 4 else (0, 0)), "two images are too few to share"
    assert batches == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["autoaugment+cutout", "randaugment", "cutmix", "remix"])
def test_a_run_with_an_augmentation_resumes_to_the_same_bits_and_is_not_the_plain_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SHORT, method="bsce", epochs=2, augmentation=name)
    kill_after(1, monkeypatch)
    with pytest.raises(Killed):
        run(settings, glyphs(), checkpoint=tmp_path / "run.pt")
    kill_after(-1, monkeypatch)
    found = bits(run(settings, glyphs(), checkpoint=tmp_path / "run.pt"))
    assert found == bits(run(settings, glyphs()))
    assert found != bits(run(replace(settings, augmentation=None), glyphs()))
