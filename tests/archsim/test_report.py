"""The screen of a run: within 80 columns, its numbers those of the outcome, nothing invented."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from archsim.energy import energy
from archsim.job import make_phase, prepare_model, prepare_program, run_job
from archsim.output.report import bound_table, outcome_table
from machine.load import read_machine

GEMM = Path(__file__).parents[2] / "examples" / "programs" / "gemm_tiny.prog"


@pytest.fixture(scope="module")
def gemm():
    return run_job(prepare_program(GEMM, "tiny"))


@pytest.fixture(scope="module")
def model():
    return run_job(prepare_model("opt-125m", "npu-hbm2", make_phase("decode", 1, 1, 16)))


def screen(parts, width=80):
    """Return the lines that a terminal of `width` columns shows."""
    file = io.StringIO()
    console = Console(file=file, width=width)
    for part in parts:
        console.print(part, markup=False, highlight=False)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def row(lines, name):
    """Return the one line that begins with `name`, split into its words after the name."""
    (line,) = [line for line in lines if line.startswith(name)]
    return line.removeprefix(name).split()


@pytest.mark.parametrize("made", ["gemm", "model"])
def test_no_row_of_a_table_wraps_at_80_columns(made, request):
    outcome = request.getfixturevalue(made)
    tables = outcome_table(outcome, None)[5:]
    narrow, wide = (screen(tables, width) for width in (80, 200))
    assert narrow == wide


def test_first_line_names_model_phase_formats_and_machine(model):
    assert screen(outcome_table(model, None))[0] == (
        "opt-125m, decode, batch 1, 16 keys, W8A8KV8 on npu-hbm2")


def test_headline_has_time_bound_and_their_ratio(gemm):
    lines = screen(outcome_table(gemm, None))
    ticks, least = gemm.result.ticks, gemm.bound.ticks
    assert lines[1] == (f"time {ticks}.0 ns; {ticks} ticks of 1000 ps, "
                        f"{len(gemm.result.log)} instructions")
    assert lines[2] == (f"bound {least}.0 ns, set by {gemm.bound.resource}; time / bound "
                        f"{ticks / least:.3f}")


def test_headline_names_the_fidelity_of_every_block(gemm):
    lines = screen(outcome_table(gemm, None), 200)
    for block, mark in read_machine("tiny").fidelities.items():
        (of_mark,) = [line for line in lines if line.startswith(f"  {mark}: ")]
        assert block in of_mark.removeprefix(f"  {mark}: ").split(", ")


def test_percentages_of_a_resource_are_those_of_its_account(gemm):
    account = gemm.result.accounts["chip0.array0"]
    cells = row(screen(outcome_table(gemm, None)), "array x1")
    whole = gemm.result.ticks
    assert cells == [f"{100 * ticks / whole:.1f}" for ticks in account.values() if ticks]
    assert sum(map(float, cells)) == pytest.approx(100, abs=0.05 * len(cells))


def test_equal_resources_are_one_row_with_their_mean(model):
    cells = row(screen(outcome_table(model, None)), "array x8")
    busy = [model.result.accounts[f"chip0.array{i}"]["busy"] for i in range(8)]
    assert cells[0] == f"{100 * sum(busy) / 8 / model.result.ticks:.1f}"


def test_shares_of_the_operators_sum_to_the_run(gemm):
    lines = screen(outcome_table(gemm, None))
    named = {op.op: op.charged for op in gemm.result.operations}
    total = gemm.result.ticks
    for number, name in enumerate(gemm.result.program.ops):
        cells = row(lines, f"{name} ")
        assert cells[2] == f"{100 * named[number] / total:.1f}"
    idle = total - sum(named.values())
    assert row(lines, "nothing under way")[0] == f"{idle}.0"


def energy_lines(outcome):
    """Return the unit of the energy table in pJ, and the lines below its title."""
    lines = screen(outcome_table(outcome, None))
    (title,) = [line for line in lines if line.startswith("energy, ")]
    unit = {"mJ": 1e9, "uJ": 1e6, "nJ": 1e3}[title.removeprefix("energy, ")]
    return unit, lines[lines.index(title) + 1 :]


def test_what_is_not_modelled_is_never_a_zero(gemm):
    _, lines = energy_lines(gemm)
    known = {(r.component, r.kind) for r in energy(gemm.result) if r.energy_pj is not None}
    for component in ("vector", "crossbar", "sequencer"):
        assert not known & {(component, "dynamic"), (component, "static")}
        assert row(lines, f"{component} ") == ["not", "modelled", "not", "modelled"]


def test_energy_sums_and_sources_are_those_of_the_rows(gemm):
    unit, lines = energy_lines(gemm)
    rows = [r for r in energy(gemm.result) if r.energy_pj is not None]
    for component in {r.component for r in rows}:
        sums = [sum(r.energy_pj for r in rows if (r.component, r.kind) == (component, kind)) / unit
                for kind in ("dynamic", "static")]
        assert row(lines, f"{component} ")[:2] == [f"{value:,.3f}" for value in sums]
    for kind, said in zip(("dynamic", "static"), row(lines, "what is modelled"), strict=True):
        assert said == f"{sum(r.energy_pj for r in rows if r.kind == kind) / unit:,.3f}"
    listed = [line.split("] ", 1)[1] for line in lines if line.startswith("[")]
    assert sorted({r.source.split(",")[0] for r in rows}) == sorted(
        name.removesuffix(", in part assumed to hold here") for name in listed)


def test_component_modelled_in_part_is_marked():
    machine = read_machine("tiny")
    job = prepare_program(GEMM, "tiny")
    blind = replace(machine, dram=replace(machine.dram, power=None))
    _, lines = energy_lines(run_job(replace(job, machine=blind)))
    dynamic, *static = row(lines, "dram   ")[:3]
    assert dynamic.endswith("*") and static == ["not", "modelled"]
    assert "* without dram refresh: not modelled" in lines


def test_bound_table_lists_every_term_longest_first(gemm):
    outcome = run_job(gemm.job, only_bound=True)
    lines = screen(bound_table(outcome))
    limit = outcome.bound
    assert lines[1] == f"no faster than {limit.ticks}.0 ns, set by {limit.resource}"
    names = [line.split()[0] for line in lines[4:]]
    assert sorted(names) == sorted(limit.terms)
    assert names[0] == limit.resource
    assert [limit.terms[n] for n in names] == sorted(limit.terms.values(), reverse=True)


def test_where_results_went_is_the_last_line(gemm):
    assert screen(outcome_table(gemm, Path("/a/b")))[-1] == "results in /a/b"
