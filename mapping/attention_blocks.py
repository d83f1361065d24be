"""What of an attention kernel is on chip at once: its blocks, and the search for them."""

from dataclasses import dataclass

from machine.formats import format_named
from mapping.builder import DRAM_ALIGN_BYTES
from mapping.fit import Unfit, buffer_too_small
from mapping.plan import Plan, Rows, Tensor

__all__ = ["AttentionKernel", "Blocks", "find_blocks", "probability_format"]


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
class Blocks:
    """How much of a kernel is on chip at once."""

    heads: int  # key heads
    unit_heads: int  # of them, those of one array unit
    queries: int
    keys: int  # a chunk of K or V
    length: int  # keys a row of scores is laid out for

    def rows(self, group: int) -> int:
        """Rows of scores of all heads."""
        return self.heads * group * self.queries


def find_blocks(plan: Plan, k: AttentionKernel) -> Blocks:
    """Return the blocks that make the fewest steps of those that fit, on the most units."""
    length = -(-k.keys.most // 16) * 16
    found: list[tuple[int, int, int, Blocks]] = []
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
) -> Blocks | None:
    """Return the blocks of `units` x `unit_heads` heads, or None where nothing fits.

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
        return None
    return Blocks(heads, unit_heads, queries, keys, length)


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


def probability_format(k: AttentionKernel) -> str:
    """Return the format of probabilities: codes beside quantised values, else the values'."""
    return "int8" if k.v_scale is not None else k.v.symbol.format
