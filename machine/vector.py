"""The vector unit described: its operators with their stable codes, and its cycles as a formula."""

from enum import IntEnum

from machine.config import Fidelity, config, require

__all__ = ["OPERANDS", "Mask", "ReductionOrder", "ScaleRule", "VectorConfig", "VectorOp"]


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
    VectorOp.ROPE: ("x",),
    VectorOp.QUANTISE: ("x", "[scale]"),
    VectorOp.DEQUANTISE: ("x", "row_scale", "column_scale", "[bias]"),
    VectorOp.GATHER: ("table", "index"),
    VectorOp.SCATTER: ("x", "index"),
    VectorOp.MERGE: ("state", "other_state"),
    VectorOp.TABLE_PRECOMPUTE: ("x",),
    VectorOp.MLGRU: ("input", "forget", "state"),
}


@config
class VectorConfig:
    """`count` equal vector units of `lanes` elements; an operator's latencies are given per beat.

    The form of the cycle formulas is NeuPIMs' (arXiv 2403.00579, its simulator's vector pipeline).
    """

    name: str
    count: int  # units of this kind
    lanes: int  # elements a unit takes at once; one beat
    add_cycles: int = 1
    mul_cycles: int = 1
    exp_cycles: int = 1
    gelu_cycles: int = 1
    add_tree_cycles: int = 1  # one level of the reduction of `lanes` numbers to one
    scalar_cycles: int = 1  # divide, square root or multiply of one number
    clock: str = "core"
    fidelity: Fidelity = "analytic"

    def __post_init__(self) -> None:
        require(bool(self.name), "name", "a non-empty name", self.name)
        for field in ("count", "lanes", "add_cycles", "mul_cycles", "exp_cycles", "gelu_cycles",
                      "add_tree_cycles", "scalar_cycles"):
            require(getattr(self, field) >= 1, field, "at least 1", getattr(self, field))
