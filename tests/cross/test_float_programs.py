# amaranth: UnusedElaboratable=no
"""Programs of floats: the array's RTL leaves golden's sums of the PROGRAM, bit for bit, in time."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from archsim.departures import departures
from archsim.systolic import transfers
from golden.execute import execute
from golden.formats import decode, encode
from golden.systolic import lay_out
from hw.cxxrtl import StreamSimulation, pack_beats, unpack_beats
from hw.systolic import Systolic
from machine.assembly import parse
from machine.control import Cursor
from machine.formats import FORMATS, Format
from machine.k_order import array_order
from machine.load import read_machine
from machine.opcodes import Dataflow, Opcode
from machine.pe import PeConfig
from machine.program import Program
from machine.systolic import SystolicConfig, Work, matmul_tiles, pack_tile
from machine.verify import verify

TINY = read_machine("tiny")
ROUNDS = 42  # programs of each array
TEXT = """
program floats version 1
needs systolic
token free 1
token full
token acc_free 1
token done
symbol A dram 0x0 {a} [{m},{k}] input
symbol W dram 0x1000 {w} [{k},{n}] const
symbol C dram 0x2000 {acc} [{m},{n}] output
operand a_dram dram 0x0 {a} [{tm},{tk}] stride [{k},1] loop 0:{a_row} 2:{tk} {a_edge}
operand w_dram dram 0x1000 {w} [{tk},{tn}] stride [{n},1] loop 1:{tn} 2:{w_row} {w_edge}
operand a scratchpad 0x0 {a} [{tm},{tk}] stride [{tk},1] {a_edge}
operand w scratchpad 0x1000 {w} [{tk},{tn}] stride [{tn},1] {w_edge}
operand c accumulator 0x0 {acc} [{tm},{tn}] stride [{tn},1] {c_edge}
operand c_dram dram 0x2000 {acc} [{tm},{tn}] stride [{n},1] loop 0:{c_row} 1:{tn} {c_edge}
stream chip0.dma0
  loop {tiles_m}
    loop {tiles_n}
      loop {tiles_k}
        load src=a_dram dst=a wait free:1
        load src=w_dram dst=w signal full:1
      end
    end
  end
  halt
stream chip0.array0
  loop {tiles_m}
    loop {tiles_n}
      nop wait acc_free:1
      loop {tiles_k}
        matmul a=a w=w acc=c dataflow={flow} set_level=2 {order} wait full:1 signal free:1
      end
      fence signal done:1
    end
  end
  halt
stream chip0.dma1
  loop {tiles_m}
    loop {tiles_n}
      store src=c dst=c_dram units=0x2 wait done:1 signal acc_free:1
    end
  end
  halt
"""


def array(kind: str, a: str, w: str, acc: str, *, rows: int = 2, cols: int = 1,
          dataflows=("os", "ws"), **pe) -> SystolicConfig:
    return SystolicConfig(
        rows=rows, cols=cols, acc_rows=9, a_bits=FORMATS[a].bits, w_bits=FORMATS[w].bits,
        acc_bits=FORMATS[acc].bits, dataflows=dataflows,
        pe=PeConfig(kind=kind, a_format=a, w_format=w, acc_format=acc, **pe))


# By the model they are compiled into. Rows show the order down a column, partial sums that of the
# additions between them.
MODELS = {
    "wide": [
        array("float_mac", "float16", "float16", "float32", rows=3, depth_cycles=2),
        array("float_mac", "bfloat16", "bfloat16", "float32", rows=1, dataflows=("os",),
              add_cycles=3, partial_sums=3),
    ],
    "narrow": [
        array("float_mac", "float8_e4m3fn", "float8_e5m2", "float16", cols=2),
        array("float_shift_add", "float16", "int4", "float32", depth_cycles=2),
        array("float_mac", "float8_e4m3fn", "float8_e4m3fn", "float32", rows=1, dataflows=("os",),
              add_cycles=4, partial_sums=2),
    ],
}


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


def gemm(cfg: SystolicConfig, flow: str, shape, tile) -> Program:
    """Return the program of C [m, n] = A [m, k] x W [k, n] in tiles, in the order of `cfg`."""
    (m, n, k), (tm, tn, tk) = shape, tile
    order = array_order(cfg, Dataflow[flow.upper()])
    assert order is not None
    rows, columns, depth = f"{m}-0*{tm}", f"{n}-1*{tn}", f"{k}-2*{tk}"
    return parse(TEXT.format(
        m=m, n=n, k=k, tm=tm, tn=tn, tk=tk, a_row=tm * k, w_row=tk * n, c_row=tm * n, flow=flow,
        a=cfg.act_format.name, w=cfg.weight_format.name, acc=cfg.pe.acc_format,
        tiles_m=-(-m // tm), tiles_n=-(-n // tn), tiles_k=-(-k // tk),
        order=f"k_order={order.k_order.name.lower()} k_size={order.k_size}",
        a_edge=f"edge 0:{rows} 1:{depth}", w_edge=f"edge 0:{depth} 1:{columns}",
        c_edge=f"edge 0:{rows} 1:{columns}"))


def array_works(cfg: SystolicConfig, program: Program, tile) -> list[Work]:
    """Return the array's commands for the program's matmuls, each with its corner of A and W.

    A matmul of the program is the tiles of ``matmul_tiles``; the sums stay in the array between
    matmuls of one accumulator, and leave after the last of them.
    """
    (tm, tn, tk), works = tile, []
    stream = next(s for s in program.streams if s.queue.kind.name == "ARRAY")
    names = {operand.name: operand for operand in program.operands}
    depth = program.symbols[0].shape[1]
    cursor = Cursor(program, stream, {})
    while (step := cursor.next_step()) is not None:
        if step.instruction.opcode != Opcode.MATMUL:
            continue
        (m, k), (_, n) = step.resolve(names["a"]).shape, step.resolve(names["w"]).shape
        flow = Dataflow(step.instruction.fields.get("dataflow", 0)).name.lower()
        at_m, at_n, at_k = (i * size for i, size in zip(step.indices, (tm, tn, tk), strict=True))
        for part, m_from, n_from, k_from in matmul_tiles(cfg, m, n, k, flow):
            part = replace(part, accumulate=part.accumulate or at_k > 0,
                           emit=part.emit and at_k + k == depth)
            works.append(Work(part, at_m + m_from, at_n + n_from, at_k + k_from))
    return works


def stalls(rng: np.random.Generator, beats: int) -> np.ndarray:
    """Return random times for the beats of one stream: none, few, many or long waits."""
    most, chance = [(1, 0.0), (2, 0.3), (4, 0.8), (25, 0.2)][rng.integers(4)]
    return np.cumsum(rng.integers(0, most, beats) * (rng.random(beats) < chance))


def codes(rng: np.random.Generator, fmt: Format, shape: tuple[int, ...]) -> np.ndarray:
    """Return codes of numbers near one another, some of any size, few infinite or zero."""
    anything = rng.integers(0, 1 << fmt.bits, shape)
    if not fmt.is_float:
        return anything
    near = encode(rng.standard_normal(shape), fmt).astype(np.int64)
    wild = np.where(np.isfinite(decode(anything, fmt)), anything, near)
    special = rng.choice([0, 1 << fmt.bits - 1, int(encode(np.inf, fmt))], shape)
    kind = rng.random(shape)
    return np.where(kind < 0.002, special, np.where(kind < 0.1, wild, near))


def random_program(rng: np.random.Generator, cfg: SystolicConfig):
    """Return a random program for `cfg`, codes of A and W, the size of its tiles."""
    flow = str(rng.choice(cfg.dataflows))
    m, n, k = (int(size) for size in rng.integers(1, [9, 5, 24]))
    tm = int(rng.integers(1, cfg.rows + 1 if flow == "os" else cfg.acc_rows + 1))
    tile = tm, cfg.cols, int(rng.integers(1, 12))
    program = gemm(cfg, flow, (m, n, k), tile)
    return (program, codes(rng, cfg.act_format, (m, k)), codes(rng, cfg.weight_format, (k, n)),
            tile)


def compare(simulation: StreamSimulation, cfgs: list[SystolicConfig], seed: int) -> None:
    """Run a random program on every array; hold its bits against golden's, its cycles against the
    recurrence's, and see that the job calls it ``rtl``."""
    rng = np.random.default_rng(seed)
    jobs, inputs, outputs = [], {}, {}
    for number, cfg in enumerate(cfgs):
        program, a, w, tile = random_program(rng, cfg)
        assert verify(program, machine=replace(TINY, arrays=(cfg,))) == []
        assert departures(program, replace(TINY, arrays=(cfg,))) == {}
        works = array_works(cfg, program, tile)
        tiles = [work.tile for work in works]
        acts, weights = lay_out(cfg, works, a, w)
        times = {"commands_valid": stalls(rng, len(tiles)), "acts_valid": stalls(rng, len(acts)),
                 "weights_valid": stalls(rng, len(weights)),
                 "sums_ready": stalls(rng, sum(t.sum_beats for t in tiles))}
        words = {
            "commands": np.array([pack_tile(t) for t in tiles], "<u8").view("<u4").reshape(-1, 2),
            "acts": pack_beats(acts, cfg.a_bits), "weights": pack_beats(weights, cfg.w_bits)}
        for name, payload in words.items():
            inputs[f"i_{name}_{number}"] = payload, times[f"{name}_valid"]
        outputs[f"o_sums_{number}"] = times["sums_ready"]
        jobs.append((program, a, w, works, times))
    log = simulation.run(inputs, outputs)
    for number, (cfg, (program, a, w, works, times)) in enumerate(zip(cfgs, jobs, strict=True)):
        numbers = decode(w, cfg.weight_format)
        whole = numbers if cfg.weight_format.is_float else numbers.astype(np.int64)
        given = {"A": decode(a, cfg.act_format), "W": whole}
        want = execute(program, given).tensors["C"]
        fmt = FORMATS[cfg.pe.acc_format]
        got = unpack_beats(log[f"o_sums_{number}"].words, cfg.cols, cfg.acc_bits)
        got, at = got & (1 << fmt.bits) - 1, 0
        for tile, m_from, n_from, _ in works:
            if tile.emit:
                rows = encode(want[m_from : m_from + tile.m, n_from : n_from + cfg.cols], fmt)
                part = got[at : at + tile.m, : rows.shape[1]]
                for i, j in np.argwhere(part != rows)[:1].tolist():
                    pytest.fail(f"array {number} seed {seed} C[{m_from + i},{n_from + j}]: "
                                f"{int(part[i, j]):#x} != {int(rows[i, j]):#x} (golden)")
                at += tile.m
        moved = transfers(cfg, [work.tile for work in works], **times)
        for name in ("i_commands", "i_acts", "i_weights", "o_sums"):
            cycles = log[f"{name}_{number}"].cycles
            assert cycles.tolist() == getattr(moved, name[2:]).tolist(), (number, seed, name)


@pytest.mark.cxxrtl
@pytest.mark.parametrize("model", MODELS)
def test_programs_of_floats_leave_in_rtl_what_golden_says_with_random_stalls(model):
    simulation = StreamSimulation(Arrays(MODELS[model]), merge_wires=False)
    for seed in range(ROUNDS):
        compare(simulation, MODELS[model], seed)


def test_at_least_two_hundred_random_shapes_are_compared():
    assert ROUNDS * sum(len(cfgs) for cfgs in MODELS.values()) >= 200
