"""The vector operators against float64, their rounding steps against one-at-a-time arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from golden import vector
from golden.attention import softmax
from golden.floats import reduce_sum
from machine.approx import rotary_steps
from machine.errors import UserError
from machine.formats import FORMATS
from machine.vector import ReductionOrder, VectorOp

F32 = np.float32
SEQUENTIAL, TREE = ReductionOrder


def rows(*shape, seed=0, spread=3.0):
    return (np.random.default_rng(seed).standard_normal(shape) * spread).astype(F32)


def close(got, want, places):
    """Within `places` units of float32's last place of the row's largest magnitude."""
    assert got.dtype == F32
    bound = places * 2.0**-24 * np.abs(want).max(axis=-1, keepdims=True)
    assert (np.abs(got - want) <= bound).all()


@pytest.mark.parametrize("width", [1, 5, 384, 1000])
@pytest.mark.parametrize("order", list(ReductionOrder))
def test_layernorm_is_close_to_float64(width, order):
    x, gain, bias = rows(6, width), rows(width, seed=1), rows(width, seed=2)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    want = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gain + bias
    got = vector.layernorm(x, gain, bias, epsilon=1e-5, order=order, lanes=16)
    close(got, want, 40 if order is TREE else 400)


@pytest.mark.parametrize("width", [1, 5, 384, 1000])
def test_rmsnorm_and_l2norm_are_close_to_float64(width):
    x, gain = rows(6, width), rows(width, seed=1)
    wide = x.astype(np.float64)
    square = (wide**2).mean(-1, keepdims=True)
    close(vector.rmsnorm(x, gain, epsilon=1e-6), wide / np.sqrt(square + 1e-6) * gain, 12)
    close(vector.l2norm(x), wide / np.sqrt((wide**2).sum(-1, keepdims=True)), 12)


def test_layernorm_rounds_at_each_stated_step():
    x, gain, bias = rows(1, 70)[0], rows(70, seed=1), rows(70, seed=2, spread=0.01)
    inverse = F32(1) / F32(70)
    mean = reduce_sum(x, TREE, 4) * inverse
    centred = [F32(v - mean) for v in x]
    square = [F32(c * c) for c in centred]
    root = F32(1) / np.sqrt(F32(reduce_sum(square, TREE, 4) * inverse) + F32(1e-5))
    want = [F32(F32(F32(c * root) * g) + b) for c, g, b in zip(centred, gain, bias, strict=True)]
    got = vector.layernorm(x, gain, bias, epsilon=1e-5, lanes=4)
    assert got.tolist() == [float(w) for w in want]


def test_rmsnorm_rounds_at_each_stated_step():
    x, gain = rows(1, 70)[0], rows(70, seed=1)
    mean = reduce_sum([F32(v * v) for v in x], TREE, 4) * (F32(1) / F32(70))
    root = F32(1) / np.sqrt(F32(mean + F32(1e-6)))
    want = [F32(F32(v * root) * g) for v, g in zip(x, gain, strict=True)]
    assert vector.rmsnorm(x, gain, epsilon=1e-6, lanes=4).tolist() == [float(w) for w in want]


def test_norms_of_zeros_are_zeros():
    zeros, ones = np.zeros((2, 8), F32), np.ones(8, F32)
    assert not vector.layernorm(zeros, ones, 0 * ones, epsilon=1e-12).any()
    assert not vector.rmsnorm(zeros, ones, epsilon=1e-6).any()
    assert not vector.l2norm(zeros).any()


def test_the_elementwise_table_covers_the_curves():
    assert set(vector.ELEMENTWISE) == {
        VectorOp.RELU, VectorOp.SIGMOID, VectorOp.SILU, VectorOp.GELU, VectorOp.GELU_TANH,
        VectorOp.EXP, VectorOp.TANH}
    x = np.linspace(-5, 5, 101)
    got = vector.ELEMENTWISE[VectorOp.SILU](x)
    assert np.allclose(got, x * expit(x), rtol=1e-6, atol=0)


def test_relu_keeps_nan_and_makes_every_zero_positive():
    got = vector.relu([-1.0, -0.0, 0.0, 2.0, np.nan])
    assert got[:4].tolist() == [0, 0, 0, 2] and not np.signbit(got[:3]).any() and np.isnan(got[4])


def test_mean_pool_takes_the_visible_rows_only():
    x = rows(3, 5, 4)
    visible = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
    got = vector.mean_pool(x, visible)
    close(got[:2], np.stack([x[0].astype(np.float64).mean(0), (x[1, 0] + x[1, 2]) / 2.0]), 4)
    assert not got[2].any()
    x[1, 1] = np.nan
    assert vector.mean_pool(x, visible)[:2].tobytes() == got[:2].tobytes()
    assert vector.mean_pool(x[:1]).tobytes() == got[:1].tobytes()


@pytest.mark.parametrize("theta", [10_000.0, 1e6])
def test_rope_turns_each_pair_by_its_angle(theta):
    x, positions = rows(2, 6, 16), np.array([0, 1, 2, 77, 4095, 100_000])
    angle = positions[:, None] * theta ** (-np.arange(0, 16, 2) / 16)
    z = (x[..., :8] + 1j * x[..., 8:]) * np.exp(1j * angle)
    got = vector.rope(x, *vector.rope_table(positions, rotary_steps(theta, 16)))
    want = np.concatenate([z.real, z.imag], axis=-1)
    assert got.dtype == F32 and np.abs(got - want).max() <= 4 * 2.0**-24 * np.abs(x).max() * 2


def test_rope_leaves_position_zero_and_the_unrotated_tail_alone():
    x = rows(2, 20)
    got = vector.rope(x, *vector.rope_table([0, 9], rotary_steps(10_000.0, 16)))
    assert got[0].tobytes() == x[0].tobytes()
    assert got[1, 16:].tobytes() == x[1, 16:].tobytes()
    assert not np.array_equal(got[1, :16], x[1, :16])


def test_scores_after_rope_depend_on_the_distance_only():
    q, k = rows(1, 64), rows(1, 64, seed=1)
    steps = rotary_steps(10_000.0, 64)
    scores = [vector.rope(q, *vector.rope_table([p + 5], steps)).astype(np.float64)
              @ vector.rope(k, *vector.rope_table([p], steps)).astype(np.float64).T
              for p in (0, 3, 1000, 30_000)]
    assert np.ptp(scores) <= 1e-5 * np.abs(q).max() * np.abs(k).max() * 64


@pytest.mark.parametrize("name", ["int4", "int8", "int16"])
def test_row_quantisation_uses_the_range_and_is_off_by_half_a_step(name):
    fmt, x = FORMATS[name], rows(50, 64)
    codes, scale = vector.quantise_rows(x, fmt)
    assert codes.dtype == np.int64 and scale.dtype == F32 and scale.shape == (50,)
    assert (np.abs(codes).max(axis=-1) == fmt.largest).all()
    assert scale.tolist() == (np.abs(x).max(axis=-1) / F32(fmt.largest)).tolist()
    slack = 1 + fmt.largest * 2.0**-22
    assert (np.abs(codes * scale[:, None].astype(float) - x) <= scale[:, None] / 2 * slack).all()


def test_row_quantisation_rounds_to_even_and_is_symmetric():
    x = np.array([[127.0, 0.5, 1.5, -0.5, -2.5, -127.0]])
    assert vector.quantise_rows(x)[0].tolist() == [[127, 0, 2, 0, -2, -127]]


@pytest.mark.parametrize("largest, codes, scale", [
    (0.0, [0, 0], 1.0), (2.0**-100, [0, 0], 1.0),
    (2.0**-99, [127, 0], float(F32(2.0**-99) / F32(127)))])
def test_a_row_of_almost_nothing_quantises_as_zeros(largest, codes, scale):
    got, row_scale = vector.quantise_rows([[largest, 0.0]])
    assert got.tolist() == [codes] and row_scale.tolist() == [scale]


def test_static_quantisation_multiplies_by_the_inverse_and_saturates():
    x = np.array([[1.0, -1.0, 100.0, -100.0, 0.25], [3.0, 0.0, 0.0, 0.0, 0.0]])
    assert vector.quantise(x, [0.5, 2.0]).tolist() == [[2, -2, 127, -127, 0], [2, 0, 0, 0, 0]]
    assert vector.quantise(x, 0.5).tolist() == [[2, -2, 127, -127, 0], [6, 0, 0, 0, 0]]
    assert vector.quantise(x, 0.5, FORMATS["uint4"]).tolist()[0] == [2, 0, 15, 0, 0]


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_quantisation_refuses_numbers_that_are_not_finite(odd):
    with pytest.raises(UserError, match=f"^a number to quantise must be finite, not {odd}$"):
        vector.quantise_rows([[1.0, odd]])
    with pytest.raises(UserError, match="must be finite"):
        vector.quantise([[1.0, odd]], 1.0)


def test_dequantise_rounds_the_integer_then_each_product_then_the_bias():
    total = np.array([[2**24 + 1, -7], [2**31 - 1, 0]])
    row, column, bias = rows(2, seed=3), rows(2, seed=4), rows(2, seed=5)
    got = vector.dequantise(total, row, column, bias)
    for i in range(2):
        for j in range(2):
            scaled = F32(F32(F32(total[i, j]) * row[i]) * column[j])
            assert got[i, j] == scaled + bias[j]
            assert vector.dequantise(total, row, column)[i, j] == scaled


def test_quantised_product_is_close_to_the_real_one():
    x, w = rows(8, 256), rows(16, 256, seed=1)
    (a, a_scale), (b, b_scale) = vector.quantise_rows(x), vector.quantise_rows(w)
    got, want = vector.dequantise(a @ b.T, a_scale, b_scale), x.astype(float) @ w.T
    assert np.abs(got - want).max() <= 0.02 * np.abs(want).max()


def test_gather_and_scatter_move_rows_unchanged():
    table = rows(5, 3)
    assert vector.gather(table, [[4, 0], [1, 1]]).tobytes() == table[[[4, 0], [1, 1]]].tobytes()
    into = np.zeros((5, 3), F32)
    got = vector.scatter(table[:3], [4, 1, 4], into)
    assert got[[4, 1]].tolist() == table[[2, 1]].tolist() and not got[[0, 2, 3]].any()
    assert not into.any()


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_outside_the_table_is_refused(index):
    message = f"^index must be from 0 to 4, not {index}$"
    with pytest.raises(UserError, match=message):
        vector.gather(rows(5, 3), [0, index])
    with pytest.raises(UserError, match=message):
        vector.scatter(rows(1, 3), [index], rows(5, 3))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9), st.integers(1, 9))
def test_topk_falls_and_takes_the_first_of_equals(values, count):
    count = min(count, len(values))
    got, places = vector.topk(np.array(values, F32), count)
    want = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    assert places.tolist() == want and got.tolist() == [values[i] for i in want]
    assert vector.argmax(np.array(values, F32)) == want[0]


def test_argmax_passes_over_nan_and_the_sign_of_zero():
    assert vector.argmax([[np.nan, -5.0, -4.0], [-0.0, 0.0, -1.0], [np.nan] * 3]).tolist() == [
        2, 0, 0]


@pytest.mark.parametrize("whole", [True, False])
def test_tables_hold_every_signed_sum(whole):
    a = np.random.default_rng(1).integers(-100, 100, (2, 6)) if whole else rows(2, 6)
    table = vector.table_precompute(a)
    assert table.shape == (2, 2, 8)
    four = np.concatenate([a, np.zeros((2, 2), a.dtype)], axis=1).reshape(2, 2, 4)
    for j in range(8):
        want = -four[..., 3]
        for k in (2, 1, 0):
            want = want + four[..., k] * (1 if j >> k & 1 else -1)
        assert table[..., j].tolist() == want.tolist()
    assert table.dtype == (np.int64 if whole else F32)


def test_mlgru_follows_the_recurrence():
    x, forget, state = rows(4, 8), rows(4, 8, seed=1), rows(4, 8, seed=2)
    f = 0.25 + 0.75 * expit(forget.astype(float))
    want = f * state + x * expit(x.astype(float)) * (1 - f)
    close(vector.mlgru(x, forget, state, 0.25), want, 12)
    open_gate = vector.mlgru(x, np.full((4, 8), 200.0), state)
    assert open_gate.tobytes() == (state + 0).tobytes()


def test_no_rows_give_no_rows():
    """An expert that no token chose, a batch that is empty."""
    none, ones = np.zeros((0, 8), F32), np.ones(8, F32)
    assert vector.layernorm(none, ones, ones, epsilon=1e-5).shape == (0, 8)
    assert vector.rmsnorm(none, ones, epsilon=1e-5).shape == vector.l2norm(none).shape == (0, 8)
    assert [part.shape for part in vector.quantise_rows(none)] == [(0, 8), (0,)]
    assert [part.shape for part in vector.topk(none, 2)] == [(0, 2), (0, 2)]
    assert vector.table_precompute(none).shape == (0, 2, 8)
    assert vector.gather(rows(3, 4), np.zeros(0, int)).shape == (0, 4)
    assert softmax(none).shape == (0, 8)
    assert vector.dequantise(none.astype(int), none[:, 0], ones).shape == (0, 8)
