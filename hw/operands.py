"""Operands resolved: where a tile begins and how large it is, for one unit and one iteration."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.records import BEAT_BITS, BEATS, beat_layout
from hw.scalars import BITS
from machine.front_end import FrontEndConfig
from machine.program import LOOP_LEVELS, NO_LEVEL, REGISTERS, UNIT_LEVEL
from machine.records import DIMENSIONS, OPERAND_SLOTS

__all__ = ["Part", "Resolver", "Walk", "tile_layout"]

EDGE_BITS = BITS + 3  # of what is left of a bound: a register less two products
UNITS = 32  # bits of a mask


class Part:
    """Which of an operand's tiles: the numbers of `tile_layout`'s ``part``."""

    TILE, SCALE, ZERO, INDEX = range(4)


def tile_layout(cfg: FrontEndConfig) -> data.StructLayout:
    """Return the layout of a resolved operand."""
    return data.StructLayout({
        "role": range(OPERAND_SLOTS),  # of the opcode, by number
        "part": 2,  # the operand itself, its scales, its zero points, its index list
        "unit": range(UNITS),
        "space": 8,
        "layout": 8,
        "format": 16,  # code of the number format
        "dimensions": range(DIMENSIONS + 1),
        "address": cfg.address_bits,  # bytes, base register included
        "offset": signed(cfg.offset_bits),  # elements from there to the first one
        "sizes": data.ArrayLayout(32, DIMENSIONS),  # after the edge rule
        "strides": data.ArrayLayout(signed(cfg.offset_bits), DIMENSIONS),
        "group_axis": range(DIMENSIONS + 1),  # plus 1; 0 is none
        "group_size": 32,
        "gather_axis": range(DIMENSIONS + 1),  # plus 1; 0 is none
        "gather_granule": 32,
    })


def lowest(mask: Value) -> Value:
    """Return `mask` with its lowest bit alone."""
    return (mask & (~mask + 1))[: len(mask)]


class Walk(wiring.Component):
    """Which operand is next: for each unit of the mask, each role, its tile and what it names.

    Members
    -------
    clear : In(1)
        Begin with the first one.
    step : In(1)
        Go on to the next one.
    only : In(1)
        One operand alone: that of a READ.
    mask : In(32)
        The units.
    slots : In(operand + 1)
        One a role: its operand; 0 is none.
    linked : In(operand + 1)
        Of the operand whose tile was last: its scales, its zero points, its index list.
    number : Out(range(operands))
        The operand.
    role : Out(range(OPERAND_SLOTS))
        Its role.
    part : Out(2)
        Which tile of it.
    unit : Out(range(32))
        The unit.
    rank : Out(range(32))
        The unit's rank in the mask.
    last : Out(1)
        There is none behind it.
    """

    def __init__(self, cfg: FrontEndConfig):
        self.cfg = cfg
        super().__init__({
            "clear": In(1),
            "step": In(1),
            "only": In(1),
            "mask": In(UNITS),
            "slots": In(16).array(OPERAND_SLOTS),
            "linked": In(16).array(3),
            "number": Out(range(cfg.operands)),
            "role": Out(range(OPERAND_SLOTS)),
            "part": Out(2),
            "unit": Out(range(UNITS)),
            "rank": Out(range(UNITS)),
            "last": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        slots_done, units_done = Signal(OPERAND_SLOTS), Signal(UNITS)
        slots = Cat(slot != 0 for slot in self.slots) & ~slots_done
        units = Mux(self.only, 1, self.mask) & ~units_done
        slot, unit = Signal(OPERAND_SLOTS), Signal(UNITS)
        m.d.comb += [slot.eq(lowest(slots)), unit.eq(lowest(units))]
        for number, bit in enumerate(slot):
            with m.If(bit):
                m.d.comb += self.role.eq(number)
        for number, bit in enumerate(unit):
            with m.If(bit):
                m.d.comb += self.unit.eq(number)
        numbers = Array([Array(self.slots)[self.role], *self.linked])
        m.d.comb += self.number.eq(numbers[self.part] - 1)

        # The next tile of this role, else the next role, else the next unit.
        following = Signal(2)
        for part in (Part.INDEX, Part.ZERO, Part.SCALE):
            with m.If((self.part < part) & (self.linked[part - 1] != 0) & ~self.only):
                m.d.comb += following.eq(part)
        ends_role, ends_unit = following == 0, slots == slot
        m.d.comb += self.last.eq(ends_role & ends_unit & (units == unit))
        with m.If(self.step):
            m.d.sync += self.part.eq(following)
            with m.If(ends_role):
                m.d.sync += slots_done.eq(Mux(ends_unit, 0, slots_done | slot))
                with m.If(ends_unit):
                    m.d.sync += [units_done.eq(units_done | unit), self.rank.eq(self.rank + 1)]
        with m.If(self.clear):
            m.d.sync += [self.part.eq(0), slots_done.eq(0), units_done.eq(0), self.rank.eq(0)]
        return m


class Resolver(wiring.Component):
    """Resolves the operands of the instruction at the head of a queue, one after the other.

    An operand takes ``operand_cycles``, the first of them to ask for its record; its tile leaves in
    the eighth cycle after that. Throughput is an operand every ``operand_cycles``.

    Members
    -------
    go : In(1)
        There is an instruction with operands at the head; it holds until ``taken``.
    taken : In(1)
        The instruction has issued, or there is none.
    only : In(1)
        One operand alone: that of a READ.
    mask : In(32)
        The units that it drives.
    slots : In(operand + 1)
        One a role: its operand; 0 is none.
    done : Out(1)
        Every operand is resolved; the last tile leaves in the first such cycle.
    record : Out(range(operands * 8))
        The beat that is asked for.
    beat : In(256)
        The beat that was asked for in the cycle before.
    read : Out(range(REGISTERS))
        Two registers that are read.
    found : In(64)
        Their values.
    index : In(index_bits)
        One a level: the loop index.
    tile : Out(tile_layout)
        A resolved operand; it stays until the next one begins.
    valid : Out(1)
        ``tile`` leaves in this cycle; there is no way to stall it.
    empty : Out(32)
        Units on which one of the tiles of the instruction is empty.
    """

    def __init__(self, cfg: FrontEndConfig):
        self.cfg = cfg
        super().__init__({
            "go": In(1),
            "taken": In(1),
            "only": In(1),
            "mask": In(UNITS),
            "slots": In(16).array(OPERAND_SLOTS),
            "done": Out(1),
            "record": Out(range(cfg.operands * 8)),
            "beat": In(BEAT_BITS),
            "read": Out(range(REGISTERS)).array(2),
            "found": In(BITS).array(2),
            "index": In(cfg.index_bits).array(LOOP_LEVELS),
            "tile": Out(tile_layout(cfg)),
            "valid": Out(1),
            "empty": Out(UNITS),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        at = Signal(range(cfg.operand_cycles))
        working, first = Signal(), Signal(init=1)
        m.d.comb += working.eq(self.go & ~self.done)
        m.submodules.walk = walk = Walk(cfg)
        beats = [data.View(beat_layout(beat), self.beat) for beat in range(BEATS)]
        linked = [Signal(16, name=f"linked_{part}") for part in range(3)]
        m.d.comb += [
            walk.clear.eq(self.taken), walk.only.eq(self.only), walk.mask.eq(self.mask),
            *(to.eq(slot) for to, slot in zip(walk.slots, self.slots, strict=True)),
            *(to.eq(link) for to, link in zip(walk.linked, linked, strict=True)),
            self.record.eq(Cat(at[:3], walk.number)),
        ]

        # A record's beats come one a cycle from the second cycle on.
        last = at == cfg.operand_cycles - 1
        m.d.sync += self.valid.eq(working & (at == BEATS))
        with m.If(working):
            m.d.sync += [at.eq(Mux(last, 0, at + 1)), first.eq(0)]
            m.d.comb += walk.step.eq(last)
            m.d.sync += self.done.eq(last & walk.last)
        with m.If(self.taken):
            m.d.sync += [self.done.eq(0), first.eq(1)]

        edges = [beats[3 + axis // 2] for axis in range(DIMENSIONS)]
        products = self._products(m, at, walk, beats, edges)

        self._record(m, at, walk, beats, edges, products, linked)

        # A unit with an empty tile does nothing.
        tile = self.tile
        nothing = Cat((tile.sizes[axis] == 0) & (tile.dimensions > axis)
                      for axis in range(DIMENSIONS)).any()
        with m.If(working & first):
            m.d.sync += self.empty.eq(0)
        with m.Elif(self.valid & (tile.part == Part.TILE) & nothing):
            m.d.sync += self.empty.bit_select(tile.unit, 1).eq(1)
        return m

    def _products(self, m: Module, at: Signal, walk: Walk, beats: list[data.View],
                  edges: list[data.View]) -> list[Value]:
        """Return four products of the beat that has come."""
        cfg = self.cfg
        # Four products a beat: of steps of edges, or of strides of loops.
        numbers = max(32, cfg.offset_bits)
        is_edge, second = (at == 4) | (at == 5), (at == 5) | (at == 7)
        products = []
        levels = Array([*self.index, walk.rank, *[Const(0, 1)] * (NO_LEVEL - UNIT_LEVEL)])
        for lane in range(4):
            axis, step = lane // 2, lane % 2
            of_edge = [edges[axis + 2 * half][f"edge{axis + 2 * half}_step{step}"]
                       for half in range(2)]
            level = [edges[axis + 2 * half][f"edge{axis + 2 * half}_level{step}"]
                     for half in range(2)]
            of_loop = [beats[5 + half][f"loop{lane + 4 * half}"] for half in range(2)]
            factor, index = Signal(signed(numbers)), Signal(range(2**cfg.index_bits))
            m.d.comb += [
                factor.eq(Mux(is_edge, Mux(second, of_edge[1], of_edge[0]),
                              Mux(second, of_loop[1], of_loop[0]))),
                index.eq(levels[Mux(is_edge, Mux(second, level[1], level[0]),
                                    lane + 4 * second)]),
            ]
            products.append(factor * index)
        return products

    def _record(self, m: Module, at: Signal, walk: Walk, beats: list[data.View],
                edges: list[data.View], products: list[Value], linked: list[Signal]) -> None:
        """Take the beat that has come into the tile."""
        # The record, beat by beat.
        tile = self.tile
        register = self.read[0]
        with m.Switch(at):
            with m.Case(1):
                m.d.comb += register.eq(beats[0].base_register - 1)
                base = Mux(beats[0].base_register != 0, self.found[0], 0)
                m.d.sync += [
                    tile.role.eq(walk.role), tile.part.eq(walk.part), tile.unit.eq(walk.unit),
                    *(tile[name].eq(beats[0][name]) for name in (
                        "space", "layout", "format", "dimensions", "group_axis", "group_size",
                        "gather_axis")),
                    tile.address.eq(beats[0].address_bytes + base),
                    tile.offset.eq(0),
                ]
                with m.If(walk.part == Part.TILE):
                    m.d.sync += [linked[0].eq(beats[0].group_scale),
                                 linked[1].eq(beats[0].group_zero)]
            with m.Case(2):
                m.d.sync += [
                    tile.gather_granule.eq(beats[1].gather_granule),
                    *(tile.sizes[axis].eq(beats[1][f"shape{axis}"])
                      for axis in range(DIMENSIONS)),
                ]
                with m.If(walk.part == Part.TILE):
                    m.d.sync += linked[2].eq(
                        Mux(tile.gather_axis != 0, beats[1].gather_index + 1, 0))
            with m.Case(3):
                m.d.sync += [tile.strides[axis].eq(beats[2][f"stride{axis}"])
                             for axis in range(DIMENSIONS)]
            for half, beat in enumerate((4, 5)):
                with m.Case(beat):
                    for lane in range(2):
                        self._cut(m, edges[lane + 2 * half], lane, lane + 2 * half,
                                  products[2 * lane : 2 * lane + 2])
            with m.Case(6, 7):
                m.d.sync += tile.offset.eq(tile.offset + sum(products))

    def _cut(self, m: Module, beat: data.View, lane: int, axis: int,
             products: list[Value]) -> None:
        """Cut dimension `axis` of the tile by the edge in `beat`."""
        register = beat[f"edge{axis}_register"]
        size = self.tile.sizes[axis]
        left = Signal(signed(EDGE_BITS), name=f"left_{axis}")
        bound = Mux(register != 0, self.found[lane].as_signed(), beat[f"edge{axis}_bound"])
        m.d.comb += [self.read[lane].eq(register - 1), left.eq(bound - products[0] - products[1])]
        with m.If(beat[f"edge{axis}_present"] & (left < size)):
            m.d.sync += size.eq(Mux(left < 0, 0, left))
