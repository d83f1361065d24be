"""Every number format once: its bits, its stable code, its packed size, and which may multiply.

Element formats are named as in ml_dtypes (`float8_e4m3fn`: f finite only, n has its own NaN code).
A block format is an element format plus the formats of the scales its groups share.
Sources: IEEE 754-2019 (float16, float32); the OCP OFP8 1.0 and MX 1.0 specifications, through
arXiv 2310.10537 and microxcaling (float8, float6, float4, mx*); bipolar arXiv 2409.17870; shift
arXiv 2208.09708; bfp arXiv 2403.20137; qoq arXiv 2405.04532; nvfp4 (memory, unverified).
"""

from dataclasses import dataclass
from enum import StrEnum
from math import prod

from machine.errors import UserError, must_be, unknown

__all__ = [
    "ALIASES", "FORMATS", "KULISCH_LIMIT_BITS", "Format", "Kind", "Section", "accumulators",
    "check_matmul", "format_named", "format_of_code", "packed_bits", "packed_bytes",
    "product_bits", "sections",
]

KULISCH_LIMIT_BITS = 128  # widest fixed-point accumulator of products we call buildable; assumed


class Kind(StrEnum):
    """How the bits of one element become a number."""

    INTEGER = "integer"  # two's complement, or unsigned
    BIPOLAR = "bipolar"  # sum of 2^i * (2 b_i - 1): odd numbers, no zero
    TERNARY = "ternary"  # two bits of two's complement; 0b10 is refused
    SHIFT = "shift"  # sign bit, then p: +-2^p, no zero
    FLOAT = "float"  # sign, exponent, mantissa
    POWER = "power"  # 2^(code - bias); the last code is NaN
    BLOCK = "block"  # elements of another format under shared scales


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A row of the table: one number format."""

    name: str
    code: int  # the instruction's field; never renumbered
    kind: Kind
    bits: int  # stored bits of one element, scales not counted
    signed: bool = True
    exponent_bits: int = 0
    mantissa_bits: int = 0
    bias: int = 0
    has_inf: bool = False
    has_nan: bool = False
    element: str = ""  # block: format of one element
    group: int = 0  # block: elements along the last axis under one scale, unless the operand says
    scale: str = ""  # block: format of a group's scale
    zero: str = ""  # block: format of a group's zero point; "" if symmetric
    row_scale: str = ""  # block: format of a second scale, one a row
    tensor_scale: str = ""  # block: format of a second scale, one a tensor

    @property
    def is_float(self) -> bool:
        """Whether one element has a sign, an exponent and a mantissa."""
        return self.kind is Kind.FLOAT

    @property
    def fraction_bits(self) -> int:
        """Binary places of the integer elements of a block under a power-of-two scale, else 0."""
        shared_exponent = self.scale and FORMATS[self.scale].kind is Kind.POWER
        return self.bits - 2 if shared_exponent and not FORMATS[self.element].is_float else 0

    @property
    def largest_exponent(self) -> int:
        """Exponent of the largest finite float."""
        return 2**self.exponent_bits - 1 - self.bias - (1 if self.has_inf else 0)

    @property
    def smallest_exponent(self) -> int:
        """Exponent of the smallest normal float; subnormals share it."""
        return 1 - self.bias

    @property
    def largest(self) -> float:
        """The largest finite value, exactly."""
        match self.kind:
            case Kind.INTEGER:
                return float(2 ** (self.bits - self.signed) - 1)
            case Kind.BIPOLAR:
                return float(2**self.bits - 1)
            case Kind.TERNARY:
                return 1.0
            case Kind.SHIFT:
                return 2.0 ** (2 ** (self.bits - 1) - 1)
            case Kind.POWER:
                return 2.0 ** (2**self.bits - 2 - self.bias)
            case Kind.BLOCK:
                return FORMATS[self.element].largest
        # With a NaN but no infinity, the all-ones mantissa of the last exponent is the NaN.
        last = 2**self.mantissa_bits - 1 - (1 if self.has_nan and not self.has_inf else 0)
        return (1.0 + last / 2**self.mantissa_bits) * 2.0**self.largest_exponent

    @property
    def smallest(self) -> float:
        """The smallest positive value, exactly: the subnormal step of a float."""
        match self.kind:
            case Kind.FLOAT:
                return 2.0 ** (self.smallest_exponent - self.mantissa_bits)
            case Kind.POWER:
                return 2.0**-self.bias
            case Kind.BLOCK:
                return FORMATS[self.element].smallest
        return 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One array of a packed tensor: its elements, or one kind of its scales."""

    format: Format
    shape: tuple[int, ...]

    @property
    def bits(self) -> int:
        """Bits of the section, no padding."""
        return prod(self.shape) * self.format.bits


def _integers() -> list[Format]:
    rows = []
    for bits in range(1, 33):
        rows.append(Format(name=f"int{bits}", code=bits, kind=Kind.INTEGER, bits=bits))
        rows.append(Format(name=f"uint{bits}", code=0x20 + bits, kind=Kind.INTEGER, bits=bits,
                           signed=False))
    rows += [Format(name=f"bipolar{bits}", code=0x40 + bits, kind=Kind.BIPOLAR, bits=bits)
             for bits in range(1, 9)]
    rows.append(Format(name="ternary", code=0x50, kind=Kind.TERNARY, bits=2))
    rows += [Format(name=f"shift{bits}", code=0x58 + bits, kind=Kind.SHIFT, bits=bits)
             for bits in range(2, 5)]
    return rows


def _floats() -> list[Format]:
    # name, code, exponent bits, mantissa bits, bias, infinities, NaN
    table = [
        ("float32", 0x60, 8, 23, 127, True, True),
        ("float16", 0x61, 5, 10, 15, True, True),
        ("bfloat16", 0x62, 8, 7, 127, True, True),
        ("float8_e4m3fn", 0x63, 4, 3, 7, False, True),
        ("float8_e5m2", 0x64, 5, 2, 15, True, True),
        ("float6_e2m3fn", 0x65, 2, 3, 1, False, False),
        ("float6_e3m2fn", 0x66, 3, 2, 3, False, False),
        ("float4_e2m1fn", 0x67, 2, 1, 1, False, False),
    ]
    rows = [Format(name=name, code=code, kind=Kind.FLOAT, bits=1 + exponent + mantissa,
                   exponent_bits=exponent, mantissa_bits=mantissa, bias=bias, has_inf=inf,
                   has_nan=nan)
            for name, code, exponent, mantissa, bias, inf, nan in table]
    rows.append(Format(name="float8_e8m0fnu", code=0x68, kind=Kind.POWER, bits=8, signed=False,
                       exponent_bits=8, bias=127, has_nan=True))
    return rows


def _blocks(elements: dict[str, Format]) -> list[Format]:
    # name, code, element, group, scale, zero, row scale, tensor scale
    table = [
        ("mxfp8_e4m3", 0x80, "float8_e4m3fn", 32, "float8_e8m0fnu", "", "", ""),
        ("mxfp8_e5m2", 0x81, "float8_e5m2", 32, "float8_e8m0fnu", "", "", ""),
        ("mxfp6_e2m3", 0x82, "float6_e2m3fn", 32, "float8_e8m0fnu", "", "", ""),
        ("mxfp6_e3m2", 0x83, "float6_e3m2fn", 32, "float8_e8m0fnu", "", "", ""),
        ("mxfp4", 0x84, "float4_e2m1fn", 32, "float8_e8m0fnu", "", "", ""),
        ("mxint8", 0x85, "int8", 32, "float8_e8m0fnu", "", "", ""),
        ("nvfp4", 0x86, "float4_e2m1fn", 16, "float8_e4m3fn", "", "", "float32"),
        ("qoq_w4", 0xC0, "uint4", 128, "uint8", "uint4", "float16", ""),
        ("qoq_kv4", 0xC1, "uint4", 128, "float16", "float16", "", ""),  # (memory, unverified)
    ]
    table += [(f"bfp{bits}", 0x90 + bits, f"int{bits}", 32, "float8_e8m0fnu", "", "", "")
              for bits in range(2, 17)]
    table += [(f"int{bits}_group", 0xA0 + bits, f"int{bits}", 128, "float16", "", "", "")
              for bits in range(2, 9)]
    table += [(f"uint{bits}_group", 0xB0 + bits, f"uint{bits}", 128, "float16", f"uint{bits}",
               "", "") for bits in range(2, 9)]
    return [Format(name=name, code=code, kind=Kind.BLOCK, bits=elements[element].bits,
                   signed=elements[element].signed, element=element, group=group, scale=scale,
                   zero=zero, row_scale=row_scale, tensor_scale=tensor_scale)
            for name, code, element, group, scale, zero, row_scale, tensor_scale in table]


def _table() -> dict[str, Format]:
    elements = {row.name: row for row in _integers() + _floats()}
    return elements | {row.name: row for row in _blocks(elements)}


FORMATS: dict[str, Format] = _table()
_OF_CODE = {row.code: row for row in FORMATS.values()}

# Other spellings people use.
ALIASES = {
    "fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "fp8_e4m3": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2", "fp6_e2m3": "float6_e2m3fn", "fp6_e3m2": "float6_e3m2fn",
    "fp4_e2m1": "float4_e2m1fn", "e8m0": "float8_e8m0fnu",
}


def format_named(name: str, *, where: str = "") -> Format:
    """Return the format called `name` or an alias of it; `where` (file or key) opens the error.

    Raises `UserError` that names the nearest format.
    """
    row = FORMATS.get(ALIASES.get(name, name))
    if row is None:
        raise unknown("format", name, [*FORMATS, *ALIASES], where=where)
    return row


def format_of_code(code: int) -> Format:
    """Return the format with an instruction's `code`; `KeyError` if there is none."""
    return _OF_CODE[code]


def sections(fmt: Format, shape: tuple[int, ...], group: int = 0) -> dict[str, Section]:
    """Return the arrays a tensor of `shape` [..., K] is stored as, by name, elements first.

    `group` replaces the format's own; a last group may be short.
    """
    if fmt.kind is not Kind.BLOCK:
        return {"elements": Section(format=fmt, shape=shape)}
    rows, depth = shape[:-1], shape[-1]
    groups = (*rows, -(-depth // (group or fmt.group)))
    table = [("elements", fmt.element, shape), ("scales", fmt.scale, groups),
             ("zeros", fmt.zero, groups), ("row_scales", fmt.row_scale, rows),
             ("tensor_scale", fmt.tensor_scale, ())]
    return {name: Section(format=FORMATS[part], shape=extent)
            for name, part, extent in table if part}


def packed_bits(fmt: Format, shape: tuple[int, ...], group: int = 0) -> int:
    """Return the exact bits of a tensor of `shape` [..., K], scales and zero points included."""
    return sum(section.bits for section in sections(fmt, shape, group).values())


def packed_bytes(fmt: Format, shape: tuple[int, ...], group: int = 0) -> int:
    """Return the bytes of a tensor of `shape` [..., K]; each section starts on a byte."""
    return sum(-(-section.bits // 8) for section in sections(fmt, shape, group).values())


def product_bits(activation: Format, weight: Format) -> int:
    """Return the bits that hold any product of two elements exactly, sign included.

    Fixed point for floats (Kulisch): from the smallest subnormal product to the largest. One bit
    is the sign; sums of many products need as many more as the count has.
    """
    a, w = _operand(activation), _operand(weight)
    largest = int(_magnitude(a)) * int(_magnitude(w))
    step = _step_exponent(a) + _step_exponent(w)
    return largest.bit_length() - step + 1


def _magnitude(fmt: Format) -> float:
    low = fmt.kind is Kind.INTEGER and fmt.signed
    return 2.0 ** (fmt.bits - 1) if low else fmt.largest


def _step_exponent(fmt: Format) -> int:
    return fmt.smallest_exponent - fmt.mantissa_bits if fmt.is_float else 0


def _operand(fmt: Format) -> Format:
    """What the multiplier sees: the element, or int8 where an integer scale comes first (qoq)."""
    if fmt.kind is not Kind.BLOCK:
        return fmt
    return FORMATS["int8" if fmt.row_scale else fmt.element]


def accumulators(activation: Format, weight: Format) -> tuple[str, ...]:
    """Return the accumulators that may take products of the two formats; none for a bare scale.

    A format's name, or ``kulisch``: the exact fixed-point sum of `product_bits` and growth, where
    that is at most `KULISCH_LIMIT_BITS`. Groups with a scale of their own are added in float32.
    """
    a, w = _operand(activation), _operand(weight)
    grouped = any(f.kind is Kind.BLOCK and not f.row_scale for f in (activation, weight))
    if Kind.POWER in (a.kind, w.kind):
        return ()
    if grouped:
        return ("float32",)
    if not a.is_float and not w.is_float:
        return tuple(f"int{bits}" for bits in range(max(16, product_bits(a, w)), 33))
    narrow = "float32" not in (a.name, w.name)
    half = narrow and "bfloat16" not in (a.name, w.name)
    exact = a.is_float and w.is_float and product_bits(a, w) <= KULISCH_LIMIT_BITS
    return ("float32", *(("float16",) if half else ()), *(("kulisch",) if exact else ()))


def check_matmul(activation: Format, weight: Format, accumulator: str) -> None:
    """Raise `UserError` unless products of the two formats may be added in `accumulator`."""
    legal = accumulators(activation, weight)
    if accumulator in legal:
        return
    pair = f"{activation.name} x {weight.name}"
    if not legal:
        raise UserError(f"{pair} has no legal accumulator")
    width = product_bits(activation, weight)
    if accumulator == "kulisch" and width > KULISCH_LIMIT_BITS:
        raise must_be(f"kulisch accumulator of {pair}", f"at most {KULISCH_LIMIT_BITS} bits", width)
    listed = f"{legal[0]} to {legal[-1]}" if len(legal) > 3 else " or ".join(legal)
    raise must_be(f"accumulator of {pair}", listed, accumulator)
