"""What is chosen on validation images: settings to choose from, and which of them their runs speak for."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mbib_core.compare import accuracies
from mbib_core.results import Record
from mbib_core.settings import Settings, run_id


@dataclass(frozen=True)
class Choice:
    """Settings of which one is to be chosen on validation images: `candidates`, settled final settings without regard
    to the seed, are trained for choosing with each of `tries`, and the chosen one for the test with each of `seeds`."""

    candidates: tuple[Settings, ...]
    tries: tuple[int, ...]
    seeds: tuple[int, ...]

    @property
    def choosing(self) -> list[Settings]:
        """The runs that choose; they never see a test image."""
        return [run for candidate in self.candidates for run in self._of(candidate)]

    def _of(self, candidate: Settings) -> list[Settings]:
        return [replace(candidate, purpose="choosing", seed=seed) for seed in self.tries]

    @property
    def names(self) -> set[str]:
        """The settings in which the candidates differ."""
        plain = [c.plain() for c in self.candidates]
        return {name for values in plain for name in values if values[name] != plain[0].get(name)}

    def scores(self, records: Iterable[Record]) -> list[list[float]]:
        """Accuracy on validation images in per cent of the runs of each candidate that are there."""
        found = {record["run_id"]: record for record in records}
        ids = [map(run_id, self._of(candidate)) for candidate in self.candidates]
        return [accuracies([found[name] for name in own if name in found]) for own in ids]

    def best(self, records: Iterable[Record]) -> Settings | None:
        """The candidate with the highest mean of its `scores`, the first of equals; None while a run is missing."""
        scores = self.scores(records)
        if any(len(own) < len(self.tries) for own in scores):
            return None
        means = [statistics.fmean(own) for own in scores]
        return self.candidates[means.index(max(means))]
