"""What was reached with each method: by one recipe for all, by each publication's own, with constants chosen alike."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from mbib_core import compare
from mbib_core.choices import Choice
from mbib_core.extras import extra
from mbib_core.methods import METHODS, methods_on, settle
from mbib_core.methods.published import OUT_OF_REACH, PUBLISHED
from mbib_core.overview import stand_in, training_multiply_adds
from mbib_core.results import SHOTS, Record, published
from mbib_core.settings import SETTINGS, Settings, Value
from mbib_core.stages import noise_of_a_run

# Names of rows in the paper's table 1.
IN_TABLE_1 = {
    **{"ce": "CE", "focal": "Focal", "ldam-drw": "LDAM-DRW", "bbn": "BBN", "cdt": "CDT", "bsce": "BSCE", "bib": "BIB"},
    **{"mbib": "MBIB", "crt": "cRT", "tau-norm": "tau-norm", "kcl": "KCL", "tsc": "TSC", "ssp": "SSP", "dive": "DiVE"},
    **{"ride-2": "RIDE(2E)", "ride-3": "RIDE(3E)", "sade": "SADE"},
}


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
