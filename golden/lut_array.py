"""What the lookup array computes: a run of its commands on data, beat by beat, and whole products.

Weights are two's complement of `planes` bits; an array with reinterpreted weights multiplies by
2 w + 1, another by w (`machine.lut.LutConfig.reinterpreted`).
"""

from collections.abc import Sequence

import numpy as np

from golden import lut
from golden.exact import wrap
from golden.formats import decode, encode
from machine.lut import LutConfig, LutTile, LutWork

__all__ = ["assemble", "lay_out", "product", "run"]


def product(cfg: LutConfig, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return what `cfg` makes of integers `a` [M, K] and weights `w` [N, K], int64 [M, N]."""
    factor = 2 * w + 1 if cfg.reinterpreted else w
    total = a.astype(object) @ factor.astype(object).T
    return wrap(total, cfg.acc_bits)


def run(
    cfg: LutConfig, tiles: Sequence[LutTile], data: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the beats of sums, int64 [beats, n], that `tiles` send.

    `data` is int [beats, m, entries] where tables enter and [beats, m, k] where activations do;
    `weights` is int [beats, n], a code a group, or [beats, n, k] whole weights for ``mac``. Float
    entries and sums are codes of their formats. Sums start as zero, as after reset. Raises
    ``ValueError`` for a tile `cfg` cannot execute and for a number of beats that is not the tiles'.
    """
    needs = sum(t.tables for t in tiles), sum(t.weight_beats(cfg) for t in tiles)
    if needs != (len(data), len(weights)):
        raise ValueError(f"the tiles take {needs[0]} beats of tables and {needs[1]} of weights, "
                         f"not {len(data)} and {len(weights)}")
    sums = np.zeros((cfg.m, cfg.n), np.int64)
    sent = [np.zeros((0, cfg.n), np.int64)]
    table_at = weight_at = 0
    for tile in tiles:
        tile.check(cfg)
        if not tile.accumulate:
            sums = np.zeros_like(sums)
        steps = cfg.beats_of(tile.planes)
        for table in range(tile.tables):
            part = weights[weight_at + table * steps : weight_at + (table + 1) * steps]
            sums = _added(cfg, sums, data[table_at + table], part)
        table_at += tile.tables
        weight_at += tile.weight_beats(cfg)
        if tile.emit:
            sent.append(sums[: tile.rows])
    return np.concatenate(sent)


def _added(cfg: LutConfig, sums: np.ndarray, data: np.ndarray, beats: np.ndarray) -> np.ndarray:
    """Return `sums` and what one table a row, or `k` activations, adds to them."""
    if not cfg.is_float:
        return wrap(sums + _step(cfg, data, beats), cfg.acc_bits)
    fmt, codes = cfg.sum_format, beats.astype(np.int64)
    last = 1 << cfg.k - 1
    if not cfg.tables.remapped:
        codes = np.where(codes & last, codes ^ last - 1, codes)
    table = decode(data, cfg.tables.entry)[:, None]
    total = lut.lookup_float(table, codes[..., None], fmt, decode(sums, fmt))
    return encode(total, fmt).astype(np.int64)


def _step(cfg: LutConfig, data: np.ndarray, beats: np.ndarray) -> np.ndarray:
    """Return what one table a row, or `k` activations, adds to the sums: int64 [m, n]."""
    value = data.astype(np.int64)
    if cfg.unit == "mac":
        return value @ beats[0].astype(np.int64).T
    if cfg.unit == "add":
        bits = beats.astype(np.int64)[..., None] >> np.arange(cfg.k) & 1
        found = value @ np.swapaxes(bits, -1, -2)  # [planes, m, n]
        return _twos_complement(found)
    if not cfg.takes_tables:
        make = lut.tables if cfg.tables.symmetric else lut.subset_sums
        value = make(value, cfg.k)[:, 0]
    codes = beats.astype(np.int64)
    if not cfg.tables.symmetric:
        return _twos_complement(np.moveaxis(value[:, codes], 1, 0))
    last = 1 << cfg.k - 1
    if not cfg.tables.remapped:
        codes = np.where(codes & last, codes ^ last - 1, codes)
    return lut.lookup(value[:, None], codes[..., None])


def _twos_complement(found: np.ndarray) -> np.ndarray:
    """Return the sum of `found` [planes, m, n] over planes, the last one counting minus."""
    sign = np.ones(len(found), np.int64)
    sign[-1] = -1
    return np.tensordot(sign << np.arange(len(found)), found, 1)


def lay_out(
    cfg: LutConfig, works: Sequence[LutWork], a: np.ndarray, w: np.ndarray, planes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the beats of tables or activations, and of weights, for `works`.

    `a` is int [M, K], `w` int [N, K] of `planes` bits; where they end activations are 0. Shapes are
    those of `run`.
    """
    acts = lut.groups(a, cfg.k)
    rows = lut.tables(a, cfg.k) if cfg.tables.symmetric else lut.subset_sums(a, cfg.k)
    rows = rows if cfg.takes_tables else acts
    weights = _weight_beats(cfg, w, planes)
    data_beats = [np.zeros((0, cfg.m, rows.shape[-1]), np.int64)]
    weight_beats = [np.zeros((0, cfg.n, *weights.shape[3:]), np.int64)]
    for tile, m_from, n_from, table_from in works:
        part = slice(table_from, table_from + tile.tables)
        block = np.swapaxes(rows[m_from : m_from + cfg.m, part], 0, 1)
        data_beats.append(_widen(block, cfg.m))
        codes = np.moveaxis(weights[:, n_from : n_from + cfg.n, part], (2, 0), (0, 1))
        weight_beats.append(_widen(codes.reshape(-1, *codes.shape[2:]), cfg.n))
    return np.concatenate(data_beats), np.concatenate(weight_beats)


def _weight_beats(cfg: LutConfig, w: np.ndarray, planes: int) -> np.ndarray:
    """Return `w` [N, K] as the array reads it: [planes, N, groups], or [1, N, groups, k] (mac)."""
    if cfg.unit == "mac":
        return lut.groups(w, cfg.k)[None]
    if cfg.reinterpreted:
        biased = w + (1 << planes - 1)
        return (lut.remap if cfg.tables.remapped else lut.planes)(biased, planes, cfg.k)
    return lut.planes(w & (1 << planes) - 1, planes, cfg.k)


def _widen(block: np.ndarray, width: int) -> np.ndarray:
    """Return int [n, any, ...] as int64 [n, width, ...], zeros behind."""
    missing = width - block.shape[1]
    spread = [(0, 0), (0, missing), *[(0, 0)] * (block.ndim - 2)]
    return np.pad(block.astype(np.int64), spread)


def assemble(works: Sequence[LutWork], sums: np.ndarray, m: int, n: int) -> np.ndarray:
    """Return the product, int64 [m, n], that the beats of `sums` [beats, n] of `works` make."""
    made = np.zeros((m, n), np.int64)
    at = 0
    for tile, m_from, n_from, _ in works:
        if tile.emit:
            target = made[m_from : m_from + tile.rows, n_from : n_from + sums.shape[1]]
            target[...] = sums[at : at + tile.rows, : target.shape[1]]
            at += tile.rows
    return made
