# amaranth: UnusedElaboratable=no
"""Floats by powers of two: every code of both against golden."""

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from golden.formats import decode, encode
from hw.cxxrtl import StreamSimulation
from hw.pe_power import PowerProduct
from hw.stream import PairQueue
from machine.formats import FORMATS

PAIRS = [("float16", "shift4"), ("float16", "shift2"), ("float8_e5m2", "shift3")]


class Bench(wiring.Component):
    """All products of `PAIRS` of the same bits: the activation, above it the weight.

    Members
    -------
    i : In(stream)
        The bits.
    o : Out(stream)
        Products, 32 bits each.
    """

    def __init__(self):
        super().__init__({"i": In(stream.Signature(20)),
                          "o": Out(stream.Signature(32 * len(PAIRS)))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = PairQueue(32 * len(PAIRS))
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        m.d.comb += [queue.i.valid.eq(self.i.valid), self.i.ready.eq(queue.i.ready)]
        for n, (a, w) in enumerate(PAIRS):
            m.submodules[f"product_{n}"] = product = PowerProduct(a, w)
            m.d.comb += [
                product.act.eq(self.i.payload),
                product.weight.eq(self.i.payload >> len(product.act)),
                queue.i.payload.word_select(n, 32).eq(product.o),
            ]
        return m


@pytest.mark.cxxrtl
def test_every_activation_by_every_power_is_exact_in_float32():
    every = np.arange(1 << 20, dtype=np.uint32)
    log = StreamSimulation(Bench()).run({"i": (every[:, None], np.zeros(len(every)))},
                                        {"o": np.zeros(len(every))}, max_cycles=1 << 21)
    for n, (a, w) in enumerate(PAIRS):
        act, weight = FORMATS[a], FORMATS[w]
        count = 1 << act.bits + weight.bits
        x = decode(every[:count] & (1 << act.bits) - 1, act)
        product = x * decode(every[:count] >> act.bits, weight)
        want = encode(product, FORMATS["float32"])
        assert (np.isnan(product) | (decode(want, FORMATS["float32"]) == product)).all()
        for at in np.flatnonzero(log["o"].words[:count, n] != want)[:1]:
            pytest.fail(f"{a} by {w}: code {at:#x}: {log['o'].words[at, n]:#x} != {want[at]:#x}")


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_nothing_is_multiplied(pair):
    assert "$mul" not in rtlil.convert(PowerProduct(*pair), emit_src=False)
