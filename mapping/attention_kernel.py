"""An attention kernel, and how much of it is on chip at once."""

from dataclasses import dataclass

from mapping.plan import Rows, Tensor

__all__ = ["STATE", "AttentionKernel", "Blocks", "probability_format"]

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

    def trips(self, k: AttentionKernel, block: int) -> int:
        """Return the pieces that a block of queries sees, if all keys and queries are there."""
        last = k.keys.most - k.queries.most + (block + 1) * self.queries
        return min(self.pieces, -(-last // self.length)) if k.causal else self.pieces

    def one_axis(self, k: AttentionKernel) -> bool:
        """Return whether the rows of a key head's queries lie in one axis: all blocks are full."""
        return k.queries.entry is None and k.queries.most % self.queries == 0


def probability_format(k: AttentionKernel) -> str:
    """Return the format of probabilities: codes beside quantised values, else the values'."""
    return "int8" if k.v_scale is not None else k.v.symbol.format
