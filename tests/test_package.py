"""The wheel: complete, and usable where the checkout is not; `import archsim` stays light."""

import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
HEAVY = {"amaranth", "hw", "matplotlib", "numba", "pandas", "rich", "scipy", "tokenizers", "typer"}


def run(*command: object, cwd: Path) -> str:
    """Run `command` in `cwd`; return what it prints, or fail with it."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """Return a copy of the sources, so that a build leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in [name for name in PACKAGES if "." not in name]:
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for path in ROOT.glob("*"):
        if path.is_file():
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(copy) -> Path:
    """Return a wheel built from `copy`, with no network."""
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", "out", ".", cwd=copy)
    return next((copy / "out").iterdir())


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Return the Python of an environment with the wheel, and what it depends on, installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    options = ["--no-deps", "--no-index", "--quiet"]
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=folder)
    # The dependencies are those of this environment; its link to the checkout is not followed,
    # since Python reads .pth files in the environment's own folder only.
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(run(python, "-c", query, cwd=folder))
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_wheel_holds_every_file_of_the_packages(wheel, copy):
    paths = [path for name in PACKAGES for path in (copy / name).rglob("*") if path.is_file()]
    sources = {path.relative_to(copy).as_posix() for path in paths}
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == sources
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_installed_package_is_not_the_checkout(installed, tmp_path):
    query = f"import {', '.join(PACKAGES)}; print({', '.join(f'{p}.__file__' for p in PACKAGES)})"
    places = run(installed, "-c", query, cwd=tmp_path).split()
    assert len(places) == len(PACKAGES)
    assert all(Path(place).is_relative_to(installed.parents[1]) for place in places)


def test_every_installed_module_imports(wheel, installed, tmp_path):
    paths = [Path(name) for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")]
    modules = [path.parent if path.stem == "__init__" else path.with_suffix("") for path in paths]
    lines = [f"import {'.'.join(module.parts)}" for module in modules if module.stem != "__main__"]
    run(installed, "-W", "error", "-c", "\n".join(lines), cwd=tmp_path)


def test_the_installed_command_answers(installed, tmp_path):
    assert "run" in run(installed.with_name("archsim"), "--help", cwd=tmp_path)


def test_importing_archsim_loads_nothing_heavy():
    query = "import sys, archsim; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(run(sys.executable, "-c", query, cwd=ROOT).split())
    assert "archsim" in loaded
    assert loaded & HEAVY == set()
