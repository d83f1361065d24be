"""The GEMM kernel under any tiling computes the product with its epilogue, executed in golden."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from golden.execute import execute
from golden.weights import interleave, pad_columns, tiles
from machine.control import Cursor, units
from machine.formats import format_named
from machine.load import read_machine
from machine.program import Capability, Launch, Space, SymbolKind
from machine.verify import verify
from mapping.builder import ProgramBuilder
from mapping.fit import Unfit
from mapping.gemm import GemmKernel, write_gemm
from mapping.plan import Plan, Rows, Tensor
from mapping.tiling import Gemm, GemmTiling, find_tiling, fits

CAPABILITIES = frozenset({Capability.SYSTOLIC, Capability.VECTOR, Capability.INDIRECT})
MACHINE = read_machine("tiny", ["arrays.0.count=4", "vectors.0.count=3"])
HALF_ULP = 2.0**-11 * 1.01  # of the one rounding to FP16, and those to FP32 before


class Case:
    """A product on random data, its program, and what it must give."""

    def __init__(self, m, n, k, tiling, *, seed=0, coded=True, bias=False, residual=False,
                 activation=None, halves=False, rows=None, machine=MACHINE):
        self.rng = np.random.default_rng(seed)
        self.m, self.n, self.k, self.tiling = m, n, k, tiling
        self.coded, self.activation, self.halves, self.rows = coded, activation, halves, rows
        self.builder = ProgramBuilder("gemm")
        self.plan = Plan(self.builder, machine, entries=("rows",) if rows else ())
        self.tensors = {}
        form, bits = ("int8", 8) if coded else ("float16", 16)
        a, w = self._numbers((m, k)), self._numbers((k, n))
        columns = {}
        if coded:
            columns["w_scale"] = self.rng.uniform(0.5, 2, n).astype(np.float32)
        if bias:
            columns["bias"] = self.rng.normal(0, 4, n).astype(np.float32)
        row_scale = self.rng.uniform(0.5, 2, m).astype(np.float32) if coded else None
        added = self.rng.normal(0, 4, (m, n // (2 if halves else 1))).astype(np.float16)
        self.want = self._expected(a, w, columns, row_scale, added if residual else None)
        laid = interleave(w, tiling.n // 2) if halves else w
        shape = Gemm(m, n, k, bits, bits, 16, scales=len(columns), residual=residual,
                     halves=halves)
        slots = self.plan.slots
        self.fits = all(need <= bound for need, bound in fits(shape, tiling, slots).values())
        self.kernel = GemmKernel(
            name="gemm", shape=shape, tiling=tiling, activation=activation,
            rows=Rows(m, "rows" if rows else None), a=self._placed("a", a, form),
            w=self._placed("w", tiles(laid, tiling.k, tiling.n), form),
            out=Tensor.of(self.builder.symbol("c", SymbolKind.OUTPUT, self.want.shape,
                                              "float16")),
            a_scale=None if row_scale is None else self._placed("a_scale", row_scale, "float32"),
            residual=self._placed("residual", added, "float16") if residual else None,
            **{name: self._placed(name, pad_columns(
                interleave(v, tiling.n // 2) if halves else v, tiling.n), "float32")
               for name, v in columns.items()})

    def _numbers(self, shape):
        if self.coded:
            return self.rng.integers(-127, 128, shape)
        return self.rng.integers(-64, 65, shape).astype(np.float16) / 8

    def _placed(self, name, values, form):
        self.tensors[name] = values
        return Tensor.of(self.builder.symbol(name, SymbolKind.CONST, values.shape, form))

    def _expected(self, a, w, columns, row_scale, added):
        c = a.astype(np.float64) @ w.astype(np.float64)
        if row_scale is not None:
            c = c * row_scale[:, None].astype(np.float64) * columns["w_scale"]
        c = c + columns.get("bias", 0)
        first, *second = np.split(c, 2, axis=1) if self.halves else (c,)
        if self.activation == "relu":
            first = np.maximum(first, 0)
        c = first * second[0] if self.halves else first
        return c if added is None else c + added

    def run(self):
        with self.plan.loop(1):
            write_gemm(self.plan, self.kernel)
        self.program = self.builder.build(CAPABILITIES)
        launch = Launch(values={"rows": self.rows} if self.rows else {})
        faults = verify(self.program, launch, self.plan.machine)
        assert not faults, "\n".join(map(str, faults[:4]))
        return execute(self.program, self.tensors, launch).tensors["c"].astype(np.float64)

    def check(self):
        got, want = self.run(), self.want
        if self.rows:
            assert not got[self.rows:].any()
            got, want = got[: self.rows], want[: self.rows]
        over = np.abs(want) > 60000
        size = np.abs(want) + 2.0**-10 + 2.0**-10 * np.abs(want).max() * self._cancelled()
        wrong = (np.abs(got - want) > HALF_ULP * size) & ~over
        assert not wrong.any(), f"{np.argwhere(wrong)[0]}: {got[wrong][0]} != {want[wrong][0]}"

    def _cancelled(self):
        """Whether FP32 steps before the last can cancel, which a relative bound cannot see."""
        return bool(self.kernel.residual or self.kernel.bias or not self.coded)


@st.composite
def cases(draw):
    """A product whose tiling leaves edges and fits."""
    m, k = draw(st.integers(1, 40)), draw(st.integers(1, 60))
    halves = draw(st.booleans())
    n = draw(st.integers(1, 40)) * (2 if halves else 1)
    m_parts = draw(st.sampled_from([1, 2, 4]))
    unit_n = draw(st.integers(1, 6)) * (2 if halves else 1)
    rows = draw(st.integers(1, 5))
    height = rows * m_parts * draw(st.integers(1, 3))
    tiling = GemmTiling(height, unit_n * (4 // m_parts), draw(st.integers(1, 24)), unit_n,
                        m_parts, rows, draw(st.booleans()))
    return Case(m, n, k, tiling, seed=draw(st.integers(0, 99)), coded=draw(st.booleans()),
                bias=draw(st.booleans()), residual=draw(st.booleans()), halves=halves,
                activation=draw(st.sampled_from([None, "relu"])))


@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_any_tiling_gives_the_product(case):
    assume(case.fits)
    case.check()


@pytest.mark.slow
@given(case=cases())
@settings(max_examples=300, deadline=None)
def test_any_tiling_gives_the_product_at_length(case):
    assume(case.fits)
    case.check()


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 20])
def test_rows_beyond_the_launch_entry_are_not_written(rows):
    Case(20, 24, 30, GemmTiling(8, 16, 16, 4, 1, 4, True), rows=rows).check()


def slots_used(plan, program):
    """Check every tile against the rings, from the program alone; return the slots used."""
    slots = sorted((r.space, r.address_bytes + i * r.slot_bytes, r.slot_bytes)
                   for r in plan.rings.values() for i in range(r.slots))
    for (space, at, size), (other, after, _) in zip(slots, slots[1:], strict=False):
        assert space != other or at + size <= after
    machine, used = plan.machine, set()
    sizes = {Space.SCRATCHPAD: machine.scratchpad.bytes,
             Space.ACCUMULATOR: machine.accumulator.bytes}
    for stream in program.streams:
        cursor = Cursor(program, stream, {})
        while (step := cursor.next_step()) is not None:
            for index in step.instruction.operands.values():
                for rank, _ in units(step.instruction.unit_mask):
                    tile = step.resolve(program.operands[index], rank)
                    if tile.space not in sizes or not tile.elements:
                        continue
                    bits = format_named(tile.operand.format).bits
                    last = sum((n - 1) * s for n, s in zip(tile.shape, tile.operand.strides,
                                                           strict=True))
                    begin = tile.address_bytes + tile.offset_elements * bits // 8
                    end = begin + (last + 1) * bits // 8
                    assert end <= sizes[tile.space]
                    inside = [s for s in slots if s[0] == tile.space and s[1] <= begin
                              and end <= s[1] + s[2]]
                    assert len(inside) == 1, f"{tile.operand.name} [{begin}, {end})"
                    used.add(inside[0])
    return used


def test_every_slot_of_every_ring_is_used():
    case = Case(40, 70, 90, GemmTiling(16, 32, 24, 8, 1, 8, False), bias=True, residual=True)
    case.run()
    used = slots_used(case.plan, case.program)
    names = {name: sum(s[0] == r.space and s[1] in range(
        r.address_bytes, r.address_bytes + r.slots * r.slot_bytes) for s in used)
        for name, r in case.plan.rings.items()}
    assert names == {"w": 4, "a": 2, "x": 2, "s": 2, "o": 2, "acc": 2, "p": 0}


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_what_the_search_finds_stays_in_its_slots(data):
    draw = data.draw
    machine = read_machine("tiny", [
        f"arrays.0.count={draw(st.sampled_from([1, 2, 3, 4]))}",
        f"vectors.0.count={draw(st.sampled_from([1, 2, 3]))}",
        f"arrays.0.rows={draw(st.sampled_from([4, 8, 16]))}",
        f"arrays.0.cols={draw(st.sampled_from([4, 8, 16]))}",
        f"scratchpad.bytes={draw(st.sampled_from([4096, 8192, 65536]))}",
        f"accumulator.bytes={draw(st.sampled_from([1024, 4096, 32768]))}"])
    halves, coded = draw(st.booleans()), draw(st.booleans())
    m, k = draw(st.integers(1, 60)), draw(st.integers(1, 200))
    n = draw(st.integers(1, 100)) * (2 if halves else 1)
    residual, bits = draw(st.booleans()), 8 if coded else 16
    shape = Gemm(m, n, k, bits, bits, 16, scales=2 if coded else 1, residual=residual,
                 halves=halves)
    try:
        tiling = find_tiling(shape, machine, Plan(ProgramBuilder("p"), machine).slots, name="g")
    except Unfit:
        return
    case = Case(m, n, k, tiling, coded=coded, bias=True, residual=residual, halves=halves,
                machine=machine)
    case.check()
    slots_used(case.plan, case.program)
