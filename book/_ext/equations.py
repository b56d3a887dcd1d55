"""Ties formula, code and tests on the pages: links below the paper's equations, their table, the API page.

Nothing is imported, everything is read: the docstrings of mbib_core, the markers of the tests, the labels of the pages.
A docstring implements an equation that its first paragraph names ("Eq. 8", "Eqs. 4 to 7"), or that it states later as
"Eq. 3: ...". Every other mention, and a possessive ("Eq. 1's beta"), is a reference only.
"""

import ast
import json
import re
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PACKAGE, API_WIDTH = (
    "mbib_core",
    44,
)  # characters; a longer signature has one argument a line
MENTION = re.compile(
    r"\bEqs?\. \d+(?!\.?\d)(?:(?:, and |, or |, | and | or | to )\d+(?!\.?\d))*"
)
CODE = re.compile(r"(``.+?``|`[^`]+`)", re.S)
ARGUMENT = re.compile(
    r"\n(?=[\w*]+(?:, [\w*]+)*(?: \[[^\]]+\])?: )"
)  # "p_xy [X, Y]: ..."
Function = ast.FunctionDef | ast.ClassDef


# ---------------------------------------------------------------- what is read


class Place(NamedTuple):
    """A function, class or test: its dotted name, its file from the top folder, its lines."""

    name: str
    file: str
    first: int
    last: int


class Module(NamedTuple):
    """A module of the package: its name, its file from the top folder, its source and that as a tree."""

    name: str
    file: str
    source: str
    tree: ast.Module


class Project(NamedTuple):
    """Who names which of the paper's equations; `mentioned` holds every number that a docstring names at all."""

    functions: dict[int, list[Place]]
    tests: dict[int, list[Place]]
    labels: dict[int, list[str]]  # pages, without their endings, from the top folder
    mentioned: set[int]
    files: list[str]  # from which all of this was read


def numbers(mention: str) -> list[int]:
    """The equations that "Eqs. 4 to 7 and 9" names, "to" filled in."""
    found: list[int] = []
    for joint, number in re.findall(r"(to )?(\d+)", mention):
        found += range(found[-1] + 1 if joint else int(number), int(number) + 1)
    return found


def implemented(docstring: str) -> set[int]:
    """The equations that the function with this docstring implements (see the top of this file)."""
    first, found = docstring.split("\n\n")[0], set()
    for mention in MENTION.finditer(docstring):
        after = docstring[mention.end() : mention.end() + 2]
        stated = after.startswith(":") or mention.end() <= len(first)
        if stated and after not in ("'s", "’s"):
            found.update(numbers(mention[0]))
    return found


def modules(root: Path) -> list[Module]:
    """The modules of the package that say something of themselves, in the order of their names."""
    found = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        file = path.relative_to(root).as_posix()
        name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        found.append(Module(name, file, source, ast.parse(source)))
    return found


def public(body: list[ast.stmt]) -> list[Function]:
    """The functions and classes of a module, or the methods of a class, whose names have no underscore in front."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [x for x in body if isinstance(x, kinds) and not x.name.startswith("_")]


def place(node: Function, prefix: str, file: str) -> Place:
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return Place(f"{prefix}.{node.name}", file, first, node.end_lineno or first)


def marked(node: ast.AST) -> list[int]:
    """The numbers of a test's `@pytest.mark.equation(...)` lines."""
    found = []
    for decorator in getattr(node, "decorator_list", []):
        if ast.unparse(decorator).startswith("pytest.mark.equation("):
            found += [ast.literal_eval(argument) for argument in decorator.args]
    return found


def markdown_of(page: Path) -> str:
    """The Markdown of a page, or of a notebook's Markdown cells."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "markdown"]
    return "\n\n".join("".join(cell["source"]) for cell in cells)


@lru_cache
def read_project(root: Path) -> Project:
    """The three ends of the tie, as the files below `root` have them now (read once a process)."""
    functions, tests, labels = defaultdict(list), defaultdict(list), defaultdict(list)
    mentioned: set[int] = set()
    for module in modules(root):
        known = public(module.tree.body)
        for node in [module.tree, *known]:
            docstring = ast.get_docstring(node) or ""
            mentioned |= {n for m in MENTION.findall(docstring) for n in numbers(m)}
            if node is not module.tree:
                for number in implemented(docstring):
                    functions[number].append(place(node, module.name, module.file))
    test_files = sorted((root / "tests").glob("test_*.py"))
    for path in test_files:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for number in marked(node):
                file = path.relative_to(root).as_posix()
                tests[number].append(place(node, path.stem, file))
    pages = sorted([*(root / "book").glob("*.md"), *(root / "book").glob("*.ipynb")])
    for path in pages:
        for number in re.findall(r"^\(eq-(\d+)\)=\s*$", markdown_of(path), re.M):
            labels[int(number)].append(
                path.relative_to(root).with_suffix("").as_posix()
            )
    files = [m.file for m in modules(root)]
    files += [path.relative_to(root).as_posix() for path in [*test_files, *pages]]
    return Project(dict(functions), dict(tests), dict(labels), mentioned, files)


# ---------------------------------------------------------------- source and docstrings, as they are shown


def signature(node: Function, source: str, indent: str = "") -> str:
    """A function's or method's head in one line, or in a line for each argument where that is too long."""

    def piece(part: ast.AST) -> str:
        return re.sub(r"\s+", " ", ast.get_source_segment(source, part) or "")

    if isinstance(node, ast.ClassDef):
        return class_head(node, source)
    args = node.args
    plain = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain) - len(args.defaults)) + list(args.defaults)
    pairs = list(zip(plain, defaults, strict=True))
    shown = [joined(piece(a), piece(d) if d else "") for a, d in pairs]
    if args.vararg:
        shown.append(f"*{piece(args.vararg)}")
    elif args.kwonlyargs:
        shown.append("*")
    for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        shown.append(joined(piece(a), piece(d) if d else ""))
    if args.kwarg:
        shown.append(f"**{piece(args.kwarg)}")
    ending = f") -> {piece(node.returns)}" if node.returns else ")"
    marks = [f"{indent}@{piece(d)}\n" for d in node.decorator_list]
    line = f"{indent}def {node.name}({', '.join(shown)}{ending}"
    if len(line) > API_WIDTH and shown not in ([], ["self"]):
        rows = "".join(f"{indent}    {argument},\n" for argument in shown)
        line = f"{indent}def {node.name}(\n{rows}{indent}{ending}"
    return "".join(marks) + line


def joined(argument: str, default: str) -> str:
    if not default:
        return argument
    return f"{argument} = {default}" if ":" in argument else f"{argument}={default}"


def class_head(node: ast.ClassDef, source: str) -> str:
    """A class: its decorators and bases, its fields, and the heads of its public methods and of __init__."""
    marks = [f"@{ast.get_source_segment(source, d)}" for d in node.decorator_list]
    bases = ", ".join(ast.get_source_segment(source, b) or "" for b in node.bases)
    lines = [*marks, f"class {node.name}({bases}):" if bases else f"class {node.name}:"]
    for item in node.body:
        if isinstance(item, ast.AnnAssign):
            lines.append(f"    {ast.get_source_segment(source, item)}")
        elif isinstance(item, ast.FunctionDef) and (
            item.name == "__init__" or not item.name.startswith("_")
        ):
            lines += ["", signature(item, source, "    ")]
    return "\n".join(lines)


def aliases(module: Module) -> str:
    """The names for array types that a module's public signatures use, as code."""
    heads = " ".join(signature(x, module.source) for x in public(module.tree.body))
    lines = []
    for node in module.tree.body:
        match node:
            case ast.Assign([ast.Name(name)], ast.Subscript() | ast.BinOp()):
                pass
            case _:
                continue
        if re.fullmatch("[A-Z][a-z]+", name) and re.search(rf"\b{name}\b", heads):
            lines.append(ast.get_source_segment(module.source, node))
    return "\n".join(lines)


def as_markdown(docstring: str, linked: set[int]) -> str:
    """A docstring as Markdown: text in backquotes is code, "Eq. 8" a link where there is such a label, examples
    are code blocks, an argument that begins a line keeps it, and no other character of it means anything."""

    def link(mention: re.Match) -> str:
        def known(number: re.Match) -> str:
            n = int(number[1])
            return f"[{number[0]}](#eq-{n})" if n in linked else number[0]

        return re.sub(r"(?:Eqs?\. )?(\d+)", known, mention[0])

    def prose(text: str) -> str:
        text = re.sub(r"([\\*_$\[\]{}<>|#~^])", r"\\\1", text)
        return MENTION.sub(link, re.sub(r"^([-+=])", r"\\\1", text, flags=re.M))

    blocks = []
    for block in docstring.split("\n\n"):
        if block.startswith(">>> "):
            blocks.append(f"```pycon\n{block}\n```")
        else:
            parts = CODE.split(ARGUMENT.sub("\0\n", block))
            parts[::2] = [prose(part) for part in parts[::2]]
            blocks.append("".join(parts).replace("\0", "\\"))
    return "\n\n".join(blocks)


# ---------------------------------------------------------------- links


def address(app: Sphinx, spot: Place) -> str:
    """The lines of `spot` in the repository that _config.yml names: on main, of which the pages are made."""
    repository = app.config.html_theme_options["repository_url"]
    return f"{repository}/blob/main/{spot.file}#L{spot.first}-L{spot.last}"


def labelled(app: Sphinx) -> dict[int, list[str]]:
    """The pages that label each equation, of those that are built."""
    found = read_project(Path(app.srcdir)).labels.items()
    return {
        n: here
        for n, all_ in found
        if (here := [p for p in all_ if p in app.env.found_docs])
    }


def function_link(name: str, docname: str) -> nodes.Node:
    """The short name of a function, linked to its entry on the API page."""
    code = nodes.literal("", name.rpartition(".")[2])
    options = {"refdomain": "py", "reftype": "obj", "reftarget": name}
    return pending_xref(
        "", code, refexplicit=True, refwarn=True, refdoc=docname, **options
    )


def label_link(number: int, text: str, docname: str) -> nodes.Node:
    options = {"refdomain": "std", "reftype": "ref", "reftarget": f"eq-{number}"}
    words = nodes.inline("", text)
    return pending_xref(
        "", words, refexplicit=True, refwarn=True, refdoc=docname, **options
    )


def listed(items: list[nodes.Node]) -> list[nodes.Node]:
    """The items with commas between them."""
    return [x for item in items for x in (item, nodes.Text(", "))][:-1]


def tests_folded(app: Sphinx, tests: list[Place]) -> list[nodes.Node]:
    """How many tests there are, and what each protects, with a link to it, behind a fold."""
    word = f"{len(tests)} test" + "s" * (len(tests) > 1)
    entries = nodes.bullet_list(bullet="-")
    for test in tests:
        said = test.name.partition(".test_")[2].replace("_", " ")
        link = nodes.reference("", said, refuri=address(app, test), internal=False)
        entries += nodes.list_item("", nodes.paragraph("", "", link))
    start = nodes.raw("", f"<details><summary>{word}</summary>", format="html")
    return [start, entries, nodes.raw("", "</details>", format="html")]


def ends(
    app: Sphinx, found: list[int], docname: str, none: str = ""
) -> list[nodes.Node]:
    """The functions and the tests of these equations, as blocks; `none` is what is said where there is no function."""
    project = read_project(Path(app.srcdir))
    functions = dict.fromkeys(f for n in found for f in project.functions.get(n, []))
    tests = list(dict.fromkeys(t for n in found for t in project.tests.get(n, [])))
    if functions:
        code = listed([function_link(f.name, docname) for f in functions])
        told = [nodes.paragraph("", "", nodes.Text("In code: "), *code)]
    else:
        told = [nodes.paragraph("", none)] if none else []
    return [*told, *(tests_folded(app, tests) if tests else [])]


def depend_on(app: Sphinx) -> None:
    """The page that is being read is read again when anything that its links come from changes."""
    for file in read_project(Path(app.srcdir)).files:
        app.env.note_dependency(str(Path(app.srcdir) / file))


def add_lines(app: Sphinx, doctree: nodes.document) -> None:
    """Below each formula that is labelled (eq-8)=: its functions and its tests."""
    runs: dict[nodes.Node, list[int]] = {}
    for target in doctree.findall(nodes.target):
        number = re.fullmatch(r"eq-(\d+)", target.get("refid", ""))
        after = target
        while number and isinstance(after, nodes.target):
            after = after.next_node(descend=False, siblings=True)
        if number and isinstance(after, nodes.math_block):
            runs.setdefault(after, []).append(int(number[1]))
    for formula, found in runs.items():
        line = nodes.compound(
            "", *ends(app, found, app.env.docname), classes=["equation-ends"]
        )
        formula.parent.insert(formula.parent.index(formula) + 1, line)
    if runs:
        depend_on(app)


# ---------------------------------------------------------------- directives


class Equations(SphinxDirective):
    """A Markdown table whose first column holds equation numbers, with a column for the place and one for the code."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        holder = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, holder)
        (table,) = holder.findall(nodes.table)
        (group,) = table.findall(nodes.tgroup)
        table["classes"].append("equations")
        head, body = group[-2], group[-1]
        for _ in range(2):
            group.insert(group.index(head), nodes.colspec(colwidth=20))
        group["cols"] += 2
        for title in ("Where", "Code and tests"):
            head[0] += nodes.entry("", nodes.paragraph("", title))
        for row in body:
            number = int(row[0].astext())
            row["ids"].append(f"row-{number}")
            where = nodes.paragraph("", "", *(self.where(number) or [nodes.Text("–")]))
            row += nodes.entry("", where)
            derived = "A derivation, no code of its own"
            own = ends(self.env.app, [number], self.env.docname, derived)
            row += nodes.entry("", *own)
        depend_on(self.env.app)
        return list(holder.children)

    def where(self, number: int) -> list[nodes.Node]:
        found = []
        for page in labelled(self.env.app).get(number, []):
            chapter = re.match(r"book/(\d+)_", page)
            text = f"Chapter {int(chapter[1])}" if chapter else "below"
            if page != self.env.docname and not chapter:
                text = Path(page).stem
            found.append(label_link(number, text, self.env.docname))
        return listed(found)


class Api(SphinxDirective):
    """The public functions and classes of the package, module by module: signature, docstring, link to the source."""

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        self.labelled = set(labelled(self.env.app))
        documented = [m for m in modules(root) if public(m.tree.body)]
        self.known = {
            f"{m.name}.{x.name}" for m in documented for x in public(m.tree.body)
        }
        depend_on(self.env.app)
        return [self.module(module) for module in documented]

    def section(self, name: str, title: str, kind: str) -> nodes.section:
        heading = nodes.title("", "", nodes.literal("", title))
        section = nodes.section("", heading, ids=[name], names=[name])
        self.state.document.note_explicit_target(section)
        self.env.domains["py"].note_object(name, kind, name, location=section)
        return section

    def module(self, module: Module) -> nodes.section:
        section = self.section(module.name, module.name, "module")
        section += self.prose(ast.get_docstring(module.tree) or "", module.name)
        if shapes := aliases(module):
            section += nodes.paragraph("", "In the signatures:")
            section += nodes.literal_block(shapes, shapes, language="python")
        for node in public(module.tree.body):
            section += self.member(node, module)
        return section

    def member(self, node: Function, module: Module) -> nodes.section:
        spot = place(node, module.name, module.file)
        kind = "class" if isinstance(node, ast.ClassDef) else "function"
        section = self.section(spot.name, node.name, kind)
        head = signature(node, module.source)
        section += nodes.literal_block(head, head, language="python")
        section += self.prose(ast.get_docstring(node) or "", spot.name)
        if isinstance(node, ast.ClassDef):
            section += self.methods(node, module)
        source = address(self.env.app, spot)
        words = f"{spot.file}, lines {spot.first} to {spot.last}"
        link = nodes.reference("", words, refuri=source, internal=False)
        section += nodes.paragraph("", "", link, classes=["api-source"])
        return section

    def methods(self, node: ast.ClassDef, module: Module) -> list[nodes.Node]:
        """The docstrings of a class's public methods, as a list of definitions."""
        found = nodes.definition_list()
        for method in public(node.body):
            if docstring := ast.get_docstring(method):
                term = nodes.term("", "", nodes.literal("", method.name))
                said = self.prose(docstring, f"{module.name}.{node.name}")
                found += nodes.definition_list_item(
                    "", term, nodes.definition("", *said)
                )
        return [found] if found.children else []

    def prose(self, docstring: str, name: str) -> list[nodes.Node]:
        """A docstring's nodes; what it names of the package in backquotes, besides itself, is linked."""
        holder = nodes.Element()
        lines = as_markdown(docstring, self.labelled).splitlines()
        self.state.nested_parse(StringList(lines, name), 0, holder)
        module = ".".join(name.split(".")[:2])
        for code in list(holder.findall(nodes.literal)):
            for full in (f"{module}.{code.astext()}", f"{PACKAGE}.{code.astext()}"):
                if full in self.known and full != name:
                    code.replace_self(function_link(full, self.env.docname))
                    break
        return list(holder.children)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("equations", Equations)
    app.add_directive("api", Api)
    app.add_css_file("equations.css")
    app.connect("doctree-read", add_lines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
