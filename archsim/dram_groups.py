"""Channels that do the same are simulated once: who follows whom, by proof and not by guess.

A channel follows a leader while its whole state and its work equal the leader's. It leaves before
a transfer that gives it other work, and joins again only when every number that can still matter
is equal.
"""

import numpy as np

from archsim import dram_kernel as at
from archsim.dram_state import ranks_of

__all__ = ["join_equal_channels", "leave_unequal_channels"]

COUNTERS = slice(at.ACTIVATES, at.STATE)
TIMES = [at.ROW_BUS, at.COLUMN_BUS, at.ACCEPT, at.BUSY_SINCE]
PLAIN = [at.COUNT, at.PASSED, at.TURN, at.DATA_END, at.LAST_KIND, at.LAST_RANK]


def leave_unequal_channels(s: np.ndarray, label: np.ndarray) -> None:
    """Part the channels whose coming work, one `label` for equal work, is not their leader's."""
    leader = s[:, at.LEADER].tolist()
    groups: dict[tuple[int, int], list[int]] = {}
    for channel, key in enumerate(zip(leader, label.tolist(), strict=True)):
        groups.setdefault(key, []).append(channel)
    for (old, same), members in groups.items():
        new = old if same == label[old] else members[0]
        s[new] = s[old]
        s[members, at.LEADER] = new
    for (_, _), members in groups.items():
        s[s[members[0], at.LEADER], at.MEMBERS] = len(members)


def join_equal_channels(k: np.ndarray, s: np.ndarray, credit: np.ndarray, now: int) -> None:
    """Let leaders with equal futures become one; `credit` keeps each channel's own counts."""
    leaders = np.flatnonzero(s[:, at.LEADER] == np.arange(len(s))).tolist()
    if len(leaders) == 1:
        return
    known: dict[bytes, int] = {}
    for channel in leaders:
        _settle(k, s[channel], now)
        first = known.setdefault(_future(k, s[channel], now), channel)
        if first == channel:
            continue
        members = s[:, at.LEADER] == channel
        credit[members] += s[channel, COUNTERS] - s[first, COUNTERS]
        s[members, at.LEADER] = first
        s[first, at.MEMBERS] += members.sum()
        s[first, at.NEXT] = min(s[first, at.NEXT], s[channel, at.NEXT])


def _settle(k: np.ndarray, x: np.ndarray, now: int) -> None:
    """Count what is certain up to `now`, so that the past leaves no trace in the state."""
    if x[at.COUNT] == 0 and x[at.DATA_END] < now:
        x[at.IDLE] += now - x[at.DATA_END]
        x[at.DATA_END] = now
    for rank in ranks_of(k, x):
        if rank[at.OPEN]:
            x[at.ACTIVE] += now - rank[at.OPEN_SINCE]
            rank[at.OPEN_SINCE] = now


def _future(k: np.ndarray, x: np.ndarray, now: int) -> bytes:
    """Return all of a settled state that can matter from `now` on: equal only for equal futures.

    Times before `floor` are all the same: no command goes earlier, and accounting looks back no
    further than to the last data.
    """
    count, ranks = int(x[at.COUNT]), ranks_of(k, x)
    floor = min(now, int(x[at.DATA_END] - max(k[at.CL], k[at.CWL]))) if count else now
    ages = (x[at.HEAD] + np.arange(count)) % k[at.QUEUE]
    queue = x[k[at.AT_QUEUE] : k[at.AT_LANE]].reshape(-1, at.Q_WIDTH)[ages]
    queue[:, at.Q_ARRIVED] = np.maximum(queue[:, at.Q_ARRIVED], floor)
    lanes = x[k[at.AT_LANE] :].reshape(-1, at.L_WIDTH).copy()
    lanes[lanes[:, at.L_BURST] >= lanes[:, at.L_END], at.L_BURST :] = -1
    activates = [np.roll(rank[at.ACTS :], -rank[at.ACT_HEAD]) for rank in ranks]
    parts = (
        x[PLAIN],
        np.maximum(x[TIMES], floor),
        np.maximum(x[k[at.AT_TIMER] : k[at.AT_ROW]], floor),
        x[k[at.AT_ROW] : k[at.AT_SEEN]],
        np.maximum(np.concatenate(activates) + k[at.ACT_WINDOW_CYCLES], floor),
        ranks[:, [at.DUE, at.OPEN]],
        np.maximum(ranks[:, at.REFRESH_END], floor),
        queue,
        lanes,
    )
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
