"""What waits in a channel that computes: entries of the PIM queue, requests of the host."""

from collections.abc import Sequence
from enum import IntEnum

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.pim_timers import COMMAND_BITS, NUMBER
from machine.dram import DramConfig
from machine.pim import PimConfig

__all__ = ["Entry", "HostWindow", "choose", "command_code", "command_layout", "entry_layout",
           "host_layout"]


class Entry(IntEnum):
    """Kinds of entries of the PIM queue."""

    HEADER = 0
    GWRITE = 1
    GACT = 2
    DOT = 3
    READRES = 4
    GEMV = 5
    PIMPRE = 6


def _fields(dram: DramConfig, pim: PimConfig) -> dict[str, int]:
    columns = max(pim.row_columns(dram), dram.columns // dram.burst_length)
    return {"bank": bits_for(dram.banks - 1), "row": bits_for(dram.rows - 1),
            "column": bits_for(columns), "dots": bits_for(pim.row_columns(dram)),
            "slot": bits_for(pim.buffer_columns), "first": 1}


def entry_layout(dram: DramConfig, pim: PimConfig) -> data.StructLayout:
    """Return an entry of the PIM queue, the fields of ``machine.pim_macros.PimOp``."""
    fields = _fields(dram, pim)
    return data.StructLayout({"kind": bits_for(max(Entry)), **fields, "reads": fields["column"]})


def host_layout(dram: DramConfig, pim: PimConfig) -> data.StructLayout:
    """Return a request of the host: one burst."""
    fields = _fields(dram, pim)
    return data.StructLayout({"write": 1, **{n: fields[n] for n in ("bank", "row", "column")}})


def command_layout(dram: DramConfig, pim: PimConfig) -> data.StructLayout:
    """Return a command: its number in ``machine.pim.PIM_COMMANDS`` and where it goes."""
    return data.StructLayout({"command": COMMAND_BITS, **_fields(dram, pim)})


def command_code(dram: DramConfig, pim: PimConfig, name: str, **fields: Value | int) -> Value:
    """Return a command's code (`command_layout`); fields not given are 0."""
    values = {"command": NUMBER[name], **fields}
    parts = []
    for field, part in command_layout(dram, pim):
        value = values.get(field, 0)
        parts.append(Const(value, part.width) if isinstance(value, int) else Value.cast(value))
    return Cat(parts)


def choose(m: Module, name: str, choices: Sequence[tuple[Value, Value]]) -> tuple[Value, Value]:
    """Return whether one of the (can, value) can, and the value of the first that can.

    Every place is a signal of its own: a simulation compiles small expressions faster.
    """
    width = max(len(value) for _, value in choices)
    can, chosen = Signal(len(choices), name=f"{name}_can"), Signal(width, name=f"{name}_value")
    for place, (_, value) in reversed(list(enumerate(choices))):
        with m.If(can[place]):
            m.d.comb += chosen.eq(value)
    m.d.comb += can.eq(Cat(one for one, _ in choices))
    return can.any(), chosen


class HostWindow(wiring.Component):
    """The oldest requests of the host, in order of arrival; one that is served makes room.

    A request that enters in cycle t is in the window from cycle t + 1 on. Reset empties it.

    Parameters
    ----------
    depth : int
        Requests it holds.
    width : int
        Bits of a request.

    Members
    -------
    i : In(stream)
        Requests; taken while there is room, whatever leaves in the same cycle.
    served : In(1)
        The request at ``place`` leaves in this cycle.
    place : In(bits)
        0 is the oldest.
    valid : Out(bits)
        Which places hold one.
    requests : Out(bits)
        The requests, side by side, the oldest first.
    """

    def __init__(self, depth: int, width: int):
        self.depth = depth
        self.width = width
        super().__init__({
            "i": In(stream.Signature(width)), "served": In(1),
            "place": In(bits_for(max(depth - 1, 1))), "valid": Out(depth),
            "requests": Out(depth * width),
        })

    def elaborate(self, platform):
        m = Module()
        held = [self.requests.word_select(k, self.width) for k in range(self.depth)]
        m.d.comb += self.i.ready.eq(~self.valid[-1])
        # Those behind the one that leaves move up; then the new one goes behind the last.
        after, valid = [], []
        for k in range(self.depth):
            moves = self.served & (self.place <= k)
            last = k == self.depth - 1
            after.append(Mux(moves, 0 if last else held[k + 1], held[k]))
            valid.append(Mux(moves, 0 if last else self.valid[k + 1], self.valid[k]))
        takes = self.i.valid & self.i.ready
        for k in range(self.depth):
            enters = takes & ~valid[k] & (valid[k - 1] if k else 1)
            m.d.sync += [held[k].eq(Mux(enters, self.i.payload, after[k])),
                         self.valid[k].eq(valid[k] | enters)]
        return m
