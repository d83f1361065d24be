# amaranth: UnusedElaboratable=no
"""The bank array flags what is illegal, and nothing else: rule by rule and beside the checker.

A test bench drives commands into the array. Each rule's bit is raised by a command one cycle too
early in each place it concerns, and by none that is on time or elsewhere.
"""

import importlib.util
import random
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from archsim.pim import PimChannel
from archsim.pim_check import first_violation
from archsim.pim_random import random_mix
from hw.cxxrtl import StreamSimulation
from hw.pim_banks import BankArray, BankCells, BankWords
from hw.pim_check import Fault, fault_layout
from hw.pim_queue import command_layout
from machine.dram import deadlines
from machine.pim import PIM_COMMANDS, pim_rules

spec = importlib.util.spec_from_file_location("pim_cases", Path(__file__).parent / "test_pim.py")
assert spec and spec.loader
CASES = importlib.util.module_from_spec(spec)
spec.loader.exec_module(CASES)

SMALL = replace(CASES.SMALL, bus_bits=32)  # two ranks of two groups of two banks


def config(name):
    pim = CASES.CONFIGS[name]
    return replace(pim, buffer_bytes=64, unit=replace(pim.unit, lanes=4))


NAMES = ("dual", pytest.param("single", marks=pytest.mark.slow))
CONFIGS = {name: config(name) for name in ("dual", "single", "all")}
EVERY = (*NAMES, pytest.param("all", marks=pytest.mark.slow))


class Seen(NamedTuple):
    """The faults at the end of a run."""

    kinds: int
    command: int
    bank: int
    rules: int


class Driven(wiring.Component):
    """The array between streams: commands, the host's data, faults."""

    def __init__(self, pim, library="pim"):
        self.pim, self.library = pim, library
        beat = BankWords.of(SMALL, pim).beat_bits
        super().__init__({
            "i": In(stream.Signature(command_layout(SMALL, pim).size)),
            "i_data": In(stream.Signature(beat)), "o_data": Out(stream.Signature(beat)),
            "o_fault": Out(stream.Signature(fault_layout(SMALL, pim).size))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = BankArray(SMALL, self.pim, library=self.library)
        for name in ("i", "i_data"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(dut, name))
        for name in ("o_data", "o_fault"):
            wiring.connect(m, getattr(dut, name), wiring.flipped(getattr(self, name)))
        return m


def runner(simulation, pim):
    """Return what runs commands through the array of `pim`."""
    layout, faults = command_layout(SMALL, pim), fault_layout(SMALL, pim)

    def run(commands, until=0, beats=0):
        """Return the faults after (cycle, name, bank, fields) `commands`, and the log."""
        payloads = [CASES.packed(layout, {
            "command": PIM_COMMANDS.index(c[1]), "bank": c[2], **(c[3] if c[3:] else {})})
            for c in commands]
        end = max(until, commands[-1][0] + 2 if commands else 0)
        log = simulation.run(
            {"i": (CASES.words(payloads, layout.size), np.array([c[0] for c in commands])),
             "i_data": (np.arange(2 * beats, dtype=np.uint32).reshape(beats, 2),
                        np.zeros(beats))},
            {"o_data": np.zeros(1000), "o_fault": np.array([end - 1])},
            max_cycles=end, complete=False)
        assert log["i"].cycles.tolist() == [c[0] for c in commands]
        codes = [sum(int(w) << 32 * k for k, w in enumerate(row))
                 for row in log["o_fault"].words]
        seen = [Seen(*(getattr(faults.from_bits(code), n) for n in Seen._fields))
                for code in codes]
        return (seen[0] if seen else None), log

    return run


@pytest.fixture(scope="module")
def driven():
    """Return what runs commands through the compiled array of a configuration, made once."""
    made = {}

    def of(name):
        pim = CONFIGS[name]
        if name not in made:
            made[name] = runner(StreamSimulation(Driven(pim), merge_wires=False, parts=[
                ("pim_cells", BankCells(SMALL, pim))]), pim)
        return made[name]

    return of


def reached(pim, command, bank):
    """Return the banks `command` at `bank` changes or reads."""
    if command in ("DOT", "GEMV", "READRES", "HEADER") or (command == "GACT" and (
            pim.activate == "all")) or (command == "PIMPRE" and pim.precharge == "all"):
        return set(range(8))
    wide = {"GACT": 2, "PREA": 4, "REF": 4}.get(command, 1)
    return set(range(bank - bank % wide, bank - bank % wide + wide))


def concerns(pim, rule, after, before):
    """Return whether `rule` concerns its later command at bank `before`, the earlier at `after`."""
    late = reached(pim, rule.before, before)
    early = reached(pim, rule.after, after)
    if rule.scope == "other_ranks":
        return {b // 4 for b in late}.isdisjoint(b // 4 for b in early)
    wide = {"bank": 1, "bank_group": 2, "rank": 4, "channel": 8}[rule.scope]
    return not {b // wide for b in late}.isdisjoint(b // wide for b in early)


def gap_of(pim, rule, dots):
    gap = rule.gap_cycles(SMALL)
    if rule.condition == "composite":
        return gap + pim.dot_cycles * (max(dots, pim.fill_dots) + 1)
    return gap + (pim.dot_cycles * (dots - 1) if rule.condition == "held" else 0)


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", EVERY)
def test_every_rule_from_both_sides_in_every_place(driven, name):
    pim, run = CONFIGS[name], driven(name)
    for number, rule in enumerate(pim_rules(SMALL, pim)):
        for dots in (1, 6, 8) if rule.condition else (1,):
            gap = gap_of(pim, rule, dots)
            assert gap > rule.nth - 1
            for after in (0, 5):
                early = [(3 + k, rule.after, after, {"dots": dots}) for k in range(rule.nth)]
                for before in range(8):
                    for at in {gap - 1, gap} - set(range(rule.nth)):
                        seen, _ = run([*early, (3 + at, rule.before, before, {"dots": dots})])
                        flagged = seen is not None and bool(seen.rules >> number & 1)
                        want = at < gap and concerns(pim, rule, after, before)
                        assert flagged == want, (rule, after, before, at, seen)
                        assert not flagged or seen.kinds & Fault.TIMING


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", NAMES)
def test_a_gap_counts_from_the_last_command_and_long_ago_is_legal(driven, name):
    run, t = driven(name), SMALL.timing
    rule = next(j for j, r in enumerate(pim_rules(SMALL, CONFIGS[name]))
                if (r.name, r.scope) == ("tRRD_L", "bank_group") and r.before == "ACT")
    for gap, late in ((t.rrd_l_cycles, False), (t.rrd_l_cycles - 1, True)):
        seen, _ = run([(0, "ACT", 2), (100, "ACT", 2), (100 + gap, "ACT", 3)])
        assert (seen is not None and bool(seen.rules >> rule & 1)) == late
    # Ages stop at their greatest gap; nothing comes round.
    assert run([(0, "ACT", 2), (9000, "RD", 2)], until=9003)[0] is None


def legal(row=1):
    """Return a legal beginning: row `row` open in bank 0 of the host, and when."""
    return [(0, "ACT", 0, {"row": row})], SMALL.timing.rcd_rd_cycles + 20


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", NAMES)
def test_each_kind_of_fault_is_told_with_its_command_and_bank(driven, name):
    pim, run = CONFIGS[name], driven(name)
    two = pim.row_buffers == 2
    open_, now = legal()
    groups = [(40 * k, "GACT", 2 * k, {"row": 2}) for k in range(4)]
    late = 200
    cases = [  # commands, and the kinds of fault of the last
        ([*open_, (now, "RD", 0, {"row": 1, "column": 3})], 0),
        ([*open_, (now, "RD", 0, {"row": 1, "column": 4})], Fault.LIMIT),
        ([*open_, (now, "RD", 0, {"row": 2})], Fault.STATE),
        ([*open_, (now, "WR", 1, {"row": 1})], Fault.STATE),
        ([*open_, (now, "GWRITE", 0, {"row": 1})], 0),
        ([*open_, (now, "GWRITE", 0, {"row": 3})], Fault.STATE),
        ([*open_, (now, "GWRITE", 0, {"row": 1, "column": 8})], Fault.LIMIT),
        ([*open_, (now, "GWRITE", 0, {"row": 1, "slot": 8})], Fault.LIMIT),
        ([*open_, (late, "ACT", 0, {"row": 2})], Fault.STATE),
        ([*open_, (late, "REF", 1)], Fault.STATE),
        ([*open_, (late, "REF", 4)], 0),
        ([*open_, (late, "GACT", 0, {"row": 1})], Fault.STATE),
        ([*open_, (late, "GACT", 0, {"row": 2})], 0 if two else Fault.STATE),
        ([*open_, (late, "GACT", 2, {"row": 1})], 0),
        ([*open_, (100, "PREA", 2), (late, "REF", 1)], 0),
        ([*groups, (late, "GEMV", 0, {"row": 2, "column": 2, "dots": 6, "slot": 2})], 0),
        ([*groups, (late, "GEMV", 0, {"row": 2, "column": 3, "dots": 6})], Fault.LIMIT),
        ([*groups, (late, "GEMV", 0, {"row": 2, "slot": 3, "dots": 6})], Fault.LIMIT),
        ([*groups, (late, "GEMV", 0, {"row": 2, "dots": 0})], Fault.LIMIT),
        ([*groups, (late, "DOT", 0, {"row": 2, "column": 8})], Fault.LIMIT),
        ([*groups, (late, "DOT", 0, {"row": 3})], Fault.STATE),
        ([*groups[:3], (late, "READRES", 0, {"row": 2})], Fault.STATE),
        ([*groups, (late, "GACT", 4, {"row": 2})], Fault.STATE),
        ([*groups, (late, "ACT", 3, {"row": 2})], Fault.STATE),
        ([*groups, (late, "ACT", 3, {"row": 3})], 0 if two else Fault.STATE),
        ([*groups, (late, "REF", 0)], Fault.STATE),
        ([*groups, (late, "PIMPRE", 3), (late + 60, "READRES", 0, {"row": 2})], Fault.STATE),
        ([*groups, (late, "PIMPRE", 3)], 0 if two else Fault.STATE),
        ([*groups, (late, "PRE", 3), (late + 60, "READRES", 0, {"row": 2})],
         0 if two else Fault.STATE),
    ]
    for commands, kinds in cases:
        seen, _ = run(commands)
        assert (seen.kinds if seen else 0) == kinds, (commands, seen)
        if seen and commands[-2][1] != "PIMPRE":
            assert (PIM_COMMANDS[seen.command], seen.bank) == commands[-1][1:3]
            assert seen.rules == 0


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", NAMES)
def test_a_fault_stays_and_a_refresh_that_does_not_come_is_one(driven, name):
    run, [limit] = driven(name), [x for x in deadlines(SMALL) if x.end == "REF"]
    assert run([], until=limit.cycles + 2)[0] is None
    assert run([], until=limit.cycles + 3)[0].kinds == Fault.REFRESH
    on_time = [(limit.cycles - 100 * k, "REF", 4 * k) for k in (1, 0)]
    assert run(on_time, until=limit.cycles + 1000)[0] is None
    one = run(on_time[:1], until=limit.cycles + 3)[0]
    assert one.kinds == Fault.REFRESH
    seen, _ = run([(7, "RD", 3, {"row": 5}), (90, "ACT", 1, {"row": 2})], until=500)
    assert (seen.kinds, PIM_COMMANDS[seen.command], seen.bank) == (Fault.STATE, "RD", 3)


@pytest.mark.cxxrtl
def test_data_moves_in_the_cycles_of_the_bus_and_a_write_without_it_is_a_fault(driven):
    run, t = driven("dual"), SMALL.timing
    open_, now = legal()
    write = [*open_, (now, "WR", 0, {"row": 1, "column": 2})]
    seen, log = run(write, until=now + 50, beats=2)
    assert seen is None
    assert log["i_data"].cycles.tolist() == [now + t.cwl_cycles, now + t.cwl_cycles + 1]
    for beats in (0, 1):
        seen, _ = run(write, until=now + 50, beats=beats)
        assert seen.kinds == Fault.DATA
    read = now + 60
    seen, log = run([*write, (read, "RD", 0, {"row": 1, "column": 2}),
                     (read + 2, "RD", 0, {"row": 1, "column": 3})], until=read + 50, beats=2)
    assert seen is None
    assert log["o_data"].cycles.tolist() == [read + t.cl_cycles + k for k in range(4)]
    assert log["o_data"].words.tolist() == [[0, 1], [2, 3], [0, 0], [0, 0]]


def changed(rng, trace):
    """Return `trace` with one command earlier, elsewhere, of another row, left out or twice."""
    place = rng.randrange(len(trace))
    c = trace[place]
    gap = c.cycle - (trace[place - 1].cycle if place else -1)
    match rng.randrange(5):
        case 0 if gap > 1:
            c = c._replace(cycle=c.cycle - rng.choice([1, 1, rng.randrange(1, gap)]))
        case 1:
            c = c._replace(bank=rng.randrange(8))
        case 2:
            c = c._replace(row=rng.randrange(16))
        case 3:
            return [*trace[:place], *trace[place + 1 :]]
        case _:
            later = trace[place + 1].cycle if place + 1 < len(trace) else c.cycle + 20
            if later - c.cycle > 1:
                return [*trace[: place + 1], c._replace(cycle=rng.randrange(c.cycle + 1, later)),
                        *trace[place + 1 :]]
    return [*trace[:place], c, *trace[place + 1 :]]


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name", EVERY)
def test_the_flag_and_the_checker_find_the_same_in_changed_traces(driven, name):
    pim, run, found = CONFIGS[name], driven(name), 0
    rng = random.Random(4)
    for seed in range(8):
        ops, cycles, requests = random_mix(SMALL, pim, seed, tiles=6, requests=30)
        trace = PimChannel(SMALL, pim).run(ops, requests, op_cycles=cycles).trace
        for case in range(25):
            mine = changed(rng, trace) if case else trace
            commands = [(c.cycle, c.command, c.bank, {
                n: max(getattr(c, n), 0) for n in ("row", "column", "dots")}) for c in mine]
            seen, _ = run(commands, beats=2 * len(mine))
            wrong = first_violation(SMALL, pim, mine)
            assert (seen is None) == (wrong is None), (seed, case, wrong, seen)
            if wrong is not None:
                found += 1
                assert (PIM_COMMANDS[seen.command], seen.bank) == (
                    wrong.command.command, wrong.command.bank), (seed, case, wrong, seen)
                kind = {"state": Fault.STATE, "column": Fault.LIMIT, "tREFI": Fault.REFRESH}
                want = kind.get(wrong.reason.split(":")[0].split(" ")[0], Fault.TIMING)
                assert seen.kinds & want
    assert found > 60


def test_the_numbers_of_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"bits of a row must be at least 256, .* not 128"):
        BankWords.of(replace(SMALL, columns=4, bus_bits=32),
                     replace(CONFIGS["dual"], unit=replace(CONFIGS["dual"].unit, lanes=16)))
