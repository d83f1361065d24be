"""The array's golden model against sums of Python integers."""

import numpy as np
import pytest

from golden.systolic import assemble, lay_out, matmul, run, wrap
from machine.systolic import SystolicConfig, Tile, matmul_tiles

CFG = SystolicConfig(rows=3, cols=2, acc_rows=4)


def wrapped(value: int, bits: int) -> int:
    """Return Python integer `value` in `bits`-bit two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def exact(a: np.ndarray, w: np.ndarray, bits: int) -> list[list[int]]:
    """Return `a` @ `w` in Python integers, then in `bits` bits."""
    return [[wrapped(sum(int(x) * int(y) for x, y in zip(row, col, strict=True)), bits)
             for col in w.T] for row in a]


@pytest.mark.parametrize("bits", [2, 8, 31, 32, 33, 62, 63, 64])
def test_wrap_is_twos_complement(bits):
    values = [0, 1, -1, 1 << (bits - 1), -(1 << (bits - 1)), (1 << 63) - 1, -(1 << 63)]
    fitting = [value for value in values if -(1 << 63) <= value < 1 << 63]
    got = wrap(np.array(fitting, np.int64), bits).tolist()
    assert got == [wrapped(value, bits) for value in fitting]


@pytest.mark.parametrize("low, high, bits", [
    (-128, 127, 32),
    (-128, 127, 20),  # sums wrap
    (-32768, 32767, 40),
    (-(1 << 30), (1 << 30) - 1, 64),  # products beyond 2^53: the int64 path
    (-(1 << 30), (1 << 30) - 1, 48),
])
def test_matmul_equals_python_integers(low, high, bits):
    rng = np.random.default_rng(bits)
    a, w = rng.integers(low, high + 1, (5, 70)), rng.integers(low, high + 1, (70, 4))
    a[0], w[:, 0] = low, low
    assert matmul(a, w, bits).tolist() == exact(a, w, bits)


def test_matmul_keeps_leading_axes():
    rng = np.random.default_rng(0)
    a, w = rng.integers(-8, 8, (2, 3, 4)), rng.integers(-8, 8, (4, 5))
    assert matmul(a, w)[1].tolist() == exact(a[1], w, 32)


def test_matmul_over_nothing_is_zero():
    assert matmul(np.zeros((2, 0), int), np.zeros((0, 3), int)).tolist() == [[0] * 3] * 2


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (4, 5, 7), (9, 2, 3)])
def test_tiles_of_a_matmul_make_the_product(dataflow, m, n, k):
    rng = np.random.default_rng(m)
    a, w = rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (k, n))
    works = list(matmul_tiles(CFG, m, n, k, dataflow))
    acts, weights = lay_out(CFG, works, a, w)
    sums = run(CFG, [work.tile for work in works], acts, weights)
    assert assemble(works, sums, m, n).tolist() == exact(a, w, 32)


def test_a_row_is_set_then_accumulated_then_flushed():
    acts, weights = np.array([[2, 0, 0]] * 3), np.array([[5, -7]] * 3)
    tiles = [
        Tile(dataflow="ws", m=1, k=1, emit=False, acc_row=3),
        Tile(dataflow="ws", m=1, k=1, accumulate=True, emit=False, acc_row=3),
        Tile(dataflow="os", m=1, k=1, accumulate=True, acc_row=3),
    ]
    assert run(CFG, tiles, acts, weights).tolist() == [[30, -42]]


def test_accumulated_sums_wrap():
    cfg = SystolicConfig(rows=1, cols=1, a_bits=4, w_bits=4, acc_bits=8, acc_rows=1)
    tiles = [Tile(dataflow="ws", m=1, k=1, accumulate=True, emit=step == 3) for step in range(4)]
    sums = run(cfg, tiles, np.full((4, 1), -8), np.full((4, 1), -8))
    assert sums.tolist() == [[wrapped(4 * 64, 8)]] == [[0]]
    sums = run(cfg, tiles[1:], np.full((3, 1), -8), np.full((3, 1), -8))
    assert sums.tolist() == [[wrapped(3 * 64, 8)]] == [[-64]]


def test_flushing_leaves_the_stored_row():
    acts, weights = np.array([[1, 0, 0]] * 3), np.array([[1, 1]] * 3)
    tiles = [Tile(dataflow="ws", m=1, k=1, emit=False)]
    tiles += [Tile(dataflow="ws", m=1, k=1, accumulate=True)] * 2
    assert run(CFG, tiles, acts, weights).tolist() == [[2, 2], [2, 2]]


def test_elements_of_no_row_are_ignored():
    acts, weights = np.array([[3, 99, -99]]), np.array([[4, 5]])
    for dataflow in ("ws", "os"):
        tile = Tile(dataflow=dataflow, m=1, k=1)
        assert run(CFG, [tile], acts, weights).tolist() == [[12, 15]]


def test_rejects_beats_that_are_not_the_tiles():
    with pytest.raises(ValueError, match=r"^the tiles take 2 beats of activations and 3 of "
                                         r"weights, not 1 and 3$"):
        run(CFG, [Tile(dataflow="ws", m=2, k=3)], np.zeros((1, 3)), np.zeros((3, 2)))
