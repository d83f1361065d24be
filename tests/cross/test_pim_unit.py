# amaranth: UnusedElaboratable=no
"""The bank unit's RTL equals golden bit for bit, and its cycles the formula, with random stalls."""

import ml_dtypes
import numpy as np
import pytest
from amaranth.sim import Simulator

from golden.formats import decode, encode
from golden.pim import bank_sum, bank_sum_integers
from hw.cxxrtl import StreamSimulation
from hw.pim_unit import BankUnit, column_layout, parts_of
from hw.stream import collect, drive
from machine.formats import FORMATS
from machine.pim import BankUnitConfig

CORNERS = {  # zeros, subnormals, ones, the largest, infinity, NaN
    "float16": [0, 1, 0x3FF, 0x400, 0x3C00, 0x3C01, 0x7BFF, 0x7C00, 0x7E00],
    "bfloat16": [0, 1, 0x7F, 0x80, 0x3F80, 0x3F81, 0x7F7F, 0x5F80, 0x7F80, 0x7FC0],
    "int8": [0, 1, 127, 128, 129, 255],
}


def codes(fmt, shape, rng):
    """Return codes: most near one another, some of any value, some corners of either sign."""
    bits = FORMATS[fmt].bits
    wild = rng.integers(0, 1 << bits, shape)
    if fmt == "int8":
        return np.where(rng.random(shape) < 0.2, rng.choice(CORNERS[fmt], shape), wild)
    near = encode(rng.standard_normal(shape) * 2.0 ** rng.integers(-4, 5, shape), FORMATS[fmt])
    corner = rng.choice(CORNERS[fmt], shape) | rng.integers(0, 2, shape) << (bits - 1)
    # Rows of ordinary numbers, rows with a corner or two, rows of anything.
    kind = rng.integers(0, 8, shape[:1])[:, None]
    rare = rng.random(shape) < 0.1
    return np.where(kind < 4, near, np.where(kind < 7, np.where(rare, corner, near),
                                             np.where(rare, corner, wild)))


def golden(fmt, matrix, vector, first, last):
    """Return the codes of the results."""
    results, total = [], 0
    for j in range(len(matrix)):
        start = 0 if first[j] else total
        if fmt == "int8":
            w, a = (np.asarray(x[j], np.uint8).view(np.int8)[None] for x in (matrix, vector))
            total = int(bank_sum_integers(w, a, np.array(start)))
            code = total & 0xFFFFFFFF
        else:
            w, a = (decode(x[j], FORMATS[fmt])[None] for x in (matrix, vector))
            total = bank_sum(w, a, np.float32(start))
            code = int(encode(np.asarray(total), FORMATS["float32"]))
        if last[j]:
            results.append(code)
    return results


def beats(cfg, matrix, vector, first, last):
    """Return the payloads of the stream ``i`` as integers."""
    layout, width = column_layout(cfg), cfg.element_bits
    at = {name: layout[name].offset for name in ("matrix", "vector", "first", "last")}

    def packed(row):
        return sum(int(code) << width * lane for lane, code in enumerate(row))

    return [packed(matrix[j]) << at["matrix"] | packed(vector[j]) << at["vector"]
            | int(first[j]) << at["first"] | int(last[j]) << at["last"]
            for j in range(len(matrix))]


def words(payloads, bits):
    count = -(-bits // 32)
    return np.array([[p >> 32 * k & 0xFFFFFFFF for k in range(count)] for p in payloads],
                    np.uint32)


def ends(count, rng):
    """Return marks of results of 1 to 9 columns."""
    last = rng.random(count) < 0.25
    last[-1] = True
    return np.concatenate([[True], last[:-1]]), last


def expected_cycles(cfg, last, offered, ready):
    """Return the cycles of all transfers in and out: a row of registers that stops as one."""
    ins, outs, pipe, held = [], [], [None] * (cfg.latency_cycles - 1), False
    cycle, j, k = 0, 0, 0
    while k < int(last.sum()):
        taken = held and cycle >= ready[k]
        if taken:
            outs.append(cycle)
            k += 1
        if not held or taken:
            out = pipe.pop()
            held = out is True
            if j < len(last) and cycle >= offered[j]:
                pipe.insert(0, bool(last[j]))
                ins.append(cycle)
                j += 1
            else:
                pipe.insert(0, None)
        cycle += 1
    return ins, outs


@pytest.fixture(scope="module")
def compiled():
    """Return the compiled unit of a format, made once."""
    made = {}

    def of(fmt):
        cfg = BankUnitConfig(format=fmt)
        if fmt not in made:
            made[fmt] = StreamSimulation(BankUnit(cfg, library="pim"), merge_wires=False,
                                         parts=parts_of(cfg, "pim"))
        return cfg, made[fmt]

    return of


@pytest.mark.cxxrtl
@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "int8"])
def test_ten_thousand_columns_equal_golden_bit_for_bit(compiled, fmt):
    cfg, simulation = compiled(fmt)
    rng = np.random.default_rng(11)
    count = 10_000
    matrix, vector = (codes(fmt, (count, cfg.lanes), rng) for _ in range(2))
    first, last = ends(count, rng)
    payloads = words(beats(cfg, matrix, vector, first, last), column_layout(cfg).size)
    log = simulation.run({"i": (payloads, np.zeros(count))}, {"o": np.zeros(last.sum())})
    want = golden(fmt, matrix, vector, first, last)
    for place, (got, code) in enumerate(zip(log["o"].words[:, 0], want, strict=True)):
        assert int(got) == code, f"result {place}: {int(got):#x} != {code:#x} (golden)"
    # One column a cycle, and the formula's latency.
    assert log["i"].cycles.tolist() == list(range(count))
    ended = np.flatnonzero(last)
    assert (log["o"].cycles - ended == cfg.latency_cycles).all()
    if fmt != "int8":
        special = [code for code in want if code & 0x7F800000 == 0x7F800000]
        assert 50 < len(special) < len(want) - 500


@pytest.mark.cxxrtl
@pytest.mark.parametrize("seed", range(6))
def test_stalls_at_both_ends_move_cycles_as_a_row_of_registers_and_no_bit(compiled, seed):
    cfg, simulation = compiled("float16")
    rng = np.random.default_rng(seed)
    count = 400
    matrix, vector = (codes("float16", (count, cfg.lanes), rng) for _ in range(2))
    first, last = ends(count, rng)
    offered = np.cumsum(rng.integers(0, 4, count) * (rng.random(count) < 0.4))
    ready = np.cumsum(rng.integers(0, 24, last.sum()) * (rng.random(last.sum()) < 0.6))
    payloads = words(beats(cfg, matrix, vector, first, last), column_layout(cfg).size)
    log = simulation.run({"i": (payloads, offered)}, {"o": ready})
    assert log["o"].words[:, 0].tolist() == golden("float16", matrix, vector, first, last)
    ins, outs = expected_cycles(cfg, last, offered, ready)
    assert log["i"].cycles.tolist() == ins
    assert log["o"].cycles.tolist() == outs


@pytest.mark.parametrize("fmt, lanes", [("float16", 4), ("int8", 2)])
def test_amaranths_simulator_agrees_with_parts_inside(fmt, lanes):
    cfg = BankUnitConfig(format=fmt, lanes=lanes)
    rng = np.random.default_rng(7)
    matrix, vector = (codes(fmt, (30, lanes), rng) for _ in range(2))
    first, last = ends(30, rng)
    dut, got = BankUnit(cfg), []

    async def source(ctx):
        await drive(ctx, dut.i, beats(cfg, matrix, vector, first, last), list(range(0, 60, 2)))

    async def sink(ctx):
        got.extend((await collect(ctx, dut.o, [0] * int(last.sum())))[0])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(source)
    simulator.add_testbench(sink)
    simulator.run()
    assert got == golden(fmt, matrix, vector, first, last)


def test_the_sum_of_a_tree_is_not_that_of_a_row():
    # The order matters: the bit-exact tests above would see another one.
    w = np.array([[1.0, 2.0**-24, 2.0**-24, 0.0]])
    one = np.ones((1, 4))
    assert bank_sum(w, one, np.float32(0)) == 1.0
    swapped = np.array([[1.0, 0.0, 2.0**-24, 2.0**-24]])
    assert bank_sum(swapped, one, np.float32(0)) == np.float32(1) + np.float32(2.0**-23)


def test_golden_decodes_as_ml_dtypes_does():
    every = np.arange(1 << 16, dtype=np.uint16)
    for fmt, kind in (("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)):
        with np.errstate(invalid="ignore"):
            want = every.view(kind).astype(np.float64)
        np.testing.assert_array_equal(decode(every.astype(np.int64), FORMATS[fmt]), want)
