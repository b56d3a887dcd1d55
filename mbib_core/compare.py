"""Compares recorded runs seed by seed: accuracy in per cent, mean ± sd, paired differences, and what they show."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from mbib_core.results import Record, settings_of


def by_seed(
    records: Iterable[Record], shot: str = "all", *, by: str | None = None, on: str | None = None
) -> dict[int, float]:
    """Accuracy in per cent of each run, by its seed: on test pictures, for a run for choosing on validation pictures.

    `shot` is all, many, medium or few; `by` a prediction (v, z, mean, mean_probability), by default that of the run;
    `on` takes the "test" or "validation" part of every run, whatever it was made for. A run without classes of that
    shot, without that prediction or without that part is left out. Raises ValueError if two runs share a seed: they
    differ in another setting, and `results.find` picks by settings.
    """
    found: dict[int, float] = {}
    for record in records:
        settings = settings_of(record)
        part = record.get(on or ("test" if settings["purpose"] == "final" else "validation"), {"accuracy": {}})
        accuracy = part["accuracy"].get(by or part.get("default"), {})
        if settings["seed"] in found:
            raise ValueError(f"two of these runs have seed {settings['seed']}: {record['run_id']} is one of them")
        if shot in accuracy:
            found[settings["seed"]] = 100 * accuracy[shot]
    return found


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """`one` minus `other` for each seed that both have, in the order of the seeds. A seed fixes the order and the crops
    of the pictures for every method, so what the two share cancels in the difference."""
    return [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean and standard deviation over seeds as text: 44.1 ± 0.3, one value without ±, and "–" for none.

    The standard deviation divides by n - 1.
    """
    if not values:
        return "–"
    sd = f"\u00a0±\u00a0{statistics.stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{form}}{sd}"


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent `values`, sd / sqrt(n); NaN for fewer than two."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def interval(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean of independent `values`, t sd / sqrt(n); NaN for fewer than two."""
    return student_t(len(values) - 1) * standard_error(values) if len(values) > 1 else math.nan


def student_t(freedom: int) -> float:
    """The t with P(|T| <= t) = 0.95 for Student's T at so many degrees of freedom.

    By halving; P is a finite sum (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4).
    """
    low, high, odd = 0.0, math.pi / 2, freedom % 2
    for _ in range(60):
        angle = (low + high) / 2  # atan(t / sqrt(freedom))
        term, total = math.cos(angle) ** odd, 0.0
        for k in range(odd, freedom - 1, 2):
            total += term
            term *= (k + 1) / (k + 2) * math.cos(angle) ** 2
        inside = math.sin(angle) * total
        inside = 2 / math.pi * (angle + inside) if odd else inside
        low, high = (angle, high) if inside < 0.95 else (low, angle)
    return math.tan(low) * math.sqrt(freedom)


def seeds(n: int) -> str:
    """A number of seeds in words: 1 seed, 5 seeds."""
    return f"{n} seed{'s' * (n != 1)}"


def verdict(differences: Sequence[float], what: str = "points") -> str:
    """What paired differences show, in words: their mean, and whether the seeds agree in the sign.

    If both signs were equally likely, all n seeds would agree once in 2^(n-1) times (two-sided sign test). Fewer than
    three show nothing.
    """
    n, up = len(differences), sum(value > 0 for value in differences)
    if n < 3:
        return f"too few runs ({seeds(n)}) to say anything"
    mean = f"{statistics.fmean(differences):+.1f} {what}"
    if up in (0, n) and 0 not in differences:
        return f"{mean}; all {n} seeds agree in the sign, by luck alone this happens once in {2 ** (n - 1)} times"
    return f"{mean}; positive for {up} of {seeds(n)}, so the sign is open"


def clear(differences: Sequence[float]) -> int:
    """1 or -1 if there are three seeds or more and all differences are positive or negative, else 0."""
    if len(differences) < 3:
        return 0
    return all(value > 0 for value in differences) - all(value < 0 for value in differences)
