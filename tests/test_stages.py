"""What each classifier of MBIB says of CIFAR-100-LT: the stored measurements agree with the records."""

import json
from pathlib import Path

import pytest
import torch

from mbib_core import compare, results, stages
from mbib_core.data import Images, LongTailed, first_of_each_class, shots
from mbib_core.methods import settle
from mbib_core.settings import Settings

RESULTS = Path(__file__).parents[1] / "book" / "results"
STORED = json.loads((RESULTS / "stages.json").read_text(encoding="utf-8"))
COUNTS = torch.tensor(STORED["counts"])


@pytest.fixture(scope="module")
def network():
    return stages.network_of(RESULTS, "mbib")


@pytest.fixture(scope="module")
def noise_images() -> LongTailed:
    """An image of noise for each class, and another for the first."""
    x = torch.randint(0, 256, (101, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    y = torch.tensor([*range(100), 0])
    images = Images(x, y)
    return LongTailed("cifar100-lt", images, images, images, STORED["classes"])


@pytest.mark.parametrize("method", stages.METHODS)
@pytest.mark.parametrize(("head", "answer"), [("v_3", "v"), ("z", "z")])
def test_the_stored_accuracies_are_those_of_the_record(method: str, head: str, answer: str):
    records = results.read_records(RESULTS)
    record = compare.runs_of(records, settle(Settings(data="cifar100-lt", method=method)))[0]
    right = torch.tensor(STORED["methods"][method]["test"]["right"][head]["0"]).double()
    for group, mask in shots(COUNTS).items():
        assert float(right[mask].mean()) == pytest.approx(100 * record["test"]["accuracy"][answer][group], abs=0.1)


def test_counts_of_images_add_up():
    for method in stages.METHODS:
        test = STORED["methods"][method]["test"]
        assert all(sum(says) == 10_000 for says in test["says"].values())
        assert test["v_3 wrong"] == 10_000 - sum(test["right"]["v_3"]["0"])
        assert set(test["right"]["z"]) == {f"{tau:g}" for tau in stages.TAUS}


def test_the_average_is_that_of_the_shares_and_the_examples_are_of_the_tail():
    shares = torch.tensor(STORED["shares"])
    for example in STORED["methods"]["mbib"]["examples"]:
        label = STORED["classes"].index(example["class"])
        assert shots(COUNTS)["few"][label]
        p = {name: torch.tensor(row) for name, row in example["says"].items()}
        of_three = torch.stack([p["v_1"], p["v_2"], p["v_3"]])
        assert torch.allclose(p["average"], shares @ of_three, atol=2e-4)


def test_answers_are_probabilities_and_the_deepest_share_can_have_all(network, noise_images):
    said = stages.log_answers(network, noise_images.test.x, (0.0, 0.0, 1.0))
    assert list(said) == ["v_1", "v_2", "v_3", "average", "z"]
    assert torch.allclose(said["average"].exp(), said["v_3"].exp(), atol=1e-6)
    assert all(torch.allclose(log_p.exp().sum(1), torch.ones(101), atol=1e-5) for log_p in said.values())


def test_subtracting_log_n_moves_an_answer_to_the_rarer_class():
    log_p = torch.tensor([[0.6, 0.4], [0.9, 0.1]]).log()
    counts, y = torch.tensor([10.0, 1.0]), torch.tensor([1, 0])
    assert stages.right_by_class(log_p, y, counts, 0.0) == [1, 0]
    assert stages.right_by_class(log_p, y, counts, 0.5) == [1, 1]


def test_measuring_the_training_images_takes_the_mean_of_each_class(network, noise_images):
    found = stages.on_training(network, noise_images, STORED["shares"])
    said = stages.log_answers(network, noise_images.train.x, STORED["shares"])["z"].exp()
    assert found["z"][0] == pytest.approx(float(said[[0, 100], 0].mean()), abs=1e-4)
    assert len(first_of_each_class(noise_images.train, stages.PER_CLASS).y) == 101


def test_a_probe_reads_what_is_linear():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    y = (x @ torch.tensor([1.0, -2.0, 0.5]) > 0).long()
    assert float((stages.probe(x, y, 2, 1e-4)(x).argmax(1) == y).double().mean()) > 0.97


def test_the_noise_of_a_run_is_pooled_over_settings_that_were_run_more_than_once():
    records = results.read_records(RESULTS)
    assert 0.5 < stages.noise_of_a_run(records, "all").sd < 1.0
    assert stages.noise_of_a_run(records, "all").freedom == stages.noise_of_a_run(records, "few").freedom


def test_the_noise_of_an_answer_is_its_own():
    records = results.read_records(RESULTS)
    z, mean = stages.noise_of_a_run(records, "few", by="z"), stages.noise_of_a_run(records, "few", by="mean")
    assert z.sd != mean.sd
    assert mean.sd == pytest.approx(stages.noise_of_a_run(records, "few").sd), "MBIB's own answer is the mean"
    assert z.freedom == mean.freedom
