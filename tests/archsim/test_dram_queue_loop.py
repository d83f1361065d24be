"""The compiled controller with queues does what a plain one does, cycle by cycle."""

import json
import random
import tomllib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

import machine.dram as dram
from archsim.dram import queue_device as at
from archsim.dram.controller import Controller
from machine.dram import COMMANDS
from machine.dram_queues import QueuePolicy

PRESETS = Path(dram.__file__).parent / "presets" / "dram"
RD, WR = COMMANDS.index("RD"), COMMANDS.index("WR")


def preset(name, **changes):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return replace(TypeAdapter(dram.DramConfig).validate_json(json.dumps(table)), **changes)


class Plain:
    """A channel and its queues in plain Python: every cycle, every request, every rule is seen."""

    def __init__(self, cfg, policy):
        self.cfg, self.policy = cfg, policy
        self.rules = defaultdict(list)
        for rule in dram.rules(cfg):
            self.rules[rule.before].append((rule, rule.gap_cycles(cfg)))
        self.past = defaultdict(list)  # (command, scope, place) -> cycles
        self.bus = {"row": 0, "column": 0}
        self.rows, self.claims = {}, {}  # of banks; claims: bank -> request
        self.due = [cfg.first_refresh_cycle(r) if cfg.refresh != "off" else 1 << 60
                    for r in range(cfg.ranks)]
        self.trace, self.reads, self.writes, self.writing = [], [], [], False
        self.in_rank = cfg.bank_groups * cfg.banks_per_group

    def places(self, bank):
        return {"bank": bank, "bank_group": bank // self.cfg.banks_per_group,
                "rank": bank // self.in_rank, "channel": 0}

    def buses(self, command):
        return ("row", "column") if self.cfg.command_bus == "shared" else (dram.BUS[command],)

    def ready(self, command, bank):
        places, time = self.places(bank), max(self.bus[b] for b in self.buses(command))
        for rule, gap in self.rules[command]:
            if rule.scope == "other_ranks":
                where = [("rank", r) for r in range(self.cfg.ranks) if r != places["rank"]]
            else:
                where = [(rule.scope, places[rule.scope])]
            for scope, place in where:
                past = self.past[rule.after, scope, place]
                if len(past) >= rule.nth:
                    time = max(time, past[-rule.nth] + gap)
        return time

    def issue(self, command, bank, row, column, now):
        for b in self.buses(command):
            self.bus[b] = now + 1
        wide = command in ("PREA", "REF")
        for scope, place in self.places(bank).items():
            if not wide or scope in ("rank", "channel"):
                self.past[command, scope, place].append(now)
        if command == "ACT":
            self.rows[bank] = row
        elif command == "PRE":
            del self.rows[bank]
        elif command == "PREA":
            self.rows = {b: r for b, r in self.rows.items() if b // self.in_rank
                         != bank // self.in_rank}
        elif command == "REF":
            self.due[bank // self.in_rank] += self.cfg.timing.refi_cycles
        self.trace.append((now, command, bank, row, column))

    def run(self, fields):
        """Serve requests [N, 5]; return when the data of each ended."""
        t, done = self.cfg.timing, [0] * len(fields)
        first = {"RD": self.cfg.slots("RD") - 1 + t.cl_cycles,
                 "WR": self.cfg.slots("WR") - 1 + t.cwl_cycles}
        arrived = now = 0
        while True:
            if arrived < len(fields):
                kind, bank, row, column, since = fields[arrived]
                queue, room = ((self.writes, self.policy.write_entries) if kind == WR
                               else (self.reads, self.policy.read_entries))
                if since <= now and len(queue) < room:
                    if kind == RD and any(tuple(fields[i][1:4]) == (bank, row, column)
                                          for i in self.writes):
                        done[arrived] = now + 1
                    else:
                        queue.append(arrived)
                    arrived += 1
            while True:  # with two buses, two commands may go in one cycle
                if arrived == len(fields) and not (self.reads or self.writes or self.claims):
                    return done
                found = self.choose(fields, now)
                if found is None:
                    break
                (order, i, command, bank), row, column = found, -1, -1
                if command in ("RD", "WR"):
                    _, _, row, column, _ = fields[i]
                    done[i] = now + first[command] + self.cfg.burst_cycles
                elif command == "ACT":
                    row = fields[i][2]
                self.issue(command, bank, row, column, now)
                if command in ("RD", "WR") and order == 0:
                    del self.claims[bank]
                elif command in ("RD", "WR", "ACT"):
                    (self.writes if fields[i][0] == WR else self.reads).remove(i)
                    if command == "ACT":
                        self.claims[bank] = i
            now += 1

    def choose(self, fields, now):
        """Return (class, age, command, bank) of what goes now, or None."""
        policy, offers = self.policy, []
        if not self.writing:
            self.writing = len(self.writes) >= policy.write_high_entries or not self.reads
        elif len(self.writes) <= policy.write_low_entries and self.reads:
            self.writing = False
        waiting = bool(self.reads or self.writes or self.claims)
        blocked = [now >= due and (not waiting or now >= due + policy.postponed_max
                                   * self.cfg.timing.refi_cycles) for due in self.due]
        for bank, i in self.claims.items():
            offers.append((0, i, COMMANDS[fields[i][0]], bank))
        for rank, stops in enumerate(blocked):
            if stops and not any(b // self.in_rank == rank for b in self.claims):
                opened = any(b // self.in_rank == rank for b in self.rows)
                offers.append((1, rank, "PREA" if opened else "REF", rank * self.in_rank))
        for i in self.writes if self.writing else self.reads:
            kind, bank, row = fields[i][:3]
            if blocked[bank // self.in_rank]:
                continue
            if self.rows.get(bank) == row:
                offers.append((2, i, COMMANDS[kind], bank))
            elif bank not in self.claims:
                offers.append((2, i, "PRE" if bank in self.rows else "ACT", bank))
        if policy.page_policy == "closed":
            wanted = {(fields[i][1], fields[i][2]) for i in self.reads + self.writes}
            offers += [(3, bank, "PRE", bank) for bank, row in self.rows.items()
                       if bank not in self.claims and (bank, row) not in wanted]
        legal = [o for o in offers if self.ready(o[2], o[3]) <= now]
        return min(legal) if legal else None


NAMES = sorted(path.stem for path in PRESETS.glob("*.toml"))


def drawn(seed):
    """Return a random channel, policy and stream of requests [N, 5]."""
    rng = random.Random(seed)
    cfg = preset(rng.choice(NAMES))
    cfg = replace(cfg, ranks=rng.choice([cfg.ranks, 1, 2]),
                  command_bus=rng.choice([cfg.command_bus, "shared", "row+column"]))
    t = cfg.timing
    often = t.rfc_cycles + t.ras_cycles + 2 * t.rp_cycles + rng.choice([200, 900])
    cfg = replace(cfg, timing=replace(t, refi_cycles=min(t.refi_cycles, often)),
                  refresh=rng.choice([cfg.refresh, "off"]))
    high = rng.choice([3, 26])
    policy = QueuePolicy(
        read_entries=rng.choice([1, 4, 32]), write_entries=32 if high > 3 else 4,
        write_high_entries=high, write_low_entries=rng.choice([0, 2]),
        page_policy=rng.choice(["open", "open", "closed"]), postponed_max=rng.choice([0, 0, 2]))
    return cfg, policy, stream(rng, cfg)


def stream(rng, cfg):
    """Return requests in runs of hits, over one or all bank groups, or in few rows; with pauses."""
    count, columns = rng.choice([20, 120]), cfg.columns // cfg.burst_length
    kind = rng.choice(["run", "groups", "few rows", "visits"])
    turn = rng.choice([0, 0, 0.02, 0.4]) if kind != "visits" else 0
    since, way, made = 0, rng.choice([RD, WR]), []
    for i in range(count):
        if rng.random() < turn:
            way = RD + WR - way
        since += rng.choice([1, 2, 3, 5] if kind == "visits" else [0] * 20 + [1, 3, 80])
        if kind == "run":
            place = i // columns % cfg.banks, i // (columns * cfg.banks), i % columns
        elif kind == "groups":
            group = i % (cfg.ranks * cfg.bank_groups)
            place = group * cfg.banks_per_group, 7, i // 8 % columns
        elif kind == "visits":  # mostly one group; what comes from the other may be sooner
            place = cfg.banks_per_group * int(rng.random() < 0.2), 7, i % columns
        else:
            place = rng.randrange(cfg.banks), rng.randrange(3), rng.randrange(2)
        made.append((way, *place, since if rng.random() < 0.9 else 0))
    return made


def state(controller):
    """Return rows, refreshes due, activates and timers, the buses and the counters."""
    k, x = controller._k, controller._x
    banks = x[k[at.AT_BANK] : k[at.AT_RANK]].reshape(-1, at.B_WIDTH)[:, : at.B_CLAIM + 1]
    ranks = x[k[at.AT_RANK] : k[at.AT_LIST]].reshape(-1, k[at.RANK_WIDTH]).copy()
    ranks[:, at.N_WIDE] = 0  # looked up anew for each command
    timers = x[k[at.AT_TIMER] :]
    return [part.tolist() for part in (x[: at.SOON], banks, ranks, timers)]


def check(seed):
    cfg, policy, fields = drawn(seed)
    plain = Plain(cfg, policy)
    done = plain.run(fields)
    controller = Controller(cfg, policy, record=True)
    table = np.array(fields, np.int64)
    assert controller.run_packed(table).tolist() == done, seed
    found = [(c.cycle, c.command, c.row, c.column) for c in controller.trace]
    assert found == [(c[0], c[1], c[3], c[4]) for c in plain.trace], seed
    flat = [(c.rank * cfg.bank_groups + c.bank_group) * cfg.banks_per_group + c.bank
            for c in controller.trace if c.bank >= 0]
    assert flat == [c[2] for c in plain.trace if c[1] not in ("PREA", "REF")], seed
    # Without a trace, runs of hits are served without a choice: the same in the end.
    fast = Controller(cfg, policy)
    assert fast.run_packed(table).tolist() == done, seed
    assert state(fast) == state(controller), seed
    return len(found)


def test_every_command_of_random_streams_is_that_of_the_plain_controller():
    assert sum(check(seed) for seed in range(60)) > 5000


@pytest.mark.slow
def test_every_command_of_a_thousand_random_streams_is_that_of_the_plain_controller():
    assert sum(check(seed) for seed in range(1000, 2000)) > 100_000


def test_a_long_stream_ends_in_the_same_state_with_its_runs_taken_together():
    cfg, number = preset("ddr4-2400r"), np.arange(40_000)
    for scale in (1, 16):  # over all banks, or a bank after the other
        bank, row = number // scale % 16, number // 2048
        fields = np.zeros((len(number), 5), np.int64)
        fields[:, 0] = RD
        fields[:, 1], fields[:, 2] = bank % 4 * 4 + bank // 4, row
        fields[:, 3] = number // 16 % 128
        one, other = Controller(cfg, record=True), Controller(cfg)
        assert (one.run_packed(fields) == other.run_packed(fields)).all()
        assert state(one) == state(other)
        assert one.counters().refreshes > 10
