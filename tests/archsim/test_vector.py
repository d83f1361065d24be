"""Timing of vector operations on several units."""

import pytest

from archsim.vector import Variant, core_commands, core_of, op_cycles, takes
from machine.vector import ReductionOrder, ScaleRule, VectorConfig, VectorOp
from machine.vector_core import command_cycles, done_cycles
from machine.vector_programs import Code

CFG = VectorConfig(name="vector", count=4, lanes=16, exp_cycles=5)
RTL = VectorConfig(name="vector", count=4, lanes=4, row_elements=64, fidelity="rtl")
CORE = core_of(RTL)


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


def commanded(op: VectorOp, rows: int, width: int, **variant) -> list[tuple[Code, int, int]]:
    commands = core_commands(CORE, op, rows, width, Variant(**variant))
    return [(command.code, command.rows, command.width) for command in commands]


@pytest.mark.parametrize("op, variant, code, rows, width", [
    (VectorOp.SOFTMAX, {}, Code.SOFTMAX, 6, 32),
    (VectorOp.SOFTMAX, {"state": True}, Code.SOFTMAX_STATE, 6, 32),
    (VectorOp.DEQUANTISE, {"integer": True}, Code.DEQUANTISE, 6, 32),
    (VectorOp.DEQUANTISE, {"bias": True, "integer": True}, Code.DEQUANTISE_BIAS, 6, 32),
    (VectorOp.QUANTISE, {}, Code.QUANTISE, 6, 32),
    (VectorOp.QUANTISE, {"rule": ScaleRule.ROW_ABSMAX}, Code.QUANTISE_ROWS, 6, 32),
    (VectorOp.QUANTISE, {"rule": ScaleRule.BLOCK, "block": 8}, Code.QUANTISE_ROWS, 24, 8),
    (VectorOp.MERGE, {}, Code.MERGE, 6, 30),
    (VectorOp.ROPE, {}, Code.ROPE, 6, 16),
    (VectorOp.ARGMAX, {}, Code.TOPK, 6, 32),
    (VectorOp.MEAN_POOL, {"pooled": 3}, Code.MEAN_POOL, 2, 32),
    (VectorOp.MEAN_POOL, {"pooled": 2, "mask": True}, Code.MEAN_POOL_MASKED, 3, 32),
])
def test_operators_of_rows_become_one_command(op, variant, code, rows, width):
    assert commanded(op, 6, 32, **variant) == [(code, rows, width)]


def test_elements_are_laid_end_to_end():
    assert commanded(VectorOp.ADD, 3, 50) == [(Code.ADD, 2, 64), (Code.ADD, 1, 22)]
    assert commanded(VectorOp.COPY, 1, 64, integer=True) == [(Code.FROM_INTEGER, 1, 64)]


def test_rtl_takes_the_cycles_of_its_commands():
    first, last = core_commands(CORE, VectorOp.SILU, 3, 50, Variant())
    assert op_cycles(RTL, VectorOp.SILU, 9, 50, units=3) == (
        command_cycles(CORE, first) + done_cycles(CORE, last))
    in_turn = Variant(order=ReductionOrder.SEQUENTIAL)
    assert op_cycles(RTL, VectorOp.REDUCE_SUM, 1, 64, variant=in_turn) > op_cycles(
        RTL, VectorOp.REDUCE_SUM, 1, 64)
    assert op_cycles(RTL, VectorOp.SOFTMAX, 0, 8) == 0


def test_rounds_of_a_loop_are_the_count_of_topk_and_the_rows_of_a_mean():
    [top] = core_commands(CORE, VectorOp.TOPK, 2, 8, Variant(), 3)
    assert (top.repeats, top.rows) == (3, 2)
    assert op_cycles(RTL, VectorOp.TOPK, 2, 8, k=3) == done_cycles(CORE, top)
    [mean] = core_commands(CORE, VectorOp.MEAN_POOL, 15, 8, Variant(pooled=5))
    assert (mean.repeats, mean.rows) == (5, 3)
    # Three means on two units: one has two.
    assert op_cycles(RTL, VectorOp.MEAN_POOL, 15, 8, units=2, variant=Variant(pooled=5)) == (
        done_cycles(CORE, core_commands(CORE, VectorOp.MEAN_POOL, 10, 8, Variant(pooled=5))[0]))


def test_tables_take_a_cycle_for_four_activations_and_one_more():
    assert op_cycles(RTL, VectorOp.TABLE_PRECOMPUTE, 9, 10, units=3) == 3 * 3 + 1


@pytest.mark.parametrize("op, formats, taken", [
    ("ADD", {"x": "float16", "x1": "bfloat16", "y": "float8_e4m3fn"}, True),
    ("ADD", {"x": "float16", "x1": "int8", "y": "float16"}, False),
    ("ADD", {"x": "float16", "x1": "float16", "y": "int8"}, False),
    ("CONVERT", {"x": "int4", "y": "float16"}, True),
    ("CONVERT", {"x": "int32", "y": "bfloat16"}, False),  # would be rounded to float32 between
    ("CONVERT", {"x": "int5", "y": "float16"}, False),
    ("GELU", {"x": "int8", "y": "float16"}, False),
    ("LAYERNORM", {"x": "float16", "x1": "float32", "x2": "float16", "y": "float16"}, False),
    ("QUANTISE", {"x": "float16", "y": "uint4", "scale": "float32"}, True),
    ("QUANTISE", {"x": "float16", "y": "int5", "scale": "float32"}, False),
    ("QUANTISE", {"x": "float16", "y": "int8", "scale": "float16"}, False),
    ("QUANTISE", {"x": "float16", "x1": "float32", "y": "int8"}, False),  # a scale a row
    ("DEQUANTISE", {"x": "int16", "x1": "float32", "x2": "float32", "y": "float16"}, True),
    ("DEQUANTISE", {"x": "float32", "x1": "float32", "x2": "float32", "y": "float16"}, False),
    ("SOFTMAX", {"x": "float32", "y": "float16", "state": "float32"}, True),
    ("SOFTMAX", {"x": "float32", "y": "float16", "state": "float16"}, False),
    ("ROPE", {"x": "float16", "x1": "int32", "y": "float16"}, True),
    ("ROPE", {"x": "float16", "x1": "float32", "y": "float16"}, False),
    ("TOPK", {"x": "float16", "y": "int32"}, True),
    ("TOPK", {"x": "float16", "y": "float16"}, False),
    ("ARGMAX", {"x": "float16", "y": "int16"}, False),
    ("REDUCE_SUM", {"x": "float16", "y": "float16"}, False),
    ("MEAN_POOL", {"x": "float16", "x1": "uint8", "y": "float16"}, True),
    ("MLGRU", {"x": "float16", "x1": "float32", "state": "float32", "y": "float32"}, True),
    ("MLGRU", {"x": "float16", "x1": "float32", "state": "float32", "y": "float16"}, False),
    ("TABLE_PRECOMPUTE", {"x": "int8", "y": "int16"}, True),
    ("TABLE_PRECOMPUTE", {"x": "int8", "y": "int8"}, False),  # the sums do not fit
    ("GATHER", {"x": "float32", "x1": "int32", "y": "float32"}, False),
])
def test_formats_that_the_rtl_takes(op, formats, taken):
    assert takes(VectorOp[op], formats) is taken


def test_an_operator_without_rtl_for_integers_is_refused():
    with pytest.raises(ValueError, match="^vop of integers must be one that the vector unit has in "
                                         "RTL .copy, convert, mul, dequantise., not 'gelu'$"):
        op_cycles(RTL, VectorOp.GELU, 1, 8, variant=Variant(integer=True))


@pytest.mark.parametrize("op, width, message", [
    (VectorOp.SOFTMAX, 65, "width must be from 1 to row_elements, 64, not 65"),
    (VectorOp.GATHER, 8, r"vop must be one that the vector unit has in RTL \(.*\), not 'gather'"),
    (VectorOp.ROPE, 7, "width of rope must be even, not 7"),
])
def test_what_the_rtl_does_not_do_is_refused(op, width, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        op_cycles(RTL, op, 1, width)
