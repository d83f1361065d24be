"""What archsim lists is what it has."""

import pytest

from archsim.catalogue import catalogue, catalogue_table, check_file
from machine.errors import UserError
from machine.formats import FORMATS
from machine.load import preset_names, read_machine
from machine.opcodes import Opcode
from machine.vector import VectorOp
from mapping.families import model_names

KINDS = ("machines", "models", "formats", "instructions", "operations", "blocks")


def names(what):
    return [row["name"] for row in catalogue(what)]


def test_every_thing_that_is_known_is_listed():
    assert names("machines") == preset_names()
    assert names("models") == model_names()
    assert names("formats") == list(FORMATS)
    assert names("instructions") == [op.name.lower() for op in Opcode]
    assert names("operations") == [op.name.lower() for op in VectorOp]


def test_blocks_carry_the_declared_fidelity():
    listed = {(row["machine"], row["block"]): row["fidelity"] for row in catalogue("blocks")}
    assert listed == {(name, block): mark for name in preset_names()
                      for block, mark in read_machine(name).fidelities.items()}


@pytest.mark.parametrize("what", KINDS)
def test_table_has_a_row_for_each_and_a_column_for_each_key(what):
    rows = catalogue(what)
    table = catalogue_table(rows)
    assert table.row_count == len(rows) > 0
    assert [column.header for column in table.columns] == list(rows[0])


def test_unknown_kind_names_the_known():
    with pytest.raises(UserError, match="^list must be one of blocks, formats, instructions, "):
        catalogue("thing")


def test_published_parameter_count_is_told_with_the_model():
    # Llama-2-7B: 6,738,415,616 parameters, arXiv 2307.09288's checkpoint.
    assert check_file("llama-2-7b") == {
        "file": "llama-2-7b", "is": "a model, llama-2-7b, 6,738,415,616 parameters"}
    assert check_file("tiny") == {"file": "tiny", "is": "a machine, tiny"}
