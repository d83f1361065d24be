"""When the vector unit is done: one operation at a time, as its fidelity says.

``analytic`` is the formula of ``machine.vector``; ``rtl`` the commands that the unit in RTL would
be given, one after the other. Tables are made by the block beside it (``machine.lut_table``).
"""

from collections.abc import Mapping
from typing import NamedTuple

from machine.config import require
from machine.lut_table import TableUnitConfig
from machine.vector import ReductionOrder, ScaleRule, VectorConfig, VectorOp, check_core
from machine.vector_core import (
    FLOATS,
    INPUT_FORMATS,
    MAX_ROWS,
    QUANTISED,
    QUANTISERS,
    WHOLE_INPUTS,
    VectorCommand,
    VectorCoreConfig,
    command_cycles,
    done_cycles,
)
from machine.vector_programs import Code

__all__ = ["Variant", "core_commands", "core_of", "op_cycles", "takes"]


class Variant(NamedTuple):
    """What else an operation on the RTL unit depends on."""

    order: ReductionOrder = ReductionOrder.TREE
    rule: ScaleRule = ScaleRule.STATIC  # of QUANTISE
    block: int = 0  # elements of a block of ScaleRule.BLOCK
    state: bool = False  # SOFTMAX leaves its state
    bias: bool = False  # DEQUANTISE adds one
    integer: bool = False  # x is of integers
    pooled: int = 1  # rows of a mean of MEAN_POOL
    mask: bool = False  # MEAN_POOL has one


CODES = {
    VectorOp.COPY: Code.COPY, VectorOp.CONVERT: Code.COPY, VectorOp.ADD: Code.ADD,
    VectorOp.MUL: Code.MULTIPLY, VectorOp.SCALE: Code.SCALE, VectorOp.RELU: Code.RELU,
    VectorOp.SIGMOID: Code.SIGMOID, VectorOp.SILU: Code.SILU, VectorOp.GELU: Code.GELU,
    VectorOp.GELU_TANH: Code.GELU_TANH, VectorOp.EXP: Code.EXP, VectorOp.TANH: Code.TANH,
    VectorOp.REDUCE_SUM: Code.REDUCE_SUM, VectorOp.REDUCE_MAX: Code.REDUCE_MAX,
    VectorOp.SOFTMAX: Code.SOFTMAX, VectorOp.LAYERNORM: Code.LAYERNORM,
    VectorOp.RMSNORM: Code.RMSNORM, VectorOp.L2NORM: Code.L2NORM, VectorOp.ROPE: Code.ROPE,
    VectorOp.QUANTISE: Code.QUANTISE, VectorOp.DEQUANTISE: Code.DEQUANTISE,
    VectorOp.MERGE: Code.MERGE, VectorOp.ARGMAX: Code.TOPK, VectorOp.TOPK: Code.TOPK,
    VectorOp.MEAN_POOL: Code.MEAN_POOL, VectorOp.MLGRU: Code.MLGRU,
}
INTEGER_CODES = {  # of integers x
    VectorOp.COPY: Code.FROM_INTEGER, VectorOp.CONVERT: Code.FROM_INTEGER,
    VectorOp.MUL: Code.MULTIPLY_INTEGER, VectorOp.DEQUANTISE: Code.DEQUANTISE,
}
# Operators whose rows may be laid end to end and cut anew.
ENDLESS = frozenset(op for op in CODES if op <= VectorOp.TANH) | {VectorOp.MLGRU}
TABLE_ACTIVATIONS = TableUnitConfig().k


def takes(op: VectorOp, formats: Mapping[str, str]) -> bool:
    """Return whether the unit in RTL reads and writes the operands of `op`, `formats` by role.

    Operands that share a stream share its format, and what is sent as float32 is kept as that.
    """
    read = {role: name for role, name in formats.items() if role not in ("y", "scale")}
    x, y = formats["x"], formats["y"]
    others = {name for role, name in read.items() if role != "x"}
    if op is VectorOp.TABLE_PRECOMPUTE:
        return _makes_tables(x, y)
    if op not in CODES or formats.get("scale", "float32") != "float32":
        return False
    if op is VectorOp.MEAN_POOL:  # a mask may be of any numbers that are 0 only as 0
        return x in FLOATS and y in FLOATS and others <= set(INPUT_FORMATS) - {"int32"}
    if op is VectorOp.ROPE:  # its steps are words of 24 bits
        return x in FLOATS and y in FLOATS and others <= {"int32"}
    if len(others) > 1 or not others <= set(FLOATS):
        return False
    if x not in FLOATS:
        rounds_twice = y == "bfloat16" and x == "int32" and op in (VectorOp.COPY, VectorOp.CONVERT)
        return (x in INPUT_FORMATS and op in INTEGER_CODES and y in FLOATS and not rounds_twice)
    match op:
        case VectorOp.DEQUANTISE:
            return False
        case VectorOp.QUANTISE:
            return y in QUANTISED and not others
        case VectorOp.ARGMAX:
            return y == "int32"
        case VectorOp.TOPK:
            return y in ("float32", "int32")
        case VectorOp.REDUCE_SUM | VectorOp.REDUCE_MAX:
            return y == "float32"
        case VectorOp.SOFTMAX | VectorOp.MERGE:
            return y in FLOATS and others <= {"float32"}
        case VectorOp.MLGRU:
            return y in FLOATS and others == {y}
    return y in FLOATS


def _makes_tables(x: str, y: str) -> bool:
    """Return whether the block beside the unit comes with activations `x` and entries `y`."""
    try:
        TableUnitConfig(a_format=x, format=y)
    except ValueError:
        return False
    return True


def core_of(cfg: VectorConfig) -> VectorCoreConfig:
    """Return the unit in RTL of `cfg`; raise ``ValueError`` where there is none of its sizes."""
    check_core(cfg.lanes, cfg.row_elements)
    return VectorCoreConfig(lanes=cfg.lanes, row_elements=cfg.row_elements)


def core_commands(core: VectorCoreConfig, op: VectorOp, rows: int, width: int,
                  variant: Variant, k: int = 1) -> list[VectorCommand]:
    """Return the commands of `op` on `rows` rows of `width` elements; `k` is TOPK's count.

    Rows of operators on single elements are laid end to end and cut at ``core.row_elements``.
    Raises ``ValueError`` for an operator without RTL, and a row that the unit cannot hold.
    """
    names = ", ".join(known.name.lower() for known in CODES)
    require(op in CODES, "vop", f"one that the vector unit has in RTL ({names})", op.name.lower())
    code, repeats = CODES[op], k if op is VectorOp.TOPK else 1
    if variant.integer:
        require(op in INTEGER_CODES, "vop of integers", "one that the vector unit has in RTL "
                f"({', '.join(known.name.lower() for known in INTEGER_CODES)})", op.name.lower())
        code = INTEGER_CODES[op]
    if op is VectorOp.SOFTMAX and variant.state:
        code = Code.SOFTMAX_STATE
    elif op is VectorOp.DEQUANTISE and variant.bias:
        code = Code.DEQUANTISE_BIAS
    elif op is VectorOp.QUANTISE and variant.rule is ScaleRule.BLOCK and variant.block:
        code, rows, width = Code.QUANTISE_ROWS, rows * width // variant.block, variant.block
    elif op is VectorOp.QUANTISE and variant.rule is not ScaleRule.STATIC:
        code = Code.QUANTISE_ROWS
    elif op is VectorOp.MERGE:
        width -= 2  # the row begins with m and l
    elif op is VectorOp.ROPE:
        require(width % 2 == 0, "width of rope", "even", width)
        width //= 2  # the command's rows are halves
    elif op is VectorOp.MEAN_POOL:
        code = Code.MEAN_POOL_MASKED if variant.mask else code
        rows, repeats = rows // variant.pooled, variant.pooled
    cuts = [(rows, width)]
    if op in ENDLESS:
        whole, rest = divmod(rows * width, core.row_elements)
        cuts = [(whole, core.row_elements), (1, rest)]
    commands = [VectorCommand(code=code, rows=min(count - at, MAX_ROWS), width=length,
                              order=variant.order, repeats=repeats,
                              x_format="int32" if code in WHOLE_INPUTS else "float32",
                              o_format="int8" if code in QUANTISERS else "float32")
                for count, length in cuts if length
                for at in range(0, count, MAX_ROWS)]
    for command in commands:
        command.check(core)
    return commands


def op_cycles(cfg: VectorConfig, op: VectorOp, rows: int, width: int, *, units: int = 1,
              k: int = 1, variant: Variant | None = None) -> int:
    """Return the cycles until `op` on `rows` rows of `width` elements is done on `units` units.

    The rows are dealt out whole, and those of one mean together, so the unit with the most sets
    the time; `k` is TOPK's count, `variant` is for the fidelity ``rtl``. With that, tables take
    the block that makes them a cycle each, and one for the last to be taken. Raises `ValueError`
    unless `units` is from 1 to the configuration's count, and for what the RTL does not do.
    """
    if not 1 <= units <= cfg.count:
        raise ValueError(f"units must be from 1 to {cfg.count}, not {units!r}")
    variant = variant or Variant()
    mine = variant.pooled * -(-rows // (units * variant.pooled))
    if cfg.fidelity == "analytic":
        return cfg.op_cycles(op, mine, width, k=k)
    if not mine or not width:
        return 0
    if op is VectorOp.TABLE_PRECOMPUTE:
        return mine * -(-width // TABLE_ACTIVATIONS) + TableUnitConfig().latency_cycles
    core = core_of(cfg)
    commands = core_commands(core, op, mine, width, variant, k)
    return sum(command_cycles(core, command) for command in commands[:-1]) + done_cycles(
        core, commands[-1])
