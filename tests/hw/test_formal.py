# amaranth: UnusedElaboratable=no
"""The driver of proofs: passes, failures with their place, unknowns, and errors of the tools."""

import pytest
from amaranth.hdl import Assert, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw import yosys
from hw.formal import prove


class Counter(wiring.Component):
    """Counts steps up to `top` and starts again; asserts that it stays below `limit`."""

    def __init__(self, top: int, limit: int):
        self.top, self.limit = top, limit
        super().__init__({"step": In(1)})

    def elaborate(self, platform):
        m = Module()
        count = Signal(8)
        with m.If(self.step):
            m.d.sync += count.eq(count + 1)
            with m.If(count == self.top):
                m.d.sync += count.eq(0)
        m.d.comb += Assert(count < self.limit)
        return m


@pytest.mark.parametrize("engine", ["smtbmc z3", "abc pdr", "abc scorr; pdr"])
def test_what_always_holds_is_proved(engine):
    assert prove(Counter(4, 5), engine=engine, depth=2).status == "pass"


def test_what_fails_names_the_assertion_and_the_cycle():
    verdict = prove(Counter(4, 4), mode="bmc", depth=8)
    assert verdict.status == "fail"
    assert "test_formal.py:" in verdict.reason and "step 4" in verdict.reason


def test_a_bounded_proof_says_nothing_of_later_cycles():
    assert prove(Counter(9, 9), mode="bmc", depth=9).status == "pass"
    assert prove(Counter(9, 9), mode="bmc", depth=10).status == "fail"


def test_what_induction_cannot_show_is_unknown():
    # From 99 on, which is never reached, the count would run over the limit.
    assert prove(Counter(4, 100), depth=4).status == "unknown"
    assert prove(Counter(4, 100), engine="abc pdr").status == "pass"


def test_an_error_of_yosys_is_told_in_its_words(tmp_path):
    with pytest.raises(RuntimeError, match=r"^yosys: ERROR: .*none\.il"):
        yosys.run("read_rtlil none.il", tmp_path)
    assert "mutate" in yosys.run("help mutate", tmp_path)


def test_a_tool_that_fails_is_an_error_and_no_verdict():
    with pytest.raises(RuntimeError, match=r"^sby: "):
        prove(Counter(4, 5), modules="no RTLIL\n")
