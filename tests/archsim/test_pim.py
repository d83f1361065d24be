"""A channel that computes: timing rules from both sides, order of service, NeuPIMs' counts."""

import json
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import machine.dram as dram
from archsim.pim import CLASSES, HostRequest, PimChannel
from archsim.pim_check import first_violation
from archsim.pim_device import PimDevice
from archsim.pim_random import random_mix
from machine.pim import PimConfig
from machine.pim_macros import (
    PimOp,
    attend_ops,
    attend_shape,
    header_cycles,
    logit_ops,
    logit_shape,
)

PRESETS = Path(dram.__file__).parent / "presets"


def read(kind, name):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return TypeAdapter(kind).validate_json(json.dumps(table))


HBM2 = read(dram.DramConfig, "dram/hbm2-neupims")
DUAL = read(PimConfig, "pim/neupims")
SINGLE = replace(DUAL, row_buffers=1)
QUIET = replace(HBM2, refresh="off")
# Few banks and short rows, refresh often: mixes meet everything soon.
SMALL = replace(HBM2, channels=1, bank_groups=2, banks_per_group=2, rows=16, columns=16,
                timing=replace(HBM2.timing, refi_cycles=1300, rfc_cycles=60))
OURS = replace(DUAL, buffer_bytes=256, gwrite_cycles=24, hold="last_dot", host_entries=4)


def request(dram_, pim, length=512, heads=8):
    k = logit_shape(dram_, pim, heads=heads, depth=128, length=length)
    v = attend_shape(dram_, pim, depth=128, length=length)
    rows = iter(range(100, dram_.rows))
    ops = logit_ops(dram_, pim, k, [next(rows) for _ in range(k.chunks * k.tiles)])
    return ops + attend_ops(dram_, pim, v, [[next(rows) for _ in range(v.chunks * v.tiles)]
                                            for _ in range(heads)])


# Each row of NeuPIMs' table: the earlier command, the later one and its bank, the earlier one's
# dots, and the least distance with one and with two row buffers. Numbers by hand from
# tRC 48, tRRD_S/L 4/6, tFAW 30, tRCD 14, tRAS 34, tRP 14, tRTP 5, tCCD_S/L 1/2, burst 2,
# CL 14, CWL 4, tWTR_L 8, tRTRS 2. A distance of 0 is 1 on the one command bus.
TABLE = [
    ("ACT", "GACT", 0, 0, 48, 6),
    ("ACT", "GACT", 1, 0, 48, 6),  # a group holds the activated bank
    ("ACT", "GACT", 4, 0, 4, 4),  # another group of the rank: tRRD_S
    ("GACT", "ACT", 0, 0, 48, 30),
    ("GACT", "ACT", 4, 0, 30, 30),
    ("GACT", "GACT", 0, 0, 48, 48),
    ("GACT", "GACT", 4, 0, 30, 30),
    ("GACT", "GACT", 16, 0, 1, 1),  # another rank
    ("RD", "DOT", 0, 0, 2, 1),
    ("RD", "GEMV", 0, 0, 2, 1),
    ("WR", "DOT", 0, 0, 14, 1),
    ("WR", "GEMV", 0, 0, 14, 1),
    ("RD", "READRES", 0, 0, 4, 4),
    ("DOT", "PRE", 0, 1, 5, 1),
    ("GEMV", "PRE", 31, 8, 5, 1),
    ("READRES", "PRE", 7, 0, 5, 1),
    ("GACT", "DOT", 0, 0, 14, 14),
    ("GACT", "GEMV", 0, 0, 14, 14),
    ("GACT", "PIMPRE", 3, 0, 34, 34),
    ("PIMPRE", "GACT", 0, 0, 14, 14),
    ("DOT", "DOT", 0, 1, 2, 2),
    ("DOT", "READRES", 0, 1, 6, 6),
    ("DOT", "PIMPRE", 0, 1, 5, 5),
    ("GEMV", "PIMPRE", 9, 32, 5, 5),
    ("GWRITE", "GWRITE", 1, 0, 96, 96),
    ("GWRITE", "DOT", 0, 0, 96, 96),
    ("GWRITE", "GEMV", 0, 0, 96, 96),
    ("GWRITE", "RD", 0, 0, 96, 96),
    ("GWRITE", "WR", 0, 0, 96, 96),
    ("GWRITE", "PRE", 0, 0, 96, 96),
    ("GWRITE", "RD", 1, 0, 2, 2),  # the host keeps the other banks
    ("GWRITE", "RD", 16, 0, 1, 1),
    ("GWRITE", "WR", 1, 0, 14, 14),
    ("ACT", "GWRITE", 0, 0, 14, 14),
    ("WR", "GWRITE", 0, 0, 14, 14),
    ("GEMV", "GEMV", 0, 8, 18, 18),
    ("GEMV", "GEMV", 0, 2, 14, 14),
    ("GEMV", "GEMV", 0, 32, 66, 66),
    ("GEMV", "RD", 5, 8, 4, 4),
    ("GEMV", "WR", 5, 8, 14, 14),
    ("DOT", "RD", 5, 1, 2, 2),
    ("DOT", "WR", 5, 1, 14, 14),
    ("GEMV", "GACT", 0, 8, 19, 19),
    ("READRES", "GACT", 0, 0, 19, 19),
    ("REF", "GACT", 0, 0, 260, 260),
    ("REF", "GACT", 16, 0, 1, 1),
]
STATES = {  # rows (of the host, of PIM) that a command asks for in every bank; -1: closed
    "ACT": (-1, -1), "GACT": (-1, -1), "REF": (-1, -1), "RD": (3, 7), "WR": (3, 7), "PRE": (3, 7),
    "GWRITE": (3, 7), "DOT": (3, 7), "GEMV": (3, 7), "READRES": (3, 7), "PIMPRE": (3, 7),
}


def stand(device, command, row=None):
    """Put all rows in the state `command` asks for; return the row it names."""
    host, own = STATES[command]
    wide = command in ("DOT", "GEMV", "READRES", "GACT", "PIMPRE")
    for bank in range(device.dram.banks):
        device.rows[bank] = host
        device.pim_rows[bank] = own  # the same list with one row buffer
        if not wide and device.pim.row_buffers == 1:
            device.rows[bank] = host
    return 9 if command in ("ACT", "GACT") else 7 if wide else 3


# One row buffer has no precharge of its own.
ONE = [(SINGLE, *row[:4], row[4]) for row in TABLE if "PIMPRE" not in row]


@pytest.mark.parametrize("pim, after, before, bank, dots, gap",
                         [*ONE, *((DUAL, *row[:4], row[5]) for row in TABLE)],
                         ids=lambda value: "" if isinstance(value, PimConfig) else str(value))
def test_every_row_of_the_table_from_both_sides(pim, after, before, bank, dots, gap):
    device = PimDevice(HBM2, pim)
    row = stand(device, after)
    device.issue(after, 0, row, 0, dots, now=1000)
    row = stand(device, before)
    legal = 1000 + gap
    early = device.refusal(before, bank, row, now=legal - 1)
    assert early == f"{before} issued at cycle {legal - 1}, legal from {legal}"
    assert device.refusal(before, bank, row, now=legal) is None
    with pytest.raises(ValueError, match=f"legal from {legal}"):
        device.issue(before, bank, row, 0, 1, now=legal - 1)
    device.issue(before, bank, row, 0, 1, now=legal)


def test_activation_outside_the_window_costs_the_short_distance():
    device = PimDevice(HBM2, replace(DUAL, activate_window=False))
    stand(device, "GACT")
    device.issue("GACT", 0, 9, now=1000)
    assert [device.ready_at("GACT", bank) - 1000 for bank in (0, 4, 16)] == [48, 4, 1]
    assert device.ready_at("ACT", 1) - 1000 == 6


def test_a_composite_that_holds_its_row_keeps_it_to_the_last_dot():
    device = PimDevice(HBM2, replace(DUAL, hold="last_dot"))
    row = stand(device, "GEMV")
    device.issue("GEMV", 0, row, 0, 8, now=1000)
    assert device.ready_at("PIMPRE", 0) == 1000 + 2 * 7 + 5
    assert device.ready_at("GWRITE", 0) == 1000 + 2 * 7 + 2
    assert device.ready_at("GACT", 0) == 1000 + 2 * 7 + 5 + 14


@pytest.mark.parametrize("command, rows, pim_rows, row, message", [
    ("ACT", 5, -1, 9, "needs bank 0 closed, found row 5"),
    ("ACT", -1, 9, 9, "needs row 9 not in the other row buffer of bank 0"),
    ("RD", 5, -1, 9, "needs row 9 open in bank 0, found 5"),
    ("GACT", -1, 5, 9, "needs bank 0 closed, found row 5"),
    ("GACT", 9, -1, 9, "needs row 9 not in the other row buffer of bank 0"),
    ("DOT", 9, 5, 9, "needs row 9 open in bank 0, found 5"),
    ("REF", -1, 5, -1, "needs bank 0 closed, found row 5"),
])
def test_a_command_in_the_wrong_state_is_refused_with_the_rows(command, rows, pim_rows, row,
                                                               message):
    device = PimDevice(HBM2, DUAL)
    device.rows[:] = [rows] * 32
    device.pim_rows[:] = [pim_rows] * 32
    assert device.refusal(command, 0, row, now=5) == f"{command} issued at cycle 5 {message}"


def test_one_request_of_neupims_takes_its_commands_and_its_time():
    # Its simulator: 10, 512, 2048 and 160 commands and 15,660 cycles (reference/pim-npu.md).
    run = PimChannel(HBM2, DUAL).run(request(HBM2, DUAL))
    assert (run.counts["GWRITE"], run.counts["GACT"], run.counts["GEMV"]) == (10, 512, 160)
    assert sum(c.dots for c in run.trace if c.command == "GEMV") == 2048
    assert abs(run.cycles - 15_660) <= 0.02 * 15_660, run.cycles
    # Bound by tFAW: without it the rows would open at once.
    free = PimChannel(HBM2, replace(DUAL, activate_window=False)).run(request(HBM2, DUAL))
    assert run.cycles - free.cycles > 64 * 3 * (30 - 4) / 2
    assert first_violation(HBM2, DUAL, run.trace, until=run.cycles) is None


def test_a_tile_takes_the_sum_of_its_parts():
    ops = request(QUIET, DUAL, length=32, heads=4)[:6]
    run = PimChannel(QUIET, DUAL).run(ops)
    at = {}
    for c in run.trace:
        at.setdefault(c.command, []).append(c.cycle)
    assert at["ACT"] == [0]
    assert at["GWRITE"] == [14]
    assert at["HEADER"] == [14 + 96]
    first = 14 + 96 + 1
    # The two ranks take turns, each every tFAW.
    assert at["GACT"] == [first + 30 * i + r for i in range(4) for r in range(2)]
    assert at["GEMV"] == [first + 91 + 14 + 18 * i for i in range(4)]
    assert run.cycles == at["GEMV"][-1] + 18


@pytest.mark.parametrize("pim", [replace(OURS, admission="exact", precharge=p, row_buffers=b)
                                 for p in ("bank", "all") for b in (1, 2)])
def test_the_exact_estimate_covers_what_a_lone_tile_takes_and_hardly_more(pim):
    # Until the precharge that lets a refresh begin may go.
    quiet = replace(SMALL, refresh="off")
    close = "PRE" if pim.row_buffers == 1 else "PIMPRE"
    for seed in range(20):
        ops = [op for op in random_mix(quiet, pim, seed, tiles=8)[0] if op.kind != "PIMPRE"]
        cut = max(i for i, op in enumerate(ops) if op.kind == "HEADER")
        channel = PimChannel(quiet, pim)
        before = channel.run(ops[:cut])
        rows = channel.device.pim_rows
        closed = sum(0 <= row != ops[cut].row for row in rows)
        groups = sum(rows[g] != ops[cut].row for g in range(0, 8, 2))
        need = header_cycles(quiet, pim, ops[cut], closed=closed, groups=groups)
        channel.run(ops[cut:])
        taken = max(channel.device.ready_at(close, bank) for bank in range(8)) - before.cycles
        assert taken <= need, (seed, taken, need)
        assert need <= taken + 60, (seed, taken, need)


MIXES = [
    ("dual", OURS), ("single", replace(OURS, row_buffers=1)),
    ("exact", replace(OURS, admission="exact")),
    ("one exact", replace(OURS, row_buffers=1, admission="exact")),
    ("blocked", replace(OURS, host="blocked")), ("issue", replace(OURS, hold="issue")),
    ("all", replace(OURS, precharge="all", activate="all", activate_window=False)),
]


@pytest.mark.parametrize("pim", [pim for _, pim in MIXES], ids=[name for name, _ in MIXES])
def test_random_mixes_break_no_rule_and_serve_everything(pim):
    late = 0
    for seed in range(12):
        ops, cycles, requests = random_mix(SMALL, pim, seed)
        run = PimChannel(SMALL, pim).run(ops, requests, op_cycles=cycles)
        found = first_violation(SMALL, pim, run.trace, until=run.cycles)
        assert found is None, (seed, found)
        assert sum(run.classes.values()) == run.cycles
        assert set(run.classes) == set(CLASSES)
        assert min(run.host_done) >= 0 and len(run.ops_done) == len(ops)
        for done, wanted in zip(run.host_done, requests, strict=True):
            assert done >= wanted.cycle
        served = Counter((c.command, c.bank, c.row, c.column) for c in run.trace
                         if c.command in ("RD", "WR"))
        assert served == Counter(("WR" if r.write else "RD", r.bank, r.row, r.column)
                                 for r in requests)
        late = max(late, run.refresh_late_cycles)
    # Refresh is served at once: its delay is what is under way, never a whole interval.
    assert late < SMALL.timing.refi_cycles // 2


def test_requests_of_one_bank_keep_their_order():
    ops, cycles, requests = random_mix(SMALL, OURS, 5, requests=120)
    run = PimChannel(SMALL, OURS).run(ops, requests, op_cycles=cycles)
    for bank in range(SMALL.banks):
        mine = [done for done, r in zip(run.host_done, requests, strict=True) if r.bank == bank]
        assert mine == sorted(mine)


def spent(run):
    """Return the cycles of a run in which something of PIM was under way or held up."""
    return run.cycles - run.classes["idle"]


def test_a_second_row_buffer_removes_the_row_conflicts_and_only_those():
    # Tiles of one row, which stays open, with time between them, in which the host opens a row in
    # every bank. No vector copies: those use the host's row buffer with one and with two.
    runs = {}
    for buffers in (1, 2):
        pim = replace(DUAL, row_buffers=buffers, hold="last_dot")
        ops = [op._replace(row=9) for op in request(QUIET, pim, length=128) if op.kind != "GWRITE"]
        tiles = [sum(o.kind == "HEADER" for o in ops[: i + 1]) for i in range(len(ops))]
        cycles = [900 * tile for tile in tiles]
        host = [HostRequest(900 * tile + 200 + bank, False, bank, 20_000 + tile, 0)
                for tile in range(1, tiles[-1]) for bank in range(32)]
        runs[buffers] = [PimChannel(QUIET, pim).run(ops, requests, op_cycles=cycles)
                         for requests in ((), host)]
    (alone1, beside1), (alone2, beside2) = runs[1], runs[2]
    assert alone1.classes["row_conflict"] == alone2.classes["row_conflict"] == 0
    # With one, all of the slowdown is conflicts: closing the host's rows, opening PIM's again.
    slowdown = spent(beside1) - spent(alone1)
    assert slowdown >= 39 * (3 * 30 + 14)  # at least the windows and tRCD of every tile
    assert beside1.classes["row_conflict"] == slowdown
    # With two there are none, and every class is what it is without the host.
    assert beside2.classes == alone2.classes
    assert min(beside2.host_done) > 0


def test_a_vector_past_the_buffer_or_the_row_is_refused_with_its_numbers():
    channel = PimChannel(HBM2, DUAL)
    with pytest.raises(ValueError, match="^last column must be at most 31 of a row, not 32$"):
        channel.run([PimOp("GEMV", row=1, column=30, dots=3)])
    with pytest.raises(ValueError, match="^vector's columns must be at most 32, the global "
                                         "buffer, not 33$"):
        channel.run([PimOp("GEMV", row=1, column=0, slot=30, dots=3)])
    with pytest.raises(ValueError, match="^row must be from 0 to 32767, not 32768$"):
        channel.run([PimOp("GWRITE", row=32768)])


def test_a_tile_longer_than_the_refresh_interval_is_refused_with_its_numbers():
    with pytest.raises(ValueError, match="^cycles of HEADER must be less than 1950 from refresh "
                                         "to refresh, not 2264$"):
        PimChannel(HBM2, DUAL).run([PimOp("HEADER", row=1, dots=1000, reads=1)])


def test_blocked_host_traffic_waits_for_the_queue():
    pim = replace(OURS, host="blocked")
    quiet = replace(SMALL, refresh="off")
    ops = random_mix(quiet, pim, 1, tiles=6)[0]
    run = PimChannel(quiet, pim).run(ops, [HostRequest(0, False, 0, 1, 0)])
    alone = PimChannel(quiet, pim).run(ops)
    assert run.host_done[0] > max(run.ops_done) >= alone.ops_done[-1]
    # Concurrent, it goes between: what it takes is at most the slack.
    both = PimChannel(quiet, replace(pim, host="concurrent")).run(
        ops, [HostRequest(0, False, 0, 1, 0)])
    assert both.host_done[0] < max(both.ops_done)


@pytest.mark.parametrize("dot, cycles", [(6, 36_572), (4, 26_768)])
def test_attention_in_attaccs_hbm3_takes_its_cycles_within_five_percent(dot, cycles):
    # AttAcc's simulator, bank level, 130 heads of 128 a stack over 2048 tokens, dot products
    # limited by power (6) or not (4): reference/pim-npu.md. Assumed where that page says nothing:
    # the fullest of 32 pseudo-channels has 5 heads; rows of 1 KiB; one vector copy for K and for V
    # a head, one result read a row, no refresh, all banks precharged at once.
    names = ("cl 19 cwl 6 rcd_rd 19 rcd_wr 19 rp 19 ras 45 rtp 8 wr 21 ccd_s 2 ccd_l 4 rrd_s 2 "
             "rrd_l 4 faw 39 wtr_s 8 wtr_l 11 rtrs 0 rfc 260 refi 5070").split()
    given = {f"{n}_cycles": int(v) for n, v in zip(names[::2], names[1::2], strict=True)}
    hbm3 = replace(HBM2, timing=replace(HBM2.timing, tck_ps=769, **given), refresh="off")
    pim = replace(DUAL, gwrite_cycles=64, dot_cycles=dot, fill_dots=1, activate="all",
                  activate_window=False, precharge="all", hold="last_dot")
    ops = []
    for vector in range(2 * 5):
        ops.append(PimOp("GWRITE"))
        for row in range(2048 * 128 * 2 // 1024 // 32):
            ops.append(PimOp("HEADER", row=100 + 16 * vector + row, dots=32, reads=1))
            ops.append(PimOp("GEMV", row=100 + 16 * vector + row, dots=32))
    run = PimChannel(hbm3, pim).run(ops)
    assert run.counts["GACT"] == 160
    assert abs(run.cycles - cycles) <= 0.05 * cycles, run.cycles
    assert first_violation(hbm3, pim, run.trace) is None
