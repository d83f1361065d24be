"""The lookup-table array: tables are held, planes of weight bits look sums up, sums stay inside.

In the order the data passes: the control turns commands and offered beats into steps, the table
register holds one table a row, every unit finds its entry and adds it, the rows leave through a
queue. The units of `hw.lut_baselines` fit the same harness.
"""

from amaranth.hdl import Cat, ClockSignal, Elaboratable, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.float_unit import FloatUnit
from hw.lut_baselines import AddUnit, MacUnit
from hw.lut_table import TableAdders
from hw.lut_unit import (
    PLANE_BITS,
    WIDE,
    FloatLutUnit,
    LutUnit,
    held_row_bits,
    pick,
    unit_signature,
)
from hw.stream import PairQueue
from machine.floats import FloatConfig
from machine.lut import COMMAND_BITS, COMMAND_FIELDS, LutConfig

__all__ = ["Lut", "LutControl", "LutDrain", "TableRegister", "Units", "unit_of"]

COMMAND = data.FlexibleLayout(
    COMMAND_BITS, {name: data.Field(width, low) for name, low, width in COMMAND_FIELDS}
)


Unit = type[LutUnit] | type[FloatLutUnit] | type[MacUnit] | type[AddUnit]


def unit_of(cfg: LutConfig) -> Unit:
    """Return the component that is a unit of `cfg`."""
    if cfg.is_float:
        return FloatLutUnit
    units: dict[str, Unit] = {"lut": LutUnit, "mac": MacUnit, "add": AddUnit}
    return units[cfg.unit]


class LutDrain(wiring.Component):
    """Counts the rows of sums of a command out of the units; reset forgets them.

    Members
    -------
    start : In(1)
        The last addition of a command that emits happens in this cycle.
    last : In(range(m))
        The number of its last row; sampled with ``start``.
    push : Out(1)
        A row is offered, from the cycle after ``start`` on.
    room : In(1)
        It is taken.
    row : Out(range(m))
        Its number.
    free : Out(1)
        No row is left behind this cycle: the sums may change at its end.
    """

    def __init__(self, cfg: LutConfig):
        self.cfg = cfg
        super().__init__({
            "start": In(1),
            "last": In(range(cfg.m)),
            "push": Out(1),
            "room": In(1),
            "row": Out(range(cfg.m)),
            "free": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        last, ends = Signal(range(self.cfg.m)), Signal()
        m.d.comb += [
            ends.eq(self.push & self.room & (self.row == last)),
            self.free.eq(~self.push | ends),
        ]
        with m.If(self.push & self.room):
            m.d.sync += self.row.eq(self.row + 1)
        with m.If(ends):
            m.d.sync += self.push.eq(0)
        with m.If(self.start):
            m.d.sync += [self.push.eq(1), self.row.eq(0), last.eq(self.last)]
        return m


class LutControl(wiring.Component):
    """Turns commands, offered tables and offered weights into steps, and rows of sums into beats.

    Reset abandons the command in work and forgets the table.

    Members
    -------
    i_commands : In(stream)
        Command words, laid out as ``machine.lut.COMMAND_FIELDS``.
    tables_valid : In(1)
        A beat of tables is offered.
    tables_ready : Out(1)
        It is accepted; depends on ``weights_valid``.
    load : Out(1)
        It enters the table register.
    weights_valid : In(1)
        A beat of weights is offered.
    weights_ready : Out(1)
        It is accepted.
    plane : Out(3)
        The number of its plane.
    last : Out(1)
        It is the last beat for its table.
    look : Out(1)
        It is looked up in this cycle.
    add : Out(1)
        What was looked up ``depth_cycles - 1`` ago is added in this cycle.
    first : Out(1)
        With ``add``: start from zero.
    push : Out(1)
        A row of sums is offered.
    room : In(1)
        It is taken.
    row : Out(range(m))
        Its number.
    """

    def __init__(self, cfg: LutConfig):
        self.cfg = cfg
        super().__init__({
            "i_commands": In(stream.Signature(COMMAND_BITS)),
            "tables_valid": In(1),
            "tables_ready": Out(1),
            "load": Out(1),
            "weights_valid": In(1),
            "weights_ready": Out(1),
            "plane": Out(PLANE_BITS),
            "last": Out(1),
            "look": Out(1),
            "add": Out(1),
            "first": Out(1),
            "push": Out(1),
            "room": In(1),
            "row": Out(range(cfg.m)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        m.submodules.drain = drain = LutDrain(cfg)
        command, busy = Signal(COMMAND), Signal()
        held, table = Signal(), Signal(16)
        sums_free, last_table, ends = Signal(), Signal(), Signal()

        # A plane enters once its command, its table and the sums are there.
        m.d.comb += [
            self.weights_ready.eq(busy & held & sums_free),
            self.look.eq(self.weights_ready & self.weights_valid),
            self.last.eq(1 if cfg.unit == "mac" else self.plane == command.planes_last),
            last_table.eq(table == command.tables_last),
            ends.eq(self.look & self.last & last_table),
        ]
        with m.If(self.look):
            m.d.sync += self.plane.eq(Mux(self.last, 0, self.plane + 1))
            with m.If(self.last):
                m.d.sync += table.eq(Mux(last_table, 0, table + 1))

        # The next table and the next command enter with the last plane of those in front.
        m.d.comb += [
            self.tables_ready.eq(~held | (self.look & self.last)),
            self.load.eq(self.tables_ready & self.tables_valid),
            self.i_commands.ready.eq(~busy | ends),
        ]
        with m.If(self.tables_ready):
            m.d.sync += held.eq(self.tables_valid)
        with m.If(self.i_commands.ready):
            m.d.sync += [busy.eq(self.i_commands.valid), command.eq(self.i_commands.payload)]

        # Additions follow what is looked up; then the rows leave.
        following = [
            self.add.eq(self.look),
            self.first.eq((self.plane == 0) & (table == 0) & ~command.accumulate),
            drain.start.eq(ends & command.emit),
            drain.last.eq(command.rows_last),
        ]
        if cfg.depth_cycles == 1:
            m.d.comb += [*following, sums_free.eq(drain.free)]
        else:
            m.d.sync += following
            m.d.comb += sums_free.eq(drain.free & ~drain.start)
        m.d.comb += [
            self.push.eq(drain.push),
            self.row.eq(drain.row),
            drain.room.eq(self.room),
        ]
        return m


class TableRegister(wiring.Component):
    """Holds a table a row, float entries in float32, or ``k`` activations if the units take those.

    Members
    -------
    load : In(1)
        Take ``beat`` in this cycle.
    beat : In(table_beat_bits)
        A beat of tables or activations; row r lies at bit ``r * row_bits``.
    rows : Out(m * held row bits)
        What is held; row r lies at bit ``r * held row bits``.
    """

    def __init__(self, cfg: LutConfig):
        self.cfg = cfg
        super().__init__({
            "load": In(1),
            "beat": In(cfg.table_beat_bits),
            "rows": Out(cfg.m * held_row_bits(cfg)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        entering = self.beat
        if cfg.unit == "lut" and not cfg.tables.precomputed:
            made = []
            for row in range(cfg.m):
                m.submodules[f"adders_{row}"] = adders = TableAdders(cfg)
                m.d.comb += adders.acts.eq(self.beat.word_select(row, cfg.row_bits))
                made.append(adders.table)
            entering = Cat(made)
        if cfg.is_float:
            made = []
            for number in range(cfg.m * cfg.entries):
                m.submodules[f"widen_{number}"] = widen = FloatUnit(
                    FloatConfig(operation="convert", a=cfg.tables.format, out=WIDE.name))
                m.d.comb += widen.a.eq(self.beat.word_select(number, cfg.tables.entry.bits))
                made.append(widen.o)
            entering = Cat(made)
        with m.If(self.load):
            m.d.sync += self.rows.eq(entering)
        return m


class Units(wiring.Component):
    """`m` by `n` units: a row's table goes to all units of the row, a group to all of its column.

    Parameters
    ----------
    cfg : LutConfig
        Sizes.
    library : str or None
        If given, units are instances of the Verilog module ``<library>_unit``; otherwise they are
        part of the design, as a simulator needs.

    Members
    -------
    rows : In(m * held row bits)
        Tables; row r lies at bit ``r * held row bits``.
    groups : In(weight_beat_bits)
        Groups of weight bits; group c lies at bit ``c * group_bits``.
    plane : In(3)
        The number of the plane.
    last : In(1)
        It is the last one for the tables.
    look : In(1)
        Look up in this cycle.
    add : In(1)
        Add what was looked up, ``depth_cycles - 1`` after ``look``.
    first : In(1)
        With ``add``: start from zero.
    select : In(range(m))
        The number of a row.
    sums : Out(n * acc_bits)
        Sums of that row; column c lies at bit ``c * acc_bits``.
    """

    def __init__(self, cfg: LutConfig, library: str | None = None):
        self.cfg = cfg
        self.library = library
        super().__init__({
            "rows": In(cfg.m * held_row_bits(cfg)),
            "groups": In(cfg.weight_beat_bits),
            "plane": In(PLANE_BITS),
            "last": In(1),
            "look": In(1),
            "add": In(1),
            "first": In(1),
            "select": In(range(cfg.m)),
            "sums": Out(cfg.sum_beat_bits),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        for column in range(cfg.n):
            sums = []
            for row in range(cfg.m):
                unit, m.submodules[f"unit_{row}_{column}"] = self._unit()
                m.d.comb += [
                    unit.row.eq(self.rows.word_select(row, held_row_bits(cfg))),
                    unit.group.eq(self.groups.word_select(column, cfg.group_bits)),
                    unit.plane.eq(self.plane),
                    unit.last.eq(self.last),
                    unit.look.eq(self.look),
                    unit.add.eq(self.add),
                    unit.first.eq(self.first),
                ]
                sums.append(unit.sum)
            sums += [sums[0]] * ((1 << len(self.select)) - cfg.m)
            m.d.comb += self.sums.word_select(column, cfg.acc_bits).eq(pick(sums, self.select))
        return m

    def _unit(self) -> tuple[wiring.PureInterface, Elaboratable]:
        """Return ports and elaboratable of a unit: itself, or an instance of the library's."""
        if self.library is None:
            unit = unit_of(self.cfg)(self.cfg)
            return unit, unit
        ports = unit_signature(self.cfg).create()
        wires = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
        for path, member, value in ports.signature.flatten(ports):
            wires[f"{'i' if member.flow is In else 'o'}_{'__'.join(path)}"] = value
        return ports, Instance(f"{self.library}_unit", **wires)


class Lut(wiring.Component):
    """Lookup array: multiplies by weights of one to eight bits, a plane of bits a cycle.

    Throughput is one beat of weights a cycle, ``cfg.beats_of(planes)`` a table, and
    ``cfg.tile_cycles`` a command. Row r of a command's sums is offered ``cfg.latency_cycles + r``
    after its last beat of weights. Integer sums wrap at ``acc_bits``; float sums are rounded with
    every plane added, table after table. Reset abandons all commands and clears the sums. Commands
    are not checked: ``machine.lut.LutTile.check`` states what is legal.

    Parameters
    ----------
    cfg : LutConfig
        Sizes.
    library : str or None
        As for `Units`.

    Members
    -------
    i_commands : In(stream)
        Command words of 32 bits, laid out as ``machine.lut.COMMAND_FIELDS``. ``ready`` may depend
        on the ``valid`` of ``i_weights``.
    i_tables : In(stream)
        Beats of tables, or of activations where the array takes those: row r at bit
        ``r * row_bits``, in it entry or activation j, signed, at bit j times its width. ``ready``
        may depend on the ``valid`` of ``i_weights``.
    i_weights : In(stream)
        Beats of weights: group c at bit ``c * group_bits``. A plane's codes or bits, lowest plane
        first, all planes of a table in turn; of ``mac`` whole weights, signed.
    o_sums : Out(stream)
        Beats of sums: column c, signed, at bit ``c * acc_bits``; the rows of a command in turn.
    """

    def __init__(self, cfg: LutConfig, library: str | None = None):
        self.cfg = cfg
        self.library = library
        super().__init__({
            "i_commands": In(stream.Signature(COMMAND_BITS)),
            "i_tables": In(stream.Signature(cfg.table_beat_bits)),
            "i_weights": In(stream.Signature(cfg.weight_beat_bits)),
            "o_sums": Out(stream.Signature(cfg.sum_beat_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        m.submodules.control = control = LutControl(cfg)
        m.submodules.register = register = TableRegister(cfg)
        m.submodules.units = units = Units(cfg, self.library)
        m.submodules.queue = queue = PairQueue(cfg.sum_beat_bits)
        wiring.connect(m, wiring.flipped(self.i_commands), control.i_commands)
        wiring.connect(m, queue.o, wiring.flipped(self.o_sums))

        # Tables stay for their planes; weights are looked up as they enter.
        m.d.comb += [
            control.tables_valid.eq(self.i_tables.valid),
            self.i_tables.ready.eq(control.tables_ready),
            register.load.eq(control.load),
            register.beat.eq(self.i_tables.payload),
            control.weights_valid.eq(self.i_weights.valid),
            self.i_weights.ready.eq(control.weights_ready),
            units.rows.eq(register.rows),
            units.groups.eq(self.i_weights.payload),
        ]
        m.d.comb += [getattr(units, name).eq(getattr(control, name))
                     for name in ("plane", "last", "look", "add", "first")]

        # The rows of a command leave one after the other.
        m.d.comb += [
            units.select.eq(control.row),
            queue.i.payload.eq(units.sums),
            queue.i.valid.eq(control.push),
            control.room.eq(queue.i.ready),
        ]
        return m
