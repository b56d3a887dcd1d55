"""Backbones and bottlenecks: the paper's sizes, the shortcut, where the observations are taken, the float32 heads."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mbib_core.batches import Batch
from mbib_core.data import Images
from mbib_core.methods import METHODS
from mbib_core.networks.bottleneck import Bottleneck, Outputs, default_prediction, predictions
from mbib_core.networks.resnet import Block, ResNet, even_taps, multiply_adds


def pictures(n: int, side: int = 32, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# Sizes


@pytest.mark.parametrize(("method", "number"), [("mbib", 486_016), ("bib", 480_920)])
def test_networks_of_100_classes_have_the_papers_number_of_parameters(method: str, number: int) -> None:
    assert parameters(METHODS[method].network(100)) == number


def test_resnet_32_has_the_papers_number_of_parameters() -> None:
    assert parameters(ResNet(32, (15,))) == 463_504


def test_mbib_takes_the_papers_number_of_multiply_adds() -> None:
    assert multiply_adds(METHODS["mbib"].network(100), pictures(1)) == 68_883_648


def test_multiply_adds_are_those_of_a_naive_count_on_a_small_network() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1, bias=False), nn.Flatten(), nn.Linear(5 * 4 * 4, 7))
    positions, per_position = 4 * 4 * 5, 3 * 3 * 3
    assert multiply_adds(network, torch.zeros(1, 3, 8, 8)) == positions * per_position + 7 * 5 * 4 * 4


@pytest.mark.parametrize("training", [True, False])
def test_counting_multiply_adds_leaves_the_network_as_it_was(training: bool) -> None:
    network = METHODS["mbib"].network(3, depth=8).train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    multiply_adds(network, pictures(1))
    assert network.training is training
    assert all(module.training is training for module in network.modules())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("depth", "blocks"), [(8, 3), (20, 9), (32, 15)])
def test_stages_halve_the_picture_and_double_the_channels(depth: int, blocks: int) -> None:
    third = blocks // 3
    network = ResNet(depth, (third, 2 * third, blocks)).eval()
    assert network.channels == (16, 32, 64)
    with torch.no_grad():
        maps = network(torch.randn(2, 3, 32, 32))
    assert [tuple(m.shape) for m in maps] == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]


# The shortcut


@pytest.mark.parametrize(("before", "after", "stride"), [(16, 32, 2), (32, 64, 2), (4, 4, 1), (3, 6, 1), (2, 5, 2)])
def test_the_shortcut_subsamples_and_pads_channels_with_zeros(before: int, after: int, stride: int) -> None:
    """Option A of He et al. 2016: with the residual switched off, a block is the ReLU of its shortcut."""
    block = Block(before, after, stride).eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, before, 6, 6)
    expected = torch.zeros(2, after, 6 // stride, 6 // stride)
    first = (after - before) // 2
    for b in range(2):
        for c in range(before):
            for i in range(6 // stride):
                for j in range(6 // stride):
                    expected[b, first + c, i, j] = max(0.0, float(x[b, c, stride * i, stride * j]))
    with torch.no_grad():
        assert torch.equal(block(x), expected)


# Where the observations are taken


@pytest.mark.parametrize(
    ("depth", "n", "taps"),
    [
        (32, 3, (5, 10, 15)),
        (32, 1, (15,)),
        (32, 2, (7, 15)),
        (32, 4, (3, 7, 11, 15)),
        (8, 3, (1, 2, 3)),
        (20, 3, (3, 6, 9)),
    ],
)
def test_observations_are_spaced_evenly_and_the_last_is_last(depth: int, n: int, taps: tuple[int, ...]) -> None:
    assert even_taps(depth, n) == taps


@pytest.mark.parametrize("n", [0, 4, -1])
@pytest.mark.fault("more observations than the network has blocks")
def test_more_observations_than_blocks_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"ResNet-8 has 3 blocks: ask for 1 to 3 observations, not {n}"):
        even_taps(8, n)


def test_a_tap_is_what_leaves_the_block_of_that_number() -> None:
    network = ResNet(20, (0, 2, 3, 9)).eval()
    seen: dict[int, Tensor] = {}
    for number, block in enumerate(network.blocks, start=1):
        block.register_forward_hook(lambda _m, _i, out, number=number: seen.__setitem__(number, out))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        maps = network(x)
    assert torch.equal(maps[0].flatten(1), x.flatten(1)), "tap 0 is the picture"
    assert all(torch.equal(found, seen[number]) for found, number in zip(maps[1:], (2, 3, 9), strict=True))
    assert network.channels == (3072, 16, 16, 64)


@pytest.mark.parametrize("taps", [(), (3, 2), (1, 1), (-1, 3), (1, 4)])
def test_taps_that_are_no_blocks_are_refused(taps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be increasing block numbers between 0 and 3"):
        ResNet(8, taps)


@pytest.mark.parametrize("depth", [2, 7, 18, 34, 0, -4])
@pytest.mark.fault("a depth that no CIFAR ResNet has")
def test_depths_that_are_no_cifar_resnet_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth {depth} is no CIFAR ResNet"):
        ResNet(depth, (1,))


# Heads


def test_an_observation_is_the_batch_normalised_mean_over_positions() -> None:
    network = METHODS["mbib"].network(4, depth=8).train()
    x = pictures(16, side=8)
    with torch.no_grad():
        maps = network.backbone((x - network.mean) / network.std)
        outputs = network(x)
    for m, v in zip(maps, outputs.observations, strict=True):
        pooled = m.double().mean((2, 3))
        expected = (pooled - pooled.mean(0)) / (pooled.var(0, unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(v.double(), expected, atol=1e-4, rtol=1e-4)


def test_z_is_made_from_the_deepest_observation_through_linear_batch_norm_and_relu() -> None:
    network = METHODS["mbib"].network(4, depth=8).train()
    with torch.no_grad():
        outputs = network(pictures(16, side=8))
        linear, norm, _ = network.represent
        h = outputs.observations[-1] @ linear.weight.T + linear.bias
        h = (h - h.mean(0)) / (h.var(0, unbiased=False) + norm.eps).sqrt()
        torch.testing.assert_close(outputs.z, h.clamp(min=0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(outputs.z_logits, network.z_classifier(outputs.z))
    assert outputs.z.shape == outputs.observations[-1].shape


def test_every_observation_has_a_classifier_of_its_own() -> None:
    network = METHODS["mbib"].network(7, depth=8).eval()
    with torch.no_grad():
        outputs = network(pictures(2, side=8))
    assert [tuple(f.weight.shape) for f in network.v_classifiers] == [(7, 16), (7, 32), (7, 64)]
    for f, v, logits in zip(network.v_classifiers, outputs.observations, outputs.v_logits, strict=True):
        torch.testing.assert_close(logits, f(v))


def test_pictures_are_normalised_by_the_statistics_that_travel_with_the_weights() -> None:
    mean, std = (10.0, 20.0, 30.0), (1.0, 2.0, 4.0)
    network = METHODS["ce"].network(3, depth=8, mean=mean, std=std).eval()
    other = METHODS["ce"].network(3, depth=8).eval()
    other.load_state_dict(network.state_dict())
    seen = []
    other.backbone.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    x = pictures(2, side=8)
    with torch.no_grad():
        torch.testing.assert_close(other(x).v_logits, network(x).v_logits)
    for c in range(3):
        torch.testing.assert_close(seen[0][:, c], (x[:, c].float() - mean[c]) / std[c])


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_heads_compute_in_float32_under_autocast(precision: torch.dtype) -> None:
    network = METHODS["mbib"].network(5, depth=8).eval()
    x = pictures(4, side=8)
    with torch.no_grad(), torch.autocast("cpu", precision):
        outputs = network(x)
        deepest = network.backbone((x - network.mean) / network.std)[-1]
    assert deepest.dtype == precision, "the backbone is where the work is"
    for found in (*outputs.observations, *outputs.v_logits, outputs.z, outputs.z_logits):
        assert found.dtype == torch.float32
    with torch.no_grad():
        v = network.observe[-1](deepest.float())
        torch.testing.assert_close(outputs.v_logits[-1], network.v_classifiers[-1](v), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "x", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, 8, 8, dtype=torch.uint8)]
)
@pytest.mark.fault("a network that is given floats, grey or single pictures")
def test_anything_but_a_batch_of_uint8_rgb_pictures_is_refused(x: Tensor) -> None:
    with pytest.raises(TypeError, match=r"pictures must be uint8 \[B, 3, H, W\], 0 to 255, these are"):
        METHODS["ce"].network(3, depth=8)(x)


def test_a_bottleneck_fits_any_backbone_that_lists_its_channels() -> None:
    class Stages(nn.Module):
        channels = (3, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, torch.cat([x, -x], 1)

    outputs = Bottleneck(Stages(), 4)(pictures(3, side=4))
    assert [tuple(v.shape) for v in outputs.observations] == [(3, 3), (3, 6)]
    assert outputs.z.shape == (3, 6)
    assert outputs.z_logits.shape == (3, 4)


@pytest.mark.parametrize("fresh", [True, False])
def test_a_pretrained_backbone_keeps_its_weights_if_it_is_asked_to(fresh: bool) -> None:
    backbone = ResNet(8, (1, 2, 3))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    network = Bottleneck(backbone, 4, fresh=fresh)
    drawn = [name for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d)]
    same = {name: torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items()}
    assert all(same[f"{name}.weight"] != fresh for name in drawn)
    assert all(same.values()) != fresh
    torch.manual_seed(0)
    expected = nn.init.kaiming_normal_(torch.empty(4000, 64)).std()
    found = network.represent[0].weight.detach().std()
    assert float(found) == pytest.approx(float(expected), rel=0.1), "the heads are new"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lambda x: {"a": x}, "not dict"),
        (lambda x: (x,), r"not \[\[3, 3, 4, 4\]\]"),
        (lambda x: (x, x), r"with D = \(3, 6\), its channels, not \[\[3, 3, 4, 4\], \[3, 3, 4, 4\]\]"),
        (lambda x: (x, torch.cat([x, x], 1).mean((2, 3))), r"not \[\[3, 3, 4, 4\], \[3, 6\]\]"),
        (
            lambda x: (x.permute(0, 2, 3, 1), torch.cat([x, x], 1).permute(0, 2, 3, 1)),  # as of torchvision's Swin
            r"not \[\[3, 4, 4, 3\], \[3, 4, 4, 6\]\]: their channels come last, permute\(0, 3, 1, 2\) makes .*",
        ),
    ],
)
@pytest.mark.fault("a backbone whose maps are not what it says")
def test_a_backbone_with_other_maps_than_its_channels_is_refused(found: Callable, words: str) -> None:
    class Stages(nn.Module):
        channels = (3, 6)

        def forward(self, x: Tensor) -> Any:
            return found(x)

    with pytest.raises(ValueError, match=rf"the backbone must return a tuple of maps \[B, D, H, W\].*{words}$"):
        Bottleneck(Stages(), 4)(pictures(3, side=4))


@pytest.mark.fault("a backbone without channels")
def test_a_backbone_that_lists_no_channels_is_refused() -> None:
    with pytest.raises(TypeError, match="the backbone needs an attribute channels"):
        Bottleneck(nn.Conv2d(3, 4, 1), 4)


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_gives_a_finite_loss_whose_gradient_reaches_every_parameter(method: str) -> None:
    torch.manual_seed(0)
    row, targets, counts = METHODS[method], torch.tensor([0, 1, 2, 0]), torch.tensor([100, 10, 1])
    learner = row.learner(row.network(3, depth=8), counts)
    batch = Batch(pictures(4), targets, Batch(pictures(4), targets))
    for stage in row.stages:
        stage.begin(learner, images=Images(batch.x, targets), **row.own)
        given = batch if stage.second is not None else batch._replace(second=None)
        loss = learner(given, partial(stage.loss, **row.own), 0.0)
        loss.backward()
        assert bool(loss.isfinite())
    still = [name for name, p in learner.named_parameters() if p.grad is None]
    assert [name for name in still if not name.startswith(learner.still)] == []


# Predictions


def outputs_of(v: Tensor | None, z: Tensor | None) -> Outputs:
    shallow = torch.full((1, 3), 9.0)
    return Outputs((shallow, shallow), () if v is None else (shallow, v), z, z)


def test_predictions_are_the_mean_of_the_logits_and_of_the_probabilities() -> None:
    v, z = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[-1.0, 3.0, 0.5]])
    found = predictions(outputs_of(v, z))
    assert list(found) == ["mean", "v", "z", "mean_probability"]
    assert torch.equal(found["v"], v)
    assert torch.equal(found["z"], z)
    assert found["mean"].tolist() == [[0.5, 1.5, -0.25]]
    torch.testing.assert_close(found["mean_probability"].softmax(1), (v.softmax(1) + z.softmax(1)) / 2)
    assert default_prediction(found) == "mean"


@pytest.mark.parametrize("there", ["v", "z"])
def test_a_network_with_one_classifier_predicts_by_it(there: str) -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    found = predictions(outputs_of(logits, None) if there == "v" else outputs_of(None, logits))
    assert list(found) == [there]
    assert default_prediction(found) == there


def test_far_apart_logits_keep_a_finite_mean_of_probabilities() -> None:
    v, z = torch.tensor([[1e4, 0.0, -1e4]]), torch.tensor([[1e4, -1e4, 0.0]])
    found = predictions(outputs_of(v, z))["mean_probability"]
    assert not bool(found.isnan().any())
    assert int(found.argmax()) == 0
