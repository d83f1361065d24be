"""The meaning of control: loops, registers, predicates, and how operands resolve."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.assembly import parse
from machine.control import Cursor, units
from machine.errors import UserError
from machine.opcodes import Alu, Opcode
from machine.program import (
    Edge,
    Instruction,
    Operand,
    Program,
    Queue,
    QueueKind,
    Space,
    Stream,
)

HEAD = """program p version 1
launch length
operand x dram 0x100 int8 [4] stride [1]
stream chip0.dma0
"""


def cursor(body, *, control=False, **values):
    program = parse(HEAD + body + "\nhalt\n", "p")
    return Cursor(program, program.streams[0], values, control=control)


def steps(walk):
    found = []
    while (step := walk.next_step()) is not None:
        found.append(step)
    return found


def registers_after(body, **values):
    (last,) = steps(cursor(body + "\nnop", **values))
    return last.registers


def test_loops_nest_and_count_from_zero():
    found = steps(cursor("loop 2\nnop\nloop 3\nnop\nend\nend\nnop"))
    assert [(step.pc, step.indices) for step in found] == [
        (1, (0,)), (3, (0, 0)), (3, (0, 1)), (3, (0, 2)),
        (1, (1,)), (3, (1, 0)), (3, (1, 1)), (3, (1, 2)), (6, ())]


@pytest.mark.parametrize("loop", ["loop 0", "r1 = -3\nloop r1", "r1 = 0\nloop r1",
                                  "r2 = 0\nloop 4 if r2", "r2 = 1\nloop 4 if !r2"])
def test_a_loop_of_no_trips_is_passed_over_with_what_it_nests(loop):
    found = steps(cursor(f"{loop}\nnop\nloop 2\nnop\nend\nend\nfence"))
    assert [step.instruction.opcode for step in found] == [Opcode.FENCE]


def test_a_trip_count_is_taken_when_the_loop_is_entered():
    found = steps(cursor("r1 = launch length\nloop r1\nr1 = 0\nnop\nend", length=3))
    assert [step.indices for step in found] == [(0,), (1,), (2,)]


def test_a_false_predicate_leaves_the_step_inactive_and_scalars_undone():
    found = steps(cursor("r1 = 1\nr2 = 5 if !r1\nr3 = 6 if r1\nnop if r2\nnop if !r2"))
    assert [step.active for step in found] == [False, True]
    assert found[0].registers[2:4] == (0, 6)


@given(st.integers(-9, 9), st.integers(-9, 9))
def test_arithmetic_is_that_of_integers(a, b):
    body = "\n".join([f"r1 = {a}", f"r2 = {b}"] + [
        f"r{3 + i} = {name} r1 r2" for i, name in enumerate(
            ("add", "sub", "mul", "min", "max", "ceildiv", "lt", "eq", "wrap"))])
    ceildiv = 0 if b == 0 else a // b + (a % b != 0)
    assert registers_after(body)[3:12] == (
        a + b, a - b, a * b, min(a, b), max(a, b), ceildiv, int(a < b), int(a == b),
        a - b if a >= b else a)


def test_registers_wrap_at_64_bits():
    body = f"r1 = {2**63 - 1}\nr2 = add r1 1\nr3 = {-(2**63)}\nr4 = sub r3 1\nr5 = mul r1 2"
    assert registers_after(body)[2:6] == (-(2**63), -(2**63), 2**63 - 1, -2)


def test_index_reads_the_loop_index_of_a_level():
    found = steps(cursor("loop 2\nloop 2\nr1 = index 0\nr2 = index 1\nr3 = index 2\nnop\nend\nend"))
    assert [step.registers[1:4] for step in found] == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]


def test_launch_reads_the_launch_table():
    assert registers_after("r1 = launch length", length=-7)[1] == -7


def test_a_read_is_answered_by_the_caller():
    walk = cursor("read r3 src=x\nnop")
    assert walk.next_step().instruction.opcode == Opcode.READ
    with pytest.raises(AssertionError, match="was not answered"):
        walk.next_step()
    walk.give(42)
    assert walk.next_step().registers[3] == 42
    with pytest.raises(AssertionError, match="no READ waits"):
        walk.give(1)


def test_a_read_that_is_not_active_waits_for_no_answer():
    walk = cursor("read r3 src=x if r1\nnop")
    assert not walk.next_step().active
    assert walk.next_step().registers[3] == 0


def test_control_is_shown_only_where_asked_for():
    body = "r1 = 2\nloop r1\nnop\nend"
    assert [s.pc for s in steps(cursor(body))] == [2, 2]
    assert [s.pc for s in steps(cursor(body, control=True))] == [0, 1, 2, 3, 2, 3]


def test_the_layer_counts_from_its_base_by_its_level():
    found = steps(cursor("loop 3\nnop layer=4+0\nend\nnop layer=9\nnop layer=5+2"))
    assert [step.layer for step in found] == [4, 5, 6, 9, 5]


def test_units_are_ranked_in_ascending_order():
    assert list(units(0b101001)) == [(0, 0), (1, 3), (2, 5)]
    assert list(units(0)) == []


def resolved(operand, body="loop 3\nr1 = index 0\nr2 = mul r1 5\nnop\nend", rank=0):
    return [step.resolve(operand, rank) for step in steps(cursor(body))]


def test_an_address_is_base_plus_register_and_an_offset_of_loops_and_rank():
    operand = Operand("x", Space.DRAM, 0x100, (4,), (1,), "uint4", base_register=2,
                      loop_strides=((0, 3), (1, 99), (7, 1000)))
    assert [(t.address_bytes, t.offset_elements) for t in resolved(operand, rank=2)] == [
        (0x100, 2000), (0x105, 2003), (0x10A, 2006)]


@given(st.integers(0, 20), st.integers(0, 6), st.integers(0, 6), st.integers(0, 2))
def test_an_edge_clamps_what_is_left_to_the_tile(bound, step, unit_step, rank):
    fixed = Edge(bound, ((0, step), (7, unit_step)))
    operand = Operand("x", Space.DRAM, 0, (4, 7), (7, 1), "int8", edges=(fixed, None))
    want = [(min(4, max(0, bound - i * step - rank * unit_step)), 7) for i in range(3)]
    assert [tile.shape for tile in resolved(operand, rank=rank)] == want
    by_register = Operand("x", Space.DRAM, 0, (4, 7), (7, 1), "int8",
                          edges=(Edge(99, fixed.steps, 3), None))
    body = f"r3 = {bound}\nloop 3\nnop\nend"
    assert [tile.shape for tile in resolved(by_register, body, rank)] == want


def test_an_empty_tile_has_no_elements():
    operand = Operand("x", Space.DRAM, 0, (4, 7), (7, 1), "int8", edges=(Edge(4, ((0, 4),)), None))
    assert [tile.elements for tile in resolved(operand)] == [28, 0, 0]
    assert resolved(operand)[0].space == Space.DRAM


def stream_of(*opcodes):
    instructions = tuple(Instruction(opcode, fields={"count": 1} if opcode == Opcode.LOOP else {})
                         for opcode in opcodes)
    return Stream(Queue(QueueKind.DMA), instructions)


@pytest.mark.parametrize("opcodes, message", [
    ((Opcode.LOOP, Opcode.HALT), r"chip0\.dma0\[0\]: loop must have an end"),
    ((Opcode.END, Opcode.HALT), r"chip0\.dma0\[0\]: end must close a loop, none is open"),
    ((Opcode.LOOP,) * 8 + (Opcode.END,) * 8 + (Opcode.HALT,),
     r"chip0\.dma0\[7\]: loops must nest at most 7 deep"),
])
def test_loops_that_do_not_pair_are_refused(opcodes, message):
    stream = stream_of(*opcodes)
    with pytest.raises(UserError, match=f"^{message}$"):
        Cursor(Program("p", streams=(stream,)), stream, {})


def test_seven_loops_may_nest():
    stream = stream_of(*(Opcode.LOOP,) * 7, Opcode.NOP, *(Opcode.END,) * 7, Opcode.HALT)
    (step,) = steps(Cursor(Program("p", streams=(stream,)), stream, {}))
    assert step.indices == (0,) * 7


def test_every_operation_of_the_alu_is_tested_here():
    assert {alu.name.lower() for alu in Alu} == {
        "set", "launch", "index", "add", "sub", "mul", "min", "max", "ceildiv", "lt", "eq",
        "wrap"}
