"""What all tests share: one thread, hypothesis without deadlines, small data sets, and CIFAR-100 where it is."""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch; a second thread gives less than it costs

import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings

from mbib_core import checkpoints
from mbib_core.data import Images, LongTailed
from mbib_core.schedules import SCHEDULES, Schedule

torch.set_num_threads(1)
QUICK = ("ce", "bsce", "bib", "mbib", "crt", "sade", "vib", "bbn", "kcl")  # rows of every kind; the others are slow

settings.register_profile("book", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("book")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache folder."""
    monkeypatch.setenv("MBIB_CACHE", str(tmp_path / "own-cache"))


@pytest.fixture(autouse=True)
def every_epoch_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a disk takes here: tests cut runs at epochs of their choice."""
    monkeypatch.setattr(checkpoints, "SHARE", math.inf)


# Faults: a test marked `fault("name")` must ask for the sentence that the fault is told in. It is heard from
# `pytest.raises(..., match=...)`, or else given to the fixture `sentence`; `--list-faults` prints what was heard.

HEARD = pytest.StashKey[list[str]]()


def fault_names(item: pytest.Item) -> list[str]:
    """The names in a test's fault marks, with the values of its parameters in place of {parameter}."""
    values = getattr(getattr(item, "callspec", None), "params", {})
    return [" ".join(mark.args[0].format(**values).split()) for mark in item.iter_markers("fault")]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--list-faults", action="store_true", help="with -m fault: print each fault and its sentence")


@pytest.fixture
def sentence(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a fault's sentence that was printed and not raised."""
    return lambda words: request.node.stash.setdefault(HEARD, []).append(words)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    names = fault_names(item)
    if not names:
        return (yield)
    heard = item.stash.setdefault(HEARD, [])
    real = pytest.raises

    @contextmanager
    def raises(*expected: Any, match: Any = None, **more: Any) -> Iterator[pytest.ExceptionInfo]:
        with real(*expected, match=match, **more) as caught:
            yield caught
        told = callable(getattr(item, "funcargs", {}).get("sentence"))  # such a test says itself which one it is
        if match is not None and not told:
            heard.append(str(caught.value))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytest, "raises", raises)
        result = yield
    assert heard, f"the test of the fault {names[0]!r} asks for no sentence"
    here = str(getattr(item, "funcargs", {}).get("tmp_path", "/nowhere"))
    words = " | ".join(dict.fromkeys(" ".join(one.replace(here, "...").split()) for one in heard))
    item.user_properties += [("fault", (name, words)) for name in names]
    return result


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.list_faults and session.config.option.collectonly:
        print(*(f"fault: {name}" for item in session.items for name in fault_names(item)), sep="\n")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.option.list_faults:
        passed = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
        faults: dict[str, dict[str, None]] = {}
        for report in passed:
            for kind, value in report.user_properties:
                if kind == "fault":
                    faults.setdefault(value[0], {})[value[1]] = None
        terminalreporter.section(f"{len(faults)} faults and their sentences")
        for name, sentences in sorted(faults.items()):
            more = f" (and {len(sentences) - 1} like it)" if len(sentences) > 1 else ""
            terminalreporter.write_line(f"{name} - {next(iter(sentences))}{more}")


@pytest.fixture(scope="session")
def cifar_root() -> Path:
    """The folder that holds `cifar-100-python`: $MBIB_DATA. Without it a test is skipped, on a CI machine it fails."""
    root = os.environ.get("MBIB_DATA")
    if root and (Path(root) / "cifar-100-python").is_dir():
        return Path(root)
    reason = "CIFAR-100 is not here: set MBIB_DATA to the folder that holds cifar-100-python"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def coloured(counts: list[int], held_out: int = 4, side: int = 8, seed: int = 0) -> LongTailed:
    """A small long-tailed data set: noise, with a colour of its own for every class."""
    random = torch.Generator().manual_seed(seed)
    colours = torch.randint(40, 216, (len(counts), 3, 1, 1), generator=random)

    def images(numbers: list[int]) -> Images:
        y = torch.tensor([label for label, n in enumerate(numbers) for _ in range(n)], dtype=torch.int64)
        noise = torch.randint(-40, 40, (len(y), 3, side, side), generator=random)
        return Images((colours[y] + noise).to(torch.uint8), y)

    test, validation = [held_out] * len(counts), [held_out + 1] * len(counts)  # to be told apart by their number
    names = [f"colour {i}" for i in range(len(counts))]
    return LongTailed("coloured", images(counts), images(validation), images(test), names)


@pytest.fixture
def tiny_data() -> LongTailed:
    return coloured([22, 9, 3])


@pytest.fixture
def tiny_schedule(monkeypatch: pytest.MonkeyPatch) -> Schedule:
    """A schedule named "tiny": ResNet-8, three epochs, batches of 8."""
    schedule = Schedule(depth=8, epochs=3, batch=8)
    monkeypatch.setitem(SCHEDULES, "tiny", schedule)
    return schedule


def softmax(logits: list[float]) -> list[float]:
    """By hand, in Python's float64."""
    top = max(logits)
    exponentials = [math.exp(f - top) for f in logits]
    return [e / math.fsum(exponentials) for e in exponentials]


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id: str) -> Path:
    """The folder of the book's pages, built once with warnings as errors, by one process for all beside it."""
    base = tmp_path_factory.getbasetemp()
    out = (base if worker_id == "master" else base.parent) / "site"
    with FileLock(f"{out}.lock"):
        if not out.exists():
            out.mkdir()
            start = "from jupyter_book.cli.main import main; main()"
            options = ["-W", "-n", "--keep-going", "--path-output", str(out)]
            command = [sys.executable, "-c", start, "build", *options, str(Path(__file__).parents[1])]
            done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=out)
            (out / "failure").write_text(done.stdout[-3000:] + done.stderr[-3000:] if done.returncode else "")
    assert not (out / "failure").read_text(), (out / "failure").read_text()
    return out / "_build" / "html" / "book"


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; closed with each module, since its event loop must not meet a notebook's kernel."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_api.sync_playwright() as playwright:
        if not (chromium or Path(playwright.chromium.executable_path).exists()):
            pytest.skip("no Chromium on this machine")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
