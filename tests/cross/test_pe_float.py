# amaranth: UnusedElaboratable=no
"""Arrays of float elements: RTL, simulator and golden agree, with stalls on every stream."""

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import wiring

from archsim.systolic import transfers
from golden.formats import decode, encode
from golden.systolic import run
from hw.cxxrtl import StreamSimulation, unpack_beats
from hw.pe import Element
from hw.systolic import Systolic
from machine.formats import FORMATS, Format
from machine.pe import PeConfig
from machine.systolic import SystolicConfig, Tile, pack_tile

OS = ("os",)
ROUNDS = 20  # runs of all arrays at once
TILES = 6  # commands of each array in a run


def array(kind: str, a: str, w: str, acc: str, *, acc_bits: int = 0, rows: int = 2, cols: int = 1,
          dataflows=("os", "ws"), **pe) -> SystolicConfig:
    return SystolicConfig(
        rows=rows, cols=cols, acc_rows=9, a_bits=FORMATS[a].bits, w_bits=FORMATS[w].bits,
        acc_bits=acc_bits or FORMATS[acc].bits, dataflows=dataflows,
        pe=PeConfig(kind=kind, a_format=a, w_format=w, acc_format=acc, **pe))


# By the model they are compiled into: few elements each, of every format and accumulator. Of the
# arrays that are output-stationary alone one row shows the order of addition.
MODELS = {
    "float16": [
        array("float_mac", "float16", "float16", "float32", depth_cycles=2),
        array("float_mac", "float16", "float16", "float16", dataflows=OS, rows=1, add_cycles=3,
              partial_sums=3),
    ],
    "shift_add": [
        array("float_shift_add", "float16", "int4", "float32", depth_cycles=3),
        array("float_shift_add", "float16", "uint4", "float16", rows=1),
    ],
    "bfloat16": [
        array("float_mac", "bfloat16", "bfloat16", "float32", dataflows=OS, rows=1, add_cycles=2),
        array("float_mac", "float8_e4m3fn", "float8_e5m2", "float16", rows=1, depth_cycles=2),
    ],
    "kulisch": [
        array("float_mac", "float8_e4m3fn", "float8_e4m3fn", "kulisch", acc_bits=42, cols=2),
        array("float_mac", "float8_e5m2", "float4_e2m1fn", "kulisch", acc_bits=44, dataflows=OS,
              rows=1, add_cycles=2, partial_sums=2),
    ],
    "mx": [
        array("mx", "mxfp8_e4m3", "mxfp4", "float32", k_lanes=2, depth_cycles=3, rows=1),
        array("mx", "mxint8", "mxint8", "float32", k_lanes=3, depth_cycles=2),
    ],
}
SLOW_MODELS = {
    "mxfp6": [array("mx", "mxfp6_e2m3", "mxfp6_e3m2", "float32", k_lanes=5, dataflows=OS,
                    add_cycles=2, partial_sums=2)],
    "mixed": [array("float_mac", "float16", "float8_e5m2", "float32", rows=3),
              array("float_mac", "float6_e2m3fn", "float6_e3m2fn", "float32")],
    "mxfp8_e5m2": [array("mx", "mxfp8_e5m2", "mxfp8_e5m2", "float32", k_lanes=32,
                         depth_cycles=3, rows=1)],
    "float32": [array("float_mac", "float32", "float32", "float32")],
}


def name_of(cfg: SystolicConfig) -> str:
    pe = cfg.pe
    return f"{pe.kind}-{pe.a_format}-{pe.w_format}-{pe.acc_format}"


class Arrays(wiring.Component):
    """Arrays side by side; the streams of number n end in ``_n``.

    Members
    -------
    """

    def __init__(self, cfgs: list[SystolicConfig]):
        self.arrays = [Systolic(cfg) for cfg in cfgs]
        super().__init__({f"{name}_{n}": member for n, array in enumerate(self.arrays)
                          for name, member in array.signature.members.items()})

    def elaborate(self, platform):
        m = Module()
        for n, part in enumerate(self.arrays):
            m.submodules[f"array_{n}"] = part
            for name, member in part.signature.members.items():
                inner, outer = getattr(part, name), wiring.flipped(getattr(self, f"{name}_{n}"))
                ends = (outer, inner) if member.flow is wiring.In else (inner, outer)
                wiring.connect(m, *ends)
        return m


def stalls(rng: np.random.Generator, beats: int) -> np.ndarray:
    """Return random times for the beats of one stream: none, few, many or long waits."""
    most, chance = [(1, 0.0), (2, 0.3), (4, 0.8), (25, 0.2)][rng.integers(4)]
    return np.cumsum(rng.integers(0, most, beats) * (rng.random(beats) < chance))


def codes(rng: np.random.Generator, fmt: Format, shape: tuple[int, ...]) -> np.ndarray:
    """Return codes near one another, some at random; now and then only zeros and infinities."""
    anything = rng.integers(0, 1 << fmt.bits, shape)
    if not fmt.is_float:
        return anything
    near = encode(rng.standard_normal(shape) * 2.0 ** rng.integers(-2, 3), fmt).astype(np.int64)
    special = rng.choice([0, 1 << fmt.bits - 1, int(encode(np.inf, fmt))], shape)
    kind = rng.random(shape)
    wild = np.where(np.isfinite(decode(anything, fmt)), anything, near)
    return np.where(kind < 0.004, special, np.where(kind < 0.2, wild, near))


def elements(rng: np.random.Generator, fmt: Format, beats: int, count: int, lanes: int,
             shared: int) -> np.ndarray:
    """Return beats of `count` elements of `lanes` codes each, and a scale each if `shared`."""
    element = FORMATS[fmt.element] if fmt.element else fmt
    each = codes(rng, element, (beats, count, lanes))
    if shared:
        scales = rng.choice([0, 90, 126, 127, 128, 129, 254], (beats, count, 1),
                            p=[0.01, 0.01, 0.3, 0.3, 0.3, 0.07, 0.01])
        scales[rng.random(scales.shape) < 0.002] = 255
        each = np.concatenate([each, scales], axis=-1)
    return each.reshape(beats, -1)


def words(beats: np.ndarray, lanes: int, bits: int, shared: int) -> np.ndarray:
    """Return beats as words of payload: elements in turn, lanes low, the scale above them."""
    widths = [bits] * lanes + ([shared] if shared else [])
    rows = []
    for beat in beats.reshape(len(beats), -1, len(widths)).tolist():
        total = at = 0
        for element in beat:
            for code, width in zip(element, widths, strict=True):
                total, at = total | code << at, at + width
        rows.append(total.to_bytes(-(-at // 32) * 4, "little"))
    return np.frombuffer(b"".join(rows), "<u4").reshape(len(beats), -1)


def random_job(rng: np.random.Generator, cfg: SystolicConfig):
    """Return random tiles of `cfg`, codes for them and times for the four streams."""
    tiles = []
    for _ in range(TILES):
        dataflow = str(rng.choice(cfg.dataflows))
        m, k = (int(size) for size in rng.integers(1, 10, 2))
        m, k = (m, min(k, cfg.rows)) if dataflow == "ws" else (min(m, cfg.rows), k)
        tiles.append(Tile(dataflow=dataflow, m=m, k=k, accumulate=bool(rng.integers(2)),
                          emit=bool(rng.integers(2)),
                          acc_row=int(rng.integers(0, cfg.acc_rows - m + 1))))
    lanes, fixed = cfg.pe.k_lanes, cfg.pe.fixed
    acts = elements(rng, cfg.act_format, sum(t.act_beats for t in tiles), cfg.rows, lanes,
                    fixed.act_shared_bits)
    weights = elements(rng, cfg.operand_format, sum(t.weight_beats for t in tiles), cfg.cols,
                       lanes, fixed.weight_shared_bits)
    times = {"commands_valid": stalls(rng, len(tiles)), "acts_valid": stalls(rng, len(acts)),
             "weights_valid": stalls(rng, len(weights)),
             "sums_ready": stalls(rng, sum(tile.sum_beats for tile in tiles))}
    return tiles, acts, weights, times


def compare(simulation: StreamSimulation, cfgs: list[SystolicConfig], seed: int) -> None:
    """Run every array on a random job and hold bits and cycles against golden and simulator."""
    rng = np.random.default_rng(seed)
    jobs = [random_job(rng, cfg) for cfg in cfgs]
    inputs, outputs = {}, {}
    for n, (cfg, (tiles, acts, weights, times)) in enumerate(zip(cfgs, jobs, strict=True)):
        fixed, lanes = cfg.pe.fixed, cfg.pe.k_lanes
        given = {
            "commands": np.array([pack_tile(t) for t in tiles], "<u8").view("<u4").reshape(-1, 2),
            "acts": words(acts, lanes, cfg.a_bits, fixed.act_shared_bits),
            "weights": words(weights, lanes, cfg.w_bits, fixed.weight_shared_bits),
        }
        for name, payloads in given.items():
            inputs[f"i_{name}_{n}"] = payloads, times[f"{name}_valid"]
        outputs[f"o_sums_{n}"] = times["sums_ready"]
    log = simulation.run(inputs, outputs)
    for n, (cfg, (tiles, acts, weights, times)) in enumerate(zip(cfgs, jobs, strict=True)):
        got = unpack_beats(log[f"o_sums_{n}"].words, cfg.cols, cfg.acc_bits)
        want = run(cfg, tiles, acts, weights)
        for at in np.argwhere(got != want)[:1].tolist():
            pytest.fail(f"{name_of(cfg)} seed {seed} sum {at}: {int(got[*at]):#x} != "
                        f"{int(want[*at]):#x} (golden)")
        moved = transfers(cfg, tiles, **times)
        for name in ("i_commands", "i_acts", "i_weights", "o_sums"):
            cycles = log[f"{name}_{n}"].cycles
            assert cycles.tolist() == getattr(moved, name[2:]).tolist(), (name_of(cfg), name)


@pytest.mark.cxxrtl
@pytest.mark.parametrize("model", MODELS)
def test_every_float_element_with_random_stalls_on_all_streams(model):
    simulation = StreamSimulation(Arrays(MODELS[model]), merge_wires=False)
    for seed in range(ROUNDS):
        compare(simulation, MODELS[model], seed)


def test_at_least_two_hundred_random_cases_are_compared():
    assert ROUNDS * sum(len(cfgs) for cfgs in MODELS.values()) >= 200


@pytest.mark.slow
@pytest.mark.cxxrtl
@pytest.mark.timeout(1800)  # the compiler's time, most of it for blocks of 32
@pytest.mark.parametrize("model", [*MODELS, *SLOW_MODELS])
def test_many_more_random_cases(model):
    cfgs = {**MODELS, **SLOW_MODELS}[model]
    simulation = StreamSimulation(Arrays(cfgs), merge_wires=False)
    for seed in range(100, 160):
        compare(simulation, cfgs, seed)


@pytest.mark.parametrize("cfg", MODELS["shift_add"], ids=name_of)
def test_a_float_by_an_integer_takes_no_multiplier(cfg):
    assert "$mul" not in rtlil.convert(Element(cfg), emit_src=False)


def test_a_float_element_has_one_multiplier():
    text = rtlil.convert(Element(MODELS["float16"][0]), emit_src=False)
    assert text.count("cell $mul ") == 1


@pytest.mark.parametrize("a, w, acc, acc_bits, message", [
    ("bfloat16", "bfloat16", "kulisch", 64,
     "kulisch accumulator of bfloat16 x bfloat16 must be at most 128 bits, not 523"),
    ("bfloat16", "bfloat16", "float16", 16,
     "accumulator of bfloat16 x bfloat16 must be float32, not 'float16'"),
    ("float16", "float16", "float32", 16, "acc_bits must be 32, the bits of float32, not 16"),
    ("float8_e4m3fn", "float8_e4m3fn", "kulisch", 32,
     ("acc_bits must be from 41 (for 2 exact products of float8_e4m3fn by float8_e4m3fn, and 3 "
      "marks) to 64, not 32")),
    ("float16", "float16", "kulisch", 64,
     ("acc_bits must be from 85 (for 2 exact products of float16 by float16, and 3 marks) to 64, "
      "not 64")),
])
def test_an_accumulator_that_does_not_fit_is_refused_with_its_width(a, w, acc, acc_bits, message):
    with pytest.raises(ValueError) as error:
        array("float_mac", a, w, acc, acc_bits=acc_bits)
    assert message in str(error.value)
