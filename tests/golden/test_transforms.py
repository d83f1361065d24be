"""Offline transforms: what a symbol stores, against plain numpy."""

import re

import numpy as np
import pytest

from golden.transforms import transform
from machine.approx import Stretch, rotary_steps
from machine.errors import UserError
from machine.program import Space, Symbol, SymbolKind


def stored(name, tensors, symbol="W", shape=(1,)):
    taken = transform(Symbol(symbol, SymbolKind.CONST, Space.DRAM, 0, shape, "int8",
                             transform=name), tensors)
    return None if taken is None else taken.values


def test_no_transform_takes_the_tensor_of_the_symbol_s_name():
    w = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(stored("", {"W": w, "V": -w}), w)
    assert stored("", {"V": w}) is None


def test_transpose_swaps_the_last_two_axes():
    w = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(stored("transpose", {"W": w}), np.einsum("abc->acb", w))


def test_tile_cuts_and_pads_with_zeros():
    w = np.arange(1, 16).reshape(3, 5)
    tiles = stored("tile/2/4", {"W": w})
    assert tiles.shape == (2, 2, 2, 4)
    for m, n in np.ndindex(4, 8):
        expected = w[m, n] if m < 3 and n < 5 else 0
        assert tiles[m // 2, n // 4, m % 2, n % 4] == expected


def test_lut_codes_look_up_what_the_weights_weigh():
    rng = np.random.default_rng(1)
    q, a = rng.integers(0, 8, (5, 12)), rng.integers(-9, 9, 12)
    codes = stored("lut_remap/3", {"W": q})
    assert codes.shape == (3, 5, 3)
    for n in range(5):
        total = 0
        for b, g in np.ndindex(3, 3):
            code, four = int(codes[b, n, g]), a[4 * g : 4 * g + 4]
            signs = [1 if code >> i & 1 else -1 for i in range(3)] + [-1]
            entry = int(np.dot(signs, four))
            total += (-entry if code & 8 else entry) << b
        assert total == int(np.dot(2 * q[n] - 7, a))


def test_rows_have_a_scale_each_and_codes_within_half_a_step():
    w = np.random.default_rng(2).normal(size=(4, 9)).astype(np.float32)
    codes = stored("rows/w/int8/elements", {"w": w})
    scales = stored("rows/w/int8/scales", {"w": w})
    np.testing.assert_allclose(scales, np.abs(w).max(axis=1) / 127, rtol=1e-6)
    assert np.abs(codes).max(axis=1).tolist() == [127] * 4
    assert (np.abs(codes * scales[:, None] - w) <= 0.5001 * scales[:, None]).all()


def test_groups_take_the_sections_of_a_block_format():
    w = np.random.default_rng(3).normal(size=(3, 256))
    parts = {part: stored(f"group/w/uint4_group/{part}", {"w": w})
             for part in ("elements", "scales", "zeros")}
    assert [parts[p].shape for p in parts] == [(3, 256), (3, 2), (3, 2)]
    groups = parts["elements"].reshape(3, 2, 128) - parts["zeros"][..., None]
    error = np.abs(groups * parts["scales"][..., None] - w.reshape(3, 2, 128))
    assert (error <= 1.001 * parts["scales"][..., None]).all()


@pytest.mark.parametrize("name, stretch", [
    ("rotary/8/10000.0/4.0", Stretch(4.0)),
    ("rotary_bands/8/10000.0/4.0/1.0/4.0/64", Stretch(4.0, 1.0, 4.0, 64))])
def test_words_of_a_rotation_come_from_no_tensor(name, stretch):
    words = stored(name, {})
    steps = rotary_steps(10000.0, 8, stretch)
    assert [int(low) + (int(high) << 24) for low, high in zip(words[:4], words[4:], strict=True)
            ] == list(steps)


def test_an_empty_state_is_attention_over_no_keys():
    state = stored("empty_state", {}, shape=(2, 3, 6))
    assert np.isneginf(state[..., 0]).all() and not state[..., 1:].any()
    assert state.shape == (2, 3, 6)


def test_source_of_a_group_may_hold_a_slash():
    w = np.ones((1, 128))
    assert stored("group/layer/w/int4_group/elements", {"layer/w": w}).shape == (1, 128)


@pytest.mark.parametrize("name, message", [
    ("transposed", ("W: transform must be one of empty_state, group, k_sort, lut_remap, rotary, "
                    "rotary_bands, rows, tile, transpose, not 'transposed'; "
                    "did you mean 'transpose'?")),
    ("tile/8", "W: transform tile must be given 2 arguments, not 1"),
    ("rotary/8/1e4", "W: transform rotary must be given 3 arguments, not 2"),
    ("rotary/7/1e4/2", "W: width must be even and at least 2, not 7"),
    ("tile/8/0", "W: tile columns must be a whole number of at least 1, not '0'"),
    ("group/W/uint4_group/scale", ("W: part must be one of elements, scales, zeros, "
                                   "not 'scale'; did you mean 'scales'?")),
    ("group/W/int8/elements", "W: format of group must be a block format, not 'int8'"),
    ("rows/W/float16/elements", ("W: format of rows must be a signed integer format, "
                                 "not 'float16'")),
])
def test_wrong_transform_is_refused(name, message):
    with pytest.raises(UserError, match="^" + re.escape(message) + "$"):
        stored(name, {"W": np.ones((2, 128))})
