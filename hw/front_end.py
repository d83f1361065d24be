"""The front end of a chip: loader, queues and tokens, joined; units and memory are outside."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, ClockSignal, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.control import Control, command_layout, control_members
from hw.decode import TRAP_BITS
from hw.loader import WORD_BITS, Loader, place_layout
from hw.operands import tile_layout
from hw.scalars import BITS
from hw.tokens import Tokens
from machine.front_end import FrontEndConfig, Trap

__all__ = ["FrontEnd", "parts_of", "queue_signature", "unit_signature"]


def unit_signature(cfg: FrontEndConfig) -> wiring.Signature:
    """Return the signature of the front end's side of a unit.

    Several units start together, so ``start`` waits for all of them and is no ``valid``: a unit
    that ``accepts`` must take what starts in that cycle. ``tile`` leaves with ``tile_valid`` before
    the ``start`` it belongs to and after the one in front, and cannot be stalled: a unit keeps the
    tiles of one instruction besides those it works on. ``done`` is high in the cycle in which the
    last effect of its oldest instruction is visible, a cycle after its start or later.
    """
    return wiring.Signature({
        "accepts": In(1),
        "start": Out(1),
        "command": Out(command_layout()),
        "tile": Out(tile_layout(cfg)),
        "tile_valid": Out(1),
        "done": In(1),
    })


def queue_signature(cfg: FrontEndConfig) -> wiring.Signature:
    """Return the signature of the front end's side of a queue: its READs and its log.

    With ``read`` the first element of ``tile`` is asked for, which cannot be stalled; ``value``,
    sign extended, comes a cycle later or more, and the READ completes a cycle behind it.
    ``issue`` is of the instruction ``pc`` and ``layer``; ``start`` of the one issued before;
    ``gives`` completes an instruction that no unit did, ``unit_gives`` one that units did.
    """
    return wiring.Signature({
        "read": Out(1),
        "tile": Out(tile_layout(cfg)),
        "value": In(BITS),
        "value_valid": In(1),
        "issue": Out(1),
        "pc": Out(range(cfg.instructions)),
        "layer": Out(16),
        "start": Out(1),
        "gives": Out(1),
    })


def parts_of(cfg: FrontEndConfig, library: str) -> list[tuple[str, wiring.Component]]:
    """Return what a `FrontEnd` with `library` instantiates: the queue with the most units."""
    return [(f"{library}_control", Control(cfg, max(cfg.units)))]


class FrontEnd(wiring.Component):
    """Loads a program, then runs it: the instructions of every queue start on their units.

    ``running`` is high from cycle 0 of the program on. Queue and unit n are the n-th of
    ``cfg.queues``. A trap stops every queue in the next cycle; what has started goes on in its
    units. Reset stops everything and clears the trap.

    Parameters
    ----------
    library : str
        If given, every queue is an instance of ``<library>_control`` of `parts_of`, which is then
        compiled once; units that a queue's kind lacks never accept.

    Members
    -------
    start : In(1)
        Load and run the program at ``base``; not while one is being loaded.
    base : In(address_bits)
        Byte address of the program.
    launch_base : In(address_bits)
        Byte address of the launch table's values.
    chip : In(16)
        The number of this chip.
    o_fetch : Out(stream)
        Byte addresses of words of 64 bits to read.
    i_fetched : In(stream)
        Their data and whether there was an error.
    running : Out(1)
        Queues run.
    done : Out(1)
        Every queue has halted, all is complete, and all signals have been added.
    trap : Out(Trap)
        Why the front end stopped; stays until ``start``.
    place : Out(place_layout)
        Where.
    units : Out(unit_signature)
        One a unit.
    queues : Out(queue_signature)
        One a queue.
    """

    def __init__(self, cfg: FrontEndConfig, library: str = ""):
        self.cfg, self.library = cfg, library
        answer = data.StructLayout({"data": WORD_BITS, "error": 1})
        count = len(cfg.queues)
        super().__init__({
            "start": In(1),
            "base": In(cfg.address_bits),
            "launch_base": In(cfg.address_bits),
            "chip": In(16),
            "o_fetch": Out(stream.Signature(cfg.address_bits)),
            "i_fetched": In(stream.Signature(answer)),
            "running": Out(1),
            "done": Out(1),
            "trap": Out(TRAP_BITS),
            "place": Out(place_layout(cfg)),
            "units": Out(unit_signature(cfg)).array(count),
            "queues": Out(queue_signature(cfg)).array(count),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        count = len(cfg.queues)
        m.submodules.loader = loader = Loader(cfg)
        m.submodules.tokens = tokens = Tokens(cfg, 2 * count)
        wiring.connect(m, wiring.flipped(self.o_fetch), loader.o_fetch)
        wiring.connect(m, wiring.flipped(self.i_fetched), loader.i_fetched)
        m.d.comb += [
            loader.start.eq(self.start), loader.base.eq(self.base),
            loader.launch_base.eq(self.launch_base), loader.chip.eq(self.chip),
            tokens.clear.eq(self.start), tokens.load.eq(loader.token_load),
            tokens.load_token.eq(loader.token), tokens.load_count.eq(loader.count),
            self.running.eq(loader.ready & (self.trap == Trap.NONE)),
        ]

        # A queue a unit; the queues of a kind may drive any of its units.
        controls = []
        for number, (kind, _) in enumerate(cfg.queues):
            control = self._control(m, f"control_{number}", cfg.units[kind])
            controls.append(control)
            m.d.comb += [
                control.clear.eq(self.start),
                control.run.eq(self.running & loader.used[number]),
                control.load.eq(loader.load),
                *(control.load[name].eq(loader.load[name] & loader.queues[number])
                  for name in ("instruction", "end", "operand", "launch")),
                tokens.wants[number].eq(control.wants), tokens.waits[number].eq(control.waits),
                control.granted.eq(tokens.granted[number]),
                tokens.gives[number].eq(control.gives), tokens.signals[number].eq(control.signals),
            ]
            self._queue(m, self.queues[number], control)
        first = 0
        for units in cfg.units:
            for unit in range(units):
                self._unit(m, first, unit, controls[first : first + units], tokens)
            first += units

        self._ends(m, loader, tokens, controls)
        return m

    def _control(self, m: Module, name: str, units: int) -> Control | wiring.PureInterface:
        """Make a queue whose kind has `units` units, or an instance of its part."""
        if not self.library:
            m.submodules[name] = control = Control(self.cfg, units)
            return control
        members = control_members(self.cfg, max(self.cfg.units))
        interface = wiring.Signature(members).create(path=(name,))
        wires = {
            f"{'i' if member.flow is In else 'o'}_{'__'.join(map(str, path))}": value
            for path, member, value in interface.signature.flatten(interface)
        }
        m.submodules[name] = Instance(f"{self.library}_control", i_clk=ClockSignal(),
                                      i_rst=ResetSignal(), **wires)
        return interface

    def _queue(self, m: Module, port: wiring.PureInterface, control: Control) -> None:
        """Join the READs and the log of a queue."""
        m.d.comb += [
            port.read.eq(control.reads), port.tile.eq(control.tile),
            control.value.eq(port.value), control.value_valid.eq(port.value_valid),
            port.issue.eq(control.wants & control.granted), port.pc.eq(control.pc),
            port.layer.eq(control.layer), port.start.eq(control.starts),
            port.gives.eq(control.gives),
        ]

    def _unit(self, m: Module, first: int, unit: int, controls: list[Control],
              tokens: Tokens) -> None:
        """Join a unit to the queues of its kind; the program has one of them drive it."""
        port = self.units[first + unit]
        source = len(self.cfg.queues) + first + unit
        chosen = [(control.units_start[unit], control.valid & (control.tile.unit == unit))
                  for control in controls]
        m.d.comb += [port.start.eq(Cat(starts for starts, _ in chosen).any()),
                     port.tile_valid.eq(Cat(valid for _, valid in chosen).any()),
                     tokens.gives[source].eq(Cat(c.unit_gives[unit] for c in controls).any())]
        for control, (starts, valid) in zip(controls, chosen, strict=True):
            m.d.comb += [control.accepts[unit].eq(port.accepts), control.done[unit].eq(port.done)]
            with m.If(starts):
                m.d.comb += port.command.eq(control.command)
            with m.If(valid):
                m.d.comb += port.tile.eq(control.tile)
        signals = [Mux(c.unit_gives[unit], c.unit_signals[unit].as_value(), 0) for c in controls]
        m.d.comb += tokens.signals[source].eq(reduce(or_, signals))

    def _ends(self, m: Module, loader: Loader, tokens: Tokens, controls: list[Control]) -> None:
        """Say when everything has ended, or why and where it stopped."""
        used = [(loader.used[number], control) for number, control in enumerate(controls)]
        rests = Cat(~there | (c.halted & c.idle) for there, c in used).all()
        stuck = Cat(~there | (c.idle & (c.halted | c.waiting)) for there, c in used).all()
        quiet = self.running & ~tokens.busy
        reason, place = Signal(TRAP_BITS), Signal(place_layout(self.cfg))
        m.d.comb += [
            self.done.eq(quiet & rests),
            reason.eq(loader.trap), place.eq(loader.place),
        ]
        with m.If(self.running):
            with m.If(quiet & stuck & ~rests):
                m.d.comb += reason.eq(Trap.DEADLOCK)
            with m.If(tokens.overflow):
                m.d.comb += [reason.eq(Trap.OVERFLOW), place.queue.eq(~0),
                             place.number.eq(tokens.overflow_token)]
        for number, (_, control) in enumerate(used):
            with m.If(control.refused):
                m.d.comb += [reason.eq(Trap.COUNT), place.queue.eq(number),
                             place.number.eq(control.pc)]
        with m.If(self.trap == Trap.NONE):
            m.d.sync += [self.trap.eq(reason), self.place.eq(place)]
        with m.If(self.start):
            m.d.sync += self.trap.eq(Trap.NONE)
