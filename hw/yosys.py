"""Yosys in a process of its own: pyosys, behind a function and behind the options sby gives it.

A Yosys that finds an error ends its process, so it is never run in ours.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["COMMAND", "run"]

COMMAND = f"{sys.executable} -m hw.yosys"  # as sby calls it: ... -ql LOG SCRIPT


def run(script: str, folder: Path | str, *, timeout_s: int = 240) -> str:
    """Run the commands of `script` in `folder` and return Yosys's log.

    Raises ``RuntimeError`` with Yosys's own line if a command fails, ``TimeoutExpired`` of
    subprocess after `timeout_s`.
    """
    with tempfile.TemporaryDirectory() as work:
        log, commands = Path(work) / "log", Path(work) / "script.ys"
        commands.write_text(script)
        done = subprocess.run([sys.executable, "-m", "hw.yosys", "-ql", log, commands],
                              cwd=folder, capture_output=True, text=True, timeout=timeout_s)
        text = log.read_text() if log.exists() else ""
    if done.returncode:
        lines = (done.stderr + text).splitlines()
        told = next((line for line in lines if line.startswith("ERROR: ")), done.stderr.strip())
        raise RuntimeError(f"yosys: {told}")
    return text


def _main(arguments: list[str]) -> None:
    """Run a script file, the log going to a file."""
    from pyosys import libyosys

    option, log, script = arguments
    if option != "-ql":
        raise ValueError(f"the options must be -ql LOG SCRIPT, not {' '.join(arguments)}")
    libyosys.run_pass(f"tee -q -o {log} script {script}", libyosys.Design())


if __name__ == "__main__":
    _main(sys.argv[1:])
