"""The text form: canonical, complete, and precise about what is wrong where."""

import dataclasses
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.assembly import parse
from machine.disassembly import field_text, instruction_text, text
from machine.encoding import normal
from machine.errors import UserError
from machine.opcodes import Alu, Dataflow, Field, Mode, Opcode
from machine.program import (
    Capability,
    Edge,
    Gather,
    Group,
    Instruction,
    Layout,
    Operand,
    Predicate,
    Program,
    Queue,
    QueueKind,
    Space,
    Stream,
    Symbol,
    SymbolKind,
    Token,
)
from machine.vector import Mask, VectorOp

CANONICAL = """\
program every_form version 1
needs systolic indirect
chips 2
launch length batch
token free 2
token full
op load
op qkv
symbol A dram 0x0000 int8 [37,71] input layout=tile chip=1 transform=lut_remap
symbol B dram 0x4000 float16 [8] state
operand a_src dram 0x0000 int8 [8,16] stride [71,1] loop 0:568 1:16 7:128 \
edge 0:37-0*8 1:r2-1*16-7*128
operand pages dram 0x4000 int32 [4] stride [1]
operand k_page dram 0x0100 int8 [16,64] stride [64,1] base r3 layout=tile \
group axis=0 size=128 scale=@s zero=@z \
gather axis=0 index=@pages granule=16
operand s scratchpad 0x0000 float16 [1] stride [1]
operand z scratchpad 0x0010 int8 [1] stride [-1]
stream chip0.dma0
  r1 = launch batch
  loop 5
    loop r1 if !r2
      r4 = index 1
      r5 = add r4 -7
      r6 = ceildiv r5 r4 layer=3
      r7 = 0x10
      r8 = r7
      read r3 src=pages op=load
    end
    load src=a_src dst=z units=0xff rounding=floor saturate=0 \
wait free:1 signal full:2 op=qkv layer=7+0 if r1
  end
  halt
stream chip1.vector2
  vector vop=softmax x=s y=z units=0x2 mask=causal position=-3 \
position_register=r4 value=1e-05 wait full:1 free:3 op=load
  halt
""".replace("0x10\n", "16\n")

PROGRAM = Program(
    name="every_form",
    capabilities=frozenset({Capability.SYSTOLIC, Capability.INDIRECT}),
    chips=2,
    symbols=(
        Symbol("A", SymbolKind.INPUT, Space.DRAM, 0, (37, 71), "int8", Layout.TILE, 1,
               "lut_remap"),
        Symbol("B", SymbolKind.STATE, Space.DRAM, 0x4000, (8,), "float16"),
    ),
    launch=("length", "batch"),
    tokens=(Token("free", 2), Token("full")),
    ops=("load", "qkv"),
    operands=(
        Operand("a_src", Space.DRAM, 0, (8, 16), (71, 1), "int8",
                loop_strides=((0, 568), (1, 16), (7, 128)),
                edges=(Edge(37, ((0, 8),)), Edge(0, ((1, 16), (7, 128)), 2))),
        Operand("pages", Space.DRAM, 0x4000, (4,), (1,), "int32"),
        Operand("k_page", Space.DRAM, 0x100, (16, 64), (64, 1), "int8", Layout.TILE, 3,
                group=Group(0, 128, 3, 4), gather=Gather(0, 1, 16)),
        Operand("s", Space.SCRATCHPAD, 0, (1,), (1,), "float16"),
        Operand("z", Space.SCRATCHPAD, 0x10, (1,), (-1,), "int8"),
    ),
    streams=(
        Stream(Queue(QueueKind.DMA), (
            Instruction(Opcode.SCALAR, fields={"alu": Alu.LAUNCH, "rd": 1, "b": 1}),
            Instruction(Opcode.LOOP, fields={"count": 5}),
            Instruction(Opcode.LOOP, predicate=Predicate(2, True),
                        fields={"count": 1, "count_is_register": 1}),
            Instruction(Opcode.SCALAR, fields={"alu": Alu.INDEX, "rd": 4, "b": 1}),
            Instruction(Opcode.SCALAR, fields={"alu": Alu.ADD, "rd": 5, "ra": 4, "b": -7}),
            Instruction(Opcode.SCALAR, layer_id=3, fields={
                "alu": Alu.CEILDIV, "rd": 6, "ra": 5, "b": 4, "b_is_register": 1}),
            Instruction(Opcode.SCALAR, fields={"rd": 7, "b": 16}),
            Instruction(Opcode.SCALAR, fields={"rd": 8, "b": 7, "b_is_register": 1}),
            Instruction(Opcode.READ, operands={"src": 1}, fields={"rd": 3}),
            Instruction(Opcode.END),
            Instruction(Opcode.LOAD, 0xFF, ((0, 1),), ((1, 2),), Predicate(1), 1, 7, 0,
                        {"src": 0, "dst": 4}, {"rounding": 2, "saturate": 0}),
            Instruction(Opcode.END),
            Instruction(Opcode.HALT),
        )),
        Stream(Queue(QueueKind.VECTOR, 2, 1), (
            Instruction(Opcode.VECTOR, 2, ((1, 1), (0, 3)), operands={"x": 3, "y": 4}, fields={
                "vop": VectorOp.SOFTMAX, "mask": Mask.CAUSAL, "position": -3,
                "position_register": 4,
                "value": struct.unpack("<I", struct.pack("<f", 1e-5))[0]}),
            Instruction(Opcode.HALT),
        )),
    ),
)


def test_every_form_of_the_text_means_what_the_page_says():
    assert parse(CANONICAL) == PROGRAM
    assert text(PROGRAM) == CANONICAL


def survives(program):
    written = text(program)
    assert parse(written) == program
    assert text(parse(written)) == written


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_program_survives_the_text(programs, data):
    survives(data.draw(programs))


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_many_programs_survive_the_text(programs, data):
    survives(data.draw(programs))


def test_comments_blank_lines_order_and_defaults_do_not_matter():
    loose = CANONICAL.replace("stream chip0", "\n; a comment\n\nstream chip0")
    loose = loose.replace("  halt", "halt ; the end")
    loose = loose.replace("src=a_src dst=z units=0xff rounding=floor", "rounding=floor dst=z "
                          "units=255 src=a_src")
    loose = loose.replace("needs systolic indirect", "needs indirect systolic")
    assert loose != CANONICAL
    assert parse(loose) == PROGRAM
    matmul = ("program p version 1\noperand x scratchpad 0 int8 [1,1] stride [1,1]\n"
              "stream chip0.array0\nmatmul a=x acc=x {}\nhalt\n")
    assert parse(matmul.format("mode=set saturate=1 units=1 layer=0")) == parse(matmul.format(""))


def test_the_op_is_written_only_where_ops_are_named():
    with_ops = text(parse("program p version 1\nop one\nstream chip0.dma0\nnop\nhalt\n"))
    assert "nop op=one\n  halt\n" in with_ops
    assert "  nop\n" in text(parse("program p version 1\nstream chip0.dma0\nnop\nhalt\n"))


@given(st.integers(0, 2**32 - 1))
def test_every_float32_survives_the_text(bits):
    program = parse("program p version 1\noperand x scratchpad 0 float32 [1] stride [1]\n"
                    "stream chip0.vector0\nvector vop=scale x=x y=x\nhalt\n")
    stream = program.streams[0]
    fields = {"vop": VectorOp.SCALE.value} | ({"value": bits} if bits else {})
    vector = dataclasses.replace(stream.instructions[0], fields=fields)
    program = dataclasses.replace(program, streams=(
        dataclasses.replace(stream, instructions=(vector, stream.instructions[1])),))
    assert parse(text(program)) == program


@pytest.mark.parametrize("bits, shown", [
    (0x3F800000, "1"), (0x3DCCCCCD, "0.1"), (0x3727C5AC, "1e-05"), (0x7F7FFFFF, "3.4028235e+38"),
    (0x80000000, "-0"), (0x00000001, "1e-45"), (0x7F800000, "0x7f800000"),
    (0x7FC00001, "0x7fc00001")])
def test_a_float32_is_written_as_its_shortest_decimal(bits, shown):
    assert field_text(Field("value", 32, "float32"), bits) == shown


def test_what_has_no_text_form_is_shown_with_a_question_mark():
    program = Program("p", tokens=(Token("t"),))
    odd = Instruction(Opcode.MATMUL, waits=((3, 1),), op_id=2, operands={"a": 7, "q": 1},
                      fields={"dataflow": 9, "colour": 1})
    assert instruction_text(program, odd) == (
        "matmul a=?7 q=?1 dataflow=?9 colour=?1 wait ?3:1 op=?2")
    assert instruction_text(program, Instruction(200)) == "?200"
    launch = Instruction(Opcode.SCALAR, fields={"alu": Alu.LAUNCH, "b": 4})
    assert instruction_text(program, launch) == "r0 = launch ?4"


def test_enumerations_are_written_by_name():
    assert field_text(Field("dataflow", 4, Dataflow), 1) == "ws"
    assert field_text(Field("mode", 2, Mode), 1) == "accumulate"
    assert field_text(Field("channels", 32, "mask"), 255) == "0xff"
    assert field_text(Field("rd", 4, "register"), 7) == "r7"


# Each case changes one thing of the canonical program: old, new, the error behind file and line.
ERRORS = [
    ("program every_form version 1", "program 9x version 1",
     "1: program must be a letter or _, then letters, digits and _ . / -, not '9x'"),
    ("version 1", "version 2", "1: version must be 1, not 2"),
    ("version 1", "revision 1", "1: word must be 'version', not 'revision'"),
    ("program every_form version 1", "chips 2",
     "1: first line must be 'program NAME version 1', not 'chips'"),
    ("needs systolic", "needs systolik",
     ("2: capability must be one of group_scale, indirect, link, lut, pim, systolic, vector, "
     "not 'systolik'; did you mean 'systolic'?")),
    ("chips 2", "chips 0", "3: chips must be at least 1, not 0"),
    ("chips 2", "chips two", "3: chips must be an integer, not 'two'"),
    ("chips 2", "chips", "3: number must follow 'chips'"),
    ("launch length batch", "launch length length",
     "4: launch entry must be a new name, not 'length'"),
    ("token full", "token free", "6: token must be a new name, not 'free'"),
    ("token full", "token full -1", "6: count must be at least 0, not -1"),
    ("token full", "token full 1 2", "6: word must be the end of the line, not '2'"),
    ("op qkv", "op load", "8: op must be a new name, not 'load'"),
    ("symbol A dram", "symbol A drum",
     ("9: space must be one of accumulator, dram, pim_buffer, pim_latch, scratchpad, table, "
     "not 'drum'; did you mean 'dram'?")),
    ("[37,71] input", "[37,71] inputs",
     ("9: kind must be one of const, input, launch, output, scratch, state, "
     "not 'inputs'; did you mean 'input'?")),
    ("[37,71] input", "[37, 71] input",
     "9: shape must be integers like [8,16], no space between, not '[37,'"),
    ("chip=1 transform", "chop=1 transform",
     "9: key of symbol must be one of chip, layout, transform, not 'chop'; did you mean 'chip'?"),
    ("stride [71,1]", "[71,1]", "11: word must be 'stride', not '[71,1]'"),
    ("stride [71,1]", "stride [71]", "11: stride must be 2 numbers, one a dimension, not 1"),
    ("loop 0:568", "loop 0:0",
     "11: loop stride must be a new level 0 to 7, a colon and a stride, not 0, not '0:0'"),
    ("loop 0:568", "loop 8:568",
     "11: loop stride must be a new level 0 to 7, a colon and a stride, not 0, not '8:568'"),
    ("edge 0:37-0*8", "edge 0:37+0*8",
     "11: edge must be dimension:bound-level*step, like 0:37-1*8, not '0:37+0*8'"),
    ("edge 0:37-0*8", "edge 2:37-0*8",
     "11: dimension of edge must be a new one below 2, not 2"),
    ("1:r2-1*16", "1:r16-1*16", "11: bound must be r0 to r15, not 'r16'"),
    ("base r3", "base x3", "13: base must be r0 to r15, not 'x3'"),
    ("layout=tile group", "layout=tiles group",
     ("13: layout must be one of bit_plane, block_scaled, row, table, tile, not 'tiles'; "
     "did you mean 'tile'?")),
    ("scale=@s", "scale=s", "13: scale must be @ and the name of an operand, not 's'"),
    ("index=@pages", "index=@page",
     "13: operand must be one of a_src, k_page, pages, s, z, not 'page'; did you mean 'pages'?"),
    ("gather axis=0 index=@pages", "gather axis=0", "13: index of gather must be given, not None"),
    ("axis=0 size=128", "axis=0 sise=128",
     "13: key of group must be one of axis, scale, size, zero, not 'sise'; did you mean 'size'?"),
    ("operand s scratchpad", "operand z scratchpad", "15: operand must be a new name, not 'z'"),
    ("stream chip0.dma0", "stream dma0", "16: queue must be like chip0.dma0, not 'dma0'"),
    ("stream chip0.dma0", "stream chip0.dna0",
     ("16: queue kind must be one of array, dma, link, pim, vector, not 'dna'; "
     "did you mean 'dma'?")),
    ("stream chip1.vector2", "stream chip0.dma0",
     "30: queue must be one that has no stream yet, not 'chip0.dma0'"),
    ("r1 = launch batch", "r1 = launch bath",
     "17: launch entry must be one of batch, length, not 'bath'; did you mean 'batch'?"),
    ("r1 = launch batch", "r99 = launch batch", "17: register must be r0 to r15, not 'r99'"),
    ("loop 5", "loop 4294967296", "18: count must be 0 to 4294967295, not 4294967296"),
    ("if !r2", "if !x2", "19: predicate must be r0 to r15, not 'x2'"),
    ("r4 = index 1", "r4 = index 7", "20: level must be 0 to 6, not 7"),
    ("add r4 -7", "ad r4 -7",
     ("21: operation must be one of add, ceildiv, eq, index, launch, lt, max, min, mul, sub, "
     "wrap, not 'ad'; did you mean 'add'?")),
    ("add r4 -7", "add r4 9223372036854775808",
     "21: value must be a signed 64-bit number, not 9223372036854775808"),
    ("add r4 -7", "add r4", "21: second operand must follow 'r4'"),
    ("layer=3", "layer=x", "22: layer must be ID or ID+LEVEL, levels 0 to 6, not 'x'"),
    ("read r3 src=pages", "read r3 src=paged",
     "25: operand must be one of a_src, k_page, pages, s, z, not 'paged'; did you mean 'pages'?"),
    ("load src=a_src", "lode src=a_src",
     ("27: opcode must be one of end, fence, flush, halt, load, loop, matmul, nop, pim_activate, "
     "pim_gemv, pim_gwrite, pim_header, pim_precharge, pim_readres, preload, read, recv, send, "
     "store, vector, not 'lode'; did you mean 'load'?")),
    ("load src=a_src", "load scr=a_src",
     ("27: key of load must be one of dst, layer, op, rounding, saturate, src, units, not 'scr'; "
     "did you mean 'src'?")),
    ("rounding=floor", "rounding=flor",
     ("27: rounding must be one of floor, nearest_even, toward_zero, not 'flor'; "
     "did you mean 'floor'?")),
    ("saturate=0", "saturate=2", "27: saturate must be 0 to 1, not 2"),
    ("saturate=0", "saturate=0 saturate=1", "27: saturate must be given once, not '1'"),
    ("wait free:1", "wait fre:1",
     "27: token must be one of free, full, not 'fre'; did you mean 'free'?"),
    ("wait free:1", "wait free:0", "27: count must be at least 1, not 0"),
    ("wait free:1", "wait", "27: wait must be followed, once, by token:count"),
    ("wait free:1", "wait free:x", "27: count must be an integer, not 'x'"),
    ("op=qkv", "op=qvk", "27: op must be one of load, qkv, not 'qvk'; did you mean 'qkv'?"),
    ("layer=7+0 if r1", "layer=7+0 when r1", "27: word must be load key=value, not 'when'"),
    ("value=1e-05", "value=1e99", "31: value must be a number that float32 holds, not '1e99'"),
    ("value=1e-05", "value=small", "31: value must be a number that float32 holds, not 'small'"),
    ("position_register=r4", "position_register=4",
     "31: position_register must be r0 to r15, not '4'"),
]


@pytest.mark.parametrize("old, new, message", ERRORS, ids=[new for _, new, _ in ERRORS])
def test_a_mistake_is_named_with_file_and_line(old, new, message):
    assert old in CANONICAL
    with pytest.raises(UserError, match="^" + re.escape(f"every.prog:{message}") + "$"):
        parse(CANONICAL.replace(old, new, 1), "every.prog")


def test_a_declaration_behind_a_stream_is_refused():
    with pytest.raises(UserError, match=r"^p:\d+: token must stand before the first stream$"):
        parse(CANONICAL + "token late\n", "p")


def test_an_instruction_before_any_stream_is_refused():
    with pytest.raises(UserError, match=r"^p:2: line before the first stream must be one of "
                                        r"program, needs, .*, not 'halt'$"):
        parse("program p version 1\nhalt\n", "p")


def test_an_empty_text_is_refused():
    with pytest.raises(UserError, match=r"^p: program must begin with a line "
                                        r"'program NAME version 1'$"):
        parse("; nothing\n", "p")


def test_an_error_among_many_names_stays_short():
    many = "program p version 1\n" + "".join(f"token t{i}\n" for i in range(99))
    with pytest.raises(UserError, match=r"^p:102: token must be one of the 99 declared, "
                                        r"not 't100'; did you mean 't10'\?$"):
        parse(many + "stream chip0.dma0\n nop\n nop wait t100:1\n halt\n".replace(" nop\n", "", 1),
              "p")


def test_the_text_of_a_program_not_in_normal_form_is_that_of_its_normal_form():
    operand = Operand("x", Space.DRAM, 0, (4,), (1,), "int8", loop_strides=((3, 0), (1, 2)))
    program = Program("p", operands=(operand,))
    assert text(program) == text(normal(program))
    assert "loop 1:2\n" in text(program)
