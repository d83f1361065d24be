"""The bit-serial element: one bit of the weight a step, one adder."""

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.pe_lanes import lanes
from machine.systolic import SystolicConfig

__all__ = ["SerialProduct"]


class SerialProduct(wiring.Component):
    """Product of one activation by the bits of one weight, lowest first, one a step.

    The product is there ``w_bits - 1`` steps after its beat, in the step that adds the last bit;
    each of ``depth_cycles`` beyond 1 adds a register behind. Throughput is one beat in ``w_bits``
    steps. Reset clears the registers.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    start : In(1)
        A beat is at the inputs; ``w_bits`` steps after the one before, or more.
    act : In(act_port_bits)
        The activation, sampled with ``start``.
    weight : In(weight_bits)
        The weight, sampled with ``start``.
    o : Out(signed(product_bits))
        The product.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__({
            "en": In(1),
            "start": In(1),
            "act": In(cfg.act_port_bits),
            "weight": In(cfg.weight_bits),
            "o": Out(signed(cfg.product_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        [(number, _)] = lanes(cfg, self.act, self.weight)
        width = cfg.product_bits + 1  # room for the subtraction's intermediate

        # Multiplicand, shifted up a place a step, and the bits of the weight that are left.
        shifted, bits = Signal(signed(width)), Signal(cfg.w_bits)
        left, total = Signal(range(cfg.w_bits + 1)), Signal(signed(width))
        multiplicand, bit = Signal(signed(width)), Signal()
        m.d.comb += [
            multiplicand.eq(Mux(self.start, number, shifted)),
            bit.eq(Mux(self.start, self.weight[0], bits[0])),
        ]

        # Add or, for the highest bit of a signed weight, subtract.
        now, highest = Signal(signed(width)), self._is_highest(left)
        term = Mux(bit, multiplicand, 0)
        m.d.comb += now.eq(Mux(self.start, 0, total) + Mux(highest, -term, term))
        with m.If(self.en):
            m.d.sync += [
                shifted.eq(multiplicand << 1),
                bits.eq(Mux(self.start, self.weight, bits) >> 1),
                left.eq(Mux(self.start, cfg.w_bits - 1, Mux(left == 0, 0, left - 1))),
                total.eq(now),
            ]

        # Registers behind.
        product = now
        for i in range(cfg.pe.depth_cycles - 1):
            before, product = product, Signal(signed(cfg.product_bits), name=f"product_{i}")
            with m.If(self.en):
                m.d.sync += product.eq(before)
        m.d.comb += self.o.eq(product)
        return m

    def _is_highest(self, left: Value) -> Value:
        """Return whether the bit of this step is the highest one of a signed weight."""
        if not self.cfg.operand_format.signed:
            return Signal(init=0, name="highest")
        return self.start if self.cfg.w_bits == 1 else (left == 1) & ~self.start
