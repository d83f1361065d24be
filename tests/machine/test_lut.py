"""The lookup array's configuration: what it refuses, and its numbers."""

import pytest
from pydantic import ValidationError

from machine.errors import UserError
from machine.lut import (
    COMMAND_FIELDS,
    MAX_TABLES,
    LutConfig,
    LutTile,
    TableConfig,
    TableMemoryConfig,
    lut_matmul_cycles,
    lut_matmul_tiles,
    pack_lut_tile,
    sum_bits,
)

SMALL = LutConfig(m=2, n=3, w_bits=4)


def fails(make, sentence: str) -> None:
    """Check that `make` is refused with exactly `sentence`."""
    with pytest.raises(ValueError) as error:
        make()
    found = error.value
    said = found.errors()[0]["ctx"]["error"] if isinstance(found, ValidationError) else found
    assert str(said) == sentence


@pytest.mark.parametrize("change, sentence", [
    ({"m": 0}, "m must be from 1 to 64, not 0"),
    ({"m": 65}, "m must be from 1 to 64, not 65"),
    ({"n": 0}, "n must be from 1 to 4096, not 0"),
    ({"k": 1}, "k must be from 2 to 6, not 1"),
    ({"k": 7}, "k must be from 2 to 6, not 7"),
    ({"w_bits": 9}, "w_bits must be from 1 to 8, not 9"),
    ({"a_bits": 17}, "a_bits must be from 2 to 16, not 17"),
    ({"depth_cycles": 3}, "depth_cycles must be from 1 to 2, not 3"),
    ({"count": 0}, "count must be from 1 to 32, not 0"),
    ({"fidelity": "analytic"}, "fidelity must be rtl, not 'analytic'"),
    ({"acc_bits": 15},
     "acc_bits must be from 16 (for 1 table of int8 by 8 weight bits) to 64, not 15"),
    ({"acc_bits": 65},
     "acc_bits must be from 16 (for 1 table of int8 by 8 weight bits) to 64, not 65"),
    ({"unit": "mac", "acc_bits": 17},
     "acc_bits must be from 18 (for 4 activations of 8 bits by 8 weight bits) to 64, not 17"),
    ({"tables": TableConfig(format="int10", precomputed=False)},
     "tables.format must be int11 or wider for sums of 4 activations of 8 bits, not 'int10'"),
    ({"k": 5, "tables": TableConfig(format="int10", symmetric=False, remapped=False,
                                    precomputed=False)},
     "tables.format must be int11 or wider for sums of 5 activations of 8 bits, not 'int10'"),
    ({"tables": TableConfig(format="float16"), "acc_bits": 24},
     "acc_bits must be 16 or 32 for tables of float16, float16 or float32, not 24"),
])
def test_wrong_configurations_are_refused_with_what_would_do(change, sentence):
    fails(lambda: LutConfig(**change), sentence)


@pytest.mark.parametrize("change, sentence", [
    ({"format": "uint8"}, ("format must be int2 to int32 or one of float16, float8_e4m3fn, "
     "float8_e5m2, not 'uint8'")),
    ({"format": "int1"}, ("format must be int2 to int32 or one of float16, float8_e4m3fn, "
     "float8_e5m2, not 'int1'")),
    ({"symmetric": False}, ("remapped must be false for whole tables, which have no sign to remap, "
     "not True")),
    ({"format": "float16", "precomputed": False},
     "precomputed must be true for entries of float16: the array adds integers only, not False"),
])
def test_wrong_tables_are_refused(change, sentence):
    fails(lambda: TableConfig(**change), sentence)


def test_an_unknown_format_of_tables_names_the_nearest():
    with pytest.raises((UserError, ValidationError), match="did you mean 'float16'"):
        TableConfig(format="float61")


def test_a_table_memory_holds_something():
    fails(lambda: TableMemoryConfig(bytes=0), "bytes must be at least 1, not 0")


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("k", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("a_bits", [2, 3, 8])
def test_sum_bits_are_the_fewest_that_hold_every_entry(k, a_bits, symmetric):
    low, high = -(1 << a_bits - 1), (1 << a_bits - 1) - 1
    # Half tables: -a of the last, +-a of the others. Whole ones: some of them.
    most, least = (k * -low, -high + (k - 1) * low) if symmetric else (k * high, k * low)
    bits = next(b for b in range(2, 40) if -(1 << b - 1) <= least and most < 1 << b - 1)
    assert sum_bits(k, a_bits, symmetric=symmetric) == bits


@pytest.mark.parametrize("unit", ["lut", "add", "mac"])
@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("w_bits", [1, 2, 8])
def test_the_least_accumulator_holds_the_products_of_one_step(unit, k, w_bits):
    tables = TableConfig(format="int11", precomputed=False)
    cfg = LutConfig(unit=unit, k=k, w_bits=w_bits, tables=tables)
    weight = (1 << w_bits) - 1 if unit == "lut" else 1 << w_bits - 1
    most = k * 128 * weight
    assert 1 << cfg.least_acc_bits - 2 <= most < 1 << cfg.least_acc_bits - 1


def test_the_least_accumulator_holds_a_table_of_any_entries():
    cfg = LutConfig(w_bits=3)
    assert 1 << cfg.least_acc_bits - 2 <= 128 * 7 < 1 << cfg.least_acc_bits - 1


def test_bits_are_the_papers_formulas():
    cfg = LutConfig(w_bits=2)  # M2 N64 K4, INT8 tables
    assert cfg.table_bits == 2 * 8 * 8  # equation 7
    assert cfg.weight_bits == 4 * 64 * 2  # equation 8
    assert (cfg.table_beat_bits, cfg.weight_beat_bits, cfg.sum_beat_bits) == (128, 256, 2048)
    assert cfg.macs_per_cycle == 512  # of an A100 INT8 tensor core: 8 x 4 x 16


@pytest.mark.parametrize("change, row, group, entries", [
    ({}, 64, 4, 8),
    ({"k": 5}, 128, 5, 16),
    ({"tables": TableConfig(format="int16")}, 128, 4, 8),
    ({"tables": TableConfig(format="int11", precomputed=False)}, 32, 4, 8),
    ({"tables": TableConfig(format="int10", symmetric=False, remapped=False)}, 160, 4, 16),
    ({"unit": "add", "a_bits": 6}, 24, 4, 8),
    ({"unit": "mac", "a_bits": 6, "w_bits": 3}, 24, 12, 8),
])
def test_widths_of_the_beats(change, row, group, entries):
    cfg = LutConfig(m=2, n=3, **change)
    assert (cfg.row_bits, cfg.group_bits, cfg.entries) == (row, group, entries)
    assert (cfg.table_beat_bits, cfg.weight_beat_bits) == (2 * row, 3 * group)


def test_weights_are_reinterpreted_where_half_a_table_is_kept():
    assert LutConfig().reinterpreted and LutConfig().takes_tables
    whole = TableConfig(format="int10", symmetric=False, remapped=False, precomputed=False)
    assert not LutConfig(tables=whole).reinterpreted and not LutConfig(tables=whole).takes_tables
    assert not LutConfig(unit="mac").reinterpreted and not LutConfig(unit="add").takes_tables


def test_a_command_is_packed_field_by_field():
    tile = LutTile(rows=2, tables=0x1235, planes=4, accumulate=True, emit=False)
    word = pack_lut_tile(tile)
    fields = {name: word >> low & (1 << width) - 1 for name, low, width in COMMAND_FIELDS}
    assert fields == {"accumulate": 1, "emit": 0, "planes_last": 3, "rows_last": 1,
                      "tables_last": 0x1234}
    assert word == 0x1234_0131


def test_fields_of_the_command_do_not_overlap():
    taken = [bit for _, low, width in COMMAND_FIELDS for bit in range(low, low + width)]
    assert len(taken) == len(set(taken)) and max(taken) < 32


@pytest.mark.parametrize("change, sentence", [
    ({"rows": 3}, "rows must be from 1 to 2, not 3"),
    ({"planes": 5}, "planes must be from 1 to 4, not 5"),
    ({"tables": 0}, "tables must be from 1 to 65536, not 0"),
])
def test_commands_the_array_cannot_execute_are_refused(change, sentence):
    fails(lambda: LutTile(**{"rows": 1, "tables": 1, "planes": 1, **change}).check(SMALL), sentence)


@pytest.mark.parametrize("m, n, k, planes", [(1, 1, 1, 1), (5, 7, 33, 3), (2, 3, 16, 4)])
def test_tiles_cover_the_product_once(m, n, k, planes):
    tables = -(-k // SMALL.k)
    seen = [(n_from + c, m_from + r, t) for tile, m_from, n_from, start in
            lut_matmul_tiles(SMALL, m, n, k, planes)
            for c in range(min(SMALL.n, n - n_from)) for r in range(tile.rows)
            for t in range(start, start + tile.tables)]
    assert sorted(seen) == [(c, r, t) for c in range(n) for r in range(m) for t in range(tables)]


def test_a_long_product_stays_in_the_sums_between_commands():
    k = SMALL.k * (MAX_TABLES + 3)
    tiles = [work.tile for work in lut_matmul_tiles(SMALL, 1, 1, k, 1)]
    assert [(t.tables, t.accumulate, t.emit) for t in tiles] == [
        (MAX_TABLES, False, False), (3, True, True)]


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("unit", ["lut", "mac"])
@pytest.mark.parametrize("m, n, k, planes", [(1, 1, 1, 1), (5, 7, 33, 3), (4, 3, 16, 4)])
def test_cycles_are_those_of_the_tiles_one_after_the_other(m, n, k, planes, unit, depth):
    cfg = LutConfig(m=2, n=3, unit=unit, depth_cycles=depth)
    tiles = [work.tile for work in lut_matmul_tiles(cfg, m, n, k, planes)]
    found = lut_matmul_cycles(cfg, m, n, k, planes)
    between = sum(cfg.tile_cycles(tile) for tile in tiles[:-1])
    last = tiles[-1]
    assert found.busy_cycles == sum(tile.weight_beats(cfg) for tile in tiles)
    assert found.total_cycles == (1 + between + last.weight_beats(cfg)
                                  + cfg.latency_cycles + last.rows - 1)


def test_the_default_array_loses_a_cycle_a_tile_and_no_more():
    found = lut_matmul_cycles(LutConfig(), 128, 4096, 4096, 2)
    assert found.busy_cycles == 64 * 64 * 1024 * 2
    assert found.wait_cycles == 64 * 64 - 1


@pytest.mark.parametrize("sizes, sentence", [
    ((0, 1, 1, 1), "m must be at least 1, not 0"),
    ((1, 1, 1, 5), "planes must be from 1 to 4, not 5"),
])
def test_wrong_products_are_refused(sizes, sentence):
    fails(lambda: lut_matmul_cycles(SMALL, *sizes), sentence)
