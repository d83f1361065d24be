"""The controller with queues: Ramulator's counts, legality, policies, its Python twin."""

import json
import os
import random
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import machine.dram as dram
from archsim.dram.check import first_violation
from archsim.dram.controller import Controller, Request
from archsim.dram.device import Device
from machine.dram_queues import QueuePolicy

PRESETS = Path(dram.__file__).parent / "presets" / "dram"


def preset(name, **changes):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return replace(TypeAdapter(dram.DramConfig).validate_json(json.dumps(table)), **changes)


NAMES = sorted(path.stem for path in PRESETS.glob("*.toml"))
DDR4 = preset("ddr4-2400r")
N = 10_000


class Lcg:
    """The generator of the random streams: 64-bit linear congruential, seed 12345."""

    def __init__(self):
        self.x = 12345

    def draw(self, n):
        self.x = (6364136223846793005 * self.x + 1442695040888963407) % 2**64
        return (self.x >> 33) % n


def spread(i):
    return i % 4, i // 4 % 4


def scattered(lcg, write=False):
    return Request(write, 0, lcg.draw(4), lcg.draw(4), lcg.draw(65536), lcg.draw(128))


def requests_of(name):
    lcg = Lcg()
    if name == "random":
        return [scattered(lcg) for _ in range(N)]
    if name == "random_rw":
        return [scattered(lcg, lcg.draw(3) == 0) for _ in range(N)]
    place = {
        "seq_one_row": lambda i: (0, 0, 0, i % 128),
        "seq_rows_one_bank": lambda i: (0, 0, i // 128, i % 128),
        "conflict_one_bank": lambda i: (0, 0, i, 0),
        "one_bankgroup": lambda i: (0, i % 4, i // 512, i // 4 % 128),
        "interleaved_newrow": lambda i: (*spread(i), i // 16, 0),
        "bank_interleaved": lambda i: (*spread(i), i // 2048, i // 16 % 128),
        "linear_robaco": lambda i: (*spread(i // 128), i // 2048, i % 128),
    }[name]
    return [Request(False, 0, *place(i)) for i in range(N)]


# Last cycle of read data of 10,000 requests, one offered a cycle, DDR4-2400R: Ramulator 2.1
# (CMU-SAFARI/ramulator2 @ c5b1c3a), refresh off and all-bank, and how near it is to be.
RAMULATOR = {
    "seq_one_row": (60_030, 62_838, 0.005),
    "seq_rows_one_bank": (62_760, 65_533, 0.005),
    "conflict_one_bank": (549_981, 576_394, 0.005),
    "one_bankgroup": (60_030, 62_850, 0.005),
    "interleaved_newrow": (65_022, 68_360, 0.005),
    "bank_interleaved": (40_104, 41_984, 0.01),
    "linear_robaco": (51_639, 53_302, 0.01),
    "random": (65_098, 68_422, 0.02),
    "random_rw": (67_241, 70_523, 0.03),
}
T = DDR4.timing
CLOSED_FORMS = {  # last data of the first read, and what each further one adds
    "seq_one_row": (N - 1) * T.ccd_l_cycles,
    "seq_rows_one_bank": (N - 1 - N // 128) * T.ccd_l_cycles
    + N // 128 * (T.rtp_cycles + T.rp_cycles + T.rcd_rd_cycles),
    "conflict_one_bank": (N - 1) * T.rc_cycles,
    "one_bankgroup": (N - 1) * T.ccd_l_cycles,
    "interleaved_newrow": (N - 1) // 4 * T.faw_cycles + (N - 1) % 4 * T.rrd_s_cycles,
}


def last_read(cfg, requests):
    done = Controller(cfg).run(requests)
    return max(end for end, request in zip(done, requests, strict=True) if not request.write)


@pytest.mark.parametrize("name", RAMULATOR)
@pytest.mark.parametrize("refresh", ["off", "all_bank_staggered"])
def test_ddr4_streams_take_what_ramulator_measured(name, refresh):
    off, on, near = RAMULATOR[name]
    last = last_read(replace(DDR4, refresh=refresh), requests_of(name))
    assert last == pytest.approx(off if refresh == "off" else on, rel=near)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_ddr4_streams_take_their_closed_form(name):
    form = DDR4.read_latency_cycles + CLOSED_FORMS[name]
    assert abs(last_read(replace(DDR4, refresh="off"), requests_of(name)) - form) <= 1


@pytest.mark.parametrize("name", ["bank_interleaved", "linear_robaco"])
def test_ddr4_streams_over_banks_are_never_faster_than_the_bus(name):
    form = DDR4.read_latency_cycles + (N - 1) * T.ccd_s_cycles
    assert last_read(replace(DDR4, refresh="off"), requests_of(name)) >= form


@pytest.mark.parametrize("name", NAMES)
def test_unloaded_latency_is_the_formula(name):
    cfg = preset(name)
    for write, latency in ((False, cfg.read_latency_cycles), (True, cfg.write_latency_cycles)):
        assert Controller(cfg).run([Request(write, 0, 1, 1, 5, 3, since=77)]) == [77 + latency]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("write", [False, True])
def test_streams_over_bank_groups_reach_the_peak(name, write):
    cfg = preset(name, refresh="off")
    groups, columns = cfg.bank_groups, cfg.columns // cfg.burst_length
    count = groups * columns * cfg.banks_per_group
    requests = [
        Request(write, 0, i % groups, i // (groups * columns), 9, i // groups % columns)
        for i in range(count)
    ]
    t, first = cfg.timing, cfg.write_latency_cycles if write else cfg.read_latency_cycles
    long = (t.ccd_l_wr_cycles if write else 0) or t.ccd_l_cycles
    step = max(cfg.burst_cycles, t.ccd_s_cycles, -(-long // groups))
    ideal = first + (count - 1) * step
    waits = cfg.banks_per_group * (cfg.read_latency_cycles + groups * t.rrd_s_cycles)
    assert ideal <= max(Controller(cfg).run(requests)) <= 1.005 * ideal + waits


def mixed(cfg, seed, count=1500):
    """Return reads and writes with some locality, in bursts with pauses between them."""
    rng, since, made = random.Random(seed), 0, []
    for _ in range(count):
        since += rng.choice([0] * 30 + [1, 5, 300])
        rank, group = rng.randrange(cfg.ranks), rng.randrange(cfg.bank_groups)
        column = rng.randrange(min(4, cfg.columns // cfg.burst_length))
        place = rank, group, rng.randrange(cfg.banks_per_group), rng.randrange(3), column
        made.append(Request(rng.random() < 0.4, *place, since))
    return made


CASES = {name: (preset(name), QueuePolicy()) for name in NAMES}
CASES |= {
    f"{name}, closed, late refresh": (cfg, QueuePolicy(page_policy="closed", postponed_max=3))
    for name, (cfg, _) in list(CASES.items())
}
CASES["two ranks, short queues"] = (
    replace(DDR4, ranks=2),
    QueuePolicy(read_entries=2, write_entries=4, write_high_entries=4, write_low_entries=0),
)
CASES["hbm2, two buses"] = (preset("hbm2-neupims", command_bus="row+column"), QueuePolicy())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_command_of_mixed_traffic_is_legal_and_every_request_served_once(name, seed):
    cfg, policy = CASES[name]
    controller, requests = Controller(cfg, policy, record=True), mixed(cfg, seed)
    until = 10 * cfg.timing.refi_cycles + 100_000
    done = controller.run(requests, until=until)
    assert controller.now == until
    assert first_violation(cfg, controller.trace, until=until) is None
    counts = controller.counters()
    names = [c.command for c in controller.trace]
    assert (names.count("RD"), names.count("WR")) == (counts.reads, counts.writes)
    assert counts.reads + counts.writes + counts.forwarded == len(requests)
    assert names.count("REF") == counts.refreshes
    latency = min(cfg.hit_latency_cycles, cfg.timing.cwl_cycles + cfg.burst_cycles)
    slow = [end >= r.since + latency for end, r in zip(done, requests, strict=True)]
    assert slow.count(False) <= counts.forwarded
    columns = [c[3:] for c in controller.trace if c.command == "WR"]
    assert sorted(columns) == sorted(tuple(r[1:6]) for r in requests if r.write)


@pytest.mark.parametrize("name", CASES)
def test_it_allows_a_command_when_the_device_does(name):
    cfg, rng = CASES[name][0], random.Random(name)
    controller, device, now, opened = Controller(cfg), Device(cfg), 0, {}
    for _ in range(300):
        rank, group = rng.randrange(cfg.ranks), rng.randrange(cfg.bank_groups)
        place = {"rank": rank, "group": group, "bank": rng.randrange(min(2, cfg.banks_per_group))}
        key = tuple(place.values())
        for command in dram.COMMANDS:
            assert controller.ready_at(command, **place) == device.ready_at(command, **place)
        command = rng.choice(["RD", "WR", "RD", "WR", "PRE", "PREA"] if key in opened else ["ACT"])
        if not any(k[0] == rank for k in opened) and rng.random() < 0.3:
            command = "REF"
        now = max(now, device.ready_at(command, **place)) + rng.choice([0, 0, 0, 1, 9])
        row = opened.get(key, 5)
        device.issue(command, **place, row=row, now=now)
        controller.issue(command, **place, row=row, now=now)
        if command == "ACT":
            opened[key] = 5
        elif command in ("PRE", "PREA"):
            closed = [key] if command == "PRE" else [k for k in opened if k[0] == rank]
            opened = {k: r for k, r in opened.items() if k not in closed}


def test_it_refuses_a_command_that_comes_too_early():
    controller = Controller(DDR4)
    controller.issue("ACT", row=1, now=0)
    with pytest.raises(ValueError, match="^RD issued at cycle 15, legal from 16$"):
        controller.issue("RD", row=1, now=15)
    controller.issue("RD", row=1, now=16)


def commands(controller, *names):
    return [(c.command, c.cycle) for c in controller.trace if c.command in names]


@pytest.mark.parametrize(("writes", "turns"), [(4, ["WWWW"]), (5, ["WWW", "WW"])])
def test_writes_wait_for_the_high_watermark_and_go_down_to_the_low_one(writes, turns):
    policy = QueuePolicy(write_entries=8, write_high_entries=5, write_low_entries=2)
    controller = Controller(replace(DDR4, refresh="off"), policy, record=True)
    reads = [Request(False, 0, 0, 0, 1, i) for i in range(60)]
    put = [Request(True, 0, 0, 0, 1, 100 + i) for i in range(writes)]
    controller.run([*reads[:10], *put, *reads])
    order = "".join(c.command[0] for c in controller.trace if c.command in ("RD", "WR"))
    assert order.replace("R", " ").split() == turns
    assert order.endswith("R" + turns[-1])  # what is left goes when no read waits


def test_a_read_of_a_queued_write_is_served_by_the_queue():
    controller = Controller(replace(DDR4, refresh="off"))
    reads = [Request(False, 0, 0, 0, 1, i) for i in range(8)]
    write = Request(True, 0, 0, 0, 1, 99)
    done = controller.run([*reads, write, write._replace(write=False), *reads])
    assert done[9] == 9 + 1
    assert controller.counters().forwarded == 1
    assert controller.counters().reads == 16


def test_the_closed_page_policy_closes_a_row_nobody_wants():
    request = [Request(False, 0, 0, 0, 1, 0)]
    for page, closed in (("open", []), ("closed", [("PRE", T.ras_cycles)])):
        controller = Controller(DDR4, QueuePolicy(page_policy=page), record=True)
        controller.run(request, until=1000)
        assert commands(controller, "PRE", "PREA") == closed
    controller = Controller(DDR4, QueuePolicy(page_policy="closed"), record=True)
    controller.run([Request(False, 0, 0, 0, 1, i) for i in range(30)], until=2000)
    assert len(commands(controller, "PRE")) == 1


@pytest.mark.parametrize("owed", [0, 1, 7])
def test_a_busy_rank_owes_so_many_refreshes_and_an_idle_one_none(owed):
    controller = Controller(DDR4, QueuePolicy(postponed_max=owed), record=True)
    refi = DDR4.timing.refi_cycles
    busy = 12 * refi // T.ccd_l_cycles
    until = 16 * refi
    done = controller.run([Request(False, 0, 0, 0, 1, i % 128) for i in range(busy)], until=until)
    cycles = [cycle for _, cycle in commands(controller, "REF")]
    assert 0 <= cycles[0] - (1 + owed) * refi <= T.rtp_cycles + T.rp_cycles + 3
    assert len(cycles) == 15  # one each interval in the end; that at `until` is not issued yet
    caught_up = [c for c in cycles if c >= max(done)]
    assert len(caught_up) >= owed
    assert first_violation(DDR4, controller.trace, until=until) is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"row": 65536}, "row of request 0 must be from 0 to 65535, not 65536"),
        ({"column": 128}, "column of request 0 must be from 0 to 127, not 128"),
        ({"rank": 1}, "rank of request 0 must be from 0 to 0, not 1"),
        ({"bank": -1}, "bank of request 0 must be from 0 to 3, not -1"),
    ],
)
def test_refuses_a_request_outside_the_memory(changes, sentence):
    with pytest.raises(ValueError) as caught:
        Controller(DDR4).run([Request(False, 0, 0, 0, 0, 0)._replace(**changes)])
    assert str(caught.value) == sentence


def test_refuses_to_stop_with_requests_waiting():
    with pytest.raises(ValueError, match="^until must be later: 1 requests wait, not 5$"):
        Controller(DDR4).run([Request(False, 0, 0, 0, 0, 0)], until=5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"read_entries": 0}, "read_entries must be at least 1, not 0"),
        ({"write_entries": 0}, "write_entries must be at least 1, not 0"),
        (
            {"write_high_entries": 33},
            "write_high_entries must be from 1 to write_entries 32, not 33",
        ),
        (
            {"write_low_entries": 26},
            "write_low_entries must be from 0 to below 26, the high one, not 26",
        ),
        (
            {"postponed_max": 8},
            "postponed_max must be from 0 to 7, one less than the standard's 8, not 8",
        ),
    ],
)
def test_refuses_an_impossible_policy(changes, sentence):
    with pytest.raises(ValueError) as caught:
        QueuePolicy(**changes)
    assert sentence in str(caught.value)


def twin():
    """Return what a run of each preset does, in numbers."""
    found = []
    for name, (cfg, policy) in CASES.items():
        controller = Controller(cfg, policy, record=True)
        done = controller.run(mixed(cfg, len(name), 60))
        found.append([done, [list(c) for c in controller.trace]])
    return found


def test_plain_python_gives_what_the_compiled_loop_gives():
    code = "import json, runpy, sys; print(json.dumps(runpy.run_path(sys.argv[1])['twin']()))"
    plain = subprocess.run(
        [sys.executable, "-c", code, __file__],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(plain.stdout) == twin()
