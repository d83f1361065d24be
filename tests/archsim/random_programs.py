"""Seeded random programs on random machines, and all that the simulator says of one.

A program is made step by step: each step is an instruction of some queue, and may wait for tokens
that steps in front of it signal, all in loops of the same trips. In a loop a token has one waiter:
of two, one could take what the other needs. So no order of the queues can deadlock. What a program
computes means nothing.

As a script it prints the outcomes of the seeds it is given, a line each.
"""

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace

from archsim.dram.channels import Memory
from archsim.engine.simulate import Engine
from archsim.result import collect
from machine.assembly import parse
from machine.buffer import PortConfig
from machine.chip import Machine
from machine.clock import ClockConfig
from machine.link import LinkConfig
from machine.load import read_machine
from machine.program import Launch

__all__ = ["make_machine", "make_program", "outcome"]

UNITS = {"dma": 3, "array": 4, "vector": 3, "link": 1}
TILES = 3  # operands of each kind


def make_machine(seed: int) -> Machine:
    """Return a machine with four arrays and three vector units; ports, banks and clocks vary."""
    rng = random.Random(seed)
    tiny = read_machine("tiny", ["dram.channels=" + rng.choice("148")])
    clocks = tiny.clocks
    if rng.random() < 0.4:
        clocks = (*clocks, ClockConfig(name="slow", period_ps=rng.choice([1500, 2000, 3000])))
    slow = clocks[-1].name if len(clocks) > len(tiny.clocks) else "core"
    alone = rng.random() < 0.5
    ports = tuple(
        PortConfig(name=name, clients=(name,), count=count if alone else rng.randint(1, count))
        for name, count in UNITS.items())
    memory = replace(
        tiny.dram, refresh=rng.choice(["off", "all_bank_staggered"]),
        queue_entries=rng.choice([3, 8, 32]), overtakes_max=rng.choice([0, 4, 64]),
        command_bus=rng.choice(["shared", "row+column"]))
    buffers = {
        name: replace(getattr(tiny, name), ports=ports, word_bytes=rng.choice([8, 32, 64]),
                      banks=16 if alone else rng.choice([1, 2, 4, 16]))
        for name in ("scratchpad", "accumulator")}
    return replace(
        tiny, clocks=clocks, dram=memory, **buffers, chips=2,
        arrays=(replace(tiny.arrays[0], count=UNITS["array"]),),
        vectors=(replace(tiny.vectors[0], count=UNITS["vector"], clock=slow),),
        dma=replace(tiny.dma, count=UNITS["dma"], outstanding=rng.randint(1, 4)),
        links=LinkConfig(count=1, bytes_per_cycle=rng.choice([4, 32]), latency_cycles=5))


def make_program(seed: int) -> str:
    """Return a program as text: one or two chips, up to four loops after each other."""
    rng = random.Random(seed)
    chips = 1 if rng.random() < 0.7 else 2
    queues = [f"chip{chip}.{name}{number}" for chip in range(chips)
              for name, number in (("dma", 0), ("dma", 1), ("array", 0), ("vector", 0))]
    bodies: dict[str, list[str]] = {name: [f" r1 = {rng.randint(0, 1)}"] for name in queues}
    if chips == 2:
        bodies |= {f"chip{chip}.link0": [" r1 = 1"] for chip in range(2)}
    tokens: list[str] = []
    for phase in range(rng.randint(1, 4)):
        trips = rng.randint(1, 4)
        for name, lines in _phase(rng, list(bodies), tokens, phase, trips).items():
            bodies[name] += [f" loop {trips}", *lines, " end"] if lines else []
    head = ["program random version 1", "needs systolic vector link", f"chips {chips}"]
    head += [f"token {name}" for name in tokens] + list(_operands(rng))
    streams = [line for name, lines in bodies.items()
               for line in (f"stream {name}", *lines, " halt")]
    return "\n".join([*head, *streams]) + "\n"


def _operands(rng: random.Random) -> Iterator[str]:
    """Declare operands of every kind; loop 0 and the unit move some, edges cut some."""
    for n in range(TILES):
        m, k, cols = rng.randint(1, 20), rng.randint(2, 24), rng.randint(1, 20)
        edge = rng.choice(["", f" edge 0:{rng.randint(1, 2 * m)}-7*{rng.randint(1, m)}",
                           f" edge 0:{rng.randint(1, 3 * m)}-0*{m}"])
        yield f"operand a{n} scratchpad 0x0 int8 [{m},{k}] stride [{k},1]{edge}"
        yield f"operand w{n} scratchpad 0x400 int8 [{k},{cols}] stride [{cols},1]"
        yield f"operand z{n} accumulator 0x0 int32 [{m},{cols}] stride [{cols},1]{edge}"
        yield f"operand b{n} scratchpad 0x400 int8 [{k % 8 + 1},8] stride [8,1]"
        yield f"operand c{n} scratchpad 0x0 int8 [{m},{k % 8 + 1}] stride [{k % 8 + 1},1]"
        yield f"operand y{n} accumulator 0x0 int32 [{m},8] stride [8,1]"
        width = rng.choice([4, 16, 50])
        edge = rng.choice(["", f" edge 0:{rng.randint(0, 9)}-7*{rng.randint(1, 4)}"])
        yield f"operand v{n} scratchpad 0x800 float32 [{m},{width}] stride [{width},1]{edge}"
        rows, size = rng.choice([(1, 1024), (1, 8192), (4, 300), (16, 128), (9, 64)])
        stride = size + rng.choice([0, 0, 64, 1000, 32 * 1024])
        moved = rng.choice(["", f" loop 0:{size}", " loop 0:8192", " loop 0:3000"])
        yield (f"operand d{n} dram {n * 1_000_000:#x} int8 [{rows},{size}] stride [{stride},1]"
               f"{moved}")
        yield f"operand p{n} scratchpad 0x1000 int8 [{rows},{size}] stride [{size},1]"


def _phase(
    rng: random.Random, queues: list[str], tokens: list[str], phase: int, trips: int
) -> dict[str, list[str]]:
    """Return the bodies of one loop of every queue; new tokens are added to `tokens`."""
    bodies: dict[str, list[str]] = {name: [] for name in queues}
    waits: list[tuple[str, int]] = []  # tokens signalled in front, and counts that are left
    for step in range(rng.randint(2, 14)):
        name = rng.choice([one for one in queues if "link" not in one])
        text = _instruction(rng, name)
        for place in sorted(rng.sample(range(len(waits)), min(len(waits), rng.randint(0, 2)))):
            token, left = waits[place]
            if left:
                taken = 1 if trips == 1 else rng.randint(1, left)
                waits[place] = token, left - taken if trips == 1 else 0
                text += f" {token}:{taken}" if " wait " in text else f" wait {token}:{taken}"
        if rng.random() < 0.6:
            token, count = f"t{phase}_{step}", rng.randint(1, 3)
            tokens.append(token)
            waits.append((token, count))
            text += f" signal {token}:{count}"
        bodies[name].append(text)
        if "chip1.link0" in bodies and rng.random() < 0.3:
            n, sender = rng.randrange(TILES), rng.randrange(2)
            bodies[f"chip{sender}.link0"].append(f" send src=p{n} peer={1 - sender} tag={n}")
            bodies[f"chip{1 - sender}.link0"].append(f" recv dst=p{n} peer={sender} tag={n}")
    return bodies


def _instruction(rng: random.Random, queue: str) -> str:
    """Return an instruction for `queue`, without tokens."""
    kind, n = queue.split(".")[1][:-1], rng.randrange(TILES)
    other = rng.random()
    if other < 0.1:
        return " nop"
    if other < 0.15:
        return " fence"
    if kind == "dma":
        units = "" if queue.endswith("0") else f" units={rng.choice(['0x2', '0x4', '0x6'])}"
        return f" load src=d{n} dst=p{n}{units}" if rng.random() < 0.7 else (
            f" store src=p{n} dst=d{n}{units}")
    units = f" units={rng.randrange(1, 1 << UNITS[kind]):#x}" if rng.random() < 0.6 else ""
    when = rng.choice(["", "", " if r1", " if !r1"])
    if kind == "vector":
        return f" vector vop={rng.choice(['copy', 'relu'])} x=v{n} y=v{n}{units}{when}"
    form = rng.random()
    if form < 0.15:
        return f" preload w=b{n}{units}{when}"
    if form < 0.3:
        return f" matmul a=c{n} acc=y{n} dataflow=ws{units}{when}"
    return f" matmul a=a{n} w=w{n} acc=z{n} dataflow={rng.choice(['os', 'ws'])}{units}{when}"


def outcome(seed: int, *, together: bool = True, shortcuts: bool = True) -> str:
    """Return all that the simulator says of the program of `seed`, as text.

    `together` and `shortcuts` are the engine's and the memory's, and change nothing.
    """
    machine, program = make_machine(seed), parse(make_program(seed))
    engine = Engine(program, machine, Launch(), {}, together=together)
    engine.memories = [Memory(machine.dram, ports=machine.dma.count + 1, shortcuts=shortcuts)
                       for _ in engine.memories]
    engine.run()
    result = collect(engine)
    return json.dumps([
        result.ticks, list(map(str, result.log.entries())), result.accounts,
        [str(memory.counters(channel)) for memory in engine.memories
         for channel in range(machine.dram.channels)],
        {name: parts.tolist() for name, parts in result.parts.items()},
        {name: rows.tolist() for name, rows in result.rows.items()},
        [str(sorted(work.words().items())) for work in result.work]])


if __name__ == "__main__":
    for number in sys.argv[1:]:
        print(outcome(int(number)))
