"""Records: what a run is called, how it is written and read, and the table of means over seeds."""

import errno
import hashlib
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbib_core import cli, compare, results, runs
from mbib_core.files import write_atomically
from mbib_core.methods import METHODS, settle
from mbib_core.results import (
    compact,
    conditions,
    csv_table,
    find,
    read_record,
    read_records,
    show_table,
    table,
    write_record,
)
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import SETTINGS, Settings, command_line, describe, run_id

# Names


def test_the_name_of_a_run_never_changes() -> None:
    """Records and checkpoints are found by these names."""
    paper = settle(Settings(data="cifar100-lt", method="ce"))
    assert run_id(paper) == "cifar100-lt-100-ce-paper-s0-9eba711b"
    assert run_id(replace(paper, method="bsce", k=0.0)) == "cifar100-lt-100-bsce-paper-s0-eb249c40"
    assert run_id(settle(Settings(epochs=1))) == "glyphs-lt-100-mbib-glyphs-s0-e5136174"


OTHER: dict[str, Any] = {
    "data": "cifar100-lt", "imbalance": 50, "method": "bib", "schedule": "short", "epochs": 31, "seed": 1,
    "alphas": (0.1, 0.4), "beta": 1.5, "k": 0.1, "gamma": 0.1, "taps": 2, "precision": "float32", "purpose": "choosing",
    "pictures": "0123", "flip": False, "batch": 64, "rate": 0.2, "weight_decay": 1e-3, "depth": 20, "size": 64,
    "augmentation": "none", "average": "ema", "backbone": "resnet10", "pretrained": "sha256:0", "trunk_rate": 0.5,
    "frozen": 0.5, "test_curve": True, "stream": True, "head": "cosine",
}  # fmt: skip
OTHER |= {name: setting.kind(1) for name, setting in SETTINGS.items() if name not in OTHER}


def test_every_setting_but_the_threads_makes_another_run() -> None:
    assert set(describe()) == set(OTHER) | {"threads"}, "a new setting needs a line here"
    settled = settle(Settings())
    names = [run_id(settled)] + [run_id(replace(settled, **{name: value})) for name, value in OTHER.items()]
    assert len(set(names)) == len(names)
    assert run_id(replace(settled, threads=7)) == run_id(settled)


def test_old_records_and_whole_numbers_name_the_same_run() -> None:
    settings = settle(Settings())
    old = {name: value for name, value in settings.plain().items() if name not in ("pictures", "purpose")}
    assert run_id(Settings.of(old)) == run_id(settings), (
        "a default is left out of the hash, so a new setting renames none"
    )
    whole = {"imbalance": 100, "alphas": [0, 1], "beta": 2, "k": 0, "gamma": 1}
    decimal = {"imbalance": 100.0, "alphas": [0.0, 1.0], "beta": 2.0, "k": 0.0, "gamma": 1.0}
    assert run_id(Settings.of(whole)) == run_id(Settings.of(decimal))


def test_a_name_is_a_plain_file_name() -> None:
    for data in ("folder:/tmp/My pictures/../x", "a/b", "Ünï"):
        name = run_id(settle(Settings(data=data, schedule="glyphs")))
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-"), name


# Settings


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ({"betta": 1}, "betta: no such setting; there are alphas, augmentation, average, backbone, batch, beta"),
        ({"beta": "1"}, "beta is '1': it must be a number"),
        ({"k": True}, "k is True: it must be a number"),
        ({"imbalance": [100]}, r"imbalance is \[100\]: it must be a number"),
        ({"epochs": 2.5}, "epochs is 2.5: it must be a whole number"),
        ({"seed": "zero"}, "seed is 'zero': it must be a whole number"),
        ({"taps": float("nan")}, "taps is nan: it must be a whole number"),
        ({"threads": float("inf")}, "threads is inf: it must be a whole number"),
        ({"method": 3}, "method is 3: it must be text"),
        ({"data": ["glyphs-lt"]}, "data is .*: it must be text"),
        ({"alphas": 0.1}, "alphas is 0.1: it must be a list of numbers"),
        ({"alphas": "0.1"}, "alphas is '0.1': it must be a list of numbers"),
        ({"alphas": [0.1, "x"]}, "each of alphas is 'x': it must be a number"),
        ({"method": "mibb"}, "no method is called 'mibb'; did you mean mbib"),
        ({"method": "qqqqq"}, r"no method is called 'qqqqq'\. There are: ce, bsce"),
        ({"schedule": "papers"}, "no schedule is called 'papers'; did you mean paper"),
        ({"precision": "fp16"}, "precision is 'fp16': it must be one of auto, float32, bfloat16, float16"),
        ({"purpose": "test"}, "purpose is 'test': it must be one of final, choosing"),
        ({"epochs": 0}, "epochs is 0: it must be a whole number from 1"),
        ({"seed": -1}, "seed is -1: it must be a whole number from 0"),
        ({"seed": 2**70}, "seed is 1180591620717411303424: it must be a whole number from 0"),
        ({"threads": -2}, "threads is -2: it must be a whole number from 0"),
        ({"depth": 9}, "depth 9 is no CIFAR ResNet: it must be 6 n"),
        ({"beta": -1.0}, "beta is -1.0: it must be a finite number, 0 or larger"),
        ({"k": float("nan")}, "k is nan: it must be a finite number"),
        ({"alphas": (0.9, 0.9)}, "sum to at most 1"),
        ({"alphas": (0.1,)}, "3 observations need 2 alphas, not 1"),
        ({"taps": 4}, "ResNet-8 has 3 blocks: ask for 1 to 3 observations, not 4"),
        ({"method": "ce", "beta": 1.0}, "ce has no beta: leave it out"),
        ({"method": "bib", "taps": 2}, "bib has 1 observation: leave taps out"),
        ({"head": "round"}, "head is 'round': it must be cosine"),
        ({"method": "tau-norm", "head": "cosine"}, "tau-norm has stages or classifiers of its own, .* leave head out"),
        ({"method": "wcdas", "head": "cosine"}, "wcdas has stages or classifiers of its own"),
        ({"method": "cc-sam", "head": "cosine"}, "cc-sam has stages or classifiers of its own"),
    ],
)
@pytest.mark.fault("settings: {given_}")
def test_settings_of_the_wrong_kind_or_out_of_range_are_refused_with_a_sentence(
    given_: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        settle(Settings.of(given_))


def test_settling_fills_in_what_was_left_empty_and_nothing_else() -> None:
    settled = settle(Settings(beta=3.0))
    assert (settled.schedule, settled.epochs) == ("glyphs", SCHEDULES["glyphs"].epochs)
    assert (settled.taps, settled.alphas) == (3, (0.1, 0.3))
    assert (settled.beta, settled.k, settled.gamma) == (3.0, 0.0, 0.0)
    assert settle(settled) == settled
    assert settle(Settings(data="cifar100-lt")).epochs == 200
    assert settle(Settings(data="cifar100-lt", taps=4)).alphas == pytest.approx((0.4 / 9, 1.2 / 9, 2.0 / 9))
    ce = settle(Settings(method="ce"))
    assert (ce.alphas, ce.beta, ce.k, ce.gamma, ce.taps) == (None, None, None, None, 1)


# The command of a run


def parsed(command: str) -> Settings:
    """The settled settings of the run that a command would make."""
    asked: list[Settings] = []
    words = shlex.split(command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "make", lambda settings, **_: asked.append(settle(settings)))
        assert (words[0], cli.main(words[1:])) == ("mbib", 0)
    return asked[0]


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("data", ["glyphs-lt", "cifar100-lt"])
def test_the_recorded_command_makes_the_same_run_again(method: str, data: str) -> None:
    settings = settle(Settings(method=method, data=data))
    assert parsed(command_line(settings)) == settings
    odd = settle(replace(settings, seed=2, imbalance=12.5, purpose="choosing", precision="float32", threads=3))
    folder = settle(Settings(method=method, data="folder:/tmp/my pictures/it's", flip=False))
    for other in (odd, folder) if method != "mbib-x" else (odd,):
        assert parsed(command_line(other)) == other


numbers = st.floats(0, 1e6) | st.floats(0, 1e-6) | st.integers(0, 10).map(float)


@given(st.data(), numbers, numbers, numbers, st.floats(1, 1e7), st.integers(0, 2**32 - 1))
def test_odd_numbers_survive_the_recorded_command(
    data: st.DataObject, beta: float, k: float, gamma: float, imbalance: float, seed: int
) -> None:
    taps = data.draw(st.integers(1, 5))
    alphas = tuple(data.draw(st.lists(st.floats(0, 1 / taps), min_size=taps - 1, max_size=taps - 1)))
    settings = settle(
        Settings(
            data="cifar100-lt", imbalance=imbalance, alphas=alphas, beta=beta, k=k, gamma=gamma, taps=taps, seed=seed
        )
    )
    again = parsed(command_line(settings))
    assert again == settings
    assert run_id(again) == run_id(settings)


# Records


def made(folder: Path | None = None, **settings: Any) -> dict[str, Any]:
    """A record as a run would leave it, with made-up accuracies."""
    accuracy = settings.pop("accuracy", {"many": 0.5, "few": 0.1, "all": 0.3})
    settled = settle(Settings(**settings))
    part = {"default": "v", "accuracy": {"v": accuracy}, "pictures": 100}
    machine = {"precision": settings.get("precision", "bfloat16")}
    record = {"run_id": run_id(settled), "settings": settled.plain(), "validation": part, "machine": machine}
    record |= {"test": part} if settled.purpose == "final" else {}
    if folder:
        write_record(record, folder)
    return record


@pytest.mark.fault("a record edited by hand")
def test_a_record_that_was_edited_by_hand_is_refused(tmp_path: Path) -> None:
    record = made(tmp_path, method="ce")
    path = tmp_path / f"{record['run_id']}.json"
    content = path.read_text()
    for name in ("run_id", "settings", "digest", "validation"):  # a record still, and no file of another kind
        path.write_text(content.replace(f'"{name}"', f'"{name[:-1]}~"', 1))
        with pytest.raises(ValueError, match=r"is not a whole record; restore it|was changed after the run wrote it"):
            read_records(tmp_path)
    for before, after in (("0.3", "0.4"), ('"seed":0', '"seed":1'), ('"pictures": 100', '"pictures": 101')):
        assert before in content
        path.write_text(content.replace(before, after, 1))
        with pytest.raises(ValueError, match=r"json was changed after the run wrote it; restore it or make the run"):
            read_record(path)
        assert path.read_text() == content.replace(before, after, 1), "it stays as it was found"
    path.write_text(json.dumps(json.loads(content), indent=4), encoding="utf-8-sig")
    assert read_record(path) == record, "another layout is the same record"


def test_a_record_is_small_on_the_disk_and_only_lists_of_measurements_are_rounded(tmp_path: Path) -> None:
    third = 1 / 3
    by_class = {"v": [third, None, 1.0], "mean": [0.123456789, 1e-9 * third, 7]}
    part = {"default": "mean", "accuracy": {"mean": {"all": third}}, "by_class": by_class}
    bins = {"all": {"count": [123456789, 0], "confidence": [third, 0.0], "error": third}}
    record = made(method="mbib-x", alphas=(0.4 / 9, third, 0.2)) | {
        "history": {"loss": [123.45678, third], "curve": [{"all": third}]},
        "test": part | {"calibration": bins},
        "counts": [1234567, 3],
    }
    kept = json.loads(json.dumps(record))
    found = read_record(write_record(record, tmp_path))
    assert record == kept, "what is given stays as it is"
    assert os.listdir(tmp_path) == [record["run_id"] + ".json"]
    assert read_records(tmp_path) == [found]
    assert settle(Settings.of(found["settings"])) == Settings.of(record["settings"])
    assert found["test"]["by_class"] == {"mean": [0.12346, 3.3333e-10, 7]}, "of the default prediction alone"
    assert found["test"]["calibration"] == {
        "all": {"count": [123456789, 0], "confidence": [0.33333, 0.0], "error": third}
    }
    assert found["history"] == {"loss": [123.46, 0.33333], "curve": [{"all": 0.33333}]}
    assert found["test"]["accuracy"] == part["accuracy"]
    assert {name: found[name] for name in ("settings", "counts", "machine")} == {
        name: kept[name] for name in ("settings", "counts", "machine")
    }
    assert compact(found) == found
    lines = (tmp_path / f"{record['run_id']}.json").read_text().splitlines()
    assert '  "loss": [123.46,0.33333],' in lines
    assert ' "counts": [1234567,3],' in lines


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"run_id": None}, r"is not a record of a run: it has no run_id; move it"),
        ({"settings": None}, r"json is not a record of a run: it has no settings; move it"),
        ({"settings": [1]}, r"json is not a record of a run: it has no settings; move it"),
        ({"settings": {"betta": 1}}, r"the record glyphs.*: betta: no such setting"),
        ({"machine": None}, r"the record glyphs.* has no test accuracy or precision .*\(KeyError: 'machine'\)"),
        ({"machine": []}, r"has no test accuracy or precision .*TypeError"),
        ({"test": None}, r"has no test accuracy or precision .*KeyError: 'test'"),
        ({"test": {"default": "v"}}, r"has no test accuracy or precision .*KeyError: 'accuracy'"),
        (
            {"test": {"default": "z", "accuracy": {"v": {"all": 1}}}},
            r"has no test accuracy or precision .*KeyError: 'z'",
        ),
        ({"test": {"default": "v", "accuracy": {"v": {"all": 10**400}}}}, r"precision .*OverflowError"),
        ({"test": {"default": "v", "accuracy": {"v": {"all": "?"}}}}, r"precision .*ValueError"),
        (DEEP, r"json is not a whole record; restore it"),
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.fault("a sealed record with {change!s:.70}")
def test_a_sealed_record_that_lacks_what_the_table_needs_is_named(tmp_path: Path, change: Any, sentence: str) -> None:
    record = made(tmp_path, method="ce")
    path = tmp_path / f"{record['run_id']}.json"
    if isinstance(change, str):
        path.write_text(change)
    else:
        record = {name: value for name, value in (record | change).items() if value is not None}
        digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
        path.write_text(json.dumps(record | {"digest": digest}))
    with pytest.raises(ValueError, match=sentence):
        table(read_records(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", "[1, 2]", "3", "null", '"text"', "{}", '{"digest": 1}', "\xff"])
@pytest.mark.fault("a file that is no whole record")
def test_a_file_that_is_no_whole_record_is_refused_with_what_to_do(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("latin1"))
    with pytest.raises(ValueError, match=r"x\.json (is not a whole record; restore it|was changed after)"):
        read_record(path)
    assert path.read_bytes() == content.encode("latin1")


@pytest.mark.fault("a record with a number that JSON cannot hold")
def test_numbers_that_json_cannot_hold_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_record({"run_id": "x", "loss": float("nan")}, tmp_path)
    assert os.listdir(tmp_path) == []


def test_records_are_found_by_settings_in_the_order_of_their_seeds() -> None:
    records = [made(method=m, seed=s, epochs=3) for s in (2, 0, 1) for m in ("mbib", "ce")]
    assert [r["settings"]["seed"] for r in find(records, method="ce")] == [0, 1, 2]
    assert len(find(records, alphas=(0.1, 0.3))) == len(find(records, alphas=[0.1, 0.3])) == 3
    assert find(records, method="mbib", seed=7) == []
    assert len(find(find(records, method="ce"), beta=None)) == 3, "a setting that their method does not have"
    assert find(records, **conditions(["method=ce", "seed=2", "alphas=null", "flip=true"])) == [records[1]]
    assert find(records, **conditions(["alphas=[0.1, 0.3]", "epochs=3.0", "method=mbib"])) == find(
        records, method="mbib"
    )
    del records[0]["settings"]["precision"]
    assert len(find(records, precision="auto")) == 6, "an old record has a newer setting's default"


def test_runs_of_settings_differ_in_seed_and_threads_alone() -> None:
    mine = settle(Settings(method="bib", seed=3))
    others = {"beta": 2.0, "purpose": "choosing", "imbalance": 50.0, "epochs": 1, "precision": "float32"}
    made = [replace(mine, seed=40), replace(mine, seed=0, threads=9), mine]
    made += [replace(mine, seed=5, **{name: value}) for name, value in others.items()]
    made += [settle(Settings(method="bsce", seed=6))]
    records = [{"run_id": run_id(s), "settings": s.plain()} for s in made]
    found = compare.runs_of(records, mine)
    assert [r["settings"]["seed"] for r in found] == [0, 3, 40], "by seed, whatever the seed of the settings"
    assert found[2] is records[0]
    assert compare.runs_of(records, replace(mine, beta=3.0)) == []


@pytest.mark.fault("a condition that is none")
def test_a_condition_on_records_needs_a_name_and_a_value_and_a_setting_that_there_is() -> None:
    for word in ("ce", "=ce", ""):
        with pytest.raises(ValueError, match=r"is no condition: write NAME=VALUE, such as method=mbib"):
            conditions([word])
    with pytest.raises(
        ValueError, match="betta: no such setting; there are alphas, augmentation, average, backbone, batch, beta"
    ):
        find([made()], betta=1)


# Files


@pytest.mark.fault("a disk that fails while a file is written")
def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new folder" / "file"
    write_atomically(path, b"before")
    for name, error in (
        ("fsync", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
        ("replace", PermissionError(errno.EROFS, os.strerror(errno.EROFS))),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *_, error=error: (_ for _ in ()).throw(error))
            with pytest.raises(
                OSError, match=rf"file could not be written \({error.strerror}\); what was there before"
            ):
                write_atomically(path, b"after")
        assert path.read_bytes() == b"before"
        assert os.listdir(path.parent) == ["file"]
    write_atomically(path, b"after")
    assert path.read_bytes() == b"after"


def test_what_a_killed_writer_left_is_taken_away_by_the_next_one_and_a_living_one_is_let_be(tmp_path: Path) -> None:
    code = "import os, signal, sys; open(sys.argv[1].format(os.getpid()), 'w'); os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / ".a[1].json.{}.part")])
    others = [f".a[1].json.{os.getppid()}.part", ".a[1].json.x.part", ".a[1].json.part", ".a1.json.999999999.part"]
    for name in others:
        (tmp_path / name).touch()
    assert len(os.listdir(tmp_path)) == 5
    write_atomically(tmp_path / "a[1].json", b"content")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "a[1].json"])


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (order.append("sync"), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), rename(a, b)))
    write_atomically(tmp_path / "file", b"content")
    assert order == ["sync", "rename"]


# The table


def test_the_table_has_mean_and_deviation_over_seeds() -> None:
    accuracies = {0: (0.50, 0.10), 1: (0.54, 0.13), 2: (0.61, 0.10)}
    records = [
        made(method="ce", seed=s, accuracy={"many": many, "all": (many + few) / 2, "few": few})
        for s, (many, few) in accuracies.items()
    ]
    records.append(made(method="mbib", accuracy={"many": 0.6, "all": 0.4, "few": 0.2}))
    frame = table([*records, records[0]])  # a run given twice counts once
    assert frame[("method", "")].tolist() == ["ce", "mbib"]
    assert frame[("seeds", "")].tolist() == [3, 1]
    for shot, column in (("many", 0), ("few", 1)):
        values = pd.Series([100 * a[column] for a in accuracies.values()])
        assert frame[(shot, "mean")][0] == pytest.approx(values.mean())
        assert frame[(shot, "std")][0] == pytest.approx(values.std(ddof=1))
    assert pd.isna(frame[("all", "std")][1]), "one seed has no deviation"
    text = show_table(frame)
    assert "55.0 ± 5.6" in text
    assert "60.0  " in text.replace("\n", "  ")


def test_runs_that_differ_in_more_than_the_seed_have_rows_of_their_own() -> None:
    base = made(method="mbib")
    trunk = {"schedule": "glyphs", "backbone": "resnet10", "pretrained": "sha256:0"}  # without which none is frozen
    others = [
        made(method="mbib", **{**(trunk if name in ("pretrained", "frozen") else {}), name: value})
        for name, value in OTHER.items()
        if name not in ("seed", "method", "taps", "pictures", "data", "size", "stream")
        and (name in METHODS["mbib"].own or name not in SETTINGS)
    ]
    others.append(made(method="mbib", seed=1) | {"machine": {"precision": "float16"}})  # "auto" on another machine
    frame = table([base, *others])
    assert frame[("seeds", "")].tolist() == [1] * (len(others) + 1)
    assert "float16" in show_table(frame)


def test_json_of_another_kind_is_passed_over_but_a_cut_record_is_not(tmp_path: Path) -> None:
    record = made(tmp_path, method="ce")
    (tmp_path / "package.json").write_text('{"name": "x"}')
    (tmp_path / "list.json").write_text("[1, 2]")
    assert read_records(tmp_path) == [record]
    (tmp_path / "package.json").write_text('{"run_id": "x", ')
    with pytest.raises(ValueError, match="is not a whole record"):
        read_records(tmp_path)


def test_a_run_for_choosing_shows_its_validation_accuracy_in_a_row_of_its_own() -> None:
    final = made(method="ce")
    final["validation"] = {"default": "v", "accuracy": {"v": {"all": 0.99}}, "pictures": 9}
    final["test"] = {"default": "mean", "accuracy": {"v": {"all": 0.1}, "mean": {"all": 0.3}}, "pictures": 9}
    chosen = made(method="ce", purpose="choosing", accuracy={"all": 0.25})
    frame = table([final, chosen])
    assert frame[("on", "")].tolist() == ["test", "validation"]
    assert frame[("all", "mean")].tolist() == pytest.approx([30, 25])


def test_a_shot_that_a_data_set_lacks_stays_empty() -> None:
    with_few = made(method="ce", accuracy={"many": 0.5, "few": 0.1, "all": 0.3})
    without = made(method="ce", imbalance=10, accuracy={"many": 0.5, "all": 0.5})
    frame = table([with_few, without])
    assert pd.isna(frame[("few", "mean")][1])
    *rows, _ = show_table(frame).splitlines()
    assert "nan" not in "\n".join(rows).lower()
    assert rows[2].split()[-3:] == ["50.0", "50.0", "1"]


def test_the_text_names_a_setting_only_where_it_tells_rows_apart() -> None:
    header, *_, shared = show_table(table([made(method="mbib"), made(method="mbib", beta=2.0)])).splitlines()
    assert header.split() == ["method", "beta", "many", "few", "all", "seeds"]
    assert shared == "all rows: data glyphs-lt, imbalance 100, schedule glyphs, epochs 24, on test"
    long = "folder:/a/very/long/path/to/the/folder/of/birds"
    mixed = [
        made(),
        made(data="cifar100-lt"),
        made(data=long, pictures="01"),
        made(data="folder:birds", pictures="01", seed=1),
    ]
    header, *rows, _ = show_table(table(mixed)).splitlines()
    assert header.split() == ["data", "method", "many", "few", "all", "seeds"], "the rest follows from the data"
    assert [row.split()[0] for row in rows] == ["glyphs-lt", "cifar100-lt", "folder:birds"]
    assert rows[2].split()[-1] == "2", "a folder that was moved is the same"
    assert show_table(table([])) == "no records"


def test_the_table_as_csv_has_every_setting_and_no_formula() -> None:
    frame = table([made(method="mbib", seed=s, accuracy={"all": 0.181 + s / 10}) for s in (0, 1)])
    frame[("schedule", "")] = "=1+1"
    header, row, end = csv_table(frame).split("\n")
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert cells.keys() >= {"data", "alphas", "precision", "on", "all_mean", "all_std", "seeds"}
    assert (cells["alphas"], cells["all_mean"], cells["seeds"], cells["schedule"]) == ("0.1 0.3", "23.1", "2", "'=1+1")
    assert float(cells["all_std"]) == pytest.approx(10 / 2**0.5)
    assert end == ""


def test_shares_are_shown_short_and_told_apart_in_full() -> None:
    near = [made(method="mbib-x", alphas=(0.4 / 9, third, 0.2)) for third in (0.1333, 0.1334)]
    frame = table(near)
    assert frame[("seeds", "")].tolist() == [1, 1]
    assert show_table(frame).count("0.0444, 0.133, 0.2 ") == 2


# The commit


def test_a_commit_is_named_with_its_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mbib_core"
    package.mkdir()
    (package / "results.py").write_text("first")
    monkeypatch.setattr(results, "__file__", str(package / "results.py"))
    assert results.commit_of_code() == "unknown", "no repository"

    def git(*words: str) -> str:
        own = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(["git", *own, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    assert results.commit_of_code() == "unknown", "nothing committed"
    git("add", ".")
    git("commit", "-qm", "one")
    head = git("rev-parse", "--short=12", "HEAD").strip()
    assert results.commit_of_code() == head
    (tmp_path / "notes.txt").write_text("outside the package")
    assert results.commit_of_code() == head
    (package / "results.py").write_text("second")
    assert results.commit_of_code() == head + "+changes"
    (tmp_path / "venv" / "mbib_core").mkdir(parents=True)
    with monkeypatch.context() as patch:  # installed in an environment inside somebody's checkout
        patch.setattr(results, "__file__", str(tmp_path / "venv" / "mbib_core" / "results.py"))
        assert results.commit_of_code() == "unknown"
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(subprocess.CalledProcessError, match="128"):
        git("status")
    assert results.commit_of_code() == head + "+changes", "in a checkout of another user, too"


def test_without_git_the_commit_is_what_the_environment_says_and_the_version_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MBIB_COMMIT", "0123456789ab")
    assert results.commit_of_code() != "0123456789ab", "a checkout knows better"
    monkeypatch.setenv("PATH", "/nowhere")
    assert results.commit_of_code() == "0123456789ab"
    monkeypatch.delenv("MBIB_COMMIT")
    assert results.commit_of_code() == "unknown"
    assert results.version_of_code() == importlib.metadata.version("mbib-core")
    monkeypatch.setattr(sys, "path", [])
    assert results.version_of_code() == "unknown"


def test_published_tables_hold_the_papers_headline_and_its_own_spread():
    assert results.published(table=1, method="MBIB", imbalance_factor=100)["all"].tolist() == [47.5]
    assert results.published(table=9, method="MBIB")["all"].tolist() == [47.0]
    shots = results.published(dataset="ImageNet-LT", method="BSCE", backbone="ResNet-10", table=2)
    assert shots[["many", "medium", "few", "all"]].to_numpy().tolist() == [[53.4, 38.5, 17.0, 41.3]]
    assert results.published(table=5, method="MBIB_z")["few"].tolist() == [1.02]
    assert results.published(table=6, quantity="parameters (thousands)", method="MBIB")["all"].tolist() == [486.02]
