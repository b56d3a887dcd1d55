"""A readable report of one run: a page of Markdown and a figure, beside the record."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mbib_core import compare, metrics
from mbib_core.data import LongTailed, shots
from mbib_core.data.longtailed import counted
from mbib_core.evaluation import answers
from mbib_core.extras import extra
from mbib_core.files import write_atomically
from mbib_core.methods import METHODS
from mbib_core.mistakes import Mistake, surest_mistakes
from mbib_core.networks.pretrained import SHA256
from mbib_core.text import block, markdown
from mbib_core.weights import Saved

if TYPE_CHECKING:  # they bring matplotlib and pandas, which only a page that is drawn needs
    from matplotlib.figure import Figure

    from mbib_core.results import Record

TAIL_ROWS = 50  # classes of the tail that are listed, the rarest first
ALSO = {"top5": "Top-5 accuracy", "macro_f1": "Macro-F1"}  # of the prediction with the star, where a record has them
LOSERS = 8  # classes of the tail of which pictures are shown
TAKEN_FOR = 3  # wrong answers that are named for each
SCARCE = 10  # pictures of a class, below which its accuracy is hardly known
ADVICE = 5  # sentences on single classes, at the most
ALT = "Left: accuracy of each class against its training pictures. Right: how often it is right against how sure it is."


def write_report(run: Saved, data: LongTailed, record: "Record", folder: Path) -> Path:
    """Writes `folder/{run_id}.md` and `.png` and returns the first. Raises OSError with a sentence if it cannot,
    ImportError without matplotlib."""
    extra("matplotlib", "its figure")
    from mbib_core import figures

    images = data.test if part_of(record) == "test" else data.validation
    found, rows = answers(run.network, images.labelled(torch.arange(len(images.y))))
    images = images.subset(rows.cpu())  # without those that are broken and left out
    names = [data.files[part_of(record)][row] for row in rows.tolist()] if part_of(record) in data.files else None
    logits = found[f"logits/{record[part_of(record)]['default']}"].cpu()
    confusion = metrics.confusion(logits, images.y)
    shown = surest_mistakes(images, logits, worst(confusion, torch.tensor(record["counts"])), names=names)
    name = record["run_id"]
    write_atomically(folder / f"{name}.png", figures.png(picture(record)))
    text = report(record, confusion, about=data.name, mistakes=shown)
    write_atomically(folder / f"{name}.md", text.encode())
    return folder / f"{name}.md"


def part_of(record: "Record") -> str:
    """The pictures that a report is about: "test", or "validation" for a run for choosing."""
    return "test" if "test" in record else "validation"


def tail(counts: Int[Tensor, " c"]) -> Int[Tensor, " t"]:
    """The classes of the tail, rarest first: those of few shots, or the rarest third where there are none."""
    order = counts.argsort(stable=True)
    few = shots(counts).get("few")
    return order[: int(few.sum()) if few is not None else -(-len(counts) // 3)]


def worst(confusion: Int[Tensor, "c c"], counts: Int[Tensor, " c"]) -> list[int]:
    """The classes of the tail that lose most, `LOSERS` at the most: the lowest accuracies, and of equal ones those with
    more wrong answers."""
    pictures, right = confusion.sum(1).tolist(), confusion.diagonal().tolist()
    losing = [i for i in tail(counts).tolist() if right[i] < pictures[i]]
    return sorted(losing, key=lambda i: (right[i] / pictures[i], right[i] - pictures[i]))[:LOSERS]


def report(
    record: "Record",
    confusion: Int[Tensor, "c c"],
    *,
    about: str = "",
    mistakes: Mapping[int, Sequence[Mistake]] = MappingProxyType({}),
) -> str:
    """The page, in Markdown; `confusion` [C, C] counts the pictures of class i that were taken for j, and `mistakes`
    are some of them."""
    part = part_of(record)
    found, settings, counts = record[part], record["settings"], torch.tensor(record["counts"])
    classes, default = [markdown(name) for name in record["classes"]], found["default"]
    pictures, accuracy, n = confusion.sum(1).tolist(), found["by_class"][default], counts.tolist()

    overall = [
        [name + (" *" if name == default else ""), *(_percent(values.get(shot)) for shot in ("all", *record["shots"]))]
        for name, values in found["accuracy"].items()
    ]
    by_class = [
        [
            classes[i],
            n[i],
            pictures[i],
            _percent(accuracy[i]),
            _interval(int(confusion[i, i]), pictures[i]),
            _percent(found["posterior_means"][i]),
        ]
        for i in counts.argsort(descending=True, stable=True).tolist()
    ]
    rare = tail(counts).tolist()
    tail_rows = [[classes[i], n[i], f"{confusion[i, i]} of {pictures[i]}", _taken_for(confusion[i], i, classes)]
                 for i in rare[:TAIL_ROWS]]  # fmt: skip
    kind = "classes of few shots (below 20 training pictures)" if "few" in record["shots"] else "rarest third"
    more = f" The {TAIL_ROWS} rarest of {len(rare)}." if len(rare) > TAIL_ROWS else ""
    calibration = [[shot, *_calibration(values)] for shot, values in found["calibration"].items()]
    head = ["class", "training pictures", f"{part} pictures", "accuracy in %", "95 % interval", "mean probability in %"]
    confident, right = _means(found["calibration"]["all"])
    verdict = "about as often" if abs(confident - right) < 0.03 else "less often" if right < confident else "more often"

    title, where = METHODS[settings["method"]].title, markdown(about or settings["data"])
    by_shot = [f"{shot} ({counted(k, 'class')})" for shot, k in record["shots"].items()]
    also = "".join(
        f"\n{words}: {_percent(value)} %."
        for name, words in ALSO.items()
        if (value := _number(found.get(name), default)) is not None
    )

    return f"""# {record["run_id"]}

{title[0].upper()}{title[1:]} on {where}: {len(classes)} classes with {max(n)} to {min(n)}
training pictures, {sum(n)} in all; {network_of(record)},
{counted(settings["epochs"], "epoch")} in {record["seconds"]:.0f} s.
Measured on {found["pictures"]} {part} pictures.

{pipes(["accuracy in %, mean over classes", "all", *by_shot], overall)}

Means over classes, so that every class counts the same. Many shots: over 100 training pictures; few: below 20. The
prediction with a star is the one that counts, here and below. A class of few {part} pictures has a coarse
accuracy.{also}

![{ALT}]({record["run_id"]}.png)

## What the tail is taken for

The {kind}, rarest first.{more}

{pipes(["class", "training pictures", "right", "most frequent wrong answers"], tail_rows, left=(0, 3))}
{_shown(mistakes, confusion, classes, part)}
## Every class

{pipes(head, by_class)}

The interval (Wilson 1927) says where the accuracy on many more pictures may lie.

## How far its probabilities can be trusted

On average it gives its answer a probability of {100 * confident:.0f} %, and is right {verdict}: {100 * right:.0f} %
of the time. The calibration error is the mean distance of the two over bins of confidence.

{pipes(["classes", "pictures", "mean confidence in %", "right in %", "calibration error in %"], calibration)}

## What to look at next

{chr(10).join(f"- {words}" for words in _advice(confusion, counts, classes, part, confident - right))}

Made by

{block(record["command"])}
"""


def _advice(
    confusion: Int[Tensor, "c c"], counts: Int[Tensor, " c"], classes: list[str], part: str, excess: float
) -> list[str]:
    """What the numbers suggest doing, each with the number that does."""
    words, pictures = [], confusion.sum(1)
    if scarce := int((pictures < SCARCE).sum()):
        words.append(
            f"{counted(scarce, 'class')} of {len(classes)} {'has' if scarce == 1 else 'have'} fewer than {SCARCE} "
            f"{part} pictures, and so wide intervals: more {part} pictures of these come first."
        )
    for i in tail(counts).tolist():
        wrong = confusion[i].clone()
        wrong[i] = 0
        if len(words) < ADVICE and int(wrong.max()) >= 3 and int(wrong.max()) > int(wrong.sum()) / 2:
            words.append(
                f"{classes[i]} is mostly taken for {classes[int(wrong.argmax())]} ({int(wrong.max())} of "
                f"{int(wrong.sum())} wrong answers): look whether these are labelled alike, and at pictures of both."
            )
    if abs(excess) >= 0.05:
        too = "too sure" if excess > 0 else "not sure enough"
        words.append(
            f"Its probabilities are {too}, by {100 * abs(excess):.0f} points on average: before they are used as such, "
            f"divide the logits by a temperature that is fitted on validation pictures."
        )
    return words or ["Nothing here stands out; settings are chosen with `--choosing`, on validation pictures."]


def _shown(
    mistakes: Mapping[int, Sequence[Mistake]], confusion: Int[Tensor, "c c"], classes: list[str], part: str
) -> str:
    """A table of mistakes with their pictures; "" if there are none."""
    if not mistakes:
        return ""
    columns = max(map(len, mistakes.values()))
    rows = []
    for i, own in mistakes.items():
        cells = [_cell(one, classes[i], classes[one.answer], part) for one in own]
        rows.append([classes[i], f"{confusion[i, i]} of {confusion[i].sum()}", *cells, *[""] * (columns - len(own))])
    head = ["class", "right", "surest wrong answer", *["next"] * (columns - 1)]
    return f"""
Of those that lose most, the {part} pictures that were taken for another class with the highest probability. Is the
label right? What do they have in common?

{pipes(head, rows, left=tuple(range(len(head))))}
"""


def _cell(one: Mistake, label: str, answer: str, part: str) -> str:
    title = ' "{}"'.format(markdown(one.name).replace('"', "&quot;")) if one.name else ""
    return (
        f"![A {part} picture of {label}, taken for {answer}]({one.uri}{title}) {answer}, {100 * one.probability:.0f} %"
    )


def picture(record: "Record") -> "Figure":
    """Accuracy of each class over its training pictures with each shot's mean; and the reliability diagram."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    from mbib_core import figures

    found = record[part_of(record)]
    counts = np.array(record["counts"])
    accuracy = 100 * np.array(found["by_class"][found["default"]], dtype=float)
    colour = figures.COLOURS.get(record["settings"]["method"], figures.COLOURS["mbib"])
    with figures.styled():
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.scatter(counts, accuracy, s=22, color=colour, alpha=0.75, lw=0)
        for shot, mask in shots(torch.tensor(record["counts"])).items():
            own = counts[mask.numpy()]
            if shot in found["accuracy"][found["default"]]:
                level = 100 * found["accuracy"][found["default"]][shot]
                left.plot([own.min() / 1.06, own.max() * 1.06], [level] * 2, color=colour, lw=3)
                left.text(np.sqrt(own.min() * own.max()), level + 2, shot, ha="center", color=figures.FAINT)
        left.margins(x=0.15)  # the name of a shot with one class is wider than its line
        left.set(xscale="log", ylim=(-3, 105), xlabel="training pictures of the class (log)")
        left.set(ylabel=f"accuracy on {part_of(record)} pictures (%)")
        left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.xaxis.set_major_formatter("{x:g}")
        left.xaxis.set_minor_locator(NullLocator())
        right.plot([0, 100], [0, 100], color=figures.FAINT, ls="--", lw=1.2)
        shown = {"all": (colour, "o", "all classes"), "few": (figures.INK, "^", "few shots")}
        for shot, (ink, marker, label) in shown.items():
            bins = found["calibration"].get(shot)
            if bins and any(bins["count"]):
                values = np.array([bins[name] for name in ("count", "confidence", "accuracy")])
                count, x, y = values[:, values[0] > 0]
                area = 12 + 300 * count / count.sum()
                right.scatter(100 * x, 100 * y, s=area, color=ink, marker=marker, alpha=0.75, lw=0, label=label)
        right.set(xlabel="how sure it is (%); a larger mark: more pictures", ylabel="how often it is right (%)")
        right.set(xlim=(0, 103), ylim=(-3, 105))
        if right.get_legend_handles_labels()[1]:
            right.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return figure


def _taken_for(row: Int[Tensor, " c"], own: int, classes: list[str]) -> str:
    wrong = row.clone()
    wrong[own] = 0
    order = wrong.argsort(descending=True, stable=True)[:TAKEN_FOR].tolist()
    return ", ".join(f"{classes[i]} ({wrong[i]})" for i in order if wrong[i] > 0)


def _means(bins: dict[str, Any]) -> tuple[float, float]:
    """Mean confidence and share of right answers of all pictures in the bins of `metrics.calibration`."""
    count = np.array(bins["count"])
    return tuple(float(np.dot(bins[name], count) / max(1, count.sum())) for name in ("confidence", "accuracy"))  # type: ignore[return-value]


def _calibration(bins: dict[str, Any]) -> list[Any]:
    n = sum(bins["count"])
    return [n, *(_percent(value if n else None) for value in (*_means(bins), bins["error"]))]


def _number(value: Any, prediction: str) -> float | None:
    """One number of a record, which may be kept for each prediction, or for all classes and each shot."""
    while isinstance(value, dict):
        value = value.get(prediction, value.get("all"))
    return value


def network_of(record: "Record") -> str:
    recipe, weights = record["recipe"], record["settings"].get("pretrained")
    network = recipe.get("backbone") or f"ResNet-{recipe['depth']}"
    if weights and weights.startswith(SHA256):  # whole it is in the command, and does not fit a line
        weights = f"of the file with SHA-256 {weights.removeprefix(SHA256)[:8]}..."
    return f"{network} from {f'the weights {weights}' if weights else 'scratch'}"


def _interval(right: int, n: int) -> str:
    low, high = compare.share_interval(right, n)
    return f"{100 * low:.0f} to {100 * high:.0f}" if n else ""


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def pipes(head: list[str], rows: list[list[Any]], left: tuple[int, ...] = (0,)) -> str:
    lines = [head, ["---" if i in left else "---:" for i in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
