"""Two maps that the reader changes: what they are made of, and how they answer to keyboard and pointer."""

from pathlib import Path

import numpy as np
import pytest

from mbib_core.moving import maps

WORDS = {"names": ["cat", "worm"], "counts": [500, 5], "groups": ["many", "few"], "finding": "Two classes."}


def drawn(monkeypatch: pytest.MonkeyPatch, **changes: object) -> str:
    """The HTML that `two_maps` displays for two classes of three images each."""
    found: list[str] = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: found.append(data.get("text/html", "")))
    random = np.random.default_rng(0)
    both = {title: {"5": random.normal(size=(6, 2)), "30": random.normal(size=(6, 2))} for title in ("v", "z")}
    given = {"right": {"v": [3, 1], "z": [2, 2]}, "start": ("v", "z"), "variant": "30", **WORDS, **changes}
    maps.two_maps(given.pop("maps", both), np.repeat([0, 1], 3), **given)
    return found[0]


def test_a_map_is_turned_mirrored_and_scaled_onto_the_first() -> None:
    first = np.random.default_rng(1).normal(size=(50, 2))
    turn = np.array([[np.cos(2), -np.sin(2)], [np.sin(2), np.cos(2)]]) @ np.diag([1, -1])
    assert maps.places(7 * first @ turn + 3, maps.unit(first)) == maps.places(first, maps.unit(first))
    at = np.array(maps.places(first, maps.unit(first)))
    assert (at.min(), at.max()) == (0, maps.SIDE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variant": "7"}, "same variants"),
        ({"start": ("v", "w")}, "same variants"),
        ({"names": ["cat"]}, "2 classes need"),
        ({"right": {"v": [1], "z": [1, 1]}}, "2 classes need"),
        ({"chosen": "dog"}, "no class is called 'dog'"),
        ({"maps": {m: {"30": np.full((6, 2), np.nan)} for m in "vz"}}, "finite points"),
        ({"finding": " "}, "must say something"),
    ],
)
def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch, changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        drawn(monkeypatch, **changes)


@pytest.mark.slow
def test_maps_answer_to_the_keyboard_and_the_pointer(browser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(f"<!doctype html><body>{drawn(monkeypatch)}", encoding="utf-8")
    page = browser.new_page(reduced_motion="reduce")
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    says, left = page.locator(".says"), page.locator(".panels svg").first
    assert "name 4 of 6 images right on the left, and 4 on the right" in says.inner_text()
    before = left.locator("path").first.get_attribute("style")
    page.get_by_label("30", exact=True).focus()
    page.keyboard.press("ArrowUp")
    assert left.locator("path").first.get_attribute("style") != before

    page.get_by_role("combobox", name="Class").focus()
    page.keyboard.press("End")
    assert says.inner_text().startswith("worm, 5 training images")
    assert "name 1 of 3 images right on the left, and 2 on the right" in says.inner_text()
    assert left.get_attribute("aria-label") == "Map of v, 5. worm."
    assert [left.locator("path").nth(i).get_attribute("opacity") for i in (0, 5)] == ["0.16", "1"]
    page.get_by_role("combobox", name="Left").select_option(label="z")
    assert "name 2 of 3 images right on the left" in says.inner_text()

    mark = left.locator("path").first.bounding_box()
    page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    assert says.inner_text().startswith("cat, 500")
    page.mouse.move(1, 1)
    assert says.inner_text().startswith("worm, 5"), "a pointer that leaves gives the chosen class back"
    page.mouse.click(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    assert page.get_by_role("combobox", name="Class").input_value() == "0"
    assert wrong == []
    page.close()
