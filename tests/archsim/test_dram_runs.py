"""Runs in a row and channels with clocks of their own change nothing: against every step by itself.

`shortcuts=False` issues every command by the general choice; it is checked against closed forms,
public simulators and the rules in the other files. The streams here stay in a few rows of a few
banks, where runs are long and everything that ends one comes often.
"""

import json
import random
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import machine.dram as dram
from archsim.dram import kernel as at
from archsim.dram.channels import Memory

PRESETS = Path(dram.__file__).parent / "presets" / "dram"
FAR = 1 << 40


def preset(name, **changes):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return replace(TypeAdapter(dram.DramConfig).validate_json(json.dumps(table)), **changes)


def timed(cfg, **timing):
    return replace(cfg, timing=replace(cfg.timing, **timing))


HBM2, DDR4 = preset("hbm2-neupims", channels=1), preset("ddr4-2400r")
VARIANTS = {
    "hbm2": HBM2,
    "hbm2, two channels": replace(HBM2, channels=2),
    "hbm2, two buses": replace(HBM2, command_bus="row+column"),
    "hbm2, few overtakes": replace(HBM2, overtakes_max=3),
    "hbm2, in order": replace(HBM2, overtakes_max=0),
    "hbm2, short queue": replace(HBM2, queue_entries=5),
    "hbm2, often refreshed": timed(HBM2, refi_cycles=500),
    "hbm2, slow writes": timed(HBM2, wr_cycles=40, ccd_l_cycles=5),
    "hbm2, fast rows": timed(HBM2, rcd_rd_cycles=2, rcd_wr_cycles=2, rp_cycles=1, ras_cycles=3),
    "ddr4": DDR4,
    "ddr4, two ranks": replace(DDR4, ranks=2, overtakes_max=5),
    "ddr4, columns apart": replace(DDR4, mapping="corobabgrach"),
}


def transfer(cfg, rng):
    """Return a transfer inside the first rows of some banks: long, short, strided or single."""
    row = cfg.row_bytes * cfg.channels
    fields = cfg.fields
    place = rng.randrange(3) << fields["ro"][0]
    for name in ("ra", "bg", "ba"):
        low, bits = fields[name]
        place |= rng.choice([0, 0, rng.randrange(1 << bits)]) << low
    kind = rng.choice(["rows", "rows", "part", "strided", "single"])
    base = place * cfg.burst_bytes
    write = rng.random() < 0.25
    if kind == "rows":
        return {"address_bytes": base, "row_bytes": rng.randint(1, 3) * row, "write": write}
    base += rng.randrange(row // 64) * 64
    if kind == "part":
        return {"address_bytes": base, "row_bytes": rng.randint(1, row), "write": write}
    if kind == "single":
        return {"address_bytes": base, "row_bytes": 8, "write": write}
    return {
        "address_bytes": base, "row_bytes": rng.choice([64, 128, 300]), "rows": rng.randint(2, 20),
        "stride_bytes": rng.choice([row, 320, 2 * row + 64]), "write": write,
    }  # fmt: skip


def work(cfg, seed, *, transfers=50, ports=3, look=False, **options):
    """Keep the ports busy; return what completed and all counts, at the end and when looked at."""
    rng, looks = random.Random(seed), random.Random(seed)
    memory, seen, free = Memory(cfg, ports=ports, **options), [], [p % ports for p in range(7)]
    port_of, left = {}, transfers
    while left or port_of:
        while left and free:
            port, left = free.pop(rng.randrange(len(free))), left - 1
            delay = rng.choice([0, 0, 3, 40, 400])
            memory.start(left, port, now=memory.now + delay, **transfer(cfg, rng))
            port_of[left] = port
        ended = []
        while not ended:
            ended = memory.advance(memory.now + looks.randint(1, 300) if look else FAR)
            if look:
                seen.append([memory.counters(channel) for channel in range(cfg.channels)])
        free += [port_of.pop(completion.tag) for completion in ended]
        seen += ended
    return [*seen, memory.total(), memory.energy(), memory.now]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("seed", range(6))
def test_runs_change_nothing(name, seed):
    cfg = VARIANTS[name]
    assert work(cfg, seed) == work(cfg, seed, shortcuts=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("seed", range(6, 100))
def test_runs_change_nothing_in_many_more_cases(name, seed):
    test_runs_change_nothing(name, seed)


@pytest.mark.parametrize("name", ["hbm2", "hbm2, two channels", "ddr4, two ranks"])
def test_counters_are_the_same_at_any_time(name):
    cfg = VARIANTS[name]
    seen = work(cfg, 1, look=True)
    assert seen == work(cfg, 1, look=True, shortcuts=False)
    # Looking changes nothing either.
    assert [s for s in seen if not isinstance(s, list)] == work(cfg, 1)


def runs(cfg):
    """Return (cycles a step, whether it is the fastest) of runs of RD and of WR."""
    k = Memory(cfg)._k
    return [(int(k[at.RUN_STEP + i]), int(k[at.RUN_WIDE + i])) for i in range(2)]


def test_the_pace_of_a_run_is_that_of_its_commands():
    assert runs(HBM2) == [(2, 1), (2, 1)]  # tCCD_L is the burst
    assert runs(DDR4) == [(6, 0), (6, 0)]  # another bank group may go after 4


def test_a_run_is_deaf_where_the_other_kind_waits_longer_than_its_pace():
    def deaf(cfg):
        return [int(Memory(cfg)._k[at.RUN_DEAF + i]) for i in range(2)]

    assert deaf(HBM2) == [1, 0]  # a RD to the other rank may follow a WR at once
    assert deaf(DDR4) == [1, 1]  # there is but one rank
    assert deaf(timed(HBM2, cl_cycles=4, cwl_cycles=14)) == [0, 0]  # a WR may follow a RD at once


def test_there_are_no_runs_where_their_row_may_be_closed_between_two_of_their_commands():
    # Else the oldest request of the bank, when it asks for another row, would go in between.
    close_first = timed(HBM2, ccd_l_cycles=6, rtp_cycles=5)
    assert [pace for pace, _ in runs(close_first)] == [0, 6]  # a write's row stays open longer
    assert [pace for pace, _ in runs(timed(close_first, rtp_cycles=6))] == [6, 6]


@pytest.mark.parametrize(
    "rule",
    [
        dram.Rule("row after column", "RD", "ACT", "rank", 9),
        dram.Rule("column after row", "ACT", "RD", "rank", 9),
        dram.Rule("columns of a bank", "RD", "RD", "bank", 9),
    ],
    ids=lambda rule: rule.name,
)
def test_there_are_no_runs_under_rules_they_do_not_know(monkeypatch, rule):
    known = dram.rules(HBM2)
    monkeypatch.setattr("archsim.dram.state.rules", lambda cfg: (*known, rule))
    (read, _), (write, _) = runs(HBM2)
    assert (read, write) == (0, 2)
    assert work(HBM2, 0, transfers=20) == work(HBM2, 0, transfers=20, shortcuts=False)


def test_transfers_that_end_together_are_returned_as_they_started():
    memory = Memory(replace(HBM2, channels=2, refresh="off"), ports=2)
    for tag, port, channel in ((5, 1, 1), (3, 0, 0)):
        address = channel << HBM2.fields["co"][1]
        memory.start(tag, port, write=False, address_bytes=address * 64, row_bytes=64, now=0)
    assert [(done.tag, done.done_cycle) for done in memory.advance(FAR)] == [(5, 30), (3, 30)]


def test_time_without_an_end_moves_no_channel_until_it_is_asked():
    memory = Memory(HBM2)
    memory.start(0, 0, write=False, address_bytes=0, row_bytes=1 << 20, now=0)
    assert memory.advance(500) == []
    assert memory._s[0, at.READS] == 0
    first = HBM2.timing.rcd_rd_cycles
    assert memory.counters(0).reads == len(range(first, 500, HBM2.burst_cycles))
