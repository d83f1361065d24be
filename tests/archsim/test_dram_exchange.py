"""Command traces in other simulators' text forms: lines as they write them, round trips, errors."""

import json
import random
import tomllib
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import machine.dram as dram
from archsim.dram.check import first_violation
from archsim.dram.controller import Controller, Request
from archsim.dram.exchange import from_dramsim3, from_ramulator, to_dramsim3, to_ramulator
from archsim.dram.trace import Command
from machine.errors import UserError

PRESETS = Path(dram.__file__).parent / "presets" / "dram"
NAMES = sorted(path.stem for path in PRESETS.glob("*.toml"))

COMMANDS = [
    Command(0, 0, "ACT", 0, 1, 2, 300, -1),
    Command(16, 0, "RD", 0, 1, 2, 300, 12),
    Command(40, 0, "WR", 0, 1, 2, 300, 127),
    Command(90, 0, "PRE", 0, 1, 2, -1, -1),
    Command(9364, 0, "PREA", 0, -1, -1, -1, -1),
    Command(9380, 0, "REF", 0, -1, -1, -1, -1),
]
# By hand from the format strings the module names.
RAMULATOR = """\
clock,command,Channel,Rank,BankGroup,Bank,Row,Column,type,source
0,ACT,0,0,1,2,300,-1,-1,-1
16,RD,0,0,1,2,300,12,0,-1
40,WR,0,0,1,2,300,127,1,-1
90,PREpb,0,0,1,2,-1,-1,-1,-1
9364,PREab,0,0,-1,-1,-1,-1,-1,-1
9380,REFab,0,0,-1,-1,-1,-1,-1,-1
"""
DRAMSIM3 = """\
0                  activate               0   0   1   2    0x12c     -0x1
16                 read                   0   0   1   2    0x12c      0xc
40                 write                  0   0   1   2    0x12c     0x7f
90                 precharge              0   0   1   2     -0x1     -0x1
9364               precharge              0   0  -1  -1     -0x1     -0x1
9380               refresh                0   0  -1  -1     -0x1     -0x1
"""


def test_lines_are_as_the_others_write_them():
    assert to_ramulator(COMMANDS) == RAMULATOR
    assert to_dramsim3(COMMANDS) == DRAMSIM3


def test_lines_are_read():
    assert from_ramulator(RAMULATOR) == COMMANDS
    assert from_dramsim3(DRAMSIM3) == COMMANDS


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_run_comes_back_and_is_still_legal(name):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    cfg = TypeAdapter(dram.DramConfig).validate_json(json.dumps(table))
    rng, controller = random.Random(name), Controller(cfg, record=True)
    controller.run(
        [Request(rng.random() < 0.3, 0, rng.randrange(4), rng.randrange(4), rng.randrange(9), 0)
         for _ in range(300)],
        until=2 * cfg.timing.refi_cycles + 1000,
    )  # fmt: skip
    trace = controller.trace
    assert {c.command for c in trace} >= {"ACT", "PRE", "PREA", "REF", "RD", "WR"}
    assert from_ramulator(to_ramulator(trace)) == trace
    assert from_dramsim3(to_dramsim3(trace)) == trace
    assert first_violation(cfg, from_dramsim3(to_dramsim3(trace))) is None


def test_a_standard_without_ranks_has_rank_0():
    text = "clock,command,Channel,BankGroup,Bank,Row,Column,type,source\n7,ACT,3,1,2,300,-1,0,0\n"
    assert from_ramulator(text) == [Command(7, 3, "ACT", 0, 1, 2, 300, -1)]


@pytest.mark.parametrize(
    ("read", "text", "sentence"),
    [
        (from_ramulator, "", "line 1 must be clock,command, levels, type,source as Ramulator"),
        (from_ramulator, RAMULATOR.replace("Rank", "PseudoChannel"), "line 1 must be clock,"),
        (from_ramulator, RAMULATOR.replace("RD", "RDA"), "line 3 must be 10 values, the second of"),
        (from_ramulator, RAMULATOR.replace("300,12", "300"), "line 3 must be 10 values"),
        (from_ramulator, RAMULATOR.replace("16,", "x,"), "line 3 must be integers but for the"),
        (from_dramsim3, DRAMSIM3.replace("write ", "write_p "), "line 3 must be 8 values, the"),
        (from_dramsim3, DRAMSIM3.replace("0xc", "0xz"), "line 2 must be integers but for the"),
    ],
)
def test_refuses_what_it_cannot_read(read, text, sentence):
    with pytest.raises(UserError) as caught:
        read(text)
    assert sentence in str(caught.value)
