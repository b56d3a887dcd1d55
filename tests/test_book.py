"""The book: every chapter executed, short, described and solvable; built without a warning; one address."""

import importlib.util
import io
import json
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import nbformat
import pytest
import yaml
from docutils import nodes

import mbib_core
from mbib_core.notebook import quote

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"


def _script(name: str):
    spec = importlib.util.spec_from_file_location(Path(name).name, BOOK / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


chapters = _script("chapters")
folds = _script("_ext/folds")
CHAPTERS = sorted(BOOK.glob("*.ipynb"))
every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def notebook(*cells: str, tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    for cell in made.cells:
        cell.metadata["tags"] = list(tags)
    return chapters.normalised(made)


def quoted(name: str, number: str) -> nbformat.NotebookNode:
    with pytest.MonkeyPatch.context() as patch:
        shown: list = []
        patch.setattr("IPython.display.display", lambda data, metadata, raw: shown.append((data, metadata)))
        quote(**{name: number})
    return nbformat.v4.new_output("display_data", shown[0][0], metadata=shown[0][1])


# ---------------------------------------------------------------- the chapters as they are stored


@every_chapter
def test_a_chapter_can_be_published(path):
    assert chapters.faults(chapters.read(path)) == []


@every_chapter
def test_cells_are_short(path):
    cells = [cell for cell in chapters.code_cells(chapters.read(path)) if chapters.view(cell) == "visible"]
    lines = sorted(len(cell.source.splitlines()) for cell in cells)
    assert len(lines) < 2 or lines[len(lines) // 2] <= 8, "the median of the visible cells"


@every_chapter
def test_a_chapter_is_stored_in_the_one_form_that_the_script_writes(path):
    nb = chapters.read(path)
    assert nbformat.writes(chapters.normalised(chapters.read(path))) == nbformat.writes(nb)


@every_chapter
def test_text_and_back_keeps_the_chapter(path):
    nb = chapters.read(path)
    assert nbformat.writes(chapters.from_text(chapters.to_text(nb), nb)) == nbformat.writes(nb)


@every_chapter
def test_cells_that_train_end_in_an_assertion(path):
    """Outputs that nbval does not compare are still checked: such a chapter asserts something somewhere."""
    ignored = chapters.tagged(chapters.read(path), "nbval-ignore-output")
    assert not ignored or any("assert " in cell.source for cell in ignored)


def exercises() -> list:
    found = []
    for path in CHAPTERS:
        cells = [c for tag in ("exercise", "check", "solution") for c in chapters.tagged(chapters.read(path), tag)]
        thirds = len(cells) // 3
        groups = zip(cells[:thirds], cells[thirds : 2 * thirds], cells[2 * thirds :], strict=True)
        found += [pytest.param(path, *group, id=f"{path.stem}-{n}") for n, group in enumerate(groups, 1)]
    return found


@every_chapter
def test_every_exercise_has_a_check_and_a_folded_solution(path):
    nb = chapters.read(path)
    tags = [tag for cell in nb.cells for tag in cell.metadata.get("tags", [])]
    order = [tag for tag in tags if tag in ("exercise", "check", "solution")]
    assert order, "a chapter has exercises"
    assert order == ["exercise", "check", "solution"] * (len(order) // 3)
    assert all("hide-cell" in cell.metadata.tags for cell in chapters.tagged(nb, "solution"))


@pytest.mark.parametrize(("path", "stub", "check", "solution"), exercises())
def test_the_solution_passes_and_the_stub_does_not(path, stub, check, solution):
    scope: dict = {}
    for cell in chapters.tagged(chapters.read(path), "setup"):
        exec(cell.source, scope)

    def verdict(source: str) -> str:
        with redirect_stdout(io.StringIO()) as printed:
            exec(source, scope)
            exec(check.source, scope)
        return printed.getvalue()

    assert verdict(stub.source).startswith("Not yet")
    assert verdict(solution.source).startswith("Right")


def test_the_contents_name_what_exists_and_all_of_it():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    named = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    pages = [*BOOK.glob("*.ipynb"), *BOOK.glob("*.md")]
    assert sorted(named) == sorted(f"book/{page.stem}" for page in pages)


def test_every_citation_is_in_the_bibliography():
    keys = set(re.findall(r"@\w+\{([\w-]+),", (BOOK / "references.bib").read_text(encoding="utf-8")))
    pages = [p.read_text(encoding="utf-8") for p in BOOK.glob("*.md")] + [
        json.dumps(chapters.read(p)) for p in CHAPTERS
    ]
    cited = {
        key for page in pages for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", page) for key in group.split(",")
    }
    assert cited <= keys


# ---------------------------------------------------------------- the script


@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes(tmp_path):
    cells = [
        "import sys, numpy as np\nfrom matplotlib.figure import Figure\nfrom mbib_core import figures",
        "for i in range(50):\n    print(i)\n    sys.stdout.flush()",
        "figures.show(figures.class_counts(np.array([200, 50, 10, 2]), 'abcd'))",
    ]
    path = tmp_path / "tiny.ipynb"
    chapters.write(notebook(*cells), path)
    chapters.run([path])
    first = path.read_bytes()
    chapters.run([path])
    assert path.read_bytes() == first
    nb = chapters.read(path)
    assert [fault for fault in chapters.faults(nb) if "caption" not in fault] == []
    assert nb.cells[2].metadata.mystnb.image.alt.startswith("From 200 training images")
    assert len(nb.cells[1].outputs) == 1
    assert "timing" not in first.decode()


def test_text_keeps_ids_and_outputs_of_unchanged_cells_only():
    old = notebook("a = 1", "print(a)", "a + 1", tags=("nbval-ignore-output",))
    for number, cell in enumerate(old.cells, 1):
        cell.outputs = [nbformat.v4.new_output("stream", text=f"{number}\n")]
        cell.execution_count = number
    new = chapters.from_text(chapters.to_text(old).replace("print(a)", "print(2 * a)"), old)
    assert [cell.id for cell in new.cells] == [cell.id for cell in old.cells]
    assert [len(cell.outputs) for cell in new.cells] == [1, 0, 1]
    assert [cell.metadata.tags for cell in new.cells] == [["nbval-ignore-output"]] * 3


def test_a_quoted_number_is_written_where_its_name_stands_and_nowhere_else():
    nb = notebook("1 + 1")
    nb.cells[0].outputs = [quoted("gap", "−34.5"), quoted("n", "1,525")]
    text = "Of 7<!-- n --> images, **0<!-- gap -->** points, 3 classes<!-- fig-a -->, 5<!-- fig-b -->."
    nb.cells.append(nbformat.v4.new_markdown_cell(text))
    assert chapters.fill_in(nb).cells[1].source == text.replace("7<", "1,525<").replace("0<", "−34.5<")
    assert not [fault for fault in chapters.faults(nb) if "quoted" in fault]


@pytest.mark.parametrize("number", ["", "34 points", "a", "1 525", "<b>", "34-"])
def test_what_is_no_number_is_not_quoted(number):
    with pytest.raises(ValueError, match="only a number"):
        quote(gap=number)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda cell: cell.update(execution_count=None), "was not executed"),
        (lambda cell: cell.update(source=""), "nothing in it"),
        (
            lambda cell: cell.update(outputs=[nbformat.v4.new_output("display_data", {chapters.VIEW: {}})]),
            "stores a widget",
        ),
        (lambda cell: cell.update(source="\n".join(["a = 1"] * 21)), "21 lines"),
        (lambda cell: cell.update(source="a" * 81), "wider than 80"),
        (lambda cell: cell.update(cell_type="markdown", source="a gap of 34<!-- gap --> points"), "gap is not quoted"),
        (lambda cell: cell.update(outputs=[quoted("gap", "34")]), "gap is quoted and stands nowhere"),
        (
            lambda cell: cell.update(
                outputs=[
                    nbformat.v4.new_output("display_data", {"image/png": ""}, metadata={"image/png": {"alt": "a"}})
                ]
            ),
            "no caption",
        ),
        (
            lambda cell: cell.update(outputs=[nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]),
            "error",
        ),
        (lambda cell: cell.update(outputs=[nbformat.v4.new_output("stream", name="stderr", text="!")]), "stderr"),
        (lambda cell: cell.update(outputs=[nbformat.v4.new_output("display_data", {"image/png": ""})]), "no alt text"),
        (
            lambda cell: cell.update(outputs=[nbformat.v4.new_output("display_data", {"text/html": "<img src=a>"})]),
            "no alt",
        ),
        (lambda cell: cell.update(cell_type="markdown", source="![](picture.png)"), "no alt text"),
    ],
)
def test_check_finds_what_must_not_be_published(damage, complaint):
    nb = notebook("1 + 1")
    nb.cells[0].execution_count = 1
    assert chapters.faults(nb) == []
    damage(nb.cells[0])
    assert any(complaint in fault for fault in chapters.faults(nb))


def tree(root: Path) -> list[Path]:
    """The files of the project, without what is built or cached."""
    skipped = {"_build", "build", "dist", "runs", "venv", "__pycache__"}
    return [
        path
        for path in root.rglob("*")
        if path.is_file()
        and not any(
            part in skipped or (part.startswith(".") and part != ".github") for part in path.relative_to(root).parts
        )
        and not any(part.endswith(".egg-info") for part in path.relative_to(root).parts)
    ]


def test_the_address_stands_nowhere_but_where_the_command_writes(tmp_path):
    copy = tmp_path / "copy"
    for path in tree(ROOT):
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    old = chapters.address(copy)
    owner, repo = (part.encode() for part in old.split("/"))
    assert chapters.change_address("somebody-else/their-copy", copy)
    assert chapters.address(copy) == "somebody-else/their-copy"
    left = [str(p.relative_to(copy)) for p in tree(copy) if owner in p.read_bytes() or repo in p.read_bytes()]
    assert left == []
    chapters.change_address(old, copy)
    changed = [
        str(p.relative_to(copy)) for p in tree(copy) if p.read_bytes() != (ROOT / p.relative_to(copy)).read_bytes()
    ]
    assert changed == []


def test_a_bad_address_is_refused():
    with pytest.raises(SystemExit, match="OWNER/REPO"):
        chapters.change_address("https://example.org/a/b")


def test_the_package_colabs_button_and_every_chapters_set_up_cell_name_one_version():
    found = chapters.versions()
    assert {path.name for path in found} >= {"pyproject.toml", "_config.yml", *(path.name for path in CHAPTERS)}
    assert found == {path: [chapters.version()] for path in found}, "python book/chapters.py version X.Y.Z"
    assert chapters.version() == mbib_core.__version__, "install the package again"
    fetched = [
        re.findall(r"git clone.*", cell.source) for p in CHAPTERS for cell in chapters.code_cells(chapters.read(p))
    ]
    lines = {line for found in fetched for line in found}
    assert lines == {
        f"git clone -q --depth 1 --branch v{chapters.version()} https://github.com/{chapters.address()} the-book"
    }


def test_the_version_changes_everywhere_and_nothing_else_does(tmp_path):
    for path in chapters.versions():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    old = chapters.version(tmp_path)
    assert chapters.change_version("12.0.3rc1", tmp_path) == list(chapters.versions(tmp_path))
    assert all(found == ["12.0.3rc1"] for found in chapters.versions(tmp_path).values())
    chapters.change_version(old, tmp_path)
    assert all((tmp_path / path.relative_to(ROOT)).read_bytes() == path.read_bytes() for path in chapters.versions())
    with pytest.raises(SystemExit, match=r"'v1' is not X\.Y\.Z"):
        chapters.change_version("v1", tmp_path)


def test_an_unknown_chapter_is_named_with_those_there_are():
    with pytest.raises(SystemExit, match="01_long_tails"):
        chapters.chapter_files(["02_nothing"])


# ---------------------------------------------------------------- the pages


def test_folded_cells_in_a_row_are_one_fold_and_none_shows_less():
    def cell(code: str, output: str = "", **own) -> nodes.container:
        made = nodes.container("", nodes.container("", nodes.literal_block("", code)), nb_element="cell_code", **own)
        made += [nodes.container("", nodes.paragraph("", output))] if output else []
        return made

    fold = {"hide_mode": "input"}
    exercise = cell("grade", **fold, classes=["tag_check"])
    page = nodes.section("", cell("imports", **fold), cell("quote", **fold), cell("draw", "picture", **fold))
    page += [cell("draw more", "another", **fold), cell("loss"), cell("assert", **fold), exercise]
    for one in list(page):
        if folds.folded(one):
            folds.merge(one)
    blocks = [[block.astext() for block in one.findall(nodes.literal_block)] for one in page]
    assert blocks == [["imports", "quote", "draw"], ["draw more"], ["loss"], ["assert"], ["grade"]]
    assert [one.astext().count("picture") for one in page] == [1, 0, 0, 0, 0]


@pytest.mark.slow
def test_the_book_builds_without_a_warning_and_images_keep_their_alt_text(site):
    for path in CHAPTERS:
        page = (site / f"{path.stem}.html").read_text(encoding="utf-8")
        article = page[page.index("<article") : page.index("</article")]
        stored = [alt for cell in chapters.code_cells(chapters.read(path)) for _, alt in chapters.images(cell)]
        shown = [" ".join(text.split()) for text in re.findall(r'<img alt="([^"]*)"', article)]
        stored = [" ".join(text.split()) for text in stored]
        assert [text.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&") for text in shown] == stored
        assert article.count("<img") == len(stored)


@pytest.mark.slow
def test_pages_link_to_the_repository_at_its_address(site):
    page = (site / "01_long_tails.html").read_text(encoding="utf-8")
    assert f"https://github.com/{chapters.address()}" in page
    assert (
        f"colab.research.google.com/github/{chapters.address()}/blob/v{chapters.version()}/book/01_long_tails.ipynb"
        in page
    )
    assert "THEBE_JS_URL" not in page
