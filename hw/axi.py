"""The systolic array behind AXI: AXI4-Lite registers for commands, AXI4-Stream for data.

No output depends combinationally on an input, as the AXI specification (Arm IHI 0022; memory,
unverified) asks: queues stand between the array's streams and the ports.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from amaranth.hdl import ClockDomain, ClockSignal, Const, Module, Mux, ResetSignal, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.stream import PairQueue
from hw.systolic import Systolic
from machine.systolic import COMMAND_BITS, SystolicConfig

__all__ = [
    "ADDRESS_BITS",
    "IDENTITY",
    "REGISTERS",
    "Register",
    "Registers",
    "SystolicAxi",
    "WritePort",
]

ADDRESS_BITS = 12  # a 4 KiB page of registers
IDENTITY = 0x53595354  # "SYST"
OKAY, SLVERR = 0, 2  # AXI responses (Arm IHI 0022; memory, unverified)


class Register(NamedTuple):
    """One 32-bit register."""

    name: str
    offset: int  # byte address
    access: str  # "read" or "read/write"
    meaning: str


REGISTERS = (
    Register("IDENTITY", 0x00, "read", "The constant 0x53595354."),
    Register("SIZE", 0x04, "read", "Rows in bits 0 to 15, columns in bits 16 to 31."),
    Register("STATUS", 0x08, "read", "Bit 0: a command can be written; other bits are zero."),
    Register("COMMANDS", 0x0C, "read", "Commands the array has taken since reset; wraps."),
    Register("ROWS", 0x10, "read", "Rows of sums sent since reset; wraps."),
    Register("PACKET", 0x14, "read/write", "Rows of sums in a packet, whose last one has tlast; "
             "0: no tlast. Zero after reset. A write starts a new packet, and must find no row of "
             "sums on its way."),
    Register("COMMAND_LOW", 0x18, "read/write", "Bits 0 to 31 of the next command. Zero after "
             "reset."),
    Register("COMMAND_HIGH", 0x1C, "read/write", "Bits 32 to 63 of a command; writing sends both "
             "halves. Refused with SLVERR while STATUS bit 0 is 0. Reads the last one sent."),
)
OFFSETS = {register.name: register.offset for register in REGISTERS}

WRITE = {  # the write channels of AXI4-Lite, seen from the subordinate
    "awaddr": In(ADDRESS_BITS), "awvalid": In(1), "awready": Out(1),
    "wdata": In(32), "wstrb": In(4), "wvalid": In(1), "wready": Out(1),
    "bresp": Out(2), "bvalid": Out(1), "bready": In(1),
}
READ = {  # the read channels
    "araddr": In(ADDRESS_BITS), "arvalid": In(1), "arready": Out(1),
    "rdata": Out(32), "rresp": Out(2), "rvalid": Out(1), "rready": In(1),
}


def _joined(
    members: dict[str, wiring.Member],
    outer: wiring.Component,
    inner: wiring.Component,
    prefix: str = "",
) -> Iterator[Any]:
    """Yield the assignments that make `inner`'s `members` those of `outer` with `prefix`."""
    for name, member in members.items():
        ours, theirs = getattr(outer, prefix + name), getattr(inner, name)
        yield theirs.eq(ours) if member.flow is In else ours.eq(theirs)


class WritePort(wiring.Component):
    """The write channels of AXI4-Lite: joins address and data into one write, and answers it.

    One write is in work at a time. It happens in the cycle after its last part is accepted, or
    once the response in front is taken; its response is offered from the next cycle on.

    Members
    -------
    awaddr : In(12)
        Byte address of a write.
    awvalid : In(1)
        A write address is offered.
    awready : Out(1)
        It is accepted.
    wdata : In(32)
        Data of a write.
    wstrb : In(4)
        Bytes of it that count.
    wvalid : In(1)
        Write data is offered.
    wready : Out(1)
        It is accepted.
    bresp : Out(2)
        Response to a write: OKAY or SLVERR.
    bvalid : Out(1)
        A response to a write is offered.
    bready : In(1)
        It is accepted.
    write : Out(1)
        A write happens in this cycle.
    address : Out(12)
        Its byte address.
    data : Out(32)
        Its data.
    whole : Out(1)
        All its bytes count.
    refused : In(1)
        The answer to it is SLVERR.
    """

    def __init__(self):
        super().__init__({
            **WRITE,
            "write": Out(1),
            "address": Out(ADDRESS_BITS),
            "data": Out(32),
            "whole": Out(1),
            "refused": In(1),
        })

    def elaborate(self, platform):
        m = Module()

        # Address and data arrive in any order and wait for each other.
        address_here, data_here = Signal(), Signal()
        m.d.comb += [self.awready.eq(~address_here), self.wready.eq(~data_here)]
        with m.If(self.awvalid & self.awready):
            m.d.sync += [self.address.eq(self.awaddr), address_here.eq(1)]
        with m.If(self.wvalid & self.wready):
            m.d.sync += [self.data.eq(self.wdata), self.whole.eq(self.wstrb.all()),
                         data_here.eq(1)]

        # Then the write happens, once the response in front is gone.
        m.d.comb += self.write.eq(address_here & data_here & ~self.bvalid)
        with m.If(self.bready):
            m.d.sync += self.bvalid.eq(0)
        with m.If(self.write):
            m.d.sync += [address_here.eq(0), data_here.eq(0), self.bvalid.eq(1)]
            m.d.sync += self.bresp.eq(Mux(self.refused, SLVERR, OKAY))
        return m


class Registers(wiring.Component):
    """The registers of `REGISTERS` behind AXI4-Lite.

    One write and one read are in work at a time; a read is answered in the next cycle, a write in
    the second. A write answers SLVERR and changes nothing if its address holds no register or a
    read-only one, or if a byte strobe is missing; a read answers SLVERR where no register is.

    Members
    -------
    awaddr : In(12)
        Byte address of a write.
    awvalid : In(1)
        A write address is offered.
    awready : Out(1)
        It is accepted.
    wdata : In(32)
        Data of a write.
    wstrb : In(4)
        Bytes of it that count; all must.
    wvalid : In(1)
        Write data is offered.
    wready : Out(1)
        It is accepted.
    bresp : Out(2)
        Response to a write: OKAY or SLVERR.
    bvalid : Out(1)
        A response to a write is offered.
    bready : In(1)
        It is accepted.
    araddr : In(12)
        Byte address of a read.
    arvalid : In(1)
        A read address is offered.
    arready : Out(1)
        It is accepted.
    rdata : Out(32)
        Data of a read; zero with SLVERR.
    rresp : Out(2)
        Response to a read: OKAY or SLVERR.
    rvalid : Out(1)
        Read data is offered.
    rready : In(1)
        It is accepted.
    o_commands : Out(stream)
        Commands written.
    command_taken : In(1)
        The array takes a command.
    row_sent : In(1)
        A row of sums leaves.
    row_last : Out(1)
        The row of sums that leaves next ends a packet.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        super().__init__({
            **WRITE,
            **READ,
            "o_commands": Out(stream.Signature(COMMAND_BITS)),
            "command_taken": In(1),
            "row_sent": In(1),
            "row_last": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        values = {name: Signal(32, name=name.lower()) for name in (
            "COMMANDS", "ROWS", "PACKET", "COMMAND_LOW", "COMMAND_HIGH")}
        m.submodules.commands = commands = PairQueue(COMMAND_BITS)
        wiring.connect(m, commands.o, wiring.flipped(self.o_commands))

        # Rows of the packet that have left.
        row = Signal(32)
        m.d.comb += self.row_last.eq(row + 1 == values["PACKET"])
        with m.If(self.row_sent):
            m.d.sync += row.eq(Mux(self.row_last, 0, row + 1))

        # A write is refused unless it finds its register, whole, and room for a command.
        m.submodules.port = port = WritePort()
        m.d.comb += _joined(WRITE, self, port)
        m.d.comb += [
            commands.i.payload[:32].eq(values["COMMAND_LOW"]),
            commands.i.payload[32:].eq(port.data),
            port.refused.eq(1),
        ]
        with m.If(port.write & port.whole), m.Switch(port.address):
            with m.Case(OFFSETS["PACKET"]):
                m.d.comb += port.refused.eq(0)
                m.d.sync += [values["PACKET"].eq(port.data), row.eq(0)]
            with m.Case(OFFSETS["COMMAND_LOW"]):
                m.d.comb += port.refused.eq(0)
                m.d.sync += values["COMMAND_LOW"].eq(port.data)
            with m.Case(OFFSETS["COMMAND_HIGH"]):
                m.d.comb += [commands.i.valid.eq(1), port.refused.eq(~commands.i.ready)]
                with m.If(commands.i.ready):
                    m.d.sync += values["COMMAND_HIGH"].eq(port.data)

        # A read is answered in the next cycle.
        m.d.comb += self.arready.eq(~self.rvalid)
        with m.If(self.rready):
            m.d.sync += self.rvalid.eq(0)
        with m.If(self.arvalid & self.arready):
            m.d.sync += [self.rvalid.eq(1), self.rdata.eq(0), self.rresp.eq(SLVERR)]
            size = Const(self.cfg.rows | self.cfg.cols << 16, 32)
            shown = {"IDENTITY": IDENTITY, "SIZE": size, "STATUS": commands.i.ready, **values}
            with m.Switch(self.araddr):
                for register in REGISTERS:
                    with m.Case(register.offset):
                        m.d.sync += [self.rdata.eq(shown[register.name]), self.rresp.eq(OKAY)]

        # Counters.
        for name, event in (("COMMANDS", self.command_taken), ("ROWS", self.row_sent)):
            m.d.sync += values[name].eq(values[name] + event)
        return m


def _bytes_bits(bits: int) -> int:
    """Return `bits` rounded up to whole bytes, as AXI4-Stream's tdata has them."""
    return -(-bits // 8) * 8


class SystolicAxi(wiring.Component):
    """Systolic array with AXI4-Lite control and AXI4-Stream data.

    Commands are written to the registers of `REGISTERS`; beats are those of ``Systolic``, with
    zeros above up to a whole byte. Activations and weights take one cycle more than in the bare
    array. Protection bits are not looked at and have no ports.

    Members
    -------
    aclk : In(1)
        Clock of all ports; rising edge.
    aresetn : In(1)
        Reset of all ports; synchronous, active low.
    s_axil_awaddr : In(12)
        Byte address of a write.
    s_axil_awvalid : In(1)
        A write address is offered.
    s_axil_awready : Out(1)
        It is accepted.
    s_axil_wdata : In(32)
        Data of a write.
    s_axil_wstrb : In(4)
        Bytes of it that count; all must.
    s_axil_wvalid : In(1)
        Write data is offered.
    s_axil_wready : Out(1)
        It is accepted.
    s_axil_bresp : Out(2)
        Response to a write: OKAY or SLVERR.
    s_axil_bvalid : Out(1)
        A response to a write is offered.
    s_axil_bready : In(1)
        It is accepted.
    s_axil_araddr : In(12)
        Byte address of a read.
    s_axil_arvalid : In(1)
        A read address is offered.
    s_axil_arready : Out(1)
        It is accepted.
    s_axil_rdata : Out(32)
        Data of a read; zero with SLVERR.
    s_axil_rresp : Out(2)
        Response to a read: OKAY or SLVERR.
    s_axil_rvalid : Out(1)
        Read data is offered.
    s_axil_rready : In(1)
        It is accepted.
    s_axis_acts_tdata : In(bytes of act_beat_bits)
        A beat of activations.
    s_axis_acts_tvalid : In(1)
        It is offered.
    s_axis_acts_tready : Out(1)
        It is accepted.
    s_axis_weights_tdata : In(bytes of weight_beat_bits)
        A beat of weights.
    s_axis_weights_tvalid : In(1)
        It is offered.
    s_axis_weights_tready : Out(1)
        It is accepted.
    m_axis_sums_tdata : Out(bytes of sum_beat_bits)
        A beat of sums.
    m_axis_sums_tlast : Out(1)
        It ends a packet of as many rows as register PACKET says.
    m_axis_sums_tvalid : Out(1)
        It is offered.
    m_axis_sums_tready : In(1)
        It is accepted.
    """

    def __init__(self, cfg: SystolicConfig, library: str | None = None):
        self.cfg = cfg
        self.library = library
        super().__init__({
            "aclk": In(1),
            "aresetn": In(1),
            **{f"s_axil_{name}": member for name, member in {**WRITE, **READ}.items()},
            "s_axis_acts_tdata": In(_bytes_bits(cfg.act_beat_bits)),
            "s_axis_acts_tvalid": In(1),
            "s_axis_acts_tready": Out(1),
            "s_axis_weights_tdata": In(_bytes_bits(cfg.weight_beat_bits)),
            "s_axis_weights_tvalid": In(1),
            "s_axis_weights_tready": Out(1),
            "m_axis_sums_tdata": Out(_bytes_bits(cfg.sum_beat_bits)),
            "m_axis_sums_tlast": Out(1),
            "m_axis_sums_tvalid": Out(1),
            "m_axis_sums_tready": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain(local=True)
        m.d.comb += [ClockSignal().eq(self.aclk), ResetSignal().eq(~self.aresetn)]
        m.submodules.array = array = Systolic(self.cfg, self.library)

        # Registers: each AXI4-Lite port is the one of the same name.
        m.submodules.registers = registers = Registers(self.cfg)
        m.d.comb += _joined({**WRITE, **READ}, self, registers, "s_axil_")
        wiring.connect(m, registers.o_commands, array.i_commands)
        m.d.comb += registers.command_taken.eq(array.i_commands.valid & array.i_commands.ready)

        # Streams that enter: a queue each.
        m.submodules.acts = acts = PairQueue(self.cfg.act_beat_bits)
        m.submodules.weights = weights = PairQueue(self.cfg.weight_beat_bits)
        wiring.connect(m, acts.o, array.i_acts)
        wiring.connect(m, weights.o, array.i_weights)
        m.d.comb += [
            acts.i.payload.eq(self.s_axis_acts_tdata),
            acts.i.valid.eq(self.s_axis_acts_tvalid),
            self.s_axis_acts_tready.eq(acts.i.ready),
            weights.i.payload.eq(self.s_axis_weights_tdata),
            weights.i.valid.eq(self.s_axis_weights_tvalid),
            self.s_axis_weights_tready.eq(weights.i.ready),
        ]

        # Sums: the array ends in a queue.
        m.d.comb += [
            self.m_axis_sums_tdata.eq(array.o_sums.payload),
            self.m_axis_sums_tvalid.eq(array.o_sums.valid),
            self.m_axis_sums_tlast.eq(registers.row_last),
            array.o_sums.ready.eq(self.m_axis_sums_tready),
            registers.row_sent.eq(array.o_sums.valid & array.o_sums.ready),
        ]
        return m
