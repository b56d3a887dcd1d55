"""Model cards: what they say is what the records say, and what the networks do."""

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mbib_core import cli
from mbib_core.cards import KNOWN, card, card_of
from mbib_core.results import read_record, write_record
from mbib_core.settings import Settings
from mbib_core.weights import Saved, read_weights

BOOK = Path(__file__).parents[1] / "book"
CARDS = sorted((BOOK / "models").glob("*.md"))
SMALL = "glyphs-lt-100-mbib-glyphs-s0-e89b68fe"
every_card = pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)


def weights_of(path: Path) -> Path:
    return BOOK / "results" / f"{path.stem}.safetensors"


def rows(text: str) -> dict[str, list[str]]:
    """The table of accuracy: its cells by shot."""
    lines = [
        line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| (all|many|medium|few) ", line)
    ]
    return {shot: cells for shot, *cells in lines}


def test_the_cards_and_the_table_of_the_book_are_what_the_records_say_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BOOK)
    monkeypatch.delitem(sys.modules, "cards", raising=False)
    from cards import write_models  # type: ignore[import-not-found]

    shutil.copy(BOOK / "models.md", tmp_path)
    written = write_models(tmp_path)
    assert len(written) == len(CARDS) + 1 == 11
    for file in written:
        there = BOOK / file.relative_to(tmp_path)
        assert there.read_text(encoding="utf-8") == file.read_text(encoding="utf-8"), "python book/chapters.py models"


@every_card
def test_the_metadata_are_yaml_as_the_hub_has_it(path: Path) -> None:
    _, front, text = path.read_text(encoding="utf-8").split("---\n", 2)
    found, record = yaml.safe_load(front), read_record(weights_of(path).with_suffix(".json"))
    assert (found["license"], found["library_name"], found["metrics"]) == ("mit", "mbib-core", ["accuracy"])
    assert found.get("datasets", []) == [hub for hub in [KNOWN[record["settings"]["data"]].hub] if hub]
    (model,) = found["model-index"]
    (result,) = model["results"]
    assert model["name"] == path.stem
    assert result["task"] == {"type": "image-classification"}
    assert result["dataset"]["split"] == "test"
    accuracy = record["test"]["accuracy"][record["test"]["default"]]
    assert [m["value"] for m in result["metrics"]] == list(accuracy.values())
    assert text.startswith("# ")
    assert record["command"] in text


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if path.stem.startswith("cifar") else ()) for path in CARDS],
    ids=lambda path: path.stem,
)
def test_a_published_network_scores_what_its_card_says_to_the_digit(
    path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture
) -> None:
    if path.stem.startswith("cifar"):
        request.getfixturevalue("cifar_root")
    assert cli.main(["evaluate", str(weights_of(path))]) == 0
    out = capsys.readouterr().out
    shots = re.search(r"mean over classes +(.*)", out)[1].split()  # type: ignore[index]
    *_, line = [line for line in out.splitlines() if " * " in line] or out.splitlines()[2:3]
    scored = dict(zip(shots, re.findall(r"\d+\.\d", line), strict=True))
    found = rows(path.read_text(encoding="utf-8"))
    assert scored == {shot: cells[2] for shot, cells in found.items()}
    assert f"calibration error {found['all'][4]}" in out


def own(unequal: bool) -> tuple[Saved, dict[str, Any]]:
    """A run of somebody's own folder, made of one of the book's."""
    run = read_weights(weights_of(Path(SMALL)))
    record = read_record(BOOK / "results" / f"{SMALL}.json")
    settings = Settings.of(run.settings.plain() | {"data": "folder:/home/somebody/my birds", "pictures": "0123"})
    record["settings"] = settings.plain()
    record["command"] = "mbib train mbib --data 'folder:/home/somebody/my birds'"
    if unequal:
        record["test"]["accuracy"][record["test"]["default"]]["few"] += 0.01
    return replace(run, settings=settings), record


@pytest.mark.parametrize("unequal", [False, True])
def test_a_card_of_ones_own_images_names_no_path_and_no_licence_and_knows_where_an_interval_holds(
    unequal: bool,
) -> None:
    text = card(*own(unequal))
    assert "/home" not in text
    assert "mbib train mbib --data 'folder:my birds'" in text
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["license"], "datasets" in front) == ("unknown", False)
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == "folder:my birds"
    assert [bool(cells[3].strip()) for cells in rows(text).values()] == [not unequal] * 4
    assert ("There is no interval" in text) == unequal
    assert "first seed" not in text, "nobody knows which of their runs this is"
    assert 'license: "cc-by-4.0"' in card(*own(unequal), licence="cc-by-4.0")


def test_a_card_of_a_run_for_choosing_is_about_validation_images() -> None:
    run, record = read_weights(weights_of(Path(SMALL))), read_record(BOOK / "results" / f"{SMALL}.json")
    record["validation"] = record.pop("test")
    text = card(replace(run, settings=replace(run.settings, purpose="choosing")), record)
    assert "it never saw the test images" in text
    assert "split: validation" in text


def test_a_card_is_shown_or_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = weights_of(Path(SMALL))
    assert cli.main(["card", str(path)]) == 0
    shown = capsys.readouterr().out
    assert shown == card_of(path)
    assert cli.main(["card", str(path), "--out", str(tmp_path / "README.md"), "--license", "apache-2.0"]) == 0
    assert (tmp_path / "README.md").read_bytes().decode() == shown.replace('"mit"', '"apache-2.0"').replace(
        "Weights: mit.", "Weights: apache-2.0."
    )
    assert cli.main(["card", str(path), "--out", str(tmp_path / "README.md")]) == 0, "a card is written anew"
    assert (tmp_path / "README.md").read_bytes().decode() == shown


@pytest.mark.fault("mbib card --out on a page of one's own")
def test_a_card_replaces_no_page_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture, sentence: Any) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert cli.main(["card", str(weights_of(Path(SMALL))), "--out", str(tmp_path / "README.md")]) == 2
    err = capsys.readouterr().err
    sentence(err)
    assert "is there already, and is no card: name another file with --out" in err
    assert (tmp_path / "README.md").read_text() == "mine"


def left_out(folder: Path) -> None:
    (folder / f"{SMALL}.json").unlink()


def of_another(folder: Path) -> None:
    (folder / f"{SMALL}.json").write_bytes((BOOK / "results" / "glyphs-lt-100-ce-glyphs-s0-9e7e4930.json").read_bytes())


def cut(folder: Path) -> None:
    (folder / f"{SMALL}.json").write_text("{")


def without_cost(folder: Path) -> None:
    record = read_record(folder / f"{SMALL}.json")
    del record["multiply_adds"]
    write_record(record, folder)


def no_weights(folder: Path) -> None:
    (folder / f"{SMALL}.safetensors").write_bytes(b"{}")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (left_out, "a card says how they were made and what they reached, so put the record of the same run there"),
        (of_another, f"the weights are of {SMALL}: put the record of that run there"),
        (cut, "is not a whole record; restore it, or delete it and make the run again"),
        (without_cost, "lacks 'multiply_adds', which a card needs: make the run again"),
        (no_weights, "holds no weights that `mbib train` wrote"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.fault("mbib card: {harm.__name__}")
def test_files_that_make_no_card_get_a_sentence(
    harm: Any, words: str, tmp_path: Path, capsys: pytest.CaptureFixture, sentence: Any
) -> None:
    for suffix in (".json", ".safetensors"):
        shutil.copy(BOOK / "results" / f"{SMALL}{suffix}", tmp_path)
    harm(tmp_path)
    assert cli.main(["card", str(tmp_path / f"{SMALL}.safetensors")]) == 2
    err = capsys.readouterr().err
    sentence(err)
    assert words in err
    assert err.count("\n") == 1
