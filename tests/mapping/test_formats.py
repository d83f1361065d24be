"""Number formats of a run: how they are written, and the bytes that follow."""

import pytest
from pydantic import ValidationError

from machine.errors import UserError
from mapping.formats import Formats, parse_formats


@pytest.mark.parametrize(("text", "names"), [
    ("W8A8KV8", ("int8", "int8", "int8")),
    ("W16A16KV16", ("float16", "float16", "float16")),
    ("W4A16KV8", ("int4", "float16", "int8")),
    ("W2A32KV32", ("int2", "float32", "float32")),
    ("Wmxfp4Abf16KVfp8_e4m3", ("mxfp4", "bfloat16", "float8_e4m3fn")),
    ("Wint4_groupAint8KVqoq_kv4", ("int4_group", "int8", "qoq_kv4")),
])
def test_formats_are_read_and_written_back(text, names):
    formats = parse_formats(text)
    assert (formats.weights, formats.activations, formats.kv) == names
    assert parse_formats(str(formats)) == formats


def test_the_short_form_is_the_one_printed():
    assert str(parse_formats("Wint8Afp16KVint4")) == "W8A16KV4"


@pytest.mark.parametrize("text", ["", "W8A8", "8/8/8", "w8a8kv8", "W8A8KV8 ", "W8A8KV"])
def test_another_shape_of_text_is_refused(text):
    with pytest.raises(UserError) as error:
        parse_formats(text)
    assert str(error.value) == (
        "formats must be written like W8A8KV8, W16A16KV16 or Wmxfp4Abf16KVint8, "
        f"not {text!r}")


@pytest.mark.parametrize("bits", [0, 1, 9, 12, 64])
def test_bits_without_a_format_are_refused(bits):
    with pytest.raises(UserError) as error:
        parse_formats(f"W8A{bits}KV8")
    want = f"bits in formats 'W8A{bits}KV8' must be 2 to 8, 16 or 32, not {bits}"
    assert str(error.value) == want


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError) as error:
        parse_formats("Wmxfp5A8KV8")
    assert str(error.value).startswith("formats 'Wmxfp5A8KV8': format must be one of ")
    assert str(error.value).endswith("not 'mxfp5'; did you mean 'mxfp4'?")


def test_a_formats_record_refuses_an_unknown_name():
    with pytest.raises(ValidationError, match="kv must be a known format, not 'int99'"):
        Formats(weights="int8", activations="int8", kv="int99")


def test_bytes_are_exact_to_the_bit_of_a_tensor():
    formats = parse_formats("W3A16KV8")
    assert formats.tensor_bytes("weight", (5, 7)) == 14  # 105 bits
    assert formats.tensor_bytes("activation", (5, 7)) == 70
    assert formats.tensor_bytes("kv", (5, 7)) == 35
    assert formats.tensor_bytes("index", (5,)) == 20


def test_scales_of_a_block_format_are_counted():
    # 2 rows of 64: 128 elements of 4 bits and 4 scales of one byte.
    assert parse_formats("Wmxfp4A8KV8").tensor_bytes("weight", (2, 64)) == 64 + 4


@pytest.mark.parametrize(("text", "vectors"), [
    ("W8A8KV8", "float32"), ("Wfp8_e4m3A8KV8", "float32"), ("W16A16KV16", "float16"),
    ("Wbf16A8KV8", "bfloat16"), ("W32A8KV8", "float32"), ("Wmxfp4A8KV8", "float32")])
def test_gains_and_biases_are_wide_floats(text, vectors):
    assert parse_formats(text).of("vector").name == vectors
