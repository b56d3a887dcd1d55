"""Teachers, queues, moved classifiers and SAM: formulas against published code's numbers and loops; what is kept."""

import itertools
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from conftest import coloured
from hypothesis import given
from hypothesis import strategies as st
from test_rows import SHORT, Killed, bits, kill_after, run
from torch import Tensor
from torch.nn import functional as F

from mbib_core import checkpoints as saving
from mbib_core import contrast, trainer
from mbib_core.augmentation import blend
from mbib_core.batches import Batch
from mbib_core.checkpoints import write_checkpoint
from mbib_core.methods import METHODS
from mbib_core.methods.contrast import climb, pasted, succeed, turned
from mbib_core.settings import Settings

R = np.random.RandomState(0)  # the inputs of the authors' code
N = torch.tensor([120, 48, 19, 8, 3])
Y, Z = R.randint(0, 5, 8), [2 * R.randn(8, 5) for _ in range(3)]
FEATURES, W, BIAS = [R.randn(8, 6) for _ in range(2)], [R.randn(5, 6) for _ in range(2)], R.randn(5)
KEYS, KEY_LABELS = R.randn(12, 6), R.randint(0, 5, 12)
MU, RHO, PERM = R.randn(8, 6), R.randn(8, 6), R.permutation(8)
Y, BIAS, KEYS, KEY_LABELS, MU, RHO = map(torch.from_numpy, (Y, BIAS, KEYS, KEY_LABELS, MU, RHO))
Z, FEATURES, W = ([torch.from_numpy(one) for one in several] for several in (Z, FEATURES, W))
UNIT = [F.normalize(one) for one in (*FEATURES, KEYS)]
WARM = {"contrast_temperature": 0.07}


def test_losses_have_the_numbers_of_their_authors_code() -> None:
    """Computed once in float64 with the published modules, or their lines with autograd, on the inputs above."""
    logits, same = FEATURES[0] @ W[0].T + BIAS, Y[:, None] == KEY_LABELS
    first_two, sphere = same & (same.cumsum(1) <= 2), F.normalize(W[1])
    head = {"features": FEATURES[0], "weight": W[0], "bias": BIAS}
    queue = dict(zip(("q", "k", "keys"), UNIT, strict=True)) | {"key_labels": KEY_LABELS}
    pairs = {"plain": (Z[0], Z[1]), "predicted": tuple(FEATURES), "projected": (MU, RHO), "partners": Y[PERM]}
    own = {"share": torch.tensor(0.3), "progress": 0.4**0.5, "k": 1.2, "consistency": 4.0}
    for found, expected in [
        (contrast.dive(Z[0], Y, teacher=Z[1], counts=N, distil_temperature=2.0, distil_share=0.5), 2.57362486),
        (contrast.cc_sam(logits, Y, **head, counts=N, class_noise=0.05), 2.24426166),
        (contrast.cc_sam_head(logits, Y, weight=W[0], counts=N, progress=0.5), 3.11162517),
        (contrast.kcl(*UNIT, first_two, **WARM), 9.32452561),
        (contrast.tsc(*UNIT, first_two, (Y + 1) % 5, sphere, **WARM, target_share=0.2), 7.47026969),
        (contrast.uniformity(sphere), 14.28751573),
        (contrast.paco(Z[0], Y, **queue, counts=N, contrast_temperature=0.05, key_weight=0.01), 15.51236687),
        (contrast.glmc((Z[2], Z[0]), Y, counts=N, **pairs, **own), 4.34781660),
    ]:
        assert float(found) == pytest.approx(expected, abs=1e-6)


def inputs(seed: int, classes: int = 4, rows: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Features, classifier, bias, labels of which some class may be missing, counts in no order."""
    random = torch.Generator().manual_seed(seed)
    f, w, b = (torch.randn(*s, generator=random, dtype=torch.float64) for s in ((rows, 3), (classes, 3), (classes,)))
    y = torch.randint(classes, (rows,), generator=random)
    return f, w, b, y, torch.randint(1, 500, (classes,), generator=random)


@hypothesis.settings(max_examples=10)
@given(st.integers(0, 10**6), st.floats(0, 0.5), st.floats(0, 1))
def test_cc_sam_moves_as_autograd_does_class_by_class(seed: int, noise: float, progress: float) -> None:
    f, w, b, y, n = inputs(seed)
    f, w, b = (one.requires_grad_() for one in (f, w, b))
    here, there, second = F.cross_entropy(f @ w.T + b, y), 0.0, 0.0
    for c in y.unique():
        rows = y == c
        g = torch.autograd.grad(F.cross_entropy(f[rows] @ w.T + b, y[rows]), (w, b, f))
        head, size = float(torch.cat([w.detach().flatten(), b.detach()]).norm()), w.numel() + b.numel()
        room = noise * (size / max(int(n[c]) - 1, 1)) ** 0.25 / 2**0.5
        far = [w + g[0] / g[0].norm() * room * (head / g[0].norm()) ** 0.5]
        far += [b + g[1] / g[1].norm() * room * (head / g[1].norm()) ** 0.5]
        there += F.cross_entropy(f[rows] @ far[0].T + far[1], y[rows], reduction="sum") / len(y)
        weight = math.log(int(n.max()) / int(n[c]) + 0.01) / 2
        lifted = f + weight * g[2] / g[2].norm()
        second += weight * F.cross_entropy(lifted[rows] @ w.T + b, y[rows], reduction="sum") / len(y)
    share = min(progress + 1 / 30, 0.3)
    logits = f @ w.T + b
    for found, expected in [
        (contrast.cc_sam(logits, y, features=f, weight=w, bias=b, counts=n, class_noise=noise), (here + there) / 2),
        (contrast.cc_sam_head(logits, y, weight=w, counts=n, progress=progress), (1 - share) * here + share * second),
    ]:
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
        slopes = [torch.autograd.grad(loss, (w, b), retain_graph=True) for loss in (found, expected)]
        torch.testing.assert_close(*slopes, msg="the moves themselves have no gradient")


@given(st.integers(0, 10**6), st.floats(0.05, 1), st.floats(0, 2))
def test_contrast_agrees_with_loops_over_images_and_keys(seed: int, temperature: float, weight: float) -> None:
    f, w, _, y, n = inputs(seed)
    keys, _, logits, labels, _ = inputs(seed + 1, classes=4)
    labels[0] = -1  # no image yet
    q, k, keys, sphere, logits = *map(F.normalize, (f, f.flip(0), keys, w)), f @ w.T
    positive, kcl, tsc, paco = y[:, None] == labels, 0.0, 0.0, 0.0
    for i in range(6):
        near = [float(q[i] @ k[i]) / temperature] + [float(q[i] @ key) / temperature for key in keys]
        aims = [float(q[i] @ t) / temperature for t in sphere]
        mine = [near[0]] + [s for s, p in zip(near[1:], positive[i], strict=True) if p]
        total = math.log(math.fsum(map(math.exp, near)))
        kcl -= math.fsum(s - total for s in mine) / len(mine) / 6
        total = math.log(math.fsum(map(math.exp, near + aims)))
        tsc -= (math.fsum(s - total for s in mine) + weight * (aims[int(y[i])] - total)) / (len(mine) + 1) / 6
        others = (
            [(q[j], y[j]) for j in range(6) if j != i]
            + list(zip(k, y, strict=True))
            + list(zip(keys, labels, strict=True))
        )
        scores = [(float(logits[i, c]) + math.log(int(n[c]) / int(n.sum())), float(c == y[i])) for c in range(4)]
        scores += [(float(q[i] @ other) / temperature, weight * float(label == y[i])) for other, label in others]
        total = math.log(math.fsum(math.exp(s) for s, _ in scores))
        paco -= math.fsum(share * (s - total) for s, share in scores) / math.fsum(share for _, share in scores) / 6
    warm = {"contrast_temperature": temperature}
    own = {"q": q, "k": k, "keys": keys, "key_labels": labels, "counts": n, "key_weight": weight}
    assert float(contrast.kcl(q, k, keys, positive, **warm)) == pytest.approx(kcl, rel=1e-9)
    found = contrast.tsc(q, k, keys, positive, y, sphere, **warm, target_share=weight)
    assert float(found) == pytest.approx(tsc, rel=1e-9)
    assert float(contrast.paco(logits, y, **own, **warm)) == pytest.approx(paco, rel=1e-9)


def test_no_gradient_reaches_teachers_keys_and_projections() -> None:
    teacher, h = Z[1].clone().requires_grad_(), MU.clone().requires_grad_()
    student, p = Z[0].clone().requires_grad_(), RHO.clone().requires_grad_()
    contrast.dive(student, Y, teacher=teacher, counts=N, distil_temperature=2.0, distil_share=0.5).backward()
    pairs = {"plain": (Z[0], Z[1]), "predicted": (p, p), "projected": (h, h), "partners": Y[PERM]}
    own = {"share": torch.tensor(0.3), "progress": 0.5, "k": 1.2, "consistency": 4.0}
    contrast.glmc((Z[2], Z[0]), Y, counts=N, **pairs, **own).backward()
    assert (teacher.grad, h.grad) == (None, None)
    assert bool(student.grad.any())
    assert bool(p.grad.any())


@given(st.integers(0, 10**6), st.integers(0, 4))
def test_positives_are_drawn_from_the_keys_of_the_class_and_no_more_than_are_asked_for(seed: int, asked: int) -> None:
    _, _, _, y, _ = inputs(seed)
    labels = torch.cat([inputs(seed + 1)[3], torch.tensor([-1])])
    found, same = contrast.drawn_positives(y, labels, asked), y[:, None] == labels
    assert not bool((found & ~same).any())
    assert found.sum(1).tolist() == same.sum(1).clamp(max=asked).tolist()


@pytest.mark.parametrize(("classes", "width"), [(5, 4), (5, 9), (2, 1)])
def test_targets_that_fit_are_the_corners_of_a_simplex(classes: int, width: int) -> None:
    sphere = contrast.sphere_targets(classes, width)
    expected = torch.full((classes, classes), -1 / (classes - 1)).fill_diagonal_(1)
    torch.testing.assert_close(sphere @ sphere.T, expected, atol=1e-6, rtol=0)


def test_targets_that_do_not_fit_a_simplex_go_as_far_apart_as_they_can() -> None:
    torch.manual_seed(0)
    sphere = contrast.sphere_targets(4, 2, steps=1500)  # on a circle: the corners of a square
    torch.testing.assert_close(sphere.norm(dim=1), torch.ones(4))
    assert (sphere @ sphere.T).sort(1)[0].tolist() == [pytest.approx([-1, 0, 0, 1], abs=0.05)] * 4


@given(st.integers(0, 10**6))
def test_classes_get_the_targets_whose_sum_of_cosines_is_largest(seed: int) -> None:
    f, w, _, _, _ = inputs(seed, rows=4)
    table = (f @ w.T).tolist()
    best = max(itertools.permutations(range(4)), key=lambda p: math.fsum(table[c][t] for c, t in enumerate(p)))
    assert contrast.matched(f, w).tolist() == list(best)


# What is kept


def checkpoints(settings: Settings, monkeypatch: pytest.MonkeyPatch, **own: Any) -> list[dict[str, Any]]:
    """The states of a run after each epoch."""
    kept: list[dict[str, Any]] = []
    copy = lambda state: {name: value.clone() for name, value in state["learner"].items()}  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(saving, "write_checkpoint", lambda path, state: kept.append(state | {"learner": copy(state)}))
        run(settings, coloured([22, 9, 3]), checkpoint=Path("nowhere"), **own)
    return kept


BRIEF = replace(SHORT, data="coloured", epochs=2)


def test_dives_teacher_is_the_balanced_softmax_run_and_its_student_another(monkeypatch: pytest.MonkeyPatch) -> None:
    last = checkpoints(replace(BRIEF, method="dive"), monkeypatch)[-1]["learner"]
    for name, value in run(replace(BRIEF, method="bsce"), coloured([22, 9, 3])).network.state_dict().items():
        assert torch.equal(last[f"teacher.{name}"], value)
    assert not torch.equal(last["teacher.backbone.conv.weight"], last["network.backbone.conv.weight"])


def test_a_student_is_drawn_as_a_new_network_is() -> None:
    learner = trainer.new_learner(METHODS["dive"], coloured([22, 9, 3]), seed=0)
    network = learner.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.observe[0][0].running_mean.fill_(3)
    torch.manual_seed(1)
    succeed(learner)
    for name, value in network.state_dict().items():
        drawn = value.dim() in (2, 4) or name.endswith("classifiers.0.bias")
        assert torch.equal(value, before[name]) is not drawn
        if value.numel() > 1000:
            assert float(value.std()) == pytest.approx(float(before[name].std()), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [11, 16, 34], ids=["33 of 34 keys", "full", "all at once"])
@pytest.mark.parametrize("method", ["paco", "tsc", "glmc", "sam"])
def test_a_run_with_a_queue_goes_on_to_the_same_bits(
    method: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, data = replace(BRIEF, method=method, batch=batch), coloured([22, 9, 3])
    whole = bits(run(settings, data))
    kill_after(1, monkeypatch)
    with pytest.raises(Killed):
        run(settings, data, checkpoint=tmp_path / "run.pt")
    if "paco" in method:
        labels = torch.load(tmp_path / "run.pt", weights_only=True)["learner"]["key_labels"]
        assert int((labels == -1).sum()) == (1 if batch == 11 else 0)
    monkeypatch.setattr(saving, "write_checkpoint", write_checkpoint)
    assert bits(run(settings, data, checkpoint=tmp_path / "run.pt")) == whole


def test_a_queue_has_the_latest_keys_first_and_keys_come_from_a_running_mean() -> None:
    data = coloured([22, 9, 3])
    learner = trainer.new_learner(METHODS["paco"], data, seed=0)
    METHODS["paco"].stages[0].begin(learner, images=data.train, queue=10, key_momentum=0.9)
    old, keys, seen = learner.key_network.backbone.conv.weight.clone(), learner.keys.clone(), []
    with torch.no_grad():
        learner.network.backbone.conv.weight.add_(1)
    for rows in (slice(0, 6), slice(20, 26)):
        x, y = data.train.x[rows], data.train.y[rows]
        learner(Batch(x, y, Batch(x, y)), lambda outputs, y, **kept: seen.append(kept) or kept["q"].sum(), 0.0)
    torch.testing.assert_close(learner.key_network.backbone.conv.weight, old + 0.1 + 0.09)
    assert torch.equal(seen[0]["keys"], keys), "a step does not meet its own keys twice"
    assert torch.equal(learner.keys, torch.cat([seen[1]["k"], seen[0]["k"][:4]]))
    assert learner.key_labels.tolist() == [*data.train.y[20:26].tolist(), *data.train.y[:4].tolist()]
    assert seen[1]["key_labels"].tolist() == [*data.train.y[:6].tolist(), -1, -1, -1, -1]
    assert learner.state_dict().keys() >= {"keys", "key_labels", "key_project.0.weight"}
    assert not seen[0]["k"].requires_grad


def test_ssp_turns_counter_clockwise_and_leaves_the_classifier_to_its_second_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.randint(256, (7, 3, 6, 6), dtype=torch.uint8)
    assert np.array_equal(turned(x), np.stack([np.rot90(x[i], i % 4, (1, 2)) for i in range(7)]))
    states = [state["learner"] for state in checkpoints(replace(BRIEF, method="ssp"), monkeypatch)]
    first, second, third, _ = (state["network.v_classifiers.0.weight"] for state in states)
    assert torch.equal(first, second)
    assert not torch.equal(second, third)
    assert ["turns.weight" in state for state in states] == [True, True, False, False]


@pytest.mark.fault("images to be turned by quarters that are not square")
def test_images_that_are_not_square_are_not_turned() -> None:
    data = coloured([22, 9, 3])
    tall = replace(data, train=data.train._replace(x=data.train.x[:, :, :, :6]))
    with pytest.raises(ValueError, match="images are turned by quarters, and these are 8 x 6: give square ones"):
        METHODS["ssp"].stages[0].begin(trainer.new_learner(METHODS["ssp"], tall, 0), images=tall.train)


def test_a_pasted_image_has_a_box_of_its_partner_and_a_blended_one_a_share() -> None:
    x = torch.stack([torch.full((3, 20, 20), value, dtype=torch.uint8) for value in (0, 200)])
    partners, share = torch.tensor([1, 0]), torch.tensor(0.75)
    assert blend(x, x[partners], share)[:, 0, 0, 0].tolist() == [50, 150]
    shares = []
    for seed in range(200):
        torch.manual_seed(seed)
        one = pasted(x, partners, share)[0, 0] == 200
        rows, columns = one.any(1).nonzero(), one.any(0).nonzero()
        assert int(one.sum()) == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1), "one box"
        shares.append(float(one.float().mean()))
    assert 0.95 * 0.25 < max(shares) <= 0.25 * 1.1, "half of each side where nothing is clipped"


# SAM


def test_sam_steps_from_here_with_the_gradient_of_uphill(monkeypatch: pytest.MonkeyPatch) -> None:
    at: list[dict[str, Tensor]] = []

    def watched(learner: Any, **own: Any) -> None:
        parameters = dict(learner.network.named_parameters())
        at.append({name: p.detach().clone() for name, p in parameters.items()})
        at.append({name: p.grad.clone() for name, p in parameters.items()})
        climb(learner, **own)
        at.append({name: p.detach().clone() for name, p in parameters.items()})
        at.append({name: b.clone() for name, b in learner.network.named_buffers()})

    row, data = METHODS["sam"], coloured([22, 9, 3])
    monkeypatch.setitem(METHODS, "sam", replace(row, stages=(replace(row.stages[0], ascent=watched),)))
    settings = replace(BRIEF, method="sam", epochs=1, batch=34, weight_decay=0.0, augmentation="none")
    found = run(replace(settings, own={"rho": 0.5}), data).network  # one step
    here, slope, uphill, statistics = at
    length = math.sqrt(math.fsum(float(g.double().square().sum()) for g in slope.values()))
    network = deepcopy(found).train()
    for name, p in network.named_parameters():
        torch.testing.assert_close(uphill[name], here[name] + 0.5 * slope[name] / length)
        p.data.copy_(uphill[name])
    F.cross_entropy(network(data.train.x).v_logits[0], data.train.y).backward()
    for name, p in network.named_parameters():
        torch.testing.assert_close(found.state_dict()[name], here[name] - 0.05 * p.grad, rtol=1e-3, atol=1e-5)
    assert all(torch.equal(dict(found.named_buffers())[name], value) for name, value in statistics.items()), (
        "of the first pass alone"
    )


def test_a_step_in_float16_that_overflows_uphill_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    before: dict[str, Tensor] = {}

    def overflow(learner: Any, **_own: Any) -> None:
        before.update({name: p.detach().clone() for name, p in learner.network.named_parameters()})
        for p in learner.network.parameters():
            p.data.add_(math.inf)

    row = METHODS["sam"]
    monkeypatch.setitem(METHODS, "sam", replace(row, stages=(replace(row.stages[0], ascent=overflow),)))
    found = run(replace(BRIEF, method="sam", epochs=1, batch=34, precision="float16"), coloured([22, 9, 3])).network
    assert all(torch.equal(p, before[name]) for name, p in found.named_parameters())


def test_sam_without_a_radius_is_cross_entropy_bit_by_bit() -> None:
    data = coloured([22, 9, 3])
    found = run(replace(BRIEF, method="sam", own={"rho": 0.0}), data)
    assert bits(found) == bits(run(replace(BRIEF, method="ce"), data))


@pytest.mark.parametrize("method", ["dive", "cc-sam", "ssp", "kcl", "tsc", "paco", "glmc", "sam"])
def test_rows_train_in_bfloat16(method: str) -> None:
    found = run(replace(BRIEF, method=method, epochs=1, precision="bfloat16"), coloured([22, 9, 3]))
    assert all(map(math.isfinite, found.history["loss"]))
