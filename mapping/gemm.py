"""The GEMM kernel: weights stream past, sums stay, the vector units finish each block.

C [m, n] = epilogue(A [m, k] x W [k, n]). Loop levels: 0 layer, 1 block of m, 2 block of n, 3 chunk
of k (loads and array) or rows of the epilogue (vector and stores).
"""

from dataclasses import dataclass

from machine.formats import format_named
from machine.opcodes import Dataflow, Mode, Opcode
from machine.program import UNIT_LEVEL, Edge, Space
from machine.vector import VectorOp
from mapping.plan import Plan, Rows, Tensor
from mapping.tiling import Gemm, GemmTiling

__all__ = ["GemmKernel", "write_gemm"]

# What stands in a side slot: key, tensor, shape, loops and edges of its load.
_Side = tuple[str, Tensor, tuple[int, ...], tuple[tuple[int, int], ...], tuple[Edge | None, ...]]

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
    w: Tensor  # [n blocks, k blocks, k, n], packed by tiles
    out: Tensor  # [m, n], or [m, n / 2] of a gated pair
    a_scale: Tensor | None = None  # [m] FP32; None: A is in floating point
    w_scale: Tensor | None = None  # [n] FP32, padded to whole tiles
    bias: Tensor | None = None  # [n] FP32, padded to whole tiles
    residual: Tensor | None = None  # as `out`
    activation: str | None = None  # of the first half if the columns are gated pairs

    @property
    def blocks(self) -> tuple[int, int, int]:
        """Blocks of m, n and k."""
        s, t = self.shape, self.tiling
        return -(-s.m // t.m), -(-s.n // t.n), -(-s.k // t.k)

    @property
    def acc_format(self) -> str:
        """Sums are INT32 for quantised operands, FP32 otherwise."""
        return "int32" if self.a_scale is not None else "float32"


def write_gemm(plan: Plan, kernel: GemmKernel) -> None:
    """Write `kernel` into the plan's streams."""
    m_blocks, n_blocks, _ = kernel.blocks
    plan.begin()
    with plan.loop(m_blocks):
        if kernel.tiling.resident:
            _load_panel(plan, kernel)
        with plan.loop(n_blocks):
            _load_chunks(plan, kernel)
            _multiply(plan, kernel)
            _epilogue(plan, kernel)
        if kernel.tiling.resident:
            plan.array.fence(plan.rings["a"].give_free())
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
    with plan.loop(kernel.blocks[2], plan.weights):
        w.step(plan.weights)
        plan.load(plan.weights, f"{kernel.name}.w", kernel.w, w, 0, (t.k, t.n),
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
    group = plan.arrays // t.m_parts
    first = k_blocks == 1
    for part in range(t.m_parts):
        held = ["w", "a"] if streamed else ["w"]
        waits = [rings[n].take_full(t.m_parts) for n in held]
        signals = [rings[n].give_free(t.m_parts) for n in held]
        if last:
            signals.append(rings["acc"].give_full(t.m_parts))
        mode = {"mode": Mode.SET if first else Mode.ACCUMULATE} if last else {"set_level": 3}
        flow = Dataflow[plan.machine.array_of(0).dataflows[-1].upper()]
        plan.array.op(
            Opcode.MATMUL, waits=waits, signals=signals,
            mask=((1 << group) - 1) << (part * group), operands=_operands(plan, kernel, part, last),
            fields={"dataflow": flow, **mode},
        )


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
    acc, side, out = plan.rings["acc"], plan.rings["s"], plan.rings["o"]
    acc.step(plan.vector)
    plan.vector.wait(acc.take_full())
    with plan.loop(kernel.tiling.m // kernel.tiling.rows, plan.acts, plan.vector, plan.store):
        places = _load_side(plan, kernel)
        if places:
            side.step(plan.vector)
            plan.vector.wait(side.take_full())
        out.step(plan.vector)
        _finish(plan, kernel, places)
        out.step(plan.store)
        _save(plan, kernel)
    plan.vector.fence(acc.give_free())


def _load_side(plan: Plan, kernel: GemmKernel) -> dict[str, int]:
    """Load scales, bias and residual of one row group; return each one's place in the slot."""
    t, s, ring, acts = kernel.tiling, kernel.shape, plan.rings["s"], plan.acts
    out_n = t.n // 2 if s.halves else t.n
    rows = plan.edge(acts, kernel.rows, (1, t.m), (3, t.rows))
    parts: list[_Side] = []
    for key, tensor in (("scale", kernel.w_scale), ("bias", kernel.bias)):
        if tensor is not None:
            parts.append((key, tensor, (t.n,), ((2, t.n),), (None,)))
    if kernel.a_scale is not None:
        parts.append(("rows", kernel.a_scale, (t.rows,), ((1, t.m), (3, t.rows)), (rows,)))
    if kernel.residual is not None:
        row = kernel.residual.strides[0]
        parts.append(("residual", kernel.residual, (t.rows, out_n),
                      ((1, t.m * row), (2, out_n), (3, t.rows * row)),
                      (rows, Edge(s.n // (2 if s.halves else 1), ((2, out_n),)))))
    places: dict[str, int] = {}
    at = 0
    for i, (key, tensor, shape, loops, edges) in enumerate(parts):
        if i == 0:
            ring.step(acts)
        places[key] = at
        at += plan.load(
            acts, f"{kernel.name}.{key}", tensor, ring, at, shape, loops=loops, edges=edges,
            waits=(ring.take_free(),) if i == 0 else (),
            signals=(ring.give_full(),) if i == len(parts) - 1 else ())
    return places


def _finish(plan: Plan, kernel: GemmKernel, places: dict[str, int]) -> None:
    """Write the vector operations of one row group; the last one gives the slots on."""
    t, s, b, vector = kernel.tiling, kernel.shape, plan.builder, plan.vector
    halves = 2 if s.halves else 1
    width = -(-t.n // halves // plan.vectors)
    n = s.n // halves
    edges = (plan.edge(vector, kernel.rows, (1, t.m), (3, t.rows)),
             Edge(n, ((2, t.n // halves), (UNIT_LEVEL, width))))
    fmt, rings = kernel.out.symbol.format, plan.rings
    bytes_ = format_named(fmt).bits // 8

    def tile(name: str, space: Space, address: int, base: int | None, row: int, form: str,
             loops: tuple[tuple[int, int], ...] = ()) -> int:
        return b.operand(f"{kernel.name}.{name}", space, address, (t.rows, width), form,
                         strides=(row, 1), base=base, loops=(*loops, (UNIT_LEVEL, width)),
                         edges=edges)

    def side(key: str, half: int, column: bool) -> int:
        address = rings["s"].address_bytes + places[key] + half * (t.n // 2) * 4
        return b.operand(f"{kernel.name}.{key}", Space.SCRATCHPAD, address,
                         (width,) if column else (t.rows,), "float32",
                         base=rings["s"].slot(vector),
                         loops=((UNIT_LEVEL, width),) if column else (),
                         edges=(edges[1] if column else edges[0],))

    y = tile("y", Space.SCRATCHPAD, rings["o"].address_bytes, rings["o"].slot(vector),
             t.n // halves, fmt)
    targets = [y]
    if s.halves:
        targets = [tile(h, Space.SCRATCHPAD, plan.scratch_address + i * t.rows * t.n // 2 * bytes_,
                        None, t.n // 2, fmt) for i, h in enumerate(("gate", "up"))]
    steps: list[tuple[VectorOp, int, tuple[int, ...]]] = []
    for half, target in enumerate(targets):
        x = tile("acc", Space.ACCUMULATOR,
                 rings["acc"].address_bytes + half * (t.n // 2) * 4, rings["acc"].slot(vector),
                 t.n, kernel.acc_format, loops=((3, t.rows * t.n),))
        bias = [side("bias", half, True)] if kernel.bias is not None else []
        if kernel.a_scale is not None:
            scales = (side("rows", 0, False), side("scale", half, True))
            steps.append((VectorOp.DEQUANTISE, target, (x, *scales, *bias)))
        else:
            steps.append((VectorOp.ADD if bias else VectorOp.CONVERT, target, (x, *bias)))
    if kernel.activation is not None:
        steps.append((ACTIVATIONS[kernel.activation], targets[0], (targets[0],)))
    if s.halves:
        steps.append((VectorOp.MUL, y, (targets[0], targets[1])))
    if kernel.residual is not None:
        r = tile("residual", Space.SCRATCHPAD, rings["s"].address_bytes + places["residual"],
                 rings["s"].slot(vector), t.n // halves, fmt)
        steps.append((VectorOp.ADD, y, (y, r)))
    for i, (vop, target, sources) in enumerate(steps):
        last = i == len(steps) - 1
        done = [rings["o"].give_full(), *([rings["s"].give_free()] if places else [])]
        plan.compute(vop, target, *sources, waits=(rings["o"].take_free(),) if i == 0 else (),
                     signals=tuple(done) if last else ())


def _save(plan: Plan, kernel: GemmKernel) -> None:
    """Store one row group."""
    t, s, ring = kernel.tiling, kernel.shape, plan.rings["o"]
    halves = 2 if s.halves else 1
    n, row = t.n // halves, kernel.out.strides[0]
    plan.save(f"{kernel.name}.c", ring, 0, kernel.out, (t.rows, n), kernel.out.symbol.format,
              loops=((1, t.m * row), (2, n), (3, t.rows * row)),
              edges=(plan.edge(plan.store, kernel.rows, (1, t.m), (3, t.rows)),
                     Edge(s.n // halves, ((2, n),))),
              waits=(ring.take_full(),), signals=(ring.give_free(),))
