"""The lookup array: its recurrence by hand, its closed form, and products in a simulated run."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.engine.simulate import simulate
from archsim.lut import lut_times, lut_transfers, precompute_transfers
from machine.assembly import parse
from machine.errors import UserError
from machine.load import read_machine
from machine.lut import LutConfig, LutTile, TableConfig, lut_matmul_cycles, lut_matmul_tiles

CFG = LutConfig(m=2, n=3, w_bits=4)
TILE = LutTile(rows=2, tables=2, planes=2)


def test_one_command_by_hand():
    found = lut_transfers(CFG, [TILE])
    assert found.commands.tolist() == [0]
    assert found.tables.tolist() == [0, 2]  # the second with the last plane of the first
    assert found.weights.tolist() == [1, 2, 3, 4]
    assert found.sums_offered.tolist() == [6, 7]  # two after the last plane, a row a cycle
    assert found.sums.tolist() == [6, 7]


def test_the_next_command_waits_for_the_last_row_to_leave_its_register():
    found = lut_transfers(CFG, [TILE, TILE])
    assert found.commands.tolist() == [0, 4]
    assert found.weights.tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    deep = lut_transfers(replace(CFG, depth_cycles=2), [TILE, TILE])
    assert deep.weights.tolist() == [1, 2, 3, 4, 7, 8, 9, 10]
    kept = lut_transfers(CFG, [replace(TILE, emit=False), TILE])
    assert kept.weights.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_rows_that_are_not_taken_hold_the_array_behind_two_in_the_queue():
    found = lut_transfers(CFG, [TILE] * 3, sums_ready=[30, 30, 30, 30, 30, 30])
    # Rows 0 and 1 wait in the queue; row 2 stays in the units, so row 3 and command 2 wait.
    assert found.weights[:8].tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    assert found.sums.tolist() == [30, 31, 32, 33, 37, 38]
    assert found.weights[8:].tolist() == [32, 33, 34, 35]


def test_late_tables_and_late_weights_delay_what_needs_them():
    found = lut_transfers(CFG, [TILE], tables_valid=[5, 20], weights_valid=[0, 9, 9, 9])
    assert found.tables.tolist() == [5, 20]
    assert found.weights.tolist() == [6, 9, 21, 22]


def test_times_must_have_an_entry_a_beat():
    with pytest.raises(ValueError, match="^tables_valid must be 2 cycles, not 3$"):
        lut_transfers(CFG, [TILE], tables_valid=[0, 0, 0])
    with pytest.raises(ValueError, match="^sums_ready must be at least 0, not -1$"):
        lut_transfers(CFG, [TILE], sums_ready=[0, -1])
    with pytest.raises(ValueError, match="^rows must be from 1 to 2, not 3$"):
        lut_transfers(CFG, [replace(TILE, rows=3)])


def test_a_table_made_apart_by_hand():
    found = precompute_transfers(4, valid=[0, 0, 0, 9], ready=[5, 5, 5, 5])
    assert (found.i.tolist(), found.o.tolist()) == ([0, 1, 6, 9], [5, 6, 7, 10])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 4),
       st.sampled_from([1, 2]), st.sampled_from(["lut", "add", "mac"]))
def test_the_closed_form_is_the_unstalled_recurrence(m, n, k, planes, depth, unit):
    cfg = replace(CFG, unit=unit, depth_cycles=depth)
    tiles = [work.tile for work in lut_matmul_tiles(cfg, m, n, k, planes)]
    found, cycles = lut_transfers(cfg, tiles), lut_matmul_cycles(cfg, m, n, k, planes)
    first, last = found.weights[0], found.weights[-1]
    assert cycles == (first, len(found.weights), last + 1 - first - len(found.weights),
                      found.sums[-1] - last)


MACHINE = replace(
    read_machine("tiny-lut"),
    arrays=(LutConfig(m=2, n=8, w_bits=4, tables=TableConfig(format="int16")),),
    scratchpad=replace(read_machine("tiny-lut").scratchpad, word_bytes=1024, bytes=1 << 20),
    accumulator=replace(read_machine("tiny-lut").accumulator, word_bytes=2048, bytes=1 << 20),
)


def program(rows):
    """Return a program of products of the given (m, n, groups, planes) with tables."""
    text = "program p version 1\nneeds lut\n"
    body = "stream chip0.array0\n"
    for i, (m, n, groups, planes) in enumerate(rows):
        text += (f"operand t{i} table 0x0 int16 [{m},{groups},8] stride [{groups * 8},8,1]\n"
                 f"operand w{i} scratchpad 0x0 uint4 [{planes},{n},{groups}] stride "
                 f"[{n * groups},{groups},1]\n"
                 f"operand z{i} accumulator 0x0 int32 [{m},{n}] stride [{n},1]\n")
        body += f" matmul a=t{i} w=w{i} acc=z{i} dataflow=lut tables=1\n"
    return parse(text + body + " halt\n")


CASES = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 20), st.integers(1, 9),
                           st.integers(1, 4)), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(CASES)
def test_products_behind_each_other_run_as_the_array_does(rows):
    """Starts are the array's commands, completions its last sums, as its recurrence has them."""
    cfg = MACHINE.arrays[0]
    # A word a block of weights must not be what the array waits for.
    rows = [(m, n, max(groups, 2), max(planes, 2)) for m, n, groups, planes in rows]
    entries = simulate(program(rows), MACHINE).log.of("chip0.array0")
    tiles, valid, last = [], [], []
    for entry, (m, n, groups, planes) in zip(entries, rows, strict=True):
        own = [work.tile for work in lut_matmul_tiles(cfg, m, n, groups * 4, planes)]
        tiles += own
        valid += [entry.start] * len(own)
        last.append(sum(tile.sum_beats for tile in tiles) - 1)
    tables = np.full(sum(tile.tables for tile in tiles), entries[0].start)
    found = lut_transfers(cfg, tiles, commands_valid=valid, tables_valid=tables)
    assert [e.completion for e in entries] == (found.sums[last] + 1).tolist()
    assert entries[0].start == found.commands[0]


@pytest.mark.parametrize("change, sentence", [
    (("int16 [1,2,8] stride [16,8,1]", "int8 [1,2,8] stride [16,8,1]"),
     "chip0.array0[0]: format of tables must be int16, not 'int8'"),
    (("dataflow=lut tables=1", "dataflow=ws"),
     ("chip0.array0[0]: instruction must be a matmul with tables on array 0, which is a lookup "
     "array")),
])
def test_what_the_array_does_not_take_is_refused(change, sentence):
    from machine.disassembly import text

    written = text(program([(1, 2, 2, 2)])).replace(*change)
    with pytest.raises(UserError) as error:
        simulate(parse(written), MACHINE)
    assert str(error.value) == sentence


def test_planes_beyond_the_array_are_refused_with_what_it_has():
    with pytest.raises(ValueError, match="^planes must be from 1 to 4, not 5$"):
        lut_times(MACHINE.arrays[0], (1, 2, 8), "int16", (5, 1, 2))
    with pytest.raises(ValueError, match="^entries of a table must be 8, not 4$"):
        lut_times(MACHINE.arrays[0], (1, 2, 4), "int16", (2, 1, 2))


def test_a_machine_with_a_lookup_array_needs_table_memory():
    with pytest.raises(ValueError, match="tables must be given for arrays.0, which look up in it"):
        replace(MACHINE, tables=None)


def test_a_model_is_not_mapped_to_a_lookup_array():
    with pytest.raises(UserError, match="^tiny-lut: kind of array 0 must be systolic here, not"):
        MACHINE.systolic_of(0)
