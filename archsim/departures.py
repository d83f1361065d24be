"""Where a program leaves what a block's RTL does, so that the block's timing is analytic."""

from collections.abc import Iterator

from archsim.vector import takes
from machine.chip import Machine
from machine.formats import Format, Kind, format_named
from machine.k_order import Order, array_order, same_sums
from machine.lut import LutConfig
from machine.opcodes import Dataflow, KOrder, Mode, Opcode
from machine.pe import limits
from machine.pim import PROGRAM_LANES, BankUnitConfig
from machine.program import NO_LEVEL, Instruction, Program
from machine.systolic import SystolicConfig
from machine.vector import VectorOp

__all__ = ["departures"]


def departures(program: Program, machine: Machine) -> dict[str, str]:
    """Return the first reason of each block declared ``rtl`` that does not run as its RTL.

    An array's RTL multiplies the formats of its elements, loads weights by rows and has no scales
    of groups; one of floats adds in its own order. A vector unit's RTL reads and writes some
    formats. A lookup array takes what it is built for; the simulator refuses the rest. Golden adds
    a product in memory in columns of 16, in float32.
    """
    found: dict[str, str] = {}
    for i, array in enumerate(machine.arrays):
        if array.fidelity == "rtl" and not isinstance(array, LutConfig):
            for reason in _of_array(program, array):
                found.setdefault(f"arrays.{i}", reason)
    for i, vector in enumerate(machine.vectors):
        if vector.fidelity == "rtl":
            for reason in _of_vector(program):
                found.setdefault(f"vectors.{i}", reason)
    if machine.pim is not None and any(_instructions(program, Opcode.PIM_GEMV)):
        for reason in _of_bank_unit(machine.pim.unit):
            found.setdefault("pim.unit", reason)
    return found


def _instructions(program: Program, *opcodes: Opcode) -> Iterator[Instruction]:
    for stream in program.streams:
        for instruction in stream.instructions:
            if instruction.opcode in opcodes:
                yield instruction


def _of_array(program: Program, array: SystolicConfig) -> Iterator[str]:
    for instruction in _instructions(program, Opcode.MATMUL, Opcode.PRELOAD):
        for role, port in (("a", array.act_format), ("w", array.weight_format)):
            if role in instruction.operands:
                operand = program.operands[instruction.operands[role]]
                if not _takes(port, format_named(operand.format)):
                    yield f"{operand.name} is {operand.format}, the elements take {port.name}"
                if operand.group is not None:
                    yield f"{operand.name} has scales of groups"
                if role == "w" and operand.shape[-1] > 1 and operand.strides[-1] != 1:
                    yield f"{operand.name} is read by columns"
        if instruction.opcode == Opcode.MATMUL and not array.pe.fixed.integer:
            yield from _of_floats(program, instruction, array)


def _of_floats(program: Program, instruction: Instruction, array: SystolicConfig) -> Iterator[str]:
    """Yield why the bits of the sums of one MATMUL are not those of an array of floats."""
    get = instruction.fields.get
    acc = program.operands[instruction.operands["acc"]]
    if acc.format != array.pe.acc_format:
        yield f"{acc.name} is {acc.format}, the sums are {array.pe.acc_format}"
    flow = Dataflow(get("dataflow", 0))
    own = array_order(array, flow)
    named = Order(KOrder(get("k_order", 0)), get("k_size", 0))
    sets = get("set_level", NO_LEVEL) == NO_LEVEL and get("mode", 0) == Mode.SET
    depth = program.operands[instruction.operands["a"]].shape[-1]
    if own is None:
        yield f"sums of {array.pe.kind} in {array.pe.acc_format} have no order in a program"
    elif not same_sums(array, flow, named, depth, sets=sets):
        yield (f"matmul adds in the order {_words(named)}, {flow.name.lower()} over {depth} in "
               f"{_words(own)}")


def _words(order: Order) -> str:
    return f"{order.k_order.name.lower()} {order.k_size}".removesuffix(" 0")


def _of_bank_unit(unit: BankUnitConfig) -> Iterator[str]:
    """Yield why golden's sums of a program are not the bank units'."""
    if unit.lanes != PROGRAM_LANES:
        yield f"pim_gemv adds columns of {PROGRAM_LANES} products, the units of {unit.lanes}"
    if unit.acc_format != "float32":
        yield f"pim_gemv adds in float32, the units in {unit.acc_format}"


def _takes(port: Format, operand: Format) -> bool:
    """Return whether a port of one format takes every number of another as it is."""
    if port.kind is not Kind.INTEGER or operand.kind is not Kind.INTEGER:
        return port.name == operand.name
    (low, high), (lowest, highest) = limits(operand), limits(port)
    return lowest <= low and high <= highest


def _of_vector(program: Program) -> Iterator[str]:
    for instruction in _instructions(program, Opcode.VECTOR):
        operands = {role: program.operands[index] for role, index in instruction.operands.items()}
        vop = VectorOp(instruction.fields.get("vop", 0))
        if not takes(vop, {role: operand.format for role, operand in operands.items()}):
            named = ", ".join(f"{role} {operand.format}" for role, operand in operands.items())
            yield f"{vop.name.lower()} of {named} is not in the RTL"
