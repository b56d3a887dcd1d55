"""A paragraph "Figure: ..." below a picture, or "Table: ..." above a table, becomes its numbered caption.

It may come from a cell (`figures.show`, `notebook.table`) or stand in Markdown; notebooks show it as it is. A comment
at its end, <!-- fig-tail -->, is what {numref} refers to.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

log = logging.getLogger(__name__)
NAME = re.compile(r"<!--\s*([\w-]+)\s*-->\s*$")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(Captions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Captions(SphinxTransform):
    default_priority = 400  # before Sphinx collects labels and numbers

    def apply(self, **_) -> None:
        for paragraph in list(self.document.findall(nodes.paragraph)):
            kind, colon, _ = paragraph.astext().partition(": ")
            if (
                colon
                and kind in ("Figure", "Table")
                and isinstance(paragraph[0], nodes.Text)
            ):
                self.caption(paragraph, kind)

    def caption(self, paragraph: nodes.paragraph, kind: str) -> None:
        unit = whole_output(paragraph)
        parent, place = unit.parent, unit.parent.index(unit)
        other = place - 1 if kind == "Figure" else place + 1
        owner = parent[other] if 0 <= other < len(parent) else None
        if kind == "Table" and owner is not None:
            owner = next(owner.findall(nodes.table), None)
        if owner is None:
            where = "below a picture" if kind == "Figure" else "above a table"
            log.warning(
                f"a caption must stand {where}: {paragraph.astext()[:60]!r}",
                location=paragraph,
            )
            return
        text, name = without_mark(paragraph, kind)
        if kind == "Figure":
            figure = nodes.figure("", classes=["captioned"])
            owner.parent.replace(owner, figure)
            figure += [owner, nodes.caption("", "", *text)]
            owner = figure
        else:
            owner.insert(0, nodes.title("", "", *text))
        parent.remove(unit)
        if name:
            owner["names"].append(name)
            self.document.note_explicit_target(owner, owner)
        else:
            self.document.set_id(owner)


def whole_output(node: nodes.Element) -> nodes.Element:
    """The output of a cell that `node` is all of, or `node` itself where it stands in Markdown."""
    while "mime_type" in node.parent or node.parent.get("nb_element") == "mime_bundle":
        node = node.parent
    return node


def without_mark(paragraph: nodes.paragraph, kind: str) -> tuple[list[nodes.Node], str]:
    """The caption's nodes without "Figure: " and without the name at their end, and that name or ""."""
    first, *rest = paragraph.children
    name = (
        NAME.fullmatch(rest[-1].astext())
        if rest and isinstance(rest[-1], nodes.raw)
        else None
    )
    return [
        nodes.Text(first.astext().removeprefix(f"{kind}: ")),
        *rest[: -1 if name else None],
    ], name[1] if name else ""
