"""Random legal programs for `tiny`: every kind of control, tokens that balance, nothing in a race.

All queues read one pool that dma0 fills first, and each writes a region of its own. A token is
given in an earlier round than it is taken, so that no order of the queues is a deadlock.
"""

import random
from collections import Counter

from machine.control import Cursor
from machine.opcodes import Alu, Mode, Opcode
from machine.program import (
    LOOP_LEVELS,
    NO_LEVEL,
    UNIT_LEVEL,
    Capability,
    Edge,
    Gather,
    Group,
    Instruction,
    Launch,
    Operand,
    Predicate,
    Program,
    Queue,
    QueueKind,
    Space,
    Stream,
    Symbol,
    SymbolKind,
    Token,
)
from machine.vector import VectorOp

ROUNDS, TABLE, TRACED = 4, 0x20000, 0x21000
REGION = 8192  # bytes a queue may write; its units' tiles lie RANK apart
RANK = 2048
BASE, TRIPS, CLAMPED = 1, 2, (1, 2, 3)  # registers for a base in bytes, a trip count, a bound
DRAM, PAD, ACC = Space.DRAM, Space.SCRATCHPAD, Space.ACCUMULATOR


def traced(address):
    """Return the value that memory has for a READ outside the launch table."""
    return (address * 40503 >> 3) % 61 - 20


class Maker:
    """One random program; `seed` decides everything. A `short` one has fewer statements."""

    def __init__(self, seed, short=False):
        self.random = random.Random(seed)
        self.rounds = 2 if short else ROUNDS
        self.statements = 1 if short else 3  # fewer than these, and one
        self.exchanges = (1, 3) if short else (2, 7)
        self.coverage = Counter()
        self.operands, self.tokens = [], []
        self.levels = 0  # loops open where the next instruction stands
        self.work = 1  # times that it runs, at most
        self.values = [self.random.randrange(12) for _ in range(8)]  # a list of pages
        self.values += [self.random.randrange(-8, 40) for _ in range(8)]

    def program(self):
        """Return the program, its launch table and its value trace."""
        draw = self.random
        owners = draw.choice([(1, 2, 4), (3, 4), (7,), (4, 1, 2)])
        queues = [(Queue(QueueKind.DMA, i), mask) for i, mask in enumerate(owners)]
        queues += [(Queue(QueueKind.ARRAY), 1), (Queue(QueueKind.VECTOR), 1)]
        self.bodies = [[[] for _ in range(self.rounds)] for _ in queues]
        self._fill(owners[0])
        for number, (queue, mask) in enumerate(queues):
            for body in self.bodies[number]:
                body += self._block(queue, number, mask, draw.randrange(self.statements), 1)
        self._exchange(queues)
        symbols = [
            Symbol("pool", SymbolKind.CONST, DRAM, 0, (64, 64), "int8"),
            Symbol("sums", SymbolKind.CONST, DRAM, 0x1000, (1024,), "int32"),
            Symbol("table", SymbolKind.LAUNCH, DRAM, TABLE, (16,), "int32"),
            Symbol("traced", SymbolKind.CONST, DRAM, TRACED, (512,), "int16"),
        ] + [Symbol(f"out{n}", SymbolKind.OUTPUT, DRAM, 0x4000 + n * REGION, (REGION,), "int8")
             for n in range(len(owners))]
        program = Program(
            name="random", symbols=tuple(symbols), launch=("one", "two", "three"),
            capabilities=frozenset({Capability.SYSTOLIC, Capability.VECTOR, Capability.INDIRECT}),
            tokens=tuple(self.tokens), operands=tuple(self.operands),
            streams=tuple(
                Stream(queue, (*(one for body in self.bodies[n] for one in body),
                               Instruction(Opcode.HALT)))
                for n, (queue, _) in enumerate(queues)))
        launch = Launch({"one": draw.randrange(-99, 99), "two": draw.getrandbits(62),
                         "three": -draw.getrandbits(63)}, {"table": self.values})
        return program, launch, self._trace(program, launch)

    def answer(self, address):
        """Return what a READ finds at `address`."""
        return self.values[(address - TABLE) // 4] if address < TRACED else traced(address)

    def _trace(self, program, launch):
        trace = {}
        for stream in program.streams:
            cursor, found = Cursor(program, stream, launch.values), []
            while (step := cursor.next_step()) is not None:
                if step.instruction.opcode == Opcode.READ and step.active:
                    operand = program.operands[step.instruction.operands["src"]]
                    tile = step.resolve(operand)
                    size = 4 if operand.format == "int32" else 2
                    found.append(self.answer(tile.address_bytes + tile.offset_elements * size))
                    cursor.give(found[-1])
            trace[str(stream.queue)] = found
        return trace

    def _fill(self, mask):
        """Let dma0 fill the pool and the accumulators, and every other queue wait for it."""
        unit = mask & -mask
        pool = [self._plain("pool", DRAM, 0, (64, 64), "int8"),
                self._plain("pool", PAD, 0, (64, 64), "int8")]
        sums = [self._plain("sums", DRAM, 0x1000, (1024,), "int32"),
                self._plain("sums", ACC, 0, (1024,), "int32")]
        count = len(self.bodies) - 1
        for number, (src, dst) in enumerate((pool, sums)):
            token = self._token(0)
            self.bodies[0][0].append(Instruction(
                Opcode.LOAD, unit, signals=((token, count),), operands={"src": src, "dst": dst}))
            for body in self.bodies[1:]:
                body[0].append(Instruction(Opcode.NOP if number else Opcode.FENCE,
                                           waits=((token, 1),)))
        self.bodies[0][0].append(Instruction(Opcode.FENCE))

    def _token(self, initial):
        self.tokens.append(Token(f"token{len(self.tokens)}", initial))
        return len(self.tokens) - 1

    def _plain(self, name, space, address, shape, form):
        strides = (shape[1], 1) if len(shape) == 2 else (1,)
        return self._operand(Operand("", space, address, shape, strides, form))

    def _operand(self, operand):
        number = len(self.operands)
        self.operands.append(Operand(f"o{number}", *(
            getattr(operand, name) for name in list(Operand.__slots__)[1:])))
        return number

    # Tokens.

    def _exchange(self, queues):
        """Put instructions that signal and wait into the rounds, as often given as taken."""
        draw = self.random
        for _ in range(draw.randrange(*self.exchanges)):
            early = draw.randrange(self.rounds - 1)
            giver = draw.randrange(len(queues))
            takers = draw.sample(range(len(queues)), draw.choice([1, 1, 2, 3]))
            initial = draw.choice([0, 0, 1, 5])
            shares = [(taker, draw.randrange(1, 4), draw.randrange(1, 4)) for taker in takers]
            total = sum(times * count for _, times, count in shares)
            token = self._token(initial)
            times = draw.choice([n for n in (1, 2, 3, 4) if total % n == 0])
            self._insert(queues, giver, early, times, signals=((token, total // times),))
            for taker, often, count in shares:
                late = draw.randrange(0 if initial >= total else early + 1, self.rounds)
                self._insert(queues, taker, late, often, waits=((token, count),))

    def _insert(self, queues, number, turn, times, **tokens):
        """Let queue `number` execute an instruction with `tokens` so many times in a round."""
        queue, mask = queues[number]
        self.levels, self.work = 1, times
        one = self._any(queue, number, mask)
        last = one[-1]
        free = {"waits": last.waits, "signals": last.signals}
        merged = {**free, **tokens}
        one[-1] = _with(last, **merged)
        self.coverage["tokens in a loop" if times > 1 else "tokens"] += 1
        self.levels = 0
        if last.opcode == Opcode.MATMUL and "w" not in last.operands:
            one = [Instruction(Opcode.NOP, **tokens)]
        self.bodies[number][turn] += [_loop(times), *one, Instruction(Opcode.END)]

    # Statements.

    def _block(self, queue, number, mask, length, depth):
        """Return statements that may nest, `length` of them and more."""
        draw, found = self.random, []
        for _ in range(length + 1):
            deep = depth <= LOOP_LEVELS and self.work <= 24 and draw.random() < 0.45
            if deep:
                found += self._nest(queue, number, mask, depth)
            else:
                found += self._any(queue, number, mask)
        return found

    def _nest(self, queue, number, mask, depth):
        draw = self.random
        most = draw.choice([0, 1, 1, 2, 3])
        before, self.levels, self.work = (self.levels, self.work), depth, self.work * max(most, 1)
        body = self._block(queue, number, mask, draw.randrange(2), depth + 1)
        self.levels, self.work = before
        self.coverage[f"loop depth {depth}"] += 1
        self.coverage["loop of 0"] += most == 0
        if draw.random() < 0.4:
            self.coverage["loop by register"] += 1
            start = [*self._clamp(TRIPS, -1 if most < 2 else 0, most),
                     _loop(TRIPS, count_is_register=1)]
        else:
            start = [_loop(most)]
        if draw.random() < 0.2:
            start[-1] = _with(start[-1], predicate=self._predicate())
            self.coverage["loop predicated"] += 1
        return [*start, *body, Instruction(Opcode.END)]

    def _any(self, queue, number, mask):
        """Return an instruction that may issue, behind what it needs."""
        draw = self.random
        kind = draw.choice(["unit", "unit", "unit", "scalar", "read", "nop", "fence"])
        if kind == "scalar":
            return [*self._scalars(), Instruction(Opcode.NOP)]
        if kind == "read":
            return self._read()
        if kind in ("nop", "fence"):
            one = [Instruction(Opcode[kind.upper()])]
        else:
            one = self._unit(queue, number, mask)
        if draw.random() < 0.2 and "w" in one[-1].operands or len(one) == 1 and draw.random() < 0.3:
            one[-1] = _with(one[-1], predicate=self._predicate())
            self.coverage[f"{Opcode(one[-1].opcode).name.lower()} predicated"] += 1
        self.coverage[Opcode(one[-1].opcode).name.lower()] += 1
        level = draw.choice([NO_LEVEL, 0, 1, 6])
        one[-1] = _with(one[-1], layer_id=draw.randrange(9), layer_level=level)
        return one

    def _predicate(self):
        return Predicate(self.random.randrange(16), self.random.random() < 0.5)

    def _scalars(self):
        draw, found = self.random, []
        for _ in range(draw.randrange(1, 4)):
            alu = draw.choice(list(Alu))
            self.coverage[f"alu {alu.name.lower()}"] += 1
            fields = {"alu": alu, "rd": draw.randrange(4, 16)}
            if alu == Alu.LAUNCH:
                fields["b"] = draw.randrange(3)
            elif alu == Alu.INDEX:
                fields["b"] = draw.randrange(LOOP_LEVELS)
            elif draw.random() < 0.5:
                fields |= {"b": draw.randrange(16), "b_is_register": 1}
            else:
                fields["b"] = draw.choice([draw.randrange(-9, 9), draw.getrandbits(62), -(2**63)])
            if alu not in (Alu.SET, Alu.LAUNCH, Alu.INDEX):
                fields["ra"] = draw.randrange(16)
            one = Instruction(Opcode.SCALAR, fields=fields)
            if draw.random() < 0.15:
                one = _with(one, predicate=self._predicate())
                self.coverage["scalar predicated"] += 1
            found.append(one)
        return found

    def _clamp(self, rd, low, high):
        """Let register `rd` become another one, cut to `low` and `high`."""
        ra = self.random.randrange(4, 16)
        return [_scalar(Alu.MIN, rd, ra, high), _scalar(Alu.MAX, rd, rd, low)]

    def _read(self):
        draw = self.random
        self.coverage["read"] += 1
        form, address = draw.choice([("int32", TABLE), ("int16", TRACED + 64)])
        based = address != TABLE and draw.random() < 0.5
        strides = tuple((level, draw.randrange(1, 4)) for level in range(self.levels)
                        if address != TABLE or level < 2)
        operand = self._operand(Operand(
            "", DRAM, address + 4 * draw.randrange(4), (1,), (1,), form,
            base_register=BASE if based else None, loop_strides=strides))
        found = self._clamp(BASE, 0, 255) if based else []
        one = Instruction(Opcode.READ, operands={"src": operand}, fields={"rd": draw.randrange(16)})
        if draw.random() < 0.2:
            one = _with(one, predicate=self._predicate())
            self.coverage["read predicated"] += 1
        return [*found, one]

    # Instructions of units.

    def _unit(self, queue, number, mask):
        draw = self.random
        if queue.kind == QueueKind.ARRAY:
            return self._product(number)
        rows, columns = draw.randrange(1, 8), draw.randrange(1, 30)
        edges = (self._edge(), self._edge())
        edges = edges if any(edges) else ()
        found = self._clamp(BASE, 0, 255) + self._clamp(3, -2, 9)
        if queue.kind == QueueKind.VECTOR:
            y = self._tile(PAD, self._region(number), (rows, columns), edges, written=True)
            x = self._tile(PAD, 0, (rows, columns), edges)
            operands = {"x": x, "y": y}
            vop = draw.choice([VectorOp.COPY, VectorOp.RELU, VectorOp.ADD])
            if vop == VectorOp.ADD:
                operands["x1"] = self._tile(PAD, 0, (rows, columns), edges)
            fields = {"vop": vop, "position": draw.randrange(-9, 9)}
            if draw.random() < 0.5:
                fields["position_register"] = draw.randrange(16)
            return [*found, Instruction(Opcode.VECTOR, 1, operands=operands, fields=fields)]
        units = 0
        while not units:
            units = mask & draw.getrandbits(3)
        self.coverage[f"units {units.bit_count()}"] += 1
        if draw.random() < 0.5:
            src = self._tile(DRAM, 0, (rows, columns), edges, extras=True)
            dst = self._tile(PAD, self._region(number), (rows, columns), edges, written=True)
            opcode = Opcode.LOAD
        else:
            src = self._tile(PAD, 0, (rows, columns), edges)
            dst = self._tile(DRAM, 0x4000 + number * REGION, (rows, columns), edges, written=True)
            opcode = Opcode.STORE
        return [*found, Instruction(opcode, units, operands={"src": src, "dst": dst},
                                    fields={"rounding": draw.randrange(3)})]

    def _product(self, number):
        draw = self.random
        m, k, n = (draw.randrange(1, 9) for _ in range(3))
        rows, inner, columns = (self._edge() for _ in range(3))
        found = self._clamp(BASE, 0, 255) + self._clamp(3, -2, 9)
        held = draw.random() < 0.3
        if held:
            inner = columns = None
        edges = {name: pair if any(pair) else () for name, pair in (
            ("a", (rows, inner)), ("w", (inner, columns)), ("acc", (rows, columns)))}
        a = self._tile(PAD, 0, (m, k), edges["a"])
        w = self._tile(PAD, 0, (k, n), edges["w"])
        acc = self._tile(ACC, 0, (m, n), edges["acc"], form="int32")
        out = self._tile(PAD, self._region(number), (m, n), edges["acc"], written=True)
        if not held and draw.random() < 0.2:
            return [*found, Instruction(Opcode.FLUSH, 1, operands={"acc": acc, "out": out})]
        fields = {"mode": draw.choice(list(Mode)), "set_level": draw.choice([0, 1, 6, NO_LEVEL])}
        operands = {"a": a, "acc": acc}
        if draw.random() < 0.5:
            operands["out"] = out
        if held:
            self.coverage["preload"] += 1
            found.append(Instruction(Opcode.PRELOAD, 1, operands={"w": w}))
        else:
            operands["w"] = w
        return [*found, Instruction(Opcode.MATMUL, 1, operands=operands, fields=fields)]

    def _region(self, number):
        return 0x1000 + number * REGION

    def _edge(self):
        """Return an edge rule, or none; all tiles of a dimension share it."""
        draw = self.random
        if draw.random() < 0.6:
            return None
        levels = draw.sample([*range(self.levels), UNIT_LEVEL], draw.randrange(2))
        if self.levels > 1 and draw.random() < 0.3:
            levels = draw.sample(range(self.levels), 2)
        steps = tuple((level, draw.randrange(-2, 6) or 1) for level in levels)
        self.coverage["edge"] += 1
        if draw.random() < 0.5:
            self.coverage["edge by register"] += 1
            return Edge(0, steps, 3)
        return Edge(draw.randrange(-3, 20), steps)

    def _tile(self, space, address, shape, edges, *, written=False, form="int8", extras=False):
        """Return a tile in the 4096 bytes from `address`, or in a unit's RANK of a region."""
        draw = self.random
        size = 4 if form == "int32" else 1
        strides = (draw.randrange(shape[1], 33), 1)
        loops = [(level, draw.randrange(-5, 6)) for level in range(draw.choice([self.levels, 7]))]
        loops = [pair for pair in loops if pair[1]]
        if written:
            loops.append((UNIT_LEVEL, RANK // size))
        elif draw.random() < 0.4:
            loops.append((UNIT_LEVEL, draw.randrange(1, 50)))
        based = draw.random() < 0.5
        self.coverage["base register"] += based
        group = gather = None
        if extras and draw.random() < 0.3:
            scale = self._operand(Operand("", DRAM, 128, (8,), (1,), "int8"))
            group = Group(0, 4, scale, scale if draw.random() < 0.5 else None)
            self.coverage["group"] += 1
        if extras and not edges and draw.random() < 0.3:
            index = self._operand(Operand("", DRAM, TABLE, (8,), (1,), "int32"))
            gather = Gather(0, index, 4)
            self.coverage["gather"] += 1
        return self._operand(Operand(
            "", space, address + 512 + draw.randrange(32) * size, shape, strides, form,
            base_register=BASE if based else None, loop_strides=tuple(loops), edges=edges,
            group=group, gather=gather))


def _scalar(alu, rd, ra, b):
    return Instruction(Opcode.SCALAR, fields={"alu": alu, "rd": rd, "ra": ra, "b": b})


def _loop(count, **fields):
    return Instruction(Opcode.LOOP, fields={"count": count, **fields})


def _with(instruction, **changes):
    names = {name: getattr(instruction, name) for name in Instruction.__slots__}
    return Instruction(**{**names, **changes})
