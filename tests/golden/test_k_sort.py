"""K-sort: scores keep, pairs stay together, blocks of keys lose less."""

from types import SimpleNamespace

import numpy as np
import pytest

from golden.blocks import dequantise, quantise
from golden.k_sort import k_sort, key_order
from golden.transforms import transform
from machine.errors import UserError
from machine.formats import FORMATS

HEAD_DIM, KEY_HEADS, HEADS, HIDDEN, TOKENS = 128, 2, 6, 40, 24


def projections(seed: int, factor: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return key and query projections and activations, whole numbers.

    Six key channels of each head are `factor` times as large as the others.
    """
    rng = np.random.default_rng(seed)
    keys = rng.integers(-9, 10, (KEY_HEADS * HEAD_DIM, HIDDEN))
    for head in range(KEY_HEADS):
        keys[head * HEAD_DIM + rng.permutation(HEAD_DIM)[:6]] *= factor
    queries = rng.integers(-9, 10, (HEADS * HEAD_DIM, HIDDEN))
    return keys, queries, rng.integers(-9, 10, (TOKENS, HIDDEN))


def heads_of(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1, HEAD_DIM)


def scores(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the scores [heads, tokens, tokens]; query heads share key heads in groups."""
    shared = np.repeat(heads_of(keys), HEADS // KEY_HEADS, axis=1)
    return np.einsum("qhd,khd->hqk", heads_of(queries), shared)


@pytest.mark.parametrize("rope", [False, True])
def test_scores_of_integers_do_not_change_at_all(rope):
    keys, queries, x = projections(1)
    sorted_keys = k_sort(keys, keys, HEAD_DIM, rope=rope)
    sorted_queries = k_sort(queries, keys, HEAD_DIM, rope=rope)
    assert (sorted_keys != keys).any() and (sorted_queries != queries).any()
    before, after = scores(x @ queries.T, x @ keys.T), scores(
        x @ sorted_queries.T, x @ sorted_keys.T)
    assert (before == after).all()


def rotate(x: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return x [tokens, heads, d] with pair p of head h turned by position * step[h, p]."""
    half = HEAD_DIM // 2
    angle = np.arange(len(x))[:, None, None] * step
    low, high = x[..., :half], x[..., half:]
    return np.concatenate([low * np.cos(angle) - high * np.sin(angle),
                           high * np.cos(angle) + low * np.sin(angle)], axis=-1)


def test_scores_behind_rotary_positions_keep_their_terms():
    keys, queries, x = projections(2)
    order = key_order(keys, HEAD_DIM, rope=True)
    half = HEAD_DIM // 2
    assert (order[:, half:] == order[:, :half] + half).all(), "pairs stay half a head apart"
    steps = np.broadcast_to(10000.0 ** (-np.arange(half) / half), (KEY_HEADS, half))
    moved = np.take_along_axis(steps, order[:, :half], axis=-1)
    group = HEADS // KEY_HEADS
    sorted_keys, sorted_queries = (k_sort(w, keys, HEAD_DIM, rope=True) for w in (keys, queries))
    k, q = rotate(heads_of(x @ keys.T), steps), rotate(heads_of(x @ queries.T),
                                                       np.repeat(steps, group, axis=0))
    k_sorted = rotate(heads_of(x @ sorted_keys.T), moved)
    q_sorted = rotate(heads_of(x @ sorted_queries.T), np.repeat(moved, group, axis=0))
    # The same numbers, bit for bit, in another place: so a score has the same terms.
    assert (np.take_along_axis(k, order[None], axis=-1) == k_sorted).all()
    assert (np.take_along_axis(q, np.repeat(order, group, axis=0)[None], axis=-1) == q_sorted).all()


def errors(keys: np.ndarray, block: int) -> np.ndarray:
    """Return the quantisation errors of cached keys [tokens, heads * d] in blocks, squared."""
    fmt = FORMATS["bfp4"]
    held = dequantise(quantise(heads_of(keys), fmt, block), fmt, block)
    return (held - heads_of(keys)) ** 2


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rope", [False, True])
@pytest.mark.parametrize("block", [32, 64])
def test_blocks_of_sorted_keys_with_outliers_lose_less(block, rope, seed):
    keys, _, x = projections(seed)
    after = k_sort(keys, keys, HEAD_DIM, rope=rope)
    lost, sorted_lost = errors(x @ keys.T, block).sum(), errors(x @ after.T, block).sum()
    if rope and block == HEAD_DIM // 2:
        # Either half is one block before and after: the pairs only change places inside it.
        assert sorted_lost == pytest.approx(lost)
    else:
        assert sorted_lost < lost


@pytest.mark.parametrize("rope", [False, True])
def test_channels_beside_extreme_outliers_lose_less_of_themselves(rope):
    # Forty times as large, the outliers' own error is most of the total, and may even grow.
    for seed in range(5):
        keys, _, x = projections(seed, factor=40)
        cached = [x @ keys.T, x @ k_sort(keys, keys, HEAD_DIM, rope=rope).T]
        before, after = ((errors(held, 32).sum(axis=0) / (heads_of(held) ** 2).sum(axis=0)).mean()
                         for held in cached)
        assert after < 0.9 * before


def test_a_permutation_inside_one_block_changes_no_error():
    keys, _, x = projections(4)
    order = key_order(keys, HEAD_DIM, rope=False)
    after = errors(x @ k_sort(keys, keys, HEAD_DIM, rope=False).T, HEAD_DIM)
    before = np.take_along_axis(errors(x @ keys.T, HEAD_DIM), order[None], axis=-1)
    assert (before == after).all()


def test_of_equal_channels_the_first_comes_first():
    keys = np.array([[1], [3], [2], [9], [5], [-1]])
    assert key_order(keys, 6, rope=False).tolist() == [[3, 4, 1, 2, 0, 5]]
    assert key_order(keys, 6, rope=True).tolist() == [[0, 1, 2, 3, 4, 5]]
    alike = np.resize([1, -1, 2], (40, 1))
    twos = [*range(2, 40, 3)]
    assert key_order(alike, 40, rope=False).tolist() == [
        twos + [i for i in range(40) if i not in twos]]


def test_the_transform_sorts_a_query_projection_by_the_keys():
    keys, queries, _ = projections(6)
    symbol = SimpleNamespace(name="q", transform=f"k_sort/model/k/{HEAD_DIM}/rope")
    made = transform(symbol, {"q": queries, "model/k": keys})
    assert made.sources == ("q", "model/k")
    assert (made.values == k_sort(queries, keys, HEAD_DIM, rope=True)).all()
    assert transform(symbol, {"q": queries}) is None


@pytest.mark.parametrize("rows, key_rows, head_dim, message", [
    (6, 5, 3, "rows of the key projection must be a multiple of 3, not 5"),
    (9, 6, 3, "rows of a projection under k_sort must be a multiple of 6, not 9"),
])
def test_rows_that_are_no_heads_are_refused(rows, key_rows, head_dim, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        k_sort(np.ones((rows, 2)), np.ones((key_rows, 2)), head_dim, rope=False)


def test_odd_heads_have_no_pairs():
    with pytest.raises(UserError, match="^head_dim must be even for pairs, not 3$"):
        key_order(np.ones((3, 2)), 3, rope=True)
