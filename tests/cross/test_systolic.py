# amaranth: UnusedElaboratable=no
"""The array's RTL, simulator and golden agree: every sum and the cycle of every beat."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from archsim.systolic import transfers
from golden.systolic import assemble, lay_out, matmul, run
from hw.cxxrtl import StreamSimulation, pack_beats, unpack_beats
from hw.stream import collect, drive
from hw.systolic import Systolic
from machine.pe import PeConfig
from machine.systolic import (
    MAX_LENGTH,
    SystolicConfig,
    Tile,
    matmul_cycles,
    matmul_tiles,
    pack_tile,
)

DEEP = PeConfig(depth_cycles=2)
CONFIGS = [
    SystolicConfig(rows=1, cols=1, acc_rows=0),
    SystolicConfig(rows=1, cols=4, acc_rows=1),
    SystolicConfig(rows=4, cols=1, acc_rows=5, pe=DEEP),
    SystolicConfig(rows=2, cols=3, acc_rows=9),
    SystolicConfig(rows=3, cols=5, acc_rows=16, pe=DEEP),
    SystolicConfig(rows=4, cols=4, acc_rows=12, a_bits=5, w_bits=3, acc_bits=10),
    SystolicConfig(rows=5, cols=2, acc_rows=8, dataflows=("ws",)),
    SystolicConfig(rows=6, cols=3, acc_rows=7, dataflows=("os",), pe=DEEP),
    SystolicConfig(rows=3, cols=4, acc_rows=0, a_bits=16, w_bits=16, acc_bits=64),
    SystolicConfig(rows=8, cols=8, acc_rows=20),
    SystolicConfig(rows=4, cols=3, acc_rows=9, short_paths=True, pe=PeConfig(depth_cycles=5)),
]
LARGE = SystolicConfig(rows=12, cols=10, acc_rows=50, pe=DEEP)
MATMULS = 100  # random matmuls on each configuration
MIXES = 30  # random sequences of commands on each configuration


LONGEST = [
    Tile(dataflow="os", m=2, k=MAX_LENGTH),
    Tile(dataflow="ws", m=MAX_LENGTH, k=2),
    Tile(dataflow="os", m=1, k=0xA5A6),
    Tile(dataflow="ws", m=0x5A5B, k=1),
    *(Tile(dataflow="os", m=1, k=(1 << bit) + 1) for bit in range(16)),  # each bit of k_last alone
    *(Tile(dataflow="ws", m=(1 << bit) + 1, k=1) for bit in range(16)),
]


def name_of(cfg: SystolicConfig) -> str:
    return f"{cfg.rows}x{cfg.cols}-{'-'.join(cfg.dataflows)}-depth{cfg.pe.depth_cycles}"


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


def integers(rng: np.random.Generator, bits: int, shape: tuple[int, int]) -> np.ndarray:
    """Return random signed integers of `bits`, often extreme; at times all lowest: sums wrap."""
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    if rng.random() < 0.3:
        return np.full(shape, low)
    values = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < 0.2, rng.choice([low, high], shape), values)


def random_matmul(rng: np.random.Generator, cfg: SystolicConfig) -> tuple[int, int, int, str]:
    """Return random sizes m, n, k and a dataflow that `cfg` can execute."""
    dataflow = str(rng.choice(cfg.dataflows))
    longest = cfg.rows if dataflow == "ws" and cfg.acc_rows == 0 else 3 * cfg.rows + 2
    m, n = rng.integers(1, 3 * cfg.rows + 2), rng.integers(1, 3 * cfg.cols + 1)
    return int(m), int(n), int(rng.integers(1, longest + 1)), dataflow


def random_tiles(rng: np.random.Generator, cfg: SystolicConfig, count: int) -> list[Tile]:
    """Return `count` random commands that `cfg` can execute, dataflows mixed."""
    tiles = []
    for _ in range(count):
        dataflow = str(rng.choice(cfg.dataflows))
        lengths = {"m": int(rng.integers(1, 13)), "k": int(rng.integers(1, 13))}
        short = "k" if dataflow == "ws" else "m"
        lengths[short] = min(lengths[short], int(rng.integers(1, cfg.rows + 1)))
        stores = lengths["m"] <= cfg.acc_rows
        tiles.append(Tile(
            dataflow=dataflow, **lengths,
            accumulate=bool(stores and rng.integers(2)),
            emit=bool(not stores or rng.integers(2)),
            acc_row=int(rng.integers(0, cfg.acc_rows - lengths["m"] + 1)) if stores else 0,
        ))
    return tiles


def payloads(cfg: SystolicConfig, tiles: list[Tile], acts: np.ndarray, weights: np.ndarray):
    """Return the words of the three streams that enter."""
    commands = np.array([pack_tile(tile) for tile in tiles], "<u8").view("<u4").reshape(-1, 2)
    return {"i_commands": commands, "i_acts": pack_beats(acts, cfg.a_bits),
            "i_weights": pack_beats(weights, cfg.w_bits)}


def assert_same(what: str, got: np.ndarray, want: np.ndarray) -> None:
    """Fail with the first difference between the RTL and what it should be."""
    assert got.shape == want.shape, f"{what}: shape {got.shape}, want {want.shape}"
    for index in np.argwhere(got != want)[:1]:
        at = tuple(int(i) for i in index)
        pytest.fail(f"{what}{list(at)}: RTL {got[at]}, want {want[at]}")


def check(cfg: SystolicConfig, simulation: StreamSimulation, rng: np.random.Generator,
          tiles: list[Tile], acts: np.ndarray, weights: np.ndarray,
          times: dict[str, np.ndarray] | None = None) -> np.ndarray:
    """Run `tiles` under `times`, default random; hold RTL to golden and simulator; return sums."""
    times = times or schedule(rng, tiles)
    words = payloads(cfg, tiles, acts, weights)
    log = simulation.run(
        {name: (words[name], times[f"{name[2:]}_valid"]) for name in words},
        {"o_sums": times["sums_ready"]},
    )
    sums = unpack_beats(log["o_sums"].words, cfg.cols, cfg.acc_bits)
    assert_same("sums", sums, run(cfg, tiles, acts, weights))
    expected = transfers(cfg, tiles, **times)
    for stream, cycles in (("i_commands", expected.commands), ("i_acts", expected.acts),
                           ("i_weights", expected.weights), ("o_sums", expected.sums)):
        assert_same(f"cycles of {stream}", log[stream].cycles, cycles)
    return sums


@pytest.fixture(scope="module")
def compiled():
    """Return a function that compiles the array of a configuration, once a module."""
    known: dict[str, StreamSimulation] = {}

    def get(cfg: SystolicConfig) -> StreamSimulation:
        if repr(cfg) not in known:
            known[repr(cfg)] = StreamSimulation(Systolic(cfg))
        return known[repr(cfg)]

    return get


def check_random_cases(cfg: SystolicConfig, simulation: StreamSimulation, seed: int) -> None:
    """Check random matmuls, whole, and then random sequences of commands."""
    rng = np.random.default_rng([cfg.rows, cfg.cols, seed])
    for _ in range(MATMULS):
        m, n, k, dataflow = random_matmul(rng, cfg)
        a, w = integers(rng, cfg.a_bits, (m, k)), integers(rng, cfg.w_bits, (k, n))
        works = list(matmul_tiles(cfg, m, n, k, dataflow))
        tiles = [work.tile for work in works]
        sums = check(cfg, simulation, rng, tiles, *lay_out(cfg, works, a, w))
        assert_same("product", assemble(works, sums, m, n), matmul(a, w, cfg.acc_bits))
    for _ in range(MIXES):
        tiles = random_tiles(rng, cfg, 10)
        acts = integers(rng, cfg.a_bits, (sum(t.act_beats for t in tiles), cfg.rows))
        weights = integers(rng, cfg.w_bits, (sum(t.weight_beats for t in tiles), cfg.cols))
        check(cfg, simulation, rng, tiles, acts, weights)


def check_tiles(cfg: SystolicConfig, simulation: StreamSimulation, tiles: list[Tile], *,
                seed: int = 0, slow_sums: bool = False) -> None:
    """Check `tiles` on random numbers; `slow_sums`: only the sums wait, and hold all else up."""
    rng = np.random.default_rng([cfg.rows, cfg.cols, seed])
    acts = integers(rng, cfg.a_bits, (sum(t.act_beats for t in tiles), cfg.rows))
    weights = integers(rng, cfg.w_bits, (sum(t.weight_beats for t in tiles), cfg.cols))
    times = schedule(rng, tiles)
    if slow_sums:
        times = {name: np.zeros_like(cycles) for name, cycles in times.items()}
        times["sums_ready"] = np.cumsum(rng.integers(0, 9, len(times["sums_ready"])))
    check(cfg, simulation, rng, tiles, acts, weights, times)


def check_slow_sums(cfg: SystolicConfig, simulation: StreamSimulation, seeds: int) -> None:
    """Check random commands whose sums are taken slowly, so that the array often stands still."""
    for seed in range(seeds):
        rng = np.random.default_rng([cfg.rows, cfg.cols, seed])
        check_tiles(cfg, simulation, random_tiles(rng, cfg, 12), seed=seed, slow_sums=True)


@pytest.mark.cxxrtl
@pytest.mark.parametrize("cfg", CONFIGS, ids=name_of)
def test_nothing_moves_while_two_rows_of_sums_wait(cfg, compiled):
    check_slow_sums(cfg, compiled(cfg), 20)


@pytest.mark.cxxrtl
def test_tiles_of_the_greatest_length_count_every_beat(compiled):
    check_tiles(CONFIGS[3], compiled(CONFIGS[3]), LONGEST)


@pytest.mark.cxxrtl
@pytest.mark.parametrize("cfg", CONFIGS, ids=name_of)
def test_matmuls_and_mixed_commands_with_random_stalls_on_all_streams(cfg, compiled):
    check_random_cases(cfg, compiled(cfg), seed=0)


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("cfg", [*CONFIGS, LARGE], ids=name_of)
def test_many_more_cases_and_a_larger_array(cfg, compiled):
    for seed in range(1, 11):
        check_random_cases(cfg, compiled(cfg), seed)


def test_at_least_a_thousand_random_matmuls_are_compared():
    assert MATMULS * len(CONFIGS) >= 1000


@pytest.mark.cxxrtl
@pytest.mark.parametrize("cfg", CONFIGS[:5], ids=name_of)
def test_unstalled_matmul_takes_the_cycles_of_the_closed_form(cfg, compiled):
    rng = np.random.default_rng(7)
    for _ in range(20):
        m, n, k, dataflow = random_matmul(rng, cfg)
        works = list(matmul_tiles(cfg, m, n, k, dataflow))
        tiles = [work.tile for work in works]
        beats = lay_out(cfg, works, np.ones((m, k), int), np.ones((k, n), int))
        words = payloads(cfg, tiles, *beats)
        log = compiled(cfg).run(
            {name: (word, np.zeros(len(word))) for name, word in words.items()},
            {"o_sums": np.zeros(sum(tile.sum_beats for tile in tiles))},
        )
        total = matmul_cycles(cfg, m, n, k, dataflow).total_cycles
        assert log["o_sums"].cycles[-1] + 1 == total, (m, n, k, dataflow)


def in_amaranth(cfg: SystolicConfig, words: dict[str, np.ndarray], times: dict[str, np.ndarray]):
    """Run the array in Amaranth's simulator; return the cycles of each stream and the sums."""
    dut = Systolic(cfg)
    result: dict[str, list[int]] = {}

    def source(name: str):
        port = getattr(dut, name)
        values = [int.from_bytes(word.tobytes(), "little") for word in words[name]]

        async def bench(ctx):
            result[name] = await drive(ctx, port, values, times[f"{name[2:]}_valid"])
        return bench

    async def sink(ctx):
        result["sums"], result["o_sums"] = await collect(ctx, dut.o_sums, times["sums_ready"])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for name in words:
        simulator.add_testbench(source(name))
    simulator.add_testbench(sink)
    simulator.run()
    mask = (1 << cfg.acc_bits) - 1
    sums = [[beat >> col * cfg.acc_bits & mask for col in range(cfg.cols)]
            for beat in result["sums"]]
    return result, np.array(sums, np.uint64).reshape(-1, cfg.cols)


@pytest.mark.parametrize("seed", range(20))
def test_amaranths_simulator_agrees_as_well(seed):
    rng = np.random.default_rng(seed)
    cfg = SystolicConfig(rows=int(rng.integers(1, 5)), cols=int(rng.integers(1, 5)),
                         acc_rows=int(rng.integers(0, 14)),
                         pe=PeConfig(depth_cycles=int(rng.integers(1, 3))))
    tiles = random_tiles(rng, cfg, 6)
    acts = integers(rng, cfg.a_bits, (sum(t.act_beats for t in tiles), cfg.rows))
    weights = integers(rng, cfg.w_bits, (sum(t.weight_beats for t in tiles), cfg.cols))
    times = schedule(rng, tiles)
    cycles, sums = in_amaranth(cfg, payloads(cfg, tiles, acts, weights), times)
    want = run(cfg, tiles, acts, weights).astype(np.uint64) & np.uint64((1 << cfg.acc_bits) - 1)
    assert_same("sums", sums, want)
    expected = transfers(cfg, tiles, **times)
    for stream, want_cycles in (("i_commands", expected.commands), ("i_acts", expected.acts),
                                ("i_weights", expected.weights), ("o_sums", expected.sums)):
        assert_same(f"cycles of {stream}", np.array(cycles[stream], np.int64), want_cycles)
