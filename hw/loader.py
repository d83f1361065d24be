"""The loader: reads a program's binary from memory, checks it, and fills queues and tokens."""

from enum import Enum

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.control import load_layout
from hw.decode import TRAP_BITS, InstructionCheck, OperandCheck
from hw.records import BEAT_BITS, BEATS, record_layout
from machine.front_end import FrontEndConfig, Trap
from machine.opcodes import Opcode
from machine.program import LOOP_LEVELS, VERSION, QueueKind
from machine.records import (
    HEADER,
    INSTRUCTION,
    MAGIC,
    NAME_ENTRY,
    OPERAND,
    SECTIONS,
    STREAM,
    SYMBOL,
    TOKEN,
    Slot,
)

__all__ = ["Loader", "Pairing", "WordReader", "place_layout"]

FIRST_SECTION = 8  # word of the header
WORD_BITS = 64
WORD_BYTES = 8
RECORDS = {"symbols": SYMBOL, "launch": NAME_ENTRY, "tokens": TOKEN, "ops": NAME_ENTRY,
           "operands": OPERAND, "streams": STREAM, "instructions": INSTRUCTION}


def place_layout(cfg: FrontEndConfig) -> data.StructLayout:
    """Return the layout of where a front end stopped.

    Of an instruction `queue` and number, of anything else `queue` is that of all ones and the
    number that of the word of the header, the value of the launch table, the token, the operand
    or the stream. Of a deadlock neither means anything.
    """
    return data.StructLayout({"number": 16, "queue": 8})


class Phase(Enum):
    """What the loader reads."""

    IDLE = 0
    HEADER = 1
    LAUNCH = 2
    TOKENS = 3
    OPERANDS = 4
    STREAM = 5
    INSTRUCTIONS = 6
    READY = 7


def _trap(m: Module, trap: Signal, reason: Trap, condition: Value) -> None:
    """Let `trap` be `reason` if `condition` holds; of several the one stated last."""
    with m.If(condition):
        m.d.comb += trap.eq(reason)


class WordReader(wiring.Component):
    """Reads a word of 64 bits at any byte address, from a memory of aligned words.

    One aligned word is asked for, two for a word across them; of such words in a row one, the
    other being kept. Reset forgets all.

    Members
    -------
    forget : In(1)
        Memory may have changed; nothing is asked for.
    go : In(1)
        Read the word at ``address``; both hold until ``come``.
    address : In(address_bits)
        Byte address.
    o_fetch : Out(stream)
        Byte addresses of aligned words.
    i_fetched : In(stream)
        Their ``data`` and whether there was an ``error``, in order.
    come : Out(1)
        The word is there in this cycle.
    word : Out(64)
        The word.
    error : Out(1)
        Memory answered with an error; instead of ``come``.
    """

    def __init__(self, cfg: FrontEndConfig):
        self.cfg = cfg
        answer = data.StructLayout({"data": WORD_BITS, "error": 1})
        super().__init__({
            "forget": In(1),
            "go": In(1),
            "address": In(cfg.address_bits),
            "o_fetch": Out(stream.Signature(cfg.address_bits)),
            "i_fetched": In(stream.Signature(answer)),
            "come": Out(1),
            "word": Out(WORD_BITS),
            "error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        low, kept = Signal(WORD_BITS), Signal()  # the word before, if it is that of `low_at`
        low_at, asked = Signal(self.cfg.address_bits - 3), Signal()
        line, fetched = self.address[3:], self.i_fetched.payload.data
        whole, has_low = Signal(), Signal()
        m.d.comb += [
            whole.eq(self.address[:3] == 0),
            has_low.eq(kept & (low_at == line) & ~whole),
            self.word.eq(Mux(whole, fetched, Cat(low, fetched) >> Cat(Const(0, 3),
                                                                      self.address[:3]))),
            self.o_fetch.payload.eq(Cat(Const(0, 3), line + has_low)),
            self.o_fetch.valid.eq(self.go & ~asked),
            self.i_fetched.ready.eq(asked),
        ]

        # Of words in a row each needs one more.
        with m.If(self.o_fetch.valid & self.o_fetch.ready):
            m.d.sync += asked.eq(1)
        with m.If(asked & self.i_fetched.valid):
            m.d.comb += [self.error.eq(self.i_fetched.payload.error),
                         self.come.eq((has_low | whole) & ~self.error)]
            m.d.sync += [asked.eq(0), low.eq(fetched), low_at.eq(line + has_low),
                         kept.eq(~self.error)]
        with m.If(self.forget):
            m.d.sync += kept.eq(0)
        return m


class Pairing(wiring.Component):
    """Pairs the LOOPs and ENDs of a stream, in the order in which they are loaded.

    Reset and ``clear`` leave none open.

    Members
    -------
    clear : In(1)
        A stream begins.
    opens : In(1)
        A LOOP is loaded.
    closes : In(1)
        An END is loaded; not with ``opens``.
    pc : In(range(instructions))
        The instruction that is loaded.
    of : Out(range(instructions))
        The innermost LOOP that is open.
    none : Out(1)
        There is none.
    full : Out(1)
        No other can be opened in it.
    """

    def __init__(self, cfg: FrontEndConfig):
        self.cfg = cfg
        super().__init__({
            "clear": In(1), "opens": In(1), "closes": In(1), "pc": In(range(cfg.instructions)),
            "of": Out(range(cfg.instructions)), "none": Out(1), "full": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        opened = Array(Signal(range(self.cfg.instructions), name=f"opened_{i}")
                       for i in range(LOOP_LEVELS))
        depth = Signal(range(LOOP_LEVELS + 1))
        top = (depth - 1)[: len(depth)]
        m.d.comb += [self.of.eq(opened[top]), self.none.eq(depth == 0),
                     self.full.eq(depth == LOOP_LEVELS)]
        with m.If(self.opens):
            m.d.sync += [opened[depth].eq(self.pc), depth.eq(depth + 1)]
        with m.If(self.closes):
            m.d.sync += depth.eq(top)
        with m.If(self.clear):
            m.d.sync += depth.eq(0)
        return m


class Loader(wiring.Component):
    """Loads one program: header, launch table, tokens, operands, and each stream's instructions.

    One word of memory is read for each word of these sections and one more for each record that
    moves elsewhere; nothing runs meanwhile, so no rule of time counts it. The first record that is
    refused stops it. Reset stops it.

    Members
    -------
    start : In(1)
        Begin; not while memory is asked for anything.
    base : In(address_bits)
        Byte address of the program.
    launch_base : In(address_bits)
        Byte address of the values of the launch table, 64 bits each, in the program's order.
    chip : In(16)
        Streams of other chips are passed by.
    o_fetch : Out(stream)
        Byte addresses of words.
    i_fetched : In(stream)
        Their data.
    load : Out(load_layout)
        What is written into the memories of queues.
    queues : Out(queues)
        Into those of which queues.
    used : Out(queues)
        Queues that have a stream.
    token_load : Out(1)
        A token's count is set.
    token : Out(range(tokens))
        The token.
    count : Out(token_bits)
        Its count.
    ready : Out(1)
        All is loaded, until the next ``start``.
    trap : Out(Trap)
        Why loading stops in this cycle, else ``NONE``.
    place : Out(place_layout)
        Where.
    """

    def __init__(self, cfg: FrontEndConfig):
        self.cfg = cfg
        answer = data.StructLayout({"data": WORD_BITS, "error": 1})
        super().__init__({
            "start": In(1),
            "base": In(cfg.address_bits),
            "launch_base": In(cfg.address_bits),
            "chip": In(16),
            "o_fetch": Out(stream.Signature(cfg.address_bits)),
            "i_fetched": In(stream.Signature(answer)),
            "load": Out(load_layout(cfg)),
            "queues": Out(len(cfg.queues)),
            "used": Out(len(cfg.queues)),
            "token_load": Out(1),
            "token": Out(range(max(cfg.tokens, 2))),
            "count": Out(cfg.token_bits),
            "ready": Out(1),
            "trap": Out(TRAP_BITS),
            "place": Out(place_layout(cfg)),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        m.submodules.reader = self.reader = reader = WordReader(cfg)
        m.submodules.pairing = self.pairing = Pairing(cfg)
        m.submodules.instruction = self.instruction = instruction = InstructionCheck(cfg)
        m.submodules.operand = self.operand = operand = OperandCheck(cfg)
        wiring.connect(m, wiring.flipped(self.o_fetch), reader.o_fetch)
        wiring.connect(m, wiring.flipped(self.i_fetched), reader.i_fetched)

        # What is known of the sections, and the record that is read, word by word.
        self.phase = phase = Signal(Phase)
        self.offset = {name: Signal(32, name=f"{name}_offset") for name in RECORDS}
        self.counts = counts = {name: Signal(16, name=f"{name}_count") for name in RECORDS}
        record = Signal(INSTRUCTION.bits)
        self.whole = whole = Cat(record[WORD_BITS:], reader.word)  # with the word that comes
        self.number = number = Signal(16)  # of the record
        self.at = at = Signal(5)  # word of it
        self.next_word = Signal(cfg.address_bits)  # where it is
        beat = whole[-BEAT_BITS:]
        m.d.comb += [
            reader.forget.eq(self.start), reader.address.eq(self.next_word),
            instruction.word.eq(whole), instruction.operands.eq(counts["operands"]),
            instruction.tokens.eq(counts["tokens"]), instruction.launch.eq(counts["launch"]),
            operand.beat.eq(beat), operand.at.eq(at[2:]), operand.operands.eq(counts["operands"]),
            self.place.number.eq(Mux(phase == Phase.HEADER, at, number)),
            self.place.queue.eq(~0), self.load.word.eq(whole), self.queues.eq(~0),
            self.token.eq(number), self.ready.eq(phase == Phase.READY),
        ]
        with m.If(reader.come):
            m.d.sync += [record.eq(whole), at.eq(at + 1),
                         self.next_word.eq(self.next_word + WORD_BYTES)]

        # One section after the other.
        with m.Switch(phase):
            with m.Case(Phase.HEADER):
                m.d.comb += reader.go.eq(1)
                with m.If(reader.come):
                    self._header(m)
            with m.Case(Phase.LAUNCH):
                self._values(m)
            with m.Case(Phase.TOKENS):
                self._tokens(m)
            with m.Case(Phase.OPERANDS):
                self._operands(m)
            with m.Case(Phase.STREAM, Phase.INSTRUCTIONS):
                self._streams(m)

        self._ends(m)
        return m

    def _operands(self, m: Module) -> None:
        """Take a word of an operand; every fourth ends a beat."""
        reader, number, at, counts = self.reader, self.number, self.at, self.counts
        operand, beat = self.operand, self.whole[-BEAT_BITS:]
        m.d.comb += [reader.go.eq(number != counts["operands"]),
                     self.load.address.eq(Cat(at[2:], number)), self.load.word.eq(beat)]
        with m.If(reader.come & (at[:2] == 3)):
            m.d.comb += [self.trap.eq(operand.trap),
                         self.load.operand.eq(at[2:] < BEATS)]
            with m.If(at == OPERAND.bytes // WORD_BYTES - 1):
                m.d.sync += number.eq(number + 1)
        with m.Elif(~reader.go):
            self._go(m, Phase.STREAM, self.offset["streams"])

    def _values(self, m: Module) -> None:
        """Take a value of the launch table."""
        reader, number, counts = self.reader, self.number, self.counts
        m.d.comb += [reader.go.eq(number != counts["launch"]),
                     self.load.launch.eq(reader.come), self.load.address.eq(number),
                     self.load.word.eq(reader.word)]
        with m.If(reader.come):
            m.d.sync += number.eq(number + 1)
        with m.Elif(~reader.go):
            self._go(m, Phase.TOKENS, self.offset["tokens"])

    def _tokens(self, m: Module) -> None:
        """Take a token and its count."""
        cfg, reader, number, counts = self.cfg, self.reader, self.number, self.counts
        token = data.View(record_layout(TOKEN), reader.word)
        m.d.comb += [reader.go.eq(number != counts["tokens"]),
                     self.token_load.eq(reader.come), self.count.eq(token.initial)]
        with m.If(reader.come):
            m.d.sync += number.eq(number + 1)
            with m.If(token.initial[cfg.token_bits :].any()):
                m.d.comb += self.trap.eq(Trap.OVERFLOW)
        with m.Elif(~reader.go):
            self._go(m, Phase.OPERANDS, self.offset["operands"])

    def _ends(self, m: Module) -> None:
        """End with what is refused; begin anew with a start."""
        with m.If(self.reader.error):
            m.d.comb += self.trap.eq(Trap.BUS)
        with m.If(self.trap != Trap.NONE):
            m.d.sync += self.phase.eq(Phase.IDLE)
        with m.If(self.start):
            m.d.sync += self.used.eq(0)
            self._go(m, Phase.HEADER, 0)

    def _go(self, m: Module, phase: Phase, offset: Value | int) -> None:
        """Go on in `phase` with the first record at `offset` of the program."""
        m.d.sync += [self.phase.eq(phase), self.at.eq(0), self.number.eq(0),
                     self.next_word.eq(self.base + offset)]

    def _header(self, m: Module) -> None:
        """Take a word of the header: what the program is, then where its sections are."""
        word, at = self.reader.word, self.at
        follows = Signal(32, name="follows")  # where the next section must begin
        start, size = word[:32], word[32:]
        with m.Switch(at):
            for number in range(HEADER.bytes // WORD_BYTES):
                with m.Case(number):
                    first = number * WORD_BITS
                    reserved = [word[lsb - first : lsb - first + slot.bits]
                                for lsb, slot in self._slots(first) if not slot.name]
                    if number == 0:
                        known = (word[:32] == MAGIC) & (word[32:48] == VERSION)
                        _trap(m, self.trap, Trap.HEADER, ~known)
                        m.d.sync += follows.eq(HEADER.bytes)
                    elif number == 1:
                        lacking = word[:32] & ~Const(self.cfg.capabilities, 32)
                        _trap(m, self.trap, Trap.HEADER, lacking.any() | (word[32:48] == 0))
                    elif number >= FIRST_SECTION:
                        name = SECTIONS[number - FIRST_SECTION]
                        _trap(m, self.trap, Trap.HEADER, start != follows)
                        m.d.sync += follows.eq(follows + size)
                        if name in RECORDS:
                            self._section(m, name, start, size)
                    if reserved:
                        _trap(m, self.trap, Trap.RESERVED, Cat(reserved).any())
        with m.If(at == HEADER.bytes // WORD_BYTES - 1):
            m.d.sync += [self.phase.eq(Phase.LAUNCH), at.eq(0),
                         self.next_word.eq(self.launch_base)]

    def _slots(self, first: int) -> list[tuple[int, Slot]]:
        """Return the header's slots, reserved ones cut to words, that begin in a word."""
        cut = []
        for lsb, slot in HEADER.positions():
            while slot.bits > (room := WORD_BITS - lsb % WORD_BITS):
                cut.append((lsb, Slot(slot.name, room)))
                lsb, slot = lsb + room, Slot(slot.name, slot.bits - room)
            cut.append((lsb, slot))
        return [(lsb, slot) for lsb, slot in cut if first <= lsb < first + WORD_BITS]

    def _section(self, m: Module, name: str, start: Value, size: Value) -> None:
        """Keep where a section is, and how many records it has, if there is room for them."""
        shift = (RECORDS[name].bytes - 1).bit_length()
        most = {"launch": self.cfg.launch, "tokens": self.cfg.tokens,
                "operands": self.cfg.operands}.get(name, 2**16 - 1)
        m.d.sync += [self.offset[name].eq(start), self.counts[name].eq(size >> shift)]
        _trap(m, self.trap, Trap.HEADER, size[:shift].any())
        _trap(m, self.trap, Trap.SIZE, (size >> shift) > most)

    def _streams(self, m: Module) -> None:
        """Take a stream, then its instructions, then the next stream."""
        cfg, reader, trap, number, at = self.cfg, self.reader, self.trap, self.number, self.at
        stream = data.View(record_layout(STREAM), self.whole[-STREAM.bits :])
        reserved = Cat(self.whole[-STREAM.bits :][lsb : lsb + slot.bits]
                       for lsb, slot in STREAM.positions() if not slot.name)
        listed, queue = Signal(16, name="listed"), Signal(8, name="queue")  # of the stream
        kind, length = Signal(QueueKind), Signal(16, name="length")
        follows = Signal(32, name="first")  # the stream's first instruction
        after, found = Signal(33, name="after"), Signal(8, name="found")
        units = Array([*cfg.units, *[0] * (256 - len(cfg.units))])
        firsts = Array([sum(cfg.units[:kind]) for kind in range(len(cfg.units))])
        m.d.comb += [after.eq(stream.first + stream.count),
                     found.eq(firsts[stream.kind[:3]] + stream.index)]
        here = stream.chip == self.chip
        with m.If(self.phase == Phase.STREAM):
            m.d.comb += reader.go.eq(number != self.counts["streams"])
            with m.If(reader.come & (at == STREAM.bytes // WORD_BYTES - 1)):
                m.d.sync += [
                    follows.eq(after), listed.eq(number), at.eq(0), number.eq(number + 1),
                    queue.eq(found), kind.eq(stream.kind), length.eq(stream.count),
                ]
                with m.If(here):
                    m.d.comb += self.pairing.clear.eq(1)
                    m.d.sync += self.used.bit_select(found, 1).eq(1)
                    self._go(m, Phase.INSTRUCTIONS,
                             self.offset["instructions"] + (stream.first << 6))
                known = (stream.kind < len(QueueKind)) & (stream.index < units[stream.kind])
                _trap(m, trap, Trap.HALT, stream.count == 0)
                _trap(m, trap, Trap.SIZE, (stream.count > cfg.instructions)
                      | (stream.first != Mux(number == 0, 0, follows))
                      | (after > self.counts["instructions"]))
                _trap(m, trap, Trap.QUEUE, ~known | (here & self.used.bit_select(found, 1)))
                _trap(m, trap, Trap.RESERVED, reserved.any())
            with m.Elif(~reader.go):
                m.d.sync += self.phase.eq(Phase.READY)
        with m.Else():
            self._instruction(m, kind, queue, number == length - 1)
            with m.If(reader.come & (at == 7) & (number == length - 1)):
                self._go(m, Phase.STREAM, self.offset["streams"] + ((listed + 1) << 4))
                m.d.sync += number.eq(listed + 1)

    def _instruction(self, m: Module, kind: Value, queue: Value, last: Value) -> None:
        """Take an instruction of a queue, and note which LOOP an END belongs to."""
        number, trap, pairing = self.number, self.trap, self.pairing
        opcode = self.whole[:8]
        is_loop, is_end = opcode == Opcode.LOOP, opcode == Opcode.END
        closed, closes = Signal(range(self.cfg.instructions)), Signal()
        comes = self.reader.come & (self.at == INSTRUCTION.bytes // WORD_BYTES - 1)
        m.d.comb += [
            self.reader.go.eq(1), self.queues.eq(1 << queue), self.place.queue.eq(queue),
            self.instruction.kind.eq(kind), pairing.pc.eq(number),
            self.load.address.eq(number), self.load.instruction.eq(comes),
        ]
        m.d.sync += [closes.eq(comes & is_end), closed.eq(pairing.of)]
        with m.If(closes):  # number is that of the next one
            m.d.comb += [self.load.end.eq(1), self.load.address.eq(closed),
                         self.load.word.eq(number - 1)]
        with m.If(comes):
            m.d.sync += [number.eq(number + 1), self.at.eq(0)]
            m.d.comb += [trap.eq(self.instruction.trap), pairing.opens.eq(is_loop),
                         pairing.closes.eq(is_end)]
            _trap(m, trap, Trap.LOOP, (is_loop & pairing.full) | (is_end & pairing.none)
                  | (last & ~pairing.none))
            _trap(m, trap, Trap.HALT, (opcode == Opcode.HALT) != last)
