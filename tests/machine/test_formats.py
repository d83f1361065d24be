"""The format table: codes that never move, sizes exact to the bit, and which formats multiply."""

from fractions import Fraction

import ml_dtypes
import pytest

from machine.errors import UserError
from machine.formats import (
    ALIASES,
    FORMATS,
    Kind,
    accumulators,
    check_matmul,
    format_named,
    format_of_code,
    packed_bits,
    packed_bytes,
    product_bits,
)

# The codes stand in compiled programs: a format may be added, none may change.
CODES = {
    "int1": 0x01, "int4": 0x04, "int8": 0x08, "int16": 0x10, "int32": 0x20, "uint1": 0x21,
    "uint4": 0x24, "uint8": 0x28, "uint32": 0x40, "bipolar1": 0x41, "bipolar8": 0x48,
    "ternary": 0x50, "shift2": 0x5A, "shift4": 0x5C, "float32": 0x60, "float16": 0x61,
    "bfloat16": 0x62, "float8_e4m3fn": 0x63, "float8_e5m2": 0x64, "float6_e2m3fn": 0x65,
    "float6_e3m2fn": 0x66, "float4_e2m1fn": 0x67, "float8_e8m0fnu": 0x68, "mxfp8_e4m3": 0x80,
    "mxfp8_e5m2": 0x81, "mxfp6_e2m3": 0x82, "mxfp6_e3m2": 0x83, "mxfp4": 0x84, "mxint8": 0x85,
    "nvfp4": 0x86, "bfp4": 0x94, "bfp16": 0xA0, "int2_group": 0xA2, "int8_group": 0xA8,
    "uint2_group": 0xB2, "uint8_group": 0xB8, "qoq_w4": 0xC0, "qoq_kv4": 0xC1,
}


def test_codes_never_change_and_are_unique():
    assert {name: FORMATS[name].code for name in CODES} == CODES
    codes = [row.code for row in FORMATS.values()]
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 256 for code in codes)
    assert all(format_of_code(row.code) is row for row in FORMATS.values())


def test_every_row_is_under_its_own_name_and_aliases_lead_to_rows():
    assert all(row.name == name for name, row in FORMATS.items())
    assert all(target in FORMATS and name not in FORMATS for name, target in ALIASES.items())
    assert format_named("bf16") is FORMATS["bfloat16"]


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(UserError, match="^a.toml: format must be one of .*, not 'float8_e4m3'$"):
        try:
            format_named("float8_e4m3", where="a.toml")
        except UserError as error:
            assert "did you mean 'float8_e4m3fn'?" in str(error)
            raise UserError(str(error).split("; did")[0]) from None


@pytest.mark.parametrize("row", [f for f in FORMATS.values() if f.is_float], ids=lambda f: f.name)
def test_float_limits_equal_those_of_ml_dtypes(row):
    info = ml_dtypes.finfo(row.name)
    assert row.bits == info.bits == 1 + row.exponent_bits + row.mantissa_bits
    assert row.largest == float(info.max)
    assert row.smallest == float(info.smallest_subnormal)
    assert 2.0**row.smallest_exponent == float(info.smallest_normal)
    assert 2.0**row.largest_exponent <= row.largest < 2.0 ** (row.largest_exponent + 1)


# exponent of the largest element / largest / smallest normal: the OCP MX table (arXiv 2310.10537)
@pytest.mark.parametrize("name, exponent, largest, normal", [
    ("float8_e5m2", 15, 57344, 2.0**-14), ("float8_e4m3fn", 8, 448, 2.0**-6),
    ("float6_e3m2fn", 4, 28, 0.25), ("float6_e2m3fn", 2, 7.5, 1), ("float4_e2m1fn", 2, 6, 1)])
def test_mx_elements_equal_the_published_table(name, exponent, largest, normal):
    row = FORMATS[name]
    assert (row.largest_exponent, row.largest, 2.0**row.smallest_exponent) == (
        exponent, largest, normal)


@pytest.mark.parametrize("name, largest", [
    ("int1", 0), ("int8", 127), ("uint8", 255), ("bipolar3", 7), ("ternary", 1), ("shift3", 8),
    ("float8_e8m0fnu", 2.0**127), ("mxfp4", 6), ("qoq_w4", 15)])
def test_largest_of_the_other_kinds(name, largest):
    assert FORMATS[name].largest == largest


# bits an element over a long row: arXiv 2310.10537 (mx), 2403.20137 (bfp), and arithmetic
@pytest.mark.parametrize("name, group, bits", [
    ("mxfp8_e4m3", 0, "8.25"), ("mxfp8_e5m2", 0, "8.25"), ("mxfp6_e2m3", 0, "6.25"),
    ("mxfp6_e3m2", 0, "6.25"), ("mxfp4", 0, "4.25"), ("mxint8", 0, "8.25"),
    ("bfp4", 32, "4.25"), ("bfp4", 64, "4.125"), ("bfp4", 128, "4.0625"),
    ("int4_group", 128, "4.125"), ("uint4_group", 128, "4.15625"), ("uint4_group", 32, "4.625"),
    ("qoq_kv4", 128, "4.25"), ("int8", 0, "8"), ("bipolar3", 0, "3"), ("ternary", 0, "2")])
def test_bits_an_element(name, group, bits):
    assert Fraction(packed_bits(FORMATS[name], (16, 4096), group), 16 * 4096) == Fraction(bits)


def test_second_level_scales_are_counted_once_a_row_or_a_tensor():
    # 3 rows of 256: elements, 16-element groups of 8-bit scales, one float32
    assert packed_bits(FORMATS["nvfp4"], (3, 256)) == 3 * 256 * 4 + 3 * 16 * 8 + 32
    # elements, 2 groups a row of an 8-bit scale and a 4-bit zero, one float16 a row
    assert packed_bits(FORMATS["qoq_w4"], (3, 256)) == 3 * (256 * 4 + 2 * (8 + 4) + 16)


def test_a_short_last_group_has_scales_of_its_own():
    assert packed_bits(FORMATS["mxfp4"], (2, 32)) == 2 * (32 * 4 + 8)
    assert packed_bits(FORMATS["mxfp4"], (2, 33)) == 2 * (33 * 4 + 16)


def test_bytes_round_every_section_up():
    assert packed_bytes(FORMATS["int3"], (5,)) == 2
    assert packed_bytes(FORMATS["uint4_group"], (1, 3)) == 2 + 2 + 1
    assert packed_bytes(FORMATS["int3"], (2, 0)) == 0


# magnitude of the product range and a sign: 37 bits for E4M3 is arXiv 2303.17951's
@pytest.mark.parametrize("a, w, bits", [
    ("int8", "int8", 16), ("uint8", "uint8", 17), ("int4", "int4", 8), ("int8", "uint4", 12),
    ("float8_e4m3fn", "float8_e4m3fn", 37), ("float16", "float16", 81),
    ("bfloat16", "bfloat16", 523), ("float4_e2m1fn", "float4_e2m1fn", 9)])
def test_product_bits(a, w, bits):
    assert product_bits(FORMATS[a], FORMATS[w]) == bits


@pytest.mark.parametrize("a", ["int3", "uint3", "bipolar2", "ternary", "shift3"])
@pytest.mark.parametrize("w", ["int4", "uint2", "bipolar3", "shift2"])
def test_product_bits_hold_every_integer_product_and_not_a_bit_more(a, w):
    def values(name):
        row = FORMATS[name]
        half = 2 ** (row.bits - 1)
        return {
            Kind.INTEGER: range(-half if row.signed else 0, int(row.largest) + 1),
            Kind.BIPOLAR: range(1 - 2 * half, 2 * half, 2),
            Kind.TERNARY: (-1, 0, 1),
            Kind.SHIFT: [s << p for s in (1, -1) for p in range(half)],
        }[row.kind]
    products = [x * y for x in values(a) for y in values(w)]
    bits = product_bits(FORMATS[a], FORMATS[w])
    assert max(abs(p) for p in products).bit_length() + 1 == bits


@pytest.mark.parametrize("a, w, legal", [
    ("int8", "int8", tuple(f"int{b}" for b in range(16, 33))),
    ("uint8", "uint8", tuple(f"int{b}" for b in range(17, 33))),
    ("int16", "int16", ("int32",)), ("uint16", "uint16", ()),
    ("float16", "float16", ("float32", "float16", "kulisch")),
    ("bfloat16", "bfloat16", ("float32",)), ("float32", "float32", ("float32",)),
    ("float8_e4m3fn", "float8_e5m2", ("float32", "float16", "kulisch")),
    ("float16", "uint4", ("float32", "float16")), ("mxfp4", "mxfp8_e4m3", ("float32",)),
    ("int8", "int4_group", ("float32",)), ("float8_e8m0fnu", "int8", ())])
def test_legal_accumulators(a, w, legal):
    assert accumulators(FORMATS[a], FORMATS[w]) == legal
    for accumulator in legal:
        check_matmul(FORMATS[a], FORMATS[w], accumulator)


def test_qoq_multiplies_as_the_int8_of_its_first_level():
    assert accumulators(FORMATS["int8"], FORMATS["qoq_w4"]) == accumulators(
        FORMATS["int8"], FORMATS["int8"])


@pytest.mark.parametrize("a, w, accumulator, message", [
    ("int8", "int8", "int15", "accumulator of int8 x int8 must be int16 to int32, not 'int15'"),
    ("int8", "int8", "float32",
     "accumulator of int8 x int8 must be int16 to int32, not 'float32'"),
    ("float32", "float32", "float16",
     "accumulator of float32 x float32 must be float32, not 'float16'"),
    ("bfloat16", "bfloat16", "kulisch",
     "kulisch accumulator of bfloat16 x bfloat16 must be at most 128 bits, not 523"),
    ("float16", "uint4", "kulisch",
     "accumulator of float16 x uint4 must be float32 or float16, not 'kulisch'"),
    ("uint16", "uint16", "int32", "uint16 x uint16 has no legal accumulator")])
def test_illegal_accumulators_are_refused_with_the_reason(a, w, accumulator, message):
    with pytest.raises(UserError) as refused:
        check_matmul(FORMATS[a], FORMATS[w], accumulator)
    assert str(refused.value) == message
