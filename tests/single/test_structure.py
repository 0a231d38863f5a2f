"""The floor plan: imports only go down, without circles, and folders can be taken in.

import-linter holds the packages to their layers (pyproject.toml). What it cannot say is
here: no circle between two modules, and no folder that is too full.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "knet_hvd"
MAX_FILES = 14
LIBRARIES = ("data_parallel", "ddp", "pipeline")
PROGRAMS = ("knet_hvd.training", "knet_hvd.data", "knet_hvd.models", "jobs")
ALLOWED = tuple(f"knet_hvd.models.{name}" for name in ("blocks", "checksum"))
"""They take any network, and know none by name."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imported(path: Path) -> Iterator[str]:
    """Yield the package's modules that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in inner)


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {name: set(imported(path)) - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_a_file_that_is_not_imported_is_found_by_this_test() -> None:
    """The parser sees imports: the codec's package is imported by the exchanges."""
    assert "knet_hvd.ops" in set(imported(PACKAGE / "compression" / "ternary.py"))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_knows_no_program(library: str) -> None:
    """Neither a job, nor a data set, nor a network by name."""
    climbing = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (PACKAGE / library).rglob("*.py")
        for name in imported(path)
        if name not in ALLOWED and f"{name}.".startswith(tuple(f"{p}." for p in PROGRAMS))
    }
    assert not climbing


def test_a_folder_can_be_taken_in() -> None:
    folders = [PACKAGE, *(ROOT / name for name in ("tests", "benchmarks", "jobs"))]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    counts = Counter(str(path.parent.relative_to(ROOT)) for path in files)
    assert not {name: number for name, number in counts.items() if number > MAX_FILES}


WALKS = {"A gradient": 10, "An activation": 8, "A setting": 6}


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_of_the_architecture_names_files_that_are_there(walk: str) -> None:
    """A newcomer reads a known number of files, and no more."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    (section,) = [part for part in text.split("\n## ") if part.startswith(walk)]
    files = re.findall(r"^\d+\. `([^`]+)`", section, flags=re.MULTILINE)
    assert 1 < len(files) <= WALKS[walk]
    assert [name for name in files if not (ROOT / name).is_file()] == []
