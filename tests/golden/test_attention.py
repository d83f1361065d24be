"""Softmax and mergeable attention against float64 and against each other."""

import numpy as np
import pytest

from golden.attention import State, attend, finish, merge, softmax, visible_keys
from golden.floats import matmul, reduce_sum
from machine.vector import Mask, ReductionOrder

F32 = np.float32


def scores(*shape, seed=0, spread=4.0):
    return (np.random.default_rng(seed).standard_normal(shape) * spread).astype(F32)


def wide_softmax(x, visible=None):
    x = x.astype(np.float64)
    x = np.where(True if visible is None else visible, x, -np.inf)
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("width", [1, 3, 128, 500])
@pytest.mark.parametrize("order", list(ReductionOrder))
def test_softmax_is_close_to_float64(width, order):
    x = scores(2, 7, width)
    got = softmax(x, order=order, lanes=16)
    want = wide_softmax(x)
    # the weight itself carries the rounding of its exponent, x less the maximum
    assert (np.abs(got - want) <= want * 2.0**-24 * (np.ptp(x) + 40)).all()
    assert np.abs(reduce_sum(got) - 1).max() <= width * 2.0**-23


def test_softmax_scale_is_one_product():
    x = scores(3, 9)
    assert softmax(x, scale=0.125).tobytes() == softmax(x * F32(0.125)).tobytes()


def test_softmax_does_not_move_with_a_constant_it_can_hold():
    x = np.round(scores(4, 30))
    assert softmax(x + F32(512)).tobytes() == softmax(x).tobytes()


@pytest.mark.parametrize("mask, window, want", [
    (Mask.NONE, 0, ["1111", "1111"]), (Mask.CAUSAL, 0, ["1100", "1110"]),
    (Mask.WINDOW, 2, ["1100", "0110"]), (Mask.WINDOW, 1, ["0100", "0010"])])
def test_visible_keys_of_each_mask(mask, window, want):
    got = visible_keys(mask, 2, 4, position_base=1, window=window)
    assert ["".join(str(int(v)) for v in row) for row in got] == want


def test_hidden_keys_do_not_matter_and_weigh_nothing():
    x, visible = scores(2, 5, 9), visible_keys(Mask.CAUSAL, 5, 9, position_base=2)
    got = softmax(x, visible=visible)
    assert not got[:, ~visible].any()
    assert np.allclose(got, wide_softmax(x, visible), rtol=1e-5, atol=0)
    x[:, ~visible] = np.nan
    assert softmax(x, visible=visible).tobytes() == got.tobytes()


@pytest.mark.parametrize("order", list(ReductionOrder))
def test_a_causal_row_of_prefill_equals_its_decode_step_bit_for_bit(order):
    x, values = scores(2, 21, 21), scores(2, 21, 6, seed=1)
    visible = visible_keys(Mask.CAUSAL, 21, 21)
    weights = softmax(x, visible=visible, order=order, lanes=8)
    output = finish(attend(x, values, visible=visible, order=order, lanes=8))
    for i in range(21):
        row = np.s_[:, i : i + 1, : i + 1]
        step = softmax(x[row], order=order, lanes=8)
        assert step.tobytes() == weights[row].tobytes()
        out = finish(attend(x[row], values[:, : i + 1], order=order, lanes=8))
        assert np.array_equal(out, output[:, i : i + 1])


def test_a_row_that_sees_nothing_is_zero():
    nothing = np.zeros((2, 3), bool)
    assert not softmax(scores(2, 3), visible=nothing).any()
    assert not finish(attend(scores(2, 3), scores(3, 4), visible=nothing)).any()
    assert not softmax(np.full((1, 3), -np.inf)).any()


def test_attention_in_one_piece_is_softmax_times_values():
    x, values = scores(2, 3, 40), scores(2, 40, 8, seed=1)
    got = finish(attend(x, values, scale=0.5))
    assert np.allclose(got, matmul(softmax(x, scale=0.5), values), rtol=0, atol=2e-6)


@pytest.mark.parametrize("cuts", [[13], [1, 2, 3], [8, 16, 24, 32], [39]])
def test_attention_in_any_pieces_gives_the_same_result(cuts):
    x, values = scores(2, 3, 40, spread=8.0), scores(2, 40, 8, seed=1)
    visible = visible_keys(Mask.CAUSAL, 3, 40, position_base=20)
    edges = [0, *cuts, 40]
    parts = [attend(x[..., a:b], values[:, a:b], visible=visible[:, a:b])
             for a, b in zip(edges, edges[1:], strict=False)]
    left = parts[0]
    for part in parts[1:]:
        left = merge(left, part)
    right = parts[-1]
    for part in parts[-2::-1]:
        right = merge(part, right)
    want = wide_softmax(x, visible) @ values
    for state in (left, right):
        assert np.allclose(finish(state), want, rtol=0, atol=4e-6)


def test_merge_is_commutative_bit_for_bit_and_keeps_its_neutral():
    a = attend(scores(3, 9), scores(9, 4))
    b = attend(scores(3, 5, seed=2), scores(5, 4, seed=3))
    nothing = State(np.full(3, -np.inf, F32), np.zeros(3, F32), np.zeros((3, 4), F32))
    for got, want in [(merge(a, b), merge(b, a)), (merge(a, nothing), a), (merge(nothing, a), a)]:
        assert [part.tobytes() for part in got] == [part.tobytes() for part in want]
    assert not finish(merge(nothing, nothing)).any()


def test_merge_rescales_by_the_larger_maximum():
    low = State(F32([0.0]), F32([1.0]), F32([[3.0]]))
    high = State(F32([2.0]), F32([1.0]), F32([[5.0]]))
    got = merge(low, high)
    factor = np.exp(-2.0)
    assert got.maximum.tolist() == [2.0]
    assert np.allclose(got.total, 1 + factor, rtol=1e-7)
    assert np.allclose(got.output, 5 + 3 * factor, rtol=1e-7)
