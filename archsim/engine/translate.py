"""From Python's syntax to LLVM's: the front end of compiled functions that work on integers.

numba's own front end finds the type of every variable and the meaning of every operator anew, some
0.1 s a function. The functions of the simulator leave nothing to find: a number is an int64, and
all else has the type of what is assigned to it first. So each is written down in one walk over its
syntax, in numba's calling convention: functions of either front end call those of the other. What
is not known here, a slice or a ``with``, raises `Untranslatable`, and numba's front end takes over.

The meaning is Python's, on 64 bits that wrap around: division rounds down and raises for zero,
negative indices of arrays count from the end, ``and`` and ``or`` stop early and give an operand.
"""

import ast
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numba import boolean, int64, types
from numba.core import cgutils
from numba.core.codegen import llvmir as ir

from archsim.engine.expressions import Expressions, Frame
from archsim.engine.values import I64, Untranslatable, Value

__all__ = ["Translation", "source"]


class Translation(Expressions):
    """The body of one function, written into the `builder`'s block."""

    def write(self, function: Any, signature: Any, arguments: Sequence[Any]) -> None:
        """Write the body of `function`, called with numba's `arguments`."""
        result = signature.return_type
        if isinstance(result, types.Array):
            raise Untranslatable("an array that is returned")

        def leave(value: Any) -> None:
            given = self.context.get_dummy_value()
            if result != types.void:
                given = self.context.get_return_value(
                    self.builder, result, self.given(value, result))
            self.free()
            self.context.call_conv.return_value(self.builder, given)

        values = [self.taken(*one) for one in zip(arguments, signature.args, strict=True)]
        self._walk(Frame(function, leave), values)
        if not self.builder.block.is_terminated:
            if result != types.void:
                raise Untranslatable("a function that may end without a value")
            leave(None)

    def inlined(self, function: Any, values: Sequence[Any]) -> Any:
        (after,) = self.blocks("returned")
        ways: list[tuple[Any, Any]] = []

        def leave(value: Any) -> None:
            ways.append((value, self.builder.block))
            self.to(after)

        self._walk(Frame(function, leave), values)
        if not self.builder.block.is_terminated:
            leave(None)
        return self.joined(ways, after)

    def _walk(self, frame: Frame, values: Sequence[Any]) -> None:
        node = syntax(frame.function)
        names, code = [one.arg for one in node.args.args], frame.function.__code__
        plain = len(names) == len(values) and len(names) == code.co_argcount
        if not plain or node.args.defaults or code.co_kwonlyargcount or code.co_flags & 12:
            raise Untranslatable("arguments by name or by default")
        self.frames.append(frame)
        for name, value in zip(names, values, strict=True):
            self._set(name, value)
        self.statements(node.body)
        self.frames.pop()

    def statements(self, nodes: Sequence[ast.stmt]) -> None:
        """Write statements down, but none that cannot be reached."""
        for node in nodes:
            if self.builder.block.is_terminated:
                return
            self.method(node)(node)

    def on_Expr(self, node: ast.Expr) -> None:
        if not (isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)):
            self.value(node.value)

    def on_Return(self, node: ast.Return) -> None:
        self.frame.leave(self.value(node.value) if node.value else None)

    # Assignments.

    def on_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self._assign(target, value)

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self._set(target.id, value)
        elif isinstance(target, ast.Tuple):
            if not isinstance(value, tuple) or len(value) != len(target.elts):
                raise Untranslatable("unpacking")
            for one, part in zip(target.elts, value, strict=True):
                self._assign(one, part)
        else:
            place = self.element(target)
            self.builder.store(self.integer(value), place)

    def on_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            before = self.on_Name(node.target)
            self._set(node.target.id, self.binary(node.op, before, self.value(node.value)))
            return
        place = self.element(node.target)
        before = Value(int64, (self.builder.load(place),))
        after = self.binary(node.op, before, self.value(node.value))
        self.builder.store(self.integer(after), place)

    def _set(self, name: str, value: Any) -> None:
        """Let a variable become `value`; a truth is kept as an integer."""
        if isinstance(value, int) or (isinstance(value, Value) and value.type == boolean):
            value = Value(int64, (self.integer(value),))
        if not isinstance(value, Value):
            raise Untranslatable(f"{name}, which is no number, pointer or array")
        slot = self.frame.slots.get(name)
        if slot is None:
            places = tuple(cgutils.alloca_once(self.builder, one.type) for one in value.parts)
            slot = self.frame.slots[name] = Value(value.type, places)
        if slot.type != value.type:
            raise Untranslatable(f"{name}, which changes its type")
        for part, place in zip(value.parts, slot.parts, strict=True):
            self.builder.store(part, place)

    # Choices and loops.

    def on_If(self, node: ast.If) -> None:
        yes, no, after = self.blocks("if", "else", "endif")
        self.branch(node.test, yes, no)
        self._fill(yes, node.body, after)
        self._fill(no, node.orelse, after)
        self.at(after)

    def on_While(self, node: ast.While) -> None:
        head, body, otherwise, after = self.blocks("while", "do", "else", "done")
        self.to(head)
        self.at(head)
        with self._loop(head, after):
            self.branch(node.test, body, otherwise)
            self._fill(body, node.body, head)
        self._fill(otherwise, node.orelse, after)
        self.at(after)

    def on_For(self, node: ast.For) -> None:
        first, last, step, item = self._steps(node.iter)
        counter = cgutils.alloca_once(self.builder, I64)
        head, body, following, otherwise, after = self.blocks("for", "do", "next", "else", "done")
        self.builder.store(first, counter)
        self.to(head)
        self.at(head)
        number = self.builder.load(counter)
        more = self.builder.icmp_signed("<" if step > 0 else ">", number, last)
        self.either(more, body, otherwise)
        with self._loop(following, after):
            self.at(body)
            self._assign(node.target, item(number))
            self.statements(node.body)
            self.to(following)
        if self.at(following):
            self.builder.store(self.builder.add(number, I64(step), flags=["nsw"]), counter)
            self.to(head)
        self._fill(otherwise, node.orelse, after)
        self.at(after)

    def _steps(self, node: ast.expr) -> tuple[Any, Any, int, Callable[[Any], Any]]:
        """Return a loop's first number, its end, its step, and what it gives for a number."""
        if isinstance(node, ast.Tuple):
            values = [self.integer(self.value(one)) for one in node.elts]
            array = cgutils.alloca_once(self.builder, ir.ArrayType(I64, len(values)))

            def place(number: Any) -> Any:
                return self.builder.gep(array, [I64(0), number], inbounds=True)

            for number, value in enumerate(values):
                self.builder.store(value, place(I64(number)))
            return (I64(0), I64(len(values)), 1,
                    lambda number: Value(int64, (self.builder.load(place(number)),)))
        if not isinstance(node, ast.Call) or self.meaning(node.func) is not range or node.keywords:
            raise Untranslatable("a loop over anything but a range or a tuple")
        bounds = [self.value(one) for one in node.args]
        first, last, step = ((0, *bounds, 1) if len(bounds) == 1 else (*bounds, 1))[:3]
        if not isinstance(step, int) or step == 0:
            raise Untranslatable("a range with a step that is not constant")
        return (self.integer(first), self.integer(last), step,
                lambda number: Value(int64, (number,)))

    def on_Break(self, node: ast.Break) -> None:
        self.to(self.frame.loops[-1][1])

    def on_Continue(self, node: ast.Continue) -> None:
        self.to(self.frame.loops[-1][0])

    @contextmanager
    def _loop(self, following: Any, after: Any) -> Iterator[None]:
        self.frame.loops.append((following, after))
        yield
        self.frame.loops.pop()

    def _fill(self, block: Any, nodes: Sequence[ast.stmt], after: Any) -> None:
        """Write statements down in `block`; `after` follows."""
        self.at(block)
        self.statements(nodes)
        self.to(after)


@functools.cache
def source(path: str) -> bytes:
    """Return what was in a file when this was first called."""
    return Path(path).read_bytes()


@functools.cache
def _functions(path: str) -> dict[int, ast.FunctionDef]:
    """Return the functions of a file by the line where they begin, decorators included."""
    return {min([node.lineno, *(one.lineno for one in node.decorator_list)]): node
            for node in ast.walk(ast.parse(source(path))) if isinstance(node, ast.FunctionDef)}


def syntax(function: Any) -> ast.FunctionDef:
    """Return the syntax of a function, as its file has it."""
    code = function.__code__
    try:
        node = _functions(code.co_filename).get(code.co_firstlineno)
    except (OSError, SyntaxError) as error:
        raise Untranslatable(str(error)) from None
    if node is None or node.name != function.__name__:
        raise Untranslatable("a function that its file does not have")
    return node
