"""Helpers for the cells of a chapter: numbers for the prose, tables, source code, verdicts on exercises, a kept run."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mbib_core.methods import settle
from mbib_core.results import Record
from mbib_core.settings import Settings, run_id

# The mime type by which MyST-NB knows what is for the text and not for the page.
QUOTED = "application/papermill.record/"
NUMBER = r"[-+−±×]?\d[\d.,]*[%×]?"


def say(text: str) -> None:
    """Displays Markdown, such as a folded list."""
    from IPython.display import Markdown, display

    display(Markdown(text))


def quote(**numbers: str) -> None:
    """Leaves numbers, formatted, for the prose: `quote(gap="34")` fills "a gap of 0<!-- gap --> points" with 34.

    `chapters.py run` writes them into the text and `chapters.py check` compares them; nothing is displayed.
    Raises ValueError on what is no number: digits with a sign, points, commas, a % or a × and no space.
    """
    from IPython.display import display

    for name, number in numbers.items():
        if not re.fullmatch(NUMBER, number):
            raise ValueError(f"{name} is {number!r}: only a number can be quoted, such as 34, −1.5, 1,525 or 80%")
        scrapbook = {"name": name, "mime_prefix": QUOTED}
        display({f"{QUOTED}text/plain": number}, metadata={"scrapbook": scrapbook}, raw=True)


def table(rows: list[dict[str, Any]], *, caption: str, name: str = "") -> None:
    """Displays rows with the same keys as a table below its caption; `name` is what `{numref}` refers to."""
    from mbib_core.figures.style import caption_of

    caption_of("Table", caption, name)
    say(markdown_table(rows))


def checkpoint(folder: str | Path | None, settings: Settings) -> Path | None:
    """The checkpoint file of a run in `folder`, written after every epoch and resumed from; None without a folder.

    Raises FileNotFoundError if the parent of `folder` does not exist: instead of a Drive that is not mounted, a folder
    of the same name would be made on a machine that is soon gone.
    """
    if not folder:
        return None
    if not (parent := Path(folder).absolute().parent).is_dir():
        raise FileNotFoundError(
            f"the folder {parent} is not there: make it, or choose another one to keep runs in. On Colab, mount your "
            "Drive first: from google.colab import drive; drive.mount('/content/drive')"
        )
    return Path(folder) / f"{run_id(settle(settings))}.pt"


def source(thing: Callable[..., Any] | type, *, docstring: bool = True) -> None:
    """Displays the source of a function or class as it stands in the package, with or without its docstring."""
    code = textwrap.dedent(inspect.getsource(thing))
    if not docstring:
        code = without_docstring(code)
    file = (inspect.getmodule(thing).__name__).replace(".", "/") + ".py"  # type: ignore[union-attr]
    say(f"`{file}`\n\n```python\n{code.rstrip()}\n```")


def without_docstring(code: str) -> str:
    """The source `code` of one function or class without the lines of its docstring."""
    body = ast.parse(code).body[0].body  # type: ignore[attr-defined]
    first = body[0]
    if not isinstance(first, ast.Expr) or not isinstance(getattr(first.value, "value", None), str):
        return code
    lines = code.splitlines()
    return "\n".join(lines[: first.lineno - 1] + lines[first.end_lineno :])


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table: the first column is aligned left, the others right."""
    names = list(rows[0])
    rule = [":--"] + ["--:"] * (len(names) - 1)
    lines = [names, rule, *([str(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def list_of_runs(records: Iterable[Record]) -> str:
    """A folded list of runs: name, commits, machine, precision, time, and the command that makes the run again."""
    lines = [
        f"- `{r['run_id']}`, commit {', '.join(r['commits'])}, {r['machine']['device']}, "
        f"{r['machine']['precision']}, {r['seconds']:.0f} s: `{r['command']}`"
        for r in records
    ]
    head = f"<details><summary>{len(lines)} runs</summary>\n\n"
    return head + "\n".join(lines) + "\n\n</details>" if lines else "None is recorded yet."


def grade(*checks: Callable[[], bool]) -> bool:
    """Runs the checks of an exercise and prints the verdict; an exception counts as a check that fails.

    Returns whether all passed, so that a test can tell a solution from a stub.
    """
    for number, check in enumerate(checks, 1):
        try:
            reason = "" if bool(check()) else "is not met"
        except Exception as error:
            reason = f"stops with {type(error).__name__}: {error}"
        if reason:
            print(f"Not yet: check {number} of {len(checks)} {reason}.")
            return False
    print(f"Right: {len(checks)} of {len(checks)} checks are met.")
    return True
