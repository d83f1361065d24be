"""The arithmetic unit for floats: its operation, its formats, its stages and its latency.

A unit is a row of stages without registers; `depth_cycles` registers are spread evenly between
them. Latency is that number of steps, throughput one operation a step.
"""

from typing import Literal

from machine.config import config, require
from machine.formats import KULISCH_LIMIT_BITS, Format, Kind, format_named, product_bits

__all__ = ["KULISCH_MARKS", "OPERATIONS", "FloatConfig", "Operation", "kulisch_bits",
           "registers_after"]

Operation = Literal["add", "multiply", "multiply_add", "divide", "square_root", "maximum",
                    "compare", "convert"]

# Marks above the fixed-point number of an exact sum: a NaN, +infinity, -infinity was added.
KULISCH_MARKS = ("nan", "above", "below")

# The stages that round: find the leading one, shift it to its place, round there.
ROUND = ("count", "shift", "encode")

# operation: operands, the stages in front of `ROUND`, and whether it ends in `ROUND`
OPERATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...], bool]] = {
    "add": (("a", "b"), ("decode", "align", "sum"), True),
    "multiply": (("a", "b"), ("decode", "product"), True),
    "multiply_add": (("a", "b", "c"), ("decode", "product", "align", "sum"), True),
    "divide": (("a", "b"), ("decode", "digits", "remainder"), True),
    "square_root": (("a",), ("decode", "digits", "remainder"), True),
    "maximum": (("a", "b"), ("select",), False),
    "compare": (("a", "b"), ("order",), False),
    "convert": (("a",), ("decode",), True),
}


@config
class FloatConfig:
    """One operation on floats of given formats, rounded once."""

    operation: Operation
    a: str = "float32"  # format of the first operand, float or integer
    b: str = "float32"  # format of the second operand, if there is one
    out: str = "float32"  # format of the result, and of `c` of multiply_add
    saturate: bool = False  # an overflowing float stops at the largest finite one
    rounding: Literal["nearest_even", "toward_zero", "floor"] = "nearest_even"  # to an integer
    depth_cycles: int = 0  # registers between the stages

    def __post_init__(self) -> None:
        for name in ("a", "b", "out"):
            fmt = format_named(getattr(self, name), where=name)
            whole = fmt.kind is Kind.INTEGER and self._may_be_integer(name)
            require(fmt.is_float or whole, name, f"a format that {self.operation} takes", fmt.name)
        require(self.to_integer or self.rounding == "nearest_even", "rounding",
                "nearest_even for a float", self.rounding)
        if self.operation in ("maximum", "compare", "divide", "square_root"):
            for name in {*self.operands, "out"}:
                require(self.format_of(name) == self.format_of("a"), name,
                        f"the format of a, {self.a}", getattr(self, name))
        require(0 <= self.depth_cycles <= self.max_depth_cycles, "depth_cycles",
                f"from 0 to {self.max_depth_cycles}", self.depth_cycles)

    def _may_be_integer(self, name: str) -> bool:
        if name == "out":
            return self.operation == "convert"
        return self.operation in ("convert", "multiply", "multiply_add")

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of the operands."""
        return OPERATIONS[self.operation][0]

    def format_of(self, operand: str) -> Format:
        """Return the format of ``a``, ``b``, ``c`` or ``out``."""
        return format_named(self.out if operand == "c" else getattr(self, operand))

    @property
    def to_integer(self) -> bool:
        """Whether the result is an integer."""
        return self.format_of("out").kind is Kind.INTEGER

    @property
    def digits(self) -> int:
        """Binary digits that a quotient or a root is computed to, in front of its remainder.

        The significand and a guard bit; one more for a quotient, which may begin with a zero.
        """
        return self.format_of("out").mantissa_bits + 2 + (self.operation == "divide")

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, first to last; a digit of a quotient or root is one stage."""
        _, front, rounds = OPERATIONS[self.operation]
        if self.to_integer:
            return ("decode", "place", "encode")
        names: list[str] = []
        for name in front:
            names += [f"digit_{i}" for i in range(self.digits)] if name == "digits" else [name]
        return (*names, *(ROUND if rounds else ()))

    @property
    def max_depth_cycles(self) -> int:
        """Most registers: one behind every stage but the last."""
        return len(self.stages) - 1

    @property
    def latency_cycles(self) -> int:
        """Steps from an operand to its result."""
        return self.depth_cycles


def registers_after(stages: int, depth: int) -> tuple[int, ...]:
    """Return the `depth` stages of `stages`, counted from 0, that a register follows."""
    return tuple(stages * (i + 1) // (depth + 1) - 1 for i in range(depth))


def kulisch_bits(a: Format, b: Format, products: int) -> int:
    """Return the bits that hold the exact sum of any `products` products, sign included.

    In units of the smallest product of `a` and `b`, both floats; `KULISCH_MARKS` come above.
    Raises ``ValueError`` if one product takes more than `KULISCH_LIMIT_BITS`.
    """
    width = product_bits(a, b)
    require(width <= KULISCH_LIMIT_BITS, f"kulisch accumulator of {a.name} x {b.name}",
            f"at most {KULISCH_LIMIT_BITS} bits", width)
    units = [int(fmt.largest / fmt.smallest) for fmt in (a, b)]
    return (products * units[0] * units[1]).bit_length() + 1
