"""The rules, each from both sides, in the device and in the checker; injected faults are found."""

import json
import random
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import machine.dram as dram
from archsim.dram.channels import Memory
from archsim.dram.check import first_violation
from archsim.dram.device import Device
from archsim.dram.trace import Command

PRESETS = Path(dram.__file__).parent / "presets" / "dram"


def preset(name, **changes):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return replace(TypeAdapter(dram.DramConfig).validate_json(json.dumps(table)), **changes)


CONFIGS = {
    "hbm2": preset("hbm2-neupims", channels=1),
    "hbm2 two buses": preset("hbm2-neupims", channels=1, command_bus="row+column"),
    "ddr4": preset("ddr4-2400r"),
    "ddr4 two ranks": preset("ddr4-2400r", ranks=2),
    "ddr5": preset("ddr5-4800bn", channels=1),
    "lpddr5": preset("lpddr5-6400", channels=1),
    "gddr6": preset("gddr6-1350mv"),
    "hbm3": preset("hbm3-6400", channels=1),
}
HBM2, DDR4 = CONFIGS["hbm2"], CONFIGS["ddr4"]
LONG_AGO = 1000  # the commands that prepare a case end here, further back than any gap

# Where the second command of a rule goes, the first being at rank 0, group 0, bank 0.
SECOND = {
    "bank": (0, 0, 0),
    "bank_group": (0, 0, 1),
    "rank": (0, 1, 0),
    "other_ranks": (1, 0, 0),
    "channel": (0, 1, 0),
}
FIRST = (0, 0, 0)
# Rules that never decide in a preset: another of the same two commands, or four activates at
# tRRD_S instead of tFAW, asks for more; the gap is not positive; there is no other rank.
HIDDEN = {
    "hbm2": {"tCCD_S RD-RD", "tCCD_S WR-WR", "tRTRS WR-RD"},
    "hbm2 two buses": {"tCCD_S RD-RD", "tCCD_S WR-WR", "tRTRS WR-RD"},
    "ddr4": {"tRTRS RD-RD", "tRTRS WR-RD"},
    "ddr4 two ranks": set(),
    "ddr5": {"tRTRS RD-RD", "tRTRS WR-RD", "slots ACT-ACT", "slots ACT-PREA", "slots RD-PREA",
             "slots WR-PREA", "slots RD-RD", "slots RD-WR", "slots WR-RD", "slots WR-WR"},
    "lpddr5": {"tRTRS RD-RD", "tRTRS WR-RD", "slots ACT-ACT", "slots ACT-PREA"},
    "gddr6": {"tRTRS RD-RD", "tRTRS WR-RD"},
    "hbm3": {"tRTRS RD-RD", "tRTRS WR-RD", "tFAW ACT-ACT", "slots ACT-ACT", "slots ACT-PREA"},
}  # fmt: skip


def pair(rule):
    return f"{rule.name} {rule.after}-{rule.before}"


def decides(cfg, rule):
    """Return whether no other rule asks for more where this file puts the two commands."""
    if rule.nth > 1:
        return rule.gap_cycles(cfg) >= rule.nth * cfg.timing.rrd_s_cycles
    holds = {"bank": 1, "bank_group": 2, "rank": 3, "channel": 4}
    second = SECOND[rule.scope]
    near = 4 if second[0] else 3 if second[1] else 2 if second[2] else 1
    others = [
        other.gap_cycles(cfg)
        for other in dram.rules(cfg)
        if (other.after, other.before, other.nth) == (rule.after, rule.before, 1)
        and (second[0] if other.scope == "other_ranks" else holds[other.scope] >= near)
    ]
    there = rule.scope != "other_ranks" or cfg.ranks > 1
    return there and rule.gap_cycles(cfg) >= max([1, *others])


def cases(name):
    cfg = CONFIGS[name]
    return [
        pytest.param(name, rule, id=f"{name}: {pair(rule)} {rule.scope}")
        for rule in dram.rules(cfg)
        if pair(rule) not in HIDDEN[name]
    ]


def needed(command, place, opened):
    """Return the ACTs that put a bank in the state `command` asks for."""
    wants_row = command in ("RD", "WR", "PRE")
    return [("ACT", place)] if wants_row and place not in opened else []


def at(command, place):
    rank, group, bank = place
    inside = {} if command in ("PREA", "REF") else {"group": group, "bank": bank}
    return {"rank": rank, **inside}


def prepare(rule):
    """Return the commands before the rule's own two, and where those two go."""
    first, second = FIRST, SECOND[rule.scope]
    if rule.nth > 1:  # activates of other banks, as close as they may be
        return [("ACT", (0, g, 0)) for g in range(rule.nth - 1)], (0, rule.nth - 1, 0), (0, 0, 1)
    before = needed(rule.after, first, [])
    before += needed(rule.before, second, [place for _, place in before])
    if rule.after == "REF" or (rule.after == "ACT" and rule.scope == "bank"):
        before = []
    return before, first, second


@pytest.mark.parametrize(("name", "rule"), [case for name in CONFIGS for case in cases(name)])
def test_a_rule_blocks_one_cycle_early_and_lets_go_on_time(name, rule):
    cfg, device, trace = CONFIGS[name], Device(CONFIGS[name]), []

    def issue(command, place, now):
        device.issue(command, **at(command, place), row=7, now=now)
        group, bank = (-1, -1) if command in ("PREA", "REF") else place[1:]
        trace.append(Command(now, 0, command, place[0], group, bank, 7, 0))

    before, first, second = prepare(rule)
    for command, place in before:
        issue(command, place, device.ready_at(command, **at(command, place)))
    now = device.ready_at(rule.after, **at(rule.after, first))
    if rule.nth == 1:
        now = max(now, LONG_AGO)
    start = now if rule.nth == 1 else trace[0].cycle  # the rule counts from the nth previous
    issue(rule.after, first, now)
    legal = start + rule.gap_cycles(cfg)
    assert device.ready_at(rule.before, **at(rule.before, second)) == legal

    # In this case another command has to close the row before this one can come at all.
    slot_of_refresh = rule.name == "slots" and rule.before == "REF"
    if slot_of_refresh or (rule.after, rule.before, rule.scope) == ("ACT", "ACT", "bank"):
        return
    with pytest.raises(ValueError) as caught:
        issue(rule.before, second, legal - 1)
    assert str(caught.value) == f"{rule.before} issued at cycle {legal - 1}, legal from {legal}"

    group, bank = (-1, -1) if rule.before in ("PREA", "REF") else second[1:]
    early = Command(legal - 1, 0, rule.before, second[0], group, bank, 7, 0)
    assert first_violation(cfg, trace) is None
    found, tail = first_violation(cfg, [*trace, early]), f"{rule.before} legal from {legal}"
    assert found.place == len(trace)
    why = f"command bus: free from {legal}" if rule.name == "slots" else tail
    assert found.reason.endswith(why)
    issue(rule.before, second, legal)
    assert first_violation(cfg, trace) is None


def test_rules_left_out_never_decide_and_the_others_do():
    tested = set()
    for name, hidden in HIDDEN.items():
        cfg = CONFIGS[name]
        assert {pair(rule) for rule in dram.rules(cfg) if not decides(cfg, rule)} == hidden, name
        tested |= {rule.name for rule in dram.rules(cfg) if decides(cfg, rule)}
    assert {"tFAW", "tRTRS", "tCCD_S", "tPPD", "slots"} <= tested


def test_a_command_takes_the_shared_bus_for_one_cycle():
    for cfg, free in ((HBM2, LONG_AGO + 1), (CONFIGS["hbm2 two buses"], 1)):
        device = Device(cfg)
        device.issue("ACT", row=1, now=0)
        device.issue("RD", row=1, now=LONG_AGO)
        assert device.ready_at("ACT", rank=1) == free


@pytest.mark.parametrize(
    ("commands", "sentence"),
    [
        (["RD"], "RD issued at cycle 3000 needs row open, found no row"),
        (["ACT", "ACT"], "ACT issued at cycle 3000 needs bank closed, found row 1"),
        (["ACT", "REF"], "REF issued at cycle 3000 needs rank closed, found row 1"),
    ],
)
def test_device_refuses_a_command_in_the_wrong_state(commands, sentence):
    device = Device(HBM2)
    for now, command in enumerate(commands[:-1]):
        device.issue(command, row=1, now=now)
    with pytest.raises(ValueError) as caught:
        device.issue(commands[-1], row=1, now=3000)
    assert str(caught.value) == sentence


def test_device_refuses_another_row_than_the_open_one():
    device = Device(HBM2)
    device.issue("ACT", row=1, now=0)
    assert (
        device.refusal("RD", row=2, now=50) == "RD issued at cycle 50 needs row open, found row 1"
    )
    assert device.refusal("RD", row=1, now=50) is None
    assert device.open_row() == 1
    assert device.open_row(bank=1) is None


def test_asking_changes_nothing():
    device = Device(HBM2)
    device.issue("ACT", row=1, now=0)
    first = [device.ready_at(c) for c in dram.COMMANDS]
    device.refusal("RD", row=1, now=5)
    assert [device.ready_at(c) for c in dram.COMMANDS] == first


def traffic(cfg, seed, requests=600):
    """Return the recorded commands of random reads and writes on two ports, refresh among them."""
    rng = random.Random(seed)
    memory = Memory(cfg, ports=2, record=True)
    span = rng.choice([1 << 16, 1 << 22, cfg.capacity_bytes])
    for port in range(2):
        size = cfg.burst_bytes
        addresses = [rng.randrange(span // size) * size for _ in range(requests)]
        write = [rng.random() < 0.3 for _ in addresses]
        memory.start_list(port, port, write=write, addresses_bytes=addresses, row_bytes=size, now=0)
    memory.advance(20_000)
    while memory.next_event() is not None:
        memory.advance(memory.now + 100_000)
    memory.advance(memory.now + 30_000)
    return memory


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed", range(3))
def test_every_command_of_random_traffic_is_legal(name, seed):
    memory = traffic(CONFIGS[name], seed)
    counts = memory.total()
    assert counts.reads + counts.writes == 1200
    assert first_violation(CONFIGS[name], memory.trace, until=memory.now) is None
    issued = [c.command for c in memory.trace]
    assert issued.count("RD") == counts.reads
    assert issued.count("ACT") == counts.activates == counts.precharges + open_banks(memory.trace)
    assert issued.count("REF") == counts.refreshes


def open_banks(trace):
    rows = set()
    for c in trace:
        if c.command == "ACT":
            rows.add((c.rank, c.bank_group, c.bank))
        elif c.command == "PRE":
            rows.discard((c.rank, c.bank_group, c.bank))
        elif c.command == "PREA":
            rows = {bank for bank in rows if bank[0] != c.rank}
    return len(rows)


FAULTS = {
    "read one cycle before tRCD": [("ACT", 0), ("RD", 13)],
    "write one cycle before tRCD": [("ACT", 0), ("WR", 13)],
    "precharge one cycle before tRAS": [("ACT", 0), ("PRE", 33)],
    "precharge one cycle before tRTP": [("ACT", 0), ("RD", 40), ("PRE", 44)],
    "precharge one cycle before tWR": [("ACT", 0), ("WR", 40), ("PRE", 61)],
    "activate one cycle before tRP": [("ACT", 0), ("PRE", 60), ("ACT", 73)],
    "read before the burst is over": [("ACT", 0), ("RD", 40), ("RD", 41)],
    "write one cycle before the bus turns": [("ACT", 0), ("RD", 40), ("WR", 53)],
    "read one cycle before tWTR": [("ACT", 0), ("WR", 40), ("RD", 53)],
    "two commands in one slot": [("ACT", 0), ("RD", 0)],
    "time runs back": [("ACT", 5), ("PRE", 2)],
    "activate of an open bank": [("ACT", 0), ("ACT", 100)],
    "read of a closed bank": [("PRE", 0), ("RD", 50)],
    "refresh with a row open": [("ACT", 0), ("REF", 100)],
    "refresh one cycle before tRP": [("ACT", 0), ("PREA", 40), ("REF", 53)],
    "activate in refresh": [("REF", 0), ("ACT", 259)],
    "refresh in refresh": [("REF", 0), ("REF", 259)],
    "refresh after its deadline": [("REF", 100), ("REF", 100 + 9 * 3900 + 1)],
    "first refresh after its deadline": [("REF", 9 * 3900 + 1)],
    "row open too long": [("ACT", 0), ("PRE", 9 * 3900 + 1)],
}


def commands(steps):
    rank_wide = ("PREA", "REF")
    return [
        Command(now, 0, name, 0, *((-1, -1) if name in rank_wide else (0, 0)), 1, 0)
        for name, now in steps
    ]


@pytest.mark.parametrize("name", FAULTS)
def test_checker_finds_the_injected_fault(name):
    trace = commands(FAULTS[name])
    assert first_violation(HBM2, trace).place == len(trace) - 1
    assert first_violation(HBM2, trace[:-1]) is None


@pytest.mark.parametrize(
    "name", [name for name, steps in FAULTS.items() if "one cycle before" in name]
)
def test_checker_accepts_it_one_cycle_later(name):
    *steps, (last, now) = FAULTS[name]
    assert first_violation(HBM2, commands([*steps, (last, now + 1)])) is None


def test_checker_reports_a_refresh_that_never_came():
    trace = commands([("ACT", 0), ("PRE", 60)])
    assert first_violation(HBM2, trace, until=9 * 3900) is None
    assert first_violation(HBM2, trace, until=9 * 3900 + 1).reason == "tREFI: no REF by 35100"


def test_checker_finds_a_shifted_command_in_real_traffic():
    memory = traffic(HBM2, seed=5, requests=200)
    rng = random.Random(5)
    columns = [i for i, c in enumerate(memory.trace) if c.command in ("RD", "WR")]
    for i in rng.sample(columns, 20):
        c = memory.trace[i]
        wrong_row = [*memory.trace[:i], c._replace(row=c.row ^ 1)]
        reason = f"state: {c.command} needs row open"
        assert first_violation(HBM2, wrong_row) == (i, wrong_row[-1], reason)
        same_time = [*memory.trace[: i + 1], memory.trace[i]]
        assert first_violation(HBM2, same_time).place == i + 1
