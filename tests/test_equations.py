"""Formula, code and test: each of the paper's equations has all three ends, and the pages' links between them work."""

import ast
import importlib.util
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

bs4 = pytest.importorskip("bs4")
ROOT = Path(__file__).parents[1]
ALL = range(1, 26)
DERIVED = {13, *range(18, 26)}  # an aim and appendix A: nothing to compute, their tests check that they are true
IMPLEMENTED = [n for n in ALL if n not in DERIVED]


def _extension():
    spec = importlib.util.spec_from_file_location("equations", ROOT / "book" / "_ext" / "equations.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


equations = _extension()
MODULES = equations.modules(ROOT)
FUNCTIONS = [
    pytest.param(node, module, id=f"{module.name}.{node.name}")
    for module in MODULES
    for node in ast.walk(module.tree)
    if isinstance(node, ast.FunctionDef)
]


@pytest.fixture(scope="module")
def project():
    return equations.read_project(ROOT)


def faults(project, number: int, *, derived: bool = False) -> list[str]:
    """What is wrong with the ties of one equation, a line each."""
    ends = {"function": project.functions, "test": project.tests, "label": project.labels}
    functions, tests, labels = (end.get(number, []) for end in ends.values())
    found = [f"no {name}" for name, end in ends.items() if not end.get(number) and not (derived and name != "test")]
    if derived and functions:
        found.append("has a function after all")
    if len(labels) > 1:
        found.append(f"labels in {' and '.join(labels)}")
    if tests and number not in project.mentioned:
        found.append(f"no docstring names what {tests[0].name} is marked with")
    return found


# ---------------------------------------------------------------- the three ends


@pytest.mark.parametrize("number", IMPLEMENTED)
def test_an_implemented_equation_has_one_label_a_function_and_a_test(project, number):
    assert faults(project, number) == []


@pytest.mark.parametrize("number", sorted(DERIVED))
def test_a_derivation_has_a_test_and_at_most_one_label(project, number):
    assert faults(project, number, derived=True) == []


def test_nothing_names_an_equation_that_the_paper_does_not_have(project):
    named = {*project.functions, *project.tests, *project.labels, *project.mentioned}
    assert named <= set(ALL)


def test_the_table_has_every_equation_once_and_in_order():
    page = (ROOT / "book" / "equations.md").read_text()
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", page, re.M)] == list(ALL)


LABEL = "(eq-8)=\n\n$$a$$\n"
CODE = {
    "mbib_core/losses.py": '"""Losses."""\n\ndef loss():\n    """Eq. 8: a."""\n',
    "tests/test_a.py": "import pytest\n\n@pytest.mark.equation(8)\ndef test_a():\n    ...\n",
    "book/01_a.md": LABEL,
}


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        ({}, []),
        ({"book/01_a.md": "$$a$$\n"}, ["no label"]),
        ({"book/02_b.md": LABEL}, ["labels in book/01_a and book/02_b"]),
        ({"book/01_a.md": LABEL + LABEL}, ["labels in book/01_a and book/01_a"]),
        ({"tests/test_a.py": "def test_a():\n    ...\n"}, ["no test"]),
        ({"mbib_core/losses.py": 'def loss():\n    """Sums.\n\n    Unlike Eq. 8 this adds."""\n'}, ["no function"]),
        (
            {"mbib_core/losses.py": "def loss():\n    ...\n"},
            ["no function", "no docstring names what test_a.test_a is marked with"],
        ),
    ],
)
def test_a_missing_or_double_end_is_found(tmp_path, damage, fault):
    for file, text in {**CODE, **damage}.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    assert faults(equations.read_project(tmp_path), 8) == fault


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("docstring", "found"),
    [
        ("The loss, Eq. 8.", {8}),
        ("Weighted, Eqs. 4 to 7.", {4, 5, 6, 7}),
        ("Eqs. 11 and 12: a mixture.", {11, 12}),
        ("Eqs. 4, 6 and 9 to 11.", {4, 6, 9, 10, 11}),
        ("What v tells.\n\nEq. 3: I(v;z). Eq. 10: an inequality.", {3, 10}),
        ("A sum.\n\nThis beta is not the beta of Eq. 1. Weighed as in Eq. 11.", set()),
        ("Trivial where Eq. 1's optimum is.", set()),
        ("This book's own Eq. 2.3, and Eq. 12.1.", set()),
        ("Sequences 4 to 7.", set()),
    ],
)
def test_a_docstring_implements_what_it_names_first_or_states(docstring, found):
    assert equations.implemented(docstring) == found


def test_a_docstring_becomes_markdown_in_which_only_code_examples_and_equations_are_special():
    docstring = "a * b * c, $x$, Eqs. 8 to 9, `k * k`.\n\np [X, Y]: one.\nq: two,\nthree.\n\n>>> 1 + 1\n2"
    markdown = equations.as_markdown(docstring, {8})
    assert markdown.split("\n\n") == [
        r"a \* b \* c, \$x\$, [Eqs. 8](#eq-8) to 9, `k * k`.",
        "p \\[X, Y\\]: one.\\\nq: two,\nthree.",
        "```pycon\n>>> 1 + 1\n2\n```",
    ]


@pytest.mark.parametrize(("node", "module"), FUNCTIONS)
def test_a_signature_on_the_page_is_the_functions_own(node, module):
    shown = ast.parse(equations.signature(node, module.source) + ":\n    ...").body[0]
    for part in ("name", "args", "returns", "decorator_list"):
        ours, theirs = ([x] if not isinstance(x, list) else x for x in (getattr(shown, part), getattr(node, part)))
        assert [ast.dump(x) if isinstance(x, ast.AST) else x for x in ours] == [
            ast.dump(x) if isinstance(x, ast.AST) else x for x in theirs
        ]


# ---------------------------------------------------------------- the pages


@pytest.fixture(scope="module")
def read_page(site):
    """The parsed article of a page of the built book, read once."""
    pages = {}

    def read(name: str):
        if name not in pages:
            soup = bs4.BeautifulSoup((site / f"{name}.html").read_text(), "html.parser")
            pages[name] = soup.find("article")
        return pages[name]

    return read


def links(parts) -> list:
    return [a for part in parts for a in part.find_all("a", href=True)]


@pytest.mark.slow
def test_below_each_labelled_formula_are_its_functions_and_its_tests(project, read_page):
    address = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    for number, (page,) in project.labels.items():
        formula = read_page(Path(page).name).find(id=f"eq-{number}")
        line = formula.find_next_sibling("div", class_="equation-ends")
        shown = [a["href"] for a in links([line])]
        for function in project.functions.get(number, []):
            assert f"api.html#{function.name}" in shown
        for test in project.tests[number]:
            lines = f"#L{test.first}-L{test.last}"
            assert f"{address['url']}/blob/main/{test.file}{lines}" in shown


@pytest.mark.slow
def test_the_api_page_has_an_entry_for_every_public_function_and_class(read_page):
    article = read_page("api")
    for module in MODULES:
        for node in equations.public(module.tree.body):
            entry = article.find(id=f"{module.name}.{node.name}")
            assert entry is not None, f"{module.name}.{node.name}"
            first = (ast.get_docstring(node) or "").split(" ")[0]
            assert first.replace("`", "") in entry.get_text().replace("’", "'")


@pytest.mark.slow
def test_every_link_of_the_lines_the_table_and_the_api_page_leads_somewhere(project, read_page, site):
    """Inside the book: the page and the anchor are there. To the repository: the lines hold what the link says."""
    address = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    source = f"{address['url']}/blob/main/"
    chapters = {Path(page).name for found in project.labels.values() for page in found}
    places = {name: read_page(name).find_all("div", class_="equation-ends") for name in chapters}
    places |= {"api": [read_page("api")], "equations": [read_page("equations")]}
    seen = {"source": 0, "book": 0}
    for name, parts in places.items():
        for link in links(parts):
            href = unquote(link["href"])
            if href.startswith(source):
                file, first, last = re.fullmatch(r"(.+)#L(\d+)-L(\d+)", href.removeprefix(source)).groups()
                block = "\n".join((ROOT / file).read_text().splitlines()[int(first) - 1 : int(last)])
                if file.startswith("tests/"):
                    assert f"def test_{link.get_text().replace(' ', '_')}(" in block
                else:
                    entry = link.find_parent("section")["id"].rpartition(".")[2]
                    assert re.search(rf"^(def|class) {entry}\b", block, re.M)
                seen["source"] += 1
            elif not href.startswith("http"):
                page, _, anchor = href.partition("#")
                target = read_page(Path(page).stem if page else name)
                assert not anchor or target.find(id=anchor) is not None, f"{name}: {href}"
                seen["book"] += 1
    assert min(seen.values()) > 50


@pytest.mark.slow
def test_folds_open_by_the_keyboard_and_what_is_in_them_can_be_read(browser, site):
    """Enter opens the fold; contrast and names by axe, in light and in dark."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for mode in ("light", "dark"):
        page = browser.new_page(color_scheme=mode, viewport={"width": 375, "height": 800})
        page.goto((site / "09_representations.html").as_uri())
        fold = page.locator("div.equation-ends details").first
        assert not fold.locator("a").first.is_visible()
        fold.locator("summary").focus()
        page.keyboard.press("Enter")
        assert fold.locator("a").first.is_visible()
        rules = {"runOnly": ["color-contrast", "link-name", "list"]}
        for part in ("div.equation-ends", "#row-8"):
            if part == "#row-8":
                page.goto((site / "equations.html").as_uri())
                page.evaluate("document.querySelectorAll('#row-8 details').forEach(fold => fold.open = true)")
            found = axe.run(page, context=part, options=rules).response["violations"]
            assert [(v["id"], v["nodes"][0]["html"]) for v in found] == []
        page.close()
