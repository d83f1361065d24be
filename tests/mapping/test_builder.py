"""Streams, operands, tokens and rings as the builder writes them."""

import numpy as np
import pytest

from machine.control import Cursor
from machine.errors import UserError
from machine.opcodes import Alu, Opcode
from machine.program import Capability, Edge, Queue, QueueKind, Space, SymbolKind
from mapping.builder import DRAM_ALIGN_BYTES, ProgramBuilder, fp32_bits, packed_strides

ARRAY = Queue(QueueKind.ARRAY)


def built(builder):
    return builder.build(frozenset({Capability.SYSTOLIC}))


def opcodes(program, stream=0):
    return [Opcode(i.opcode).name for i in program.streams[stream].instructions]


def test_fp32_bits_are_those_of_the_rounded_value():
    for value in (0.0, 1.0, -2.5, 1e-5, 1e-12, 10000.0):
        assert fp32_bits(value) == int(np.float32(value).view(np.uint32))


def test_packed_strides_are_those_of_a_dense_array():
    for shape in ((5,), (2, 3), (4, 1, 7), (2, 3, 4, 5)):
        dense = np.zeros(shape, np.int8)
        assert packed_strides(shape) == dense.strides


def test_a_wait_rides_on_the_next_instruction_past_scalars():
    builder = ProgramBuilder("p")
    token, stream = builder.token("t", 3), builder.stream(ARRAY)
    stream.wait((token, 1))
    stream.scalar(Alu.SET, stream.register("r"), 7)
    stream.op(Opcode.FENCE, waits=((token, 2),))
    program = built(builder)
    assert opcodes(program) == ["SCALAR", "FENCE", "HALT"]
    assert program.streams[0].instructions[1].waits == ((token, 1), (token, 2))


@pytest.mark.parametrize("border", ["begin", "end", "halt"])
def test_a_wait_that_nothing_takes_becomes_a_nop_in_its_place(border):
    builder = ProgramBuilder("p")
    token, stream = builder.token("t", 9), builder.stream(ARRAY)
    want = {"begin": ["NOP", "LOOP", "FENCE", "END", "HALT"],
            "end": ["LOOP", "FENCE", "NOP", "END", "HALT"],
            "halt": ["LOOP", "FENCE", "END", "NOP", "HALT"]}[border]
    if border == "begin":
        stream.wait((token, 1))
    with stream.loop(2):
        stream.fence()
        if border == "end":
            stream.wait((token, 1))
    if border == "halt":
        stream.wait((token, 1))
    program = built(builder)
    assert opcodes(program) == want
    assert program.streams[0].instructions[want.index("NOP")].waits == ((token, 1),)


def test_an_instruction_takes_four_waits_and_a_nop_the_others():
    builder = ProgramBuilder("p")
    tokens = [builder.token(f"t{i}", 1) for i in range(5)]
    for count, first in ((3, "FENCE"), (4, "NOP")):
        stream = builder.stream(Queue(QueueKind.ARRAY, count))
        stream.wait(*((t, 1) for t in tokens[:count]))
        stream.op(Opcode.FENCE, waits=((tokens[4], 1),))
        assert Opcode(stream.instructions[0].opcode).name == first


def test_an_equal_description_is_one_operand_and_names_are_unique():
    builder = ProgramBuilder("p")
    one = builder.operand("a", Space.SCRATCHPAD, 0, (4, 8), "int8")
    assert builder.operand("b", Space.SCRATCHPAD, 0, (4, 8), "int8") == one
    other = builder.operand("a", Space.SCRATCHPAD, 64, (4, 8), "int8", edges=(Edge(3), None))
    program = built(builder)
    assert [o.name for o in program.operands] == ["a", "a_2"] and (one, other) == (0, 1)


def test_steps_of_zero_and_edges_of_nothing_are_left_out():
    builder = ProgramBuilder("p")
    builder.operand("a", Space.SCRATCHPAD, 0, (4,), "int8", loops=((1, 0), (2, 4)), edges=(None,))
    (operand,) = built(builder).operands
    assert operand.loop_strides == ((2, 4),) and operand.edges == ()


def test_symbols_start_at_whole_channels_and_do_not_overlap():
    builder = ProgramBuilder("p")
    made = [builder.symbol(f"s{i}", SymbolKind.CONST, (size,), "int8")
            for i, size in enumerate((1, DRAM_ALIGN_BYTES, DRAM_ALIGN_BYTES + 1, 3))]
    starts = [s.address_bytes // DRAM_ALIGN_BYTES for s in made]
    assert starts == [0, 1, 2, 4] and builder.dram_bytes == 5 * DRAM_ALIGN_BYTES


def test_a_launch_entry_is_read_once_a_stream():
    builder = ProgramBuilder("p")
    stream = builder.stream(ARRAY)
    assert stream.launch("rows") == stream.launch("rows")
    assert opcodes(built(builder)) == ["SCALAR", "HALT"]


def test_a_seventeenth_register_is_refused():
    stream = ProgramBuilder("p").stream(ARRAY)
    for i in range(16):
        stream.register(f"r{i}")
    with pytest.raises(UserError, match="chip0.array0: registers must be at most 16, late is one"):
        stream.register("late")


@pytest.mark.parametrize("slots", [2, 3, 4])
@pytest.mark.parametrize("uses", [1, 2, 5])
def test_a_ring_goes_round_its_slots_from_slot_0(uses, slots):
    builder = ProgramBuilder("p")
    stream = builder.stream(ARRAY)
    ring = builder.ring("w", Space.SCRATCHPAD, 4096, 512, slots)
    ring.open(stream)
    with stream.loop(uses):
        base = ring.step(stream)
        at = builder.operand("x", Space.SCRATCHPAD, ring.address_bytes, (8,), "int8", base=base)
        stream.op(Opcode.FENCE)
    program = built(builder)
    cursor = Cursor(program, program.streams[0], {})
    seen = []
    while (step := cursor.next_step()) is not None:
        seen.append(step.resolve(program.operands[at]).address_bytes)
    assert seen == [4096 + 512 * (i % slots) for i in range(uses)]


def test_what_a_ring_hands_over_is_handed_back():
    ring = ProgramBuilder("p").ring("w", Space.SCRATCHPAD, 0, 64)
    for parts in (1, 2, 4, 8):
        assert ring.take_free(1)[1] == parts * ring.give_free(parts)[1]
        assert ring.give_full(1)[1] == parts * ring.take_full(parts)[1]


def test_accounting_names_the_operator_and_the_layer_loop():
    builder = ProgramBuilder("p")
    stream = builder.stream(ARRAY)
    with stream.loop(3):
        with builder.accounting("qkv", 0, 0):
            stream.fence()
        with builder.accounting("out", 5):
            stream.fence()
    program = built(builder)
    cursor = Cursor(program, program.streams[0], {})
    seen = []
    while (step := cursor.next_step()) is not None:
        seen.append((program.ops[step.instruction.op_id], step.layer))
    assert seen == [("qkv", 0), ("out", 5), ("qkv", 1), ("out", 5), ("qkv", 2), ("out", 5)]
