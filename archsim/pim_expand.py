"""From an instruction of the PIM queue to the entries of its channels' queues.

Where an operand in DRAM lies follows from the machine's address mapping: an output of ``w`` has its
columns in one bank, and outputs in different banks at the same columns of the same row are worked
out together. docs/timing.md, "The PIM queue in a program".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from archsim.engine.pieces import runs
from machine.chip import Machine
from machine.control import Tile
from machine.dram import DramConfig
from machine.errors import UserError, must_be
from machine.formats import format_named
from machine.opcodes import Mode, Opcode, PimMode, RowBuffer
from machine.pim import PimConfig
from machine.pim_macros import PimOp
from machine.program import Instruction, Space

__all__ = ["EVERY", "Expander", "Macro", "check_fields", "check_tiles", "dots_at_least", "members"]

EVERY = 0xFFFFFFFF  # the mask that a program leaves out


class Macro(NamedTuple):
    """What an instruction asks of each channel of its mask.

    `staged_bytes` of a vector are written to the channel's `slot` before its GWRITE.
    """

    ops: dict[int, list[PimOp]]
    staged_bytes: int = 0
    slot: int = 0
    reads_latch: bool = False  # it waits for the results in front of it
    where: str = ""  # the instruction, for errors


class Group(NamedTuple):
    """Dot products of one result: `dots` columns from `column` on."""

    row: int
    column: int
    dots: int


@dataclass(slots=True)
class _Announced:
    """What a PIM_HEADER says of the row tiles behind it; 0: as the GEMV has it."""

    dots: int
    reads: int
    rows: int


@dataclass(slots=True)
class _Channel:
    """What the instructions so far left behind in a channel."""

    row: int = -1  # of the tile under way
    dots_left: int = 0  # announced and not yet asked for
    reads_left: int = 0
    announced: _Announced | None = None


def members(mask: int, own: range) -> list[int]:
    """Return the channels of a mask, ascending, that a queue drives; the default mask is all."""
    return [channel for channel in own if mask >> channel & 1]


def check_fields(where: str, instruction: Instruction, own: range, pim: PimConfig) -> None:
    """Raise `UserError` for channels, a mode or a row buffer that the queue has not."""
    get = instruction.fields.get
    mask = get("channels", EVERY)
    if mask == 0:
        raise must_be("channels", "at least one channel", "0x0", where=where)
    driven = sum(1 << channel for channel in own)
    if mask != EVERY and mask & ~driven:
        raise UserError(f"{where}: channels must be among those the queue drives, {driven:#x}, "
                        f"not {mask:#x}")
    if instruction.unit_mask.bit_count() != 1:
        raise must_be("units", "one: a PIM instruction drives one queue's channels",
                      hex(instruction.unit_mask), where=where)
    mode, buffer = PimMode(get("mode", 0)), RowBuffer(get("row_buffer", RowBuffer.PIM))
    if mode is not PimMode.ALL:
        raise must_be("mode", "all: every bank of a channel works at once", mode.name.lower(),
                      where=where)
    if buffer is RowBuffer.MEM and pim.row_buffers == 2:
        raise must_be("row_buffer", "pim: the other is the host's", "mem", where=where)


def check_tiles(where: str, opcode: Opcode, tiles: dict[str, Tile], pim: PimConfig) -> None:
    """Raise `UserError` naming the numbers for operands that the units cannot take."""
    unit = pim.unit
    for role, size, of in (("dst", pim.buffer_bytes, "the global buffer's bytes"),
                           ("a", pim.buffer_bytes, "the global buffer's bytes"),
                           ("src", pim.latch_bytes, "the latches' bytes"),
                           ("dst", pim.latch_bytes, "the latches' bytes")):
        tile = tiles.get(role)
        wanted = Space.PIM_LATCH if "latches" in of else Space.PIM_BUFFER
        if tile is None or tile.space is not wanted:
            continue
        first, end = _vector(where, role, tile)
        if end > size:
            raise must_be(f"end of {role}", f"at most {size}, {of}", end, where=where)
        if wanted is Space.PIM_BUFFER and first % unit.column_bytes:
            raise must_be(f"{role}", f"at a multiple of {unit.column_bytes} bytes, a column of the "
                          "buffer", first, where=where)
    for role in ("w", "a"):
        if role in tiles and tiles[role].operand.format != unit.format:
            raise must_be(f"format of {role}", f"{unit.format}, the bank units'",
                          tiles[role].operand.format, where=where)
    if opcode is Opcode.PIM_GEMV:
        w, a, dst = tiles["w"], tiles["a"], tiles["dst"]
        if len(w.shape) != 2 or a.shape != w.shape[1:] or dst.shape != w.shape[:1]:
            raise UserError(f"{where}: w {list(w.shape)} by a {list(a.shape)} must give dst, "
                            f"which is {list(dst.shape)}")
        if dst.operand.format != unit.acc_format:
            raise must_be("format of dst", f"{unit.acc_format}, the latches'", dst.operand.format,
                          where=where)


def _vector(where: str, role: str, tile: Tile) -> tuple[int, int]:
    """Return the first byte of a contiguous tile, and the one behind its last."""
    bits = format_named(tile.operand.format).bits
    count, run = runs(tile.shape, tile.operand.strides, bits)
    if count > 1:
        raise must_be(f"{role}", "one run of elements without gaps", f"{count} runs", where=where)
    first = tile.address_bytes + tile.offset_elements * bits // 8
    return first, first + run


def dots_at_least(w: Tile, dram: DramConfig, pim: PimConfig) -> int:
    """Return the dot products that all channels together do at least for `w`."""
    outputs, depth = w.shape
    return -(-outputs // pim.units(dram)) * -(-depth // pim.unit.lanes)


class Expander:
    """Turns the instructions of one chip's PIM queue, in their order, into entries."""

    def __init__(self, machine: Machine) -> None:
        assert machine.pim is not None
        self._dram, self._pim = machine.dram, machine.pim
        self._channels = [_Channel() for _ in range(machine.dram.channels)]
        self._vectors = [0] * machine.pim.queues  # written to rows so far

    def expand(self, where: str, instruction: Instruction, tiles: dict[str, Tile]) -> Macro:
        """Return what the instruction asks of its channels; `tiles` are not empty.

        Raises `UserError` naming the numbers where an operand does not lie as the units read it.
        """
        return self._expand(where, instruction, tiles)._replace(where=where)

    def _expand(self, where: str, instruction: Instruction, tiles: dict[str, Tile]) -> Macro:
        opcode, get = Opcode(instruction.opcode), instruction.fields.get
        mask, queue = get("channels", EVERY), instruction.unit_mask.bit_length() - 1
        chosen = members(mask, self._pim.channels_of(self._dram, queue))
        match opcode:
            case Opcode.PIM_GWRITE:
                return self._gwrite(where, tiles, chosen, mask, queue)
            case Opcode.PIM_ACTIVATE:
                found = self._groups(where, tiles["w"], chosen, mask)
                ops = {}
                for channel, groups in found.items():
                    row = groups[0].row
                    ops[channel] = [*self._begin(where, channel, row, groups), PimOp("GACT", row)]
                return Macro(ops)
            case Opcode.PIM_GEMV:
                return self._gemv(where, instruction, tiles, chosen, mask)
            case Opcode.PIM_HEADER:
                for channel in chosen:
                    self._end(where, channel)
                    self._channels[channel].announced = _Announced(
                        get("dots", 0), get("reads", 0), get("rows", 0))
                return Macro({})
            case Opcode.PIM_PRECHARGE:
                for channel in chosen:
                    self._end(where, channel)
                return Macro({channel: [PimOp("PIMPRE")] for channel in chosen})
        return Macro({channel: [] for channel in chosen}, reads_latch=True)

    def _gwrite(self, where: str, tiles: dict[str, Tile], chosen: list[int], mask: int,
                queue: int) -> Macro:
        """A vector of DRAM is copied from its row; one of a buffer is written to a row first."""
        dram, src, dst = self._dram, tiles["src"], tiles["dst"]
        first, end = _vector(where, "dst", dst)
        size, slot = end - first, first // self._pim.unit.column_bytes
        if size > dram.row_bytes:
            raise must_be("bytes of the vector", f"at most {dram.row_bytes}, a row", size,
                          where=where)
        for channel in chosen:
            self._end(where, channel)
        if src.space is not Space.DRAM:
            bank = self._vectors[queue] % self._pim.outstanding
            self._vectors[queue] += 1
            op = PimOp("GWRITE", row=dram.rows - 1, bank=bank, slot=slot)
            return Macro({channel: [op] for channel in chosen}, size, bank)
        if src.operand.format != dst.operand.format:
            raise must_be("format of src", f"{dst.operand.format} as dst: a copy in the memory "
                          "converts nothing", src.operand.format, where=where)
        low, high = _vector(where, "src", src)
        place, last = dram.place(low), dram.place(high - 1)
        bank, row = _bank(dram, place), place["ro"]
        if (_bank(dram, last), last["ro"], last["ch"]) != (bank, row, place["ch"]):
            raise must_be("src", f"within a row of {dram.row_bytes} bytes",
                          f"bytes {low:#x} to {high - 1:#x}", where=where)
        if chosen != [place["ch"]]:
            raise UserError(f"{where}: channels must be {1 << place['ch']:#x}, where src lies, "
                            f"not {mask:#x}")
        column = (place["co"] * dram.burst_bytes + low % dram.burst_bytes)
        op = PimOp("GWRITE", row=row, bank=bank, column=column // self._pim.unit.column_bytes,
                   slot=slot)
        return Macro({place["ch"]: [op]})

    def _gemv(self, where: str, instruction: Instruction, tiles: dict[str, Tile],
              chosen: list[int], mask: int) -> Macro:
        """For each row of a channel: a HEADER if announced, then the results of the row."""
        slot = _vector(where, "a", tiles["a"])[0] // self._pim.unit.column_bytes
        sets = instruction.fields.get("accumulate", 0) == Mode.SET
        ops: dict[int, list[PimOp]] = {}
        for channel, groups in self._groups(where, tiles["w"], chosen, mask).items():
            state, made = self._channels[channel], ops.setdefault(channel, [])
            for number, group in enumerate(groups):
                if number == 0 or group.row != groups[number - 1].row:
                    made += self._begin(where, channel, group.row, [
                        g for g in groups[number:] if g.row == group.row])
                made += self._result(group, slot, first=sets)
                if state.reads_left or state.dots_left:
                    state.reads_left -= 1
                    state.dots_left -= group.dots
                    if state.reads_left < 0 or state.dots_left < 0:
                        raise UserError(
                            f"{where}: results in row {group.row} of channel {channel} must be "
                            f"those its header announced, not {-state.reads_left} results and "
                            f"{-state.dots_left} dot products more")
            if state.announced is not None and not state.announced.rows:
                state.announced = None
        return Macro(ops)

    def _result(self, group: Group, slot: int, *, first: bool) -> Iterator[PimOp]:
        """Yield the entries of one result of every bank: with one row buffer written out.

        Unless it is the `first` slice, it starts from the sum that the controller holds.
        """
        row, column = group.row, group.column
        if self._pim.row_buffers == 2:
            yield PimOp("GEMV", row=row, column=column, slot=slot, dots=group.dots, first=first)
            return
        for at in range(group.dots):
            yield PimOp("DOT", row=row, column=column + at, slot=slot + at, dots=1,
                        first=first and at == 0)
        yield PimOp("READRES", row=group.row)

    def _begin(self, where: str, channel: int, row: int, groups: list[Group]) -> list[PimOp]:
        """Begin a row tile, unless it is under way: its HEADER, if one announced it."""
        state = self._channels[channel]
        if state.row == row:
            return []
        self._end(where, channel)
        state.row = row
        told = state.announced
        if told is None:
            return []
        same = [g for g in groups if g.row == row]
        dots, reads = told.dots or sum(g.dots for g in same), told.reads or len(same)
        state.dots_left, state.reads_left = dots, reads
        if told.rows:
            told.rows -= 1
            if told.rows == 0:
                state.announced = None
        return [PimOp("HEADER", row=row, dots=dots, reads=reads)]

    def _end(self, where: str, channel: int) -> None:
        """End the row tile under way; all that its header announced must have come."""
        state = self._channels[channel]
        if state.reads_left or state.dots_left:
            raise UserError(
                f"{where}: what follows in row {state.row} of channel {channel} must be all that "
                f"its header announced, {state.reads_left} results and {state.dots_left} dot "
                "products are left")
        state.row = -1

    def _groups(self, where: str, w: Tile, chosen: list[int],
                mask: int) -> dict[int, list[Group]]:
        """Return by channel what is worked out together, row by row."""
        places = self._places(where, w)
        found: dict[int, dict[tuple[int, Group], set[int]]] = {}
        for n, line in enumerate(places):
            if (line[:, :3] != line[0, :3]).any():
                j = int(np.argmax((line[:, :3] != line[0, :3]).any(axis=1)))
                raise UserError(
                    f"{where}: columns of output {n} of w must lie in one row, not in bank "
                    f"{line[0, 1]} of channel {line[0, 0]} and, from column {j} on, bank "
                    f"{line[j, 1]} of channel {line[j, 0]}: a row of a bank ends after "
                    f"{self._pim.row_columns(self._dram)} columns")
            channel, bank = int(line[0, 0]), int(line[0, 1])
            if channel not in chosen:
                raise UserError(f"{where}: channels must hold output {n} of w, which lies in "
                                f"channel {channel}, not {mask:#x}")
            unit, inner = divmod(bank, self._pim.bundle_banks)
            group = Group(int(line[0, 2]), int(line[0, 3]), len(line))
            units = found.setdefault(channel, {}).setdefault((inner, group), set())
            if unit in units:
                raise UserError(f"{where}: outputs of w must lie in places of their own, not "
                                f"output {n} where another lies")
            units.add(unit)
        return {channel: _row_by_row([group for _, group in groups])
                for channel, groups in sorted(found.items())}

    def _places(self, where: str, w: Tile) -> np.ndarray:
        """Return channel, bank, row, column of each column of `w`, int64 [outputs, columns, 4]."""
        dram, unit = self._dram, self._pim.unit
        (outputs, depth), (step, inner) = w.shape, w.operand.strides
        if depth > 1 and inner != 1:
            raise must_be("stride of w along its vector", "1", inner, where=where)
        size = unit.column_bytes
        base = w.address_bytes + w.offset_elements * unit.element_bits // 8
        for name, value in (("first byte of w", base),
                            ("bytes from output to output",
                             step * unit.element_bits // 8 if outputs > 1 else 0)):
            if value % size:
                raise must_be(name, f"a multiple of {size}, a column of {unit.lanes} "
                              f"{unit.format}", value, where=where)
        rows = base + np.arange(outputs)[:, None] * (step * unit.element_bits // 8)
        address = rows + np.arange(-(-depth // unit.lanes)) * size
        burst = address // dram.burst_bytes
        at = {name: burst >> low & ((1 << bits) - 1)
              for name, (low, bits) in dram.fields.items()}
        column = (at["co"] * dram.burst_bytes + address % dram.burst_bytes) // size
        return np.stack([at["ch"], _bank(dram, at), at["ro"], column], axis=2)


def _bank(dram: DramConfig, at: Mapping[str, Any]) -> Any:
    """Return the flat number of a bank; an integer, or an array as the fields are."""
    return (at["ra"] * dram.bank_groups + at["bg"]) * dram.banks_per_group + at["ba"]


def _row_by_row(groups: list[Group]) -> list[Group]:
    """Return the groups with those of a row together, rows as they first come."""
    order: dict[int, list[Group]] = {}
    for group in groups:
        order.setdefault(group.row, []).append(group)
    return [group for row in order.values() for group in row]
