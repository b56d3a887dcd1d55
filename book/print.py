"""The whole book as one PDF, printed page by page from the built site by headless Chromium.

    python book/print.py [SITE] [FILE]     SITE: _build/html unless told, FILE: SITE/book.pdf unless told

The pages come in the order of _toc.yml, numbered throughout, with a bookmark for each page and its sections; a link
from page to page stays inside the file. What paper needs of the look stands in _static/print.css.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120_000  # milliseconds a page
READY = """async () => {
    await window.MathJax?.startup?.promise;
    await Promise.all([...document.images].map(image => image.decode().catch(() => {})));
    await document.fonts.ready;
}"""


def toc_files(root: Path = ROOT) -> list[str]:
    """The pages of the book, as _toc.yml names them, in order."""

    def found(entry: dict) -> Iterator[str]:
        if "file" in entry:
            yield entry["file"]
        for key in ("parts", "chapters", "sections"):
            for child in entry.get(key, []):
                yield from found(child)

    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *found(toc)]


def chromium() -> str | None:
    """The machine's own Chromium; None for the one that Playwright brings."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def print_book(site: Path, file: Path, root: Path = ROOT) -> int:
    """Prints the built pages of `site` into `file` and returns how many sheets it has.

    Raises SystemExit where a page has not been built.
    """
    from playwright.sync_api import sync_playwright
    from pypdf import PdfReader, PdfWriter

    pages = [site / f"{name}.html" for name in toc_files(root)]
    for page in pages:
        if not page.is_file():
            raise SystemExit(
                f"{page} is not there: build the book first, jupyter-book build ."
            )
    book, first, names = PdfWriter(), {}, {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"]
        )
        tab = browser.new_page(color_scheme="light")
        tab.set_default_timeout(PATIENCE)
        for page in pages:
            first[page.resolve().as_uri()] = len(book.pages)
            tab.goto(page.resolve().as_uri())
            tab.evaluate(READY)
            # The sheets before this page; Chromium counts on from here.
            tab.add_style_tag(content=f"html {{ counter-set: page {len(book.pages)} }}")
            file_of_page = Path(folder) / f"{page.stem}.pdf"
            tab.pdf(
                path=file_of_page,
                prefer_css_page_size=True,
                print_background=True,
                outline=True,
                tagged=True,
            )
            part = PdfReader(file_of_page)
            names[len(book.pages)] = {
                name: (part.get_destination_page_number(place), int(place.top))
                for name, place in part.named_destinations.items()
            }
            book.append(part)  # with its headings as bookmarks
        browser.close()
    keep_links(book, first, names)
    book.metadata = {"/Title": "Balanced Information Bottlenecks"}
    book.write(file)
    return len(book.pages)


def keep_links(book, first: dict[str, int], names: dict[int, dict]) -> None:
    """Turns links into places of this file; changes `book`.

    Within a page Chromium names the place (`names`: by the page's first sheet), and two pages may use one name.
    To another page it gives a file's address (`first`: its first sheet), where that page begins is near enough.
    """
    from pypdf.generic import ArrayObject, NameObject, NullObject, NumberObject

    start = 0
    for number, sheet in enumerate(book.pages):
        start = number if number in names else start
        for annotation in sheet.get("/Annots", []):
            link = annotation.get_object()
            target = link["/A"].get("/URI", "") if "/A" in link else ""
            if urlsplit(target).scheme == "file":
                del link["/A"]
                at = first.get(urlsplit(target)._replace(fragment="").geturl())
                fit = [NameObject("/Fit")]
            elif link.get("/Dest") in names[start]:
                place, top = names[start][link["/Dest"]]
                at = start + place
                fit = [
                    NameObject("/XYZ"),
                    NullObject(),
                    NumberObject(top),
                    NullObject(),
                ]
            else:
                continue
            if at is not None:
                where = [book.pages[at].indirect_reference, *fit]
                link[NameObject("/Dest")] = ArrayObject(where)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", nargs="?", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("file", nargs="?", type=Path)
    args = parser.parse_args()
    file = args.file or args.site / "book.pdf"
    print(f"{file}: {print_book(args.site, file)} pages")


if __name__ == "__main__":
    main()
