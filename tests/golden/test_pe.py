"""What elements compute: codes of every kind, orders of addition, decoder, zero points."""

import numpy as np
import pytest

from golden.blocks import quantise
from golden.group import without_zeros
from golden.matmul import accumulate_groups
from golden.pe import accumulate, add, operand, tile_sums
from golden.qoq import decode, decode_beats
from golden.systolic import assemble, lay_out, run
from machine.formats import FORMATS
from machine.group import GroupConfig
from machine.pe import PeConfig
from machine.systolic import SystolicConfig, matmul_tiles


def test_integers_stand_for_themselves_and_for_their_codes():
    numbers = np.arange(-8, 8)
    assert operand(numbers, FORMATS["int4"]).tolist() == numbers.tolist()
    assert operand(numbers & 15, FORMATS["int4"]).tolist() == numbers.tolist()
    assert operand(np.array([0, 1]), FORMATS["int1"]).tolist() == [0, -1]
    assert operand(np.array([0, 1]), FORMATS["uint1"]).tolist() == [0, 1]
    assert operand(np.arange(8), FORMATS["bipolar3"]).tolist() == [-7, -5, -3, -1, 1, 3, 5, 7]
    assert operand(np.array([0, 1, 3]), FORMATS["ternary"]).tolist() == [0, 1, -1]
    assert operand(np.array([0, 3, 4, 7]), FORMATS["shift3"]).tolist() == [1, 8, -1, -8]


def order(cfg: SystolicConfig, dataflow: str, beats: int) -> str:
    """Return how the sums of a tile are put together, as text."""
    zero = np.array("0", dtype=object)
    return str(accumulate(cfg, dataflow, beats, zero,
                          lambda sums, beat: f"({sums}+p{beat})", lambda x, y: f"[{x}+{y}]"))


def test_ws_adds_down_the_rows_the_first_beat_of_weights_last():
    cfg = SystolicConfig(rows=4, cols=1)
    assert order(cfg, "ws", 3) == "(((0+p2)+p1)+p0)"


@pytest.mark.parametrize("sums, beats, text", [
    (1, 3, "(((0+p0)+p1)+p2)"),
    (2, 5, "[(((0+p0)+p2)+p4)+((0+p1)+p3)]"),
    (3, 4, "[[((0+p0)+p3)+(0+p1)]+(0+p2)]"),
    (3, 2, "[[(0+p0)+(0+p1)]+0]"),
])
def test_os_deals_beats_to_partial_sums_and_merges_them_in_order(sums, beats, text):
    cfg = SystolicConfig(rows=4, cols=1, dataflows=("os",),
                         pe=PeConfig(add_cycles=3, partial_sums=sums))
    assert order(cfg, "os", beats) == text


def test_a_tile_of_lanes_is_a_sum_over_beats_and_lanes():
    cfg = SystolicConfig(rows=2, cols=2, a_bits=3, w_bits=3, pe=PeConfig(k_lanes=2))
    acts = np.array([[[1, 2], [3, 7]]])  # one row, two beats of two lanes; 7 is -1
    weights = np.array([[[1, 0], [0, 1]], [[2, 2], [3, 3]]])
    assert tile_sums(cfg, "ws", acts, weights).tolist() == [[1 + 6 - 3, 2 + 6 - 3]]


def test_stored_rows_wrap_at_any_width():
    cfg = SystolicConfig(rows=1, cols=1, acc_bits=64)
    low = np.array([[-(1 << 63)]])
    assert add(cfg, low, low).tolist() == [[0]]
    assert add(cfg, low, np.array([[-1]])).tolist() == [[(1 << 63) - 1]]


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_a_ragged_k_leaves_lanes_empty(dataflow):
    cfg = SystolicConfig(rows=2, cols=2, pe=PeConfig(k_lanes=3))
    rng = np.random.default_rng(0)
    a, w = rng.integers(-128, 128, (2, 7)), rng.integers(-128, 128, (7, 2))
    works = list(matmul_tiles(cfg, 2, 2, 7, dataflow))
    sums = run(cfg, [work.tile for work in works], *lay_out(cfg, works, a, w))
    want = [[sum(int(a[i, k]) * int(w[k, j]) for k in range(7)) for j in range(2)]
            for i in range(2)]
    assert sums.tolist() == want


def test_infinite_blocks_of_both_signs_make_nan():
    cfg = SystolicConfig(rows=2, cols=1, a_bits=8, w_bits=8, acc_bits=32, pe=PeConfig(
        kind="mx", a_format="mxfp8_e5m2", w_format="mxfp8_e5m2", acc_format="float32", k_lanes=2))
    one, infinity, minus, scale = 0x3C, 0x7C, 0xFC, 127
    weights = np.full((2, 3, 1), one)
    weights[:, 2] = scale
    for blocks, want in [
        ([[infinity, one, scale], [one, one, scale]], [np.inf]),
        ([[infinity, one, scale], [one, minus, scale]], [np.nan]),
        ([[infinity, minus, scale], [one, one, scale]], [np.nan]),
    ]:
        sums = tile_sums(cfg, "os", np.array([blocks]), weights)
        np.testing.assert_array_equal(sums.astype(np.int32).view(np.float32)[0], want)


def test_decoder_of_every_code_scale_and_zero_is_the_product_modulo_256():
    q, s, z = (part.ravel() for part in np.mgrid[:16, :256, :16])
    want = [(s * (q - z) + 128) % 256 - 128 for q, s, z in
            zip(q.tolist(), s.tolist(), z.tolist(), strict=True)]
    assert decode(q, s, z).tolist() == want


def test_decoded_weights_of_the_quantiser_do_not_wrap():
    rng = np.random.default_rng(1)
    parts = quantise(rng.normal(size=(16, 512)) * rng.choice([1, 30], (16, 512)),
                     FORMATS["qoq_w4"])
    s, z = (np.repeat(parts[name], 128, axis=1).astype(np.int64) for name in ("scales", "zeros"))
    exact = s * (parts["elements"].astype(np.int64) - z)
    assert decode(parts["elements"], s, z).tolist() == exact.tolist()
    assert np.abs(exact).max() > 100


def test_groups_of_codes_serve_their_beats_and_all_lanes():
    cfg = SystolicConfig(rows=2, cols=2, pe=PeConfig(kind="qoq", k_lanes=2))
    codes = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])
    got = decode_beats(cfg, codes, [2, 1], np.array([[1, 10], [2, 3]]), np.array([[0, 1], [9, 0]]))
    assert got.tolist() == [[1, 2, 20, 30], [5, 6, 60, 70], [0, 2, 33, 36]]


def test_zero_points_come_off_once_a_group():
    rng = np.random.default_rng(2)
    cfg = GroupConfig(cols=3, group=5)
    q_a, q_w = rng.integers(-128, 128, (4, 5)), rng.integers(0, 16, (5, 3))
    zeros = rng.integers(0, 16, 3)
    got = without_zeros(cfg, q_a @ q_w, q_a.sum(axis=1), [4], zeros[None])
    want = [[sum(int(a) * (int(w) - int(z)) for a, w in zip(row, col, strict=True))
             for col, z in zip(q_w.T, zeros, strict=True)] for row in q_a]
    assert got.tolist() == want


def test_groups_of_a_shift_and_add_array_are_those_of_a_grouped_product():
    """One tile a group, zero points off behind it, then scales: MATMUL's grouped product."""
    rng = np.random.default_rng(3)
    size, groups = 8, 3
    cfg = SystolicConfig(rows=4, cols=2, w_bits=4, pe=PeConfig(kind="mixpe", w_format="uint4"))
    stage = GroupConfig(cols=2, group=size)
    a, w = rng.integers(-128, 128, (4, size * groups)), rng.integers(0, 16, (size * groups, 2))
    zeros, scales = rng.integers(0, 16, (groups, 2)), rng.normal(size=(groups, 2))
    total = np.zeros((4, 2), np.float32)
    for group in range(groups):
        part = slice(group * size, (group + 1) * size)
        works = list(matmul_tiles(cfg, 4, 2, size, "os"))
        sums = run(cfg, [work.tile for work in works], *lay_out(cfg, works, a[:, part], w[part]))
        sums = assemble(works, sums, 4, 2)
        whole = without_zeros(stage, sums, a[:, part].sum(axis=1), [4], zeros[group : group + 1])
        total = total + whole.astype(np.float32) * scales[group].astype(np.float32)
    want = accumulate_groups(np.zeros((4, 2), np.float32), a, w, size, scales, zeros, None)
    assert total.view(np.uint32).tolist() == want.view(np.uint32).tolist()
