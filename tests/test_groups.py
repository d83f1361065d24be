"""A test that could not run is named at the end, and failed where all must run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

SUITE = """
import pytest

@pytest.mark.cxxrtl
def test_needs_a_compiler():
    pass

def test_needs_nothing():
    pass
"""
MODULE_SKIPPED = """
import pytest

pytest.importorskip("no_such_package")
"""


@pytest.fixture
def run_suite(tmp_path):
    """Run `text` as a test file beside our conftest, on a machine with or without a compiler."""

    def run(text: str, *, compiler: bool, require_all: bool) -> subprocess.CompletedProcess:
        shutil.copy(HERE / "conftest.py", tmp_path)
        (tmp_path / "test_suite.py").write_text(text)
        tools = tmp_path / "bin"
        tools.mkdir()
        if compiler:
            (tools / "g++").write_text("#!/bin/sh\n")
            (tools / "g++").chmod(0o755)
        environment = {"PATH": str(tools), "ARCHSIM_REQUIRE_ALL": "1" if require_all else "0"}
        (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = cxxrtl\n")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rN"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return run


def test_a_group_without_its_tool_is_named_as_not_run(run_suite):
    done = run_suite(SUITE, compiler=False, require_all=False)
    *_, named, closing = done.stdout.splitlines()
    assert named == "not run: 1 test: cxxrtl: no C++ compiler on PATH (g++)"
    assert "1 passed, 1 skipped" in closing
    assert done.returncode == 0


def test_a_group_without_its_tool_fails_where_all_must_run(run_suite):
    done = run_suite(SUITE, compiler=False, require_all=True)
    reason = "not run, and ARCHSIM_REQUIRE_ALL=1: cxxrtl: no C++ compiler on PATH (g++)"
    assert reason in done.stdout
    assert "1 passed, 1 error" in done.stdout.splitlines()[-1]
    assert done.returncode == 1


def test_a_group_with_its_tool_runs(run_suite):
    done = run_suite(SUITE, compiler=True, require_all=True)
    assert "2 passed" in done.stdout.splitlines()[-1]
    assert "not run" not in done.stdout
    assert done.returncode == 0


def test_a_module_that_skips_itself_fails_where_all_must_run(run_suite):
    done = run_suite(MODULE_SKIPPED, compiler=True, require_all=True)
    assert "not run, and ARCHSIM_REQUIRE_ALL=1: could not import 'no_such_package'" in done.stdout
    assert done.returncode == 2
