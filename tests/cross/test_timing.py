"""docs/timing.md against the simulator and golden: the schedule worked out by hand."""

from itertools import takewhile
from pathlib import Path

from archsim.diff_exec import first_difference
from archsim.engine.simulate import simulate
from machine.assembly import parse
from machine.load import read_machine
from machine.opcodes import Opcode

ROOT = Path(__file__).parents[2]
PROGRAM = parse((ROOT / "examples" / "programs" / "gemm_tiny.prog").read_text())


def schedule():
    """Return the rows of the page's table of instructions, without the reason."""
    lines = (ROOT / "docs" / "timing.md").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("| queue | instruction |"))
    rows = takewhile(lambda line: line.startswith("|"), lines[at + 2 :])
    return {tuple(cell.strip() for cell in line.strip("|").split("|")[:-1]) for line in rows}


def named(entry):
    """Return an entry of the log in the page's words."""
    stream = next(s for s in PROGRAM.streams if str(s.queue) == entry.queue)
    instruction = stream.instructions[entry.pc]
    name = Opcode(instruction.opcode).name.lower()
    if name == "load":
        source = PROGRAM.operands[instruction.operands["src"]].name
        name += " " + source.removesuffix("_dram")
    n, k = (*(str(index) for index in entry.indices), "-")[:2]
    return (entry.queue.removeprefix("chip0."), name, n, k,
            str(entry.issue), str(entry.start), str(entry.completion))


def test_the_simulator_keeps_the_schedule_of_the_page():
    result = simulate(PROGRAM, read_machine("tiny"))
    assert {named(entry) for entry in result.log.entries()} == schedule()
    assert len(schedule()) == len(result.log) == 20


def test_two_runs_of_the_program_do_not_differ():
    tiny = read_machine("tiny")
    one, other = simulate(PROGRAM, tiny).log, simulate(PROGRAM, tiny).log
    assert first_difference(one, other) is None
