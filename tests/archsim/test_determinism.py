"""The same job writes the same bytes: in another folder, home, process and hash seed."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from archsim.job import make_phase, prepare_model, run_job
from archsim.output.results import summary

ROOT = Path(__file__).parents[2]
GEMM = ROOT / "examples" / "programs" / "gemm_tiny.prog"
JOBS = {
    "program": ("--program", str(GEMM), "--machine", "tiny"),
    "model": ("--model", str(ROOT / "mapping" / "models" / "opt-125m.json"), "--kv", "16",
              "--set", "dram.channels=4", "--seed", "7"),
}


def files_of(arguments, folder, hash_seed):
    """Run a process of its own with a home of its own; return its files, and what it printed."""
    home = folder / "home"
    home.mkdir(parents=True)
    environment = os.environ | {"HOME": str(home), "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [Path(sys.executable).parent / "archsim", "run", *arguments, "-o", "out", "--json"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    files = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    run = json.loads(files.pop("run.json"))
    assert run["manifest"].pop("when")
    return files, run, done.stdout


@pytest.mark.parametrize("job", JOBS)
def test_other_folder_home_and_hash_seed_give_the_same_bytes(tmp_path, job):
    one = files_of(JOBS[job], tmp_path / "a", "0")
    other = files_of(JOBS[job], tmp_path / "b" / "deeper", "12345")
    assert one == other
    files, run, printed = one
    assert set(files) == {"config.resolved.toml", "layers.csv", "stalls.csv", "energy.csv",
                          "trace.json.gz"}
    texts = [printed, json.dumps(run), *(
        (gzip.decompress(raw) if name.endswith(".gz") else raw).decode()
        for name, raw in files.items())]
    assert not any(str(tmp_path) in text for text in texts)


def test_another_seed_or_machine_is_another_manifest():
    def manifest(seed, *overrides):
        made = prepare_model("opt-125m", "npu-hbm2", make_phase("decode", 1, 1, 16),
                             overrides=overrides, seed=seed)
        return summary(run_job(made, only_bound=True))["manifest"]

    one, other = manifest(7), manifest(8, "sequencer.tokens=255")
    assert manifest(7) == one
    assert (one["seed"], other["seed"]) == (7, 8)
    assert one["config_sha256"] != other["config_sha256"]
    assert one["program_sha256"] == other["program_sha256"]
