"""The systolic array's configuration, commands, tiles and closed-form cycles."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machine.pe import PeConfig
from machine.systolic import (
    COMMAND_BITS,
    COMMAND_FIELDS,
    MAX_LENGTH,
    SystolicConfig,
    Tile,
    matmul_cycles,
    matmul_tiles,
    pack_tile,
)

CFG = SystolicConfig(rows=8, cols=4, acc_rows=32)


def fails(call, sentence: str) -> None:
    """Hold `call` to raise ``ValueError`` with exactly `sentence` in its text."""
    with pytest.raises(ValueError) as caught:
        call()
    lines = [line.strip().removeprefix("Value error, ").split(" [type=")[0]
             for line in str(caught.value).splitlines()]
    assert sentence in lines


@pytest.mark.parametrize("change, sentence", [
    ({"rows": 0}, "rows must be at least 1, not 0"),
    ({"cols": -1}, "cols must be at least 1, not -1"),
    ({"count": 0}, "count must be at least 1, not 0"),
    ({"a_bits": 0}, "a_bits must be from 1 to 16, not 0"),
    ({"w_bits": 17}, "w_bits must be from 1 to 16, not 17"),
    ({"acc_rows": -1}, "acc_rows must be from 0 to 65536, not -1"),
    ({"acc_bits": 18},
     "acc_bits must be from 19 (for 8 products of int8 by int8) to 64, not 18"),
    ({"acc_bits": 65},
     "acc_bits must be from 19 (for 8 products of int8 by int8) to 64, not 65"),
    ({"dataflows": ()}, "dataflows must be one or more different ones of 'os', 'ws', not ()"),
    ({"fidelity": "exact"}, "fidelity must be one of rtl, peer:scale-sim, not 'exact'"),
    ({"dataflows": ("os", "os")},
     "dataflows must be one or more different ones of 'os', 'ws', not ('os', 'os')"),
])
def test_rejects_a_configuration_with_its_reason(change, sentence):
    fails(lambda: SystolicConfig(**{"rows": 8, "cols": 4, **change}), sentence)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 128])
def test_smallest_accumulator_holds_the_largest_tile_sum(rows):
    least = next(bits for bits in range(64) if rows * 128 * 128 <= (1 << bits) // 2 - 1)
    SystolicConfig(rows=rows, cols=1, acc_bits=least)
    fails(lambda: SystolicConfig(rows=rows, cols=1, acc_bits=least - 1),
          f"acc_bits must be from {least} (for {rows} products of int8 by int8) to 64, "
          f"not {least - 1}")


def test_latency_is_rows_plus_columns_plus_depth():
    for depth in (1, 2):
        cfg = dataclasses.replace(CFG, pe=PeConfig(depth_cycles=depth))
        assert cfg.latency_cycles == 8 + 4 + depth


@pytest.mark.parametrize("tile, sentence", [
    ({"dataflow": "ws", "m": 0, "k": 1}, "m must be from 1 to 65536, not 0"),
    ({"dataflow": "ws", "m": 1, "k": 9}, "k must be from 1 to 8, not 9"),
    ({"dataflow": "os", "m": 9, "k": 1}, "m must be from 1 to 8, not 9"),
    ({"dataflow": "os", "m": 1, "k": 65537}, "k must be from 1 to 65536, not 65537"),
    ({"dataflow": "ws", "m": 32, "k": 8, "emit": False, "acc_row": 1},
     "acc_row must be from 0 to 0 for 32 rows of 32, not 1"),
    ({"dataflow": "ws", "m": 4, "k": 8, "accumulate": True, "acc_row": -1},
     "acc_row must be from 0 to 28 for 4 rows of 32, not -1"),
])
def test_rejects_a_command_the_array_cannot_execute(tile, sentence):
    fails(lambda: Tile(**tile).check(CFG), sentence)


def test_accepts_commands_at_their_limits():
    Tile(dataflow="ws", m=MAX_LENGTH, k=8).check(CFG)
    Tile(dataflow="os", m=8, k=MAX_LENGTH).check(CFG)
    Tile(dataflow="ws", m=32, k=8, accumulate=True, emit=False).check(CFG)
    Tile(dataflow="ws", m=1, k=8, accumulate=True, emit=False, acc_row=31).check(CFG)


def test_rejects_a_dataflow_that_is_not_built():
    cfg = dataclasses.replace(CFG, dataflows=("ws",))
    fails(lambda: Tile(dataflow="os", m=1, k=1).check(cfg), "dataflow must be one of ws, not 'os'")


def test_command_fields_do_not_overlap_and_fit_the_word():
    used = [bit for _, low, width in COMMAND_FIELDS for bit in range(low, low + width)]
    assert len(used) == len(set(used)) and max(used) < COMMAND_BITS


def test_packed_command_holds_every_field_where_the_table_says():
    word = pack_tile(Tile(dataflow="os", m=7, k=300, accumulate=True, emit=False, acc_row=21))
    fields = {name: word >> low & ((1 << width) - 1) for name, low, width in COMMAND_FIELDS}
    assert fields == {"dataflow": 1, "accumulate": 1, "emit": 0, "acc_row": 21,
                      "m_last": 6, "k_last": 299}


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (8, 4, 8), (9, 5, 9), (33, 13, 41), (70, 4, 16)])
def test_tiles_cover_every_product_once_and_fit_the_array(dataflow, m, n, k):
    covered = [[[0] * k for _ in range(n)] for _ in range(m)]
    for tile, m_from, n_from, k_from in matmul_tiles(CFG, m, n, k, dataflow):
        tile.check(CFG)
        for row in range(m_from, m_from + tile.m):
            for col in range(n_from, min(n_from + CFG.cols, n)):
                for depth in range(k_from, k_from + tile.k):
                    covered[row][col][depth] += 1
        assert tile.accumulate == (k_from > 0)
        assert tile.emit == (k_from + tile.k == k)
    assert all(count == 1 for plane in covered for line in plane for count in line)


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (8, 4, 8), (9, 5, 9), (33, 13, 41), (70, 4, 16)])
def test_cycles_are_those_of_the_tiles_one_by_one(dataflow, m, n, k):
    tiles = [work.tile for work in matmul_tiles(CFG, m, n, k, dataflow)]
    if dataflow == "ws":
        start = 1 + tiles[0].k
        for tile, following in zip(tiles, tiles[1:], strict=False):
            start += CFG.ws_tile_cycles(tile.m, following.k)
        end = start + tiles[-1].m - 1
    else:
        end = 1 + tiles[0].k
        for tile, following in zip(tiles, tiles[1:], strict=False):
            end += CFG.os_tile_cycles(following.k, tile.m)
        end += tiles[-1].m - 1
    cycles = matmul_cycles(CFG, m, n, k, dataflow)
    assert cycles.total_cycles == end + CFG.latency_cycles + 1
    assert cycles.busy_cycles == sum(tile.act_beats for tile in tiles)
    assert min(cycles) >= 0 and sum(cycles) == cycles.total_cycles


sizes = st.integers(1, 40)


@settings(deadline=None)
@given(rows=sizes, cols=sizes, acc_rows=st.integers(40, 90), m=st.integers(1, 200),
       n=st.integers(1, 200), k=st.integers(1, 200), dataflow=st.sampled_from(["ws", "os"]))
def test_no_matmul_is_faster_than_its_elements_or_its_streams(
    rows, cols, acc_rows, m, n, k, dataflow
):
    cfg = SystolicConfig(rows=rows, cols=cols, acc_rows=acc_rows)
    cycles = matmul_cycles(cfg, m, n, k, dataflow)
    works = list(matmul_tiles(cfg, m, n, k, dataflow))
    assert m * n * k <= cycles.busy_cycles * cfg.macs_per_cycle
    assert cycles.total_cycles > sum(work.tile.weight_beats for work in works)
    assert cycles.total_cycles > sum(work.tile.sum_beats for work in works)
    assert cycles.total_cycles > cfg.latency_cycles


def test_a_long_ws_matmul_keeps_every_row_busy_once_filled():
    cfg = SystolicConfig(rows=128, cols=128, acc_rows=512)
    assert matmul_cycles(cfg, 512, 11008, 4096, "ws") == (129, 86 * 32 * 512, 0, 257)


def test_a_short_ws_matmul_waits_for_weights():
    cfg = SystolicConfig(rows=128, cols=128, acc_rows=512)
    assert matmul_cycles(cfg, 16, 256, 256, "ws") == (129, 64, 3 * (128 - 16), 257)


def test_k_beyond_the_rows_needs_accumulator_rows():
    cfg = dataclasses.replace(CFG, acc_rows=0)
    assert matmul_cycles(cfg, 3, 3, 8, "ws").total_cycles > 0
    for call in (matmul_cycles, lambda *sizes: list(matmul_tiles(*sizes))):
        fails(lambda call=call: call(cfg, 3, 3, 9, "ws"),
              "k must be at most 8 without 1 accumulator rows, not 9")


@pytest.mark.parametrize("sizes, sentence", [
    ((0, 1, 1), "m must be at least 1, not 0"),
    ((1, 0, 1), "n must be at least 1, not 0"),
    ((1, 1, -3), "k must be at least 1, not -3"),
])
def test_rejects_an_empty_matmul(sizes, sentence):
    fails(lambda: matmul_cycles(CFG, *sizes, "os"), sentence)
