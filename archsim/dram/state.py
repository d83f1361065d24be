"""The arrays the compiled DRAM controller works on, made from a machine's configuration."""

import numpy as np

from archsim.dram import kernel as at
from machine.dram import COMMANDS, DramConfig, rules

__all__ = ["constants", "fresh_state", "fresh_transfers", "ranks_of"]


def constants(cfg: DramConfig, *, ports: int, depth: int, shortcuts: bool) -> np.ndarray:
    """Return the numbers of `cfg` the compiled loop is given, its rules in compact form."""
    t, (channel_low, channel_bits) = cfg.timing, cfg.fields["ch"]
    (window,) = (rule for rule in rules(cfg) if rule.nth > 1)
    groups = cfg.ranks * cfg.bank_groups
    at_row = at.STATE + (cfg.banks + groups + cfg.ranks + 1) * len(COMMANDS)
    at_bank = at_row + cfg.banks
    at_hitting = at_bank + cfg.banks * at.B_WIDTH
    at_waiting = at_hitting + cfg.banks
    at_left = at_waiting + cfg.banks
    at_rank = at_left + ports * depth
    at_queue = at_rank + cfg.ranks * (at.ACTS + window.nth)
    at_lane = at_queue + cfg.queue_entries * at.Q_WIDTH
    named = {
        at.CHANNELS: cfg.channels,
        at.RANKS: cfg.ranks,
        at.BANKS: cfg.banks,
        at.GROUPS: groups,
        at.RANK_BITS: (cfg.bank_groups * cfg.banks_per_group).bit_length() - 1,
        at.GROUP_BITS: cfg.banks_per_group.bit_length() - 1,
        at.PORTS: ports,
        at.DEPTH: depth,
        at.QUEUE: cfg.queue_entries,
        at.OVERTAKES: cfg.overtakes_max,
        at.SHARED_BUS: cfg.command_bus == "shared",
        at.SHORTCUTS: shortcuts,
        at.REFRESHES: cfg.refresh != "off",
        at.BURST_CYCLES: cfg.burst_cycles,
        at.BURST_BITS: cfg.burst_bytes.bit_length() - 1,
        at.CL: t.cl_cycles,
        at.CWL: t.cwl_cycles,
        at.RFC: t.rfc_cycles,
        at.REFI: t.refi_cycles,
        at.ACT_WINDOW: window.nth,
        at.ACT_WINDOW_CYCLES: window.gap_cycles(cfg),
        at.CHANNEL_LOW: channel_low,
        at.CHANNEL_BITS: channel_bits,
        at.AT_TIMER: at.STATE,
        at.AT_ROW: at_row,
        at.AT_BANK: at_bank,
        at.AT_HITTING: at_hitting,
        at.AT_WAITING: at_waiting,
        at.AT_LEFT: at_left,
        at.AT_RANK: at_rank,
        at.AT_QUEUE: at_queue,
        at.AT_LANE: at_lane,
        at.WIDTH: at_lane + ports * at.L_WIDTH,
    }
    assert sorted(named) == list(range(at.FIELDS))
    values = [int(named[place]) for place in range(at.FIELDS)]
    values += [*_local_fields(cfg), *_runs(cfg), *_rules_by_command(cfg, groups)]
    return np.array(values, np.int64)


def _local_fields(cfg: DramConfig) -> list[int]:
    """Return (lowest bit, mask) of each field in a channel's own burst numbers.

    They are the burst's number with the channel's bits taken out.
    """
    channel_low, channel_bits = cfg.fields["ch"]
    found = []
    for name in ("ro", "ra", "bg", "ba", "co"):
        low, bits = cfg.fields[name]
        found += [low - channel_bits if low > channel_low else low, (1 << bits) - 1]
    return found


def _runs(cfg: DramConfig) -> list[int]:
    """Return, for RD and for WR, the pace of a run in a row, or 0; if it is the fastest; if deaf.

    A run needs that it and other banks' row commands do not know each other, and no rule between
    two of its commands that holds for their bank alone: accounting would call that gap a row miss.
    Its own row cannot be closed between two of them: a request to another row may become its bank's
    oldest on the way, and would have it closed.
    It is the fastest if the channel alone allows no other pace. It is deaf if the other kind of
    command may go to no bank as soon as the next of the run.
    """
    steps, wide, deaf = [], [], []
    whole = {"channel", "rank"} if cfg.ranks == 1 else {"channel"}
    for kind, other in (("RD", "WR"), ("WR", "RD")):
        same, known, closes, turns = [], True, 0, 0
        for rule in rules(cfg):
            pair = {rule.after, rule.before}
            if rule.after == rule.before == kind:
                same.append((rule.scope, rule.gap_cycles(cfg)))
                known &= rule.nth == 1 and rule.scope != "bank"
            elif kind in pair and pair & {"ACT", "PRE"}:
                known &= rule.scope == "bank"
                if (rule.after, rule.before) == (kind, "PRE"):
                    closes = max(closes, rule.gap_cycles(cfg))
            elif (rule.after, rule.before) == (kind, other) and rule.scope in whole:
                turns = max(turns, rule.gap_cycles(cfg) if rule.nth == 1 else 0)
        step = max([1, *(gap for scope, gap in same if scope != "other_ranks")])
        least = max([1, *(gap for scope, gap in same if scope == "channel")])
        steps.append(step if known and closes >= step else 0)
        wide.append(int(step == least))
        deaf.append(int(turns > step))
    return [*steps, *wide, *deaf]


def _rules_by_command(cfg: DramConfig, groups: int) -> list[int]:
    """Return where the rules that count from each command begin, and the rules.

    Those that never delay are left out. A rule on an earlier command than the last (tFAW) is not
    among them: the activate ring holds it.
    """
    in_group, in_rank = cfg.banks_per_group, cfg.banks_per_group * cfg.bank_groups
    scopes = {  # (banks of one, the first in the list of timers, numbers to flip)
        "bank": (1, 0, [0]),
        "bank_group": (in_group, cfg.banks, [0]),
        "rank": (in_rank, cfg.banks + groups, [0]),
        "other_ranks": (in_rank, cfg.banks + groups, range(1, cfg.ranks)),
        "channel": (in_rank * cfg.ranks, cfg.banks + groups + cfg.ranks, [0]),
    }
    starts: list[int] = []
    packed: list[int] = []
    first = at.CONSTANTS
    for command in COMMANDS:
        starts.append(first + len(packed))
        for rule in rules(cfg):
            gap = rule.gap_cycles(cfg)
            if rule.after == command and rule.nth == 1 and gap > 0:
                banks, node, flips = scopes[rule.scope]
                timer = at.STATE + node * len(COMMANDS) + COMMANDS.index(rule.before)
                for flip in flips:
                    packed += [banks.bit_length() - 1, flip, timer, gap]
    return [*starts, first + len(packed), *packed]


def fresh_state(cfg: DramConfig, k: np.ndarray) -> np.ndarray:
    """Return the state at cycle 0: all banks closed, nothing queued, no command ever issued.

    With shortcuts all channels follow channel 0; without them each one leads itself.
    """
    channels = cfg.channels
    state = np.zeros((channels, k[at.WIDTH]), np.int64)
    state[:, k[at.AT_ROW] : k[at.AT_BANK]] = -1
    state[:, k[at.AT_BANK] + at.B_RIVAL : k[at.AT_HITTING] : at.B_WIDTH] = at.NEVER
    places = np.arange(k[at.AT_QUEUE], k[at.AT_LANE], at.Q_WIDTH)
    state[:, at.FREE] = places[0]
    state[:, places[:-1] + at.Q_NEXT] = places[1:]
    for channel in state:
        rank = ranks_of(k, channel)
        rank[:, at.DUE] = [cfg.first_refresh_cycle(r) for r in range(cfg.ranks)]
        rank[:, at.ACTS :] = -at.NEVER
    state[:, at.OFFERED] = at.NEVER
    alone = not k[at.SHORTCUTS]
    state[:, at.LEADER] = np.arange(channels) if alone else 0
    state[:, at.MEMBERS] = 1 if alone else channels
    state[:, at.AFTER] = [*range(1, channels), -1] if alone else -1
    return state


def fresh_transfers(k: np.ndarray) -> np.ndarray:
    """Return the table of transfers, none under way; the last row begins and ends their list."""
    moves = np.zeros((k[at.PORTS] * k[at.DEPTH] + 1, at.MOVE), np.int64)
    moves[:, at.M_LEFT] = -1
    moves[-1, [at.M_BEFORE, at.M_AFTER]] = len(moves) - 1
    return moves


def ranks_of(k: np.ndarray, channel: np.ndarray) -> np.ndarray:
    """Return the ranks of one channel's state as rows, a view."""
    return channel[k[at.AT_RANK] : k[at.AT_QUEUE]].reshape(int(k[at.RANKS]), -1)
