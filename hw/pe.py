"""The processing element of the systolic array: what every kind of element has in common.

In the order the data passes: weights are held, the product is made (``hw.pe_kinds``), it is added
to the own sum or to the one from above, and the sum register sends it down.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.pe_kinds import adder, multiplier
from machine.systolic import SystolicConfig

__all__ = ["CONTROL", "CONTROL_BITS", "Element", "OwnSum", "Partials", "Weights"]


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


class Weights(wiring.Component):
    """The weight registers of an element: one on its way (preload), one at work.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    control : In(6)
        `CONTROL` for the activations that are multiplied.
    weight : In(weight_bits)
        Weights from above.
    next_weight : Out(weight_bits)
        The preloaded weights.
    factor : Out(weight_bits)
        The weights to multiply by.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__({
            "en": In(1),
            "control": In(CONTROL_BITS),
            "weight": In(cfg.weight_bits),
            "next_weight": Out(cfg.weight_bits),
            "factor": Out(cfg.weight_bits),
        })

    def elaborate(self, platform):
        m = Module()
        control = data.View(CONTROL, self.control)
        with m.If(self.en & control.load):
            m.d.sync += self.next_weight.eq(self.weight)
        if "ws" not in self.cfg.dataflows:
            m.d.comb += self.factor.eq(self.weight)
            return m
        active = Signal(self.cfg.weight_bits)
        held = Mux(control.first, self.next_weight, active)
        with m.If(self.en & control.mac & ~control.os & control.first):
            m.d.sync += active.eq(self.next_weight)
        has_os = "os" in self.cfg.dataflows
        m.d.comb += self.factor.eq(Mux(control.os, self.weight, held) if has_os else held)
        return m


class OwnSum(wiring.Component):
    """The one sum of an output-stationary tile; in the place of `Partials`, with its ports.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    add : In(6)
        `CONTROL` of the product at the adder.
    done : In(6)
        `CONTROL` of the product that left the adder.
    total : In(acc_bits)
        What left the adder.
    addend : Out(acc_bits)
        What the product is added to.
    merge : Out(1)
        Zero.
    other : Out(acc_bits)
        Zero.
    finish : Out(1)
        ``total`` is the tile's.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__(Partials.ports(cfg))

    def elaborate(self, platform):
        m = Module()
        add, done = data.View(CONTROL, self.add), data.View(CONTROL, self.done)
        own = Signal(self.cfg.acc_bits)
        with m.If(self.en & done.mac & done.os):
            m.d.sync += own.eq(self.total)
        m.d.comb += [
            self.addend.eq(Mux(add.first, 0, own)),
            self.finish.eq(done.mac & done.os & done.last),
        ]
        return m


class Partials(wiring.Component):
    """The partial sums of an output-stationary tile: beats go to them in turn, then they are added.

    Merge step i, ``i * add_cycles`` steps after the last beat, adds partial sum i to the first; the
    last merge step makes the total. A tile's first beat clears all of them.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    add : In(6)
        `CONTROL` of the product at the adder.
    done : In(6)
        `CONTROL` of the product that left the adder.
    total : In(acc_bits)
        What left the adder.
    addend : Out(acc_bits)
        What the product, or ``other``, is added to.
    merge : Out(1)
        Add ``other`` in place of a product.
    other : Out(acc_bits)
        A partial sum.
    finish : Out(1)
        ``total`` is the tile's.
    """

    @staticmethod
    def ports(cfg: SystolicConfig) -> wiring.Signature:
        """Return the signature of the sums of an element of `cfg`."""
        return wiring.Signature({
            "en": In(1),
            "add": In(CONTROL_BITS),
            "done": In(CONTROL_BITS),
            "total": In(cfg.acc_bits),
            "addend": Out(cfg.acc_bits),
            "merge": Out(1),
            "other": Out(cfg.acc_bits),
            "finish": Out(1),
        })

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__(self.ports(cfg))

    def elaborate(self, platform):
        m = Module()
        pe = self.cfg.pe
        count, cycles = pe.partial_sums, pe.add_cycles
        add, done = data.View(CONTROL, self.add), data.View(CONTROL, self.done)
        sums = [Signal(self.cfg.acc_bits, name=f"sum_{i}") for i in range(count)]

        # Whose turn it is, for the product at the adder and for the one that left it.
        turn, back = Signal(range(count)), Signal(range(count))
        for index, control in ((turn, add), (back, done)):
            here = Mux(control.first, 0, index)
            with m.If(self.en & control.mac):
                m.d.sync += index.eq(Mux(here == count - 1, 0, here + 1))

        # Bit t - 1 is set t steps after the last product was at the adder.
        line = Signal(cycles * count - 1)
        with m.If(self.en):
            m.d.sync += line.eq(Cat(add.mac & add.last, line))
        m.d.comb += self.finish.eq(line[-1])

        # Add up: a product to its partial sum, or a partial sum to the first.
        with m.Switch(turn):
            for i in range(count):
                with m.Case(i):
                    m.d.comb += self.addend.eq(Mux(add.first, 0, sums[i]))
        for i in range(1, count):
            with m.If(line[i * cycles - 1]):
                m.d.comb += [self.merge.eq(1), self.other.eq(sums[i]), self.addend.eq(sums[0])]

        # Keep what left the adder.
        with m.If(self.en):
            with m.If(add.mac & add.first):
                m.d.sync += [part.eq(0) for part in sums]
            with m.If(done.mac):
                with m.Switch(Mux(done.first, 0, back)):
                    for i in range(count):
                        with m.Case(i):
                            m.d.sync += sums[i].eq(self.total)
            for i in range(2, count):
                with m.If(line[i * cycles - 2]):
                    m.d.sync += sums[0].eq(self.total)
        return m


class Element(wiring.Component):
    """Multiply-accumulate element for both dataflows, with two weight registers.

    Everything moves one element a step: activations and control to the right, weights and sums
    down. A step is a cycle with ``en``. A sum is in the sum register ``cfg.depth_cycles`` steps
    after its last beat, plus ``merge_cycles`` if output-stationary; rows stay in step with each
    other. Beats come ``cfg.initiation_interval_cycles`` steps apart or more. Reset clears every
    register.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``.
    control : In(6)
        `CONTROL` for the activations and the weights that are at the inputs.
    act : In(act_port_bits)
        Activations from the left: lane l at bit ``l * a_bits``; above them, if the kind is masked,
        whether they count.
    weight : In(weight_bits)
        Weights from above: lane l at bit ``l * w_bits``.
    sum : In(acc_bits)
        Sum from above, of the control ``depth_cycles - 1`` steps ago.
    next_control : Out(6)
        ``control`` one step later, for the element to the right.
    next_act : Out(act_port_bits)
        ``act`` one step later, for the element to the right.
    next_weight : Out(weight_bits)
        The preloaded weights, for the element below.
    next_sum : Out(acc_bits)
        The sum register, for the element below.
    """

    @staticmethod
    def ports(cfg: SystolicConfig) -> wiring.Signature:
        """Return the signature of an element of `cfg`."""
        return wiring.Signature({
            "en": In(1),
            "control": In(CONTROL_BITS),
            "act": In(cfg.act_port_bits),
            "weight": In(cfg.weight_bits),
            "sum": In(cfg.acc_bits),
            "next_control": Out(CONTROL_BITS),
            "next_act": Out(cfg.act_port_bits),
            "next_weight": Out(cfg.weight_bits),
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

        # Weights.
        m.submodules.weights = weights = Weights(cfg)
        m.d.comb += [
            weights.en.eq(self.en), weights.control.eq(self.control),
            weights.weight.eq(self.weight), self.next_weight.eq(weights.next_weight),
        ]

        # Multiply; the control goes beside, to the adder and to the sum register.
        m.submodules.multiplier = product = multiplier(cfg)
        m.d.comb += [
            product.en.eq(self.en), product.start.eq(control.mac),
            product.act.eq(self.act), product.weight.eq(weights.factor),
        ]
        line = [control]
        for i in range(1, cfg.depth_cycles):
            line.append(Signal(CONTROL, name=f"control_{i}"))
            with m.If(self.en):
                m.d.sync += line[i].eq(line[i - 1])
        add, done = line[cfg.multiply_cycles], line[-1]

        # Add to the own sum or to the sum from above.
        m.submodules.adder = total = adder(cfg, cfg.pe.add_cycles)
        m.d.comb += [total.en.eq(self.en), total.product.eq(product.o)]
        addend, finish = self.sum, done.mac & ~done.os
        if has_os:
            m.submodules.sums = sums = (Partials if cfg.pe.partial_sums > 1 else OwnSum)(cfg)
            m.d.comb += [
                sums.en.eq(self.en), sums.add.eq(add), sums.done.eq(done), sums.total.eq(total.o),
                total.merge.eq(sums.merge), total.other.eq(sums.other),
            ]
            addend = Mux(add.os, sums.addend, self.sum) if has_ws else sums.addend
            finish = sums.finish | finish
        m.d.comb += total.addend.eq(addend)

        # The sum register takes what is complete, or shifts down.
        with m.If(self.en):
            with m.If(finish):
                m.d.sync += self.next_sum.eq(total.o)
            with m.Elif(~done.hold):
                m.d.sync += self.next_sum.eq(self.sum)
        return m
