"""Tensors into the memory a program starts from, and out of the memory it leaves.

The bytes are those that load the RTL's memory.
"""

from collections.abc import Mapping
from math import prod

import numpy as np

from golden.convert import codes_of, values_of
from golden.memory import Memory
from golden.transforms import transform
from machine.control import Tile
from machine.errors import UserError, must_be, unknown
from machine.formats import Format, Kind, format_named
from machine.program import Launch, Operand, Program, Symbol, SymbolKind

__all__ = ["pack", "pack_launch", "unpack"]


def _whole_tile(symbol: Symbol) -> Tile:
    """Return the tile that is all of `symbol`, rows after rows."""
    strides = tuple(prod(symbol.shape[axis + 1 :]) for axis in range(len(symbol.shape)))
    operand = Operand(symbol.name, symbol.space, symbol.address_bytes, symbol.shape, strides,
                      symbol.format, symbol.layout)
    return Tile(operand, symbol.address_bytes, 0, symbol.shape)


def _checked(symbol: Symbol, values: np.ndarray) -> np.ndarray:
    """Return `values` as they may be packed into `symbol`; raise `UserError` if they may not."""
    if values.shape != symbol.shape:
        raise must_be(f"tensor {symbol.name}", f"of shape {list(symbol.shape)}",
                      list(values.shape))
    fmt = format_named(symbol.format, where=symbol.name)
    if fmt.kind in (Kind.FLOAT, Kind.POWER, Kind.BLOCK):
        return values
    if fmt.kind is not Kind.INTEGER:
        return _exactly(symbol, values, fmt)
    if values.dtype.kind not in "iu":
        raise must_be(f"tensor {symbol.name}", f"integers, being {fmt.name}", str(values.dtype))
    low, high = -(1 << (fmt.bits - 1)) if fmt.signed else 0, int(fmt.largest)
    if values.size and (int(values.min()) < low or int(values.max()) > high):
        worst = int(values.max()) if int(values.max()) > high else int(values.min())
        raise must_be(f"tensor {symbol.name}", f"within {low} and {high}, being {fmt.name}", worst)
    return values


def _exactly(symbol: Symbol, values: np.ndarray, fmt: Format) -> np.ndarray:
    """Return `values`; raise `UserError` for one that the ternary, bipolar or shift `fmt` lacks."""
    lost = np.asarray(values_of(codes_of(values, fmt), fmt) != values)
    if lost.any():
        raise must_be(f"tensor {symbol.name}", f"numbers of {fmt.name}", values[lost].tolist()[0])
    return values


def _put(memory: Memory, symbol: Symbol, values: np.ndarray) -> None:
    if symbol.shape and 0 in symbol.shape:
        return
    memory.write(symbol.chip, _whole_tile(symbol), _checked(symbol, values), saturate=False)


def pack(
    program: Program, tensors: Mapping[str, np.ndarray], memory: Memory | None = None
) -> Memory:
    """Return the memory that `program` starts from, `tensors` written where its symbols say.

    CONST and INPUT symbols take their tensor, by name, through their transform; STATE symbols may
    (else they are zero). Floats are encoded in the symbol's format with one rounding; integer
    formats take integers that fit. With `memory`, that memory is added to, and only INPUT tensors
    must be given again. Raises `UserError` for a tensor missing, unknown, misshapen or out of
    range.
    """
    fresh = memory is None
    made = Memory() if memory is None else memory
    takers = [s for s in program.symbols
              if s.kind in (SymbolKind.CONST, SymbolKind.INPUT, SymbolKind.STATE)]
    used: set[str] = set()
    for symbol in takers:
        taken = transform(symbol, tensors)
        if taken is not None:
            used.update(taken.sources)
            _put(made, symbol, taken.values)
        elif symbol.kind is SymbolKind.INPUT or (fresh and symbol.kind is SymbolKind.CONST):
            raise UserError(f"tensor {symbol.name} must be given, program {program.name} "
                            f"has it as {symbol.kind.name.lower()}")
    for name in tensors:
        if name not in used:
            raise unknown("tensor", name, [symbol.name for symbol in takers], where=program.name)
    return made


def pack_launch(program: Program, launch: Launch, memory: Memory) -> None:
    """Write the tensors of `launch` where the symbols of kind LAUNCH lie.

    Raises `UserError` unless `launch` names exactly the program's launch entries and tensors.
    """
    symbols = {s.name: s for s in program.symbols if s.kind is SymbolKind.LAUNCH}
    for kind, given, wanted in (("launch value", launch.values, program.launch),
                                ("launch tensor", launch.tensors, symbols)):
        for name in given:
            if name not in wanted:
                raise unknown(kind, name, wanted, where=program.name)
        for name in wanted:
            if name not in given:
                raise UserError(f"{program.name}: {kind} {name} must be given")
    for name, symbol in symbols.items():
        values = np.zeros(prod(symbol.shape), np.int64)
        listed = np.asarray(launch.tensors[name]).reshape(-1)
        if len(listed) > len(values):
            raise must_be(f"launch tensor {name}", f"at most {len(values)} entries", len(listed))
        values[: len(listed)] = listed
        _put(memory, symbol, values.reshape(symbol.shape))


def unpack(memory: Memory, program: Program) -> dict[str, np.ndarray]:
    """Return the exact values of every OUTPUT and STATE tensor of `program`, by name."""
    kinds = (SymbolKind.OUTPUT, SymbolKind.STATE)
    return {
        symbol.name: np.array(memory.read(symbol.chip, _whole_tile(symbol)))
        if 0 not in symbol.shape else np.zeros(symbol.shape)
        for symbol in program.symbols
        if symbol.kind in kinds
    }
