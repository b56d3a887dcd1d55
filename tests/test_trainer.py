"""The trainer: augmentation, order and schedule; and runs that are cut, resumed, refused, or go wrong."""

import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import coloured
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mbib_core import checkpoints, evaluation, runs, trainer
from mbib_core.averages import renew_batch_norm
from mbib_core.batches import Draws, Source, augment, draw, pad, resize
from mbib_core.data import Images, LongTailed, channel_statistics, first_of_each_class, load
from mbib_core.devices import pick_device, pick_precision
from mbib_core.evaluation import answers, batch_of, evaluate, features_of
from mbib_core.learners import Learner
from mbib_core.methods import METHODS, Method, Stage, method_of, settle
from mbib_core.networks import Bottleneck, Network, multiply_adds
from mbib_core.results import write_record
from mbib_core.schedules import SCHEDULES, OneCycle, Schedule
from mbib_core.settings import Settings, command_line, run_id
from mbib_core.trainer import Trained, train

CPU = torch.device("cpu")
TINY = Settings(data="coloured", method="mbib", schedule="tiny", precision="float32", threads=1)


def same_bits(one: Trained, other: Trained) -> bool:
    a, b = one.network.state_dict(), other.network.state_dict()
    return one.history == other.history and list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def quietly(settings: Settings, data: LongTailed, **more: Any) -> Trained:
    return train(settings, data, device="cpu", progress=False, **more)


# Augmentation


@given(st.integers(1, 4), st.integers(2, 7), st.integers(2, 7), st.integers(0, 4), st.integers(0, 10**6))
def test_augmentation_is_a_crop_of_each_zero_padded_picture_then_a_flip(
    n: int, height: int, width: int, padding: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)
    index = torch.randint(0, n, (5,), generator=generator)
    crop = torch.randint(0, 2 * padding + 1, (5, 2), generator=generator)
    flip = torch.rand(5, generator=generator) < 0.5
    found = augment(pad(x, padding), index, crop, flip, padding)
    assert found.shape == (5, 3, height, width)
    assert found.dtype == torch.uint8
    assert found.is_contiguous(memory_format=torch.channels_last)
    for b in range(5):
        down, right = crop[b].tolist()
        for c in range(3):
            for i in range(height):
                for j in range(width):
                    column = width - 1 - j if flip[b] else j
                    row, column = i + down - padding, column + right - padding
                    inside = 0 <= row < height and 0 <= column < width
                    expected = int(x[index[b], c, row, column]) if inside else 0
                    assert int(found[b, c, i, j]) == expected


def test_padding_is_black_before_normalising() -> None:
    """What the network sees outside the picture is (0 - mean) / std, as torchvision's crop before ToTensor gives."""
    x = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    corner = augment(pad(x, 4), torch.tensor([0]), torch.tensor([[0, 0]]), torch.tensor([False]), 4)
    assert corner.unique().tolist() == [0]
    network = METHODS["ce"].network(2, depth=8, mean=(100.0,) * 3, std=(50.0,) * 3).eval()
    seen = []
    network.backbone.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(corner)
    assert seen[0].unique().tolist() == [-2.0]


def test_every_crop_is_reached_about_equally_often_and_both_mirrorings_where_they_may_be() -> None:
    labels = torch.zeros(20_000, dtype=torch.int64)
    drawn = draw(labels, seed=0, epoch=0)
    seen = (9 * drawn.crops[:, 0] + drawn.crops[:, 1]).bincount(minlength=81)
    assert len(seen) == 81
    assert 150 < int(seen.min()) <= int(seen.max()) < 350, "247 on average"
    assert 0.48 < float(drawn.flips.float().mean()) < 0.52
    assert not bool(draw(labels, seed=0, epoch=0, flip=False).flips.any())
    assert not bool(draw(labels, seed=0, epoch=0, padding=0).crops.any())


# Order


def numbered(n: int) -> Images:
    """Images of one pixel that say their number, which is their label, too."""
    number = torch.arange(n)
    return Images(torch.stack([number % 256, number // 256, 0 * number], 1)[:, :, None, None].to(torch.uint8), number)


@given(st.integers(2, 200), st.integers(2, 64), st.integers(0, 50), st.integers(0, 300), st.integers(1, 3))
def test_an_epoch_takes_every_picture_once_unless_one_would_be_alone(
    n: int, batch: int, seed: int, epoch: int, ranks: int
) -> None:
    source, drawn = Source(numbered(n), 0, CPU), draw(torch.arange(n), seed=seed, epoch=epoch, padding=0)
    shares = [list(source.stream(drawn, batch, rank=rank, ranks=ranks)) for rank in range(ranks)]
    steps = list(zip(*shares, strict=True))  # as many for every process, or they would wait for each other for ever
    assert len(drawn.rows.unique()) == n
    wanted = [rows for rows in drawn.rows.split(batch) if len(rows) > 1]
    for step, rows in zip(steps, wanted, strict=True):
        spread = ranks > 1 and len(rows) // ranks > 1
        for rank, part in enumerate(step):
            assert part.whole == len(rows) * spread
            assert torch.equal(part.y, rows[rank::ranks] if spread else rows), "where one would be alone, all of them"
            assert torch.equal(part.x[:, 0, 0, 0] + 256 * part.x[:, 1, 0, 0].long(), part.y)


def test_draws_come_from_seed_and_epoch_alone_and_no_two_of_them_share_their_order() -> None:
    def order(seed: int, epoch: int) -> tuple[Any, ...]:
        torch.manual_seed(time.time_ns())
        return tuple(draw(torch.zeros(50, dtype=torch.int64), seed=seed, epoch=epoch).rows.tolist())

    assert order(3, 7) == order(3, 7)
    assert len({order(seed, epoch) for seed in range(5) for epoch in range(40)}) == 5 * 40, (
        "runs that are compared seed by seed would be each other, an epoch later"
    )


# Schedule


def test_the_learning_rate_of_the_papers_recipe_is_cao_2019s() -> None:
    schedule = SCHEDULES["paper"]
    assert (schedule.depth, schedule.epochs, schedule.batch) == (32, 200, 128)
    assert (schedule.rate, schedule.momentum, schedule.weight_decay, schedule.padding) == (0.1, 0.9, 3e-4, 4)
    for epoch in range(1, 201):  # the published code counts from 1
        if epoch <= 5:
            expected = 0.1 * epoch / 5
        elif epoch > 180:
            expected = 0.1 * 0.0001
        elif epoch > 160:
            expected = 0.1 * 0.01
        else:
            expected = 0.1
        assert schedule.learning_rate(epoch - 1, 200) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("epochs", [1, 2, 5, 10, 30, 60, 90, 100])
def test_a_shorter_schedule_keeps_the_shape(epochs: int) -> None:
    rates = [SCHEDULES["paper"].learning_rate(epoch, epochs) for epoch in range(epochs)]
    assert max(rates) == pytest.approx(0.1)
    assert all(0 < rate <= 0.1 + 1e-12 for rate in rates)
    if epochs >= 10:
        assert [sum(math.isclose(r, x) for r in rates) for x in (1e-3, 1e-5)] == [epochs // 10, epochs // 10]


def test_every_step_takes_the_schedules_rate_momentum_and_decay(
    tiny_data: LongTailed, tiny_schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, step = [], torch.optim.SGD.step

    def watched(self: torch.optim.SGD, *args: Any, **kwargs: Any) -> Any:
        taken.extend((group["lr"], group["momentum"], group["weight_decay"]) for group in self.param_groups)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    run = quietly(replace(TINY, epochs=10), tiny_data)
    rates = [tiny_schedule.learning_rate(epoch, 10) for epoch in range(10)]
    steps = math.ceil(len(tiny_data.train.y) / tiny_schedule.batch)
    assert len(set(rates)) == 3, "or a constant rate would pass"
    assert taken == [(rate, tiny_schedule.momentum, tiny_schedule.weight_decay) for rate in rates for _ in range(steps)]
    assert run.history["rate"] == rates


def test_one_cycle_climbs_once_and_falls_to_nothing_while_the_pictures_grow_to_full_size() -> None:
    fast = SCHEDULES["fast"]
    rates = [fast.learning_rate(epoch, 100) for epoch in range(100)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0.999 * fast.rate < max(rates) <= fast.rate
    assert 0 < rates[-1] < 1e-3 * fast.rate
    scales = [fast.scale(epoch, 100) for epoch in range(100)]
    assert scales == sorted(scales)
    assert scales[-1] == 1


def test_the_fast_schedule_costs_at_most_half_the_multiply_adds_of_the_papers() -> None:
    fast, paper = SCHEDULES["fast"], SCHEDULES["paper"]
    assert paper.full_epochs(200) == 200
    assert fast.full_epochs(100) == pytest.approx(30 * (20 / 32) ** 2 + 40 * (24 / 32) ** 2 + 30)
    assert fast.full_epochs(fast.epochs) <= paper.full_epochs(paper.epochs) / 2
    network = METHODS["mbib"].network(100)
    full, small = (multiply_adds(network, torch.zeros(1, 3, s, s, dtype=torch.uint8)) for s in (32, 24))
    assert small / full == pytest.approx((24 / 32) ** 2, rel=1e-3)  # what full_epochs counts with


@given(st.integers(1, 4), st.integers(4, 12), st.sampled_from([0.25, 0.5, 0.625, 0.75]), st.integers(0, 255))
def test_smaller_pictures_keep_a_colour_and_the_order_of_the_pictures(n: int, side: int, scale: float, v: int) -> None:
    x = torch.full((n, 3, side, side + 1), v, dtype=torch.uint8)
    x[0] = 255 - v
    small = resize(x, scale)
    assert small.shape == (n, 3, round(side * scale), round((side + 1) * scale))
    assert torch.equal(small, x[:, :, : small.shape[2], : small.shape[3]])
    assert resize(x, 1.0) is x


def test_growing_pictures_train_whole_and_resumed(
    tiny_data: LongTailed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCHEDULES, "tiny", OneCycle(depth=8, epochs=4, batch=8))
    seen, forward = [], Bottleneck.forward
    monkeypatch.setattr(Bottleneck, "forward", lambda self, x: (seen.append(x.shape[-1]), forward(self, x))[1])
    whole, checkpoint = quietly(TINY, tiny_data), tmp_path / "run.pt"
    sides = sorted(set(seen))
    assert sides == [round(tiny_data.train.x.shape[-1] * scale) for scale in (0.625, 0.75, 1)]
    cut_short(2, TINY, tiny_data, checkpoint=checkpoint)
    assert same_bits(quietly(TINY, tiny_data, checkpoint=checkpoint), whole)


def test_a_method_that_observes_the_picture_refuses_growing_ones() -> None:
    with pytest.raises(ValueError, match=r"mbib-x observes the picture itself, .*: ask for another schedule than fast"):
        settle(Settings(method="mbib-x", schedule="fast"))


# Precision and device


@pytest.mark.parametrize(
    ("found", "precision"),
    [
        ("flags : fpu avx2 avx512f avx512_bf16", "bfloat16"),
        ("flags : fpu amx_bf16 amx_tile", "bfloat16"),
        ("flags : fpu avx2 avx512f", "float32"),
        ("", "float32"),
        (None, "float32"),  # a processor that no /proc/cpuinfo describes
        ((7, 5), "float16"),  # a GPU of this capability
        ((8, 0), "bfloat16"),
        ((9, 0), "bfloat16"),
    ],
)
def test_a_device_computes_in_bfloat16_only_where_it_does_so_natively(
    monkeypatch: pytest.MonkeyPatch, found: Any, precision: str
) -> None:
    device = torch.device("cuda" if isinstance(found, tuple) else "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: found)
    monkeypatch.setattr(Path, "is_file", lambda self: str(self) == "/proc/cpuinfo" and found is not None)
    monkeypatch.setattr(Path, "read_text", lambda self: found)
    assert pick_precision("auto", device) == precision
    assert pick_precision("float16", device) == "float16", "what was asked for is taken"


@pytest.mark.fault("a GPU that is not there")
def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == CPU
    with pytest.raises(ValueError, match="torch sees no GPU here: leave --device out, or say cpu"):
        pick_device("cuda:1")


@pytest.mark.parametrize("device", ["gpu", "meta", "cpu:x", "0x"])
@pytest.mark.fault("a device that there is not")
def test_a_device_that_cannot_compute_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match=f"torch can use no device {device} here: leave --device out"):
        pick_device(device)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_every_precision_trains_and_keeps_float32_weights(
    tiny_data: LongTailed, tiny_schedule: Schedule, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, check = set(), Bottleneck._check_maps

    def watched(self: Bottleneck, maps: Any) -> None:
        computed.update({maps[-1].dtype} if self.training else ())
        check(self, maps)

    monkeypatch.setattr(Bottleneck, "_check_maps", watched)
    run = quietly(replace(TINY, precision=precision, epochs=2), tiny_data)
    assert run.precision == precision
    assert computed == {getattr(torch, precision)}
    assert {p.dtype for p in run.network.parameters()} == {torch.float32}
    assert all(math.isfinite(loss) for loss in run.history["loss"])


def test_the_schedule_says_the_precision_of_a_run_that_asks_for_none(
    tiny_data: LongTailed, tiny_schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SCHEDULES["glyphs"].precision == "float32", "its records come from machines of both kinds"
    monkeypatch.setitem(SCHEDULES, "tiny", replace(tiny_schedule, epochs=1, precision="bfloat16"))
    assert quietly(replace(TINY, precision="auto"), tiny_data).precision == "bfloat16"
    assert quietly(replace(TINY, precision="float32"), tiny_data).precision == "float32"


# A run


def test_settings_of_other_data_are_refused(tiny_data: LongTailed, tiny_schedule: Schedule) -> None:
    with pytest.raises(ValueError, match="the settings are of glyphs-lt, the data are coloured: give both the same"):
        quietly(replace(TINY, data="glyphs-lt"), tiny_data)


@pytest.fixture
def whole(tiny_data: LongTailed, tiny_schedule: Schedule) -> Trained:
    return quietly(TINY, tiny_data)


def test_a_run_leaves_its_history_and_a_network_in_evaluation_mode(whole: Trained) -> None:
    assert [len(whole.history[name]) for name in ("loss", "rate", "curve")] == [3, 3, 3]
    assert whole.history["curve_epoch"] == [1, 2, 3]
    assert set(whole.history["curve"][0]) == {"all", "medium", "few"}
    assert not whole.network.training
    assert whole.seconds > 0
    assert whole.settings.alphas == (0.1, 0.3)
    assert len(whole.commits) == 1


def test_a_run_is_given_the_datas_statistics_counts_and_flips(
    tiny_data: LongTailed, tiny_schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, flips, forward = [], [], Learner.forward
    monkeypatch.setattr(
        Learner, "forward", lambda self, *g: (counts.append(self.counts.tolist()), forward(self, *g))[1]
    )
    monkeypatch.setattr(trainer, "draw", lambda y, **given: (flips.append(given["flip"]), draw(y, **given))[1])
    run = quietly(replace(TINY, epochs=1), tiny_data)
    mean, std = channel_statistics(tiny_data.train.x)
    assert torch.equal(run.network.mean.flatten(), mean)
    assert torch.equal(run.network.std.flatten(), std)
    quietly(replace(TINY, epochs=1), replace(tiny_data, flip=False))
    quietly(replace(TINY, epochs=1, flip=False), tiny_data)
    assert flips == [True, False, False]
    assert {tuple(n) for n in counts} == {(22, 9, 3)}
    assert not load("glyphs-lt").flip, "a mirrored letter is another"


def test_the_curve_is_of_the_first_validation_pictures(
    tiny_schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, seen, look = coloured([22, 9, 3], held_out=20), [], trainer.answers_together
    monkeypatch.setattr(
        trainer, "answers_together", lambda of, images, **more: (seen.append(images.x), look(of, images, **more))[1]
    )
    run = quietly(replace(TINY, epochs=1), data)
    expected = first_of_each_class(data.validation, trainer.CURVE_IMAGES)
    assert len(expected.y) == 60 < len(data.validation.y)
    assert any(torch.equal(x, expected.x) for x in seen if len(x) == 60)
    accuracy = evaluate(run.network, expected, data)["accuracy"]["mean"]
    assert run.history["curve"] == [pytest.approx(accuracy, rel=1e-5)]


def test_a_run_is_repeated_to_the_same_bits_whatever_came_before_and_another_seed_is_another_run(
    whole: Trained, tiny_data: LongTailed
) -> None:
    torch.manual_seed(99)
    torch.set_default_dtype(torch.float64)
    try:
        assert same_bits(whole, quietly(TINY, tiny_data))
    finally:
        torch.set_default_dtype(torch.float32)
    assert not same_bits(whole, quietly(replace(TINY, seed=1), tiny_data))


def test_a_run_learns_colours(tiny_schedule: Schedule) -> None:
    data = coloured([60, 40, 30], held_out=20, seed=3)
    run = quietly(replace(TINY, method="bsce", epochs=12), data)
    assert evaluate(run.network, data.test, data)["accuracy"]["v"]["all"] > 0.8


@pytest.mark.parametrize("counts", [[22, 8, 3], [1, 1]], ids=["a last batch of one", "two in all"])
def test_few_pictures_are_no_obstacle(tiny_schedule: Schedule, counts: list[int]) -> None:
    assert sum(counts) % tiny_schedule.batch in (1, 2)
    assert len(quietly(TINY, coloured(counts)).history["loss"]) == 3


@pytest.mark.parametrize("fails", [False, True])
def test_training_leaves_the_callers_random_numbers_and_threads_alone(
    tiny_schedule: Schedule, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    threads, during = torch.get_num_threads(), []
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    monkeypatch.setattr(
        trainer, "draw", lambda *y, **given: (during.append(torch.get_num_threads()), draw(*y, **given))[1]
    )
    try:
        method = broken_method(0 if fails else 10**6)
        quietly(replace(TINY, method=method, threads=threads + 1, epochs=1), coloured([1, 1]))
    except FloatingPointError:
        assert fails
    assert torch.equal(torch.rand(3), expected)
    assert during == [threads + 1]
    assert torch.get_num_threads() == threads


# The loss goes wrong


def broken_method(
    step: int, wrong: Callable[[Tensor, Tensor], Tensor] = lambda loss, f: loss * math.nan, **own: Any
) -> str:
    """A method whose loss becomes `wrong(loss, logits)` from the given step on, counted over the whole run."""
    steps = iter(range(10**6))

    def loss(o: Any, y: Tensor, **_own: Any) -> Tensor:
        loss = nn.functional.cross_entropy(o.v_logits[-1], y)
        return wrong(loss, o.v_logits[-1]) if next(steps) >= step else loss

    METHODS["broken"] = Method("broken", (Stage(loss),), Network(with_z=False), own)
    return "broken"


@pytest.fixture(autouse=True)
def no_broken_method_stays() -> Any:
    yield
    METHODS.pop("broken", None)


@pytest.mark.fault("a loss of NaN")
def test_a_loss_that_is_no_number_is_reported_with_epoch_and_step(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path, sentence: Callable[[str], None]
) -> None:
    steps = math.ceil(len(tiny_data.train.y) / 8)
    name = broken_method(steps + 2)
    checkpoint = tmp_path / "run.pt"
    with pytest.raises(FloatingPointError) as caught:
        quietly(replace(TINY, method=name), tiny_data, checkpoint=checkpoint)
    sentence(str(caught.value))
    assert str(caught.value) == (
        "the loss is nan at epoch 2, step 3: try --precision float32, a smaller --rate, or look for odd pictures. "
        f"The checkpoint before this epoch is kept in {checkpoint}."
    )
    assert len(torch.load(checkpoint, weights_only=True)["history"]["loss"]) == 1


@pytest.mark.fault("a network that blows up in its very last step")
def test_a_last_step_that_no_loss_shows_is_reported_and_saves_no_checkpoint(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path
) -> None:
    steps = 3 * math.ceil(len(tiny_data.train.y) / 8)
    name = broken_method(steps - 1, lambda loss, f: 1e30 * f.sum())  # a finite loss, and a step beyond all bounds
    checkpoint = tmp_path / "run.pt"
    with pytest.raises(
        FloatingPointError, match="the network's outputs are not finite after epoch 3: try --precision float32"
    ):
        quietly(replace(TINY, method=name), tiny_data, checkpoint=checkpoint)
    assert len(torch.load(checkpoint, weights_only=True)["history"]["loss"]) == 2, "that of the epoch before is kept"


@pytest.mark.fault("an infinite loss")
def test_an_infinite_loss_names_the_settings_that_could_be_smaller(
    tiny_data: LongTailed, tiny_schedule: Schedule
) -> None:
    name = broken_method(0, lambda loss, f: loss * math.inf, beta=1.0, k=0.0)
    with pytest.raises(FloatingPointError, match=r"the loss is inf at epoch 1, step 1: .* a smaller beta than 4, or"):
        quietly(replace(TINY, method=name, beta=4.0), tiny_data)


# Cut and resumed


class Cut(Exception):
    pass


def cut_after(epochs: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the epoch after `epochs` raise before its first step."""

    def cut(*labels: Tensor, epoch: int, **given: Any) -> Draws:
        if epoch >= epochs:
            raise error
        return draw(*labels, epoch=epoch, **given)

    monkeypatch.setattr(trainer, "draw", cut)


def cut_short(epochs: int, settings: Settings, data: LongTailed, **more: Any) -> None:
    """A run that is cut after `epochs`; what it saved stays."""
    with pytest.MonkeyPatch.context() as patch:
        cut_after(epochs, Cut(), patch)
        with pytest.raises(Cut):
            quietly(settings, data, **more)


@pytest.mark.parametrize("dear", [False, True], ids=["cheap", "dear"])
@pytest.mark.parametrize("epochs", [0, 1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), Cut()], ids=["Ctrl-C", "error"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    whole: Trained, tiny_data: LongTailed, tmp_path: Path, epochs: int, error: BaseException, dear: bool
) -> None:
    """Where saving is dear, too: then what was not written yet is written when the run is left."""
    checkpoint = tmp_path / "run.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "SHARE", 0.0 if dear else math.inf)
        cut_after(epochs, error, patch)
        with pytest.raises(type(error)):
            quietly(TINY, tiny_data, checkpoint=checkpoint)
    assert checkpoint.is_file() is (epochs > 0)
    assert same_bits(whole, quietly(TINY, tiny_data, checkpoint=checkpoint))


def test_saving_takes_a_small_share_of_a_run_and_its_last_epoch_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock of its own: an epoch takes a second, writing one and a half; so every 75th epoch is written."""
    monkeypatch.setattr(checkpoints, "SHARE", 0.02)
    clock, written, weight = [0.0], [], torch.zeros(1)

    def write(path: Path, state: dict[str, Any]) -> None:
        clock[0] += 1.5
        written.append((state["epoch"], state["learner"]["weight"].item(), len(state["history"])))

    monkeypatch.setattr(checkpoints, "write_checkpoint", write)
    monkeypatch.setattr(checkpoints.time, "perf_counter", lambda: clock[0])
    history: list[float] = []
    with pytest.raises(KeyboardInterrupt), checkpoints.Saver(tmp_path / "run.pt") as saver:  # noqa: PT012
        for epoch in range(1, 201):
            clock[0] += 1
            weight.fill_(epoch)
            history.append(0.0)
            saver.save({"epoch": epoch, "learner": {"weight": weight}, "history": history}, last=epoch == 100)
        weight.fill_(1000)  # in the middle of an epoch
        history.append(0.0)
        raise KeyboardInterrupt
    assert written == [(epoch, float(epoch), epoch) for epoch in (1, 76, 100, 175, 200)]


def test_a_finished_run_is_not_trained_again(
    whole: Trained, tiny_data: LongTailed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "run.pt"
    first = quietly(TINY, tiny_data, checkpoint=checkpoint)
    cut_after(0, Cut(), monkeypatch)
    again = quietly(TINY, tiny_data, checkpoint=checkpoint)
    assert same_bits(whole, again)
    assert again.seconds == first.seconds
    assert not again.network.training


def test_a_step_that_float16_skips_for_overflow_leaves_no_trace(
    tiny_data: LongTailed, tiny_schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fused SGD would move its momentum in such a step, and the run would end in NaN."""
    settings = replace(TINY, precision="float16", epochs=2)
    real = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *a, **k: real(*a, init_scale=2.0**30, **k))
    run = quietly(settings, tiny_data)
    assert all(math.isfinite(loss) for loss in run.history["loss"])
    assert all(bool(p.isfinite().all()) for p in run.network.parameters())


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_optimizer_and_loss_scale_are_resumed_too(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path, precision: str
) -> None:
    settings = replace(TINY, precision=precision)
    checkpoint = tmp_path / "run.pt"
    cut_short(2, settings, tiny_data, checkpoint=checkpoint)
    assert same_bits(quietly(settings, tiny_data), quietly(settings, tiny_data, checkpoint=checkpoint))


def test_the_precision_that_a_run_began_with_is_kept(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, checkpoint = replace(TINY, precision="auto"), tmp_path / "run.pt"
    monkeypatch.setattr(trainer, "pick_precision", lambda asked, device: "bfloat16")
    cut_short(1, settings, tiny_data, checkpoint=checkpoint)
    monkeypatch.setattr(trainer, "pick_precision", lambda asked, device: "float32")
    assert quietly(settings, tiny_data, checkpoint=checkpoint).precision == "bfloat16"


# Nothing in a step may make the processor wait for a GPU


class Waits(TorchDispatchMode):
    """Counts the operations whose result the processor must see: on a GPU each of them waits for all work before."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "equal.default", "unique", "is_nonzero", "bincount")

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found += any(name in str(operation) for name in self.NAMES)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name in ("mbib", "kcl") else pytest.mark.slow) for name in METHODS]
)
def test_a_step_looks_at_no_value_on_the_device(
    method: str, tiny_data: LongTailed, monkeypatch: pytest.MonkeyPatch
) -> None:
    if METHODS[method].parts.picture:
        pytest.skip("observes pictures of 32 x 32")
    waits = []
    for batch in (8, 8, 4):  # the first run computes what is kept; the last has twice as many steps
        monkeypatch.setitem(SCHEDULES, "tiny", Schedule(depth=8, epochs=2, batch=batch))
        with Waits() as seen:
            quietly(replace(TINY, method=method, epochs=2), tiny_data)
        waits.append(seen.found)
    assert waits[1] == waits[2] > 0, "as many as there are epochs, not steps"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("compiled", [False, True])
def test_no_step_waits_for_the_gpu(compiled: bool, tiny_schedule: Schedule, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Source.stream

    def watched(*given: Any, **more: Any) -> Any:
        drawn = stream(*given, **more)
        yield next(drawn)  # the epoch's order was moved to the GPU, and the passes are built
        torch.cuda.set_sync_debug_mode("error")
        yield from drawn
        torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Source, "stream", watched)
    precision = pick_precision("auto", torch.device("cuda"))
    run = train(
        replace(TINY, precision="bfloat16" if precision == "bfloat16" else "float32"),
        coloured([24, 8, 8]),
        device="cuda",
        progress=False,
        compiled=compiled,
        captured=False,
    )
    assert run.compiled == compiled


# Compiled steps


@pytest.mark.slow
def test_compiled_steps_train_the_same_network_and_go_on_to_the_same_bits(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path
) -> None:
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler here to compile with")
    checkpoint, plain = tmp_path / "run.pt", quietly(TINY, tiny_data)
    whole = quietly(TINY, tiny_data, compiled=True)
    cut_short(1, TINY, tiny_data, compiled=True, checkpoint=checkpoint)
    resumed = quietly(TINY, tiny_data, compiled=False, checkpoint=checkpoint)  # goes on as it began
    assert [run.compiled for run in (whole, resumed, plain)] == [True, True, False]
    assert same_bits(whole, resumed)
    # Later epochs tell nothing: the last digit of a convolution changes them as much.
    assert whole.history["loss"][0] == pytest.approx(plain.history["loss"][0], rel=1e-4)


def test_fewer_pictures_than_a_batch_leave_nothing_to_compile(tiny_schedule: Schedule) -> None:
    run = quietly(replace(TINY, epochs=1), coloured([3, 2]), compiled=True)
    assert not run.compiled


@pytest.mark.parametrize(("said", "told"), [
    ("no C++ compiler was found\nand a long trace", r"no C\+\+ compiler was found$"),
    ("/cache/a.so: file too short", "/cache/a.so: file too short; that file was left half-written: delete it$"),
])  # fmt: skip
def test_a_network_that_cannot_be_compiled_is_trained_as_it_is_with_a_warning(
    said: str,
    told: str,
    tiny_data: LongTailed,
    tiny_schedule: Schedule,
    whole: Trained,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_compiler(network: torch.nn.Module, **_: Any) -> Any:
        def forward(x: Tensor) -> Any:
            raise RuntimeError(said)

        return forward

    monkeypatch.setattr(torch, "compile", without_compiler)
    with pytest.warns(UserWarning, match="could not be compiled and is trained as it is: " + told):
        run = quietly(TINY, tiny_data, compiled=True)
    assert same_bits(run, whole)
    assert not run.compiled


def test_a_resumed_run_names_every_commit_and_adds_up_its_time(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "run.pt"
    monkeypatch.setattr(trainer, "commit_of_code", lambda: "first")
    cut_short(2, TINY, tiny_data, checkpoint=checkpoint)
    before = torch.load(checkpoint, weights_only=True)["seconds"]
    monkeypatch.setattr(trainer, "commit_of_code", lambda: "second")
    run = quietly(TINY, tiny_data, checkpoint=checkpoint)
    assert run.commits == ["first", "second"]
    assert run.seconds > before > 0


def in_child(work: Callable[[], None]) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path
) -> None:
    settings = replace(TINY, epochs=12)
    started = time.monotonic()
    whole = quietly(settings, tiny_data)
    usual = time.monotonic() - started
    checkpoint = tmp_path / "run.pt"
    moments = random.Random(0)
    kills = 0
    for _ in range(6):
        process = in_child(lambda: quietly(settings, tiny_data, checkpoint=checkpoint) and None)
        process.join(moments.uniform(0.05, 0.6) * usual)
        if process.exitcode is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        if checkpoint.is_file():
            torch.load(checkpoint, weights_only=True)  # always a whole one
    assert kills > 0
    assert same_bits(whole, quietly(settings, tiny_data, checkpoint=checkpoint))


# Checkpoints that are refused


class Bomb:
    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple:
        return open, (str(self.file), "w")


@pytest.mark.fault("a pickle bomb in place of a checkpoint")
def test_a_checkpoint_that_would_execute_code_is_refused_and_not_executed(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path
) -> None:
    checkpoint, trace = tmp_path / "run.pt", tmp_path / "executed"
    torch.save({"settings": Bomb(trace)}, checkpoint)
    with pytest.raises(ValueError, match=r"run.pt is not a complete checkpoint: delete it to start"):
        quietly(TINY, tiny_data, checkpoint=checkpoint)
    assert not trace.exists()
    torch.load(checkpoint, weights_only=False)["settings"].close()
    assert trace.exists(), "the bomb must work, or the test says nothing"


@pytest.mark.parametrize("damage", ["cut short", "empty", "text", "another file", "a part missing"])
@pytest.mark.fault("a checkpoint that is torn: {damage}")
def test_a_damaged_checkpoint_is_refused_with_what_to_do(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path, damage: str
) -> None:
    checkpoint = tmp_path / "run.pt"
    quietly(replace(TINY, epochs=1), tiny_data, checkpoint=checkpoint)
    content = checkpoint.read_bytes()
    if damage == "a part missing":
        saved = torch.load(checkpoint, weights_only=True)
        del saved["optimizer"]
        torch.save(saved, checkpoint)
    elif damage == "another file":
        torch.save([1, 2, 3], checkpoint)
    else:
        checkpoint.write_bytes({"cut short": content[: len(content) // 2], "empty": b"", "text": b"hello"}[damage])
    damaged = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=r"run.pt is not a complete checkpoint: delete it to start"):
        quietly(replace(TINY, epochs=1), tiny_data, checkpoint=checkpoint)
    assert checkpoint.read_bytes() == damaged, "it stays for its owner to look at"


def test_a_checkpoint_of_a_schedule_that_was_changed_is_refused(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quietly(TINY, tiny_data, checkpoint=tmp_path / "run.pt")
    monkeypatch.setitem(SCHEDULES, "tiny", replace(tiny_schedule, weight_decay=0.01))
    with pytest.raises(ValueError, match="begun when the schedule tiny was another: delete it to start anew"):
        quietly(TINY, tiny_data, checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize("other", [{"seed": 1}, {"beta": 2.0}, {"epochs": 5}, {"method": "ce"}])
@pytest.mark.fault("a checkpoint of another method, seed, beta or length")
def test_a_checkpoint_of_another_run_is_refused_by_name(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path, other: dict[str, Any]
) -> None:
    checkpoint = tmp_path / "run.pt"
    mine = quietly(replace(TINY, epochs=1), tiny_data, checkpoint=checkpoint).settings
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=f"belongs to the run {run_id(mine)}, not to .*: delete it, or name another"):
        quietly(replace(TINY, **{"epochs": 1, **other}), tiny_data, checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize(("other", "counts"), [("number of classes", [9, 9, 5, 2]), ("long tail", [22, 8, 4])])
@pytest.mark.fault("a checkpoint of another {other}")
def test_a_checkpoint_of_other_pictures_of_that_name_is_refused(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path, other: str, counts: list[int]
) -> None:
    checkpoint, others = tmp_path / "run.pt", coloured(counts)
    quietly(replace(TINY, epochs=1), tiny_data, checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint of coloured-.* does not fit this network, the data or the code"):
        quietly(replace(TINY, epochs=1), others, checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before
    assert others.counts.tolist() == counts, "what is read back must not reach into the data"


# The disk


@pytest.mark.fault("a file that the system lets grow no further")
def test_a_full_disk_is_told_and_the_checkpoint_before_survives(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "run.pt"
    cut_short(1, TINY, tiny_data, checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # the system refuses to write more than that
    try:
        with pytest.raises(OSError, match=r"run.pt could not be written \(File too large\); what was there before is"):
            quietly(TINY, tiny_data, checkpoint=checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.pt"], "nothing half written is left"


@pytest.mark.fault("a checkpoint's folder that is a file")
def test_a_folder_that_cannot_be_written_is_told(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"run.pt could not be written \(.*\); .* Make room or choose another folder"):
        quietly(TINY, tiny_data, checkpoint=tmp_path / "file" / "run.pt")
    assert (tmp_path / "file").read_text() == "no folder"


# Evaluation and records


@pytest.mark.parametrize(("side", "n"), [(8, 500), (32, 500), (64, 500), (65, 484), (112, 163), (224, 40), (1024, 2)])
def test_large_images_are_answered_fewer_at_once_and_small_ones_as_many_as_ever(side: int, n: int) -> None:
    assert batch_of((side, side)) == n


def test_a_network_is_given_so_many_and_no_more_when_it_answers_or_renews_its_batch_norm() -> None:
    network, given = METHODS["ce"].network(3, depth=8), []
    images = Images(torch.zeros(7, 3, 8, 8, dtype=torch.uint8), torch.zeros(7, dtype=torch.int64))
    network.register_forward_pre_hook(lambda _, x: given.append(len(x[0])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "MOST", (500, 3 * 64))
        answers(network, images)
        renew_batch_norm(network, images)
    assert given == [3, 3, 1, 3, 2, 2]


def test_features_of_are_those_of_the_network_in_evaluation_mode_whatever_the_batch(
    whole: Trained, tiny_data: LongTailed
) -> None:
    x = tiny_data.test.x
    whole.network.train()
    found = features_of(whole.network, x, batch=5)
    assert not whole.network.training
    with torch.no_grad():
        outputs = whole.network(x)
    assert set(found) == {
        "logits/v", "logits/z", "logits/mean", "logits/mean_probability", "features/v", "features/z"
    }  # fmt: skip
    for name, expected in {
        "logits/v": outputs.v_logits[-1],
        "logits/z": outputs.z_logits,
        "features/v": outputs.observations[-1],
        "features/z": outputs.z,
    }.items():
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-4)


def test_no_convolution_is_rounded_to_tf32_in_training_or_evaluation(
    tiny_data: LongTailed, tiny_schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, forward = set(), Bottleneck.forward

    def watched(network: Bottleneck, x: Tensor) -> Any:
        seen.add((network.training, torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32))
        return forward(network, x)

    monkeypatch.setattr(Bottleneck, "forward", watched)
    before = torch.backends.cudnn.allow_tf32
    evaluate(quietly(TINY, tiny_data).network, tiny_data.test, tiny_data)
    assert seen == {(True, True, False), (False, True, False)}
    assert torch.backends.cudnn.allow_tf32 == before, "the process's own setting is given back"


def test_a_curve_on_test_images_has_every_epoch_is_in_the_name_and_leaves_the_run_as_it_is(
    whole: Trained, tiny_data: LongTailed, tmp_path: Path
) -> None:
    settings, checkpoint = replace(TINY, test_curve=True), tmp_path / "run.pt"
    cut_short(2, settings, tiny_data, checkpoint=checkpoint)
    found = quietly(settings, tiny_data, checkpoint=checkpoint)
    curve = found.history.pop("test_curve")
    assert same_bits(found, whole), "nothing is chosen by it"
    assert len(curve) == 3
    last = evaluate(found.network, tiny_data.test, tiny_data)["accuracy"]["mean"]
    assert curve[-1] == pytest.approx(last, rel=1e-5)
    assert run_id(found.settings) != run_id(whole.settings)
    assert "--test-curve" in command_line(found.settings).split()
    assert "test_curve" not in whole.history
    assert "--test-curve" not in command_line(whole.settings)


@pytest.mark.fault("a curve on test images in a run for choosing")
def test_a_run_for_choosing_has_no_curve_on_test_images() -> None:
    with pytest.raises(ValueError, match="a run for choosing never sees the test set: leave test_curve out"):
        settle(Settings(purpose="choosing", test_curve=True))


def test_evaluation_agrees_with_predictions_counted_by_hand(whole: Trained, tiny_data: LongTailed) -> None:
    found = evaluate(whole.network, tiny_data.test, tiny_data)
    logits = features_of(whole.network, tiny_data.test.x)["logits/mean"]
    right = [0, 0, 0]
    for row, y in zip(logits.tolist(), tiny_data.test.y.tolist(), strict=True):
        right[y] += row.index(max(row)) == y
    by_class = [r / 4 for r in right]
    assert found["default"] == "mean"
    assert found["by_class"]["mean"] == pytest.approx(by_class)
    assert found["accuracy"]["mean"] == pytest.approx(
        {"all": sum(by_class) / 3, "medium": by_class[0], "few": (by_class[1] + by_class[2]) / 2}
    )
    assert found["pictures"] == 12
    assert set(found["neighbours"]) == set(found["rho"]) == {"v", "z"}


def test_an_adjusted_prediction_subtracts_the_log_counts(tiny_data: LongTailed, tiny_schedule: Schedule) -> None:
    run = quietly(replace(TINY, method="ce"), tiny_data)
    found = evaluate(run.network, tiny_data.test, tiny_data, predict=method_of(run.settings).predict)
    logits = features_of(run.network, tiny_data.test.x)["logits/v"]
    predicted = (logits - torch.tensor([22.0, 9.0, 3.0]).log()).argmax(1)
    right = (predicted == tiny_data.test.y).view(3, 4).float().mean(1)
    assert found["default"] == "v", "the adjustment is told beside it, it is not cross-entropy's own"
    assert found["by_class"]["adjusted"] == pytest.approx(right.tolist())


def test_a_class_without_pictures_is_left_out_of_an_evaluation(whole: Trained, tiny_data: LongTailed) -> None:
    kept = tiny_data.test.y != 0
    found = evaluate(whole.network, Images(tiny_data.test.x[kept], tiny_data.test.y[kept]), tiny_data)
    assert found["by_class"]["mean"][0] is None
    assert "medium" not in found["accuracy"]["mean"], "its only class has no picture"
    assert found["accuracy"]["mean"]["all"] == pytest.approx(sum(found["by_class"]["mean"][1:]) / 2)


class Untouchable:
    """A test set that no one may look at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError("the test set was touched")

    def __iter__(self) -> Any:
        raise AssertionError("the test set was touched")

    def __len__(self) -> int:
        raise AssertionError("the test set was touched")

    __getitem__ = __iter__


@pytest.mark.parametrize("purpose", ["final", "choosing"])
def test_the_test_set_is_looked_at_once_after_the_last_epoch_and_never_by_a_run_for_choosing(
    tiny_data: LongTailed, tiny_schedule: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, purpose: str
) -> None:
    test, seen = tiny_data.test, []
    object.__setattr__(tiny_data, "test", Untouchable())
    run = quietly(replace(TINY, purpose=purpose), tiny_data, checkpoint=tmp_path / "run.pt")
    if purpose == "final":
        with pytest.raises(AssertionError, match="the test set was touched"):
            runs.record_of(run, tiny_data, "")
        object.__setattr__(tiny_data, "test", test)
    monkeypatch.setattr(
        runs, "evaluate", lambda n, images, *r, **m: (seen.append(images is test), evaluate(n, images, *r, **m))[1]
    )
    record = runs.record_of(run, tiny_data, command_line(run.settings))
    assert sorted(seen) == ([False, True] if purpose == "final" else [False])
    assert record["validation"]["pictures"] == 15
    assert record.get("test", {}).get("pictures") == (12 if purpose == "final" else None)


def test_a_record_names_everything_that_made_the_run(whole: Trained, tiny_data: LongTailed, tmp_path: Path) -> None:
    record = runs.record_of(whole, tiny_data, command_line(whole.settings))
    assert record["run_id"] == run_id(whole.settings)
    assert record["settings"]["alphas"] == [0.1, 0.3]
    assert record["command"].startswith("mbib train mbib --data coloured")
    assert record["machine"]["threads"] == 1
    assert record["machine"]["precision"] == "float32"
    assert record["machine"]["torch"] == torch.__version__
    assert record["machine"]["device"]
    assert record["counts"] == [22, 9, 3]
    assert record["shots"] == {"medium": 1, "few": 2}
    assert record["parameters"] == sum(p.numel() for p in whole.network.parameters())
    assert record["commits"] == whole.commits
    assert record["history"]["rate"] == pytest.approx(whole.history["rate"], rel=1e-5)
    assert write_record(record, tmp_path).is_file(), "all of it fits into JSON"


def test_the_first_pictures_of_each_class_are_taken_in_order() -> None:
    y = torch.tensor([1, 0, 1, 1, 0, 2])
    x = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 2, 2)
    found = first_of_each_class(Images(x, y), 2)
    assert found.x[:, 0, 0, 0].tolist() == [0, 1, 2, 4, 5]
    assert found.y.tolist() == [1, 0, 1, 0, 2]
