"""Expressions of compiled functions, from Python's syntax to LLVM's."""

import ast
import builtins
import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numba import boolean, int64, types
from numba.core import cgutils
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic

from archsim.engine.values import I64, Untranslatable, Value, Values, wrapped

__all__ = ["Expressions", "Frame"]

COMPARED = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
# The builder's name for an operator, and what it makes of constants. Division has none.
OPERATORS: dict[type, tuple[str, Callable[[int, int], int]]] = {
    ast.Add: ("add", operator.add), ast.Sub: ("sub", operator.sub),
    ast.Mult: ("mul", operator.mul), ast.BitAnd: ("and_", operator.and_),
    ast.BitOr: ("or_", operator.or_), ast.BitXor: ("xor", operator.xor),
    ast.LShift: ("shl", operator.lshift), ast.RShift: ("ashr", operator.rshift),
    ast.FloorDiv: ("", operator.floordiv), ast.Mod: ("", operator.mod),
}
UNARY: dict[type, tuple[str, Callable[[int], int]]] = {
    ast.USub: ("neg", operator.neg), ast.Invert: ("not_", operator.invert)}


@dataclass(slots=True)
class Frame:
    """A function whose body is being walked; it has others within where it is inlined."""

    function: Any
    leave: Callable[[Any], None]  # what ``return`` does with its value
    slots: dict[str, Value] = field(default_factory=dict)  # where each variable lies
    loops: list[tuple[Any, Any]] = field(default_factory=list)  # where ``continue``, ``break`` go


class Expressions(Values):
    """Expressions within `frames`, the innermost last."""

    def __init__(self, context: Any, builder: Any):
        super().__init__(context, builder)
        self.frames: list[Frame] = []
        self.reached: set[Any] = set()  # blocks that something leads to

    @property
    def frame(self) -> Frame:
        """The function whose body is being walked."""
        return self.frames[-1]

    def method(self, node: ast.AST) -> Callable[[Any], Any]:
        """Return what walks a node of this kind."""
        found: Callable[[Any], Any] | None = getattr(self, f"on_{type(node).__name__}", None)
        if found is None:
            raise Untranslatable(type(node).__name__)
        return found

    def value(self, node: ast.expr) -> Any:
        """Return what an expression gives, None if nothing."""
        return self.method(node)(node)

    # Names and constants.

    def on_Constant(self, node: ast.Constant) -> Any:
        if not isinstance(node.value, int | None):
            raise Untranslatable("a constant that is no integer")
        return node.value

    def on_Tuple(self, node: ast.Tuple) -> Any:
        return tuple(self.value(one) for one in node.elts)

    def on_Name(self, node: ast.Name) -> Any:
        slot = self.frame.slots.get(node.id)
        if slot is not None:
            return Value(slot.type, tuple(self.builder.load(one) for one in slot.parts))
        return self._constant(node)

    def on_Attribute(self, node: ast.Attribute) -> Any:
        return self._constant(node)

    def _constant(self, node: ast.expr) -> int:
        meant = self.meaning(node)
        try:
            return meant if isinstance(meant, bool) else operator.index(meant)
        except TypeError:
            raise Untranslatable(f"{ast.unparse(node)}, which is no integer") from None

    def meaning(self, node: ast.expr) -> Any:
        """Return what a name outside the function stands for."""
        function = self.frame.function
        code = function.__code__
        if isinstance(node, ast.Attribute):
            module = self.meaning(node.value)
            if isinstance(module, ModuleType) and hasattr(module, node.attr):
                return getattr(module, node.attr)
        elif isinstance(node, ast.Name) and node.id not in code.co_varnames + code.co_freevars:
            for names in (function.__globals__, vars(builtins)):
                if node.id in names:
                    return names[node.id]
        raise Untranslatable(ast.unparse(node))

    # Blocks.

    def blocks(self, *names: str) -> list[Any]:
        """Return new blocks."""
        return [self.builder.append_basic_block(name) for name in names]

    def to(self, block: Any) -> None:
        """Go to `block`, if this can be reached at all."""
        if not self.builder.block.is_terminated:
            self.reached.add(block)
            self.builder.branch(block)

    def either(self, truth: Any, yes: Any, no: Any) -> None:
        """Go to `yes` or to `no`."""
        self.reached |= {yes, no}
        self.builder.cbranch(truth, yes, no)

    def at(self, block: Any) -> bool:
        """Go on writing in `block`, which is closed if nothing led to it; return if it is open."""
        self.builder.position_at_end(block)
        if block not in self.reached:
            self.builder.unreachable()
        return block in self.reached

    # Conditions.

    def branch(self, node: ast.expr, yes: Any, no: Any) -> None:
        """Go to `yes` if the expression is true, else to `no`."""
        if isinstance(node, ast.BoolOp):
            for one in node.values[:-1]:
                (following,) = self.blocks("decide")
                if isinstance(node.op, ast.And):
                    self.branch(one, following, no)
                else:
                    self.branch(one, yes, following)
                if not self.at(following):
                    return
            self.branch(node.values[-1], yes, no)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self.branch(node.operand, no, yes)
        else:
            value = self.value(node)
            if isinstance(value, int):
                self.to(yes if value else no)
            else:
                self.either(self.truth(value), yes, no)

    def on_BoolOp(self, node: ast.BoolOp) -> Any:
        (after,) = self.blocks("decided")
        ways = []
        for one in node.values[:-1]:
            value = self.value(one)
            truth = self.truth(value)
            (following,) = self.blocks("decide")
            ways.append((value, self.builder.block))
            if isinstance(node.op, ast.And):
                self.either(truth, following, after)
            else:
                self.either(truth, after, following)
            self.at(following)
        ways.append((self.value(node.values[-1]), self.builder.block))
        self.to(after)
        return self.joined(ways, after)

    def on_IfExp(self, node: ast.IfExp) -> Any:
        yes, no, after = self.blocks("if", "else", "chosen")
        self.branch(node.test, yes, no)
        ways = []
        for block, one in ((yes, node.body), (no, node.orelse)):
            if self.at(block):
                ways.append((self.value(one), self.builder.block))
                self.to(after)
        return self.joined(ways, after)

    def on_Compare(self, node: ast.Compare) -> Any:
        left, (after,) = self.value(node.left), self.blocks("compared")
        ways: list[tuple[Any, Any]] = []
        for number, (op, one) in enumerate(zip(node.ops, node.comparators, strict=True)):
            if number:
                (following,) = self.blocks("compare")
                self.either(self.truth(ways[-1][0]), following, after)
                self.at(following)
            right = self.value(one)
            ways.append((self._compared(op, left, right), self.builder.block))
            left = right
        self.to(after)
        return self.joined(ways, after)

    def _compared(self, op: ast.cmpop, left: Any, right: Any) -> Value:
        if type(op) not in COMPARED:
            raise Untranslatable(type(op).__name__)
        return Value(boolean, (self.builder.icmp_signed(
            COMPARED[type(op)], self.integer(left), self.integer(right)),))

    def joined(self, ways: Sequence[tuple[Any, Any]], after: Any) -> Any:
        """Return, at `after`, the value of the block from which it was reached."""
        self.at(after)
        if len(ways) == 1 or all(value is None for value, _ in ways):
            return ways[0][0] if ways else None
        kinds = {self._kind(value) for value, _ in ways}
        kind = kinds.pop() if len(kinds) == 1 else int64
        if not kinds <= {int64, boolean}:
            raise Untranslatable("a choice of values of unlike types")
        given = []
        for value, block in ways:  # what converts it goes where it comes from
            with self.builder.goto_block(block):
                given.append(self.given(value, kind))
        joined = self.builder.phi(given[0].type)
        for one, (_, block) in zip(given, ways, strict=True):
            joined.add_incoming(one, block)
        return Value(kind, (joined,))

    def _kind(self, value: Any) -> Any:
        if isinstance(value, int):
            return boolean if isinstance(value, bool) else int64
        if not isinstance(value, Value) or len(value.parts) != 1:
            raise Untranslatable("a choice of arrays or tuples")
        return value.type

    # Operators.

    def on_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            if isinstance(value, int):
                return not value
            return Value(boolean, (self.builder.not_(self.truth(value)),))
        if type(node.op) not in UNARY:
            raise Untranslatable(type(node.op).__name__)
        name, compute = UNARY[type(node.op)]
        if isinstance(value, int):
            return wrapped(compute(int(value)))
        return Value(int64, (getattr(self.builder, name)(self.integer(value)),))

    def on_BinOp(self, node: ast.BinOp) -> Any:
        return self.binary(node.op, self.value(node.left), self.value(node.right))

    def binary(self, op: ast.operator, left: Any, right: Any) -> Any:
        """Return ``left op right``."""
        if type(op) not in OPERATORS:
            raise Untranslatable(type(op).__name__)
        name, compute = OPERATORS[type(op)]
        if isinstance(left, int) and isinstance(right, int) and (name or right != 0):
            return wrapped(compute(int(left), int(right)))
        if name:
            write = getattr(self.builder, name)
            return Value(int64, (write(self.integer(left), self.integer(right)),))
        return self._divided(op, left, right)

    def _divided(self, op: ast.operator, left: Any, right: Any) -> Value:
        """Return the quotient, rounded down, or the rest, which has the divisor's sign."""
        builder, a, b = self.builder, self.integer(left), self.integer(right)
        if not isinstance(right, int) or right == 0:
            with cgutils.if_unlikely(builder, builder.icmp_signed("==", b, I64(0))):
                self.context.call_conv.return_user_exc(
                    builder, ZeroDivisionError, ("division by zero",))
        rest = builder.srem(a, b)
        crosses = builder.and_(builder.icmp_signed("!=", rest, I64(0)),
                               builder.icmp_signed("<", builder.xor(rest, b), I64(0)))
        if isinstance(op, ast.Mod):
            return Value(int64, (builder.select(crosses, builder.add(rest, b), rest),))
        return Value(int64, (builder.sub(builder.sdiv(a, b), builder.zext(crosses, I64)),))

    # Elements of arrays.

    def on_Subscript(self, node: ast.Subscript) -> Any:
        found = self._place(node)
        return found if isinstance(found, Value) else Value(int64, (self.builder.load(found),))

    def element(self, node: ast.expr) -> Any:
        """Return where a number lies that is assigned to."""
        found = self._place(node)
        if isinstance(found, Value):
            raise Untranslatable("a row that is assigned to")
        return found

    def _place(self, node: ast.expr) -> Any:
        """Return where an element lies, or the `Value` of an array that is part of another."""
        if not isinstance(node, ast.Subscript):
            raise Untranslatable(type(node).__name__)
        base, several = self.value(node.value), isinstance(node.slice, ast.Tuple)
        indices = [self.value(one) for one in
                   (node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice])]
        if not isinstance(base, Value) or base.type in (int64, boolean):
            raise Untranslatable("an element of what is no array")
        data, *sizes = base.parts
        if not sizes and not several:  # a pointer
            return self.builder.gep(data, [self.integer(indices[0])], inbounds=True)
        if len(indices) > len(sizes):
            raise Untranslatable("too many indices")
        offset = I64(0)
        for number, size in enumerate(sizes):
            offset = self.builder.mul(offset, size) if number else offset
            if number < len(indices):
                index = self._index(indices[number], size)
                offset = self.builder.add(offset, index) if number else index
        place, rest = self.builder.gep(data, [offset], inbounds=True), sizes[len(indices):]
        return Value(types.Array(int64, len(rest), "C"), (place, *rest)) if rest else place

    def _index(self, index: Any, size: Any) -> Any:
        """Return an index, which counts from the end of `size` if it is negative."""
        number = self.integer(index)
        if isinstance(index, int):
            return number if index >= 0 else self.builder.add(size, number)
        negative = self.builder.icmp_signed("<", number, I64(0))
        return self.builder.select(negative, self.builder.add(size, number), number)

    # Calls.

    def on_Call(self, node: ast.Call) -> Any:
        if node.keywords:
            raise Untranslatable("arguments by name")
        callee = self.meaning(node.func)
        if callee is np.empty or callee is np.zeros:
            return self._made_by(node.args)
        values = [self.value(one) for one in node.args]
        if callee in (min, max) and len(values) > 1:
            return functools.reduce(functools.partial(self._extreme, callee), values)
        if callee is int and len(values) == 1:
            return Value(int64, (self.integer(values[0]),))
        if callee is len and isinstance(values[0], Value) and len(values[0].parts) > 1:
            return Value(int64, (values[0].parts[1],))
        if isinstance(callee, Dispatcher) and callee.targetoptions.get("inline") == "always":
            return self.inlined(callee.py_func, values)
        if isinstance(callee, _Intrinsic):
            kinds = [value.type if isinstance(value, Value) else int64 for value in values]
            signature, write = callee._defn(self.context.typing_context, *kinds)
            return self._called(functools.partial(write, self.context, self.builder, signature),
                                signature, values)
        if hasattr(callee, "call_from"):
            return self._called(functools.partial(callee.call_from, self.context, self.builder),
                                callee.signatures[0], values)
        raise Untranslatable(f"a call of {ast.unparse(node.func)}")

    def inlined(self, function: Any, values: Sequence[Any]) -> Any:
        """Write the body of `function` down here; return what it returns."""
        raise NotImplementedError

    def _called(self, write: Callable[[Any], Any], signature: Any, values: Sequence[Any]) -> Any:
        if len(values) != len(signature.args):
            raise Untranslatable("a call with another number of arguments")
        given = [self.given(*one) for one in zip(values, signature.args, strict=True)]
        return self.taken(write(given), signature.return_type)

    def _extreme(self, which: Any, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            return which(left, right)
        a, b = self.integer(left), self.integer(right)
        first = self.builder.icmp_signed("<" if which is min else ">", a, b)
        return Value(int64, (self.builder.select(first, a, b),))

    def _made_by(self, nodes: Sequence[ast.expr]) -> Value:
        """Return a new array of int64, which lives until the function returns."""
        if any(frame.loops for frame in self.frames):
            raise Untranslatable("an array made in a loop")
        if len(nodes) != 2 or self.meaning(nodes[1]) is not np.int64:
            raise Untranslatable("a new array of anything but int64")
        shape = self.value(nodes[0])
        return self.new_array([self.integer(one) for one in
                               (shape if isinstance(shape, tuple) else (shape,))])
