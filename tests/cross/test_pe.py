# amaranth: UnusedElaboratable=no
"""Arrays of every kind of element: RTL, simulator and golden agree, stalls on every stream.

A few arrays are compiled into one model and run side by side, each on tiles and a schedule of its
own.
"""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.sim import Simulator

from archsim.systolic import Transfers, transfers
from golden.pe import accumulate, operand
from golden.systolic import assemble, lay_out, run
from hw.cxxrtl import StreamSimulation, pack_beats, unpack_beats
from hw.pe import Element
from hw.pe_integer import IntAdd
from hw.stream import collect, drive
from hw.systolic import Systolic
from machine.formats import Format, Kind
from machine.pe import PeConfig
from machine.systolic import SystolicConfig, Tile, matmul_cycles, matmul_tiles, pack_tile

OS = ("os",)
ROUNDS = 14  # runs of each array
GROUP = 4  # arrays in one compiled model
TILES = 6  # commands of each array in a run


def array(rows: int, cols: int, kind: str = "int_mac", a_bits: int = 8, w_bits: int = 8, *,
          dataflows=("os", "ws"), acc_bits: int = 32, **pe) -> SystolicConfig:
    return SystolicConfig(rows=rows, cols=cols, acc_rows=9, a_bits=a_bits, w_bits=w_bits,
                          acc_bits=acc_bits, dataflows=dataflows, pe=PeConfig(kind=kind, **pe))


ARRAYS = [
    array(2, 2, "int_mac", 1, 1, a_format="uint1", w_format="int1", acc_bits=3),
    array(3, 2, "int_mac", 4, 3, a_format="uint4", w_format="uint3", k_lanes=3, depth_cycles=3),
    array(2, 2, "int_mac", 16, 16, acc_bits=64, a_format="uint16"),
    array(3, 2, "mixpe", 8, 4, w_format="uint4", depth_cycles=2),
    array(2, 3, "mixpe", 8, 4, k_lanes=2, depth_cycles=5),
    array(2, 2, "shift", 8, 4, depth_cycles=4),
    array(3, 2, "ternary", 8, 2, k_lanes=2),
    array(2, 2, "bipolar", 2, 1, k_lanes=5, depth_cycles=2),
    array(3, 2, "bipolar", 3, 2, k_lanes=2, acc_bits=12),
    array(2, 2, "bit_serial", 8, 4),
    array(3, 2, "bit_serial", 8, 3, w_format="uint3", depth_cycles=2),
    array(2, 2, "bit_serial", 8, 1, dataflows=("ws",)),
    array(3, 2, dataflows=OS, add_cycles=2, partial_sums=2),
    array(2, 2, dataflows=OS, add_cycles=3, partial_sums=3, depth_cycles=2),
    array(3, 2, dataflows=OS, add_cycles=5, partial_sums=3),
    array(2, 2, dataflows=OS, add_cycles=3, k_lanes=2),
    array(2, 1, "bit_serial", 4, 2, dataflows=OS, add_cycles=4, partial_sums=2, depth_cycles=5),
    array(3, 2, depth_cycles=5),
    replace(array(3, 2, "bit_serial", 8, 3), short_paths=True),
]


def name_of(cfg: SystolicConfig) -> str:
    pe = cfg.pe
    return (f"{cfg.rows}x{cfg.cols}-{pe.kind}-lanes{pe.k_lanes}-depth{cfg.depth_cycles}"
            f"-sums{pe.partial_sums}")


class Arrays(wiring.Component):
    """Arrays side by side; the streams of number n end in ``_n``.

    Members
    -------
    """

    def __init__(self, cfgs: list[SystolicConfig]):
        self.arrays = [Systolic(cfg) for cfg in cfgs]
        super().__init__({f"{name}_{n}": member for n, array in enumerate(self.arrays)
                          for name, member in array.signature.members.items()})

    def elaborate(self, platform):
        m = Module()
        for n, part in enumerate(self.arrays):
            m.submodules[f"array_{n}"] = part
            for name, member in part.signature.members.items():
                inner, outer = getattr(part, name), wiring.flipped(getattr(self, f"{name}_{n}"))
                ends = (outer, inner) if member.flow is wiring.In else (inner, outer)
                wiring.connect(m, *ends)
        return m


def stalls(rng: np.random.Generator, beats: int) -> np.ndarray:
    """Return random times for the beats of one stream: none, few, many or long waits."""
    most, chance = [(1, 0.0), (2, 0.3), (4, 0.8), (25, 0.2)][rng.integers(4)]
    return np.cumsum(rng.integers(0, most, beats) * (rng.random(beats) < chance))


def schedule(rng: np.random.Generator, tiles: list[Tile]) -> dict[str, np.ndarray]:
    """Return random times for all four streams, as `transfers` takes them."""
    return {
        "commands_valid": stalls(rng, len(tiles)),
        "acts_valid": stalls(rng, sum(tile.act_beats for tile in tiles)),
        "weights_valid": stalls(rng, sum(tile.weight_beats for tile in tiles)),
        "sums_ready": stalls(rng, sum(tile.sum_beats for tile in tiles)),
    }


def codes(rng: np.random.Generator, fmt: Format, shape: tuple[int, int]) -> np.ndarray:
    """Return random codes of `fmt`, often extreme; at times all alike, so that sums wrap."""
    highest = (1 << fmt.bits) - 1
    extremes = [0, highest // 2, highest // 2 + 1, highest]
    legal = np.array([0, 1, 3]) if fmt.kind is Kind.TERNARY else np.arange(highest + 1)
    if rng.random() < 0.3:
        return np.full(shape, rng.choice(np.intersect1d(extremes, legal)))
    often = rng.choice(np.intersect1d(extremes, legal), shape)
    return np.where(rng.random(shape) < 0.3, often, rng.choice(legal, shape))


def random_tiles(rng: np.random.Generator, cfg: SystolicConfig) -> list[Tile]:
    """Return random commands that `cfg` can execute, dataflows mixed."""
    tiles = []
    for _ in range(TILES):
        dataflow = str(rng.choice(cfg.dataflows))
        m, k = (int(size) for size in rng.integers(1, 10, 2))
        short = int(rng.integers(1, cfg.rows + 1))
        m, k = (m, short) if dataflow == "ws" else (short, k)
        tiles.append(Tile(dataflow=dataflow, m=m, k=k, accumulate=bool(rng.integers(2)),
                          emit=bool(rng.integers(2)),
                          acc_row=int(rng.integers(0, cfg.acc_rows - m + 1))))
    return tiles


def words_of(cfg: SystolicConfig, tiles: list[Tile], acts, weights) -> dict[str, np.ndarray]:
    """Return the payloads of the streams that enter an array."""
    commands = np.array([pack_tile(tile) for tile in tiles], "<u8").view("<u4").reshape(-1, 2)
    return {"commands": commands, "acts": pack_beats(acts, cfg.a_bits),
            "weights": pack_beats(weights, cfg.w_bits)}


def assert_same(what: str, got: np.ndarray, want: np.ndarray) -> None:
    """Fail with the first difference between the RTL and what it should be."""
    assert got.shape == want.shape, f"{what}: shape {got.shape}, want {want.shape}"
    for index in np.argwhere(got != want)[:1]:
        at = tuple(int(i) for i in index)
        pytest.fail(f"{what}{list(at)}: RTL {got[at]}, want {want[at]}")


def assert_cycles(what: str, got: dict[str, np.ndarray], want: Transfers) -> None:
    for stream in ("commands", "acts", "weights", "sums"):
        assert_same(f"{what}: cycles of {stream}", got[stream], getattr(want, stream))


@pytest.fixture(scope="module", params=range(0, len(ARRAYS), GROUP))
def compiled(request) -> tuple[list[SystolicConfig], StreamSimulation]:
    """Return some of the arrays and their model."""
    cfgs = ARRAYS[request.param : request.param + GROUP]
    return cfgs, StreamSimulation(Arrays(cfgs))


def simulate(simulation: StreamSimulation, jobs) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Run (cfg, tiles, acts, weights, times) of every array; return cycles and sums of each."""
    inputs, outputs = {}, {}
    for n, (cfg, tiles, acts, weights, times) in enumerate(jobs):
        for name, words in words_of(cfg, tiles, acts, weights).items():
            inputs[f"i_{name}_{n}"] = words, times[f"{name}_valid"]
        outputs[f"o_sums_{n}"] = times["sums_ready"]
    log = simulation.run(inputs, outputs)
    found = []
    for n, (cfg, *_) in enumerate(jobs):
        cycles = {name: log[f"i_{name}_{n}"].cycles for name in ("commands", "acts", "weights")}
        cycles["sums"] = log[f"o_sums_{n}"].cycles
        found.append((cycles, unpack_beats(log[f"o_sums_{n}"].words, cfg.cols, cfg.acc_bits)))
    return found


def random_job(rng: np.random.Generator, cfg: SystolicConfig):
    """Return random tiles of `cfg`, codes for them and a schedule."""
    tiles, lanes = random_tiles(rng, cfg), cfg.pe.k_lanes
    acts = codes(rng, cfg.act_format, (sum(t.act_beats for t in tiles), cfg.rows * lanes))
    weights = codes(rng, cfg.operand_format,
                    (sum(t.weight_beats for t in tiles), cfg.cols * lanes))
    return cfg, tiles, acts, weights, schedule(rng, tiles)


def check(compiled, seed: int) -> None:
    """Hold random jobs on all arrays of a model to golden and the simulator."""
    cfgs, simulation = compiled
    rng = np.random.default_rng(seed)
    jobs = [random_job(rng, cfg) for cfg in cfgs]
    for job, (cycles, sums) in zip(jobs, simulate(simulation, jobs), strict=True):
        cfg, tiles, acts, weights, times = job
        assert_same(f"{name_of(cfg)}: sums", sums, run(cfg, tiles, acts, weights))
        assert_cycles(name_of(cfg), cycles, transfers(cfg, tiles, **times))


@pytest.mark.cxxrtl
def test_every_kind_with_random_stalls_on_all_streams(compiled):
    for seed in range(ROUNDS):
        check(compiled, seed)


def test_at_least_two_hundred_random_cases_are_compared():
    assert ROUNDS * len(ARRAYS) >= 200


@pytest.mark.cxxrtl
def test_unstalled_matmuls_take_the_cycles_of_the_closed_form(compiled):
    cfgs, simulation = compiled
    rng = np.random.default_rng(1)
    for _ in range(6):
        jobs, sizes = [], []
        for cfg in cfgs:
            dataflow = str(rng.choice(cfg.dataflows))
            lanes = cfg.pe.k_lanes
            m, n = int(rng.integers(1, 9)), int(rng.integers(1, 2 * cfg.cols + 1))
            k = int(rng.integers(1, 4 * cfg.rows + 1)) * lanes
            k -= int(rng.integers(lanes)) if not cfg.pe.fixed.masked else 0
            a, w = codes(rng, cfg.act_format, (m, k)), codes(rng, cfg.operand_format, (k, n))
            works = list(matmul_tiles(cfg, m, n, k, dataflow))
            tiles = [work.tile for work in works]
            times = {name: np.zeros_like(value) for name, value in schedule(rng, tiles).items()}
            jobs.append((cfg, tiles, *lay_out(cfg, works, a, w), times))
            sizes.append((works, a, w, m, n, k, dataflow))
        for job, size, (cycles, sums) in zip(jobs, sizes, simulate(simulation, jobs), strict=True):
            cfg, (works, a, w, m, n, k, dataflow) = job[0], size
            total = matmul_cycles(cfg, m, n, k, dataflow).total_cycles
            assert cycles["sums"][-1] + 1 == total, (name_of(cfg), m, n, k, dataflow)
            whole = exact(cfg, a, w)
            assert_same(f"{name_of(cfg)}: product", assemble(works, sums, m, n), whole)


def exact(cfg: SystolicConfig, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the product of codes `a` [M, K] and `w` [K, N] in Python integers, then wrapped."""
    numbers = [[[number(int(code), fmt.kind.value, fmt.bits, fmt.signed) for code in row]
                for row in codes] for codes, fmt in ((a, cfg.act_format), (w, cfg.operand_format))]
    out = np.zeros((a.shape[0], w.shape[1]), np.int64)
    for i, row in enumerate(numbers[0]):
        for j in range(w.shape[1]):
            total = sum(x * line[j] for x, line in zip(row, numbers[1], strict=True))
            total &= (1 << cfg.acc_bits) - 1
            out[i, j] = total - (total >> cfg.acc_bits - 1 << cfg.acc_bits)
    return out


def number(code: int, kind: str, bits: int, signed: bool) -> int:
    """Return what a code stands for, worked out bit by bit."""
    match kind:
        case "bipolar":
            return sum((1 if code >> bit & 1 else -1) << bit for bit in range(bits))
        case "ternary":
            return {0: 0, 1: 1, 3: -1}[code]
        case "shift":
            power = code & (1 << bits - 1) - 1
            return -(1 << power) if code >> bits - 1 else 1 << power
    return code - (1 << bits) if signed and code >> bits - 1 else code


@pytest.mark.slow
@pytest.mark.cxxrtl
def test_many_more_random_cases(compiled):
    for seed in range(100, 250):
        check(compiled, seed)


@pytest.mark.parametrize("cfg", [cfg for cfg in ARRAYS if cfg.pe.kind not in ("int_mac", "qoq")],
                         ids=name_of)
def test_an_element_without_a_multiplier_has_none(cfg):
    assert "$mul" not in rtlil.convert(Element(cfg), emit_src=False)


def test_the_integer_element_has_one_multiplier_a_lane():
    text = rtlil.convert(Element(array(2, 2, k_lanes=3)), emit_src=False)
    assert text.count("cell $mul ") == 3


def in_amaranth(cfg: SystolicConfig, tiles: list[Tile], acts, weights, times):
    """Run the array in Amaranth's simulator; return the cycles of each stream and the sums' codes.
    """
    dut = Systolic(cfg)
    cycles: dict[str, list[int]] = {}
    got: list[int] = []

    def source(name: str, words: np.ndarray):
        payloads = [int.from_bytes(word.tobytes(), "little") for word in words]

        async def bench(ctx):
            port = getattr(dut, f"i_{name}")
            cycles[name] = await drive(ctx, port, payloads, times[f"{name}_valid"])
        return bench

    async def sink(ctx):
        sums, cycles["sums"] = await collect(ctx, dut.o_sums, times["sums_ready"])
        got.extend(sums)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for name, words in words_of(cfg, tiles, acts, weights).items():
        simulator.add_testbench(source(name, words))
    simulator.add_testbench(sink)
    simulator.run()
    mask = (1 << cfg.acc_bits) - 1
    sums = [[beat >> col * cfg.acc_bits & mask for col in range(cfg.cols)] for beat in got]
    return {name: np.array(value, np.int64) for name, value in cycles.items()}, sums


@pytest.mark.parametrize("cfg", ARRAYS[::2], ids=name_of)
def test_amaranths_simulator_agrees_as_well(cfg):
    _, *job = random_job(np.random.default_rng(3), cfg)
    cycles, sums = in_amaranth(cfg, *job)
    tiles, acts, weights, times = job
    want = run(cfg, tiles, acts, weights).astype(object) & (1 << cfg.acc_bits) - 1
    assert sums == want.tolist()
    assert_cycles(name_of(cfg), cycles, transfers(cfg, tiles, **times))


class Ordered(IntAdd):
    """An adder that shows the order of addition: 31 x + p, and 31 x + 17 y for two sums."""

    __doc__ = IntAdd.__doc__

    def elaborate(self, platform):
        m = Module()
        total = self.addend * 31 + Mux(self.merge, self.other * 17, self.product)
        for i in range(self.cycles - 1):
            later = Signal(self.cfg.acc_bits, name=f"total_{i}")
            with m.If(self.en):
                m.d.sync += later.eq(total)
            total = later
        m.d.comb += self.o.eq(total)
        return m


def ordered_sums(cfg: SystolicConfig, dataflow: str, acts, weights) -> np.ndarray:
    """Return the sums of a tile, added by `Ordered` in the order of `golden.pe.accumulate`."""
    mask = (1 << cfg.acc_bits) - 1
    a = operand(acts, cfg.act_format).astype(object)
    w = operand(weights, cfg.operand_format).astype(object)
    return accumulate(
        cfg, dataflow, a.shape[1], np.zeros((len(a), w.shape[-1]), object),
        lambda sums, beat: (sums * 31 + a[:, beat] @ w[beat]) & mask,
        lambda sums, others: (sums * 31 + others * 17) & mask)


@pytest.mark.parametrize("cfg", [
    array(3, 2, k_lanes=2), array(2, 2, depth_cycles=3), array(2, 1, "bit_serial", 8, 3),
    array(3, 2, dataflows=OS, add_cycles=2, partial_sums=2),
    array(2, 2, dataflows=OS, add_cycles=5, partial_sums=3, depth_cycles=2),
    array(2, 2, dataflows=OS, add_cycles=4, partial_sums=4),
    array(2, 2, dataflows=OS, add_cycles=3),
], ids=name_of)
def test_sums_are_added_in_the_order_of_golden(cfg, monkeypatch):
    mask = (1 << cfg.acc_bits) - 1
    monkeypatch.setattr("hw.pe.adder", Ordered)
    monkeypatch.setattr("hw.systolic.adder", Ordered)
    monkeypatch.setattr("golden.systolic.tile_sums", ordered_sums)
    monkeypatch.setattr("golden.systolic.add",
                        lambda cfg, stored, sums: (stored.astype(object) * 31 + sums * 17) & mask)
    for seed in range(2):
        _, *job = random_job(np.random.default_rng(seed), cfg)
        _, sums = in_amaranth(cfg, *job)
        assert sums == (run(cfg, *job[:3]).astype(object) & mask).tolist()
