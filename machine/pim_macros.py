"""What a PIM channel is told to do, and how a GEMV becomes its commands, counted by formulas."""

from dataclasses import dataclass
from typing import NamedTuple

from machine.config import require
from machine.dram import DramConfig
from machine.pim import PimConfig

__all__ = ["GemvShape", "HeaderTerms", "PimCounts", "PimOp", "attend_ops", "attend_shape",
           "gwrite_cycles", "header_cycles", "header_terms", "logit_ops", "logit_shape",
           "operations"]


class PimOp(NamedTuple):
    """One entry of the PIM queue; `bank` of a GWRITE is its flat number in the channel.

    `column` is the first column, of a GWRITE where the vector begins in the row; `slot` the first
    column of the global buffer.
    """

    kind: str  # HEADER, GWRITE, GACT, DOT, READRES, GEMV or PIMPRE
    row: int = 0
    bank: int = 0
    column: int = 0
    slot: int = 0
    dots: int = 0  # HEADER: of the whole tile; GEMV: of this result
    reads: int = 0  # HEADER: results of the tile
    first: bool = True  # DOT, GEMV: the accumulator starts from 0


@dataclass(frozen=True, slots=True)
class PimCounts:
    """Commands a GEMV takes; dot products and result reads within composites included."""

    gwrites: int
    headers: int
    activations: int
    dots: int
    reads: int

    def __add__(self, other: "PimCounts") -> "PimCounts":
        pairs = ((getattr(self, n), getattr(other, n)) for n in self.__slots__)
        return PimCounts(*(a + b for a, b in pairs))

    def times(self, count: int) -> "PimCounts":
        """Return the commands of `count` such GEMVs."""
        return PimCounts(*(count * getattr(self, n) for n in self.__slots__))


@dataclass(frozen=True, slots=True)
class GemvShape:
    """`chunks` vectors; after each, `tiles` rows of every bank, `reads` results of `dots` columns.

    A short last chunk has `last_dots` columns a result and `last_reads` results a row.
    """

    chunks: int
    tiles: int
    reads: int
    dots: int
    last_reads: int
    last_dots: int

    def counts(self, dram: DramConfig, pim: PimConfig) -> PimCounts:
        """Return the commands, every tile in a row of its own that is not open before."""
        opened = 1 if pim.activate == "all" else dram.ranks * dram.bank_groups
        rows = self.chunks * self.tiles
        full = (self.chunks - 1) * self.tiles
        return PimCounts(
            gwrites=self.chunks, headers=rows, activations=rows * opened,
            dots=full * self.reads * self.dots + self.tiles * self.last_reads * self.last_dots,
            reads=full * self.reads + self.tiles * self.last_reads)


def logit_shape(dram: DramConfig, pim: PimConfig, *, heads: int, depth: int,
                length: int) -> GemvShape:
    """Return the shape of q K for `heads` of `depth` and `length` tokens, a token a bank.

    A row holds as many whole heads as fit: NeuPIMs' key layout. Raises ``ValueError`` for a head
    wider than a row.
    """
    lanes, columns = pim.unit.lanes, pim.row_columns(dram)
    dots = -(-depth // lanes)
    _fits("columns of a head", dots, columns, "the columns of a row")
    per_row = min(columns // dots, heads)
    chunks = -(-heads // per_row)
    _fits("columns of a vector", per_row * dots, pim.buffer_columns, "those of the global buffer")
    return GemvShape(chunks, -(-length // pim.units(dram)), per_row, dots,
                     heads - (chunks - 1) * per_row, dots)


def attend_shape(dram: DramConfig, pim: PimConfig, *, depth: int, length: int) -> GemvShape:
    """Return the shape of p V of one head: chunks of a row's tokens, an element a bank."""
    lanes, columns = pim.unit.lanes, pim.row_columns(dram)
    _fits("columns of a vector", columns, pim.buffer_columns, "those of the global buffer")
    tokens = columns * lanes
    pieces = -(-length // tokens)
    last = -(-(length - (pieces - 1) * tokens) // lanes)
    return GemvShape(pieces, -(-depth // pim.units(dram)), 1, columns, 1, last)


def logit_ops(dram: DramConfig, pim: PimConfig, shape: GemvShape, rows: list[int], *,
              source: int = 0) -> list[PimOp]:
    """Return the queue entries of q K; tile i of chunk c lies in ``rows[i * chunks + c]``."""
    return operations(dram, pim, shape, [rows[c :: shape.chunks] for c in range(shape.chunks)],
                      source=source)


def attend_ops(dram: DramConfig, pim: PimConfig, shape: GemvShape, rows: list[list[int]], *,
               source: int = 0) -> list[PimOp]:
    """Return the queue entries of p V; ``rows[head]`` as in `logit_ops`."""
    return [op for of_head in rows for op in logit_ops(dram, pim, shape, of_head, source=source)]


def operations(dram: DramConfig, pim: PimConfig, shape: GemvShape, rows: list[list[int]], *,
               source: int = 0, bank: int = 0) -> list[PimOp]:
    """Return GWRITE, and for each tile HEADER and composites; ``rows[chunk][tile]``.

    With one row buffer the composite is written out, as a plain PIM takes it. Vector c is row
    ``source + c`` of `bank`.
    """
    ops = []
    for chunk in range(shape.chunks):
        last = chunk == shape.chunks - 1
        reads, dots = (shape.last_reads, shape.last_dots) if last else (shape.reads, shape.dots)
        _fits("columns of a tile", reads * dots, pim.row_columns(dram), "the columns of a row")
        ops.append(PimOp("GWRITE", row=source + chunk, bank=bank))
        for row in rows[chunk]:
            require(0 <= row < dram.rows, "row", f"from 0 to {dram.rows - 1}", row)
            ops.append(PimOp("HEADER", row=row, dots=reads * dots, reads=reads))
            for read in range(reads):
                at = read * dots
                if pim.row_buffers == 2:
                    ops.append(PimOp("GEMV", row=row, column=at, slot=at, dots=dots))
                    continue
                ops += [PimOp("DOT", row=row, column=at + j, slot=at + j, dots=1, first=j == 0)
                        for j in range(dots)]
                ops.append(PimOp("READRES", row=row))
    return ops


def gwrite_cycles(dram: DramConfig, pim: PimConfig, *, opened: bool, other: bool) -> int:
    """Return the cycles a GWRITE is taken to need: its row `opened`, or an `other` one is."""
    t = dram.timing
    if opened:
        return pim.gwrite_cycles
    return (t.rtp_cycles if other else 0) + t.rp_cycles + t.rcd_rd_cycles + pim.gwrite_cycles


class HeaderTerms(NamedTuple):
    """The estimate of a HEADER, in a form that needs no division.

    ``opening[groups] + (closing if closed) + per_closed * closed`` and, for the tile, the greater
    of `least` and ``per_dot * max(dots, floor + floor_per_read * reads) + per_read * reads +
    base``.
    """

    opening: tuple[int, ...]  # by the number of bank groups whose row is to be opened
    closing: int
    per_closed: int
    per_dot: int
    floor: int
    floor_per_read: int
    per_read: int
    base: int
    least: int


def header_terms(dram: DramConfig, pim: PimConfig) -> HeaderTerms:
    """Return the terms of the estimate by which a HEADER is admitted.

    ``paper``: NeuPIMs'. ``exact``: never less than what the commands take where nothing else
    delays them, up to the precharge that lets a refresh begin.
    """
    t, dot, groups = dram.timing, pim.dot_cycles, dram.ranks * dram.bank_groups
    if pim.admission == "paper":
        return HeaderTerms(
            tuple(t.faw_cycles * (g // 2 - 1) for g in range(groups + 1)), 0, t.rtp_cycles, dot,
            pim.fill_dots, 0, dot, t.rcd_rd_cycles - dot, -(1 << 20))
    window = t.faw_cycles if pim.activate_window else t.rrd_s_cycles
    steps = [0 if pim.activate == "all" else -(-g // dram.ranks) - 1 for g in range(groups + 1)]
    opening = (0, *(steps[g] * window + dram.ranks for g in range(1, groups + 1)))
    # Rows just opened are kept for tRAS, those just read for tRTP.
    closing = max(t.rtp_cycles, t.ras_cycles - t.rcd_rd_cycles) + t.rp_cycles
    per_closed = 0 if pim.precharge == "all" and pim.row_buffers == 2 else 1
    base = t.rcd_rd_cycles + t.rtp_cycles + 1
    if pim.row_buffers == 2:
        return HeaderTerms(opening, closing, per_closed, dot, 0, pim.fill_dots, dot, base,
                           t.ras_cycles + 1)
    return HeaderTerms(opening, closing, per_closed, dot, 0, 0, dot + pim.unit.latency_cycles,
                       base, t.ras_cycles + 1)


def header_cycles(dram: DramConfig, pim: PimConfig, op: PimOp, *, closed: int, groups: int) -> int:
    """Return the cycles that what follows a HEADER is taken to need.

    `closed` banks are to be precharged first, rows of `groups` bank groups opened.
    """
    k = header_terms(dram, pim)
    dots = max(op.dots, k.floor + k.floor_per_read * op.reads)
    tile = max(k.least, k.per_dot * dots + k.per_read * op.reads + k.base)
    return k.opening[groups] + (k.closing if closed else 0) + k.per_closed * closed + tile


def _fits(name: str, value: int, most: int, of: str) -> None:
    require(value <= most, name, f"at most {most}, {of}", value)
