"""docs/worked-example.md against golden and the simulator: numbers, addresses, every token."""

import re
from pathlib import Path

import numpy as np
import pytest

from archsim.engine.simulate import simulate
from machine.assembly import parse
from machine.control import Cursor
from machine.load import read_machine
from machine.opcodes import Opcode
from machine.verify import check

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "worked-example.md").read_text()
PROGRAM = parse((ROOT / "examples" / "programs" / "gemm_tiny.prog").read_text())


def table(first_heading):
    """Return the rows below the heading row of the table whose first heading is given."""
    lines = iter(PAGE.splitlines())
    for line in lines:
        if line.startswith(f"| {first_heading} |"):
            next(lines)
            rows = []
            for row in lines:
                if not row.startswith("|"):
                    return rows
                rows.append([cell.strip() for cell in row.strip("|").split("|")])
    raise AssertionError(f"no table begins with {first_heading!r}")


@pytest.fixture(scope="module")
def result():
    """Run the page's own code and return what it calls result."""
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    code = code.replace("examples/programs", str(ROOT / "examples" / "programs"))
    names = {"print": lambda *_: None}
    exec(compile(code, "docs/worked-example.md", "exec"), names)
    return names["result"]


def test_golden_computes_the_numbers_of_the_page(result):
    rows = [line for line in PAGE.splitlines() if re.match(r"\| \*\*\d\*\* \|", line)]
    numbers = [[int(cell) for cell in row.strip("| ").split("|")[1:]] for row in rows]
    np.testing.assert_array_equal(result.tensors["C"], numbers)
    i, j = np.ogrid[:8, :16]
    np.testing.assert_array_equal(numbers, (i + 2) * (i - j) + 8)


def test_operands_resolve_to_the_addresses_of_the_page():
    operands = {operand.name: operand for operand in PROGRAM.operands}
    headings = ("a_dram", "w_dram", "a_tile", "w_tile", "c_tile", "c_dram")
    sizes = {"int8": 1, "int32": 4}
    array = next(s for s in PROGRAM.streams if s.queue.kind.name == "ARRAY")
    cursor = Cursor(PROGRAM, array, {})
    found = []
    while (step := cursor.next_step()) is not None:
        if step.instruction.opcode == Opcode.MATMUL:
            tiles = [step.resolve(operands[name]) for name in headings]
            found.append([*step.indices] + [
                t.address_bytes + t.offset_elements * sizes[t.operand.format] for t in tiles])
    assert found == [[int(cell, 0) for cell in row] for row in table("n")]


def test_golden_executes_in_the_order_of_the_page_with_its_token_counts(result):
    counts = [token.initial for token in PROGRAM.tokens]
    assert [token.name for token in PROGRAM.tokens] == ["free", "full", "done"]
    instructions = {str(s.queue): s.instructions for s in PROGRAM.streams}
    names = [operand.name for operand in PROGRAM.operands]
    rows = []
    for number, entry in enumerate(result.log, 1):
        instruction = instructions[entry.queue][entry.pc]
        takes = [PROGRAM.tokens[t].name for t, _ in instruction.waits]
        gives = [PROGRAM.tokens[t].name for t, _ in instruction.signals]
        for token, count in instruction.waits:
            counts[token] -= count
        for token, count in instruction.signals:
            counts[token] += count
        name = Opcode(instruction.opcode).name.lower()
        if name == "load":
            name += " " + names[instruction.operands["dst"]][0]
        n, k = (*entry.indices, "-")[:2]
        rows.append([str(number), entry.queue.removeprefix("chip0."), name, str(n), str(k),
                     " ".join(takes), " ".join(gives), *map(str, counts)])
    assert rows == table("step")


def test_starting_counts_of_the_page_are_the_program_s():
    listed = {row[0]: int(row[2]) for row in table("token")}
    assert listed == {token.name: token.initial for token in PROGRAM.tokens}


def test_the_verifier_accepts_it_and_counts_end_as_they_began(result):
    check(PROGRAM)
    assert table("step")[-1][-3:] == [str(token.initial) for token in PROGRAM.tokens]


def test_simulator_keeps_each_queue_s_order_and_every_token(result):
    timed = simulate(PROGRAM, read_machine("tiny"))
    given = {token.name: [0] * token.initial for token in PROGRAM.tokens}
    taken = {token.name: [] for token in PROGRAM.tokens}
    for stream in PROGRAM.streams:
        entries = timed.log.of(str(stream.queue))
        rows = [row for row in table("step") if f"chip0.{row[1]}" == str(stream.queue)]
        assert [(*map(str, entry.indices), "-")[:2] for entry in entries] == [
            (row[3], row[4]) for row in rows]
        for entry, row in zip(entries, rows, strict=True):
            if row[5]:
                taken[row[5]].append(entry.issue)
            if row[6]:
                given[row[6]].append(entry.completion)
    for name, times in taken.items():
        # Each token here has one giver and one taker: count c is taken after it was given.
        for issue, completion in zip(sorted(times), sorted(given[name]), strict=False):
            assert issue >= completion, name
        assert len(times) <= len(given[name])
