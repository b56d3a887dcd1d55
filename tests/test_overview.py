"""What methods there are, what each costs, what was reached with it, and the page that shows it."""

import ast
import math
import random
import re
from pathlib import Path

import nbformat
import pytest
from conftest import coloured
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

from mbib_core import cli, compare, figures, overview, standings, trainer
from mbib_core.methods import FAMILIES, METHODS
from mbib_core.networks import multiply_adds
from mbib_core.results import read_records
from mbib_core.settings import Settings

TOP = Path(__file__).parents[1]
SMALL = {"data": "coloured", "schedule": "glyphs", "epochs": 2, "batch": 8, "threads": 1, "augmentation": "none"}


def cost(method: str, **more: object) -> int:
    settings = Settings(**{**SMALL, "method": method, **more})
    return overview.training_multiply_adds(settings, coloured([8, 5, 3], side=8))


def test_a_step_costs_a_forward_pass_twice_more_backward_and_no_gradient_of_the_images() -> None:
    """Backward, a layer needs as many products for its weights as forward and as many for its input."""
    data = coloured([8, 5, 3], side=8)
    network = METHODS["ce"].network(3, depth=8)
    forward = multiply_adds(network, data.train.x[:1])
    first = 8 * 8 * 16 * 3 * 9  # the first convolution has no input to pass a gradient to
    assert cost("ce") == 2 * 16 * (3 * forward - first)


def test_two_passes_a_step_or_two_networks_cost_twice_and_a_second_stage_costs_its_head() -> None:
    assert cost("sam") == 2 * cost("ce")
    network = METHODS["ce"].network(3, depth=8)
    forward = multiply_adds(network, coloured([8, 5, 3], side=8).train.x[:1])
    head = 16 * (
        forward + 3 * network.backbone.channels[-1]
    )  # one epoch: forward, and the gradient of the head's weights
    assert cost("crt") == cost("ce") + head


def test_smaller_images_cost_by_their_size() -> None:
    whole = {"schedule": "fast", "epochs": 10, "depth": 8}
    share = (3 * 0.625**2 + 4 * 0.75**2 + 3) / 10
    assert cost("ce", **whole) / cost("ce", **{**whole, "schedule": "paper"}) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("method", ["mbib", "crt", "bbn", "sam", "paco"])
def test_what_one_step_promises_is_what_a_whole_run_takes(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_look", lambda *_: None)  # it scores images, which is no step
    settings, data = Settings(**{**SMALL, "method": method}), coloured([8, 5, 3], side=8)
    with FlopCounterMode(display=False) as whole:
        trainer.train(settings, data, device="cpu", progress=False)
    assert whole.get_total_flops() == 2 * overview.training_multiply_adds(settings, data)


def test_the_kept_costs_are_those_that_are_counted() -> None:
    kept = overview.costs()
    assert list(kept) == list(METHODS), "python -m mbib_core.overview"
    names = random.Random(0).sample(sorted(METHODS), 2)
    assert overview.count_costs(names) == {name: kept[name] for name in names}


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30])
def test_the_interval_is_students(freedom: int) -> None:
    assert compare.student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-9)
    values = [float(i * i) for i in range(freedom + 1)]
    low, high = stats.t.interval(0.95, freedom, *(compare.statistics.fmean(values), stats.sem(values)))
    assert compare.interval(values) == pytest.approx((high - low) / 2)
    assert math.isnan(compare.interval([1.0]))


def test_every_method_says_what_it_does_where_from_and_where_it_is_explained(capsys: pytest.CaptureFixture) -> None:
    for entry in overview.catalogue():
        assert re.fullmatch(r"[A-Z\d].*[^.]", entry.about), entry.name
        page = nbformat.read(TOP / "book" / f"{entry.where}.ipynb", as_version=4)
        shown = " ".join(str(cell.source) + str(cell.get("outputs", "")) for cell in page.cells)
        assert entry.name in shown or entry.title in shown, f"{entry.where} does not name {entry.name}"
    assert cli.main(["methods"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in METHODS)
    assert all(f"\n{family}\n" in f"\n{printed}" for family in FAMILIES)


def test_a_row_is_shown_as_it_stands_in_the_code() -> None:
    for name in METHODS:
        row = overview.written(name)
        text = (TOP / row.file).read_text(encoding="utf-8")
        code = row.code.split("\n\n\n")[-1]
        assert f'"{name}":' in code
        assert " ".join(code.split()) in " ".join(text.split())
        ast.parse("{" + code + "}")
    assert overview.written("lws").comment == "As cRT, but for the classifier, of which nothing is drawn anew."
    assert overview.written("ride-3").comment.startswith("Without Nesterov's momentum")


def test_the_table_has_one_row_a_method_by_one_recipe(capsys: pytest.CaptureFixture) -> None:
    records = [r for r in read_records(TOP / "book" / "results") if r["settings"]["method"] in ("ce", "mbib")]
    (ce, mbib) = standings.reached(records, data="cifar100-lt")
    own = [r for r in records if r["run_id"].startswith("cifar100-lt-100-ce-paper")]
    assert (ce.name, ce.runs, ce.published, mbib.published) == ("ce", len(own), 38.3, 47.5)
    found = [100 * r["test"]["accuracy"]["v"]["all"] for r in own]
    assert ce.accuracy["all"] == pytest.approx(found)
    text = standings.show_reached([ce], data="cifar100-lt", imbalance=100)
    assert "not run: bsce, " in text


def test_the_page_names_every_family_and_counts_its_rows() -> None:
    page = nbformat.read(TOP / "book" / "the_field.ipynb", as_version=4)
    tens = {6: "sixty", 7: "seventy", 8: "eighty", 9: "ninety"}[len(METHODS) // 10]
    assert page.cells[0].source.startswith(f"# The field in {tens} rows")
    assert all(any(f'family_page("{family}")' in cell.source for cell in page.cells) for family in FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_told_row_by_row_above_one_fold_with_the_code_of_all(family: str) -> None:
    text = overview.family_page(family)
    assert text.count("<details>") == 1
    told, code = text.split("<details>")
    for name in FAMILIES[family]:
        assert f'<span id="row-{name}"></span>' in told
        assert overview.written(name).code.split("\n\n\n")[-1] in code
    functions = re.findall(r"^def (\w+)", code, re.M)
    assert len(functions) == len(set(functions)), "what makes several rows stands once"


def test_the_ranking_shows_single_runs_and_what_lies_far_below() -> None:
    marks = {f"method {i}": (80.0 + i, 1.0) for i in range(8)} | {
        "mbib": (88.0, math.nan),
        "collapsed": (2.0, math.nan),
    }
    shown = figures.ranked(marks, dict.fromkeys(marks, 1.0), xlabel="accuracy (%)", finding="Ten methods.")
    (axes,) = shown.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "mbib"
    assert labels[-1] == "collapsed"
    assert axes.get_xlim()[0] > 70
    assert "2" in [text.get_text() for text in axes.texts]
    assert shown.get_label() == "Ten methods."


def test_a_method_learned_if_it_reads_half_of_what_the_median_reads_in_some_group() -> None:
    def row(name: str, many: float, few: float) -> standings.Reached:
        return standings.Reached(name, 1, {"many": [many], "few": [few]}, 0, 0, None)

    rows = [row("plain", 90, 20), row("balanced", 80, 60), row("tail alone", 2, 22), row("nothing", 20, 5)]
    assert standings.learned(rows) == {"plain", "balanced", "tail alone"}
    assert standings.learned(rows[-1:]) == {"nothing"}, "there is nothing to compare it with"
    assert "did not learn by this recipe: nothing" in standings.show_reached(rows, data="glyphs-lt", imbalance=100)


@pytest.mark.slow
def test_the_table_of_methods_is_sorted_and_filtered_with_the_keyboard(browser, tmp_path: Path) -> None:
    script = (TOP / "book" / "_static" / "field.js").read_text(encoding="utf-8")
    table = overview.html_table(overview.catalogue())
    (tmp_path / "field.js").write_text(script, encoding="utf-8")
    (tmp_path / "page.html").write_text(f'<!doctype html><script src="field.js"></script>{table}', encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    names = "table.field tbody tr:not([hidden]) td:first-child code"
    assert page.locator(names).all_inner_texts() == list(METHODS)
    assert page.locator(".field-count").inner_text() == f"{len(METHODS)} of {len(METHODS)} methods"

    button = page.get_by_role("button", name="training")
    button.focus()
    page.keyboard.press("Enter")
    order = [e.name for e in sorted(overview.catalogue(), key=lambda e: float(f"{e.training:.2f}"))]
    assert page.locator(names).all_inner_texts() == order
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("training")
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort=descending]").count() == 1
    highest = max(e.training for e in overview.catalogue())
    assert page.locator("tbody tr").first.locator("td").nth(5).inner_text() == f"{highest:.2f}"

    page.get_by_label("Only rows with").fill("kang CRT")
    assert page.locator(names).count() == 0
    page.get_by_label("Only rows with").fill("Experts")
    page.get_by_label("of", exact=True).select_option("experts")
    shown = page.locator(names).all_inner_texts()
    assert 0 < len(shown) < len(FAMILIES["experts"]) + 1
    assert set(shown) <= set(FAMILIES["experts"])
    assert page.locator("[role=status]").inner_text() == f"{len(shown)} of {len(METHODS)} methods"
    page.close()
