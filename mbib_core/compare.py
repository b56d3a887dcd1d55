"""Compares recorded runs as independent samples: accuracy in per cent, mean ± sd, differences with their intervals.

A seed fixes the first weights and the order and crops of the images. What two methods share of it was measured to be
next to nothing, so runs are not paired by their seeds.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from mbib_core.results import Record, settings_of
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings, run_id

# What may vary among runs that follow one recipe; of the rest of the settings only a method's own.
FREE = ("data", "imbalance", "method", "schedule", "epochs", "seed", "own", "taps", "threads", "purpose", "pictures")


def by_recipe(records: Iterable[Record]) -> list[Record]:
    """The records of runs as long as their schedule says, with nothing but the method and its own settings changed.

    Another augmentation, weight decay or average, or a test set that was looked at in between, is another recipe.
    """
    found = []
    for record in records:
        settings = Settings.of(record["settings"])
        plain = replace(Settings(), **{name: getattr(settings, name) for name in FREE})
        if plain == settings and settings.epochs == SCHEDULES[str(settings.schedule)].epochs:
            found.append(record)
    return found


def runs_of(records: Iterable[Record], settings: Settings) -> list[Record]:
    """The records that differ from settled `settings` in the seed alone (and in threads), by seed."""
    own = [r for r in records if r["settings"]["method"] == settings.method]
    seeds_of = {r["run_id"]: r["settings"]["seed"] for r in own}
    same = {name for name, seed in seeds_of.items() if name == run_id(replace(settings, seed=seed))}
    return sorted((r for r in own if r["run_id"] in same), key=lambda r: r["settings"]["seed"])


def of_each_seed(*samples: Iterable[Record]) -> list[Record]:
    """The runs of one loss that has several names as one sample: of each seed one run, that of the first name that has
    it. Under another name the same seed is the same training once more, and no independent run."""
    first: dict[int, Record] = {}
    for record in (record for sample in samples for record in sample):
        first.setdefault(record["settings"]["seed"], record)
    return [first[seed] for seed in sorted(first)]


def accuracies(
    records: Iterable[Record], shot: str = "all", *, by: str | None = None, on: str | None = None
) -> list[float]:
    """Accuracy in per cent of each run, in their order: on test images, for a run for choosing on validation images.

    `shot` is all, many, medium or few; `by` a prediction (v, z, mean, adjusted, ...), by default that of the run; `on`
    takes the "test" or "validation" part of every run, whatever it was made for. A run without classes of that shot,
    without that prediction or without that part is left out. Raises ValueError if two of the runs differ in more than
    the seed (and threads): they are no sample of one setting.
    """
    found, first = [], None
    for record in records:
        settings = settings_of(record)
        same = {name: value for name, value in settings.items() if name not in ("seed", "threads")}
        first = first or same
        if other := [name for name in same if same[name] != first.get(name)]:
            raise ValueError(f"{record['run_id']} differs from the first of these runs in {', '.join(other)}")
        accuracy = _accuracy(record, settings["purpose"], by, on)
        if shot in accuracy:
            found.append(100 * accuracy[shot])
    return found


def _accuracy(record: Record, purpose: str, by: str | None, on: str | None) -> Mapping[str, float]:
    """The accuracies by shot of one prediction of a run."""
    part = record.get(on or ("test" if purpose == "final" else "validation"), {"accuracy": {}})
    return part["accuracy"].get(by or part.get("default"), {})


def flattery(records: Iterable[Record], shot: str = "all", *, until: int | None = None) -> list[float]:
    """What the epoch with the best accuracy on the test images has more there than the last one, in points, of each run
    whose test images were scored after every epoch (`test_curve`), or of its first epochs `until` one. The best epoch
    is that of the mean over all classes, the first one of equals, whatever `shot` is asked for. Other runs are left
    out."""
    curves = [record["history"]["test_curve"][:until] for record in records if record["history"].get("test_curve")]
    best = [max(curve, key=lambda accuracy: accuracy["all"]) for curve in curves]
    return [100 * (top[shot] - curve[-1][shot]) for top, curve in zip(best, curves, strict=True)]


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
        accuracy = _accuracy(record, settings["purpose"], by, on)
        if settings["seed"] in found:
            raise ValueError(f"two of these runs have seed {settings['seed']}: {record['run_id']} is one of them")
        if shot in accuracy:
            found[settings["seed"]] = 100 * accuracy[shot]
    return found


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean and standard deviation over seeds as text: 44.1 ± 0.3, one value without ±, and "–" for none.

    The standard deviation divides by n - 1.
    """
    if not values:
        return "–"
    sd = f"\u00a0±\u00a0{statistics.stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{form}}{sd}".replace("-", "−")


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent `values`, sd / sqrt(n); NaN for fewer than two."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def interval(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean of independent `values`, t sd / sqrt(n); NaN for fewer than two."""
    return student_t(len(values) - 1) * standard_error(values) if len(values) > 1 else math.nan


def share_interval(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a probability of which `right` of `n` trials were seen (Wilson 1927); 0 to 1 for none."""
    if not n:
        return 0.0, 1.0
    z, p = 1.959964, right / n
    shrink = 1 + z * z / n
    middle = (p + z * z / (2 * n)) / shrink
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    return max(0.0, middle - half), min(1.0, middle + half)


class Noise(NamedTuple):
    """The standard deviation of one run around the mean of its setting, and the degrees of freedom behind it."""

    sd: float
    freedom: int


def noise(groups: Iterable[Iterable[float]]) -> Noise:
    """The standard deviation within `groups`, pooled: each group holds the runs of one setting, two or more.

    Groups with one run add nothing. Raises ValueError if none is left.
    """
    sizes = [values for values in map(list, groups) if len(values) > 1]
    if not sizes:
        raise ValueError("no setting has two runs, so nothing says how far two runs of one setting differ")
    freedom = sum(len(values) - 1 for values in sizes)
    squares = sum((len(values) - 1) * statistics.variance(values) for values in sizes)
    return Noise(math.sqrt(squares / freedom), freedom)


def borrowed(noise: Noise, *samples: Sequence[float]) -> Noise | None:
    """`noise` where one of the samples has fewer than three runs, else None: two runs tell next to nothing of their own
    spread (Student's t is 12.7 at one degree of freedom), so runs of one kind lend them theirs."""
    return noise if min(map(len, samples)) < 3 else None


def around(values: Sequence[float], known: Noise | None = None) -> tuple[float, float, float]:
    """The mean of independent `values` and the ends of its 95 % interval: Student's of these values.

    A single value has none (NaN). If `known` says how far single runs spread, that is taken instead of these values'
    own spread. Raises ValueError without values.
    """
    if not values:
        raise ValueError("no values have no mean")
    mean, half = statistics.fmean(values), interval(values)
    if known is not None:
        half = student_t(known.freedom) * known.sd / math.sqrt(len(values))
    return mean, mean - half, mean + half


class Difference(NamedTuple):
    """A difference of two means, `mean`, its 95 % interval from `low` to `high` (NaN where there is none), and how many
    runs stand on either side, `n`."""

    mean: float
    low: float
    high: float
    n: tuple[int, int]

    @property
    def sign(self) -> int:
        """1 or -1 if the whole interval is above or below 0, else 0, also where there is no interval."""
        return (self.low > 0) - (self.high < 0)

    def __str__(self) -> str:
        """The mean with its interval: +2.0 (+0.7 to +3.4)."""
        if math.isnan(self.low):
            return signed(self.mean)
        return f"{signed(self.mean)} ({signed(self.low)} to {signed(self.high)})"


def difference(
    one: Iterable[float], other: Iterable[float], *, level: float = 0.95, known: Noise | None = None
) -> Difference:
    """The mean of `one` minus that of `other`, two independent samples, with Welch's 95 % interval (Welch 1947).

    A sample holds a value a run. The two may be of unequal size and spread. Fewer than two runs on a side have no
    interval, unless `known` says how far single runs spread: then the interval is t sd sqrt(1/n + 1/m), of the same sd
    on both sides. Raises ValueError for an empty sample.
    """
    return contrast([(1, one), (-1, other)], level=level, known=known)


def contrast(
    terms: Iterable[tuple[float, Iterable[float]]], *, level: float = 0.95, known: Noise | None = None
) -> Difference:
    """The sum of weight times mean over `terms` of independent samples, with its interval, as `difference` has it.

    An interaction is the contrast of four samples with weights 1, -1, -1, 1. The degrees of freedom are Satterthwaite's
    (1946). `n` counts the runs with a positive and with a negative weight.
    """
    parts = [(weight, list(values)) for weight, values in terms]
    n = tuple(sum(len(values) for weight, values in parts if weight * sign > 0) for sign in (1, -1))
    if any(not values for _, values in parts):
        raise ValueError(f"a difference needs runs on both sides, here are {n[0]} and {n[1]}")
    mean, half = sum(weight * statistics.fmean(values) for weight, values in parts), math.nan
    if known is not None:
        half = student_t(known.freedom, level) * known.sd * math.sqrt(sum(w * w / len(v) for w, v in parts))
    elif all(len(values) > 1 for _, values in parts):
        shares = [(w * w * statistics.variance(v) / len(v), len(v) - 1) for w, v in parts]
        half = 0.0
        if (variance := sum(share for share, _ in shares)) > 0:
            freedom = 1 / sum((share / variance) ** 2 / free for share, free in shares)
            half = student_t(freedom, level) * math.sqrt(variance)
    return Difference(mean, mean - half, mean + half, n)  # type: ignore[arg-type]


def verdict(found: Difference, what: str = "points") -> str:
    """A difference in words, by one rule: it is "higher" or "lower" where the 95 % interval lies on one side of 0.

    Where the interval holds 0 it is "not resolved", with the interval, which says how large it can still be. With
    fewer than two runs on a side there is no interval, and nothing is called higher or lower.
    """
    if math.isnan(found.low):
        runs = "one run each" if found.n == (1, 1) else f"{found.n[0]} and {found.n[1]} runs"
        return f"{signed(found.mean)} {what}; {runs}, no interval"
    low, high = (found.low, found.high) if found.sign >= 0 else (-found.high, -found.low)
    if found.sign:
        word = "higher" if found.sign > 0 else "lower"
        return f"{word} by {abs(found.mean):.1f} {what} (95 % interval {low:.1f} to {high:.1f})"
    return f"not resolved: {signed(found.mean)} {what} (95 % interval {signed(low)} to {signed(high)})"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, as it is printed: +2.0, −0.3 with a true minus, and 0.0 without any."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def student_t(freedom: float, level: float = 0.95) -> float:
    """The t with P(|T| <= t) = `level` for Student's T at so many degrees of freedom, whole or not.

    By halving; P(|T| > t) is the incomplete beta I_x(freedom / 2, 1/2) at x = freedom / (freedom + t^2).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2  # atan(t / sqrt(freedom))
        outside = incomplete_beta(freedom / 2, 0.5, math.cos(angle) ** 2)
        low, high = (angle, high) if outside > 1 - level else (low, angle)
    return math.tan(low) * math.sqrt(freedom)


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz & Stegun 26.5.8)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction of the mirrored function is the fast one
        return 1 - incomplete_beta(b, a, 1 - x)
    tiny, fraction, c, d = 1e-300, 1.0, 1.0, 0.0
    for i in range(400):
        m = i // 2
        if i == 0:
            step = 1.0
        elif i % 2:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + step * d or tiny)
        c = 1 + step / c or tiny
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) * (fraction - 1) / a
