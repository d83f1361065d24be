"""The number formats of a run: one for weights, one for activations, one for the KV cache."""

import re
from typing import Literal

from machine.config import config, require
from machine.errors import must_be
from machine.formats import ALIASES, FORMATS, Format, format_named, packed_bytes

__all__ = ["Formats", "TensorRole", "parse_formats"]

TensorRole = Literal["weight", "vector", "activation", "kv", "index"]

_TEXT = re.compile(r"W([a-z0-9_]+)A([a-z0-9_]+)KV([a-z0-9_]+)")
_PLAIN = {"16": "float16", "32": "float32"}  # a bare number of bits; below it is a signed integer


@config
class Formats:
    """Formats by what a tensor is for; names as in `machine.formats`, aliases allowed."""

    weights: str  # matrices and embedding tables
    activations: str
    kv: str  # cached keys and values

    def __post_init__(self) -> None:
        for field in ("weights", "activations", "kv"):
            name = getattr(self, field)
            require(ALIASES.get(name, name) in FORMATS, field, "a known format", name)

    @property
    def vectors(self) -> str:
        """The format of gains and biases: the weights' if that is a float of 16 bits or more."""
        weights = format_named(self.weights)
        return weights.name if weights.is_float and weights.bits >= 16 else "float32"

    def of(self, role: TensorRole) -> Format:
        """Return the format of tensors of `role`; an index is an int32."""
        names = {"weight": self.weights, "vector": self.vectors, "activation": self.activations,
                 "kv": self.kv, "index": "int32"}
        return format_named(names[role])

    def tensor_bytes(self, role: TensorRole, shape: tuple[int, ...]) -> int:
        """Return the packed bytes of a tensor of `shape` [..., K], its format's scales included."""
        return packed_bytes(self.of(role), shape)

    def __str__(self) -> str:
        parts = zip(("W", "A", "KV"), (self.weights, self.activations, self.kv), strict=True)
        return "".join(tag + _short(format_named(name)) for tag, name in parts)


def parse_formats(text: str) -> Formats:
    """Return the formats of a text like ``W8A8KV8``, ``W4A16KV8`` or ``Wmxfp4Abf16KVint8``.

    A number is a signed integer of 2 to 8 bits, 16 is float16, 32 float32. Raises `UserError`.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise must_be("formats", "written like W8A8KV8, W16A16KV16 or Wmxfp4Abf16KVint8", text)
    weights, activations, kv = (_named(word, text) for word in match.groups())
    return Formats(weights=weights, activations=activations, kv=kv)


def _named(word: str, text: str) -> str:
    if not word.isdigit():
        return format_named(word, where=f"formats {text!r}").name
    if word in _PLAIN:
        return _PLAIN[word]
    if not 2 <= int(word) <= 8:
        raise must_be(f"bits in formats {text!r}", "2 to 8, 16 or 32", int(word))
    return f"int{int(word)}"


def _short(fmt: Format) -> str:
    plain = {name: bits for bits, name in _PLAIN.items()}
    if fmt.name in plain:
        return plain[fmt.name]
    is_int = fmt.name.startswith("int") and fmt.name[3:].isdigit() and 2 <= fmt.bits <= 8
    return str(fmt.bits) if is_int else fmt.name
