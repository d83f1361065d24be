"""The array's recurrence: closed forms, hand-worked stalls, the pure-Python twin."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from archsim.systolic import tile_times, transfers
from machine.pe import PeConfig
from machine.systolic import SystolicConfig, Tile, matmul_cycles, matmul_tiles

CFG = SystolicConfig(rows=4, cols=3, acc_rows=16)
# Elements of more than one step or product a beat; an adder of more than one serves os alone.
PES = [PeConfig(), PeConfig(kind="bit_serial"), PeConfig(k_lanes=3, depth_cycles=3),
       PeConfig(add_cycles=3), PeConfig(add_cycles=3, partial_sums=3),
       PeConfig(kind="bit_serial", add_cycles=20, partial_sums=2)]


def array_of(cfg: SystolicConfig, pe: PeConfig) -> SystolicConfig:
    return replace(cfg, pe=pe, dataflows=("os",) if pe.add_cycles > 1 else cfg.dataflows)
LATENCY = 4 + 3 + 1


def tiles_of(cfg: SystolicConfig, m: int, n: int, k: int, dataflow: str) -> list[Tile]:
    return [work.tile for work in matmul_tiles(cfg, m, n, k, dataflow)]


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@pytest.mark.parametrize("rows, cols, depth", [(1, 1, 1), (4, 3, 2), (16, 8, 1), (128, 128, 1)])
def test_unstalled_recurrence_is_the_closed_form(dataflow, rows, cols, depth):
    cfg = SystolicConfig(rows=rows, cols=cols, acc_rows=40, pe=PeConfig(depth_cycles=depth))
    rng = np.random.default_rng(rows)
    for _ in range(20):
        m, n, k = (int(size) for size in rng.integers(1, [100, 3 * cols + 1, 3 * rows + 1]))
        times = transfers(cfg, tiles_of(cfg, m, n, k, dataflow))
        cycles = matmul_cycles(cfg, m, n, k, dataflow)
        assert times.sums[-1] + 1 == cycles.total_cycles, (m, n, k)
        assert times.acts[0] == cycles.fill_cycles
        assert times.sums[-1] - times.acts[-1] == cycles.drain_cycles


@pytest.mark.parametrize("pe", PES, ids=repr)
def test_unstalled_recurrence_is_the_closed_form_for_any_element(pe):
    cfg = array_of(SystolicConfig(rows=4, cols=3, acc_rows=10), pe)
    interval = cfg.initiation_interval_cycles
    rng = np.random.default_rng(interval)
    for _ in range(40):
        m, n, k = (int(size) for size in rng.integers(1, [40, 8, 40]))
        dataflow = str(rng.choice(cfg.dataflows))
        tiles = tiles_of(cfg, m, n, k, dataflow)
        times = transfers(cfg, tiles)
        cycles = matmul_cycles(cfg, m, n, k, dataflow)
        assert times.sums[-1] + 1 == cycles.total_cycles, (m, n, k)
        assert times.acts[0] == cycles.fill_cycles
        assert cycles.busy_cycles == interval * sum(tile.act_beats for tile in tiles)
        assert times.sums[-1] - times.acts[-1] == cycles.drain_cycles + interval - 1
        assert min(cycles) >= 0


def test_ws_weights_of_the_next_tile_enter_with_the_first_activation():
    tiles = [Tile(dataflow="ws", m=6, k=4), Tile(dataflow="ws", m=2, k=4)]
    times = transfers(CFG, tiles)
    assert times.commands.tolist() == [0, 4]
    assert times.weights.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert times.acts.tolist() == [5, 6, 7, 8, 9, 10, 11, 12]
    assert times.sums.tolist() == [cycle + LATENCY for cycle in range(5, 13)]


def test_os_sums_leave_from_the_last_pair_on():
    times = transfers(CFG, [Tile(dataflow="os", m=3, k=5)])
    assert times.acts.tolist() == times.weights.tolist() == [2, 3, 4, 5, 6]
    assert times.sums.tolist() == [6 + LATENCY, 7 + LATENCY, 8 + LATENCY]


def test_the_last_pair_waits_until_the_sums_in_front_have_left():
    tiles = [Tile(dataflow="os", m=4, k=1), Tile(dataflow="os", m=1, k=2)]
    times = transfers(CFG, tiles)
    assert times.acts.tolist() == [2, 3, 6]  # slots 2 to 5 are the first tile's
    assert times.sums.tolist() == [cycle + LATENCY for cycle in range(2, 7)]


def test_activations_behind_an_os_tile_wait_until_its_sums_have_left():
    tiles = [Tile(dataflow="os", m=4, k=1), Tile(dataflow="ws", m=1, k=1)]
    times = transfers(CFG, tiles)
    assert times.weights.tolist() == [2, 3]
    assert times.acts.tolist() == [2, 6]


def test_beats_of_an_element_of_four_steps_are_four_apart():
    cfg = SystolicConfig(rows=4, cols=3, acc_rows=16, w_bits=4, pe=PeConfig(kind="bit_serial"))
    tiles = [Tile(dataflow="ws", m=2, k=2), Tile(dataflow="os", m=1, k=2)]
    times = transfers(cfg, tiles)
    assert times.acts.tolist() == [3, 7, 11, 15]
    assert times.sums.tolist() == [cycle + 4 + 3 + 4 for cycle in (3, 7, 15)]


def test_partial_sums_merge_before_the_rows_leave_and_the_next_tile_enters():
    cfg = SystolicConfig(rows=4, cols=3, acc_rows=16, dataflows=("os",),
                         pe=PeConfig(add_cycles=3, partial_sums=3))
    tiles = [Tile(dataflow="os", m=2, k=4), Tile(dataflow="os", m=1, k=1)]
    times = transfers(cfg, tiles)
    # Two merges of 3 steps behind the pair in cycle 5; the next pair behind those and a row.
    assert times.acts.tolist() == [2, 3, 4, 5, 13]
    assert times.sums.tolist() == [5 + 6 + 4 + 3 + 3, 5 + 6 + 4 + 3 + 3 + 1, 13 + 6 + 10]


def test_two_rows_that_wait_stop_the_array_until_one_is_taken():
    # The queue fills in cycle 2 + LATENCY; the first row is taken in cycle 30, the second in 31.
    ready = [30, 31, 0, 0, 0]
    times = transfers(CFG, [Tile(dataflow="ws", m=5, k=1)], sums_ready=ready)
    assert times.sums_offered.tolist() == [2 + LATENCY, 31, 32, 33, 34]
    assert times.sums.tolist() == [30, 31, 32, 33, 34]


def test_a_stopped_array_takes_nothing():
    cfg = SystolicConfig(rows=1, cols=1)
    times = transfers(cfg, [Tile(dataflow="ws", m=8, k=1)], sums_ready=[40] + [0] * 7)
    # Rows are pushed 2 cycles after their activation: the queue is full from cycle 6 on.
    assert times.acts.tolist() == [2, 3, 4, 5, 41, 42, 43, 44]


def test_stored_rows_do_not_wait_for_the_receiver():
    tiles = [Tile(dataflow="ws", m=16, k=4, emit=False), Tile(dataflow="ws", m=1, k=4)]
    times = transfers(CFG, tiles, sums_ready=[1000])
    assert times.acts.tolist() == list(range(5, 22))


@pytest.mark.parametrize("pe", PES, ids=repr)
def test_tile_times_are_the_ends_of_the_beats(pe):
    cfg = array_of(CFG, pe)
    rng = np.random.default_rng(3)
    for _ in range(50):
        tiles = []
        for _ in range(8):
            dataflow = str(rng.choice(cfg.dataflows))
            tiles.append(Tile(dataflow=dataflow, m=int(rng.integers(1, 5)),
                              k=int(rng.integers(1, 5))))
        valid = {name: np.cumsum(rng.integers(0, 12, 8)) * int(rng.integers(2))
                 for name in ("commands_valid", "acts_valid", "weights_valid")}
        acts = np.repeat(valid["acts_valid"], [tile.act_beats for tile in tiles])
        weights = np.repeat(valid["weights_valid"], [tile.weight_beats for tile in tiles])
        beats = transfers(cfg, tiles, commands_valid=valid["commands_valid"], acts_valid=acts,
                          weights_valid=weights)
        ends = tile_times(cfg, tiles, **valid)
        act_ends = np.cumsum([tile.act_beats for tile in tiles])
        sum_ends = np.cumsum([tile.sum_beats for tile in tiles])
        weight_ends = np.cumsum([tile.weight_beats for tile in tiles])
        first = np.array([0, *act_ends[:-1]])
        assert ends.first_act.tolist() == beats.acts[first].tolist()
        assert ends.last_act.tolist() == beats.acts[act_ends - 1].tolist()
        assert ends.first_sums.tolist() == beats.sums[[0, *sum_ends[:-1]]].tolist()
        assert ends.last_sums.tolist() == beats.sums[sum_ends - 1].tolist()
        assert ends.first_weight.tolist() == beats.weights[[0, *weight_ends[:-1]]].tolist()


TWIN = """
import json
from archsim.systolic import tile_times, transfers
from machine.systolic import SystolicConfig, Tile
cfg = SystolicConfig(rows=4, cols=3, acc_rows=16)
tiles = [Tile(dataflow="ws", m=5, k=3), Tile(dataflow="os", m=4, k=1, emit=False),
         Tile(dataflow="os", m=2, k=6), Tile(dataflow="ws", m=2, k=4)]
times = transfers(cfg, tiles, commands_valid=[3, 3, 9, 40],
                  acts_valid=[7 * i % 50 for i in range(14)],
                  weights_valid=[5 * i % 60 for i in range(14)],
                  sums_ready=[11 * i % 70 for i in range(9)])
ends = tile_times(cfg, tiles, acts_valid=[9, 0, 30, 0])
print(json.dumps([getattr(part, name).tolist() for part in (times, ends)
                  for name in part.__dataclass_fields__]))
"""


def test_the_pure_python_twin_gives_the_same_cycles():
    printed = []
    for disable in ("0", "1"):
        done = subprocess.run([sys.executable, "-c", TWIN], check=True, capture_output=True,
                              text=True, env={**os.environ, "NUMBA_DISABLE_JIT": disable})
        printed.append(json.loads(done.stdout))
    assert printed[0] == printed[1]
    assert len(printed[0]) == 10


@pytest.mark.parametrize("times, sentence", [
    ({"acts_valid": [0]}, "acts_valid must be 2 cycles, not 1"),
    ({"weights_valid": [0, 0, 0]}, "weights_valid must be 1 cycles, not 3"),
    ({"sums_ready": [0, -4]}, "sums_ready must be at least 0, not -4"),
])
def test_rejects_times_that_do_not_fit_the_tiles(times, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        transfers(CFG, [Tile(dataflow="ws", m=2, k=1)], **times)


def test_rejects_a_tile_the_array_cannot_execute():
    with pytest.raises(ValueError, match="^k must be from 1 to 4, not 5$"):
        transfers(CFG, [Tile(dataflow="ws", m=2, k=5)])
