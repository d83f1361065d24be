"""Row kernels: normalise, quantise and pool rows that fit on chip whole.

Loop levels: 0 layer, 1 block of rows.
"""

from dataclasses import dataclass

from machine.formats import format_named
from machine.opcodes import Opcode
from machine.program import UNIT_LEVEL, Edge, Gather, Space
from machine.vector import ScaleRule, VectorOp
from mapping.builder import fp32_bits
from mapping.fit import buffer_too_small
from mapping.plan import Plan, Rows, Tensor

__all__ = ["EmbedKernel", "RowKernel", "block_rows", "write_embed", "write_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowKernel:
    """keep = norm(x); quantised, quantised_scale = quantise(keep): any part may be absent."""

    name: str
    rows: Rows
    width: int
    x: Tensor  # [rows, width]
    norm: VectorOp | None = None  # LAYERNORM or RMSNORM
    gain: Tensor | None = None  # [width] FP32
    bias: Tensor | None = None  # [width] FP32
    eps: float = 0.0
    keep: Tensor | None = None  # [rows, width]
    quantised: Tensor | None = None  # [rows, width]
    quantised_scale: Tensor | None = None  # [rows] FP32


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedKernel:
    """out = sum over tables of table[index]."""

    name: str
    rows: Rows
    width: int
    tables: tuple[tuple[Tensor, Tensor], ...]  # (table [entries, width], index [rows] INT32)
    out: Tensor  # [rows, width]


def block_rows(plan: Plan, name: str, needs: dict[str, tuple[int, int]], most: int) -> int:
    """Return the rows a block can have; `needs` maps a region to (bytes a row, slot bytes).

    Raises `Unfit` where not even one row fits.
    """
    for region, (row, bound) in needs.items():
        if row > bound:
            raise buffer_too_small(f"{name}, one row in {region}", plan.machine, "scratchpad", row,
                                   bound, "fewer bits an element (--formats)")
    rows = min(most, *(bound // row for row, bound in needs.values()))
    return rows // plan.vectors * plan.vectors or rows


def _units(plan: Plan, rows: int) -> int:
    """Return the mask of the vector units that share a block of `rows` rows."""
    part = -(-rows // plan.vectors)
    return (1 << -(-rows // part)) - 1


def write_rows(plan: Plan, kernel: RowKernel) -> None:
    """Write `kernel` into the plan's streams."""
    k, hidden = kernel, kernel.x.symbol.format
    wide = k.width * format_named(hidden).bits // 8
    outs = (wide + 64 if k.keep else 0) + (k.width + 68 if k.quantised else 0)
    slots = plan.slots
    needs = {"activations": (wide, slots.rows), "outputs": (outs, slots.outputs)}
    rows = block_rows(plan, k.name, needs, k.rows.most)
    plan.begin()
    side = _load_parameters(plan, k)
    with plan.loop(-(-k.rows.most // rows), plan.acts, plan.vector, plan.store):
        x, o = plan.rings["x"], plan.rings["o"]
        x.step(plan.acts)
        plan.load(plan.acts, f"{k.name}.x", k.x, x, 0, (rows, k.width),
                  loops=((1, rows * k.x.strides[0]),),
                  edges=(plan.edge(plan.acts, k.rows, (1, rows)), None),
                  waits=(x.take_free(),), signals=(x.give_full(),))
        x.step(plan.vector)
        o.step(plan.vector)
        _row_steps(plan, k, rows, side)
        o.step(plan.store)
        _row_saves(plan, k, rows)
    if side:
        plan.vector.fence(plan.rings["s"].give_free())
    plan.end()


def _load_parameters(plan: Plan, k: RowKernel) -> dict[str, int]:
    """Load gain and bias once; return their places in the side slot."""
    ring, places, at = plan.rings["s"], {}, 0
    parts = [(n, t) for n, t in (("gain", k.gain), ("bias", k.bias)) if t is not None]
    need = -(-4 * k.width // 64) * 64 * len(parts)
    if need > ring.slot_bytes:
        raise buffer_too_small(f"{k.name}, gain and bias", plan.machine, "scratchpad",
                               need, ring.slot_bytes)
    for i, (name, tensor) in enumerate(parts):
        if i == 0:
            ring.step(plan.acts)
        places[name] = at
        at += plan.load(plan.acts, f"{k.name}.{name}", tensor, ring, at, (k.width,),
                        waits=(ring.take_free(),) if i == 0 else (),
                        signals=(ring.give_full(),) if i == len(parts) - 1 else ())
    if parts:
        ring.step(plan.vector)
        plan.vector.wait(ring.take_full())
    return places


def _row_steps(plan: Plan, k: RowKernel, rows: int, side: dict[str, int]) -> None:
    """Write the vector operations of one block: normalise, then quantise."""
    b, vector, rings = plan.builder, plan.vector, plan.rings
    part = -(-rows // plan.vectors)
    edge = plan.edge(vector, k.rows, (1, rows), (UNIT_LEVEL, part))
    hidden = k.x.symbol.format

    def tile(name: str, address: int, base: int | None, form: str) -> int:
        return b.operand(f"{k.name}.{name}", Space.SCRATCHPAD, address, (part, k.width), form,
                         base=base, loops=((UNIT_LEVEL, part * k.width),), edges=(edge, None))

    x = tile("x", rings["x"].address_bytes, rings["x"].slot(vector), hidden)
    keep_at, _, _ = _places(k, rows)
    steps: list[tuple[VectorOp, int, tuple[int, ...], int | None, dict[str, int]]] = []
    if k.norm is not None:
        normed = x  # in place, where only the quantised rows are kept
        if k.keep is not None:
            normed = tile("normed", rings["o"].address_bytes + keep_at, rings["o"].slot(vector),
                          hidden)
        parameters = tuple(
            b.operand(f"{k.name}.{n}", Space.SCRATCHPAD, rings["s"].address_bytes + at,
                      (k.width,), "float32", base=rings["s"].slot(vector))
            for n, at in side.items())
        steps.append((k.norm, normed, (x, *parameters), None, {"value": fp32_bits(k.eps)}))
        x = normed
    if k.quantised is not None:
        y, found = _quantise(plan, k, rows)
        steps.append((VectorOp.QUANTISE, y, (x,), found,
                      {"scale_rule": ScaleRule.ROW_ABSMAX}))
    for i, (vop, y, sources, scale, fields) in enumerate(steps):
        last = i == len(steps) - 1
        plan.compute(vop, y, *sources,
                     waits=(rings["x"].take_full(), rings["o"].take_free()) if i == 0 else (),
                     signals=(rings["x"].give_free(), rings["o"].give_full()) if last else (),
                     scale=scale, mask=_units(plan, rows), fields=fields)


def _quantise(plan: Plan, k: RowKernel, rows: int) -> tuple[int, int]:
    """Return the operands of the block's codes and of their scales."""
    assert k.quantised is not None
    b, vector, o = plan.builder, plan.vector, plan.rings["o"]
    part = -(-rows // plan.vectors)
    edge = plan.edge(vector, k.rows, (1, rows), (UNIT_LEVEL, part))
    _, codes_at, scale_at = _places(k, rows)
    y = b.operand(f"{k.name}.codes", Space.SCRATCHPAD, o.address_bytes + codes_at,
                  (part, k.width), k.quantised.symbol.format, base=o.slot(vector),
                  loops=((UNIT_LEVEL, part * k.width),), edges=(edge, None))
    scale = b.operand(f"{k.name}.scale", Space.SCRATCHPAD, o.address_bytes + scale_at, (part,),
                      "float32", base=o.slot(vector), loops=((UNIT_LEVEL, part),), edges=(edge,))
    return y, scale


def _places(k: RowKernel, rows: int) -> tuple[int, int, int]:
    """Return where the kept rows, the codes and the scales lie in an output slot."""
    wide = rows * k.width * format_named(k.x.symbol.format).bits // 8 if k.keep else 0
    codes = -(-wide // 64) * 64
    return 0, codes, codes + -(-rows * k.width // 64) * 64


def _row_saves(plan: Plan, k: RowKernel, rows: int) -> None:
    """Store what the block yields."""
    o = plan.rings["o"]
    keep_at, codes_at, scale_at = _places(k, rows)
    edge = plan.edge(plan.store, k.rows, (1, rows))
    saves: list[tuple[str, int, Tensor, tuple[int, ...]]] = []
    if k.keep is not None:
        saves.append(("keep", keep_at, k.keep, (rows, k.width)))
    if k.quantised is not None and k.quantised_scale is not None:
        saves.append(("codes", codes_at, k.quantised, (rows, k.width)))
        saves.append(("scale", scale_at, k.quantised_scale, (rows,)))
    for i, (name, at, tensor, shape) in enumerate(saves):
        plan.save(f"{k.name}.{name}", o, at, tensor, shape, tensor.symbol.format,
                  loops=((1, rows * tensor.strides[0]),),
                  edges=(edge, None) if len(shape) == 2 else (edge,),
                  waits=(o.take_full(),) if i == 0 else (),
                  signals=(o.give_free(),) if i == len(saves) - 1 else ())


def write_embed(plan: Plan, kernel: EmbedKernel) -> None:
    """Write the gathering of rows from one or more tables, and their sum."""
    k, b, rings = kernel, plan.builder, plan.rings
    form = k.tables[0][0].symbol.format
    wide = k.width * format_named(form).bits // 8
    out_wide = k.width * format_named(k.out.symbol.format).bits // 8
    needs = {"activations": (wide * len(k.tables), rings["x"].slot_bytes),
             "outputs": (out_wide, rings["o"].slot_bytes)}
    rows = block_rows(plan, k.name, needs, k.rows.most)
    plan.begin()
    with plan.loop(-(-k.rows.most // rows), plan.acts, plan.vector, plan.store):
        x, o = rings["x"], rings["o"]
        x.step(plan.acts)
        edge = plan.edge(plan.acts, k.rows, (1, rows))
        for i, (table, index) in enumerate(k.tables):
            ids = b.operand(f"{k.name}.ids{i}", Space.DRAM, index.address_bytes, (rows,), "int32",
                            loops=((1, rows),), edges=(edge,))
            src = b.operand(f"{k.name}.table{i}", Space.DRAM, table.address_bytes,
                            (rows, k.width), form, strides=table.strides, edges=(edge, None),
                            gather=Gather(0, ids))
            dst = b.operand(f"{k.name}.row{i}", Space.SCRATCHPAD,
                            x.address_bytes + i * rows * wide, (rows, k.width), form,
                            base=x.slot(plan.acts), edges=(edge, None))
            plan.acts.op(Opcode.LOAD, operands={"src": src, "dst": dst},
                         waits=(x.take_free(),) if i == 0 else (),
                         signals=(x.give_full(),) if i == len(k.tables) - 1 else ())
        x.step(plan.vector)
        o.step(plan.vector)
        _sum_rows(plan, k, rows, wide, form)
        o.step(plan.store)
        plan.save(f"{k.name}.sum", o, 0, k.out, (rows, k.width), k.out.symbol.format,
                  loops=((1, rows * k.out.strides[0]),),
                  edges=(plan.edge(plan.store, k.rows, (1, rows)), None),
                  waits=(o.take_full(),), signals=(o.give_free(),))
    plan.end()


def _sum_rows(plan: Plan, k: EmbedKernel, rows: int, wide: int, form: str) -> None:
    """Add the rows gathered from each table in order, in the output's format."""
    b, vector, x, o = plan.builder, plan.vector, plan.rings["x"], plan.rings["o"]
    part = -(-rows // plan.vectors)
    edge: Edge = plan.edge(vector, k.rows, (1, rows), (UNIT_LEVEL, part))
    tiles = [
        b.operand(f"{k.name}.in{i}", Space.SCRATCHPAD, x.address_bytes + i * rows * wide,
                  (part, k.width), form, base=x.slot(vector),
                  loops=((UNIT_LEVEL, part * k.width),), edges=(edge, None))
        for i in range(len(k.tables))
    ]
    y = b.operand(f"{k.name}.y", Space.SCRATCHPAD, o.address_bytes, (part, k.width),
                  k.out.symbol.format, base=o.slot(vector),
                  loops=((UNIT_LEVEL, part * k.width),), edges=(edge, None))
    steps = [(VectorOp.CONVERT, tiles[:1])] if len(tiles) == 1 else [(VectorOp.ADD, tiles[:2])]
    steps += [(VectorOp.ADD, [y, tile]) for tile in tiles[2:]]
    for i, (vop, sources) in enumerate(steps):
        last = i == len(steps) - 1
        plan.compute(vop, y, *sources, mask=_units(plan, rows),
                     waits=(x.take_full(), o.take_free()) if i == 0 else (),
                     signals=(x.give_free(), o.give_full()) if last else ())
