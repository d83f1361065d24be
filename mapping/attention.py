"""The attention kernel: softmax(q k^T) v, a group of heads and a block of queries at a time.

Loop levels: 0 layer, 1 request, 2 group of key heads (shared by the units), 3 block of queries,
4 block of keys. Scores of a block of queries stand in the accumulator for all keys, where the
vector units turn them into probabilities.
"""

from dataclasses import dataclass

from machine.formats import format_named
from machine.opcodes import Alu, Mode, Opcode
from machine.program import UNIT_LEVEL, Edge, Space
from machine.vector import Mask, ScaleRule, VectorOp
from mapping.attention_blocks import AttentionKernel, Blocks, find_blocks, probability_format
from mapping.builder import Ring, fp32_bits
from mapping.plan import Plan, Tensor, mask_of

__all__ = ["write_attention"]

SCORE = "float32"


def write_attention(plan: Plan, kernel: AttentionKernel) -> None:
    """Write `kernel` into the plan's streams; raises `Unfit` where a row of scores cannot stay."""
    k, s, x = kernel, plan.rings["s"], plan.rings["x"]
    blocks = find_blocks(plan, k)
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


def _load_queries(plan: Plan, k: AttentionKernel, n: Blocks) -> dict[str, int]:
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


def _load_cached(plan: Plan, k: AttentionKernel, n: Blocks, name: str, cached: Tensor) -> None:
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
    n: Blocks

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


def _array_mask(plan: Plan, n: Blocks) -> int:
    return mask_of(plan.array_units[: n.heads // n.unit_heads])


def _vector_mask(plan: Plan, n: Blocks) -> int:
    mine = -(-n.heads // plan.vectors)
    return (1 << n.heads // mine) - 1


def _scores(plan: Plan, k: AttentionKernel, n: Blocks) -> None:
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
        array.op(Opcode.MATMUL, mask=_array_mask(plan, n), waits=(w.take_full(),),
                 signals=(w.give_free(),),
                 operands=views.matmul(("a", k.head_dim, 0, k.q.symbol.format), "k", None,
                                       (n.keys, n.length, n.keys, keys), k.head_dim),
                 fields={"dataflow": plan.flow, "mode": Mode.SET})
    array.fence(a.give_free(), acc.give_full())


def _softmax(plan: Plan, k: AttentionKernel, n: Blocks, side: dict[str, int]) -> None:
    """Turn the scores into probabilities, times the scales of v, as the array reads them."""
    views, vector, mask = _Views(plan, k, n), plan.vector, _vector_mask(plan, n)
    acc, p, s, x = (plan.rings[name] for name in ("acc", "p", "s", "x"))
    keys = plan.edge(vector, k.keys)
    acc.step(vector)
    p.step(vector)
    score = views.vector("score", Space.ACCUMULATOR, acc.address_bytes, acc.slot(vector), SCORE,
                         n.length, keys)
    y = views.vector("p", Space.SCRATCHPAD, p.address_bytes, p.slot(vector), probability_format(k),
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


def _mask(plan: Plan, k: AttentionKernel, n: Blocks) -> dict[str, int]:
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
    codes = n.rows(views.group) * n.length * format_named(probability_format(views.k)).bits // 8
    return views.scale("ps", p.address_bytes + -(-codes // 64) * 64, p.slot(plan.vector),
                       trailing=trailing)


def _weighted_sum(plan: Plan, k: AttentionKernel, n: Blocks) -> None:
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
        array.op(Opcode.MATMUL, mask=_array_mask(plan, n), waits=(w.take_full(),),
                 signals=(w.give_free(),),
                 operands=views.matmul(("p", n.length, n.keys, probability_format(k)), "v", keys,
                                       (k.head_dim, k.head_dim, 0, None), n.keys),
                 fields={"dataflow": plan.flow, "set_level": 4})
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


def _save(plan: Plan, k: AttentionKernel, n: Blocks) -> None:
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
