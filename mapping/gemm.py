"""The GEMM kernel: weights stream past, sums stay, the vector units finish each block.

C [m, n] = epilogue(A [m, k] x W [k, n]). Loop levels: 0 layer, 1 block of m, 2 block of n, 3 chunk
of k (loads and array) or rows of the epilogue (vector and stores).
"""

from dataclasses import dataclass

from machine.opcodes import Dataflow, Mode, Opcode
from machine.program import UNIT_LEVEL, Edge, Space
from machine.vector import VectorOp
from mapping import lut
from mapping.builder import Ring
from mapping.plan import Plan, Rows, Tensor, mask_of
from mapping.tiling import Gemm, GemmTiling

__all__ = ["GemmKernel", "write_gemm"]

# What stands in a side slot: key, tensor, length, loop and edge of its load.
_Side = tuple[str, Tensor, int, tuple[int, int], Edge | None]
# An operation of the epilogue: its code, result and sources.
_Step = tuple[VectorOp, int, tuple[int, ...]]

ACTIVATIONS = {
    "gelu": VectorOp.GELU,
    "gelu_tanh": VectorOp.GELU_TANH,
    "relu": VectorOp.RELU,
    "silu": VectorOp.SILU,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmKernel:
    """One GEMM with its epilogue: (row scale x column scale), bias, activation, residual."""

    name: str
    shape: Gemm
    tiling: GemmTiling
    rows: Rows
    a: Tensor  # [m, k]
    w: Tensor  # [n blocks, k blocks, k, n], packed by tiles; codes: [..., planes, n, k / 4]
    out: Tensor  # [m, n], or [m, n / 2] of a gated pair
    a_scale: Tensor | None = None  # [m] FP32; None: A is in floating point
    w_scale: Tensor | None = None  # [n] FP32, padded to whole tiles
    bias: Tensor | None = None  # [n] FP32, padded to whole tiles
    residual: Tensor | None = None  # as `out`
    activation: str | None = None  # of the first half if the columns are gated pairs
    table_format: str = ""  # of the entries of tables, where W's codes look up in them

    @property
    def blocks(self) -> tuple[int, int, int]:
        """Blocks of m, n and k."""
        s, t = self.shape, self.tiling
        return -(-s.m // t.m), -(-s.n // t.n), -(-s.k // t.k)

    @property
    def halves(self) -> int:
        """Halves that the columns of a block fall into."""
        return 2 if self.shape.halves else 1

    @property
    def looked_up(self) -> bool:
        """Whether W's codes look up sums of A; otherwise they multiply."""
        return self.tiling.table_rows > 0

    @property
    def acc_format(self) -> str:
        """Sums are INT32 for quantised operands, FP32 otherwise."""
        return "int32" if self.a_scale is not None else "float32"


def write_gemm(plan: Plan, kernel: GemmKernel) -> None:
    """Write `kernel` into the plan's streams."""
    m_blocks, n_blocks, _ = kernel.blocks
    plan.begin()
    with plan.loop(m_blocks):
        if kernel.looked_up:
            lut.write_tables(plan, kernel)
        elif kernel.tiling.resident:
            _load_panel(plan, kernel)
        with plan.loop(n_blocks):
            _load_chunks(plan, kernel)
            _multiply(plan, kernel)
            _epilogue(plan, kernel)
        if kernel.tiling.resident:
            plan.array.fence(plan.rings["t" if kernel.looked_up else "a"].give_free())
    plan.end()


def _load_panel(plan: Plan, kernel: GemmKernel) -> None:
    """Load A's rows of this block of m, whole in k, and let the array wait for them."""
    t, s, ring = kernel.tiling, kernel.shape, plan.rings["a"]
    ring.step(plan.acts)
    plan.load(plan.acts, f"{kernel.name}.a", kernel.a, ring, 0, (t.m, s.k),
              loops=((1, t.m * kernel.a.strides[0]),),
              edges=(plan.edge(plan.acts, kernel.rows, (1, t.m)), None),
              waits=(ring.take_free(),), signals=(ring.give_full(),))
    ring.step(plan.array)
    plan.array.wait(ring.take_full())


def _load_chunks(plan: Plan, kernel: GemmKernel) -> None:
    """Load each chunk of W, and of A where its rows do not stay."""
    t, s, w = kernel.tiling, kernel.shape, plan.rings["w"]
    kept = len(kernel.w.symbol.shape) - len(kernel.w.strides) + 2  # axes of one tile
    with plan.loop(kernel.blocks[2], plan.weights):
        w.step(plan.weights)
        plan.load(plan.weights, f"{kernel.name}.w", kernel.w, w, 0, kernel.w.symbol.shape[kept:],
                  strides=kernel.w.strides[2:],
                  loops=((2, kernel.w.strides[0]), (3, kernel.w.strides[1])),
                  waits=(w.take_free(),), signals=(w.give_full(),))
    if t.resident:
        return
    a = plan.rings["a"]
    with plan.loop(kernel.blocks[2], plan.acts):
        a.step(plan.acts)
        plan.load(plan.acts, f"{kernel.name}.a", kernel.a, a, 0, (t.m, t.k),
                  loops=((1, t.m * kernel.a.strides[0]), (3, t.k)),
                  edges=(plan.edge(plan.acts, kernel.rows, (1, t.m)), Edge(s.k, ((3, t.k),))),
                  waits=(a.take_free(),), signals=(a.give_full(),))


def _multiply(plan: Plan, kernel: GemmKernel) -> None:
    """Accumulate over the chunks of k; the last one hands the sums to the vector units."""
    acc, k_blocks = plan.rings["acc"], kernel.blocks[2]
    acc.step(plan.array)
    plan.array.wait(acc.take_free())
    if k_blocks > 1:
        with plan.array.loop(k_blocks - 1):
            _chunk(plan, kernel, last=False)
    _chunk(plan, kernel, last=True)


def _chunk(plan: Plan, kernel: GemmKernel, *, last: bool) -> None:
    """Multiply one chunk of k, each group of array units its part of the rows."""
    t, rings, k_blocks = kernel.tiling, plan.rings, kernel.blocks[2]
    streamed = not t.resident
    rings["w"].step(plan.array)
    if streamed:
        rings["a"].step(plan.array)
    units = plan.lookup_units if kernel.looked_up else plan.array_units
    group = len(units) // t.m_parts
    first = k_blocks == 1
    for part in range(t.m_parts):
        held = ["w", "a"] if streamed else ["w"]
        waits = [rings[n].take_full(t.m_parts) for n in held]
        signals = [rings[n].give_free(t.m_parts) for n in held]
        if last:
            signals.append(rings["acc"].give_full(t.m_parts))
        fields: dict[str, int] = {"set_level": 3}
        if last:
            fields = {"mode": Mode.SET if first else Mode.ACCUMULATE}
        if kernel.looked_up:
            operands = lut.lookup_operands(plan, kernel, last=last)
            fields |= {"dataflow": Dataflow.LUT, "tables": 1}
        else:
            operands = _operands(plan, kernel, part, last)
            fields |= {"dataflow": plan.flow, **plan.order(kernel.acc_format)}
        plan.array.op(
            Opcode.MATMUL, waits=waits, signals=signals, operands=operands, fields=fields,
            mask=mask_of(units[part * group : (part + 1) * group]))


def _operands(plan: Plan, kernel: GemmKernel, part: int, last: bool) -> dict[str, int]:
    t, s, b, array = kernel.tiling, kernel.shape, plan.builder, plan.array
    rings, name, k_blocks = plan.rings, kernel.name, kernel.blocks[2]
    rows = t.m // t.m_parts
    done = (k_blocks - 1) * t.k if last else 0
    k_edge = Edge(s.k - done, () if last else ((3, t.k),))
    shift = part * rows
    m_edge = plan.edge(array, kernel.rows, (1, t.m))
    if shift:
        m_edge = Edge(s.m - shift, ((1, t.m),))
    # Columns of a gated pair end inside the block, at the end of each half: those are all computed.
    n_edge = None if s.halves else Edge(s.n, ((2, t.n), (UNIT_LEVEL, t.unit_n)))
    held = s.k if t.resident else t.k
    start = shift * held + (done if t.resident else 0)
    a = b.operand(
        f"{name}.x", Space.SCRATCHPAD, rings["a"].address_bytes + start * s.a_bits // 8,
        (rows, t.k), kernel.a.symbol.format, strides=(held, 1), base=rings["a"].slot(array),
        loops=((3, t.k),) if t.resident and not last else (), edges=(m_edge, k_edge))
    w = b.operand(
        f"{name}.w", Space.SCRATCHPAD, rings["w"].address_bytes, (t.k, t.unit_n),
        kernel.w.symbol.format, strides=(t.n, 1), base=rings["w"].slot(array),
        loops=((UNIT_LEVEL, t.unit_n),), edges=(k_edge, n_edge))
    acc = b.operand(
        f"{name}.sum", Space.ACCUMULATOR, rings["acc"].address_bytes + shift * t.n * 4,
        (rows, t.unit_n), kernel.acc_format, strides=(t.n, 1), base=rings["acc"].slot(array),
        loops=((UNIT_LEVEL, t.unit_n),), edges=(m_edge, n_edge))
    return {"a": a, "w": w, "acc": acc}


def _epilogue(plan: Plan, kernel: GemmKernel) -> None:
    """Finish the block row group by row group: scale, bias, activation, residual, store."""
    acc, side, x, out = (plan.rings[name] for name in ("acc", "s", "x", "o"))
    places = _load_side(plan, kernel)
    acc.step(plan.vector)
    plan.vector.wait(acc.take_full())
    if places:
        side.step(plan.vector)
        plan.vector.wait(side.take_full())
    streams = [plan.vector, plan.store]
    if kernel.residual is not None:
        streams.append(plan.acts)
    with plan.loop(kernel.tiling.m // kernel.tiling.rows, *streams):
        if kernel.residual is not None:
            _load_residual(plan, kernel, kernel.residual)
            x.step(plan.vector)
        out.step(plan.vector)
        _finish(plan, kernel, places)
        out.step(plan.store)
        _save(plan, kernel)
    plan.vector.fence(acc.give_free(), *([side.give_free()] if places else []))


def _load_side(plan: Plan, kernel: GemmKernel) -> dict[str, int]:
    """Load scales and bias of one block; return each one's place in the slot."""
    t, ring, acts = kernel.tiling, plan.rings["s"], plan.acts
    parts: list[_Side] = []
    for key, tensor in (("scale", kernel.w_scale), ("bias", kernel.bias)):
        if tensor is not None:
            parts.append((key, tensor, t.n, (2, t.n), None))
    if kernel.a_scale is not None:
        rows = plan.edge(acts, kernel.rows, (1, t.m))
        parts.append(("rows", kernel.a_scale, t.m, (1, t.m), rows))
    places: dict[str, int] = {}
    at = 0
    for i, (key, tensor, size, loop, edge) in enumerate(parts):
        if i == 0:
            ring.step(acts)
        places[key] = at
        at += plan.load(
            acts, f"{kernel.name}.{key}", tensor, ring, at, (size,), loops=(loop,), edges=(edge,),
            waits=(ring.take_free(),) if i == 0 else (),
            signals=(ring.give_full(),) if i == len(parts) - 1 else ())
    return places


def _load_residual(plan: Plan, kernel: GemmKernel, residual: Tensor) -> None:
    """Load what is added to one row group."""
    t, s, ring, acts = kernel.tiling, kernel.shape, plan.rings["x"], plan.acts
    n, row = t.n // kernel.halves, residual.strides[0]
    ring.step(acts)
    plan.load(acts, f"{kernel.name}.residual", residual, ring, 0, (t.rows, n),
              loops=((1, t.m * row), (2, n), (3, t.rows * row)),
              edges=(plan.edge(acts, kernel.rows, (1, t.m), (3, t.rows)),
                     Edge(s.n // kernel.halves, ((2, n),))),
              waits=(ring.take_free(),), signals=(ring.give_full(),))


def _finish(plan: Plan, kernel: GemmKernel, places: dict[str, int]) -> None:
    """Write the vector operations of one row group: in place in the sums, the last one out."""
    tiles = _Tiles(plan, kernel)
    steps = _steps(kernel, tiles, places)
    x, o = plan.rings["x"], plan.rings["o"]
    waits, signals = [o.take_free()], [o.give_full()]
    if kernel.residual is not None:
        waits.append(x.take_full())
        signals.append(x.give_free())
    for i, (vop, target, sources) in enumerate(steps):
        last = i == len(steps) - 1
        plan.compute(vop, tiles.result() if last else target, *sources,
                     mask=(1 << tiles.units) - 1,
                     waits=tuple(waits) if i == 0 else (), signals=tuple(signals) if last else ())


def _steps(kernel: GemmKernel, tiles: "_Tiles", places: dict[str, int]) -> list[_Step]:
    """Return the operations of one row group on FP32 sums."""
    sums = [tiles.sums(half, "float32") for half in range(kernel.halves)]
    steps: list[_Step] = []
    for half, target in enumerate(sums):
        bias = [tiles.column(places["bias"], half)] if kernel.bias is not None else []
        if kernel.a_scale is not None:
            scales = tiles.row(places["rows"]), tiles.column(places["scale"], half)
            x = tiles.sums(half, kernel.acc_format)
            steps.append((VectorOp.DEQUANTISE, target, (x, *scales, *bias)))
        elif bias:
            steps.append((VectorOp.ADD, target, (target, *bias)))
    if kernel.activation is not None:
        steps.append((ACTIVATIONS[kernel.activation], sums[0], (sums[0],)))
    if kernel.shape.halves:
        steps.append((VectorOp.MUL, sums[0], (sums[0], sums[1])))
    if kernel.residual is not None:
        steps.append((VectorOp.ADD, sums[0], (sums[0], tiles.residual())))
    return steps or [(VectorOp.CONVERT, sums[0], (sums[0],))]


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Makes the operands of one row group for the vector units, which share its columns."""

    plan: Plan
    kernel: GemmKernel

    @property
    def units(self) -> int:
        """Vector units at work: as many as share the columns of a block evenly."""
        columns = self.kernel.tiling.n // self.kernel.halves
        return next(u for u in range(self.plan.vectors, 0, -1) if columns % u == 0)

    @property
    def width(self) -> int:
        """Columns of one vector unit, of each half."""
        return self.kernel.tiling.n // self.kernel.halves // self.units

    def _edges(self) -> tuple[Edge, Edge]:
        k, t = self.kernel, self.kernel.tiling
        n, block = k.shape.n // k.halves, t.n // k.halves
        return (self.plan.edge(self.plan.vector, k.rows, (1, t.m), (3, t.rows)),
                Edge(n, ((2, block), (UNIT_LEVEL, self.width))))

    def _tile(self, name: str, ring: Ring, at: int, row: int, form: str, group: int = 0) -> int:
        return self.plan.builder.operand(
            f"{self.kernel.name}.{name}", ring.space, ring.address_bytes + at,
            (self.kernel.tiling.rows, self.width), form, strides=(row, 1),
            base=ring.slot(self.plan.vector), loops=((3, group), (UNIT_LEVEL, self.width)),
            edges=self._edges())

    def sums(self, half: int, form: str) -> int:
        """The sums of one half of the columns, in a format of four bytes."""
        t = self.kernel.tiling
        return self._tile("acc", self.plan.rings["acc"], half * (t.n // 2) * 4, t.n, form,
                          t.rows * t.n)

    def result(self) -> int:
        """The output slot."""
        return self._tile("y", self.plan.rings["o"], 0, self.kernel.tiling.n // self.kernel.halves,
                          self.kernel.out.symbol.format)

    def residual(self) -> int:
        """What is added."""
        return self._tile("r", self.plan.rings["x"], 0, self.kernel.tiling.n // self.kernel.halves,
                          self.kernel.out.symbol.format)

    def column(self, place: int, half: int) -> int:
        """An FP32 value of each column."""
        ring = self.plan.rings["s"]
        at = ring.address_bytes + place + half * (self.kernel.tiling.n // 2) * 4
        return self.plan.builder.operand(
            f"{self.kernel.name}.column", Space.SCRATCHPAD, at, (self.width,), "float32",
            base=ring.slot(self.plan.vector), loops=((UNIT_LEVEL, self.width),),
            edges=self._edges()[1:])

    def row(self, place: int) -> int:
        """An FP32 value of each row."""
        ring, rows = self.plan.rings["s"], self.kernel.tiling.rows
        return self.plan.builder.operand(
            f"{self.kernel.name}.row", Space.SCRATCHPAD, ring.address_bytes + place, (rows,),
            "float32", base=ring.slot(self.plan.vector), loops=((3, rows),),
            edges=self._edges()[:1])


def _save(plan: Plan, kernel: GemmKernel) -> None:
    """Store one row group."""
    t, s, ring = kernel.tiling, kernel.shape, plan.rings["o"]
    n, row = t.n // kernel.halves, kernel.out.strides[0]
    plan.save(f"{kernel.name}.c", ring, 0, kernel.out, (t.rows, n), kernel.out.symbol.format,
              loops=((1, t.m * row), (2, n), (3, t.rows * row)),
              edges=(plan.edge(plan.store, kernel.rows, (1, t.m), (3, t.rows)),
                     Edge(s.n // kernel.halves, ((2, n),))),
              waits=(ring.take_full(),), signals=(ring.give_free(),))
