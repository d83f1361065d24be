# amaranth: UnusedElaboratable=no
"""Float arithmetic: every operation equals golden, on every pair of codes where there are few."""

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from golden import floats
from golden.convert import codes_of
from golden.formats import decode, encode
from golden.matmul import accumulate_float
from hw.cxxrtl import StreamSimulation
from hw.float_unit import FloatUnit
from hw.stream import collect, drive
from machine.floats import FloatConfig
from machine.formats import FORMATS
from machine.opcodes import Rounding

SMALL = ["float8_e4m3fn", "float8_e5m2", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn"]
CORNERS = {  # of float32: zeros, subnormals, powers, ties, the largest, infinities, NaNs
    "float32": [0, 1, 2, 3, 0x7FFFFF, 0x800000, 0x800001, 0x3F800000, 0x3F800001, 0x3F7FFFFF,
                0x34000000, 0x33800000, 0x33800001, 0x7F7FFFFF, 0x7F7FFFFE, 0x7F000000, 0x7F800000,
                0x7FC00000, 0x7F800001, 0x5F000000, 0x4EFFFFFF, 0x4F000000, 0x42FE0000, 0x42FF0000],
    "float16": [0, 1, 2, 3, 0x3FF, 0x400, 0x401, 0x3C00, 0x3C01, 0x3BFF, 0x1000, 0x7BFF, 0x7BFE,
                0x7C00, 0x7E00, 0x7C01],
    "bfloat16": [0, 1, 2, 3, 0x7F, 0x80, 0x81, 0x3F80, 0x3F81, 0x3F7F, 0x3B80, 0x7F7F, 0x7F00,
                 0x7F80, 0x7FC0, 0x7F81],
}


class Bench(wiring.Component):
    """Units side by side behind one stream: operands a, b, c at bits 0, 32, 64; results 32 apart.

    All results leave ``depth`` steps behind their operands; a unit of less depth is delayed.
    """

    def __init__(self, configs: list[FloatConfig]):
        self.configs = configs
        self.depth = max(cfg.latency_cycles for cfg in configs)
        super().__init__({"i": In(stream.Signature(96)),
                          "o": Out(stream.Signature(32 * len(configs)))})

    def elaborate(self, platform):
        m = Module()
        valid, results = Signal(self.depth + 1), []
        step = Signal()
        m.d.comb += [step.eq(self.o.ready | ~self.o.valid), self.i.ready.eq(step)]
        with m.If(step):
            m.d.sync += valid.eq(Cat(self.i.valid, valid))
        for index, cfg in enumerate(self.configs):
            m.submodules[f"unit_{index}"] = unit = FloatUnit(cfg)
            m.d.comb += unit.en.eq(step)
            for place, name in enumerate("abc"):
                if name in cfg.operands:
                    m.d.comb += getattr(unit, name).eq(self.i.payload.word_select(place, 32))
            result = unit.o
            for delay in range(self.depth - cfg.latency_cycles + 1):
                held = Signal(32, name=f"result_{index}_{delay}")
                with m.If(step):
                    m.d.sync += held.eq(result)
                result = held
            results.append(result)
        m.d.comb += [self.o.valid.eq(valid[-1]), self.o.payload.eq(Cat(results))]
        return m


def run(configs: list[FloatConfig], *operands: np.ndarray) -> list[np.ndarray]:
    """Return the codes each unit makes of the operands, with random waits, by CXXRTL."""
    words = np.zeros((len(operands[0]), 3), np.uint32)
    for place, codes in enumerate(operands):
        words[:, place] = codes
    rng = np.random.default_rng(3)
    waits = [np.cumsum(rng.integers(0, 4, len(words))) for _ in range(2)]
    simulation = StreamSimulation(Bench(configs), merge_wires=False)
    log = simulation.run({"i": (words, waits[0])}, {"o": waits[1]}, max_cycles=1 << 24)
    return list(log["o"].words.T)


def expected(cfg: FloatConfig, *operands: np.ndarray) -> np.ndarray:
    """Return golden's codes."""
    out = cfg.format_of("out")
    values = [decode(given & (2 ** cfg.format_of(name).bits - 1), cfg.format_of(name))
              for name, given in zip(cfg.operands, operands, strict=False)]
    with np.errstate(all="ignore"):
        match cfg.operation:
            case "convert":
                if cfg.to_integer:
                    held = np.where(np.isnan(values[0]), 0.0, values[0])
                    return codes_of(held, out, rounding=Rounding[cfg.rounding.upper()])
                result = values[0]
            case "add" | "multiply" | "divide" | "square_root":
                if out.name == "float32" and cfg.a == "float32":
                    return encode(getattr(floats, cfg.operation)(*values), out)
                # Of narrow formats: exact in float64, or with bits enough that rounding again is
                # rounding once (golden/floats.py).
                result = getattr(np, {"square_root": "sqrt"}.get(cfg.operation, cfg.operation))(
                    *values)
            case "multiply_add":
                kind = np.float16 if cfg.out == "float16" else np.float32
                a, b, c = values
                result = accumulate_float(
                    c.astype(kind)[:, None, None], a[:, None, None], b[:, None, None],
                    cfg.format_of("a"), cfg.format_of("b"))[:, 0, 0]
            case "maximum":
                result = floats.reduce_max(np.stack(values, axis=-1))
            case "compare":
                a, b = values
                return (a < b) + 2 * (a == b) + 4 * (np.isnan(a) | np.isnan(b))
        if not out.has_nan:
            result = np.where(np.isnan(result), 0.0, result)
        return encode(result, out, saturate=cfg.saturate)


def check(configs: list[FloatConfig], *operands: np.ndarray) -> None:
    """Hold every unit against golden; a few are compiled at a time, which is the fastest."""
    if len(configs) > 6:
        check(configs[6:], *operands)
        configs = configs[:6]
    for cfg, got in zip(configs, run(configs, *operands), strict=True):
        want = expected(cfg, *operands)
        wrong = np.flatnonzero(got != want)
        if wrong.size:
            j = wrong[0]
            given = [hex(int(codes[j])) for codes in operands]
            raise AssertionError(f"{cfg}: {wrong.size} wrong; vector {j} {given}: "
                                 f"{int(got[j]):#x} != {int(want[j]):#x} (golden)")


def codes(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` codes: a third at random, a third near one another, corners of either sign."""
    fmt = FORMATS[name]
    if not fmt.is_float:
        return rng.integers(0, 2**fmt.bits, count)
    sign = rng.integers(0, 2, count) << (fmt.bits - 1)
    wild = rng.integers(0, 2 ** (fmt.bits - 1), count)
    near = encode(rng.standard_normal(count) * 2.0 ** rng.integers(-3, 4, count), fmt)
    near = near & (2 ** (fmt.bits - 1) - 1)
    corner = rng.choice(CORNERS[name], count) if name in CORNERS else wild
    kind = rng.integers(0, 3, count)
    return np.choose(kind, [wild, near, corner]) | sign


def pairs(bits_a: int, bits_b: int) -> tuple[np.ndarray, np.ndarray]:
    """Return every pair of codes."""
    a, b = np.meshgrid(np.arange(1 << bits_a), np.arange(1 << bits_b), indexing="ij")
    return a.ravel(), b.ravel()


NARROW = [  # operation, format of the result ("" for the operands' own), saturate
    ("multiply", "", False), ("add", "", False), ("multiply_add", "float32", False),
    ("multiply", "", True), ("add", "float16", False), ("multiply_add", "float16", False),
    ("divide", "", False), ("square_root", "", False), ("maximum", "", False),
    ("compare", "", False), ("multiply", "float16", False), ("multiply", "float32", False),
    ("add", "float32", False), ("add", "", True),
]


def narrow_units(a: str, b: str, count: int) -> list[FloatConfig]:
    """Return the first `count` of `NARROW`, of operands of formats `a` and `b`."""
    return [FloatConfig(operation=operation, a=a, b=b, out=out or a, saturate=saturate)
            for operation, out, saturate in NARROW[:count]]


def check_every_pair(a: str, b: str, count: int) -> None:
    """Hold `count` units against golden on all pairs of codes, and what is added at random."""
    rng = np.random.default_rng(len(a) + len(b))
    every = pairs(FORMATS[a].bits, FORMATS[b].bits)
    halves = codes("float16", every[0].size, rng)
    added = codes("float32", every[0].size, rng) >> 16 << 16 | halves
    check(narrow_units(a, b, count), *every, added)


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name, count", [
    ("float8_e4m3fn", 6), ("float8_e5m2", 3), ("float6_e2m3fn", 3), ("float6_e3m2fn", 3),
    ("float4_e2m1fn", 10)])
def test_every_pair_of_codes_of_a_narrow_format(name, count):
    check_every_pair(name, name, count)


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("a", SMALL)
@pytest.mark.parametrize("b", SMALL)
def test_every_pair_of_codes_of_two_narrow_formats(a, b):
    check_every_pair(a, b, len(NARROW) if a == b else 6)


WIDE = [
    *(FloatConfig(operation=operation) for operation in (
        "add", "multiply", "divide", "square_root", "maximum", "compare", "multiply_add")),
    FloatConfig(operation="convert", out="float8_e4m3fn"),
    FloatConfig(operation="convert", out="float4_e2m1fn"),
    FloatConfig(operation="convert", out="float16"),
    FloatConfig(operation="convert", out="bfloat16", saturate=True),
    FloatConfig(operation="convert", out="int32"),
    FloatConfig(operation="convert", out="int8"),
    FloatConfig(operation="convert", out="uint8", rounding="toward_zero"),
    FloatConfig(operation="convert", out="int8", rounding="floor"),
    FloatConfig(operation="convert", a="int32"),
    FloatConfig(operation="convert", a="uint32", out="bfloat16"),
]
HALVES = [
    FloatConfig(operation="multiply_add", a="float16", b="float16", out="float32"),
    FloatConfig(operation="multiply_add", a="float16", b="int4", out="float32"),
    FloatConfig(operation="multiply_add", a="float16", b="int8", out="float16"),
    FloatConfig(operation="multiply_add", a="float16", b="float16", out="float16"),
    FloatConfig(operation="add", a="float16", b="float16", out="float16"),
    FloatConfig(operation="multiply", a="float16", b="float16", out="float16"),
    FloatConfig(operation="add", a="float32", b="float16", out="float32"),
]
BRAINS = [
    FloatConfig(operation="multiply_add", a="bfloat16", b="bfloat16", out="float32"),
    FloatConfig(operation="multiply", a="bfloat16", b="bfloat16", out="bfloat16"),
    FloatConfig(operation="add", a="bfloat16", b="bfloat16", out="bfloat16"),
]


@pytest.mark.cxxrtl
@pytest.mark.parametrize("units", [WIDE, HALVES, BRAINS], ids=["float32", "float16", "bfloat16"])
def test_wide_formats(units):
    rng = np.random.default_rng(1)
    for a, b in sorted({formats_of(cfg) for cfg in units}):
        some = [cfg for cfg in units if formats_of(cfg) == (a, b)]
        check(some, *(codes(name, 20_000, rng) for name in (a, b, "float32")))


def formats_of(cfg: FloatConfig) -> tuple[str, str]:
    return cfg.a, cfg.b if "b" in cfg.operands else cfg.a


def unary_units(name: str) -> list[FloatConfig]:
    """Return units of one operand, of a format of 16 bits."""
    return [
        FloatConfig(operation="square_root", a=name, b=name, out=name),
        *(FloatConfig(operation="convert", a=name, out=out)
          for out in ("float32", "float8_e4m3fn", "float8_e5m2", "int8")),
        FloatConfig(operation="convert", a=name, out="float6_e3m2fn", saturate=True),
    ]


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_code_of_sixteen_bits(name):
    check(unary_units(name), np.arange(1 << 16))


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("rounding", ["nearest_even", "toward_zero", "floor"])
def test_every_code_of_sixteen_bits_to_every_integer(name, rounding):
    units = [FloatConfig(operation="convert", a=name, out=out, rounding=rounding)
             for out in ("int2", "int4", "uint4", "int8", "uint8", "int16", "int32", "uint32")]
    check(units, np.arange(1 << 16))


PIPELINED = [
    *(FloatConfig(operation="multiply_add", a="float8_e4m3fn", b="int4", out="float16",
                  depth_cycles=depth) for depth in (0, 1, 3, 6)),
    FloatConfig(operation="divide", a="float4_e2m1fn", b="float4_e2m1fn", out="float4_e2m1fn",
                depth_cycles=8),
    FloatConfig(operation="convert", a="float8_e4m3fn", out="int4", depth_cycles=2),
]


@pytest.mark.cxxrtl
def test_registers_between_the_stages_add_their_steps_and_change_no_bit():
    # The bench delays each unit by what the deepest one has more: a wrong latency mixes vectors up.
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 256, 3000), rng.integers(0, 16, 3000)
    narrow = [cfg for cfg in PIPELINED if cfg.operation == "divide"]
    check([cfg for cfg in PIPELINED if cfg not in narrow] + narrow, a, b,
          codes("float16", 3000, rng))


@pytest.mark.parametrize("units", [
    [*WIDE[:1], *WIDE[4:7], FloatConfig(operation="square_root", depth_cycles=9)],
    [HALVES[0], FloatConfig(operation="multiply", a="float16", b="float16", out="bfloat16",
                            depth_cycles=4)],
    PIPELINED], ids=["float32", "float16", "pipelined"])
def test_amaranths_simulator_agrees_as_well(units):
    rng = np.random.default_rng(6)
    operands = [codes(name, 60, rng) for name in (units[0].a, formats_of(units[0])[1], "float32")]
    dut, got = Bench(units), []
    payloads = [sum(int(code) << 32 * place for place, code in enumerate(vector))
                for vector in zip(*operands, strict=True)]

    async def source(ctx):
        await drive(ctx, dut.i, payloads, list(range(0, 120, 2)))

    async def sink(ctx):
        got.extend((await collect(ctx, dut.o, [0] * 30 + [90] * 30))[0])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(source)
    simulator.add_testbench(sink)
    simulator.run()
    for place, cfg in enumerate(units):
        results = [payload >> 32 * place & 0xFFFFFFFF for payload in got]
        assert results == expected(cfg, *operands).tolist(), cfg


def test_nothing_moves_without_a_step_and_reset_clears():
    cfg = FloatConfig(operation="add", a="float16", b="float16", out="float16", depth_cycles=2)
    unit, seen = FloatUnit(cfg), []

    async def bench(ctx):
        for a, en in ((0x3C00, 1), (0x4000, 1), (0x4400, 0), (0x4400, 0), (0x4400, 1), (0, 1)):
            ctx.set(unit.a, a)
            ctx.set(unit.en, en)
            seen.append(ctx.get(unit.o))
            await ctx.tick()
        seen.append(ctx.get(unit.o))

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [0, 0, 0x3C00, 0x3C00, 0x3C00, 0x4000, 0x4400]
