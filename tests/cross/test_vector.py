# amaranth: UnusedElaboratable=no
"""The vector unit's RTL, simulator and golden agree: every result and the cycle of every beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.sim import Simulator

from archsim.vector_core import transfers
from golden.formats import decode, encode
from golden.vector_core import beats_of, results
from hw.cxxrtl import StreamSimulation
from hw.stream import collect, drive
from hw.vector import Vector
from hw.vector_lane import Lane
from machine.approx import rotary_steps
from machine.formats import FORMATS
from machine.vector import Mask, ReductionOrder
from machine.vector_core import (
    LOOPS,
    QUANTISED,
    QUANTISERS,
    WHOLE_INPUTS,
    VectorCommand,
    VectorCoreConfig,
    command_cycles,
    done_cycles,
    pack_command,
)
from machine.vector_programs import Code

CYCLES_MAX = 20_000_000  # of a run
CFG = VectorCoreConfig(lanes=4, row_elements=64)
SMALL = VectorCoreConfig(lanes=2, row_elements=8, unit_cycles=1)
FLOATS = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
INTEGERS = ("int32", "int4", "uint4", "int8", "uint8", "int16", "uint16")
CURVES = (Code.RELU, Code.EXP, Code.SIGMOID, Code.SILU, Code.GELU, Code.GELU_TANH, Code.TANH)
ELEMENTWISE = (*CURVES, Code.COPY, Code.ADD, Code.MULTIPLY, Code.SCALE)
POOLS = (Code.MEAN_POOL, Code.MEAN_POOL_MASKED)
BITS = {name: FORMATS[name].bits for name in FLOATS + INTEGERS}
CORNERS = {  # zeros, the least and largest of each kind, one, infinities, NaNs, near exp's ends
    "float32": (0, 1, 0x7FFFFF, 0x800000, 0x3F800000, 0x3F800001, 0x7F7FFFFF, 0x7F800000,
                0x7FC00000, 0x7F800001, 0x42B17218, 0x42CFF1B5, 0x42B20000, 0x42D00000),
    "float16": (0, 1, 0x3FF, 0x400, 0x3C00, 0x3C01, 0x7BFF, 0x7C00, 0x7E00, 0x7C01, 0x558C),
    "bfloat16": (0, 1, 0x7F, 0x80, 0x3F80, 0x3F81, 0x7F7F, 0x7F80, 0x7FC0, 0x7F81, 0x42B1),
    "float8_e4m3fn": (0, 1, 7, 8, 0x38, 0x39, 0x7E, 0x7F), "float8_e5m2": (0, 1, 3, 4, 0x3C, 0x7B,
                                                                        0x7C, 0x7E),
    "int32": (0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x1000001, 0xFFFF, 0x10000),
}


@dataclass(frozen=True)
class Work:
    """A command, the parts of its streams, and what golden sends."""

    command: VectorCommand
    x: list[np.ndarray]
    y: list[np.ndarray]
    once: list[np.ndarray]


def codes(rng: np.random.Generator, name: str, shape: tuple[int, int], *, corners: float = 0.1,
          finite: bool = False) -> np.ndarray:
    """Return random codes: numbers of mixed magnitudes, some of any bits, some corners."""
    bits = BITS[name]
    drawn = rng.integers(0, 1 << bits, shape, dtype=np.uint64).astype(np.uint32)
    if name in INTEGERS and name != "int32":
        return drawn
    if name == "int32":
        mixed = drawn.astype(np.int32) >> rng.integers(0, 31, shape)
        special = np.array(CORNERS[name], np.uint32)
        return np.where(rng.random(shape) < corners, rng.choice(special, shape),
                        mixed.astype(np.uint32))
    values = (rng.normal(size=shape) * np.exp2(rng.integers(-6, 5, shape))).astype(np.float32)
    plain = encode(values, FORMATS[name]).astype(np.uint32)
    sign = (rng.integers(0, 2, shape) << bits - 1).astype(np.uint32)
    special = rng.choice(np.array(CORNERS[name], np.uint32), shape) | sign
    pick = rng.random(shape)
    made = np.where(pick < corners, special, np.where(pick < 2 * corners, drawn, plain))
    return np.where(np.isfinite(decode(made, FORMATS[name])), made, plain) if finite else made


def make(rng: np.random.Generator, cfg: VectorCoreConfig, code: Code, rows: int, width: int,
         fmt: str | None = None) -> Work:
    """Return a command of `code` and random data, all floats of format `fmt` or of any."""
    def some() -> str:
        return fmt or str(rng.choice(FLOATS))
    x_format = str(rng.choice(INTEGERS)) if code in WHOLE_INPUTS else some()
    y_format = "int32" if code is Code.ROPE else some()
    mask = Mask(int(rng.integers(3))) if code in (Code.SOFTMAX, Code.SOFTMAX_STATE) else Mask.NONE
    repeats = 1 + int(rng.integers(min(width, 4))) if code in LOOPS else 1
    positive = np.float32(2.0 ** rng.integers(-12, 2) * (1 + rng.random()))
    command = VectorCommand(
        code=code, rows=rows, width=width, x_format=x_format, y_format=y_format,
        o_format=str(rng.choice(QUANTISED)) if code in QUANTISERS else some(), mask=mask,
        repeats=repeats,
        order=ReductionOrder(int(rng.integers(2))), window=int(rng.integers(0, 2 * width)),
        position=int(rng.choice([0, 3, width, 70_001, (1 << 32) - 1 - rows])) if mask is Mask.NONE
        else int(rng.integers(0, 2 * width)),
        saturate=bool(rng.integers(2)), value=int(positive.view(np.uint32)))
    # Rows of one wild number after the other say little of sums: most rows have few.
    corners = 0.15 if code in ELEMENTWISE else float(rng.choice([0, 0.01, 0.1]))
    finite = code in QUANTISERS
    sizes = {Code.MERGE: [2, width], Code.ROPE: 2 * [width]}.get(
        code, [width] * (repeats if code in POOLS else 1))
    x = [codes(rng, x_format, (rows, size), corners=corners, finite=finite) for size in sizes]
    if finite:
        x[0][rng.random(rows) < 0.1] = 0
    if code is Code.TOPK and rng.random() < 0.5:  # few values: equals are many
        x = [rng.choice(codes(rng, x_format, (1, 3), corners=0.5)[0], (rows, width))]
    y, once = [], []
    if code in (Code.ADD, Code.MULTIPLY, Code.MULTIPLY_INTEGER, Code.MERGE):
        y = [codes(rng, y_format, (rows, size), corners=corners) for size in sizes]
    if code in (Code.DEQUANTISE, Code.DEQUANTISE_BIAS):
        y = [codes(rng, y_format, (rows, 1), corners=0.02)]
    if code is Code.MEAN_POOL_MASKED:
        zero = rng.choice(np.array([0, 1 << BITS[y_format] - 1], np.uint32), (repeats, rows, 1))
        y = [np.where(rng.random((rows, 1)) < 0.4, none, codes(rng, y_format, (rows, 1)))
             for none in zero]
    if code is Code.MLGRU:
        y = [codes(rng, y_format, (rows, width), corners=corners) for _ in range(2)]
    count = {Code.RMSNORM: 1, Code.LAYERNORM: 2, Code.DEQUANTISE: 1, Code.DEQUANTISE_BIAS: 2}
    once = [codes(rng, y_format, (1, width), corners=0.02) for _ in range(count.get(code, 0))]
    if code is Code.ROPE:
        steps = np.array(rotary_steps(float(rng.choice([100.0, 10000.0, 5e5])), 2 * width))
        once = [(part.astype(np.uint32))[None] for part in (steps & (1 << 24) - 1, steps >> 24)]
    return Work(command, x, y, once)


def stalls(rng: np.random.Generator, beats: int) -> np.ndarray:
    """Return random times for the beats of one stream: none, few, many or long waits."""
    most, chance = [(1, 0.0), (2, 0.3), (4, 0.8), (40, 0.2)][rng.integers(4)]
    return np.cumsum(rng.integers(0, most, beats) * (rng.random(beats) < chance))


def same_words(works: Sequence[Work], cfg: VectorCoreConfig, got: np.ndarray,
               parts: list[list[np.ndarray]]) -> None:
    """Fail with the first beat that differs from golden's."""
    at = 0
    for work, sent in zip(works, parts, strict=True):
        want = beats_of(sent, cfg.lanes)
        mine = got[at : at + len(want)]
        at += len(want)
        for beat, lane in np.argwhere(mine != want)[:1]:
            pytest.fail(f"{work.command}: beat {beat}, lane {lane}: RTL {mine[beat, lane]:#x}, "
                        f"golden {want[beat, lane]:#x}")
    assert at == len(got)


def streams(works: Sequence[Work], cfg: VectorCoreConfig) -> dict[str, np.ndarray]:
    """Return the payload words of the three streams that enter."""
    empty = np.zeros((0, cfg.lanes), np.uint32)
    packed = [pack_command(work.command).to_bytes(24, "little") for work in works]
    return {
        "i_commands": np.frombuffer(b"".join(packed), "<u4").reshape(-1, 6),
        "i_x": np.concatenate([empty, *(beats_of(w.x, cfg.lanes) for w in works)]),
        "i_y": np.concatenate([empty, *(beats_of(w.y, cfg.lanes, w.once) for w in works)]),
    }


def check(cfg: VectorCoreConfig, simulation: StreamSimulation, works: Sequence[Work],
          rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
    """Run `works`, with random stalls if `rng`; hold results to golden, cycles to the simulator."""
    words = streams(works, cfg)
    parts = [results(w.command, cfg.lanes, w.x, w.y, w.once) for w in works]
    for work in works:
        work.command.check(cfg)
    sizes = {name: len(word) for name, word in words.items()}
    sizes["o"] = sum(len(beats_of(sent, cfg.lanes)) for sent in parts)
    times = {name: stalls(rng, size) if rng else np.zeros(size, int)
             for name, size in sizes.items()}
    log = simulation.run({name: (words[name], times[name]) for name in words},
                         {"o": times["o"]}, max_cycles=CYCLES_MAX)
    same_words(works, cfg, log["o"].words, parts)
    expected = transfers(cfg, [w.command for w in works], commands_valid=times["i_commands"],
                         x_valid=times["i_x"], y_valid=times["i_y"], o_ready=times["o"])
    for name, want in (("i_commands", expected.commands), ("i_x", expected.x),
                       ("i_y", expected.y), ("o", expected.o)):
        got = log[name].cycles
        assert len(got) == len(want), name
        for beat in np.flatnonzero(got != want)[:1]:
            pytest.fail(f"{name} {beat}: cycle {got[beat]}, simulator {want[beat]}")
    return {name: log[name].cycles for name in log}


def simulation_of(cfg: VectorCoreConfig) -> StreamSimulation:
    return StreamSimulation(Vector(cfg, library="vector"), merge_wires=False,
                            parts=[("vector_lane", Lane(cfg))])


@pytest.fixture(scope="module")
def compiled() -> StreamSimulation:
    return simulation_of(CFG)


@pytest.mark.cxxrtl
@pytest.mark.parametrize("code", CURVES, ids=lambda code: code.name)
def test_curves_of_an_eighth_of_all_float16(code, compiled):
    check_float16(compiled, code, stride=8)


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("code", CURVES, ids=lambda code: code.name)
def test_curves_of_every_float16(code, compiled):
    check_float16(compiled, code, stride=1)


def check_float16(simulation: StreamSimulation, code: Code, stride: int) -> None:
    """Run every `stride`-th float16, one more each time round; corners are among every 8th."""
    taken = np.arange(1 << 16, dtype=np.uint32)
    taken = taken[(taken + taken // 1024) % stride == 0].reshape(-1, CFG.row_elements)
    command = VectorCommand(code=code, rows=len(taken), width=CFG.row_elements,
                            x_format="float16", o_format="float32")
    check(CFG, simulation, [Work(command, [taken], [], [])])


@pytest.mark.cxxrtl
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_operators_in_each_format(code, fmt, compiled):
    check_format(compiled, code, fmt, 1500 if code in ELEMENTWISE else 40)


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_ten_thousand_vectors_of_each_operator_and_format(code, fmt, compiled):
    check_format(compiled, code, fmt, 10_000)


def check_format(simulation: StreamSimulation, code: Code, fmt: str, vectors: int) -> None:
    """Run at least `vectors` elements, or rows of an operator of rows, in and out as `fmt`."""
    rng = np.random.default_rng([code, FLOATS.index(fmt), vectors])
    works: list[Work] = []
    while vectors > 0:
        width = int(rng.integers(1, CFG.row_elements + 1 if code in ELEMENTWISE else 13))
        rows = int(rng.integers(1, 20))
        works.append(make(rng, CFG, code, rows, width, fmt))
        vectors -= rows * (width if code in ELEMENTWISE else 1)
    check(CFG, simulation, works)


def check_stalled(cfg: VectorCoreConfig, simulation: StreamSimulation, seed: int,
                  shapes: int) -> None:
    """Run `shapes` random commands of mixed operators, a few at a time, streams stalling."""
    rng = np.random.default_rng([cfg.lanes, seed])
    while shapes > 0:
        works = [make(rng, cfg, Code(int(rng.choice(list(Code)))), int(rng.integers(1, 4)),
                      int(rng.integers(1, cfg.row_elements + 1))) for _ in range(3)]
        check(cfg, simulation, works, rng)
        shapes -= len(works)


@pytest.mark.cxxrtl
def test_two_hundred_shapes_with_random_stalls_on_all_streams(compiled):
    check_stalled(CFG, compiled, 0, 200)


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("cfg", [
    CFG, SMALL, VectorCoreConfig(lanes=8, row_elements=16, unit_cycles=2),
    VectorCoreConfig(lanes=2, row_elements=128, unit_cycles=4)], ids=str)
def test_many_more_shapes_and_other_sizes(cfg):
    simulation = simulation_of(cfg)
    for seed in range(1, 6):
        check_stalled(cfg, simulation, seed, 200)


@pytest.mark.cxxrtl
@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_unstalled_command_takes_the_cycles_of_the_closed_form(code, compiled):
    rng = np.random.default_rng(code)
    for width in (1, 8, 64):
        works = [make(rng, CFG, code, 3, width) for _ in range(2)]
        cycles = check(CFG, compiled, works)
        first, second = cycles["i_commands"]
        assert second - first == command_cycles(CFG, works[0].command), works[0].command
        assert cycles["o"][-1] + 1 - second == done_cycles(CFG, works[1].command)


def in_amaranth(cfg: VectorCoreConfig, words: dict[str, np.ndarray], times: dict[str, np.ndarray]):
    """Run the unit in Amaranth's simulator; return the cycles of each stream and the results."""
    dut = Vector(cfg)
    result: dict[str, list[int]] = {}

    def source(name: str):
        values = [int.from_bytes(word.tobytes(), "little") for word in words[name]]

        async def bench(ctx):
            result[name] = await drive(ctx, getattr(dut, name), values, times[name])
        return bench

    async def sink(ctx):
        result["beats"], result["o"] = await collect(ctx, dut.o, times["o"])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for name in words:
        simulator.add_testbench(source(name))
    simulator.add_testbench(sink)
    simulator.run()
    lanes = [[beat >> 32 * lane & 0xFFFFFFFF for lane in range(cfg.lanes)]
             for beat in result["beats"]]
    return result, np.array(lanes, np.uint32).reshape(-1, cfg.lanes)


@pytest.mark.parametrize("codes_run", [
    (Code.ADD, Code.RMSNORM, Code.QUANTISE_ROWS), (Code.SOFTMAX_STATE, Code.MERGE, Code.ROPE)],
    ids=["norm", "attention"])
def test_amaranths_simulator_agrees_as_well(codes_run):
    rng = np.random.default_rng(len(codes_run[0].name))
    works = [make(rng, SMALL, code, 1, 4) for code in codes_run]
    words = streams(works, SMALL)
    parts = [results(w.command, SMALL.lanes, w.x, w.y, w.once) for w in works]
    sizes = {**{name: len(word) for name, word in words.items()},
             "o": sum(len(beats_of(sent, SMALL.lanes)) for sent in parts)}
    times = {name: stalls(rng, size) for name, size in sizes.items()}
    cycles, got = in_amaranth(SMALL, words, times)
    same_words(works, SMALL, got, parts)
    expected = transfers(SMALL, [w.command for w in works], commands_valid=times["i_commands"],
                         x_valid=times["i_x"], y_valid=times["i_y"], o_ready=times["o"])
    for name, want in (("i_commands", expected.commands), ("i_x", expected.x),
                       ("i_y", expected.y), ("o", expected.o)):
        assert cycles[name] == want.tolist(), name
