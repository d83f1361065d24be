"""Golden and the simulator execute the same instructions; an injected difference is named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from archsim import agree as module
from archsim.agree import agree, compare, golden_log
from archsim.engine.simulate import simulate
from archsim.job import launch_table, read_program
from archsim.random_data import random_tensors
from golden.execute import execute
from machine.assembly import parse
from machine.errors import UserError
from machine.formats import FORMATS, Kind
from machine.load import read_machine

PROGRAMS = Path(__file__).parents[2] / "examples" / "programs"
LINKED = ("chips=2", "links.count=1", "links.bytes_per_cycle=16", "links.latency_cycles=5")
# What each program runs on, with which launch table, and its instructions, counted by hand from
# its loops: pairs of tiles, requests of a batch, tokens.
RUNS = {
    "gemm_tiny": ("tiny", (), {}, {"chip0.dma0": 9, "chip0.array0": 11, "chip0.dma1": 3}),
    "all_reduce": ("tiny", LINKED, {}, None),
    "gemm_os": ("tiny", (), {}, None),
    "gemm_ws": ("npu-hbm2", (), {}, None),
    "mlgru": ("tiny", (), {"steps": 5},
              {"chip0.dma0": 17, "chip0.array0": 7, "chip0.vector0": 28, "chip0.dma1": 6}),
    "moe_top2": ("tiny", (), {
        "count": [4, 6, 0, 2], "tokens": [0, 1, 2, 3, 0, 0, 0, 1, 2, 3, 4, 5] + [0] * 6 + [4, 5],
        "slots": [0, 2, 4, 6, 0, 0, 1, 3, 5, 7, 8, 10] + [0] * 6 + [9, 11]}, None),
    "paged_decode": ("tiny", (), {
        "batch": 3, "length": [5, 16, 40], "pages": [7, 0, 0, 0, 3, 11, 0, 0, 9, 2, 5, 0]}, None),
    "w4a8_grouped": ("tiny", (), {}, None),
}
HALT = 1  # every stream of the examples ends with one


@pytest.mark.parametrize("name", RUNS)
def test_example_executes_alike_in_golden_and_simulator(name):
    machine, overrides, launch, counts = RUNS[name]
    found = agree(PROGRAMS / f"{name}.prog", machine, launch=launch, overrides=overrides, seed=3)
    total = sum(found["instructions"].values())
    assert found["agree"] and found["first_difference"] is None
    assert found["sentence"] == (f"{name} on {machine}: golden and the simulator agree on {total} "
                                 f"instructions of {len(found['instructions'])} queues")
    if counts is not None:
        assert found["instructions"] == {q: count - HALT for q, count in counts.items()}


def logs():
    program, machine = read_program(PROGRAMS / "gemm_tiny.prog"), read_machine("tiny")
    executed = execute(program, random_tensors(program, 0), log=True).log
    timed = simulate(program, machine).log
    return golden_log(executed, [str(stream.queue) for stream in program.streams]), timed


def test_changed_instruction_is_named_with_both_values():
    golden, timed = logs()
    third = [row for row, q in enumerate(timed.queue) if timed.queues[q] == "chip0.array0"][2]
    timed.indices = list(timed.indices)
    was, timed.indices[third] = timed.indices[third], (1, 1)
    issue = timed.issue[third]
    found = compare(golden, timed, "x")
    assert found["first_difference"] == {
        "queue": "chip0.array0", "sequence": 2, "pc": timed.pc[third], "indices": [1, 1],
        "issue_ticks": issue, "field": "indices", "golden": was, "simulator": (1, 1)}
    assert found["sentence"] == (
        f"x: instruction 2 of chip0.array0[{timed.pc[third]}] at iteration 1,1: indices is {was} in"
        " golden and (1, 1) in the simulator")
    assert not found["agree"]


@pytest.mark.parametrize("shorter", ["golden", "simulator"])
def test_instruction_of_one_log_only_is_named(shorter):
    golden, timed = logs()
    cut = golden if shorter == "golden" else timed
    for column in ("queue", "pc", "indices", "layer", "op", "mask", "issue", "start", "completion"):
        setattr(cut, column, getattr(cut, column)[:-1])
    found = compare(golden, timed, "x")
    has, lacks = ("the simulator", "golden") if shorter == "golden" else ("golden", "the simulator")
    assert found["sentence"].endswith(f" is executed by {has} and not by {lacks}")
    assert found["first_difference"]["golden"] is (shorter != "golden")
    assert found["first_difference"]["simulator"] is (shorter == "golden")


def test_simulator_that_runs_another_program_is_caught(monkeypatch):
    text = (PROGRAMS / "gemm_tiny.prog").read_text()
    lean = parse(text.replace("    fence signal done:1 op=gemm",
                              "    fence signal done:1 op=store"))
    monkeypatch.setattr(module, "simulate", lambda _, *rest: simulate(lean, *rest))
    found = agree(PROGRAMS / "gemm_tiny.prog", "tiny")
    assert not found["agree"]
    assert found["first_difference"]["field"] == "op"
    assert (found["first_difference"]["golden"], found["first_difference"]["simulator"]) == (1, 2)


READER = """program reader version 1
needs indirect
symbol N dram 0x0 int32 [1] input
symbol X dram 0x40 int8 [4,8] input
operand n dram 0x0 int32 [1] stride [1]
operand x dram 0x40 int8 [1,8] stride [8,1] loop 0:8
operand y scratchpad 0x0 int8 [1,8] stride [8,1] loop 0:8
stream chip0.dma0
  read r1 src=n
  loop r1
    load src=x dst=y
  end
  halt
"""


def test_value_that_only_data_gives_comes_from_golden_and_is_verified(tmp_path):
    path = tmp_path / "r.prog"
    path.write_text(READER)
    program, seen = read_program(path), set()
    for seed in range(12):
        (n,) = random_tensors(program, seed)["N"].tolist()
        seen.add(n > 4)
        if n <= 4:
            found = agree(path, "tiny", seed=seed)
            assert found["agree"] and found["instructions"] == {"chip0.dma0": 1 + n}
            continue
        with pytest.raises(UserError, match=r"^reader: chip0\.dma0\[2\].*at iteration 4: bounds: "):
            agree(path, "tiny", seed=seed)
    assert seen == {False, True}


def test_fault_is_refused_before_anything_runs(monkeypatch, tmp_path):
    text = (PROGRAMS / "gemm_tiny.prog").read_text()
    (tmp_path / "g.prog").write_text(text.replace("token free 2", "token free 0"))
    monkeypatch.setattr(module, "execute", lambda *_, **__: pytest.fail("golden ran"))
    with pytest.raises(UserError, match=r"^gemm_tiny: chip0\.dma0.*deadlock"):
        agree(tmp_path / "g.prog", "tiny")


def test_random_tensors_depend_on_the_seed_alone():
    program = read_program(PROGRAMS / "w4a8_grouped.prog")
    one, same, other = (random_tensors(program, seed) for seed in (5, 5, 6))
    assert one.keys() == same.keys() == other.keys() == {"A", "w", "ASUM"}
    for name, values in one.items():
        np.testing.assert_array_equal(values, same[name])
    assert any((one[name] != other[name]).any() for name in one)


def test_random_tensors_of_every_element_format_can_be_packed():
    program = read_program(PROGRAMS / "gemm_tiny.prog")
    for name, fmt in FORMATS.items():
        if fmt.kind is not Kind.BLOCK:
            symbols = tuple(replace(s, format=name) for s in program.symbols)
            lone = replace(program, symbols=symbols, streams=())
            tensors = random_tensors(lone, 1)
            assert {n: v.shape for n, v in tensors.items()} == {
                s.name: s.shape for s in symbols if s.name in ("A", "W")}
            execute(lone, tensors)  # packs them, and refuses what does not fit its format


def test_launch_table_tells_entries_from_tensors():
    program = read_program(PROGRAMS / "paged_decode.prog")
    launch = launch_table(program, {"batch": 2, "length": 5, "pages": [1, 2]})
    assert (launch.values, launch.tensors) == ({"batch": 2}, {"length": [5], "pages": [1, 2]})
    with pytest.raises(UserError, match=(
            r"^paged_decode: launch entry must be one of batch, length, pages, not 'page'; "
            r"did you mean 'pages'\?$")):
        launch_table(program, {"page": 1})
