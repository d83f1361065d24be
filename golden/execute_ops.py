"""What each opcode does to memory: operands read, the block's function applied, results written."""

from collections.abc import Callable
from math import prod

import numpy as np

from golden import dma, exact, matmul, pim
from golden.call import Call
from golden.execute_vector import run_vector
from golden.k_order import accumulate_in_order
from golden.lut import lookup
from golden.memory import Memory
from machine.control import Tile
from machine.errors import UserError, must_be
from machine.formats import Format, Kind, check_matmul
from machine.opcodes import KOrder, Mode, Opcode, Rounding
from machine.program import NO_LEVEL, Group

__all__ = ["read_scalar", "run_instruction"]


def run_instruction(call: Call) -> None:
    """Give `call` its effect on memory; nothing if one of its tiles is empty."""
    if not call.empty:
        _HANDLERS[Opcode(call.instruction.opcode)](call)


def read_scalar(call: Call) -> int:
    """Return what a READ puts into its register; raise `UserError` unless it is one integer."""
    values = call.read("src").reshape(-1)
    if len(values) != 1:
        raise must_be("src of read", "one element", len(values))
    if values.dtype.kind not in "iu":
        raise must_be("format of src of read", "an integer format", call.format("src").name)
    return int(values[0])


def _nothing(call: Call) -> None:
    pass


def _move(call: Call) -> None:
    source, to = call.tile("src"), call.tile("dst")
    dma.move(call.state.memory, call.chip, source, to, call.index(source), call.index(to),
             rounding=Rounding(call.field("rounding")), saturate=bool(call.field("saturate")))


def _preload(call: Call) -> None:
    call.state.preloaded[call.chip, call.unit] = (call.read("w").copy(), call.format("w"))


def _weights(call: Call) -> tuple[np.ndarray, Format]:
    """Return the weights a MATMUL uses: its operand, or those the array holds."""
    if "w" in call:
        return call.read("w"), call.format("w")
    held = call.state.preloaded.get((call.chip, call.unit))
    if held is None:
        raise UserError("matmul without w must follow a preload on its array")
    return held


def _matmul(call: Call) -> None:
    a = call.read("a")
    w, w_format = _weights(call)
    acc = call.read("acc")
    sets = _sets(call)
    if sets:
        acc = np.zeros(acc.shape, acc.dtype)
    if call.field("tables"):
        total = _look_up(call, acc, a, w)
    else:
        matmul.check_operands(a, w, acc.shape)
        if call.field("group_end"):
            total = _add_groups(call, acc, a, w)
        else:
            total = _add_products(call, acc, a, w, w_format, sets)
    # A sum already wraps or rounds as the accumulator's format does.
    tile = call.tile("acc")
    call.state.memory.write(call.chip, tile, total, call.index(tile), saturate=False)
    if "out" in call:
        call.write("out", call.read("acc"))


def _sets(call: Call) -> bool:
    """Return whether the accumulator starts from zero."""
    level = call.field("set_level")
    if level == NO_LEVEL:
        return call.field("mode") == Mode.SET
    indices = call.step.indices
    return level >= len(indices) or indices[level] == 0


def _add_products(
    call: Call, acc: np.ndarray, a: np.ndarray, w: np.ndarray, w_format: Format, sets: bool
) -> np.ndarray:
    a_format, acc_format = call.format("a"), call.format("acc")
    check_matmul(a_format, w_format, acc_format.name)
    if acc_format.kind is Kind.INTEGER:
        return matmul.accumulate_integers(acc, exact.matmul(a, w), acc_format.bits)
    order, size = KOrder(call.field("k_order")), call.field("k_size")
    if order is not KOrder.SEQUENTIAL and size < 1:
        raise must_be(f"k_size of {order.name.lower()}", "at least 1", size)
    return accumulate_in_order(order, size, acc, a, w, a_format, w_format, sets=sets)


def _add_groups(call: Call, acc: np.ndarray, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    operand = call.tile("w").operand
    group = operand.group
    k_axis = w.ndim - 2
    if group is None or group.scale is None or group.axis != k_axis:
        raise UserError(f"operand {operand.name} must have groups with a scale along "
                        f"axis {k_axis}, its K, for group_end")
    if a.dtype.kind == "f" or w.dtype.kind == "f" or acc.dtype != np.float32:
        raise UserError("group_end takes integer a and w and a float32 acc, not "
                        f"{call.format('a').name}, {operand.format} and {call.format('acc').name}")
    scales, zeros = _group_values(call, w.shape, group)
    sums = call.read("asum") if "asum" in call else None
    return matmul.accumulate_groups(acc, a, w, group.size, scales, zeros, sums)


def _group_values(
    call: Call, shape: tuple[int, ...], group: Group
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return scales and zero points [..., groups, N] of weights of `shape` [..., K, N]."""
    groups = (*shape[:-2], -(-shape[-2] // group.size), shape[-1])
    assert group.scale is not None
    scales = call.read_operand(group.scale, groups)
    return scales, None if group.zero is None else call.read_operand(group.zero, groups)


def _look_up(call: Call, acc: np.ndarray, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return `acc` plus what codes `w` [bits, N, K/4] find in tables `a` [M, K/4, 8]."""
    if a.ndim != 3 or w.ndim != 3 or a.shape[2] != 8 or a.shape[1] != w.shape[2]:
        raise UserError(f"tables {list(a.shape)} must be [M, K / 4, 8] and codes {list(w.shape)} "
                        "[bits, N, K / 4]")
    if call.field("group_end"):
        raise must_be("group_end with tables", "0: table products have no group scales", 1)
    acc_format = call.format("acc")
    if acc_format.kind is not Kind.INTEGER or a.dtype.kind == "f":
        raise UserError(f"tables must be integers in an integer acc, not {call.format('a').name} "
                        f"in {acc_format.name}")
    return matmul.accumulate_integers(acc, lookup(a, w), acc_format.bits)


def _flush(call: Call) -> None:
    call.write("out", call.read("acc"))


def _gwrite(call: Call) -> None:
    values = call.read("src")
    for channel in _channels(call):
        channel.write(0, call.tile("dst"), values)


def _gemv(call: Call) -> None:
    channels = _channels(call)
    a = _same_in_all(channels, call.tile("a"))
    w = call.read("w")
    dst = call.tile("dst")
    if w.ndim != 2 or a.ndim != 1 or w.shape[1] != len(a) or dst.shape != w.shape[:1]:
        raise UserError(f"w {list(w.shape)} by a {list(a.shape)} must give dst, "
                        f"which is {list(dst.shape)}")
    if call.field("accumulate") == Mode.ACCUMULATE:
        start = _same_in_all(channels, dst)
    else:
        start = np.zeros(dst.shape, np.float32)
    result = pim.gemv(w, a, start, call.format("w"), call.format("a"))
    for channel in channels:
        channel.write(0, dst, result)


def _readres(call: Call) -> None:
    call.write_exact("dst", _same_in_all(_channels(call), call.tile("src")))


def _channels(call: Call) -> list[Memory]:
    return call.state.channels.of(call.chip, call.unit, call.field("channels"))


def _same_in_all(channels: list[Memory], tile: Tile) -> np.ndarray:
    """Return the values of `tile`, which every channel must hold alike."""
    held = [channel.read(0, tile) for channel in channels]
    if any(not np.array_equal(held[0], other) for other in held[1:]):
        raise UserError(f"operand {tile.operand.name} must be the same in all "
                        f"{len(channels)} channels of the mask")
    return held[0]


def _send(call: Call) -> None:
    call.state.links.send(call.chip, call.field("peer"), call.field("tag"), call.read("src"))


def _receive(call: Call) -> None:
    values = call.state.links.receive(call.field("peer"), call.chip, call.field("tag"))
    shape = call.tile("dst").shape
    if values.size != prod(shape):
        raise must_be("dst of recv", f"{values.size} elements, as many as were sent", prod(shape))
    call.write_exact("dst", values.reshape(shape))


_HANDLERS: dict[Opcode, Callable[[Call], None]] = {
    Opcode.NOP: _nothing,
    Opcode.FENCE: _nothing,
    Opcode.LOAD: _move,
    Opcode.STORE: _move,
    Opcode.PRELOAD: _preload,
    Opcode.MATMUL: _matmul,
    Opcode.FLUSH: _flush,
    Opcode.VECTOR: run_vector,
    Opcode.PIM_GWRITE: _gwrite,
    Opcode.PIM_ACTIVATE: _nothing,
    Opcode.PIM_GEMV: _gemv,
    Opcode.PIM_READRES: _readres,
    Opcode.PIM_HEADER: _nothing,
    Opcode.PIM_PRECHARGE: _nothing,
    Opcode.SEND: _send,
    Opcode.RECV: _receive,
}
