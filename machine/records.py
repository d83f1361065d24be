"""The binary records of a program, bit by bit, as tables.

The encoder, the RTL's decoder and the page of the instruction set read the same tables. Bit 0 is
the least significant bit of a record's first byte. Bits without a name are reserved: zero.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from machine.errors import UserError, must_be
from machine.opcodes import OPCODES, Opcode
from machine.program import NO_LEVEL

__all__ = [
    "DIMENSIONS",
    "FIELDS_BITS",
    "HEADER",
    "INSTRUCTION",
    "MAGIC",
    "NAME_ENTRY",
    "OPERAND",
    "OPERAND_SLOTS",
    "RECORDS",
    "SECTIONS",
    "SIGNAL_SLOTS",
    "STREAM",
    "SYMBOL",
    "SYMBOL_DIMENSIONS",
    "TOKEN",
    "WAIT_SLOTS",
    "Record",
    "Slot",
    "field_record",
]

MAGIC = 0x4D495341  # the bytes "ASIM"
DIMENSIONS = 4  # of an operand
SYMBOL_DIMENSIONS = 8  # of a symbol
WAIT_SLOTS = 4  # tokens an instruction can wait for
SIGNAL_SLOTS = 4  # tokens an instruction can signal
OPERAND_SLOTS = 7  # operands an instruction can name
FIELDS_BITS = 156  # of an instruction, shared by the fields of its opcode
SECTIONS = ("strings", "symbols", "launch", "tokens", "ops", "operands", "streams", "instructions")


@dataclass(frozen=True, slots=True)
class Slot:
    """`bits` of a record; reserved if `name` is empty, two's complement if `signed`."""

    name: str
    bits: int
    meaning: str = ""
    signed: bool = False

    @property
    def range(self) -> tuple[int, int]:
        """The least and the greatest value."""
        if self.signed:
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1


@dataclass(frozen=True, slots=True)
class Record:
    """A sequence of slots, from bit 0 up."""

    name: str
    slots: tuple[Slot, ...]

    @property
    def bits(self) -> int:
        """Bits of the whole record."""
        return sum(slot.bits for slot in self.slots)

    @property
    def bytes(self) -> int:
        """Bytes of the whole record."""
        return self.bits // 8

    def positions(self) -> Iterator[tuple[int, Slot]]:
        """Yield (first bit, slot) for every slot, reserved ones included."""
        lsb = 0
        for slot in self.slots:
            yield lsb, slot
            lsb += slot.bits

    def pack(self, values: Mapping[str, int], where: str) -> int:
        """Return the record with `values`, the others 0; `UserError` if one does not fit."""
        word = 0
        for lsb, slot in self.positions():
            value = values.get(slot.name, 0) if slot.name else 0
            low, high = slot.range
            if not low <= value <= high:
                raise must_be(slot.name, f"{low} to {high}", value, where=where)
            word |= (value & (2**slot.bits - 1)) << lsb
        return word

    def unpack(self, word: int, where: str) -> dict[str, int]:
        """Return the named values of a record; `UserError` if a reserved bit is set."""
        values = {}
        for lsb, slot in self.positions():
            value = word >> lsb & (2**slot.bits - 1)
            if not slot.name:
                if value:
                    bits = f"reserved bits {lsb} to {lsb + slot.bits - 1}"
                    raise UserError(f"{where}: {bits} must be 0, not {value:#x}")
                continue
            values[slot.name] = value - 2**slot.bits if value > slot.range[1] else value
        return values


def _each(count: int, *slots: Slot) -> tuple[Slot, ...]:
    """`count` copies of `slots`; ``*`` in a name or a meaning becomes the copy's number."""
    return tuple(
        Slot(slot.name.replace("*", str(i)), slot.bits, slot.meaning.replace("*", str(i)),
             slot.signed)
        for i in range(count)
        for slot in slots
    )


_OR_NONE = "plus 1; 0 is none"

HEADER = Record("header", (
    Slot("magic", 32, 'the bytes "ASIM"'),
    Slot("version", 16),
    Slot("", 16),
    Slot("capabilities", 32, "bit i is capability i"),
    Slot("chips", 16),
    Slot("", 16),
    Slot("name", 32, "offset into strings"),
    Slot("", 352),
    *(slot for section in SECTIONS for slot in (
        Slot(f"{section}_offset", 32, f"first byte of the section {section}"),
        Slot(f"{section}_bytes", 32))),
))

NAME_ENTRY = Record("name", (Slot("name", 32, "offset into strings"),))

TOKEN = Record("token", (
    Slot("name", 32, "offset into strings"),
    Slot("initial", 32, "count before the program starts"),
))

SYMBOL = Record("symbol", (
    Slot("name", 32, "offset into strings"),
    Slot("transform", 32, "offset into strings"),
    Slot("kind", 8),
    Slot("space", 8),
    Slot("layout", 8),
    Slot("dimensions", 8),
    Slot("format", 16, "code of the number format"),
    Slot("chip", 16),
    Slot("address_bytes", 64),
    *_each(SYMBOL_DIMENSIONS, Slot("shape*", 32)),
    Slot("", 64),
))

OPERAND = Record("operand", (
    Slot("name", 32, "offset into strings"),
    Slot("space", 8),
    Slot("layout", 8),
    Slot("format", 16, "code of the number format"),
    Slot("address_bytes", 64),
    Slot("dimensions", 8),
    Slot("base_register", 8, _OR_NONE),
    Slot("group_axis", 8, _OR_NONE),
    Slot("gather_axis", 8, _OR_NONE),
    Slot("group_size", 32),
    Slot("group_scale", 32, f"operand {_OR_NONE}"),
    Slot("group_zero", 32, f"operand {_OR_NONE}"),
    Slot("gather_index", 32, "operand"),
    Slot("gather_granule", 32),
    Slot("", 64),
    *_each(DIMENSIONS, Slot("shape*", 32)),
    *_each(DIMENSIONS, Slot("stride*", 64, "elements", signed=True)),
    *_each(
        DIMENSIONS,
        Slot("edge*_bound", 32, "elements", signed=True),
        Slot("edge*_step0", 32, "elements", signed=True),
        Slot("edge*_step1", 32, "elements", signed=True),
        Slot("edge*_level0", 4, f"level of step 0; {NO_LEVEL} is none"),
        Slot("edge*_level1", 4, f"level of step 1; {NO_LEVEL} is none"),
        Slot("edge*_register", 8, f"register of the bound, {_OR_NONE}"),
        Slot("edge*_present", 1, "dimension * has an edge"),
        Slot("", 15),
    ),
    *_each(8, Slot("loop*", 64, "elements a step of level *; 7 is the unit's rank", signed=True)),
    Slot("", 256),
))

STREAM = Record("stream", (
    Slot("kind", 8),
    Slot("", 8),
    Slot("index", 16),
    Slot("chip", 16),
    Slot("", 16),
    Slot("first", 32, "instruction"),
    Slot("count", 32, "instructions"),
))

INSTRUCTION = Record("instruction", (
    Slot("opcode", 8),
    Slot("predicate_register", 4),
    Slot("predicated", 1),
    Slot("predicate_negate", 1, "run if the register is 0"),
    Slot("", 2),
    Slot("op_id", 16),
    Slot("unit_mask", 32),
    Slot("layer_id", 16),
    Slot("layer_level", 4, f"{NO_LEVEL} is none"),
    *_each(WAIT_SLOTS, Slot("wait*_token", 12), Slot("wait*_count", 8, "0 is none")),
    *_each(SIGNAL_SLOTS, Slot("signal*_token", 12), Slot("signal*_count", 8, "0 is none")),
    *_each(OPERAND_SLOTS, Slot("operand*", 16, f"operand of the opcode's role *, {_OR_NONE}")),
    Slot("fields", FIELDS_BITS, "the opcode's fields, from bit 0 up"),
))

RECORDS = (HEADER, SYMBOL, NAME_ENTRY, TOKEN, OPERAND, STREAM, INSTRUCTION)


@cache
def field_record(opcode: Opcode) -> Record:
    """Return the layout of the `fields` bits of an instruction with `opcode`."""
    slots = [Slot(field.name, field.bits, "", field.signed) for field in OPCODES[opcode].fields]
    left = FIELDS_BITS - sum(slot.bits for slot in slots)
    return Record(opcode.name.lower(), (*slots, *([Slot("", left)] if left else [])))
