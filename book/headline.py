"""The answer of README and front page: does it work? A picture and three sentences, from the records and nothing else.

`python book/chapters.py headline` writes them between two marks of each page.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from mbib_core import compare, figures, results
from mbib_core.data import load
from mbib_core.methods import settle
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings
from mbib_core.stages import noise_of_a_run
from mbib_core.standings import printed

BOOK = Path(__file__).resolve().parent
BEGIN, END = "<!-- python book/chapters.py headline -->", "<!-- headline ends -->"
SEEN = (
    "<!-- the rare classes -->",
    "<!-- the rare classes end -->",
)  # on the front page alone
METHODS = ("ce", "bsce", "bib", "mbib", "mbib-beta0")
SHOTS = {"few": "fewer than 20", "medium": "20 to 100", "many": "more than 100"}
REAL, SMALL = ("cifar100-lt", "CIFAR-100-LT"), ("glyphs-lt", "Glyphs-LT")
ASKED = 6  # so many comparisons of methods on the paper's data stand in the benchmark
NUMERALS = {1: "one", 2: "two", 6: "six"}


def headline(folder: Path = BOOK / "results", root: Path = BOOK.parent) -> list[Path]:
    """Draws the two pictures, writes them and the answer into README.md and book/intro.md; returns the four files.

    Raises SystemExit on a page without marks, or where a method of the answer has no record: the pages then claim
    nothing.
    """
    records = results.read_records(folder)
    pages = {root / "README.md": "book/", root / "book" / "intro.md": ""}
    runs = {
        data: {m: own(records, data, m) for m in METHODS} for data, _ in (REAL, SMALL)
    }
    if missing := [
        f"{m} on {data}"
        for data, found in runs.items()
        for m in METHODS
        if not found[m]
    ]:
        for page in pages:
            fill(page, "")
        raise SystemExit(f"no record of {', '.join(missing)}: mbib campaign makes them")
    noise = noise_of_a_run(records, "all")
    figure = drawn(runs[REAL[0]], noise)
    k = recipe("mbib").k  # chosen on the paper's data; on the small set it is another
    tilted = {
        m: compare.accuracies(own(records, SMALL[0], m, k=k))
        for m in ("mbib", "mbib-beta0", "bsce")
    }
    longer = {
        m: compare.accuracies(
            own(records, SMALL[0], m, epochs=2 * SCHEDULES["glyphs"].epochs)
        )
        for m in tilted
    }
    for page, there in pages.items():
        alt, mark = figure.get_label(), "" if there else "{.picture}"
        words = answer(runs, tilted, longer, noise, there)
        fill(
            page,
            f"![{alt}]({there}headline.png){mark}\n\n{caption(runs[REAL[0]], there)}\n\n{words}",
        )
    seen = what_is_seen(runs[SMALL[0]]["ce"])
    words = (
        "Figure: **What there is to learn from.** All training images, up to nine, of a frequent and of ever rarer "
        f"classes of {SMALL[1]}, drawn letters and signs, and the share of new images that a network trained with "
        "cross-entropy reads correctly."
    )
    alt = f"![{seen.get_label()}](seen.png){{.picture}}"
    fill(root / "book" / "intro.md", f"{alt}\n\n{words}", SEEN)
    pictures = {"headline.png": figure, "seen.png": seen}
    for name, picture in pictures.items():
        (root / "book" / name).write_bytes(figures.png(picture))
    return [*(root / "book" / name for name in pictures), *pages]


def what_is_seen(runs: list[results.Record]):
    """Training images of four classes of Glyphs-LT, from the largest to the smallest, and how many are read right."""
    data = load(SMALL[0])
    by_size = data.counts.argsort(descending=True, stable=True)
    chosen = by_size[[round(share * (len(by_size) - 1)) for share in (0, 0.4, 0.8, 1)]]
    sheet = torch.full((4, 9, *data.train.x.shape[1:]), 255, dtype=torch.uint8)
    for row, label in zip(sheet, chosen, strict=True):
        images = data.train.x[data.train.y == label][:9]
        row[: len(images)] = images
    right = torch.tensor([run["test"]["by_class"]["v"] for run in runs]).mean(0)[chosen]
    names = [f"{data.classes[label]}  ({data.counts[label]})" for label in chosen]
    return figures.seen_and_right(sheet.numpy(), names, right.tolist())


def own(
    records: list[results.Record], data: str, method: str, **settings: float | None
) -> list[results.Record]:
    """The final runs of a method with its frozen settings, but for `settings`, by seed."""
    wanted = Settings(data=data, imbalance=100.0, method=method, **settings)
    return compare.runs_of(records, settle(wanted))


def drawn(runs: dict[str, list[results.Record]], noise: compare.Noise):
    """Accuracy of each method by size of class, with the paper's where it has one."""
    points = {
        figures.NAMES[m]: {
            shot: compare.around(compare.accuracies(found, shot))[0]
            for shot in (*SHOTS, "all")
        }
        for m, found in runs.items()
    }
    paper = {
        figures.NAMES[m]: value
        for m in runs
        if (value := printed(m, recipe(m))) is not None
    }
    return figures.who_gains(points, paper, {figures.NAMES[m]: m for m in runs})


def recipe(method: str) -> Settings:
    return settle(Settings(data=REAL[0], imbalance=100.0, method=method))


def caption(runs: dict[str, list[results.Record]], there: str) -> str:
    counts, sizes = (
        runs["ce"][0]["counts"],
        sorted({len(found) for found in runs.values()}),
    )
    each = {(1,): "one run each", (1, 2): "one run or the mean of two"}.get(
        tuple(sizes), f"means of {' to '.join(map(str, sizes))} runs each"
    )
    text = (
        f"**The tail gains.** Test accuracy on {REAL[1]}, {len(counts)} classes with {max(counts)} training images "
        f"down to {min(counts)}, by size of class; {each}, {runs['ce'][0]['settings']['epochs']} epochs. Hollow: the "
        "paper's numbers."
    )
    return (
        f"*{text.replace('**', '')}*" if there else f"Figure: {text}<!-- fig-answer -->"
    )


def answer(
    runs: dict, tilted: dict, longer: dict, noise: compare.Noise, there: str
) -> str:
    """Three short paragraphs: the paper's data, the control, the small data set.

    `tilted` are accuracies by method on the small data set with the class weights of the paper's data,
    `longer` those after twice the epochs.
    """
    real, small = (
        {m: compare.accuracies(own) for m, own in runs[data].items()}
        for data, _ in (REAL, SMALL)
    )
    lead, control = (against(real, other, noise) for other in ("bsce", "mbib-beta0"))
    lead_too, control_too = (
        against(small, other, noise) for other in ("bsce", "mbib-beta0")
    )
    asked = against(real, "mbib-beta0", noise, level=1 - 0.05 / ASKED)
    bib_too = against(small, "bsce", noise, "bib")
    sizes = sorted({len(found) for found in real.values()})
    each = "one run" if sizes == [1] else "one or two runs" if sizes == [1, 2] else None
    each = each or f"{sizes[0]} to {sizes[-1]} runs"
    assumed = (
        f" Each method has {each} so far; the intervals assume that these scatter as shorter runs of MBIB do on "
        f"validation images, with a standard deviation of {noise.sd:.1f} points."
        if compare.borrowed(noise, *real.values())
        else ""
    )
    costs = {
        1: ", and the distillation helps",
        0: "",
        -1: ", and the distillation costs accuracy",
    }[control_too.sign]
    alone = (
        f" This is one question asked alone; as one of the benchmark's {NUMERALS[ASKED]} it is not resolved "
        f"({compare.signed(asked.low)} to {compare.signed(asked.high)})."
        if control.sign and not asked.sign
        else ""
    )
    counts = runs[SMALL[0]]["ce"][0]["counts"]
    beside, weighted, weights = "", "", recipe("mbib").k
    if all(tilted.values()):
        ends = [against(tilted, other, noise) for other in ("bsce", "mbib-beta0")]
        beside = (
            f" These runs have no class weights (k = 0). With those of {REAL[1]}, k = {weights:g}, on both sides, "
            f"{min(map(len, tilted.values()))} runs each, MBIB's difference from the balanced softmax is {ends[0]} and "
            f"from its control {ends[1]}."
        )
        if ends[0].sign != lead_too.sign:
            weighted = f", with class weights {word(ends[0])}"
        if costs and ends[1].sign != control_too.sign:
            costs += " without class weights"
    if all(longer.values()):
        ends = [against(longer, other, noise) for other in ("bsce", "mbib-beta0")]
        where = f"{there}10_beyond_the_paper.ipynb#longer-training-and-the-distillation"
        beside += f" After [twice the epochs]({where}), at k = 0, they are {ends[0]} and {ends[1]}."
    return (
        f"**On the paper's data: {word(lead)}{how_many(lead)}.** On {REAL[1]} MBIB "
        f"classifies {mean(real['mbib'])} % of the test images correctly, the balanced softmax "
        f"{mean(real['bsce'])} %, and plain cross-entropy {mean(real['ce'])} %; the "
        f"paper reports {printed('mbib', recipe('mbib')):.1f} % for MBIB. Against the "
        f"balanced softmax {said(lead)}.{assumed} MBIB's settings were chosen on validation images; the balanced "
        "softmax was not tuned.\n\n"
        f"**Is it the distillation? On these data: {word(control)}{how_many(control)}.** Without it (β = 0) "
        f"the same network has {mean(real['mbib-beta0'])} %. Against this control {said(control)}.{alone}\n\n"
        f"**On a small data set: {word(lead_too)}{weighted}{costs}.** {SMALL[1]} has {sum(counts):,} training images "
        f"of drawn letters and signs in {len(counts)} classes, and here {len(small['mbib'])} runs of MBIB. Against the "
        f"balanced softmax {said(lead_too)}; {said(bib_too, 'BIB')}. Against its "
        f"control, without the distillation, {said(control_too)}.{beside} [The ablations]"
        f"({there}08_ablations.ipynb) ask why, [the benchmark]({there}07_benchmark.ipynb) has all numbers."
    )


def against(
    accuracy: dict[str, list[float]],
    other: str,
    noise: compare.Noise,
    method: str = "mbib",
    level: float = 0.95,
) -> compare.Difference:
    one, two = accuracy[method], accuracy[other]
    known = compare.borrowed(noise, one, two)
    return compare.difference(one, two, level=level, known=known)


def word(found: compare.Difference) -> str:
    """The answer in a word; with fewer than three runs on a side no firm yes."""
    yes = "yes" if min(found.n) > 2 else "probably yes"
    return {1: yes, 0: "not resolved", -1: "no"}[found.sign]


def how_many(found: compare.Difference) -> str:
    """What to add to an answer that stands on few runs."""
    if min(found.n) > 2:
        return ""
    one, two = (NUMERALS.get(n, str(n)) for n in found.n)
    return f", {one} {'run' if one == 'one' else 'runs'} against {two}"


def said(found: compare.Difference, method: str = "MBIB") -> str:
    of = "" if method == "MBIB" else f" of {method}"
    what = f"{method}'s accuracy" if found.sign else f"the difference{of}"
    return f"{what} is {compare.verdict(found)}"


def mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1f}"


def fill(page: Path, block: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Puts `block` between the two marks of a page. Raises SystemExit where the page lacks them."""
    text, (begin, end) = page.read_text(encoding="utf-8"), marks
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"{page} needs the lines {begin} and {end}, once each")
    head, tail = text.split(begin)[0], text.split(end)[1]
    inside = f"\n\n{block}\n\n" if block else "\n\n"
    page.write_text(f"{head}{begin}{inside}{end}{tail}", encoding="utf-8", newline="\n")
