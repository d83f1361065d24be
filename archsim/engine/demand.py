"""What one execution of an instruction asks of a unit, its ports, the memory and the links.

A `Demand` depends on the instruction and on the sizes of its tiles only, so that it is worked out
once for each. The engine adds when; the bound adds nothing.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from archsim import pim_expand
from archsim.buffer import words
from archsim.engine.pieces import runs
from archsim.lut import lut_times
from archsim.scalesim import compute_cycles
from archsim.vector import Variant, op_cycles
from machine.chip import Machine
from machine.control import Step, Tile, units
from machine.dma import DmaConfig
from machine.errors import UserError
from machine.formats import format_named
from machine.link import LinkConfig
from machine.lut import LutConfig
from machine.opcodes import OPCODES, Dataflow, Opcode
from machine.pim import PimConfig
from machine.program import (
    LOOP_LEVELS,
    REGISTERS,
    UNIT_LEVEL,
    Operand,
    Program,
    QueueKind,
    Space,
    Stream,
)
from machine.systolic import SystolicConfig, matmul_cycles
from machine.vector import ReductionOrder, ScaleRule, VectorConfig, VectorOp

__all__ = ["CLIENTS", "Demand", "Plan", "Planner", "PortUse", "operand_bits", "require_units"]

# The name of a queue kind's units as clients of buffer ports.
CLIENTS = {kind: kind.name.lower() for kind in QueueKind}
_Block = SystolicConfig | LutConfig | VectorConfig | DmaConfig | LinkConfig | PimConfig
_UNTIMED = (Opcode.NOP, Opcode.FENCE, Opcode.READ, Opcode.SCALAR, Opcode.LOOP, Opcode.END,
            Opcode.HALT)  # no unit is asked
_LARGE = 1 << 40  # in every register: no bound in a register makes a tile smaller
_DATAFLOWS = {Dataflow.OS: "os", Dataflow.WS: "ws"}


_TIMES = ("fill", "wait", "busy", "drain", "tail", "loads", "weights_held", "head_beats",
          "sum_beats")  # the times of a Demand


class PortUse(NamedTuple):
    """Words that a unit moves through its port of a buffer."""

    space: Space
    write: bool
    words: int


class Demand(NamedTuple):
    """One unit's part of one execution; times are ticks.

    Fill, wait, busy and drain follow each other. Fill may overlap the work in front, drain the
    work behind; see `archsim.engine.lanes`.
    """

    fill: int = 0  # before the first beat of input
    wait: int = 0  # between the first beat and the last, no beat enters
    busy: int = 0  # a beat enters
    drain: int = 0  # after the last beat
    tail: int = 0  # the end of wait and busy in which the next command is accepted
    loads: int = 0  # before the first beat, for weights
    weights_held: int = 0  # the end of wait and busy in which the next weights may load
    head_beats: int = 0  # before the first row of sums
    sum_beats: int = 0  # for the last tile's rows of sums
    period: int = 1  # ticks of a cycle of the unit's clock
    ports: tuple[PortUse, ...] = ()
    macs: int = 0
    mac_bits: int = 0  # of the wider operand
    elements: int = 0  # the vector unit's
    moved_bytes: int = 0  # over the crossbar, or a link
    dram_bytes: int = 0
    dots: int = 0  # of all `channels` together, at least
    channels: int = 0  # of memory that computes, a bit each

    def in_ticks(self, period: int) -> "Demand":
        """Return the demand with times, given in cycles of `period` ticks, in ticks."""
        if period == 1:
            return self
        times = {name: getattr(self, name) * period for name in _TIMES}
        return self._replace(period=period, **times)


class Plan:
    """One instruction with all that does not change between its executions."""

    def __init__(self, program: Program, stream: Stream, pc: int, machine: Machine):
        self.where = f"{stream.queue}[{pc}]"
        self.instruction = instruction = stream.instructions[pc]
        self.opcode = Opcode(instruction.opcode)
        self.kind, self.chip = stream.queue.kind, stream.queue.chip
        self.waits, self.signals = instruction.waits, instruction.signals
        self.mask = instruction.unit_mask
        self.units = tuple(units(self.mask))
        self.operands: dict[str, Operand] = {
            role: program.operands[index] for role, index in instruction.operands.items()
        }
        edges = [e for o in self.operands.values() for e in o.edges if e is not None]
        self.by_rank = any(level == UNIT_LEVEL for edge in edges for level, _ in edge.steps)
        # Size of the tile, bound, its register, steps: the rules that its sizes follow from.
        self.limits = tuple(dict.fromkeys(
            (tile, edge.bound, edge.bound_register, edge.steps)
            for operand in self.operands.values() if operand.edges
            for tile, edge in zip(operand.shape, operand.edges, strict=True) if edge is not None
        ))
        self.in_dram = next((o for o in self.operands.values() if o.space is Space.DRAM), None)
        self._check(machine)

    def _check(self, machine: Machine) -> None:
        """Raise `UserError` where this machine cannot run the instruction."""
        needs_unit = bool(OPCODES[self.opcode].queues)
        most = machine.units(self.kind)
        if needs_unit and self.mask >> most:
            name = CLIENTS[self.kind]
            raise UserError(
                f"{self.where}: units must be among the machine's {most} {name} units,"
                f" not {self.mask:#x}"
            )
        for role, operand in self.operands.items():
            if machine.space_bytes(operand.space) is None:
                raise UserError(
                    f"{self.where}: {role} must lie in a space the machine has,"
                    f" not in {operand.space.name.lower()}"
                )


def require_units(program: Program, machine: Machine) -> None:
    """Raise `UserError` for the first instruction that a unit it names does not take.

    It is the error of a run that comes there with the largest tiles.
    """
    planner = Planner(program, machine)
    for stream in program.streams:
        for plan in planner.plans(stream):
            if plan.opcode in _UNTIMED:
                continue
            step = Step(0, plan.instruction, (0,) * LOOP_LEVELS, (_LARGE,) * REGISTERS, True)
            for rank, unit in plan.units:
                planner.demand(plan, step, rank, unit)


def operand_bits(operand: Operand) -> int:
    """Return the stored bits of one element of `operand`."""
    return format_named(operand.format).bits


def _bytes(operand: Operand, shape: Sequence[int]) -> int:
    return -(-prod(shape) * operand_bits(operand) // 8)


class Planner:
    """Makes the plans of a program on a machine, and the demands of their executions."""

    def __init__(self, program: Program, machine: Machine):
        self._program, self._machine = program, machine
        self._buffers = {
            Space.SCRATCHPAD: machine.scratchpad,
            Space.ACCUMULATOR: machine.accumulator,
        }
        self._blocks: list[_Block] = []
        self._numbers: dict[tuple[QueueKind, int], int] = {}

    def plans(self, stream: Stream) -> list[Plan]:
        """Return the plan of every instruction of `stream`."""
        count = len(stream.instructions)
        return [Plan(self._program, stream, pc, self._machine) for pc in range(count)]

    def demand(self, plan: Plan, step: Step, rank: int, unit: int) -> Demand | None:
        """Return what `step` asks of `unit`, `rank`-th of its mask; None if a tile is empty."""
        tiles = {role: step.resolve(o, rank) for role, o in plan.operands.items()}
        if any(0 in tile.shape for tile in tiles.values()):
            return None
        return self._make(plan, tiles, self._blocks[self.block_number(plan.kind, unit)])

    def block_number(self, kind: QueueKind, unit: int) -> int:
        """Return a number of the block that describes a unit, the same for all that it does."""
        number = self._numbers.get((kind, unit))
        if number is None:
            block = self._block(kind, unit)
            known = [i for i, one in enumerate(self._blocks) if one is block]
            number = self._numbers[kind, unit] = known[0] if known else len(self._blocks)
            if not known:
                self._blocks.append(block)
        return number

    def _block(self, kind: QueueKind, unit: int) -> _Block:
        machine = self._machine
        match kind:
            case QueueKind.ARRAY:
                return machine.array_of(unit)
            case QueueKind.VECTOR:
                return machine.vector_of(unit)
            case QueueKind.LINK if machine.links is not None:
                return machine.links
            case QueueKind.PIM if machine.pim is not None:
                return machine.pim
            case _:
                return machine.dma

    def _make(self, plan: Plan, tiles: dict[str, Tile], block: _Block) -> Demand:
        clock = self._machine.dram.clock if isinstance(block, PimConfig) else block.clock
        return self._cycles(plan, tiles, block).in_ticks(self._machine.ticks(clock))

    def _cycles(self, plan: Plan, tiles: dict[str, Tile], block: _Block) -> Demand:
        match plan.opcode:
            case Opcode.MATMUL | Opcode.PRELOAD | Opcode.FLUSH:
                try:
                    return self._array(plan, tiles, block)
                except UserError:
                    raise
                except ValueError as error:
                    raise UserError(f"{plan.where}: {error}") from None
            case Opcode.VECTOR:
                return self._vector(plan, tiles, block)
            case Opcode.LOAD | Opcode.STORE | Opcode.SEND | Opcode.RECV:
                return self._transfer(plan, tiles)
            case _ if isinstance(block, PimConfig):
                return self._pim(plan, tiles, block)
            case _:
                name = plan.opcode.name.lower()
                raise UserError(f"{plan.where}: opcode must be one the simulator times, not {name}")

    def _use(self, plan: Plan, tile: Tile, *, write: bool, times: int = 1) -> PortUse:
        if tile.space not in self._buffers:
            raise UserError(
                f"{plan.where}: {tile.operand.name} must lie in a buffer,"
                f" not in {tile.space.name.lower()}"
            )
        client = CLIENTS[plan.kind]
        cfg = self._buffers[tile.space]
        if cfg.port_of(client, plan.units[0][1], write=write) is None:
            does = "write" if write else "read"
            raise UserError(
                f"{plan.where}: {tile.space.name.lower()} must have a port that {client} can"
                f" {does}, it has none"
            )
        count, run_bytes = runs(tile.shape, tile.operand.strides, operand_bits(tile.operand))
        return PortUse(tile.space, write, times * words(count, run_bytes, cfg.word_bytes))

    def _array(self, plan: Plan, tiles: dict[str, Tile], cfg: _Block) -> Demand:
        """Demands of the array: activations pass once for each strip of columns."""
        if isinstance(cfg, LutConfig):
            return self._lookup(plan, tiles, cfg)
        assert isinstance(cfg, SystolicConfig)
        use = self._use
        if plan.opcode is Opcode.PRELOAD:
            k = tiles["w"].shape[-2]
            return Demand(fill=1 + k, loads=k, ports=(use(plan, tiles["w"], write=False),))
        if plan.opcode is Opcode.FLUSH:
            *rows, n = tiles["acc"].shape
            beats = prod(rows) * -(-n // cfg.cols)
            flushed = use(plan, tiles["acc"], write=False), use(plan, tiles["out"], write=True)
            return Demand(busy=beats, drain=1, ports=flushed)
        *batch, m, k = tiles["a"].shape[: len(tiles["acc"].shape)]
        n = tiles["acc"].shape[-1]
        get = plan.instruction.fields.get
        flow = _DATAFLOWS.get(Dataflow(get("dataflow", 0)))
        if flow is None or get("tables", 0):
            raise UserError(f"{plan.where}: dataflow must be os or ws on this machine, not lut")
        ports = [use(plan, tiles["a"], write=False, times=-(-n // cfg.cols))]
        ports += [use(plan, tiles[r], write=False) for r in ("w", "asum") if r in tiles]
        ports += [use(plan, tiles[r], write=True) for r in ("acc", "out") if r in tiles]
        count = _folds if cfg.fidelity == "peer:scale-sim" else _matmul
        shape = count(cfg, m, n, k, flow, prod(batch), preloaded="w" not in tiles)
        wide = max(operand_bits(tiles[role].operand) for role in ("a", "w") if role in tiles)
        return shape._replace(
            ports=tuple(ports), macs=prod(batch) * m * n * k, mac_bits=wide)

    def _lookup(self, plan: Plan, tiles: dict[str, Tile], cfg: LutConfig) -> Demand:
        """Demands of a lookup array: tables pass for each strip of columns, weights for each block
        of rows. Tables in their own memory take no port."""
        a, w = tiles.get("a"), tiles.get("w")
        if plan.opcode is not Opcode.MATMUL or not plan.instruction.fields.get("tables", 0):
            raise UserError(f"{plan.where}: instruction must be a matmul with tables on array "
                            f"{plan.units[0][1]}, which is a lookup array")
        assert a is not None and w is not None
        times = lut_times(cfg, a.shape, a.operand.format, w.shape)
        (m, _, _), (_, n, _) = a.shape, w.shape
        ports = [self._use(plan, w, write=False, times=-(-m // cfg.m))]
        if a.space is not Space.TABLE:
            ports.append(self._use(plan, a, write=False, times=-(-n // cfg.n)))
        ports += [self._use(plan, tiles[r], write=True) for r in ("acc", "out") if r in tiles]
        return Demand(ports=tuple(ports), **times)

    def _vector(self, plan: Plan, tiles: dict[str, Tile], cfg: _Block) -> Demand:
        """Demands of the vector unit: rows and width are those of `x`, of a gather those of `y`."""
        assert isinstance(cfg, VectorConfig)
        vop = VectorOp(plan.instruction.fields.get("vop", 0))
        shaped = tiles["y"] if vop is VectorOp.GATHER or "x" not in tiles else tiles["x"]
        *rows, width = shaped.shape
        written = {r.name for r in OPCODES[Opcode.VECTOR].roles if r.written}
        ports = []
        for role, tile in tiles.items():
            seen = shaped if vop is VectorOp.GATHER and role == "x" else tile
            if role not in written or role == "state":
                ports.append(self._use(plan, seen, write=False))
            if role in written and tile.space is not Space.TABLE:
                ports.append(self._use(plan, tile, write=True))
        get = plan.instruction.fields.get
        variant = Variant(
            order=ReductionOrder(get("reduction", 0)), rule=ScaleRule(get("scale_rule", 0)),
            block=get("k", 0), state="state" in tiles, bias="x3" in tiles,
            integer="x" in tiles and not format_named(tiles["x"].operand.format).is_float,
            pooled=rows[-1] if vop is VectorOp.MEAN_POOL else 1, mask="x1" in tiles)
        k = get("k", 0) or (tiles["y"].shape[-1] if vop is VectorOp.TOPK else 1)
        try:
            cycles = op_cycles(cfg, vop, prod(rows), width, k=k, variant=variant)
        except ValueError as error:
            raise UserError(f"{plan.where}: {error}") from None
        return Demand(busy=cycles, ports=tuple(ports), elements=shaped.elements)

    def _transfer(self, plan: Plan, tiles: dict[str, Tile]) -> Demand:
        """Demands of a transfer: its buffer's words, and its bytes in the wider of its formats."""
        ports = []
        for role in ("src", "dst"):
            if role in tiles and tiles[role].space is not Space.DRAM:
                ports.append(self._use(plan, tiles[role], write=role == "dst"))
        if plan.kind is QueueKind.LINK and not ports:
            raise UserError(f"{plan.where}: a link must move a tile of a buffer, not of dram")
        moved = max(_bytes(tile.operand, tile.shape) for tile in tiles.values())
        dram = sum(_bytes(t.operand, t.shape) for t in tiles.values() if t.space is Space.DRAM)
        return Demand(ports=tuple(ports), moved_bytes=moved, dram_bytes=dram)


    def _pim(self, plan: Plan, tiles: dict[str, Tile], cfg: PimConfig) -> Demand:
        """Demands of the PIM queue: a vector read from a buffer, results written to one."""
        dram = self._machine.dram
        own = cfg.channels_of(dram, plan.units[0][1])
        pim_expand.check_fields(plan.where, plan.instruction, own, cfg)
        pim_expand.check_tiles(plan.where, plan.opcode, tiles, cfg)
        chosen = pim_expand.members(
            plan.instruction.fields.get("channels", pim_expand.EVERY), own)
        mask = sum(1 << channel for channel in chosen)
        match plan.opcode:
            case Opcode.PIM_GWRITE if tiles["src"].space is not Space.DRAM:
                source, dst = tiles["src"], tiles["dst"]
                moved = max(_bytes(tile.operand, tile.shape) for tile in (source, dst))
                written = _bytes(dst.operand, dst.shape) * len(chosen)
                return Demand(ports=(self._use(plan, source, write=False),), moved_bytes=moved,
                              dram_bytes=written, channels=mask)
            case Opcode.PIM_READRES:
                dst = tiles["dst"]
                moved = max(_bytes(tile.operand, tile.shape) for tile in tiles.values())
                return Demand(ports=(self._use(plan, dst, write=True),), moved_bytes=moved,
                              channels=mask)
            case Opcode.PIM_GEMV:
                w = tiles["w"]
                return Demand(dots=pim_expand.dots_at_least(w, dram, cfg), channels=mask)
            case _:
                return Demand(channels=mask)


def _folds(
    cfg: SystolicConfig, m: int, n: int, k: int, flow: str, batch: int, *, preloaded: bool
) -> Demand:
    """Return the cycles of `batch` products as SCALE-Sim counts them: fold after fold, nothing
    overlaps. Its last cycle is counted from 0, so a product takes one more than it prints."""
    if preloaded:
        raise ValueError("w must be given: peer:scale-sim knows no weights loaded beforehand")
    return Demand(busy=batch * (compute_cycles(cfg.rows, cfg.cols, m, n, k, flow) + 1))


def _matmul(
    cfg: SystolicConfig, m: int, n: int, k: int, flow: str, batch: int, *, preloaded: bool
) -> Demand:
    """Return the cycles of `batch` products [m, k] x [k, n], one after the other on one array.

    Products follow each other as tiles do: the next one's first weights load during the last tile
    in front (ws), its first sums wait for the last sums in front (os). An element works an interval
    on a beat; partial sums merge behind the last.
    """
    depth = cfg.rows * cfg.pe.k_lanes
    if preloaded and (flow != "ws" or k > depth or n > cfg.cols):
        raise ValueError(f"w must be given for {flow} of {k} x {n}: weights are kept for"
                         f" {depth} x {cfg.cols} of ws")
    one = matmul_cycles(cfg, m, n, k, "ws" if flow == "ws" else "os")
    beats, interval = cfg.k_beats(k), cfg.initiation_interval_cycles
    if flow == "ws":
        last_m = m if beats <= cfg.rows else (m - 1) % cfg.max_m + 1
        first, last, merging, sums, head = min(beats, cfg.rows), last_m * interval, 0, 1, interval
        gap, held = max(0, first - last), last
    else:
        merge, rows = cfg.pe.merge_cycles, (m - 1) % cfg.rows + 1
        merging = max(0, merge + 1 - interval)  # after the last beat's interval
        first, last, head = 0, beats * interval + merging, beats * interval
        gap, held = cfg.os_tile_cycles(beats, rows) - last, interval + merging - (merge + 1)
        sums = rows + merge - merging
    loads = 0 if preloaded else first
    return Demand(
        fill=one.fill_cycles - first + loads,
        wait=batch * (one.wait_cycles + merging) + (batch - 1) * gap,
        busy=batch * one.busy_cycles,
        drain=one.drain_cycles - merging,
        tail=last + 1,  # the command is taken a cycle before the tile runs
        loads=loads,
        weights_held=held,
        head_beats=head,
        sum_beats=sums,
    )
