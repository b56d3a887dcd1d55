"""The built pages in a real browser with the network cut, light and dark: formulas, sliders, phone, axe, search, paper.

A page is opened once for each colour scheme and goes through all checks in the order of this file; axe comes last,
since it thins the page out first.
"""

import functools
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
from bisect import bisect
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

pytestmark = pytest.mark.slow
TOP = Path(__file__).parents[1]
PAGES = sorted(p.stem for p in (TOP / "book").iterdir() if p.suffix in (".md", ".ipynb"))
CHAPTERS = sorted(p.stem for p in (TOP / "book").glob("*.ipynb"))
PATIENCE = 120_000  # milliseconds: a machine that does other things as well
OWN_WEIGHT = 2_500_000  # bytes of a page: its HTML and its own pictures
FRAMES = 800_000  # bytes of the frames of all sliders of a page
FRAME = 50  # milliseconds from the handle's move to the new picture
BUSY = 3  # times as long on a machine that does other things as well


def soup(path: Path):
    return pytest.importorskip("bs4").BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@functools.cache
def static(site: Path, name: str):
    """The page as it is stored, without a browser."""
    return soup(site / f"{name}.html")


def script(path: Path):
    """A file of the book as a module."""
    spec = importlib.util.spec_from_file_location(f"book_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built(site: Path) -> list[str]:
    return [name for name in PAGES if (site / f"{name}.html").is_file()]


def test_every_page_of_the_book_is_in_the_table_of_contents(site):
    assert built(site) == PAGES


# ---------------------------------------------------------------- one page, opened once for each scheme


@pytest.fixture(scope="module", params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture(scope="module", params=PAGES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def phone(scheme, browser):
    """A browser window 375 pixels wide without a network."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": 375, "height": 800})
    context.set_default_timeout(PATIENCE)
    context.set_offline(True)
    yield context
    context.close()


@pytest.fixture(scope="module")
def page(phone, name, site):
    """The page, with what went wrong on it and what it asked of other hosts as `.wrong`."""
    page = phone.new_page()
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda message: page.wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else page.wrong.append(r.url))
    page.goto((site / f"{name}.html").as_uri())
    page.own_mathjax = (site.parent / "_static" / "mathjax" / "tex-chtml-full.js").is_file()
    if not page.own_mathjax and os.environ.get("CI"):
        pytest.fail("npm gave no MathJax: the pages would ask others for it, and no test would see their formulas")
    if page.own_mathjax:
        page.evaluate("window.MathJax?.startup?.promise")  # a promise is waited for
    yield page
    page.close()


def wrong(page) -> list[str]:
    """What went wrong on a page so far, its policy's refusals too, but for a MathJax that would come from elsewhere."""
    return [one for one in page.wrong if page.own_mathjax or "mathjax" not in one.lower()]


def test_a_page_asks_nobody_draws_its_formulas_and_fits_a_phone(page, name, site, scheme):
    assert wrong(page) == []
    if page.own_mathjax:
        assert "\\(" not in page.inner_text("article")
        assert page.locator("mjx-merror").count() == 0
        assert page.locator("mjx-container[tabindex]").count() == 0, "a reader with a keyboard would stop at each"
        assert page.locator("mjx-container").count() >= len(static(site, name).select("article .math"))
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    images = page.locator("article img")
    assert all(images.nth(i).get_attribute("alt") for i in range(images.count()))
    for question in page.locator(".question").all():
        asked = page.locator(f"#{question.get_attribute('aria-labelledby')}")
        assert question.get_attribute("role") == "group"
        assert asked.inner_text() == question.locator("p").first.inner_text() != ""
        verdict = question.locator("[role=status]").first
        assert verdict.evaluate("node => getComputedStyle(node).display") == "block", "there before its first words"


# A formula is cut where the nearest box that does not let it out is narrower and cannot be scrolled to both its ends.
CUT = """() => {
    const boxOf = formula => {
        for (let box = formula; box; box = box.parentElement)
            if (getComputedStyle(box).overflowX !== 'visible') return box;
    };
    const cut = [];
    for (const formula of document.querySelectorAll('article mjx-container')) {
        const drawn = formula.querySelector('mjx-math'), box = boxOf(formula), wide = drawn.getBoundingClientRect();
        if (!wide.width) continue;  // folded away
        const frame = (box ?? document.documentElement).getBoundingClientRect();
        if (wide.left >= frame.left - 1 && wide.right <= frame.right + 1) continue;
        const scrolls = box && ['auto', 'scroll'].includes(getComputedStyle(box).overflowX);
        let left = NaN, right = NaN;
        if (scrolls) {
            box.scrollLeft = 0;
            left = drawn.getBoundingClientRect().left;
            box.scrollLeft = 1e6;
            right = drawn.getBoundingClientRect().right;
            box.scrollLeft = 0;
        }
        if (!(left >= frame.left - 1 && right <= frame.right + 1)) cut.push(formula.parentElement.textContent);
    }
    return cut;
}"""


def test_a_formula_that_is_too_wide_can_be_scrolled_from_end_to_end(page):
    if not page.own_mathjax:
        pytest.skip("no MathJax on the site: npm gave none")
    assert page.evaluate(CUT) == []


def test_the_scroll_check_sees_a_formula_that_is_cut(phone):
    page = phone.new_page()
    page.set_content(
        "<article style='width:300px;overflow:hidden'><p><mjx-container>"
        "<mjx-math style='display:inline-block;width:900px'>x</mjx-math></mjx-container></p></article>"
    )
    assert page.evaluate(CUT) == ["x"]
    page.evaluate("document.querySelector('article').style.overflowX = 'auto'")
    assert page.evaluate(CUT) == []
    page.close()


# ---------------------------------------------------------------- sliders, where they stand


def state(slider) -> tuple[str, str, str]:
    """The value for the ear, the value for the eye, the alt text of the one picture that is seen."""
    return slider.evaluate("""slider => {
        const [picture, second] = [...slider.querySelectorAll('img')].filter(image => image.checkVisibility());
        return second ? null : [slider.querySelector('input').getAttribute('aria-valuetext'),
            slider.querySelector('.value').textContent, picture.alt];
    }""")


TURN = """async slider => {
    const input = slider.querySelector('input'), times = [], size = +input.max + 1;
    for (let i = 0; i < 11; i++) {
        input.value = (+input.value + 1) % size;
        const start = performance.now();
        input.dispatchEvent(new Event('input'));
        await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        times.push(performance.now() - start);
    }
    return times.sort((a, b) => a - b)[5];
}"""


def test_every_slider_moves_by_keyboard_and_by_pointer_at_once(page, name, site):
    sliders = page.locator(".static-slider[data-ready]")
    assert sliders.count() == len(static(site, name).select(".static-slider"))
    for slider in sliders.all():
        handle = slider.locator("input")
        assert handle.evaluate("input => input.labels[0].innerText.trim()")
        handle.press("Home")
        seen = [state(slider)]
        for _ in range(int(handle.get_attribute("max"))):
            handle.press("ArrowRight")
            seen.append(state(slider))
        assert len({tuple(one) for one in seen}) == len(seen), "each step has its value and its picture's words"
        assert all(heard == read for heard, read, _ in seen)
        handle.click(position={"x": 3, "y": handle.bounding_box()["height"] / 2})  # waits for the page to scroll to it
        assert state(slider) == seen[0]
        assert any(slider.evaluate(TURN) < BUSY * FRAME for _ in range(4)), "one quiet moment in four"
    for choice in page.locator(".question summary").all():
        choice.evaluate("choice => choice.click()")
        assert choice.locator(".question-mark").count() == 1
    assert wrong(page) == []


def test_every_figure_that_the_reader_moves_is_drawn_and_tells_what_each_control_does(page, name, site):
    figures = page.locator(".moving[data-ready]")
    assert figures.count() == len(static(site, name).select(".moving"))
    for figure in figures.all():
        for control in figure.locator("input[type=range], select").all():
            seen = [figure.inner_text()]
            if control.get_attribute("type") == "range":
                for key in ("Home", "End"):
                    control.press(key)
                    seen.append(figure.inner_text())
            else:
                for at in (0, control.locator("option").count() - 1):
                    control.select_option(index=at)
                    seen.append(figure.inner_text())
            assert len(set(seen)) > 1
    assert wrong(page) == []


# ---------------------------------------------------------------- the policy

FOREIGN = """() => {
    addEventListener('securitypolicyviolation', e => (window.refused ??= []).push(e.effectiveDirective));
    const picture = '<img src="x" onerror="window.harm = 1"><img src="https://example.org/a.png">';
    document.body.insertAdjacentHTML('beforeend', picture);
    for (const own of [{textContent: 'window.harm = 1'}, {src: 'https://example.org/a.js'}])
        document.body.append(Object.assign(document.createElement('script'), own));
}"""
PUSHED = """() => {
    const done = [];
    window.print = () => done.push('print');
    window.toggleFullScreen = () => done.push('full screen');
    for (const button of document.querySelectorAll('[onclick]')) button.click();
    return done.sort();
}"""


def test_what_is_not_a_pages_own_is_neither_run_nor_fetched_and_its_buttons_work(phone, site):
    page = phone.new_page()
    page.goto((site / "intro.html").as_uri())
    assert page.evaluate(PUSHED) == ["full screen", "print"]
    page.evaluate(FOREIGN)
    page.wait_for_function("window.refused?.length === 4")
    assert sorted(page.evaluate("window.refused")) == [
        "img-src",
        "script-src-attr",
        "script-src-elem",
        "script-src-elem",
    ]
    assert page.evaluate("window.harm") is None
    page.close()


@pytest.mark.parametrize("stem", [*PAGES, "../search", "../genindex"])
def test_a_page_names_what_may_run_on_it_before_anything_runs(site, stem):
    page = static(site, stem)
    (meta,) = page.select('head meta[http-equiv="Content-Security-Policy"]')
    assert meta.find_previous(["script", "style", "link"]) is None
    rules = dict(rule.split(" ", 1) for rule in meta["content"].split("; "))
    assert rules["default-src"] == "'none'"
    assert [name for name, sources in rules.items() if "'unsafe-inline'" in sources] == ["style-src"]
    assert "unsafe-eval" not in meta["content"]
    if (site.parent / "_static" / "mathjax").is_dir():
        assert "http" not in meta["content"]
    assert all("noopener" in link.get("rel", []) for link in page.select("a[target=_blank]"))
    assert bool(page.select("article noscript")) == bool(page.select("article .math"))


def test_only_a_mathjax_that_is_not_the_sites_own_is_asked_for_elsewhere():
    policy = script(TOP / "book" / "_ext" / "page.py").policy
    here, there = (policy("<script>1</script>", [], f"{at}mathjax/tex.js") for at in ("", "https://cdn.example/"))
    hashed = (
        "'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='"  # echo -n 1 | openssl dgst -sha256 -binary | base64
    )
    assert f"script-src 'self' {hashed}; " in here
    changed = [rule for rule, other in zip(there.split("; "), here.split("; "), strict=True) if rule != other]
    assert changed == [f"script-src 'self' {hashed} https://cdn.example", "font-src 'self' https://cdn.example"]


# ---------------------------------------------------------------- old addresses


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("02_information_bottleneck", "03_information_bottleneck"),
        ("03_variational_bound", "04_variational_bound"),
        ("04_rebalancing", "02_rebalancing"),
    ],
)
def test_an_old_address_leads_to_the_new_page_and_keeps_its_place(browser, site, old, new):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{(site / old).as_uri()}.html#eq-1")
    page.wait_for_url(f"**/{new}.html#eq-1")
    context.close()
    without = browser.new_context(java_script_enabled=False)
    page = without.new_page()
    page.goto(f"{(site / old).as_uri()}.html")
    page.wait_for_url(f"**/{new}.html")
    without.close()


# ---------------------------------------------------------------- axe


# Thousands of elements say the same to axe, which takes minutes over them: what formulas are drawn with, and code in
# the same colours. A formula keeps its box, and of each sort of token the first in each kind of block stays.
THIN = """() => {
    const seen = new Set(), gone = [...document.querySelectorAll('article script, article [hidden]')];
    for (const formula of document.querySelectorAll('mjx-container')) gone.push(...formula.children);
    for (const token of document.querySelectorAll('pre span')) {
        const kind = token.closest('[class*=highlight-]')?.parentElement.className + ' ' + token.className;
        if (seen.has(kind)) gone.push(token);
        seen.add(kind);
    }
    for (const one of gone) one.remove();
    for (const image of document.images) image.removeAttribute('src');
    scrollTo(0, 0);
    for (const fold of document.querySelectorAll('article details')) fold.open = true;
}"""
SERIOUS = """options => axe.run(options).then(found => found.violations
    .filter(one => ['serious', 'critical'].includes(one.impact))
    .flatMap(one => one.nodes.map(node => [one.id, node.html.slice(0, 160), node.failureSummary])))"""


def faults(page, *rules: str) -> list:
    """What axe calls serious or critical: by all rules, or by these."""
    base = pytest.importorskip("axe_playwright_python.base")
    page.evaluate("Promise.all(document.getAnimations().map(one => one.finished))")  # what fades in is pale till then
    page.evaluate(base.AXE_SCRIPT)
    options = {"resultTypes": ["violations"], "preload": False, **({"runOnly": list(rules)} if rules else {})}
    return page.evaluate(SERIOUS, options)


def test_axe_finds_nothing_serious(page, scheme):
    page.evaluate(THIN)
    page.evaluate("document.querySelector('#pst-back-to-top').style.display = 'block'")  # as on the way up
    assert faults(page, *(["color-contrast", "link-in-text-block"] if scheme == "dark" else [])) == []


@pytest.mark.parametrize("stem", ["book/intro", "book/01_long_tails", "search", "genindex"])
def test_axe_finds_nothing_serious_in_what_only_a_wide_window_shows(phone, site, stem):
    page = phone.new_page()
    page.set_viewport_size({"width": 1400, "height": 900})
    page.goto((site.parent / f"{stem}.html").as_uri())
    page.evaluate(THIN)
    assert faults(page) == []
    page.close()


def test_axe_is_heard(phone):
    page = phone.new_page()
    page.set_content("<html lang='en'><title>t</title><main><img src='x'><p style='color:#bbb;background:#fff'>faint")
    assert {fault[0] for fault in faults(page)} >= {"image-alt", "color-contrast"}
    page.close()


# ---------------------------------------------------------------- search


@pytest.fixture
def served(site):
    """The site's address on this machine: a search needs a server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(site.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_search_finds_a_word_and_leads_to_its_page_without_harm_to_formulas(browser, served, site):
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(PATIENCE)
    asked: list[str] = []

    def at_home(route):
        asked.append(route.request.url)
        route.continue_() if route.request.url.startswith((served, "data:")) else route.abort()

    context.route("**/*", at_home)
    page = context.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text) if "Security Policy" in message.text else None)
    page.goto(f"{served}/book/intro.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("posterior log")  # "log" stands in formulas, too
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=*")
    result = page.locator("#search-results li a", has_text="Long tails").first
    result.wait_for()
    page.wait_for_function("document.querySelectorAll('#search-results li p.context').length > 0")
    assert "frames =>" not in page.inner_text("#search-results")
    result.click()
    page.wait_for_url("**/book/01_long_tails.html*")
    page.evaluate("window.MathJax?.startup?.promise")
    page.locator("article span.highlighted", has_text="posterior").first.wait_for()
    assert refused == []
    if (site.parent / "_static" / "mathjax").is_dir():
        assert [url for url in asked if not url.startswith((served, "data:"))] == []
        assert "\\(" not in page.inner_text("article")
        assert page.locator("mjx-merror").count() == 0
    context.close()


# ---------------------------------------------------------------- what the file itself tells


@pytest.mark.parametrize("stem", PAGES)
def test_a_page_is_light(site, stem):
    page = site / f"{stem}.html"
    sources = [image["src"] for image in static(site, stem).select("img[src]:not([src^=data])")]
    pictures = {(page.parent / unquote(source)).resolve() for source in sources}
    own = [picture for picture in pictures if picture.is_relative_to((site.parent / "_images").resolve())]
    assert page.stat().st_size + sum(picture.stat().st_size for picture in own) < OWN_WEIGHT
    frames = re.findall(r"data:image/png;base64,([\w+/=]+)", page.read_text(encoding="utf-8"))
    assert sum(len(frame) * 3 // 4 for frame in frames) < FRAMES


@pytest.mark.parametrize("stem", PAGES)
def test_the_way_on_the_way_back_and_the_repository_are_on_the_page(site, stem):
    order = [Path(file).name for file in book_print().toc_files()]
    at, page = order.index(stem), static(site, stem)
    for link, other in ((".left-prev", order[at - 1] if at else None), (".right-next", [*order, None][at + 1])):
        assert [a["href"] for a in page.select(f"a{link}")] == ([f"{other}.html"] if other else [])
    address = yaml.safe_load((TOP / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    assert page.select(f'a.btn-source-repository-button[href="{address}"]')
    assert page.select("button.search-button__button")


@pytest.mark.parametrize("stem", CHAPTERS)
def test_a_chapter_opens_in_colab_and_can_be_downloaded(site, stem):
    config = yaml.safe_load((TOP / "_config.yml").read_text(encoding="utf-8"))["repository"]
    path = config["url"].removeprefix("https://github.com/") + f"/blob/{config['branch']}/book/{stem}.ipynb"
    page = static(site, stem)
    assert page.select(f'a[href="https://colab.research.google.com/github/{path}"]')
    (notebook,) = [a["href"] for a in page.select("a.btn-download-source-button") if a["href"].endswith(".ipynb")]
    assert (site / notebook).read_bytes() == (TOP / "book" / f"{stem}.ipynb").read_bytes()


@pytest.mark.parametrize("stem", CHAPTERS)
def test_no_two_folds_of_code_stand_on_one_another(site, stem):
    folds = static(site, stem).select(".cell:not(.tag_check) > details.hide:not(:has(~ .cell_output)):only-child")
    assert folds
    behind = [fold.parent.find_next_sibling() for fold in folds]
    assert [cell.get_text() for cell in behind if cell and cell.select_one(":scope > details.hide")] == []


# ---------------------------------------------------------------- on paper


def book_print():
    return script(TOP / "book" / "print.py")


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def pdf(site, tmp_path_factory):
    """The printed book. Printing starts a browser of its own, which must not meet this thread's."""
    pypdf = pytest.importorskip("pypdf")
    pytest.importorskip("playwright")
    file = tmp_path_factory.mktemp("print") / "book.pdf"
    command = [sys.executable, str(TOP / "book" / "print.py"), str(site.parent), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-2] == str(len(pypdf.PdfReader(file).pages))
    return pypdf.PdfReader(file)


def fonts(sheets) -> set[str]:
    held = [font.get_object() for sheet in sheets for font in sheet["/Resources"]["/Font"].values()]
    return {str(font["/FontDescriptor"].get("/FontFamily")) for font in held if "/FontDescriptor" in font}


def images(holder) -> int:
    """How many images a sheet draws, those in its forms too; pypdf's own list reads every stroke of the sheet first."""
    held = holder.get("/Resources", {}).get_object().get("/XObject", {}).values()
    return sum(one["/Subtype"] == "/Image" or images(one) for one in (x.get_object() for x in held))


def flat(marks) -> Iterator:
    for mark in marks:
        yield from flat(mark) if isinstance(mark, list) else [mark]


def test_the_printed_book_has_every_page_its_words_formulas_and_pictures(pdf, site):
    """To read a sheet takes long: headings are looked up in the bookmarks, words on the first, middle and last sheet of
    a page, and explanations from the heading above the first question on."""
    marks = [one for one in pdf.outline if not isinstance(one, list)]
    below = [(words(mark.title), pdf.get_destination_page_number(mark)) for mark in flat(pdf.outline)]
    starts = [pdf.get_destination_page_number(mark) for mark in marks]
    files = [Path(file).name for file in book_print().toc_files()]
    titles = [static(site, file).h1.get_text().rstrip("#") for file in files]
    assert [words(mark.title) for mark in marks] == [words(title) for title in titles]
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    text = functools.cache(lambda sheet: pdf.pages[sheet].extract_text())
    for file, start, end in zip(files, starts, [*starts[1:], len(pdf.pages)], strict=True):
        page = static(site, file)
        places = {title: sheet for title, sheet in below if start <= sheet < end}
        assert places.keys() >= {words(heading.get_text().rstrip("#")) for heading in page.select("article h2")}
        for sheet in {start, (start + end) // 2, end - 1}:
            assert text(sheet).split()[0] == str(sheet + 1)
            assert not re.search(r"\\(\(|frac)", text(sheet))
        if question := page.select_one("article .question"):
            asked = places[words(question.find_previous("h2").get_text().rstrip("#"))]
            assert any("Right." in text(sheet) for sheet in range(asked, end)), "explanations are open"
        drawn = any(font.startswith("MathJax") for font in fonts(pdf.pages[start:end]))
        assert drawn == bool(page.select("article .math")), "formulas are drawn, on every page that has some"
        if file in CHAPTERS:
            assert sum(map(images, pdf.pages[start:end])) >= len(page.select("article .cell_output img"))


def test_a_link_inside_the_book_stays_inside_the_printed_book(pdf):
    """... and one of a page's own list of contents inside that page, though pages use the same names."""
    links = [(at, note.get_object()) for at, sheet in enumerate(pdf.pages) for note in sheet.get("/Annots", [])]
    addresses = [link["/A"]["/URI"] for _, link in links if "/URI" in link.get("/A", {})]
    assert [address for address in addresses if not address.startswith("http")] == []
    starts = [pdf.get_destination_page_number(mark) for mark in pdf.outline if not isinstance(mark, list)]
    sheets = {sheet.indirect_reference.idnum: at for at, sheet in enumerate(pdf.pages)}
    near, far = [], 0
    for at, link in links:
        if "/Dest" in link:
            to, kind = sheets[link["/Dest"][0].idnum], link["/Dest"][1]
            near += [(at, to)] if kind == "/XYZ" else []
            far += kind == "/Fit"
    assert far > 20
    assert len(near) > 50
    assert all(bisect(starts, at) == bisect(starts, to) for at, to in near)
