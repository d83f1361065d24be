"""Shapes that go together, and those one off."""

import pytest

from machine.opcodes import Opcode
from machine.program import Instruction
from machine.shapes import shape_faults
from machine.vector import VectorOp


def wrong(opcode, held=None, fields=None, **shapes):
    instruction = Instruction(opcode, fields=fields or {})
    return list(shape_faults(instruction, shapes, held))


PAIRS = [
    (Opcode.LOAD, {"src": (2, 3), "dst": (2, 3)}, {"src": (2, 3), "dst": (3, 2)}),
    (Opcode.STORE, {"src": (2, 3), "dst": (2, 3)}, {"src": (2, 3), "dst": (6,)}),
    (Opcode.FLUSH, {"acc": (2, 3), "out": (2, 3)}, {"acc": (2, 3), "out": (2, 4)}),
    (Opcode.PIM_GWRITE, {"src": (4,), "dst": (4,)}, {"src": (4,), "dst": (5,)}),
    (Opcode.PIM_READRES, {"src": (4,), "dst": (4,)}, {"src": (4,), "dst": (5,)}),
    (Opcode.PIM_GEMV, {"a": (4,), "w": (3, 4), "dst": (3,)}, {"a": (3,), "w": (3, 4), "dst": (3,)}),
    (Opcode.PIM_GEMV, {"a": (4,), "w": (3, 4), "dst": (3,)}, {"a": (4,), "w": (3, 4), "dst": (4,)}),
    (Opcode.READ, {"src": (1, 1)}, {"src": (2,)}),
    (Opcode.MATMUL, {"a": (2, 3), "w": (3, 4), "acc": (2, 4)},
     {"a": (2, 3), "w": (4, 4), "acc": (2, 4)}),
    (Opcode.MATMUL, {"a": (2, 3), "w": (3, 4), "acc": (2, 4)},
     {"a": (2, 3), "w": (3, 4), "acc": (2, 5)}),
    (Opcode.MATMUL, {"a": (2, 3), "w": (3, 4), "acc": (2, 4), "out": (2, 4)},
     {"a": (2, 3), "w": (3, 4), "acc": (2, 4), "out": (4, 2)}),
    (Opcode.MATMUL, {"a": (5, 2, 3), "w": (5, 3, 4), "acc": (5, 2, 4)},
     {"a": (5, 2, 3), "w": (4, 3, 4), "acc": (5, 2, 4)}),
    (Opcode.MATMUL, {"a": (5, 2, 3), "w": (3, 4), "acc": (5, 2, 4)},
     {"a": (5, 2, 3), "w": (3, 4), "acc": (2, 4)}),
    (Opcode.MATMUL, {"a": (1, 3), "w": (3, 4), "acc": (1, 4)}, {"a": (3,), "w": (3, 4),
                                                                "acc": (4,)}),
]


@pytest.mark.parametrize("opcode, right, off", PAIRS)
def test_shapes_that_fit_pass_and_one_off_does_not(opcode, right, off):
    assert wrong(opcode, **right) == []
    assert len(wrong(opcode, **off)) == 1


def test_a_matmul_without_w_uses_what_was_preloaded():
    assert wrong(Opcode.MATMUL, (3, 4), a=(2, 3), acc=(2, 4)) == []
    assert wrong(Opcode.MATMUL, (4, 4), a=(2, 3), acc=(2, 4)) == [
        "K of a and w must be equal, not 3 and 4"]
    assert wrong(Opcode.MATMUL, a=(2, 3), acc=(2, 4)) == [
        "w must be given, or weights preloaded before"]


def test_tables_have_eight_entries_and_codes_one_for_each():
    tables = {"tables": 1}
    assert wrong(Opcode.MATMUL, None, tables, a=(2, 4, 8), w=(2, 5, 4), acc=(2, 5)) == []
    assert wrong(Opcode.MATMUL, None, tables, a=(2, 4, 16), w=(2, 5, 4), acc=(2, 5)) != []
    assert wrong(Opcode.MATMUL, None, tables, a=(2, 4, 8), w=(2, 5, 3), acc=(2, 5)) != []
    assert wrong(Opcode.MATMUL, None, tables, a=(2, 4, 8), w=(2, 5, 4), acc=(2, 4)) != []


@pytest.mark.parametrize("vop", [VectorOp.GELU, VectorOp.RMSNORM, VectorOp.QUANTISE,
                                 VectorOp.SOFTMAX])
def test_an_elementwise_result_has_the_shape_of_x(vop):
    assert wrong(Opcode.VECTOR, None, {"vop": vop}, x=(2, 8), y=(2, 8)) == []
    assert wrong(Opcode.VECTOR, None, {"vop": vop}, x=(2, 8), y=(2, 7)) == [
        "y must have the shape of x, [2, 8], not [2, 7]"]


def test_the_second_operand_of_add_broadcasts_to_the_first():
    add = {"vop": VectorOp.ADD}
    for other in ((2, 8), (8,), (1, 8), (2, 1)):
        assert wrong(Opcode.VECTOR, None, add, x=(2, 8), y=(2, 8), x1=other) == []
    for other in ((2, 7), (3, 2, 8)):
        assert wrong(Opcode.VECTOR, None, add, x=(2, 8), y=(2, 8), x1=other) == [
            f"x1 must broadcast to x, [2, 8], not {list(other)}"]


def test_a_reduction_may_change_the_shape():
    assert wrong(Opcode.VECTOR, None, {"vop": VectorOp.REDUCE_SUM}, x=(2, 8), y=(2,)) == []
