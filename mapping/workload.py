"""The operators of one phase of a model, with the tensors they read and write, and their totals.

Operators carry no number format, no tile and no place. Matrix products are counted in full: a
masked score is a product too. `Workload` holds one body for all layers, since they are equal.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

from machine.config import config, require
from machine.errors import must_be
from machine.vector import Mask, VectorOp
from mapping.formats import Formats, TensorRole

__all__ = ["Matmul", "Operator", "Phase", "Tensor", "VectorStep", "Workload", "decode", "encode",
           "prefill"]


@config
class Phase:
    """One step of inference: `batch` sequences, each with `q_len` new tokens.

    `kv_len` counts every key a sequence holds once the new ones are appended, so that ``kv_len -
    q_len`` were there before. Decode with ``kv_len=512`` attends to 512 keys, its own the last.
    """

    kind: Literal["prefill", "decode", "encode"]
    batch: int
    q_len: int  # new tokens of a sequence
    kv_len: int  # keys of a sequence, the new ones included

    def __post_init__(self) -> None:
        for field in ("batch", "q_len"):
            require(getattr(self, field) >= 1, field, "at least 1", getattr(self, field))
        require(self.kv_len >= self.q_len, "kv_len", f"at least q_len ({self.q_len})", self.kv_len)
        if self.kind == "decode":
            require(self.q_len == 1, "q_len", "1 in decode", self.q_len)
        if self.kind == "encode":
            require(self.kv_len == self.q_len, "kv_len", f"q_len ({self.q_len}) in encode",
                    self.kv_len)

    @property
    def tokens(self) -> int:
        """New tokens of all sequences: the rows of every projection."""
        return self.batch * self.q_len

    @property
    def position_base(self) -> int:
        """Position of the first new token."""
        return self.kv_len - self.q_len


def prefill(batch: int, tokens: int, cached: int = 0) -> Phase:
    """Return the phase that reads `tokens` new tokens behind `cached` earlier ones."""
    _check_counts(batch=batch, tokens=tokens)
    if cached < 0:
        raise must_be("cached", "at least 0", cached)
    return Phase(kind="prefill", batch=batch, q_len=tokens, kv_len=cached + tokens)


def decode(batch: int, kv_len: int) -> Phase:
    """Return the phase that makes one token; it attends to `kv_len` keys, its own included."""
    _check_counts(batch=batch, kv_len=kv_len)
    return Phase(kind="decode", batch=batch, q_len=1, kv_len=kv_len)


def encode(batch: int, tokens: int) -> Phase:
    """Return the phase in which each of `tokens` tokens attends to all."""
    _check_counts(batch=batch, tokens=tokens)
    return Phase(kind="encode", batch=batch, q_len=tokens, kv_len=tokens)


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise must_be(name, "at least 1", value)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor; a name that starts with ``layer.`` is another tensor in each layer."""

    name: str
    shape: tuple[int, ...]
    role: TensorRole = "activation"

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def bytes(self, formats: Formats) -> int:
        """Return the packed bytes under `formats`."""
        return formats.tensor_bytes(self.role, self.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Matmul:
    """`count` products out [m, n] = scale * (a [m, k] x b) + bias, each with its own `a` and `b`.

    `b` is stored with n rows of k (``b_rows = "n"``: weights as [outputs, inputs], keys) or with k
    rows of n (``"k"``: values). Where `b` holds more keys than `n` or `k`, the last ones are read.
    """

    name: str
    m: int
    n: int
    k: int
    a: Tensor
    b: Tensor
    out: Tensor
    count: int = 1
    bias: Tensor | None = None
    scale: float = 1.0  # head_dim ** -0.5 for attention scores
    b_rows: Literal["n", "k"] = "n"

    @property
    def weight(self) -> str | None:
        """Name of the parameter that is `b`, or None if `b` is computed."""
        return self.b.name if self.b.role == "weight" else None

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.count * self.m * self.n * self.k

    @property
    def input_elements(self) -> int:
        """Elements of all `a`, each read once."""
        return self.count * self.m * self.k

    @property
    def b_elements(self) -> int:
        """Elements of all `b`, each read once: weights, or the visible keys or values."""
        return self.count * self.n * self.k

    @property
    def weight_elements(self) -> int:
        """Elements of the parameters read, the bias included."""
        return (self.b_elements if self.weight else 0) + (self.bias.elements if self.bias else 0)

    @property
    def kv_elements(self) -> int:
        """Elements read from the key and value cache."""
        return self.b_elements if self.b.role == "kv" else 0

    @property
    def output_elements(self) -> int:
        """Elements of all `out`."""
        return self.count * self.m * self.n


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorStep:
    """One operation of the vector unit on `rows` rows of `width` elements.

    `inputs` are in the order of `machine.vector.OPERANDS`, parameters included.
    """

    name: str
    op: VectorOp
    rows: int
    width: int
    inputs: tuple[Tensor, ...]
    out: Tensor
    mask: Mask = Mask.NONE  # of a softmax: which keys a query sees
    window: int | None = None  # of Mask.WINDOW
    position_base: int = 0  # of a softmax: place of query 0 among the keys; of a rope: of row 0
    eps: float = 0.0  # of a norm

    @property
    def macs(self) -> int:
        """Always 0: what the vector unit does is not counted as multiply-accumulates."""
        return 0

    @property
    def weight_elements(self) -> int:
        """Elements of the parameters read; of a table, the rows gathered."""
        if self.op is VectorOp.GATHER:
            return self.output_elements if self.inputs[0].role == "weight" else 0
        return sum(t.elements for t in self.inputs if t.role in ("weight", "vector"))

    @property
    def kv_elements(self) -> int:
        """Always 0: only products read the cache."""
        return 0

    @property
    def input_elements(self) -> int:
        """Elements of the activations read; of a table, the rows gathered."""
        if self.op is VectorOp.GATHER:
            return self.output_elements if self.inputs[0].role == "activation" else 0
        return sum(t.elements for t in self.inputs if t.role == "activation")

    @property
    def output_elements(self) -> int:
        """Elements written; of a cache, the rows appended."""
        return self.rows * self.width if self.op is VectorOp.SCATTER else self.out.elements


Operator = Matmul | VectorStep


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """The operators of one phase: `before`, then `body` once for each layer, then `after`."""

    phase: Phase
    layers: int
    before: tuple[Operator, ...]
    body: tuple[Operator, ...]
    after: tuple[Operator, ...]

    def walk(self) -> Iterator[tuple[int | None, Operator]]:
        """Yield every operator in order with its layer, None outside the layers."""
        yield from ((None, operator) for operator in self.before)
        for layer in range(self.layers):
            yield from ((layer, operator) for operator in self.body)
        yield from ((None, operator) for operator in self.after)

    def _total(self, field: str) -> int:
        once = sum(getattr(operator, field) for operator in (*self.before, *self.after))
        return once + self.layers * sum(getattr(operator, field) for operator in self.body)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all matrix products."""
        return self._total("macs")

    @property
    def weight_elements(self) -> int:
        """Elements of all parameters read, a tied embedding once for each use."""
        return self._total("weight_elements")

    @property
    def kv_read_elements(self) -> int:
        """Elements read from the key and value cache."""
        return self._total("kv_elements")

    @property
    def kv_written_elements(self) -> int:
        """Elements appended to the key and value cache."""
        return self.layers * sum(step.inputs[0].elements for step in self.body
                                 if isinstance(step, VectorStep) and step.out.role == "kv")
