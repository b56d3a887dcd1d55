"""The last chapter: its pictures, what it chooses on validation images, and that no recipe counts as another."""

import statistics
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest

from mbib_core import compare, figures, results
from mbib_core.methods import settle
from mbib_core.settings import Settings, run_id
from mbib_core.wanted import read_wanted

BOOK = Path(__file__).parents[1] / "book"
RECORDS = results.read_records(BOOK / "results")
MAIN = ("mbib", "bsce", "ce")
WANTED = [w.settings for w in read_wanted(BOOK / "results" / "wanted.toml")]


def scores(method: str) -> dict[float, list[float]]:
    """Validation accuracy of the runs that choose a weight decay, by decay: found in another way than the list's."""
    found: dict[float, list[float]] = {}
    for s in WANTED:
        if (s.data, s.purpose, s.method, s.epochs) == ("glyphs-lt", "choosing", method, 24) and s.own == plain(s):
            own = [r for r in RECORDS if r["run_id"] == run_id(s)]
            part = [100 * r["validation"]["accuracy"][r["validation"]["default"]]["all"] for r in own]
            found[s.weight_decay or 3e-4] = found.get(s.weight_decay or 3e-4, []) + part
    return found


def plain(s: Settings) -> dict:
    return settle(Settings(data=s.data, method=s.method)).own


@pytest.mark.parametrize("method", MAIN)
def test_the_weight_decay_that_is_tested_is_the_one_that_was_chosen_on_validation_images(method: str) -> None:
    found = scores(method)
    assert sorted(found) == [3e-4, 1e-3, 3e-3, 1e-2]
    if min(map(len, found.values())) < 3:
        pytest.skip("runs for choosing are missing")
    best = max(found, key=lambda decay: statistics.fmean(found[decay]))
    final = settle(Settings(method=method, weight_decay=best))
    assert {run_id(replace(final, seed=seed)) for seed in range(3)} <= {run_id(s) for s in WANTED}


@pytest.mark.parametrize("method", MAIN)
def test_no_run_by_another_recipe_counts_as_one_of_the_plain_method(method: str) -> None:
    plain = compare.runs_of(RECORDS, settle(Settings(method=method)))
    assert len(plain) >= 5
    for record in plain:
        s = results.settings_of(record)
        assert s["epochs"] == 24
        assert {s[name] for name in ("augmentation", "average", "head", "weight_decay", "rate", "batch")} == {None}


def test_the_chapter_was_executed_after_the_last_of_its_records_came() -> None:
    cells = nbformat.read(BOOK / "10_beyond_the_paper.ipynb", as_version=4).cells
    outputs = [o for cell in cells for o in cell.get("outputs", []) if "scrapbook" in o.get("metadata", {})]
    quoted = {o.metadata.scrapbook.name: "".join(o.data.values()) for o in outputs}
    of_tricks = {
        run_id(s)
        for s in WANTED
        if (s.data, s.purpose) == ("glyphs-lt", "final")
        and s.method in MAIN
        and s.k in (None, 0.0)
        and (s.augmentation or s.average or s.head or s.weight_decay or s.epochs in (48, 96))
    }
    assert int(quoted["done"]) == sum(r["run_id"] in of_tricks for r in RECORDS)


def test_accuracy_stands_at_its_price_and_what_costs_the_same_in_one_column() -> None:
    recipes = {"plain": (1e12, (80.0, 79.0, 81.0)), "averaged": (1.01e12, (82.0, 81.0, 83.0))}
    found = {"mbib": recipes | {"longer": (2e12, (81.0, 80.0, 82.0))}, "bsce": {"plain": (1e12, (83.0, 82.0, 84.0))}}
    figure = figures.accuracy_by_price(found, unit=1e12, xlabel="price", ylabel="accuracy", finding="Longer is worse.")
    (axes,) = figure.axes
    assert figure.get_label() == "Longer is worse."
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1.0\n1 ×", "2.0\n2 ×"]
    assert [t.get_text() for t in axes.texts] == ["averaged", "plain"], "the best for its price, and no longer one"


def test_images_stand_in_rows_of_their_name_with_their_words() -> None:
    image = np.zeros((3, 8, 8), np.uint8)
    figure = figures.rows_of_images({"one": [(image, "a")], "two": [(image, "b"), (image, "c")]}, finding="Three.")
    assert [len(axes.images) for axes in figure.axes] == [1, 0, 1, 1]
    assert [t.get_text() for axes in figure.axes for t in axes.texts] == ["a", "one", "b", "two", "c"]


def test_the_decay_that_a_method_chooses_is_worth_more_than_the_two_losses_differ_by() -> None:
    """What the chapter says of Glyphs-LT, found from the records in another way."""
    of: dict = {}
    for r in RECORDS:
        method, decay, seed = (r["settings"].get(name) for name in ("method", "weight_decay", "seed"))
        if r["run_id"] == run_id(settle(Settings(method=method, seed=seed, weight_decay=decay))):
            own = 100 * r["test"]["accuracy"][r["test"]["default"]]["all"]
            of.setdefault((method, decay), []).append(own)
    mean = {key: statistics.fmean(values) for key, values in of.items()}
    lead = mean["bsce", None] - mean["mbib", None]
    assert 0 < lead < min(mean["mbib", 1e-3] - mean["mbib", None], mean["bsce", 3e-3] - mean["bsce", None])
    assert mean["bsce", 3e-3] - mean["mbib", 1e-3] > lead
