"""The built pages in a real browser with the network cut: drawn formulas, no errors, nothing wider than a phone."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
TOP = Path(__file__).parents[1]
PAGES = sorted(p.stem for p in (TOP / "book").iterdir() if p.suffix in (".md", ".ipynb"))


@pytest.fixture(scope="module", params=["light", "dark"])
def open_page(request, browser, site):
    """Opens a page, 375 pixels wide; returns it with what went wrong and what it asked of other hosts."""
    context = browser.new_context(color_scheme=request.param, viewport={"width": 375, "height": 800})
    context.set_offline(True)

    def opened(name: str):
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url))
        page.goto((site / f"{name}.html").as_uri())
        own_mathjax = (site.parent / "_static" / "mathjax" / "tex-chtml-full.js").is_file()
        if own_mathjax:
            page.evaluate("window.MathJax?.startup?.promise")  # a promise is waited for
        return page, wrong, own_mathjax

    yield opened
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_nobody_draws_its_formulas_and_fits_a_phone(open_page, name):
    page, wrong, own_mathjax = open_page(name)
    if own_mathjax:
        assert wrong == []
        assert "\\(" not in page.inner_text("article")
        assert page.locator("mjx-merror").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    images = page.locator("article img")
    assert all(images.nth(i).get_attribute("alt") for i in range(images.count()))
    page.close()
