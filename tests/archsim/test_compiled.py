"""Compiled functions: an edit is seen, no file is forgotten, and plain Python gives the same."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from archsim.engine import compiled as compiling
from archsim.engine import events
from archsim.engine.compiled import KERNEL, cache_folder
from archsim.engine.simulate import prepare

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "archsim"
DECORATORS = {"compiled", "entry", "njit", "jit", "part", "intrinsic", "cfunc", "vectorize"}

# They call no compiled function of another file: numba sees edits.
ALONE = {"group.py", "group_scale.py", "lut.py", "systolic.py"}


def decorated(tree):
    """The names of the functions of a module that a decorator compiles."""
    for node in ast.walk(tree):
        for decorator in getattr(node, "decorator_list", []):
            call = decorator.func if isinstance(decorator, ast.Call) else decorator
            name = call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "")
            if name in DECORATORS:
                yield node.name


def test_kernel_lists_every_file_with_compiled_functions():
    found = {path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py")
             if any(decorated(ast.parse(path.read_text(encoding="utf-8"))))}
    # Besides: the decorators themselves and what they compile with.
    assert set(KERNEL) == found - ALONE | {f"engine/{name}.py" for name in (
        "compiled", "expressions", "linking", "translate", "values")}


@pytest.mark.parametrize("name", sorted(ALONE))
def test_a_file_outside_calls_no_compiled_function_of_another(name):
    tree = ast.parse((SOURCES / name).read_text(encoding="utf-8"))
    compiled = set(decorated(tree))
    imported = {alias.asname or alias.name for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("archsim")
                for alias in node.names}
    used = {name.id for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name in compiled
            for name in ast.walk(node) if isinstance(name, ast.Name)}
    assert compiled and not used & imported


@pytest.mark.parametrize("name", KERNEL)
def test_an_edit_of_any_file_is_another_cache(tmp_path, name):
    for one in KERNEL:
        (tmp_path / one).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / one).write_bytes((SOURCES / one).read_bytes())
    base = str(tmp_path / "cache")
    before = cache_folder(tmp_path, base)
    assert before == cache_folder(SOURCES, base)
    with (tmp_path / name).open("a") as file:
        file.write("\n")
    assert cache_folder(tmp_path, base) != before


CALL = """
import numpy as np
from archsim.engine.events import mark
from archsim.engine import cells as c
e = np.zeros(2000, np.int64)
e[c.MARK : c.MARK + 4] = 1000, 0, 10, 4
e[500 + c.S_MARKED] = c.NONE
mark(e, 500, 7, 3)
print(e[1000 : 1004].tolist())
"""


def call(folder, cache):
    """Start a process of the sources in `folder` that compiles into `cache`."""
    env = dict(os.environ, PYTHONPATH=str(folder), NUMBA_CACHE_DIR=str(cache),
               PYTHONDONTWRITEBYTECODE="1")
    return subprocess.Popen([sys.executable, "-c", CALL], cwd=folder, env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def answer(process):
    """What a process printed, which must have ended well."""
    printed, problems = process.communicate(timeout=300)
    assert process.returncode == 0, problems
    return printed.strip()


def called(folder, cache):
    """What the sources in `folder` print, compiled into `cache`."""
    return answer(call(folder, cache))


def test_processes_may_compile_the_same_at_once(tmp_path):
    both = [call(ROOT, tmp_path) for _ in range(2)]
    assert [answer(one) for one in both] == ["[0, 7, 3, -1]"] * 2
    assert called(ROOT, tmp_path) == "[0, 7, 3, -1]"
    assert not list(tmp_path.rglob("*tmp*"))
    assert len(list(tmp_path.rglob("*.nbc"))) == 1


def test_compiling_is_told_where_the_cache_has_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "_FOLDER", str(tmp_path))
    told = []
    for _ in range(2):  # the second time it is in the cache
        mark = events.mark
        fresh = compiling._Compiled(mark.py_func, mark._inner, mark._outer)
        monkeypatch.setattr("archsim.engine.kernel.run", fresh)
        prepare(told.append)
        assert fresh.make().signatures
    assert told == ["compiling the simulator, this once"]
    assert list(tmp_path.rglob("*.nbc"))


def test_an_edit_of_a_callee_changes_what_its_caller_does(tmp_path):
    """`mark` lies in events.py and calls `row` of cells.py: numba's own cache sees only the first.
    """
    copy, cache = tmp_path / "copy", tmp_path / "cache"
    for package in ("archsim", "machine"):
        shutil.copytree(ROOT / package, copy / package,
                        ignore=shutil.ignore_patterns("__pycache__"))
    assert called(copy, cache) == "[0, 7, 3, -1]"
    cells = copy / "archsim" / "engine" / "cells.py"
    text = cells.read_text()
    old = "return e[table + PLACE] + number * e[table + WIDTH]"
    assert old in text
    cells.write_text(text.replace(old, f"{old} + 1"))
    assert called(copy, cache) == "[0, 0, 7, 3]"


RUN = """
import sys
from archsim.job import prepare_program, run_job
from pathlib import Path
for path in sys.argv[1:]:
    result = run_job(prepare_program(Path(path), "tiny")).result
    print(result.ticks, *result.log.entries(), sep="\\n")
    print(result.accounts, result.dram, result.dram_energy, sep="\\n")
    print({name: part.tolist() for name, part in result.parts.items()})
    print([work.words() for work in result.work], [w.macs() for w in result.work])
"""


def test_plain_python_gives_the_same_log_counters_and_accounts():
    programs = [str(ROOT / "examples" / "programs" / f"{name}.prog")
                for name in ("gemm_tiny", "gemm_os", "w4a8_grouped")]

    def printed(disable):
        env = dict(os.environ, NUMBA_DISABLE_JIT=disable)
        return subprocess.run([sys.executable, "-c", RUN, *programs], env=env, cwd=ROOT,
                              capture_output=True, text=True, check=True, timeout=300).stdout

    compiled = printed("0")
    assert len(compiled.splitlines()) > 30
    assert printed("1") == compiled
