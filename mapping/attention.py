"""The attention kernel: softmax(q k^T) v, a group of heads and a block of queries at a time.

Loop levels: 0 layer, 1 request, 2 group of key heads (shared by the units), 3 block of queries,
4 block of keys. Scores of a block of queries stand in the accumulator for all keys, where the
vector units turn them into probabilities.
"""

from dataclasses import dataclass

from machine.formats import format_named
from machine.opcodes import Alu, Dataflow, Mode, Opcode
from machine.program import UNIT_LEVEL, Edge, Space
from machine.vector import Mask, ScaleRule, VectorOp
from mapping.builder import DRAM_ALIGN_BYTES, Ring, fp32_bits
from mapping.fit import Unfit, buffer_too_small
from mapping.plan import Plan, Rows, Tensor

__all__ = ["AttentionKernel", "write_attention"]

SCORE = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionKernel:
    """out [batch, tokens, heads x head_dim] from q and the cache, both [batch, heads, t, d]."""

    name: str
    batch: int
    queries: Rows
    keys: Rows
    heads: int  # query heads
    kv_heads: int
    head_dim: int
    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor  # strides of request, token, element
    q_scale: Tensor | None = None  # FP32, as q without its last axis; None: floating point
    k_scale: Tensor | None = None
    v_scale: Tensor | None = None
    causal: bool = False
    window: int | None = None


@dataclass(frozen=True, slots=True)
class _Blocks:
    """How much of a kernel is on chip at once."""

    heads: int  # key heads
    unit_heads: int  # of them, those of one array unit
    queries: int
    keys: int  # a chunk of K or V
    length: int  # keys a row of scores is laid out for

    def rows(self, group: int) -> int:
        """Rows of scores of all heads."""
        return self.heads * group * self.queries


def write_attention(plan: Plan, kernel: AttentionKernel) -> None:
    """Write `kernel` into the plan's streams; raises `Unfit` where a row of scores cannot stay."""
    k, s, x = kernel, plan.rings["s"], plan.rings["x"]
    blocks = _find_blocks(plan, k)
    plan.begin()
    plan.weights.wait((plan.cached, 1))
    with (plan.loop(k.batch), plan.loop(-(-k.kv_heads // blocks.heads)),
          plan.loop(-(-k.queries.most // blocks.queries))):
        side = _load_queries(plan, k, blocks)
        if side:
            s.step(plan.vector)
            x.step(plan.vector)
            plan.vector.wait(s.take_full(), x.take_full())
        _scores(plan, k, blocks)
        _softmax(plan, k, blocks, side)
        _weighted_sum(plan, k, blocks)
        _save(plan, k, blocks)
    plan.end()


def _find_blocks(plan: Plan, k: AttentionKernel) -> _Blocks:
    """Return the blocks that make the fewest steps of those that fit, on the most units."""
    length = -(-k.keys.most // 16) * 16
    found: list[tuple[int, int, int, _Blocks]] = []
    for units in range(1, min(plan.arrays, k.kv_heads) + 1):
        unit_heads = 1
        while units * unit_heads <= k.kv_heads:
            n = _largest(plan, k, units, unit_heads, length)
            if n is not None:
                steps = -(-k.kv_heads // n.heads) * -(-k.queries.most // n.queries)
                found.append((steps, -units, unit_heads, n))
            unit_heads *= 2
    if not found:
        raise _too_long(plan, k, length)
    return min(found, key=lambda item: item[:3])[3]


def _largest(
    plan: Plan, k: AttentionKernel, units: int, unit_heads: int, length: int
) -> _Blocks | None:
    """Return the blocks of `units` x `unit_heads` heads, or None where nothing fits.

    More heads than units make chunks of fewer keys. These must still fill an array's sides, and be
    all keys of a head or enough of them to come from every channel.
    """
    array, heads = plan.machine.array_of(0), units * unit_heads
    keys = min(length, plan.slots.weights // (heads * k.head_dim * _bytes(k.k)) // 16 * 16)
    queries = min(k.queries.most, *(
        (bound - fixed) // row for fixed, row, bound in _needs(plan, k, heads, length).values()))
    least = 16
    if unit_heads > 1:
        least = min(length, max(array.rows, array.cols,
                                DRAM_ALIGN_BYTES // (k.head_dim * _bytes(k.k))))
    if keys < least or queries < 1 or heads % -(-heads // plan.vectors):
        return None
    return _Blocks(heads, unit_heads, queries, keys, length)


def _needs(
    plan: Plan, k: AttentionKernel, heads: int, length: int
) -> dict[str, tuple[int, int, int]]:
    """Return by region the bytes of any block, those more for each query, and the slot's."""
    slots, rows = plan.slots, heads * (k.heads // k.kv_heads)
    scales = heads * 4 * length if k.q_scale is not None else 0
    p_bytes = format_named(_p_format(k)).bits // 8
    return {
        "accumulator": (0, rows * 4 * max(length, k.head_dim), slots.accumulator),
        "probabilities": (64, rows * (length * p_bytes + 4), slots.probabilities),
        "queries": (0, rows * k.head_dim * _bytes(k.q), slots.activations),
        "outputs": (0, rows * k.head_dim * _bytes(k.out), slots.outputs),
        "scales": (scales + 128, rows * 4, slots.side),
        "scales of values": (scales, 1, slots.rows),
    }


def _too_long(plan: Plan, k: AttentionKernel, length: int) -> Unfit:
    """Return what to raise: the region that one query of one key head exceeds the most."""
    demands = {name: (fixed + row, bound)
               for name, (fixed, row, bound) in _needs(plan, k, 1, length).items()}
    demands["keys"] = (16 * k.head_dim * _bytes(k.k), plan.slots.weights)
    region, (demand, bound) = max(demands.items(), key=lambda item: item[1][0] / item[1][1])
    buffer = "accumulator" if region == "accumulator" else "scratchpad"
    return buffer_too_small(f"{k.name}, one row of scores ({region})", plan.machine, buffer,
                            demand, bound, "fewer keys (--kv)")


def _bytes(tensor: Tensor) -> int:
    return format_named(tensor.symbol.format).bits // 8


def _p_format(k: AttentionKernel) -> str:
    """The format of probabilities: codes beside quantised values, else the values' format."""
    return "int8" if k.v_scale is not None else k.v.symbol.format


def _load_queries(plan: Plan, k: AttentionKernel, n: _Blocks) -> dict[str, int]:
    """Load q, its scales and those of k into the side slot, those of v as rows; return places."""
    a, s, x, acts, group = *(plan.rings[name] for name in "asx"), plan.acts, k.heads // k.kv_heads
    heads = Edge(k.heads, ((2, n.heads * group),))
    tokens = plan.edge(acts, k.queries, (3, n.queries))
    st = k.q.strides
    a.step(acts)
    plan.load(acts, f"{k.name}.q", k.q, a, 0, (n.heads * group, n.queries, k.head_dim),
              strides=st[1:], edges=(heads, tokens, None),
              loops=((1, st[0]), (2, n.heads * group * st[1]), (3, n.queries * st[2])),
              waits=(a.take_free(),), signals=(a.give_full(),))
    if k.q_scale is None or k.k_scale is None or k.v_scale is None:
        return {}
    s.step(acts)
    st = k.q_scale.strides
    places = {"q": 0}
    at = plan.load(acts, f"{k.name}.qs", k.q_scale, s, 0, (n.heads * group, n.queries),
                   strides=st[1:], edges=(heads, tokens),
                   loops=((1, st[0]), (2, n.heads * group * st[1]), (3, n.queries)),
                   waits=(s.take_free(),))
    x.step(acts)
    acts.wait(x.take_free())
    for name, scale, ring, place in (("k", k.k_scale, s, at), ("v", k.v_scale, x, 0)):
        places[name], st = place, scale.strides
        plan.load(acts, f"{k.name}.{name}s", scale, ring, place, (n.heads, n.length),
                  strides=st[1:], loops=((1, st[0]), (2, n.heads * st[1])),
                  edges=(Edge(k.kv_heads, ((2, n.heads),)), plan.edge(acts, k.keys)),
                  signals=(ring.give_full(),))
    return places


def _load_cached(plan: Plan, k: AttentionKernel, n: _Blocks, name: str, cached: Tensor) -> None:
    """Load a chunk of K or V."""
    w, stream, st = plan.rings["w"], plan.weights, cached.strides
    w.step(stream)
    plan.load(stream, f"{k.name}.{name}", cached, w, 0, (n.heads, n.keys, k.head_dim),
              strides=st[1:], waits=(w.take_free(),), signals=(w.give_full(),),
              edges=(Edge(k.kv_heads, ((2, n.heads),)),
                     plan.edge(stream, k.keys, (4, n.keys)), None),
              loops=((1, st[0]), (2, n.heads * st[1]), (4, n.keys * st[2])))


@dataclass(frozen=True, slots=True)
class _Views:
    """Makes the operands of one kernel's compute streams."""

    plan: Plan
    k: AttentionKernel
    n: _Blocks

    @property
    def group(self) -> int:
        """Query heads a key head."""
        return self.k.heads // self.k.kv_heads

    @property
    def acc_format(self) -> str:
        """Sums are INT32 for codes, FP32 otherwise."""
        return "int32" if self.k.q_scale is not None else "float32"

    def matmul(self, a: tuple[str, int, int, str], w: str, contract: Edge | None,
               out: tuple[int, int, int, Edge | None], depth: int) -> dict[str, int]:
        """Return the operands of a MATMUL of each unit's key heads.

        `a` is (ring, row length, element step a chunk of keys, format); `w` is "k" or "v"; `out`
        is (columns, row length, element step a chunk of keys, edge of the columns).
        """
        plan, n, b, array = self.plan, self.n, self.plan.builder, self.plan.array
        ring, length, chunk, form = a
        columns, sums, sum_chunk, out_edge = out
        mine = Edge(self.k.kv_heads, ((2, n.heads), (UNIT_LEVEL, n.unit_heads)))
        cached, d = self.k.k if w == "k" else self.k.v, self.k.head_dim
        sizes, edges = self._rows()
        one, each = ((1,), (0,)) if len(sizes) == 2 else ((), ())

        def rows(width: int) -> tuple[int, ...]:
            strides = (n.queries * width, width) if len(sizes) == 2 else (width,)
            return (self.group * n.queries * width, *strides, 1)

        def steps(size: int, chunk: int) -> tuple[tuple[int, int], ...]:
            return (UNIT_LEVEL, n.unit_heads * size), (4, chunk)

        return {
            "a": b.operand(f"{self.k.name}.{w}.a", Space.SCRATCHPAD,
                           plan.rings[ring].address_bytes, (n.unit_heads, *sizes, depth), form,
                           strides=rows(length), base=plan.rings[ring].slot(array),
                           loops=steps(self.group * n.queries * length, chunk),
                           edges=(mine, *edges, contract)),
            "w": b.operand(f"{self.k.name}.{w}.w", Space.SCRATCHPAD,
                           plan.rings["w"].address_bytes,
                           (n.unit_heads, *one, depth, columns), cached.symbol.format,
                           strides=(n.keys * d, *each, *((1, d) if w == "k" else (d, 1))),
                           base=plan.rings["w"].slot(array), loops=steps(n.keys * d, 0),
                           edges=(mine, *((None,) * len(one)), contract, out_edge)),
            "acc": b.operand(f"{self.k.name}.{w}.sum", Space.ACCUMULATOR,
                             plan.rings["acc"].address_bytes, (n.unit_heads, *sizes, columns),
                             self.acc_format, strides=rows(sums),
                             base=plan.rings["acc"].slot(array),
                             loops=steps(self.group * n.queries * sums, sum_chunk),
                             edges=(mine, *edges, out_edge)),
        }

    def _rows(self) -> tuple[tuple[int, ...], tuple[Edge | None, ...]]:
        """Sizes and edges of the rows of one key head: one axis where all blocks are full."""
        queries, n = self.k.queries, self.n
        if queries.entry is None and queries.most % n.queries == 0:
            return (self.group * n.queries,), (None,)
        return (self.group, n.queries), (None, self.plan.edge(self.plan.array, queries,
                                                              (3, n.queries)))

    def vector(self, name: str, space: Space, address: int, base: int | None, form: str,
               length: int, edge: Edge | None) -> int:
        """Return a tile [heads, group, queries, length] of dense rows."""
        plan, n = self.plan, self.n
        mine = -(-n.heads // plan.vectors)
        head = self.group * n.queries * length
        return plan.builder.operand(
            f"{self.k.name}.{name}", space, address, (mine, self.group, n.queries, length), form,
            strides=(head, n.queries * length, length, 1), base=base,
            loops=((UNIT_LEVEL, mine * head),), edges=(*self._leading(), edge))

    def scale(self, name: str, address: int, base: int | None, *, row: int = 1,
              trailing: bool = False) -> int:
        """Return the FP32 scale of each row, [heads, group, queries] (and 1 if `trailing`)."""
        plan, n = self.plan, self.n
        mine = -(-n.heads // plan.vectors)
        head = self.group * n.queries
        one = (1,) if trailing else ()
        return plan.builder.operand(
            f"{self.k.name}.{name}", Space.SCRATCHPAD, address,
            (mine, self.group, n.queries, *one), "float32", strides=(head, n.queries, 1, *one),
            base=base, loops=((UNIT_LEVEL, mine * head),),
            edges=(*self._leading(), *((None,) if trailing else ())))

    def columns(self, name: str, ring: Ring, place: int, edge: Edge) -> int:
        """Return the FP32 scale of each key, [heads, 1, 1, length]."""
        plan, n = self.plan, self.n
        mine = -(-n.heads // plan.vectors)
        return plan.builder.operand(
            f"{self.k.name}.{name}", Space.SCRATCHPAD, ring.address_bytes + place,
            (mine, 1, 1, n.length), "float32", strides=(n.length, n.length, n.length, 1),
            base=ring.slot(plan.vector), loops=((UNIT_LEVEL, mine * n.length),),
            edges=(self._leading()[0], None, None, edge))

    def _leading(self) -> tuple[Edge | None, ...]:
        mine = -(-self.n.heads // self.plan.vectors)
        rows = self.plan.edge(self.plan.vector, self.k.queries, (3, self.n.queries))
        return Edge(self.k.kv_heads, ((2, self.n.heads), (UNIT_LEVEL, mine))), None, rows


def _array_mask(n: _Blocks) -> int:
    return (1 << n.heads // n.unit_heads) - 1


def _vector_mask(plan: Plan, n: _Blocks) -> int:
    mine = -(-n.heads // plan.vectors)
    return (1 << n.heads // mine) - 1


def _flow(plan: Plan) -> int:
    return Dataflow[plan.machine.array_of(0).dataflows[-1].upper()]


def _scores(plan: Plan, k: AttentionKernel, n: _Blocks) -> None:
    """Multiply a block of queries by all keys, chunk by chunk, into one accumulator slot."""
    views, array = _Views(plan, k, n), plan.array
    a, w, acc = plan.rings["a"], plan.rings["w"], plan.rings["acc"]
    a.step(array)
    acc.step(array)
    array.wait(a.take_full(), acc.take_free())
    with plan.loop(-(-k.keys.most // n.keys), plan.weights, array):
        _load_cached(plan, k, n, "k", k.k)
        w.step(array)
        keys = plan.edge(array, k.keys, (4, n.keys))
        array.op(Opcode.MATMUL, mask=_array_mask(n), waits=(w.take_full(),),
                 signals=(w.give_free(),),
                 operands=views.matmul(("a", k.head_dim, 0, k.q.symbol.format), "k", None,
                                       (n.keys, n.length, n.keys, keys), k.head_dim),
                 fields={"dataflow": _flow(plan), "mode": Mode.SET})
    array.fence(a.give_free(), acc.give_full())


def _softmax(plan: Plan, k: AttentionKernel, n: _Blocks, side: dict[str, int]) -> None:
    """Turn the scores into probabilities, times the scales of v, as the array reads them."""
    views, vector, mask = _Views(plan, k, n), plan.vector, _vector_mask(plan, n)
    acc, p, s, x = (plan.rings[name] for name in ("acc", "p", "s", "x"))
    keys = plan.edge(vector, k.keys)
    acc.step(vector)
    p.step(vector)
    score = views.vector("score", Space.ACCUMULATOR, acc.address_bytes, acc.slot(vector), SCORE,
                         n.length, keys)
    y = views.vector("p", Space.SCRATCHPAD, p.address_bytes, p.slot(vector), _p_format(k),
                     n.length, keys)
    fields = {"value": fp32_bits(k.head_dim**-0.5)} | _mask(plan, k, n)
    waits, done = (acc.take_full(),), (acc.give_free(), p.give_full())
    if not side:
        plan.compute(VectorOp.SOFTMAX, y, score, mask=mask, fields=fields,
                     waits=(*waits, p.take_free()), signals=done)
        return
    sums = views.vector("logit", Space.ACCUMULATOR, acc.address_bytes, acc.slot(vector),
                        views.acc_format, n.length, keys)
    rows = views.scale("qs", s.address_bytes + side["q"], s.slot(vector))
    plan.compute(VectorOp.DEQUANTISE, score, sums, rows, views.columns("ks", s, side["k"], keys),
                 mask=mask, waits=waits)
    plan.compute(VectorOp.SOFTMAX, score, score, mask=mask, fields=fields)
    plan.compute(VectorOp.MUL, score, score, views.columns("vs", x, side["v"], keys), mask=mask)
    plan.compute(VectorOp.QUANTISE, y, score, scale=_p_scale(views), waits=(p.take_free(),),
                 signals=(*done, s.give_free(), x.give_free()), mask=mask,
                 fields={"scale_rule": ScaleRule.ROW_ABSMAX})


def _mask(plan: Plan, k: AttentionKernel, n: _Blocks) -> dict[str, int]:
    """Return the fields of a softmax that say which keys a query sees."""
    if not k.causal:
        return {}
    vector = plan.vector
    at = vector.register("query")
    vector.scalar(Alu.INDEX, at, 3)
    vector.scalar(Alu.MUL, at, n.queries, ra=at)
    vector.scalar(Alu.ADD, at, vector.launch("position"), ra=at, register=True)
    if k.window is not None:
        return {"mask": Mask.WINDOW, "window": k.window, "position_register": at}
    return {"mask": Mask.CAUSAL, "position_register": at}


def _p_scale(views: _Views, *, trailing: bool = False) -> int:
    """The scale of each row of probabilities, behind them in their slot.

    The array hands the slot back before the scales are read: the vector units fill it again only
    after they have read them.
    """
    plan, n, p = views.plan, views.n, views.plan.rings["p"]
    codes = n.rows(views.group) * n.length * format_named(_p_format(views.k)).bits // 8
    return views.scale("ps", p.address_bytes + -(-codes // 64) * 64, p.slot(plan.vector),
                       trailing=trailing)


def _weighted_sum(plan: Plan, k: AttentionKernel, n: _Blocks) -> None:
    """Multiply the probabilities by V, chunk by chunk, and scale the sums."""
    views, rings, array = _Views(plan, k, n), plan.rings, plan.array
    w, p, acc, o = rings["w"], rings["p"], rings["acc"], rings["o"]
    p.step(array)
    acc.step(array)
    array.wait(p.take_full(), acc.take_free())
    with plan.loop(-(-k.keys.most // n.keys), plan.weights, array):
        _load_cached(plan, k, n, "v", k.v)
        w.step(array)
        keys = plan.edge(array, k.keys, (4, n.keys))
        array.op(Opcode.MATMUL, mask=_array_mask(n), waits=(w.take_full(),),
                 signals=(w.give_free(),),
                 operands=views.matmul(("p", n.length, n.keys, _p_format(k)), "v", keys,
                                       (k.head_dim, k.head_dim, 0, None), n.keys),
                 fields={"dataflow": _flow(plan), "set_level": 4})
    array.fence(p.give_free(), acc.give_full())
    acc.step(plan.vector)
    o.step(plan.vector)
    x = views.vector("sum", Space.ACCUMULATOR, acc.address_bytes, acc.slot(plan.vector),
                     views.acc_format, k.head_dim, None)
    y = views.vector("y", Space.SCRATCHPAD, o.address_bytes, o.slot(plan.vector),
                     k.out.symbol.format, k.head_dim, None)
    waits, done = (acc.take_full(), o.take_free()), (acc.give_free(), o.give_full())
    scales = [] if k.v_scale is None else [_p_scale(views, trailing=True)]
    plan.compute(VectorOp.MUL if scales else VectorOp.CONVERT, y, x, *scales,
                 mask=_vector_mask(plan, n), waits=waits, signals=done)


def _save(plan: Plan, k: AttentionKernel, n: _Blocks) -> None:
    """Store the block's rows, heads side by side within each token."""
    o, d, st = plan.rings["o"], k.head_dim, k.out.strides
    group = k.heads // k.kv_heads
    heads = n.heads * group
    o.step(plan.store)
    plan.save(f"{k.name}.out", o, 0, k.out, (heads, n.queries, d), k.out.symbol.format,
              strides=(d, st[1], 1),
              loops=((1, st[0]), (2, heads * d), (3, n.queries * st[1])),
              edges=(Edge(k.heads, ((2, heads),)), plan.edge(plan.store, k.queries, (3, n.queries)),
                     None),
              waits=(o.take_full(),), signals=(o.give_free(),))
