"""Pieces: every byte of a strided tile is in exactly one run, in address order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.engine.pieces import Piece, gathered, pieces, runs


def bytes_of(found):
    """Every byte that `found` touches, run by run."""
    return [
        piece.offset_bytes + row * piece.stride_bytes + byte
        for piece in found
        for row in range(piece.rows)
        for byte in range(piece.row_bytes)
    ]


def elements_of(shape, strides):
    places = [0]
    for size, stride in zip(shape, strides, strict=True):
        places = [place + index * stride for place in places for index in range(size)]
    return places


def test_a_contiguous_tile_is_one_run():
    assert pieces((4, 16), (16, 1), 8) == (Piece(0, 64, 1, 64),)


def test_a_strided_tile_is_one_piece_of_rows():
    assert pieces((8, 16), (71, 1), 8) == (Piece(0, 16, 8, 71),)


def test_a_transposed_tile_has_runs_along_its_unit_stride():
    assert pieces((16, 8), (1, 71), 8) == (Piece(0, 16, 8, 71),)


def test_three_dimensions_that_do_not_merge_take_a_piece_each():
    assert pieces((2, 8, 16), (1000, 71, 1), 16) == (
        Piece(0, 32, 8, 142),
        Piece(2000, 32, 8, 142),
    )


def test_half_byte_elements_are_packed():
    assert pieces((3, 32), (64, 1), 4) == (Piece(0, 16, 3, 32),)
    assert runs((3, 33), (64, 1), 4) == (3, 17)


def test_a_row_that_is_read_again_stays_one_run():
    assert pieces((4, 16), (0, 1), 8) == (Piece(0, 16, 4, 0),)
    assert runs((4, 2, 16), (0, 71, 1), 8) == (8, 16)


def test_an_empty_tile_has_no_piece():
    assert pieces((0, 16), (16, 1), 8) == ()
    assert runs((3, 0), (16, 1), 8) == (0, 0)


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    st.permutations(range(4)),
    st.sampled_from([8, 16, 32]),
)
def test_every_byte_of_a_tile_is_in_exactly_one_run(shape, gaps, order, bits):
    order = [axis for axis in order if axis < len(shape)]
    strides, step = [0] * len(shape), 1
    for axis in order:  # innermost first, each axis past the end of the one inside it
        strides[axis] = step
        step = step * shape[axis] + gaps[axis]
    wide = bits // 8
    want = [place * wide + byte for place in elements_of(shape, strides) for byte in range(wide)]
    assert sorted(bytes_of(pieces(shape, strides, bits))) == sorted(want)
    count, run_bytes = runs(shape, strides, bits)
    assert count * run_bytes == len(want)


@pytest.mark.parametrize("granule", [1, 2, 4])
def test_gather_takes_each_granule_from_its_index(granule):
    index = [5, 0, 3, 2, 7, 1][: -(-6 // granule)]
    found = gathered((6, 16), (16, 1), 8, axis=0, granule=granule, index=index)
    want = [
        (index[p // granule] * granule + p % granule) * 16 + byte
        for p in range(6)
        for byte in range(16)
    ]
    assert bytes_of(found) == want
