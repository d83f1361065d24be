"""The blocks beside the vector unit that make tables for the lookup array and quantise them."""

from machine.config import config, require
from machine.floats import FloatConfig
from machine.formats import Format, format_named
from machine.lut import FLOAT_TABLES, sum_bits
from machine.vector import ScaleRule, VectorConfig, VectorOp

__all__ = ["TableQuantiserConfig", "TableUnitConfig"]


@config
class TableUnitConfig:
    """Makes the half table of `k` activations, one group a cycle."""

    k: int = 4  # activations of a table
    a_format: str = "int8"  # int2 to int16, exact; or float16
    format: str = "int11"  # of an entry; of floats one of `FLOAT_TABLES`
    count: int = 1  # equal units beside one vector unit
    fused: bool = False  # fed by the vector unit's output as it streams; if not, by a buffer

    def __post_init__(self) -> None:
        require(2 <= self.k <= 6, "k", "from 2 to 6", self.k)
        require(self.count >= 1, "count", "at least 1", self.count)
        a, entry = self.activation, self.entry
        if a.name == "float16":
            require(entry.name in FLOAT_TABLES, "format",
                    f"one of {', '.join(FLOAT_TABLES)} for sums of float16", self.format)
            return
        require(a.name == f"int{a.bits}" and 2 <= a.bits <= 16, "a_format",
                "int2 to int16 or float16", self.a_format)
        least = sum_bits(self.k, a.bits, symmetric=True)
        require(entry.name == f"int{entry.bits}" and entry.bits >= least, "format",
                f"int{least} or wider for sums of {self.k} activations of {a.name}", self.format)

    @property
    def activation(self) -> Format:
        """The format of an activation."""
        return format_named(self.a_format, where="a_format")

    @property
    def entry(self) -> Format:
        """The format of an entry."""
        return format_named(self.format, where="format")

    @property
    def entries(self) -> int:
        """Entries of a table."""
        return 2 ** (self.k - 1)

    @property
    def group_bits(self) -> int:
        """Bits of a group of activations; number j lies at bit j times its width."""
        return self.k * self.activation.bits

    @property
    def table_bits(self) -> int:
        """Bits of a table; entry e lies at bit e times its width."""
        return self.entries * self.entry.bits

    @property
    def latency_cycles(self) -> int:
        """Cycles from a group's acceptance to the cycle its table is offered: the output queue.

        All additions of a table happen in the cycle its group is accepted.
        """
        return 1

    def traffic_bits(self, rows: int, width: int) -> int:
        """Bits of the tables of `rows` rows of `width` activations; unfused, so many more are
        written to a buffer and read from it."""
        return rows * -(-width // self.k) * self.table_bits

    def cycles(self, vector: VectorConfig, op: VectorOp, rows: int, width: int) -> int:
        """Cycles of `op` on one vector unit and of the tables of its output.

        Fused: the tables are made while the output streams, so the element-wise cost alone as long
        as the units keep up with the lanes, and the latency of the last one. Unfused: the tables
        are an operation of the vector unit behind `op`.
        """
        alone = vector.op_cycles(op, rows, width)
        if not self.fused:
            return alone + vector.op_cycles(VectorOp.TABLE_PRECOMPUTE, rows, width)
        groups = rows * -(-width // self.k)
        return max(alone, -(-groups // self.count)) + self.latency_cycles


@config
class TableQuantiserConfig:
    """Quantises tables of integers with scales found at run time; which share one, `rule` says."""

    rule: ScaleRule  # TABLE: a scale a table (LUT Tensor Core); BLOCK: one for `block` (T-MAC)
    block: int  # tables under one scale; 1 for TABLE
    k: int = 4  # activations of a table
    format: str = "int11"  # of an entry that enters, int2 to int24: exact in float32
    out_format: str = "int8"  # of one that leaves
    divider_cycles: int = 14  # registers inside the divider, one operation a cycle

    def __post_init__(self) -> None:
        require(self.rule in (ScaleRule.TABLE, ScaleRule.BLOCK), "rule", "table or block",
                self.rule.name.lower())
        high = 1 if self.rule is ScaleRule.TABLE else 4096
        require(1 <= self.block <= high, "block", f"from 1 to {high} for a scale a "
                f"{self.rule.name.lower()}", self.block)
        require(2 <= self.k <= 6, "k", "from 2 to 6", self.k)
        for name, high in (("format", 24), ("out_format", 8)):
            fmt = format_named(getattr(self, name), where=name)
            require(fmt.name == f"int{fmt.bits}" and 2 <= fmt.bits <= high, name,
                    f"int2 to int{high}", fmt.name)

        deepest = FloatConfig(operation="divide").max_depth_cycles
        require(0 <= self.divider_cycles <= deepest, "divider_cycles", f"from 0 to {deepest}",
                self.divider_cycles)

    @property
    def entry(self) -> Format:
        """The format of an entry that enters."""
        return format_named(self.format)

    @property
    def code(self) -> Format:
        """The format of an entry that leaves."""
        return format_named(self.out_format)

    @property
    def entries(self) -> int:
        """Entries of a table."""
        return 2 ** (self.k - 1)

    @property
    def table_bits(self) -> int:
        """Bits of a table that enters; entry e lies at bit e times its width."""
        return self.entries * self.entry.bits

    @property
    def code_bits(self) -> int:
        """Bits of a table that leaves; code e lies at bit e times its width."""
        return self.entries * self.code.bits

    @property
    def scale_latency_cycles(self) -> int:
        """Cycles from a block's last table to the cycle its scale is offered."""
        return self.divider_cycles + 3

    @property
    def latency_cycles(self) -> int:
        """Cycles from a block's last table to the cycle its first codes are offered."""
        return self.scale_latency_cycles + 3

    @property
    def block_cycles(self) -> int:
        """Cycles from a block's first table to that of the next: in, divisions, scale, codes."""
        return self.block + self.divider_cycles + 2 + 3 * self.block
