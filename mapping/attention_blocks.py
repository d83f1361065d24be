"""The search for an attention kernel's blocks."""

from machine.formats import format_named
from mapping.attention_cost import cost_cycles
from mapping.attention_kernel import STATE, AttentionKernel, Blocks, probability_format
from mapping.builder import DRAM_ALIGN_BYTES
from mapping.fit import Unfit, buffer_too_small
from mapping.plan import Plan, Tensor
from mapping.tiling import sizes

__all__ = ["candidates", "find_blocks", "scale_bytes", "state_bytes", "sum_bytes"]


def find_blocks(plan: Plan, k: AttentionKernel) -> Blocks:
    """Return the cheapest blocks of those that fit; of equal ones those on the most units.

    Raises `Unfit` where not even one chunk of one query's keys fits.
    """
    fitting = [(cost_cycles(plan, k, n), n.pieces, -(n.heads // n.unit_heads), n.unit_heads, n)
               for n in candidates(plan, k)]
    if not fitting:
        raise _too_long(plan, k)
    return min(fitting, key=lambda item: item[:4])[4]


def candidates(plan: Plan, k: AttentionKernel) -> list[Blocks]:
    """Return blocks that fit, for any number of array units and of heads a unit."""
    length, found = -(-k.keys.most // 16) * 16, list[Blocks]()
    for units in range(1, min(plan.arrays, k.kv_heads) + 1):
        unit_heads = 1
        while units * unit_heads <= k.kv_heads:
            found += _whole(plan, k, units, unit_heads, length)
            for queries in sizes(k.queries.most, 1):
                found += _pieces(plan, k, units, unit_heads, queries)
            unit_heads *= 2
    return found


def _whole(
    plan: Plan, k: AttentionKernel, units: int, unit_heads: int, length: int
) -> list[Blocks]:
    """Return the blocks of `units` x `unit_heads` heads with whole rows of scores that fit.

    The most queries, and the most that make all blocks full.
    More heads than units make chunks of fewer keys. These must still fill an array's sides, and be
    all keys of a head or enough of them to come from every channel.
    """
    array, heads = plan.machine.systolic, units * unit_heads
    keys = min(length, plan.slots.weights // (heads * k.head_dim * _bytes(k.k)) // 16 * 16)
    queries = min(k.queries.most, *(
        (bound - fixed) // row for fixed, row, bound in _needs(plan, k, heads, length).values()))
    least = 16
    if unit_heads > 1:
        least = min(length, max(array.rows, array.cols,
                                DRAM_ALIGN_BYTES // (k.head_dim * _bytes(k.k))))
    if keys < least or queries < 1 or heads % -(-heads // plan.vectors):
        return []
    full = next(q for q in range(queries, 0, -1) if k.queries.most % q == 0)
    return [Blocks(heads, unit_heads, q, keys, length, -(-k.keys.most // keys))
            for q in {queries, full}]


def scale_bytes(k: AttentionKernel, n: Blocks) -> int:
    """Return the bytes of the scales of a block's queries, whole words."""
    return _words(n.rows(k.heads // k.kv_heads) * 4) if k.q_scale is not None else 0


def state_bytes(k: AttentionKernel, n: Blocks) -> int:
    """Return the bytes of the rows (m, l, o) of a block, whole words."""
    return _words(n.rows(k.heads // k.kv_heads) * _state_row(k))


def sum_bytes(k: AttentionKernel, n: Blocks) -> int:
    """Return the bytes of a block's weighted sums, whole words."""
    return _words(n.rows(k.heads // k.kv_heads) * k.head_dim * 4)


def _state_row(k: AttentionKernel) -> int:
    return (STATE + k.head_dim) * 4


def _words(size: int) -> int:
    return -(-size // 64) * 64


def _pieces(plan: Plan, k: AttentionKernel, units: int, unit_heads: int, queries: int
            ) -> list[Blocks]:
    """Return the blocks of pieces that fit: the longest, and shorter ones.

    Weighted sums of a piece and both states, so far and of the piece, share an accumulator slot.
    """
    slots, p_bytes = plan.slots, format_named(probability_format(k)).bits // 8
    heads = units * unit_heads
    keys = slots.weights // (heads * k.head_dim * _bytes(k.k)) // 16 * 16
    n = Blocks(heads, unit_heads, queries, keys, keys, 1)
    rows = n.rows(k.heads // k.kv_heads)
    held = (rows * k.head_dim * _bytes(k.q) <= slots.activations
            and rows * k.head_dim * _bytes(k.out) <= slots.outputs
            and scale_bytes(k, n) + _words(_state_row(k)) <= slots.side
            and sum_bytes(k, n) + 2 * state_bytes(k, n) <= slots.accumulator)
    if keys < 16 or not held or heads % -(-heads // plan.vectors):
        return []
    most = min(slots.accumulator // (rows * 4), (slots.probabilities - 64 - 4 * rows) // (
        rows * p_bytes))
    if k.k_scale is not None:
        most = min(most, slots.rows // (2 * heads * 4))
    keys = min(keys, most // 16 * 16)
    if keys < 16:
        return []
    return [Blocks(heads, unit_heads, queries, keys, chunks * keys, chunks,
                   -(-k.keys.most // (chunks * keys)))
            for chunks in sizes(most // keys, 1)]


def _needs(
    plan: Plan, k: AttentionKernel, heads: int, length: int
) -> dict[str, tuple[int, int, int]]:
    """Return by region the bytes of any block, those more for each query, and the slot's."""
    slots, rows = plan.slots, heads * (k.heads // k.kv_heads)
    scales = heads * 4 * length if k.q_scale is not None else 0
    p_bytes = format_named(probability_format(k)).bits // 8
    return {
        "accumulator": (0, rows * 4 * max(length, k.head_dim), slots.accumulator),
        "probabilities": (64, rows * (length * p_bytes + 4), slots.probabilities),
        "queries": (0, rows * k.head_dim * _bytes(k.q), slots.activations),
        "outputs": (0, rows * k.head_dim * _bytes(k.out), slots.outputs),
        "scales": (scales + 128, rows * 4, slots.side),
        "scales of values": (scales, 1, slots.rows),
    }


def _too_long(plan: Plan, k: AttentionKernel) -> Unfit:
    """Return what to raise: the region that 16 keys of one query of a head exceed the most."""
    n = Blocks(1, 1, 1, 16, 16, 1)
    demands = {name: (fixed + row, bound)
               for name, (fixed, row, bound) in _needs(plan, k, 1, n.keys).items()}
    demands["keys"] = (n.keys * k.head_dim * _bytes(k.k), plan.slots.weights)
    demands["accumulator"] = (sum_bytes(k, n) + 2 * state_bytes(k, n), plan.slots.accumulator)
    region, (demand, bound) = max(demands.items(), key=lambda item: item[1][0] / item[1][1])
    buffer = "accumulator" if region == "accumulator" else "scratchpad"
    return buffer_too_small(f"{k.name}, a piece of one row of scores ({region})", plan.machine,
                            buffer, demand, bound, "fewer bits an element (--formats)")


def _bytes(tensor: Tensor) -> int:
    return format_named(tensor.symbol.format).bits // 8
