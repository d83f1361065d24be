"""What the documents tell a reader to run runs; what they point at is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
# Commands that change the checkout or the network; that they are well named is all that is tested.
NOT_RUN = ("cd", "git", "make")


def shell_blocks(text: str) -> list[str]:
    """Return the contents of the blocks fenced as ``sh`` in `text`."""
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Return the commands of all shell blocks of `text`, continued lines joined."""
    joined = "".join(shell_blocks(text)).replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def links(text: str) -> list[str]:
    """Return the targets of the links of `text` that lie in the checkout."""
    found = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    return [target for target in found if "://" not in target]


def named_tests(text: str) -> list[tuple[str, str]]:
    """Return (path, name) of each test that `text` names as ``tests/PATH.py::NAME``."""
    return re.findall(r"\b(tests/[\w/]+\.py)::(\w+)", text)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.fixture
def checkout(tmp_path) -> Path:
    """Return a folder that looks like the checkout, where a command may write."""
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("build", "dist", "runs"):
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


DOCUMENTED = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


@DOCUMENTED
def test_every_command_runs(document, checkout):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands(document.read_text()):
        if command.split()[0] not in NOT_RUN:
            done = subprocess.run(
                ["sh", "-c", command], cwd=checkout, env=os.environ | {"PATH": path},
                capture_output=True, text=True,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@DOCUMENTED
def test_every_make_target_exists(document):
    text = document.read_text()
    named = {line.split()[1] for line in commands(text) if re.match(r"make \w", line)}
    named |= set(re.findall(r"`make ([a-z-]+)`", text))
    assert named <= make_targets()


@DOCUMENTED
def test_every_link_leads_to_a_file(document):
    targets = links(document.read_text())
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


@DOCUMENTED
def test_every_named_test_exists(document):
    for path, name in named_tests(document.read_text()):
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), (path, name)


EXAMPLE = """
See [the Makefile](Makefile#top) and [a site](https://x.org); `tests/test_docs.py::test_a`.
```sh
# A comment.
archsim run \\
    --seed 1
make demo
```
```python
print("not a command")
```
"""


def test_a_document_is_read_as_meant():
    assert commands(EXAMPLE) == ["archsim run      --seed 1", "make demo"]
    assert links(EXAMPLE) == ["Makefile"]
    assert named_tests(EXAMPLE) == [("tests/test_docs.py", "test_a")]
    assert {"demo", "test", "test-all"} <= make_targets()
