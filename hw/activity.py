"""Switching energy of a mapped netlist: random operands, every gate evaluated, every edge counted.

The model: zero delay, so no glitches; loads are the pins of the cells behind, so no wires; inside a
cell the liberty's energies at one input transition; the clock switches twice a cycle, without a
clock tree; leakage apart. 64 independent runs share a word, each from a random state.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from hw.liberty import LibertyCell, Pin, compile_function, read_cells, supply_volts

__all__ = ["Count", "Every", "Pulse", "Stimulus", "switching_energy_pj"]

WORDS = 16  # of 64 runs each
WARM_UP, CYCLES = 4, 32
PORT_LOAD_PF = 0.015  # behind every output port, as in the sizing of the cells


class Every(NamedTuple):
    """A port that takes a new random value every so many cycles; 0: never after the first."""

    cycles: int


class Count(NamedTuple):
    """A port that counts cycles from 0 up to below a number, again and again."""

    below: int


class Pulse(NamedTuple):
    """A port that is 1 in one cycle of so many."""

    cycles: int


Stimulus = Mapping[str, int | Every | Count | Pulse]  # by port; an integer is held


class Gate(NamedTuple):
    """An instance in the netlist: nets by pin."""

    cell: LibertyCell
    nets: dict[str, Any]

    @property
    def outputs(self) -> list[tuple[str, Pin]]:
        """The connected outputs."""
        return [(name, pin) for name, pin in self.cell.pins.items()
                if pin.is_output and name in self.nets]


def switching_energy_pj(netlist: Mapping[str, Any], liberty: str, stimulus: Stimulus) -> float:
    """Return the mean energy of one cycle of the only module of Yosys's JSON `netlist`.

    Ports that are not in `stimulus` take a new random value every cycle. Raises ``ValueError`` for
    a cell that is not in `liberty` and for a loop of gates.
    """
    cells, volts = read_cells(liberty), supply_volts(liberty)
    (module,) = netlist["modules"].values()
    gates = []
    for instance in module["cells"].values():
        if instance["type"] not in cells:
            raise ValueError(f"cell must be in the liberty, not {instance['type']!r}")
        nets = {pin: bits[0] for pin, bits in instance["connections"].items()}
        gates.append(Gate(cells[instance["type"]], nets))
    flops = [gate for gate in gates if gate.cell.next_state]
    order = _in_order([gate for gate in gates if not gate.cell.next_state])
    toggles = _simulate(module["ports"], order, flops, stimulus)
    return float(f"{_energy(module['ports'], gates, toggles, volts):.4g}")


def _in_order(gates: list[Gate]) -> list[Gate]:
    """Return combinational `gates` so that each comes after those that drive it."""
    driver = {gate.nets[name]: index for index, gate in enumerate(gates)
              for name, _ in gate.outputs}
    sources = [{driver[net] for name, net in gate.nets.items()
                if not gate.cell.pins[name].is_output and net in driver} for gate in gates]
    behind: list[list[int]] = [[] for _ in gates]
    for index, before in enumerate(sources):
        for source in before:
            behind[source].append(index)
    left = [len(before) for before in sources]
    ready = [index for index, count in enumerate(left) if count == 0]
    for index in ready:  # grows as it is walked
        for later in behind[index]:
            left[later] -= 1
            if left[later] == 0:
                ready.append(later)
    if len(ready) != len(gates):
        raise ValueError(f"gates must have no loop, not {len(gates) - len(ready)} in one")
    return [gates[index] for index in ready]


def _drive(ports: Mapping[str, Any], stimulus: Stimulus, source: np.random.PCG64, cycle: int,
           values: dict[Any, np.ndarray]) -> None:
    """Put what the input ports are in `cycle` into `values`."""
    for name, port in ports.items():
        if port["direction"] != "input":
            continue
        rule = stimulus.get(name, Every(1))
        if isinstance(rule, Every):
            if cycle == 0 or (rule.cycles and cycle % rule.cycles == 0):
                for net in port["bits"]:
                    values[net] = source.random_raw(WORDS)
            continue
        if isinstance(rule, Count):
            rule = cycle % rule.below
        elif isinstance(rule, Pulse):
            rule = int(cycle % rule.cycles == 0)
        for bit, net in enumerate(port["bits"]):
            values[net] = np.full(WORDS, -(rule >> bit & 1)).astype(np.uint64)


def _simulate(ports: Mapping[str, Any], order: list[Gate], flops: list[Gate],
              stimulus: Stimulus) -> dict[Any, float]:
    """Return the mean number of changes a cycle of every net."""
    source = np.random.PCG64(0)  # raw draws: the same with every numpy
    ones = np.full(WORDS, ~np.uint64(0))
    values: dict[Any, np.ndarray] = {"0": ~ones, "1": ones, "x": ~ones}
    steps = [(gate.nets[name], compile_function(pin.function), gate.nets)
             for gate in order for name, pin in gate.outputs]
    next_states = [(gate, compile_function(gate.cell.next_state)) for gate in flops]
    clocks = {gate.nets[gate.cell.clock] for gate in flops}
    for gate in flops:
        values[gate.cell.state, id(gate)] = source.random_raw(WORDS)
    changes: dict[Any, int] = {}
    for cycle in range(WARM_UP + CYCLES):
        before = dict(values)
        _drive(ports, stimulus, source, cycle, values)
        for gate in flops:
            state = values[gate.cell.state, id(gate)]
            for name, pin in gate.outputs:
                values[gate.nets[name]] = state if pin.function == gate.cell.state else ~state
        for net, (names, function), nets in steps:
            values[net] = function(*(values[nets[name]] for name in names))
        for gate, (names, function) in next_states:
            state = function(*(values[gate.nets[name]] for name in names))
            values[gate.cell.state, id(gate)] = state
        if cycle >= WARM_UP:
            for net, now in values.items():
                changes[net] = changes.get(net, 0) + int(np.bitwise_count(now ^ before[net]).sum())
    runs = CYCLES * WORDS * 64
    return {**{net: count / runs for net, count in changes.items()},
            **{clock: 2.0 for clock in clocks}}


def _energy(ports: Mapping[str, Any], gates: list[Gate], toggles: Mapping[Any, float],
            volts: float) -> float:
    """Return the energy a cycle in pJ: charging of every net, and inside every cell."""
    loads: dict[Any, float] = {}
    for port in ports.values():
        for net in port["bits"]:
            loads[net] = loads.get(net, 0.0) + PORT_LOAD_PF * (port["direction"] == "output")
    for gate in gates:
        for name, net in gate.nets.items():
            loads[net] = loads.get(net, 0.0) + gate.cell.pins[name].capacitance_pf
    energy = sum(toggles.get(net, 0.0) * 0.5 * load * volts**2 for net, load in loads.items())
    for gate in gates:
        for name, net in gate.nets.items():
            energy += toggles.get(net, 0.0) * gate.cell.pins[name].internal_pj(loads[net])
    return energy
