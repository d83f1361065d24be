"""The attention kernel: softmax(q k^T) v, a group of heads and a block of queries at a time.

Scores of a block of queries stand in the accumulator for all keys, where the vector units turn
them into probabilities. Where the scores of all keys do not fit, a row is cut into pieces: each
leaves its largest score, its sum of weights and its weighted values, (m, l, o), and is merged into
what those before it left (arXiv 2205.14135, 2405.10480). Loop levels: `mapping.attention_views`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from machine.formats import format_named
from machine.opcodes import Alu, Mode, Opcode
from machine.program import Edge, Predicate, Space, SymbolKind
from machine.vector import Mask, ScaleRule, VectorOp
from mapping.attention_blocks import find_blocks, scale_bytes, state_bytes, sum_bytes
from mapping.attention_kernel import STATE, AttentionKernel, Blocks, probability_format
from mapping.attention_views import Views, array_mask, key_edge, key_loops, vector_mask
from mapping.builder import Count, Ring, fp32_bits
from mapping.plan import Plan, Tensor

__all__ = ["write_attention"]

SCORE = "float32"


def write_attention(plan: Plan, kernel: AttentionKernel) -> None:
    """Write `kernel` into the plan's streams; raises `Unfit` where not even pieces can stay."""
    blocks = find_blocks(plan, kernel)
    plan.begin()
    plan.weights.wait((plan.cached, 1))
    with (plan.loop(kernel.batch), plan.loop(-(-kernel.kv_heads // blocks.heads)),
          plan.loop(-(-kernel.queries.most // blocks.queries))):
        if blocks.pieces > 1:
            _in_pieces(plan, kernel, blocks)
        else:
            _at_once(plan, kernel, blocks)
        _save(plan, kernel, blocks)
    plan.end()


def _at_once(plan: Plan, k: AttentionKernel, n: Blocks) -> None:
    """Write a block whose rows of scores stand in the accumulator whole."""
    a, p, acc, o, s, x = (plan.rings[name] for name in ("a", "p", "acc", "o", "s", "x"))
    views, coded = Views(plan, k, n), k.q_scale is not None
    _load_queries(plan, k, n)
    if coded:
        s.step(plan.acts)
        at = _load_query_scales(plan, k, n, ())
        x.step(plan.acts)
        plan.acts.wait(x.take_free())
        _load_key_scales(plan, k, n, (("k", s, at, (s.give_full(),)),
                                      ("v", x, 0, (x.give_full(),))))
        s.step(plan.vector)
        x.step(plan.vector)
        plan.vector.wait(s.take_full(), x.take_full())
        scales = (views.columns("ks", s, at), views.columns("vs", x, 0))
    a.step(plan.array)
    plan.array.wait(a.take_full())
    _scores(plan, k, n, a.give_free())
    acc.step(plan.vector)
    p.step(plan.vector)
    if coded:
        _weigh_codes(plan, k, n, scales, done=(s.give_free(), x.give_free()))
    else:
        plan.compute(VectorOp.SOFTMAX, views.probabilities(), views.scores(SCORE),
                     mask=vector_mask(plan, n), fields=_seen(plan, k, n),
                     waits=(acc.take_full(), p.take_free()),
                     signals=(acc.give_free(), p.give_full()))
    _weighted_sum(plan, k, n)
    o.step(plan.vector)
    y = views.vector("y", Space.SCRATCHPAD, o.address_bytes, o.slot(plan.vector),
                     k.out.symbol.format, k.head_dim, None)
    _scale_sums(plan, k, n, y, waits=(o.take_free(),),
                signals=(plan.rings["acc"].give_free(), o.give_full()))


def _in_pieces(plan: Plan, k: AttentionKernel, n: Blocks) -> None:
    """Write a block piece by piece: scores in one accumulator slot, sums and states in the other.

    The states, (m, l, o) so far and the piece's, lie behind the weighted sums of the slot that
    the vector units have last been at. They give it back after the merge that reads them.
    """
    a, p, acc, o, s, x = (plan.rings[name] for name in ("a", "p", "acc", "o", "s", "x"))
    views, coded, vector = Views(plan, k, n), k.q_scale is not None, plan.vector
    _load_queries(plan, k, n)
    s.step(plan.acts)
    if coded:
        _load_query_scales(plan, k, n, ())
    else:
        plan.acts.wait(s.take_free())
    _load_empty(plan, k, n)
    for ring in (s, o):
        ring.step(vector)
    slot = vector.register("state.slot")
    vector.scalar(Alu.ADD, slot, 0, ra=acc.slot(vector))
    so_far, piece = (views.state(name, sum_bytes(k, n) + at, slot)
                     for name, at in (("so_far", 0), ("piece", state_bytes(k, n))))
    plan.compute(VectorOp.COPY, so_far.row, views.nothing(s, scale_bytes(k, n)),
                 mask=vector_mask(plan, n), waits=(s.take_full(), o.take_free()))
    a.step(plan.array)
    plan.array.wait(a.take_full())
    with _seen_pieces(plan, k, n):
        if coded:
            x.step(plan.acts)
            plan.acts.wait(x.take_free())
            at = n.heads * n.length * 4
            _load_key_scales(plan, k, n, (("k", x, 0, ()), ("v", x, at, (x.give_full(),))))
            x.step(vector)
            vector.wait(x.take_full())
            scales = (views.columns("ks", x, 0), views.columns("vs", x, at))
        _scores(plan, k, n)
        acc.step(vector)
        p.step(vector)
        if coded:
            _weigh_codes(plan, k, n, scales, state=piece.sums, done=(x.give_free(),))
        else:
            plan.compute(VectorOp.SOFTMAX, views.probabilities(), views.scores(SCORE),
                         state=piece.sums, mask=vector_mask(plan, n), fields=_seen(plan, k, n),
                         waits=(acc.take_full(), p.take_free()),
                         signals=(acc.give_free(), p.give_full()))
        _weighted_sum(plan, k, n)
        some = _any_keys(plan, k, n)
        _scale_sums(plan, k, n, piece.values, predicate=some)
        y = views.vector("y", Space.SCRATCHPAD, o.address_bytes, o.slot(vector),
                         k.out.symbol.format, k.head_dim, None)
        plan.compute(VectorOp.MERGE, y, piece.row, state=so_far.row, mask=vector_mask(plan, n),
                     signals=(acc.give_free(),), predicate=some)
    plan.array.fence(a.give_free())
    vector.fence(o.give_full(), s.give_free())


@contextmanager
def _seen_pieces(plan: Plan, k: AttentionKernel, n: Blocks) -> Iterator[None]:
    """Open the loop over the pieces of a row, without those that no query of a block sees."""
    streams = (plan.weights, plan.acts, plan.array, plan.vector)
    if not k.causal:
        with plan.loop(n.pieces, *streams):
            yield
        return
    with ExitStack() as stack:
        for stream in streams:
            trips = stream.register("pieces")
            stream.scalar(Alu.INDEX, trips, 3)
            stream.scalar(Alu.MUL, trips, n.queries, ra=trips)
            stream.scalar(Alu.ADD, trips, n.queries, ra=trips)
            stream.scalar(Alu.ADD, trips, stream.launch("position"), ra=trips, register=True)
            stream.scalar(Alu.CEILDIV, trips, n.length, ra=trips)
            stream.scalar(Alu.MIN, trips, n.pieces, ra=trips)
            stack.enter_context(stream.loop(trips, register=True))
        yield


def _load_queries(plan: Plan, k: AttentionKernel, n: Blocks) -> None:
    a, acts, group, st = plan.rings["a"], plan.acts, k.heads // k.kv_heads, k.q.strides
    a.step(acts)
    plan.load(acts, f"{k.name}.q", k.q, a, 0, (n.heads * group, n.queries, k.head_dim),
              strides=st[1:], edges=(*_query_edges(plan, k, n), None),
              loops=((1, st[0]), (2, n.heads * group * st[1]), (3, n.queries * st[2])),
              waits=(a.take_free(),), signals=(a.give_full(),))


def _load_empty(plan: Plan, k: AttentionKernel, n: Blocks) -> None:
    """Load a row that is the state of no keys, behind the scales of q."""
    s, width = plan.rings["s"], STATE + k.head_dim
    nothing = plan.builder.symbol(f"{k.name}.no_keys", SymbolKind.CONST, (width,), "float32",
                                  transform="empty_state")
    plan.load(plan.acts, f"{k.name}.empty", Tensor(nothing, (1,)), s, scale_bytes(k, n), (width,),
              signals=(s.give_full(),))


def _query_edges(plan: Plan, k: AttentionKernel, n: Blocks) -> tuple[Edge, Edge]:
    group = k.heads // k.kv_heads
    return (Edge(k.heads, ((2, n.heads * group),)),
            plan.edge(plan.acts, k.queries, (3, n.queries)))


def _load_query_scales(plan: Plan, k: AttentionKernel, n: Blocks, signals: tuple[Count, ...]
                       ) -> int:
    """Load the scales of q to the front of the side slot; return the bytes taken."""
    assert k.q_scale is not None
    s, group, st = plan.rings["s"], k.heads // k.kv_heads, k.q_scale.strides
    return plan.load(
        plan.acts, f"{k.name}.qs", k.q_scale, s, 0, (n.heads * group, n.queries), strides=st[1:],
        edges=_query_edges(plan, k, n),
        loops=((1, st[0]), (2, n.heads * group * st[1]), (3, n.queries)),
        waits=(s.take_free(),), signals=signals)


def _load_key_scales(plan: Plan, k: AttentionKernel, n: Blocks,
                     places: tuple[tuple[str, Ring, int, tuple[Count, ...]], ...]) -> None:
    """Load the scales of the keys and of their values to their places."""
    for name, ring, place, signals in places:
        scale = k.k_scale if name == "k" else k.v_scale
        assert scale is not None
        st = scale.strides
        loops = ((4, n.length),) if n.pieces > 1 else ()
        plan.load(plan.acts, f"{k.name}.{name}s", scale, ring, place, (n.heads, n.length),
                  strides=st[1:], loops=((1, st[0]), (2, n.heads * st[1]), *loops),
                  edges=(Edge(k.kv_heads, ((2, n.heads),)),
                         key_edge(plan, plan.acts, k, n, chunk=False)), signals=signals)


def _load_cached(plan: Plan, k: AttentionKernel, n: Blocks, name: str, cached: Tensor) -> None:
    """Load a chunk of K or V."""
    w, stream, st = plan.rings["w"], plan.weights, cached.strides
    w.step(stream)
    plan.load(stream, f"{k.name}.{name}", cached, w, 0, (n.heads, n.keys, k.head_dim),
              strides=st[1:], waits=(w.take_free(),), signals=(w.give_full(),),
              edges=(Edge(k.kv_heads, ((2, n.heads),)), key_edge(plan, stream, k, n), None),
              loops=((1, st[0]), (2, n.heads * st[1]), *key_loops(n, st[2])))


def _scores(plan: Plan, k: AttentionKernel, n: Blocks, *release: Count) -> None:
    """Multiply a block of queries by its keys, chunk by chunk, into one accumulator slot."""
    views, array, w, acc = Views(plan, k, n), plan.array, plan.rings["w"], plan.rings["acc"]
    acc.step(array)
    array.wait(acc.take_free())
    with plan.loop(n.chunks, plan.weights, array):
        _load_cached(plan, k, n, "k", k.k)
        w.step(array)
        array.op(Opcode.MATMUL, mask=array_mask(plan, n), waits=(w.take_full(),),
                 signals=(w.give_free(),),
                 operands=views.matmul(("a", k.head_dim, 0, k.q.symbol.format), "k", None,
                                       (n.keys, n.length, n.keys, key_edge(plan, array, k, n)),
                                       k.head_dim),
                 fields={"dataflow": plan.flow, "mode": Mode.SET,
                         **plan.order(views.acc_format)})
    array.fence(*release, acc.give_full())


def _weigh_codes(plan: Plan, k: AttentionKernel, n: Blocks, scales: tuple[int, int], *,
                 done: tuple[Count, ...], state: int | None = None) -> None:
    """Turn scores of codes into probabilities, times the scales of v, as the array reads them."""
    views, mask, acc, p = Views(plan, k, n), vector_mask(plan, n), plan.rings["acc"], \
        plan.rings["p"]
    score = views.scores(SCORE)
    rows = views.scale("qs", plan.rings["s"].address_bytes, plan.rings["s"].slot(plan.vector))
    plan.compute(VectorOp.DEQUANTISE, score, views.scores(views.acc_format), rows, scales[0],
                 mask=mask, waits=(acc.take_full(),))
    plan.compute(VectorOp.SOFTMAX, score, score, state=state, mask=mask, fields=_seen(plan, k, n))
    plan.compute(VectorOp.MUL, score, score, scales[1], mask=mask)
    plan.compute(VectorOp.QUANTISE, views.probabilities(), score, scale=_p_scale(views),
                 waits=(p.take_free(),), mask=mask, fields={"scale_rule": ScaleRule.ROW_ABSMAX},
                 signals=(acc.give_free(), p.give_full(), *done))


def _seen(plan: Plan, k: AttentionKernel, n: Blocks) -> dict[str, int]:
    """Return the fields of a softmax: the factor of the scores, and which keys a query sees."""
    factor = {"value": fp32_bits(k.head_dim**-0.5)}
    if not k.causal:
        return factor
    vector = plan.vector
    at = vector.register("query")
    vector.scalar(Alu.INDEX, at, 3)
    vector.scalar(Alu.MUL, at, n.queries, ra=at)
    vector.scalar(Alu.ADD, at, vector.launch("position"), ra=at, register=True)
    if n.pieces > 1:  # the keys of a piece count from its first one
        first = vector.register("piece")
        vector.scalar(Alu.INDEX, first, 4)
        vector.scalar(Alu.MUL, first, n.length, ra=first)
        vector.scalar(Alu.SUB, at, first, ra=at, register=True)
    if k.window is not None:
        return factor | {"mask": Mask.WINDOW, "window": k.window, "position_register": at}
    return factor | {"mask": Mask.CAUSAL, "position_register": at}


def _any_keys(plan: Plan, k: AttentionKernel, n: Blocks) -> Predicate | None:
    """Return what holds where a piece has keys; None where every piece always has."""
    if k.keys.entry is None:
        return None
    vector = plan.vector
    some, keys = vector.register("piece"), vector.launch(k.keys.entry)
    vector.scalar(Alu.INDEX, some, 4)
    vector.scalar(Alu.MUL, some, n.length, ra=some)
    vector.scalar(Alu.LT, some, keys, ra=some, register=True)
    return Predicate(some)


def _p_scale(views: Views, *, trailing: bool = False) -> int:
    """The scale of each row of probabilities, behind them in their slot.

    The array hands the slot back before the scales are read: the vector units fill it again only
    after they have read them.
    """
    plan, n, p = views.plan, views.n, views.plan.rings["p"]
    codes = n.rows(views.group) * n.length * format_named(probability_format(views.k)).bits // 8
    return views.scale("ps", p.address_bytes + -(-codes // 64) * 64, p.slot(plan.vector),
                       trailing=trailing)


def _weighted_sum(plan: Plan, k: AttentionKernel, n: Blocks) -> None:
    """Multiply the probabilities by V, chunk by chunk."""
    views, array, w = Views(plan, k, n), plan.array, plan.rings["w"]
    p, acc = plan.rings["p"], plan.rings["acc"]
    p.step(array)
    acc.step(array)
    array.wait(p.take_full(), acc.take_free())
    with plan.loop(n.chunks, plan.weights, array):
        _load_cached(plan, k, n, "v", k.v)
        w.step(array)
        array.op(Opcode.MATMUL, mask=array_mask(plan, n), waits=(w.take_full(),),
                 signals=(w.give_free(),),
                 operands=views.matmul(("p", n.length, n.keys, probability_format(k)), "v",
                                       key_edge(plan, array, k, n),
                                       (k.head_dim, k.head_dim, 0, None), n.keys),
                 fields={"dataflow": plan.flow, "set_level": n.level,
                         **plan.order(views.acc_format)})
    array.fence(p.give_free(), acc.give_full())


def _scale_sums(plan: Plan, k: AttentionKernel, n: Blocks, y: int, *,
                waits: tuple[Count, ...] = (), signals: tuple[Count, ...] = (),
                predicate: Predicate | None = None) -> None:
    """Write the sums to `y`, codes times their rows' scales."""
    views, acc = Views(plan, k, n), plan.rings["acc"]
    acc.step(plan.vector)
    x = views.vector("sum", Space.ACCUMULATOR, acc.address_bytes, acc.slot(plan.vector),
                     views.acc_format, k.head_dim, None)
    scales = [] if k.v_scale is None else [_p_scale(views, trailing=True)]
    plan.compute(VectorOp.MUL if scales else VectorOp.CONVERT, y, x, *scales,
                 mask=vector_mask(plan, n), waits=(acc.take_full(), *waits), signals=signals,
                 predicate=predicate)


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
