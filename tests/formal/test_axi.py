# amaranth: UnusedElaboratable=no
"""The AXI ports: one answer a request, what is offered is kept, every command written is sent once.

Mode: `prove` by property-directed reachability, for any number of cycles and a reset at any time;
of the whole wrapper `bmc`, the first 24 cycles.
The broken designs fail within the depth of each test.
"""

import pytest
from amaranth.hdl import Assert, Assume, ClockSignal, DomainRenamer, Module, ResetSignal, Signal
from amaranth.lib import wiring

from hw.axi import OFFSETS, OKAY, SLVERR, Registers, SystolicAxi, WritePort
from hw.formal import prove
from hw.properties import Carried, Kept
from machine.pe import PeConfig
from machine.systolic import COMMAND_BITS, SystolicConfig

CFG = SystolicConfig(rows=1, cols=1, a_bits=2, w_bits=2, acc_bits=8, acc_rows=0, pe=PeConfig())


def kept(m: Module, name: str, valid, ready, payload) -> None:
    """Bind a monitor of a stream."""
    m.submodules[f"kept_{name}"] = monitor = Kept(len(payload))
    m.d.comb += [monitor.valid.eq(valid), monitor.ready.eq(ready), monitor.payload.eq(payload)]


class WritePortHarness(wiring.Component):
    """The write port with anything at its inputs."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__(dut.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        wiring.connect(m, wiring.flipped(self), dut)
        kept(m, "b", dut.bvalid, dut.bready, dut.bresp)

        # Of each channel at most one request is open, and a write has both and ends them.
        asked, told = Signal(), Signal()
        address, data, whole = Signal.like(dut.awaddr), Signal(32), Signal()
        with m.If(dut.awvalid & dut.awready):
            m.d.comb += Assert(~asked)
            m.d.sync += [asked.eq(1), address.eq(dut.awaddr)]
        with m.If(dut.wvalid & dut.wready):
            m.d.comb += Assert(~told)
            m.d.sync += [told.eq(1), data.eq(dut.wdata), whole.eq(dut.wstrb == 0b1111)]
        with m.If(dut.write):
            m.d.comb += [Assert(asked & told), Assert(dut.address == address),
                         Assert(dut.data == data), Assert(dut.whole == whole)]
            m.d.sync += [asked.eq(0), told.eq(0)]

        # It is answered once, from the next cycle on, with what was said of it.
        answer = Signal()
        m.d.comb += Assert(dut.bvalid == answer)
        m.d.comb += Assert(~dut.write | ~answer)
        with m.If(dut.bready):
            m.d.sync += answer.eq(0)
        with m.If(dut.write):
            m.d.sync += answer.eq(1)
        expected = Signal(2)
        with m.If(dut.write):
            m.d.sync += expected.eq(OKAY)
            with m.If(dut.refused):
                m.d.sync += expected.eq(SLVERR)
        m.d.comb += Assert(~dut.bvalid | (dut.bresp == expected))

        # Nothing hangs: a write that is whole happens unless an answer is in front of it.
        m.d.comb += Assert(dut.write == (asked & told & ~answer))
        return m


def test_every_write_happens_once_and_is_answered_once():
    verdict = prove(WritePortHarness(WritePort()), engine="abc pdr")
    assert verdict.status == "pass", verdict.reason


@pytest.mark.parametrize("old, new", [
    ("address_here & data_here & ~self.bvalid", "address_here & data_here"),
    ("self.wready.eq(~data_here)", "self.wready.eq(1)"),
    ("with m.If(self.bready):", "with m.If(1):"),
], ids=["answers overtake", "data lost", "answer dropped"])
def test_a_broken_write_port_is_seen(edited, old, new):
    dut = edited("hw.axi", old, new).WritePort()
    assert prove(WritePortHarness(dut), mode="bmc", depth=10).status == "fail"


class RegistersHarness(wiring.Component):
    """The registers with anything at their inputs, and a record of what was written."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({**dict(dut.signature.members), "choose": wiring.In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        for name, member in dut.signature.members.items():
            inner, outer = getattr(dut, name), getattr(self, name)
            if member.is_signature:
                wiring.connect(m, inner, wiring.flipped(outer))
            else:
                m.d.comb += inner.eq(outer) if member.flow is wiring.In else outer.eq(inner)
        kept(m, "b", dut.bvalid, dut.bready, dut.bresp)
        kept(m, "r", dut.rvalid, dut.rready, dut.rdata)
        kept(m, "command", dut.o_commands.valid, dut.o_commands.ready, dut.o_commands.payload)

        # The write in work, which is answered before the next one is.
        address, data, low = Signal(12), Signal(32), Signal(32)
        with m.If(dut.awvalid & dut.awready):
            m.d.sync += address.eq(dut.awaddr)
        with m.If(dut.wvalid & dut.wready):
            m.d.sync += data.eq(dut.wdata)

        # A write that has just been accepted: its answer appears.
        waiting, before = Signal(), Signal.like(address)
        written = Signal.like(data)
        m.d.sync += [waiting.eq(dut.bvalid), before.eq(address), written.eq(data)]
        accepted = dut.bvalid & ~waiting & (dut.bresp == OKAY)
        with m.If(accepted & (before == OFFSETS["COMMAND_LOW"])):
            m.d.sync += low.eq(written)

        # Every command that was accepted leaves once, in order, with both halves.
        m.submodules.carried = carried = Carried(COMMAND_BITS, capacity=2)
        m.d.comb += [
            carried.choose.eq(self.choose),
            carried.entered.eq(accepted & (before == OFFSETS["COMMAND_HIGH"])),
            carried.expected[:32].eq(low),
            carried.expected[32:].eq(written),
            carried.left.eq(dut.o_commands.valid & dut.o_commands.ready),
            carried.payload.eq(dut.o_commands.payload),
        ]
        return m


def test_every_command_written_is_sent_once_and_in_order():
    verdict = prove(RegistersHarness(Registers(CFG)), engine="abc pdr", timeout_s=120)
    assert verdict.status == "pass", verdict.reason


@pytest.mark.parametrize("old, new", [
    ("port.refused.eq(~commands.i.ready)]", "port.refused.eq(0)]"),
    ("payload[:32].eq(values[\"COMMAND_LOW\"])", "payload[:32].eq(port.data)"),
], ids=["refused in silence", "wrong half"])
def test_broken_registers_are_seen(edited, old, new):
    dut = edited("hw.axi", old, new).Registers(CFG)
    verdict = prove(RegistersHarness(dut), mode="bmc", depth=16, engine="abc bmc3")
    assert verdict.status == "fail"


class AxiHarness(wiring.Component):
    """The whole wrapper with anything at its inputs, but for writes of the packet's length.

    Clock and reset are those of a domain of another name, as the wrapper has its own ``sync``.
    """

    def __init__(self, dut):
        self.dut = dut
        members = {name: member for name, member in dut.signature.members.items()
                   if name not in ("aclk", "aresetn")}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.d.comb += [dut.aclk.eq(ClockSignal("axi")), dut.aresetn.eq(~ResetSignal("axi"))]
        for name, member in self.signature.members.items():
            inner, outer = getattr(dut, name), getattr(self, name)
            m.d.comb += inner.eq(outer) if member.flow is wiring.In else outer.eq(inner)

        # The packet's length changes only while no row of sums is on its way.
        m.d.comb += Assume(dut.s_axil_awaddr != OFFSETS["PACKET"])
        for channel, payloads in {"m_axis_sums_t": ("data", "last"), "s_axil_b": ("resp",),
                                  "s_axil_r": ("data", "resp")}.items():
            for payload in payloads:
                what = getattr(dut, channel + payload)
                monitor = Kept(len(what))
                m.submodules += DomainRenamer("axi")(monitor)
                m.d.comb += [
                    monitor.valid.eq(getattr(dut, f"{channel}valid")),
                    monitor.ready.eq(getattr(dut, f"{channel}ready")),
                    monitor.payload.eq(what),
                ]
        return m


def test_the_wrapper_keeps_what_it_offers():
    verdict = prove(AxiHarness(SystolicAxi(CFG)), mode="bmc", depth=24, engine="abc bmc3")
    assert verdict.status == "pass", verdict.reason


def test_a_wrapper_that_drops_is_seen(edited):
    dut = edited("hw.axi", "array.o_sums.ready.eq(self.m_axis_sums_tready)",
                 "array.o_sums.ready.eq(1)").SystolicAxi(CFG)
    verdict = prove(AxiHarness(dut), mode="bmc", depth=24, engine="abc bmc3")
    assert verdict.status == "fail"
