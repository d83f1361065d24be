"""The books: every class equal to a count by hand, and all of them to the total."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from archsim.accounting import CLASSES, PARTS, by_operation, classify, uncovered
from archsim.log import InstructionLog
from machine.buffer import PortConfig

HEAD = """program t version 1
needs systolic vector
chips 1
token go
op first
op second
operand a scratchpad 0x0 int8 [8,8] stride [8,1]
operand w scratchpad 0x100 int8 [8,8] stride [8,1]
operand acc accumulator 0x0 int32 [8,8] stride [8,1]
operand v scratchpad 0x800 float32 [4,16] stride [16,1]
operand one dram 0x0 int8 [64] stride [1]
operand next dram 0x40 int8 [64] stride [1]
operand many dram 0x0 int8 [512] stride [1]
operand pad scratchpad 0x1000 int8 [64] stride [1]
operand pads scratchpad 0x1000 int8 [512] stride [1]
"""
# Of 64 elements on 8 lanes in RTL: 2 cycles to decode, 8 beats, 7 until the last one is taken.
COPY = 2 + 8 + 7


def books(result, resource):
    """The classes of a resource that have ticks; with the others they are the whole run."""
    found = result.accounts[resource]
    assert tuple(found) == CLASSES
    assert sum(found.values()) == result.ticks
    return {name: count for name, count in found.items() if count}


def test_fill_busy_and_drain_of_a_product(run):
    result = run(HEAD + "stream chip0.array0\n matmul a=a w=w acc=acc dataflow=ws\n halt\n")
    # 0: issue. From 1: the command, 8 rows of weights; 8 rows of activations; then the last row
    # takes rows + cols + depth = 17 cycles to its sums.
    assert books(result, "chip0.array0") == {"control": 1, "fill": 9, "busy": 8, "drain": 17}


def test_busy_of_one_product_has_priority_over_fill_and_drain_of_its_neighbours(run):
    result = run(HEAD + "stream chip0.array0\n matmul a=a w=w acc=acc dataflow=ws\n"
                 " matmul a=a w=w acc=acc dataflow=ws\n halt\n")
    # The second tile's weights load while the first one's activations enter: 8 more busy cycles.
    assert books(result, "chip0.array0") == {"control": 1, "fill": 9, "busy": 16, "drain": 17}


def test_token_wait_counts_from_the_head_of_the_queue_to_its_issue(run):
    result = run(HEAD + "stream chip0.dma0\n loop 5\n nop\n end\n nop signal go:1\n halt\n"
                 "stream chip0.vector0\n vector vop=copy x=v y=v wait go:1\n halt\n")
    # dma0: loop at 0, 5 x (nop, end) from 1 on, the signalling nop issues at 11, completes at 12;
    # seen at 13. The vector waits from 0 to 13, issues in one cycle, works.
    assert books(result, "chip0.vector0") == {"token_wait": 13, "control": 1, "busy": COPY}
    assert books(result, "chip0.dma0") == {"control": 12, "halted": 13 + 1 + COPY - 12}


def test_units_that_no_instruction_drives_are_unused_then_halted(run, machine):
    result = run(HEAD + "stream chip0.vector0\n vector vop=copy x=v y=v units=0x1\n"
                 " vector vop=copy x=v y=v units=0x2\n halt\n", machine(vectors=3))
    # 0: issue. From 1: unit 0. The second issues at 1 and starts at 2, on unit 1.
    assert books(result, "chip0.vector0") == {"control": 1, "busy": COPY, "halted": 1}
    assert books(result, "chip0.vector1") == {"control": 2, "busy": COPY}
    assert books(result, "chip0.vector2") == {"halted": 2 + COPY}


def shared(machine, *, ports, banks):
    """Two vector units on a scratchpad of 4-byte words with these ports and banks."""
    on = machine(vectors=2)
    port = PortConfig(name="p", clients=("vector",), count=ports)
    return replace(on, scratchpad=replace(on.scratchpad, ports=(port,), banks=banks, word_bytes=4))


BOTH = HEAD + "stream chip0.vector0\n vector vop=copy x=v y=v units=0x3\n halt\n"


def test_port_conflict_is_what_a_shared_port_adds(run, machine):
    result = run(BOTH, shared(machine, ports=1, banks=8))
    # 64 words read and 64 written each, over one port: 256 cycles from 1 on. Every other cycle
    # serves the other unit: 128 lost, 127 by unit 0, which is served first and ends a cycle
    # earlier. Its own 128 words are more than the work hides, by all but a copy's cycles.
    first, second = (books(result, f"chip0.vector{i}") for i in (0, 1))
    assert result.ticks == 1 + 256
    assert second == {"control": 1, "busy": COPY, "port_conflict": 128, "port_bound": 128 - COPY}
    assert first == {"control": 1, "busy": COPY, "port_conflict": 127, "port_bound": 128 - COPY,
                     "halted": 1}
    assert books(result, "chip0.scratchpad.p0") == {"busy": 256, "unused": 1}


def test_bank_conflict_is_what_a_missing_bank_adds(run, machine):
    result = run(BOTH, shared(machine, ports=2, banks=1))
    # Two ports, one bank: 256 words one after the other, as above, but the bank is what is lost.
    first, second = (books(result, f"chip0.vector{i}") for i in (0, 1))
    assert result.ticks == 1 + 256
    assert second == {"control": 1, "busy": COPY, "bank_conflict": 128, "port_bound": 128 - COPY}
    assert first == {"control": 1, "busy": COPY, "bank_conflict": 127, "port_bound": 128 - COPY,
                     "halted": 1}


def test_a_first_burst_misses_its_row(run, machine):
    result = run(HEAD + "stream chip0.dma0\n load src=one dst=pad\n halt\n")
    # The request is there at 2: 14 cycles to open the row; the burst takes 2.
    assert books(result, "chip0.dram0") == {"row_miss": 14, "busy": 2, "unused": result.ticks - 16}
    # 0: issue. 1: setup; 28 to the first data, 1 to cross: fill. 2 words of the crossbar.
    # The memory is done at 32, its data is written at 34.
    assert books(result, "chip0.dma0") == {"control": 1, "fill": 30, "busy": 2, "drain": 1}


def test_memory_wait_is_what_the_memory_takes_longer(run, machine):
    on = machine()
    timing = replace(on.dram.timing, ccd_l_cycles=12, ccd_s_cycles=12)
    result = run(HEAD + "stream chip0.dma0\n load src=many dst=pads\n halt\n",
                 replace(on, dram=replace(on.dram, timing=timing)))
    # 8 bursts, 12 cycles apart where 2 would do: 7 x 10 cycles of the data bus are lost.
    assert books(result, "chip0.dram0") == {
        "busy": 16, "bus_conflict": 70, "row_miss": 14, "unused": result.ticks - 100}
    # The last data ends at 2 + 28 + 7 x 12 + 2 = 116. Busy from 31 for 16 words of the crossbar;
    # then the memory keeps it waiting to 116; crossing and writing take 2.
    assert books(result, "chip0.dma0") == {
        "control": 1, "fill": 30, "busy": 16, "memory_wait": 69, "drain": 2}


def test_turnaround_is_the_gap_between_reading_and_writing(run, machine):
    on = machine()
    result = run(HEAD + "stream chip0.dma0\n load src=one dst=pad\n halt\n"
                 "stream chip0.dma1\n store src=pad dst=next units=0x2\n halt\n", on)
    # The write is queued before the row opens; its data follow the read's by rtrs cycles.
    gap = on.dram.timing.rtrs_cycles
    assert gap > 0
    assert books(result, "chip0.dram0") == {
        "row_miss": 14, "busy": 4, "turnaround": gap, "unused": result.ticks - 18 - gap}


def test_refresh_holds_a_request_back(run, machine):
    on = machine()
    on = replace(on, dram=replace(on.dram, refresh="all_bank_staggered"))
    first, rfc = on.dram.first_refresh_cycle(0), on.dram.timing.rfc_cycles
    wait = first + 20  # of the request, while rank 0 is in refresh
    nops = (wait - 4) // 2
    result = run(HEAD + f"stream chip0.dma0\n loop {nops}\n nop\n end\n load src=one dst=pad\n"
                 " halt\n", on)
    start = result.log.of("chip0.dma0")[-1].start
    request = start + on.dma.setup_cycles
    assert first < request < first + rfc
    found = books(result, "chip0.dram0")
    # The refresh began at its cycle; what is left of it holds the request, then the row opens.
    assert found["refresh"] == first + rfc - request
    assert found["row_miss"] == on.dram.timing.rcd_rd_cycles
    assert found["busy"] == on.dram.burst_cycles


def test_control_is_charged_for_loops_and_scalars(run):
    result = run(HEAD + "stream chip0.vector0\n r1 = 3\n loop r1\n r2 = add r1 1\n end\n"
                 " vector vop=copy x=v y=v\n halt\n")
    # r1, loop, 3 x (r2, end), issue: 9 cycles.
    assert books(result, "chip0.vector0") == {"control": 9, "busy": COPY}


INTERVALS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=12)


@given(INTERVALS, INTERVALS)
def test_uncovered_counts_the_ticks_of_sets(one, other):
    def ticks(intervals):
        return {t for start, length in intervals for t in range(start, start + length)}

    def array(intervals):
        return np.array([(s, s + n) for s, n in intervals], np.int64).reshape(-1, 2)

    first, union = uncovered(np.zeros((0, 2), np.int64), array(one))
    assert first == len(ticks(one))
    added, union = uncovered(union, array(other))
    assert added == len(ticks(other) - ticks(one))
    assert ticks([(s, e - s) for s, e in union.tolist()]) == ticks(one) | ticks(other)


@given(st.lists(st.tuples(st.integers(0, 20), st.lists(st.integers(0, 5), min_size=8, max_size=8)),
                max_size=8), st.integers(0, 10))
def test_classify_gives_each_tick_its_first_class(executions, waits):
    parts = np.array([np.cumsum([start, *steps]) for start, steps in executions],
                     np.int64).reshape(-1, 9)
    total = max([waits, *(int(row[-1]) for row in parts)])
    marks = np.array([[0, CLASSES.index("token_wait")], [waits, CLASSES.index("halted")]])
    want = dict.fromkeys(CLASSES, 0)
    for tick in range(total):
        here = {"token_wait" if tick < waits else "halted"}
        for row in parts.tolist():
            here |= {name for i, name in enumerate(PARTS) if row[i] <= tick < row[i + 1]}
        want[min(here, key=CLASSES.index)] += 1
    assert classify(parts, marks, total) == want


def log_of(rows):
    log = InstructionLog(["q"])
    for layer, op, start, completion in rows:
        for name, value in (("queue", 0), ("pc", 0), ("indices", ()), ("layer", layer), ("op", op),
                            ("mask", 1), ("issue", start), ("start", start),
                            ("completion", completion)):
            getattr(log, name).append(value)
    return log


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 20),
                          st.integers(0, 10)), min_size=1, max_size=10))
def test_each_tick_is_charged_to_the_first_to_complete_of_those_under_way(rows):
    rows = [(layer, op, start, start + length) for layer, op, start, length in rows]
    busy, charged = {}, {}
    for tick in range(40):
        here = [row for row in rows if row[2] <= tick < row[3]]
        for key in {row[:2] for row in here}:
            busy[key] = busy.get(key, 0) + 1
        if here:
            key = min(here, key=lambda row: (row[3], row[2], rows.index(row)))[:2]
            charged[key] = charged.get(key, 0) + 1
    found = by_operation(log_of(rows))
    assert {(o.layer, o.op): o.busy for o in found if o.busy} == busy
    assert {(o.layer, o.op): o.charged for o in found if o.charged} == charged
    for one in found:
        mine = [row for row in rows if row[:2] == (one.layer, one.op)]
        assert one.instructions == len(mine)
        assert one.span == max(r[3] for r in mine) - min(r[2] for r in mine)
