"""What is done to the chapters: execute them, edit them as text, check them, set the repository's address.

    python book/chapters.py run [NAME ...]         execute (all chapters, or these) and store the outputs
    python book/chapters.py text NAME [FILE]       write a chapter as MyST text, to build/NAME.md unless told
    python book/chapters.py notebook NAME [FILE]   ... and back: outputs stay where a code cell is unchanged
    python book/chapters.py check [NAME ...]       outputs there, no errors, short cells, alt texts
    python book/chapters.py address [OWNER/REPO]   print the repository's address, or change it everywhere
    python book/chapters.py version [X.Y.Z]        print the version, or change it everywhere, Colab's set-up cells too
    python book/chapters.py headline               draw the front page's pictures, write its answer (headline.py)
    python book/chapters.py models                 write the cards of the published networks, and their table
    python book/chapters.py compact                write the records anew as `mbib train` writes them today

NAME is a chapter's file name without its ending. A second `run` on the same machine gives the same bytes.
"""

import argparse
import base64
import hashlib
import os
import re
import sys
import time
from difflib import SequenceMatcher
from pathlib import Path

import nbformat
from nbformat import NotebookNode

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
# What a reader sees is short; what is folded may be longer.
MOST_CELLS = 12  # visible code cells of a chapter, exercises apart
LONGEST = {"visible": 20, "folded": 60}  # lines of a cell
WIDEST = {"visible": 80, "folded": 88}  # characters of a line
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
EXERCISE = {"exercise", "check", "solution"}
QUOTED = "application/papermill.record/text/plain"  # see notebook.quote
QUOTE = re.compile(r"([-+−±×]?\d[\d.,]*[%×]?)(<!-- ([a-z]\w*) -->)")
VIEW = "application/vnd.jupyter.widget-view+json"
CELL_TIMEOUT = 600  # seconds
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")
# The files in which the address may stand; `address` rewrites it in all of them.
ADDRESSED = (
    "_config.yml",
    "README.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "pyproject.toml",
    ".github/**/*.yml",
    "book/*.md",
    "book/*.ipynb",
    "examples/*.py",
)
# Where the version stands in them, the one place first; on Colab a chapter fetches the tag of that name.
VERSIONED = {
    "pyproject.toml": r'(?<=^version = ")[^"]*',
    "CITATION.cff": r"(?<=^version: ).*",
    "_config.yml": r"(?<=^  branch: v)\S*",
    "book/*.ipynb": r"(?<=--branch v)\S*(?= https://)",
    "book/intro.md": r"(?<=/blob/v)[^/]*(?=/book/)",
    "examples/colab.py": r'(?<=@v)[^"]*',
}


# ---------------------------------------------------------------- execute


def execute(nb: NotebookNode, folder: Path) -> NotebookNode:
    """Runs every cell in a fresh kernel whose working folder is `folder`. Raises CellExecutionError."""
    from nbclient import NotebookClient

    for cell in code_cells(nb):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        nb,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": folder}},
    )
    client.execute(
        env=os.environ | {"PYTHONHASHSEED": "0", "MBIB_STATIC": "1"}
    )  # the second: see sliders.py
    return fill_in(normalised(nb))


def quotes(nb: NotebookNode) -> dict[str, str]:
    """The numbers that cells left for the prose (`notebook.quote`), by name."""
    return {
        output.metadata.scrapbook.name: output.data[QUOTED]
        for cell in code_cells(nb)
        for output in cell.outputs
        if QUOTED in output.get("data", {})
    }


def fill_in(nb: NotebookNode) -> NotebookNode:
    """Writes each quoted number before its comment, as in `34<!-- gap -->`; changes `nb` in place."""
    known = quotes(nb)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = QUOTE.sub(lambda m: known.get(m[3], m[1]) + m[2], cell.source)
    return nb


def normalised(nb: NotebookNode) -> NotebookNode:
    """The notebook without what differs from run to run or from machine to machine; changes `nb` in place."""
    nb.metadata = NotebookNode(
        {
            "kernelspec": normalised_kernel(),
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
        }
    )
    for cell in nb.cells:
        cell.metadata = NotebookNode(
            {k: v for k, v in sorted(cell.metadata.items()) if k in ("jupyter", "tags")}
        )
        if cell.cell_type == "code":
            cell.outputs = joined_streams(cell.outputs)
            for_the_page(cell)
            if "hide-input" in cell.metadata.get("tags", []):  # JupyterLab, Colab
                cell.metadata["jupyter"] = {"source_hidden": True}
                cell.metadata["cellView"] = "form"
    name_cells(nb)
    return nb


def joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Neighbouring pieces of the same stream as one: a kernel cuts what a cell prints at arbitrary points."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if (
            last
            and output.output_type == last.output_type == "stream"
            and output.name == last.name
        ):
            last.text += output.text
        else:
            joined.append(output)
    return joined


def for_the_page(cell: NotebookNode) -> None:
    """What MyST-NB wants in a cell's metadata, derived: an image's alt text from the output that states it."""
    page: dict[str, object] = {}
    alts = [alt for _, alt in images(cell) if alt]
    if alts:
        page["image"] = {"alt": alts[0]}
    if any(
        output.get("metadata", {}).get(kind, {}).get("photographs")
        for output in cell.outputs
        for kind in IMAGES
    ):
        page["image"]["classes"] = "photographs"
    if "solution" in cell.metadata.get("tags", []):
        page |= {
            "code_prompt_show": "Show a solution",
            "code_prompt_hide": "Hide the solution",
        }
    if page:
        cell.metadata["mystnb"] = page


def images(cell: NotebookNode) -> list[tuple[str, str]]:
    """(kind, alt text) of every image among the outputs of a code cell; the alt text is "" where there is none."""
    found = []
    for output in cell.outputs:
        data, metadata = output.get("data", {}), output.get("metadata", {})
        found += [
            (kind, metadata.get(kind, {}).get("alt", ""))
            for kind in IMAGES
            if kind in data
        ]
        tags = re.findall(r"<img\b[^>]*>", data.get("text/html", ""))
        found += [
            ("text/html", "".join(re.findall(r'\balt="([^"]+)"', tag))) for tag in tags
        ]
    return found


def name_cells(nb: NotebookNode) -> None:
    """Cells without an id of their own get one that depends on the text alone."""
    nb.nbformat, nb.nbformat_minor = 4, 5
    taken: set[str] = set()
    for cell in nb.cells:
        name, n = cell.get("id"), 0
        while not name or name in taken:
            name = hashlib.sha256(
                f"{cell.cell_type} {n} {cell.source}".encode()
            ).hexdigest()[:8]
            n += 1
        cell["id"] = name
        taken.add(name)


# ---------------------------------------------------------------- edit as text


def to_text(nb: NotebookNode) -> str:
    """The notebook's cells and tags as MyST text; outputs and what is derived from them are left out."""
    import jupytext

    plain = nbformat.from_dict(
        {"metadata": {}, "nbformat": 4, "nbformat_minor": 5, "cells": []}
    )
    plain.metadata = NotebookNode({"kernelspec": normalised_kernel()})
    plain.cells = [nbformat.from_dict(cell) for cell in nb.cells]
    for cell in plain.cells:
        derived = {"mystnb", "cellView"}
        if "hide-input" in cell.metadata.get("tags", []):
            derived.add("jupyter")
        cell.metadata = NotebookNode(
            {k: v for k, v in cell.metadata.items() if k not in derived}
        )
    return jupytext.writes(plain, fmt="md:myst")


def normalised_kernel() -> dict[str, str]:
    return {"display_name": "Python 3", "language": "python", "name": "python3"}


def from_text(text: str, old: NotebookNode | None = None) -> NotebookNode:
    """The notebook that `text` describes; cells that `old` has too keep their ids and outputs."""
    import jupytext

    nb = jupytext.reads(text, fmt="md:myst")
    for cell in nb.cells:
        cell.pop("id", None)
    before = [] if old is None else old.cells
    keys = [
        [(cell.cell_type, cell.source.strip()) for cell in cells]
        for cells in (before, nb.cells)
    ]
    for kind, i, i_end, j, j_end in SequenceMatcher(
        None, *keys, autojunk=False
    ).get_opcodes():
        for past, cell in zip(before[i:i_end], nb.cells[j:j_end], strict=False):
            if kind == "equal" or (
                kind == "replace" and past.cell_type == cell.cell_type
            ):
                cell["id"] = past.id
            if kind == "equal" and cell.cell_type == "code":
                cell.outputs, cell.execution_count = past.outputs, past.execution_count
    return normalised(nb)


# ---------------------------------------------------------------- check


def faults(nb: NotebookNode) -> list[str]:
    """Everything about the notebook that must not be published, one line each."""
    found = []
    known, used = quotes(nb), set()
    visible = [c for c in code_cells(nb) if view(c) == "visible"]
    if len(visible) > MOST_CELLS:
        found.append(
            f"{len(visible)} code cells are visible, {MOST_CELLS} are allowed: fold (hide-input) or merge the others"
        )
    for number, cell in enumerate(nb.cells):
        where = f"cell {number} ({cell.source.strip().splitlines()[0] if cell.source.strip() else 'empty'})"
        if not cell.source.strip():
            found.append(f"{where}: nothing in it")
        if cell.cell_type != "code":
            found += [
                f"{where}: {image} has no alt text"
                for image in images_of_markdown(cell.source)
            ]
            for shown, _, name in QUOTE.findall(cell.source):
                used.add(name)
                if shown != known.get(name):
                    found.append(
                        f"{where}: says {shown} where the kernel's {name} is {known.get(name, 'not quoted')}"
                    )
            continue
        lines, seen = len(cell.source.splitlines()), view(cell)
        if lines > LONGEST[seen]:
            found.append(
                f"{where}: {lines} lines, {LONGEST[seen]} are allowed in a {seen} cell"
            )
        if any(
            len(line) > WIDEST[seen] and "https://" not in line
            for line in cell.source.splitlines()
        ):
            found.append(f"{where}: a line is wider than {WIDEST[seen]} characters")
        if bare(cell):
            found.append(f"{where}: a picture has no caption")
        if cell.execution_count is None:
            found.append(f"{where}: was not executed")
        found += [
            f"{where}: stores an error, {o.ename}"
            for o in cell.outputs
            if o.output_type == "error"
        ]
        if any(o.output_type == "stream" and o.name == "stderr" for o in cell.outputs):
            found.append(f"{where}: stores what was written to stderr")
        if any(VIEW in output.get("data", {}) for output in cell.outputs):
            found.append(f"{where}: stores a widget, and no page has its kernel")
        alts = [alt for _, alt in images(cell)]
        if not all(alts):
            found.append(f"{where}: an image has no alt text")
        if len(alts) > 1:
            found.append(
                f"{where}: {len(alts)} images, the page can give alt text to one a cell"
            )
        if (
            alts
            and cell.metadata.get("mystnb", {}).get("image", {}).get("alt") != alts[0]
        ):
            found.append(
                f"{where}: the alt text did not reach the cell, execute it with chapters.py run"
            )
    found += [
        f"{name} is quoted and stands nowhere" for name in known if name not in used
    ]
    counts = [cell.execution_count for cell in code_cells(nb)]
    if counts != list(range(1, len(counts) + 1)) and None not in counts:
        found.append("the cells were not executed from top to bottom")
    return found


def view(cell: NotebookNode) -> str:
    """Whether the page shows a code cell's source: visible or folded; those of exercises are for the reader to edit."""
    return (
        "folded"
        if (FOLDED | EXERCISE) & set(cell.metadata.get("tags", []))
        else "visible"
    )


def bare(cell: NotebookNode) -> bool:
    """Whether the page shows a picture of this cell without a caption right below it."""
    if {"remove-output", "remove-cell", "solution"} & set(
        cell.metadata.get("tags", [])
    ):
        return False
    texts = [o.get("data", {}).get("text/markdown", "") for o in cell.outputs]
    return any(
        images(NotebookNode(outputs=[output])) and not below.startswith("Figure: ")
        for output, below in zip(cell.outputs, [*texts, ""][1:], strict=True)
    )


def images_of_markdown(text: str) -> list[str]:
    """Images of a Markdown text that have no alt text."""
    return re.findall(r"!\[\s*\]\([^)]*\)", text) + re.findall(
        r"<img(?![^>]*\balt=\"[^\"]+\")[^>]*>", text
    )


# ---------------------------------------------------------------- the address


def address(root: Path = ROOT) -> str:
    """OWNER/REPO, read from the one place that holds it: `repository: url` of _config.yml."""
    found = re.search(
        r"^  url: https://github\.com/([\w.-]+/[\w.-]+)$",
        (root / "_config.yml").read_text(encoding="utf-8"),
        re.M,
    )
    if not found:
        raise SystemExit(
            "_config.yml has no line '  url: https://github.com/OWNER/REPO' under 'repository:'"
        )
    return found[1]


def change_address(new: str, root: Path = ROOT) -> list[Path]:
    """Rewrites the address in every file that may hold it, pages address included; returns the files changed."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        raise SystemExit(f"{new!r} is not OWNER/REPO")
    old = address(root)
    pages = [
        f"{owner}.github.io/{repo}" for owner, repo in (old.split("/"), new.split("/"))
    ]
    changed = []
    for path in sorted(
        {p for pattern in ADDRESSED for p in root.glob(pattern) if p.is_file()}
    ):
        text = path.read_text(encoding="utf-8")
        renewed = text.replace(old, new).replace(*pages)
        if renewed != text:
            path.write_text(renewed, encoding="utf-8", newline="\n")
            changed.append(path)
    return changed


# ---------------------------------------------------------------- the version


def versions(root: Path = ROOT) -> dict[Path, list[str]]:
    """The versions that each file of VERSIONED names."""
    return {
        path: re.findall(place, path.read_text(encoding="utf-8"), re.M)
        for pattern, place in VERSIONED.items()
        for path in sorted(root.glob(pattern))
    }


def version(root: Path = ROOT) -> str:
    """X.Y.Z, read from the one place that holds it: pyproject.toml."""
    return versions(root)[root / "pyproject.toml"][0]


def change_version(new: str, root: Path = ROOT) -> list[Path]:
    """Rewrites the version in every file of VERSIONED; returns the files changed."""
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", new):
        raise SystemExit(f"{new!r} is not X.Y.Z, such as 1.0.0 or 1.0.0rc1")
    changed = []
    for pattern, place in VERSIONED.items():
        for path in sorted(root.glob(pattern)):
            text = path.read_text(encoding="utf-8")
            renewed = re.sub(place, new, text, flags=re.M)
            if renewed != text:
                path.write_text(renewed, encoding="utf-8", newline="\n")
                changed.append(path)
    return changed


# ---------------------------------------------------------------- the records


def compact(folder: Path = BOOK / "results") -> list[Path]:
    """Writes every record anew with `results.write_record`; one that is damaged is refused."""
    from mbib_core import results

    paths = sorted(folder.rglob("*-s[0-9]*-*.json"))
    return [
        results.write_record(results.read_record(path), path.parent) for path in paths
    ]


# ---------------------------------------------------------------- files and the command line


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def tagged(nb: NotebookNode, tag: str) -> list[NotebookNode]:
    """The cells that carry `tag`, in order."""
    return [cell for cell in nb.cells if tag in cell.metadata.get("tags", [])]


def chapter_files(names: list[str] | None = None) -> list[Path]:
    """The notebooks of these chapters, or of all."""
    paths = [BOOK / f"{Path(name).stem}.ipynb" for name in names or []] or sorted(
        BOOK.glob("*.ipynb")
    )
    for path in paths:
        if not path.exists():
            raise SystemExit(
                f"no chapter {path.stem}: there are {', '.join(p.stem for p in sorted(BOOK.glob('*.ipynb')))}"
            )
    return paths


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def write(nb: NotebookNode, path: Path) -> None:
    nbformat.validate(nb)
    nbformat.write(nb, path)


def run(paths: list[Path]) -> None:
    """Executes notebooks in place, each in its own folder, and says what each took and weighs."""
    for path in paths:
        start = time.perf_counter()
        nb = execute(read(path), path.parent)
        write(nb, path)
        pictures = sum(
            len(base64.b64decode(d))
            for c in code_cells(nb)
            for o in c.outputs
            for d in pngs(o)
        )
        print(
            f"{path.stem}: {time.perf_counter() - start:.0f} s, pictures {pictures / 1000:.0f} kB"
        )


def pngs(output: NotebookNode) -> list[str]:
    return [output.data["image/png"]] if "image/png" in output.get("data", {}) else []


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "check"):
        commands.add_parser(name).add_argument("names", nargs="*", metavar="NAME")
    for name in ("text", "notebook"):
        command = commands.add_parser(name)
        command.add_argument("name", metavar="NAME")
        command.add_argument("file", nargs="?", type=Path, metavar="FILE")
    commands.add_parser("address").add_argument("new", nargs="?", metavar="OWNER/REPO")
    commands.add_parser("version").add_argument("new", nargs="?", metavar="X.Y.Z")
    commands.add_parser("headline")
    commands.add_parser("models")
    commands.add_parser("compact")
    args = parser.parse_args(arguments)

    if args.command == "headline":
        from headline import headline

        print(*headline(), sep="\n")
    elif args.command == "models":
        from cards import write_models

        print(*write_models(), sep="\n")
    elif args.command == "compact":
        print(f"{len(compact())} records")
    elif args.command == "run":
        run(chapter_files(args.names))
    elif args.command == "check":
        found = [
            f"{path.name}: {fault}"
            for path in chapter_files(args.names)
            for fault in faults(read(path))
        ]
        print("\n".join(found) or "no faults")
        sys.exit(1 if found else 0)
    elif args.command in ("address", "version"):
        told, change = {
            "address": (address, change_address),
            "version": (version, change_version),
        }[args.command]
        changed = [] if args.new is None else change(args.new)
        print(told(), *(f"  changed {p.relative_to(ROOT)}" for p in changed), sep="\n")
    else:
        path = BOOK / f"{Path(args.name).stem}.ipynb"
        file = args.file or ROOT / "build" / f"{path.stem}.md"
        if args.command == "text":
            chapter_files([args.name])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(to_text(read(path)), encoding="utf-8")
            print(f"{path.name} -> {file}")
        else:
            if not file.is_file():
                raise SystemExit(
                    f"{file} is not there: chapters.py text NAME writes it"
                )
            old = read(path) if path.exists() else None
            write(from_text(file.read_text(encoding="utf-8"), old), path)
            print(f"{file} -> {path.name}{'' if old else ', a new chapter'}")


if __name__ == "__main__":
    main()
