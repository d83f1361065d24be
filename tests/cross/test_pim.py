# amaranth: UnusedElaboratable=no
"""The controller's RTL issues the simulator's commands, each in its cycle; nothing illegal."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

import machine.dram as dram
from archsim.pim import PimChannel
from archsim.pim_check import first_violation
from archsim.pim_random import random_mix
from hw.cxxrtl import StreamSimulation
from hw.pim import PimController
from hw.pim_queue import Entry, command_layout, entry_layout, host_layout
from machine.pim import PIM_COMMANDS, PimConfig

PRESETS = Path(dram.__file__).parent / "presets"


def read(kind, name):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return TypeAdapter(kind).validate_json(json.dumps(table))


HBM2 = read(dram.DramConfig, "dram/hbm2-neupims")
# Few banks and short rows, refresh often: mixes meet everything soon.
SMALL = replace(HBM2, channels=1, bank_groups=2, banks_per_group=2, rows=16, columns=16,
                timing=replace(HBM2.timing, refi_cycles=1300, rfc_cycles=60))
DUAL = replace(read(PimConfig, "pim/neupims"), buffer_bytes=256, gwrite_cycles=24,
               hold="last_dot", host_entries=4)
CONFIGS = {
    "dual": DUAL, "single": replace(DUAL, row_buffers=1),
    "dual exact": replace(DUAL, admission="exact"),
    "single exact": replace(DUAL, row_buffers=1, admission="exact"),
    "all": replace(DUAL, precharge="all", activate="all", activate_window=False),
    "blocked": replace(DUAL, host="blocked"),
    "issue": replace(DUAL, hold="issue"),
}


def packed(layout, fields):
    """Return a struct's code."""
    return sum(int(fields[name]) << layout[name].offset for name in fields)


def words(payloads, bits):
    count = -(-bits // 32)
    rows = [[p >> 32 * k & 0xFFFFFFFF for k in range(count)] for p in payloads]
    return np.array(rows, np.uint32).reshape(-1, count)


def entries(pim, ops):
    layout = entry_layout(SMALL, pim)
    return words([packed(layout, {**op._asdict(), "kind": Entry[op.kind]}) for op in ops],
                 layout.size)


def requests_of(pim, requests):
    layout = host_layout(SMALL, pim)
    return words([packed(layout, {n: getattr(r, n) for n in ("write", "bank", "row", "column")})
                  for r in requests], layout.size)


def commands(pim, log):
    """Return (cycle, name, bank, row, column, dots) of the RTL's commands."""
    layout = command_layout(SMALL, pim)
    found = []
    for cycle, row in zip(log.cycles, log.words, strict=True):
        code = layout.from_bits(sum(int(w) << 32 * k for k, w in enumerate(row)))
        found.append((int(cycle), PIM_COMMANDS[code.command], code.bank, code.row, code.column,
                      code.dots))
    return found


@pytest.fixture(scope="module")
def compiled():
    """Return the compiled controller of a configuration, made once."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = StreamSimulation(PimController(SMALL, CONFIGS[name]))
        return made[name]

    return of


def check(simulation, pim, seed, **sizes):
    """Hold one mix: the RTL's commands are the simulator's, and the checker finds none illegal."""
    ops, cycles, requests = random_mix(SMALL, pim, seed, **sizes)
    whole = PimChannel(SMALL, pim).run(ops, requests, op_cycles=cycles)
    # Two refresh intervals more: what the RTL did too much would show between the refreshes.
    until = whole.cycles + 2 * SMALL.timing.refi_cycles
    run = PimChannel(SMALL, pim).run(ops, requests, op_cycles=cycles, until=until)
    log = simulation.run(
        {"i": (entries(pim, ops), np.array(cycles)),
         "i_host": (requests_of(pim, requests), np.array([r.cycle for r in requests]))},
        {"o": np.zeros(len(run.trace))}, max_cycles=until)
    want = [(c.cycle, c.command, c.bank, *(max(x, 0) for x in c[3:])) for c in run.trace]
    for place, (got, wanted) in enumerate(zip(commands(pim, log["o"]), want, strict=True)):
        assert got == wanted, f"seed {seed}, command {place}: {got} != {wanted} (simulator)"
    assert log["i"].cycles.tolist() == run.ops_done
    found = first_violation(SMALL, pim, run.trace, until=until)
    assert found is None, (seed, found)


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", ["dual", "single"])
def test_random_mixes_command_by_command(compiled, name):
    for seed in range(15):
        check(compiled(name), CONFIGS[name], seed)


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", CONFIGS)
def test_two_hundred_random_mixes_command_by_command(compiled, name):
    for seed in range(1000, 1200):
        check(compiled(name), CONFIGS[name], seed, tiles=10 + seed % 8, requests=seed % 100)
