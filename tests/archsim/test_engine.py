"""The engine: when an instruction issues, starts and completes, from rules written by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.engine import cells as c
from archsim.engine.simulate import Engine
from archsim.result import collect
from archsim.systolic import tile_times
from machine.assembly import parse
from machine.errors import UserError
from machine.load import read_machine
from machine.pe import PeConfig
from machine.program import Launch
from machine.systolic import matmul_tiles

HEAD = """program t version 1
needs systolic vector
chips 1
launch some
token a
token b
token c 1
operand a scratchpad 0x0 int8 [8,8] stride [8,1]
operand w scratchpad 0x100 int8 [8,8] stride [8,1]
operand acc accumulator 0x0 int32 [8,8] stride [8,1]
operand v scratchpad 0x800 float32 [4,16] stride [16,1]
operand dram dram 0x0 int8 [64] stride [1]
operand pad scratchpad 0x1000 int8 [64] stride [1]
operand none scratchpad 0x1000 int8 [64] stride [1] edge 0:0
operand few scratchpad 0x0 int8 [8,8] stride [8,1] loop 7:64 edge 0:8-7*4
operand fewacc accumulator 0x0 int32 [8,8] stride [8,1] loop 7:64 edge 0:8-7*4
"""


# Of 64 elements on 8 lanes in RTL: 2 cycles to decode, 8 beats, 7 until the last one is taken.
COPY = 2 + 8 + 7


def test_a_nop_takes_one_issue_and_its_signal_one_cycle_more(run, times):
    # Issue at 0, start and completion at 1; the token can be taken at 2.
    result = run(HEAD + "stream chip0.vector0\n nop signal a:1\n halt\n"
                 "stream chip0.array0\n nop wait a:1\n halt\n")
    assert times(result, "chip0.vector0") == [(0, 1, 1)]
    assert times(result, "chip0.array0") == [(2, 3, 3)]
    assert result.ticks == 3


def test_the_end_leaves_no_channel_behind(run, monkeypatch):
    # So that a run needs no second function compiled that simulates channels. One load, all of it
    # in one of four channels, outlasts tREFI: the others have refreshes of their own meanwhile.
    from archsim.dram import kernel

    monkeypatch.setattr(kernel, "catch_up", None)
    on = read_machine("tiny", ["dram.channels=4"])
    far = ("operand far dram 0x0 int8 [200,64] stride [65536,1]\n"
           "operand room scratchpad 0x4000 int8 [200,64] stride [64,1]\n")
    result = run(HEAD + far + "stream chip0.dma0\n load dst=room src=far\n halt\n", on)
    # Of two ranks one is first due at half of tREFI, the other at tREFI.
    assert on.dram.ranks == 2
    assert 1 < result.ticks / on.dram.timing.refi_cycles < 1.5  # a tick is a cycle
    assert result.dram[0].reads == 200 and result.dram[0].refreshes == 4 * 2


def test_waits_are_taken_together(run, times):
    # The NOP needs a and c: c is there at once, but stays until a comes.
    result = run(HEAD + "stream chip0.array0\n nop wait a:1 c:1\n halt\n"
                 "stream chip0.vector0\n nop wait c:1 signal c:1\n nop signal a:1\n halt\n")
    # vector: 0, taken c; completion 1, c back at 2; second NOP 1 -> 2, a at 3.
    assert times(result, "chip0.array0") == [(3, 4, 4)]


def test_of_two_queues_that_wait_the_lower_takes_the_token(run):
    body = ("stream chip0.dma0\n nop wait c:1\n nop signal a:1\n halt\n"
            "stream chip0.array0\n nop wait a:1 signal b:1\n halt\n"
            "stream chip0.vector0\n nop wait a:1\n halt\n")
    with pytest.raises(UserError, match=r"^program must not deadlock: "
                       r"chip0\.vector0\[0\] waits for a: 0 of 1$"):
        run(HEAD + body)


def test_control_costs_its_cycles(run, times):
    # loop 1, then 3 x (nop 1 + end 1): the last nop issues at 1 + 2 * 2 = 5.
    result = run(HEAD + "stream chip0.array0\n loop 3\n nop\n end\n halt\n")
    assert [issue for issue, _, _ in times(result, "chip0.array0")] == [1, 3, 5]
    assert result.ticks == 7  # and the last end
    assert [e.indices for e in result.log.of("chip0.array0")] == [(0,), (1,), (2,)]


def test_a_false_predicate_skips_the_work_and_still_signals(run, times):
    body = ("stream chip0.vector0\n r1 = launch some\n"
            " vector vop=copy x=v y=v signal a:1 if r1\n halt\n"
            "stream chip0.array0\n nop wait a:1\n halt\n")
    skipped = run(HEAD + body, launch=Launch({"some": 0}))
    done = run(HEAD + body, launch=Launch({"some": 1}))
    # r1 takes cycle 0; issue 1, start 2.
    assert times(skipped, "chip0.vector0") == [(1, 2, 2)]
    assert times(done, "chip0.vector0") == [(1, 2, 2 + COPY)]
    assert times(skipped, "chip0.array0") == [(3, 4, 4)]
    assert times(done, "chip0.array0") == [(3 + COPY, 4 + COPY, 4 + COPY)]


def test_vector_operations_do_not_overlap(run, times):
    result = run(HEAD + "stream chip0.vector0\n vector vop=copy x=v y=v\n"
                 " vector vop=copy x=v y=v\n halt\n")
    assert times(result, "chip0.vector0") == [(0, 1, 1 + COPY), (1, 1 + COPY, 1 + 2 * COPY)]


def test_a_fence_waits_for_the_instructions_in_front(run, times):
    result = run(HEAD + "stream chip0.vector0\n vector vop=copy x=v y=v\n fence\n nop\n halt\n")
    end = 1 + COPY
    assert times(result, "chip0.vector0") == [(0, 1, end), (1, 2, end), (end, end + 1, end + 1)]


def test_an_empty_tile_takes_no_unit(run, times):
    result = run(HEAD + "stream chip0.vector0\n vector vop=copy x=none y=none\n nop\n halt\n")
    assert times(result, "chip0.vector0") == [(0, 1, 1), (1, 2, 2)]


def matmuls(rows):
    """A program of matmuls of the given (dataflow, m, n, k), and a head that has the operands."""
    head, body = HEAD, "stream chip0.array0\n"
    for i, (flow, m, n, k) in enumerate(rows):
        head += (f"operand a{i} scratchpad 0x0 int8 [{m},{k}] stride [{k},1]\n"
                 f"operand w{i} scratchpad 0x0 int8 [{k},{n}] stride [{n},1]\n"
                 f"operand z{i} accumulator 0x0 int32 [{m},{n}] stride [{n},1]\n")
        body += f" matmul a=a{i} w=w{i} acc=z{i} dataflow={flow}\n"
    return head, body + " halt\n"


# k is at least 2: activations and weights are a word each, which one port moves in two cycles.
CASES = st.lists(
    st.tuples(st.sampled_from(["os", "ws"]), st.integers(1, 20), st.integers(1, 20),
              st.integers(2, 20)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_matmuls_behind_each_other_run_as_the_array_does(run, machine, rows):
    """Starts are the array's commands, completions its last sums, as its recurrence has them."""
    assert_runs_as_the_array_does(run, machine(), rows)


def assert_runs_as_the_array_does(run, on, rows):
    on = replace(on, scratchpad=replace(on.scratchpad, word_bytes=1024, bytes=1 << 20),
                 accumulator=replace(on.accumulator, word_bytes=2048, bytes=1 << 20))
    head, body = matmuls(rows)
    entries = run(head + body, on).log.of("chip0.array0")
    tiles, valid, last = [], [], []
    for entry, (flow, m, n, k) in zip(entries, rows, strict=True):
        own = [work.tile for work in matmul_tiles(on.arrays[0], m, n, k, flow)]
        tiles += own
        valid += [entry.start] * len(own)
        last.append(len(tiles) - 1)
    found = tile_times(on.arrays[0], tiles, commands_valid=valid)
    assert [e.completion for e in entries] == (found.last_sums[last] + 1).tolist()
    free = tile_times(on.arrays[0], tiles, commands_valid=np.array(valid) - valid[0] + 1)
    assert (free.last_sums == found.last_sums).all()  # no start was late


# 4 products are two beats of 3 lanes.
LONGER = st.lists(st.tuples(st.sampled_from(["os", "ws"]), st.integers(1, 20), st.integers(1, 20),
                            st.integers(4, 20)), min_size=1, max_size=5)


@pytest.mark.parametrize("pe", [
    PeConfig(kind="bit_serial"), PeConfig(k_lanes=3, depth_cycles=2), PeConfig(add_cycles=3),
    PeConfig(add_cycles=4, partial_sums=2), PeConfig(add_cycles=3, partial_sums=3),
    PeConfig(kind="bit_serial", add_cycles=20, partial_sums=2),
], ids=lambda pe: f"{pe.kind}-{pe.add_cycles}-{pe.partial_sums}-{pe.k_lanes}")
@settings(max_examples=25, deadline=None)
@given(rows=LONGER)
def test_matmuls_run_as_an_array_of_any_element_does(run, machine, pe, rows):
    on = machine()
    flows = ("os",) if pe.add_cycles > 1 else ("os", "ws")
    arrays = tuple(replace(array, pe=pe, dataflows=flows) for array in on.arrays)
    rows = [(flow if flow in flows else "os", *sizes) for flow, *sizes in rows]
    assert_runs_as_the_array_does(run, replace(on, arrays=arrays), rows)


@pytest.mark.parametrize("m", [1, 8, 20])
def test_preload_overlaps_the_tile_in_front(m, run):
    """A tile costs max(m, rows) cycles: PRELOAD and MATMUL alternate without a gap."""
    head = HEAD + (f"operand am scratchpad 0x0 int8 [{m},8] stride [8,1]\n"
                   f"operand zm accumulator 0x0 int32 [{m},8] stride [8,1]\n")
    body = ("stream chip0.array0\n loop 5\n preload w=w\n matmul a=am acc=zm dataflow=ws\n end\n"
            " halt\n")
    done = [e.completion for e in run(head + body).log.of("chip0.array0") if e.pc == 2]
    assert np.diff(done).tolist() == [max(m, 8)] * 4


def test_a_read_finds_the_launch_table_or_the_value_trace(run):
    head = HEAD + ("symbol pages scratchpad 0x40 int32 [4] launch\n"
                   "operand page scratchpad 0x40 int32 [1] stride [1] loop 0:1\n")
    body = ("stream chip0.vector0\n loop 4\n read r1 src=page\n nop if r1\n"
            " vector vop=copy x=v y=v if r1\n end\n halt\n")
    launched = run(head + body, launch=Launch({}, {"pages": [0, 1, 0, 1]}))
    traced = run(head + body, values={"chip0.vector0": [0, 1, 0, 1]})
    found = [e.completion - e.start for e in launched.log.of("chip0.vector0") if e.pc == 3]
    assert found == [0, COPY, 0, COPY]
    assert list(traced.log.entries()) == list(launched.log.entries())
    with pytest.raises(UserError, match=r"^chip0\.vector0\[1\]: the value read must be in the "
                       r"launch table or in values$"):
        run(head + body)


def test_a_read_costs_the_latency_of_where_it_looks(run, times, machine):
    head = HEAD + ("symbol here scratchpad 0x40 int32 [1] launch\n"
                   "symbol far dram 0x80 int32 [1] launch\n"
                   "operand near scratchpad 0x40 int32 [1] stride [1]\n"
                   "operand away dram 0x80 int32 [1] stride [1]\n")
    body = ("stream chip0.vector0\n read r1 src=near\n nop\n read r2 src=away\n nop if r2\n"
            " vector vop=copy x=v y=v if !r2\n halt\n")
    on = machine()
    found = times(run(head + body, launch=Launch({}, {"here": [1], "far": [1]})), "chip0.vector0")
    near = on.scratchpad.latency_cycles + 1
    far = on.dram.read_latency_cycles + on.crossbar.latency_cycles
    # Each issues when the one before has its value, and starts a cycle later.
    assert found[0] == (0, 1, 1 + near)
    assert found[1] == (1 + near, 2 + near, 2 + near)
    assert found[2] == (2 + near, 3 + near, 3 + near + far)
    assert found[3][0] == 3 + near + far
    assert found[4][1] == found[4][2]  # not run: r2 is 1


def test_a_count_past_its_width_is_refused(run, machine):
    on = machine()
    narrow = replace(on, sequencer=replace(on.sequencer, token_bits=2))
    fits = HEAD + "stream chip0.array0\n nop signal a:3\n halt\n"
    run(fits, narrow)
    with pytest.raises(UserError, match=r"^token a must be at most 3, not 4$"):
        run(fits.replace("a:3", "a:4"), narrow)


def test_a_deadlock_names_who_waits_for_what(run):
    with pytest.raises(UserError, match=r"^program must not deadlock: chip0\.array0\[0\] waits for "
                       r"a: 0 of 2; chip0\.vector0\[1\] waits for b: 0 of 1$"):
        run(HEAD + "stream chip0.array0\n nop wait a:2 signal b:1\n halt\n"
            "stream chip0.vector0\n nop\n nop wait b:1 signal a:1\n halt\n")


@pytest.mark.parametrize(("body", "message"), [
    ("stream chip0.array0\n matmul a=a w=w acc=acc units=0x2\n halt\n",
     "chip0.array0[0]: units must be among the machine's 1 array units, not 0x2"),
    ("stream chip0.array0\n matmul a=a w=w acc=acc dataflow=lut\n halt\n",
     "chip0.array0[0]: dataflow must be os or ws on this machine, not lut"),
])
def test_refuses_what_the_machine_cannot_run(body, message, run):
    with pytest.raises(UserError) as error:
        run(HEAD + body)
    assert str(error.value) == message


def test_a_machine_without_a_port_says_so(run, machine):
    on = machine()
    ports = tuple(port for port in on.scratchpad.ports if port.name != "vector")
    on = replace(on, scratchpad=replace(on.scratchpad, ports=ports))
    with pytest.raises(UserError) as error:
        run(HEAD + "stream chip0.vector0\n vector vop=copy x=v y=v\n halt\n", on)
    assert str(error.value) == (
        "chip0.vector0[0]: scratchpad must have a port that vector can read, it has none")


SHARED = """stream chip0.array0
  matmul a=a w=w acc=acc dataflow=ws units=0xf
  halt
"""
LANES = """stream chip0.array0
  loop 3
    matmul a=few w=w acc=fewacc dataflow=ws units=0xf
    matmul a=a w=w acc=acc dataflow=ws units=0x5
  end
  halt
stream chip0.vector0
  vector vop=copy x=v y=v units=0x3
  vector vop=copy x=v y=v units=0x2
  halt
"""


def engine_of(text, on, *, together=True):
    """The engine of a text program, run to its end."""
    engine = Engine(parse(text), on, Launch(), {}, together=together)
    engine.run()
    return engine


def lanes_of(engine, stream):
    """The masks of the lanes that the units of a stream are in."""
    cells, place = engine.cells, engine.answers.lowered.stream_places[stream]
    first, count = cells[place + c.S_LANES], cells[place + c.S_LANE_COUNT]
    return sorted(cells[cells[first : first + count] + c.L_MASK].tolist())


def test_equal_units_as_one_lane_give_what_single_units_give(machine):
    on = machine(arrays=4, vectors=2)
    one, other = (engine_of(HEAD + SHARED, on, together=joined) for joined in (True, False))
    assert lanes_of(one, 0) == [0xF] and lanes_of(other, 0) == [1, 2, 4, 8]
    assert collect(one).accounts == collect(other).accounts
    together, apart = (collect(engine_of(HEAD + LANES, on, together=joined))
                       for joined in (True, False))
    assert list(together.log.entries()) == list(apart.log.entries())
    assert together.accounts == apart.accounts
    for name, parts in together.parts.items():
        assert np.array_equal(parts, apart.parts[name]), name


def test_lanes_are_parted_only_where_units_differ(run, machine):
    on = machine(arrays=4, vectors=2)
    engine = engine_of(HEAD + LANES, on)
    # Ranks 2 and 3 have no rows left (8 - 2 * 4 = 0), and only units 0 and 2 run the second.
    assert lanes_of(engine, 0) == [1, 2, 4, 8]
    assert lanes_of(engine, 1) == [1, 2]


def test_slower_clocks_stretch_their_units(run, times, machine):
    clocks = (replace(read_machine("tiny").clocks[0], name="core"),
              replace(read_machine("tiny").clocks[1], name="dram"),
              replace(read_machine("tiny").clocks[0], name="half", period_ps=2000))
    base = machine()
    on = replace(base, clocks=clocks, vectors=(replace(base.vectors[0], clock="half"),))
    result = run(HEAD + "stream chip0.vector0\n vector vop=copy x=v y=v\n halt\n", on)
    assert times(result, "chip0.vector0") == [(0, 1, 1 + 2 * COPY)]


def test_two_runs_are_equal(run, machine):
    on = machine(arrays=4, vectors=2)
    one, other = run(HEAD + LANES, on), run(HEAD + LANES, on)
    assert list(one.log.entries()) == list(other.log.entries())
    assert one.accounts == other.accounts
