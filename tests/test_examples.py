"""The examples run, at small size, and write the same bytes for the same seed."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "array_shape.py"


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("array_shape", SCRIPT)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["array_shape"] = loaded
    spec.loader.exec_module(loaded)
    yield loaded
    del sys.modules["array_shape"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Return the config.json of a model of two layers of width 64."""
    values = json.loads((ROOT / "mapping" / "models" / "opt-125m.json").read_text())
    values |= {"num_hidden_layers": 2, "hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 128,
               "num_attention_heads": 2, "vocab_size": 512}
    path = tmp_path_factory.mktemp("toy") / "toy.json"
    path.write_text(json.dumps(values))
    return path


@pytest.fixture(scope="module")
def swept(toy, tmp_path_factory):
    """Sweep 2 shapes x 2 numbers of channels, in a process of its own; return its folder."""
    return sweep(toy, tmp_path_factory.mktemp("swept"), seed=1)


def sweep(toy, folder, seed):
    folder.mkdir(exist_ok=True)
    arguments = ["--model", toy, "--shapes", "2", "--channels", "2", "--seed", str(seed)]
    done = subprocess.run([sys.executable, SCRIPT, *arguments, "--output", folder / "out"],
                          cwd=folder, env=os.environ | {"MPLCONFIGDIR": str(folder / "mpl")},
                          capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_sweep_has_every_point_in_order(swept):
    points = rows(swept / "out" / "points.csv")
    assert [(p["phase"], p["rows"], p["cols"], p["channels"]) for p in points] == [
        (phase, side, side, channels) for phase in ("decode", "prefill") for side in ("32", "64")
        for channels in ("8", "16")]
    # npu-hbm2 has 8 arrays; no time is below the bound.
    assert all(int(p["multipliers"]) == 8 * int(p["rows"]) ** 2 for p in points)
    assert all(float(p["time_over_bound"]) >= 1 for p in points)


def test_front_is_what_no_other_point_of_its_phase_dominates(swept):
    points = rows(swept / "out" / "points.csv")

    def beaten(p):
        costs = ("multipliers", "channels")
        return any(
            q["phase"] == p["phase"] and q != p
            and float(q["tokens_per_s"]) >= float(p["tokens_per_s"])
            and all(int(q[c]) <= int(p[c]) for c in costs)
            and (float(q["tokens_per_s"]) > float(p["tokens_per_s"])
                 or any(int(q[c]) < int(p[c]) for c in costs))
            for q in points)

    best = [p for p in points if not beaten(p)]
    assert rows(swept / "out" / "pareto.csv") == best
    assert len((swept / "stdout").read_text().splitlines()) == len(best) > 0


def test_run_json_says_what_was_asked_for(swept):
    asked = json.loads((swept / "out" / "run.json").read_text())
    assert (asked["seed"], asked["model"], asked["machine"]) == (1, "toy.json", "npu-hbm2")
    assert (asked["shapes"], asked["channels"]) == ([[32, 32], [64, 64]], [8, 16])
    assert set(asked["phases"]) == {"decode", "prefill"}


def test_plot_is_an_svg_that_names_both_phases(swept):
    text = (swept / "out" / "pareto.svg").read_text()
    assert text.startswith("<?xml")
    assert "<!-- decode -->" in text and "<!-- prefill -->" in text
    assert "<!-- Pareto front -->" in text


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_and_another_the_same_points(swept, toy, tmp_path):
    for seed, differs in ((1, set()), (2, {"run.json"})):
        again = sweep(toy, tmp_path / str(seed), seed)
        for path in (swept / "out").iterdir():
            same = path.read_bytes() == (again / "out" / path.name).read_bytes()
            assert same == (path.name not in differs), path.name


def test_files_are_the_same_for_the_same_points(module, swept, tmp_path):
    def point(row):
        whole = [int(row[name]) for name in ("rows", "cols", "channels", "multipliers")]
        return module.Point(row["phase"], *whole, float(row["tokens_per_s"]),
                            float(row["time_over_bound"]), row["note"])

    points = [point(row) for row in rows(swept / "out" / "points.csv")]
    best = module.front(points)
    module.write_csv(points, tmp_path / "points.csv")
    module.plot(points, best, tmp_path / "pareto.svg")
    for name in ("points.csv", "pareto.svg"):
        assert (tmp_path / name).read_bytes() == (swept / "out" / name).read_bytes()


def test_a_point_that_does_not_fit_is_no_point_of_the_front(module):
    def point(tokens_per_s, channels=8, note=""):
        return module.Point("decode", 32, 32, channels, 8192, tokens_per_s, 1.0, note)

    unfit = module.Point("decode", 32, 32, 8, 0, 0.0, 0.0, "does not fit")
    slow, fast, wide = point(1.0), point(2.0), point(3.0, channels=16)
    assert module.front([unfit, slow, fast, wide]) == [fast, wide]


def test_each_example_program_is_checked_by_the_command_line():
    listed = sorted((ROOT / "examples" / "programs").glob("*.prog"))
    tested = (ROOT / "tests" / "cross" / "test_programs.py").read_text()
    assert listed
    assert all(f'"{path.stem}"' in tested for path in listed)
