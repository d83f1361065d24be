"""What of an attention kernel is on chip at once: its blocks, and the search for them."""

from dataclasses import dataclass

from machine.formats import format_named
from mapping.builder import DRAM_ALIGN_BYTES
from mapping.fit import Unfit, buffer_too_small
from mapping.plan import Plan, Rows, Tensor
from mapping.tiling import sizes

__all__ = [
    "STATE", "AttentionKernel", "Blocks", "find_blocks", "probability_format", "scale_bytes",
    "state_bytes",
]

STATE = 2  # of a row (m, l, o...) in front of its output: the largest score, the sum of weights


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
    length: int  # keys a row of scores is laid out for: all of them, or those of a piece
    chunks: int  # of `keys`, in a row or a piece
    pieces: int = 1  # of a row

    @property
    def level(self) -> int:
        """The loop level of the chunks."""
        return 4 if self.pieces == 1 else 5

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
        return _find_pieces(plan, k)
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
    return Blocks(heads, unit_heads, queries, keys, length, -(-k.keys.most // keys))


def scale_bytes(k: AttentionKernel, n: Blocks) -> int:
    """Return the bytes of the scales of a block's queries, whole words."""
    return _words(n.rows(k.heads // k.kv_heads) * 4) if k.q_scale is not None else 0


def state_bytes(k: AttentionKernel, n: Blocks) -> int:
    """Return the bytes of the rows (m, l, o) of a block, whole words."""
    return _words(n.rows(k.heads // k.kv_heads) * (STATE + k.head_dim) * 4)


def _words(size: int) -> int:
    return -(-size // 64) * 64


def _find_pieces(plan: Plan, k: AttentionKernel) -> Blocks:
    """Return the blocks of pieces of rows that read the cache least often, in the fewest steps."""
    found: list[tuple[tuple[int, ...], Blocks]] = []
    for units in range(1, min(plan.arrays, k.kv_heads) + 1):
        unit_heads = 1
        while units * unit_heads <= k.kv_heads:
            for queries in sizes(k.queries.most, 1):
                n = _piece(plan, k, units * unit_heads, unit_heads, queries)
                if n is not None:
                    again = -(-k.queries.most // queries)
                    steps = -(-k.kv_heads // n.heads) * again * n.pieces * n.chunks
                    found.append(((again, steps, -units), n))
            unit_heads *= 2
    if not found:
        raise _too_long(plan, k)
    return min(found, key=lambda item: item[0])[1]


def _piece(plan: Plan, k: AttentionKernel, heads: int, unit_heads: int, queries: int
           ) -> Blocks | None:
    """Return the blocks with the longest piece that fits, or None where not one chunk does."""
    slots, p_bytes = plan.slots, format_named(probability_format(k)).bits // 8
    keys = slots.weights // (heads * k.head_dim * _bytes(k.k)) // 16 * 16
    n = Blocks(heads, unit_heads, queries, keys, keys, 1)
    rows = n.rows(k.heads // k.kv_heads)
    held = (rows * k.head_dim * _bytes(k.q) <= slots.activations
            and rows * k.head_dim * _bytes(k.out) <= slots.outputs
            and scale_bytes(k, n) + 2 * state_bytes(k, n) <= slots.side
            and rows * k.head_dim * 4 <= slots.accumulator)
    if keys < 16 or not held or heads % -(-heads // plan.vectors):
        return None
    most = min(slots.accumulator // (rows * 4), (slots.probabilities - 64 - 4 * rows) // (
        rows * p_bytes))
    if k.k_scale is not None:
        most = min(most, slots.rows // (2 * heads * 4))
    keys = min(keys, most // 16 * 16)
    if keys < 16:
        return None
    chunks = most // keys
    pieces = -(-k.keys.most // (chunks * keys))
    return Blocks(heads, unit_heads, queries, keys, chunks * keys, chunks, pieces)


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
    demands["state"] = (scale_bytes(k, n) + 2 * state_bytes(k, n), plan.slots.side)
    region, (demand, bound) = max(demands.items(), key=lambda item: item[1][0] / item[1][1])
    buffer = "accumulator" if region == "accumulator" else "scratchpad"
    return buffer_too_small(f"{k.name}, a piece of one row of scores ({region})", plan.machine,
                            buffer, demand, bound, "fewer bits an element (--formats)")


def _bytes(tensor: Tensor) -> int:
    return format_named(tensor.symbol.format).bits // 8


def probability_format(k: AttentionKernel) -> str:
    """Return the format of probabilities: codes beside quantised values, else the values'."""
    return "int8" if k.v_scale is not None else k.v.symbol.format
