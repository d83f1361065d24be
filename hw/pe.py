"""The processing element of the systolic array."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from machine.systolic import SystolicConfig

__all__ = ["CONTROL", "CONTROL_BITS", "IntMac"]


# What an element does in one step; it enters at column 0 and moves one column a step.
CONTROL = data.StructLayout({
    "mac": 1,  # an activation is here: multiply
    "os": 1,  # ... by the passing weight, into the own sum; otherwise by the held weight
    "first": 1,  # first activation of the tile: restart the own sum, or exchange the weights
    "last": 1,  # last activation of the tile: move the own sum to the sum register
    "load": 1,  # take the weight from above
    "hold": 1,  # keep the sum register, which waits for the rows below
})
CONTROL_BITS = CONTROL.size


class IntMac(wiring.Component):
    """Signed multiply-accumulate element for both dataflows, with two weight registers.

    Everything moves one element a step: activations and control to the right, weights and sums
    down. A step is a cycle with ``en``. Reset clears every register. Sums wrap.

    With ``depth_cycles`` of 2 the product is registered and the addition, with the control it
    needs, happens one step later; rows stay in step with each other.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    control : In(6)
        `CONTROL` for the activation, weight and sum that are at the inputs.
    act : In(a_bits)
        Signed activation from the left.
    weight : In(w_bits)
        Signed weight from above.
    sum : In(acc_bits)
        Sum from above; with a registered product, of the control one step earlier.
    next_control : Out(6)
        ``control`` one step later, for the element to the right.
    next_act : Out(a_bits)
        ``act`` one step later, for the element to the right.
    next_weight : Out(w_bits)
        The preloaded weight, for the element below.
    next_sum : Out(acc_bits)
        The sum register, for the element below.
    """

    @staticmethod
    def ports(cfg: SystolicConfig) -> wiring.Signature:
        """Return the signature of an element of `cfg`."""
        return wiring.Signature({
            "en": In(1),
            "control": In(CONTROL_BITS),
            "act": In(cfg.a_bits),
            "weight": In(cfg.w_bits),
            "sum": In(cfg.acc_bits),
            "next_control": Out(CONTROL_BITS),
            "next_act": Out(cfg.a_bits),
            "next_weight": Out(cfg.w_bits),
            "next_sum": Out(cfg.acc_bits),
        })

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__(self.ports(cfg))

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        control = data.View(CONTROL, self.control)
        has_os, has_ws = "os" in cfg.dataflows, "ws" in cfg.dataflows

        # To the right.
        with m.If(self.en):
            m.d.sync += [self.next_control.eq(self.control), self.next_act.eq(self.act)]

        # Weights: one on its way (preload), one at work.
        preload, active = Signal(cfg.w_bits), Signal(cfg.w_bits)
        factor = Signal(signed(cfg.w_bits))
        held = Mux(control.first, preload, active)
        m.d.comb += self.next_weight.eq(preload)
        with m.If(self.en & control.load):
            m.d.sync += preload.eq(self.weight)
        if has_ws:
            with m.If(self.en & control.mac & ~control.os & control.first):
                m.d.sync += active.eq(preload)
            m.d.comb += factor.eq(Mux(control.os, self.weight, held) if has_os else held)
        else:
            m.d.comb += factor.eq(self.weight)

        # Multiply, and keep the control of the addition beside the product.
        product, add = Signal(signed(cfg.a_bits + cfg.w_bits)), Signal(CONTROL)
        multiply = [product.eq(self.act.as_signed() * factor), add.eq(control)]
        if cfg.pe.depth_cycles == 1:
            m.d.comb += multiply
        else:
            with m.If(self.en):
                m.d.sync += multiply

        # Add to the own sum or to the sum from above; the sum register shifts down otherwise.
        own, total = Signal(cfg.acc_bits), Signal(cfg.acc_bits)
        addend = Mux(add.os, Mux(add.first, 0, own), self.sum) if has_os else self.sum
        m.d.comb += total.eq(addend + product)
        with m.If(self.en):
            with m.If(add.mac & (~add.os | add.last)):
                m.d.sync += self.next_sum.eq(total)
            with m.Elif(~add.hold):
                m.d.sync += self.next_sum.eq(self.sum)
            if has_os:
                with m.If(add.mac & add.os):
                    m.d.sync += own.eq(total)
        return m
