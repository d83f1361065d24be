"""The operands of an attention kernel's compute streams, whatever part of a row stands on chip.

Loop levels: 0 layer, 1 request, 2 group of key heads (shared by the units), 3 block of queries;
then 4 chunk of keys, or, where a row is cut, 4 piece of the row and 5 chunk of the piece.
"""

from dataclasses import dataclass
from typing import NamedTuple

from machine.program import UNIT_LEVEL, Edge, Space
from mapping.attention_kernel import STATE, AttentionKernel, Blocks, probability_format
from mapping.builder import Ring, StreamBuilder
from mapping.plan import Plan, mask_of

__all__ = ["Views", "array_mask", "key_edge", "key_loops", "vector_mask"]


def key_edge(plan: Plan, stream: StreamBuilder, k: AttentionKernel, n: Blocks, *,
             chunk: bool = True) -> Edge:
    """Return the edge rule of the keys of one chunk, or of all of a piece."""
    steps = ((4, n.length),) if n.pieces > 1 else ()
    return plan.edge(stream, k.keys, *steps, *(((n.level, n.keys),) if chunk else ()))


def key_loops(n: Blocks, step: int) -> tuple[tuple[int, int], ...]:
    """Return the loops that lead to a chunk of keys that lie `step` elements apart."""
    return (*(((4, n.length * step),) if n.pieces > 1 else ()), (n.level, n.keys * step))


class State(NamedTuple):
    """Operands of rows (m, l, o...), of their (m, l) and of their o alone."""

    row: int
    sums: int
    values: int


@dataclass(frozen=True, slots=True)
class Views:
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
            return (UNIT_LEVEL, n.unit_heads * size), (n.level, chunk)

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
        if n.one_axis(self.k):
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

    def scores(self, form: str) -> int:
        """Return the scores of all keys on chip, in a format of four bytes."""
        acc, vector = self.plan.rings["acc"], self.plan.vector
        return self.vector("score" if form == "float32" else "logit", Space.ACCUMULATOR,
                           acc.address_bytes, acc.slot(vector), form, self.n.length,
                           key_edge(self.plan, vector, self.k, self.n, chunk=False))

    def probabilities(self) -> int:
        """Return their probabilities, as the array reads them."""
        p, vector = self.plan.rings["p"], self.plan.vector
        return self.vector("p", Space.SCRATCHPAD, p.address_bytes, p.slot(vector),
                           probability_format(self.k), self.n.length,
                           key_edge(self.plan, vector, self.k, self.n, chunk=False))

    def state(self, name: str, place: int, base: int) -> State:
        """Return FP32 rows (m, l, o) of the accumulator, `place` bytes behind `base`."""
        plan, n, width = self.plan, self.n, STATE + self.k.head_dim
        mine = -(-n.heads // plan.vectors)
        head = self.group * n.queries * width

        def tile(part: str, first: int, end: int) -> int:
            return plan.builder.operand(
                f"{self.k.name}.{name}{part}", Space.ACCUMULATOR,
                plan.rings["acc"].address_bytes + place + 4 * first,
                (mine, self.group, n.queries, end - first), "float32",
                strides=(head, n.queries * width, width, 1), base=base,
                loops=((UNIT_LEVEL, mine * head),), edges=(*self._leading(), None))

        return State(tile("", 0, width), tile(".ml", 0, STATE), tile(".o", STATE, width))

    def nothing(self, ring: Ring, place: int) -> int:
        """Return one row of a slot as the (m, l, o) of every row of a block."""
        plan, n, width = self.plan, self.n, STATE + self.k.head_dim
        mine = -(-n.heads // plan.vectors)
        return plan.builder.operand(
            f"{self.k.name}.nothing", Space.SCRATCHPAD, ring.address_bytes + place,
            (mine, self.group, n.queries, width), "float32", strides=(0, 0, 0, 1),
            base=ring.slot(plan.vector), edges=(*self._leading(), None))

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

    def columns(self, name: str, ring: Ring, place: int) -> int:
        """Return the FP32 scale of each key, [heads, 1, 1, length]."""
        plan, n = self.plan, self.n
        mine = -(-n.heads // plan.vectors)
        edge = key_edge(plan, plan.vector, self.k, n, chunk=False)
        return plan.builder.operand(
            f"{self.k.name}.{name}", Space.SCRATCHPAD, ring.address_bytes + place,
            (mine, 1, 1, n.length), "float32", strides=(n.length, n.length, n.length, 1),
            base=ring.slot(plan.vector), loops=((UNIT_LEVEL, mine * n.length),),
            edges=(self._leading()[0], None, None, edge))

    def _leading(self) -> tuple[Edge | None, ...]:
        mine = -(-self.n.heads // self.plan.vectors)
        rows = self.plan.edge(self.plan.vector, self.k.queries, (3, self.n.queries))
        return Edge(self.k.kv_heads, ((2, self.n.heads), (UNIT_LEVEL, mine))), None, rows


def array_mask(plan: Plan, n: Blocks) -> int:
    """Return the mask of the array units at work."""
    return mask_of(plan.array_units[: n.heads // n.unit_heads])


def vector_mask(plan: Plan, n: Blocks) -> int:
    """Return the mask of the vector units at work."""
    mine = -(-n.heads // plan.vectors)
    return (1 << n.heads // mine) - 1
