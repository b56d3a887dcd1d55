"""The model card of saved weights, from their record, in the format of the Hugging Face hub: YAML, then Markdown."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mbib_core.compare import share_interval
from mbib_core.methods import METHODS, settle
from mbib_core.report import network_of, part_of, pipes
from mbib_core.results import Record, read_record
from mbib_core.settings import Settings, run_id
from mbib_core.text import code, markdown
from mbib_core.weights import Saved, read_weights

CLASSES = 100  # names of classes that a card lists
PAPER = "*Mixture of Balanced Information Bottlenecks for Long-Tailed Visual Recognition*, TMLR 2025"


class Known(NamedTuple):
    """Published data: title, name on the hub ("" for none), licence, and what a network trained on it is not for."""

    title: str
    hub: str
    licence: str
    limit: str


KNOWN = {
    "cifar100-lt": Known(
        "CIFAR-100-LT",
        "uoft-cs/cifar100",
        "The hub lists the licence of CIFAR-100 as unknown. Its images are a subset of 80 Million Tiny Images, with "
        "labels of its own; the authors of Tiny Images withdrew that set in 2020, because derogatory categories and "
        "offensive images were in it.",
        "Five of the classes are people (baby, boy, girl, man, woman), as collected from the web in 2008: not for "
        "photographs of people, neither to recognise nor to sort them.",
    ),
    "glyphs-lt": Known(
        "Glyphs-LT",
        "",
        "Glyphs-LT is drawn by `mbib_core`, under the licence of the code, from the shapes of the typefaces that "
        "matplotlib carries (DejaVu, STIX, Computer Modern).",
        "One printed character on a plain ground: not for handwriting, scanned pages or text in photographs.",
    ),
}


def card_of(weights: Path, *, licence: str | None = None) -> str:
    """The card of a .safetensors file whose record lies beside it, of the same name.

    Raises FileNotFoundError or ValueError with a sentence if one of the two is not there, or they are of two runs.
    """
    run = read_weights(weights)
    file = weights.with_suffix(".json")
    if not file.is_file():
        raise FileNotFoundError(
            f"there is no record {file} beside the weights: a card says how they were made and what they reached, so "
            f"put the record of the same run there"
        )
    record = read_record(file)
    name = run_id(run.settings)
    if record["run_id"] != name or record.get("classes") != run.classes:
        raise ValueError(
            f"{file} is the record of {record['run_id']}, the weights are of {name}: put the record of that run there"
        )
    try:
        return card(run, record, licence=licence)
    except KeyError as error:
        raise ValueError(f"{file} lacks {error}, which a card needs: make the run again") from None


def card(run: Saved, record: Record, *, licence: str | None = None) -> str:
    """The card of `run` from its `record`; `licence` is an identifier of the hub's, by default that of this package for
    data that are published, and "unknown" for data of one's own."""
    settings, name, method = run.settings, record["run_id"], METHODS[run.settings.method]
    known = KNOWN.get(settings.data)
    data = known.title if known else settings.data if settings.folder is None else _without_path(settings)
    where = f"{data}, imbalance factor {settings.imbalance:g}" if known else data
    licence = licence or ("mit" if known else "unknown")
    part, found, counts, machine = part_of(record), record[part_of(record)], record["counts"], record["machine"]
    size = f"{run.size[0]} x {run.size[1]} pixels"
    source = PAPER if method.source == "the paper" else markdown(method.source)
    rest = [f"{code(n)} {100 * v['all']:.1f} %" for n, v in found["accuracy"].items() if n != found["default"]]
    also = f" Other predictions of the same network, all classes: {', '.join(rest)}." if rest else ""
    unseen = " The run is one for choosing settings: it never saw the test images." if part == "validation" else ""
    average = "an average of those at several moments" if settings.average else "those after the last epoch"
    commits = ", ".join(map(markdown, record["commits"]))
    licence_of_data = known.licence if known else "The data are somebody's own: what their licence allows is not known."
    return f"""{_front(name, licence, known.hub if known else "", where, data, part, found, settings.method)}
# {markdown(method.title[0].upper() + method.title[1:])} on {markdown(where)}

A {network_of(record)} that tells {len(run.classes)} classes apart, trained with {markdown(method.title)} ({source}).
{method.about} It has {record["parameters"]:,} parameters and takes {record["multiply_adds"]:,} multiply-adds an image.
Images are RGB in bytes, {size}; it normalises them itself. Its file: {code(name + ".safetensors")}.

## Accuracy

On {found["pictures"]} {part} images, mean over classes, so that every class counts the same; of the prediction
{code(found["default"])}.{unseen}

{pipes(*accuracy_rows(record, found))}

Many shots: over 100 training images; few: below 20. {_interval_words(found)}{also}

## Use

```python
from pathlib import Path
from mbib_core import read_weights
from mbib_core.serving import predict

run = read_weights(Path("{name}.safetensors"))
for file, p in predict(run, ["photo.jpg"]):
    print(file, run.classes[p.argmax()], float(p.max()))
```

On the command line `mbib predict FILE photo.jpg` does the same, and `mbib evaluate FILE` measures the accuracy again.

## How it was made

```
{_command(record, settings)}
```

- On {sum(counts)} training images: {max(counts)} of the most frequent class, {min(counts)} of the rarest.
- {settings.epochs} epochs in {record["seconds"]:.0f} s on one {markdown(machine["device"])} ({machine["precision"]},
  torch {markdown(machine["torch"])}); code of commit {commits}.
- Seed {settings.seed}. The weights are {average}; no test image had a part in that choice.{_chosen(settings)}

## Limits

{chr(10).join(f"- {words}" for words in _limits(run, record, found, known))}

Classes: {_classes(run.classes)}.

## Licence

Weights: {markdown(licence)}. Code, `mbib-core`: MIT. {licence_of_data}
"""


def _front(
    name: str, licence: str, hub: str, where: str, data: str, part: str, found: Mapping[str, Any], method: str
) -> str:
    """The metadata: names and texts as JSON, which YAML reads too."""
    accuracy = found["accuracy"][found["default"]]
    lines = [
        "---",
        f"license: {json.dumps(licence)}",
        "library_name: mbib-core",
        "pipeline_tag: image-classification",
        "tags:",
        *(f"- {json.dumps(tag)}" for tag in ("image-classification", "long-tailed-recognition", method)),
        *(["datasets:", f"- {hub}"] if hub else []),
        "metrics:",
        "- accuracy",
        "model-index:",
        f"- name: {json.dumps(name)}",
        "  results:",
        "  - task:",
        "      type: image-classification",
        "    dataset:",
        f"      type: {json.dumps(hub or data)}",
        f"      name: {json.dumps(where)}",
        f"      split: {part}",
        "    metrics:",
    ]
    for shot, value in accuracy.items():
        classes = "all classes" if shot == "all" else f"{shot}-shot classes"
        lines += ["    - type: accuracy", f"      name: Accuracy, mean over {classes}", f"      value: {value}"]
    return "\n".join([*lines, "---"])


def accuracy_rows(record: Record, found: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """The accuracy by shot of the default prediction, with what a card says of it: heads of columns, and rows."""
    head = ["", "classes", "images", "accuracy in %", "95 % interval", "calibration error in %"]
    rows, equal = [], _equal(found)
    for shot in ("all", *record["shots"]):
        value, bins = found["accuracy"][found["default"]].get(shot), found["calibration"][shot]
        if value is None:
            continue
        classes = len(record["classes"]) if shot == "all" else record["shots"][shot]
        low, high = share_interval(round(value * sum(bins["count"])), sum(bins["count"]))
        span = f"{100 * low:.1f} to {100 * high:.1f}" if equal else ""
        rows.append([shot, classes, sum(bins["count"]), f"{100 * value:.1f}", span, f"{100 * bins['error']:.1f}"])
    return head, rows


def _equal(found: Mapping[str, Any]) -> bool:
    """Whether the mean over classes is the share of right answers in every group, as it is if all classes have equally
    many images."""

    def right(bins: Mapping[str, Any]) -> float:
        total = sum(n * share for n, share in zip(bins["count"], bins["accuracy"], strict=True))
        return total / max(1, sum(bins["count"]))

    accuracy = found["accuracy"][found["default"]]
    return all(abs(value - right(found["calibration"][shot])) < 1e-4 for shot, value in accuracy.items())


def _interval_words(found: Mapping[str, Any]) -> str:
    if _equal(found):
        return (
            "The interval (Wilson 1927) is that of drawing so many images once; this is one run, and that of another "
            "seed may lie outside."
        )
    return "There is no interval: classes have unequal numbers of images, and this is one run."


def _limits(run: Saved, record: Record, found: Mapping[str, Any], known: Known | None) -> list[str]:
    error, rarest = 100 * found["calibration"]["all"]["error"], min(record["counts"])
    hidden = (
        "the row of few shots says what to expect of rare classes"
        if "few" in record["shots"]
        else ("the mean over classes does not say how such a class fares")
    )
    shares = (
        "carry the training set's shares of the classes"
        if METHODS[run.settings.method].biased
        else "are those of a place where all classes are equally frequent"
    )
    return [
        f"It names one of its {len(run.classes)} classes for every image, whatever the image shows.",
        f"It sees {run.size[0]} x {run.size[1]} pixels: what is lost when an image is shrunk to that cannot count.",
        f"Its rarest class had {rarest} training image{'s' * (rarest != 1)}: {hidden}.",
        f"Its probabilities are off by {error:.1f} points on average, and {shares}; `--prior` gives other shares.",
        *([known.limit] if known else []),
    ]


def _chosen(settings: Settings) -> str:
    """How this run was picked among those that could have been published."""
    usual = Settings(data=settings.data, imbalance=settings.imbalance, method=settings.method)
    if settings.data not in KNOWN or run_id(settle(usual)) != run_id(settings):
        return ""
    return " It is the run\n  of the first seed with the settings that the package has for the method on these data."


def _without_path(settings: Settings) -> str:
    return f"{settings.kind}:{Path(str(settings.folder)).name}"


def _command(record: Record, settings: Settings) -> str:
    """The command of the run, without the folders of the machine that it ran on."""
    words = shlex.split(record["command"])
    return shlex.join(_without_path(settings) if settings.folder and word == settings.data else word for word in words)


def _classes(names: list[str]) -> str:
    more = f", and {len(names) - CLASSES} more" if len(names) > CLASSES else ""
    return ", ".join(markdown(name) for name in names[:CLASSES]) + more
