"""A program and its machine as cells: what the kernel reads, worked out once before it runs."""

from collections.abc import Sequence

import numpy as np

from archsim.dram.channels import DEPTH
from archsim.engine import cells as c
from archsim.engine.demand import Plan, Planner, operand_bits
from archsim.engine.layout import Layout
from archsim.engine.routes import Routes
from machine.chip import Machine
from machine.control import matching
from machine.errors import UserError
from machine.opcodes import Alu, Opcode
from machine.program import Launch, Operand, Program, Queue, QueueKind, Stream
from machine.sequencer import head_cycles

__all__ = ["Lowered"]

UNITS = 32  # bits of a mask


class Lowered:
    """The memory of a simulation before its first tick, and what Python needs to read it.

    `together` lets equal units start as one lane: see `archsim.engine.lanes`.
    """

    def __init__(self, program: Program, machine: Machine, launch: Launch, planner: Planner, *,
                 together: bool):
        self.program, self.machine, self.planner = program, machine, planner
        self.streams = sorted(program.streams, key=lambda stream: stream.queue)
        self.plans: list[Plan] = []
        self.first_plan: list[int] = []  # of each stream, into `plans`
        for stream in self.streams:
            self.first_plan.append(len(self.plans))
            self.plans += planner.plans(stream)
        self._numbers = {id(plan): number for number, plan in enumerate(self.plans)}
        self._layout = layout = Layout()
        self.routes = [Routes(machine, layout) for _ in range(program.chips)]
        self._channels: dict[tuple[int, int, int], int] = {}
        self._times()
        self._tokens(launch)
        self._blocks()
        self.stream_places = self._streams(together)
        self._pools()
        self._memories()
        most = max([0, *(len(plan.limits) for plan in self.plans)])
        slack = 64 + 4 * self._parts + 2 * len(self.streams)
        self.memory: np.ndarray = layout.finish(c.D_SIZES + most, slack)
        for table in (c.DEMAND, c.LIST):
            self.memory[table + c.USED] = 1  # demand 0 is that of an empty tile

    def plan_number(self, plan: Plan) -> int:
        """Return the number of one of `plans`."""
        return self._numbers[id(plan)]

    @property
    def channels(self) -> dict[tuple[int, int, int], int]:
        """The place of each channel of messages, by sender, receiver and tag."""
        return self._channels

    def _times(self) -> None:
        machine, ticks = self.machine, self.machine.ticks
        period, dma = ticks(machine.sequencer.clock), ticks(machine.dma.clock)
        cross, pad = ticks(machine.crossbar.clock), ticks(machine.scratchpad.clock)
        memory, dram = ticks(machine.dram.clock), machine.dram
        low, bits = dram.fields["ch"]
        self._layout.set(
            0, STREAMS=len(self.streams), TOKENS=len(self.program.tokens),
            CHIPS=self.program.chips,
            ISSUE_TICKS=machine.sequencer.issue_cycles * period,
            CONTROL_TICKS=machine.sequencer.control_cycles * period,
            TOKEN_TICKS=machine.sequencer.token_latency_cycles * period,
            TOKEN_MOST=2**machine.token_bits - 1,
            READ_TICKS=(machine.scratchpad.latency_cycles + 1) * pad,
            DMA_PERIOD=dma, SETUP_TICKS=machine.dma.setup_cycles * dma,
            OUTSTANDING=machine.dma.outstanding,
            UNLOADED_TICKS=(dram.read_latency_cycles - dram.burst_cycles) * memory,
            BUFFER_TICKS=machine.scratchpad.latency_cycles * pad,
            CROSS_TICKS=machine.crossbar.latency_cycles * cross, CROSS_PERIOD=cross,
            CROSS_BYTES=machine.crossbar.bytes_per_cycle,
            MEMORY_PERIOD=memory, MEMORY_BYTES=machine.memory_bytes,
            MEMORY_PORTS=machine.dma.count + 1, MEMORY_DEPTH=DEPTH,
            STRIPE_BYTES=dram.burst_bytes << (low + bits),
            WALKING=c.NONE,
        )
        if machine.pim is not None:
            self._layout.set(0, OUTSIDE=1, PIM_OUTSTANDING=machine.pim.outstanding)
        if machine.links is not None:
            link = ticks(machine.links.clock)
            self._layout.set(0, LINK_PERIOD=link, LINK_BYTES=machine.links.bytes_per_cycle,
                             LINK_TICKS=machine.links.latency_cycles * link)

    def _tokens(self, launch: Launch) -> None:
        layout, program = self._layout, self.program
        waits = [0] * (1 + len(self.streams))
        tokens = [cell for token in program.tokens for cell in (token.initial, *waits)]
        entries = [_wrapped(launch.values.get(name, 0)) for name in program.launch]
        layout.set(0, AT_TOKEN=layout.place(tokens), AT_LAUNCH=layout.place(entries),
                   LAUNCHES=len(entries))

    def _blocks(self) -> None:
        """Number the block that describes each unit, and lay out the ways over the crossbar."""
        numbers = [c.NONE] * (len(QueueKind) * UNITS)
        for kind in QueueKind:
            for unit in range(self.machine.units(kind)):
                numbers[kind * UNITS + unit] = self.planner.block_number(kind, unit)
        crossbars = [cell for routes in self.routes for cell in routes.crossbar]
        layout = self._layout
        layout.set(0, AT_BLOCK=layout.place(numbers), AT_CROSSBAR=layout.place(crossbars))

    def _streams(self, together: bool) -> list[int]:
        layout = self._layout
        masks = []
        for number, stream in enumerate(self.streams):
            first = self.first_plan[number]
            plans = self.plans[first : first + len(stream.instructions)]
            masks.append(_driven(plans, self.machine.units(stream.queue.kind)))
        self._lanes = sum(mask.bit_count() for mask in masks)
        free = layout.pool(c.LANE, max(1, self._lanes), c.L_NEXT)
        layout.set(0, FREE_LANE=free)
        at = layout.place([0] * (c.STREAM * len(self.streams)))
        layout.set(0, AT_STREAM=at)
        places = [at + number * c.STREAM for number in range(len(self.streams))]
        for number, (place, stream) in enumerate(zip(places, self.streams, strict=True)):
            queue = stream.queue
            lanes = self._lanes_of(queue, masks[number], together)
            listed = layout.place(lanes + [0] * (masks[number].bit_count() - len(lanes)))
            private = queue.kind in (QueueKind.ARRAY, QueueKind.VECTOR) and all(
                layout.cells[lane + c.L_PRIVATE] for lane in lanes)
            layout.set(
                place, S_NUMBER=number, S_CHIP=queue.chip, S_KIND=queue.kind,
                S_PLANS=self._lower_plans(number, stream), S_LANES=listed,
                S_LANE_COUNT=len(lanes), S_PRIVATE=private, S_HEAD_PC=c.NONE, S_ISSUED=c.NONE,
                S_ROW=c.NONE, S_RESUMES=c.NONE, S_MARKED=c.NONE)
        return places

    def _lanes_of(self, queue: Queue, mask: int, together: bool) -> list[int]:
        """Make the lanes of a queue's units; equal private units share one.

        Ports decide: a unit that shares one with another unit stays alone.
        """
        kind, machine, routes = queue.kind, self.machine, self.routes[queue.chip]
        lanes: list[list[int]] = []
        joined: dict[int, list[int]] = {}
        for unit in range(machine.units(kind)):
            if not mask >> unit & 1:
                continue
            alone = kind not in (QueueKind.ARRAY, QueueKind.VECTOR)
            if alone or not together or not routes.private(kind, unit):
                lanes.append([unit])
            else:
                joined.setdefault(self.planner.block_number(kind, unit), []).append(unit)
        return [self._lane(queue, units, routes) for units in [*lanes, *joined.values()]]

    def _lane(self, queue: Queue, units: Sequence[int], routes: Routes) -> int:
        layout = self._layout
        lane = layout.cells[c.FREE_LANE]
        layout.set(0, FREE_LANE=layout.cells[lane + c.L_NEXT])
        layout.set(lane, L_MASK=sum(1 << unit for unit in units), L_COUNT=len(units),
                   L_ROUTES=routes.place(queue.kind, units[0]), L_LAST_START=c.NONE,
                   L_PRIVATE=routes.private(queue.kind, units[0]))
        return lane

    def _lower_plans(self, number: int, stream: Stream) -> int:
        if not stream.instructions or stream.instructions[-1].opcode != Opcode.HALT:
            raise UserError(f"{stream.queue}: last instruction must be halt")
        first, ends = self.first_plan[number], matching(stream)
        at = self._layout.place([0] * (c.PLAN * len(stream.instructions)))
        for pc in range(len(stream.instructions)):
            place = at + pc * c.PLAN
            self._lower_plan(place, first + pc, pc)
            self._lower_control(place, first + pc, ends.get(pc, 0))
        return at

    def _lower_plan(self, place: int, number: int, pc: int) -> None:
        plan, layout = self.plans[number], self._layout
        instruction = plan.instruction
        limits = [
            cell
            for size, bound, register, steps in plan.limits
            for cell in (size, bound, _or_none(register), self._pairs(steps), len(steps))
        ]
        blocks = {self.planner.block_number(plan.kind, unit) for _, unit in plan.units
                  if unit < self.machine.units(plan.kind)}
        base = plan.in_dram
        layout.set(
            place, P_NUMBER=number, P_PC=pc, P_OPCODE=plan.opcode, P_MASK=plan.mask,
            P_OP=instruction.op_id, P_LAYER=instruction.layer_id,
            P_LAYER_LEVEL=instruction.layer_level,
            P_WAITS=self._counts(plan.waits), P_WAIT_COUNT=len(plan.waits),
            P_SIGNALS=self._counts(plan.signals), P_SIGNAL_COUNT=len(plan.signals),
            P_LIMITS=layout.place(limits), P_LIMIT_COUNT=len(plan.limits),
            P_UNIFORM=len(blocks) <= 1, P_BY_RANK=plan.by_rank,
            P_BASE=c.NONE if base is None else self._tile(base), P_IN_DRAM=base is not None,
            P_GATHERS=base is not None and base.gather is not None,
            P_CHANNEL=self._channel(plan))

    def _lower_control(self, place: int, number: int, end: int) -> None:
        instruction = self.plans[number].instruction
        get, predicate = instruction.fields.get, instruction.predicate
        sequencer = self.machine.sequencer
        self._layout.set(
            place, P_PREDICATE=c.NONE if predicate is None else predicate.register,
            P_NEGATE=predicate is not None and predicate.negate,
            P_END=end, P_COUNT=get("count", 0), P_COUNT_REGISTER=get("count_is_register", 0),
            P_ALU=Alu(get("alu", 0)), P_RD=get("rd", 0), P_RA=get("ra", 0),
            P_B=get("b", 0), P_B_REGISTER=get("b_is_register", 0),
            P_HEAD_TICKS=head_cycles(sequencer, self.program, instruction)
            * self.machine.ticks(sequencer.clock))

    def _counts(self, counts: Sequence[tuple[int, int]]) -> int:
        """Lay out what an instruction waits for or signals."""
        return self._layout.place([cell for token, n in counts for cell in (token, n, 0)])

    def _pairs(self, pairs: Sequence[tuple[int, int]]) -> int:
        return self._layout.place([cell for pair in pairs for cell in pair])

    def _tile(self, operand: Operand) -> int:
        return self._layout.place([
            operand.address_bytes, _or_none(operand.base_register), operand_bits(operand),
            self._pairs(operand.loop_strides), len(operand.loop_strides)])

    def _channel(self, plan: Plan) -> int:
        """Return the place of the channel that a SEND or RECV names."""
        if plan.opcode not in (Opcode.SEND, Opcode.RECV):
            return c.NONE
        get = plan.instruction.fields.get
        peer, tag = get("peer", 0), get("tag", 0)
        key = (plan.chip, peer, tag) if plan.opcode is Opcode.SEND else (peer, plan.chip, tag)
        if key not in self._channels:
            self._channels[key] = self._layout.place([c.NONE] * c.CHANNEL)
        return self._channels[key]

    def _pools(self) -> None:
        """Lay out what is taken and given back, and lists of one instruction's units."""
        layout = self._layout
        pim = 2 if self.machine.pim is None else self.machine.pim.outstanding
        self._parts = 8 + self._lanes * max(pim, self.machine.dma.outstanding)
        jobs = self._parts * (c.USES + 1)
        clients = sum(routes.clients for routes in self.routes)
        layout.set(
            0, FREE_PART=layout.pool(c.PART, self._parts, c.A_NEXT),
            FREE_JOB=layout.pool(c.JOB, jobs, c.J_NEXT),
            AT_ENDED=layout.place([0] * (clients * c.GRANT)),
            AT_SHARE=layout.place([0] * (2 * UNITS * c.SHARE)),
            AT_GATHERED=layout.place([0] * (2 * UNITS)))

    def _memories(self) -> None:
        transfers = DEPTH * (self.machine.dma.count + 1)
        memory = [0] * (c.MEMORY + transfers * c.TRANSFER)
        self._layout.set(0, AT_MEMORY=self._layout.place(memory * self.program.chips))


def _or_none(register: int | None) -> int:
    return c.NONE if register is None else register


def _wrapped(value: int) -> int:
    """Return `value` as a register holds it."""
    return (value + 2**63) % 2**64 - 2**63


def _driven(plans: Sequence[Plan], units: int) -> int:
    """Return the mask of the units that any of `plans` drives."""
    mask = 0
    for plan in plans:
        mask |= plan.mask
    return mask & ((1 << units) - 1)
