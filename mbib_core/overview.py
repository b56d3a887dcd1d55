"""What methods there are, what each costs to train, and what was reached with it."""

import ast
import csv
import inspect
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from mbib_core import compare
from mbib_core.batches import Batch
from mbib_core.choices import Choice
from mbib_core.data.longtailed import Images, LongTailed, long_tailed_counts
from mbib_core.extras import extra
from mbib_core.methods import FAMILIES, METHODS, Method, method_of, methods_on, settle
from mbib_core.methods.published import OUT_OF_REACH, PUBLISHED
from mbib_core.results import SHOTS, Record, published
from mbib_core.schedules import schedule_of
from mbib_core.settings import SETTINGS, Settings, Value
from mbib_core.stages import noise_of_a_run
from mbib_core.steps import optimizer_for, train_mode
from mbib_core.trainer import new_learner

KEPT = Path(__file__).with_name("costs.csv")
COUNTED = 8  # images of the step that is counted
# Chapters that explain a row; all rows stand on the page "the_field".
EXPLAINED = {
    "01_long_tails": ("ce",),
    "02_rebalancing": ("bsce",),
    "05_bib": ("bib", "ce-2branch", "bsce-2branch"),
    "06_mbib": ("mbib", "se-mbib", "all-mbib", "mbib-deepest"),
    "08_ablations": ("sdib", "mbib-x", "mbib-no-adjustment", "mbib-no-balance", "mbib-beta0", "mbib-consistent"),
}
# Names of rows in the paper's table 1.
IN_TABLE_1 = {
    **{"ce": "CE", "focal": "Focal", "ldam-drw": "LDAM-DRW", "bbn": "BBN", "cdt": "CDT", "bsce": "BSCE", "bib": "BIB"},
    **{"mbib": "MBIB", "crt": "cRT", "tau-norm": "tau-norm", "kcl": "KCL", "tsc": "TSC", "ssp": "SSP", "dive": "DiVE"},
    **{"ride-2": "RIDE(2E)", "ride-3": "RIDE(3E)", "sade": "SADE"},
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


# What was reached


class Reached(NamedTuple):
    """What the final runs of one method came to: accuracy in per cent by shot, one value a run."""

    name: str
    runs: int
    accuracy: dict[str, list[float]]
    parameters: int
    training: int
    published: float | None


def learned(rows: Sequence[Reached]) -> set[str]:
    """The names of the methods that learned by this recipe.

    A method did not if in every group of classes it has less than half of what the median method has there. One that
    gives up the tail, or the head, has learned.
    """
    median = {
        shot: statistics.median(statistics.fmean(row.accuracy[shot]) for row in rows if shot in row.accuracy)
        for shot in {shot for row in rows for shot in row.accuracy}
    }
    return {
        row.name
        for row in rows
        if any(statistics.fmean(values) >= median[shot] / 2 for shot, values in row.accuracy.items())
    }


def reached(
    records: Iterable[Record], *, data: str = "glyphs-lt", imbalance: float = 100, schedule: str | None = None
) -> list[Reached]:
    """One row for each method that has final runs with its own settings by this schedule (the data set's usual one).

    `training` are multiply-adds. The published value is that of the paper's table 1.
    """
    asked = {n: settle(Settings(data=data, imbalance=imbalance, method=n, schedule=schedule)) for n in METHODS}
    return _rows(records, {name: (settings, printed(name, settings)) for name, settings in asked.items()})


def reached_as_published(records: Iterable[Record], *, imbalance: float = 100) -> list[Reached]:
    """One row for each method that has final runs on CIFAR-100-LT by its publication's own recipe, as far as it can be
    asked for, with what is published. No two of them say which method is better."""
    recipes = PUBLISHED.items()
    asked = {name: (settle(recipe.ask(name, imbalance)), recipe.printed(imbalance)) for name, recipe in recipes}
    return _rows(records, asked)


def _rows(records: Iterable[Record], asked: Mapping[str, tuple[Settings, float | None]]) -> list[Reached]:
    """Of each method that has runs with the settings that are asked for, beside the value that is published."""
    records, found = list(records), []
    for name, (settings, said) in asked.items():
        runs = compare.runs_of(records, settings)
        if not runs:
            continue
        shots = [compare.accuracies(runs, shot) for shot in SHOTS]
        accuracy = {shot: values for shot, values in zip(SHOTS, shots, strict=True) if values}
        cost = training_multiply_adds(settings, stand_in(settings.data, runs[0]["counts"]))
        found.append(Reached(name, len(runs), accuracy, runs[0]["parameters"], cost, said))
    return found


def printed(name: str, settings: Settings) -> float | None:
    """The accuracy over all classes in the paper's table 1, in per cent, where it has these settings."""
    if settings.data != "cifar100-lt" or settings.schedule != "paper":
        return None
    rows = published(table=1, method=IN_TABLE_1.get(name), imbalance_factor=settings.imbalance)
    return float(rows["all"].iloc[0]) if len(rows) else None


def cells(row: Reached) -> dict[str, str]:
    """A row as text."""
    return {
        "method": row.name,
        **{shot: compare.spread(row.accuracy[shot]) if shot in row.accuracy else "" for shot in SHOTS},
        "runs": str(row.runs),
        "paper": "" if row.published is None else f"{row.published:.1f}",
        "parameters": f"{row.parameters:,}",
        "training, 10^12": f"{row.training / 1e12:,.1f}",
    }


NOTE = """Test accuracy in % after the last epoch: mean and standard deviation over runs (one run has none).
training: multiply-adds of all steps, forward and backward."""


def show_reached(rows: Sequence[Reached], *, data: str, imbalance: float, schedule: str | None = None) -> str:
    """`reached` as text: the same recipe for all; what was not run stands below."""
    settings = settle(Settings(data=data, imbalance=imbalance, schedule=schedule))
    how = f"{data}, factor {imbalance:g}, schedule {settings.schedule}, {settings.epochs} epochs"
    lines = [f"The same recipe for all: {how}\n"]
    if rows:
        lines += [_text(map(cells, rows)), "", NOTE]
        lines += ["paper: its table 1, over all classes"] if any(row.published for row in rows) else []
        failed = [row.name for row in rows if row.name not in learned(rows)]
        lines += [f"did not learn by this recipe: {', '.join(failed)}"] if failed else []
    return "\n".join([*lines, *_not_run(METHODS, rows)])


def cells_as_published(row: Reached) -> dict[str, str]:
    """A row of `reached_as_published` as text, but for what differs from the publication."""
    ours, said = row.accuracy["all"], row.published
    return {
        "method": row.name,
        "ours": compare.spread(ours),
        "runs": str(row.runs),
        "published": "" if said is None else f"{said:.1f}",
        "difference": "" if said is None else compare.signed(statistics.fmean(ours) - said),
        "printed in": PUBLISHED[row.name].source,
        "training, 10^12": f"{row.training / 1e12:,.1f}",
    }


def differences(names: Iterable[str]) -> dict[str, list[str]]:
    """What the publications' recipes have that these runs have not, and of which methods."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(PUBLISHED[name].differs, []).append(name)
    return found


def show_as_published(rows: Sequence[Reached], *, imbalance: float) -> str:
    """`reached_as_published` as text, with what the publications did that these runs did not."""
    lines = [f"Each its own recipe, as published: cifar100-lt, factor {imbalance:g}; not to be compared by rows\n"]
    if rows:
        lines += [_text(map(cells_as_published, rows)), "", f"{NOTE}\npublished, and not here:"]
        lines += [f"  {', '.join(names)}: {what}" for what, names in differences(row.name for row in rows).items()]
    lines += _not_run(PUBLISHED, rows)
    return "\n".join([*lines, "", "out of reach:", *(f"  {name}: {why}" for name, why in OUT_OF_REACH.items())])


def _text(rows: Iterable[Mapping[str, str]]) -> str:
    return extra("pandas", "a table").DataFrame(list(rows)).to_string(index=False)


def _not_run(names: Iterable[str], rows: Iterable[Reached]) -> list[str]:
    missing = [name for name in names if name not in {row.name for row in rows}]
    return ["", f"not run: {', '.join(missing)}"] if missing else []


# What was chosen


class Tuned(NamedTuple):
    """One of a method's own constants as validation images choose it: accuracies in per cent, one value a run.

    `scores` are those on validation images by value, so far. `usual` is the row's value, the publication's where it has
    one; `chosen` is None while a run is missing. `at_usual` and `at_chosen` are those on test images of the final runs,
    and `gain` is how much higher the second are, where the two values differ and both have runs.
    """

    method: str
    constant: str
    scores: dict[Value, list[float]]
    usual: Value
    chosen: Value | None
    at_usual: list[float]
    at_chosen: list[float]
    gain: compare.Difference | None


def tuned(
    choices: Iterable[Choice],
    records: Iterable[Record],
    *,
    data: str = "glyphs-lt",
    imbalance: float = 100,
    schedule: str | None = None,
    known: compare.Noise | None = None,
) -> list[Tuned]:
    """One row for each choice of one of a method's own constants on these data by this schedule (the usual one), in
    order. `known` lends its spread to samples of fewer than three runs."""
    records, found = list(records), []
    asked = settle(Settings(data=data, imbalance=imbalance, schedule=schedule))
    for choice in choices:
        first = choice.candidates[0]
        here = (first.data, first.imbalance, first.schedule) == (asked.data, asked.imbalance, asked.schedule)
        if not here or len(choice.names) != 1 or not choice.names <= SETTINGS.keys():
            continue
        (name,) = choice.names
        usual, best = methods_on(data)[first.method].own[name], choice.best(records)
        chosen = None if best is None else best.own[name]
        before = _final(records, replace(first, own={**first.own, name: usual}))
        after = [] if best is None else _final(records, best)
        gain = None
        if chosen != usual and before and after:
            gain = compare.difference(after, before, known=known and compare.borrowed(known, before, after))
        scores = dict(zip((c.own[name] for c in choice.candidates), choice.scores(records), strict=True))
        found.append(Tuned(first.method, name, scores, usual, chosen, before, after, gain))
    return found


def _final(records: Iterable[Record], settings: Settings) -> list[float]:
    return compare.accuracies(compare.runs_of(records, settings))


def cells_of_choice(row: Tuned) -> dict[str, str]:
    """A row of `tuned` as text."""
    return {
        "method": row.method,
        "constant": row.constant.replace("_", " "),
        "validation": ", ".join(f"{_short(value)}:\u00a0{compare.spread(own)}" for value, own in row.scores.items()),
        "usual": _short(row.usual),
        "chosen": "" if row.chosen is None else _short(row.chosen),
        "test, usual": compare.spread(row.at_usual),
        "test, chosen": "as usual" if row.chosen == row.usual else compare.spread(row.at_chosen),
        "difference": "" if row.gain is None else str(row.gain),
    }


def _short(value: Value) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def show_tuned(rows: Sequence[Tuned], known: compare.Noise | None) -> str:
    """`tuned` as text, as far as there are runs."""
    begun = [row for row in rows if any(row.scores.values())]
    made = sum(row.chosen is not None for row in rows)
    lines = [f"Constants chosen on validation images, with the same effort: {made} of {len(rows)} choices are made"]
    if begun:
        lines += [
            "",
            _text(map(cells_of_choice, begun)),
            "",
            "Accuracy in % over all classes; validation: at each value",
        ]
        lines += ["usual: the value in the common recipe; difference: of the test accuracies, with its 95 % interval"]
    if begun and known:
        lines += [f"Fewer than three runs borrow the standard deviation of a run, {known.sd:.1f} points."]
    return "\n".join(lines)


def show_all(
    records: Iterable[Record],
    choices: Iterable[Choice],
    *,
    data: str = "glyphs-lt",
    imbalance: float = 100,
    schedule: str | None = None,
) -> str:
    """The tables of methods as text: one recipe for all; on CIFAR-100-LT each by its own; and what was chosen."""
    records = list(records)
    where: dict[str, Any] = {"data": data, "imbalance": imbalance, "schedule": schedule}
    blocks = [show_reached(reached(records, **where), **where)]
    if data == "cifar100-lt":
        blocks.append(show_as_published(reached_as_published(records, imbalance=imbalance), imbalance=imbalance))
    else:
        blocks.append("Each its own recipe, as published: that is for --data cifar100-lt")
    try:
        known = noise_of_a_run(records, "all", data)
    except ValueError:  # no setting has two runs
        known = None
    blocks.append(show_tuned(tuned(choices, records, **where, known=known), known))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    counted = count_costs()
    with KEPT.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["method", *Cost._fields])
        table.writerows([name, *cost] for name, cost in counted.items())
