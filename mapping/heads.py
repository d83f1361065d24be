"""The head kernel: split q, k and v into heads, rotate, quantise, append k and v to the cache.

Loop levels: 0 layer, 1 block of the batch, 2 block of tokens.
"""

from dataclasses import dataclass, replace

from machine.formats import format_named
from machine.opcodes import Alu
from machine.program import UNIT_LEVEL, Edge, Space
from machine.vector import ScaleRule, VectorOp
from mapping.builder import Ring, fp32_bits
from mapping.plan import Plan, Rows, Tensor
from mapping.rows import block_rows

__all__ = ["HeadsKernel", "Part", "write_heads"]


# An operation: its code, result, sources, the scale it finds, and its fields.
_Step = tuple[VectorOp, int, tuple[int, ...], int | None, dict[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """q, k or v: its heads within a row, what is done to them, and where they go."""

    name: str
    first: int  # element of the row where it starts
    heads: int
    out: Tensor  # [batch, heads, tokens, head_dim]
    scale: Tensor | None = None  # [batch, heads, tokens] FP32; None: stored in floating point
    gain: Tensor | None = None  # [head_dim] FP32: RMS norm of every head
    rotate: bool = False
    append: bool = False  # token 0 is stored at the launch entry `position`


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsKernel:
    """Splits `qkv` [batch, tokens, width] into its parts."""

    name: str
    batch: int
    tokens: Rows
    head_dim: int
    qkv: Tensor
    parts: tuple[Part, ...]
    theta: float = 0.0
    steps: Tensor | None = None  # [head_dim] words of ROPE's steps, where theta does not give them
    eps: float = 0.0


@dataclass(frozen=True, slots=True)
class _Block:
    """Sequences and tokens of one part that are on chip at once."""

    batch: int
    tokens: int
    heads: int

    def bytes(self, part: Part, head_dim: int) -> tuple[int, int]:
        """Bytes of a part's values and of its scales in an output slot, each whole words."""
        rows = self.batch * self.tokens * self.heads
        codes = rows * head_dim * format_named(part.out.symbol.format).bits // 8
        scales = rows * 4 if part.scale is not None else 0
        return -(-codes // 64) * 64, -(-scales // 64) * 64


def write_heads(plan: Plan, kernel: HeadsKernel) -> None:
    """Write `kernel` into the plan's streams, part by part."""
    k = kernel
    plan.begin()
    sides = _load_sides(plan, k)
    streams = plan.acts, plan.vector, plan.store
    for part in k.parts:
        n = _find_block(plan, k, part)
        with (plan.loop(-(-k.batch // n.batch), *streams),
              plan.loop(-(-k.tokens.most // n.tokens), *streams)):
            _load(plan, k, part, n)
            _compute(plan, k, part, n, sides)
            _save(plan, k, part, n)
    if sides:
        plan.vector.fence(plan.rings["s"].give_free())
    plan.end((plan.cached, 1))


def _find_block(plan: Plan, k: HeadsKernel, part: Part) -> _Block:
    """Return the most tokens, then sequences, whose rows of `part` fit."""
    slots = plan.slots
    row = part.heads * k.head_dim * format_named(k.qkv.symbol.format).bits // 8
    needs = {"activations": (row, slots.rows),
             "outputs": (sum(_Block(1, 1, part.heads).bytes(part, k.head_dim)), slots.outputs)}
    rows = block_rows(plan, f"{k.name}, {part.name}", needs, k.batch * k.tokens.most)
    tokens = min(rows, k.tokens.most)
    return _Block(min(k.batch, max(1, rows // tokens)), tokens, part.heads)


def _load(plan: Plan, k: HeadsKernel, part: Part, n: _Block) -> None:
    """Load the part's columns of a block of rows."""
    x = plan.rings["x"]
    columns = replace(k.qkv, offset=k.qkv.offset + part.first)
    x.step(plan.acts)
    plan.load(plan.acts, f"{k.name}.{part.name}", columns, x, 0,
              (n.batch, n.tokens, part.heads * k.head_dim),
              loops=((1, n.batch * k.qkv.strides[0]), (2, n.tokens * k.qkv.strides[1])),
              edges=(Edge(k.batch, ((1, n.batch),)),
                     plan.edge(plan.acts, k.tokens, (2, n.tokens)), None),
              waits=(x.take_free(),), signals=(x.give_full(),))


def _load_sides(plan: Plan, k: HeadsKernel) -> dict[str, int]:
    """Load the gains of the head norms and the steps; return their places in the side slot."""
    ring, places, at = plan.rings["s"], {}, 0
    sides = [(f"{p.name}.gain", p.gain) for p in k.parts if p.gain is not None]
    if k.steps is not None:
        sides.append(("steps", k.steps))
    for i, (name, tensor) in enumerate(sides):
        if i == 0:
            ring.step(plan.acts)
        places[name] = at
        at += plan.load(plan.acts, f"{k.name}.{name}", tensor, ring, at,
                        (k.head_dim,), waits=(ring.take_free(),) if i == 0 else (),
                        signals=(ring.give_full(),) if i == len(sides) - 1 else ())
    if sides:
        ring.step(plan.vector)
        plan.vector.wait(ring.take_full())
    return places


def _position(plan: Plan, tokens: int) -> int:
    """Return a register of the vector stream with the position of the block's first token."""
    stream = plan.vector
    at = stream.register("at")
    stream.scalar(Alu.INDEX, at, 2)
    stream.scalar(Alu.MUL, at, tokens, ra=at)
    stream.scalar(Alu.ADD, at, stream.launch("position"), ra=at, register=True)
    return at


def _compute(plan: Plan, k: HeadsKernel, part: Part, n: _Block, sides: dict[str, int]) -> None:
    """Write the vector operations of one block."""
    x, o = plan.rings["x"], plan.rings["o"]
    x.step(plan.vector)
    o.step(plan.vector)
    steps = _steps(plan, k, part, n, sides)
    for i, (vop, y, sources, scale, fields) in enumerate(steps):
        plan.compute(vop, y, *sources,
                     waits=(x.take_full(), o.take_free()) if i == 0 else (),
                     signals=(x.give_free(), o.give_full()) if i == len(steps) - 1 else (),
                     scale=scale, fields=fields)


def _steps(plan: Plan, k: HeadsKernel, part: Part, n: _Block, sides: dict[str, int]) -> list[_Step]:
    """Return the operations on one part: norm and rotation in place, then to the output slot."""
    b, vector, rings, d = plan.builder, plan.vector, plan.rings, k.head_dim
    mine = -(-part.heads // plan.vectors)
    edges = (Edge(k.batch, ((1, n.batch),)), Edge(part.heads, ((UNIT_LEVEL, mine),)),
             plan.edge(vector, k.tokens, (2, n.tokens)), None)

    def tile(name: str, ring: Ring, form: str, strides: tuple[int, ...]) -> int:
        return b.operand(f"{k.name}.{part.name}.{name}", Space.SCRATCHPAD, ring.address_bytes,
                         (n.batch, mine, n.tokens, d), form, strides=strides,
                         base=ring.slot(vector), loops=((UNIT_LEVEL, mine * strides[1]),),
                         edges=edges)

    def side(name: str, form: str) -> int:
        return b.operand(f"{k.name}.{name}", Space.SCRATCHPAD,
                         rings["s"].address_bytes + sides[name], (d,), form,
                         base=rings["s"].slot(vector))

    row = part.heads * d
    x = tile("x", rings["x"], k.qkv.symbol.format, (n.tokens * row, d, row, 1))
    y = tile("y", rings["o"], part.out.symbol.format, (row * n.tokens, n.tokens * d, d, 1))
    steps: list[_Step] = []
    if part.gain is not None:
        gain = side(f"{part.name}.gain", "float32")
        steps.append((VectorOp.RMSNORM, x, (x, gain), None, {"value": fp32_bits(k.eps)}))
    if part.rotate:
        turned = (x,) if k.steps is None else (x, side("steps", "int32"))
        steps.append((VectorOp.ROPE, x, turned, None, {
            "value": fp32_bits(k.theta), "position_register": _position(plan, n.tokens)}))
    if part.scale is None:
        return [*steps, (VectorOp.CONVERT, y, (x,), None, {})]
    scale = b.operand(
        f"{k.name}.{part.name}.scale", Space.SCRATCHPAD,
        rings["o"].address_bytes + n.bytes(part, d)[0], (n.batch, mine, n.tokens), "float32",
        strides=(part.heads * n.tokens, n.tokens, 1), base=rings["o"].slot(vector),
        loops=((UNIT_LEVEL, mine * n.tokens),), edges=edges[:3])
    return [*steps, (VectorOp.QUANTISE, y, (x,), scale, {"scale_rule": ScaleRule.ROW_ABSMAX})]


def _save(plan: Plan, k: HeadsKernel, part: Part, n: _Block) -> None:
    """Store one block of a part, k and v behind the tokens already cached."""
    o, store = plan.rings["o"], plan.store
    edges = (Edge(k.batch, ((1, n.batch),)), None, plan.edge(store, k.tokens, (2, n.tokens)), None)
    shape: tuple[int, ...] = (n.batch, part.heads, n.tokens, k.head_dim)
    saves = [(part.name, 0, part.out, shape)]
    if part.scale is not None:
        saves.append((f"{part.name}.scale", n.bytes(part, k.head_dim)[0], part.scale, shape[:3]))
    o.step(store)
    for i, (name, at, tensor, size) in enumerate(saves):
        base = None
        if part.append:
            row = tensor.strides[2] * format_named(tensor.symbol.format).bits // 8
            base = store.register("append")
            store.scalar(Alu.MUL, base, row, ra=store.launch("position"))
        plan.save(f"{k.name}.{name}", o, at, tensor, size, tensor.symbol.format,
                  loops=((1, n.batch * tensor.strides[0]), (2, n.tokens * tensor.strides[2])),
                  edges=edges[:len(size)], base=base,
                  waits=(o.take_full(),) if i == 0 else (),
                  signals=(o.give_free(),) if i == len(saves) - 1 else ())
