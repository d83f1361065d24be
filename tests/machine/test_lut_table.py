"""The blocks that make and quantise tables: what they refuse, and their cycles."""

import pytest
from pydantic import ValidationError

from machine.lut_table import TableQuantiserConfig, TableUnitConfig
from machine.vector import ScaleRule, VectorConfig, VectorOp

VECTOR = VectorConfig(name="v", count=1, lanes=16)


@pytest.mark.parametrize("change, sentence", [
    ({"format": "int10"},
     "format must be int11 or wider for sums of 4 activations of int8, not 'int10'"),
    ({"k": 6, "format": "int10"},
     "format must be int11 or wider for sums of 6 activations of int8, not 'int10'"),
    ({"a_format": "uint8"}, "a_format must be int2 to int16 or float16, not 'uint8'"),
    ({"a_format": "float16"}, ("format must be one of float16, float8_e4m3fn, float8_e5m2 for sums "
     "of float16, not 'int11'")),
    ({"k": 7}, "k must be from 2 to 6, not 7"),
    ({"count": 0}, "count must be at least 1, not 0"),
])
def test_wrong_table_units_are_refused(change, sentence):
    with pytest.raises(ValidationError) as error:
        TableUnitConfig(**change)
    assert str(error.value.errors()[0]["ctx"]["error"]) == sentence


@pytest.mark.parametrize("change, sentence", [
    ({"rule": ScaleRule.ROW_ABSMAX}, "rule must be table or block, not 'row_absmax'"),
    ({"block": 2}, "block must be from 1 to 1 for a scale a table, not 2"),
    ({"rule": ScaleRule.BLOCK, "block": 0},
     "block must be from 1 to 4096 for a scale a block, not 0"),
    ({"format": "int25"}, "format must be int2 to int24, not 'int25'"),
    ({"out_format": "int9"}, "out_format must be int2 to int8, not 'int9'"),
])
def test_wrong_quantisers_are_refused(change, sentence):
    with pytest.raises(ValidationError) as error:
        TableQuantiserConfig(**{"rule": ScaleRule.TABLE, "block": 1, **change})
    assert str(error.value.errors()[0]["ctx"]["error"]) == sentence


@pytest.mark.parametrize("missing", ["rule", "block"])
def test_which_tables_share_a_scale_has_no_default(missing):
    given = {"rule": ScaleRule.TABLE, "block": 1}
    del given[missing]
    with pytest.raises(ValidationError, match="Field required"):
        TableQuantiserConfig(**given)


def test_fused_tables_cost_the_element_wise_operation_alone():
    # 8 rows of 64: 32 beats of 16 lanes; 128 groups, four units keep up with the lanes.
    fused = TableUnitConfig(count=4, fused=True)
    assert fused.cycles(VECTOR, VectorOp.SILU, 8, 64) == 32 + 1
    # Unfused: 1024 entries more, 64 beats, and the tables written and read once each.
    unfused = TableUnitConfig(count=4)
    assert unfused.cycles(VECTOR, VectorOp.SILU, 8, 64) == 32 + 64
    assert unfused.traffic_bits(8, 64) == 128 * 8 * 11


def test_too_few_fused_units_set_the_pace():
    assert TableUnitConfig(count=1, fused=True).cycles(VECTOR, VectorOp.SILU, 8, 64) == 128 + 1
