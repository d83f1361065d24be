# amaranth: UnusedElaboratable=no
"""The front end of a chip between stubs: units and a memory in RTL, their times in Python."""

import random
from dataclasses import replace

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.control import command_layout
from hw.cxxrtl import StreamSimulation
from hw.front_end import FrontEnd, parts_of
from hw.operands import tile_layout
from machine.formats import format_named
from machine.front_end import front_end_of
from machine.load import read_machine

WORDS = 16384  # of the behavioural memory, 64 bits each
TIME = 12  # bits of a random time


class StubUnit(wiring.Component):
    """A unit that takes times from a stream: how long until it accepts, how long it works.

    It accepts `delay` cycles after its last start or later, with fewer than `most` instructions
    under way, and is done `work` cycles after the start, one instruction a cycle, in order.
    """

    def __init__(self, most):
        self.most = most
        super().__init__({
            "run": In(1), "start": In(1), "accepts": Out(1), "done": Out(1),
            "i_times": In(stream.Signature(2 * TIME)),
        })

    def elaborate(self, platform):
        m = Module()
        since = Signal(TIME)
        line = [Signal(TIME, name=f"left_{i}") for i in range(self.most)]
        count = Signal(range(self.most + 1))
        place = Signal(range(self.most + 1))
        m.d.comb += [
            self.done.eq((count != 0) & (line[0] == 0)), place.eq(count - self.done),
            self.accepts.eq(self.i_times.valid & (since >= self.i_times.payload[:TIME])
                            & (place != self.most)),
            self.i_times.ready.eq(self.start),
        ]
        with m.If(self.run):
            m.d.sync += since.eq(Mux(self.start, 1, Mux(since.all(), since, since + 1)))
        m.d.sync += count.eq(place + self.start)
        for i, left in enumerate(line):
            before = line[i + 1] if i + 1 < self.most else left
            moved = Mux(self.done, before, left)
            m.d.sync += left.eq(Mux(self.start & (place == i), self.i_times.payload[TIME:] - 1,
                                    Mux(moved == 0, 0, moved - 1)))
        return m


class StubMemory(wiring.Component):
    """A memory that is written from a stream: a count of words, then those, then the start."""

    def __init__(self, cfg):
        self.cfg = cfg
        super().__init__({
            "i_image": In(stream.Signature(64)), "start": Out(1), "launch_base": Out(32),
            "i_fetch": In(stream.Signature(cfg.address_bits)),
            "o_fetched": Out(stream.Signature(data.StructLayout({"data": 64, "error": 1}))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=64, depth=WORDS, init=())
        write, read = memory.write_port(), memory.read_port()
        at, count, ready = Signal(32), Signal(32), Signal()
        m.d.comb += [self.i_image.ready.eq(~ready), write.data.eq(self.i_image.payload),
                     write.addr.eq(at - 1), write.en.eq(self.i_image.valid & (at != 0) & ~ready)]
        with m.If(self.i_image.valid & ~ready):
            m.d.sync += at.eq(at + 1)
            with m.If(at == 0):
                m.d.sync += Cat(count, self.launch_base).eq(self.i_image.payload)
            with m.Elif(at == count):
                m.d.sync += ready.eq(1)
                m.d.comb += self.start.eq(1)
        asked, outside = Signal(), Signal()
        m.d.comb += [
            self.i_fetch.ready.eq(~asked), read.addr.eq(self.i_fetch.payload >> 3),
            read.en.eq(self.i_fetch.valid & ~asked),
            self.o_fetched.valid.eq(asked), self.o_fetched.payload.data.eq(read.data),
            self.o_fetched.payload.error.eq(outside),
        ]
        with m.If(read.en):
            m.d.sync += [asked.eq(1), outside.eq(self.i_fetch.payload >> 3 >= WORDS)]
        with m.Elif(self.o_fetched.ready):
            m.d.sync += asked.eq(0)
        return m


class Bench(wiring.Component):
    """A front end between stubs, whose times enter by streams and whose events leave by streams."""

    def __init__(self, cfg, most):
        self.cfg, self.most = cfg, most
        members = {"i_image": In(stream.Signature(64)), "o_run": Out(stream.Signature(1)),
                   "o_end": Out(stream.Signature(64))}
        for n in range(len(cfg.queues)):
            members |= {
                f"i_times{n}": In(stream.Signature(2 * TIME)),
                f"i_values{n}": In(stream.Signature(64 + TIME)),
                f"o_issue{n}": Out(stream.Signature(32)), f"o_start{n}": Out(stream.Signature(1)),
                f"o_gives{n}": Out(stream.Signature(1)), f"o_done{n}": Out(stream.Signature(1)),
                f"o_command{n}": Out(stream.Signature(command_layout().size)),
                f"o_tile{n}": Out(stream.Signature(tile_layout(cfg).size)),
                f"o_read{n}": Out(stream.Signature(tile_layout(cfg).size)),
            }
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.front_end = front_end = FrontEnd(self.cfg, "queue")
        m.submodules.memory = memory = StubMemory(self.cfg)
        wiring.connect(m, wiring.flipped(self.i_image), memory.i_image)
        wiring.connect(m, memory.i_fetch, front_end.o_fetch)
        wiring.connect(m, memory.o_fetched, front_end.i_fetched)
        ran, ended = Signal(), Signal()
        counted = Signal(24)
        ends = front_end.done | (front_end.trap != 0)
        m.d.sync += [ran.eq(ran | front_end.running), ended.eq(ended | ends)]
        m.d.comb += [
            front_end.start.eq(memory.start), front_end.launch_base.eq(memory.launch_base),
            self.o_run.valid.eq(front_end.running & ~ran),
            self.o_end.valid.eq(ends & ~ended),
            self.o_end.payload.eq(Cat(front_end.trap, Signal(3), front_end.place, counted)),
        ]
        for n in range(len(self.cfg.queues)):
            self._queue(m, n, front_end)
        tiles = [unit.tile_valid for unit in front_end.units]
        issues = [queue.issue for queue in front_end.queues]
        m.d.sync += counted.eq(counted + sum(tiles) + sum(issues))
        return m

    def _queue(self, m, n, front_end):
        queue, unit = front_end.queues[n], front_end.units[n]
        m.submodules[f"unit{n}"] = stub = StubUnit(self.most)
        wiring.connect(m, wiring.flipped(getattr(self, f"i_times{n}")), stub.i_times)
        m.d.comb += [stub.run.eq(front_end.running), stub.start.eq(unit.start),
                     unit.accepts.eq(stub.accepts), unit.done.eq(stub.done)]
        values, asked, left = getattr(self, f"i_values{n}"), Signal(), Signal(TIME)
        comes = asked & (left == 0)
        m.d.comb += [queue.value.eq(values.payload), queue.value_valid.eq(comes),
                     values.ready.eq(comes)]
        m.d.sync += left.eq(left - 1)
        with m.If(queue.read):
            m.d.sync += [asked.eq(1), left.eq(values.payload[64:] - 1)]
        with m.Elif(comes):
            m.d.sync += asked.eq(0)
        for name, valid, payload in (
            ("issue", queue.issue, Cat(queue.pc[:16], Signal(16 - min(16, len(queue.pc))),
                                       queue.layer)),
            ("start", queue.start, 0), ("gives", queue.gives, 0), ("done", unit.done, 0),
            ("command", unit.start, unit.command), ("tile", unit.tile_valid, unit.tile),
            ("read", queue.read, queue.tile),
        ):
            port = getattr(self, f"o_{name}{n}")
            m.d.comb += [port.valid.eq(valid), port.payload.eq(payload)]


class Stubs:
    """The stubs of `Bench` in Python: the times that they take, and what they do with them."""

    def __init__(self, machine, most, seed, answer):
        self.random, self.most, self.answer = random.Random(seed), most, answer
        self.slow = self.random.choice([4, 30, 200])
        self.first = front_end_of(machine).queues
        self.times = [[self._time()] for _ in self.first]
        self.starts = [[] for _ in self.first]
        self.dones = [[] for _ in self.first]
        self.values = [[] for _ in self.first]

    def _time(self):
        draw = self.random
        return draw.choice([1, draw.randrange(1, 5), draw.randrange(self.slow)]), \
            draw.choice([1, draw.randrange(1, 9), draw.randrange(1, 2 * self.slow)])

    def _number(self, queue, index):
        return self.first.index((queue.kind, index))

    def accepts_from(self, queue, unit):
        n = self._number(queue, unit)
        delay = self.times[n][-1][0]
        after = self.starts[n][-1] + delay if self.starts[n] else delay
        return max(after, self.dones[n][-self.most] if len(self.dones[n]) >= self.most else 0)

    def start(self, queue, driven, cycle):
        ends = []
        for unit in driven:
            n = self._number(queue, unit)
            end = cycle + self.times[n][-1][1]
            if self.dones[n]:
                end = max(end, self.dones[n][-1] + 1)
            self.starts[n].append(cycle)
            self.dones[n].append(end)
            self.times[n].append(self._time())
            ends.append(end)
        return ends

    def read(self, queue, tile, cycle):
        size = format_named(tile.operand.format).bits // 8
        value = self.answer(tile.address_bytes + tile.offset_elements * size)
        delay = self.random.choice([1, 2, self.random.randrange(1, 60)])
        self.values[self._number(queue, queue.index)].append((value, delay))
        return value, cycle + delay + 1


def machine_with(**changes):
    """Return `tiny` with a sequencer as the RTL's, changed as asked."""
    tiny = read_machine("tiny")
    given = {"operand_cycles": 8, "long_cycles": 65, "tokens": 8, **changes}
    return replace(tiny, sequencer=replace(tiny.sequencer, **given))


SIZES = {"operands": 256, "launch": 8}
MOST = 2  # instructions under way in a stub


class Simulation:
    """The compiled front end of a machine, and how a program is given to it."""

    def __init__(self, machine, optimize):
        self.machine = machine
        self.cfg = front_end_of(machine, **SIZES)
        self.compiled = StreamSimulation(Bench(self.cfg, MOST),
                                         parts=parts_of(self.cfg, "queue"),
                                         flatten=False, optimize=optimize)

    def run(self, image, launch, stubs, counts, cycles, base=None):
        """Run the binary `image`; return the log of every stream.

        `counts` says how many events each output has, within `cycles` of time 0. The launch
        table's values lie behind the program unless `base` is given.
        """
        words = list(np.frombuffer(image + bytes(-len(image) % 8), "<u8"))
        base = 8 * len(words) if base is None else base
        words += [value % 2**64 for value in launch]
        words = [len(words) | base << 32, *map(int, words)]
        inputs = {"i_image": (_words(words, 64), np.zeros(len(words), np.int64))}
        for n in range(len(self.cfg.queues)):
            times = [delay | work << TIME for delay, work in stubs.times[n][:-1]] if stubs else []
            values = [value % 2**64 | delay << 64 for value, delay in stubs.values[n]] \
                if stubs else []
            inputs[f"i_times{n}"] = (_words(times, 2 * TIME), np.zeros(len(times), np.int64))
            inputs[f"i_values{n}"] = (_words(values, 64 + TIME), np.zeros(len(values), np.int64))
        outputs = {name: np.zeros(counts.get(name, 0), np.int64)
                   for name in self.compiled.streams if name.startswith("o_")}
        return self.compiled.run(inputs, outputs, max_cycles=4 * len(words) + cycles)


def _words(values, bits):
    """Return integers as payload words, uint32 [n, words]."""
    width = -(-bits // 32)
    data_ = b"".join(int(value).to_bytes(4 * width, "little") for value in values)
    return np.frombuffer(data_, "<u4").reshape(-1, width)


def ints(log):
    return [int.from_bytes(row.astype("<u4").tobytes(), "little") for row in log.words]
