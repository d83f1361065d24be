"""When the vector unit is done: one operation at a time, each as long as machine.vector says."""

from machine.vector import VectorConfig, VectorOp

__all__ = ["op_cycles"]


def op_cycles(cfg: VectorConfig, op: VectorOp, rows: int, width: int, *, units: int = 1,
              k: int = 1) -> int:
    """Return the cycles until `op` on `rows` rows of `width` elements is done on `units` units.

    The rows are dealt out whole, so the unit with the most sets the time; `k` is TOPK's count.
    Raises `ValueError` unless `units` is from 1 to the configuration's count.
    """
    if not 1 <= units <= cfg.count:
        raise ValueError(f"units must be from 1 to {cfg.count}, not {units!r}")
    return cfg.op_cycles(op, -(-rows // units), width, k=k)
