"""What expressions of compiled functions give, in LLVM and in numba's calling convention."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numba import boolean, int64, types
from numba.core import cgutils
from numba.core.codegen import llvmir as ir

__all__ = ["I64", "Untranslatable", "Value", "Values", "wrapped"]

BITS = 64
I64 = ir.IntType(BITS)


class Untranslatable(Exception):
    """A function has a part that our front end does not know."""


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression gives: the type, and LLVM's values for it.

    A number or a pointer is one. An array is the place of its numbers and its sizes; it is
    C-contiguous, and whoever called first keeps it alive.
    """

    type: Any
    parts: tuple[Any, ...]


def wrapped(number: int) -> int:
    """Return what is left of a number in 64 bits."""
    low = number & ((1 << BITS) - 1)
    return low - (1 << BITS) if low >> (BITS - 1) else low


class Values:
    """Conversions, written into the `builder`'s block.

    A value is a Python integer where it is constant, else a `Value`; several are a tuple.
    """

    def __init__(self, context: Any, builder: Any):
        self.context, self.builder = context, builder
        self._made: list[Any] = []  # where the places of new arrays are kept

    def integer(self, value: Any) -> Any:
        """Return LLVM's number for an integer or a truth."""
        if isinstance(value, int):
            return I64(wrapped(value))
        if isinstance(value, Value) and value.type == boolean:
            return self.builder.zext(value.parts[0], I64)
        if isinstance(value, Value) and value.type == int64:
            return value.parts[0]
        raise Untranslatable("an operand that is no integer")

    def truth(self, value: Any) -> Any:
        """Return whether a number is not zero, as LLVM's number of one bit."""
        if isinstance(value, Value) and value.type == boolean:
            return value.parts[0]
        return self.builder.icmp_signed("!=", self.integer(value), I64(0))

    def taken(self, value: Any, of: Any) -> Any:
        """Return numba's `value` of the type `of` as it is known here."""
        if of == types.void:
            return None
        if of in (int64, boolean) or isinstance(of, types.CPointer):
            return Value(of, (value,))
        kinds: Any = getattr(of, "types", ())  # of a tuple
        if kinds and all(kind in (int64, boolean) for kind in kinds):
            return tuple(self.taken(self.builder.extract_value(value, number), kind)
                         for number, kind in enumerate(kinds))
        if isinstance(of, types.Array) and of.dtype == int64 and of.layout == "C":
            array = self.context.make_array(of)(self.context, self.builder, value)
            return Value(of, (array.data, *cgutils.unpack_tuple(self.builder, array.shape)))
        raise Untranslatable(f"a value of type {of}")

    def given(self, value: Any, of: Any) -> Any:
        """Return a value as numba's of the type `of`."""
        if of == int64:
            return self.integer(value)
        if of == boolean:
            return self.truth(value)
        kinds: Any = getattr(of, "types", ())  # of a tuple
        if isinstance(value, tuple) and len(value) == len(kinds):
            parts = [self.given(*one) for one in zip(value, kinds, strict=True)]
            return self.context.make_tuple(self.builder, of, parts)
        if isinstance(value, Value) and value.type == of and isinstance(of, types.Array):
            return self._array(value)
        place = isinstance(value, Value) and value.type not in (int64, boolean)
        if place and of == types.CPointer(int64):
            return value.parts[0]
        raise Untranslatable(f"a value that should be of type {of}")

    def _array(self, value: Value) -> Any:
        """Return an array as numba's; nobody counts who holds it."""
        array = self.context.make_array(value.type)(self.context, self.builder)
        data, *sizes = value.parts
        bytes_below = I64(BITS // 8)
        strides: list[Any] = []
        for size in reversed(sizes):
            strides.insert(0, bytes_below)
            bytes_below = self.builder.mul(bytes_below, size)
        array.data, array.itemsize = data, I64(BITS // 8)
        array.nitems = functools.reduce(self.builder.mul, sizes)
        array.shape = cgutils.pack_array(self.builder, sizes)
        array.strides = cgutils.pack_array(self.builder, strides)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        array.parent = cgutils.get_null_value(array.parent.type)
        return array._getvalue()

    def new_array(self, sizes: Sequence[Any]) -> Value:
        """Return a new array of zeros, which lives until `free` is called."""
        builder = self.builder
        calloc = self._outside("calloc", cgutils.voidptr_t, [I64, I64])
        room = builder.call(calloc, [functools.reduce(builder.mul, sizes), I64(BITS // 8)])
        with cgutils.if_unlikely(builder, cgutils.is_null(builder, room)):
            self.context.call_conv.return_user_exc(builder, MemoryError)
        place = cgutils.alloca_once(builder, room.type)  # null until then
        builder.store(room, place)
        self._made.append(place)
        return Value(types.Array(int64, len(sizes), "C"),
                     (builder.bitcast(room, I64.as_pointer()), *sizes))

    def free(self) -> None:
        """Give back the arrays that were made, as far as that has come."""
        for place in self._made:
            self.builder.call(self._outside("free", ir.VoidType(), [cgutils.voidptr_t]),
                              [self.builder.load(place)])

    def _outside(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        return cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(result, arguments), name)
