"""Tables for the lookup array: made inside it, or by a block of their own."""

from amaranth.hdl import Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.float_unit import FloatUnit
from hw.stream import PairQueue
from machine.floats import FloatConfig
from machine.lut import LutConfig
from machine.lut_table import TableUnitConfig

__all__ = ["FloatTableAdders", "TableAdders", "TablePrecompute", "half_table", "subset_table"]


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


class FloatTableAdders(wiring.Component):
    """Makes the half table of a group of float16 activations, in the cycle they are offered.

    Sums are float32, added from the last activation to the first, each addition rounded once; an
    entry is rounded once more to its format.

    Members
    -------
    acts : In(k * 16)
        Activations; j lies at bit ``16 * j``.
    table : Out(entries * entry bits)
        Their table; entry e lies at bit e times its width.
    """

    def __init__(self, cfg: TableUnitConfig):
        self.cfg = cfg
        super().__init__({
            "acts": In(cfg.group_bits),
            "table": Out(cfg.table_bits),
        })

    def elaborate(self, platform):
        m = Module()
        bits, kind = self.cfg.activation.bits, self.cfg.a_format
        acts = [self.acts.word_select(j, bits) for j in range(self.cfg.k)]
        sign = 1 << bits - 1
        sums = [acts[-1] ^ sign]
        for j in reversed(range(self.cfg.k - 1)):
            held = kind if len(sums) == 1 else "float32"
            made = []
            for number, low in enumerate(sums):
                for plus, act in enumerate((acts[j] ^ sign, acts[j])):
                    m.submodules[f"add_{j}_{number}_{plus}"] = adder = FloatUnit(
                        FloatConfig(operation="add", a=kind, b=held))
                    m.d.comb += [adder.a.eq(act), adder.b.eq(low)]
                    made.append(adder.o)
            sums = made
        for number, entry in enumerate(sums):
            m.submodules[f"narrow_{number}"] = narrow = FloatUnit(
                FloatConfig(operation="convert", out=self.cfg.format))
            m.d.comb += narrow.a.eq(entry)
            m.d.comb += self.table.word_select(number, self.cfg.entry.bits).eq(narrow.o)
        return m


class TablePrecompute(wiring.Component):
    """Makes the half table of every group of activations, apart from the array.

    Latency is ``cfg.latency_cycles``, throughput one group a cycle. Integer sums are exact, those
    of floats `FloatTableAdders`'. Reset drops the tables under way.

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
        if cfg.activation.is_float:
            m.submodules.adders = adders = FloatTableAdders(cfg)
            m.d.comb += [adders.acts.eq(self.i.payload), queue.i.payload.eq(adders.table)]
        else:
            acts = [self.i.payload.word_select(j, bits).as_signed() for j in range(cfg.k)]
            for number, entry in enumerate(half_table(acts)):
                m.d.comb += queue.i.payload.word_select(number, cfg.entry.bits).eq(entry)
        m.d.comb += [queue.i.valid.eq(self.i.valid), self.i.ready.eq(queue.i.ready)]
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        return m
