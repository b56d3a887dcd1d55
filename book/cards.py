"""The published networks: their cards in models/, and the table of the page *Models*, from the records alone.

`python book/chapters.py models` writes them. Which networks: of each main method the one of seed 0 with the settings
that the package has for it on the data, so that no test image has a part in the choice.
"""

from pathlib import Path

from headline import BOOK, METHODS, REAL, SMALL, fill

from mbib_core import figures
from mbib_core.cards import accuracy_rows, card_of
from mbib_core.methods import settle
from mbib_core.notebook import markdown_table
from mbib_core.results import read_record
from mbib_core.settings import Settings, run_id

CAPTION = (
    "Table: **Ten networks.** Test accuracy, mean over classes, with the 95 % interval of "
    "drawing so many test images; each is one run."
)
MARKS = ("<!-- python book/chapters.py models -->", "<!-- models end -->")


def published() -> dict[str, tuple[str, str]]:
    """The names of the published runs, with the title of the data and the method."""
    return {
        run_id(settle(Settings(data=data, imbalance=100.0, method=method))): (
            title,
            method,
        )
        for data, title in (REAL, SMALL)
        for method in METHODS
    }


def write_models(book: Path = BOOK) -> list[Path]:
    """Writes the cards and the table of the page of `book`; returns the files. The weights stay where they are, beside
    their records."""
    written, rows = [], []
    for name, (title, method) in published().items():
        weights = BOOK / "results" / f"{name}.safetensors"
        card = book / "models" / f"{name}.md"
        card.parent.mkdir(exist_ok=True)
        card.write_text(card_of(weights), encoding="utf-8", newline="\n")
        written.append(card)
        record = read_record(weights.with_suffix(".json"))
        _, by_shot = accuracy_rows(record, record["test"])
        shots = {
            shot: f"{accuracy} ({span})" for shot, _, _, accuracy, span, _ in by_shot
        }
        rows.append(
            {
                "data": title,
                "method": figures.NAMES[method],
                "all classes, %": shots["all"],
                "few-shot, %": shots["few"],
                "card": f"{{download}}`card <models/{name}.md>`",
                "weights": f"{{download}}`{weights.stat().st_size / 1e6:.1f} MB <results/{weights.name}>`",
            }
        )
    fill(book / "models.md", f"{CAPTION}\n\n{markdown_table(rows)}", MARKS)
    return [*written, book / "models.md"]
