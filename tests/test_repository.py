"""What holds for every file of the checkout: its name, its size, its form, its independence."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("machine", "golden", "hw", "mapping", "archsim")
CATCH_ALLS = {"base", "common", "helper", "helpers", "impl", "misc", "shared", "util", "utils"}
LINES_MAX = 500
# What calls each other compiled lies in one file: numba's cache does not see an edit of another.
LONGER = {"archsim/dram/kernel.py": 1530}
FUNCTION_LINES_MAX = 50


def tracked() -> list[Path]:
    """Return the files that git would keep: those in the index and those not ignored."""
    # The checkout may belong to another user than the one who tests it.
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    command += ["--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


FILES = tracked()
MODULES = [path for path in FILES if path.suffix == ".py"]
OURS = [path for path in MODULES if path.relative_to(ROOT).parts[0] in PACKAGES]


def relative(path: Path) -> str:
    """Return the name of `path` from the top of the checkout."""
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def functions(module: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return [node for node in ast.walk(module) if isinstance(node, kinds)]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of `function` without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def test_the_checkout_is_seen():
    assert {ROOT / package / "__init__.py" for package in PACKAGES} <= set(MODULES)


def pins(text: str) -> dict[str, str]:
    """Return package and condition: version, of each pin in `text`, a file of requirements."""
    found = re.findall(r"^([a-z0-9._-]+)==([^ \n]+)( ; .*?)?(?: \\)?$", text, re.MULTILINE)
    return {package + condition: version for package, version, condition in found}


def pin_problems(text: str) -> list[str]:
    """Return the lines of `text` that name an address or an option, or pin without a hash."""
    lines = text.splitlines()
    bad = [line for line in lines if re.match("-|.*(://|@ )", line)]
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if re.match("[A-Za-z]", line) and not after.startswith("    --hash=sha256:"):
            bad.append(line)
    return bad


@pytest.mark.parametrize(
    "text, problems",
    [
        ("numpy==2.4.6 \\\n    --hash=sha256:12", []),
        ("numpy==2.4.6\n    # via us", ["numpy==2.4.6"]),
        ("--index-url https://x.org\n", ["--index-url https://x.org"]),
        ("-e .\n", ["-e ."]),
        ("    # from https://x.org\n", ["    # from https://x.org"]),
    ],
)
def test_what_counts_as_a_proper_pin(text, problems):
    assert pin_problems(text) == problems


@pytest.mark.parametrize("name", ["build", "cells", "run", "sample", "test"])
def test_pins_hold_hashes_and_no_address(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert pins(text)
    assert pin_problems(text) == []


def test_the_pins_to_run_are_among_the_pins_to_test():
    run, test = ((ROOT / "requirements" / f"{name}.txt").read_text() for name in ("run", "test"))
    assert pins(run).items() < pins(test).items()


def place_lines(text: str) -> list[int]:
    """Return the numbers of the lines of `text` that name a folder of one person's machine."""
    place = re.compile(r"(?<![\w.])/(home|root|Users|work)/|[.]pyenv/")
    return [number for number, line in enumerate(text.splitlines(), 1) if place.search(line)]


def test_what_counts_as_a_place_of_one_machine():
    text = "ok\n{0}home/me/x\nwork/this\nat {0}root/x\nhttps://x.org/home/\n../work/".format("/")
    assert place_lines(text) == [2, 4]


def test_no_file_names_a_place_of_one_machine():
    texts = {relative(path): path.read_bytes().decode(errors="replace") for path in FILES}
    named = {file: place_lines(text) for file, text in texts.items()}
    assert not {file: lines for file, lines in named.items() if lines}


def test_no_package_marker_under_tests():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_catch_all_names():
    parts = {relative(path): {*path.relative_to(ROOT).parts[:-1], path.stem} for path in FILES}
    assert not [file for file, words in parts.items() if words & CATCH_ALLS]


def test_two_folder_levels_at_most_in_a_package():
    paths = [path.relative_to(ROOT) for path in MODULES]
    assert not [str(path) for path in paths if path.parts[0] in PACKAGES and len(path.parts) > 3]


def test_no_module_is_longer_than_its_limit():
    lengths = {relative(path): len(path.read_text().splitlines()) for path in MODULES}
    assert not {f: lines for f, lines in lengths.items() if lines > LONGER.get(f, LINES_MAX)}


def test_no_function_is_longer_than_its_limit():
    lengths = {
        f"{relative(path)}:{function.lineno} {function.name}": body_lines(function)
        for path in MODULES
        for function in functions(tree(path))
    }
    assert not {where: lines for where, lines in lengths.items() if lines > FUNCTION_LINES_MAX}


def is_import(node: ast.stmt) -> bool:
    """Tell whether `node` imports, or holds what only a type checker imports."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING" and all(map(is_import, node.body))
    return isinstance(node, ast.Import | ast.ImportFrom)


def all_problem(module: ast.Module) -> str:
    """Return what is wrong with the ``__all__`` of a module of ours, or nothing."""
    body = module.body[1:] if ast.get_docstring(module) else module.body
    if not body:
        return ""
    rest = [node for node in body if not is_import(node)]
    first = rest[0] if rest else None
    if not (isinstance(first, ast.Assign) and ast.unparse(first.targets[0]) == "__all__"):
        return "no __all__ right under the imports"
    if body.index(first) != len(body) - len(rest):
        return "imports under __all__"
    return ""


@pytest.mark.parametrize(
    "source, problem",
    [
        ('"""Doc."""', ""),
        ('"""Doc."""\nimport re\n__all__ = ["f"]\ndef f(): ...', ""),
        ("import re\nif TYPE_CHECKING:\n    import re\n__all__ = []", ""),
        ("if TYPE_CHECKING:\n    X = 1\n__all__ = []", "no __all__ right under the imports"),
        ("import re\ndef f(): ...", "no __all__ right under the imports"),
        ('import re\nX = 1\n__all__ = ["X"]', "no __all__ right under the imports"),
        ("__all__ = []\nimport re", "imports under __all__"),
    ],
)
def test_what_counts_as_a_proper_all(source, problem):
    assert all_problem(ast.parse(source)) == problem


def test_every_module_lists_its_public_names_under_its_imports():
    problems = {relative(path): all_problem(tree(path)) for path in OURS}
    assert not {file: problem for file, problem in problems.items() if problem}


def test_every_module_opens_with_a_docstring():
    assert not [relative(path) for path in OURS if not ast.get_docstring(tree(path))]


def test_every_public_name_has_a_docstring():
    bare = []
    for path in OURS:
        for node in tree(path).body:
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if named and not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{relative(path)}:{node.lineno} {node.name}")
    assert not bare


def test_no_rule_of_the_linters_is_switched_off_in_place():
    # Written in parts, so that this file does not match itself.
    switch = re.compile("# *" + "noqa|# *type" + ": *ignore|# *mypy" + ":|# *ruff" + ":")
    assert not [relative(path) for path in MODULES if switch.search(path.read_text())]


def test_nothing_is_marked_as_unfinished():
    # Written in parts, so that this file does not match itself.
    mark = re.compile(r"\b(TO" + "DO|FIX" + "ME|X" + r"XX)\b")
    texts = [path for path in FILES if path.suffix in (".py", ".sh", ".md", ".toml")]
    assert not [relative(path) for path in texts if mark.search(path.read_text())]
