"""What a link shows before it is followed, on the built pages in a real browser: by mouse, by key, by finger."""

import importlib.util
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]


def extension():
    spec = importlib.util.spec_from_file_location("book_hover", TOP / "book" / "_ext" / "hover.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("symbols", "keys"),
    [
        (r"\(v_1, v_2\)", ["v_1", "v_2"]),
        (r"\(H\), \(\mathrm{KL}\)", ["H", "KL"]),
        (r"\(L_{\text{VSD}}\)", ["L_VSD"]),
        (r"\(\mu(x)\), \(\rho_m^2\)", ["μ", "ρ_m"]),
        (r"\(\sum_i\)", []),
    ],
)
def test_a_symbol_is_known_by_what_its_letters_look_like(symbols, keys):
    assert list(extension().keys(symbols)) == keys


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("as Eq. (8) says", ["8"]),
        ("Eqs. (5) and (6), not (7)", ["5", "6"]),
        ("by (3.5) and Eq. 4.", ["3.5", "4"]),
        ("in 0.5 (2) of 3", []),
        ("Eqs. 4 to 7", ["4", "7"]),
    ],
)
def test_an_equation_is_mentioned_with_its_number(text, found):
    module = extension()
    assert [one[1] for m in module.MENTION.finditer(text) for one in module.ONE.finditer(m[0])] == found


# ---------------------------------------------------------------- in a browser

pytestmark = pytest.mark.slow
CHAPTER = "03_information_bottleneck"


@pytest.fixture(scope="module", params=["light", "dark"])
def page(browser, site, request):
    context = browser.new_context(color_scheme=request.param, has_touch=True, viewport={"width": 1000, "height": 800})
    context.set_offline(True)
    page = context.new_page()
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda message: page.wrong.append(message.text) if message.type == "error" else None)
    page.goto((site / f"{CHAPTER}.html").as_uri())
    page.evaluate("window.MathJax?.startup?.promise")
    yield page
    assert [one for one in page.wrong if "mathjax" not in one.lower()] == []
    context.close()


@pytest.fixture
def note(page):
    page.keyboard.press("Escape")
    page.mouse.move(1, 1)
    note = page.locator(".hover-note")
    note.wait_for(state="hidden")
    return note


def mention_on(page):
    """The first mention of an equation that is not folded away, and what its note is headed by."""
    mention = page.locator("article p > a.mention:visible").first
    number = re.search(r"#eq(?:uation)?-([\d-]+)$", mention.get_attribute("href"))[1].replace("-", ".")
    return mention, f"Eq. ({number})"


def shown(note):
    note.wait_for(state="visible")
    return note


def test_an_equation_comes_under_the_mouse_stays_under_it_and_goes_with_escape(page, note):
    mention, heading = mention_on(page)
    mention.hover()
    assert shown(note).locator("p.of").inner_text() == heading
    if page.evaluate("!!window.MathJax?.typesetPromise"):
        note.locator("mjx-container").first.wait_for()
    assert mention.get_attribute("aria-describedby") == note.get_attribute("id")
    assert note.get_attribute("role") == "tooltip"
    note.hover()
    page.wait_for_timeout(500)
    assert note.is_visible()
    page.keyboard.press("Escape")
    assert not note.is_visible()
    assert mention.get_attribute("aria-describedby") is None
    mention.hover()
    shown(note)
    page.mouse.move(1, 1)
    note.wait_for(state="hidden")


def test_a_work_comes_with_the_focus_and_leaves_with_it(page, note):
    work = page.locator('article a.reference[href^="references.html#"]:visible').first
    work.evaluate("one => one.scrollIntoView({block: 'center'})")
    page.keyboard.press("Shift")
    work.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert re.search(r"\d{4}\.", shown(note).inner_text())
    assert note.locator("a").count() == 0
    page.keyboard.press("Tab")
    page.wait_for_timeout(100)
    other = page.evaluate("document.activeElement.getAttribute('aria-describedby')")
    assert other or not note.is_visible()


def test_a_finger_sees_a_term_first_and_follows_it_then(page, note):
    term = page.locator("article a.term:visible").first
    at = page.url
    term.scroll_into_view_if_needed()
    term.tap()
    assert shown(note).locator("p.of").inner_text().lower()[:6] == term.inner_text().lower()[:6]
    assert page.url == at
    go = note.get_by_role("link", name="Go there")
    assert go.get_attribute("href") == term.evaluate("one => one.href")
    go.tap()
    page.wait_for_url("**/notation.html#term-*")
    page.go_back()
    page.evaluate("window.MathJax?.startup?.promise")


def test_a_symbol_says_what_it_means_in_this_chapter_and_is_no_stop_for_the_tab_key(page, note):
    if not page.evaluate("!!window.MathJax?.typesetPromise"):
        pytest.skip("no MathJax on the site: npm gave none")
    assert page.locator("mjx-container[tabindex], mjx-container [tabindex]").count() == 0
    beta = page.locator("article p mjx-mi:has(> mjx-c.mjx-c1D6FD):visible").first
    beta.scroll_into_view_if_needed()
    beta.hover()
    told = shown(note).inner_text()
    assert "β" in told
    assert "three different things" not in told


def test_terms_are_marked_once_in_a_section(page):
    again = page.evaluate("""() => [...document.querySelectorAll('article section section')]
        .filter(one => one.parentElement.matches('article > section, section:not(section section)'))
        .flatMap(section => {
            const seen = [...section.querySelectorAll('a.term')].map(a => a.getAttribute('href'));
            return seen.filter((one, i) => seen.indexOf(one) !== i);
        })""")
    assert again == []


def test_axe_finds_nothing_serious_while_a_note_is_open(page, note):
    base = pytest.importorskip("axe_playwright_python.base")
    mention_on(page)[0].hover()
    shown(note)
    page.wait_for_timeout(300)
    page.evaluate(base.AXE_SCRIPT)
    found = page.evaluate("axe.run('.hover-note, article a.term, article a.mention', {preload: false})")["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], node["html"][:100], node["failureSummary"]) for one in serious for node in one["nodes"]] == []
