"""What a block of an attention kernel costs: the estimate its search goes by."""

from machine.formats import format_named
from machine.vector import VectorOp
from mapping.attention_kernel import STATE, AttentionKernel, Blocks
from mapping.plan import Plan

__all__ = ["cost_cycles"]


def cost_cycles(plan: Plan, k: AttentionKernel, n: Blocks) -> int:
    """Estimate the cycles of a kernel in blocks `n`, of one request.

    Scores, probabilities and weighted sums of a block wait for each other, so that arrays and
    vector units add up; keys and values of the next chunk are loaded meanwhile. An estimate for
    choosing: the simulator says what it really takes.
    """
    step = max(_array(plan, k, n) + _vector(plan, k, n), _memory(plan, k, n))
    pieces = sum(n.trips(k, block) for block in range(-(-k.queries.most // n.queries)))
    return -(-k.kv_heads // n.heads) * pieces * step


def _array(plan: Plan, k: AttentionKernel, n: Blocks) -> int:
    """Return the cycles of a unit's two products, each drained before the vector units begin."""
    array, group = plan.machine.systolic, k.heads // k.kv_heads
    if n.one_axis(k):
        tile = array.ws_tile_cycles(group * n.queries)
    else:  # query heads take the weights one after another
        tile = group * array.ws_tile_cycles(n.queries)
    scores = -(-n.keys // array.cols) * -(-k.head_dim // array.rows)
    sums = -(-n.keys // array.rows) * -(-k.head_dim // array.cols)
    return n.unit_heads * n.chunks * (scores + sums) * tile + 2 * array.latency_cycles


def _vector(plan: Plan, k: AttentionKernel, n: Blocks) -> int:
    """Return the cycles of the unit with the most heads."""
    unit, heads = plan.machine.vectors[0], -(-n.heads // plan.vectors)
    rows = heads * k.heads // k.kv_heads * n.queries
    long, short = [VectorOp.SOFTMAX], [VectorOp.CONVERT]
    if k.q_scale is not None:
        long += [VectorOp.DEQUANTISE, VectorOp.MUL, VectorOp.QUANTISE]
        short = [VectorOp.MUL]
    spent = sum(unit.op_cycles(op, rows, n.length) for op in long)
    spent += sum(unit.op_cycles(op, rows, k.head_dim) for op in short)
    if n.pieces > 1:
        spent += unit.op_cycles(VectorOp.MERGE, rows, STATE + k.head_dim)
    return spent


def _memory(plan: Plan, k: AttentionKernel, n: Blocks) -> int:
    """Return the cycles of the crossbar for K and V of a block."""
    bits = format_named(k.k.symbol.format).bits + format_named(k.v.symbol.format).bits
    moved = n.heads * n.chunks * n.keys * k.head_dim * bits // 8
    return -(-moved // plan.machine.crossbar.bytes_per_cycle)
