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
from archsim.pim import HostRequest, PimChannel
from archsim.pim_check import first_violation
from archsim.pim_random import random_mix
from golden.formats import decode, encode
from golden.pim import bank_sum
from hw.cxxrtl import StreamSimulation
from hw.pim import PimController
from hw.pim_queue import Entry, command_layout, entry_layout, host_layout
from hw.pim_unit import BankUnit, column_layout, parts_of
from machine.formats import FORMATS
from machine.pim import PIM_COMMANDS, PimConfig
from machine.pim_macros import PimOp
from mapping.placement import Banks, RowsPlacement

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


def entries(pim, ops, dram=SMALL):
    layout = entry_layout(dram, pim)
    return words([packed(layout, {**op._asdict(), "kind": Entry[op.kind]}) for op in ops],
                 layout.size)


def requests_of(pim, requests, dram=SMALL):
    layout = host_layout(dram, pim)
    return words([packed(layout, {n: getattr(r, n) for n in ("write", "bank", "row", "column")})
                  for r in requests], layout.size)


def commands(pim, log, dram=SMALL):
    """Return (cycle, name, bank, row, column, dots) of the RTL's commands."""
    layout = command_layout(dram, pim)
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


class BankArray:
    """Banks as they behave: rows of codes, what is open, the global buffer.

    `do` takes a command of the controller; it raises ``AssertionError`` for an illegal one. What
    a GEMV multiplies is kept in ``columns``: (bank, matrix, vector, last).
    """

    def __init__(self, written):
        self.cells = np.zeros((SMALL.banks, SMALL.rows, 8, 16), np.int64)
        self.host, self.own = {}, {}  # bank: its open row
        self.buffer = np.zeros((8, 16), np.int64)
        self.written, self.columns = written, []

    def do(self, command, bank, row, column, dots):
        match command:
            case "ACT":
                assert bank not in self.host and self.own.get(bank) != row
                self.host[bank] = row
            case "PRE":
                self.host.pop(bank)
            case "GACT":
                for b in range(bank, bank + 2):
                    assert b not in self.own and self.host.get(b) != row
                    self.own[b] = row
            case "PIMPRE":
                self.own.pop(bank)
            case "REF":
                assert not any(b // 4 == bank // 4 for b in (*self.host, *self.own))
            case "WR":
                assert self.host[bank] == row
                self.cells[bank, row, 2 * column : 2 * column + 2] = self.written[
                    bank, row, column]
            case "GWRITE":
                assert self.host[bank] == row
                self.buffer = self.cells[bank, row].copy()
            case "GEMV":
                assert all(self.own.get(b) == row for b in range(SMALL.banks))
                assert column + dots <= 8
                for b in range(SMALL.banks):
                    for j in range(column, column + dots):
                        self.columns.append((b, self.cells[b, row, j], self.buffer[j],
                                             j == column, j == column + dots - 1))


def gemv_mix():
    """Return weights, vector, what the host writes where, its requests, and the PIM entries."""
    rng = np.random.default_rng(9)
    half = FORMATS["float16"]
    w = encode(rng.standard_normal((16, 256)), half).astype(np.int64)
    x = encode(rng.standard_normal(256), half).astype(np.int64)
    place = RowsPlacement(banks=Banks(channels=1, banks=8, rows=16, columns=8, lanes=16),
                          outputs=16, depth=256, first_row=2)
    cells = np.zeros((8, 16, 8, 16), np.int64)
    for output in range(16):
        for k in range(256):
            at = place.place(output, k)
            cells[at.bank, at.row, at.column, at.lane] = w[output, k]
    cells[0, :2] = x.reshape(2, 8, 16)
    used = [(b, r) for b in range(8) for r in range(6) if cells[b, r].any()]
    written = {(b, r, c): cells[b, r, 2 * c : 2 * c + 2] for b, r in used for c in range(4)}
    requests = [HostRequest(0, True, *at) for at in written]
    ops = []
    for part in range(place.slices):
        ops.append(PimOp("GWRITE", row=part))
        for group in range(place.groups):
            row = place.first_row + part * place.groups + group
            ops += [PimOp("HEADER", row=row, dots=8, reads=1), PimOp("GEMV", row=row, dots=8)]
    return w, x, place, written, requests, ops


def controlled(simulation, pim, ops, requests):
    """Return the RTL's commands; the entries are offered once the host has written everything."""
    begin = max(PimChannel(SMALL, pim).run([], requests).host_done) + 1
    cycles = [begin] * len(ops)
    run = PimChannel(SMALL, pim).run(ops, requests, op_cycles=cycles)
    log = simulation.run(
        {"i": (entries(pim, ops), np.array(cycles)),
         "i_host": (requests_of(pim, requests), np.zeros(len(requests)))},
        {"o": np.zeros(len(run.trace))}, max_cycles=run.cycles)
    return [command for _, *command in commands(pim, log["o"])]


@pytest.mark.cxxrtl
def test_a_gemv_on_real_data_from_host_writes_to_results(compiled):
    w, x, place, written, requests, ops = gemv_mix()
    array = BankArray(written)
    for command in controlled(compiled("dual"), DUAL, ops, requests):
        array.do(*command)
    # The columns of every bank, through the unit's RTL.
    layout = column_layout(DUAL.unit)
    unit = StreamSimulation(BankUnit(DUAL.unit, library="pim"), merge_wires=False,
                            parts=parts_of(DUAL.unit, "pim"))
    half, single = FORMATS["float16"], FORMATS["float32"]
    for bank in range(8):
        mine = [c for c in array.columns if c[0] == bank]
        beats = [packed(layout, {
            "matrix": sum(int(code) << 16 * lane for lane, code in enumerate(matrix)),
            "vector": sum(int(code) << 16 * lane for lane, code in enumerate(vector)),
            "first": first, "last": last}) for _, matrix, vector, first, last in mine]
        log = unit.run({"i": (words(beats, layout.size), np.zeros(len(beats)))},
                       {"o": np.zeros(4)})
        got = log["o"].words[:, 0].tolist()
        want = []
        for part in range(2):
            for group in range(2):
                (output,) = {o for o in range(16) if place.place(o, 0).bank == bank
                             and o // 8 == group}
                k = slice(128 * part, 128 * (part + 1))
                total = bank_sum(decode(w[output, k], half).reshape(8, 16),
                                 decode(x[k], half).reshape(8, 16), np.float32(0))
                want.append(int(encode(np.asarray(total), single)))
        assert got == want, bank


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", ["ACT", "PRE", "GACT", "PIMPRE", "GWRITE", "WR"])
def test_the_bank_array_flags_what_is_illegal(compiled, name):
    *_, written, requests, ops = gemv_mix()
    sent = controlled(compiled("dual"), DUAL, ops, requests)
    place = [c[0] for c in sent].index(name)
    wrong = {"WR": lambda c: [c[0], c[1], 15, *c[3:]], "GWRITE": lambda c: [c[0], 7, *c[2:]]}
    array = BankArray(written)
    with pytest.raises((AssertionError, KeyError)):
        for at, command in enumerate(sent):
            if at == place and name in wrong:
                array.do(*wrong[name](command))
            elif at != place:
                array.do(*command)
