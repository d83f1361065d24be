"""The attention kernel: softmax(q k^T) v, a group of heads and a block of queries at a time.

Loop levels: 0 layer, 1 request, 2 group of key heads (one an array unit), 3 block of queries,
4 block of keys. Scores of a block of queries stay on chip for all keys.
"""

from dataclasses import dataclass

from machine.formats import format_named
from machine.opcodes import Alu, Dataflow, Mode, Opcode
from machine.program import UNIT_LEVEL, Edge, Space
from machine.vector import Mask, ScaleRule, VectorOp
from mapping.fit import DoesNotFit, Unfit
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

    heads: int  # key heads, one an array unit
    queries: int
    keys: int  # a chunk of K or V
    length: int  # keys a row of scores is laid out for

    def rows(self, group: int) -> int:
        """Rows of scores of all heads."""
        return self.heads * group * self.queries


def write_attention(plan: Plan, kernel: AttentionKernel) -> None:
    """Write `kernel` into the plan's streams; raises `Unfit` where a row of scores cannot stay."""
    k, s = kernel, plan.rings["s"]
    blocks = _find_blocks(plan, k)
    plan.begin()
    plan.weights.wait((plan.cached, 1))
    with (plan.loop(k.batch), plan.loop(-(-k.kv_heads // blocks.heads)),
          plan.loop(-(-k.queries.most // blocks.queries))):
        side = _load_queries(plan, k, blocks)
        plan.rings["a"].step(plan.array)
        plan.array.wait(plan.rings["a"].take_full())
        if side:
            s.step(plan.vector)
            plan.vector.wait(s.take_full())
        with plan.loop(-(-k.keys.most // blocks.keys), plan.weights, plan.array, plan.vector):
            _scores(plan, k, blocks, side)
        plan.array.fence(plan.rings["a"].give_free())
        _softmax(plan, k, blocks, side)
        _weighted_sum(plan, k, blocks)
        _save(plan, k, blocks)
    plan.end()


def _find_blocks(plan: Plan, k: AttentionKernel) -> _Blocks:
    """Return the largest blocks that fit; heads first, then queries, then keys."""
    slots, group = plan.slots, k.heads // k.kv_heads
    heads = min(plan.arrays, k.kv_heads)
    while heads % -(-heads // plan.vectors):
        heads -= 1
    length = -(-k.keys.most // 16) * 16
    p_bytes = format_named(_p_format(k)).bits // 8
    while heads >= 1:
        row = heads * group
        keys = slots.weights // (heads * k.head_dim * _bytes(k.k)) // 16 * 16
        bounds = [
            (plan.scratch_bytes - 256) // (row * (4 * length + 8)),
            plan.rings["p"].slot_bytes // (row * length * p_bytes),
            (slots.activations - 256) // (row * k.head_dim * _bytes(k.q)),
            slots.outputs // (row * k.head_dim * _bytes(k.out)),
        ]
        side = 2 * (heads * 4 * length + 64) + 64
        if min(bounds) >= 1 and keys >= 16 and side + row * 4 * min(bounds) <= slots.side:
            keys = min(keys, length)
            queries = min(min(bounds), k.queries.most)
            while row * queries * max(keys, k.head_dim) * 4 > slots.accumulator:
                keys //= 2
            if keys >= 1:
                return _Blocks(heads, queries, keys, length)
        heads //= 2
    size = plan.machine.scratchpad.bytes
    need = group * (4 * length + 8) + 256
    wanted = max(-(-size * need // plan.scratch_bytes), size + 1)
    raise Unfit(DoesNotFit(f"{k.name}, one row of scores", "scratchpad.bytes", wanted, size,
                           "bytes", (f"--set scratchpad.bytes={wanted}", "fewer keys (--kv)")))


def _bytes(tensor: Tensor) -> int:
    return format_named(tensor.symbol.format).bits // 8


def _p_format(k: AttentionKernel) -> str:
    """The format of probabilities: codes beside quantised values, else the values' format."""
    return "int8" if k.v_scale is not None else k.v.symbol.format


def _load_queries(plan: Plan, k: AttentionKernel, n: _Blocks) -> dict[str, int]:
    """Load q, and scales of q and v into the side slot; return the scales' places."""
    a, s, acts, group = plan.rings["a"], plan.rings["s"], plan.acts, k.heads // k.kv_heads
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
    for name, scale in (("k", k.k_scale), ("v", k.v_scale)):
        places[name], st = at, scale.strides
        at += plan.load(acts, f"{k.name}.{name}s", scale, s, at, (n.heads, n.length),
                        strides=st[1:], loops=((1, st[0]), (2, n.heads * st[1])),
                        edges=(Edge(k.kv_heads, ((2, n.heads),)), plan.edge(acts, k.keys)),
                        signals=(s.give_full(),) if name == "v" else ())
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

    def matmul(self, a: tuple[str, int, int, str], w: str, contract: Edge | None, out: int,
               out_edge: Edge | None, depth: int) -> dict[str, int]:
        """Return the operands of a MATMUL of one key head a unit.

        `a` is (ring, row length, element step a chunk of keys, format); `w` is "k" or "v".
        """
        plan, n, b, array = self.plan, self.n, self.plan.builder, self.plan.array
        ring, length, chunk, form = a
        rows = plan.edge(array, self.k.queries, (3, n.queries))
        mine = Edge(self.k.heads, ((2, n.heads * self.group), (UNIT_LEVEL, self.group)))
        head = self.group * n.queries * length
        step = self.group * n.queries * out
        cached = self.k.k if w == "k" else self.k.v
        d = self.k.head_dim
        return {
            "a": b.operand(f"{self.k.name}.{w}.a", Space.SCRATCHPAD,
                           plan.rings[ring].address_bytes, (self.group, n.queries, depth), form,
                           strides=(n.queries * length, length, 1),
                           base=plan.rings[ring].slot(array),
                           loops=((UNIT_LEVEL, head), (4, chunk)), edges=(mine, rows, contract)),
            "w": b.operand(f"{self.k.name}.{w}.w", Space.SCRATCHPAD,
                           plan.rings["w"].address_bytes, (depth, out), cached.symbol.format,
                           strides=(1, d) if w == "k" else (d, 1),
                           base=plan.rings["w"].slot(array),
                           loops=((UNIT_LEVEL, n.keys * d),), edges=(contract, out_edge)),
            "acc": b.operand(f"{self.k.name}.{w}.sum", Space.ACCUMULATOR,
                             plan.rings["acc"].address_bytes, (self.group, n.queries, out),
                             self.acc_format, strides=(n.queries * out, out, 1),
                             base=plan.rings["acc"].slot(array), loops=((UNIT_LEVEL, step),),
                             edges=(mine, rows, out_edge)),
        }

    def vector(self, name: str, space: Space, address: int, base: int | None, form: str,
               length: int, width: int, edge: Edge | None, *, chunk: int = 0) -> int:
        """Return a tile [heads, group, queries, width] of rows laid out `length` apart."""
        plan, n = self.plan, self.n
        mine = -(-n.heads // plan.vectors)
        head = self.group * n.queries * length
        return plan.builder.operand(
            f"{self.k.name}.{name}", space, address, (mine, self.group, n.queries, width), form,
            strides=(head, n.queries * length, length, 1), base=base,
            loops=((UNIT_LEVEL, mine * head), (4, chunk)), edges=(*self._leading(), edge))

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

    def columns(self, name: str, place: int, width: int, edge: Edge, *, chunk: int = 0) -> int:
        """Return the FP32 scale of each key, [heads, 1, 1, width]."""
        plan, n = self.plan, self.n
        mine = -(-n.heads // plan.vectors)
        ring = plan.rings["s"]
        return plan.builder.operand(
            f"{self.k.name}.{name}", Space.SCRATCHPAD, ring.address_bytes + place,
            (mine, 1, 1, width), "float32", strides=(n.length, n.length, n.length, 1),
            base=ring.slot(plan.vector), loops=((UNIT_LEVEL, mine * n.length), (4, chunk)),
            edges=(self._leading()[0], None, None, edge))

    def _leading(self) -> tuple[Edge | None, ...]:
        mine = -(-self.n.heads // self.plan.vectors)
        rows = self.plan.edge(self.plan.vector, self.k.queries, (3, self.n.queries))
        return Edge(self.k.kv_heads, ((2, self.n.heads), (UNIT_LEVEL, mine))), None, rows


def _array_mask(n: _Blocks) -> int:
    return (1 << n.heads) - 1


def _vector_mask(plan: Plan, n: _Blocks) -> int:
    mine = -(-n.heads // plan.vectors)
    return (1 << n.heads // mine) - 1


def _flow(plan: Plan) -> int:
    return Dataflow[plan.machine.array_of(0).dataflows[-1].upper()]


def _scores(plan: Plan, k: AttentionKernel, n: _Blocks, side: dict[str, int]) -> None:
    """Multiply a block of queries by a chunk of keys, and scale the sums into the scratch."""
    views, w, acc, s = _Views(plan, k, n), plan.rings["w"], plan.rings["acc"], plan.rings["s"]
    _load_cached(plan, k, n, "k", k.k)
    w.step(plan.array)
    acc.step(plan.array)
    plan.array.wait(acc.take_free())
    keys = plan.edge(plan.array, k.keys, (4, n.keys))
    plan.array.op(
        Opcode.MATMUL, mask=_array_mask(n), waits=(w.take_full(),),
        signals=(w.give_free(), acc.give_full()),
        operands=views.matmul(("a", k.head_dim, 0, k.q.symbol.format), "k", None, n.keys, keys,
                              k.head_dim),
        fields={"dataflow": _flow(plan), "mode": Mode.SET})
    acc.step(plan.vector)
    keys = plan.edge(plan.vector, k.keys, (4, n.keys))
    x = views.vector("logit", Space.ACCUMULATOR, acc.address_bytes, acc.slot(plan.vector),
                     views.acc_format, n.keys, n.keys, keys)
    y = views.vector("score", Space.SCRATCHPAD, plan.scratch_address, None, SCORE, n.length,
                     n.keys, keys, chunk=n.keys)
    sources = [x]
    if side:
        sources += [views.scale("qs", s.address_bytes + side["q"], s.slot(plan.vector)),
                    views.columns("ks", side["k"], n.keys, keys, chunk=n.keys)]
    plan.compute(VectorOp.DEQUANTISE if side else VectorOp.CONVERT, y, *sources,
                 mask=_vector_mask(plan, n), waits=(acc.take_full(),), signals=(acc.give_free(),))


def _softmax(plan: Plan, k: AttentionKernel, n: _Blocks, side: dict[str, int]) -> None:
    """Turn the scores into probabilities, times the scales of v, as the array reads them."""
    views, vector, p, s = _Views(plan, k, n), plan.vector, plan.rings["p"], plan.rings["s"]
    keys = plan.edge(vector, k.keys)
    score = views.vector("score", Space.SCRATCHPAD, plan.scratch_address, None, SCORE, n.length,
                         n.length, keys)
    fields: dict[str, int] = {}
    if k.causal:
        at = vector.register("query")
        vector.scalar(Alu.INDEX, at, 3)
        vector.scalar(Alu.MUL, at, n.queries, ra=at)
        vector.scalar(Alu.ADD, at, vector.launch("position"), ra=at, register=True)
        fields = {"mask": Mask.CAUSAL, "position_register": at}
        if k.window is not None:
            fields |= {"mask": Mask.WINDOW, "window": k.window}
    mask = _vector_mask(plan, n)
    plan.compute(VectorOp.SOFTMAX, score, score, mask=mask, fields=fields)
    p.step(vector)
    y = views.vector("p", Space.SCRATCHPAD, p.address_bytes, p.slot(vector), _p_format(k),
                     n.length, n.length, keys)
    if not side:
        plan.compute(VectorOp.CONVERT, y, score, mask=mask, waits=(p.take_free(),),
                     signals=(p.give_full(),))
        return
    plan.compute(VectorOp.MUL, score, score, views.columns("vs", side["v"], n.length, keys),
                 mask=mask)
    plan.compute(VectorOp.QUANTISE, y, score, scale=_p_scale(views), waits=(p.take_free(),),
                 signals=(p.give_full(), s.give_free()), mask=mask,
                 fields={"scale_rule": ScaleRule.ROW_ABSMAX})


def _p_scale(views: _Views, *, trailing: bool = False) -> int:
    """The scale of each row of probabilities, behind the scores in the scratch."""
    plan, n = views.plan, views.n
    behind = -(-n.rows(views.group) * n.length * 4 // 64) * 64
    return views.scale("ps", plan.scratch_address + behind, None, trailing=trailing)


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
                                       k.head_dim, None, n.keys),
                 fields={"dataflow": _flow(plan), "set_level": 4})
    array.fence(p.give_free(), acc.give_full())
    acc.step(plan.vector)
    o.step(plan.vector)
    d = k.head_dim
    x = views.vector("sum", Space.ACCUMULATOR, acc.address_bytes, acc.slot(plan.vector),
                     views.acc_format, d, d, None)
    y = views.vector("y", Space.SCRATCHPAD, o.address_bytes, o.slot(plan.vector),
                     k.out.symbol.format, d, d, None)
    waits, done = (acc.take_full(), o.take_free()), (acc.give_free(), o.give_full())
    mask = _vector_mask(plan, n)
    if k.v_scale is None:
        plan.compute(VectorOp.CONVERT, y, x, mask=mask, waits=waits, signals=done)
        return
    plan.compute(VectorOp.MUL, y, x, _p_scale(views, trailing=True), mask=mask, waits=waits,
                 signals=done)


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
