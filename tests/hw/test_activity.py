"""Switching energy: by hand for a few gates, by probability for random inputs."""

import pytest

from hw.activity import Every, switching_energy_pj
from hw.liberty import compile_function, read_cells, supply_volts

# One farad-volt world: 1 pF inputs, no internal energy but what a test gives, 2 V: 2 pJ an edge.
LIBERTY = """
library(tiny) {
  nom_voltage : 2;
  cell (AND3) {
    pin(A) { direction : input; capacitance : 1; }
    pin(B) { direction : input; capacitance : 1; }
    pin(C) { direction : input; capacitance : 1; }
    pin(Y) { direction : output; capacitance : 0; function : "(A B C)"; %s }
  }
  cell (INV) {
    pin(A) { direction : input; capacitance : 1; }
    pin(Y) { direction : output; capacitance : 0; function : "(!A)"; }
  }
  cell (DFF) {
    ff (IQ,IQN) { next_state : "D"; clocked_on : "CLK"; }
    pin(CLK) { direction : input; capacitance : 3; clock : true; }
    pin(D) { direction : input; capacitance : 1; }
    pin(Q) { direction : output; capacitance : 0; function : "IQ"; }
  }
}
"""
TABLE = """internal_power() { related_pin : "A";
  rise_power(t) { index_1 ("0, 0.03"); index_2 ("0.1, 0.3"); values ("1, 3", "3, 5"); }
  fall_power(t) { index_1 ("0, 0.03"); index_2 ("0.1, 0.3"); values ("2, 4", "4, 6"); } }"""
PLAIN = LIBERTY % ""
PORT = 0.5 * 0.015 * 4  # an edge of an output port


def netlist(ports: dict[str, tuple[str, int]], cells: list[tuple[str, dict[str, int]]]) -> dict:
    """Return Yosys's JSON of ports (direction, net) and cells (type, nets by pin)."""
    return {"modules": {"top": {
        "ports": {name: {"direction": direction, "bits": [net]}
                  for name, (direction, net) in ports.items()},
        "cells": {str(index): {"type": kind, "connections": {pin: [net] for pin, net in of.items()}}
                  for index, (kind, of) in enumerate(cells)},
    }}}


AND = netlist({"a": ("input", 2), "b": ("input", 3), "c": ("input", 4), "y": ("output", 5)},
              [("AND3", {"A": 2, "B": 3, "C": 4, "Y": 5})])


def test_a_gate_switches_as_often_as_its_inputs_let_it():
    # Three inputs change every other cycle, 2 pJ each; the output with chance 2 * 1/8 * 7/8.
    want = 3 * 0.5 * 2 + 2 * 1 / 8 * 7 / 8 * PORT
    assert switching_energy_pj(AND, PLAIN, {}) == pytest.approx(want, rel=0.01)


def test_a_held_port_does_not_switch():
    want = 0.5 * 2 + 0.5 * PORT  # one input left, which the output follows
    assert switching_energy_pj(AND, PLAIN, {"b": 1, "c": 1}) == pytest.approx(want, rel=0.02)
    assert switching_energy_pj(AND, PLAIN, {"a": 0, "b": 1, "c": 1}) == 0
    want = 2 * 0.5 * 2
    assert switching_energy_pj(AND, PLAIN, {"a": 0}) == pytest.approx(want, rel=0.02)


def test_a_steady_port_keeps_a_random_value():
    assert switching_energy_pj(AND, PLAIN, {"a": Every(0), "b": Every(0), "c": Every(0)}) == 0
    want = 0.5 * 2 + 1 / 4 * 0.5 * PORT  # where both steady ones are 1, the output follows
    got = switching_energy_pj(AND, PLAIN, {"a": Every(0), "b": Every(0)})
    assert got == pytest.approx(want, rel=0.03)


def test_energy_inside_a_cell_is_that_of_its_load_and_slew():
    # Load 0.015 pF and slew 0.2 ns: the middle of both tables, (3 + 4) / 2 a transition.
    want = 0.5 * 2 + 0.5 * (PORT + 3.5)
    got = switching_energy_pj(AND, LIBERTY % TABLE, {"b": 1, "c": 1})
    assert got == pytest.approx(want, rel=0.02)


def test_a_clock_switches_twice_and_a_register_follows_a_cycle_later():
    register = netlist({"clk": ("input", 2), "d": ("input", 3), "q": ("output", 4)},
                       [("DFF", {"CLK": 2, "D": 3, "Q": 4})])
    clock = 2 * 0.5 * 3 * 4
    want = clock + 0.5 * 2 + 0.5 * PORT
    assert switching_energy_pj(register, PLAIN, {}) == pytest.approx(want, rel=0.01)
    assert switching_energy_pj(register, PLAIN, {"d": 1}) == pytest.approx(clock)


def test_a_register_fed_by_its_inverse_switches_every_cycle():
    divider = netlist({"clk": ("input", 2), "q": ("output", 3)},
                      [("DFF", {"CLK": 2, "D": 4, "Q": 3}), ("INV", {"A": 3, "Y": 4})])
    want = 2 * 0.5 * 3 * 4 + 2 + 2 + PORT  # clock, D, the inverter's input, the port
    assert switching_energy_pj(divider, PLAIN, {}) == pytest.approx(want, rel=1e-3)


def test_an_unknown_cell_and_a_loop_are_refused():
    with pytest.raises(ValueError, match="^cell must be in the liberty, not 'NOR'$"):
        switching_energy_pj(netlist({}, [("NOR", {"A": 2, "Y": 3})]), PLAIN, {})
    with pytest.raises(ValueError, match="^gates must have no loop, not 2 in one$"):
        loop = [("INV", {"A": 2, "Y": 3}), ("INV", {"A": 3, "Y": 2})]
        switching_energy_pj(netlist({}, loop), PLAIN, {})


@pytest.mark.parametrize("function, want", [
    ("(!((A B)+(C D)))", lambda a, b, c, d: not (a and b or c and d)),
    ("A*B+C", lambda a, b, c: a and b or c),
    ("((A^B)^C)", lambda a, b, c: a ^ b ^ c),
    ("(!((S A) + (!S B)))", lambda s, a, b: not (a if s else b)),
])
def test_functions_of_a_liberty(function, want):
    names, compiled = compile_function(function)
    for code in range(1 << len(names)):
        bits = [code >> index & 1 for index in range(len(names))]
        assert compiled(*(-bit for bit in bits)) & 1 == int(want(*bits)), (function, bits)


@pytest.mark.parametrize("function", ["A'", "A ^ B C", "A ? B"])
def test_a_function_that_could_be_misread_is_refused(function):
    with pytest.raises(ValueError, match="^function must"):
        compile_function(function)


def test_a_liberty_is_read():
    cells = read_cells(LIBERTY % TABLE)
    assert set(cells) == {"AND3", "INV", "DFF"}
    assert cells["AND3"].pins["Y"].internal_pj(0.015) == 3.5
    assert cells["AND3"].pins["Y"].internal_pj(1.0) == 4.5  # beyond the table: its end
    assert cells["DFF"].clock == "CLK"
    assert supply_volts(LIBERTY % "") == 2
