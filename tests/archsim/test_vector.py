"""Timing of vector operations on several units."""

import pytest

from archsim.vector import op_cycles
from machine.vector import VectorConfig, VectorOp

CFG = VectorConfig(name="vector", count=4, lanes=16, exp_cycles=5)


@pytest.mark.parametrize("op", list(VectorOp))
def test_one_unit_takes_the_formula_of_the_machine(op):
    assert op_cycles(CFG, op, 7, 33) == CFG.op_cycles(op, 7, 33)


@pytest.mark.parametrize("rows, units, most", [(8, 4, 2), (9, 4, 3), (3, 4, 1), (0, 2, 0)])
def test_the_unit_with_most_rows_sets_the_time(rows, units, most):
    got = op_cycles(CFG, VectorOp.SOFTMAX, rows, 40, units=units)
    assert got == CFG.op_cycles(VectorOp.SOFTMAX, most, 40)


def test_count_of_topk_is_passed_on():
    assert op_cycles(CFG, VectorOp.TOPK, 1, 16, k=3) == 3 * op_cycles(CFG, VectorOp.TOPK, 1, 16)


def test_units_beyond_the_machine_are_refused():
    assert op_cycles(CFG, VectorOp.ADD, 8, 16, units=4) == 2
    for units in (0, 5):
        with pytest.raises(ValueError, match=f"^units must be from 1 to 4, not {units}$"):
            op_cycles(CFG, VectorOp.ADD, 8, 16, units=units)
