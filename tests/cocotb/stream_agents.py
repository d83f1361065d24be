"""Agents of a stream at the Verilog border: driver, monitor, checker.

A cycle is counted at its falling edge: an agent sets its side there, lets everything settle, and
reads the other side; the transfer happens at the rising edge that follows.
"""

from collections.abc import Sequence

import cocotb
from cocotb.clock import Clock
from cocotb.handle import HierarchyObject
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge
from cocotb.types import LogicArray

__all__ = ["Driver", "InOrderChecker", "Monitor", "start"]


async def start(dut: HierarchyObject, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Start the clock and reset, with nothing offered and nothing taken.

    The next falling edge is cycle 0: the last rising edge before it still resets.
    """
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    for name in inputs:
        dut[f"{name}__valid"].value = 0
        dut[f"{name}__payload"].value = 0
    for name in outputs:
        dut[f"{name}__ready"].value = 0
    dut.rst.value = 1
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0


class Driver:
    """Offers payload j of a stream from cycle ``valid_from[j]`` and notes when it is taken.

    The payload is x whenever nothing is offered.
    """

    def __init__(self, dut: HierarchyObject, name: str):
        self.clock = dut.clk
        self.valid = dut[f"{name}__valid"]
        self.payload = dut[f"{name}__payload"]
        self.ready = dut[f"{name}__ready"]
        self.unknown = LogicArray("X" * len(self.payload))
        self.cycles: list[int] = []

    async def send(self, payloads: Sequence[int], valid_from: Sequence[int]) -> None:
        """Send all `payloads`; the first falling edge from now is cycle 0."""
        cycle = 0
        while len(self.cycles) < len(payloads):
            await FallingEdge(self.clock)
            at = len(self.cycles)
            offered = cycle >= valid_from[at]
            self.valid.value = int(offered)
            self.payload.value = payloads[at] if offered else self.unknown
            await ReadOnly()
            if offered and self.ready.value:
                self.cycles.append(cycle)
            cycle += 1
        await FallingEdge(self.clock)
        self.valid.value = 0
        self.payload.value = self.unknown


class Monitor:
    """Takes payload j of a stream from cycle ``ready_from[j]`` on and notes what came when."""

    def __init__(self, dut: HierarchyObject, name: str):
        self.clock = dut.clk
        self.valid = dut[f"{name}__valid"]
        self.payload = dut[f"{name}__payload"]
        self.ready = dut[f"{name}__ready"]
        self.payloads: list[int] = []
        self.cycles: list[int] = []

    async def receive(self, ready_from: Sequence[int]) -> None:
        """Take one payload an entry of `ready_from`; fail if an output is ever x or z."""
        cycle = 0
        while len(self.cycles) < len(ready_from):
            await FallingEdge(self.clock)
            willing = cycle >= ready_from[len(self.cycles)]
            self.ready.value = int(willing)
            await ReadOnly()
            assert self.valid.value.is_resolvable and self.payload.value.is_resolvable, (
                f"cycle {cycle}: valid {self.valid.value}, payload {self.payload.value}")
            if willing and self.valid.value:
                self.payloads.append(self.payload.value.to_unsigned())
                self.cycles.append(cycle)
            cycle += 1
        await FallingEdge(self.clock)
        self.ready.value = 0


class InOrderChecker:
    """Compares what came with what the model says, beat for beat."""

    def __init__(self, expected: Sequence[int]):
        self.expected = list(expected)

    def check(self, actual: Sequence[int], what: str) -> None:
        """Fail with the first beat of `actual` that differs."""
        assert len(actual) == len(self.expected), (
            f"{what}: {len(actual)} beats, expected {len(self.expected)}")
        for beat, (got, want) in enumerate(zip(actual, self.expected, strict=True)):
            assert got == want, f"{what} {beat}:\n  expected {want:x}\n  actual   {got:x}"
