# amaranth: UnusedElaboratable=no
"""Elements multiply: what comes out is the sum of plain products, for all inputs at small widths.

The reference is one multiplication of two numbers a lane, each the value that golden decodes from
the code. Combinational products: mode `bmc`, depth 1, which is every input. Registered and
bit-serial ones: mode `prove`, so for any number of beats and steps without one in between.
"""

import pytest
from amaranth.hdl import Array, Assert, Assume, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from golden.formats import decode
from hw.formal import prove
from hw.pe_integer import PRODUCTS, Product
from hw.pe_kinds import Apart
from hw.pe_serial import SerialProduct
from machine.formats import Format, Kind
from machine.pe import PeConfig
from machine.systolic import SystolicConfig


def config(kind: str, a_bits: int, w_bits: int, **more) -> SystolicConfig:
    pe = PeConfig(kind=kind, **{k: more.pop(k) for k in ("depth_cycles", "k_lanes", "w_format")
                                if k in more})
    return SystolicConfig(rows=1, cols=1, a_bits=a_bits, w_bits=w_bits, pe=pe, **more)


def number(code: Value, fmt: Format) -> Value:
    """Return the number of a `code` of `fmt`, looked up among those golden decodes."""
    codes = range(1 << fmt.bits)
    if fmt.kind is Kind.TERNARY:  # the element counts the unused code as zero
        codes = [0b00 if code == 0b10 else code for code in codes]
    return Array(int(value) for value in decode(codes, fmt))[code]


def products(cfg: SystolicConfig, act: Value, weight: Value) -> Value:
    """Return the sum of the lanes' products, by plain multiplication."""
    total = 0
    for lane in range(cfg.pe.k_lanes):
        a = number(act.word_select(lane, cfg.a_bits), cfg.act_format)
        w = number(weight.word_select(lane, cfg.w_bits), cfg.operand_format)
        total += a * w
    return total


class Multiplies(wiring.Component):
    """A product with free operands, steps and starts, and what it should be after as many steps."""

    def __init__(self, dut):
        self.dut = dut
        cfg = dut.cfg
        super().__init__({"en": In(1), "start": In(1), "act": In(cfg.act_port_bits),
                          "weight": In(cfg.weight_bits)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        cfg = dut.cfg
        m.d.comb += [getattr(dut, name).eq(getattr(self, name))
                     for name in ("en", "start", "act", "weight")]
        want = Signal.like(dut.o)
        m.d.comb += want.eq(products(cfg, self.act[: cfg.act_bits], self.weight))
        if cfg.pe.fixed.masked:
            with m.If(~self.act[-1]):
                m.d.comb += want.eq(0)

        # A beat in every step, or every `w_bits` steps where the bits of the weight take turns.
        begins = Signal()
        m.d.comb += begins.eq(1)
        if cfg.pe.fixed.serial:
            since = Signal(range(cfg.w_bits), init=cfg.w_bits - 1)  # a start
            m.d.comb += begins.eq(self.start)
            m.d.comb += Assume(~self.start | (since == cfg.w_bits - 1))
            with m.If(self.en):
                m.d.sync += since.eq(Mux(self.start, 0, since + (since < cfg.w_bits - 1)))

        # As many steps later it is there.
        here = begins
        for step in range(cfg.multiply_cycles):
            later, at = Signal.like(want, name=f"want_{step}"), Signal(name=f"here_{step}")
            with m.If(self.en):
                m.d.sync += [later.eq(want), at.eq(here)]
            want, here = later, at
        with m.If(here):
            m.d.comb += Assert(dut.o == want)
        return m


COMBINATIONAL = {
    "int_mac 4x4": config("int_mac", 4, 4),
    "int_mac 2x3, two lanes": config("int_mac", 2, 3, k_lanes=2),
    "mixpe W4A4": config("mixpe", 4, 4),
    "mixpe W3A4, two lanes": config("mixpe", 4, 3, k_lanes=2),
    "shift 4x4": config("shift", 4, 4),
    "shift 3x3, two lanes": config("shift", 3, 3, k_lanes=2),
    "ternary 5": config("ternary", 5, 2),
    "ternary 4, three lanes": config("ternary", 4, 2, k_lanes=3),
    "bipolar 4x4": config("bipolar", 4, 4),
    "bipolar 2x3, three lanes": config("bipolar", 2, 3, k_lanes=3),
}


@pytest.mark.parametrize("name", COMBINATIONAL)
def test_products_are_plain_products(name):
    dut = Product(COMBINATIONAL[name])
    verdict = prove(Multiplies(dut), mode="bmc", depth=1)
    assert verdict.status == "pass", verdict.reason


WIDER = {
    "int_mac 5x5": config("int_mac", 5, 5),
    "mixpe W4A8": config("mixpe", 8, 4),
    "shift 8x4": config("shift", 8, 4),
    "ternary 8": config("ternary", 8, 2),
    "bipolar 3x3, four lanes": config("bipolar", 3, 3, k_lanes=4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDER)
def test_wider_products_are_plain_products(name):
    verdict = prove(Multiplies(Product(WIDER[name])), mode="bmc", depth=1)
    assert verdict.status == "pass", verdict.reason


STEPPED = {
    "int_mac, product registered": Product(config("int_mac", 3, 3, depth_cycles=2)),
    "bipolar, operands registered": Product(config("bipolar", 2, 2, depth_cycles=3)),
    "bit_serial 3x3": SerialProduct(config("bit_serial", 3, 3)),
    "bit_serial 2x1": SerialProduct(config("bit_serial", 2, 1)),
    "bit_serial 2x2, registered": SerialProduct(config("bit_serial", 2, 2, depth_cycles=2)),
    "int_mac, operands twice": Apart(config("int_mac", 3, 3, depth_cycles=4)),
    "bipolar, product twice": Apart(config("bipolar", 2, 2, depth_cycles=5)),
    "bit_serial 2x2, product twice": Apart(config("bit_serial", 2, 2, depth_cycles=5)),
}


@pytest.mark.parametrize("name", STEPPED)
def test_registered_products_come_as_many_steps_later(name):
    verdict = prove(Multiplies(STEPPED[name]), engine="abc pdr")
    assert verdict.status == "pass", verdict.reason


BROKEN = [
    ("hw.pe_shift", "planes[-1] = -planes[-1]", "pass", "shift_add", "mixpe W4A4"),
    ("hw.pe_shift", "Mux(w[-1], -shifted, shifted)", "Mux(w[-1], ~shifted, shifted)",
     "shift_by_power", "shift 4x4"),
    ("hw.pe_bits", "Mux(w[1], -a, a)", "Mux(w[1], a, -a)", "ternary", "ternary 5"),
    ("hw.pe_bits", "(2**cfg.w_bits - 1) * (", "(2**cfg.w_bits) * (", "bipolar", "bipolar 4x4"),
]


@pytest.mark.parametrize("module, old, new, function, name", BROKEN, ids=[b[3] for b in BROKEN])
def test_a_broken_product_is_seen(edited, monkeypatch, module, old, new, function, name):
    cfg = COMBINATIONAL[name]
    monkeypatch.setitem(PRODUCTS, cfg.pe.kind, getattr(edited(module, old, new), function))
    assert prove(Multiplies(Product(cfg)), mode="bmc", depth=1).status == "fail"


def test_a_broken_serial_product_is_seen(edited):
    dut = edited("hw.pe_serial", "Mux(highest, -term, term)", "term").SerialProduct(
        config("bit_serial", 3, 3))
    assert prove(Multiplies(dut), mode="bmc", depth=8).status == "fail"
