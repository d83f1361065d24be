"""The arrays the compiled DRAM controller works on, made from a machine's configuration."""

import numpy as np

from archsim import dram_kernel as at
from machine.dram import COMMANDS, DramConfig, rules

__all__ = ["constants", "fresh_state", "fresh_transfers", "ranks_of"]

SCOPES = ("bank", "bank_group", "rank", "channel", "other_ranks")  # by their number in the kernel


def constants(cfg: DramConfig, *, ports: int, depth: int, shortcuts: bool) -> np.ndarray:
    """Return the numbers of `cfg` the compiled loop is given, its rules in compact form."""
    t, (channel_low, channel_bits) = cfg.timing, cfg.fields["ch"]
    (window,) = (rule for rule in rules(cfg) if rule.nth > 1)
    groups = cfg.ranks * cfg.bank_groups
    at_row = at.STATE + (cfg.banks + groups + cfg.ranks + 1) * len(COMMANDS)
    at_bank = at_row + cfg.banks
    at_used = at_bank + cfg.banks * at.B_WIDTH
    at_left = at_used + cfg.banks
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
        at.AT_USED: at_used,
        at.AT_LEFT: at_left,
        at.AT_RANK: at_rank,
        at.AT_QUEUE: at_queue,
        at.AT_LANE: at_lane,
        at.WIDTH: at_lane + ports * at.L_WIDTH,
    }
    assert sorted(named) == list(range(at.FIELDS))
    values = [int(named[place]) for place in range(at.FIELDS)]
    return np.array([*values, *_local_fields(cfg), *_runs(cfg), *_rules_by_command(cfg)], np.int64)


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
    """Return, for RD and for WR, the pace of a run in a row, or 0; then if it is the fastest.

    A run needs rules that let other banks' row commands go as if it were not there, and none
    between two commands to one bank that is not one of its group, rank or channel too: accounting
    would call that gap a row miss. It is the fastest if the channel alone allows no other pace.
    """
    steps, wide = [], []
    for kind in ("RD", "WR"):
        after = [(rule, rule.gap_cycles(cfg)) for rule in rules(cfg) if rule.after == kind]
        known = all(
            rule.nth == 1
            and (rule.before not in ("ACT", "PRE") or rule.scope == "bank")
            and (rule.before != kind or rule.scope != "bank")
            for rule, _ in after
        )
        same = [(rule.scope, gap) for rule, gap in after if rule.before == kind]
        step = max([1, *(gap for scope, gap in same if scope != "other_ranks")])
        least = max([1, *(gap for scope, gap in same if scope == "channel")])
        steps.append(step if known else 0)
        wide.append(int(step == least))
    return [*steps, *wide]


def _rules_by_command(cfg: DramConfig) -> list[int]:
    """Return where the rules after each command and in each scope begin, and the rules.

    Those that never delay are left out. A rule on an earlier command than the last (tFAW) is not
    among them: the activate ring holds it.
    """
    starts: list[int] = []
    packed: list[int] = []
    first = at.CONSTANTS
    for command in COMMANDS:
        for scope in SCOPES:
            starts.append(first + len(packed))
            for rule in rules(cfg):
                gap = rule.gap_cycles(cfg)
                if (rule.after, rule.scope, rule.nth) == (command, scope, 1) and gap > 0:
                    packed += [COMMANDS.index(rule.before), gap]
    return [*starts, first + len(packed), *packed]


def fresh_state(cfg: DramConfig, k: np.ndarray) -> np.ndarray:
    """Return the state at cycle 0: all banks closed, nothing queued, no command ever issued.

    With shortcuts all channels follow channel 0; without them each one leads itself.
    """
    channels = cfg.channels
    state = np.zeros((channels, k[at.WIDTH]), np.int64)
    state[:, k[at.AT_ROW] : k[at.AT_BANK]] = -1
    state[:, k[at.AT_BANK] + at.B_RIVAL : k[at.AT_USED] : at.B_WIDTH] = at.NEVER
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
