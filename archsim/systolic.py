"""When the systolic array moves each beat: its rules as a recurrence in valid and ready times.

Time inside the array is counted in steps; a cycle is a step unless two rows of sums wait to be
taken. Everything that enters is scheduled in steps, and a step's cycle is known from the rows of
sums sent at earlier steps alone, because a row leaves ``latency_cycles - 1`` steps after it enters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from machine.systolic import SystolicConfig, Tile

__all__ = ["TileTimes", "Transfers", "tile_times", "transfers"]

COMMANDS, ACTS, WEIGHTS = range(3)  # the streams that enter


@dataclass(frozen=True)
class Transfers:
    """The cycle of every transfer, one int64 array a stream."""

    commands: np.ndarray
    acts: np.ndarray
    weights: np.ndarray
    sums_offered: np.ndarray  # o_sums.valid rises for this row, or stays for it
    sums: np.ndarray


@dataclass(frozen=True)
class TileTimes:
    """Cycles of the ends of each tile, one int64 array each, an entry a tile."""

    first_weight: np.ndarray
    first_act: np.ndarray
    last_act: np.ndarray
    first_sums: np.ndarray  # taken, or written to the stored rows one cycle earlier
    last_sums: np.ndarray


# What the compiled functions share. `queue` is five int64 arrays, an entry a row of sums: the step
# in which it is pushed into the output queue; cycle minus step of the steps after push j - 1 and up
# to push j; the cycle from which it can be taken, in which it is offered, in which it is taken.
# `state` is int64 [4]: how many pushes lie before the last transfer of each stream that enters, and
# how many rows have been pushed.
PUSHED = 3


@njit(cache=True)
def _enter(step, valid, side, state, queue):
    """Return the first step, not before `step`, whose cycle is not before `valid`."""
    push_steps, delays = queue[0], queue[1]
    at = state[side]
    while True:
        while at < state[PUSHED] and push_steps[at] < step:
            at += 1
        if step + delays[at] >= valid:
            state[side] = at
            return step
        step = valid - delays[at]
        if at < state[PUSHED] and step > push_steps[at]:
            step = push_steps[at] + 1


@njit(cache=True)
def _cycle(step, side, state, queue):
    """Return the cycle of `step`, which `_enter` has just returned for stream `side`."""
    return step + queue[1][state[side]]


@njit(cache=True)
def _push(step, state, queue):
    """Push one row into the output queue in `step`.

    If the row before is still there, the queue is full: no steps until that row has been taken.
    """
    push_steps, delays, ready, offered, taken = queue
    at = state[PUSHED]
    cycle = step + delays[at]
    before = taken[at - 1] if at > 0 else -1
    offered[at] = max(cycle, before) + 1
    taken[at] = max(offered[at], ready[at])
    push_steps[at] = step
    delays[at + 1] = delays[at] + max(0, before - cycle)
    state[PUSHED] = at + 1


@njit(cache=True)
def _load(step, count, weight, valid, weights, state, queue):
    """Let `count` beats of weights enter from `step` on and return the step of the last one."""
    last = step
    for beat in range(weight, weight + count):
        last = _enter(step, valid[beat], WEIGHTS, state, queue)
        weights[beat] = _cycle(last, WEIGHTS, state, queue)
        step = last + 1
    return last


@njit(cache=True)
def _transfers(table, delay, interval, merge, commands_valid, acts_valid, weights_valid,
               sums_ready):
    """Schedule the tiles of `table`, int64 [tiles, 4]: is os, m, k, emits.

    Activations enter `interval` steps apart; an os tile ends `merge` steps after its last pair.
    """
    commands = np.zeros_like(commands_valid)
    acts = np.zeros_like(acts_valid)
    weights = np.zeros_like(weights_valid)
    rows = len(sums_ready)
    queue = (np.zeros(rows, np.int64), np.zeros(rows + 1, np.int64), sums_ready,
             np.zeros(rows, np.int64), np.zeros(rows, np.int64))
    state = np.zeros(4, np.int64)
    act = weight = 0  # beats that have entered
    moved, end = 0, -1  # the command in front: step in which it began to run, in which it ended
    weights_open = slot_open = act_open = 0  # first step free for weights, a row of sums, a beat

    for tile in range(len(table)):
        os, m, k, emits = table[tile]

        # The command is taken when the one in front moves on from loading to running, and loads:
        # weights of a ws tile follow the exchange of weights in front.
        step = _enter(moved, commands_valid[tile], COMMANDS, state, queue)
        commands[tile] = _cycle(step, COMMANDS, state, queue)
        loaded = step + 1
        if not os:
            step = max(loaded, weights_open)
            loaded = _load(step, k, weight, weights_valid, weights, state, queue)
        moved = max(loaded, end)

        # Run: one beat of activations an interval; a row of sums needs a slot of its own.
        step = max(moved + 1, act_open)
        for beat in range(k if os else m):
            valid = max(acts_valid[act], weights_valid[weight + beat]) if os else acts_valid[act]
            if not os or beat == k - 1:
                step = max(step, slot_open)
            end = _enter(step, valid, ACTS, state, queue)
            acts[act] = _cycle(end, ACTS, state, queue)
            if os:
                weights[weight + beat] = acts[act]
            elif emits:
                _push(end + delay, state, queue)
            if beat == 0:
                weights_open = end
            act += 1
            step = act_open = end + interval
        weight += k

        # Leave: the rows of an os tile take the slots from its end on.
        if os:
            end += merge
            weights_open = end + 1
        slot_open = end + (m if os else 1)
        for row in range(m if os and emits else 0):
            _push(end + row + delay, state, queue)
    return commands, acts, weights, queue[3], queue[4]


def _times(name: str, given: Sequence[int] | np.ndarray | None, count: int) -> np.ndarray:
    """Return `given` as int64 [count], zeros for None; raise ``ValueError`` for another length."""
    times = np.zeros(count, np.int64) if given is None else np.asarray(given, np.int64)
    if times.shape != (count,):
        raise ValueError(f"{name} must be {count} cycles, not {times.size}")
    if count and times.min() < 0:
        raise ValueError(f"{name} must be at least 0, not {times.min()}")
    return times


def _table(cfg: SystolicConfig, tiles: Sequence[Tile]) -> np.ndarray:
    """Return `tiles`, each checked, as int64 [tiles, 4]: is os, m, k, emits."""
    for tile in tiles:
        tile.check(cfg)
    rows = [(tile.dataflow == "os", tile.m, tile.k, tile.emit) for tile in tiles]
    return np.array(rows, np.int64).reshape(len(rows), 4)


def transfers(
    cfg: SystolicConfig,
    tiles: Sequence[Tile],
    *,
    commands_valid: Sequence[int] | np.ndarray | None = None,
    acts_valid: Sequence[int] | np.ndarray | None = None,
    weights_valid: Sequence[int] | np.ndarray | None = None,
    sums_ready: Sequence[int] | np.ndarray | None = None,
) -> Transfers:
    """Return the cycle of every transfer of an array that executes `tiles` from cycle 0, reset.

    Beat j of a stream is offered from cycle ``valid[j]``, or taken from cycle ``ready[j]`` on, in
    order; None means always. Equal to the RTL's cycle for cycle. Raises ``ValueError`` for a tile
    `cfg` cannot execute and for arrays that do not have one entry a beat.
    """
    return Transfers(*_transfers(
        _table(cfg, tiles),
        cfg.latency_cycles - 1,
        cfg.initiation_interval_cycles,
        cfg.pe.merge_cycles,
        _times("commands_valid", commands_valid, len(tiles)),
        _times("acts_valid", acts_valid, sum(tile.act_beats for tile in tiles)),
        _times("weights_valid", weights_valid, sum(tile.weight_beats for tile in tiles)),
        _times("sums_ready", sums_ready, sum(tile.sum_beats for tile in tiles)),
    ))


@njit(cache=True)
def _tile_times(table, delay, interval, merge, commands_valid, acts_valid, weights_valid):
    """Schedule whole tiles in closed form: once offered, the beats of a tile follow at once."""
    out = np.zeros((5, len(table)), np.int64)
    moved, end = 0, -1
    weights_open = slot_open = act_open = 0
    for tile in range(len(table)):
        os, m, k, _ = table[tile]
        loaded = max(moved, commands_valid[tile]) + 1
        if os:
            moved = max(loaded, end)
            first = max(moved + 1, act_open, acts_valid[tile], weights_valid[tile])
            last = max(first + (k - 1) * interval, slot_open)
            if k == 1:
                first = last
            slot = end = last + merge
            first_weight, weights_open, slot_open = first, end + 1, end + m
        else:
            first_weight = max(loaded, weights_open, weights_valid[tile])
            moved = max(first_weight + k - 1, end)
            first = max(moved + 1, act_open, acts_valid[tile], slot_open)
            last = end = first + (m - 1) * interval
            weights_open, slot, slot_open = first, first, end + 1
        act_open = last + interval
        out[:, tile] = first_weight, first, last, slot + delay + 1, slot_open + delay
    return out


def tile_times(
    cfg: SystolicConfig,
    tiles: Sequence[Tile],
    *,
    commands_valid: Sequence[int] | np.ndarray | None = None,
    acts_valid: Sequence[int] | np.ndarray | None = None,
    weights_valid: Sequence[int] | np.ndarray | None = None,
) -> TileTimes:
    """Return the ends of every tile, where a tile's beats are all there once its first one is.

    Entry i of ``acts_valid`` and ``weights_valid`` is the cycle from which all beats of tile i are
    offered; sums are always taken. Equal to `transfers` under that schedule, at a cost that does
    not depend on the tiles' sizes. Raises ``ValueError`` as `transfers` does.
    """
    return TileTimes(*_tile_times(
        _table(cfg, tiles),
        cfg.latency_cycles - 1,
        cfg.initiation_interval_cycles,
        cfg.pe.merge_cycles,
        _times("commands_valid", commands_valid, len(tiles)),
        _times("acts_valid", acts_valid, len(tiles)),
        _times("weights_valid", weights_valid, len(tiles)),
    ))
