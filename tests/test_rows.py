"""What every row of the table of methods must pass: it trains, resumes, is kept on disk, and is what its paper says."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, coloured, softmax
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mbib_core import checkpoints
from mbib_core.batches import augment, draw, pad
from mbib_core.checkpoints import write_checkpoint
from mbib_core.data import Images, LongTailed, channel_statistics, load
from mbib_core.evaluation import features_of
from mbib_core.learners import Learner
from mbib_core.methods import METHODS, method_of, settle
from mbib_core.methods.staged import normalise
from mbib_core.mixtures import sade
from mbib_core.networks import Network, multiply_adds
from mbib_core.networks.heads import Cosine
from mbib_core.rebalancing import effective_weights, focal, ldam
from mbib_core.results import read_record, write_record
from mbib_core.runs import make, record_of
from mbib_core.schedules import OVERRIDES, SCHEDULES, Schedule, schedule_of
from mbib_core.settings import Settings, describe, run_id
from mbib_core.trainer import Trained, train
from mbib_core.weights import read_weights, write_weights

RESULTS = Path(__file__).parents[1] / "book" / "results"
every_row = pytest.mark.parametrize(  # the quick tests ask one of a kind
    "method", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in METHODS]
)
SHORT = Settings(data="glyphs-lt", schedule="glyphs", epochs=3, batch=16, threads=1)


@cache
def glyphs(counts: tuple[int, ...] = (24, 12, 7, 5, 2)) -> LongTailed:
    """The first glyphs of the first classes: so many to train on, and as many of all others."""
    whole = load("glyphs-lt")

    def first(images: Images, counts: tuple[int, ...]) -> Images:
        rows = torch.cat([(images.y == label).nonzero()[:n, 0] for label, n in enumerate(counts)])
        return Images(images.x[rows], images.y[rows])

    train, held_out = first(whole.train, counts), (4,) * len(counts)
    parts = train, first(whole.validation, held_out), first(whole.test, held_out)
    return LongTailed("glyphs-lt", *parts, whole.classes[: len(counts)], flip=False)


def run(settings: Settings, data: LongTailed, **more: Any) -> Trained:
    return train(settings, data, device="cpu", progress=False, **more)


@cache
def easy(method: str) -> tuple[Trained, LongTailed]:
    """A short run on images of three colours that every row can learn."""
    data = coloured([16, 12, 9], side=32 if METHODS[method].parts.picture else 8)
    settings = replace(SHORT, data="coloured", method=method, epochs=8, batch=8, rate=0.01, augmentation="none")
    return run(settings, data), data


def bits(one: Trained) -> tuple[Any, ...]:
    return one.history["loss"], [(name, value.tolist()) for name, value in one.network.state_dict().items()]


# Training


@every_row
def test_a_row_trains_and_beats_chance_on_its_training_images(method: str) -> None:
    found, data = easy(method)
    losses = found.history["loss"]
    assert all(map(math.isfinite, losses))
    assert losses[7] < losses[0]
    logits = next(iter(features_of(found.network, data.train.x).values()))
    right = int((logits.argmax(1) == data.train.y).sum())
    assert right > 25, "of 37 images, 16 of which are of one class"


def plain_loop(settings: Settings, data: LongTailed) -> tuple[Any, ...]:
    """Training as in a tutorial: no stages, no learner, no resume."""
    method, schedule, n, losses = method_of(settings), schedule_of(settings), len(data.train.y), []
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        mean, std = channel_statistics(data.train.x)
        network = method.network(len(data.classes), mean=mean, std=std).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        network.parameters(), schedule.rate, 0.9, weight_decay=schedule.weight_decay, fused=True
    )
    padded = pad(data.train.x, 4)
    for epoch in range(settings.epochs):
        optimizer.param_groups[0]["lr"] = schedule.learning_rate(epoch, settings.epochs)
        random, sums = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch), []
        order, crops = torch.randperm(n, generator=random), torch.randint(0, 9, (n, 2), generator=random)
        flips = torch.rand(n, generator=random) < 0.5 * data.flip
        for start in range(0, n, schedule.batch):
            rows, here = order[start : start + schedule.batch], slice(start, start + schedule.batch)
            outputs = network(augment(padded, rows, crops[here], flips[here], 4))
            loss = method.loss(outputs, data.train.y[rows], data.counts)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sums.append(loss.detach())
        losses.append(float(torch.stack(sums).mean()))
    return losses, [(name, value.tolist()) for name, value in network.state_dict().items()]


# Of the first epoch alone: three steps with batches of 2 to 16 images, and rounding differs a hundredth by the second.
FIRST_LOSS = {"ce": 2.0482, "bsce": 1.9676, "bib": 4.2237, "mbib": 4.1609}


@pytest.mark.parametrize("method", ["ce", "bsce", "bib", "mbib"])
def test_a_row_ends_in_the_bits_of_a_plain_loop_and_starts_with_the_same_loss_everywhere(method: str) -> None:
    settings = settle(replace(SHORT, method=method, seed=2))
    found, data = bits(run(settings, glyphs())), replace(glyphs(), flip=True)
    assert found == plain_loop(settings, glyphs())
    assert bits(run(settings, data)) == plain_loop(settings, data) != found
    assert found[0][0] == pytest.approx(FIRST_LOSS[method], rel=2e-3), "on every machine"


# Resuming


class Killed(Exception):
    pass


def kill_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, state: dict[str, Any]) -> None:
        write_checkpoint(path, state)
        if len(state["history"]["loss"]) == epochs:
            raise Killed

    monkeypatch.setattr(checkpoints, "write_checkpoint", write)


def cuts() -> list[tuple[str, int]]:
    """One row of every kind; and before, at and after every border of the stages of all rows that have some."""
    found = [("mbib", 5), ("ldam-drw", 7), ("ldam-drw", 8), ("tau-norm", 5), ("tau-norm", 10), ("sade", 5), ("bbn", 5)]
    found.append(("ce-drs", 8))  # its draws change
    for name, method in METHODS.items():
        lengths = [max(1, round(stage.epochs * 10)) for stage in method.stages]
        borders = list(accumulate(lengths))
        found += [(name, cut) for border in borders[:-1] for cut in (border - 1, border, border + 1, borders[-1])]
    return found


@cache
def uncut(method: str) -> tuple[Any, ...]:
    return bits(run(replace(SHORT, data="coloured", method=method, epochs=10), coloured([22, 9, 3])))


@pytest.mark.parametrize(
    ("method", "epochs"), [pytest.param(*cut, marks=[] if cut in cuts()[:4] else pytest.mark.slow) for cut in cuts()]
)
def test_a_row_that_was_cut_goes_on_to_the_same_bits(
    method: str, epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, data = replace(SHORT, data="coloured", method=method, epochs=10), coloured([22, 9, 3])
    kill_after(epochs, monkeypatch)
    with pytest.raises(Killed):
        run(settings, data, checkpoint=tmp_path / "run.pt")
    kill_after(-1, monkeypatch)
    assert bits(run(settings, data, checkpoint=tmp_path / "run.pt")) == uncut(method)


def test_what_crt_freezes_keeps_the_bits_of_its_first_stage_batch_norm_included() -> None:
    whole, first = (dict(uncut(method)[1]) for method in ("crt", "ce"))
    moved = [name for name in whole if whole[name] != first[name]]
    assert moved == ["v_classifiers.0.weight", "v_classifiers.0.bias"]
    assert uncut("crt")[0][:10] == uncut("ce")[0]


def test_tau_normalisation_is_applied_once_to_what_cross_entropy_learned() -> None:
    whole, first = (dict(uncut(method)[1]) for method in ("tau-norm", "ce"))
    for row, before in zip(whole.pop("v_classifiers.0.weight"), first.pop("v_classifiers.0.weight"), strict=True):
        assert row == pytest.approx([w / math.hypot(*before) ** 0.7 for w in before], rel=1e-5)
    assert set(whole.pop("v_classifiers.0.bias")) == {0.0} != set(first.pop("v_classifiers.0.bias"))
    assert whole == first


@pytest.mark.fault("a checkpoint of another number of processes")
def test_a_checkpoint_of_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    run(replace(SHORT, epochs=1), glyphs(), checkpoint=file)
    write_checkpoint(file, torch.load(file, weights_only=True) | {"ranks": 2})
    with pytest.raises(ValueError, match="is of a run on 2 processes, this one has 1, and batch norm would differ"):
        run(replace(SHORT, epochs=1), glyphs(), checkpoint=file)


# Files


@every_row
def test_the_weights_and_the_record_of_a_row_come_back(method: str, tmp_path: Path) -> None:
    mine, data = easy(method)
    record = record_of(mine, data, "the command")
    assert read_record(write_record(record, tmp_path))["stages"] == json.loads(json.dumps(record["stages"]))
    write_weights(mine, tmp_path / "w.safetensors")
    back = read_weights(tmp_path / "w.safetensors")
    assert (back.settings, back.classes, back.size) == (mine.settings, mine.classes, mine.size)
    assert back.counts == [16, 12, 9]
    a, b = (features_of(network, data.test.x) for network in (mine.network, back.network))
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.fault("weights in which a bit was changed")
def test_weights_of_equal_runs_have_equal_bytes_and_a_changed_bit_is_refused(tmp_path: Path) -> None:
    files = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for file in files:
        write_weights(run(replace(SHORT, epochs=1), glyphs()), file)
    content = files[0].read_bytes()
    assert content == files[1].read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for place in (start, (start + len(content)) // 2, len(content) - 1):
        files[1].write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ValueError, match=r"two.safetensors was damaged after it was written: copy it again"):
            read_weights(files[1])


def test_files_from_before_weights_described_their_network_are_read() -> None:
    files = sorted(RESULTS.glob("*.safetensors"))
    assert files
    for file in files:
        found, record = read_weights(file), json.loads(file.with_suffix(".json").read_text())
        assert run_id(found.settings) == file.stem
        assert sum(p.numel() for p in found.network.parameters()) == record["parameters"]


def test_weights_of_another_depth_method_and_schedule_are_read_without_any_table(
    tmp_path: Path,
) -> None:
    own = {"alphas": (0.5,), "beta": 1.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "mine", replace(METHODS["mbib"], parts=Network(taps=2), own=own))
        patch.setitem(SCHEDULES, "mine", Schedule(depth=8, epochs=1, batch=16))
        mine = run(Settings(data="glyphs-lt", method="mine", schedule="mine", depth=14, threads=1), glyphs())
        write_weights(mine, tmp_path / "w.safetensors")
    torch.set_default_dtype(torch.float64)
    try:
        back = read_weights(tmp_path / "w.safetensors").network
    finally:
        torch.set_default_dtype(torch.float32)
    x = glyphs().test.x
    torch.testing.assert_close(features_of(back, x), features_of(mine.network, x), rtol=0, atol=0)


# Networks


@pytest.mark.parametrize(("experts", "number"), [(3, 783_856), (4, 1_037_200)])
def test_networks_of_experts_have_the_published_number_of_parameters(experts: int, number: int) -> None:
    network = Network(experts=experts, head="cosine", with_z=False).build(100)
    assert sum(p.numel() for p in network.parameters()) == number
    assert experts != 3 or METHODS["sade"].parts == Network(experts=experts, head="cosine", with_z=False)


def test_multiply_adds_of_a_cosine_head_are_counted() -> None:
    assert multiply_adds(Cosine(48, 100), torch.zeros(1, 48)) == 4800
    x = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert len({multiply_adds(Network(head=head, experts=3).build(9), x) for head in ("linear", "cosine")}) == 1


@pytest.mark.parametrize(("method", "replaced"), [("ce", 1), ("bsce-mlp", 1), ("mbib", 4)])
def test_a_cosine_head_is_in_the_place_of_every_linear_classifier_and_of_nothing_else(
    method: str, replaced: int, tmp_path: Path
) -> None:
    asked = replace(SHORT, method=method, head="cosine", epochs=1)
    usual, found = method_of(settle(replace(SHORT, method=method))).parts.build(5), run(asked, glyphs())
    assert sum(isinstance(module, Cosine) for module in found.network.modules()) == replaced
    lost = {name for name, _ in usual.named_parameters()} - {name for name, _ in found.network.named_parameters()}
    assert len(lost) == replaced
    assert all(name.endswith("bias") and "classifier" in name for name in lost)
    with torch.no_grad():
        outputs = found.network(glyphs().test.x)
    logits = [*outputs.v_logits, *([] if outputs.z_logits is None else [outputs.z_logits])]
    assert len(logits) == replaced
    assert all(float(x.abs().max()) <= 30 * (1 + 1e-5) for x in logits), "30 times a cosine"
    write_weights(found, tmp_path / "w.safetensors")
    back = read_weights(tmp_path / "w.safetensors").network.state_dict()
    assert all(torch.equal(back[name], value) for name, value in found.network.state_dict().items())


def test_a_head_that_a_row_has_anyway_renames_no_run() -> None:
    for method in ("ldam-drw", "sade"):
        assert run_id(settle(replace(SHORT, method=method, head="cosine"))) == run_id(
            settle(replace(SHORT, method=method))
        )
    assert run_id(settle(replace(SHORT, head="cosine"))) != run_id(settle(SHORT))


# Losses

R = np.random.RandomState(0)
N = np.array([120.0, 48, 19, 8, 3])
Y, Z, FEATURES = R.randint(0, 5, 8), [2 * R.randn(8, 5) for _ in range(3)], [R.randn(8, 6) for _ in range(2)]
W = R.randn(5, 6)
Y, FEATURES, W, *Z = map(torch.from_numpy, (Y, FEATURES[0], W, *Z))
LDAM = {"margin": 0.5, "deferred": 0.8, "effective": 0.9999}


def tau_normalised() -> torch.Tensor:
    network = Network(depth=8, with_z=False).build(5)
    network.v_classifiers[0] = torch.nn.Linear(6, 5).double()
    network.v_classifiers[0].weight.data = W.clone()
    normalise(Learner(network, torch.ones(5)), norm_power=0.7)
    return F.cross_entropy(network.v_classifiers[0](FEATURES), Y)


@pytest.mark.parametrize("counts", [torch.from_numpy(N), torch.from_numpy(N).long()], ids=["float64", "int64"])
def test_losses_of_other_methods_have_the_numbers_of_their_authors_code(counts: torch.Tensor) -> None:
    """Computed once in float64 with the published modules, on the inputs above."""
    cosines = 30 * F.normalize(FEATURES) @ F.normalize(W).T
    weights = effective_weights(counts, 0.9999)
    level = torch.zeros(5, 5, dtype=torch.float64)  # of which the loss is log(1 + 4 exp(30 margin))
    lowered = [ldam(level[:1], torch.tensor([i]), counts=counts, progress=0, **LDAM) for i in range(5)]
    found = {
        "inputs": (int(Y.sum()), float(Z[0][0, 0])),
        "focal": [float(focal(Z[0], Y, focus=focus)) for focus in (0, 1, 2)],
        "class-balanced": [float(weights[0]), float(weights[-1]), float(F.cross_entropy(Z[0], Y, weight=weights))],
        "margins": [math.log(math.expm1(loss) / 4) / 30 for loss in lowered],
        "ldam": [float(ldam(cosines, Y, counts=counts, progress=p, **LDAM)) for p in (0.79, 0.8)],
        "tau-norm": float(tau_normalised().detach()),
        "sade": float(sade(Z, Y, counts=counts, inverse=2.0)),
    }
    for name, expected in {
        "inputs": (19, 1.90017684),
        "focal": [1.92342932, 1.76675812, 1.66914022],
        "class-balanced": [0.0775696, 3.0847020, 2.17589869],
        "margins": [0.1988177, 0.2500000, 0.3151824, 0.3912711, 0.5000000],
        "ldam": [17.81114944, 23.80828835],
        "tau-norm": 1.67822969,
        "sade": 11.52226778,
    }.items():
        assert found[name] == pytest.approx(expected, abs=1e-6), name


@given(st.integers(2, 5), st.integers(0, 10**6), st.floats(0, 3), st.sampled_from([0.0, 0.9, 0.9999, 1.0]))
def test_losses_of_other_methods_agree_with_naive_loops(
    classes: int, seed: int, power: float, effective: float
) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 6, classes, generator=random, dtype=torch.float64)
    y = torch.randint(classes, (6,), generator=random).tolist()
    n = torch.randint(1, 500, (classes,), generator=random).tolist()  # in no order
    weights = [1 / sum(effective**j for j in range(count)) for count in n]  # each image counts less than the last
    focals, top, bottom, experts = 0.0, 0.0, 0.0, 0.0
    ranks = sorted(range(classes), key=lambda i: n[i])
    rare = {i: n[j] for i, j in zip(ranks, reversed(ranks), strict=True)}  # the same counts, the other way about
    for b, label in enumerate(y):
        rows = [logits[e, b].tolist() for e in range(3)]
        p = softmax(rows[0])[label]
        focals += -((1 - p) ** power) * math.log(p) / 6
        lowered = [f - 30 * power * (min(n) / n[i]) ** 0.25 * (i == label) for i, f in enumerate(rows[0])]
        top, bottom = top - weights[label] * math.log(softmax(lowered)[label]), bottom + weights[label]
        shares = [count / sum(n) for count in n]
        shifted = [
            rows[0],
            [f + math.log(s) for f, s in zip(rows[1], shares, strict=True)],
            [f + math.log(shares[i]) - power * math.log(rare[i] / sum(n)) for i, f in enumerate(rows[2])],
        ]
        experts -= sum(math.log(softmax(f)[label]) for f in shifted) / 6
    y, n = torch.tensor(y), torch.tensor(n)
    own = {"margin": power, "deferred": 0.0, "effective": effective}
    assert float(focal(logits[0], y, focus=power)) == pytest.approx(focals, rel=1e-9)
    assert float(ldam(logits[0], y, counts=n, progress=0.0, **own)) == pytest.approx(top / bottom, rel=1e-9)
    assert float(sade(list(logits), y, counts=n, inverse=power)) == pytest.approx(experts, rel=1e-9)


@pytest.mark.parametrize("focus", [0.0, 0.5, 1.0, 2.0])
def test_an_image_that_the_focal_loss_is_sure_of_has_a_finite_gradient(focus: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.3, 0.1]], requires_grad=True)
    focal(logits, torch.tensor([0, 1]), focus=focus).backward()
    assert bool(logits.grad.isfinite().all())
    assert bool(logits.grad[1].any())


# Draws


@pytest.mark.parametrize("q", [0.0, 0.5, 2.0])
def test_draws_have_the_shares_that_are_asked_for_and_every_image_of_a_class_alike(q: float) -> None:
    labels, epochs = glyphs().train.y, 400
    rows = torch.cat([draw(labels, seed=1, epoch=epoch, q=q).rows for epoch in range(epochs)])
    counts = labels.bincount().double()
    share = (counts**q / (counts**q).sum() / counts)[labels]
    expected = share * len(rows)
    chi_square = float(((rows.bincount(minlength=len(labels)) - expected) ** 2 / expected).sum())
    assert len(rows) == epochs * len(labels)
    assert abs(chi_square - (len(labels) - 1)) < 5 * math.sqrt(2 * len(labels)), "five standard deviations"


# Several processes


class Still(Learner):
    """Batch norm keeps its first statistics, which each process would otherwise take from its own share of a batch."""

    def train(self, mode: bool = True) -> "Still":
        return super().train(False)


WORKER = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from torch import distributed
from mbib_core import runs
from mbib_core.methods import METHODS
from test_rows import EVEN, Still, glyphs, replace

kept, train = Path(sys.argv[2]), runs.train

def keeping(settings, *given, **more):
    run = train(settings, *given, **more)
    torch.save(run.network.state_dict(), kept / f"{settings.method}-{distributed.get_rank()}.pt")
    return run

runs.train = keeping
for method in sys.argv[3:]:
    if method != "bib":
        METHODS[method] = replace(METHODS[method], learner=Still)
    made = runs.make(replace(EVEN, method=method), glyphs(), out=kept, device="cpu", progress=False, report=False)
    print(method, made is not None)
"""
EVEN = replace(SHORT, batch=10, rate=0.01)  # 50 images are five batches, each of which two processes share evenly


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_write_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = ["mbib", "crt", "sade", "bib"]
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "worker.py"), str(Path(__file__).parent), str(tmp_path), *methods]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(done.stdout.split()) == sorted([*methods, *methods, *["True", "False"] * 4])
    for method in methods:
        one, other = (torch.load(tmp_path / f"{method}-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert all(torch.equal(one[name], other[name]) for name in one), "batch norm's statistics, too"
        [record] = [json.loads(file.read_text()) for file in tmp_path.glob(f"*-{method}-*.json")]
        assert record["machine"]["processes"] == 2
        if method == "bib":  # its batch norm moves, in each process with its own half of a batch
            continue
        monkeypatch.setitem(METHODS, method, replace(METHODS[method], learner=Still))
        alone = run(replace(EVEN, method=method), glyphs()).history["loss"]
        assert record["history"]["loss"] == pytest.approx(alone, rel=1e-3)


# Settings


def test_the_name_of_every_record_follows_from_its_settings() -> None:
    files = sorted(RESULTS.glob("**/*.json"))
    records = [json.loads(file.read_text()) for file in files]
    assert sum("run_id" in record for record in records) > 100
    for record in records:
        if "run_id" in record:
            assert run_id(Settings.of(record["settings"])) == record["run_id"]


@pytest.mark.parametrize(
    "kind", [np.float64, np.array, lambda v: torch.tensor(v, dtype=torch.float64), lambda v: pd.Series([v]).iloc[0]]
)
def test_numbers_of_any_library_are_plain_numbers_in_the_settings(kind: Callable[[float], Any]) -> None:
    for name, setting in describe().items():
        if setting.kind in (int, float):
            value = setting.kind(max(1, setting.low))
            given = [kind(value), kind(value)] if setting.several else kind(value)
            found = getattr(Settings(**{name: given}), name)
            assert found == ((value, value) if setting.several else value)
            assert {type(v) for v in (found if setting.several else [found])} == {setting.kind}


OTHER: dict[str, Any] = {
    **{"rate": 0.01, "batch": 12, "weight_decay": 0.1, "depth": 14, "augmentation": "none", "average": "ema"},
    **{"backbone": "resnet10", "trunk_rate": 0.5},
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "batch" else pytest.mark.slow) for n in OTHER])
def test_what_is_asked_for_in_place_of_the_schedules_changes_name_recipe_and_training(
    name: str, tmp_path: Path
) -> None:
    assert set(OTHER) == set(OVERRIDES) - {"frozen"}, "which wants pretrained weights: test_backbones.py has it"
    usual = Settings(data="glyphs-lt", method="ce", epochs=1, threads=1)
    same, asked = (replace(usual, **{name: value}) for value in (getattr(SCHEDULES["glyphs"], name), OTHER[name]))
    assert run_id(settle(same)) == run_id(settle(usual)) != run_id(settle(asked))
    made = make(asked, glyphs(), out=tmp_path, device="cpu", progress=False, report=False)
    assert made.record["recipe"] == SCHEDULES["glyphs"].recipe | {name: OTHER[name]}
    assert made.file.stem == run_id(settle(asked))
    assert bits(made.run) != bits(run(usual, glyphs()))
