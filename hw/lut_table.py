"""Tables for the lookup array: made inside it, or by a block of their own."""

from amaranth.hdl import Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.stream import PairQueue
from machine.lut import LutConfig
from machine.lut_table import TableUnitConfig

__all__ = ["TableAdders", "TablePrecompute", "half_table", "subset_table"]


def half_table(acts: list[Value]) -> list[Value]:
    """Return the 2**(k-1) sums -a_k-1 +- ... +- a_0 of signed `acts`; bit i of the number: plus.

    Every partial sum is made once and used by all entries that share it.
    """
    sums = [-acts[-1]]
    for act in reversed(acts[:-1]):
        sums = [chosen for low in sums for chosen in (low - act, low + act)]
    return sums


def subset_table(acts: list[Value]) -> list[Value | int]:
    """Return the 2**k sums of some of signed `acts`: act i is in where bit i of the number is 1."""
    sums: list[Value | int] = [0]
    for act in acts:
        sums += [act if isinstance(low, int) else low + act for low in sums]
    return sums


class TableAdders(wiring.Component):
    """Makes the table of one row inside the array, in the cycle the activations are offered.

    Members
    -------
    acts : In(k * a_bits)
        Activations; j, signed, lies at bit ``j * a_bits``.
    table : Out(entries * entry bits)
        Their table; entry e, signed, lies at bit ``e * entry bits``.
    """

    def __init__(self, cfg: LutConfig):
        self.cfg = cfg
        super().__init__({
            "acts": In(cfg.row_bits),
            "table": Out(cfg.entries * cfg.tables.entry.bits),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        acts = [self.acts.word_select(j, cfg.a_bits).as_signed() for j in range(cfg.k)]
        make = half_table if cfg.tables.symmetric else subset_table
        for number, entry in enumerate(make(acts)):
            m.d.comb += self.table.word_select(number, cfg.tables.entry.bits).eq(entry)
        return m


class TablePrecompute(wiring.Component):
    """Makes the half table of every group of activations, apart from the array.

    Latency is ``cfg.latency_cycles``, throughput one group a cycle. Sums are exact. Reset drops
    the tables under way.

    Members
    -------
    i : In(stream)
        Groups of ``k`` activations; j, signed, at bit j times its width.
    o : Out(stream)
        Their tables; entry e, signed, at bit e times its width.
    """

    def __init__(self, cfg: TableUnitConfig):
        self.cfg = cfg
        super().__init__({
            "i": In(stream.Signature(cfg.group_bits)),
            "o": Out(stream.Signature(cfg.table_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        m.submodules.queue = queue = PairQueue(cfg.table_bits)
        bits = cfg.activation.bits
        acts = [self.i.payload.word_select(j, bits).as_signed() for j in range(cfg.k)]
        for number, entry in enumerate(half_table(acts)):
            m.d.comb += queue.i.payload.word_select(number, cfg.entry.bits).eq(entry)
        m.d.comb += [queue.i.valid.eq(self.i.valid), self.i.ready.eq(queue.i.ready)]
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        return m
