"""The checker of PIM traces finds what is put wrong, and names it."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from archsim.pim import PimChannel
from archsim.pim_check import first_violation
from archsim.pim_device import PimDevice
from archsim.pim_random import random_mix
from archsim.pim_trace import PimCommand

spec = importlib.util.spec_from_file_location("pim_cases", Path(__file__).parent / "test_pim.py")
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
SMALL, OURS, HBM2, DUAL = cases.SMALL, cases.OURS, cases.HBM2, cases.DUAL
ONE = replace(OURS, row_buffers=1)


def trace(pim, seed=0, dram=SMALL):
    ops, cycles, requests = random_mix(dram, pim, seed)
    return PimChannel(dram, pim).run(ops, requests, op_cycles=cycles).trace


def moved(pim, before, limit=400):
    """Return traces in which a `before` comes one cycle earlier than the device allows."""
    found = []
    for seed in range(3):
        commands, device = trace(pim, seed), PimDevice(SMALL, pim)
        for i, c in enumerate(commands[:limit]):
            if c.command == before and i and device.ready_at(c.command, c.bank) == c.cycle and (
                    c.cycle - 1 > commands[i - 1].cycle):
                early = [*commands[:i], c._replace(cycle=c.cycle - 1), *commands[i + 1 :]]
                found.append((i, early))
            device.issue(c.command, c.bank, c.row, c.column, c.dots, now=c.cycle)
    return found


@pytest.mark.parametrize("pim, before", [
    *((OURS, name) for name in ("ACT", "PRE", "RD", "WR", "REF", "GWRITE", "GACT", "GEMV",
                                "HEADER", "PIMPRE")),
    *((ONE, name) for name in ("ACT", "PRE", "RD", "WR", "GACT", "DOT", "READRES")),
], ids=lambda value: value if isinstance(value, str) else f"{value.row_buffers}")
def test_every_command_one_cycle_early_is_found(pim, before):
    injected = moved(pim, before)
    assert injected
    for place, commands in injected[:: max(1, len(injected) // 4)]:
        found = first_violation(SMALL, pim, commands)
        assert found is not None and found.place == place, (place, commands[place], found)
        assert "legal from" in found.reason or "bus" in found.reason


def without(commands, name, nth=0):
    places = [i for i, c in enumerate(commands) if c.command == name]
    return [c for i, c in enumerate(commands) if i != places[nth]]


def changed(commands, name, **fields):
    place = [i for i, c in enumerate(commands) if c.command == name][1]
    return [*commands[:place], commands[place]._replace(**fields), *commands[place + 1 :]]


@pytest.mark.parametrize("break_, reason", [
    (lambda t: without(t, "ACT"), "state"),
    (lambda t: without(t, "PRE"), "state"),
    (lambda t: without(t, "GACT"), "state"),
    (lambda t: without(t, "PIMPRE"), "state"),
    (lambda t: changed(t, "RD", row=15), "state: RD"),
    (lambda t: changed(t, "WR", row=15), "state: WR"),
    (lambda t: changed(t, "GEMV", row=99), "state: GEMV"),
    (lambda t: changed(t, "GWRITE", row=99), "state: GWRITE"),
    (lambda t: changed(t, "RD", column=4), "column: 4 of 4"),
    (lambda t: changed(t, "WR", column=-1), "column: -1 of 4"),
    (lambda t: changed(t, "GEMV", column=8, dots=1), "column: 8 of 8"),
    (lambda t: changed(t, "GEMV", column=0, dots=9), "column: 8 of 8"),
    (lambda t: changed(t, "HEADER", bank=8), "bank: 8 of 8"),
    (lambda t: [t[0], t[0], *t[1:]], "command bus: free from"),
    (lambda t: [c for c in t if c.command != "REF"], "tREFI: no REF of rank"),
    (lambda t: [*t, PimCommand(t[-1].cycle + 900, "REF", 0, -1, -1, 0)], "state: REF"),
])
def test_states_limits_bus_and_refresh(break_, reason):
    dram = replace(SMALL, timing=replace(SMALL.timing, refi_cycles=SMALL.timing.refi_cycles))
    commands = trace(OURS, 2)
    if "tREFI" in reason:  # nine intervals
        ops, cycles, requests = random_mix(SMALL, OURS, 2, tiles=130, requests=10)
        commands = PimChannel(SMALL, OURS).run(ops, requests, op_cycles=cycles).trace
        assert commands[-1].cycle > 9 * 1300
        assert first_violation(dram, OURS, commands, until=commands[-1].cycle) is None
    found = first_violation(dram, OURS, break_(commands), until=commands[-1].cycle)
    assert found is not None and found.reason.startswith(reason), found


def test_a_row_in_both_buffers_of_a_bank_is_found():
    at = [PimCommand(0, "ACT", 0, 5, -1, 0), PimCommand(60, "GACT", 0, 5, -1, 0)]
    assert first_violation(HBM2, DUAL, at).reason == "state: GACT in bank 0"
    back = [PimCommand(0, "GACT", 0, 5, -1, 0), PimCommand(60, "ACT", 1, 5, -1, 0)]
    assert first_violation(HBM2, DUAL, back).reason == "state: ACT in bank 1"


def test_one_row_buffer_has_no_precharge_of_its_own():
    at = [PimCommand(0, "GACT", 0, 5, -1, 0), PimCommand(60, "PIMPRE", 0, -1, -1, 0)]
    assert first_violation(HBM2, replace(DUAL, row_buffers=1), at).reason == (
        "state: PIMPRE in bank 0")


def test_a_refresh_that_never_comes_is_missed_at_the_end():
    at = [PimCommand(0, "ACT", 0, 5, -1, 0)]
    found = first_violation(HBM2, DUAL, at, until=9 * 3900 + 1)
    assert found.reason == "tREFI: no REF of rank 0 by 35100"
    assert first_violation(HBM2, DUAL, at, until=9 * 3900) is None
