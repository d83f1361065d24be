"""When the vector unit is done: one operation at a time, as its fidelity says.

``analytic`` is the formula of ``machine.vector``; ``rtl`` the commands that the unit in RTL would
be given, one after the other.
"""

from typing import NamedTuple

from machine.config import require
from machine.vector import ReductionOrder, ScaleRule, VectorConfig, VectorOp, check_core
from machine.vector_core import (
    MAX_ROWS,
    WHOLE_INPUTS,
    WHOLE_OUTPUTS,
    VectorCommand,
    VectorCoreConfig,
    command_cycles,
    done_cycles,
)
from machine.vector_programs import Code

__all__ = ["Variant", "core_commands", "core_of", "op_cycles"]


class Variant(NamedTuple):
    """What else an operation on the RTL unit depends on."""

    order: ReductionOrder = ReductionOrder.TREE
    rule: ScaleRule = ScaleRule.STATIC  # of QUANTISE
    block: int = 0  # elements of a block of ScaleRule.BLOCK
    state: bool = False  # SOFTMAX leaves its state
    bias: bool = False  # DEQUANTISE adds one
    integer: bool = False  # x is int32


CODES = {
    VectorOp.COPY: Code.COPY, VectorOp.CONVERT: Code.COPY, VectorOp.ADD: Code.ADD,
    VectorOp.MUL: Code.MULTIPLY, VectorOp.SCALE: Code.SCALE, VectorOp.RELU: Code.RELU,
    VectorOp.SIGMOID: Code.SIGMOID, VectorOp.SILU: Code.SILU, VectorOp.GELU: Code.GELU,
    VectorOp.GELU_TANH: Code.GELU_TANH, VectorOp.EXP: Code.EXP, VectorOp.TANH: Code.TANH,
    VectorOp.REDUCE_SUM: Code.REDUCE_SUM, VectorOp.REDUCE_MAX: Code.REDUCE_MAX,
    VectorOp.SOFTMAX: Code.SOFTMAX, VectorOp.LAYERNORM: Code.LAYERNORM,
    VectorOp.RMSNORM: Code.RMSNORM, VectorOp.L2NORM: Code.L2NORM, VectorOp.ROPE: Code.ROPE,
    VectorOp.QUANTISE: Code.QUANTISE, VectorOp.DEQUANTISE: Code.DEQUANTISE,
    VectorOp.MERGE: Code.MERGE,
}
INTEGER_CODES = {  # of int32 x
    VectorOp.COPY: Code.FROM_INTEGER, VectorOp.CONVERT: Code.FROM_INTEGER,
    VectorOp.MUL: Code.MULTIPLY_INTEGER, VectorOp.DEQUANTISE: Code.DEQUANTISE,
}
# Operators whose rows may be laid end to end and cut anew.
ENDLESS = frozenset(op for op in CODES if op <= VectorOp.TANH)


def core_of(cfg: VectorConfig) -> VectorCoreConfig:
    """Return the unit in RTL of `cfg`; raise ``ValueError`` where there is none of its sizes."""
    check_core(cfg.lanes, cfg.row_elements)
    return VectorCoreConfig(lanes=cfg.lanes, row_elements=cfg.row_elements)


def core_commands(core: VectorCoreConfig, op: VectorOp, rows: int, width: int,
                  variant: Variant) -> list[VectorCommand]:
    """Return the commands of `op` on `rows` rows of `width` elements.

    Rows of operators on single elements are laid end to end and cut at ``core.row_elements``.
    Raises ``ValueError`` for an operator without RTL, and a row that the unit cannot hold.
    """
    names = ", ".join(known.name.lower() for known in CODES)
    require(op in CODES, "vop", f"one that the vector unit has in RTL ({names})", op.name.lower())
    code = CODES[op]
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
    cuts = [(rows, width)]
    if op in ENDLESS:
        whole, rest = divmod(rows * width, core.row_elements)
        cuts = [(whole, core.row_elements), (1, rest)]
    commands = [VectorCommand(code=code, rows=min(count - at, MAX_ROWS), width=length,
                              order=variant.order,
                              x_format="int32" if code in WHOLE_INPUTS else "float32",
                              o_format="int8" if code in WHOLE_OUTPUTS else "float32")
                for count, length in cuts if length
                for at in range(0, count, MAX_ROWS)]
    for command in commands:
        command.check(core)
    return commands


def op_cycles(cfg: VectorConfig, op: VectorOp, rows: int, width: int, *, units: int = 1,
              k: int = 1, variant: Variant | None = None) -> int:
    """Return the cycles until `op` on `rows` rows of `width` elements is done on `units` units.

    The rows are dealt out whole, so the unit with the most sets the time; `k` is TOPK's count,
    `variant` is for the fidelity ``rtl``. Raises `ValueError` unless `units` is from 1 to the
    configuration's count, and for what the RTL does not do.
    """
    if not 1 <= units <= cfg.count:
        raise ValueError(f"units must be from 1 to {cfg.count}, not {units!r}")
    mine = -(-rows // units)
    if cfg.fidelity == "analytic":
        return cfg.op_cycles(op, mine, width, k=k)
    if not mine or not width:
        return 0
    core = core_of(cfg)
    commands = core_commands(core, op, mine, width, variant or Variant())
    return sum(command_cycles(core, command) for command in commands[:-1]) + done_cycles(
        core, commands[-1])
