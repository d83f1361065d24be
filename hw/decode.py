"""The decoder's refusals: which records of a program mean something on this front end.

A record is checked once, while it is loaded, so that what runs needs no check.
"""

from collections.abc import Iterable
from enum import IntEnum

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.records import BEAT_BITS, BEATS, beat_layout, record_layout
from machine.formats import FORMATS
from machine.front_end import FrontEndConfig, Trap
from machine.opcodes import OPCODES, Alu, Opcode
from machine.program import LOOP_LEVELS, NO_LEVEL, REGISTERS, Layout, QueueKind, Space
from machine.records import (
    DIMENSIONS,
    FIELDS_BITS,
    INSTRUCTION,
    OPERAND,
    OPERAND_SLOTS,
    SIGNAL_SLOTS,
    WAIT_SLOTS,
    field_record,
)

__all__ = ["InstructionCheck", "OperandCheck"]

TRAP_BITS = 5
CONTROL = (Opcode.HALT, Opcode.LOOP, Opcode.END, Opcode.SCALAR)
NO_REGISTER = 31  # in a register field of five bits


def _any(conditions: Iterable[Value]) -> Value:
    """Return whether any of `conditions`, each of any width, is not 0."""
    return Cat(Value.cast(one).any() for one in conditions).any()


def _level_refused(level: Value, levels: int) -> Value:
    return (level >= levels) & (level != NO_LEVEL)


def _refuse(m: Module, trap: Signal, reason: Trap, condition: Value) -> None:
    """Let `trap` be `reason` if `condition` holds; of several the one stated last."""
    with m.If(condition):
        m.d.comb += trap.eq(reason)


class InstructionCheck(wiring.Component):
    """Says what is wrong with an instruction, by the tables of ``machine.opcodes``; combinational.

    Members
    -------
    word : In(512)
        The instruction.
    kind : In(QueueKind)
        The kind of its queue.
    operands : In(range(operands + 1))
        Operands of the program.
    tokens : In(range(tokens + 1))
        Its tokens.
    launch : In(range(launch + 1))
        Entries of its launch table.
    trap : Out(Trap)
        What is wrong; ``NONE`` if nothing is.
    """

    def __init__(self, cfg: FrontEndConfig):
        self.cfg = cfg
        super().__init__({
            "word": In(INSTRUCTION.bits),
            "kind": In(range(len(QueueKind))),
            "operands": In(range(cfg.operands + 1)),
            "tokens": In(range(cfg.tokens + 1)),
            "launch": In(range(cfg.launch + 1)),
            "trap": Out(TRAP_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        view = data.View(record_layout(INSTRUCTION), self.word)
        reserved = Cat(self.word[lsb : lsb + slot.bits]
                       for lsb, slot in INSTRUCTION.positions() if not slot.name)
        undefined = ~view.predicated & (view.predicate_register.any() | view.predicate_negate)

        # What several opcodes share.
        slots = [view[f"operand{slot}"] for slot in range(OPERAND_SLOTS)]
        self.given, self.beyond, self.outside = Signal(OPERAND_SLOTS), Signal(), Signal()
        outside = Array((view.unit_mask >> count).any() for count in self.cfg.units)
        m.d.comb += [
            self.given.eq(Cat(slot != 0 for slot in slots)),
            self.beyond.eq(_any(slot > self.operands for slot in slots)),
            self.outside.eq(outside[self.kind]),
        ]

        # The opcode's own part; the codes that no opcode has are refused first.
        _refuse(m, self.trap, Trap.FIELD, _level_refused(view.layer_level, LOOP_LEVELS))
        with m.Switch(view.opcode):
            for opcode in Opcode:
                with m.Case(opcode):
                    self._opcode(m, opcode, view)
            with m.Default():
                m.d.comb += self.trap.eq(Trap.OPCODE)
        self._tokens(m, view)
        _refuse(m, self.trap, Trap.RESERVED, reserved.any() | undefined)
        return m

    def _opcode(self, m: Module, opcode: Opcode, view: data.View) -> None:
        """Refuse fields, operands, units and a queue that `opcode` does not have."""
        spec, trap = OPCODES[opcode], self.trap
        bits = sum(field.bits for field in spec.fields)
        fields = data.View(record_layout(field_record(opcode)), view.fields)
        for field in spec.fields:
            value = fields[field.name]
            if isinstance(field.kind, type) and issubclass(field.kind, IntEnum):
                known = _any(value == member for member in field.kind)
                _refuse(m, trap, Trap.FIELD, ~known)
            elif field.kind == "register" and 2**field.bits > REGISTERS:
                _refuse(m, trap, Trap.REGISTER, (value >= REGISTERS) & (value != NO_REGISTER))
        self._more(m, opcode, fields)

        required = sum(role.required << slot for slot, role in enumerate(spec.roles))
        _refuse(m, trap, Trap.OPERAND,
                ((self.given & required) != required) | self.beyond
                | self.given[len(spec.roles) :].any())
        if spec.queues:
            _refuse(m, trap, Trap.UNITS, self.outside)
            _refuse(m, trap, Trap.QUEUE, ~_any(self.kind == kind for kind in spec.queues))
        if bits < FIELDS_BITS:
            _refuse(m, trap, Trap.RESERVED, view.fields[bits:].any())

    def _more(self, m: Module, opcode: Opcode, fields: data.View) -> None:
        """Refuse what single opcodes cannot mean, as ``machine.instruction_rules`` does."""
        trap = self.trap
        if opcode == Opcode.LOOP:
            _refuse(m, trap, Trap.REGISTER, fields.count_is_register & (fields.count >= REGISTERS))
        elif opcode == Opcode.MATMUL:
            _refuse(m, trap, Trap.FIELD, _level_refused(fields.set_level, LOOP_LEVELS))
        elif opcode == Opcode.SCALAR:
            b, is_register = fields.b.as_unsigned(), fields.b_is_register
            _refuse(m, trap, Trap.REGISTER, is_register & (b >= REGISTERS))
            is_launch, is_index = fields.alu == Alu.LAUNCH, fields.alu == Alu.INDEX
            one_source = is_launch | is_index | (fields.alu == Alu.SET)
            _refuse(m, trap, Trap.FIELD,
                    (is_launch & (is_register | (b >= self.launch)))
                    | (is_index & (is_register | (b >= LOOP_LEVELS)))
                    | (one_source & (fields.ra != 0)))

    def _tokens(self, m: Module, view: data.View) -> None:
        """Refuse tokens that are not there, and any in control; a count of 0 names none."""
        wrong, used = [], []
        for name, slots in (("wait", WAIT_SLOTS), ("signal", SIGNAL_SLOTS)):
            for slot in range(slots):
                token, count = view[f"{name}{slot}_token"], view[f"{name}{slot}_count"]
                wrong.append(Mux(count == 0, token != 0, token >= self.tokens))
                used.append(count != 0)
        silent = _any(view.opcode == opcode for opcode in CONTROL)
        _refuse(m, self.trap, Trap.TOKEN, _any(wrong) | (silent & _any(used)))


class OperandCheck(wiring.Component):
    """Says what is wrong with a beat of an operand; combinational.

    Addresses must lie below ``2**address_bits``, strides fit ``offset_bits``.

    Members
    -------
    beat : In(256)
        An eighth of the record.
    at : In(3)
        Which one.
    operands : In(range(operands + 1))
        Operands of the program.
    trap : Out(Trap)
        What is wrong; ``NONE`` if nothing is.
    """

    def __init__(self, cfg: FrontEndConfig):
        self.cfg = cfg
        super().__init__({
            "beat": In(BEAT_BITS),
            "at": In(3),
            "operands": In(range(cfg.operands + 1)),
            "trap": Out(TRAP_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        with m.Switch(self.at):
            for beat in range(8):
                with m.Case(beat):
                    view = data.View(beat_layout(beat), self.beat)
                    if beat == 0:
                        self._first(m, view)
                    elif beat == 1:
                        _refuse(m, self.trap, Trap.OPERAND, view.gather_index >= self.operands)
                    elif beat in (3, 4):
                        self._edges(m, view, 2 * (beat - 3))
                    elif beat < BEATS:
                        names = [f"stride{i}" for i in range(DIMENSIONS)] if beat == 2 else [
                            f"loop{i + 4 * (beat - 5)}" for i in range(4)]
                        _refuse(m, self.trap, Trap.RECORD, _any(
                            view[name] != view[name][: self.cfg.offset_bits].as_signed()
                            for name in names))
                    self._reserved(m, beat)
        return m

    def _reserved(self, m: Module, beat: int) -> None:
        first = beat * BEAT_BITS
        bits = [self.beat[max(lsb - first, 0) : lsb + slot.bits - first]
                for lsb, slot in OPERAND.positions()
                if not slot.name and lsb < first + BEAT_BITS and lsb + slot.bits > first]
        if bits:
            _refuse(m, self.trap, Trap.RESERVED, _any(bits))

    def _first(self, m: Module, view: data.View) -> None:
        """Refuse kinds that are not there, and addresses and numbers beyond the machine's."""
        trap = self.trap
        codes = sorted(row.code for row in FORMATS.values())
        axes = _any(axis > view.dimensions for axis in (view.group_axis, view.gather_axis))
        _refuse(m, trap, Trap.RECORD,
                ~_any(view.space == space for space in Space)
                | ~_any(view.layout == layout for layout in Layout)
                | ~_any(view.format == code for code in codes)
                | (view.dimensions == 0) | (view.dimensions > DIMENSIONS) | axes
                | view.address_bytes[self.cfg.address_bits :].any())
        _refuse(m, trap, Trap.OPERAND, (view.group_scale > self.operands)
                | (view.group_zero > self.operands))
        _refuse(m, trap, Trap.REGISTER, view.base_register > REGISTERS)

    def _edges(self, m: Module, view: data.View, first: int) -> None:
        for axis in (first, first + 1):
            levels = [_level_refused(view[f"edge{axis}_level{i}"], LOOP_LEVELS + 1)
                      for i in range(2)]
            _refuse(m, self.trap, Trap.RECORD, _any(levels))
            _refuse(m, self.trap, Trap.REGISTER, view[f"edge{axis}_register"] > REGISTERS)
