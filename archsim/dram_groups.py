"""Channels that do the same are simulated once: who follows whom, by proof and not by guess.

A channel follows a leader while its whole state and its work equal the leader's. It leaves before
a transfer that gives it other work, and joins again only when every number that can still matter
is equal.
"""

import numpy as np

from archsim import dram_kernel as at
from archsim.dram_state import ranks_of

__all__ = ["bounds", "join_equal_channels", "leave_unequal_channels", "share_labels"]

COUNTERS = slice(at.ACTIVATES, at.STATE)
TIMES = [at.ROW_BUS, at.COLUMN_BUS, at.ACCEPT, at.BUSY_SINCE]
PLAIN = [at.COUNT, at.PASSED, at.TURN, at.DATA_END, at.LAST_KIND, at.LAST_RANK]


def bounds(
    k: np.ndarray, move: tuple[int, ...], listed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first burst of each piece of a transfer, and the one after its last."""
    if move[at.M_LISTED] >= 0:
        base = listed[move[at.M_LISTED] : move[at.M_LISTED] + move[at.M_PIECES], 0]
    else:
        base = move[at.M_BASE] + move[at.M_STRIDE] * np.arange(move[at.M_PIECES])
    last = (base + (move[at.M_BYTES] - 1)) >> k[at.BURST_BITS]
    return base >> k[at.BURST_BITS], last + 1


def share_labels(k: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return for each channel the first channel with the same bursts of the given pieces.

    Bursts are the same when they have the same numbers within their channels, in the same order.
    """
    channels = np.arange(int(k[at.CHANNELS]))[:, None]
    below = getattr(at.below, "py_func", at.below)  # the same source, on arrays
    share = np.concatenate([below(k, channels, low), below(k, channels, high)], axis=1)
    _, first, label = np.unique(share, axis=0, return_index=True, return_inverse=True)
    return first[label.reshape(-1)]


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


def join_equal_channels(
    k: np.ndarray, s: np.ndarray, credit: np.ndarray, now: int, labels: list[np.ndarray]
) -> None:
    """Let leaders with equal futures become one; `credit` keeps each channel's own counts.

    `labels` are those of the transfers under way: what is still to come of them must be equal too.
    """
    leaders = np.flatnonzero(s[:, at.LEADER] == np.arange(len(s))).tolist()
    if len(leaders) == 1:
        return
    known: dict[bytes, int] = {}
    for channel in leaders:
        _settle(k, s[channel], now)
        work = np.array([label[channel] for label in labels], np.int64).tobytes()
        first = known.setdefault(_future(k, s[channel], now) + work, channel)
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
