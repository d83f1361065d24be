# amaranth: UnusedElaboratable=no
"""The front end in RTL against the simulator's rules: what starts where, with what, and when."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Shape
from amaranth.lib import data
from front_end_bench import MOST, WORDS, Simulation, Stubs, ints, machine_with

from archsim.engine.simulate import simulate
from hw.control import command_layout
from hw.operands import tile_layout
from machine.assembly import parse
from machine.encoding import encode
from machine.formats import format_named
from machine.front_end import Trap
from machine.opcodes import OPCODES, Alu, Mode, Opcode
from machine.places import Places
from machine.program import (
    NO_LEVEL,
    Instruction,
    Launch,
    Operand,
    Program,
    Queue,
    QueueKind,
    Space,
    Stream,
    Token,
)
from machine.records import SECTIONS, field_record
from machine.verify import verify

ROOT = Path(__file__).parents[2]
@pytest.fixture(scope="module")
def tiny():
    """The front end of `tiny`, soon compiled, at 600 cycles a second."""
    return Simulation(machine_with(), optimize=0)


@pytest.fixture(scope="module")
def fast_tiny():
    """The same, compiled in minutes, for long programs."""
    return Simulation(machine_with(), optimize=1)


def packed(layout, values):
    """Return the bits of a struct whose members are `values`, integers or lists of them."""
    bits = 0
    for name, field in layout:
        value = values[name]
        if isinstance(field.shape, data.ArrayLayout):
            width = Shape.cast(field.shape.elem_shape).width
            value = sum((one % 2**width) << i * width for i, one in enumerate(value))
        bits |= (value % 2**Shape.cast(field.shape).width) << field.offset
    return bits


def tile_bits(cfg, role, part, unit, tile):
    """Return the bits of a resolved operand as the front end sends it."""
    operand = tile.operand
    count = len(operand.shape)
    pad = [0] * (4 - count)
    return packed(tile_layout(cfg), {
        "role": role, "part": part, "unit": unit, "space": operand.space,
        "layout": operand.layout, "format": format_named(operand.format).code,
        "dimensions": count, "address": tile.address_bytes, "offset": tile.offset_elements,
        "sizes": [*tile.shape, *pad], "strides": [*operand.strides, *pad],
        "group_axis": 0 if operand.group is None else operand.group.axis + 1,
        "group_size": 0 if operand.group is None else operand.group.size,
        "gather_axis": 0 if operand.gather is None else operand.gather.axis + 1,
        "gather_granule": 0 if operand.gather is None else operand.gather.granule,
    })


def command_bits(step):
    """Return the bits of what a unit is told to do."""
    instruction = step.instruction
    opcode = Opcode(instruction.opcode)
    values = {field.name: field.default for field in OPCODES[opcode].fields} | dict(
        instruction.fields)
    fields = field_record(opcode).pack(values, "")
    # Where the opcode has no such field, the bits mean nothing and are not compared.
    position = values.get("position", 0)
    register = values.get("position_register", 31)
    if register < 16:
        position += step.registers[register]
    level = values.get("set_level", NO_LEVEL)
    sets = values.get("mode", 0) == Mode.SET
    if level != NO_LEVEL:
        sets = level >= len(step.indices) or step.indices[level] == 0
    return packed(command_layout(), {
        "opcode": opcode, "fields": fields, "position": position, "sets": sets})


def _mask(opcode):
    """Return the bits of a command that mean something for `opcode`."""
    return packed(command_layout(), {
        "opcode": -1, "fields": -1, "position": -(opcode == Opcode.VECTOR),
        "sets": opcode == Opcode.MATMUL})


def events_of(rules, tiles_of, cfg, program):
    """Return what each output stream must show: (cycle, payload) in order."""
    events = {}
    for head in rules.heads:
        queue = head.stream.queue
        n = cfg.queues.index((queue.kind, queue.index))
        add = events.setdefault
        for one in head.log:
            step, opcode = one.step, one.step.instruction.opcode
            add(f"o_issue{n}", []).append((one.issue, step.pc | step.layer % 2**16 << 16))
            add(f"o_start{n}", []).append((one.start, 0))
            if not one.by_units:
                add(f"o_gives{n}", []).append((one.completion, 0))
            if step.active and opcode == Opcode.READ:
                operand = program.operands[step.instruction.operands["src"]]
                bits = tile_bits(cfg, 0, 0, 0, step.resolve(operand))
                add(f"o_read{n}", []).append((one.start, bits))
            elif step.active and opcode > Opcode.READ:
                place = cfg.queues.index((queue.kind, 0))
                for role, part, unit, tile in tiles_of(program, step):
                    add(f"o_tile{place + unit}", []).append(
                        tile_bits(cfg, role, part, unit, tile))
                for unit in one.by_units:
                    add(f"o_command{place + unit}", []).append((one.start, step))
    return events


def compare(simulation, rules_module, program, launch, stubs):
    """Run a program on the rules and in RTL, and assert that every event is the same."""
    machine, cfg = simulation.machine, simulation.cfg
    rules = rules_module.Rules(program, launch, machine.sequencer, stubs).run()
    assert all(head.halted and not head.open for head in rules.heads)
    events = events_of(rules, rules_module.tiles_of, cfg, program)
    for n, dones in enumerate(stubs.dones):
        events[f"o_done{n}"] = [(cycle, 0) for cycle in dones]
    counts = {name: len(found) for name, found in events.items()} | {"o_run": 1, "o_end": 1}
    values = [launch.values.get(name, 0) for name in program.launch]
    logs = simulation.run(encode(program), values, stubs, counts, rules.last + 100)
    end = ints(logs["o_end"])[0]
    assert end & 31 == Trap.NONE, Trap(end & 31)
    zero = int(logs["o_run"].cycles[0])
    for name, found in sorted(events.items()):
        where = f"{program.name}: {name}"
        payloads, cycles = ints(logs[name]), (logs[name].cycles - zero).tolist()
        if "tile" in name:
            assert payloads == found, where
            continue
        assert cycles == [cycle for cycle, _ in found], where
        for at, (got, (_, want)) in enumerate(zip(payloads, found, strict=True)):
            mask = -1
            if "command" in name:
                mask, want = _mask(want.instruction.opcode), command_bits(want)
            assert got & mask == want & mask, f"{where}[{at}]"
    seen = sum(len(found) for name, found in events.items() if "tile" in name or "issue" in name)
    assert end >> 32 == seen
    return rules


def run_random(simulation, rules_module, maker, seed):
    """Compare the random program of `maker`."""
    program, launch, values = maker.program()
    assert not verify(program, launch, simulation.machine, values)
    stubs = Stubs(simulation.machine, MOST, seed, maker.answer)
    compare(simulation, rules_module, program, launch, stubs)


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.parametrize("seed", range(100))
def test_a_random_program_issues_and_starts_by_the_rules(fast_tiny, timing_rules, random_program,
                                                         seed):
    run_random(fast_tiny, timing_rules, random_program(seed), seed)


SHORT = (1116, 481, 821, 1090)  # seeds of few words that execute everything together
EVERY = {
    *(f"alu {alu.name.lower()}" for alu in Alu), "base register", "edge", "edge by register",
    "fence", "fence predicated", "flush", "gather", "group", "load", "loop by register",
    "loop of 0", "loop predicated", "matmul", "matmul predicated", "nop", "nop predicated",
    "preload", "read", "read predicated", "scalar predicated", "store", "tokens",
    "tokens in a loop", "units 1", "units 2", "units 3", "vector",
}


@pytest.mark.cxxrtl
def test_short_programs_with_everything_issue_and_start_by_the_rules(tiny, timing_rules,
                                                                     random_program):
    makers = [random_program(seed, short=True) for seed in SHORT]
    for seed, maker in zip(SHORT, makers, strict=True):
        run_random(tiny, timing_rules, maker, seed)
    seen = sum((maker.coverage for maker in makers), Counter())
    assert EVERY - {name for name, count in seen.items() if count} == set()


class Replay:
    """Units whose times are those of a run of the simulator."""

    def __init__(self, program, launch, machine, log):
        self.entries = {s.queue: list(log.of(str(s.queue))) for s in program.streams}
        self.places = Places(program, launch, machine)
        self.logs = {}  # what the rules have issued of each queue

    def _entry(self, queue):
        """Return what the simulator has of the instruction that waits to start."""
        return self.entries[queue][len(self.logs[str(queue)]) - 1]

    def accepts_from(self, queue, unit):
        return self._entry(queue).start

    def start(self, queue, driven, cycle):
        return [self._entry(queue).completion] * len(driven)

    def read(self, queue, tile, cycle):
        return self.places.launched(queue.chip, tile)[0], self._entry(queue).completion


def programs_of_tiny():
    """Return (name, program, launch) of what `tiny` can take of the programs by hand."""
    pages = {"length": [5, 16, 40, 0], "pages": [7, 0, 0, 0, 3, 11, 0, 0, 9, 2, 5, 0, 0, 0, 0, 0]}
    experts = {"count": [5, 3, 0, 4], "tokens": [n % 6 for n in range(24)],
               "slots": [n % 12 for n in range(24)]}
    launches = {"paged_decode": Launch({"batch": 3}, pages), "moe_top2": Launch({}, experts),
                "mlgru": Launch({"steps": 5})}
    for path in sorted((ROOT / "examples" / "programs").glob("*.prog")):
        if path.stem not in ("lut_w2a8", "pim_attention", "all_reduce"):
            yield path.stem, parse(path.read_text()), launches.get(path.stem, Launch())


PROGRAMS = list(programs_of_tiny())
NAMES = [name for name, *_ in PROGRAMS]
SEQUENCERS = [{}, {"issue_cycles": 3, "control_cycles": 2, "token_latency_cycles": 0},
              {"operand_cycles": 0, "long_cycles": 0, "token_latency_cycles": 5}]


@pytest.mark.parametrize("changes", SEQUENCERS, ids=lambda changes: "-".join(changes) or "rtl")
@pytest.mark.parametrize("name, program, launch", PROGRAMS, ids=NAMES)
def test_the_rules_are_the_simulators(timing_rules, name, program, launch, changes):
    machine = machine_with(**changes)
    if name == "gemm_ws":
        machine = replace(machine, arrays=(replace(machine.arrays[0], count=2),))
    timed = simulate(program, machine, launch).log
    replay = Replay(program, launch, machine, timed)
    rules = timing_rules.Rules(program, launch, machine.sequencer, replay)
    replay.logs = rules.log
    for queue, log in rules.run().log.items():
        found = [(one.step.pc, one.step.layer, one.issue, one.start, one.completion)
                 for one in log]
        assert found == [(e.pc, e.layer, e.issue, e.start, e.completion)
                         for e in timed.of(queue)], queue


BY_HAND = [
    pytest.param(name, program, launch, id=name,
                 marks=[] if name == "gemm_tiny" else pytest.mark.slow)
    for name, program, launch in PROGRAMS
    if name in ("gemm_tiny", "gemm_os", "w4a8_grouped")
]


@pytest.mark.cxxrtl
@pytest.mark.parametrize("name, program, launch", BY_HAND)
def test_a_program_by_hand_issues_and_starts_by_the_rules(tiny, timing_rules, name, program,
                                                          launch):
    stubs = Stubs(tiny.machine, MOST, len(name), None)
    compare(tiny, timing_rules, program, launch, stubs)


NOWHERE = 0xFF  # queue of a place that is no instruction
ARRAY_QUEUE = 3  # of `tiny`: three transfer engines before it
WAITS = Instruction(Opcode.NOP, waits=((0, 1),))
HALT = Instruction(Opcode.HALT)


def small_program(*array, initial=0, waits=WAITS):
    """Return a program whose dma0 waits for a token, and whose array0 executes `array`."""
    operands = tuple(Operand(f"o{n}", Space.DRAM, 64 * n, (4,), (1,), "int8") for n in range(2))
    return Program(
        name="trap", symbols=(), launch=("one", "two"), capabilities=frozenset(),
        tokens=(Token("first", 0), Token("second", initial)), operands=operands, ops=(),
        streams=(Stream(Queue(QueueKind.DMA), (waits, HALT)),
                 Stream(Queue(QueueKind.ARRAY), (*array, HALT))))


def ends(tiny, image, *, runs=False, base=None):
    """Run `image` until it stops; return the trap, and the queue and number where."""
    counts = {"o_end": 1, "o_run": int(runs)}
    log = tiny.run(bytes(image), [0, 0], None, counts, 1000, base)
    end = ints(log["o_end"])[0]
    return Trap(end & 31), end >> 24 & 0xFF, end >> 8 & 0xFFFF


NOP = Instruction(Opcode.NOP)
CORRUPT = {
    # The section or "" for the header, the bit that changes in it, and what is reported where.
    "magic": ("", 0, Trap.HEADER, NOWHERE, 0),
    "version": ("", 40, Trap.HEADER, NOWHERE, 0),
    "reserved of the header": ("", 160 + 351, Trap.RESERVED, NOWHERE, 7),
    "a section out of place": ("", 512 + 64 * SECTIONS.index("tokens"), Trap.HEADER, NOWHERE,
                               8 + SECTIONS.index("tokens")),
    "reserved of an operand": ("operands", 2048 + 320, Trap.RESERVED, NOWHERE, 1),
    "format of an operand": ("operands", 2048 + 63, Trap.RECORD, NOWHERE, 1),
    "queue of a stream": ("streams", 128 + 2, Trap.QUEUE, NOWHERE, 1),
    "reserved of an instruction": ("instructions", 512 * 3 + 14, Trap.RESERVED, ARRAY_QUEUE, 1),
    "opcode": ("instructions", 512 * 3 + 7, Trap.OPCODE, ARRAY_QUEUE, 1),
    "token": ("instructions", 85, Trap.TOKEN, 0, 0),
}


@pytest.mark.cxxrtl
def test_a_bit_that_changes_in_a_program_is_refused_where_it_stands(tiny):
    image = encode(small_program(NOP, NOP))
    for what, (name, bit, trap, queue, number) in CORRUPT.items():
        wrong = bytearray(image)
        at = 64 + 8 * SECTIONS.index(name) if name else None  # where the header says it is
        first = int.from_bytes(image[at : at + 4], "little") if name else 0
        wrong[first + bit // 8] ^= 1 << bit % 8
        assert ends(tiny, wrong) == (trap, queue, number), what


@pytest.mark.cxxrtl
def test_a_word_that_memory_does_not_have_is_a_bus_error_at_the_value(tiny):
    image = encode(small_program(NOP, NOP))
    assert ends(tiny, image, base=8 * (WORDS - 1)) == (Trap.BUS, NOWHERE, 1)


@pytest.mark.cxxrtl
def test_what_goes_wrong_in_a_run_traps(tiny):
    found = ends(tiny, encode(small_program(NOP, NOP)), runs=True)
    assert found[0] == Trap.DEADLOCK  # of which no place is meant

    gives = Instruction(Opcode.NOP, signals=((1, 1),))
    full = small_program(gives, initial=2**16 - 1)
    assert ends(tiny, encode(full), runs=True) == (Trap.OVERFLOW, NOWHERE, 1)

    long = [Instruction(Opcode.SCALAR, fields={"alu": Alu.SET, "rd": 2, "b": 2**24}),
            Instruction(Opcode.LOOP, fields={"count": 2, "count_is_register": 1}),
            Instruction(Opcode.END)]
    assert ends(tiny, encode(small_program(*long)), runs=True) == (Trap.COUNT, ARRAY_QUEUE, 1)
