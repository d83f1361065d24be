# amaranth: UnusedElaboratable=no
"""The lookup array looks up and negates: its sums are those of plain products, in any schedule.

Each stream offers or takes in whatever cycles it likes; there is no reset in between.

- Mode `bmc`, depth 8: one table of one row, every activation and every weight bit.
- Mode `bmc`, depth 14: the commands `TILES` on some data, with two cycles of waits or more.
- Mode `prove`, by property-directed reachability: the same, for any number of cycles.
- Mode `prove`, by induction over 2 cycles: what is offered is kept while it waits.
"""

import random
from dataclasses import replace

import pytest
from amaranth.hdl import Cat, Const, Value

from archsim.lut import lut_transfers
from hw.formal import prove
from hw.lut import Lut
from hw.lut_table import TablePrecompute
from hw.properties import AnySchedule, KeptOutputs
from machine.lut import COMMAND_BITS, LutConfig, LutTile, TableConfig, pack_lut_tile
from machine.lut_table import TableUnitConfig

SIZE = {"m": 2, "n": 1, "k": 2, "a_bits": 2, "w_bits": 2, "acc_bits": 7}
CONFIGS = {
    "conventional": LutConfig(**SIZE, tables=TableConfig(
        format="int4", symmetric=False, remapped=False, precomputed=False)),
    "symmetric": LutConfig(**SIZE, tables=TableConfig(
        format="int4", remapped=False, precomputed=False)),
    "remapped": LutConfig(**SIZE, tables=TableConfig(format="int4", precomputed=False)),
    "precomputed": LutConfig(**SIZE, tables=TableConfig(format="int4")),
    "precomputed, deep": LutConfig(**SIZE, depth_cycles=2, tables=TableConfig(format="int4")),
    "mac": LutConfig(**SIZE, unit="mac"),
    "add": LutConfig(**SIZE, unit="add"),
}
PLANES = 2
ONE = [LutTile(rows=1, tables=1, planes=PLANES)]
TILES = [LutTile(rows=1, tables=1, planes=PLANES, emit=False),
         LutTile(rows=2, tables=1, planes=PLANES, accumulate=True),
         LutTile(rows=1, tables=1, planes=PLANES)]
SOME = random.Random(2).getrandbits(200)


def table(acts: list[Value], symmetric: bool) -> list[Value]:
    """Return the sums of `acts`, with a sign each, or each or not, by the bits of their number."""
    last = len(acts) - 1
    if symmetric:
        return [sum((a if entry >> i & 1 else -a) for i, a in enumerate(acts[:last])) - acts[last]
                for entry in range(1 << last)]
    return [sum((a if entry >> i & 1 else 0) for i, a in enumerate(acts))
            for entry in range(2 << last)]


def factor(cfg: LutConfig, bits: list[Value]) -> Value:
    """Return what a weight of the planes' `bits` multiplies by."""
    if cfg.reinterpreted:  # each bit is a sign
        return sum((bit << plane + 1) - (1 << plane) for plane, bit in enumerate(bits))
    return Cat(bits).as_signed()


def beats_of(cfg: LutConfig, bits: list[list[Value]]) -> list[Value]:
    """Return the beats of weights for one table, from ``bits[weight][plane]``."""
    if cfg.unit == "mac":
        return [Cat(*map(Cat, bits))]
    beats = []
    for plane in range(PLANES):
        code = Cat(weight[plane] for weight in bits)
        if cfg.unit == "lut" and cfg.tables.remapped:
            code = Cat(code[:-1] ^ code[-1].replicate(cfg.k - 1), code[-1])
        beats.append(code)
    return beats


def harness(dut: Lut, tiles: list[LutTile], fixed: int | None = None) -> AnySchedule:
    """Return `dut` with `tiles` of one table each to do on free data, or on `fixed` ones."""
    cfg = dut.cfg
    acts_bits = cfg.m * cfg.k * cfg.a_bits
    each = acts_bits + cfg.k * PLANES

    def work(data):
        data = data if fixed is None else Const(fixed % (1 << len(data)), len(data))
        sums, sent, tables, weights = [0] * cfg.m, [], [], []
        for number, tile in enumerate(tiles):
            here = data[number * each : (number + 1) * each]
            bits = [[here[acts_bits + weight * PLANES + plane] for plane in range(PLANES)]
                    for weight in range(cfg.k)]
            weights += beats_of(cfg, bits)
            beat = []
            for row in range(cfg.m):
                acts = [here.word_select(row * cfg.k + i, cfg.a_bits).as_signed()
                        for i in range(cfg.k)]
                made = sum(a * factor(cfg, b) for a, b in zip(acts, bits, strict=True))
                sums[row] = made + (sums[row] if tile.accumulate else 0)
                entries = table(acts, cfg.tables.symmetric) if cfg.takes_tables else []
                beat += [entry.as_signed()[: cfg.tables.entry.bits] for entry in entries] or acts
            tables.append(Cat(beat))
            sent += [total[: cfg.acc_bits] for total in sums[: tile.rows * tile.emit]]
        commands = [Const(pack_lut_tile(tile), COMMAND_BITS) for tile in tiles]
        enter = {"i_commands": commands, "i_tables": tables, "i_weights": weights}
        return enter, {"o_sums": sent}

    return AnySchedule(dut, len(tiles) * each, work, cfg.latency_cycles + cfg.m)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_activation_by_every_weight_is_the_plain_product(name):
    cfg, depth = replace(CONFIGS[name], m=1), 8
    assert lut_transfers(cfg, ONE).sums[-1] < depth - 1
    verdict = prove(harness(Lut(cfg), ONE), mode="bmc", depth=depth, engine="abc bmc3")
    assert verdict.status == "pass", verdict.reason


@pytest.mark.parametrize("name", ["remapped", "precomputed, deep"])
def test_every_schedule_gives_the_sums_in_order(name):
    cfg, depth = CONFIGS[name], 14
    assert lut_transfers(cfg, TILES).sums[-1] < depth - 2
    verdict = prove(harness(Lut(cfg), TILES, SOME), mode="bmc", depth=depth, engine="abc bmc3")
    assert verdict.status == "pass", verdict.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_schedule_of_any_length_gives_the_sums_of_some_data(name):
    cfg = CONFIGS[name]
    verdict = prove(harness(Lut(cfg), TILES, SOME), engine="abc pdr")
    assert verdict.status == "pass", verdict.reason


def test_offered_sums_and_tables_are_kept_while_they_wait():
    verdict = prove(KeptOutputs(Lut(CONFIGS["precomputed"])), depth=2)
    assert verdict.status == "pass", verdict.reason
    tables = TablePrecompute(TableUnitConfig(k=2, a_format="int2", format="int4"))
    verdict = prove(KeptOutputs(tables), depth=2)
    assert verdict.status == "pass", verdict.reason


BROKEN = [
    ("hw.lut", "free.eq(~self.push | ends)", "free.eq(1)", "conventional"),
    ("hw.lut", "self.tables_ready.eq(~held | (self.look & self.last))",
     "self.tables_ready.eq(1)", "mac"),
    ("hw.lut", "self.row.eq(self.row + 1)", "self.row.eq(self.row)", "remapped"),
    ("hw.lut", "queue.i.valid.eq(control.push)", "queue.i.valid.eq(control.push & queue.o.ready)",
     "add"),
]


@pytest.mark.parametrize("module, old, new, name", BROKEN, ids=["sums change", "table goes",
                                                               "row stays", "drops"])
def test_a_broken_array_is_seen(edited, module, old, new, name):
    dut = edited(module, old, new).Lut(CONFIGS[name])
    verdict = prove(harness(dut, TILES, SOME), mode="bmc", depth=20, engine="abc bmc3")
    assert verdict.status == "fail"


@pytest.mark.parametrize("old, new", [
    ("if tables.symmetric and not tables.remapped:", "if False:"),
    ("adder.negate.eq(negate)", "adder.negate.eq(self.group[-1] & ~self.first)"),
], ids=["index not inverted", "not negated"])
def test_a_broken_unit_is_seen(edited, monkeypatch, old, new):
    cfg = replace(CONFIGS["symmetric"], m=1)
    monkeypatch.setattr("hw.lut.LutUnit", edited("hw.lut_unit", old, new).LutUnit)
    verdict = prove(harness(Lut(cfg), ONE), mode="bmc", depth=8, engine="abc bmc3")
    assert verdict.status == "fail"
