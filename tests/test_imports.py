"""No import runs back up between rooms, and there is no circle between folders: read from the sources themselves."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("assd", "evaluation", "experiments")

BASE = {"assd.errors", "assd.files", "assd.device", "assd.console"}
ROOMS = ["assd.data", "assd.diffusion", "assd.models", "assd.methods", "assd.runs"]  # each may use those before it
TOP = {"assd.config", "assd.editing", "assd.run", "assd.benchmark"}
MAY = {room: BASE | set(ROOMS[: i + 1]) for i, room in enumerate(ROOMS)}
MAY |= {file: BASE for file in sorted(BASE)}
MAY |= {
    "assd": {"assd.editing"},
    "assd.shapes": BASE | {"assd.data", "assd.diffusion", "assd.models", "assd.shapes"},
    "assd.config": BASE,
    "assd.editing": BASE | set(ROOMS) | {"assd.config", "assd.shapes"},
    "assd.benchmark": BASE | {"assd.data"},
}


def modules() -> dict[str, Path]:
    """Every source file by its module's name."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = modules()


def imports(file: Path) -> set[str]:
    """The modules of this project that a file imports, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports say in full where from"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= submodules or {node.module}
    return {name for name in found if name.partition(".")[0] in PACKAGES}


def room(module: str) -> str:
    """A file that lies directly in its package is its own room; else it is the folder there."""
    return ".".join(module.split(".")[:2])


def edges(place) -> dict[str, set[str]]:
    """Which places import which, by what `place` makes of a module's name."""
    found: dict[str, set[str]] = {}
    for name, file in MODULES.items():
        found.setdefault(place(name), set()).update(place(other) for other in imports(file))
    return {name: others - {name} for name, others in found.items()}


def test_the_sources_are_found():
    """The tests below see every room, and what they read exists."""
    assert set(ROOMS) | BASE | TOP <= {room(module) for module in MODULES}
    unknown = {(name, other) for name, file in MODULES.items() for other in imports(file) if other not in MODULES}
    assert not unknown


@pytest.mark.parametrize("name", MAY)
def test_no_import_runs_back_up(name):
    """A room imports itself, what lies below it, and nothing else."""
    up = {(module, other) for module, file in MODULES.items() if room(module) == name
          for other in imports(file) if room(other) not in MAY[name] | {name}}  # fmt: skip
    assert not up


def test_every_room_has_its_place():
    """A new folder or file of assd says above what it may import; run.py may import all."""
    assert {room(module) for module in MODULES if module.startswith("assd")} == MAY.keys() | {"assd.run"}


def test_run_alone_imports_evaluation():
    """The editor's rooms know nothing of scores; whoever edits from Python needs none."""
    outside = {module for module, file in MODULES.items() if module.startswith("assd")
               and any(other.startswith("evaluation") for other in imports(file))}  # fmt: skip
    assert outside == {"assd.run"}


def test_every_program_outlives_its_reader():
    """rich's own console ends the program where a pipe closes; assd/console.py's goes on."""
    makers = {name for name, file in MODULES.items() if re.search(r"\bConsole\(", file.read_text(encoding="utf-8"))}
    assert makers == {"assd.console"}


def test_nobody_imports_experiments():
    """They are programs on top of everything."""
    users = {module for module, file in MODULES.items() if not module.startswith("experiments")
             and any(other.startswith("experiments") for other in imports(file))}  # fmt: skip
    assert not users


def test_no_circle_between_folders():
    """Folders, and files that lie directly in their package, can be put in an order."""
    try:
        TopologicalSorter(edges(room)).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_no_circle_between_files():
    """Neither within a folder; a package's own file is left out, which names what the package offers."""
    packages = {name for name, file in MODULES.items() if file.name == "__init__.py"}
    files = {name: others - packages for name, others in edges(str).items() if name not in packages}
    try:
        TopologicalSorter(files).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")
