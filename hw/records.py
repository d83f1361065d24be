"""The records of the binary program as layouts of hardware, from the tables in ``machine``."""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from machine.records import OPERAND, Record

__all__ = ["BEATS", "BEAT_BITS", "beat_layout", "record_layout"]

BEAT_BITS = 256  # of an operand, read at once
BEATS = 7  # of an operand that mean anything; the eighth is reserved


def _fields(record: Record, first: int, last: int) -> dict[str, data.Field]:
    return {
        slot.name: data.Field(signed(slot.bits) if slot.signed else unsigned(slot.bits),
                              lsb - first)
        for lsb, slot in record.positions()
        if slot.name and first <= lsb < last
    }


def record_layout(record: Record) -> data.FlexibleLayout:
    """Return the layout of a whole record."""
    return data.FlexibleLayout(record.bits, _fields(record, 0, record.bits))


def beat_layout(beat: int) -> data.FlexibleLayout:
    """Return the layout of one beat of an operand; no field lies across two."""
    first = beat * BEAT_BITS
    return data.FlexibleLayout(BEAT_BITS, _fields(OPERAND, first, first + BEAT_BITS))
