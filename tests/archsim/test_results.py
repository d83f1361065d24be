"""The results directory: whole or not there, its files' contents, and whom it replaces."""

import csv
import gzip
import json
import tomllib
from pathlib import Path

import pytest

from archsim.energy import NOT_MODELLED, energy
from archsim.job import prepare_program, run_job
from archsim.output import results
from archsim.output.results import RESULT_FILES, summary, write_directory, write_results
from machine.errors import UserError
from machine.load import read_machine, resolved

GEMM = Path(__file__).parents[2] / "examples" / "programs" / "gemm_tiny.prog"


@pytest.fixture(scope="module")
def outcome():
    return run_job(prepare_program(GEMM, "tiny"))


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_run_json_is_the_summary_and_the_time_it_was_written(outcome, tmp_path):
    written = json.loads((write_results(outcome, tmp_path / "r") / "run.json").read_text())
    assert set(written["manifest"].pop("when")) == {"written"}
    assert written == json.loads(json.dumps(summary(outcome)))


def test_resolved_machine_makes_the_same_machine_again(outcome, tmp_path):
    path = write_results(outcome, tmp_path / "r") / "config.resolved.toml"
    assert tomllib.loads(path.read_text()) == resolved(outcome.job.machine)
    assert read_machine(path) == outcome.job.machine


def test_layers_say_when_each_operation_ran(outcome, tmp_path):
    rows = table(write_results(outcome, tmp_path / "r") / "layers.csv")
    assert [row["operation"] for row in rows] == ["load", "gemm", "store"]
    entries = list(outcome.result.log.entries())
    for op, row in enumerate(rows):
        mine = [entry for entry in entries if entry.op == op]
        assert int(row["instructions"]) == len(mine)
        assert int(row["start_ps"]) == 1000 * min(entry.start for entry in mine)
        assert int(row["end_ps"]) == 1000 * max(entry.completion for entry in mine)
    under_way = {tick for e in entries for tick in range(e.start, e.completion)}
    assert sum(int(row["charged_ps"]) for row in rows) == 1000 * len(under_way)


def test_stalls_of_each_resource_sum_to_the_run(outcome, tmp_path):
    rows = table(write_results(outcome, tmp_path / "r") / "stalls.csv")
    assert {row.pop("resource") for row in rows} == set(outcome.result.accounts)
    for row in rows:
        total = int(row.pop("total_ticks"))
        assert total == outcome.result.ticks == sum(map(int, row.values()))


def test_energy_rows_say_what_is_not_modelled(outcome, tmp_path):
    rows = table(write_results(outcome, tmp_path / "r") / "energy.csv")
    assert len(rows) == len(energy(outcome.result))
    for row, made in zip(rows, energy(outcome.result), strict=True):
        assert row["component"] == made.component
        if made.energy_pj is None:
            assert row["energy_pj"] == row["source"] == NOT_MODELLED
        else:
            assert float(row["energy_pj"]) == made.energy_pj
            assert row["source"] not in ("", NOT_MODELLED)


def test_trace_is_json_with_a_track_a_unit(outcome, tmp_path):
    raw = (write_results(outcome, tmp_path / "r") / "trace.json.gz").read_bytes()
    trace = json.loads(gzip.decompress(raw))
    named = {e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M"}
    assert named == set(outcome.result.parts)


def test_bound_alone_writes_no_times(tmp_path):
    outcome = run_job(prepare_program(GEMM, "tiny"), only_bound=True)
    directory = write_results(outcome, tmp_path / "r")
    assert {p.name for p in directory.iterdir()} == {"run.json", "config.resolved.toml"}
    assert "totals" not in json.loads((directory / "run.json").read_text())


def test_earlier_run_is_replaced_whole(outcome, tmp_path):
    directory = write_results(outcome, tmp_path / "r")
    (directory / "stalls.csv").write_text("stale")
    write_results(outcome, directory)
    assert {p.name for p in directory.iterdir()} <= RESULT_FILES
    assert "stale" not in (directory / "stalls.csv").read_text()
    assert list(tmp_path.iterdir()) == [directory]


@pytest.mark.parametrize("names", [["notes.txt"], ["run.json", "notes.txt"], ["layers.csv"]])
def test_directory_that_is_no_run_is_kept(outcome, tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="--output must be new, empty or an earlier run's"):
        write_results(outcome, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    assert all((tmp_path / name).read_text() == "mine" for name in names)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("earlier", [False, True])
def test_stopped_while_writing_leaves_what_was_there(outcome, tmp_path, monkeypatch, stop, earlier):
    directory = tmp_path / "r"
    if earlier:
        write_results(outcome, directory)
    before = {p.name: p.read_bytes() for p in directory.glob("*")}

    def stopped(*_, **__):
        raise stop

    monkeypatch.setattr(results, "write_trace", stopped)  # the last file of a run
    with pytest.raises(stop):
        write_results(outcome, directory)
    assert {p.name: p.read_bytes() for p in directory.glob("*")} == before
    assert list(tmp_path.iterdir()) == ([directory] if earlier else [])


def test_stopped_between_the_two_renames_restores_the_earlier_run(tmp_path, monkeypatch):
    directory = tmp_path / "r"
    write_directory(directory, lambda at: (at / "run.json").write_text("first"))
    rename = Path.rename

    def second_fails(self, target):
        if Path(target) == directory and self.name == "r":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(KeyboardInterrupt):
        write_directory(directory, lambda at: (at / "run.json").write_text("second"))
    assert (directory / "run.json").read_text() == "first"
    assert list(tmp_path.iterdir()) == [directory]


def test_full_disk_is_one_sentence(tmp_path):
    def full(at):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"r: --output must be writable: No space left on device$"):
        write_directory(tmp_path / "r", full)
    assert list(tmp_path.iterdir()) == []
