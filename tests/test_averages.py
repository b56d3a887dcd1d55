"""Averages of the weights: what they are of, with which batch norm, and that a run which was cut ends in the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import coloured
from test_rows import SHORT, Killed, bits, kill_after, run
from torch import Tensor

from mbib_core import checkpoints
from mbib_core.trainer import Trained

SETTINGS = replace(SHORT, data="coloured", method="ce", epochs=8, batch=64)  # a step an epoch
DATA = coloured([22, 9, 3])


def watched(settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Trained, list[dict[str, Tensor]]]:
    """A run, and the weights after each of its epochs."""
    seen: list[dict[str, Tensor]] = []

    def keep(path: Path, state: dict[str, Any]) -> None:
        seen.append({n.removeprefix("network."): v.clone() for n, v in state["learner"].items()})

    monkeypatch.setattr(checkpoints, "write_checkpoint", keep)
    return run(settings, DATA, checkpoint=tmp_path / "run.pt"), seen


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_the_weights_are_a_mean_made_by_hand_of_those_that_a_run_without_it_has(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, seen = watched(SETTINGS, monkeypatch, tmp_path)
    found, same = watched(replace(SETTINGS, average=kind), monkeypatch, tmp_path)
    for name, parameter in found.network.named_parameters():
        weights = [epoch[name].double() for epoch in seen]
        assert torch.equal(same[-1][name], seen[-1][name]), "the steps are those of any run"
        expected = (weights[6] + weights[7]) / 2
        if kind == "ema":
            expected = weights[0]
            for n, value in enumerate(weights[1:], start=1):
                expected = expected + (value - expected) * (1 - (1 + n) / (10 + n))
        torch.testing.assert_close(parameter.double(), expected, rtol=1e-5, atol=1e-7)


def test_batch_norm_has_the_statistics_of_all_training_images_under_the_averaged_weights() -> None:
    network = run(replace(SETTINGS, average="swa"), DATA).network
    with torch.no_grad():
        first = network.backbone.conv(network.normalised(DATA.train.x)).double()
    torch.testing.assert_close(network.backbone.bn.running_mean.double(), first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.backbone.bn.running_var.double(), first.var((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_a_stage_that_trains_no_batch_norm_keeps_that_of_the_stage_before() -> None:
    settings = replace(SETTINGS, average="swa")
    first, then = (dict(bits(run(replace(settings, method=method), DATA))[1]) for method in ("ce", "crt"))
    assert [name for name in then if then[name] != first[name]] == ["v_classifiers.0.weight", "v_classifiers.0.bias"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ema", "swa"])
@pytest.mark.parametrize(("method", "cuts"), [("crt", (9, 10, 11)), ("rbl", (8,))])
def test_an_averaged_run_that_was_cut_goes_on_to_the_same_bits(
    kind: str, method: str, cuts: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, method=method, epochs=10, batch=16, average=kind)
    uncut = bits(run(settings, DATA))
    for epochs in cuts:
        kill_after(epochs, monkeypatch)
        with pytest.raises(Killed):
            run(settings, DATA, checkpoint=tmp_path / f"{epochs}.pt")
        kill_after(-1, monkeypatch)
        assert bits(run(settings, DATA, checkpoint=tmp_path / f"{epochs}.pt")) == uncut
