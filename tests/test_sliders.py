"""The sliders and the self-check questions: their HTML, what a kernel shows, and how they behave in a browser."""

import base64
import json
import re
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mbib_core.sliders import STATIC, live_slider, slider_html, static_slider

BOOK = Path(__file__).parent.parent / "book"
VALUES = ["few", "some", "many"]
ALTS = ['a line at "0"', "a line at <1>", "a line at 2 & up"]
LIMIT = 800_000  # bytes, all frames of a page


def figures(sizes=((3, 2), (3, 2), (3, 2))):
    drawn = []
    for level, size in enumerate(sizes):
        figure = Figure(figsize=size)
        figure.subplots().axhline(level)
        drawn.append(figure)
    return drawn


@pytest.fixture(scope="module")
def html():
    return slider_html(figures(), VALUES, label="how many", alts=ALTS)


def frames_of(html: str) -> list[list[str]]:
    """[value, alt text, source] of every frame; the source of the one that stands in the HTML is empty."""
    return json.loads(re.search(r"\}\)\((\[\[.*?\]\])\)</script>", html, re.S)[1])


def test_one_picture_stands_in_the_html_and_the_script_brings_the_others(html):
    frames = frames_of(html)
    assert [value for value, _, _ in frames] == VALUES
    assert [alt for _, alt, _ in frames] == ALTS
    assert len(re.findall(r"<img\b", html)) == 1
    pictures = [source for _, _, source in frames if source] + re.findall(r'<img [^>]*src="([^"]+)"', html)
    sizes = {Image.open(BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))).size for uri in pictures}
    assert len(pictures) == 3
    assert len(sizes) == 1


def test_the_input_is_native_labelled_and_starts_in_words(html):
    label = re.search(r"<label[^>]*>(.*?)</label>", html, re.S)[1]
    assert label.startswith("how many")
    assert re.search(r'<input type="range" min="0" max="2" step="1" value="1" aria-valuetext="some"', label)
    assert 'alt="a line at &lt;1&gt;"' in html


def test_nothing_leaves_the_output_and_nothing_can_collide(html):
    assert not re.search(r"https?:|//cdn|\bid=", html)
    other = slider_html(figures(), VALUES, label="another", alts=ALTS)
    keys = [re.search(r'data-slider="(\w+)"', text)[1] for text in (html, other)]
    assert keys[0] != keys[1]
    turned = slider_html(figures()[::-1], VALUES, label="how many", alts=ALTS)
    assert re.search(r'data-slider="(\w+)"', turned)[1] not in keys
    assert html == slider_html(figures(), VALUES, label="how many", alts=ALTS)


def test_a_closing_tag_in_a_text_does_not_end_the_script():
    html = slider_html(figures(), ["</script>", "b", "c"], label="x", alts=ALTS)
    assert html.count("</script>") == 1
    assert frames_of(html)[0][0] == "</script>"


@pytest.mark.parametrize(
    ("drawn", "values", "alts", "start", "message"),
    [
        (figures()[:2], VALUES, ALTS, None, "2 figures, 3 values"),
        (figures()[:1], VALUES[:1], ALTS[:1], None, "two or more"),
        (figures(), VALUES, [*ALTS[:2], " "], None, "must say something"),
        (figures(), ["", "b", "c"], ALTS, None, "must say something"),
        (figures(), VALUES, ALTS, 3, "start is 3"),
        (figures(((3, 2), (3, 2), (3, 3))), VALUES, ALTS, None, "one size"),
    ],
)
def test_what_cannot_be_a_slider_is_refused(drawn, values, alts, start, message):
    with pytest.raises(ValueError, match=message):
        slider_html(drawn, values, label="x", alts=alts, start=start)


def test_without_alts_the_figures_own_words_are_taken():
    html = slider_html(map(draw, range(3)), VALUES, label="x")
    assert [alt for _, alt, _ in frames_of(html)] == ['a line at "0"', 'a line at "1"', 'a line at "2"']
    with pytest.raises(ValueError, match="must say something"):
        slider_html(figures(), VALUES, label="x")


def test_a_cell_shows_one_output(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *args, **options: shown.append((args, options)))
    static_slider(figures(), VALUES, label="how many", alts=ALTS, start=2)
    [((data,), options)] = shown
    assert options == {"raw": True}
    assert set(data) == {"text/html", "text/plain"}
    assert data["text/plain"] == "many: a line at 2 & up"


def draw(value):
    figure = Figure(figsize=(3, 2), label=f'a line at "{value:g}"')
    figure.subplots().axhline(value)
    return figure


def live(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda thing: shown.append(thing))
    live_slider(draw, low=0, high=2, value=1, step=0.5, label="height")
    return shown


@pytest.mark.parametrize("name", STATIC)
def test_a_stored_or_tested_notebook_has_no_live_slider(name, monkeypatch):
    for other in STATIC:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "1")
    assert live(monkeypatch) == []


def test_the_live_slider_draws_at_every_move(monkeypatch):
    pytest.importorskip("ipywidgets")
    for name in STATIC:
        monkeypatch.delenv(name, raising=False)
    [box] = live(monkeypatch)
    handle, page = box.children
    assert (handle.value, handle.min, handle.max, handle.step, handle.description) == (1, 0, 2, 0.5, "height")
    assert 'alt="a line at &quot;1&quot;"' in page.value
    before = page.value
    handle.value = 1.5
    assert 'alt="a line at &quot;1.5&quot;"' in page.value
    assert page.value != before


def outputs(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(o.get("data", {}).get("text/html", "") for cell in cells for o in cell.get("outputs", []))


@pytest.mark.parametrize("path", sorted(BOOK.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_frames_of_a_page_are_light_and_no_live_slider_is_stored(path):
    sources = re.findall(r"data:image/png;base64,([\w+/=]+)", outputs(path))
    assert sum(len(base64.b64decode(source)) for source in sources) < LIMIT
    assert "widget-view" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(BOOK.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_question_has_one_right_choice_and_an_explanation_for_each(path):
    """What `questions.js` relies on: an explanation begins with "Right." or "No."."""
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    questions = re.findall(r'<div class="question">(.*?)</div>', text, re.S)
    assert len(questions) == text.count('class="question"')
    for question in questions:
        choices = re.findall(r"<details><summary>(.+?)</summary>\n\n(.+?)\n\n</details>", question, re.S)
        assert len(choices) == question.count("<details") >= 3
        openings = sorted(explanation.split()[0] for _, explanation in choices)
        assert openings == ["No."] * (len(choices) - 1) + ["Right."]
        assert re.match(r"\n\n\*\*.+?\*\*\n\n<details>", question), "the question in bold, a blank line around it"


# ---------------------------------------------------------------- in a browser


QUESTION = """
<div class="question"><p><b>What is added at test time?</b></p>
<details><summary>log n</summary><p>No. That would be the training prior again.</p></details>
<details><summary>the right prior</summary><p>No. The summary's own word does not count.</p></details>
<details>
<summary>nothing</summary>
<p><strong>Right.</strong> The logits are balanced.</p></details></div>
<div class="question"><p><b>Which base?</b></p>
<details><summary>e</summary><p>Right. Nats.</p></details><details><summary>2</summary><p>No. Bits.</p></details></div>
"""


@pytest.fixture
def page(browser, html, tmp_path):
    """Two sliders, one of them twice, and two questions, read from a file with the network cut."""
    file = tmp_path / "page.html"
    other = slider_html(figures(), VALUES, label="another", alts=ALTS)
    script = (BOOK / "_static" / "questions.js").read_text(encoding="utf-8")
    head = f"<!doctype html><html lang='en'><meta charset='utf-8'><title>t</title><script>{script}</script>"
    file.write_text(f"{head}<body>{html}{other}{html}{QUESTION}</body></html>", encoding="utf-8")
    context = browser.new_context(has_touch=True, viewport={"width": 375, "height": 800})
    context.set_offline(True)
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(file.as_uri())
    yield page
    assert page.errors == []
    context.close()


def state(slider) -> tuple[str, str, list[str]]:
    """The value as a screen reader hears it and as the eye sees it, and the alt texts of the visible pictures."""
    pictures = [p.get_attribute("alt") for p in slider.locator("img").all() if p.is_visible()]
    return slider.locator("input").get_attribute("aria-valuetext"), slider.locator(".value").inner_text(), pictures


def test_a_slider_moves_by_keyboard_and_by_pointer_and_leaves_the_others_alone(page):
    first, other, twin = page.locator(".static-slider").all()
    handle = first.get_by_role("slider", name="how many")
    handle.focus()
    for key, expected in (("ArrowRight", 2), ("Home", 0), ("ArrowUp", 1), ("End", 2), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        assert state(first) == (VALUES[expected], VALUES[expected], [ALTS[expected]])
    box = handle.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    assert state(first)[0] == "many"
    page.mouse.down()
    page.mouse.move(box["x"] + 3, box["y"] + box["height"] / 2)
    page.mouse.up()
    assert state(first)[0] == "few"
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert state(first) == ("some", "some", [ALTS[1]])
    assert state(other) == state(twin) == ("some", "some", [ALTS[1]])
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_a_frame_changes_within_50_ms(page):
    """From the event to the next frame of the browser; the median, since this machine may be busy."""
    times = page.evaluate("""async () => {
        const input = document.querySelector('input'), times = [];
        for (let i = 0; i < 12; i++) {
            input.value = i % 3;
            const start = performance.now();
            input.dispatchEvent(new Event('input'));
            await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
            times.push(performance.now() - start);
        }
        return times.sort((a, b) => a - b);
    }""")
    assert times[6] < 50


def test_one_picture_is_printed(page):
    page.emulate_media(media="print")
    slider = page.locator(".static-slider").first
    assert state(slider)[2] == [ALTS[1]]
    assert not slider.locator("input").is_visible()
    assert slider.locator(".value").is_visible()


def test_without_scripts_the_chosen_picture_and_its_value_are_seen(browser, html, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(f"<!doctype html><meta charset='utf-8'>{html}{QUESTION}", encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    slider = page.locator(".static-slider")
    assert slider.locator("img").count() == 1
    assert slider.locator(".value").inner_text() == "some"
    assert not slider.locator("input").is_visible()
    page.get_by_text("log n", exact=True).click()
    assert page.get_by_text("That would be the training prior again").is_visible()
    context.close()


def test_questions_are_graded_and_scored(page):
    first = page.locator(".question").first
    verdict, score = first.get_by_role("status"), page.locator(".question-score")
    assert score.inner_text() == "Answered right: 0 of 2, at the first try: 0."
    first.get_by_text("the right prior", exact=True).click()
    assert verdict.inner_text() == "Not this one: read why, then try another."
    assert "is-wrong" in first.locator("details").nth(1).get_attribute("class")
    first.get_by_text("nothing", exact=True).focus()
    first.locator("summary").nth(2).focus()
    page.keyboard.press("Enter")
    assert verdict.inner_text() == "Right, at try 2."
    assert first.locator("summary").nth(2).inner_text().split("✓")[1].strip() == "right"
    first.get_by_text("log n", exact=True).click()  # read on: no longer a try
    assert verdict.inner_text() == "Right, at try 2."
    page.locator(".question").nth(1).get_by_text("e", exact=True).click()
    assert score.inner_text() == "Answered right: 2 of 2, at the first try: 1."
