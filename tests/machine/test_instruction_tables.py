"""The page of the instruction set: its tables are the code's, its example is a program."""

import re
from pathlib import Path

import pytest

from machine.assembly import parse
from machine.instruction_tables import fill, tables
from machine.opcodes import OPCODES, Opcode
from machine.program import Launch
from machine.records import INSTRUCTION, OPERAND
from machine.vector import VectorOp
from machine.verify import verify

PAGE = (Path(__file__).parents[2] / "docs" / "instruction-set.md").read_text()


def test_the_tables_of_the_page_are_those_of_the_code():
    assert fill(PAGE) == PAGE


def test_the_page_shows_every_table_once():
    assert sorted(re.findall(r"<!-- table: (\S+) -->", PAGE)) == sorted(tables())


def test_a_table_that_was_edited_by_hand_is_renewed():
    edited = PAGE.replace("| 33 | `matmul`", "| 34 | `matmul`")
    assert edited != PAGE
    assert fill(edited) == PAGE


def test_an_unknown_table_is_refused():
    with pytest.raises(KeyError, match="colours"):
        fill("<!-- table: colours -->\n<!-- end -->")


@pytest.mark.parametrize("name, rows", [
    ("opcodes", len(Opcode)), ("vector", len(VectorOp)),
    ("fields", sum(len(spec.fields) for spec in OPCODES.values())),
    ("instruction", len(INSTRUCTION.slots)), ("operand", len(OPERAND.slots))])
def test_a_table_has_a_row_for_everything(name, rows):
    assert len(tables()[name].splitlines()) == rows + 2


@pytest.mark.parametrize("length", [0, 1, 8, 37])
def test_the_example_of_the_page_is_a_right_program(length):
    (example,) = re.findall(r"```text\n(program .*?)```", PAGE, re.DOTALL)
    assert verify(parse(example, "page"), Launch({"length": length})) == []
