"""What the systolic array computes: exact integer matmul, and a run of its commands on data.

Beats are arrays of codes (``golden.pe``): of activations [beats, rows * lanes], of weights
[beats, cols * lanes], the lanes of an element side by side.
"""

from collections.abc import Sequence

import numpy as np

from golden.pe import add, tile_sums
from machine.systolic import SystolicConfig, Tile, Work

__all__ = ["assemble", "lay_out", "matmul", "run", "wrap"]

EXACT_FLOAT64 = 1 << 53  # integers below this magnitude are exact in float64


def wrap(values: np.ndarray, bits: int) -> np.ndarray:
    """Return int64 `values` reduced to `bits`-bit two's complement, any shape."""
    if bits == 64:
        return values
    half = 1 << (bits - 1)
    return ((values + half) & ((1 << bits) - 1)) - half


def _largest(values: np.ndarray) -> int:
    """Return the largest magnitude of integer `values`, 0 for none."""
    return max(abs(int(values.min())), abs(int(values.max()))) if values.size else 0


def matmul(a: np.ndarray, w: np.ndarray, acc_bits: int = 32) -> np.ndarray:
    """Return `a` @ `w` in `acc_bits`-bit two's complement: int [..., M, K] by [K, N], int64 out.

    Sums wrap, so the order of addition cannot be seen. Products go through float64 while every
    partial sum is exact there, and through int64 (which wraps at 64 bits) otherwise.
    """
    bound = a.shape[-1] * _largest(a) * _largest(w)
    if bound < EXACT_FLOAT64:
        total = (a.astype(np.float64) @ w.astype(np.float64)).astype(np.int64)
    else:
        total = a.astype(np.int64) @ w.astype(np.int64)
    return wrap(total, acc_bits)


def _product(cfg: SystolicConfig, tile: Tile, acts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the m rows of sums of one tile, from its beats."""
    fixed, lanes = cfg.pe.fixed, cfg.pe.k_lanes
    a = acts.reshape(-1, cfg.rows, lanes + (fixed.act_shared_bits > 0))
    w = weights.reshape(-1, cfg.cols, lanes + (fixed.weight_shared_bits > 0)).swapaxes(1, 2)
    a = a[:, : tile.k] if tile.dataflow == "ws" else a[:, : tile.m].swapaxes(0, 1)
    return tile_sums(cfg, tile.dataflow, a, w)


def run(
    cfg: SystolicConfig, tiles: Sequence[Tile], acts: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the beats of sums, int64 [beats, cols], that `tiles` send.

    `acts` [beats, rows * lanes] and `weights` [beats, cols * lanes] are the beats of all tiles in
    turn; what the lanes of an element share (the scale of a block) is one lane more.
    A ``ws`` tile takes m rows of activations (elements from k on are ignored) and k rows of
    weights; an ``os`` tile takes k columns of activations (elements from m on are ignored) and k
    rows of weights. Stored rows start as zero, as after power-up. Raises ``ValueError`` for a tile
    `cfg` cannot execute and for a number of beats that is not the tiles'.
    """
    needs = (sum(t.act_beats for t in tiles), sum(t.weight_beats for t in tiles))
    if needs != (len(acts), len(weights)):
        raise ValueError(f"the tiles take {needs[0]} beats of activations and {needs[1]} of "
                         f"weights, not {len(acts)} and {len(weights)}")
    stored = np.zeros((cfg.acc_rows, cfg.cols), np.int64)
    sent = [np.zeros((0, cfg.cols), np.int64)]
    act_at = weight_at = 0
    for tile in tiles:
        tile.check(cfg)
        sums = _product(cfg, tile, acts[act_at : act_at + tile.act_beats],
                        weights[weight_at : weight_at + tile.weight_beats])
        act_at += tile.act_beats
        weight_at += tile.weight_beats

        rows = slice(tile.acc_row, tile.acc_row + tile.m)
        if tile.accumulate:
            sums = add(cfg, stored[rows], sums)
        if tile.emit:
            sent.append(sums)
        else:
            stored[rows] = sums
    return np.concatenate(sent)


def lay_out(
    cfg: SystolicConfig, works: Sequence[Work], a: np.ndarray, w: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the beats of activations and of weights for `works`.

    `a` [M, K] and `w` [K, N] are codes; what lies outside them is code 0.
    """
    lanes = cfg.pe.k_lanes
    acts = [np.zeros((0, cfg.rows * lanes), np.int64)]
    weights = [np.zeros((0, cfg.cols * lanes), np.int64)]
    for tile, m_from, n_from, k_from in works:
        k = slice(k_from, k_from + tile.k * lanes)
        a_block = _lanes(a[m_from : m_from + tile.m, k], tile.k, lanes)
        if tile.dataflow == "os":
            a_block = a_block.swapaxes(0, 1)
        acts.append(_widen(a_block, cfg.rows))
        w_block = _lanes(w[k, n_from : n_from + cfg.cols].T, tile.k, lanes)
        weights.append(_widen(w_block.swapaxes(0, 1), cfg.cols))
    return np.concatenate(acts), np.concatenate(weights)


def _lanes(block: np.ndarray, beats: int, lanes: int) -> np.ndarray:
    """Return int [n, at most beats * lanes] as int64 [n, beats, lanes], zeros behind."""
    padded = np.pad(block.astype(np.int64), ((0, 0), (0, beats * lanes - block.shape[1])))
    return padded.reshape(len(block), beats, lanes)


def _widen(block: np.ndarray, width: int) -> np.ndarray:
    """Return int64 [n, any, lanes] as [n, width * lanes], zeros on the right."""
    padded = np.pad(block, ((0, 0), (0, width - block.shape[1]), (0, 0)))
    return padded.reshape(len(block), -1)


def assemble(works: Sequence[Work], sums: np.ndarray, m: int, n: int) -> np.ndarray:
    """Return the product, int64 [m, n], that the beats of `sums` [beats, cols] of `works` make."""
    product = np.zeros((m, n), np.int64)
    at = 0
    for tile, m_from, n_from, _ in works:
        if tile.emit:
            target = product[m_from : m_from + tile.m, n_from : n_from + sums.shape[1]]
            target[...] = sums[at : at + tile.m, : target.shape[1]]
            at += tile.m
    return product
