"""The house: which module may import which, what importing costs, and that the front door opens."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mbib_core

PACKAGE = Path(mbib_core.__file__).parent
PURE = ("losses", "rebalancing", "mixtures", "metrics", "information", "files", "settings")
HEAVY = ("torch", "pandas", "matplotlib", "seaborn", "sklearn", "numpy")


def modules() -> dict[str, ast.Module]:
    names = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): ast.parse(path.read_text("utf-8")) for path, name in names.items()}


def imports(tree: ast.AST, known: set[str], *, late: bool) -> set[str]:
    """The package's own modules that a module imports, at once or also within functions."""
    nodes = list(ast.walk(tree)) if late else list(tree.body)  # type: ignore[attr-defined]
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mbib_core"):
            place = (node.module or "").removeprefix("mbib_core").removeprefix(".")
            for alias in node.names:
                whole = f"{place}.{alias.name}".removeprefix(".")
                found.add(whole if whole in known else place)
    return found - {"", "__init__"}


def test_no_module_imports_one_that_imports_it() -> None:
    trees = modules()
    graph = {name: imports(tree, set(trees), late=False) - {name} for name, tree in trees.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_nothing_that_trains(name: str) -> None:
    trees = modules()
    own = imports(trees[name], set(trees), late=True)
    assert own <= {"losses", "rebalancing", "metrics", "settings", "files"}, f"{name} imports {own}"


def test_every_module_says_what_it_is_for() -> None:
    silent = [name for name, tree in modules().items() if not ast.get_docstring(tree)]
    assert not silent


def loaded(code: str) -> set[str]:
    shown = f"import sys\n{code}\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    return set(subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True).stdout.split())


def test_the_front_door_opens_onto_a_dozen_names_and_loads_none_of_them() -> None:
    assert loaded("import mbib_core; mbib_core.__version__; dir(mbib_core)") == set()
    assert 8 <= len(mbib_core.__all__) <= 14
    for name in mbib_core.__all__:
        assert getattr(mbib_core, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        mbib_core.nonsense  # noqa: B018


def test_waiting_threads_sleep_unless_asked_to_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    code = [sys.executable, "-c", "import mbib_core, os; print(os.environ['OMP_WAIT_POLICY'])"]
    for asked, found in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if asked:
            monkeypatch.setenv("OMP_WAIT_POLICY", asked)
        assert subprocess.run(code, capture_output=True, text=True, check=True).stdout.strip() == found


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import mbib_core.settings, mbib_core.cli", set()),
        ("import mbib_core.results, mbib_core.compare, mbib_core.information", {"numpy"}),
        ("from mbib_core import BIBLoss, MBIBLoss", {"torch", "numpy"}),
        ("from mbib_core import make, load, train, evaluate, read_weights", {"torch", "numpy"}),
    ],
)
def test_who_wants_a_loss_gets_torch_and_little_else_and_who_reads_records_not_even_that(
    code: str, allowed: set[str]
) -> None:
    assert loaded(code) <= allowed
