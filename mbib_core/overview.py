"""What methods there are, what each costs to train, and how it stands in the code."""

import ast
import csv
import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from html import escape
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from mbib_core.batches import Batch
from mbib_core.data.longtailed import Images, LongTailed, long_tailed_counts
from mbib_core.methods import FAMILIES, METHODS, Method, method_of, settle
from mbib_core.schedules import schedule_of
from mbib_core.settings import Settings
from mbib_core.steps import optimizer_for, train_mode
from mbib_core.trainer import new_learner

KEPT = Path(__file__).with_name("costs.csv")
COUNTED = 8  # images of the step that is counted
# Chapters that explain a row; all rows stand on the page "the_field".
EXPLAINED = {
    "01_long_tails": ("ce",),
    "02_rebalancing": ("bsce",),
    "05_bib": ("bib", "ce-2branch", "bsce-2branch", "bib-untaught"),
    "06_mbib": ("mbib", "se-mbib", "all-mbib", "mbib-deepest"),
    "08_ablations": (
        *("sdib", "mbib-x", "mbib-no-adjustment", "mbib-no-balance"),
        *("mbib-beta0", "mbib-consistent", "mbib-untaught"),
    ),
}


# What it costs


class Cost(NamedTuple):
    """Parameters of the network that predicts, for 100 classes on a ResNet-32, and multiply-adds of the training."""

    parameters: int
    training: int


def training_multiply_adds(settings: Settings, data: LongTailed) -> int:
    """Multiply-adds of all training steps of a run: of convolutions and matrix products, forward and backward.

    One step of each stage is counted on a few images, with all that belongs to it (two views, a frozen teacher, the
    second pass of SAM), and multiplied by images and by epochs, those of smaller images by their size. Left out is what
    happens between epochs, such as class means. Raises what `settle` raises.
    """
    settings = settle(settings)
    method, schedule = method_of(settings), schedule_of(settings)
    n, total = len(data.train.y), 0.0
    rows = torch.linspace(0, n - 1, min(COUNTED, n)).round().long()
    batch = Batch(data.train.x[rows], data.train.y[rows])
    with torch.random.fork_rng(devices=[]):
        learner = new_learner(method, data, settings.seed)
        for stage, epochs in method.plan(int(settings.epochs or 0)):
            recipe = replace(schedule, **stage.recipe)
            stage.begin(learner, images=data.train, **settings.own)
            optimizer_for(learner, stage, recipe, torch.device("cpu"))  # says what needs a gradient
            train_mode(learner, stage)
            given = batch if stage.second is None else batch._replace(second=batch)
            loss = partial(stage.loss, **settings.own)
            with FlopCounterMode(display=False) as counter:
                learner(given, loss, 0.0).backward()
                if stage.ascent is not None:
                    stage.ascent(learner, **settings.own)
                    learner(given, loss, 0.0).backward()
            total += counter.get_total_flops() / 2 / len(rows) * n * recipe.full_epochs(epochs)
    return round(total)


def stand_in(name: str, counts: Sequence[int], side: int = 32) -> LongTailed:
    """Noise with as many training images of each class as a data set has: enough to count what a run costs."""
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = torch.randint(256, (len(y), 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    none = Images(x[:0], y[:0])
    return LongTailed(name, Images(x, y), none, none, [str(label) for label in range(len(counts))], flip=True)


def count_costs(names: Iterable[str] = METHODS) -> dict[str, Cost]:
    """What each method costs on CIFAR-100-LT, factor 100, by the paper's schedule; about a second each."""
    data = stand_in("cifar100-lt", long_tailed_counts(500, 100, 100.0))
    training = {name: training_multiply_adds(Settings(data=data.name, method=name), data) for name in names}
    return {name: Cost(parameters(METHODS[name]), training[name]) for name in names}


def costs() -> dict[str, Cost]:
    """`count_costs` as it is kept in costs.csv, which `python -m mbib_core.overview` makes again."""
    with KEPT.open(encoding="utf-8", newline="") as file:
        return {row["method"]: Cost(int(row["parameters"]), int(row["training"])) for row in csv.DictReader(file)}


def parameters(row: Method, classes: int = 100) -> int:
    """Of the network that predicts, for so many classes; what is only needed to train is left out."""
    with torch.device("meta"):
        return sum(p.numel() for p in row.network(classes).parameters())


# What there is


class Entry(NamedTuple):
    """A row of the table of methods as a reader is told of it; `training` is over that of cross-entropy."""

    family: str
    name: str
    title: str
    source: str
    about: str
    parameters: int
    training: float
    where: str


def catalogue() -> list[Entry]:
    """All methods, family by family."""
    chapters, cost = {name: chapter for chapter, names in EXPLAINED.items() for name in names}, costs()
    found = []
    for family, rows in FAMILIES.items():
        for name, row in rows.items():
            size, relative = cost[name].parameters, cost[name].training / cost["ce"].training
            where = chapters.get(name, "the_field")
            found.append(Entry(family, name, row.title, row.source, about(row), size, relative, where))
    return found


def about(row: Method) -> str:
    """The row's sentence, with a capital and without a full stop."""
    return (row.about[:1].upper() + row.about[1:]).rstrip(".")


def show_catalogue(entries: Iterable[Entry]) -> str:
    """The entries as text, family by family."""
    lines, family = [], ""
    for entry in entries:
        lines += [] if entry.family == family else ["", entry.family]
        family, indent = entry.family, " " * 22
        lines += [
            f"  {entry.name:20}{entry.title}; {entry.source}",
            f"{indent}{entry.about}",
            f"{indent}{entry.parameters:,} parameters, training x {entry.training:.2f}; book/{entry.where}",
        ]
    lines += ["", "parameters: for 100 classes on a ResNet-32; training: multiply-adds of all steps over those of ce"]
    return "\n".join(lines[1:])


def html_table(entries: Iterable[Entry]) -> str:
    """The entries as a table of HTML, which field.js lets a reader sort and filter."""
    head = {"method": "", "what it does": "", "family": "", "year": "number", "parameters": "number"}
    head |= {"training": "number", "chapter": ""}
    lines = ['<table class="field"><caption>All methods. Parameters are for 100 classes on a ResNet-32; training is']
    lines += ["in multiply-adds of all steps, over those of cross-entropy.</caption><thead><tr>"]
    lines += [f'<th scope="col"{f" data-kind={kind}" if kind else ""}>{name}</th>' for name, kind in head.items()]
    lines += ["</tr></thead><tbody>"]
    for e in entries:
        year = re.search(r"\d{4}", e.source)
        where = "" if e.where == "the_field" else f'<a href="{e.where}.html">{e.where[:2]}</a>'
        link = f'<a href="#row-{e.name}"><code>{e.name}</code></a>'
        texts = [f"{link} {escape(e.title)}", escape(f"{e.about}."), e.family, year[0] if year else ""]
        texts += [f"{e.parameters:,}", f"{e.training:.2f}", where]
        lines += ["<tr>", *(f"<td>{text}</td>" for text in texts), "</tr>"]
    return "\n".join([*lines, "</tbody></table>"])


def family_page(family: str) -> str:
    """A family as Markdown: of each row its source and what differs from it; the code of all below, folded.

    What a row does stands in the table of all methods. Rows of which nothing more is to be said share a paragraph.
    """
    said, plain = [], []
    code: dict[str, None] = {}
    files: dict[str, None] = {}
    for name, row in FAMILIES[family].items():
        at = written(name)
        title = row.title if row.title == name else f"{row.title}, `{name}`"
        entry = f'<span id="row-{name}"></span>**{title}** ({row.source})'
        if at.comment and family != "the paper":
            said.append(f"{entry}. {at.comment}")
        else:
            plain.append(entry)
        code |= dict.fromkeys(at.code.split("\n\n\n"))  # what makes several rows stands once
        files[f"`{at.file}`"] = None
    said += [f"{'; '.join(plain)}."] if plain else []
    fold = (
        f"<details><summary>These {len(FAMILIES[family])} rows in code</summary>\n\n{', '.join(files)}\n\n```python\n"
    )
    return "\n\n".join([*said, fold + "\n\n\n".join(code) + "\n```\n\n</details>"])


# What stands in the code


class Written(NamedTuple):
    """A row as it is written: its code, with the functions beside it that make it, and the comment above it."""

    code: str
    comment: str
    file: str


def written(name: str) -> Written:
    """The row `name` as it stands in its family's file. Raises KeyError if there is none."""
    module, text, rows, functions = next(found for found in _files() if name in found[2])
    first, last = rows[name]
    lines = text.splitlines()
    top = first
    while lines[top - 2].lstrip().startswith("#"):
        top -= 1
    made_by = [f for f in functions if f"{f.name}(" in "\n".join(lines[first - 1 : last]).split("\n", 1)[0]]
    comment = " ".join(line.strip(" #") for line in lines[top - 1 : first - 1])
    said = comment or " ".join(filter(None, (ast.get_docstring(f) for f in made_by))).replace("\n", " ")
    pieces = ["\n".join(lines[f.lineno - 1 : f.end_lineno]) for f in made_by]
    pieces += [inspect.cleandoc("\n".join(["", *lines[top - 1 : last]]))]
    return Written("\n\n\n".join(pieces), said, f"{module.replace('.', '/')}.py")


@cache
def _files() -> list[tuple[str, str, dict[str, tuple[int, int]], list[ast.FunctionDef]]]:
    """Of each family's file: module, text, the lines of each row, and its functions."""
    found = []
    modules = {name: module for name, module in sys.modules.items() if name.startswith("mbib_core.methods.")}
    for name, module in modules.items():
        text = inspect.getsource(module)
        body = ast.parse(text).body
        tables = [s for s in body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
        rows: dict[str, tuple[int, int]] = {}
        for table in tables:
            family = getattr(module, table.target.id)  # type: ignore[union-attr]
            if isinstance(table.value, ast.Dict) and any(family is known for known in FAMILIES.values()):
                pairs = zip(table.value.keys, table.value.values, strict=True)
                rows |= {k.value: (k.lineno, v.end_lineno) for k, v in pairs if isinstance(k, ast.Constant)}  # type: ignore
        found.append((name, text, rows, [s for s in body if isinstance(s, ast.FunctionDef)]))
    return found


if __name__ == "__main__":
    counted = count_costs()
    with KEPT.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["method", *Cost._fields])
        table.writerows([name, *cost] for name, cost in counted.items())
