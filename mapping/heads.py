"""The head kernel: split q, k and v into heads, rotate, quantise, append k and v to the cache.

Loop levels: 0 layer, 1 block of the batch, 2 block of tokens.
"""

from dataclasses import dataclass

from machine.formats import format_named
from machine.opcodes import Alu
from machine.program import UNIT_LEVEL, Edge, Space
from machine.vector import ScaleRule, VectorOp
from mapping.builder import StreamBuilder, fp32_bits
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
    factor: float | None = None  # multiplied in before it is stored
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
    width: int
    qkv: Tensor
    parts: tuple[Part, ...]
    theta: float = 0.0
    eps: float = 0.0


def write_heads(plan: Plan, kernel: HeadsKernel) -> None:
    """Write `kernel` into the plan's streams."""
    k = kernel
    wide = k.width * format_named(k.qkv.symbol.format).bits // 8
    slots = plan.slots
    needs = {"activations": (wide, slots.rows), "scratch": (wide, plan.scratch_bytes),
             "outputs": (sum(_part_bytes(k, p, 1) for p in k.parts), slots.outputs)}
    rows = max(1, block_rows(plan, k.name, needs, k.batch * k.tokens.most) - 1)
    tokens = min(rows, k.tokens.most)
    batch = min(k.batch, max(1, rows // tokens))
    plan.begin()
    gains = _load_gains(plan, k)
    with (plan.loop(-(-k.batch // batch), plan.acts, plan.vector, plan.store),
          plan.loop(-(-k.tokens.most // tokens), plan.acts, plan.vector, plan.store)):
        x, o = plan.rings["x"], plan.rings["o"]
        x.step(plan.acts)
        plan.load(plan.acts, f"{k.name}.qkv", k.qkv, x, 0, (batch, tokens, k.width),
                  loops=((1, batch * k.qkv.strides[0]), (2, tokens * k.qkv.strides[1])),
                  edges=(Edge(k.batch, ((1, batch),)),
                         plan.edge(plan.acts, k.tokens, (2, tokens)), None),
                  waits=(x.take_free(),), signals=(x.give_full(),))
        x.step(plan.vector)
        o.step(plan.vector)
        _compute(plan, k, batch, tokens, gains)
        o.step(plan.store)
        _save(plan, k, batch, tokens)
    if gains:
        plan.vector.fence(plan.rings["s"].give_free())
    plan.end((plan.cached, 1))


def _part_bytes(k: HeadsKernel, part: Part, rows: int) -> int:
    """Return the bytes of one part of `rows` tokens in an output slot, scale behind codes."""
    codes = rows * part.heads * k.head_dim * format_named(part.out.symbol.format).bits // 8
    scales = rows * part.heads * 4 if part.scale is not None else 0
    return -(-codes // 64) * 64 + -(-scales // 64) * 64


def _load_gains(plan: Plan, k: HeadsKernel) -> dict[str, int]:
    """Load the gains of the head norms; return their places in the side slot."""
    ring, places, at = plan.rings["s"], {}, 0
    parts = [p for p in k.parts if p.gain is not None]
    for i, part in enumerate(parts):
        assert part.gain is not None
        if i == 0:
            ring.step(plan.acts)
        places[part.name] = at
        at += plan.load(plan.acts, f"{k.name}.{part.name}.gain", part.gain, ring, at,
                        (k.head_dim,), waits=(ring.take_free(),) if i == 0 else (),
                        signals=(ring.give_full(),) if i == len(parts) - 1 else ())
    if parts:
        ring.step(plan.vector)
        plan.vector.wait(ring.take_full())
    return places


def _position(plan: Plan, stream: StreamBuilder, tokens: int) -> int:
    """Return a register with the position of the block's first token, in `stream`."""
    at = stream.register("at")
    stream.scalar(Alu.INDEX, at, 2)
    stream.scalar(Alu.MUL, at, tokens, ra=at)
    stream.scalar(Alu.ADD, at, stream.launch("position"), ra=at, register=True)
    return at


def _compute(
    plan: Plan, k: HeadsKernel, batch: int, tokens: int, gains: dict[str, int]
) -> None:
    """Write the vector operations of one block, part by part."""
    rings, vector = plan.rings, plan.vector
    at = _position(plan, vector, tokens) if any(p.rotate for p in k.parts) else 0
    out = 0
    for i, part in enumerate(k.parts):
        steps = _part_steps(plan, k, part, batch, tokens, out, gains, at)
        for j, (vop, y, sources, scale, fields) in enumerate(steps):
            first = i == 0 and j == 0
            last = i == len(k.parts) - 1 and j == len(steps) - 1
            plan.compute(vop, y, *sources,
                         waits=(rings["x"].take_full(), rings["o"].take_free()) if first else (),
                         signals=(rings["x"].give_free(), rings["o"].give_full()) if last else (),
                         scale=scale, fields=fields)
        out += _part_bytes(k, part, batch * tokens)


def _part_steps(
    plan: Plan, k: HeadsKernel, part: Part, batch: int, tokens: int, out: int,
    gains: dict[str, int], at: int,
) -> list[_Step]:
    """Return the operations on one part."""
    b, vector, rings = plan.builder, plan.vector, plan.rings
    mine = -(-part.heads // plan.vectors)
    hidden, d = k.qkv.symbol.format, k.head_dim
    bytes_ = format_named(hidden).bits // 8
    edges = (Edge(k.batch, ((1, batch),)), Edge(part.heads, ((UNIT_LEVEL, mine),)),
             plan.edge(vector, k.tokens, (2, tokens)), None)

    def tile(name: str, address: int, base: int | None, form: str, *, row: bool) -> int:
        strides = ((tokens * k.width, d, k.width, 1) if row else
                   (part.heads * tokens * d, tokens * d, d, 1))
        return b.operand(f"{k.name}.{part.name}.{name}", Space.SCRATCHPAD, address,
                         (batch, mine, tokens, d), form, strides=strides, base=base,
                         loops=((UNIT_LEVEL, mine * strides[1]),), edges=edges)

    x = tile("x", rings["x"].address_bytes + part.first * bytes_, rings["x"].slot(vector), hidden,
             row=True)
    scratch = tile("t", plan.scratch_address, None, hidden, row=False)
    y = tile("y", rings["o"].address_bytes + out, rings["o"].slot(vector), part.out.symbol.format,
             row=False)
    steps: list[_Step] = []
    if part.gain is not None:
        gain = b.operand(f"{k.name}.{part.name}.gain", Space.SCRATCHPAD,
                         rings["s"].address_bytes + gains[part.name], (d,), "float32",
                         base=rings["s"].slot(vector))
        steps.append((VectorOp.RMSNORM, scratch, (x, gain), None, {"value": fp32_bits(k.eps)}))
        x = scratch
    if part.rotate:
        steps.append((VectorOp.ROPE, scratch, (x,), None,
                      {"value": fp32_bits(k.theta), "position_register": at}))
        x = scratch
    if part.factor is not None:
        steps.append((VectorOp.SCALE, scratch, (x,), None, {"value": fp32_bits(part.factor)}))
        x = scratch
    if part.scale is None:
        return [*steps, (VectorOp.CONVERT, y, (x,), None, {})]
    codes = batch * tokens * part.heads * d * format_named(part.out.symbol.format).bits // 8
    scale = b.operand(
        f"{k.name}.{part.name}.scale", Space.SCRATCHPAD,
        rings["o"].address_bytes + out + -(-codes // 64) * 64, (batch, mine, tokens), "float32",
        strides=(part.heads * tokens, tokens, 1), base=rings["o"].slot(vector),
        loops=((UNIT_LEVEL, mine * tokens),), edges=edges[:3])
    return [*steps, (VectorOp.QUANTISE, y, (x,), scale, {"scale_rule": ScaleRule.ROW_ABSMAX})]


def _save(plan: Plan, k: HeadsKernel, batch: int, tokens: int) -> None:
    """Store every part, k and v behind the tokens already cached."""
    o, store = plan.rings["o"], plan.store
    edges = (Edge(k.batch, ((1, batch),)), None, plan.edge(store, k.tokens, (2, tokens)), None)
    out = 0
    saves: list[tuple[Part, str, int, Tensor, tuple[int, ...]]] = []
    for part in k.parts:
        codes = batch * tokens * part.heads * k.head_dim
        codes = codes * format_named(part.out.symbol.format).bits // 8
        shape: tuple[int, ...] = (batch, part.heads, tokens, k.head_dim)
        saves.append((part, part.name, out, part.out, shape))
        if part.scale is not None:
            saves.append((part, f"{part.name}.scale", out + -(-codes // 64) * 64, part.scale,
                          shape[:3]))
        out += _part_bytes(k, part, batch * tokens)
    for i, (part, name, at, tensor, shape) in enumerate(saves):
        base = None
        if part.append:
            row = tensor.strides[2] * format_named(tensor.symbol.format).bits // 8
            base = store.register("append")
            store.scalar(Alu.MUL, base, row, ra=store.launch("position"))
        plan.save(f"{k.name}.{name}", o, at, tensor, shape, tensor.symbol.format,
                  loops=((1, batch * tensor.strides[0]), (2, tokens * tensor.strides[2])),
                  edges=edges[:len(shape)], base=base,
                  waits=(o.take_full(),) if i == 0 else (),
                  signals=(o.give_free(),) if i == len(saves) - 1 else ())
