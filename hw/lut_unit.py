"""The unit of a lookup array: finds the entry a group of weight bits names, and adds it."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.float_unit import FloatUnit
from machine.floats import FloatConfig
from machine.formats import FORMATS
from machine.lut import LutConfig

__all__ = ["WIDE", "FloatLutUnit", "LutUnit", "ShiftAdd", "held_row_bits", "pick", "unit_signature"]

PLANE_BITS = 3  # of the number of a plane
WIDE = FORMATS["float32"]  # float entries are held as these: normal, or zero, whatever their plane


def held_row_bits(cfg: LutConfig) -> int:
    """Return the bits of one row of the table register: a table, or `k` activations."""
    if cfg.is_float:
        return cfg.entries * WIDE.bits
    return cfg.table_bits // cfg.m if cfg.unit == "lut" else cfg.row_bits


def unit_signature(cfg: LutConfig) -> wiring.Signature:
    """Return the ports of every kind of unit of `cfg`."""
    return wiring.Signature({
        "row": In(held_row_bits(cfg)),
        "group": In(cfg.group_bits),
        "plane": In(PLANE_BITS),
        "last": In(1),
        "look": In(1),
        "add": In(1),
        "first": In(1),
        "sum": Out(cfg.acc_bits),
    })


def pick(choices: list[Value], index: Value) -> Value:
    """Return the choice with number `index`, through a tree of two-way choices."""
    level = list(choices)
    for bit in index:
        level = [Mux(bit, high, low) for low, high in zip(level[::2], level[1::2], strict=True)]
    return level[0]


class ShiftAdd(wiring.Component):
    """Adds an integer, shifted to its plane and negated if asked, to the sum it keeps.

    The sum shows a value ``cfg.depth_cycles`` after the cycle it is looked up in, and wraps. Reset
    clears it.

    Parameters
    ----------
    cfg : LutConfig
        Sizes.
    width : int
        Bits of the value.

    Members
    -------
    value : In(signed(width))
        Looked up in this cycle.
    negate : In(1)
        Subtract it.
    plane : In(3)
        The number of its plane: it counts 2**plane times.
    look : In(1)
        There is a value; of use where it is registered.
    add : In(1)
        Add the value of this cycle, or with ``depth_cycles`` 2 of the ``look`` before.
    first : In(1)
        With ``add``: start from zero.
    sum : Out(acc_bits)
        The sum.
    """

    def __init__(self, cfg: LutConfig, width: int):
        self.cfg = cfg
        super().__init__({
            "value": In(signed(width)),
            "negate": In(1),
            "plane": In(PLANE_BITS),
            "look": In(1),
            "add": In(1),
            "first": In(1),
            "sum": Out(cfg.acc_bits),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg

        # Shift to the plane; a unit that takes whole weights has one plane.
        shifts = 0 if cfg.unit == "mac" else (cfg.w_bits - 1).bit_length()
        wide = self.value << self.plane[:shifts] if shifts else self.value
        shifted, negate = Signal(signed(min(len(wide), cfg.acc_bits))), Signal()
        found = [shifted.eq(wide), negate.eq(self.negate)]
        if cfg.depth_cycles == 1:
            m.d.comb += found
        else:
            with m.If(self.look):
                m.d.sync += found

        # Add, or subtract: the inverse and a carry, which a bit below the sum makes.
        term, base = Signal(cfg.acc_bits), Signal(cfg.acc_bits)
        m.d.comb += [
            term.eq(shifted ^ negate.replicate(cfg.acc_bits)),
            base.eq(Mux(self.first, 0, self.sum)),
        ]
        with m.If(self.add):
            m.d.sync += self.sum.eq((Cat(negate, term) + Cat(negate, base))[1:])
        return m


class LutUnit(wiring.Component):
    """Looks up one integer table entry a plane and adds it.

    Half tables are negated where the highest bit of the group is 1; their index is inverted there
    unless that was done offline. Whole tables are subtracted in the last plane. Reset clears the
    sum.

    Members
    -------
    row : In(entries * entry bits)
        The table; entry e lies at bit ``e * entry bits``.
    group : In(group_bits)
        A plane's bits of ``k`` weights, or the code they were remapped to.
    plane : In(3)
        The number of the plane.
    last : In(1)
        It is the last plane of its table.
    look : In(1)
        Look up in this cycle.
    add : In(1)
        Add what was looked up, ``depth_cycles - 1`` after ``look``.
    first : In(1)
        With ``add``: start from zero.
    sum : Out(acc_bits)
        The sum; what was looked up is in it ``depth_cycles`` later.
    """

    def __init__(self, cfg: LutConfig):
        self.cfg = cfg
        super().__init__(unit_signature(cfg))

    def elaborate(self, platform):
        m = Module()
        cfg, tables = self.cfg, self.cfg.tables
        bits = tables.entry.bits

        # Look up.
        index, negate = self.group, self.last
        if tables.symmetric:
            index, negate = self.group[:-1], self.group[-1]
        if tables.symmetric and not tables.remapped:
            index = index ^ negate.replicate(len(index))
        entries = [self.row.word_select(entry, bits) for entry in range(cfg.entries)]

        m.submodules.adder = adder = ShiftAdd(cfg, bits)
        m.d.comb += [
            adder.value.eq(pick(entries, index).as_signed()),
            adder.negate.eq(negate),
            adder.plane.eq(self.plane),
            adder.look.eq(self.look),
            adder.add.eq(self.add),
            adder.first.eq(self.first),
            self.sum.eq(adder.sum),
        ]
        return m


class FloatLutUnit(wiring.Component):
    """Looks up one float table entry a plane and adds it, with one rounding.

    The entry of float32 is normal, zero, infinite or NaN, so that plane b adds b to the exponent
    where there is a number to shift. Reset makes the sum +0.

    Members
    -------
    row : In(entries * 32)
        The table in float32; entry e lies at bit ``32 * e``.
    group : In(group_bits)
        A plane's bits of ``k`` weights, or the code they were remapped to.
    plane : In(3)
        The number of the plane.
    last : In(1)
        Of no use here.
    look : In(1)
        Of no use here.
    add : In(1)
        Add what is looked up in this cycle.
    first : In(1)
        With ``add``: start from +0.
    sum : Out(acc_bits)
        The sum, in ``cfg.sum_format``.
    """

    def __init__(self, cfg: LutConfig):
        self.cfg = cfg
        super().__init__(unit_signature(cfg))

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg

        # Look up; the sign bit negates.
        index, negate = self.group[:-1], self.group[-1]
        if not cfg.tables.remapped:
            index = index ^ negate.replicate(len(index))
        entries = [self.row.word_select(entry, WIDE.bits) for entry in range(cfg.entries)]
        entry = Signal(WIDE.bits)
        m.d.comb += entry.eq(pick(entries, index))
        mantissa, exponent = entry[: WIDE.mantissa_bits], entry[WIDE.mantissa_bits : -1]

        # Shift to the plane: neither zero nor infinity has an exponent to add to.
        shifts = (cfg.w_bits - 1).bit_length()
        shifted = Signal(WIDE.exponent_bits)
        m.d.comb += shifted.eq(exponent)
        if shifts:
            with m.If(exponent.any() & ~exponent.all()):
                m.d.comb += shifted.eq(exponent + self.plane[:shifts])

        m.submodules.adder = adder = FloatUnit(FloatConfig(
            operation="add", a=WIDE.name, b=cfg.sum_format.name, out=cfg.sum_format.name))
        m.d.comb += [
            adder.a.eq(Cat(mantissa, shifted, entry[-1] ^ negate)),
            adder.b.eq(Mux(self.first, 0, self.sum)),
        ]
        with m.If(self.add):
            m.d.sync += self.sum.eq(adder.o)
        return m
