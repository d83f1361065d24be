"""The memory in time: streams against closed forms, refresh, ports, the window, refusals."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import machine.dram as dram
from archsim.dram.channels import DEPTH, Completion, Memory

PRESETS = Path(dram.__file__).parent / "presets" / "dram"


def preset(name, **changes):
    table = tomllib.loads((PRESETS / f"{name}.toml").read_text())
    return replace(TypeAdapter(dram.DramConfig).validate_json(json.dumps(table)), **changes)


HBM2, DDR4 = preset("hbm2-neupims"), preset("ddr4-2400r")
QUIET_HBM2, QUIET_DDR4 = replace(HBM2, refresh="off"), replace(DDR4, refresh="off")
ONE = replace(HBM2, channels=1)
QUIET_ONE = replace(ONE, refresh="off")
FAR = 1 << 40
N = 10_000


def address(cfg, **place):
    """Return the byte address of a burst given by its fields."""
    burst = sum(place.get(name, 0) << low for name, (low, _) in cfg.fields.items())
    return burst * cfg.burst_bytes


def stream(cfg, places, *, write=False, record=False):
    """Run single bursts, offered in order from cycle 0; return the memory and when it was done."""
    memory = Memory(cfg, record=record)
    addresses = [address(cfg, **place) for place in places]
    memory.start_list(0, 0, write=write, addresses_bytes=addresses, row_bytes=64, now=0)
    (done,) = memory.advance(FAR)
    return memory, done.done_cycle


def spread(i):
    """Return the bank of request `i`: groups first."""
    return {"bg": i % 4, "ba": i // 4 % 4}


# Closed forms and places: the streams that Ramulator and DRAMsim3 were run on, DDR4-2400R.
STREAMS = {
    "seq_one_row": (60_030, lambda i: {"co": i % 128}),
    "seq_rows_one_bank": (62_760, lambda i: {"ro": i // 128, "co": i % 128}),
    "conflict_one_bank": (549_981, lambda i: {"ro": i}),
    "one_bankgroup": (60_030, lambda i: {"ba": i % 4, "ro": i // 512, "co": i // 4 % 128}),
    "interleaved_newrow": (65_022, lambda i: {"ro": i // 16, **spread(i)}),
    "bank_interleaved": (40_032, lambda i: {"ro": i // 2048, "co": i // 16 % 128, **spread(i)}),
}
# The same with refresh: what Ramulator 2.1 and DRAMsim3 measured.
REFRESHED = {
    "seq_one_row": (62_838, 62_839),
    "seq_rows_one_bank": (65_533, 65_534),
    "conflict_one_bank": (576_394, 577_385),
    "one_bankgroup": (62_850, 62_839),
    "interleaved_newrow": (68_360, 70_609),
    "bank_interleaved": (41_984, 42_032),
}


def test_the_closed_forms_are_what_the_timings_say():
    t, first = DDR4.timing, DDR4.read_latency_cycles
    assert STREAMS["seq_one_row"][0] == first + (N - 1) * t.ccd_l_cycles
    switch = t.rtp_cycles + t.rp_cycles + t.rcd_rd_cycles - t.ccd_l_cycles
    assert STREAMS["seq_rows_one_bank"][0] == STREAMS["seq_one_row"][0] + N // 128 * switch
    assert STREAMS["conflict_one_bank"][0] == first + (N - 1) * t.rc_cycles
    windows, rest = divmod(N - 1, 4)
    in_window = windows * t.faw_cycles + rest * t.rrd_s_cycles
    assert STREAMS["interleaved_newrow"][0] == first + in_window
    assert STREAMS["bank_interleaved"][0] == first + (N - 1) * t.ccd_s_cycles


@pytest.mark.parametrize("name", STREAMS)
def test_ddr4_stream_takes_its_closed_form(name):
    expected, place = STREAMS[name]
    _, done = stream(QUIET_DDR4, [place(i) for i in range(N)])
    assert done == expected


@pytest.mark.parametrize("name", STREAMS)
def test_ddr4_stream_with_refresh_is_near_one_public_simulator_and_not_outside_both(name):
    _, place = STREAMS[name]
    _, done = stream(DDR4, [place(i) for i in range(N)])
    assert any(abs(done - measured) <= 0.0025 * measured for measured in REFRESHED[name])
    assert 0.9975 * min(REFRESHED[name]) <= done <= 1.0025 * max(REFRESHED[name])


@pytest.mark.parametrize(("refresh", "measured"), [("off", 51_639), ("all_bank_staggered", 53_302)])
def test_ddr4_linear_addresses_take_what_ramulator_measured(refresh, measured):
    cfg = replace(DDR4, refresh=refresh)
    places = [{"co": i % 128, "ro": i // 2048, **spread(i // 128)} for i in range(N)]
    _, done = stream(cfg, places)
    assert done == pytest.approx(measured, rel=0.001)


class Lcg:
    """The generator of the random streams: 64-bit linear congruential, seed 12345."""

    def __init__(self):
        self.x = 12345

    def draw(self, n):
        self.x = (6364136223846793005 * self.x + 1442695040888963407) % 2**64
        return (self.x >> 33) % n


@pytest.mark.parametrize(
    ("refresh", "reads", "mixed"), [("off", 65_098, 67_241), ("all_bank_staggered", 68_422, 70_523)]
)
def test_ddr4_random_streams_are_near_ramulator(refresh, reads, mixed):
    cfg = replace(DDR4, refresh=refresh)

    def place(r):
        return {"bg": r.draw(4), "ba": r.draw(4), "ro": r.draw(65536), "co": r.draw(128)}

    lcg = Lcg()
    _, done = stream(cfg, [place(lcg) for _ in range(N)])
    assert done == pytest.approx(reads, rel=0.02)

    lcg = Lcg()
    requests = [(lcg.draw(3) == 0, place(lcg)) for _ in range(N)]
    assert sum(not write for write, _ in requests) == 6704
    places, write = [p for _, p in requests], [w for w, _ in requests]
    memory, _ = stream(cfg, places, write=write, record=True)
    last = max(c.cycle for c in memory.trace if c.command == "RD") + cfg.hit_latency_cycles
    assert last == pytest.approx(mixed, rel=0.03)


@pytest.mark.parametrize("cfg", [HBM2, DDR4, QUIET_HBM2], ids=["hbm2", "ddr4", "no refresh"])
@pytest.mark.parametrize("now", [0, 777])
def test_unloaded_latency_is_the_formula(cfg, now):
    t = cfg.timing
    wrong_row = t.rp_cycles
    cases = [
        (False, 0, cfg.read_latency_cycles),  # closed
        (False, 64, cfg.hit_latency_cycles),
        (True, 0, t.cwl_cycles + cfg.burst_cycles),  # open row
        (False, address(cfg, ro=3), wrong_row + cfg.read_latency_cycles),
        (True, address(cfg, ro=9), wrong_row + cfg.write_latency_cycles),
        (True, address(cfg, ba=1), cfg.write_latency_cycles),  # closed
    ]
    memory = Memory(cfg)
    for write, where, latency in cases:
        memory.start(1, 0, write=write, address_bytes=where, row_bytes=64, now=now)
        done = now + latency
        assert memory.advance(FAR) == [Completion(1, done - cfg.burst_cycles, done)]
        now = done + 200  # every gap is over


def refreshed_one_row(cfg, bursts):
    """Return when a read stream of one row is done: a recurrence over refreshes, one rank."""
    t, due, last = cfg.timing, cfg.first_refresh_cycle(0), None
    for _ in range(bursts):
        now = t.rcd_rd_cycles if last is None else last + t.ccd_l_cycles
        if now >= due:
            closed = max(due, last + t.rtp_cycles)
            now = closed + t.rp_cycles + t.rfc_cycles + t.rcd_rd_cycles
            due += t.refi_cycles
        last = now
    return last + cfg.hit_latency_cycles


@pytest.mark.parametrize("refi", [9364, 5000, 777])
def test_refresh_delays_a_stream_by_the_closed_form(refi):
    cfg = replace(DDR4, timing=replace(DDR4.timing, refi_cycles=refi))
    _, done = stream(cfg, [{"co": i % 128} for i in range(N)])
    assert done == refreshed_one_row(cfg, N)
    assert refi != 9364 or done == 62_838  # Ramulator 2.1


def test_streaming_reads_reach_the_peak_less_refresh_of_one_rank():
    cfg, t = replace(HBM2, ranks=1), HBM2.timing
    size = 64 << 20
    memory = Memory(cfg)
    memory.start(0, 0, write=False, address_bytes=0, row_bytes=size, now=0)
    (done,) = memory.advance(FAR)
    lost = t.rtp_cycles + t.rp_cycles + t.rfc_cycles + t.rcd_rd_cycles
    expected = cfg.peak_bytes_per_cycle * (1 - lost / t.refi_cycles)
    assert size / done.done_cycle == pytest.approx(expected, rel=0.005)


def streamed_two_ranks(cfg, bursts):
    """Return when a linear read stream over two ranks is done: the data bus, refresh by refresh.

    A rank's row of all banks is read, then the other rank's. A refresh stops the rank being read;
    one of the other rank delays its turn if it is not over.
    """
    t, step = cfg.timing, cfg.burst_cycles
    visit = cfg.bank_groups * cfg.banks_per_group * cfg.columns // cfg.burst_length
    due = [cfg.first_refresh_cycle(rank) for rank in range(2)]
    blocked = t.rp_cycles + t.rfc_cycles + t.rcd_rd_cycles
    now, rank = t.rcd_rd_cycles, 0
    while bursts:
        left = min(visit, bursts)
        bursts -= left
        while due[rank] + blocked <= now:
            due[rank] += t.refi_cycles
        while left:
            if now + left * step <= due[rank]:
                now, left = now + left * step, 0
            else:
                before = max(0, -(-(due[rank] - now) // step))
                left -= before
                last = now + (before - 1) * step
                now = max(due[rank], last + t.rtp_cycles if before else 0) + blocked
                due[rank] += t.refi_cycles
        now, rank = now + t.rtrs_cycles, 1 - rank
    return now - t.rtrs_cycles + t.cl_cycles


def test_streaming_reads_reach_the_peak_less_refresh_and_turnaround():
    size = 256 << 20
    memory = Memory(HBM2)
    memory.start(0, 0, write=False, address_bytes=0, row_bytes=size, now=0)
    (done,) = memory.advance(FAR)
    expected = streamed_two_ranks(HBM2, size // 64 // HBM2.channels)
    assert done.done_cycle == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("write", [False, True])
def test_streaming_without_refresh_loses_only_the_change_of_rank(write):
    size, t = 64 << 20, HBM2.timing
    memory = Memory(QUIET_HBM2)
    memory.start(0, 0, write=write, address_bytes=0, row_bytes=size, now=0)
    (done,) = memory.advance(FAR)
    bursts = size // 64 // HBM2.channels
    changes = (bursts // 256 - 1) * (0 if write else t.rtrs_cycles)
    first = HBM2.write_latency_cycles if write else HBM2.read_latency_cycles
    assert done.done_cycle == first + (bursts - 1) * HBM2.burst_cycles + changes


def test_a_piece_is_moved_in_whole_bursts():
    memory = Memory(QUIET_ONE)
    memory.start(0, 0, write=False, address_bytes=60, row_bytes=8, rows=3, stride_bytes=1024, now=0)
    memory.advance(FAR)
    assert memory.total().reads == 6  # each piece lies across two bursts


def test_pieces_without_a_gap_are_one_piece():
    memory = Memory(QUIET_ONE)
    memory.start(0, 0, write=False, address_bytes=0, row_bytes=32, rows=4, stride_bytes=32, now=0)
    memory.advance(FAR)
    assert memory.total().reads == 2


def reads_of(memory, channel=0):
    return [(c.row, c.column) for c in memory.trace if (c.command, c.channel) == ("RD", channel)]


def test_a_strided_transfer_reads_its_own_bursts_in_order():
    memory = Memory(replace(QUIET_ONE, overtakes_max=0), record=True)
    base, stride = 5 * 64, 3 * 1024 + 128
    memory.start(
        0, 0, write=False, address_bytes=base, row_bytes=192, rows=9, stride_bytes=stride, now=0
    )
    memory.advance(FAR)
    wanted = [base + i * stride + j * 64 for i in range(9) for j in range(3)]
    seen = [
        address(ONE, ro=c.row, ra=c.rank, bg=c.bank_group, ba=c.bank, co=c.column)
        for c in memory.trace
        if c.command == "RD"
    ]
    assert seen == wanted


def test_every_channel_gets_the_bursts_of_its_address():
    memory = Memory(QUIET_HBM2, record=True)
    base, size = 7 * 64, 5 * 32 * 1024
    memory.start(0, 0, write=False, address_bytes=base, row_bytes=size, now=0)
    memory.advance(FAR)
    seen = sorted(
        address(HBM2, ch=c.channel, ro=c.row, ra=c.rank, bg=c.bank_group, ba=c.bank, co=c.column)
        for c in memory.trace
        if c.command == "RD"
    )
    assert seen == list(range(base, base + size, 64))


def test_ports_take_turns():
    memory = Memory(replace(QUIET_ONE, overtakes_max=0), ports=2, record=True)
    for port in range(2):
        base = address(ONE, ba=port)
        memory.start(port, port, write=False, address_bytes=base, row_bytes=640, now=0)
    memory.advance(FAR)
    banks = [c.bank for c in memory.trace if c.command == "RD"]
    assert banks == [0, 1] * 10


def test_a_port_issues_its_transfers_in_order():
    memory = Memory(replace(QUIET_ONE, overtakes_max=0), record=True)
    for tag, column in enumerate((8, 0, 4)):
        memory.start(tag, 0, write=False, address_bytes=column * 64, row_bytes=128, now=0)
    done = []
    while memory.next_event() is not None:
        done += memory.advance(FAR)
    assert [completion.tag for completion in done] == [0, 1, 2]
    assert [column for _, column in reads_of(memory)] == [8, 9, 0, 1, 4, 5]


@pytest.mark.parametrize("most", [0, 3, 8])
def test_a_request_is_overtaken_at_most_so_often(most):
    cfg = replace(QUIET_ONE, overtakes_max=most)
    hits = [{"co": i % 16} for i in range(100)]
    memory, _ = stream(cfg, [*hits[:1], {"ro": 1}, *hits[1:]], record=True)
    assert [row for row, _ in reads_of(memory)].index(1) == 1 + most


def test_no_overtaking_means_data_in_order_of_arrival():
    lcg = Lcg()
    places = [{"bg": lcg.draw(4), "ro": lcg.draw(4), "co": lcg.draw(16)} for _ in range(300)]
    memory, in_order = stream(replace(ONE, overtakes_max=0), places, record=True)
    assert reads_of(memory) == [(p["ro"], p["co"]) for p in places]
    memory, free = stream(ONE, places, record=True)
    assert reads_of(memory) != [(p["ro"], p["co"]) for p in places]
    assert free < in_order


def test_a_window_of_one_request_serves_one_after_the_other():
    places = [spread(i) for i in range(16)]
    _, done = stream(replace(QUIET_ONE, queue_entries=1), places)
    t = HBM2.timing
    # The next request enters, and opens its row, the cycle after the RD before it.
    assert done == 16 * (t.rcd_rd_cycles + 1) - 1 + HBM2.hit_latency_cycles
    _, wider = stream(replace(QUIET_ONE, queue_entries=2), places)
    assert wider < done


@pytest.mark.parametrize(("bus", "at_once"), [("shared", 1), ("row+column", 2)])
def test_a_row_and_a_column_command_share_a_cycle_only_on_two_buses(bus, at_once):
    timing = replace(HBM2.timing, rcd_rd_cycles=8)  # the first RD meets the third ACT
    cfg = replace(QUIET_ONE, timing=timing, command_bus=bus)
    memory, _ = stream(cfg, [spread(i) for i in range(4)], record=True)
    cycles = [c.cycle for c in memory.trace]
    assert max(cycles.count(cycle) for cycle in cycles) == at_once


def test_advance_stops_at_the_first_end_and_goes_on():
    memory = Memory(QUIET_ONE, ports=2)
    memory.start(7, 0, write=False, address_bytes=0, row_bytes=64, now=0)
    memory.start(8, 1, write=False, address_bytes=1 << 20, row_bytes=4096, now=0)
    assert memory.advance(20) == []
    assert memory.now == 20
    assert memory.next_event() <= 30
    ((tag, first, done),) = memory.advance(FAR)
    assert (tag, first, done) == (7, 28, 30)
    assert memory.now == 30
    ((tag, _, done),) = memory.advance(FAR)
    assert (tag, memory.now, memory.next_event()) == (8, done, None)
    assert memory.advance(done + 50) == []
    assert memory.now == done + 50


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"row_bytes": 0}, "row_bytes must be at least 1, not 0"),
        ({"rows": 0}, "rows must be at least 1, not 0"),
        ({"port": 4}, "port must be from 0 to 3, not 4"),
        ({"now": 9}, "now must be at least 10, the memory's time, not 9"),
        ({"address_bytes": -64}, "address_bytes must be at least 0, not -64"),
        (
            {"address_bytes": (1 << 30) - 63},
            "end of the transfer must be at most 1073741824, the memory's size, not 1073741825",
        ),
    ],
)
def test_refuses_an_impossible_transfer(changes, sentence):
    memory = Memory(ONE)
    memory.idle_until(10)
    good = {"port": 0, "write": False, "address_bytes": 0, "row_bytes": 64, "rows": 1, "now": 10}
    with pytest.raises(ValueError) as caught:
        memory.start(0, **(good | changes))
    assert str(caught.value) == sentence
    memory.start(0, **good)


def test_refuses_more_transfers_than_a_port_holds():
    memory = Memory(ONE)
    go = {"write": False, "address_bytes": 0, "row_bytes": 64, "now": 0}
    for tag in range(DEPTH):
        memory.start(tag, 0, **go)
    with pytest.raises(ValueError) as caught:
        memory.start(DEPTH, 0, **go)
    assert str(caught.value) == "transfers of a port must be fewer than 16, not 16"
    memory.advance(FAR)
    memory.start(DEPTH, 0, **(go | {"now": memory.now}))


def test_refuses_to_run_backwards_or_idle_with_work():
    memory = Memory(ONE)
    memory.idle_until(100)
    with pytest.raises(ValueError, match="until must be at least 100"):
        memory.advance(99)
    memory.start(0, 0, write=False, address_bytes=0, row_bytes=64, now=100)
    with pytest.raises(ValueError, match="transfers under way must be none, not 1"):
        memory.idle_until(200)
