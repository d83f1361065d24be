# amaranth: UnusedElaboratable=no
"""Exact sums of float products: nothing is lost before the one rounding at the end."""

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from golden.exact import kulisch_matmul
from golden.formats import decode, encode
from hw.cxxrtl import StreamSimulation
from hw.kulisch import FixedProduct, FixedSum, rounding_chain
from machine.floats import KULISCH_MARKS, kulisch_bits
from machine.formats import FORMATS, product_bits

TERMS = 12  # products of one sum


class Accumulator(wiring.Component):
    """Adds products of a (bit 0) and b (bit 16) up, anew where bit 32 is set; sends roundings."""

    def __init__(self, a: str, b: str, outs: list[str]):
        self.formats = FORMATS[a], FORMATS[b]
        self.outs = [FORMATS[name] for name in outs]
        super().__init__({"i": In(stream.Signature(33)),
                          "o": Out(stream.Signature(32 * len(outs)))})

    def elaborate(self, platform):
        m = Module()
        a, b = self.formats
        width = kulisch_bits(a, b, TERMS) + len(KULISCH_MARKS)
        m.submodules.product = product = FixedProduct(a, b)
        m.submodules.sum = total = FixedSum(a, b, width, 1)
        held, step = Signal(width), Signal()
        m.d.comb += [
            step.eq(self.o.ready | ~self.o.valid),
            self.i.ready.eq(step),
            product.i.a.eq(self.i.payload[: a.bits]),
            product.i.b.eq(self.i.payload[16 : 16 + b.bits]),
            total.product.eq(product.o),
            total.addend.eq(Mux(self.i.payload[32], 0, held)),
        ]
        with m.If(step):
            m.d.sync += self.o.valid.eq(self.i.valid)
            with m.If(self.i.valid):
                m.d.sync += held.eq(total.o)
        results = []
        for n, fmt in enumerate(self.outs):
            m.submodules[f"round_{n}"] = rounding = rounding_chain(a, b, width, fmt)
            m.d.comb += rounding.i.eq(held)
            result = Signal(32, name=f"result_{n}")
            m.d.comb += result.eq(rounding.o)
            results.append(result)
        m.d.comb += self.o.payload.eq(Cat(results))
        return m


def run(a: str, b: str, outs: list[str], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the codes of every partial sum of `x` and `y` [sums, TERMS], [outs, sums, TERMS]."""
    first = np.zeros(x.shape, np.int64)
    first[:, 0] = 1
    beats = (x | y << 16 | first << 32).ravel()
    words = beats.astype("<u8").view("<u4").reshape(-1, 2)
    waits = np.cumsum(np.random.default_rng(1).integers(0, 9, len(words)) == 0)
    log = StreamSimulation(Accumulator(a, b, outs), merge_wires=False).run(
        {"i": (words, waits)}, {"o": waits + np.arange(len(waits)) % 7})
    return log["o"].words.T.reshape(len(outs), *x.shape)


@pytest.mark.cxxrtl
@pytest.mark.parametrize("a, b, outs", [
    ("float16", "float16", ["float32", "float16"]),
    ("float8_e5m2", "float8_e4m3fn", ["float32", "float8_e5m2"]),
])
def test_every_partial_sum_is_the_exact_one_rounded_once(a, b, outs):
    rng = np.random.default_rng(2)
    fmt_a, fmt_b = FORMATS[a], FORMATS[b]
    x, y = (np.where(rng.random((1000, TERMS)) < 0.5, wild, near) for wild, near in (
        (rng.integers(0, 1 << fmt.bits, (1000, TERMS)),
         encode(rng.standard_normal((1000, TERMS)), fmt).astype(np.int64))
        for fmt in (fmt_a, fmt_b)))
    # A third of the sums end by taking back their first product, which leaves what was small.
    x[::3, -1], y[::3, -1] = x[::3, 0] ^ 1 << fmt_a.bits - 1, y[::3, 0]
    values = decode(x, fmt_a), decode(y, fmt_b)
    with np.errstate(invalid="ignore"):
        special = np.where(np.isfinite(values[0] * values[1]), 0.0, values[0] * values[1])
        special = np.add.accumulate(special, axis=-1)
    finite = [np.where(np.isfinite(values[0] * values[1]), codes, 0) for codes in (x, y)]
    got = run(a, b, outs, x, y)
    for n, out in enumerate(outs):
        for count in range(1, TERMS + 1):
            exact = kulisch_matmul(finite[0][:, None, :count], finite[1][:, :count, None],
                                   fmt_a, fmt_b)[:, 0, 0]
            ends = special[:, count - 1]
            want = encode(np.where(ends == 0, exact + 0.0, ends), FORMATS[out])
            wrong = np.flatnonzero(got[n, :, count - 1] != want)
            assert not wrong.size, (out, count, int(wrong[0]), int(got[n, wrong[0], count - 1]),
                                    int(want[wrong[0]]))


@pytest.mark.parametrize("a, b, bits", [
    ("float8_e4m3fn", "float8_e4m3fn", 37), ("float16", "float16", 81),
    ("float4_e2m1fn", "float4_e2m1fn", 9)])
def test_one_product_takes_the_bits_of_the_table(a, b, bits):
    assert kulisch_bits(FORMATS[a], FORMATS[b], 1) == bits
    assert product_bits(FORMATS[a], FORMATS[b]) == bits


def test_a_sum_of_products_takes_just_the_bits_of_the_largest():
    fmt = FORMATS["float4_e2m1fn"]  # the largest product is 12 * 12 units
    for products in range(1, 40):
        assert kulisch_bits(fmt, fmt, products) == (144 * products).bit_length() + 1


def test_bfloat16_is_refused_with_its_width():
    message = "^kulisch accumulator of bfloat16 x bfloat16 must be at most 128 bits, not 523$"
    with pytest.raises(ValueError, match=message):
        kulisch_bits(FORMATS["bfloat16"], FORMATS["bfloat16"], 1)
