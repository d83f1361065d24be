"""The binary form: nothing lost, nothing ignored, every bit where the tables say."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.assembly import parse
from machine.decoding import decode
from machine.encoding import encode, normal, require_capabilities
from machine.errors import UserError
from machine.opcodes import OPCODES, Opcode
from machine.program import Capability, Edge, Instruction, Operand, Program, Space
from machine.records import (
    FIELDS_BITS,
    HEADER,
    INSTRUCTION,
    OPERAND,
    OPERAND_SLOTS,
    RECORDS,
    SECTIONS,
    field_record,
)

PROGRAM = parse("""
program small version 1
needs systolic vector
chips 2
launch length
token free 2
token full
op mm
symbol A dram 0x40 int8 [8,16] input chip=1 transform=none
operand a scratchpad 0x100 int8 [8,16] stride [16,1] base r3 loop 2:-128 edge 0:r1-2*8
operand z accumulator 0x0 int32 [8,8] stride [8,1]
stream chip1.array0
  matmul a=a acc=z w=a units=0x6 dataflow=ws set_level=1 wait full:1 free:3 \
signal full:2 layer=5+0 if !r9
  halt
""", "small.prog")
DATA = encode(PROGRAM)


def section(data, name):
    """Return where a section begins and how long it is, read at its place in the header."""
    at = 64 + 8 * SECTIONS.index(name)
    return (int.from_bytes(data[at : at + 4], "little"),
            int.from_bytes(data[at + 4 : at + 8], "little"))


def bits(data, name, record_bytes, index, lsb, width):
    first, _ = section(data, name)
    record = data[first + index * record_bytes : first + (index + 1) * record_bytes]
    return int.from_bytes(record, "little") >> lsb & (2**width - 1)


def with_bits(data, name, record_bytes, index, lsb, width, value):
    """Return `data` with one field of a record changed."""
    first, _ = section(data, name)
    first += index * record_bytes
    word = int.from_bytes(data[first : first + record_bytes], "little")
    word = word & ~((2**width - 1) << lsb) | value << lsb
    return data[:first] + word.to_bytes(record_bytes, "little") + data[first + record_bytes :]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_program_survives_the_binary(programs, data):
    program = data.draw(programs)
    assert decode(encode(program)) == program == normal(program)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_many_programs_survive_the_binary(programs, data):
    program = data.draw(programs)
    assert decode(encode(program)) == program == normal(program)


def test_records_have_their_stated_sizes():
    assert {record.name: record.bytes for record in RECORDS} == {
        "header": 128, "symbol": 64, "name": 4, "token": 8, "operand": 256, "stream": 16,
        "instruction": 64}
    assert all(record.bits % 8 == 0 for record in RECORDS)


@pytest.mark.parametrize("opcode", Opcode)
def test_fields_of_every_opcode_fit_an_instruction(opcode):
    assert field_record(opcode).bits == FIELDS_BITS
    assert len(OPCODES[opcode].roles) <= OPERAND_SLOTS


def test_an_instruction_lies_bit_by_bit_where_the_page_says():
    def at(lsb, width):
        return bits(DATA, "instructions", 64, 0, lsb, width)

    assert at(0, 8) == 33  # matmul
    assert (at(8, 4), at(12, 1), at(13, 1)) == (9, 1, 1)  # if !r9
    assert at(16, 16) == 0  # op mm
    assert at(32, 32) == 6  # units
    assert (at(64, 16), at(80, 4)) == (5, 0)  # layer 5 plus the index of level 0
    assert [(at(84 + 20 * i, 12), at(96 + 20 * i, 8)) for i in range(4)] == [
        (1, 1), (0, 3), (0, 0), (0, 0)]
    assert [(at(164 + 20 * i, 12), at(176 + 20 * i, 8)) for i in range(4)] == [
        (1, 2), (0, 0), (0, 0), (0, 0)]
    # roles a, acc, w, asum, out; operands are numbered from 1, 0 is none
    assert [at(244 + 16 * i, 16) for i in range(7)] == [1, 2, 1, 0, 0, 0, 0]
    # dataflow ws, mode set, set_level 1
    assert (at(356, 4), at(360, 2), at(362, 4)) == (1, 0, 1)


def test_an_operand_lies_bit_by_bit_where_the_page_says():
    def at(lsb, width):
        return bits(DATA, "operands", 256, 0, lsb, width)

    assert (at(32, 8), at(40, 8), at(48, 16)) == (1, 0, 8)  # scratchpad, row, int8
    assert at(64, 64) == 0x100
    assert (at(128, 8), at(136, 8)) == (2, 4)  # two dimensions; base r3, numbered from 1
    assert [at(384 + 32 * i, 32) for i in range(4)] == [8, 16, 0, 0]
    assert [at(512 + 64 * i, 64) for i in range(4)] == [16, 1, 0, 0]
    # dimension 0: bound in r1 (numbered from 1), minus index of level 2 times 8
    assert (at(768, 32), at(800, 32), at(832, 32)) == (0, 8, 0)
    assert (at(864, 4), at(868, 4), at(872, 8), at(880, 1)) == (2, 15, 2, 1)
    assert at(768 + 128 + 112, 1) == 0  # dimension 1 has no edge
    assert [at(1280 + 64 * i, 64) for i in range(8)] == [0, 0, 2**64 - 128, 0, 0, 0, 0, 0]


def test_the_header_says_what_the_program_needs():
    assert DATA[:4] == b"ASIM"
    assert DATA[4:6] == b"\x01\x00"
    assert int.from_bytes(DATA[8:12], "little") == 0b101  # systolic, vector
    assert int.from_bytes(DATA[12:14], "little") == 2
    at = 128
    for name in SECTIONS:
        first, size = section(DATA, name)
        assert first == at
        at += size
    assert at == len(DATA)


@pytest.mark.parametrize("size", [0, 127, len(DATA) - 1])
def test_truncated_data_are_refused(size):
    with pytest.raises(UserError, match=r"^f\.bin: size must be "):
        decode(DATA[:size], "f.bin")


def test_trailing_bytes_are_refused():
    with pytest.raises(UserError, match=rf"^f\.bin: size must be {len(DATA)} bytes as its "
                                        rf"sections say, not {len(DATA) + 1}$"):
        decode(DATA + b"\0", "f.bin")


def test_another_magic_number_and_version_are_refused():
    with pytest.raises(UserError, match=r"^f\.bin: header: magic must be 0x4d495341, not "):
        decode(b"ELF!" + DATA[4:], "f.bin")
    with pytest.raises(UserError, match=r"^f\.bin: header: version must be 1, not 2$"):
        decode(DATA[:4] + b"\x02" + DATA[5:], "f.bin")


def test_an_unknown_capability_bit_is_refused():
    changed = DATA[:8] + (0b101 | 1 << 20).to_bytes(4, "little") + DATA[12:]
    with pytest.raises(UserError, match=r"^f\.bin: header: capabilities must be known ones, "
                                        r"not bits 0x100000$"):
        decode(changed, "f.bin")


def test_sections_out_of_place_are_refused():
    first, _ = section(DATA, "tokens")
    at = 64 + 8 * SECTIONS.index("tokens")
    changed = DATA[:at] + (first + 4).to_bytes(4, "little") + DATA[at + 4 :]
    with pytest.raises(UserError, match=rf"^f\.bin: header: tokens_offset must be {first}, "
                                        rf"not {first + 4}$"):
        decode(changed, "f.bin")


@pytest.mark.parametrize("record, name, index", [
    (OPERAND, "operands", 1), (INSTRUCTION, "instructions", 1)])
def test_every_reserved_bit_is_refused(record, name, index):
    reserved = [(lsb, slot) for lsb, slot in record.positions() if not slot.name]
    assert reserved
    for lsb, slot in reserved:
        last = lsb + slot.bits - 1
        changed = with_bits(DATA, name, record.bytes, index, last, 1, 1)
        with pytest.raises(UserError, match=rf"^f\.bin: {name}\[{index}\]: reserved bits {lsb} "
                                            rf"to {last} must be 0, not 0x"):
            decode(changed, "f.bin")


def test_reserved_bits_of_the_header_and_of_unused_fields_are_refused():
    lsb = next(lsb for lsb, slot in HEADER.positions() if not slot.name)
    word = int.from_bytes(DATA[:128], "little") | 1 << lsb
    with pytest.raises(UserError, match=r"^f\.bin: header: reserved bits 48 to 63 must be 0"):
        decode(word.to_bytes(128, "little") + DATA[128:], "f.bin")
    # halt has no fields: all of its field bits are reserved
    changed = with_bits(DATA, "instructions", 64, 1, 356, 1, 1)
    with pytest.raises(UserError, match=r"^f\.bin: instructions\[1\]: reserved bits 0 to 155 "):
        decode(changed, "f.bin")


@pytest.mark.parametrize("name, size, index, lsb, width, value, message", [
    ("instructions", 64, 0, 0, 8, 99, r"instructions\[0\]: opcode must be one of 0 \(nop\), "),
    ("instructions", 64, 1, 244, 16, 1, r"instructions\[1\]: operand0 must be absent from halt"),
    ("instructions", 64, 0, 356, 4, 7, r"instructions\[0\]: dataflow must be one of 0 \(os\), "),
    ("operands", 256, 0, 32, 8, 9, r"operands\[0\]: space must be one of 0 \(dram\), "),
    ("operands", 256, 0, 48, 16, 999, r"operands\[0\]: format must be the code of a number "),
    ("operands", 256, 0, 128, 8, 5, r"operands\[0\]: dimensions must be at most 4, not 5$"),
    ("operands", 256, 0, 0, 32, 1, r"operands\[0\]: name must be the offset of a string, not 1$"),
    ("symbols", 64, 0, 64, 8, 9, r"symbols\[0\]: kind must be one of 0 \(const\), "),
    ("streams", 16, 0, 0, 8, 9, r"streams\[0\]: kind must be one of 0 \(dma\), "),
    ("streams", 16, 0, 64, 32, 1, r"streams\[0\]: first must be 0, not 1$"),
    ("streams", 16, 0, 96, 32, 9, r"streams\[0\]: count must be at most 2, not 9$"),
])
def test_a_value_without_meaning_is_refused(name, size, index, lsb, width, value, message):
    with pytest.raises(UserError, match=rf"^f\.bin: {message}"):
        decode(with_bits(DATA, name, size, index, lsb, width, value), "f.bin")


def test_a_form_that_encode_does_not_write_is_refused():
    # A token in an entry whose count says that there is none.
    with pytest.raises(UserError, match=r"^f\.bin: byte \d+ must be as encode writes it$"):
        decode(with_bits(DATA, "instructions", 64, 1, 84, 12, 1), "f.bin")


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_is_refused_or_changes_the_program(seed):
    bit = seed * 7919 % (8 * len(DATA))
    changed = bytearray(DATA)
    changed[bit // 8] ^= 1 << bit % 8
    try:
        assert decode(bytes(changed)) != PROGRAM
    except UserError:
        pass


def of_instruction(**changes):
    stream = PROGRAM.streams[0]
    first = dataclasses.replace(stream.instructions[0], **changes)
    return dataclasses.replace(PROGRAM, streams=(
        dataclasses.replace(stream, instructions=(first, *stream.instructions[1:])),))


@pytest.mark.parametrize("changes, message", [
    ({"unit_mask": 2**32},
     r"chip1\.array0\[0\]: unit_mask must be 0 to 4294967295, not 4294967296"),
    ({"waits": ((0, 1),) * 5}, r"chip1\.array0\[0\]: waits must be at most 4, not 5"),
    ({"signals": ((0, 256),)}, r"chip1\.array0\[0\]: signal0_count must be 0 to 255, not 256"),
    ({"waits": ((0, 0),)}, r"chip1\.array0\[0\]: count of wait 0 must be at least 1, not 0"),
    ({"fields": {"mod": 1}}, r"chip1\.array0\[0\]: field must be one of dataflow, mode, "),
    ({"operands": {"b": 1}}, r"chip1\.array0\[0\]: operand must be one of a, acc, w, asum, out"),
    ({"fields": {"set_level": 16}}, r"chip1\.array0\[0\]: set_level must be 0 to 15, not 16"),
])
def test_what_does_not_fit_an_instruction_is_refused(changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        encode(of_instruction(**changes))


@pytest.mark.parametrize("changes, message", [
    ({"shape": (1,) * 5, "strides": (1,) * 5, "edges": ()},
     "shape dimensions must be at most 4, not 5"),
    ({"strides": (1,)}, "strides must be 2, one a dimension, not 1"),
    ({"loop_strides": ((8, 1),)}, "loop level must be 0 to 7, not 8"),
    ({"edges": (Edge(1, ((0, 1), (1, 1), (2, 1))), None)}, "edge0 steps must be at most 2, not 3"),
    ({"format": "int99"}, "format must be one of "),
])
def test_what_does_not_fit_an_operand_is_refused(changes, message):
    operand = dataclasses.replace(PROGRAM.operands[0], **changes)
    with pytest.raises(UserError, match=f"^operand 'a': {message}"):
        encode(Program("p", operands=(operand,)))


def test_normal_form_leaves_out_what_changes_nothing():
    plain = Operand("x", Space.DRAM, 0, (4,), (1,), "int8", loop_strides=((1, 5), (2, 3)),
                    edges=(Edge(0, ((0, 2),), 4),))
    wordy = dataclasses.replace(plain, loop_strides=((2, 3), (0, 0), (1, 4), (1, 1)),
                                edges=(Edge(9, ((0, 2), (1, 0)), 4),))
    bare = Operand("x", Space.DRAM, 0, (4,), (1,), "int8", edges=(None,))
    assert normal(Program("p", operands=(wordy, bare))).operands == (
        plain, dataclasses.replace(bare, edges=()))
    program = of_instruction(fields={"dataflow": 1, "mode": 0, "set_level": 1, "saturate": 1})
    assert normal(program) == PROGRAM
    assert encode(program) == DATA


def test_a_default_that_is_not_zero_is_written_out():
    halt = Instruction(Opcode.HALT)
    load = Instruction(Opcode.LOAD, fields={"saturate": 0})
    stream = PROGRAM.streams[0]
    program = Program("p", streams=(dataclasses.replace(stream, instructions=(load, halt)),))
    assert bits(encode(program), "instructions", 64, 0, 356, 5) == 0
    assert bits(DATA, "instructions", 64, 0, 356 + 20, 1) == 1  # saturate, left out of the text


def test_a_machine_that_lacks_a_capability_refuses_the_program():
    require_capabilities(PROGRAM, {Capability.SYSTOLIC, Capability.VECTOR, Capability.PIM})
    with pytest.raises(UserError, match=r"^program 'small' needs vector, which the machine "
                                        r"lacks$"):
        require_capabilities(PROGRAM, {Capability.SYSTOLIC})
