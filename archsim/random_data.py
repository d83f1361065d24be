"""Random tensors for a program: whatever its symbols can hold, the same for the same seed."""

from math import prod

import numpy as np

from golden.convert import values_of
from golden.transforms import OF_NOTHING
from machine.errors import must_be
from machine.formats import Format, Kind, format_named
from machine.program import Program, Symbol, SymbolKind

__all__ = ["random_tensors"]

INDEX_LIMIT = 8  # integers above 8 bits are counts, places or sums: 0 to 7


def random_tensors(program: Program, seed: int) -> dict[str, np.ndarray]:
    """Return a tensor for every INPUT, CONST and STATE symbol of `program`, by source name.

    A symbol with a transform gets what the transform is made from (`golden.transforms`). Raises
    `UserError` for a negative seed.
    """
    if seed < 0:
        raise must_be("--seed", "at least 0", seed)
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for symbol in program.symbols:
        if symbol.kind in (SymbolKind.INPUT, SymbolKind.CONST, SymbolKind.STATE):
            source, values = _source(symbol, rng)
            if values is not None:
                tensors[source] = values
    return tensors


def _source(symbol: Symbol, rng: np.random.Generator) -> tuple[str, np.ndarray | None]:
    """Return the name and the values of what `symbol` is made from; None: none is needed."""
    name, *arguments = symbol.transform.split("/")
    fmt = format_named(symbol.format, where=symbol.name)
    shape = symbol.shape
    match name, arguments:
        case _ if name in OF_NOTHING:
            return symbol.name, None
        case ("rows" | "group"), [*names, _, part]:
            if part != "elements":
                return "/".join(names), None
            return "/".join(names) or symbol.name, rng.standard_normal(shape)
        case "lut_remap", [bits]:
            planes, n, groups = shape
            return symbol.name, rng.integers(0, 1 << int(bits), (n, 4 * groups))
        case "tile", _:
            down, across, rows, columns = shape
            return symbol.name, _values(fmt, (down * rows, across * columns), rng)
        case "transpose", _:
            *batch, rows, columns = shape
            return symbol.name, _values(fmt, (*batch, columns, rows), rng)
    return symbol.name, _values(fmt, shape, rng)


def _values(fmt: Format, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return random numbers of `fmt`: any integer of 8 bits and less, floats around 0."""
    match fmt.kind:
        case Kind.INTEGER if fmt.bits > 8:
            return rng.integers(0, INDEX_LIMIT, shape)
        case Kind.INTEGER:
            low = -(1 << (fmt.bits - 1)) if fmt.signed else 0
            return rng.integers(low, int(fmt.largest), shape, endpoint=True)
        case Kind.TERNARY:
            return rng.integers(-1, 1, shape, endpoint=True)
        case Kind.BIPOLAR | Kind.SHIFT:
            codes = rng.integers(0, 1 << fmt.bits, prod(shape)).astype(np.uint8)
            return values_of(codes, fmt).reshape(shape)
        case Kind.POWER:
            return 2.0 ** rng.integers(-4, 4, shape)
    return rng.standard_normal(shape).clip(-fmt.largest, fmt.largest)
