"""The sentence of every mistake."""

import pytest

from machine.errors import UserError, must_be, nearest, unknown


def test_sentence_says_where_what_and_what_it_was():
    assert str(must_be("rows", "at least 1", 0)) == "rows must be at least 1, not 0"
    assert str(must_be("rows", "a number", "x", where="a.toml")) == (
        "a.toml: rows must be a number, not 'x'")


def test_unknown_name_lists_the_known_in_order_and_the_nearest():
    assert str(unknown("block", "systolik", ["vector", "systolic"])) == (
        "block must be one of systolic, vector, not 'systolik'; did you mean 'systolic'?")
    assert str(unknown("block", "xyz", ["vector"], where="f")) == (
        "f: block must be one of vector, not 'xyz'")


@pytest.mark.parametrize(("name", "known", "found"), [
    ("rows", ["rows", "cols"], "rows"), ("rwos", ["rows", "cols"], "rows"),
    ("zzzz", ["rows", "cols"], None), ("rows", [], None)])
def test_nearest_is_close_or_none(name, known, found):
    assert nearest(name, known) == found


def test_mistakes_are_value_errors():
    assert issubclass(UserError, ValueError)
    assert isinstance(unknown("a", "b", ["c"]), UserError)
