"""When the lookup array moves each beat: its rules as a recurrence in valid and ready times.

One table a row is held, with all its planes in front of it; the sums of a command leave a row a
cycle from where they were added, so the next command's first plane waits for the last row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from machine.config import require
from machine.lut import LutConfig, LutTile, lut_matmul_cycles
from machine.lut_table import TableQuantiserConfig

__all__ = [
    "LOOKUP_BITS", "LutTransfers", "QuantiserTransfers", "QueueTransfers", "lut_times",
    "lut_transfers", "precompute_transfers", "quantise_transfers",
]

LOOKUP_BITS = 1 << 16  # stands for the operand width of products that are looked up


@dataclass(frozen=True)
class QueueTransfers:
    """The cycle of every transfer of a block that ends in a queue, one int64 array a stream."""

    i: np.ndarray
    o: np.ndarray


@dataclass(frozen=True)
class QuantiserTransfers:
    """The cycle of every transfer of the table quantiser, one int64 array a stream."""

    i: np.ndarray
    o: np.ndarray
    o_scales: np.ndarray


@dataclass(frozen=True)
class LutTransfers:
    """The cycle of every transfer, one int64 array a stream."""

    commands: np.ndarray
    tables: np.ndarray
    weights: np.ndarray
    sums_offered: np.ndarray  # o_sums.valid rises for this row, or stays for it
    sums: np.ndarray


@njit(cache=True)
def _queue(valid, ready):
    """Schedule beats through a queue of two at the end of a block without other registers."""
    taken, left = np.zeros_like(valid), np.zeros_like(valid)
    for beat in range(len(valid)):
        taken[beat] = valid[beat]
        if beat > 0:
            taken[beat] = max(taken[beat], taken[beat - 1] + 1)
        if beat > 1:
            taken[beat] = max(taken[beat], left[beat - 2] + 1)
        before = left[beat - 1] if beat > 0 else -1
        left[beat] = max(max(taken[beat], before) + 1, ready[beat])
    return taken, left


def precompute_transfers(
    groups: int, *, valid: Sequence[int] | np.ndarray | None = None,
    ready: Sequence[int] | np.ndarray | None = None,
) -> QueueTransfers:
    """Return the cycle of every transfer of ``hw.lut_table.TablePrecompute``, from reset.

    Group j is offered from cycle ``valid[j]``, its table taken from ``ready[j]`` on; None means
    always. Equal to the RTL's cycle for cycle.
    """
    return QueueTransfers(*_queue(_times("valid", valid, groups), _times("ready", ready, groups)))


@njit(cache=True)
def _quantise(block, divider, valid, ready, scales_ready):
    """Schedule whole blocks through the quantiser."""
    taken, left, scales = np.zeros_like(valid), np.zeros_like(ready), np.zeros_like(scales_ready)
    free = 0  # the next table may enter
    for number in range(len(scales)):
        for table in range(number * block, (number + 1) * block):
            taken[table] = max(valid[table], free)
            free = taken[table] + 1

        # Two divisions, then the scale goes into its queue of two.
        push = free + divider + 1
        if number > 1:
            push = max(push, scales[number - 2] + 1)
        before = scales[number - 1] if number > 0 else -1
        scales[number] = max(max(push, before) + 1, scales_ready[number])

        # Read, multiply, round: a table goes into the queue of codes before the next is read.
        free = push + 1
        for table in range(number * block, (number + 1) * block):
            push = free + 2
            if table > 1:
                push = max(push, left[table - 2] + 1)
            before = left[table - 1] if table > 0 else -1
            left[table] = max(max(push, before) + 1, ready[table])
            free = push + 1
    return taken, left, scales


def quantise_transfers(
    cfg: TableQuantiserConfig, blocks: int, *, valid: Sequence[int] | np.ndarray | None = None,
    ready: Sequence[int] | np.ndarray | None = None,
    scales_ready: Sequence[int] | np.ndarray | None = None,
) -> QuantiserTransfers:
    """Return the cycle of every transfer of ``hw.lut_quantise.TableQuantiser``, from reset.

    Equal to the RTL's cycle for cycle; the times are those of `lut_transfers`.
    """
    tables = blocks * cfg.block
    return QuantiserTransfers(*_quantise(
        cfg.block, cfg.divider_cycles, _times("valid", valid, tables),
        _times("ready", ready, tables), _times("scales_ready", scales_ready, blocks)))


@njit(cache=True)
def _transfers(work, depth, commands_valid, tables_valid, weights_valid, sums_ready):
    """Schedule the tiles of `work`, int64 [tiles, 3]: tables, beats a table, rows sent."""
    commands = np.zeros_like(commands_valid)
    tables = np.zeros_like(tables_valid)
    weights = np.zeros_like(weights_valid)
    offered = np.zeros_like(sums_ready)
    sums = np.zeros_like(sums_ready)
    table = weight = row = 0  # beats that have moved
    last = -1  # the latest beat of weights
    ended = 0  # the last beat of weights of the command in front: the next may be taken
    freed = 0  # the last beat for the table in front: the next may be taken
    free = 0  # the sums may be overwritten

    for tile in range(len(work)):
        count, steps, rows = work[tile]
        commands[tile] = max(commands_valid[tile], ended)
        start = max(commands[tile] + 1, free)

        # Every table is taken with the last plane of the one in front, and used a cycle later.
        for _ in range(count):
            tables[table] = max(tables_valid[table], freed)
            start = max(start, tables[table] + 1)
            for _ in range(steps):
                last = max(start, last + 1, weights_valid[weight])
                weights[weight] = last
                weight += 1
            freed = last
            table += 1
        ended = last

        # A row is pushed into the queue of two unless the row before the last one is still there.
        push = last + depth
        for _ in range(rows):
            if row > 1:
                push = max(push, sums[row - 2] + 1)
            before = sums[row - 1] if row > 0 else -1
            offered[row] = max(push, before) + 1
            sums[row] = max(offered[row], sums_ready[row])
            free = push
            push += 1
            row += 1
    return commands, tables, weights, offered, sums


def _times(name: str, given: Sequence[int] | np.ndarray | None, count: int) -> np.ndarray:
    """Return `given` as int64 [count], zeros for None; raise ``ValueError`` for another length."""
    times = np.zeros(count, np.int64) if given is None else np.asarray(given, np.int64)
    if times.shape != (count,):
        raise ValueError(f"{name} must be {count} cycles, not {times.size}")
    if count and times.min() < 0:
        raise ValueError(f"{name} must be at least 0, not {times.min()}")
    return times


def lut_transfers(
    cfg: LutConfig,
    tiles: Sequence[LutTile],
    *,
    commands_valid: Sequence[int] | np.ndarray | None = None,
    tables_valid: Sequence[int] | np.ndarray | None = None,
    weights_valid: Sequence[int] | np.ndarray | None = None,
    sums_ready: Sequence[int] | np.ndarray | None = None,
) -> LutTransfers:
    """Return the cycle of every transfer of an array that executes `tiles` from cycle 0, reset.

    Beat j of a stream is offered from cycle ``valid[j]``, or taken from cycle ``ready[j]`` on, in
    order; None means always. Equal to the RTL's cycle for cycle. Raises ``ValueError`` for a tile
    `cfg` cannot execute and for arrays that do not have one entry a beat.
    """
    for tile in tiles:
        tile.check(cfg)
    work = np.array([(tile.tables, cfg.beats_of(tile.planes), tile.sum_beats) for tile in tiles],
                    np.int64).reshape(len(tiles), 3)
    return LutTransfers(*_transfers(
        work,
        cfg.depth_cycles,
        _times("commands_valid", commands_valid, len(tiles)),
        _times("tables_valid", tables_valid, sum(tile.tables for tile in tiles)),
        _times("weights_valid", weights_valid, sum(tile.weight_beats(cfg) for tile in tiles)),
        _times("sums_ready", sums_ready, sum(tile.sum_beats for tile in tiles)),
    ))


def lut_times(
    cfg: LutConfig, tables: Sequence[int], table_format: str, codes: Sequence[int]
) -> dict[str, int]:
    """Return the times of a ``Demand``, in cycles, and the products of one MATMUL with tables.

    `tables` is the shape [M, groups, entries], `codes` [planes, N, groups]. The closed form of
    `lut_transfers` without stalls; the MATMUL behind waits for the last rows of sums. Raises
    ``ValueError`` for tables or codes that `cfg` does not take.
    """
    (m, groups, entries), (planes, n, _) = tables, codes
    require(cfg.unit == "lut" and cfg.tables.precomputed, "unit of the array",
            "one that takes tables", cfg.unit)
    require(entries == cfg.entries, "entries of a table", f"{cfg.entries}", entries)
    require(table_format == cfg.tables.format, "format of tables", cfg.tables.format, table_format)
    one = lut_matmul_cycles(cfg, m, n, groups * cfg.k, planes)
    last_rows = (m - 1) % cfg.m + 1
    return {
        "fill": one.fill_cycles, "wait": one.wait_cycles, "busy": one.busy_cycles,
        "drain": one.drain_cycles,
        "tail": 1,  # a command is taken with the last beat of weights in front
        "sum_beats": last_rows + cfg.depth_cycles - 2,  # the sums in front leave first
        "macs": m * n * groups * cfg.k * planes,  # of one weight bit each
        "mac_bits": LOOKUP_BITS,
    }
