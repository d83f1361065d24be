"""PIM configurations, commands of a GEMV by formula, refusals that name the numbers."""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

import machine.dram as dram
from machine.pim import BankUnitConfig, PimConfig
from machine.pim_macros import (
    PimCounts,
    PimOp,
    attend_ops,
    attend_shape,
    gwrite_cycles,
    header_cycles,
    logit_ops,
    logit_shape,
)

PRESETS = Path(dram.__file__).parent / "presets"


def read(kind, path):
    return TypeAdapter(kind).validate_json(json.dumps(tomllib.loads(path.read_text())))


HBM2 = read(dram.DramConfig, PRESETS / "dram/hbm2-neupims.toml")
NEUPIMS = read(PimConfig, PRESETS / "pim/neupims.toml")


def test_every_preset_is_read_and_fits_its_memory():
    for path in (PRESETS / "pim").glob("*.toml"):
        read(PimConfig, path).check(HBM2)


def test_the_latency_of_a_bank_unit_is_its_tree():
    # NeuPIMs counts 6 for sixteen lanes.
    assert BankUnitConfig().latency_cycles == 6
    assert BankUnitConfig(lanes=2).latency_cycles == 3


def test_sizes_of_rows_columns_and_buffer():
    assert NEUPIMS.row_columns(HBM2) == 32
    assert NEUPIMS.buffer_columns == 32
    assert NEUPIMS.units(HBM2) == 32
    assert replace(NEUPIMS, bundle_banks=8).units(HBM2) == 4
    assert replace(NEUPIMS, unit=BankUnitConfig(format="int8")).row_columns(HBM2) == 64


def test_composites_are_as_long_as_the_source_says():
    # 2 * (max(n, 6) + 1)
    assert [NEUPIMS.composite_cycles(n) for n in (1, 6, 8, 32)] == [14, 14, 18, 66]


def counts(length, heads=8):
    k = logit_shape(HBM2, NEUPIMS, heads=heads, depth=128, length=length)
    v = attend_shape(HBM2, NEUPIMS, depth=128, length=length)
    return k.counts(HBM2, NEUPIMS) + v.counts(HBM2, NEUPIMS).times(heads)


def test_commands_of_one_request_are_those_neupims_counts():
    # GPT3-7B, TP 4: 8 heads of 128, 512 tokens.
    assert counts(512) == PimCounts(gwrites=10, headers=64, activations=512, dots=2048, reads=160)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 511, 512, 513, 1025])
@pytest.mark.parametrize("heads", [1, 3, 4, 5, 8])
@pytest.mark.parametrize("row_buffers", [1, 2])
def test_formulas_count_what_the_expansion_lists(length, heads, row_buffers):
    pim = replace(NEUPIMS, row_buffers=row_buffers)
    k = logit_shape(HBM2, pim, heads=heads, depth=128, length=length)
    v = attend_shape(HBM2, pim, depth=128, length=length)
    ops = logit_ops(HBM2, pim, k, list(range(k.chunks * k.tiles)))
    ops += attend_ops(HBM2, pim, v, [list(range(v.chunks * v.tiles))] * heads)
    kinds = [op.kind for op in ops]
    got = PimCounts(
        gwrites=kinds.count("GWRITE"), headers=kinds.count("HEADER"),
        activations=kinds.count("HEADER") * 8,
        dots=sum(op.dots for op in ops if op.kind in ("DOT", "GEMV")),
        reads=kinds.count("READRES") + kinds.count("GEMV"))
    assert got == counts(length, heads)
    assert sum(op.dots for op in ops if op.kind == "HEADER") == got.dots
    # By hand: tokens in tiles of 32, rows of four heads; probabilities in columns of 16.
    assert got.reads == -(-length // 32) * heads + -(-length // 512) * 4 * heads
    assert got.dots == heads * (-(-length // 32) * 8 + -(-length // 16) * 4)


def test_a_narrow_operand_takes_fewer_columns():
    pim = replace(NEUPIMS, unit=BankUnitConfig(format="int8"))
    shape = logit_shape(HBM2, pim, heads=8, depth=128, length=32)
    assert (shape.chunks, shape.reads) == (1, 8)


def test_estimates_are_the_sources():
    # channel_state.cc: 8 groups, 32 banks to close, 32 dots, 4 results.
    header = PimOp("HEADER", dots=32, reads=4)
    assert header_cycles(HBM2, NEUPIMS, header, closed=0, groups=8) == 90 + 14 + 64 + 6
    assert header_cycles(HBM2, NEUPIMS, header, closed=32, groups=8) == 160 + 174
    assert header_cycles(HBM2, NEUPIMS, header, closed=0, groups=0) == -30 + 14 + 64 + 6
    assert header_cycles(HBM2, NEUPIMS, PimOp("HEADER", dots=2, reads=1), closed=0,
                         groups=8) == 90 + 14 + 12
    assert gwrite_cycles(HBM2, NEUPIMS, opened=True, other=False) == 96
    assert gwrite_cycles(HBM2, NEUPIMS, opened=False, other=False) == 28 + 96
    assert gwrite_cycles(HBM2, NEUPIMS, opened=False, other=True) == 5 + 28 + 96


@pytest.mark.parametrize("change, message", [
    ({"buffer_bytes": 1000},
     "buffer_bytes must be a multiple of 32, a column of 16 float16, not 1000"),
    ({"dot_cycles": 0}, "dot_cycles must be at least 1, not 0"),
    ({"bundle_banks": 3}, "bundle_banks must be a power of two, not 3"),
    ({"slack_min_cycles": -1}, "slack_min_cycles must be at least 0, not -1"),
])
def test_a_configuration_without_meaning_is_refused(change, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        replace(NEUPIMS, **change)


def test_lanes_are_a_power_of_two():
    with pytest.raises(ValidationError, match="lanes must be a power of two, at least 2, not 12"):
        BankUnitConfig(lanes=12)


def test_a_bundle_lies_in_a_rank():
    with pytest.raises(ValueError,
                       match="^bundle_banks must be at most 16, the banks of a rank, not 32$"):
        replace(NEUPIMS, bundle_banks=32).check(HBM2)


def test_a_vector_larger_than_the_buffer_is_refused_with_both_sizes():
    small = replace(NEUPIMS, buffer_bytes=512)
    message = "^columns of a vector must be at most 16, those of the global buffer, not 32$"
    with pytest.raises(ValueError, match=message):
        logit_shape(HBM2, small, heads=8, depth=128, length=32)
    with pytest.raises(ValueError, match=message):
        attend_shape(HBM2, small, depth=128, length=32)


def test_a_head_past_the_row_end_is_refused_with_both_sizes():
    message = "^columns of a head must be at most 32, the columns of a row, not 33$"
    with pytest.raises(ValueError, match=message):
        logit_shape(HBM2, NEUPIMS, heads=1, depth=513, length=32)


def test_a_row_the_bank_does_not_have_is_refused():
    shape = logit_shape(HBM2, NEUPIMS, heads=4, depth=128, length=32)
    with pytest.raises(ValueError, match="^row must be from 0 to 32767, not 32768$"):
        logit_ops(HBM2, NEUPIMS, shape, [32768])
