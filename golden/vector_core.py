"""What the RTL vector unit sends for a command: golden.vector's operators on beats of its streams.

A *part* is what every row takes from a stream, or sends, in one go: codes, uint32 [rows, elements].
A row's parts follow each other, each starting on a new beat; parts with one row that come before
those of the rows, once a command, are a list of their own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden import attention, vector
from golden.convert import code_dtype, codes_of, values_of
from golden.floats import add, multiply, reduce_max, reduce_sum
from machine.formats import FORMATS
from machine.vector_core import VectorCommand
from machine.vector_programs import Code

__all__ = ["beats_of", "results"]

Codes = NDArray[np.uint32]
Floats = NDArray[np.float32]

CURVES = {Code[op.name]: curve for op, curve in vector.ELEMENTWISE.items()}


def beats_of(parts: Sequence[Codes], lanes: int, once: Sequence[Codes] = ()) -> Codes:
    """Return the beats, uint32 [beats, lanes], of `once` and then of the rows of `parts`."""
    def filled(part: Codes) -> Codes:
        beats = -(-part.shape[1] // lanes)
        whole = np.zeros((len(part), beats * lanes), np.uint32)
        whole[:, : part.shape[1]] = part
        return whole.reshape(len(part), beats, lanes)
    first = [filled(part).reshape(-1, lanes) for part in once]
    rows = np.concatenate([filled(part) for part in parts], axis=1) if parts else np.zeros(
        (0, 0, lanes), np.uint32)
    return np.concatenate([*first, rows.reshape(-1, lanes)])


def _read(codes: Codes, name: str) -> NDArray:
    """Return the values of `codes` of format `name`; floats as float32."""
    fmt = FORMATS[name]
    values = values_of(codes.astype(code_dtype(fmt.bits)), fmt)
    return values.astype(np.float32 if fmt.is_float else np.int64)


def _word(values: NDArray) -> Codes:
    """Return float32 bits; NaN is the one of the RTL."""
    held = np.asarray(values, np.float32)
    return np.where(np.isnan(held), np.uint32(0x7FC00000), held.view(np.uint32))


def results(command: VectorCommand, lanes: int, x: Sequence[Codes], y: Sequence[Codes] = (),
            once: Sequence[Codes] = ()) -> list[Codes]:
    """Return the parts that `command` sends for each row, from the parts of x, y and `once` of y.

    Raises `UserError` where golden refuses a number.
    """
    xs = [_read(part, command.x_format) for part in x]
    ys = [_read(part, command.y_format) for part in y]
    kept = [_read(part, command.y_format) if command.y_format != "int32" else part
            for part in once]
    with np.errstate(all="ignore"):
        sent, pair = _operator(command, lanes, xs, ys, kept)
    fmt = FORMATS[command.o_format]
    codes = _word(sent) if fmt.name == "float32" else codes_of(
        np.asarray(sent), fmt, saturate=command.saturate).astype(np.uint32)
    match command.code:
        case Code.MERGE:
            return [*pair, codes]
        case Code.REDUCE_SUM | Code.REDUCE_MAX:
            return [pair]
        case Code.TOPK:
            return pair
        case Code.ROPE:
            return np.split(codes, 2, axis=1)
    return [codes] if pair is None else [codes, pair]


def _value(command: VectorCommand) -> float:
    return float(np.uint32(command.value).view(np.float32))


def _operator(command: VectorCommand, lanes: int, xs: list[NDArray], ys: list[NDArray],
              once: list[NDArray]) -> tuple[NDArray, Any]:
    """Return what is sent in the command's format, and what is sent as float32."""
    code, value = command.code, _value(command)
    order: dict[str, Any] = {"order": command.order, "lanes": lanes}
    first = xs[0]
    if code in CURVES:
        return CURVES[code](first), None
    match code:
        case Code.COPY | Code.FROM_INTEGER:
            return first.astype(np.float32), None
        case Code.ADD:
            return add(first, ys[0]), None
        case Code.MULTIPLY | Code.MULTIPLY_INTEGER:
            return multiply(first.astype(np.float32), ys[0]), None
        case Code.SCALE:
            return multiply(first, np.float32(value)), None
        case Code.REDUCE_SUM:
            return first, _word(reduce_sum(first, **order)[:, None])
        case Code.REDUCE_MAX:
            return first, _word(reduce_max(first)[:, None])
        case Code.RMSNORM:
            return vector.rmsnorm(first, once[0], epsilon=value, **order), None
        case Code.LAYERNORM:
            return vector.layernorm(first, once[0], once[1], epsilon=value, **order), None
        case Code.L2NORM:
            return vector.l2norm(first, epsilon=value, **order), None
        case Code.QUANTISE | Code.QUANTISE_ROWS:
            return _quantise(command, first, value)
        case Code.DEQUANTISE | Code.DEQUANTISE_BIAS:
            bias = once[1] if code is Code.DEQUANTISE_BIAS else None
            return vector.dequantise(first, ys[0][:, 0], once[0], bias), None
        case Code.SOFTMAX | Code.SOFTMAX_STATE:
            return _softmax(command, first, value, order)
        case Code.MERGE:
            return _merge(xs, ys)
        case Code.ROPE:
            steps = once[0][0].astype(np.int64) + (once[1][0].astype(np.int64) << 24)
            table = vector.rope_table(command.position + np.arange(len(first)), steps)
            return vector.rope(np.concatenate(xs, axis=1), *table), None
        case Code.TOPK:
            return first, _topk(first, command.repeats)
        case Code.MEAN_POOL | Code.MEAN_POOL_MASKED:
            counts = np.concatenate(ys, axis=1) != 0 if ys else None
            return vector.mean_pool(np.stack(xs, axis=1), counts), None
        case Code.MLGRU:
            return vector.mlgru(first, ys[0], ys[1], value), None
    raise ValueError(f"code must be a Code, not {code!r}")


def _quantise(command: VectorCommand, x: Floats, scale: float) -> tuple[NDArray, Any]:
    fmt = FORMATS[command.o_format]
    if command.code is Code.QUANTISE:
        return vector.quantise(x, np.full(len(x), scale, np.float32), fmt), None
    numbers, scales = vector.quantise_rows(x, fmt)
    return numbers, _word(scales[:, None])


def _topk(x: Floats, count: int) -> list[Codes]:
    values, places = vector.topk(x, count)
    return [np.stack([_word(value), place.astype(np.uint32)], axis=-1)
            for value, place in zip(values.T, places.T, strict=True)]


def _softmax(command: VectorCommand, x: Floats, scale: float, order: dict[str, Any]
             ) -> tuple[Floats, Any]:
    visible = attention.visible_keys(command.mask, *x.shape, position_base=command.position,
                                     window=command.window)
    if command.code is Code.SOFTMAX:
        return attention.softmax(x, visible=visible, scale=scale, **order), None
    # The weights of attention over unit vectors are the weights themselves.
    state = attention.attend(x, np.zeros((x.shape[1], 1), np.float32), visible=visible,
                             scale=scale, **order)
    shift = np.where(np.isneginf(state.maximum), np.float32(0), state.maximum)
    scaled = np.where(visible, multiply(x, np.float32(scale)), np.float32(-np.inf))
    weights = attention.exp(add(scaled, -shift[:, None]))
    return weights, _word(np.stack([state.maximum, state.total], axis=-1))


def _merge(xs: list[NDArray], ys: list[NDArray]) -> tuple[Floats, Any]:
    mine, other = (attention.State(pair[:, 0], pair[:, 1], output)
                   for pair, output in (xs, ys))
    merged = attention.merge(mine, other)
    pair = _word(np.stack([merged.maximum, merged.total], axis=-1))
    return attention.finish(merged), [pair, _word(merged.output)]
