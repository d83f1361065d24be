"""The order in which an array adds a product's floats, as an instruction names it."""

from typing import NamedTuple

from machine.opcodes import Dataflow, KOrder
from machine.systolic import MAX_LENGTH, SystolicConfig

__all__ = ["Order", "array_order", "same_sums"]


class Order(NamedTuple):
    """The fields of a MATMUL that name an order of addition."""

    k_order: KOrder
    k_size: int  # of `KOrder.DESCENDING` products of a tile; of INTERLEAVED partial sums


SEQUENTIAL = Order(KOrder.SEQUENTIAL, 0)


def array_order(cfg: SystolicConfig, dataflow: Dataflow) -> Order | None:
    """Return the order of an array of float elements; None where no order is that of its sums.

    ``ws``: sums go down the rows, and the first row holds a tile's last k; tiles of ``rows``
    products follow each other. ``os``: product k goes to partial sum ``k % partial_sums``. An
    element that takes blocks (``mx``) adds those of a beat exactly, and an exact sum has no format
    in memory: no order for them. Integers wrap in any order: `KOrder.SEQUENTIAL`.
    """
    pe = cfg.pe
    if pe.fixed.integer:
        return SEQUENTIAL
    if pe.kind == "mx" or pe.acc_format == "kulisch":
        return None
    if dataflow is Dataflow.WS:
        return Order(KOrder.DESCENDING, cfg.rows)
    return Order(KOrder.INTERLEAVED, pe.partial_sums) if dataflow is Dataflow.OS else None


def same_sums(
    cfg: SystolicConfig, dataflow: Dataflow, order: Order, k: int, *, sets: bool
) -> bool:
    """Return whether `order` gives the sums of an array of floats over `k` products, bit by bit.

    One partial sum that replaces the accumulator starts as it does: `sets` makes it SEQUENTIAL. An
    ``os`` product longer than a command is not one of the array's tiles.
    """
    own = array_order(cfg, dataflow)
    if own is None or (dataflow is Dataflow.OS and k > MAX_LENGTH):
        return False
    return order == own or (sets and own == Order(KOrder.INTERLEAVED, 1) and order == SEQUENTIAL)
