"""The page of what the paper leaves open: its numbers are those of tables and code, and what it names exists."""

import ast
import json
import re
import statistics
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from mbib_core import compare, results
from mbib_core.cli import main
from mbib_core.data import long_tailed_counts, shots
from mbib_core.information import contraction_coefficient, squared_maximal_correlation
from mbib_core.losses import bib, class_weights, mbib
from mbib_core.methods import CHOSEN, METHODS, methods_on, settle
from mbib_core.networks.resnet import multiply_adds
from mbib_core.results import published
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings, run_id
from mbib_core.stages import noise_of_a_run
from mbib_core.wanted import read_wanted

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "book" / "results"
RECORDS = results.read_records(RESULTS)
PAGE = (ROOT / "book" / "what_the_paper_leaves_open.md").read_text(encoding="utf-8")
TEXT = re.sub(r"\s+", " ", PAGE.replace("*", ""))
SETTINGS = ("beta", "alphas", "k", "gamma")


def states(*sentences: str) -> None:
    """That the page has these words, whatever their line breaks and emphasis."""
    assert [sentence for sentence in sentences if sentence.replace("*", "") not in TEXT] == []


def printed(column: str = "all", **where: object) -> float:
    """The one number that the paper prints there."""
    return published(**where)[column].item()


def rows() -> dict[str, list[str]]:
    """The table of lost settings: the cells of a row, by the setting's name in the code."""
    return {row[0].split("`")[1]: row for row in cells_below("| setting |")}


def cells_below(header: str) -> list[list[str]]:
    """The rows of the table whose first line begins like that."""
    lines = PAGE[PAGE.index(header) :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def guess(words: str) -> list[str]:
    """The row of the table of guesses that has these words."""
    (row,) = [row for row in cells_below("| guess |") if words in row[0]]
    return row


def mean_by_classes(shot_accuracies: list[float]) -> float:
    """Accuracy over all classes of CIFAR-100-LT at factor 100 from that of its three shots."""
    masks = shots(torch.tensor(long_tailed_counts(500, 100, 100)))
    sizes = [int(masks[shot].sum()) for shot in ("many", "medium", "few")]
    states("the {}, {} and {} classes".format(*sizes))
    return sum(n * a for n, a in zip(sizes, shot_accuracies, strict=True)) / sum(sizes)


# The published tables


def test_the_three_values_of_mbib_and_their_spread():
    one, nine = printed(table=1, method="MBIB", imbalance_factor=100), printed(table=9, method="MBIB")
    four = printed(table=4, method="3-MBIB")
    spread = max(one, nine, four) - min(one, nine, four)
    lead = one - printed(table=1, method="BIB", imbalance_factor=100)
    states(
        f"{one} in table 1, {nine} in table 9, {four} as 3-MBIB in table 4",
        f"The paper's own spread is {spread:.1f} points",
        f"BIB, by comparison, is {lead:.1f} points below MBIB in table 1",
    )


def test_one_row_of_tables_8_and_9_does_not_agree_with_its_shots():
    frame = published(dataset="CIFAR-100-LT").dropna(subset=["many"])
    assert set(frame["table"]) == {8, 9}
    by_shots = [mean_by_classes(row) for row in frame[["many", "medium", "few"]].to_numpy().tolist()]
    wrong = [abs(computed - said) > 0.1 for computed, said in zip(by_shots, frame["all"], strict=True)]
    assert frame[wrong]["method"].tolist() == ["SADE + MBIB"]
    both, alone = frame[frame["method"] == "SADE + MBIB"], printed(table=8, method="SADE")
    computed = mean_by_classes(both[["many", "medium", "few"]].to_numpy()[0].tolist())
    assert computed < alone
    states(
        "SADE + MBIB ({}, {}, {})".format(*both[["many", "medium", "few"]].to_numpy()[0]),
        f"give {computed:.1f}, and not the printed {both['all'].item()}",
        f"The other {len(frame) - 1} rows of tables 8 and 9 agree with their shots within 0.1",
        f"SADE alone has {alone}",
        f"the combination would be no gain but a loss of {alone - computed:.1f}",
    )


def test_the_other_oddities_of_the_tables():
    one, eight = printed(table=1, method="SADE", imbalance_factor=100), printed(table=8, method="SADE")
    final = {name: printed(table=3, method=name, epochs=200) for name in ("MBIB", "RIDE(4E)")}
    lead = final["MBIB"] - final["RIDE(4E)"]
    best = published(table=3, epochs=200).sort_values("all")["method"].tolist()
    assert best[-2:] == ["RIDE(4E)", "MBIB"]
    assert set(published(table=1, method="BBN")["family"]) == {"one-stage", "mixture of experts"}
    states(
        f"SADE is {one} in table 1 and {eight} in table 8",
        f"leads at 200 epochs by {lead:.1f} points ({final['MBIB']} against {final['RIDE(4E)']})",
        "Table 1 holds BBN twice",
    )


def test_what_the_parts_of_the_balance_are_worth_in_table_9():
    whole = printed(table=9, method="MBIB")
    weights = printed(table=9, method="MBIB w/o class re-balancing")
    adjustment = printed(table=9, method="MBIB w/o logits adjustment")
    both = printed(table=9, method="MBIB w/o re-balancing")
    states(
        f"the class weights are worth {whole - weights:.1f} points, the logit adjustment {whole - adjustment:.1f}",
        f"and both together {whole - both:.1f};",
        f'table 9 has MBIB at {whole} and "w/o class re-balancing" at {weights}',
    )


def test_the_all_of_table_5_is_no_mean_of_its_shots_plain_or_weighted_by_classes():
    number = r"([\d.]+)"
    said = re.search(
        rf"BSCE_MLP has {number}, {number} and {number}, whose mean is {number}, or {number} when weighted by the "
        rf"classes of CIFAR-100-LT, or {number} by those of ImageNet-LT, and {number} under",
        TEXT,
    )
    *by_shot, plain, cifar, imagenet, overall = map(float, said.groups())
    assert plain == pytest.approx(sum(by_shot) / 3, abs=0.005)
    for found, classes in ((cifar, (35, 35, 30)), (imagenet, (385, 479, 136))):
        weighted = sum(value * n for value, n in zip(by_shot, classes, strict=True)) / sum(classes)
        assert found == pytest.approx(weighted, abs=0.005)
    assert all(abs(overall - mean) >= 0.015 for mean in (plain, cifar, imagenet))


# The table of guesses, and what this book finds


def short_runs(**changed: object) -> list[float]:
    """Validation accuracy (%) of the 60-epoch runs of MBIB whose settings are the starting ones but for `changed`."""
    own = METHODS["mbib"].own | changed
    found = results.find(
        RECORDS, data="cifar100-lt", method="mbib", schedule="short", purpose="choosing", taps=3, **own
    )
    return list(compare.by_seed(found).values())


@pytest.mark.parametrize(
    ("name", "words"), [("gamma", "gamma"), ("beta", "beta = 1"), ("alphas", "alpha ="), ("k", "$k =")]
)
def test_what_a_guess_changes_is_that_of_the_records(name: str, words: str):
    start = statistics.fmean(short_runs())
    values = {s.own[name] for s in choosing(name) if s.own[name] != 1.2}
    changes = [statistics.fmean(runs) - start for value in values if (runs := short_runs(**{name: value}))]
    said = guess(words)[2]
    assert said.startswith(f"{compare.signed(min(changes))} to {compare.signed(max(changes))}")
    if name == "k":
        assert f"1.2 costs {start - statistics.fmean(short_runs(k=1.2)):.1f}" in said


def test_there_are_ten_guesses_and_the_other_numbers_of_their_table_are_right():
    assert len(cells_below("| guess |")) == 10
    noise = noise_of_a_run(RECORDS, "all").sd
    states(f"a standard deviation of about {noise:.1f}", f"the same loss times {1 / 0.6:.2f}")
    runs = compare.runs_of(RECORDS, settle(Settings(data="cifar100-lt", method="mbib")))
    mean, of_probabilities = (statistics.fmean(compare.accuracies(runs, by=by)) for by in ("mean", "mean_probability"))
    assert guess("the prediction")[2].startswith(compare.signed(of_probabilities - mean))


def test_what_the_page_says_of_the_distillation_and_of_the_shallow_stages():
    def accuracy(data: str, method: str, group: str = "all", by: str | None = None, **other: float) -> list[float]:
        own = settle(Settings(data=data, imbalance=100, method=method, **other))
        return compare.accuracies(compare.runs_of(RECORDS, own), group, by=by)

    real = {m: statistics.fmean(accuracy("cifar100-lt", m)) for m in ("mbib", "mbib-beta0")}
    z = [statistics.fmean(accuracy("cifar100-lt", m, "few", "z")) for m in ("mbib", "mbib-beta0")]
    cost = compare.difference(accuracy("glyphs-lt", "mbib-beta0"), accuracy("glyphs-lt", "mbib"))
    assert cost.sign == 1
    tilted = compare.difference(accuracy("glyphs-lt", "mbib-beta0", k=0.1), accuracy("glyphs-lt", "mbib", k=0.1))
    assert tilted.sign == 1
    assert cost.n == tilted.n == (10, 10)
    right = json.loads((RESULTS / "stages.json").read_text(encoding="utf-8"))["methods"]["mbib"]["test"]["right"]
    few = range(70, 100)
    wins = {tau: sum(right["v_2"]["0"][c] > right["v_3"][tau][c] for c in few) for tau in ("0", "1")}
    states(
        f"MBIB has {real['mbib']:.1f} % in two runs and MBIB at $\\beta = 0$ {real['mbib-beta0']:.1f} %, also in two",
        f"the answer of $z$ gains {z[0] - z[1]:.1f} points on few-shot classes",
        f"the distillation costs {cost.mean:.1f} points over all classes, in ten runs each",
        f"at the $k = 0.1$ of CIFAR-100-LT it costs {tilted.mean:.1f} points, in ten runs each",
        f"on {wins['0']} of 30 few-shot classes, and on {wins['1']} once",
    )


# Numbers of the code


def test_the_starting_values_are_those_of_the_table_of_methods():
    frozen = METHODS["mbib"].own
    assert set(rows()) == set(SETTINGS)
    assert rows()["alphas"][1] == ", ".join(f"{alpha:g}" for alpha in frozen["alphas"])
    for name in ("beta", "k", "gamma"):
        assert rows()[name][1] == f"{frozen[name]:g}"
    assert METHODS["bib"].own == {name: frozen[name] for name in ("beta", "k", "gamma")}


@cache  # the list of wanted runs takes a second to read
def wanted_runs() -> list[Settings]:
    return [wanted.settings for wanted in read_wanted(RESULTS / "wanted.toml")]


def choosing(name: str) -> list[Settings]:
    """The wanted runs for choosing in which MBIB's setting `name` is not the starting value."""
    return [
        s
        for s in wanted_runs()
        if (s.purpose, s.method, s.schedule, s.taps) == ("choosing", "mbib", "short", 3)
        and s.own[name] != METHODS["mbib"].own[name]
    ]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_values_compared_are_those_of_the_list(name: str):
    values = sorted({s.own[name] for s in choosing(name)})
    words = [str(tuple(f"{a:g}" for a in v)).replace("'", "") if name == "alphas" else f"{v:g}" for v in values]
    assert rows()[name][2] == ", ".join(words)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_not_yet_chosen_as_long_as_a_run_for_choosing_is_missing(name: str):
    """Once all are made, choose by the rule of the chapter on ablations, which looks at all settings at once, freeze
    the values in CHOSEN, and say so on the page."""
    assert choosing(name)
    missing = [s for one in SETTINGS for s in choosing(one) if not (RESULTS / f"{run_id(s)}.json").is_file()]
    own = methods_on("cifar100-lt")["mbib"].own[name]
    value = ", ".join(f"{a:g}" for a in own) if name == "alphas" else f"{own:g}"
    assert rows()[name][3] == ("not yet" if missing else value)
    assert bool(missing) == ("cifar100-lt" not in CHOSEN)


def extras(network: nn.Module, picture: torch.Tensor) -> int:
    """What a usual profiler adds to the multiply-adds: batch norm 2 an element, ReLU 1, pooling 1."""
    total = 0

    def count(module: nn.Module, inputs: tuple, out: torch.Tensor) -> None:
        nonlocal total
        convolutional = isinstance(module, nn.BatchNorm2d)  # in the ResNet each of these has a ReLU behind it
        total += out.numel() * (3 if convolutional else 2)

    hooks = [
        m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    with torch.no_grad():
        network.eval()(picture)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        return total + sum(feature_map.numel() for feature_map in network.backbone(torch.zeros(1, 3, 32, 32)))


def test_the_sizes_of_table_6_are_met():
    network, picture = METHODS["mbib"].network(100), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    parameters, operations = sum(p.numel() for p in network.parameters()), multiply_adds(network, picture)
    states(f"has {parameters:,} for 100 classes", f"take {operations:,} multiply-adds an image")
    assert f"{parameters / 1000:.2f}" == "486.02"
    states("prints 486.02 thousand", "prints 27.93 G")
    with_extras = operations + extras(network, picture)
    states(f"it is {with_extras / 1e6:.2f} M, and 400 images take {400 * with_extras / 1e9:.2f} G")


def test_the_tilt_the_recipe_and_the_end_of_the_bargain():
    channel = torch.tensor([[0.81, 0.09], [0.01, 0.09]]).double().numpy()
    paper = SCHEDULES["paper"]
    drops = [e for e in range(1, paper.epochs) if paper.learning_rate(e, 200) < 0.5 * paper.learning_rate(e - 1, 200)]
    states(
        f"[factor of {100**1.2:.0f}](02_rebalancing.ipynb#two-remedies-at-once) at factor 100",
        f"The chosen {methods_on('cifar100-lt')['mbib'].own['k']:g} is a tilt by a factor of {100**0.1:.1f}",
        f"multiplied by {paper.decay} at epochs {drops[0]} and {drops[1]} of {paper.epochs}",
        f"$\\rho_m^2$ is {squared_maximal_correlation(channel):.3f}",
        f"up to $\\eta$ = {contraction_coefficient(channel):.3f}",
    )


def test_what_the_mean_over_weights_makes_of_a_loss():
    n = torch.tensor(long_tailed_counts(500, 100, 100))
    share = {k: float((n * class_weights(n, k)).sum() / n.sum()) for k in (0.1, 0.25, 0.5, 1.2)}
    at = [f"{value:.2f} at $k = {k:g}$" for k, value in share.items()]
    times = [f"{1 / value:.1f}" for value in share.values()]
    states(
        f"that is {', '.join(at[:3])} and {at[3]}",
        f"would count {', '.join(times[:3])} or {times[3]} times as much",
    )


# What is named


def test_every_function_and_method_that_the_page_names_exists():
    names = re.findall(r"`([a-z_.]+)\.([A-Za-z_]\w*)`", PAGE)
    assert len(names) > 10
    missing = [f"{module}.{name}" for module, name in names if not hasattr(import_module(f"mbib_core.{module}"), name)]
    assert missing == []
    assert [name for name in re.findall(r"`(mbib-\w+)`", PAGE) if name not in METHODS] == []


@pytest.mark.parametrize("command", re.findall(r"`(?:pytest )?(tests/[^`]+ -k [^`]+)`", PAGE))
def test_every_command_on_the_page_selects_tests(command: str):
    file, words = re.fullmatch(r'(tests/\w+\.py) -k "?([\w ]+)"?', command).groups()
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    for word in words.split(" or "):
        assert any(word in name for name in names), f"no test of {file} has {word} in its name"


def test_every_option_that_the_page_names_exists(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    known = capsys.readouterr().out
    options = set(re.findall(r"`(--[a-z]+)`", PAGE))
    assert {"--alphas", "--beta", "--k", "--gamma", "--taps"} <= options
    assert [option for option in options if option not in known] == []


def test_the_two_readings_of_equation_11_differ_by_a_factor():
    *v, z = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0)).double()
    own = {"targets": torch.arange(6) % 3, "counts": torch.tensor([50, 9, 2]), "beta": 1.0}
    a = (0.2, 0.5)
    bibs = [bib(v_i, z, **own) for v_i in v]
    added = bibs[2] + a[0] * bibs[0] + a[1] * bibs[1]
    mixed = mbib(v, z, alphas=[a_i / (1 + sum(a)) for a_i in a], **own)
    assert float(added) == pytest.approx(float((1 + sum(a)) * mixed))
