"""Folded code cells that follow one another fold into one: a reader sees one "Code" above a picture, not a stack."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(Folds)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Folds(SphinxTransform):
    default_priority = 401

    def apply(self, **_) -> None:
        for cell in list(self.document.findall(folded)):
            merge(cell)


def folded(node: nodes.Node) -> bool:
    """Whether `node` is a code cell of which the page hides the code alone, and no exercise."""
    return (
        isinstance(node, nodes.container)
        and node.get("nb_element") == "cell_code"
        and node.get("hide_mode") == "input"
        and "tag_check" not in node["classes"]
    )


def merge(cell: nodes.container) -> None:
    """Moves the code of `cell` to the front of the folded cell right behind it, if `cell` itself shows nothing."""
    place = cell.parent.index(cell) + 1
    after = cell.parent[place] if place < len(cell.parent) else None
    code, *output = cell.children
    if (
        after is None
        or not folded(after)
        or any(
            part.astext().strip() or any(part.findall(nodes.image)) for part in output
        )
    ):
        return
    after[0].children[:0] = code.children
    for block in code.children:
        block.parent = after[0]
    cell.parent.remove(cell)
