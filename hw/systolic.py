"""The systolic array: output- and weight-stationary, with skew, drain and accumulation inside.

In the order the data passes: the sequencer turns commands into beats, the edge and the skews delay
them into the diagonal wave the grid needs, columns of elements multiply and add, the collector
accumulates the straightened wave, a queue ends the block.

All waves (activations, weights, weight exchange, sums) run at one row and one column a step, so two
things that enter in order never meet inside: the sequencer's rules at the entry are the only ones.
"""

from collections.abc import Mapping

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.library import part
from hw.pe import CONTROL_BITS, Element
from hw.pe_kinds import adder
from hw.sequencer import Sequencer, slot_layout
from hw.skew import Edge, Skew
from hw.step import STEPPED, QueueLanes, SkewLanes, Step, Steps, SumQueue
from hw.stream import PairQueue
from machine.systolic import COMMAND_BITS, SystolicConfig

__all__ = ["Collector", "Column", "Grid", "Systolic", "array_parts"]


class Column(wiring.Component):
    """One column of elements; weights and sums go down, sums from zero.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``, or if ``cfg.short_paths`` in the cycle
        behind it.
    controls : In(rows * 6)
        `CONTROL` of each row; row r lies at bit ``6 * r``.
    acts : In(rows * act_port_bits)
        Activations of each row; row r lies at bit ``r * act_port_bits``.
    weight : In(weight_bits)
        Weights of row 0.
    next_controls : Out(rows * 6)
        ``controls`` one step later, for the column to the right.
    next_acts : Out(rows * act_port_bits)
        ``acts`` one step later, for the column to the right.
    sum : Out(acc_bits)
        Sum register of the last row.
    """

    @staticmethod
    def ports(cfg: SystolicConfig) -> wiring.Signature:
        """Return the signature of a column of `cfg`."""
        return wiring.Signature({
            "en": In(1),
            "controls": In(CONTROL_BITS * cfg.rows),
            "acts": In(cfg.act_port_bits * cfg.rows),
            "weight": In(cfg.weight_bits),
            "next_controls": Out(CONTROL_BITS * cfg.rows),
            "next_acts": Out(cfg.act_port_bits * cfg.rows),
            "sum": Out(cfg.acc_bits),
        })

    def __init__(self, cfg: SystolicConfig, library: str | None = None):
        self.cfg = cfg
        self.library = library
        super().__init__(self.ports(cfg))

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        weight, total = self.weight, Const(0, cfg.acc_bits)
        for row in range(cfg.rows):
            pe, m.submodules[f"pe_{row}"] = part(Element, cfg, self.library)
            en = self.en
            if cfg.short_paths:
                copy, m.submodules[f"step_{row}"] = part(Step, cfg, self.library)
                m.d.comb += copy.coming.eq(self.en)
                en = copy.step
            m.d.comb += [
                pe.en.eq(en),
                pe.control.eq(self.controls.word_select(row, CONTROL_BITS)),
                pe.act.eq(self.acts.word_select(row, cfg.act_port_bits)),
                pe.weight.eq(weight),
                pe.sum.eq(total),
                self.next_controls.word_select(row, CONTROL_BITS).eq(pe.next_control),
                self.next_acts.word_select(row, cfg.act_port_bits).eq(pe.next_act),
            ]
            weight, total = pe.next_weight, pe.next_sum
        m.d.comb += self.sum.eq(total)
        return m


class Grid(wiring.Component):
    """Columns of elements side by side; activations and control go to the right.

    Row r works on element ``rows - 1 - r`` of a beat of activations.

    Members
    -------
    en : In(1)
        Step: registers change only in a cycle with ``en``, or if ``cfg.short_paths`` in the cycle
        behind it.
    controls : In(rows * 6)
        `CONTROL` of each row of column 0; row r lies at bit ``6 * r``.
    acts : In(rows * act_port_bits)
        Activations of column 0; element e lies at bit ``e * act_port_bits``.
    weights : In(cols * weight_bits)
        Weights of row 0; column c lies at bit ``c * weight_bits``.
    sums : Out(cols * acc_bits)
        Sum registers of the last row; column c lies at bit ``c * acc_bits``.
    """

    def __init__(self, cfg: SystolicConfig, library: str | None = None):
        self.cfg = cfg
        self.library = library
        super().__init__({
            "en": In(1),
            "controls": In(CONTROL_BITS * cfg.rows),
            "acts": In(cfg.act_port_bits * cfg.rows),
            "weights": In(cfg.weight_beat_bits),
            "sums": Out(cfg.sum_beat_bits),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        controls = self.controls
        acts = Cat(self.acts.word_select(e, cfg.act_port_bits) for e in reversed(range(cfg.rows)))
        for col in range(cfg.cols):
            column, m.submodules[f"column_{col}"] = part(Column, cfg, self.library)
            m.d.comb += [
                column.en.eq(self.en),
                column.controls.eq(controls),
                column.acts.eq(acts),
                column.weight.eq(self.weights.word_select(col, cfg.weight_bits)),
                self.sums.word_select(col, cfg.acc_bits).eq(column.sum),
            ]
            controls, acts = column.next_controls, column.next_acts
        return m


class Collector(wiring.Component):
    """Adds stored rows to rows of sums, and stores or sends them.

    A row of sums and its slot arrive ``delay`` steps after the slot was given. Stored rows are read
    one step ahead, through a write to the same row in that step. Reset leaves the stored rows.

    Members
    -------
    step : In(1)
        Registers change only in a cycle with ``step``.
    slot : In(slot_layout(cfg))
        What becomes of the row of sums that arrives ``delay`` steps later.
    sums : In(cols * acc_bits)
        The row of sums of the slot given ``delay`` steps ago.
    o_valid : Out(1)
        A row is sent; it must be taken in this step.
    o_payload : Out(cols * acc_bits)
        The row.
    """

    def __init__(self, cfg: SystolicConfig):
        self.cfg = cfg
        self.delay = cfg.latency_cycles - 1
        super().__init__({
            "step": In(1),
            "slot": In(slot_layout(cfg)),
            "sums": In(cfg.sum_beat_bits),
            "o_valid": Out(1),
            "o_payload": Out(cfg.sum_beat_bits),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        layout = slot_layout(cfg)

        # Slots wait for their sums; one step before, the stored row is read.
        line = Signal(layout.size * self.delay)
        with m.If(self.step):
            m.d.sync += line.eq(Cat(self.slot, line))
        soon = data.View(layout, line[-2 * layout.size : -layout.size])
        slot = data.View(layout, line[-layout.size :])
        row = Signal(cfg.sum_beat_bits)
        stored = Const(0, cfg.sum_beat_bits)
        if cfg.acc_rows > 0:
            m.submodules.rows = rows = memory.Memory(
                shape=cfg.sum_beat_bits, depth=cfg.acc_rows, init=[])
            write = rows.write_port()
            read = rows.read_port(transparent_for=(write,))
            stored = read.data
            m.d.comb += read.addr.eq(soon.row)
            m.d.comb += read.en.eq(self.step & soon.valid & soon.accumulate)
            m.d.comb += write.data.eq(row)
            with m.If(self.step & slot.valid & ~slot.emit):
                m.d.comb += write.addr.eq(slot.row)
                m.d.comb += write.en.eq(1)

        # Add column by column, as the elements do.
        for col in range(cfg.cols if cfg.acc_rows > 0 else 0):
            m.submodules[f"adder_{col}"] = total = adder(cfg, 1)
            sum_ = self.sums.word_select(col, cfg.acc_bits)
            m.d.comb += [
                total.en.eq(self.step),
                total.merge.eq(1),
                total.other.eq(sum_),
                total.addend.eq(stored.word_select(col, cfg.acc_bits)),
                row.word_select(col, cfg.acc_bits).eq(Mux(slot.accumulate, total.o, sum_)),
            ]
        if cfg.acc_rows == 0:
            m.d.comb += row.eq(self.sums)

        m.d.comb += [
            self.o_valid.eq(self.step & slot.valid & slot.emit),
            self.o_payload.eq(row),
        ]
        return m


def _counted(cfg: SystolicConfig, beat: Value, used: Value) -> Value:
    """Return what the elements get of a `beat` of activations of which `used` elements count."""
    words = []
    for e in range(cfg.rows):
        word = beat.word_select(e, cfg.act_bits) & used[e].replicate(cfg.act_bits)
        words += [word, used[e].replicate(cfg.act_port_bits - cfg.act_bits)]
    return Cat(words)


class Systolic(wiring.Component):
    """Systolic array: multiplies tiles as commands say, in order.

    Throughput is one beat of every stream a cycle, of activations one in
    ``cfg.initiation_interval_cycles``; a ``ws`` tile follows the one in front after
    ``cfg.ws_tile_cycles``, an ``os`` tile after ``cfg.os_tile_cycles``, with nothing added. Rows of
    sums are offered ``cfg.latency_cycles`` after the row of activations (``ws``), row j of an
    ``os`` tile ``merge_cycles`` + j cycles later than that after its last pair. While two rows of
    sums wait to be taken the array stands still. Integer sums wrap at ``acc_bits``. Reset abandons
    all commands; stored rows keep their contents. Commands are not checked:
    ``machine.systolic.Tile.check`` states what is legal.

    Parameters
    ----------
    cfg : SystolicConfig
        Sizes.
    library : str or None
        If given, columns, elements and what has a step of its own are instances of the Verilog
        modules ``<library>_column``, ``_element``, ``_step`` and ``_sumqueue``; otherwise they are
        part of the design, as a simulator needs.

    Members
    -------
    i_commands : In(stream)
        Command words of 64 bits, laid out as ``machine.systolic.COMMAND_FIELDS``.
    i_acts : In(stream)
        Beats of activations: lane l of element e at bit ``(e * k_lanes + l) * a_bits``. ``ws``: a
        row, element e meets weight row e, elements from k on are ignored. ``os``: a column,
        element e makes sum row e. ``ready`` may depend on the ``valid`` of ``i_weights``.
    i_weights : In(stream)
        Beats of weights: lane l of column c at bit ``(c * k_lanes + l) * w_bits``; rows of the
        tile in turn.
        ``ready`` may depend on the ``valid`` of ``i_acts``.
    o_sums : Out(stream)
        Beats of sums: column c at bit ``c * acc_bits``; rows of the tile in turn.
    """

    def __init__(self, cfg: SystolicConfig, library: str | None = None):
        self.cfg = cfg
        self.library = library
        super().__init__({
            "i_commands": In(stream.Signature(COMMAND_BITS)),
            "i_acts": In(stream.Signature(cfg.act_beat_bits)),
            "i_weights": In(stream.Signature(cfg.weight_beat_bits)),
            "o_sums": Out(stream.Signature(cfg.sum_beat_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg, short, library = self.cfg, self.cfg.short_paths, self.library

        # The array steps while the output queue has room.
        m.submodules.queue = queue = (
            QueueLanes(cfg, library) if short else PairQueue(cfg.sum_beat_bits))
        m.submodules.sequencer = sequencer = Sequencer(cfg)
        wiring.connect(m, wiring.flipped(self.i_commands), sequencer.i_commands)
        step = self._steps(m, queue, sequencer)
        m.d.comb += [
            sequencer.step.eq(step["sequencer"]),
            sequencer.acts_valid.eq(self.i_acts.valid),
            self.i_acts.ready.eq(sequencer.acts_ready),
            sequencer.weights_valid.eq(self.i_weights.valid),
            self.i_weights.ready.eq(sequencer.weights_ready),
        ]

        # Input registers; unused elements of an activation beat become zero, and are told apart
        # where that is not the number zero.
        m.submodules.edge = edge = Edge(cfg)
        m.submodules.acts = acts = Skew(cfg.act_port_bits, tuple(reversed(range(cfg.rows))))
        m.submodules.weights = weights = Skew(cfg.weight_bits, tuple(range(cfg.cols)))
        with m.If(step["inputs"]):
            m.d.sync += edge.control.eq(sequencer.control)
            m.d.sync += edge.hops.eq(sequencer.hops)
            m.d.sync += acts.i.eq(_counted(cfg, self.i_acts.payload, sequencer.used))
            m.d.sync += weights.i.eq(self.i_weights.payload)

        # The grid, and its sums straightened.
        m.submodules.grid = grid = Grid(cfg, library)
        m.submodules.sums = sums = SkewLanes(cfg, library) if short else Skew(
            cfg.acc_bits, tuple(reversed(range(cfg.cols))))
        m.d.comb += [
            grid.en.eq(step["grid"]), grid.controls.eq(edge.controls),
            grid.acts.eq(acts.o), grid.weights.eq(weights.o), sums.i.eq(grid.sums),
        ]

        # Accumulate and send.
        m.submodules.collector = collector = Collector(cfg)
        m.d.comb += [
            collector.slot.eq(sequencer.slot), collector.sums.eq(sums.o),
            queue.i.valid.eq(collector.o_valid), queue.i.payload.eq(collector.o_payload),
        ]
        m.d.comb += [
            edge.step.eq(step["edge"]), acts.step.eq(step["acts"]),
            weights.step.eq(step["weights"]), sums.step.eq(step["sums"]),
            collector.step.eq(step["collector"]),
        ]
        wiring.connect(m, queue.o, wiring.flipped(self.o_sums))
        return m

    def _steps(
        self, m: Module, queue: QueueLanes | PairQueue, sequencer: Sequencer
    ) -> Mapping[str, Value]:
        """Return the step of each part; of grid and sums the next one, if paths are short."""
        if not self.cfg.short_paths:
            return dict.fromkeys((*STEPPED, "grid", "sums"), queue.i.ready)
        m.submodules.steps = steps = Steps(self.cfg, self.library)
        m.d.comb += [
            steps.slot.eq(sequencer.slot),
            steps.free.eq(queue.o.ready | ~queue.o.valid),
        ]
        own = {name: steps.steps[name] for name in STEPPED}
        return {**own, "grid": steps.coming, "sums": steps.coming}


def array_parts(cfg: SystolicConfig, library: str) -> list[tuple[str, wiring.Component]]:
    """Return the modules that a ``Systolic(cfg, library)`` instantiates, by name."""
    types = [Element, Step, SumQueue] if cfg.short_paths else [Element]
    parts = [(f"{library}_{kind.__name__.lower()}", kind(cfg)) for kind in types]
    return [*parts, (f"{library}_column", Column(cfg, library))]
