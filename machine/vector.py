"""The vector unit described: its operators with their stable codes, and its cycles as a formula."""

from enum import IntEnum
from typing import Literal, NamedTuple

from machine.config import config, require

__all__ = [
    "FIDELITIES", "OPERANDS", "OPERATIONS", "Mask", "Operations", "ReductionOrder", "ScaleRule",
    "VectorConfig", "VectorOp", "check_core",
]


class VectorOp(IntEnum):
    """An operator of the vector unit; the number is the instruction's field and never changes."""

    # One element in, one element out.
    COPY = 1
    CONVERT = 2
    ADD = 3
    MUL = 4
    SCALE = 5
    RELU = 6
    SIGMOID = 7
    SILU = 8
    GELU = 9
    GELU_TANH = 10
    EXP = 11
    TANH = 12
    # One row in, one number or one row out.
    REDUCE_SUM = 16
    REDUCE_MAX = 17
    ARGMAX = 18
    TOPK = 19
    SOFTMAX = 20
    LAYERNORM = 21
    RMSNORM = 22
    L2NORM = 23
    MEAN_POOL = 24
    # Position, precision, placement and carried state.
    ROPE = 32
    QUANTISE = 33
    DEQUANTISE = 34
    GATHER = 35
    SCATTER = 36
    MERGE = 37
    TABLE_PRECOMPUTE = 38
    MLGRU = 39


class Mask(IntEnum):
    """Which keys a query sees; query i stands at ``position_base + i``, key j at j."""

    NONE = 0
    CAUSAL = 1  # key <= query
    WINDOW = 2  # query - window < key <= query


class ReductionOrder(IntEnum):
    """The order in which a row is added; floats differ in their last bit between orders."""

    SEQUENTIAL = 0  # element 0, then 1, then 2 ...
    TREE = 1  # a partial sum a lane (elements lane, lane + lanes, ...), then a binary tree of them


class ScaleRule(IntEnum):
    """Where a quantiser's scale comes from."""

    STATIC = 0  # given with the instruction
    ROW_ABSMAX = 1  # largest magnitude of the row over the largest code, found at run time
    TABLE = 2  # one scale a look-up table, found at run time (LUT Tensor Core)
    BLOCK = 3  # one scale an activation block, found at run time (T-MAC)


# The source operands of each operator, in the order the instruction lists them.
# A name in brackets may be absent.
OPERANDS: dict[VectorOp, tuple[str, ...]] = {
    VectorOp.COPY: ("x",),
    VectorOp.CONVERT: ("x",),
    VectorOp.ADD: ("x", "y"),
    VectorOp.MUL: ("x", "y"),
    VectorOp.SCALE: ("x", "factor"),
    VectorOp.RELU: ("x",),
    VectorOp.SIGMOID: ("x",),
    VectorOp.SILU: ("x",),
    VectorOp.GELU: ("x",),
    VectorOp.GELU_TANH: ("x",),
    VectorOp.EXP: ("x",),
    VectorOp.TANH: ("x",),
    VectorOp.REDUCE_SUM: ("x",),
    VectorOp.REDUCE_MAX: ("x",),
    VectorOp.ARGMAX: ("x",),
    VectorOp.TOPK: ("x",),
    VectorOp.SOFTMAX: ("x", "[state]"),
    VectorOp.LAYERNORM: ("x", "gain", "bias"),
    VectorOp.RMSNORM: ("x", "gain"),
    VectorOp.L2NORM: ("x",),
    VectorOp.MEAN_POOL: ("x", "[mask]"),
    VectorOp.ROPE: ("x", "[steps]"),
    VectorOp.QUANTISE: ("x", "[scale]"),
    VectorOp.DEQUANTISE: ("x", "row_scale", "column_scale", "[bias]"),
    VectorOp.GATHER: ("table", "index"),
    VectorOp.SCATTER: ("x", "index"),
    VectorOp.MERGE: ("state", "other_state"),
    VectorOp.TABLE_PRECOMPUTE: ("x",),
    VectorOp.MLGRU: ("input", "forget", "state"),
}


class Operations(NamedTuple):
    """What an operator costs: operations on every beat of elements, and on every row.

    An operator with row operations works row by row, each row starting on a new beat; one without
    takes rows end to end.
    """

    adds: int = 0  # a beat, also compares, moves and conversions
    muls: int = 0  # a beat
    exps: int = 0  # a beat
    curves: int = 0  # a beat: gelu, sigmoid and the like
    trees: int = 0  # a row: reductions to one number
    scalars: int = 0  # a row: multiplies, divides and roots of one number
    scalar_exps: int = 0  # a row
    results: int = 1  # elements written for each element read


# Softmax, layernorm, add and gelu count what NeuPIMs' simulator counts (arXiv 2403.00579,
# its vector pipeline); the others count the operations of golden.vector in the same way.
OPERATIONS: dict[VectorOp, Operations] = {
    VectorOp.COPY: Operations(adds=1),
    VectorOp.CONVERT: Operations(adds=1),
    VectorOp.ADD: Operations(adds=1),
    VectorOp.MUL: Operations(muls=1),
    VectorOp.SCALE: Operations(muls=1),
    VectorOp.RELU: Operations(adds=1),
    VectorOp.SIGMOID: Operations(curves=1),
    VectorOp.SILU: Operations(curves=1),
    VectorOp.GELU: Operations(curves=1),
    VectorOp.GELU_TANH: Operations(curves=1),
    VectorOp.EXP: Operations(exps=1),
    VectorOp.TANH: Operations(curves=1),
    VectorOp.REDUCE_SUM: Operations(trees=1),
    VectorOp.REDUCE_MAX: Operations(trees=1),
    VectorOp.ARGMAX: Operations(trees=1),
    VectorOp.TOPK: Operations(trees=1),  # for each of the k
    VectorOp.SOFTMAX: Operations(adds=1, exps=1, muls=1, trees=2),
    VectorOp.LAYERNORM: Operations(adds=2, muls=3, trees=2, scalars=3),
    VectorOp.RMSNORM: Operations(muls=3, trees=1, scalars=3),
    VectorOp.L2NORM: Operations(muls=2, trees=1, scalars=2),
    VectorOp.MEAN_POOL: Operations(adds=1),  # the one row of multiplies at its end is left out
    VectorOp.ROPE: Operations(adds=1, muls=2),
    VectorOp.QUANTISE: Operations(muls=1, trees=1, scalars=2),
    VectorOp.DEQUANTISE: Operations(adds=1, muls=2),
    VectorOp.GATHER: Operations(adds=1),
    VectorOp.SCATTER: Operations(adds=1),
    VectorOp.MERGE: Operations(adds=1, muls=2, scalars=4, scalar_exps=2),
    VectorOp.TABLE_PRECOMPUTE: Operations(adds=1, results=2),
    VectorOp.MLGRU: Operations(adds=3, muls=3, curves=2),
}


# Timing options: NeuPIMs' formula, and our RTL's (``machine.vector_core``).
FIDELITIES = ("analytic", "rtl")


def check_core(lanes: int, row_elements: int) -> None:
    """Raise ``ValueError`` unless the vector unit comes in these sizes in RTL."""
    def power_of_two(value: int) -> bool:
        return value & (value - 1) == 0
    require(2 <= lanes <= 128 and power_of_two(lanes), "lanes", "a power of two from 2 to 128",
            lanes)
    least, most = 2 * lanes, 1 << 15
    require(least <= row_elements <= most and power_of_two(row_elements), "row_elements",
            f"a power of two from {least} (two beats of {lanes}) to {most}", row_elements)


@config
class VectorConfig:
    """`count` equal vector units of `lanes` elements; latencies are of one operation on one beat.

    The default latencies are NeuPIMs' (arXiv 2403.00579, ``systolic_ws_128x128_dev.json``); the
    fidelity ``rtl`` has the RTL's own and ignores them.
    """

    name: str
    count: int  # units of this kind
    lanes: int  # elements a unit takes at once; one beat
    add_cycles: int = 1
    mul_cycles: int = 1
    exp_cycles: int = 1
    gelu_cycles: int = 1  # also sigmoid, silu and tanh
    add_tree_cycles: int = 1  # `lanes` numbers to one
    scalar_cycles: int = 1  # divide, square root or multiply of one number
    row_elements: int = 1024  # longest row of the unit in RTL
    clock: str = "core"
    fidelity: Literal["analytic", "rtl"] = "analytic"  # timing option, one of `FIDELITIES`

    def __post_init__(self) -> None:
        require(bool(self.name), "name", "a non-empty name", self.name)
        for field in ("count", "lanes", "add_cycles", "mul_cycles", "exp_cycles", "gelu_cycles",
                      "add_tree_cycles", "scalar_cycles"):
            require(getattr(self, field) >= 1, field, "at least 1", getattr(self, field))
        if self.fidelity == "rtl":
            check_core(self.lanes, self.row_elements)

    def tree_cycles(self, width: int) -> int:
        """Cycles to reduce `width` numbers to one: by `lanes` until one is left."""
        beats = -(-width // self.lanes)
        return self.add_tree_cycles * beats + (self.tree_cycles(beats) if beats > 1 else 0)

    def op_cycles(self, op: VectorOp, rows: int, width: int, *, k: int = 1) -> int:
        """Cycles of `op` on `rows` rows of `width` elements on one unit, none overlapping.

        Rows x (trees x tree + scalars x scalar + iterations x (adds x add + muls x mul + ...)),
        where a row has ceil(width / lanes) iterations; without row operations the rows follow
        end to end in ceil(rows x width / lanes). `k` is TOPK's count. No elements take no time.
        """
        cost = OPERATIONS[op]
        if not rows or not width:
            return 0
        beat = (cost.adds * self.add_cycles + cost.muls * self.mul_cycles
                + cost.exps * self.exp_cycles + cost.curves * self.gelu_cycles)
        row = (k * cost.trees * self.tree_cycles(width) + cost.scalars * self.scalar_cycles
               + cost.scalar_exps * self.exp_cycles)
        if not row:
            return -(-rows * width * cost.results // self.lanes) * beat
        return rows * (row + -(-width * cost.results // self.lanes) * beat)
