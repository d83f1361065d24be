"""Offline transforms: how a tensor as the user has it becomes the tensor that a symbol stores.

A symbol names its transform as ``name`` or ``name/argument/...``:

===============================  ==================================================================
``""``                           the tensor of the symbol's own name
``transpose``                    its last two axes swapped
``tile/ROWS/COLUMNS``            [M, N] as [M / ROWS, N / COLUMNS, ROWS, COLUMNS], zero-padded
``lut_remap/BITS``               unsigned weights [N, K] as table codes [BITS, N, K / 4]
``rows/TENSOR/FORMAT/PART``      one scale a row of `TENSOR` [..., K]: absolute maximum over the
                                 largest code; PART is ``elements`` or ``scales``
``group/TENSOR/FORMAT/PART``     block format FORMAT along the last axis of `TENSOR`; PART is a
                                 section of ``machine.formats.sections``
``k_sort/KEYS/HEAD_DIM/PAIRS``   a projection's rows in the order of the channels of the key
                                 projection `KEYS` (``golden.k_sort``); PAIRS is ``rope``, ``plain``
``rotary/WIDTH/THETA/FACTOR``    of no tensor: the steps of ROPE as words [WIDTH], every pair
                                 FACTOR times slower (``machine.approx.rotary_steps``)
``empty_state``                  of no tensor: rows (m, l, o...) of attention over no keys, m minus
                                 infinity, the others 0
``rotary_bands/WIDTH/THETA/...`` the same with FACTOR/LOW/HIGH/LENGTH, pair by pair (Llama 3.1)
===============================  ==================================================================
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from golden import blocks, k_sort, lut, vector
from machine.approx import Stretch, rotary_steps
from machine.errors import UserError, must_be, unknown
from machine.formats import Kind, format_named
from machine.program import Symbol

__all__ = ["OF_NOTHING", "Taken", "transform"]


@dataclass(frozen=True, slots=True)
class Taken:
    """A tensor as a symbol stores it, and the names of the tensors it was made from."""

    values: np.ndarray
    sources: tuple[str, ...]


def transform(symbol: Symbol, tensors: Mapping[str, np.ndarray]) -> Taken | None:
    """Return what `symbol` stores, made from `tensors`; None if its source is not given.

    Raises `UserError` for an unknown transform or wrong arguments.
    """
    name, *arguments = symbol.transform.split("/")
    if name in OF_NOTHING:
        if len(arguments) != OF_NOTHING[name]:
            raise must_be(f"transform {name}", f"given {OF_NOTHING[name]} arguments",
                          len(arguments), where=symbol.name)
        if name == "empty_state":
            return Taken(_empty_state(symbol.shape), ())
        return Taken(_rotary(symbol.name, name, arguments), ())
    if name not in _TRANSFORMS:
        raise unknown("transform", name, [*filter(None, _TRANSFORMS), *OF_NOTHING],
                      where=symbol.name)
    count, function = _TRANSFORMS[name]
    source = symbol.name
    if name in _OF_OTHER and len(arguments) > count:
        # A tensor's name may hold a slash itself.
        source = "/".join(arguments[:-count])
        arguments = arguments[-count:]
    keys: tuple[str, ...] = ()
    if name == "k_sort" and len(arguments) > count:
        keys = ("/".join(arguments[:-count]),)
        arguments = arguments[-count:]
    if len(arguments) != count:
        raise must_be(f"transform {name}", f"given {count} arguments", len(arguments),
                      where=symbol.name)
    sources = (source, *keys)
    if not all(each in tensors for each in sources):
        return None
    try:
        made = function(*(np.asarray(tensors[each]) for each in sources), *arguments)
    except UserError as error:
        raise UserError(f"{symbol.name}: {error}") from error
    return Taken(made, sources)


def _as_given(values: np.ndarray) -> np.ndarray:
    return values


def _transpose(values: np.ndarray) -> np.ndarray:
    return np.swapaxes(values, -1, -2)


def _tile(values: np.ndarray, rows: str, columns: str) -> np.ndarray:
    high, wide = _positive("tile rows", rows), _positive("tile columns", columns)
    m, n = values.shape
    padded = np.pad(values, ((0, -m % high), (0, -n % wide)))
    tiles = padded.reshape(padded.shape[0] // high, high, padded.shape[1] // wide, wide)
    return tiles.swapaxes(1, 2)


def _lut_remap(values: np.ndarray, bits: str) -> np.ndarray:
    return lut.remap(values, _positive("bits of lut_remap", bits))


def _rows(values: np.ndarray, format_name: str, part: str) -> np.ndarray:
    fmt = format_named(format_name)
    if fmt.kind is not Kind.INTEGER or not fmt.signed:
        raise must_be("format of rows", "a signed integer format", fmt.name)
    codes, scales = vector.quantise_rows(values, fmt)
    parts: dict[str, np.ndarray] = {"elements": codes, "scales": scales}
    return parts[_one_of("part", part, tuple(parts))]


def _group(values: np.ndarray, format_name: str, part: str) -> np.ndarray:
    fmt = format_named(format_name)
    if fmt.kind is not Kind.BLOCK:
        raise must_be("format of group", "a block format", fmt.name)
    parts = blocks.quantise(values, fmt)
    return parts[_one_of("part", part, tuple(parts))]


def _k_sort(values: np.ndarray, keys: np.ndarray, head_dim: str, pairs: str) -> np.ndarray:
    rope = _one_of("pairs", pairs, ("plain", "rope")) == "rope"
    return k_sort.k_sort(values, keys, _positive("head_dim", head_dim), rope=rope)


def _empty_state(shape: tuple[int, ...]) -> np.ndarray:
    state = np.zeros(shape, np.float32)
    state[..., 0] = -np.inf
    return state


def _rotary(where: str, name: str, arguments: list[str]) -> np.ndarray:
    """Return the words of ROPE's steps; see `golden.vector.rotary_words`."""
    try:
        width, theta, factor = int(arguments[0]), float(arguments[1]), float(arguments[2])
        stretch = Stretch(factor)
        if name == "rotary_bands":
            low, high, length = arguments[3:]
            stretch = Stretch(factor, float(low), float(high), int(length))
        return vector.rotary_words(rotary_steps(theta, width, stretch))
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _positive(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise must_be(name, "a whole number of at least 1", text)
    return int(text)


def _one_of(name: str, text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise unknown(name, text, known)
    return text


# Name: number of arguments, function of the tensor and the arguments.
_TRANSFORMS: dict[str, tuple[int, Callable[..., np.ndarray]]] = {
    "": (0, _as_given),
    "transpose": (0, _transpose),
    "tile": (2, _tile),
    "lut_remap": (1, _lut_remap),
    "rows": (2, _rows),
    "group": (2, _group),
    "k_sort": (2, _k_sort),
}
OF_NOTHING = {"empty_state": 0, "rotary": 3, "rotary_bands": 6}  # name: number of arguments
_OF_OTHER = ("rows", "group")  # the tensor's name stands before the arguments
