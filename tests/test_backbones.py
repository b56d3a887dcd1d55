"""Networks for photographs: published sizes, pretrained weights and their faults, a frozen start, schedules."""

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import coloured
from PIL import Image
from safetensors.torch import save_file
from test_rows import Killed, kill_after, run
from torch import Tensor, nn
from torchvision import models

from mbib_core import cli, methods
from mbib_core.evaluation import features_of
from mbib_core.methods import METHODS, method_of, settle
from mbib_core.networks import Network, multiply_adds
from mbib_core.networks.imagenet import backbone
from mbib_core.networks.pretrained import MEAN, STD, name_of, read_trunk
from mbib_core.report import report
from mbib_core.runs import record_of, write_features
from mbib_core.schedules import SCHEDULES, schedule_of
from mbib_core.settings import Settings, run_id
from mbib_core.steps import optimizer_for
from mbib_core.trainer import Trained, new_learner
from mbib_core.weights import read_weights, write_weights

NAMES = "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2"
DATA = coloured([9, 6, 3], held_out=2, side=32)
# Two epochs of three steps on a ResNet-10.
SHORT = Settings(
    data="coloured", method="ce", schedule="glyphs", backbone="resnet10", epochs=2, batch=6, rate=0.01, threads=1
)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-10 as others keep one."""
    torch.manual_seed(5)
    file = tmp_path_factory.mktemp("weights") / "resnet10.pth"
    network = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
    torch.save(network.state_dict(), file)
    return file


# Sizes


def size_of(name: str, classes: int = 1000) -> tuple[int, int]:
    """Parameters and multiply-adds at 224 pixels of a backbone with a linear classifier."""
    with torch.device("meta"):
        network = backbone(name, 4)
        head = classes * network.channels[-1]
        return parameters(network) + head + classes, multiply_adds(network, torch.zeros(1, 3, 224, 224)) + head


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_has_the_parameters_and_multiply_adds_that_torchvision_publishes(name: str) -> None:
    """From the `meta` of its weights: of ResNet-50 25,557,032 and 4.089 billion."""
    published, (number, adds) = models.get_model_weights(name).DEFAULT.meta, size_of(name)
    assert number == published["num_params"]
    assert adds / 1e9 == pytest.approx(published["_ops"], abs=1e-3)


def test_resnet_10_has_the_published_number_of_parameters() -> None:
    """5,418,792 and 894.04 M "FLOPs" in the tables of osmr/imgclsmob, which count more than convolutions."""
    number, adds = size_of("resnet10")
    assert number == 5_418_792
    assert adds == pytest.approx(894.04e6, rel=0.01)


def test_what_a_network_costs_is_its_trunk_and_its_heads() -> None:
    network = Network(backbone="resnet10", taps=3).build(7)
    image, width = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), 512
    heads = 7 * (128 + 256 + 512 + 512) + width**2
    assert multiply_adds(network, image) == multiply_adds(network.backbone, image.float()) + heads


@pytest.mark.parametrize("name", ["resnet10", *NAMES])
def test_the_stages_of_a_full_size_image_are_its_quarter_to_its_32nd(name: str) -> None:
    with torch.device("meta"):
        maps = backbone(name, 4)(torch.zeros(1, 3, 224, 224))
    expansion = 1 if name in ("resnet10", "resnet18", "resnet34") else 4
    expected = [(1, expansion * width, side, side) for width, side in ((64, 56), (128, 28), (256, 14), (512, 7))]
    assert [tuple(m.shape) for m in maps] == expected


@pytest.mark.parametrize(
    "name", ["resnet10", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name != "resnet152")]
)
def test_a_full_size_image_is_observed_and_classified(name: str) -> None:
    network = Network(backbone=name, taps=3).build(10).eval()
    with torch.no_grad():
        outputs = network(torch.zeros(2, 3, 224, 224, dtype=torch.uint8))
    width = network.backbone.channels[-1]
    assert [tuple(v.shape) for v in outputs.observations] == [(2, width // 4), (2, width // 2), (2, width)]
    assert [tuple(f.shape) for f in (*outputs.v_logits, outputs.z_logits)] == [(2, 10)] * 4


def test_the_maps_are_those_of_torchvisions_network(weights_file: Path) -> None:
    torchvisions = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=7).eval()
    torchvisions.load_state_dict(torch.load(weights_file, weights_only=True))
    stages = backbone("resnet10", 3).eval()
    read_trunk(name_of(str(weights_file), "resnet10"), weights_file).put_into(stages)
    x = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        maps = stages(x)
        assert torch.equal(torchvisions.fc(maps[-1].mean((2, 3))), torchvisions(x))
        assert torch.equal(maps[1], torchvisions.layer3(maps[0]))
    assert [m.shape[1] for m in maps] == list(stages.channels) == [128, 256, 512]


# Every kind of method


def same(one: Trained, other: Trained) -> bool:
    """Whether two runs have the same losses and the same weights, bit for bit."""
    a, b = (found.network.state_dict() for found in (one, other))
    return one.history["loss"] == other.history["loss"] and all(torch.equal(a[name], b[name]) for name in a)


@cache
def trained(method: str, **more: Any) -> Trained:
    return run(replace(SHORT, method=method, **more), DATA)


KINDS = "mbib", "crt", "vib", "ce", "bsce", "bib", "ldam-drw", "disalign"


@pytest.mark.parametrize("method", [pytest.param(n, marks=() if n in KINDS[:2] else pytest.mark.slow) for n in KINDS])
def test_a_method_on_a_backbone_resumes_to_the_same_bits_and_comes_back_from_its_file(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, uncut = replace(SHORT, method=method), trained(method)
    kill_after(1, monkeypatch)
    with pytest.raises(Killed):
        run(settings, DATA, checkpoint=tmp_path / "run.pt")
    kill_after(-1, monkeypatch)
    assert same(run(settings, DATA, checkpoint=tmp_path / "run.pt"), uncut)

    record = record_of(uncut, DATA, "the command")
    assert record["recipe"]["backbone"] == record["settings"]["backbone"] == "resnet10"
    assert record["parameters"] == parameters(uncut.network) > 4_900_000
    words = report(record, torch.ones(3, 3).long())
    assert "resnet10 from scratch," in words
    write_weights(uncut, tmp_path / "w.safetensors")
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)  # nothing is fetched to read a file
    back = read_weights(tmp_path / "w.safetensors")
    mine, other = (features_of(network, DATA.test.x) for network in (uncut.network, back.network))
    for name in mine:  # its weights lie in memory in another order
        torch.testing.assert_close(mine[name], other[name], rtol=1e-4, atol=1e-4)
    assert mine["features/v"].shape == (6, 512)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averages_and_features_of_a_backbone(kind: str, tmp_path: Path) -> None:
    import numpy as np

    found = trained("mbib", average=kind)
    assert not same(found, trained("mbib"))
    write_features(found, DATA, tmp_path / "f.npz")
    assert np.load(tmp_path / "f.npz")["z"].shape == (6, 512)


REFUSED = [name for name, row in METHODS.items() if row.parts.experts or row.parts.picture]


@pytest.mark.parametrize("method", REFUSED)
@pytest.mark.fault("a backbone for {method}, which is made of the CIFAR ResNet")
def test_methods_made_of_the_cifar_resnet_refuse_a_backbone_and_say_which_do_not(method: str) -> None:
    for asked in ({"backbone": "resnet50"}, {"trunk_rate": 0.1}, {"schedule": "imagenet-lt"}):
        with pytest.raises(
            ValueError, match=f"^{method} is built on the CIFAR ResNet and takes no backbone.*; so are .*sade"
        ):
            settle(Settings(method=method, **asked))


def test_all_other_methods_take_a_backbone() -> None:
    assert len(METHODS) > 4 * len(REFUSED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "check_backbone", lambda *_: None)  # asked once, above
        for method in set(METHODS) - set(REFUSED):
            settle(Settings(method=method, backbone="resnet10"))


# Pretrained weights


def as_they_are(state: dict[str, Tensor], file: Path) -> None:
    torch.save(state, file)


def of_a_checkpoint(state: dict[str, Tensor], file: Path) -> None:
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": wrapped, "optimizer": {"lr": 0.1}}, file)


def without_classifier(state: dict[str, Tensor], file: Path) -> None:
    kept = {name: value for name, value in state.items() if not name.startswith("fc.") and "num_batches" not in name}
    torch.save({"model": {"state_dict": kept}}, file)


def safely(state: dict[str, Tensor], file: Path) -> None:
    save_file(state, file)


@pytest.mark.parametrize("write", [as_they_are, of_a_checkpoint, without_classifier, safely])
def test_a_trunk_is_read_however_its_file_wraps_it(write: Callable, weights_file: Path, tmp_path: Path) -> None:
    state, file = (
        torch.load(weights_file, weights_only=True),
        tmp_path / f"w.{'pth' if write != safely else 'safetensors'}",
    )
    write(state, file)
    settings = settle(replace(SHORT, method="mbib", pretrained=str(file)))
    assert settings.pretrained == f"sha256:{sha256(file.read_bytes()).hexdigest()}"
    trunk = read_trunk(settings.pretrained, file)
    network, plain = (new_learner(method_of(settings), DATA, 0, trunk=t).network for t in (trunk, None))
    for name, value in network.backbone.named_parameters():
        assert torch.equal(value, state[name])
    for name, value in network.backbone.named_buffers():
        assert name.endswith("num_batches_tracked") or torch.equal(value, state[name])
    assert torch.equal(network.z_classifier.weight, plain.z_classifier.weight), "the heads are drawn from the seed"
    assert network.mean.flatten().tolist() == pytest.approx(MEAN)
    assert network.std.flatten().tolist() == pytest.approx(STD)


def test_the_images_of_torchvisions_weights_were_normalised_as_ours_are() -> None:
    for name in NAMES:
        for weights in models.get_model_weights(name):
            transforms = weights.transforms()
            assert [255 * v for v in transforms.mean] == pytest.approx(MEAN)
            assert [255 * v for v in transforms.std] == pytest.approx(STD)


def test_weights_of_a_run_are_the_start_of_another_with_their_own_normalisation(tmp_path: Path) -> None:
    first = trained("mbib")
    write_weights(first, tmp_path / "w.safetensors")
    trunk = read_trunk(name_of(str(tmp_path / "w.safetensors"), "resnet10"), tmp_path / "w.safetensors")
    network = Network(backbone="resnet10", with_z=False).build(9, mean=trunk.mean, std=trunk.std)
    trunk.put_into(network.backbone)
    ours, theirs = network.backbone.state_dict(), first.network.backbone.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    torch.testing.assert_close(network.mean, first.network.mean)


def test_default_weights_are_called_by_their_name_and_read_from_torchs_cache(
    weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name_of("default", "resnet50") == "ResNet50_Weights.IMAGENET1K_V2"
    for asked in ("IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V1"):
        assert name_of(asked, "resnet50") == "ResNet50_Weights.IMAGENET1K_V1"
    digest = sha256(weights_file.read_bytes()).hexdigest()[:8]
    shutil.copy(weights_file, tmp_path / f"resnet10-{digest}.pth")
    url = (tmp_path / f"resnet10-{digest}.pth").as_uri()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(models, "get_weight", lambda name: SimpleNamespace(url=url))
    state = torch.load(weights_file, weights_only=True)
    for _ in range(2):  # fetched, then found
        assert torch.equal(read_trunk("some.WEIGHTS").state["conv1.weight"], state["conv1.weight"])
        monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    kept = tmp_path / "home" / "hub" / "checkpoints" / f"resnet10-{digest}.pth"
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    with pytest.raises(
        ValueError, match=r"checkpoints/resnet10-\w+.pth was damaged: delete it, and it is fetched again"
    ):
        read_trunk("some.WEIGHTS")


@pytest.mark.fault("pretrained weights that cannot be fetched")
def test_weights_that_cannot_be_fetched_are_named_with_the_place_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody answers
    with pytest.raises(
        OSError, match=r"resnet18-f37072fd.pth cannot be fetched \(.*\): put that file into .*checkpoints"
    ):
        read_trunk("ResNet18_Weights.IMAGENET1K_V1")


class Harmful:
    def __reduce__(self) -> tuple:
        return (print, ("this was executed",))


def harmful(file: Path) -> None:
    torch.save({"state_dict": Harmful()}, file)


def pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps(Harmful(), protocol=2))


def deeper(file: Path) -> None:
    torch.save(models.resnet18().state_dict(), file)


def other_keys(file: Path) -> None:
    state = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1]).state_dict()
    torch.save({f"encoder_q.{name}" if name > "layer4" else name: value for name, value in state.items()}, file)


def wider(file: Path) -> None:
    state = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1]).state_dict()
    torch.save(state | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, file)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (harmful, "w.pth holds no weights that can be read without running code from it: keep them with torch.save"),
        (pickled, "w.pth holds no weights that can be read"),
        (lambda file: file.write_bytes(b"PK"), "w.pth holds no weights that can be read"),
        (lambda file: torch.save([1, 2], file), "w.pth holds no weights that can be read"),
        (
            deeper,
            r"the weights sha256:\w+ do not fit this backbone: they also have layer1.1.conv1.weight, .* and 45 more; n",
        ),
        (
            other_keys,
            "they lack layer4.0.conv1.weight, .* more; they also have encoder_q.layer4.0.conv1.weight, .* more$",
        ),
        (wider, "do not fit this backbone: another shape has conv1.weight; name the network .* with --backbone$"),
    ],
)
@pytest.mark.fault("a file of pretrained weights: {sentence}")
def test_a_file_that_holds_no_fitting_weights_is_refused(
    write: Callable, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "w.pth"
    write(file)
    with pytest.raises(ValueError, match=sentence):
        run(replace(SHORT, pretrained=str(file)), DATA)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"pretrained": "nowhere.pth", "backbone": "resnet18"}, "there are no weights nowhere.pth of resnet18, and no "
         "file of that name: --pretrained takes default, IMAGENET1K_V1, or a file"),
        ({"pretrained": "default", "backbone": "resnet10"}, "no weights default of resnet10, .* takes a file"),
        ({"pretrained": "default", "schedule": "glyphs"}, "pretrained weights are those of a backbone: name it, as"),
        ({"schedule": "finetune"}, "frozen 0.1 keeps a pretrained backbone as it is: name"),
        ({"backbone": "resnet10", "frozen": 0.5}, "frozen 0.5 keeps a pretrained backbone .* or say --frozen 0"),
        ({"backbone": "resnet19"}, "the backbone resnet19 is no ResNet of torchvision's: take resnet10, resnet18"),
        ({"backbone": "vit_b_16"}, "the backbone vit_b_16 is no ResNet of torchvision's"),
        ({"backbone": "resnet18", "depth": 20}, "depth is that of the CIFAR ResNet, in place of which .* resnet18"),
        ({"backbone": "resnet18", "taps": 5}, "resnet18 has 4 stages: ask for 1 to 4 observations, not 5"),
        ({"method": "dive", "backbone": "resnet18", "pretrained": "sha256:0"}, "dive .* with pretrained weights"),
        ({"method": "dive", "backbone": "timm:resnet18"}, "dive draws .* anew, .* with timm's networks"),
        ({"frozen": 1.5}, "frozen is 1.5: it must be a finite number from 0 to 1"),
    ],
)  # fmt: skip
@pytest.mark.fault("settings of a backbone: {asked}")
def test_settings_of_a_backbone_that_cannot_be_are_refused(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, OSError), match=sentence):
        settle(Settings(**asked))


@pytest.mark.fault("a SHA-256 of pretrained weights without their file")
def test_weights_that_are_named_by_their_digest_need_the_file_once(
    weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_path = replace(SHORT, pretrained=str(weights_file), frozen=0.5)
    by_digest = settle(replace(by_path, pretrained=settle(by_path).pretrained))
    assert run_id(by_digest) == run_id(settle(by_path)) != run_id(settle(SHORT))
    assert str(weights_file) not in json.dumps(by_digest.plain())
    with pytest.raises(
        ValueError, match=r"starts from the weights sha256:\w+: name the file that has this digest with --pre"
    ):
        run(by_digest, DATA)
    with pytest.raises(ValueError, match="name the file that has this digest"):
        run(by_digest, DATA, pretrained=Path(__file__))
    kill_after(1, monkeypatch)
    with pytest.raises(Killed):
        run(by_digest, DATA, checkpoint=tmp_path / "run.pt", pretrained=weights_file)
    kill_after(-1, monkeypatch)
    resumed = run(by_digest, DATA, checkpoint=tmp_path / "run.pt")  # across the end of the frozen epochs
    assert same(resumed, run(by_path, DATA))


# A trunk of its own pace


def factors(settings: Settings) -> list[dict[str, float]]:
    """The factor of the rate of each parameter that is trained, by stage."""
    settings = settle(settings)
    method, found = method_of(settings), []
    learner = new_learner(method, DATA, 0)
    names = {id(p): name.removeprefix("network.") for name, p in learner.named_parameters()}
    for stage in method.stages:
        recipe = replace(schedule_of(settings), **stage.recipe)
        stage.begin(learner, images=DATA.train, **settings.own)
        optimizer, _ = optimizer_for(learner, stage, recipe, torch.device("cpu"))
        found.append({names[id(p)]: group["factor"] for group in optimizer.param_groups for p in group["params"]})
    return found


def test_the_trunk_has_its_own_rate_in_the_stages_that_train_it() -> None:
    whole, head = factors(replace(SHORT, method="crt", trunk_rate=0.1))
    assert {name.startswith("backbone.") for name, factor in whole.items() if factor == 0.1} == {True}
    assert {name.startswith("backbone.") for name, factor in whole.items() if factor == 1} == {False}
    assert set(whole) == set(dict(trained("crt").network.named_parameters()))
    assert head == {"v_classifiers.0.weight": 1.0, "v_classifiers.0.bias": 1.0}
    first, second = factors(replace(SHORT, method="mislas", trunk_rate=0.1))
    assert first["backbone.conv1.weight"] == 0.1
    assert second == {"v_classifiers.0.weight": 0.2, "v_classifiers.0.bias": 0.2, "v_classifiers.0.scale": 1.0}
    assert {factor for factor in factors(SHORT)[0].values()} == {1.0}


def backbone_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.partition("backbone.")[2]: v for n, v in state.items() if "backbone." in n and "num_batches" not in n}


@pytest.mark.parametrize("method", ["ce", pytest.param("mbib", marks=pytest.mark.slow)])
def test_a_frozen_trunk_keeps_its_bits_batch_norm_included_and_then_moves(
    method: str, weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SHORT, method=method, pretrained=str(weights_file), frozen=0.5)
    kill_after(1, monkeypatch)
    with pytest.raises(Killed):
        run(settings, DATA, checkpoint=tmp_path / "run.pt")
    kill_after(-1, monkeypatch)
    before = torch.load(weights_file, weights_only=True)
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    held = backbone_of(saved["learner"])
    assert all(torch.equal(value, before[name]) for name, value in held.items())
    assert saved["learner"]["network.observe.0.0.num_batches_tracked"] == 3, "the head's batch norm follows the images"
    after = backbone_of(run(settings, DATA, checkpoint=tmp_path / "run.pt").network.state_dict())
    assert not any(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("crt", {"average": "swa"}),
        pytest.param("mbib", {"average": "ema"}, marks=pytest.mark.slow),
        pytest.param("srepr", {}, marks=pytest.mark.slow),
        pytest.param("ce", {}, marks=pytest.mark.slow),
    ],
)
def test_a_trunk_that_is_frozen_throughout_never_moves(method: str, more: dict[str, Any], weights_file: Path) -> None:
    found = run(replace(SHORT, method=method, pretrained=str(weights_file), frozen=1.0, **more), DATA)
    before = torch.load(weights_file, weights_only=True)
    assert all(torch.equal(value, before[name]) for name, value in backbone_of(found.network.state_dict()).items())
    assert float(found.network.observe[-1][0].running_mean.abs().sum()) > 0


@pytest.mark.slow
def test_an_averaged_run_that_was_cut_where_a_frozen_stage_ends_goes_on_to_the_same_bits(
    weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SHORT, method="crt", pretrained=str(weights_file), frozen=1.0, average="ema")
    kill_after(2, monkeypatch)
    with pytest.raises(Killed):
        run(settings, DATA, checkpoint=tmp_path / "run.pt")
    kill_after(-1, monkeypatch)
    assert same(run(settings, DATA, checkpoint=tmp_path / "run.pt"), run(settings, DATA))


# Schedules


def test_the_schedules_for_photographs_are_the_papers() -> None:
    def of(schedule: str, **asked: Any) -> tuple[Any, ...]:
        found = schedule_of(settle(Settings(method="ce", schedule=schedule, **asked)))
        return found.backbone, found.epochs, found.batch, found.rate, found.weight_decay, found.size

    assert of("imagenet-lt") == ("resnet10", 90, 128, 0.05, 5e-4, 224)
    assert of("imagenet-lt", backbone="resnext50_32x4d") == ("resnext50_32x4d", 90, 64, 0.025, 5e-4, 224)
    assert of("inaturalist") == ("resnet50", 90, 64, 0.025, 1e-4, 224)
    assert settle(Settings(schedule="imagenet-lt", batch=128)).batch is None
    for name in ("imagenet-lt", "inaturalist", "finetune"):
        rates = [SCHEDULES[name].learning_rate(epoch, 90) for epoch in range(90)]
        assert rates[0] == SCHEDULES[name].rate, "no warm-up"
        assert rates == sorted(rates, reverse=True)
        assert rates[45] == pytest.approx(rates[0] / 2)
        assert 0 < rates[-1] < rates[0] / 1000


def test_pretrained_weights_alone_mean_the_schedule_finetune() -> None:
    settings = settle(Settings(data="folder:x", method="mbib", pretrained="default"))
    assert (settings.schedule, settings.epochs, settings.pretrained) == (
        "finetune",
        30,
        "ResNet50_Weights.IMAGENET1K_V2",
    )
    assert (schedule_of(settings).backbone, schedule_of(settings).size) == ("resnet50", 224)
    assert settle(settings) == settings


# The command line


def folder_of_photographs(root: Path, n: dict[str, int]) -> None:
    random = torch.Generator().manual_seed(0)
    for i, (name, number) in enumerate(n.items()):
        for k in range(number):
            noise = torch.randint(60 * i, 60 * i + 90, (70, 90, 3), dtype=torch.uint8, generator=random)
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.numpy()).save(root / name / f"{k}.png")


@pytest.mark.slow
def test_photographs_are_trained_evaluated_and_predicted_from_pretrained_weights(
    weights_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder_of_photographs(tmp_path / "photos", {"dark": 9, "light": 5})
    words = f"train mbib --data folder:{tmp_path}/photos --backbone resnet10 --size 64 --epochs 2 --batch 4 --threads 1"
    words = [*words.split(), "--quiet", "--out", str(tmp_path / "runs")]
    assert cli.main([*words, "--pretrained", str(weights_file)]) == 0, capsys.readouterr().err
    [file] = (tmp_path / "runs").glob("*.json")
    record, digest = json.loads(file.read_text()), sha256(weights_file.read_bytes()).hexdigest()
    assert record["settings"]["pretrained"] == f"sha256:{digest}"
    assert (record["settings"]["schedule"], record["recipe"]["backbone"]) == ("finetune", "resnet10")
    assert record["recipe"]["augmentation"] == "crop+flip", "as the images are in memory"
    assert f"--pretrained sha256:{digest}" in record["command"]
    assert str(weights_file) not in file.read_text() + file.with_suffix(".md").read_text()
    assert f"resnet10 from the weights of the file with SHA-256 {digest[:8]}..." in file.with_suffix(".md").read_text()
    moved = shutil.copy(weights_file, tmp_path / "elsewhere.pth")
    assert cli.main([*words, "--pretrained", str(moved)]) == 0
    assert "this run was made before" in capsys.readouterr().out, "the bytes of the file count, not its place"
    weights = str(file.with_suffix(".safetensors"))
    assert cli.main(["evaluate", weights]) == 0
    assert cli.main(["predict", weights, str(tmp_path / "photos")]) == 0
    assert capsys.readouterr().out.count(".png: ") == 14


# timm


class Features(nn.Module):
    """As timm's networks with `features_only`, their channels last as Swin's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stage = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.feature_info = SimpleNamespace(channels=lambda: [4, 6])
        self.pretrained_cfg = {"mean": (0.5, 0.25, 0.1), "std": (0.2, 0.2, 0.2)}

    def forward(self, x: Tensor) -> list[Tensor]:
        stem = self.stem(x)
        return [stem, self.stage(stem).permute(0, 2, 3, 1)]


@pytest.fixture
def own_timm(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    def create_model(name: str, *, features_only: bool, pretrained: bool = False) -> nn.Module:
        assert features_only
        network = Features()
        if pretrained:
            nn.init.ones_(network.stem.weight)
        return network

    cfg = SimpleNamespace(architecture="swine", tag="a1", has_weights=True)
    timm = SimpleNamespace(
        is_model=lambda name: name.startswith("swine"), create_model=create_model, get_pretrained_cfg=lambda name: cfg
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    return timm


def test_a_network_of_timms_is_a_backbone_and_starts_from_its_weights(
    own_timm: SimpleNamespace, tmp_path: Path
) -> None:
    settings = replace(SHORT, method="bib", backbone="timm:swine", pretrained="default")
    settled = settle(settings)
    assert settled.pretrained == "timm:swine.a1"
    trunk = read_trunk("timm:swine.a1")
    network = new_learner(method_of(settled), DATA, 0, trunk=trunk).network
    assert bool((network.backbone.network.stem.weight == 1).all())
    assert network.mean.flatten().tolist() == [127.5, 63.75, 25.5]
    assert network(DATA.train.x).observations[0].shape == (18, 6)
    found = run(settings, DATA)
    write_weights(found, tmp_path / "w.safetensors")
    back = read_weights(tmp_path / "w.safetensors").network
    assert torch.equal(
        features_of(back, DATA.test.x)["features/v"], features_of(found.network, DATA.test.x)["features/v"]
    )
    assert name_of(str(tmp_path / "w.safetensors"), "timm:swine").startswith("sha256:")
    own = read_trunk(name_of(str(tmp_path / "w.safetensors"), "timm:swine"), tmp_path / "w.safetensors")
    assert set(own.state) == set(Features().state_dict()), "as timm names them"
    with pytest.raises(ValueError, match="timm:swine has 2 stages: ask for 1 to 2 observations, not 3"):
        Network(backbone="timm:swine", taps=3).build(4)


@pytest.mark.fault("a backbone of timm's that is not there")
def test_what_timm_lacks_is_said(own_timm: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"timm has no network nothing: timm.list_models\(\) lists what there is"):
        settle(replace(SHORT, backbone="timm:nothing"))
    own_timm.get_pretrained_cfg = lambda name: None
    with pytest.raises(OSError, match="there are no weights default of timm:swine"):
        settle(replace(SHORT, backbone="timm:swine", pretrained="default"))

    def unreachable(*_: Any, **more: Any) -> None:
        raise RuntimeError("the hub is\n away")

    own_timm.create_model = unreachable
    with pytest.raises(OSError, match=r"timm cannot fetch swine.a1 \(the hub is away\): save the state_dict\(\)"):
        read_trunk("timm:swine.a1")


@pytest.mark.fault("a backbone of timm's without timm")
def test_without_timm_its_backbones_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="the backbone timm:resnet18 needs timm: pip install timm"):
        settle(replace(SHORT, backbone="timm:resnet18"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "adds"), [("resnet18", 1.82), ("vit_tiny_patch16_224", 1.26), ("swin_tiny_patch4_window7_224", 4.51)]
)
def test_timms_own_networks_are_observed_and_counted(name: str, adds: float) -> None:
    """Billions of multiply-adds as timm's results tables have them, attention included."""
    timm = pytest.importorskip("timm")
    network = Network(backbone=f"timm:{name}", taps=3).build(1000)
    image = torch.zeros(2, 3, 224, 224, dtype=torch.uint8)
    with torch.no_grad():
        outputs = network.eval()(image)
    widths = timm.create_model(name, features_only=True).feature_info.channels()[-3:]
    assert [v.shape[1] for v in outputs.observations] == widths
    assert multiply_adds(network, image[:1]) / 1e9 == pytest.approx(adds, rel=0.01)
