"""Each chapter as a reader opens it on Colab: alone in an empty folder, in an environment without this repository.

Colab's stand-in is a virtual environment with the versions of ipywidgets and IPython that Colab has and, of what the
package needs, only what Colab brings; the chapter's own clone line is led to a copy of the working tree. Colab's page,
its version of Python, its GPU and its Drive are not tested.

nbval runs every cell as well. Here, unless MBIB_COLAB=all asks for the whole of every chapter, three chapters are cut
to the cells in which Colab differs: set-up, imports, live sliders, the first use of each helper, and what these need.
The first of them is set up from nothing; the others find what it left, as after a restart of the kernel.
"""

import ast
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mbib_core.notebook import checkpoint
from mbib_core.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
BROUGHT = (
    *("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pandas", "matplotlib", "seaborn"),
    *("safetensors", "tqdm", "filelock", "pillow", "setuptools"),
)
COLABS_OWN = ("ipywidgets==7.7.1", "ipython==7.34.0", "ipykernel<7", "ipython_genutils", "setuptools>=77")
VIEW = "application/vnd.jupyter.widget-view+json"
EPOCHS = 3
SLOWEST_MOVE = 1.0  # seconds of a processor core from the handle to the picture, whatever else the machine does
USUAL = ("01_long_tails", "03_information_bottleneck", "02_rebalancing")
HELPERS = ("say(", "source(", "figures.show(", "static_slider(", "grade(")


# ---------------------------------------------------------------- the stand-in


def with_dependencies(names: tuple[str, ...]) -> set[str]:
    """The distributions `names` and all that they need on this machine, by canonical name."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            if (key := f"{canonicalize_name(wanted.name)}[{extra}]") in found:
                continue
            try:
                needs = [Requirement(text) for text in distribution(wanted.name).requires or []]
            except PackageNotFoundError:
                continue
            found.add(key)
            waiting += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {key.split("[")[0] for key in found}


def link_packages(names: tuple[str, ...], folder: Path) -> None:
    """Fills `folder` with links to the distributions `names` and to what they need."""
    for name in with_dependencies(names):
        files = distribution(name).files or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(distribution(name).locate_file(top)).resolve())


def committed_copy(folder: Path) -> Path:
    """A repository whose one commit holds the files of the working tree, uncommitted ones too."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    tag = f"v{tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}"
    for words in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "the working tree"), ("tag", tag)):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    return folder


def pip(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=python.parent)


@pytest.fixture(scope="session")
def colab(tmp_path_factory) -> SimpleNamespace:
    """Its `python`, the folder `jupyter` that holds its kernel, and the `clone` of the working tree."""
    top = tmp_path_factory.mktemp("colab")
    links, clone = top / "brought", top / "clone"
    links.mkdir(), clone.mkdir()
    link_packages(BROUGHT, links)
    subprocess.run([sys.executable, "-m", "venv", str(top / "venv")], check=True)
    python = top / "venv" / "bin" / "python"
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    (own / "brought.pth").write_text(f"{links}\n")  # searched last; .pth files in there, as of `pip -e`, do nothing
    # Without its dependencies: the old ipywidgets would fetch the whole notebook server, which no kernel needs.
    for words in (COLABS_OWN[1:], ("--no-deps", COLABS_OWN[0])):
        done = pip(python, "install", "-q", "--retries", "1", *words)
        if done.returncode:
            reason = f"Colab's packages cannot be installed here: {done.stderr.strip()[-200:]}"
            pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    kernel = top / "jupyter" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Colab", "language": "python"}))
    return SimpleNamespace(python=python, jupyter=top / "jupyter", clone=committed_copy(clone))


@pytest.fixture
def stand_in(colab, tmp_path, monkeypatch) -> SimpleNamespace:
    """The stand-in with or without the package; `env` is what a kernel of it sees."""
    monkeypatch.setenv("JUPYTER_PATH", str(colab.jupyter))
    ours = ("MBIB_STATIC", "MBIB_DATA", "MBIB_SHARED", "PYTEST_", "PYTHONPATH", "GIT_", "MPLBACKEND")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    env["IPYTHONDIR"] = str(tmp_path / "ipython")
    return SimpleNamespace(**vars(colab), env=env, prefix=colab.python.parents[1])


@pytest.fixture
def fresh(stand_in, tmp_path) -> SimpleNamespace:
    """The stand-in as a reader meets it, without the package and the book."""
    pip(stand_in.python, "uninstall", "-q", "-y", "mbib-core")
    assert not importable(stand_in, tmp_path), "the package must be out of reach before the set-up cell"
    return SimpleNamespace(**vars(stand_in), book=None)


@pytest.fixture
def kept(stand_in, tmp_path) -> SimpleNamespace:
    """The stand-in as a reader finds it again after a restart of the kernel, with the package and the `book`."""
    if not importable(stand_in, tmp_path):  # no test before this one was set up
        pip(stand_in.python, "install", "-q", str(stand_in.clone))
    return SimpleNamespace(**vars(stand_in), book=stand_in.clone)


def importable(stand_in: SimpleNamespace, folder: Path) -> bool:
    asked = [
        str(stand_in.python),
        "-c",
        "import importlib.util; print(importlib.util.find_spec('mbib_core') is not None)",
    ]
    done = subprocess.run(asked, capture_output=True, text=True, env=stand_in.env, cwd=folder, check=True)
    return done.stdout == "True\n"


def run(nb: nbformat.NotebookNode, folder: Path, here: SimpleNamespace) -> None:
    """Runs the notebook in a new kernel of the stand-in, alone in `folder` but for the book if that was kept; its clone
    line gets `here.clone`."""
    folder.mkdir()
    if here.book:
        (folder / "the-book").symlink_to(here.book)
    nbformat.write(nb, folder / "chapter.ipynb")
    [setup] = [cell for cell in nb.cells if "git clone" in cell.source]
    address = re.search(r"git clone .*(https://\S+)", setup.source)[1]
    led = {"COUNT": "1", "KEY_0": f"url.file://{here.clone}.insteadOf", "VALUE_0": address}
    env = here.env | {f"GIT_CONFIG_{name}": value for name, value in led.items()}
    client = NotebookClient(nb, timeout=600, kernel_name="colab", resources={"metadata": {"path": str(folder)}})
    try:
        client.execute(env=env)
    finally:
        print("set-up:", *(output.get("text", "") for output in setup.get("outputs", [])))


def code(source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source)


def printed(cell: nbformat.NotebookNode) -> dict:
    return json.loads("".join(output.text for output in cell.outputs if output.output_type == "stream"))


def after_setup(nb: nbformat.NotebookNode, source: str) -> None:
    [place] = [n for n, cell in enumerate(nb.cells) if "git clone" in cell.source]
    nb.cells.insert(place + 1, code(source))


# ---------------------------------------------------------------- the chapters


def names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell binds, and those that it reads."""
    bound, read = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
    return bound, read


def leave(nb: nbformat.NotebookNode, asked: list[nbformat.NotebookNode]) -> None:
    """Leaves the set-up cell, the imports, the cells `asked` for, and those before them that bind what these read."""
    left, wanted = [], set()
    for cell in reversed([cell for cell in nb.cells if cell.cell_type == "code"]):
        if "git clone" in cell.source or "setup" in cell.metadata.get("tags", []):
            left.append(cell)
            continue
        bound, read = names(cell.source)
        if any(cell is one for one in asked) or bound & wanted:
            left.append(cell)
            wanted |= read
    nb.cells = left[::-1]


def where_colab_differs(nb: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells with live sliders, and the first with each of HELPERS."""
    cells = [cell for cell in nb.cells if cell.cell_type == "code" and "git clone" not in cell.source]
    first = [next((cell for cell in cells if helper in cell.source), None) for helper in HELPERS]
    return [cell for cell in cells if "live_slider(" in cell.source or any(cell is one for one in first)]


# What is injected where a chapter trains networks, to save minutes: `train` stops after a few epochs. What a chapter
# asserts of a trained network does not hold of such a one: in cells whose output nbval ignores, as those that train and
# those that show what was trained, the condition of an `assert` is computed and not demanded. All others hold.
CUT = f"""
import ast, functools
from dataclasses import replace
from mbib_core import trainer

@functools.wraps(trainer.train)
def cut(settings, *rest, train=trainer.train, **named):
    return train(replace(settings, epochs={EPOCHS}), *rest, **named)

trainer.train = cut

class NotDemanded(ast.NodeTransformer):
    def visit_Assert(self, node):
        return ast.copy_location(ast.Expr(node.test), node)
"""


def cut_short(nb: nbformat.NotebookNode) -> None:
    """Injects CUT where the notebook trains; its own cells stay as they are."""
    if not any("mbib_core.trainer" in cell.source for cell in nb.cells):
        return
    cells = []
    for cell in nb.cells:
        loose = "assert " in cell.source and "nbval-ignore-output" in cell.metadata.get("tags", [])
        before = [code("get_ipython().ast_transformers.append(NotDemanded())")] * loose
        cells += [*before, cell, *[code("get_ipython().ast_transformers.pop()")] * loose]
    nb.cells = cells
    after_setup(nb, CUT)


# `set_state` is what a message from the page calls when the reader moves a handle.
REPORT = """
import json, os, sys, time
from pathlib import Path
import IPython, ipywidgets, mbib_core

moves = []
for box in list(ipywidgets.Widget.widgets.values()):
    if type(box) is ipywidgets.VBox:
        (handle, page), pages, seconds = box.children, [], []
        for share in (0.2, 0.4, 0.6, 0.8):
            started = time.process_time()
            handle.set_state({"value": handle.min + share * (handle.max - handle.min)})
            seconds.append(time.process_time() - started)
            pages.append(page.value)
        moves.append({"label": handle.description, "pages": pages, "seconds": seconds})
print(json.dumps({
    "moves": moves,
    "package": mbib_core.__file__,
    "files": [f for m in list(sys.modules.values()) if (f := getattr(m, "__file__", None))],
    "folder": os.getcwd(),
    "records": len(list(Path("results").glob("*.json"))),
    "versions": {"ipywidgets": ipywidgets.__version__, "ipython": IPython.__version__},
}))
"""


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_runs_alone_on_colab_with_its_records_and_live_sliders(path, request, tmp_path):
    whole = os.environ.get("MBIB_COLAB") == "all"
    if path.stem not in USUAL and not whole:
        pytest.skip("set MBIB_COLAB=all to run every chapter as on Colab")
    here = request.getfixturevalue("fresh" if whole or path.stem == USUAL[0] else "kept")
    nb = nbformat.read(path, as_version=4)
    if not whole:
        leave(nb, where_colab_differs(nb))
    sliders = sum(cell.source.count("live_slider(") for cell in nb.cells if cell.cell_type == "code")
    cut_short(nb)
    nb.cells.append(code(REPORT))
    folder = tmp_path / "content"
    run(nb, folder, here)
    found = printed(nb.cells[-1])

    assert f"{found['versions']['ipywidgets']} {found['versions']['ipython']}" == "7.7.1 7.34.0"
    assert Path(found["package"]).is_relative_to(here.prefix), "not installed by the set-up cell"
    assert not [file for file in found["files"] if Path(file).is_relative_to(ROOT / "mbib_core")]
    assert Path(found["folder"]) == (folder / "the-book" / "book").resolve()
    assert found["records"] == len(list((here.clone / "book" / "results").glob("*.json")))

    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    assert sum(VIEW in output.get("data", {}) for output in outputs) == sliders == len(found["moves"])
    for move in found["moves"]:
        assert all('<img alt="' in page for page in move["pages"])
        assert len(set(move["pages"])) == len(move["pages"]), f"{move['label']}: the picture does not follow"
        assert statistics.median(move["seconds"]) < SLOWEST_MOVE, move["label"]


def test_every_chapter_is_set_up_by_the_same_cell():
    """So what is tested of one chapter's set-up cell holds of all."""
    cells = [
        cell for path in CHAPTERS for cell in nbformat.read(path, as_version=4).cells if "git clone" in cell.source
    ]
    assert len(cells) == len(CHAPTERS)
    assert len({cell.source for cell in cells}) == 1


def test_the_set_up_cell_has_something_to_fetch():
    """Not all that the package needs is linked: a dependency that Colab does not bring must come by pip."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {canonicalize_name(Requirement(text).name) for text in needed} - with_dependencies(BROUGHT)


# ---------------------------------------------------------------- a run that was cut


def test_a_drive_that_is_not_mounted_is_told_before_a_run_is_kept_on_a_machine_that_will_be_gone(tmp_path):
    assert checkpoint(None, Settings()) is None
    (tmp_path / "MyDrive").mkdir()
    assert checkpoint(tmp_path / "MyDrive" / "mbib", Settings()).parent == tmp_path / "MyDrive" / "mbib"
    with pytest.raises(FileNotFoundError, match=r"drive is not there: make it.* mount your Drive first"):
        checkpoint(tmp_path / "drive" / "MyDrive", Settings())


FIRST_TRAINING = 'ce, ce_history = trained("ce")'
# The kernel ends itself as it would when Colab takes the machine away, in the moment after the second epoch was saved.
KILLED = """
import os, signal
from mbib_core import checkpoints
checkpoints.SHARE, write = float("inf"), checkpoints.write_checkpoint

def killed(path, state):
    write(path, state)
    if len(state["history"]["loss"]) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoints.write_checkpoint = killed
"""
COUNTED = """
from mbib_core import trainer
draw, trained_epochs = trainer.draw, []

def counted(labels, *, epoch, **given):
    trained_epochs.append(epoch)
    return draw(labels, epoch=epoch, **given)

trainer.draw = counted
"""
COMPARED = """
import json
went_on, KEEP = list(trained_epochs), None
uncut, uncut_history = trained("ce")
same = torch.equal(ce, uncut) and ce_history == uncut_history
print(json.dumps({"went_on": went_on, "uncut": trained_epochs[len(went_on):], "same": same}))
"""


def first_training(drive: Path, injected: str) -> nbformat.NotebookNode:
    """The first chapter up to its first training, with the reader's folder in KEEP."""
    nb = nbformat.read(ROOT / "book" / "01_long_tails.ipynb", as_version=4)
    [last] = [n for n, cell in enumerate(nb.cells) if FIRST_TRAINING in cell.source]
    nb.cells = nb.cells[: last + 1]
    leave(nb, [nb.cells[last]])
    [switch] = [cell for cell in nb.cells if "KEEP = None" in cell.source]
    switch.source = switch.source.replace("KEEP = None", f"KEEP = {str(drive)!r}")
    after_setup(nb, CUT + injected)
    return nb


def test_a_run_that_colab_cut_goes_on_from_the_readers_drive(kept, tmp_path):
    drive = tmp_path / "MyDrive" / "mbib"
    drive.parent.mkdir()
    with pytest.raises(DeadKernelError):
        run(first_training(drive, KILLED), tmp_path / "content", kept)
    [saved] = drive.iterdir()
    nb = first_training(drive, COUNTED)
    nb.cells.append(code(COMPARED))
    run(nb, tmp_path / "another machine's content", kept)
    everything = list(range(EPOCHS))
    assert printed(nb.cells[-1]) == {"went_on": everything[2:], "uncut": everything, "same": True}
    assert [file.name for file in drive.iterdir()] == [saved.name]
