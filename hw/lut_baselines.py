"""Units to compare the lookup array with, in its harness: one multiplies, one adds bit by bit."""

from amaranth.hdl import Module, Mux, Value
from amaranth.lib import wiring

from hw.lut_unit import ShiftAdd, unit_signature
from machine.lut import LutConfig

__all__ = ["AddUnit", "MacUnit"]


def _sum_of(terms: list[Value]) -> Value:
    """Return the sum of signed `terms`, added in a tree; nothing is lost."""
    while len(terms) > 1:
        pairs = [low + high for low, high in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[len(pairs) * 2 :]
    return terms[0]


class MacUnit(wiring.Component):
    """Multiplies ``k`` activations by ``k`` whole weights and adds: no planes.

    Weights are two's complement of ``w_bits``; a narrower code is extended (dequantised to the
    multiplier's width) before it enters. Reset clears the sum.

    Members
    -------
    row : In(k * a_bits)
        Activations; j lies at bit ``j * a_bits``.
    group : In(group_bits)
        Weights; j lies at bit ``j * w_bits``.
    plane : In(3)
        Of no use here.
    last : In(1)
        Of no use here.
    look : In(1)
        Multiply in this cycle.
    add : In(1)
        Add what was multiplied, ``depth_cycles - 1`` after ``look``.
    first : In(1)
        With ``add``: start from zero.
    sum : Out(acc_bits)
        The sum; what was multiplied is in it ``depth_cycles`` later.
    """

    def __init__(self, cfg: LutConfig):
        self.cfg = cfg
        super().__init__(unit_signature(cfg))

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        products = [
            self.row.word_select(j, cfg.a_bits).as_signed()
            * self.group.word_select(j, cfg.w_bits).as_signed()
            for j in range(cfg.k)
        ]
        total = _sum_of(products)
        m.submodules.adder = adder = ShiftAdd(cfg, len(total))
        m.d.comb += [
            adder.value.eq(total),
            adder.look.eq(self.look),
            adder.add.eq(self.add),
            adder.first.eq(self.first),
            self.sum.eq(adder.sum),
        ]
        return m


class AddUnit(wiring.Component):
    """Adds those of ``k`` activations whose weight bit is 1, a plane a cycle; the last subtracts.

    Reset clears the sum.

    Members
    -------
    row : In(k * a_bits)
        Activations; j lies at bit ``j * a_bits``.
    group : In(group_bits)
        A plane's bits of ``k`` weights.
    plane : In(3)
        The number of the plane.
    last : In(1)
        It is the last plane of its weights: the sign bits of two's complement.
    look : In(1)
        Add up in this cycle.
    add : In(1)
        Add that to the sum, ``depth_cycles - 1`` after ``look``.
    first : In(1)
        With ``add``: start from zero.
    sum : Out(acc_bits)
        The sum; what was added up is in it ``depth_cycles`` later.
    """

    def __init__(self, cfg: LutConfig):
        self.cfg = cfg
        super().__init__(unit_signature(cfg))

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        total = _sum_of([
            Mux(self.group[j], self.row.word_select(j, cfg.a_bits), 0).as_signed()
            for j in range(cfg.k)
        ])
        m.submodules.adder = adder = ShiftAdd(cfg, len(total))
        m.d.comb += [
            adder.value.eq(total),
            adder.negate.eq(self.last),
            adder.plane.eq(self.plane),
            adder.look.eq(self.look),
            adder.add.eq(self.add),
            adder.first.eq(self.first),
            self.sum.eq(adder.sum),
        ]
        return m
