"""The campaign: order, resuming, clean checkouts, several at once, and what it says when something is in the way.

Most tests run it on a small repository whose `mbib_core.cli` is a stand-in that trains nothing: `FAKE_CLI` below.
"""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from mbib_core import campaign as module
from mbib_core import checkouts
from mbib_core.campaign import campaign
from mbib_core.cluster import Command, Jobs
from mbib_core.results import read_record, write_record
from mbib_core.settings import command_line, run_id
from mbib_core.wanted import Wanted, missing, read_choices, read_wanted

ROOT = Path(__file__).resolve().parent.parent

# Takes the campaign's command, finds the run's name in names.json, behaves as files in $FAKE tell, and logs to it.
FAKE_CLI = """
import hashlib, json, os, sys, time
from pathlib import Path
from filelock import FileLock, Timeout

def main():
    words, control = sys.argv[1:], Path(os.environ["FAKE"])  # knows --no-report, too
    name = json.loads(Path("names.json").read_text())[" ".join(words[: words.index("--threads")])]
    out, checkpoints = (Path(words[words.index(w) + 1]) for w in ("--out", "--checkpoints"))
    checkpoint = checkpoints / f"{name}.pt"

    def log(what):
        with open(control / "log", "a") as file:
            file.write(json.dumps([what, name, os.getpid(), os.getcwd(), words]) + "\\n")

    def told(what, default):
        file = control / f"{what}-{name}"
        return float(file.read_text()) if file.is_file() else default

    def wait(event):
        limit = time.monotonic() + 300
        while not event():
            assert time.monotonic() < limit, "waited in vain"
            time.sleep(0.02)

    time.sleep(told("prepare", 0))
    if meet := told("meet", 0):  # so many processes see the run unlocked before one of them locks it
        (control / f"here-{name}-{os.getpid()}").touch()
        wait(lambda: len(list(control.glob(f"here-{name}-*"))) >= meet)
    try:
        with FileLock(checkpoint.with_suffix(".lock"), timeout=0):
            if (out / f"{name}.json").is_file() and "--again" not in words:
                return 0
            log("goes on" if checkpoint.is_file() else "starts")
            checkpoint.write_text("half")
            wait(lambda: (control / "log").read_text().count('"starts"') >= told("hold", 0))
            time.sleep(told("sleep", 0))
            if told("fail", 0):
                print("it went wrong")
                return 2
            settings = json.loads(Path("settings.json").read_text())[name]
            scores = {"default": "v", "accuracy": {"v": {"all": told("accuracy", 0)}}}
            record = {"run_id": name, "settings": settings, "validation": scores}
            text = json.dumps(record, sort_keys=True).encode()
            record["digest"] = hashlib.sha256(text).hexdigest()[:16]
            (out / f".{name}.part").write_text(json.dumps(record))
            (out / f".{name}.part").replace(out / f"{name}.json")  # whole or not at all, as the real one
            for suffix in [".safetensors"] * ("--no-weights" not in words) + [".npz"] * ("--features" in words):
                (out / f"{name}{suffix}").touch()
            checkpoint.unlink()
            log("ends")
    except Timeout:
        return 75
    return 0
"""

WANTED = """
[[run]]
epochs = 1
method = ["ce", "bsce"]

[[run]]
epochs = 1
beta = [1, 2]
keep = "all"
"""


def git(folder: Path, *words: str) -> str:
    own = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    return subprocess.run(["git", *own, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


class Project:
    """A repository with a list of wanted runs, and what the stand-in is told and logs."""

    def __init__(self, folder: Path, wanted: str = WANTED):
        self.folder, self.control = folder / "project", folder / "control"
        self.control.mkdir()
        self.list = self.folder / "book" / "results" / "wanted.toml"
        for path, content in {
            "mbib_core/__init__.py": "",
            "mbib_core/cli.py": FAKE_CLI,
            ".gitignore": "__pycache__/\n",
            "book/results/wanted.toml": wanted,
        }.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(content)
        self.wanted = read_wanted(self.list)
        self.ids = [w.id for w in self.wanted]
        chosen = [
            replace(c, seed=seed) for one in read_choices(self.list) for c in one.candidates for seed in one.seeds
        ]
        every = {run_id(s): s for s in [*(w.settings for w in self.wanted), *chosen]}
        names = {" ".join(command_line(s).split()[1:]): name for name, s in every.items()}
        (self.folder / "names.json").write_text(json.dumps(names))
        (self.folder / "settings.json").write_text(json.dumps({name: s.plain() for name, s in every.items()}))
        git(self.folder, "init", "-q")
        self.head = self.commit()

    def commit(self) -> str:
        git(self.folder, "add", ".")
        git(self.folder, "commit", "-q", "--allow-empty", "-m", "change")
        return git(self.folder, "rev-parse", "HEAD")

    def record(self, number: int) -> Path:
        """Writes the record of the run `number`, without what it may keep beside it."""
        run = self.wanted[number]
        return write_record({"run_id": run.id, "settings": run.settings.plain()}, self.list.parent)

    def tell(self, what: str, number: int, value: float = 1) -> None:
        (self.control / f"{what}-{self.ids[number]}").write_text(str(value))

    def log(self) -> list[list[Any]]:
        file = self.control / "log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def logged(self, what: str) -> list[str]:
        return [line[1] for line in self.log() if line[0] == what]

    def made(self) -> list[str]:
        return [name for name in self.ids if (self.list.parent / f"{name}.json").is_file()]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MBIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE", str(tmp_path / "control"))
    pause = time.sleep
    monkeypatch.setattr(module.time, "sleep", lambda _seconds: pause(0.02))
    before = signal.getsignal(signal.SIGTERM)
    yield Project(tmp_path)
    signal.signal(signal.SIGTERM, before)


def cached(kind: str, name: str, suffix: str) -> Path:
    path = Path(os.environ["MBIB_CACHE"]) / kind / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# The list


def wanted_of(tmp_path: Path, text: str) -> list[Wanted]:
    path = tmp_path / "wanted.toml"
    path.write_text(text)
    return read_wanted(path)


@pytest.mark.parametrize(
    ("text", "names", "runs"),
    [
        (
            '[[run]]\nmethod = ["bib", "mbib"]\nseed = [0, 1]\n[[run]]\nmethod = "ce"',
            ("method", "seed"),
            [("bib", 0), ("bib", 1), ("mbib", 0), ("mbib", 1), ("ce", 0)],
        ),
        ("[[run]]\nalphas = [0.1, 0.2]", ("alphas",), [((0.1, 0.2),)]),
        ("[[run]]\nalphas = [[0, 0], [0.2, 0.3]]", ("alphas",), [((0.0, 0.0),), ((0.2, 0.3),)]),
        ("[[run]]\nseed = [2, 3]\n[[run]]\nseed = 4\n[[run]]\nseed = [3.0, 5]", ("seed",), [(2,), (3,), (4,), (5,)]),
    ],
    ids=["all combinations, the last changing fastest", "one list", "a list of lists", "wanted twice, made once"],
)
def test_a_list_stands_for_runs_in_order(tmp_path: Path, text: str, names: tuple[str, ...], runs: list[Any]) -> None:
    plain = [w.settings.plain() for w in wanted_of(tmp_path, text)]
    assert [[s[name] for name in names] for s in plain] == json.loads(json.dumps(runs))


def test_a_run_that_is_wanted_twice_keeps_the_most_that_is_asked(tmp_path: Path) -> None:
    entries = ['keep = "weights"', "", 'keep = "all"', 'keep = "weights"']
    found = wanted_of(tmp_path, "\n".join(f'[[run]]\nmethod = "ce"\n{keep}' for keep in entries))
    assert [w.keep for w in found] == ["all"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[[run]]\n[[run]]\nmethod = "mibb"', "run 2: no method is called 'mibb'; did you mean mbib"),
        ("[[run]]\nkeep = true", 'run 1: keep is True: it must be "weights" or "all"'),
        ("[[run]]\nbetta = 1", "run 1: betta: no such setting"),
        ('[[run]]\nbeta = "1"', "run 1: beta is '1': it must be a number"),
        ("[[run]]\nepochs = 1.5", "run 1: epochs is 1.5: it must be a whole number"),
        ("[[run]]\nalphas = 0.1", "run 1: alphas is 0.1: it must be a list of numbers"),
        ("[[run]]\nalphas = [0.1]", "run 1: 3 observations need 2 alphas, not 1"),
        ('[[run]]\ndata = "zz"', "run 1: no data set is called 'zz'"),
        ("[[run]]\nimbalance = 0.5", "run 1: the imbalance factor of Glyphs-LT must lie between 1 and"),
        ('[[run]]\ndata = "cifar100-lt"\nimbalance = [10, -5]', "run 1: imbalance factor -5 must be 1 or larger"),
        ('[[run]]\ndata = "cifar100-lt"\nimbalance = 501', "run 1: imbalance factor 501 leaves the last class empty"),
        ('[[run]]\ndata = "folder:birds"', "run 1: a campaign makes runs on glyphs-lt and cifar100-lt only"),
        ('[[run]]\npictures = "0123"', "only: use `mbib train` for images of your own and for lists"),
        ("[[run]]\nchoose = 1", "run 1: choose is 1: it must be a table such as { beta = "),
        ("[[run]]\nchoose = { seed = 0 }", "run 1: choose is .* it must be a table such as { beta = "),
        ("[[run]]\nchoose = { beta = 1 }", "run 1: a single value leaves nothing to choose: give a list of values"),
        ("[[run]]\nbeta = 1\nchoose = { beta = [1, 2] }", "run 1: beta is given and to be chosen: leave one of them"),
        ('[[run]]\npurpose = "final"\nchoose = { beta = [1, 2] }', "run 1: .* leave purpose out"),
        ("[[run]]\nchoose = { betta = [1, 2] }", "run 1: betta: no such setting"),
        ('[[run]]\nchoose = { beta = [1, 2], seed = "0" }', "run 1: seed is '0': it must be a"),
        ("[[run", "is no TOML"),
        (f"[[run]]\nbeta = {'[' * 3000}{']' * 3000}", "is no TOML: maximum recursion depth"),
        ("[run]\nbeta = 1", r"must hold \[\[run\]\] entries"),
        ("run = [1]", r"must hold \[\[run\]\] entries"),
        ("[[runs]]\nbeta = 1", r"must hold \[\[run\]\] entries and nothing else: runs"),
        ("beta = 1", r"must hold \[\[run\]\] entries and nothing else: beta"),
    ],
)
@pytest.mark.fault("a list with the entry {text:.80}")
def test_a_list_that_cannot_be_followed_is_refused_with_the_entry(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"wanted\.toml.* {sentence}"):
        wanted_of(tmp_path, text)


CHOOSE = """
[[run]]
epochs = 1
seed = [0, 1]
method = ["bib", "nib"]
choose = { beta = [0.5, 1, 2], seed = [3, 4] }
"""


def scored(wanted: Wanted, accuracy: float) -> dict[str, Any]:
    """A record with this accuracy on validation images, and on test images one that would choose otherwise."""
    found = {"run_id": wanted.id, "settings": wanted.settings.plain()}
    for part, share in (("validation", accuracy), ("test", 1 - accuracy)):
        found[part] = {"default": "v", "accuracy": {"v": {"all": share}}}
    return found


def test_what_is_chosen_is_wanted_once_all_runs_that_choose_have_spoken(tmp_path: Path) -> None:
    first = wanted_of(tmp_path, CHOOSE)
    assert [(w.settings.method, w.settings.beta, w.settings.seed) for w in first] == [
        (method, beta, seed) for method in ("bib", "nib") for beta in (0.5, 1, 2) for seed in (3, 4)
    ]
    assert {w.settings.purpose for w in first} == {"choosing"}
    of_bib = {0.5: (0.6, 0.2), 1: (0.3, 0.4), 2: (0.5, 0.4)}  # the best single run is not that of the best mean
    for w in first[:6]:
        write_record(scored(w, of_bib[w.settings.beta][w.settings.seed - 3]), tmp_path)
        more = read_wanted(tmp_path / "wanted.toml")[6:-6]
        assert bool(more) == (w is first[5]), "nothing is chosen before the last run"
    assert [(w.settings.method, w.settings.beta, w.settings.seed, w.settings.purpose) for w in more] == [
        ("bib", 2, 0, "final"),
        ("bib", 2, 1, "final"),
    ]
    choices = read_choices(tmp_path / "wanted.toml")
    assert [one.names for one in choices] == [{"beta"}, {"beta"}]
    best = choices[0].best([scored(w, of_bib[w.settings.beta][w.settings.seed - 3]) for w in first[:6]])
    assert best is not None
    assert best.beta == 2
    assert choices[1].best([]) is None


def test_of_equals_the_first_is_chosen_and_records_elsewhere_count(tmp_path: Path) -> None:
    wanted = wanted_of(tmp_path, "[[run]]\nchoose = { beta = [2, 1] }")
    other = tmp_path / "out"
    other.mkdir()
    for w in wanted:
        write_record(scored(w, 0.5), other)
    assert len(read_wanted(tmp_path / "wanted.toml")) == 2
    assert [w.settings.beta for w in read_wanted(tmp_path / "wanted.toml", other)] == [2, 1, 2]


def test_a_campaign_goes_on_with_what_was_chosen(tmp_path: Path, project: Project) -> None:
    (tmp_path / "another").mkdir()
    chosen = Project(tmp_path / "another", "[[run]]\nepochs = 1\nseed = [0, 1]\nchoose = { beta = [1, 2], seed = 5 }\n")
    for number, accuracy in enumerate((0.1, 0.2)):
        (project.control / f"accuracy-{chosen.ids[number]}").write_text(str(accuracy))
    assert campaign(chosen.list, processes=2) == 0
    starts = project.logged("starts")
    assert sorted(starts[:2]) == sorted(chosen.ids)
    best = chosen.wanted[1].settings
    assert sorted(starts[2:]) == sorted(run_id(replace(best, seed=seed, purpose="final")) for seed in (0, 1))


@pytest.mark.slow
def test_a_list_is_utf_8_with_or_without_a_byte_order_mark_whatever_the_locale(tmp_path: Path) -> None:
    text = '# 知更鸟\n[[run]]\nmethod = "ce"'
    (tmp_path / "wanted.toml").write_text(text, encoding="utf-8-sig")
    code = "import sys; from mbib_core.wanted import *; print(read_wanted(Path(sys.argv[1]))[0].settings.method)"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path / "wanted.toml")]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "ce\n"


def test_the_books_own_list_can_be_followed() -> None:
    path = ROOT / "book" / "results" / "wanted.toml"
    wanted = [w.settings for w in read_wanted(path)]
    assert {s.schedule for s in wanted} == {"glyphs", "short", "paper", "fast"}
    assert {s.purpose for s in wanted if s.schedule in ("short", "fast")} == {"choosing"}
    for choice in read_choices(path):
        assert len(choice.names - {"own"}) == 1, "one setting at a time"
        assert {c.method for c in choice.candidates} == {choice.candidates[0].method}


def test_a_run_without_what_it_should_leave_is_wanted_still(project: Project) -> None:
    one = replace(project.wanted[0], keep="weights")
    project.record(0)
    assert [w.id for w in missing([one], project.list.parent)] == [one.id]
    assert missing([replace(one, keep="")], project.list.parent) == []
    (project.list.parent / f"{one.id}.safetensors").touch()
    assert missing([one], project.list.parent) == []


def test_a_run_is_started_with_the_folder_of_the_data_and_anew_where_its_record_is_there(project: Project) -> None:
    project.record(2)
    assert campaign(project.list, root=project.folder, compiled=True) == 0
    started = {name: words for what, name, *_, words in project.log() if what == "starts"}
    again = ["--again" in started[name] for name in project.ids]
    assert again == [False, False, True, False], "or it would say that it was made before, and weights stay missing"
    for words in started.values():
        assert words[words.index("--root") + 1] == str(project.folder.resolve())
        assert "--compile" not in words, "the stand-in, like an older commit, does not know it"
        assert "--no-report" in words


def test_an_option_is_known_wherever_the_commit_of_a_run_keeps_its_parser(project: Project) -> None:
    (project.folder / "mbib_core" / "options.py").write_text('"""--compile, --no-capture"""')
    project.commit()
    assert campaign(project.list, only=project.ids[0], compiled=True) == 0
    ((*_, words),) = [line for line in project.log() if line[0] == "starts"]
    assert {"--compile", "--no-report"} <= set(words)
    assert "--no-capture" not in words, "nobody asked for it"


# Making runs


def test_runs_are_made_in_the_order_of_the_list_and_say_so(project: Project, capsys: pytest.CaptureFixture) -> None:
    assert campaign(project.list) == 0
    assert project.logged("starts") == project.ids
    assert project.made() == project.ids
    said = capsys.readouterr().out
    assert "4 runs wanted, 0 have a record, 4 to make" in said
    for name in project.ids:
        assert f"started {name} at {project.head[:12]}" in said
        assert f"made {name} in 0 min" in said
    assert said.endswith("done\n")


def test_every_run_comes_from_a_clean_checkout_of_the_commit(project: Project) -> None:
    assert campaign(project.list, threads=3) == 0
    for _, _, _, folder, words in project.log():
        assert Path(folder) == cached("worktrees", project.head, "")
        assert git(Path(folder), "rev-parse", "HEAD") == project.head
        assert words[words.index("--threads") + 1] == "3"
        assert words[words.index("--out") + 1] == str(project.list.parent)
    kept = [("--features" in words, "--no-weights" in words) for what, *_, words in project.log() if what == "starts"]
    assert kept == [(False, True)] * 2 + [(True, False)] * 2
    assert git(project.folder, "status", "--porcelain", "--untracked-files=no") == ""


def test_a_run_that_has_a_record_is_not_made_again(project: Project, capsys: pytest.CaptureFixture) -> None:
    project.record(1)
    assert campaign(project.list) == 0
    assert project.logged("starts") == [project.ids[0], *project.ids[2:]]
    assert "4 runs wanted, 1 have a record, 3 to make" in capsys.readouterr().out
    assert campaign(project.list) == 0
    assert len(project.log()) == 6, "nothing is left to make"


@pytest.mark.fault("a damaged record in a campaign")
def test_a_damaged_record_is_reported_rather_than_made_again(project: Project) -> None:
    (project.list.parent / f"{project.ids[0]}.json").write_text("{")
    with pytest.raises(ValueError, match=r"json is not a whole record; restore it, or delete it and make"):
        missing(project.wanted, project.list.parent)
    assert (project.list.parent / f"{project.ids[0]}.json").read_text() == "{"


def test_runs_go_side_by_side(project: Project) -> None:
    for number in (0, 1):
        project.tell("sleep", number, 1.0)
    assert campaign(project.list, processes=2) == 0
    assert [line[0] for line in project.log()][:2] == ["starts", "starts"]
    assert set(project.logged("starts")[:2]) == set(project.ids[:2])


@pytest.mark.fault("a run of a campaign that fails")
def test_a_failing_run_is_reported_and_the_rest_goes_on(
    project: Project, capsys: pytest.CaptureFixture, sentence: Callable[[str], None]
) -> None:
    project.tell("fail", 1)
    assert campaign(project.list) == 1
    assert project.made() == [project.ids[0], *project.ids[2:]]
    said = capsys.readouterr().out
    log = cached("logs", project.ids[1], ".log")
    assert f"FAILED {project.ids[1]} (status 2): see {log}" in said
    sentence(next(line[9:] for line in said.splitlines() if "FAILED" in line))
    assert "done: 1 failed" in said
    assert "it went wrong" in log.read_text()
    (project.control / f"fail-{project.ids[1]}").unlink()
    assert campaign(project.list) == 0
    assert project.made() == project.ids


def test_a_dry_run_says_what_is_missing_and_makes_nothing(project: Project, capsys: pytest.CaptureFixture) -> None:
    project.record(0)
    (project.folder / "names.json").write_text("dirty")
    assert campaign(project.list, dry=True) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [command_line(w.settings) for w in project.wanted[1:]]
    assert project.log() == []


def test_only_the_runs_with_such_names_are_made(project: Project, capsys: pytest.CaptureFixture) -> None:
    assert campaign(project.list, only="-(ce|mbib)-.*s0") == 0
    assert project.made() == [name for name in project.ids if "-bsce-" not in name]
    assert "3 runs wanted, 0 have a record, 3 to make" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("only", "sentence"),
    [
        ("(", "'\\(' is no regular expression"),
        ("cifar100", "no run has a name with 'cifar100' in it; one of them is gly"),
    ],
)
@pytest.mark.fault("a campaign that asks for the names {only}")
def test_a_part_of_a_name_that_picks_nothing_is_refused(project: Project, only: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        campaign(project.list, only=only)


def test_a_list_may_lie_anywhere_and_records_too_and_what_has_one_beside_the_list_is_made(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkouts, "HERE", project.folder / "mbib_core")
    elsewhere, out = tmp_path / "elsewhere" / "wanted.toml", tmp_path / "out"
    elsewhere.parent.mkdir()
    elsewhere.write_text(WANTED)
    record = project.record(0)
    record.rename(elsewhere.parent / record.name)
    assert campaign(elsewhere, out=out) == 0
    assert project.logged("starts") == project.ids[1:]
    assert sorted(file.stem for file in out.glob("*.json")) == sorted(project.ids[1:])
    assert {Path(line[3]) for line in project.log()} == {cached("worktrees", project.head, "")}
    assert campaign(elsewhere, out=out) == 0
    assert len(project.logged("starts")) == 3, "nothing is left to make"


def test_an_unpacked_archive_makes_runs_of_its_own_code_and_goes_on_with_them(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shutil.rmtree(project.folder / ".git")
    monkeypatch.setattr(checkouts, "HERE", project.folder / "mbib_core")
    monkeypatch.setenv("MBIB_COMMIT", "0123456789ab")
    cached("checkpoints", project.ids[1], ".pt").write_text("half")
    cached("checkpoints", project.ids[1], ".commit").write_text("an older one")
    assert campaign(project.list) == 0
    assert {Path(line[3]) for line in project.log()} == {project.folder}
    assert project.logged("goes on") == [project.ids[1]], "with this code; the record names both commits"
    assert project.made() == project.ids
    assert f"started {project.ids[0]} at 0123456789ab" in capsys.readouterr().out


def test_runs_are_told_the_device_and_a_gpu_that_is_not_there_is_told_before_any_starts(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert campaign(project.list, only="-ce-", device="cpu") == 0
    words = project.log()[0][-1]
    assert words[words.index("--device") + 1] == "cpu"
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees no GPU here"):
        campaign(project.list, device="cuda")
    assert len(project.logged("starts")) == 1


@pytest.mark.fault("a campaign whose minutes are over")
def test_after_its_minutes_a_campaign_saves_what_runs_and_the_next_one_goes_on(
    project: Project,
    capsys: pytest.CaptureFixture,
    sentence: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in (1, 2):
        project.tell("sleep", number, 60)
    clock = time.monotonic
    with monkeypatch.context() as patch:  # an hour passes when the third run has started
        patch.setattr(module.time, "monotonic", lambda: clock() + 3600 * (len(project.logged("starts")) > 2))
        assert campaign(project.list, processes=2, minutes=9) == 0
    (words,) = (line[9:] for line in capsys.readouterr().out.splitlines() if "minutes" in line)
    assert words == ("9 minutes are over: 2 runs are saved and go on with the next campaign, 1 are not begun, 0 failed")
    sentence(words)
    assert not any(alive(line[2]) for line in project.log())
    assert project.made() == project.ids[:1]
    for number in (1, 2):
        (project.control / f"sleep-{project.ids[number]}").unlink()
    assert campaign(project.list, minutes=10) == 0
    assert project.logged("goes on") == project.ids[1:3]
    assert project.made() == project.ids


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"minutes": 0}, "minutes must be more than 0, not 0"),
        ({"minutes": 9, "cluster": "slurm"}, "minutes are for runs on this machine: a cluster's jobs take --hours"),
        ({"processes": 0}, "processes and threads must be 1 or more, not 0 and 1"),
    ],
)
@pytest.mark.fault("a campaign with {more}")
def test_a_campaign_that_could_make_nothing_is_refused(project: Project, more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        campaign(project.list, **more)


# On a cluster


@pytest.mark.fault("a job that fails")
def test_on_a_cluster_each_run_is_a_job_of_its_own(
    project: Project, capsys: pytest.CaptureFixture, sentence: Callable[[str], None]
) -> None:
    pytest.importorskip("submitit")
    project.tell("fail", 1)
    with FileLock(cached("checkpoints", project.ids[0], ".lock")):  # another's: its job steps back
        assert campaign(project.list, cluster="local", device="cpu") == 1
    assert project.made() == project.ids[2:]
    pids = {line[2] for line in project.log() if line[0] == "starts"}
    assert len(pids) == 3
    assert {Path(line[3]) for line in project.log()} == {cached("worktrees", project.head, "")}
    said = capsys.readouterr().out
    assert f"left to other processes: {project.ids[0]}" in said
    assert "it went wrong" in cached("logs", project.ids[1], ".log").read_text()
    sentence(next(line[9:] for line in said.splitlines() if "FAILED" in line))


def test_jobs_are_asked_for_as_submitit_hands_them_to_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda _executor: 1))
    asked = Jobs("slurm", device=None, threads=3, hours=2.5, partition="gpu").executor._executor.parameters
    wanted = {"time": 150, "cpus_per_task": 3, "gpus_per_node": 1, "partition": "gpu", "job_name": "mbib"}
    assert {name: asked.get(name) for name in wanted} == wanted
    without = Jobs("slurm", device="cpu", threads=1, hours=1, partition=None).executor._executor.parameters
    assert without["gpus_per_node"] == 0
    assert "partition" not in without


@pytest.mark.fault("a cluster campaign that is started again")
def test_what_is_in_the_queue_already_is_not_queued_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, sentence: Callable[[str], None]
) -> None:
    """A stand-in for SLURM, of which an earlier campaign asked for two runs: one waits, the other is over."""
    submitit = pytest.importorskip("submitit")

    class Queued(submitit.LocalJob):
        def done(self, force_check: bool = False) -> bool:
            project.record(0)  # it is made while the campaign looks on
            looks.append(self.job_id)
            return len(looks) > 1

        def result(self) -> int:
            return 0

    class Over(submitit.LocalJob):
        pass

    looks: list[str] = []
    jobs = Jobs("local", device="cpu", threads=1, hours=1, partition=None)
    jobs.job_class = lambda folder, number: (Queued if number == "1" else Over)(folder, number)
    monkeypatch.setattr("mbib_core.cluster.Jobs", lambda *_, **__: jobs)
    for number, name in enumerate(project.ids[:2], start=1):
        jobs.file_of(name).parent.mkdir(parents=True, exist_ok=True)
        jobs.file_of(name).write_text(f"{number}\n")
    assert campaign(project.list, only="|".join(project.ids[:2]), cluster="local") == 0
    assert project.logged("starts") == project.ids[1:2], "the first one is waited for"
    assert jobs.file_of(project.ids[1]).read_text() not in ("2", "2\n"), "another job"
    said = capsys.readouterr().out
    assert f"in the queue already: {project.ids[0]}" in said
    sentence(next(line[9:] for line in said.splitlines() if "in the queue" in line))


@pytest.mark.fault("a cluster that is not there")
def test_a_cluster_that_is_not_there_is_told_and_one_that_takes_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    submitit = pytest.importorskip("submitit")
    with pytest.raises(
        ValueError, match=r"cannot reach a 'slurm' cluster from here .*: start the campaign where sbatch is"
    ):
        Jobs("slurm", device=None, threads=1, hours=1, partition=None)
    jobs = Jobs("local", device="cpu", threads=1, hours=1, partition=None)

    def full(*_: Any) -> None:
        raise submitit.core.utils.FailedJobError("sbatch: error: QOSMaxSubmitJobPerUserLimit")

    monkeypatch.setattr(submitit.AutoExecutor, "submit", full)
    with pytest.raises(OSError, match=r"the cluster rejected the job .*MaxSubmit.*: check --partition, --hours and"):
        jobs([], Path(), Path())


@pytest.mark.fault("a cluster without submitit")
def test_without_submitit_a_cluster_is_refused_with_the_way_to_get_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(
        ImportError, match=r'a campaign on a cluster needs submitit: pip install "mbib-core\[cluster\]"'
    ):
        campaign(project.list, cluster="slurm")


def test_a_job_that_is_cut_is_queued_again_with_the_same_command(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    command = Command([sys.executable, "-c", "print('said'); raise SystemExit(3)"], tmp_path, tmp_path / "log")
    assert command() == 3
    assert command.checkpoint().function is command
    assert (tmp_path / "log").read_text() == "said\n"


# Resuming


def test_a_run_that_was_cut_goes_on_at_the_commit_it_started_from(
    project: Project, capsys: pytest.CaptureFixture
) -> None:
    cached("checkpoints", project.ids[0], ".pt").write_text("half")
    cached("checkpoints", project.ids[0], ".commit").write_text(project.head)
    (project.folder / "new").write_text("file")
    later = project.commit()
    assert campaign(project.list) == 0
    assert project.logged("goes on") == project.ids[:1]
    folders = {name: Path(folder).name for _, name, _, folder, _ in project.log()}
    assert [folders[name] for name in project.ids] == [project.head, later, later, later]
    assert f"going on with {project.ids[0]} at {project.head[:12]}" in capsys.readouterr().out


def test_a_run_that_left_no_checkpoint_starts_at_the_newest_commit(project: Project) -> None:
    """What failed before its first epoch, because of a bug, must not be bound to the commit with the bug."""
    project.tell("fail", 0)
    assert campaign(project.list) == 1
    (project.control / f"fail-{project.ids[0]}").unlink()
    cached("checkpoints", project.ids[0], ".pt").unlink()
    later = project.commit()
    assert campaign(project.list) == 0
    assert Path(project.log()[-1][3]).name == later


@pytest.mark.parametrize(
    ("commit", "words"),
    [
        ("0123456789" * 4, "commit 012345678901 of {} is gone"),
        ("", "the commit of {} is not known"),
        ("--help", "commit --help of {} is gone"),
    ],
    ids=["gone", "empty", "no commit"],
)
@pytest.mark.fault("a cut run whose commit is {commit!r}")
def test_a_run_whose_commit_is_gone_starts_anew_and_its_checkpoint_is_put_aside(
    project: Project, capsys: pytest.CaptureFixture, sentence: Callable[[str], None], commit: str, words: str
) -> None:
    cached("checkpoints", project.ids[0], ".pt").write_text("half a run")
    cached("checkpoints", project.ids[0], ".commit").write_text(commit)
    assert campaign(project.list) == 0
    assert project.logged("goes on") == []
    (aside,) = cached("checkpoints", "", "").parent.glob("checkpoints/*.aside")
    assert aside.read_text() == "half a run"
    words = f"{words.format(project.ids[0])}: the run starts anew; its checkpoint is kept as {aside}"
    assert words in capsys.readouterr().out
    sentence(words)


def test_the_commit_of_a_run_is_written_whole_and_only_when_it_changes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cached("checkpoints", project.ids[0], ".commit")
    file.write_text(project.head)
    cached("checkpoints", project.ids[0], ".pt").write_text("half")
    before, seen = file.stat().st_ino, []
    monkeypatch.setattr(os, "replace", lambda a, b, real=os.replace: (seen.append(Path(b).name), real(a, b)))
    project.tell("fail", 0)
    assert campaign(project.list) == 1
    assert file.stat().st_ino == before, "the run goes on at its commit, which the file names already"
    assert seen == [f"{name}.commit" for name in project.ids[1:]]


def test_a_checkout_that_was_edited_or_cut_short_is_made_clean_again(project: Project) -> None:
    assert campaign(project.list) == 0
    folder = cached("worktrees", project.head, "")
    for path, content in (("mbib_core/cli.py", "raise SystemExit(9)"), (".git", "gitdir: /nowhere")):
        (folder / path).write_text(content)
        (project.list.parent / f"{project.ids[0]}.json").unlink()
        assert campaign(project.list) == 0
        assert git(folder, "status", "--porcelain") == ""


@pytest.mark.fault("a checkout that cannot be made")
def test_a_checkout_that_cannot_be_made_keeps_the_checkpoint(project: Project, tmp_path: Path) -> None:
    checkpoint = cached("checkpoints", project.ids[0], ".pt")
    checkpoint.write_text("half")
    cached("checkpoints", project.ids[0], ".commit").write_text(project.head)
    cached("worktrees", project.head, "").write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"could not be checked out into .*: make room there, or name another folder"):
        campaign(project.list)
    assert checkpoint.read_text() == "half"


# Refusals


@pytest.mark.parametrize("change", ["edited", "new", "deleted", "staged"])
@pytest.mark.fault("a checkout with changes")
def test_a_dirty_checkout_is_refused_by_file(project: Project, change: str) -> None:
    file = project.folder / ("new.py" if change == "new" else "names.json")
    file.unlink() if change == "deleted" else file.write_text("{}")
    if change == "staged":
        git(project.folder, "add", ".")
    with pytest.raises(ValueError, match=rf"{file.name} differ from the last commit: commit or stash what changed"):
        campaign(project.list)
    for number in range(4):
        (project.folder / f"{number}.py").write_text("")
    with pytest.raises(ValueError, match=r"\.py and 2 more differ from the last commit"):
        campaign(project.list)
    assert project.log() == []


def test_new_records_are_no_dirt(project: Project) -> None:
    for name in ("a.json", "a.safetensors", "a.npz", ".a.npz.7.part"):  # the last one of a process that was killed
        (project.list.parent / name).write_text("of an earlier campaign")
    assert campaign(project.list) == 0


@pytest.mark.fault("a campaign without git")
def test_without_git_a_campaign_is_refused_unless_the_commit_is_said(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=r"\(git is not installed\): a record names the commit .* MBIB_COMMIT which"):
        campaign(project.list)
    assert project.log() == []


@pytest.mark.parametrize("commands", [[], [["init", "-q"]]], ids=["no repository", "no commit"])
@pytest.mark.fault("a campaign outside a checkout")
def test_a_list_and_code_outside_a_checkout_with_a_commit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]
) -> None:
    (tmp_path / "wanted.toml").write_text(WANTED)
    monkeypatch.setattr(checkouts, "HERE", tmp_path / "mbib_core")
    for words in commands:
        git(tmp_path, *words)
    with pytest.raises(ValueError, match=r"neither .* nor the code is in a git checkout with a commit of this project"):
        campaign(tmp_path / "wanted.toml")


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(95, "Operation not supported")])
@pytest.mark.fault("a campaign on a file system without locks: {error}")
def test_a_file_system_without_locks_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(checkouts.FileLock, "acquire", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(OSError, match=r"\.lock cannot be locked .*: name a folder on a local disk with MBIB_CACHE"):
        campaign(project.list)


def test_a_campaign_runs_in_a_thread_that_may_not_handle_signals(project: Project) -> None:
    with ThreadPoolExecutor() as pool:
        assert pool.submit(campaign, project.list).result() == 0


# Several at once


def in_child(work: Callable[[], Any], output: Path) -> multiprocessing.process.BaseProcess:
    def run() -> None:
        sys.stdout = output.open("w")
        status = 99
        try:
            status = work()
        except KeyboardInterrupt:
            status = 130
        finally:
            sys.stdout.flush()
            os._exit(status)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def until(true: Callable[[], Any], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.fault("two campaigns on one list")
def test_two_campaigns_share_a_list_without_making_a_run_twice(
    project: Project, tmp_path: Path, sentence: Callable[[str], None]
) -> None:
    project.tell("meet", 0, 2)  # both start the first run: one must step back
    project.tell("hold", 0, 2)  # and begins the second while the other still makes the first
    both = [in_child(lambda: campaign(project.list), tmp_path / f"said-{i}") for i in range(2)]
    for process in both:
        process.join(600)
    said = [(tmp_path / f"said-{i}").read_text() for i in range(2)]
    assert [process.exitcode for process in both] == [0, 0], said
    assert sorted(project.logged("starts")) == sorted(project.ids), said
    assert sorted(project.made()) == sorted(project.ids)
    assert "FAILED" not in said[0] + said[1]
    assert all(one.endswith("done\n") for one in said)
    sentence(" | ".join(line[9:] for one in said for line in one.splitlines() if re.search("left to|done", line)))


@pytest.mark.fault("a run that another campaign makes")
def test_a_run_that_another_process_makes_is_left_to_it(
    project: Project, capsys: pytest.CaptureFixture, sentence: Callable[[str], None]
) -> None:
    with FileLock(cached("checkpoints", project.ids[0], ".lock")):
        assert campaign(project.list) == 0
    assert project.made() == project.ids[1:]
    words = f"left to other processes: {project.ids[0]}"
    assert words in capsys.readouterr().out
    sentence(words)


def test_a_run_that_its_maker_drops_is_made_after_all(project: Project, tmp_path: Path) -> None:
    project.tell("sleep", 1, 1.0)
    lock = FileLock(cached("checkpoints", project.ids[0], ".lock"))
    lock.acquire()
    process = in_child(lambda: campaign(project.list), tmp_path / "said")
    until(lambda: project.logged("starts"))
    lock.release()
    process.join(100)
    assert process.exitcode == 0
    assert sorted(project.made()) == sorted(project.ids)


@pytest.mark.fault("the lock of a dead campaign")
def test_the_lock_of_a_dead_campaign_is_no_obstacle(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture, sentence: Callable[[str], None]
) -> None:
    project.tell("sleep", 0, 60)
    process = in_child(lambda: campaign(project.list), tmp_path / "said")
    until(lambda: project.logged("starts"))
    pid = project.log()[0][2]
    os.kill(process.pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    process.join()
    until(lambda: not alive(pid))
    assert cached("checkpoints", project.ids[0], ".lock").exists()
    (project.control / f"sleep-{project.ids[0]}").unlink()
    assert campaign(project.list) == 0
    words = f"going on with {project.ids[0]} at {project.head[:12]}"
    assert words in capsys.readouterr().out
    sentence(words)
    assert project.logged("goes on") == project.ids[:1], "it goes on where the dead one was cut"
    assert project.made() == project.ids


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.fault("a campaign that is stopped by Ctrl-C or SIGTERM")
def test_a_campaign_that_is_stopped_takes_its_runs_down_and_the_next_goes_on(
    project: Project, tmp_path: Path, stop: signal.Signals, sentence: Callable[[str], None]
) -> None:
    for number in (0, 1):
        project.tell("sleep", number, 60)
    process = in_child(lambda: campaign(project.list, processes=2), tmp_path / "said")
    until(lambda: len(project.logged("starts")) == 2)
    os.kill(process.pid, stop)
    process.join(30)
    assert process.exitcode == 130
    assert not any(alive(line[2]) for line in project.log())
    words = "stopped; 2 runs are saved and go on with the next campaign"
    assert words in (tmp_path / "said").read_text()
    sentence(words)
    for number in (0, 1):
        (project.control / f"sleep-{project.ids[number]}").unlink()
    assert campaign(project.list) == 0
    assert project.logged("goes on") == project.ids[:2]


# The real thing


def copied(folder: Path) -> Path:
    """The package as it is, and a list of one short run beside it."""
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "mbib_core", "pyproject.toml", ".gitignore"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes((ROOT / file).read_bytes())
    wanted = folder / "runs" / "wanted.toml"
    wanted.parent.mkdir()
    wanted.write_text('[[run]]\nmethod = "ce"\nepochs = 1\npurpose = "choosing"\n')
    return wanted


def made_in(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mbib_core.cli", "campaign", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""} | environment
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_real_campaign_makes_a_record_that_names_its_commit(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    wanted = copied(folder)
    git(folder, "init", "-q")
    git(folder, "add", "--force", ".")
    git(folder, "commit", "-qm", "clone")
    found = made_in(folder, str(wanted), MBIB_CACHE=str(tmp_path / "cache"))
    assert found.returncode == 0, found.stdout + found.stderr
    assert missing(read_wanted(wanted), wanted.parent) == []
    (record,) = (read_record(path) for path in wanted.parent.glob("*.json"))
    assert record["run_id"] == read_wanted(wanted)[0].id
    assert record["commits"] == [git(folder, "rev-parse", "--short=12", "HEAD")]
    assert "test" not in record
    assert record["machine"]["threads"] == 1
    assert record["machine"]["checkout"] is True
    assert list(wanted.parent.glob("*.safetensors")) == []
    assert not list((tmp_path / "cache" / "checkpoints").glob("*.pt"))


@pytest.mark.slow
def test_a_real_campaign_in_an_archive_makes_a_record_with_the_commit_that_was_said(tmp_path: Path) -> None:
    folder, out = tmp_path / "archive", tmp_path / "out"
    more = {"MBIB_CACHE": str(tmp_path / "cache"), "MBIB_COMMIT": "0123456789ab"}
    found = made_in(folder, str(copied(folder)), "--out", str(out), "--minutes", "9", "--device", "cpu", **more)
    assert found.returncode == 0, found.stdout + found.stderr
    (record,) = (read_record(path) for path in out.glob("*.json"))
    assert record["commits"] == ["0123456789ab"]
    assert record["machine"]["checkout"] is False
