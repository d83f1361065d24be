"""The vector unit's cycles against formulas written out, and its stable numbers."""

import pytest

from machine.vector import OPERANDS, OPERATIONS, VectorConfig, VectorOp


def unit(**changes) -> VectorConfig:
    return VectorConfig(**({"name": "vector", "count": 8, "lanes": 128} | changes))


# distinct primes, so that no two terms of a formula can stand in for each other
PRIMES = {"add_cycles": 3, "mul_cycles": 5, "exp_cycles": 7, "gelu_cycles": 11,
          "add_tree_cycles": 13, "scalar_cycles": 17}


@pytest.mark.parametrize("width, lanes, beats", [
    (1, 128, 1), (128, 128, 1), (129, 128, 2 + 1), (512, 128, 4 + 1),
    (128 * 128, 128, 128 + 1), (128 * 128 + 1, 128, 129 + 2 + 1), (9, 2, 5 + 3 + 2 + 1)])
def test_tree_reduces_by_lanes_until_one_is_left(width, lanes, beats):
    assert unit(lanes=lanes, add_tree_cycles=3).tree_cycles(width) == 3 * beats


@pytest.mark.parametrize("rows, width, iterations, tree", [(1, 128, 1, 1), (3, 129, 2, 3),
                                                          (2, 512, 4, 5)])
def test_softmax_and_layernorm_follow_neupims(rows, width, iterations, tree):
    cfg = unit(**PRIMES)
    assert cfg.op_cycles(VectorOp.SOFTMAX, rows, width) == rows * (
        2 * tree * 13 + iterations * (3 + 7 + 5))
    assert cfg.op_cycles(VectorOp.LAYERNORM, rows, width) == rows * (
        2 * tree * 13 + 2 * 17 + 17 + iterations * (2 * 3 + 3 * 5))


def test_elementwise_rows_follow_end_to_end():
    cfg = unit(**PRIMES)
    assert cfg.op_cycles(VectorOp.ADD, 4, 32) == 3
    assert cfg.op_cycles(VectorOp.ADD, 4, 33) == 2 * 3
    assert cfg.op_cycles(VectorOp.GELU, 2, 128) == 2 * 11
    assert cfg.op_cycles(VectorOp.EXP, 1, 1) == 7
    assert cfg.op_cycles(VectorOp.ROPE, 1, 128) == 2 * 5 + 3


def test_row_operators_start_each_row_on_a_new_beat():
    cfg = unit(**PRIMES)
    assert cfg.op_cycles(VectorOp.RMSNORM, 4, 32) == 4 * (13 + 3 * 17 + 3 * 5)
    assert cfg.op_cycles(VectorOp.MERGE, 4, 64) == 4 * (4 * 17 + 2 * 7 + 3 + 2 * 5)
    assert cfg.op_cycles(VectorOp.TOPK, 2, 256, k=3) == 2 * 3 * 13 * 3


def test_table_precompute_writes_two_sums_for_every_activation():
    # K / 4 tables of 8 entries: 2 K sums (arXiv 2408.06003)
    assert unit(lanes=8).op_cycles(VectorOp.TABLE_PRECOMPUTE, 1, 64) == 64 // 4 * 8 // 8


@pytest.mark.parametrize("op", list(VectorOp))
def test_every_operator_has_operands_and_costs(op):
    cfg = unit()
    assert OPERANDS[op]
    assert cfg.op_cycles(op, 0, 64) == cfg.op_cycles(op, 64, 0) == 0
    one, two = cfg.op_cycles(op, 128, 128), cfg.op_cycles(op, 256, 128)
    assert 0 < one and two == 2 * one
    assert cfg.op_cycles(op, 1, 129) > cfg.op_cycles(op, 1, 128)


def test_each_operation_of_the_table_is_paid_for():
    """Raising one latency raises exactly the operators that use it, by their count."""
    for op, cost in OPERATIONS.items():
        base = unit().op_cycles(op, 1, 64)
        for field, count in (("add_cycles", cost.adds), ("mul_cycles", cost.muls),
                             ("exp_cycles", cost.exps + cost.scalar_exps),
                             ("gelu_cycles", cost.curves), ("add_tree_cycles", cost.trees),
                             ("scalar_cycles", cost.scalars)):
            assert unit(**{field: 2}).op_cycles(op, 1, 64) == base + count


# The numbers stand in compiled programs: an entry may be added, none may change.
CODES = {
    "COPY": 1, "CONVERT": 2, "ADD": 3, "MUL": 4, "SCALE": 5, "RELU": 6, "SIGMOID": 7, "SILU": 8,
    "GELU": 9, "GELU_TANH": 10, "EXP": 11, "TANH": 12, "REDUCE_SUM": 16, "REDUCE_MAX": 17,
    "ARGMAX": 18, "TOPK": 19, "SOFTMAX": 20, "LAYERNORM": 21, "RMSNORM": 22, "L2NORM": 23,
    "MEAN_POOL": 24, "ROPE": 32, "QUANTISE": 33, "DEQUANTISE": 34, "GATHER": 35, "SCATTER": 36,
    "MERGE": 37, "TABLE_PRECOMPUTE": 38, "MLGRU": 39,
}


def test_operator_codes_never_change():
    assert CODES.items() <= {op.name: int(op) for op in VectorOp}.items()


@pytest.mark.parametrize("field", ["count", "lanes", *PRIMES])
def test_every_number_is_at_least_one(field):
    assert getattr(unit(**{field: 1}), field) == 1
    with pytest.raises(ValueError, match=f"{field} must be at least 1, not 0"):
        unit(**{field: 0})


def test_name_must_not_be_empty():
    with pytest.raises(ValueError, match="name must be a non-empty name, not ''"):
        unit(name="")
