"""The records in book/results: whole, named after what they hold, made by today's recipe, true of their weights."""

import re
from functools import cache
from pathlib import Path

import pytest

from mbib_core.data import LongTailed, load
from mbib_core.evaluation import evaluate
from mbib_core.methods import CHOSEN, method_of, settle
from mbib_core.results import compact, find, read_record, read_records
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings, command_line, run_id
from mbib_core.wanted import read_wanted
from mbib_core.weights import read_weights

FOLDER = Path(__file__).parents[1] / "book" / "results"
RECORDS = read_records(FOLDER)
WEIGHTS = [
    pytest.param(path, id=path.stem, marks=[] if "s0-e89b68fe" in path.stem else pytest.mark.slow)
    for path in sorted(FOLDER.glob("*.safetensors"))
]


def test_records_are_small_and_as_they_are_written_today():
    assert RECORDS
    for path in FOLDER.rglob("*-s[0-9]*-*.json"):
        record = read_record(path)
        assert path.name == f"{record['run_id']}.json"
        assert path.stat().st_size <= 16_000, path.name
        assert compact(record) == record, "python book/chapters.py compact"


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["run_id"])
def test_a_record_is_of_a_run_that_can_be_made_again(record):
    settings = Settings.of(record["settings"])
    assert settle(settings) == settings, "nothing is left to be filled in"
    assert run_id(settings) == record["run_id"]
    assert command_line(settings) == record["command"]
    recipe = dict(SCHEDULES[settings.schedule].recipe)
    replaced = {name: getattr(settings, name, None) for name in recipe.keys() - {"epochs", "precision"}}
    recipe |= {name: value for name, value in replaced.items() if value is not None}
    assert record["recipe"].items() <= recipe.items(), "made by another recipe of the same name"
    epochs = sum(epochs for _, epochs in method_of(settings).plan(settings.epochs))
    assert len(record["history"]["loss"]) == epochs, "trained to the last epoch of its last stage"
    assert all(re.fullmatch("[0-9a-f]{12}", commit) for commit in record["commits"]), "from a clean checkout"


def test_runs_that_are_compared_have_one_precision():
    found = {(r["settings"]["data"], r["settings"]["schedule"]): set() for r in RECORDS}
    for r in RECORDS:
        found[r["settings"]["data"], r["settings"]["schedule"]].add(r["machine"]["precision"])
    assert all(len(precisions) == 1 for precisions in found.values()), found


def test_runs_for_choosing_never_saw_the_test_set():
    for record in RECORDS:
        assert ("test" in record) == (record["settings"]["purpose"] == "final"), record["run_id"]


def test_every_record_is_wanted_and_what_is_to_be_kept_is_there():
    wanted = {w.id: w.keep for w in read_wanted(FOLDER / "wanted.toml")}
    for record in RECORDS:
        keep = wanted[record["run_id"]]
        for suffix, kept in ((".safetensors", keep != ""), (".npz", keep == "all")):
            assert (FOLDER / f"{record['run_id']}{suffix}").is_file() == kept, record["run_id"]


def test_what_is_frozen_is_what_the_rule_of_choosing_makes_of_the_records():
    """The chapter on ablations has the rule; found here in another way. `test_open_page` asks for all of its runs."""
    names, origin = ("alphas", "beta", "k", "gamma"), ((0.1, 0.3), 1.0, 0.0, 0.0)
    accuracy: dict[tuple, dict[int, float]] = {}
    where = {"data": "cifar100-lt", "imbalance": 100, "schedule": "short", "method": "mbib", "purpose": "choosing"}
    for record in find(RECORDS, taps=3, **where):
        s = Settings.of(record["settings"])
        values = accuracy.setdefault(tuple(getattr(s, n) for n in names), {})
        values[s.seed] = record["validation"]["accuracy"]["mean"]["all"]
    single = {v: a[0] for v, a in accuracy.items() if sum(x != o for x, o in zip(v, origin, strict=True)) < 2}
    together = list(origin)
    for i in range(4):
        others = [v for v in single if all(v[j] == origin[j] for j in range(4) if j != i)]
        together[i] = max(others, key=single.__getitem__)[i]
    candidates = {*sorted(single, key=single.__getitem__)[-3:], tuple(together)}
    runs = {c: [accuracy.get(c, {}).get(seed) for seed in (0, 1, 2)] for c in candidates}
    if any(None in values for values in runs.values()):
        assert "cifar100-lt" not in CHOSEN, "nothing is frozen before all runs that choose are made"
        return
    frozen = settle(Settings(data="cifar100-lt", method="mbib"))
    assert tuple(getattr(frozen, n) for n in names) == max(runs, key=lambda c: sum(runs[c]))


def numbers(found):
    """The means among plain values, in order: all but the bins of a calibration, where a picture may change its bin."""
    if isinstance(found, dict):
        for name, value in found.items():
            if name not in ("count", "confidence"):
                yield from numbers(value)
    elif isinstance(found, list):
        yield from (value for value in found if value is not None)
    elif found is not None:
        yield found


@cache
def data_of(name: str, imbalance: float) -> LongTailed:
    return load(name, imbalance=imbalance)


@pytest.mark.parametrize("path", WEIGHTS)
def test_recorded_weights_score_what_the_record_says(path, request):
    """Within 2 images in 10,000, and at least one: another processor rounds differently."""
    run = read_weights(path)
    record = next(record for record in RECORDS if record["run_id"] == path.stem)
    if run.settings.data != "glyphs-lt":
        request.getfixturevalue("cifar_root")
    data = data_of(run.settings.data, run.settings.imbalance)
    found = evaluate(run.network, data.test, data, predict=method_of(run.settings).predict)
    assert found["accuracy"].keys() == record["test"]["accuracy"].keys()
    for name, accuracy in found["accuracy"].items():
        kept = record["test"]["accuracy"][name]
        assert accuracy["all"] == pytest.approx(kept["all"], abs=max(2e-4, 1 / len(data.test.y)) + 1e-9), name
    for measure in ("rho", "neighbours", "posterior_means", "calibration"):
        own, kept = (list(numbers(part[measure])) for part in (found, record["test"]))
        assert own == pytest.approx(kept, rel=0.02, abs=0.01), measure
