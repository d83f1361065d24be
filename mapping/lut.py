"""Products that are looked up: their tiling, and what they put in front of the GEMM kernel.

The vector units turn the rows of a block of m into tables, whole in k, and the lookup arrays read
them for every block of n. Weights come by planes, as `golden.lut.remap` leaves them. Loop levels
are those of `mapping.gemm`, with 2 for the row groups that tables are made of.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from machine.chip import Machine
from machine.formats import format_named
from machine.lut import LutConfig, lut_matmul_cycles
from machine.program import UNIT_LEVEL, Edge, Layout, Space
from machine.vector import VectorOp
from mapping.fit import DoesNotFit, Unfit, buffer_too_small
from mapping.plan import Plan
from mapping.tiling import Gemm, GemmTiling, Slots, fits, result_rows, sizes

if TYPE_CHECKING:
    from mapping.gemm import GemmKernel

__all__ = [
    "CODE_FORMAT", "ENTRIES", "TABLE_K", "find_lookup_tiling", "lookup_array", "lookup_operands",
    "table_bytes", "write_tables",
]

TABLE_K, ENTRIES = 4, 8  # activations of a table, entries of it
CODE_FORMAT = "uint4"  # of a group of four weights in one plane: an entry and its sign


def lookup_array(machine: Machine, a_bits: int, w_bits: int) -> LutConfig | None:
    """Return the lookup array that takes such codes exactly; None if `machine` has none."""
    units = machine.array_units("lut")
    if not units:
        return None
    array = machine.array_of(units[0])
    assert isinstance(array, LutConfig)
    exact = array.takes_tables and not array.is_float and array.k == TABLE_K and (
        array.tables.remapped and array.tables.entry.bits >= a_bits + 3)
    return array if exact and w_bits <= array.w_bits else None


def table_bytes(array: LutConfig, m: int, k: int) -> int:
    """Return the bytes of the tables of `m` rows of `k` activations."""
    return m * k // TABLE_K * ENTRIES * array.tables.entry.bits // 8


def _needs(gemm: Gemm, t: GemmTiling, array: LutConfig, slots: Slots
           ) -> dict[str, tuple[int, int]]:
    """Return (demand, bound) in bytes of each region."""
    needs = fits(gemm, t, slots)
    needs["activations"] = (t.table_rows * gemm.k * gemm.a_bits // 8, slots.rows)
    needs["tables"] = (table_bytes(array, t.m, gemm.k), slots.tables)
    return needs


def _candidates(gemm: Gemm, machine: Machine, array: LutConfig, slots: Slots
                ) -> Iterator[GemmTiling]:
    count, pair = len(machine.array_units("lut")), 2 if gemm.halves else 1
    row = gemm.k * gemm.a_bits // 8
    for m in sizes(gemm.m, array.m):
        group = next((g for g in range(m, 0, -1) if m % g == 0 and g * row <= slots.rows), 0)
        if not group:
            continue
        for unit_n in sizes(-(-gemm.n // (count * pair)) * pair, array.n):
            n = unit_n * count
            rows = result_rows(gemm, m, n, slots)
            if rows:
                for k in sizes(gemm.k, 64):
                    if k % TABLE_K == 0:
                        yield GemmTiling(m, n, k, unit_n, 1, rows, True, group)


def _cost_cycles(gemm: Gemm, t: GemmTiling, machine: Machine, array: LutConfig) -> int:
    """Estimate the cycles: the slower of arrays and memory for each step."""
    steps = -(-gemm.m // t.m) * -(-gemm.n // t.n) * -(-gemm.k // t.k)
    compute = lut_matmul_cycles(array, t.m, t.unit_n, t.k, gemm.w_bits).total_cycles
    memory = -(-t.k * t.n * gemm.w_bits // 8 // machine.crossbar.bytes_per_cycle)
    return steps * (max(compute, memory) + 1)


def find_lookup_tiling(gemm: Gemm, machine: Machine, array: LutConfig, slots: Slots, *, name: str
                       ) -> GemmTiling:
    """Return the cheapest tiling that fits; raise `Unfit` with what a smallest one misses."""
    best: tuple[tuple[int, ...], GemmTiling] | None = None
    for t in _candidates(gemm, machine, array, slots):
        if any(demand > bound for demand, bound in _needs(gemm, t, array, slots).values()):
            continue
        page = t.k * t.n * gemm.w_bits // 8 % 32768  # equal work for every channel first
        key = (_cost_cycles(gemm, t, machine, array), int(page != 0), -t.k * t.n)
        if best is None or key < best[0]:
            best = (key, t)
    if best is not None:
        return best[1]
    raise _miss(gemm, machine, array, slots, name)


def _miss(gemm: Gemm, machine: Machine, array: LutConfig, slots: Slots, name: str) -> Unfit:
    m, unit_n = min(gemm.m, array.m), array.n
    smallest = GemmTiling(m, unit_n * len(machine.array_units("lut")), min(gemm.k, 64), unit_n, 1,
                          1, True, 1)
    needs = _needs(gemm, smallest, array, slots)
    region, (demand, bound) = max(needs.items(), key=lambda item: item[1][0] / max(item[1][1], 1))
    if region == "tables":
        assert machine.tables is not None
        whole = 2 * demand  # two slots
        return Unfit(DoesNotFit(name, "tables.bytes", whole, machine.tables.bytes, "bytes",
                                (f"--set tables.bytes={whole}",)))
    buffer = "accumulator" if region == "accumulator" else "scratchpad"
    return buffer_too_small(name, machine, buffer, demand, bound,
                            "fewer bits an element (--formats)")


def write_tables(plan: Plan, kernel: "GemmKernel") -> None:
    """Load the rows of a block of m, group by group, and make their tables."""
    t, s, tables, x = kernel.tiling, kernel.shape, plan.rings["t"], plan.rings["x"]
    tables.step(plan.vector)
    plan.vector.wait(tables.take_free())
    group, row = t.table_rows, kernel.a.strides[0]
    with plan.loop(t.m // group, plan.acts, plan.vector):
        x.step(plan.acts)
        plan.load(plan.acts, f"{kernel.name}.a", kernel.a, x, 0, (group, s.k),
                  loops=((1, t.m * row), (2, group * row)),
                  edges=(plan.edge(plan.acts, kernel.rows, (1, t.m), (2, group)), None),
                  waits=(x.take_free(),), signals=(x.give_full(),))
        x.step(plan.vector)
        rows = plan.edge(plan.vector, kernel.rows, (1, t.m), (2, group))
        _make(plan, kernel, rows)
    plan.vector.fence(tables.give_full())
    tables.step(plan.array)
    plan.array.wait(tables.take_full())


def _make(plan: Plan, kernel: "GemmKernel", rows: Edge) -> None:
    """Turn one group of rows into tables, each vector unit its share of k."""
    t, s, b = kernel.tiling, kernel.shape, plan.builder
    tables, x = plan.rings["t"], plan.rings["x"]
    units = next(u for u in range(plan.vectors, 0, -1) if s.k % (TABLE_K * u) == 0)
    share = s.k // units
    source = b.operand(
        f"{kernel.name}.x", Space.SCRATCHPAD, x.address_bytes, (t.table_rows, share),
        kernel.a.symbol.format, strides=(s.k, 1), base=x.slot(plan.vector),
        loops=((UNIT_LEVEL, share),), edges=(rows, None))
    per_row = s.k // TABLE_K * ENTRIES
    made = b.operand(
        f"{kernel.name}.made", Space.TABLE, tables.address_bytes,
        (t.table_rows, share // TABLE_K, ENTRIES), kernel.table_format,
        strides=(per_row, ENTRIES, 1), base=tables.slot(plan.vector), layout=Layout.TABLE,
        loops=((2, t.table_rows * per_row), (UNIT_LEVEL, share // TABLE_K * ENTRIES)),
        edges=(rows, None, None))
    plan.compute(VectorOp.TABLE_PRECOMPUTE, made, source, mask=(1 << units) - 1,
                 waits=(x.take_full(),), signals=(x.give_free(),))


def lookup_operands(plan: Plan, kernel: "GemmKernel", *, last: bool) -> dict[str, int]:
    """Return the operands of one MATMUL on tables: a chunk of k, each array its columns."""
    t, s, b, array = kernel.tiling, kernel.shape, plan.builder, plan.array
    rings, planes, held, chunk = plan.rings, s.w_bits, s.k // TABLE_K, t.k // TABLE_K
    done = (kernel.blocks[2] - 1) * chunk if last else 0
    k_edge = Edge(held - done, () if last else ((3, chunk),))
    m_edge = plan.edge(array, kernel.rows, (1, t.m))
    n_edge = None if s.halves else Edge(s.n, ((2, t.n), (UNIT_LEVEL, t.unit_n)))
    entry_bits = format_named(kernel.table_format).bits
    a = b.operand(
        f"{kernel.name}.tables", Space.TABLE,
        rings["t"].address_bytes + done * ENTRIES * entry_bits // 8, (t.m, chunk, ENTRIES),
        kernel.table_format, strides=(held * ENTRIES, ENTRIES, 1), base=rings["t"].slot(array),
        layout=Layout.TABLE, loops=() if last else ((3, chunk * ENTRIES),),
        edges=(m_edge, k_edge, None))
    w = b.operand(
        f"{kernel.name}.codes", Space.SCRATCHPAD, rings["w"].address_bytes,
        (planes, t.unit_n, chunk), CODE_FORMAT, strides=(t.n * chunk, chunk, 1),
        base=rings["w"].slot(array), loops=((UNIT_LEVEL, t.unit_n * chunk),),
        edges=(None, n_edge, k_edge))
    acc = b.operand(
        f"{kernel.name}.sum", Space.ACCUMULATOR, rings["acc"].address_bytes,
        (t.m, t.unit_n), kernel.acc_format, strides=(t.n, 1), base=rings["acc"].slot(array),
        loops=((UNIT_LEVEL, t.unit_n),), edges=(m_edge, n_edge))
    return {"a": a, "w": w, "acc": acc}
