# amaranth: UnusedElaboratable=no
"""What the elements multiply equals golden: every input up to 20 bits, random ones beyond."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from golden.formats import integers
from hw.cxxrtl import StreamSimulation, pack_beats
from hw.pe_kinds import multiplier
from hw.stream import collect, drive
from machine.pe import PeConfig
from machine.systolic import SystolicConfig

CHUNK = 1 << 16  # vectors of one run
FIELD = 64  # bits of one product in the bench's answer


def element(kind: str, a: str, w: str, lanes: int = 1, depth: int = 1) -> SystolicConfig:
    """Return an array of one element of `kind` that multiplies formats `a` and `w`."""
    bits = [int("".join(filter(str.isdigit, name)) or 2) for name in (a, w)]
    pe = PeConfig(kind=kind, k_lanes=lanes, depth_cycles=depth,
                  **({"a_format": a, "w_format": w} if kind != "qoq" else {}))
    return SystolicConfig(rows=1, cols=1, a_bits=bits[0], w_bits=bits[1], acc_bits=64, pe=pe)


SIGNS = [("int", "int"), ("uint", "int"), ("int", "uint"), ("uint", "uint")]
# Each width on each side.
WIDTHS = [element("int_mac", f"{a}{bits}", f"{w}{17 - bits}")
          for bits in range(1, 17) for a, w in [SIGNS[bits % 4]]]
SMALL = [
    *(element("int_mac", f"{a}8", f"{w}8") for a, w in SIGNS),
    *(element("int_mac", f"{a}1", f"{w}1") for a, w in SIGNS),
    element("int_mac", "int3", "uint2", lanes=3),
    *(element("mixpe", f"{a}8", f"{w}4") for a, w in SIGNS),
    *(element("mixpe", "int8", f"{w}{bits}") for bits in (1, 2, 3, 8) for w in ("int", "uint")),
    element("mixpe", "int4", "int4", lanes=2),
    *(element("shift", a, f"shift{bits}") for a in ("int8", "uint8") for bits in (2, 3, 4)),
    element("shift", "int5", "shift3", lanes=2),
    *(element("ternary", a, "ternary") for a in ("int8", "uint8", "int1", "int15")),
    element("ternary", "int4", "ternary", lanes=2),
    *(element("bipolar", f"bipolar{a}", f"bipolar{w}") for a in range(1, 4) for w in range(1, 4)),
    element("bipolar", "bipolar1", "bipolar1", lanes=8),
    element("bipolar", "bipolar2", "bipolar1", lanes=5),
    element("bipolar", "bipolar4", "bipolar3", lanes=2),
    element("bipolar", "bipolar8", "bipolar8"),
]
LARGE = [  # 18 to 20 bits
    element("int_mac", "int16", "int4"), element("int_mac", "int4", "uint16"),
    element("int_mac", "int10", "int10"), element("mixpe", "int6", "int4", lanes=2),
    element("shift", "int16", "shift4"), element("ternary", "int16", "ternary"),
    element("ternary", "int8", "ternary", lanes=2), element("mixpe", "int12", "uint8"),
    element("bipolar", "bipolar8", "bipolar1", lanes=2),
    element("bipolar", "bipolar1", "bipolar1", lanes=9),
]
RANDOM = [
    *(element("int_mac", f"{a}16", f"{w}16") for a, w in SIGNS),
    element("int_mac", "int8", "int8", lanes=8), element("qoq", "int8", "int8", lanes=2),
    element("mixpe", "int8", "int4", lanes=4), element("mixpe", "int16", "uint8"),
    element("shift", "int8", "shift4", lanes=4), element("ternary", "int8", "ternary", lanes=8),
    element("bipolar", "bipolar4", "bipolar4", lanes=8),
    element("bipolar", "bipolar2", "bipolar1", lanes=32),
]
# More than one step: registers, and one bit a step.
STEPS = [
    *(element("int_mac", "int8", "int8", depth=depth) for depth in (2, 3)),
    element("bipolar", "bipolar2", "bipolar2", lanes=3, depth=3),
    *(element("bit_serial", f"{a}{16 - bits}", f"{w}{bits}")
      for bits in (1, 2, 3, 4, 8, 15) for a, w in (SIGNS[0], SIGNS[3])),
    element("bit_serial", "int8", "uint8", depth=2),
    element("bit_serial", "uint8", "int8", depth=3),
]


def width(cfg: SystolicConfig) -> int:
    """Return the bits of all inputs of an element's product."""
    return cfg.act_port_bits + cfg.weight_bits


class Bench(wiring.Component):
    """Gives a vector's low bits to every product, activations first; answers once all are there.

    Members
    -------
    i : In(stream)
        Vectors.
    o : Out(stream)
        A field of 64 bits for each product, signed.
    """

    def __init__(self, cfgs: list[SystolicConfig]):
        self.cfgs = cfgs
        self.steps = max(cfg.multiply_cycles for cfg in cfgs) + 1
        super().__init__({
            "i": In(stream.Signature(max(width(cfg) for cfg in cfgs))),
            "o": Out(stream.Signature(FIELD * len(cfgs))),
        })

    def elaborate(self, platform):
        m = Module()
        at, step = Signal(range(self.steps)), Signal()
        vector = Signal.like(self.i.payload)
        m.d.comb += vector.eq(self.i.payload)
        last = at == self.steps - 1
        m.d.comb += [
            self.o.valid.eq(self.i.valid & last),
            self.i.ready.eq(self.o.ready & last),
            step.eq(self.i.valid & (self.o.ready | ~last)),
        ]
        with m.If(step):
            m.d.sync += at.eq(0 if self.steps == 1 else at + 1)
            with m.If(last):
                m.d.sync += at.eq(0)
        for n, cfg in enumerate(self.cfgs):
            m.submodules[f"product_{n}"] = product = multiplier(cfg)
            m.d.comb += [
                product.en.eq(step),
                product.start.eq(at == 0),
                # After the first step, what is at the inputs does not count.
                product.act.eq(self.i.payload ^ (at != 0).replicate(len(product.act))),
                product.weight.eq((self.i.payload >> cfg.act_port_bits)
                                  ^ (at != 0).replicate(len(product.weight))),
            ]
            answer = Signal.like(product.o)
            with m.If(step & (at == cfg.multiply_cycles)):
                m.d.sync += answer.eq(product.o)
            now = product.o if cfg.multiply_cycles == self.steps - 1 else answer
            m.d.comb += self.o.payload.word_select(n, FIELD).eq(now)
        return m


def expected(cfg: SystolicConfig, bits: np.ndarray) -> np.ndarray:
    """Return the product, int64 [n], that golden makes of vectors of `bits` [n, width].

    The ternary code 0b10, which golden refuses, stands for zero.
    """
    lanes = cfg.pe.k_lanes

    def codes(low: int, each: int) -> np.ndarray:
        part = bits[:, low : low + lanes * each].reshape(-1, lanes, each).astype(np.int64)
        return part @ (1 << np.arange(each))

    a, w = codes(0, cfg.a_bits), codes(cfg.act_port_bits, cfg.w_bits)
    if cfg.pe.kind == "ternary":
        w = np.where(w == 2, 0, w)
    total = (integers(a, cfg.act_format) * integers(w, cfg.operand_format)).sum(axis=1)
    return total * bits[:, cfg.act_bits] if cfg.pe.fixed.masked else total


def compare(cfgs: list[SystolicConfig], words: np.ndarray, bits: np.ndarray) -> None:
    """Hold the answers `words` uint32 [n, ...] to golden's for vectors of `bits`."""
    got = np.ascontiguousarray(words).view("<i8")
    for n, cfg in enumerate(cfgs):
        want = expected(cfg, bits)
        for at in np.flatnonzero(got[:, n] != want)[:1]:
            pytest.fail(f"{cfg.pe} {cfg.act_format.name} by {cfg.operand_format.name}: inputs "
                        f"{bits[at, : width(cfg)].tolist()}: {got[at, n]} != {want[at]} (golden)")


def check(simulation: StreamSimulation, cfgs: list[SystolicConfig], bits: np.ndarray) -> None:
    """Run vectors of `bits` [n, widest] through the compiled bench of `cfgs`."""
    log = simulation.run({"i": (pack_beats(bits, 1), np.zeros(len(bits)))},
                         {"o": np.zeros(len(bits))}, max_cycles=len(bits) * 20)
    compare(cfgs, log["o"].words, bits)


def check_all(cfgs: list[SystolicConfig]) -> None:
    """Give every product of `cfgs` every input it has."""
    bench = Bench(cfgs)
    bits, simulation = len(bench.i.payload), StreamSimulation(bench)
    for start in range(0, 1 << bits, CHUNK):
        count = np.arange(start, min(start + CHUNK, 1 << bits))
        check(simulation, cfgs, count[:, None] >> np.arange(bits) & 1)


def corners(rng: np.random.Generator, cfg: SystolicConfig, count: int, wide: int) -> np.ndarray:
    """Return vectors [count, wide] whose lanes, as `cfg` has them, are mostly extreme codes."""
    bits = rng.integers(0, 2, (count, wide))
    low = 0
    for each, lanes, extra in ((cfg.a_bits, cfg.pe.k_lanes, cfg.act_port_bits - cfg.act_bits),
                               (cfg.w_bits, cfg.pe.k_lanes, 0)):
        extremes = np.zeros((4, each), np.int64)  # 0, -1 or the highest, the lowest, the highest
        extremes[1], extremes[2, -1], extremes[3, :-1] = 1, 1, 1
        chosen = extremes[rng.integers(0, 4, (count, lanes))].reshape(count, -1)
        bits[:, low : low + lanes * each] = chosen
        bits[:, low + lanes * each : low + lanes * each + extra] = 1
        low += lanes * each + extra
    return bits


@pytest.mark.cxxrtl
@pytest.mark.parametrize("cfgs", [[*WIDTHS, *SMALL], STEPS], ids=["one step", "more steps"])
def test_every_input_of_small_products(cfgs):
    assert max(width(cfg) for cfg in cfgs) <= 17
    check_all(cfgs)


@pytest.mark.cxxrtl
def test_every_input_of_products_of_twenty_bits():
    assert max(width(cfg) for cfg in LARGE) == 20
    check_all(LARGE)


@pytest.mark.cxxrtl
def test_random_inputs_and_corners_of_wide_products():
    rng = np.random.default_rng(0)
    bench = Bench(RANDOM)
    wide = len(bench.i.payload)
    vectors = [rng.integers(0, 2, (12_000, wide))]
    vectors += [corners(rng, cfg, 400, wide) for cfg in RANDOM]
    check(StreamSimulation(bench), RANDOM, np.concatenate(vectors))


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("a", ["int", "uint"])
@pytest.mark.parametrize("left", range(1, 17))
def test_every_pair_of_widths(a, left):
    # One model each: the compiler's time grows faster than the number of products.
    rng = np.random.default_rng([left, len(a)])
    cfgs = [element(kind, f"{a}{left}", f"{w}{right}")
            for right in range(1, 17) for w in ("int", "uint")
            for kind in (("int_mac", "mixpe") if right <= 8 else ("int_mac",))]
    bench = Bench(cfgs)
    vectors = [rng.integers(0, 2, (10_000, 32))] + [corners(rng, cfg, 40, 32) for cfg in cfgs]
    check(StreamSimulation(bench), cfgs, np.concatenate(vectors))


@pytest.mark.parametrize("cfgs", [[*WIDTHS[::3], *SMALL[::4]], STEPS[::2]],
                         ids=["one step", "more steps"])
def test_amaranths_simulator_agrees_on_the_same_vectors(cfgs):
    rng = np.random.default_rng(2)
    bench = Bench(cfgs)
    wide = len(bench.i.payload)
    bits = np.concatenate([corners(rng, cfg, 4, wide) for cfg in cfgs]
                          + [rng.integers(0, 2, (40, wide))])
    payloads = [int.from_bytes(word.tobytes(), "little") for word in pack_beats(bits, 1)]
    got: list[int] = []

    async def source(ctx):
        await drive(ctx, bench.i, payloads, [0] * len(payloads))

    async def sink(ctx):
        got.extend((await collect(ctx, bench.o, [0] * len(payloads)))[0])

    simulator = Simulator(bench)
    simulator.add_clock(1e-6)
    simulator.add_testbench(source)
    simulator.add_testbench(sink)
    simulator.run()
    words = np.array([list(value.to_bytes(8 * len(cfgs), "little")) for value in got], np.uint8)
    compare(cfgs, words.view("<u4"), bits)
