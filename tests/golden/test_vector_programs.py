"""The vector unit's programs of steps, carried out by numpy, give golden's bits."""

import numpy as np
import pytest

from golden import approx, attention, vector
from golden.floats import reduce_max, reduce_sum
from golden.formats import round_to
from machine import approx as words
from machine.approx import rotary_steps
from machine.formats import FORMATS
from machine.vector import Mask, ReductionOrder
from machine.vector_core import quantiser_words
from machine.vector_microcode import Count, Given, Op, Operand, Place, Step, Table
from machine.vector_programs import PROGRAMS, Code

F32 = np.float32
LANES = 4


def table(value: np.ndarray, name: Table, visible: np.ndarray) -> np.ndarray:
    """Return operand a, uint32 bits, as `name` changes it."""
    bits = value.view(np.uint32).astype(np.int64)
    power = ((bits >> 5 & 511) ^ 256) - 256

    def ones(rom: tuple[int, ...], index: np.ndarray) -> np.ndarray:
        return np.array(rom, np.uint32)[index]
    step = bits >> 20 & 127
    changed = {
        Table.NONE: lambda: bits,
        Table.EXP_HIGH: lambda: ones(words.EXP_HIGH, bits & 31),
        Table.EXP_LOW: lambda: ones(words.EXP_LOW, bits & 31),
        Table.TWO_FIRST: lambda: ((power >> 1) + 127 & 255) << 23,
        Table.TWO_SECOND: lambda: (power - (power >> 1) + 127 & 255) << 23,
        Table.LOW_HALF: lambda: 0x4B000000 | bits & 0xFFFF,
        Table.HIGH_HALF: lambda: 0x4B000000 | bits >> 16 ^ 0x8000,
        Table.HEAD: lambda: bits + 0x800 & 0xFFFFF000,
        Table.VISIBLE: lambda: np.where(visible, bits, 0xFF800000),
        Table.SINE: lambda: ones(words.SINE, step),
        Table.COSINE: lambda: ones(words.SINE, 128 - step),
        Table.REST_HIGH: lambda: 0x4B000000 | bits & 0xFFFFF,
        Table.ELEMENT: lambda: 0x4B000000 | np.broadcast_to(np.arange(bits.shape[-1]), bits.shape),
        Table.LOW_BITS: lambda: bits & 0x7FFFFF,
    }[name]()
    return np.asarray(changed).astype(np.uint32).view(F32)


def operate(op: Op, a: np.ndarray, b: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return what `op` makes of float32 `a` and `b`; `position` of the rows is for phases."""
    wide = np.zeros(LANES if op is Op.PAIR else 1)
    a, b, _ = np.broadcast_arrays(a, b, wide)
    bits_a, bits_b = (np.ascontiguousarray(v).view(np.uint32).astype(np.int64) for v in (a, b))
    quadrant = bits_a >> 27 & 3
    phase = (position * (bits_a + (bits_b << 24)) + (1 << 38)) & (1 << 48) - 1
    nan = np.isnan(a) | np.isnan(b)
    tiny = F32(2.0**-100)
    first_lane = np.arange(a.shape[-1]) % LANES == 0
    with np.errstate(all="ignore"):
        made = {
            Op.ADD: lambda: a + b, Op.MULTIPLY: lambda: a * b, Op.DIVIDE: lambda: a / b,
            Op.ROOT: lambda: np.sqrt(a), Op.PASS: lambda: a,
            Op.MAX: lambda: np.where(nan, np.nan, np.where(a > b, a, b)),
            Op.MIN: lambda: np.where(nan, np.nan, np.where(a < b, a, b)),
            Op.SIGN: lambda: np.copysign(b, a),
            Op.PAIR: lambda: np.where(first_lane, a, b),
            Op.NOTHING_IS_0: lambda: np.where(np.isneginf(a), 0, b),
            Op.ZERO_IS_0: lambda: np.where(a == 0, 0, b),
            Op.TINY_IS_0: lambda: np.where(a <= tiny, 0, b),
            Op.TINY_IS_1: lambda: np.where(a <= tiny, 1, b),
            Op.RISING_IS_1: lambda: np.where(a < 0, b, 1),
            Op.ODD_IS_0: lambda: np.where(quadrant & 1, 0, b),
            Op.EVEN_IS_0: lambda: np.where(quadrant & 1, b, 0),
            Op.COSINE_SIGN: lambda: np.where((quadrant == 1) | (quadrant == 2), -b, b),
            Op.SAME: lambda: np.where(a == b, -np.inf, np.inf),
            Op.NOTHING_STAYS: lambda: np.where(np.isneginf(a), a, b),
            Op.SINE_SIGN: lambda: np.where(quadrant >= 2, -b, b),
            Op.PHASE_HIGH: lambda: (phase >> 19).astype(np.uint32).view(F32),
            Op.PHASE_LOW: lambda: (0x4B000000 | phase & (1 << 19) - 1).astype(np.uint32).view(F32),
        }[op]()
    return np.asarray(made, F32)


class Unit:
    """The registers of all rows at once: [rows, elements], filled up to whole beats."""

    def __init__(self, rows: int, width: int, streams: dict[Place, list[np.ndarray]], *,
                 value: float = 0.0, position: int = 0, mask: Mask = Mask.NONE, window: int = 0,
                 order: ReductionOrder = ReductionOrder.TREE, fmt: str = "int8"):
        self.width, self.order, self.streams = width, order, streams
        self.whole = -(-width // LANES) * LANES
        self.position = position + np.arange(rows)[:, None]
        self.visible = np.pad(attention.visible_keys(
            mask, rows, width, position_base=position, window=window),
            [(0, 0), (0, self.whole - width)])
        self.row = np.zeros((8, rows, self.whole), F32)
        self.all = np.zeros((16, rows, 1), F32)
        self.all[0] = value
        self.all.view(np.uint32)[1] = width
        for number, word in zip((Given.LARGEST, Given.LEAST, Given.ROUNDER), quantiser_words(fmt),
                                strict=True):
            self.all.view(np.uint32)[number] = word
        self.sent: list[np.ndarray] = []

    def read(self, operand: Operand, size: int) -> np.ndarray:
        if operand.place is Place.IMMEDIATE:
            value = np.full((len(self.position), 1), np.uint32(operand.number)).view(F32)
        elif operand.place is Place.ALL:
            value = self.all[operand.number]
        elif operand.place is Place.ROW:
            value = self.row[operand.number][:, :size]
        else:
            taken = np.asarray(self.streams[operand.place].pop(0), F32)
            value = np.pad(taken, [(0, 0), (0, size - taken.shape[-1])])
        visible = self.visible[:, :size] if size > LANES or value.shape[-1] > 1 else True
        value = table(np.ascontiguousarray(value), operand.table, visible)
        value = np.abs(value) if operand.magnitude else value
        return -value if operand.negated else value

    def total(self, steps: tuple[Step, Step]) -> None:
        """Carry out a reduction: its totals and its tree."""
        value = self.read(steps[0].a, self.whole)[:, : self.width]
        if steps[0].op is Op.MAX:
            made = np.max(value, axis=-1)
        else:
            made = reduce_sum(value, self.order, LANES)
        self.all[steps[1].to.number] = made[:, None]

    def run(self, steps: tuple[Step, ...]) -> None:
        at = 0
        while at < len(steps):
            step = steps[at]
            at += 1
            if step.length is Count.ELEMENTS:
                self.total((step, steps[at]))
                at += 1
                continue
            size = {Count.ROW: self.whole, Count.ONE: LANES}[step.length]
            result = operate(step.op, self.read(step.a, size), self.read(step.b, size),
                             self.position)
            if step.to.place is Place.ROW:
                self.row[step.to.number][:, :size] = result
            elif step.to.place is Place.ALL:
                self.all[step.to.number] = result[:, :1]
            elif step.to.place is Place.ALL_SECOND:
                self.all[step.to.number] = result[:, 1:2]
            else:
                self.sent.append(result)


def carry_out(code: Code, x=(), y=(), once=(), repeats=1, **fields) -> list[np.ndarray]:
    """Return what the program `code` sends for rows of `x`, `y` (a list of arrays each)."""
    rows, width = x[-1].shape
    streams = {Place.X: list(x), Place.Y: [*once, *y]}
    unit = Unit(rows, width, streams, **fields)
    before, loop, after = PROGRAMS[code].parts()
    for steps in (PROGRAMS[code].command, before, *[loop] * repeats, after):
        unit.run(steps)
    assert not streams[Place.X] and not streams[Place.Y]
    return unit.sent


def same(got: np.ndarray, want: np.ndarray) -> None:
    want = np.asarray(want, F32)
    got = np.broadcast_to(got, (len(got), max(got.shape[-1], want.shape[-1])))
    got = np.ascontiguousarray(got[:, : want.shape[-1]])
    equal = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
    for row, at in np.argwhere(~equal)[:1]:
        pytest.fail(f"row {row}, element {at}: {got[row, at]!r}, want {want[row, at]!r}")


CURVES = {Code.RELU: vector.relu, Code.EXP: approx.exp, Code.SIGMOID: approx.sigmoid,
          Code.SILU: approx.silu, Code.GELU: approx.gelu, Code.GELU_TANH: approx.gelu_tanh,
          Code.TANH: approx.tanh}
SPECIAL = np.array([0, 0x80000000, 1, 0x80000001, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF,
                    0xFF7FFFFF, 0x3F800000, 0xBF800000, 0x800000], np.uint32).view(F32)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], special: float = 0.02) -> np.ndarray:
    """Return float32 of mixed magnitudes, corner values among them."""
    values = rng.normal(size=shape) * np.exp2(rng.integers(-8, 5, shape))
    return np.where(rng.random(shape) < special, rng.choice(SPECIAL, shape), values).astype(F32)


@pytest.mark.parametrize("code", CURVES, ids=lambda code: code.name)
def test_curves_of_every_float16_and_of_random_float32(code):
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(F32)
    random = np.random.default_rng(code).integers(0, 1 << 32, 1 << 16, np.uint32).view(F32)
    for values in (halves, random):
        x = values.reshape(-1, 16)
        same(carry_out(code, [x])[0], CURVES[code](x))


@pytest.mark.parametrize("width", [1, 3, 4, 9, 16])
@pytest.mark.parametrize("order", ReductionOrder)
def test_row_operators(width, order):
    rng = np.random.default_rng(width)
    x, gain, bias = (numbers(rng, (300, width)) for _ in range(3))
    stated = {"order": order, "lanes": LANES}
    with np.errstate(all="ignore"):
        same(carry_out(Code.REDUCE_SUM, [x], order=order)[0], reduce_sum(x, order, LANES)[:, None])
        same(carry_out(Code.REDUCE_MAX, [x])[0], reduce_max(x)[:, None])
        same(carry_out(Code.RMSNORM, [x], once=[gain], order=order, value=1e-5)[0],
             vector.rmsnorm(x, gain, epsilon=1e-5, **stated))
        same(carry_out(Code.LAYERNORM, [x], once=[gain, bias], order=order, value=1e-5)[0],
             vector.layernorm(x, gain, bias, epsilon=1e-5, **stated))
        same(carry_out(Code.L2NORM, [x], order=order, value=1e-12)[0], vector.l2norm(x, **stated))


@pytest.mark.parametrize("mask", Mask)
def test_softmax_with_masks(mask):
    rng = np.random.default_rng(mask)
    x = numbers(rng, (40, 11), special=0.005)
    fields = {"position": 3, "window": 4}
    visible = attention.visible_keys(mask, 40, 11, position_base=3, window=4)
    with np.errstate(all="ignore"):
        same(carry_out(Code.SOFTMAX, [x], mask=mask, value=0.3, **fields)[0],
             attention.softmax(x, visible=visible, scale=0.3, lanes=LANES))
        state = attention.attend(x, np.ones((11, 1), F32), visible=visible, scale=0.3, lanes=LANES)
        weights, pair = carry_out(Code.SOFTMAX_STATE, [x], mask=mask, value=0.3, **fields)
    same(pair, np.stack([state.maximum, state.total], axis=-1))
    same(weights, attention._weights(x, visible, 0.3)[1])


@pytest.mark.parametrize("fmt", ["int4", "uint4", "int8", "uint8", "int16", "uint16"])
def test_quantise_to_integers(fmt):
    rng = np.random.default_rng(1)
    x = numbers(rng, (500, 10), special=0)
    x[3], x[4] = 0, 2.0**-120
    row = FORMATS[fmt]

    def whole(words: np.ndarray) -> np.ndarray:
        low = words.view(np.uint32)[:, :10].astype(np.int64) & (1 << row.bits) - 1
        return np.where(row.signed & (low >> row.bits - 1 != 0), low - (1 << row.bits), low)
    codes = carry_out(Code.QUANTISE, [x], value=0.037, fmt=fmt)[0]
    assert (whole(codes) == vector.quantise(x, np.full(500, 0.037, F32), row)).all()
    codes, scale = carry_out(Code.QUANTISE_ROWS, [x], fmt=fmt)
    want, scales = vector.quantise_rows(x, row)
    assert (whole(codes) == want).all()
    same(scale, scales[:, None])


@pytest.mark.parametrize("fmt", ["float8_e4m3fn", "float8_e5m2"])
def test_quantise_to_floats_scales_and_holds_and_the_format_rounds(fmt):
    x = numbers(np.random.default_rng(1), (500, 10), special=0)
    x[3], x[4] = 0, 2.0**-120
    held = carry_out(Code.QUANTISE, [x], value=0.0037, fmt=fmt)[0][:, :10]
    want = vector.quantise(x, np.full(500, 0.0037, F32), FORMATS[fmt])
    same(round_to(held, FORMATS[fmt]).astype(F32), want)
    assert np.abs(held).max() <= FORMATS[fmt].largest
    held, scale = carry_out(Code.QUANTISE_ROWS, [x], fmt=fmt)
    want, scales = vector.quantise_rows(x, FORMATS[fmt])
    same(round_to(held[:, :10], FORMATS[fmt]).astype(F32), want)
    same(scale, scales[:, None])


def test_from_integers_and_dequantise():
    rng = np.random.default_rng(1)
    x = numbers(rng, (500, 10), special=0)
    whole = rng.integers(-(1 << 31), 1 << 31, (500, 10)) >> rng.integers(0, 31, (500, 10))
    bits = whole.astype(np.int32).view(F32)
    row, columns, bias = numbers(rng, (500, 1)), numbers(rng, (1, 10)), numbers(rng, (1, 10))
    columns, bias = np.repeat(columns, 500, 0), np.repeat(bias, 500, 0)
    with np.errstate(all="ignore"):
        same(carry_out(Code.FROM_INTEGER, [bits])[0], whole.astype(F32))
        same(carry_out(Code.MULTIPLY_INTEGER, [bits], [x])[0], whole.astype(F32) * x)
        same(carry_out(Code.DEQUANTISE, [bits], [row], [columns])[0],
             vector.dequantise(whole, row[:, 0], columns))
        same(carry_out(Code.DEQUANTISE_BIAS, [bits], [row], [columns, bias])[0],
             vector.dequantise(whole, row[:, 0], columns, bias))


def test_merge():
    rng = np.random.default_rng(2)
    mine, other = numbers(rng, (500, 12)), numbers(rng, (500, 12))
    mine[:50, 0] = other[25:75, 0] = -np.inf
    a, b = (attention.State(v[:, 0], v[:, 1], v[:, 2:]) for v in (mine, other))
    with np.errstate(all="ignore"):
        want = attention.merge(a, b)
        pair, output, finished = carry_out(
            Code.MERGE, [mine[:, :2], mine[:, 2:]], [other[:, :2], other[:, 2:]])
        same(pair, np.stack([want.maximum, want.total], axis=-1))
        same(output, want.output)
        same(finished, attention.finish(want))


@pytest.mark.parametrize("position", [0, 5, 123_456, (1 << 32) - 64])
@pytest.mark.parametrize("width", [2, 6, 10, 16])
def test_rope(position, width):
    rng = np.random.default_rng(3)
    x = numbers(rng, (64, width))
    steps = np.array(rotary_steps(10000.0, width))
    cosine, sine = vector.rope_table(position + np.arange(64), steps)
    parts = [np.repeat((part.astype(np.uint32).view(F32))[None], 64, 0)
             for part in (steps & (1 << 24) - 1, steps >> 24)]
    with np.errstate(all="ignore"):
        first, second = carry_out(Code.ROPE, np.split(x, 2, axis=1), once=parts,
                                  position=position)
        want = vector.rope(x, cosine, sine)
    half = width // 2
    same(np.concatenate([first[:, :half], second[:, :half]], axis=-1), want)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_topk(count):
    rng = np.random.default_rng(count)
    x = numbers(rng, (400, 7), special=0.3)
    x[:40] = rng.integers(-1, 2, (40, 7))  # equals, zeros of both signs
    x[:20] *= rng.choice([-1, 1], (20, 7))
    x[40:60] = rng.choice([-np.inf, np.nan], (20, 7))
    values, places = vector.topk(x, count)
    for sent, value, place in zip(carry_out(Code.TOPK, [x], repeats=count), values.T, places.T,
                                  strict=True):
        same(sent[:, :1], value[:, None])
        assert (sent[:, 1].view(np.uint32) == place).all()


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_mean_pool(rows):
    rng = np.random.default_rng(rows)
    x = [numbers(rng, (300, 6)) for _ in range(rows)]
    mask = [rng.choice(np.array([0, 0x80000000, 0x3F800000, 1, 0x7FC00000], np.uint32),
                       (300, 1)).view(F32) for _ in range(rows)]
    with np.errstate(all="ignore"):
        same(carry_out(Code.MEAN_POOL, x, repeats=rows)[0], vector.mean_pool(np.stack(x, 1)))
        same(carry_out(Code.MEAN_POOL_MASKED, x, mask, repeats=rows)[0],
             vector.mean_pool(np.stack(x, 1), np.concatenate(mask, 1) != 0))


@pytest.mark.parametrize("bound", [0.0, 0.3, 1.0])
def test_mlgru(bound):
    rng = np.random.default_rng(4)
    x, forget, state = (numbers(rng, (400, 9)) for _ in range(3))
    with np.errstate(all="ignore"):
        same(carry_out(Code.MLGRU, [x], [forget, state], value=bound)[0],
             vector.mlgru(x, forget, state, bound))
