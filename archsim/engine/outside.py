"""The memory that Python has: channels that compute, stepped between two calls of the kernel.

It is the other implementation of what `archsim.engine.memory` is for channels that do not: the
kernel stops where an event asks the memory, and before it passes a tick at which the memory may
have done something.
"""

from collections.abc import Iterator

import numpy as np

from archsim.engine import cells as c
from archsim.engine.demand import Plan
from archsim.engine.layout import rows_of
from archsim.pim import NEVER
from archsim.pim_expand import Expander, Macro
from archsim.pim_memory import PimMemory
from machine.chip import Machine
from machine.control import Step
from machine.errors import UserError
from machine.opcodes import Opcode

__all__ = ["Outside"]


class Outside:
    """The chips' memory, told by the kernel's cells what to do; tells them what is done."""

    def __init__(self, machine: Machine, chips: int) -> None:
        assert machine.pim is not None
        self._machine = machine
        self._pim_port = machine.dma.count + 1  # behind the DMA engines' and that of READs
        self.memory = PimMemory(machine.dram, machine.pim, chips=chips, ports=self._pim_port + 1)
        self._expanders = [Expander(machine) for _ in range(chips)]
        self._macros: dict[int, Macro] = {}  # by row of the log
        self._who: dict[int, tuple[int, int, int]] = {}  # by tag: what happens, to whom, chip
        self._tags = 0
        self._spans: list[tuple[int, int, int, int, int]] = []  # chip, channel, entries, row

    def expand(self, plan: Plan, step: Step, row: int) -> None:
        """Work out what the instruction in `row` of the log asks of the channels."""
        if plan.mask == 0:
            return
        tiles = {role: step.resolve(operand) for role, operand in plan.operands.items()}
        if any(0 in tile.shape for tile in tiles.values()):
            return
        expander = self._expanders[plan.chip]
        self._macros[row] = expander.expand(plan.where, plan.instruction, tiles)

    def ask(self, e: np.ndarray) -> None:
        """Let the first event ask the memory."""
        from archsim.engine.events import pop

        first = int(e[c.EVENT + c.PLACE])
        tick, _, what, who = e[first : first + 4].tolist()
        pop(e)
        now = -(-tick // int(e[c.MEMORY_PERIOD]))
        stream = who if what == c.READ_MEMORY else int(e[who + c.A_STREAM])
        chip, tag = int(e[stream + c.S_CHIP]), self._tags
        self._tags += 1
        e[self._place(e, chip) + c.Y_UNDER_WAY] += 1
        if what == c.ASK_PIM:
            macro = self._macros.pop(int(e[who + c.A_ROW]))
            done = c.RESULTS if macro.reads_latch else c.MEMORY_DONE
            self._who[tag] = done, who, chip
            channels = self.memory.channels(chip)
            for channel, ops in macro.ops.items():
                if ops:
                    first = len(channels[channel].ops)
                    self._spans.append((chip, channel, first, first + len(ops) - 1,
                                        int(e[who + c.A_ROW])))
            try:
                self.memory.macro(chip, tag, self._pim_port, macro, now)
            except UserError:
                raise
            except ValueError as error:
                raise UserError(f"{macro.where}: {error}") from None
        else:
            self._transfer(e, chip, tag, what, who, now)
        self._soonest(e)

    def go_on(self, e: np.ndarray) -> None:
        """Go on to the tick the kernel is bound for, or to the first thing done before it."""
        from archsim.engine.events import at

        period, until = int(e[c.MEMORY_PERIOD]), int(e[c.OUTSIDE_UNTIL])
        limit = NEVER if until == c.NONE else until // period
        for cycle, tag in self.memory.advance(limit):
            done, who, chip = self._who.pop(tag)
            e[self._place(e, chip) + c.Y_UNDER_WAY] -= 1
            at(e, cycle * period, done, who)
        self._soonest(e)

    def spans(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return what each channel's units did, as `SimResult` has parts and rows.

        A span begins when the entry in front has ended, and ends with the entries' last command.
        """
        period = self._machine.ticks(self._machine.dram.clock)
        parts: dict[str, list[list[int]]] = {}
        rows: dict[str, list[int]] = {}
        for chip, number, first, last, row in self._spans:
            name, channel = f"chip{chip}.bank_units{number}", self.memory.channels(chip)[number]
            before = channel.ops_done[first - 1] + 1 if first else 0
            begin, end = max(channel.op_cycles[first], before), channel.ops_done[last] + 1
            parts.setdefault(name, []).append([begin * period] * 3 + [end * period] * 6)
            rows.setdefault(name, []).append(row)
        return ({name: np.array(found, np.int64) for name, found in parts.items()},
                {name: np.array(found, np.int64) for name, found in rows.items()})

    def _transfer(self, e: np.ndarray, chip: int, tag: int, what: int, who: int, now: int) -> None:
        """Start a transfer of a DMA engine, or the word of a READ."""
        if what == c.READ_MEMORY:
            plan = int(e[who + c.S_PLANS] + e[who + c.S_HEAD_PC] * c.PLAN)
            port, base = self._pim_port - 1, int(e[who + c.S_BASE])
            first, count, write = int(e[plan + c.P_LIST]), 1, False
            self._who[tag] = c.READ_DONE, who, chip
        else:
            port, base = e[who + c.A_UNIT], int(e[who + c.A_BASE])
            first, count = e[who + c.A_LIST : who + c.A_LIST_COUNT + 1].tolist()
            write = bool(e[e[who + c.A_PLAN] + c.P_OPCODE] != Opcode.LOAD)
            self._who[tag] = c.MEMORY_DONE, who, chip
        pieces = list(self._pieces(e, base, first, count))
        low, high = min(p for p, _ in pieces), max(p + size for p, size in pieces)
        size = self._machine.memory_bytes
        if low < 0:
            raise ValueError(f"address_bytes must be at least 0, not {low}")
        if high > size:
            raise ValueError(
                f"end of the transfer must be at most {size}, the memory's size, not {high}")
        self.memory.transfer(chip, tag, int(port), write=write, pieces=pieces, now=now)

    @staticmethod
    def _pieces(e: np.ndarray, base: int, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield the first byte and the size of every run of some lists of pieces."""
        addresses, lists = rows_of(e, c.ADDRESS), rows_of(e, c.LIST)[first : first + count]
        for offset, size, rows, stride, listed in lists.tolist():
            if listed != c.NONE:
                for address in addresses[listed : listed + rows, 0].tolist():
                    yield base + address, size
            elif stride == size:
                yield base + offset, size * rows
            else:
                for row in range(rows):
                    yield base + offset + row * stride, size

    def _soonest(self, e: np.ndarray) -> None:
        """Tell the kernel how far it may go before it must ask."""
        soonest = self.memory.soonest()
        for chip in range(int(e[c.CHIPS])):
            e[self._place(e, chip) + c.Y_SOONEST] = min(soonest, 1 << 50)

    @staticmethod
    def _place(e: np.ndarray, chip: int) -> int:
        transfers = int(e[c.MEMORY_PORTS] * e[c.MEMORY_DEPTH])
        return int(e[c.AT_MEMORY]) + chip * (c.MEMORY + transfers * c.TRANSFER)
