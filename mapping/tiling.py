"""Tiles of a GEMM: what a tiling is, what it costs, and the search for the cheapest that fits."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

from machine.chip import Machine
from mapping.fit import Unfit, buffer_too_small

__all__ = [
    "Gemm", "GemmTiling", "Slots", "cost_cycles", "find_tiling", "fits", "result_rows", "sizes",
]


@dataclass(frozen=True, slots=True)
class Gemm:
    """C [m, n] = A [m, k] x W [k, n], with the bits of an element of each operand."""

    m: int
    n: int
    k: int
    a_bits: int
    w_bits: int
    out_bits: int
    acc_bits: int = 32
    scales: int = 2  # FP32 rows of n columns beside the sums: scale, bias
    residual: bool = False  # the epilogue adds a tile of C's size and format
    halves: bool = False  # columns come in pairs of halves (gate, up); C has n / 2 columns


@dataclass(frozen=True, slots=True)
class Slots:
    """Bytes of one slot of each region a GEMM uses."""

    weights: int
    activations: int
    rows: int  # rows for the vector units
    outputs: int
    side: int  # scales, bias
    probabilities: int
    accumulator: int
    tables: int = 0


@dataclass(frozen=True, slots=True)
class GemmTiling:
    """Sizes of one step: a block of C, a chunk of K, and how units and rows divide it."""

    m: int
    n: int
    k: int
    unit_n: int  # columns of each array unit
    m_parts: int  # groups of array units, each with m / m_parts rows
    rows: int  # rows of C the epilogue handles at once
    resident: bool  # A's rows of the block stay on chip for all of n and k
    table_rows: int = 0  # rows whose tables are made at once; 0: nothing is looked up


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def side_bytes(gemm: Gemm, m: int, n: int) -> int:
    """Return the bytes of a side slot: column scales and bias (FP32), row scales."""
    return gemm.scales * _align(4 * n) + _align(4 * m)


def _align(size: int) -> int:
    return _ceil(size, 64) * 64


def fits(gemm: Gemm, tiling: GemmTiling, slots: Slots) -> dict[str, tuple[int, int]]:
    """Return (demand, bound) in bytes of each region; a tiling fits if no demand exceeds."""
    t = tiling
    k_held = gemm.k if t.resident else t.k
    out_n = t.n // 2 if gemm.halves else t.n
    return {
        "weights": (t.k * t.n * gemm.w_bits // 8, slots.weights),
        "activations": (t.m * k_held * gemm.a_bits // 8, slots.activations),
        "accumulator": (t.m * t.n * gemm.acc_bits // 8, slots.accumulator),
        "outputs": (t.rows * out_n * gemm.out_bits // 8, slots.outputs),
        "side": (side_bytes(gemm, t.m, t.n), slots.side),
        "residual": (t.rows * out_n * gemm.out_bits // 8 if gemm.residual else 0, slots.rows),
    }


def cost_cycles(gemm: Gemm, tiling: GemmTiling, machine: Machine) -> int:
    """Estimate the cycles of a GEMM: the slower of arrays and memory for each step.

    An estimate for choosing; the simulator says what it really takes.
    """
    array, t = machine.systolic, tiling
    m_blocks, n_blocks, k_blocks = _ceil(gemm.m, t.m), _ceil(gemm.n, t.n), _ceil(gemm.k, t.k)
    part = _ceil(t.m, t.m_parts)
    per_tile = array.ws_tile_cycles(part)
    compute = _ceil(t.k, array.rows) * _ceil(t.unit_n, array.cols) * per_tile
    step_bytes = t.k * t.n * gemm.w_bits // 8
    if not t.resident:
        step_bytes += t.m * t.k * gemm.a_bits // 8
    memory = _ceil(step_bytes, machine.crossbar.bytes_per_cycle)
    steps = m_blocks * n_blocks * k_blocks
    tail = m_blocks * n_blocks * (array.latency_cycles + part)
    return steps * max(compute, memory) + steps + tail


def sizes(limit: int, unit: int) -> list[int]:
    """Return candidate sizes: `limit` itself and unit x powers of two (and 3 x) below it."""
    found, size = {limit}, unit
    while size < limit:
        found |= {size, min(limit, size * 3 // 2 // unit * unit or unit)}
        size *= 2
    return sorted(found)


def _candidates(gemm: Gemm, machine: Machine, slots: Slots, k_unit: int
                ) -> Iterator[GemmTiling]:
    array = machine.systolic
    count = len(machine.array_units("systolic"))
    pair = 2 if gemm.halves else 1
    for m in sizes(gemm.m, 8):
        for m_parts in (p for p in (1, 2, 4, 8) if p <= count and count % p == 0 and m % p == 0):
            lanes = count // m_parts
            for unit_n in sizes(_ceil(_ceil(gemm.n, lanes), pair) * pair, array.cols):
                n = unit_n * lanes
                for k in sizes(gemm.k, k_unit):
                    rows = result_rows(gemm, m, n, slots)
                    if rows:
                        for resident in (True, False):
                            yield GemmTiling(m, n, k, unit_n, m_parts, rows, resident)


def result_rows(gemm: Gemm, m: int, n: int, slots: Slots) -> int:
    """Return the most rows an epilogue step can hold, a divisor of m; 0 if not even one."""
    small = [d for d in range(1, isqrt(m) + 1) if m % d == 0]
    for rows in sorted({*small, *(m // d for d in small)}, reverse=True):
        need = fits(gemm, GemmTiling(m, n, 1, n, 1, rows, False), slots)
        if all(need[r][0] <= need[r][1] for r in ("outputs", "residual")):
            return rows
    return 0


def find_tiling(
    gemm: Gemm, machine: Machine, slots: Slots, *, name: str, one_part: bool = False
) -> GemmTiling:
    """Return the cheapest tiling that fits; raise `Unfit` with the nearest miss otherwise.

    Chunks of K that fill only a part of an array's rows are tried where whole ones do not fit.
    """
    for k_unit in _k_units(machine):
        best = _cheapest(gemm, machine, slots, k_unit, one_part=one_part)
        if best is not None:
            return best
    raise _miss(gemm, machine, slots, name)


def _k_units(machine: Machine) -> tuple[int, ...]:
    rows = machine.systolic.rows
    return (rows, *(rows >> i for i in (1, 2, 3) if rows >> i >= 8))


def _cheapest(gemm: Gemm, machine: Machine, slots: Slots, k_unit: int, *, one_part: bool
              ) -> GemmTiling | None:
    best: tuple[tuple[int, ...], GemmTiling] | None = None
    for t in _candidates(gemm, machine, slots, k_unit):
        if one_part and t.m_parts > 1:
            continue
        if any(demand > bound for demand, bound in fits(gemm, t, slots).values()):
            continue
        page = t.k * t.n * gemm.w_bits // 8 % 32768  # equal work for every channel first
        key = (cost_cycles(gemm, t, machine), int(page != 0), -t.k * t.n)
        if best is None or key < best[0]:
            best = (key, t)
    return None if best is None else best[1]


def _miss(gemm: Gemm, machine: Machine, slots: Slots, name: str) -> Unfit:
    """Return what to raise: the region that even the smallest tiling exceeds the most."""
    count = len(machine.array_units("systolic"))
    pair = 2 if gemm.halves else 1
    unit_n = min(_ceil(_ceil(gemm.n, count), pair) * pair, machine.systolic.cols)
    smallest = GemmTiling(min(gemm.m, 8), unit_n * count, min(gemm.k, _k_units(machine)[-1]),
                          unit_n, 1, 1, False)
    region, (demand, bound) = max(
        fits(gemm, smallest, slots).items(), key=lambda item: item[1][0] / max(item[1][1], 1))
    buffer = "accumulator" if region == "accumulator" else "scratchpad"
    return buffer_too_small(name, machine, buffer, demand, bound,
                            "fewer bits an element (--formats)")
