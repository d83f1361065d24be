"""The arrays the compiled DRAM controller works on, made from a machine's configuration."""

import numpy as np

from archsim import dram_kernel as at
from machine.dram import COMMANDS, DramConfig, rules

__all__ = ["constants", "fresh_state", "fresh_transfers", "ranks_of"]

SCOPES = ("bank", "bank_group", "rank", "other_ranks", "channel")


def constants(cfg: DramConfig, *, ports: int, depth: int, shortcuts: bool) -> np.ndarray:
    """Return the numbers of `cfg` the compiled loop is given, its rules in compact form."""
    t, (channel_low, channel_bits) = cfg.timing, cfg.fields["ch"]
    (window,) = (rule for rule in rules(cfg) if rule.nth > 1)
    groups = cfg.ranks * cfg.bank_groups
    at_row = at.STATE + (cfg.banks + groups + cfg.ranks + 1) * len(COMMANDS)
    at_seen = at_row + cfg.banks
    at_rank = at_seen + cfg.banks * at.SEEN_WIDTH
    at_queue = at_rank + cfg.ranks * (at.ACTS + window.nth)
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
        at.AT_SEEN: at_seen,
        at.AT_RANK: at_rank,
        at.AT_QUEUE: at_queue,
        at.AT_LANE: at_queue + cfg.queue_entries * at.Q_WIDTH,
    }
    assert sorted(named) == list(range(at.FIELDS))
    values = [int(named[place]) for place in range(at.FIELDS)]
    return np.array([*values, *_local_fields(cfg), *_rules_by_command(cfg)], np.int64)


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


def _rules_by_command(cfg: DramConfig) -> list[int]:
    """Return where the rules after each command begin, and the rules; those that never delay out.

    A rule on an earlier command than the last (tFAW) is not among them: the activate ring holds it.
    """
    starts: list[int] = []
    packed: list[int] = []
    first = at.CONSTANTS
    for command in COMMANDS:
        starts.append(first + len(packed))
        for rule in rules(cfg):
            gap = rule.gap_cycles(cfg)
            if rule.after == command and rule.nth == 1 and gap > 0:
                packed += [SCOPES.index(rule.scope), COMMANDS.index(rule.before), gap]
    return [*starts, first + len(packed), *packed]


def fresh_state(cfg: DramConfig, k: np.ndarray) -> np.ndarray:
    """Return the state at cycle 0: all banks closed, nothing queued, no command ever issued.

    With shortcuts all channels follow channel 0; without them each one leads itself.
    """
    channels, ports = cfg.channels, int(k[at.PORTS])
    state = np.zeros((channels, k[at.AT_LANE] + ports * at.L_WIDTH), np.int64)
    state[:, k[at.AT_ROW] : k[at.AT_SEEN]] = -1
    for channel in state:
        rank = ranks_of(k, channel)
        rank[:, at.DUE] = [cfg.first_refresh_cycle(r) for r in range(cfg.ranks)]
        rank[:, at.ACTS :] = -at.NEVER
    state[:, at.LEADER] = 0 if k[at.SHORTCUTS] else np.arange(channels)
    state[:, at.MEMBERS] = channels if k[at.SHORTCUTS] else 1
    return state


def fresh_transfers(k: np.ndarray) -> np.ndarray:
    """Return the table of transfers, none under way."""
    moves = np.zeros((k[at.PORTS] * k[at.DEPTH], at.MOVE), np.int64)
    moves[:, at.M_LEFT] = -1
    return moves


def ranks_of(k: np.ndarray, channel: np.ndarray) -> np.ndarray:
    """Return the ranks of one channel's state as rows, a view."""
    return channel[k[at.AT_RANK] : k[at.AT_QUEUE]].reshape(int(k[at.RANKS]), -1)
