# amaranth: UnusedElaboratable=no
"""The front end of the chip: instructions under way, refused encodings, what is asked of memory.

Mode `prove` holds for any number of cycles, and for a reset and a start at any of them. What is
bounded says so in its name.
"""

from functools import reduce
from operator import or_

import pytest
from amaranth.hdl import Assert, Assume, Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.decode import InstructionCheck, OperandCheck
from hw.flight import Flight
from hw.formal import prove
from hw.loader import WordReader
from hw.properties import Kept
from machine.front_end import FrontEndConfig, Trap
from machine.opcodes import OPCODES, Opcode
from machine.records import FIELDS_BITS, INSTRUCTION, OPERAND

SMALL = {"units": (1, 1, 0, 0, 0), "tokens": 2, "token_bits": 8, "instructions": 4, "operands": 4,
         "launch": 2, "address_bits": 16, "index_bits": 8, "slots": 2}


def reserved_of(opcode):
    """Return the bits of an instruction that mean nothing for `opcode`."""
    spec, bits = OPCODES[opcode], 0
    for lsb, slot in INSTRUCTION.positions():
        number = int(slot.name[7:]) if slot.name.startswith("operand") else 0
        if not slot.name or (slot.name.startswith("operand") and number >= len(spec.roles)):
            bits |= (2**slot.bits - 1) << lsb
        if slot.name == "fields":
            used = sum(field.bits for field in spec.fields)
            bits |= (2**FIELDS_BITS - 2**used) << lsb
    return bits


class InstructionHarness(wiring.Component):
    """A free instruction on a free queue of a program of any size."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({"word": In(512), "kind": In(3), "operands": In(3), "tokens": In(2),
                          "launch": In(2)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        for name in ("word", "kind", "operands", "tokens", "launch"):
            m.d.comb += getattr(dut, name).eq(getattr(self, name))
        m.d.comb += Assume(self.kind < 5)
        opcode = self.word[:8]
        runs = dut.trap == Trap.NONE
        known = Cat(opcode == one for one in Opcode).any()
        m.d.comb += Assert(~runs | known)
        for one in Opcode:
            reserved = Const(reserved_of(one), 512)
            m.d.comb += Assert(~(runs & (opcode == one)) | ((self.word & reserved) == 0))
        at = {slot.name: lsb for lsb, slot in INSTRUCTION.positions()}
        for name in [f"{kind}{i}" for kind in ("wait", "signal") for i in range(4)]:
            token = self.word[at[f"{name}_token"] :][:12]
            count = self.word[at[f"{name}_count"] :][:8]
            m.d.comb += Assert(~(runs & (count != 0)) | (token < self.tokens))
        for i in range(7):
            m.d.comb += Assert(~runs | (self.word[at[f"operand{i}"] :][:16] <= self.operands))
        return m


def test_the_decoder_refuses_every_reserved_encoding():
    cfg = FrontEndConfig(**SMALL)
    verdict = prove(InstructionHarness(InstructionCheck(cfg)), depth=1)
    assert verdict.status == "pass", verdict.reason


@pytest.mark.parametrize("old, new", [
    ("view.fields[bits:].any()", "view.fields[bits + 1 :].any()"),
    ("m.d.comb += self.trap.eq(Trap.OPCODE)", "pass"),
    ("token >= self.tokens", "token > self.tokens"),
], ids=["fields", "opcode", "tokens"])
def test_a_lenient_decoder_is_seen(edited, old, new):
    dut = edited("hw.decode", old, new).InstructionCheck(FrontEndConfig(**SMALL))
    assert prove(InstructionHarness(dut), mode="bmc", depth=2).status == "fail"


class OperandHarness(wiring.Component):
    """A free beat of an operand."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({"beat": In(256), "at": In(3), "operands": In(3)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.d.comb += [dut.beat.eq(self.beat), dut.at.eq(self.at), dut.operands.eq(self.operands)]
        reserved = reduce(or_, [(2**slot.bits - 1) << lsb
                                for lsb, slot in OPERAND.positions() if not slot.name])
        for beat in range(8):
            mask = Const(reserved >> 256 * beat & (2**256 - 1), 256)
            m.d.comb += Assert((self.at != beat) | (dut.trap != Trap.NONE)
                               | ((self.beat & mask) == 0))
        return m


def test_a_reserved_bit_of_an_operand_is_refused():
    verdict = prove(OperandHarness(OperandCheck(FrontEndConfig(**SMALL))), depth=1)
    assert verdict.status == "pass", verdict.reason


class ReaderHarness(wiring.Component):
    """A reader of words whose client holds what it asks for, before a free memory."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({"go": In(1), "address": In(16), "ready": In(1), "valid": In(1),
                          "answer": In(65)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.submodules.kept = kept = Kept(16)
        m.d.comb += [
            dut.go.eq(self.go), dut.address.eq(self.address), dut.o_fetch.ready.eq(self.ready),
            dut.i_fetched.valid.eq(self.valid), dut.i_fetched.payload.eq(self.answer),
            kept.valid.eq(dut.o_fetch.valid), kept.ready.eq(dut.o_fetch.ready),
            kept.payload.eq(dut.o_fetch.payload),
        ]
        going, before = Signal(), Signal(16)
        m.d.sync += [going.eq(self.go & ~dut.come & ~dut.error), before.eq(self.address)]
        m.d.comb += Assume(~going | (self.go & (self.address == before)))
        asked = Signal()
        with m.If(dut.o_fetch.valid & dut.o_fetch.ready):
            m.d.sync += asked.eq(1)
        with m.If(dut.i_fetched.valid & dut.i_fetched.ready):
            m.d.sync += asked.eq(0)
        m.d.comb += [Assume(asked | ~self.valid), Assert(asked == dut.i_fetched.ready)]
        return m


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_asked_of_memory_is_kept_while_it_stalls():
    verdict = prove(ReaderHarness(WordReader(FrontEndConfig(**SMALL))), engine="abc pdr",
                    timeout_s=800)
    assert verdict.status == "pass", verdict.reason


class FlightHarness(wiring.Component):
    """A queue with two units that start and end freely; each instruction signals its number."""

    def __init__(self, dut):
        self.dut = dut
        super().__init__({"go": In(1), "mask": In(2), "done": In(2)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        starts = self.go & dut.free & (self.mask != 0)
        started, ended = Signal(8), Signal(8)
        left = [Signal(3, name=f"left_{unit}") for unit in range(2)]
        m.d.comb += [
            dut.start.eq(starts), dut.mask.eq(self.mask), dut.done.eq(self.done),
            *(Assume(~self.done[unit] | (left[unit] != 0)) for unit in range(2)),
        ]
        for unit in range(2):
            m.d.sync += left[unit].eq(left[unit] + (starts & self.mask[unit]) - self.done[unit])
        gives = dut.gives[0] + dut.gives[1]
        m.d.sync += [started.eq(started + starts), ended.eq(ended + gives)]
        under_way = Signal(8)
        m.d.comb += [
            under_way.eq(started - ended),
            Assert(under_way <= dut.cfg.slots),
            Assert(dut.free == (under_way < dut.cfg.slots)),
            Assert(dut.open == (under_way != gives)),
            Assert((left[0] + left[1] != 0) == (under_way != 0)),
            Assert(dut.stray == 0),
        ]
        return m


UNITS = {**SMALL, "units": (2, 0, 0, 0, 0)}


def test_for_8_cycles_an_instruction_completes_once_and_when_its_last_unit_is_done():
    """Bounded: the first 8 cycles after reset, with resets at any of them; 2 units, 2 slots."""
    cfg = FrontEndConfig(**UNITS)
    verdict = prove(FlightHarness(Flight(cfg, 2)), mode="bmc", depth=8)
    assert verdict.status == "pass", verdict.reason


def test_an_instruction_that_completes_early_is_seen(edited):
    cfg = FrontEndConfig(**UNITS)
    dut = edited("hw.flight", "rest.eq(left[s] & ~gone)",
                 "rest.eq(Mux(gone.any(), 0, left[s]))").Flight(cfg, 2)
    assert prove(FlightHarness(dut), mode="bmc", depth=4).status == "fail"
