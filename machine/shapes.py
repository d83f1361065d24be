"""Which shapes of an instruction's tiles go together."""

from collections.abc import Callable, Iterator, Mapping

from machine.opcodes import Opcode
from machine.program import Instruction
from machine.vector import VectorOp

__all__ = ["shape_faults"]

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

# Operators whose result has the shape of `x`.
_ELEMENTWISE = frozenset({
    VectorOp.COPY, VectorOp.CONVERT, VectorOp.ADD, VectorOp.MUL, VectorOp.SCALE, VectorOp.RELU,
    VectorOp.SIGMOID, VectorOp.SILU, VectorOp.GELU, VectorOp.GELU_TANH, VectorOp.EXP,
    VectorOp.TANH, VectorOp.LAYERNORM, VectorOp.RMSNORM, VectorOp.L2NORM, VectorOp.ROPE,
    VectorOp.QUANTISE, VectorOp.DEQUANTISE,
})


def shape_faults(instruction: Instruction, shapes: Shapes, held: Shape | None) -> Iterator[str]:
    """Yield what is wrong with the shapes, by role, of tiles that are not empty.

    `held` is the shape of the weights preloaded last, for a MATMUL without `w`.
    """
    opcode = Opcode(instruction.opcode)
    if opcode == Opcode.MATMUL:
        yield from _matmul(instruction, shapes, held)
    elif opcode in _RULES:
        yield from _RULES[opcode](instruction, shapes)


def _equal(*roles: str) -> Callable[[Instruction, Shapes], Iterator[str]]:
    def rule(instruction: Instruction, shapes: Shapes) -> Iterator[str]:
        first, *others = roles
        for role in others:
            if shapes[role] != shapes[first]:
                yield (f"{role} must have the shape of {first}, {list(shapes[first])}, "
                       f"not {list(shapes[role])}")
    return rule


def _matmul(instruction: Instruction, shapes: Shapes, held: Shape | None) -> Iterator[str]:
    get = instruction.fields.get
    a, acc, w = shapes["a"], shapes["acc"], shapes.get("w", held)
    if w is None:
        yield "w must be given, or weights preloaded before"
        return
    if get("tables"):
        yield from _tables(a, w, acc)
    elif len(a) < 2 or len(w) < 2 or len(acc) < 2:
        yield f"a, w and acc must have 2 dimensions or more, not {_shown(a, w, acc)}"
    else:
        batch = _broadcast(a[:-2], w[:-2])
        if a[-1] != w[-2]:
            yield f"K of a and w must be equal, not {a[-1]} and {w[-2]}"
        elif batch is None:
            yield f"leading axes of a and w must broadcast, not {_shown(a, w)}"
        elif acc != (*batch, a[-2], w[-1]):
            yield f"acc must be {[*batch, a[-2], w[-1]]}, not {list(acc)}"
    if "out" in shapes and shapes["out"] != acc:
        yield f"out must have the shape of acc, {list(acc)}, not {list(shapes['out'])}"


def _tables(a: Shape, w: Shape, acc: Shape) -> Iterator[str]:
    if len(a) != 3 or a[2] != 8:
        yield f"a must be [M, K / 4, 8] with tables, not {list(a)}"
    elif len(w) != 3 or w[2] != a[1]:
        yield f"w must be [planes, N, {a[1]}] with tables, not {list(w)}"
    elif acc != (a[0], w[1]):
        yield f"acc must be {[a[0], w[1]]}, not {list(acc)}"


def _broadcast(one: Shape, other: Shape) -> Shape | None:
    width = max(len(one), len(other))
    one, other = (1,) * (width - len(one)) + one, (1,) * (width - len(other)) + other
    if any(a != b and 1 not in (a, b) for a, b in zip(one, other, strict=True)):
        return None
    return tuple(map(max, one, other))


def _vector(instruction: Instruction, shapes: Shapes) -> Iterator[str]:
    vop, x = VectorOp(instruction.fields["vop"]), shapes["x"]
    plain_softmax = vop == VectorOp.SOFTMAX and "state" not in shapes
    if (vop in _ELEMENTWISE or plain_softmax) and shapes["y"] != x:
        yield f"y must have the shape of x, {list(x)}, not {list(shapes['y'])}"
    if vop in (VectorOp.ADD, VectorOp.MUL):
        joined = _broadcast(x, shapes["x1"])
        if joined != x:
            yield f"x1 must broadcast to x, {list(x)}, not {list(shapes['x1'])}"


def _gemv(instruction: Instruction, shapes: Shapes) -> Iterator[str]:
    a, w, dst = shapes["a"], shapes["w"], shapes["dst"]
    if len(w) != 2 or a != w[1:] or dst != w[:1]:
        yield f"w by a must give dst: [rows, K] by [K] gives [rows], not {_shown(w, a, dst)}"


def _one_element(instruction: Instruction, shapes: Shapes) -> Iterator[str]:
    if any(size != 1 for size in shapes["src"]):
        yield f"src must be one element, not {list(shapes['src'])}"


def _shown(*shapes: Shape) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)


_RULES: dict[Opcode, Callable[[Instruction, Shapes], Iterator[str]]] = {
    Opcode.LOAD: _equal("src", "dst"),
    Opcode.STORE: _equal("src", "dst"),
    Opcode.FLUSH: _equal("acc", "out"),
    Opcode.PIM_GWRITE: _equal("src", "dst"),
    Opcode.PIM_READRES: _equal("src", "dst"),
    Opcode.PIM_GEMV: _gemv,
    Opcode.VECTOR: _vector,
    Opcode.READ: _one_element,
}
