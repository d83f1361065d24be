# amaranth: UnusedElaboratable=no
"""One channel that computes, in RTL, from host writes to results: golden's bits, archsim's cycles.

The channel's commands are those of the simulator, cycle for cycle; the data is that of a replay of
those commands, whose dot products are golden's. Its own check of the commands stays silent.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from archsim.pim import HostRequest, PimChannel
from archsim.pim_check import first_violation
from archsim.pim_random import random_host, random_mix
from archsim.pim_trace import PimCommand
from golden.formats import decode, encode
from golden.pim import bank_sum, bank_sum_integers
from hw.cxxrtl import StreamSimulation
from hw.pim_channel import PimChannel as ChannelRtl
from hw.pim_channel import read_layout
from hw.pim_device import device_parts
from machine.formats import FORMATS
from machine.pim_macros import GemvShape, PimOp, operations
from mapping.placement import Banks, RowsPlacement

spec = importlib.util.spec_from_file_location("pim_cases", Path(__file__).parent / "test_pim.py")
assert spec and spec.loader
CASES = importlib.util.module_from_spec(spec)
spec.loader.exec_module(CASES)

# Four banks of narrow rows: a column of four lanes, a bus of eight bytes a cycle.
SMALL = replace(CASES.SMALL, ranks=1, bus_bits=32)


def config(buffers, fmt, **more):
    return replace(CASES.DUAL, row_buffers=buffers, buffer_bytes=64, unit=replace(
        CASES.DUAL.unit, lanes=4, format=fmt), **more)


CONFIGS = {
    "dual": config(2, "float16"), "single": config(1, "int8"),
    "dual bfloat16": config(2, "bfloat16"), "single bfloat16": config(1, "bfloat16"),
    "single float16": config(1, "float16"), "dual int8": config(2, "int8"),
    "blocked": config(2, "int8", host="blocked", admission="exact"),
    "all": config(2, "int8", precharge="all", activate="all", activate_window=False),
}
# Eight banks in two ranks, columns of 16 lanes.
WIDE = replace(CASES.SMALL, bus_bits=64), replace(
    CASES.DUAL, buffer_bytes=128, unit=replace(CASES.DUAL.unit, lanes=16, format="int8"))
EVERY = [pytest.param(name, marks=() if name in ("dual", "single") else pytest.mark.slow)
         for name in CONFIGS]


@pytest.fixture(scope="module")
def compiled():
    """Return the compiled channel of a configuration, made once."""
    made = {}

    def of(dram, pim):
        if (dram, pim) not in made:
            made[dram, pim] = StreamSimulation(ChannelRtl(dram, pim, library="pim"),
                                               parts=device_parts(dram, pim, "pim"))
        return made[dram, pim]

    return of


class Replay:
    """What a channel's commands do to data, one after the other; dot products are golden's.

    `writes` are the bursts the host writes, in the order of its requests. After a command
    ``reads`` and ``results`` hold what it and those before return.
    """

    def __init__(self, dram, pim, requests, writes):
        self.dram, self.pim = dram, pim
        self.lanes, self.columns = pim.unit.lanes, pim.row_columns(dram)
        self.bits = pim.unit.element_bits
        self.cells = np.zeros((dram.banks, dram.rows, self.columns * self.lanes), np.int64)
        self.buffer = np.zeros((pim.buffer_columns, self.lanes), np.int64)
        self.latches = np.zeros(dram.banks, np.int64)
        self.waiting = {b: [w for r, w in zip(requests, writes, strict=True)
                            if r.write and r.bank == b] for b in range(dram.banks)}
        self.reads, self.results = [], []

    def do(self, command, op=None):
        """Do `command`; `op` is the entry that a dot product is of."""
        c, burst = command, 8 * self.dram.burst_bytes // self.bits
        place = slice(c.column * burst, (c.column + 1) * burst)
        match c.command:
            case "WR":
                code = self.waiting[c.bank].pop(0)
                self.cells[c.bank, c.row, place] = [
                    code >> self.bits * k & (1 << self.bits) - 1 for k in range(burst)]
            case "RD":
                code = sum(int(e) << self.bits * k
                           for k, e in enumerate(self.cells[c.bank, c.row, place]))
                self.reads.append((code, c.bank, c.row, c.column))
            case "GWRITE":
                row = self.cells[c.bank, c.row].reshape(self.columns, self.lanes)[op.column:]
                upto = min(len(row), len(self.buffer) - op.slot)
                self.buffer[op.slot : op.slot + upto] = row[:upto]
            case "DOT" | "GEMV":
                self._dot(c, op)
        if c.command in ("GEMV", "READRES"):
            self.results.append(self.latches.tolist())

    def _dot(self, c, op):
        count = max(c.dots, 1)
        for bank in range(self.dram.banks):
            matrix = self.cells[bank, c.row].reshape(self.columns, self.lanes)
            self.latches[bank] = summed(
                self.pim.unit.format, matrix[c.column : c.column + count],
                self.buffer[op.slot : op.slot + count], 0 if op.first else self.latches[bank])


def summed(fmt, matrix, vector, start):
    """Return the code of golden's sum of the columns, added to the one of code `start`."""
    if fmt == "int8":
        w, a = (np.asarray(x, np.uint8).view(np.int8) for x in (matrix, vector))
        return int(bank_sum_integers(w, a, np.array(start))) & 0xFFFFFFFF
    single = FORMATS["float32"]
    begin = np.float32(decode(np.asarray(start), single))
    total = bank_sum(decode(matrix, FORMATS[fmt]), decode(vector, FORMATS[fmt]), begin)
    return int(encode(np.asarray(total), single))


def simulate(simulation, dram, pim, ops, cycles, requests, writes, *, until, waits=None, count=0):
    """Return the log of a run of `until` cycles; ``waits`` is when reads and results are taken."""
    sent = [w for r, w in zip(requests, writes, strict=True) if r.write]
    reads = sum(not r.write for r in requests)
    results = sum(op.kind in ("GEMV", "READRES") for op in ops)
    takes = waits or (np.zeros(reads + 5), np.zeros(results + 5))
    when = np.array([r.cycle for r in requests], np.int64)
    return simulation.run(
        {"i": (CASES.entries(pim, ops, dram), np.array(cycles, np.int64)),
         "i_host": (CASES.requests_of(pim, requests, dram), when),
         "i_writes": (CASES.words(sent, 8 * dram.burst_bytes), np.zeros(len(sent)))},
        {"o_reads": takes[0], "o_results": takes[1], "o": np.zeros(count or 100_000),
         "o_fault": np.zeros(1)}, max_cycles=until, complete=False)


def integers(log):
    return [sum(int(w) << 32 * k for k, w in enumerate(row)) for row in log.words]


def returned(dram, pim, log):
    """Return the reads (code, bank, row, column) and the results (a code a bank) of a log."""
    layout = read_layout(dram, pim)
    reads = [layout.from_bits(code) for code in integers(log["o_reads"])]
    return ([(r.data, r.bank, r.row, r.column) for r in reads],
            [[code >> 32 * b & 0xFFFFFFFF for b in range(dram.banks)]
             for code in integers(log["o_results"])])


def check(simulation, dram, pim, ops, cycles, requests, writes):
    """Hold a run: commands, data and every cycle of what comes back; return reads and results."""
    whole = PimChannel(dram, pim).run(ops, requests, op_cycles=cycles)
    until = whole.cycles + 2 * dram.timing.refi_cycles
    run = PimChannel(dram, pim).run(ops, requests, op_cycles=cycles, until=until)
    log = simulate(simulation, dram, pim, ops, cycles, requests, writes, until=until)
    want = [(c.cycle, c.command, c.bank, *(max(x, 0) for x in c[3:])) for c in run.trace]
    assert CASES.commands(pim, log["o"], dram) == want
    assert log["i"].cycles.tolist() == run.ops_done
    assert len(log["o_fault"].cycles) == 0, log["o_fault"].words

    # What comes back is right, and there in the cycle that the formula says.
    replay, entry_of = Replay(dram, pim, requests, writes), dict(
        zip(run.ops_done, ops, strict=True))
    for command in run.trace:
        replay.do(command, entry_of.get(command.cycle))
    reads, results = returned(dram, pim, log)
    assert reads == replay.reads
    assert results == replay.results
    after = dram.timing.cl_cycles + dram.burst_cycles
    assert log["o_reads"].cycles.tolist() == [
        c.cycle + after for c in run.trace if c.command == "RD"]
    assert log["o_results"].cycles.tolist() == [
        c.cycle + after + (c.dots * pim.dot_cycles if c.command == "GEMV" else 0)
        for c in run.trace if c.command in ("GEMV", "READRES")]
    return run, reads, results


def codes(fmt, shape, rng):
    """Return codes of ordinary numbers."""
    if fmt == "int8":
        return rng.integers(0, 256, shape)
    return encode(rng.standard_normal(shape), FORMATS[fmt]).astype(np.int64)


def bursts_of(dram, bits, row):
    """Return the bursts of a row of codes."""
    whole, width = sum(int(code) << bits * k for k, code in enumerate(row)), 8 * dram.burst_bytes
    return [whole >> width * k & (1 << width) - 1
            for k in range(dram.columns // dram.burst_length)]


def gemv(dram, pim, seed):
    """Return weights, vector, placement, what the host writes, and the entries of a GEMV."""
    rng, fmt, lanes = np.random.default_rng(seed), pim.unit.format, pim.unit.lanes
    columns = pim.row_columns(dram)
    outputs, depth = 2 * dram.banks - 1, 2 * columns * lanes - 3
    w, x = codes(fmt, (outputs, depth), rng), codes(fmt, depth, rng)
    place = RowsPlacement(banks=Banks(channels=1, banks=dram.banks, rows=dram.rows,
                                      columns=columns, lanes=lanes),
                          outputs=outputs, depth=depth, first_row=2)
    cells = np.zeros((dram.banks, dram.rows, columns, lanes), np.int64)
    for output in range(outputs):
        for k in range(depth):
            at = place.place(output, k)
            cells[at.bank, at.row, at.column, at.lane] = w[output, k]
    cells[0, :2].reshape(-1)[:depth] = x
    requests, writes = [], []
    for bank in range(dram.banks):
        for row in range(2 + place.rows):
            for column, code in enumerate(bursts_of(dram, pim.unit.element_bits,
                                                    cells[bank, row].reshape(-1))):
                requests.append(HostRequest(0, True, bank, row, column))
                writes.append(code)
    shape = GemvShape(place.slices, place.groups, 1, columns, 1, columns)
    rows = [[2 + part * place.groups + group for group in range(place.groups)]
            for part in range(place.slices)]
    return w, x, place, requests, writes, operations(dram, pim, shape, rows)


def partial_sums(dram, pim, w, x, place):
    """Return golden's result reads of a GEMV: a slice and a group of outputs each."""
    lanes, columns = pim.unit.lanes, pim.row_columns(dram)
    fill = place.slices * columns * lanes - place.depth
    w, x = np.pad(w, ((0, 0), (0, fill))), np.pad(x, (0, fill))
    found = []
    for part in range(place.slices):
        k = slice(part * columns * lanes, (part + 1) * columns * lanes)
        for group in range(place.groups):
            row = [0] * dram.banks
            for output in range(place.outputs):
                at = place.place(output, 0)
                if at.row == place.first_row + group:
                    row[at.bank] = summed(pim.unit.format, w[output, k].reshape(columns, lanes),
                                          x[k].reshape(columns, lanes), 0)
            found.append(row)
    return found


def run_gemv(simulation, dram, pim, seed, beside):
    """Hold a GEMV from host writes to result reads, with `beside` requests in other rows."""
    w, x, place, requests, writes, ops = gemv(dram, pim, seed)
    begin = max(PimChannel(dram, pim).run([], requests).host_done) + 1
    rng = np.random.default_rng(seed)
    first = 2 + place.rows
    for r in random_host(dram, seed, beside):
        requests.append(r._replace(cycle=begin + r.cycle, row=first + r.row % (dram.rows - first)))
        writes.append(int.from_bytes(rng.bytes(dram.burst_bytes), "little"))
    run, reads, results = check(simulation, dram, pim, ops, [begin] * len(ops), requests, writes)
    assert results == partial_sums(dram, pim, w, x, place)
    assert run.counts["REF"] >= 2 and len(reads) == sum(not r.write for r in requests)


@pytest.mark.cxxrtl
@pytest.mark.parametrize("beside", [0, 80])
@pytest.mark.parametrize("name", EVERY)
def test_a_gemv_from_host_writes_to_result_reads(compiled, name, beside):
    pim = CONFIGS[name]
    run_gemv(compiled(SMALL, pim), SMALL, pim, 9, beside)


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.timeout(1800)
def test_a_gemv_of_eight_banks_and_sixteen_lanes(compiled):
    run_gemv(compiled(*WIDE), *WIDE, 9, 80)


def mix(dram, pim, seed, **sizes):
    """Return a random mix on memory full of ordinary numbers."""
    rng = np.random.default_rng(seed)
    requests, writes = [], []
    for bank in range(dram.banks):
        for row in range(dram.rows):
            elements = codes(pim.unit.format, pim.row_columns(dram) * pim.unit.lanes, rng)
            for column, code in enumerate(bursts_of(dram, pim.unit.element_bits, elements)):
                requests.append(HostRequest(0, True, bank, row, column))
                writes.append(code)
    begin = max(PimChannel(dram, pim).run([], requests).host_done) + 1
    ops, cycles, more = random_mix(dram, pim, seed, **sizes)
    for r in more:
        requests.append(r._replace(cycle=begin + r.cycle))
        writes.append(int.from_bytes(rng.bytes(dram.burst_bytes), "little"))
    return ops, [begin + cycle for cycle in cycles], requests, writes


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", EVERY)
def test_random_mixes_move_the_right_data(compiled, name):
    pim = CONFIGS[name]
    for seed in range(4 if name in ("dual", "single") else 60):
        check(compiled(SMALL, pim), SMALL, pim, *mix(SMALL, pim, seed))


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", ["dual", "single"])
def test_an_accumulator_goes_on_where_it_was(compiled, name):
    pim = CONFIGS[name]
    _, _, requests, writes = mix(SMALL, pim, 3, tiles=0, requests=0)
    begin = max(PimChannel(SMALL, pim).run([], requests).host_done) + 1
    dots = 3
    ops = [PimOp("GWRITE", row=5, column=2, slot=1)]
    for row in (7, 9):
        ops.append(PimOp("HEADER", row=row, dots=dots, reads=1))
        if pim.row_buffers == 2:
            ops.append(PimOp("GEMV", row=row, column=1, slot=2, dots=dots, first=row == 7))
        else:
            ops += [PimOp("DOT", row=row, column=1 + j, slot=2 + j, dots=1,
                          first=row == 7 and j == 0) for j in range(dots)]
            ops.append(PimOp("READRES", row=row))
    check(compiled(SMALL, pim), SMALL, pim, ops, [begin] * len(ops), requests, writes)


def check_waits(simulation, dram, pim, seed):
    """Hold a run whose reads and results are taken late; return whether that held commands back."""
    ops, cycles, requests, writes = mix(dram, pim, seed)
    free = PimChannel(dram, pim).run(ops, requests, op_cycles=cycles)
    rng = np.random.default_rng(seed)
    reads = sum(not r.write for r in requests)
    results = sum(op.kind in ("GEMV", "READRES") for op in ops)
    waits = [cycles[0] + np.cumsum(rng.integers(0, 2 * pace, count)) for count, pace in (
        (reads, 4 * free.cycles // reads), (results, 3 * free.cycles // results))]
    until = int(max(w[-1] for w in waits)) + 4 * dram.timing.refi_cycles
    log = simulate(simulation, dram, pim, ops, cycles, requests, writes, until=until, waits=waits)

    # All is done, nothing is illegal, no refresh is late, data as the commands say.
    assert len(log["i"].cycles) == len(ops) and len(log["i_host"].cycles) == len(requests)
    assert len(log["o_fault"].cycles) == 0
    trace = [PimCommand(*c) for c in CASES.commands(pim, log["o"], dram)]
    assert first_violation(dram, pim, trace, until=until) is None
    replay, entry_of = Replay(dram, pim, requests, writes), dict(
        zip(log["i"].cycles.tolist(), ops, strict=True))
    for command in trace:
        replay.do(command, entry_of.get(command.cycle))
    assert returned(dram, pim, log) == (replay.reads, replay.results)
    done = [c.cycle for c in trace if c.command != "REF"][-1]
    return done > free.trace[-1].cycle + dram.timing.refi_cycles


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", EVERY)
def test_the_controller_waits_where_reads_or_results_are_not_taken(compiled, name):
    pim = CONFIGS[name]
    assert any([check_waits(compiled(SMALL, pim), SMALL, pim, seed) for seed in range(3)])


@pytest.mark.cxxrtl
def test_a_write_waits_for_its_data(compiled):
    pim = CONFIGS["dual"]
    requests = [HostRequest(0, True, 1, 3, 2), HostRequest(0, True, 1, 3, 2),
                HostRequest(0, False, 1, 3, 2)]
    sent = CASES.words([0xA5, 0x5A], 8 * SMALL.burst_bytes)
    log = compiled(SMALL, pim).run(
        {"i": (CASES.entries(pim, [], SMALL), np.zeros(0)),
         "i_host": (CASES.requests_of(pim, requests, SMALL), np.zeros(3)),
         "i_writes": (sent, np.array([100, 200]))},
        {"o_reads": np.zeros(1), "o_results": np.zeros(0), "o": np.zeros(10),
         "o_fault": np.zeros(1)}, max_cycles=400, complete=False)
    assert log["i_host"].cycles.tolist() == [100, 200, 201]
    assert log["i_writes"].cycles.tolist() == [100, 200]
    assert returned(SMALL, pim, log)[0] == [(0x5A, 1, 3, 2)]
    assert len(log["o_fault"].cycles) == 0
