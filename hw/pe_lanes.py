"""The lanes of an element: its activations and weights as numbers, and their sum as a tree."""

from collections.abc import Sequence

from amaranth.hdl import Value

from machine.formats import Format, Kind
from machine.systolic import SystolicConfig

__all__ = ["lanes", "tree"]


def lanes(cfg: SystolicConfig, act: Value, weight: Value) -> list[tuple[Value, Value]]:
    """Return (activation, weight) of each lane, signed where its format is two's complement."""
    return [(_number(act.word_select(lane, cfg.a_bits), cfg.act_format),
             _number(weight.word_select(lane, cfg.w_bits), cfg.operand_format))
            for lane in range(cfg.pe.k_lanes)]


def tree(terms: Sequence[Value]) -> Value:
    """Return the exact sum of one or more `terms`, neighbours first, as deep as its logarithm."""
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = [*pairs, *terms[len(pairs) * 2 :]]
    return terms[0]


def _number(code: Value, fmt: Format) -> Value:
    return code.as_signed() if fmt.kind is Kind.INTEGER and fmt.signed else code
