"""What the compiled kernel cannot know by itself, answered into its memory: demands, data, room."""

from collections.abc import Mapping, Sequence

import numpy as np

from archsim.engine import cells as c
from archsim.engine.demand import Demand, Plan, Planner, operand_bits
from archsim.engine.indirect import Values
from archsim.engine.layout import grow, rows_of
from archsim.engine.lowering import Lowered
from archsim.engine.outside import Outside
from archsim.engine.pieces import Piece
from archsim.engine.routes import way
from archsim.engine.work import Work
from machine.chip import Machine
from machine.control import Step
from machine.errors import UserError
from machine.program import LOOP_LEVELS, REGISTERS, Launch, Program, QueueKind

__all__ = ["Answers"]

_EMPTY = Demand()


class Answers:
    """A lowered program with its memory, kept in step with what the kernel asks for."""

    def __init__(self, program: Program, machine: Machine, launch: Launch,
                 values: Mapping[str, Sequence[int]], *, together: bool = True):
        self.machine = machine
        self.values = Values(program, launch, values)
        self.planner = Planner(program, machine)
        self.lowered = Lowered(program, machine, launch, self.planner, together=together)
        self.memory = self.lowered.memory
        self.listed = np.zeros((1 << 10, 2), np.int64)  # addresses of pieces, for the DRAM
        # The memory of the chips where it computes: it is Python's.
        self.outside = Outside(machine, program.chips) if machine.pim is not None else None
        self._demands: list[tuple[Plan, Demand]] = []  # by number, less the empty one
        self._pieces: dict[tuple[Piece, ...], tuple[int, int]] = {}

    def answer(self, why: int) -> None:
        """Answer the kernel that stopped with `why`; raises `UserError` where none can."""
        match why:
            case c.NEEDS_ROOM:
                self._make_room()
            case c.NEEDS_DEMAND:
                self._demand()
            case c.NEEDS_VALUE:
                self._value()
            case c.NEEDS_LISTS:
                self._gathers()
            case c.NEEDS_TRANSFER if self.outside is not None:
                self.outside.ask(self.memory)
            case c.NEEDS_MEMORY if self.outside is not None:
                self.outside.go_on(self.memory)
            case _:
                self._refuse(why)

    def step(self, stream: int) -> tuple[Plan, Step]:
        """Return the plan of the instruction at the head of the stream at place `stream`."""
        cells = self.memory[stream : stream + c.STREAM].tolist()
        number = self.lowered.first_plan[cells[c.S_NUMBER]] + cells[c.S_HEAD_PC]
        plan, loops = self.lowered.plans[number], c.S_LOOPS + c.INDEX
        return plan, Step(
            cells[c.S_HEAD_PC], plan.instruction,
            tuple(cells[loops : loops + 3 * LOOP_LEVELS : 3][: cells[c.S_DEPTH]]),
            tuple(cells[c.S_REGISTERS : c.S_REGISTERS + REGISTERS]), bool(cells[c.S_ACTIVE]))

    def work(self) -> list[Work]:
        """Return what every chip has done so far."""
        work = [Work() for _ in range(self.lowered.program.chips)]
        runs = rows_of(self.memory, c.DEMAND)[1:, c.D_RUNS].tolist()
        for (plan, demand), times in zip(self._demands, runs, strict=True):
            if times:
                work[plan.chip].add(plan.kind, plan.opcode, demand, times)
        return work

    def _make_room(self) -> None:
        """Let every table that is half full grow, and the list of addresses if need be."""
        rooms = {}
        slack = int(self.memory[c.SLACK])
        for table in (c.EVENT, c.LOG, c.BOOK, c.MARK, c.MESSAGE):
            used, room = self.memory[table + c.USED : table + c.ROOM + 1].tolist()
            if 2 * (used + slack) > room:
                rooms[table] = 4 * room
        if rooms:
            self.memory = grow(self.memory, rooms)
        needed = int(self.memory[c.LISTED_END])
        if needed > len(self.listed):
            self.listed = np.concatenate([self.listed, np.zeros((needed, 2), np.int64)])

    def _room_for(self, table: int, rows: int) -> None:
        used, room = self.memory[table + c.USED : table + c.ROOM + 1].tolist()
        if used + rows > room:
            self.memory = grow(self.memory, {table: 2 * (used + rows)})

    def _demand(self) -> None:
        """Work out what a unit is asked, and put it where the kernel finds it."""
        unit = int(self.memory[c.ASKED_UNIT])
        plan, step = self.step(int(self.memory[c.ASKED]))
        rank = dict((one, rank) for rank, one in plan.units)[unit]
        block = self.planner.block_number(plan.kind, unit)
        demand = self.planner.demand(plan, step, rank, unit)
        lists = (0, 0)
        if demand is not None and plan.kind is QueueKind.DMA and not (
            plan.in_dram is not None and plan.in_dram.gather is not None
        ):
            lists = self._lists(self.values.transfer(plan, step, rank))
        self._room_for(c.DEMAND, 1)
        self._room_for_hash()
        memory = self.memory
        table = rows_of(memory, c.DEMAND)
        sizes = table[0, c.D_SIZES :].copy()
        memory[c.DEMAND + c.USED] += 1
        row = rows_of(memory, c.DEMAND)[-1]
        row[: c.D_SIZES] = self._cells(plan, block, demand, lists)
        row[c.D_SIZES :] = sizes
        self._demands.append((plan, _EMPTY if demand is None else demand))
        self._enter(len(self._demands))

    def _cells(self, plan: Plan, block: int, demand: Demand | None,
               lists: tuple[int, int]) -> np.ndarray:
        """Return the cells of a demand but its sizes."""
        one = _EMPTY if demand is None else demand
        number = self.lowered.plan_number(plan)
        cells = np.zeros(c.D_SIZES, np.int64)
        cells[: c.D_USE] = (
            number, block, demand is None, 0, one.fill, one.wait, one.busy, one.drain, one.tail,
            one.loads, one.weights_held, one.head_beats, one.sum_beats, one.period,
            one.moved_bytes, self._least_cycles(plan, one), *lists, len(one.ports))
        assert len(one.ports) <= c.USES, "more ports than cells for them"
        for place, use in enumerate(one.ports):
            at = c.D_USE + 2 * place
            cells[at : at + 2] = way(use.space, write=use.write), use.words
        return cells

    def _least_cycles(self, plan: Plan, demand: Demand) -> int:
        """Return the cycles in which a transfer crosses alone, a word a cycle at either end."""
        width = self.machine.crossbar.bytes_per_cycle
        if plan.kind is QueueKind.LINK and self.machine.links is not None:
            width = self.machine.links.bytes_per_cycle
        return max([-(-demand.moved_bytes // width), *(use.words for use in demand.ports)])

    def _enter(self, number: int) -> None:
        """Let the kernel find a demand by its sizes."""
        from archsim.engine.shares import hash_place

        table = rows_of(self.memory, c.DEMAND)
        table[0, c.D_SIZES :] = table[number, c.D_SIZES :]
        plan, block = table[number, [c.D_PLAN, c.D_BLOCK]].tolist()
        self.memory[hash_place(self.memory, plan, block)] = number

    def _room_for_hash(self) -> None:
        """Keep the table of hashes sparse: its rows are not used in order."""
        room, first = int(self.memory[c.HASH + c.ROOM]), int(self.memory[c.HASH + c.PLACE])
        if 4 * (len(self._demands) + 1) <= room:
            return
        self.memory[first : first + room] = 0
        self.memory = grow(self.memory, {c.HASH: 2 * room})
        sizes = rows_of(self.memory, c.DEMAND)[0, c.D_SIZES :].copy()
        for number in range(1, len(self._demands) + 1):
            self._enter(number)
        rows_of(self.memory, c.DEMAND)[0, c.D_SIZES :] = sizes

    def _lists(self, found: tuple[Piece, ...]) -> tuple[int, int]:
        """Return the number of the first list of pieces, and how many there are."""
        if found not in self._pieces:
            lists = _joined(found)
            addresses = [address for _, listed, _ in lists for address in listed]
            self._room_for(c.LIST, len(lists))
            self._room_for(c.ADDRESS, len(addresses))
            self._pieces[found] = int(self.memory[c.LIST + c.USED]), len(lists)
            at = int(self.memory[c.ADDRESS + c.USED])
            self.memory[c.ADDRESS + c.USED] += len(addresses)
            rows_of(self.memory, c.ADDRESS)[at:, 0] = addresses
            for row_bytes, listed, piece in lists:
                self.memory[c.LIST + c.USED] += 1
                row = rows_of(self.memory, c.LIST)[-1]
                if piece is None:
                    row[:] = 0, row_bytes, len(listed), 0, at
                    at += len(listed)
                else:
                    row[:] = (piece.offset_bytes, piece.row_bytes, piece.rows,
                              piece.stride_bytes, c.NONE)
        return self._pieces[found]

    def _value(self) -> None:
        """Find the value of a READ, and where it lies if that is in DRAM."""
        stream = int(self.memory[c.ASKED])
        plan, step = self.step(stream)
        source = plan.operands["src"]
        tile, bits = step.resolve(source), operand_bits(source)
        queue = self.lowered.streams[int(self.memory[stream + c.S_NUMBER])].queue
        value = self.values.read(queue, plan.where, tile)
        if not -(2**63) <= value < 2**63:
            raise UserError(f"{plan.where}: the value read must be a 64-bit integer, not {value}")
        if plan.in_dram is not None:
            word = -(-bits // 8)
            first, _ = self._lists((Piece(0, word, 1, word),))
            at = int(self.memory[stream + c.S_PLANS]) + step.pc * c.PLAN
            self.memory[at + c.P_LIST] = first
            self.memory[stream + c.S_BASE] = (
                tile.address_bytes + tile.offset_elements * bits // 8)
        self.memory[stream + c.S_VALUE] = value
        self.memory[stream + c.S_ANSWERED] = 1

    def _gathers(self) -> None:
        """List the pieces that each unit of the head gathers, or what it asks of PIM channels."""
        stream = int(self.memory[c.ASKED])
        plan, step = self.step(stream)
        if plan.kind is QueueKind.PIM and self.outside is not None:
            row = int(self.memory[stream + c.S_ROW])
            self.outside.expand(plan, step, row)
            self.memory[stream + c.S_ANSWERED] = 1
            return
        for rank, unit in plan.units:
            if self.planner.demand(plan, step, rank, unit) is not None:
                lists = self._lists(self.values.transfer(plan, step, rank))
                at = int(self.memory[c.AT_GATHERED]) + 2 * unit
                self.memory[at : at + 2] = lists
        self.memory[stream + c.S_ANSWERED] = 1

    def _refuse(self, why: int) -> None:
        """Raise the error of what the kernel found wrong."""
        number, value = self.memory[[c.FAULT, c.FAULT_VALUE]].tolist()
        machine = self.machine
        match why:
            case c.TOKEN_OVERFLOW:
                name, most = self.lowered.program.tokens[number].name, 2**machine.token_bits - 1
                raise UserError(f"token {name} must be at most {most}, not {value}")
            case c.BELOW_MEMORY:
                raise ValueError(f"address_bytes must be at least 0, not {value}")
            case c.BEYOND_MEMORY:
                size = machine.memory_bytes
                raise ValueError(
                    f"end of the transfer must be at most {size}, the memory's size, not {value}")
            case c.PORT_FULL:
                depth = int(self.memory[c.MEMORY_DEPTH])
                raise ValueError(f"transfers of a port must be fewer than {depth}, not {depth}")
            case c.NO_LAUNCH_ENTRY:
                most = len(self.lowered.program.launch) - 1
                queue = self.lowered.streams[int(self.memory[number + c.S_NUMBER])].queue
                raise UserError(f"{queue}: launch entry must be from 0 to {most}, not {value}")
        raise AssertionError(f"the kernel stopped for an unknown reason, {why}")


def _joined(found: tuple[Piece, ...]) -> list[tuple[int, list[int], Piece | None]]:
    """Join pieces with runs of one size to lists of addresses; one piece alone stays one."""
    if len(found) == 1:
        return [(found[0].row_bytes, [], found[0])]
    lists: list[tuple[int, list[int], Piece | None]] = []
    for piece in found:
        if not lists or lists[-1][0] != piece.row_bytes:
            lists.append((piece.row_bytes, [], None))
        first = piece.offset_bytes
        lists[-1][1].extend(first + row * piece.stride_bytes for row in range(piece.rows))
    return lists
