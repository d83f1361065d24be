"""Tables for the lookup array: the adders that make them from activations."""

from amaranth.hdl import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from machine.lut import LutConfig

__all__ = ["TableAdders", "half_table", "subset_table"]


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
