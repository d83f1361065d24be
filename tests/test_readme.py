"""What the README says of the output is what a run writes and prints; its Python runs.

``tests/test_docs.py`` runs the commands of its shell blocks.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GEMM = ROOT / "examples" / "programs" / "gemm_tiny.prog"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run a small program through the executable; return what it printed and its directory."""
    at = tmp_path_factory.mktemp("readme")
    done = subprocess.run(
        [Path(sys.executable).parent / "archsim", "run", "--program", GEMM, "--machine", "tiny",
         "-o", at / "out"], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, at / "out"


def test_files_listed_are_the_files_written(ran):
    listed = re.findall(r"^\| `([\w.]+)` \|", README, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in ran[1].iterdir())


def test_parts_of_the_screen_are_printed_under_the_names_explained(ran):
    section = README.split("## Reading the output")[1].split("\n## ")[0]
    named = re.findall(r"^- \*\*(.+?)\*\*", section, re.MULTILINE)
    assert "where the cycles went" in named and "energy" in named
    for name in named:
        assert re.search(rf"^{name}\b", ran[0], re.MULTILINE), name


def test_classes_explained_exist():
    from archsim.accounting import CLASSES

    (line,) = [line for line in README.splitlines() if "where the cycles went" in line]
    classes = [name.replace(" ", "_") for name in re.findall(r"`([a-z ]+)`", line)]
    assert len(classes) >= 10
    assert set(classes) <= set(CLASSES)


def test_commands_of_the_shell_blocks_are_commands():
    from archsim.cli import app

    known = {c.name or c.callback.__name__ for c in app.registered_commands}
    used = set(re.findall(r"^archsim (\S+)", README, re.MULTILINE))
    assert used and used <= known


def test_python_of_the_readme_runs():
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True,
                          text=True, timeout=120, check=True)
    seconds, resource = done.stdout.split()
    assert 0 < float(seconds) < 1
    assert re.fullmatch(r"chip0\.\w+(\.\w+)?", resource)
