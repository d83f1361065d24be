"""The configuration of the float unit: what it refuses, its stages, where registers lie."""

import pytest

from machine.floats import OPERATIONS, FloatConfig, registers_after


@pytest.mark.parametrize("fields, message", [
    ({"operation": "add", "a": "int8"}, "a must be a format that add takes, not 'int8'"),
    ({"operation": "add", "out": "int8"}, "out must be a format that add takes, not 'int8'"),
    ({"operation": "convert", "out": "mxfp4"},
     "out must be a format that convert takes, not 'mxfp4'"),
    ({"operation": "convert", "out": "float16", "rounding": "floor"},
     "rounding must be nearest_even for a float, not 'floor'"),
    ({"operation": "maximum", "b": "float16"},
     "b must be the format of a, float32, not 'float16'"),
    ({"operation": "add", "depth_cycles": 6}, "depth_cycles must be from 0 to 5, not 6"),
    ({"operation": "divide", "depth_cycles": 31}, "depth_cycles must be from 0 to 30, not 31"),
])
def test_rejects(fields, message):
    with pytest.raises(ValueError) as error:
        FloatConfig(**fields)
    assert message in str(error.value)


def test_a_format_may_be_called_by_its_alias():
    cfg = FloatConfig(operation="add", a="fp16", b="fp16", out="fp16")
    assert cfg.format_of("a").name == "float16"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_depth_is_a_latency(operation):
    deepest = FloatConfig(operation=operation).max_depth_cycles
    for depth in range(deepest + 1):
        cfg = FloatConfig(operation=operation, depth_cycles=depth)
        assert cfg.latency_cycles == depth
        after = registers_after(len(cfg.stages), depth)
        assert len(set(after)) == depth and all(0 <= stage < deepest for stage in after)


def test_registers_leave_stages_that_differ_by_one_at_most():
    for stages in range(1, 40):
        for depth in range(stages):
            ends = (-1, *registers_after(stages, depth), stages - 1)
            sizes = {b - a for a, b in zip(ends, ends[1:], strict=False)}
            assert max(sizes) - min(sizes) <= 1


def test_a_quotient_has_one_digit_more_than_a_root():
    # float32: 24 significant bits and a guard bit; a quotient below 1 begins with a zero.
    assert FloatConfig(operation="square_root").digits == 25
    assert FloatConfig(operation="divide").digits == 26
