"""A job is what was asked for: its program mapped or assembled, verified, named by its hash."""

from dataclasses import replace
from pathlib import Path

import pytest

from archsim.job import make_phase, prepare_model, prepare_program, read_program, run_job
from machine.errors import UserError
from machine.opcodes import Opcode
from machine.verify import verify
from mapping.fit import DoesNotFit

PROGRAMS = Path(__file__).parents[2] / "examples" / "programs"


@pytest.mark.parametrize(("kind", "q_len", "kv_len", "tokens"), [
    ("decode", 1, 32, 3), ("prefill", 16, 16, 48), ("encode", 16, 16, 48)])
def test_phase_has_the_lengths_asked_for(kind, q_len, kv_len, tokens):
    phase = make_phase(kind, 3, 16, 32)
    assert (phase.kind, phase.batch, phase.q_len, phase.kv_len) == (kind, 3, q_len, kv_len)
    assert phase.tokens == tokens


def test_mapped_program_passes_the_verifier_on_its_machine():
    job = prepare_model("opt-125m", "npu-hbm2", make_phase("decode", 2, 1, 16))
    assert verify(job.program, job.launch, job.machine) == []
    assert job.tokens == 2
    assert job.title == "opt-125m, decode, batch 2, 16 keys, W8A8KV8 on npu-hbm2"


def test_longest_context_of_a_position_table_runs_and_one_more_is_refused():
    made = prepare_model("gpt2", "npu-hbm2", make_phase("decode", 1, 1, 1024))
    assert not isinstance(made, DoesNotFit)
    with pytest.raises(UserError, match="^--kv must be at most 1024, the positions of gpt2, not"):
        prepare_model("gpt2", "npu-hbm2", make_phase("decode", 1, 1, 1025))


def test_program_hash_is_of_what_it_does_and_not_of_its_comments(tmp_path):
    text = (PROGRAMS / "gemm_tiny.prog").read_text()
    hashes = []
    for name, changed in (("a", text), ("b", "; another comment\n" + text),
                          ("c", text.replace("op=gemm", "op=load", 1))):
        path = tmp_path / f"{name}.prog"
        path.write_text(changed)
        hashes.append(prepare_program(path, "tiny").program_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_launch_lists_go_to_tensors_and_integers_to_entries():
    job = prepare_program(PROGRAMS / "paged_decode.prog", "tiny", launch={
        "batch": 1, "length": [5], "pages": [7]})
    assert job.launch.values == {"batch": 1}
    assert job.launch.tensors == {"length": [5], "pages": [7]}
    assert run_job(job).result.ticks > 0


def test_steps_are_told_in_order_and_a_bound_simulates_nothing(monkeypatch):
    monkeypatch.setattr("archsim.job.prepare", lambda tell: tell("compiling"))
    job, told = prepare_program(PROGRAMS / "gemm_tiny.prog", "tiny"), []
    assert run_job(job, tell=told.append).result is not None
    assert told == ["compiling", "simulating"]
    assert run_job(job, only_bound=True, tell=told.append).result is None
    assert told[2:] == ["counting work"]


def test_override_reaches_the_simulated_machine():
    ticks = [run_job(prepare_program(PROGRAMS / "gemm_tiny.prog", "tiny", overrides=[
        f"crossbar.latency_cycles={latency}"])).result.ticks for latency in (1, 101)]
    # Two columns of two tiles each: every load crosses, and a store that follows at least once.
    assert ticks[1] >= ticks[0] + 200


@pytest.mark.parametrize("name, fidelity", [
    ("gemm_tiny", "rtl"),  # int8, weights by rows
    ("gemm_os", "analytic"),  # float16
])
def test_an_array_is_rtl_only_where_its_rtl_takes_the_operands(name, fidelity):
    job = prepare_program(PROGRAMS / f"{name}.prog", "tiny")
    assert job.machine.fidelities["arrays.0"] == "rtl"
    assert job.fidelities == job.machine.fidelities | {"arrays.0": fidelity}


def test_an_array_of_fewer_bits_than_the_operands_is_not_rtl():
    job = prepare_program(PROGRAMS / "gemm_tiny.prog", "tiny", overrides=["arrays.0.a_bits=4"])
    assert job.fidelities["arrays.0"] == "analytic"


@pytest.mark.parametrize("overrides, fidelity", [
    (["pe.k_lanes=2"], "rtl"),
    (["pe.kind='mixpe'"], "rtl"),  # int8 by int8 without a multiplier
    (["pe.kind='bit_serial'"], "rtl"),
    (["a_bits=9", "pe.a_format='int9'"], "rtl"),  # int8 fits int9
    (["pe.a_format='uint8'"], "analytic"),  # and not uint8
    (["w_bits=2", "pe.kind='ternary'"], "analytic"),
    (["pe.kind='qoq'"], "analytic"),
])
def test_an_array_is_rtl_where_its_elements_take_int8(overrides, fidelity):
    job = prepare_program(PROGRAMS / "gemm_tiny.prog", "tiny",
                          overrides=[f"arrays.0.{change}" for change in overrides])
    assert job.fidelities["arrays.0"] == fidelity
    outcome = run_job(job)
    assert outcome.result.ticks >= outcome.bound.ticks


FLOATS = ("a_bits=16", "w_bits=16", "pe.kind='float_mac'", "pe.a_format='float16'",
          "pe.w_format='float16'", "pe.acc_format='float32'")


def job_of_floats(*changes: str, name: str = "gemm_os"):
    """Return the job of an FP16 program on the small machine with an array of floats."""
    return prepare_program(PROGRAMS / f"{name}.prog", "tiny",
                           overrides=[f"arrays.0.{change}" for change in (*FLOATS, *changes)])


def test_an_array_of_floats_is_rtl_where_the_program_adds_in_its_order():
    job = job_of_floats()
    assert job.fidelities["arrays.0"] == "rtl" and job.departures == {}
    assert run_job(job).result.ticks >= run_job(job).bound.ticks


@pytest.mark.parametrize("changes, reason", [
    (["pe.add_cycles=2", "pe.partial_sums=2", "dataflows=['os']"],
     "matmul adds in the order interleaved 1, os over 16 in interleaved 2"),
    (["pe.acc_format='float16'", "acc_bits=16"], "acc is float32, the sums are float16"),
    (["pe.w_format='bfloat16'"], "w_buf is float16, the elements take bfloat16"),
])
def test_an_array_of_floats_says_why_it_is_not_rtl(changes, reason):
    job = job_of_floats(*changes)
    assert job.fidelities["arrays.0"] == "analytic"
    assert job.departures == {"arrays.0": reason}


@pytest.mark.parametrize("fields, reason", [
    ({"k_order": 0, "k_size": 0}, "sequential, os over 16 in interleaved 1"),
    ({"k_order": 2, "k_size": 8, "dataflow": 1}, None),
    ({"k_order": 2, "k_size": 4, "dataflow": 1}, "descending 4, ws over 16 in descending 8"),
])
def test_an_array_of_floats_is_not_rtl_whose_sums_golden_orders_otherwise(fields, reason):
    job = job_of_floats()
    streams = tuple(replace(stream, instructions=tuple(
        replace(one, fields={**one.fields, **fields}) if one.opcode == Opcode.MATMUL else one
        for one in stream.instructions)) for stream in job.program.streams)
    other = replace(job, program=replace(job.program, streams=streams))
    expected = {} if reason is None else {"arrays.0": f"matmul adds in the order {reason}"}
    assert other.departures == expected


def test_a_mapped_gemm_names_the_order_of_an_array_of_floats_and_no_other_does():
    for changes, orders in (((), {(0, 0)}), (FLOATS, {(2, 128)})):
        job = prepare_model("gpt2", "npu-hbm2", make_phase("decode", 1, 1, 16),
                            formats="W16A16KV16",
                            overrides=["scratchpad.bytes=2097152",
                                       *(f"arrays.0.{change}" for change in changes)])
        assert {(one.fields.get("k_order", 0), one.fields.get("k_size", 0))
                for stream in job.program.streams for one in stream.instructions
                if one.opcode == Opcode.MATMUL} == orders
        assert verify(job.program, job.launch, job.machine) == []


def test_a_vector_unit_is_rtl_only_where_its_rtl_takes_the_formats():
    job = prepare_model("gpt2", "npu-hbm2", make_phase("decode", 1, 1, 16),
                        overrides=["vectors.0.fidelity='rtl'", "vectors.0.row_elements=4096"])
    assert job.fidelities["vectors.0"] == "rtl"
    assert run_job(job).result.ticks > 0
    narrow = tuple(replace(operand, format="int5") if operand.format == "int8" else operand
                   for operand in job.program.operands)  # it quantises to int4, int8, int16
    other = replace(job, program=replace(job.program, operands=narrow))
    assert other.machine.fidelities["vectors.0"] == "rtl"
    assert other.fidelities["vectors.0"] == "analytic"


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("*.prog")), ids=lambda path: path.stem)
def test_the_vector_units_rtl_takes_every_operator_of_the_examples(path):
    job = prepare_program(PROGRAMS / "gemm_tiny.prog", "tiny")
    assert job.fidelities["vectors.0"] == "rtl"
    assert replace(job, program=read_program(path)).fidelities["vectors.0"] == "rtl"


def test_keys_read_by_columns_are_not_rtl():
    job = prepare_model("opt-125m", "npu-hbm2", make_phase("decode", 1, 1, 16))
    assert job.fidelities["arrays.0"] == "analytic"
