"""What a link shows before it is followed: equations, works, terms and symbols, for _static/hover.js.

In the prose "Eq. (8)" and (3.5) become links to their formulas, and the first use of a term in a section a link to the
glossary. What all these links lead to is written into _static/hover-data.js, which a page asks for when it is needed.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

GLOSSARY, WORKS = "book/notation", "book/references"
PROSE = re.compile(r"book/(\d\d_\w+|intro|the_field|what_the_paper_leaves_open)$")
TAG = re.compile(r"\\tag\{([\d.]+)\}")
NUMBER = r"\(?\d+(?:\.\d+)?\)?"
MENTION = re.compile(
    rf"\bEqs?\.[ \u00a0]{NUMBER}(?:(?:, and |, or |, | and | or | to ){NUMBER})*(?![\d.]*\d)"
    r"|\(\d\.\d+\)"
)
ONE = re.compile(r"(?:Eqs?\.[ \u00a0])?\(?(\d+(?:\.\d+)?)\)?")
# Words that mean something else as well, such as the rate of learning.
AMBIGUOUS = {"rate", "probe", "shots"}
# Terms that a chapter uses in another sense: the prior of a variational bound, "prior works".
OTHER_SENSE = {"01": {"observation"}, "04": {"prior"}, "08": {"prior"}}
NOT_IN = (
    nodes.reference,
    nodes.literal,
    nodes.math,
    nodes.title,
    nodes.raw,
    nodes.literal_block,
)
GREEK = dict(
    zip(
        ["alpha", "beta", "gamma", "eta", "mu", "pi", "rho", "sigma", "tau", "zeta"],
        "αβγημπρστζ",
        strict=True,
    )
)
# Which of the three betas a chapter means, as an item of the list on the glossary's page.
BETA = {"03": 0, "04": 0, "05": 2, "06": 2, "07": 2, "08": 2, "09": 2, "10": 2}


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", note_equations)
    app.connect("env-purge-doc", forget_equations)
    app.connect("env-merge-info", merge_equations)
    app.connect("doctree-resolved", link_prose)
    app.connect("build-finished", write_data)
    app.add_css_file("hover.css")
    app.add_js_file("hover.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# ---------------------------------------------------------------- equations, wherever they stand


def equations(env: BuildEnvironment) -> dict[str, dict[str, tuple[str, str]]]:
    """By page, then by number: the name of the formula's place, and its TeX."""
    if not hasattr(env, "book_equations"):
        env.book_equations = {}
    return env.book_equations


def note_equations(app: Sphinx, doctree: nodes.document) -> None:
    found = equations(app.env).setdefault(app.env.docname, {})
    for block in doctree.findall(nodes.math_block):
        for number in TAG.findall(block.astext()):
            paper = f"eq-{number}"
            if not block["ids"]:
                block["ids"].append(f"equation-{number.replace('.', '-')}")
            name = paper if paper in block["ids"] else block["ids"][0]
            if number not in found or name == paper:
                found[number] = (name, block.astext())


def forget_equations(_: Sphinx, env: BuildEnvironment, docname: str) -> None:
    equations(env).pop(docname, None)


def merge_equations(
    _: Sphinx, env: BuildEnvironment, docnames: list[str], other: BuildEnvironment
) -> None:
    mine, theirs = equations(env), equations(other)
    mine.update({name: theirs[name] for name in docnames if name in theirs})


def place_of(env: BuildEnvironment, number: str, docname: str) -> tuple[str, str]:
    """The page and the name of a formula: on this page where it has it, else where the paper's label stands."""
    pages = {
        page: here[number][0] for page, here in equations(env).items() if number in here
    }
    labelled = [page for page, name in pages.items() if name == f"eq-{number}"]
    page = next((p for p in (docname, *labelled, *sorted(pages)) if p in pages), "")
    return page, pages.get(page, "")


# ---------------------------------------------------------------- links in the prose


def link_prose(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if not PROSE.match(docname) or app.builder.format != "html":
        return
    objects = app.env.get_domain("std").objects
    terms = {
        name: where[1] for (kind, name), where in objects.items() if kind == "term"
    }
    other = AMBIGUOUS | OTHER_SENSE.get(docname.removeprefix("book/")[:2], set())
    usual = sorted(terms.keys() - other, key=len, reverse=True)
    words = (
        re.compile(rf"\b({'|'.join(map(re.escape, usual))})s?\b", re.I)
        if usual
        else None
    )
    by_lower = {name.lower(): label for name, label in terms.items()}
    seen: dict[nodes.Node, set[str]] = {}

    def equation(match: re.Match) -> Iterator[nodes.Node]:
        at = 0
        for one in ONE.finditer(match[0]):
            page, name = place_of(app.env, one[1], docname)
            yield nodes.Text(match[0][at : one.start()])
            yield (
                link(app, docname, page, name, one[0], "mention")
                if page
                else nodes.Text(one[0])
            )
            at = one.end()
        yield nodes.Text(match[0][at:])

    for text in list(doctree.findall(nodes.Text)):
        above = list(ancestors(text))
        if not text.astext() or any(isinstance(node, NOT_IN) for node in above):
            continue
        parts = replaced([text], MENTION, equation)
        paragraph = next((n for n in above if isinstance(n, nodes.paragraph)), None)
        table = any(isinstance(node, (nodes.table, nodes.field_list)) for node in above)
        if words and paragraph is not None and not table:
            sections = [node for node in above if isinstance(node, nodes.section)]
            mine = seen.setdefault(
                sections[-2] if len(sections) > 1 else doctree, set()
            )

            def term(match: re.Match, mine=mine) -> Iterator[nodes.Node]:
                label = by_lower[match[1].lower()]
                if label in mine:
                    yield nodes.Text(match[0])
                else:
                    mine.add(label)
                    yield link(app, docname, GLOSSARY, label, match[0], "term")

            parts = replaced(parts, words, term)
        if len(parts) > 1 or parts[0] is not text:
            text.parent.replace(text, parts)


def ancestors(node: nodes.Node) -> Iterator[nodes.Node]:
    """From the innermost outwards."""
    while (node := node.parent) is not None:
        yield node


def replaced(
    parts: list[nodes.Node], pattern: re.Pattern, new: Any
) -> list[nodes.Node]:
    """`parts` with what matches in their texts replaced by the nodes of `new(match)`."""
    found: list[nodes.Node] = []
    for part in parts:
        if not isinstance(part, nodes.Text):
            found.append(part)
            continue
        text, at = part.astext(), 0
        matches = list(pattern.finditer(text))
        for match in matches:
            found += [nodes.Text(text[at : match.start()]), *new(match)]
            at = match.end()
        found += [nodes.Text(text[at:])] if matches else [part]
    return [part for part in found if not isinstance(part, nodes.Text) or part.astext()]


def link(
    app: Sphinx, docname: str, page: str, name: str, words: str, kind: str
) -> nodes.Node:
    here = "" if page == docname else app.builder.get_relative_uri(docname, page)
    classes = {"classes": [kind]}
    return nodes.reference("", words, internal=True, refuri=f"{here}#{name}", **classes)


# ---------------------------------------------------------------- what the links lead to


def write_data(app: Sphinx, error: Exception | None) -> None:
    """_static/hover-data.js: what is shown, by address from the top of the site, and of symbols by their letters."""
    if error or app.builder.format != "html":
        return
    notes = {
        f"{page}.html#{name}": f'<p class="of">Eq. ({number})</p><div class="math">\\[{escaped(tex)}\\]</div>'
        for page, here in sorted(equations(app.env).items())
        for number, (name, tex) in here.items()
    }
    out = Path(app.outdir)
    symbols, betas = {}, []
    if (page := out / f"{WORKS}.html").is_file():
        for work in soup(page).select("div.citation"):
            notes[f"{WORKS}.html#{work['id']}"] = inner(*work.select("p"))
    if (page := out / f"{GLOSSARY}.html").is_file():
        glossary = soup(page)
        for term in glossary.select("dl.glossary dt[id]"):
            words, meaning = term.get_text().rstrip("#"), term.find_next("dd")
            notes[f"{GLOSSARY}.html#{term['id']}"] = (
                f'<p class="of">{words}</p>{inner(meaning)}'
            )
        for row in glossary.select("#symbols tbody tr"):
            symbol, meaning = row.select("td")
            told = f"<p>{inner(symbol.p or symbol)}: {inner(meaning.p or meaning)}</p>"
            for key in keys(symbol.get_text()):
                symbols.setdefault(key, []).append(told)
        betas = [
            inner(item.p or item) for item in glossary.select("#three-betas ol > li")
        ]
    data = {
        "notes": notes,
        "symbols": {key: rows[0] for key, rows in symbols.items() if len(rows) == 1},
        "betas": {chapter: betas[i] for chapter, i in BETA.items() if i < len(betas)},
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    static = out / "_static" / "hover-data.js"
    static.write_text(f"window.hoverData={text};\n", encoding="utf-8", newline="\n")


def soup(page: Path):
    from bs4 import BeautifulSoup

    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def inner(*elements) -> str:
    """The HTML within; links stay words, since a reader cannot get to them, and marks for links go."""
    for element in elements:
        for mark in element.select(".headerlink, .fn-backref"):
            mark.decompose()
        for anchor in element.select("a"):
            anchor.unwrap()
        for node in element.select("[id]"):
            del node["id"]
    return "".join(element.decode_contents().strip() for element in elements)


def escaped(tex: str) -> str:
    return tex.replace("&", "&amp;").replace("<", "&lt;")


def keys(symbols: str) -> Iterator[str]:
    r"""What a symbol's letters look like when it is drawn: \(v_1, v_2\) gives v_1 and v_2, \(\mu(x)\) gives μ."""
    for tex in re.findall(r"\\\((.+?)\\\)", symbols):
        for one in re.split(r",\s*", tex):
            plain = re.sub(r"\\(?:text|mathrm|mathcal)\b", "", one)
            plain = re.sub(r"\\([a-zA-Z]+)", lambda m: GREEK.get(m[1], "?"), plain)
            plain = re.sub(r"\^\w|[{}\s]", "", plain)
            key = re.match(r"(\w+?(?:_\w+)?)(?:\(.*)?$", plain)
            if key and "?" not in plain.partition("(")[0]:
                yield key[1]
