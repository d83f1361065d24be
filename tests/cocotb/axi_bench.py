"""The array behind AXI, driven by cocotbext-axi; golden is the model.

Run by ``test_axi.py``; ``$SYSTOLIC_JSON`` names the JSON emitted beside the Verilog.
"""

import itertools
import json
import os
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiResp,
    AxiStreamBus,
    AxiStreamSink,
    AxiStreamSource,
)
from pydantic import TypeAdapter

from golden.systolic import assemble, lay_out, matmul, run
from machine.systolic import SystolicConfig, Tile, matmul_tiles, pack_tile

FACTS = json.loads(Path(os.environ["SYSTOLIC_JSON"]).read_text())
CFG = TypeAdapter(SystolicConfig).validate_json(json.dumps(FACTS["parameters"]))
OFFSET = {register["name"]: register["offset"] for register in FACTS["registers"]}


class Bench:
    """The agents of all ports; every stream pauses at random with probability `pause`."""

    def __init__(self, dut, seed: int = 0, pause: float = 0.0):
        self.dut = dut
        rng = np.random.default_rng(seed)
        side = dut.aclk, dut.aresetn, False
        self.lite = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), *side)
        self.acts = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis_acts"), *side)
        self.weights = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis_weights"), *side)
        self.sums = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis_sums"), *side)
        channels = [self.acts, self.weights, self.sums, self.lite.write_if.aw_channel,
                    self.lite.write_if.w_channel, self.lite.write_if.b_channel,
                    self.lite.read_if.ar_channel, self.lite.read_if.r_channel]
        for channel in channels if pause else []:
            channel.set_pause_generator(itertools.cycle((rng.random(97) < pause).tolist()))

    async def reset(self) -> None:
        cocotb.start_soon(Clock(self.dut.aclk, 10, unit="ns").start())
        self.dut.aresetn.value = 0
        for _ in range(3):
            await RisingEdge(self.dut.aclk)
        self.dut.aresetn.value = 1
        await RisingEdge(self.dut.aclk)

    async def read(self, name: str) -> int:
        answer = await self.lite.read(OFFSET[name], 4)
        assert answer.resp == AxiResp.OKAY, name
        return int.from_bytes(answer.data, "little")

    async def write(self, name: str, value: int) -> AxiResp:
        return (await self.lite.write(OFFSET[name], value.to_bytes(4, "little"))).resp

    async def command(self, tile: Tile) -> AxiResp:
        """Write both halves of the command of `tile`; return the second answer."""
        word = pack_tile(tile)
        assert await self.write("COMMAND_LOW", word & 0xFFFF_FFFF) == AxiResp.OKAY
        return await self.write("COMMAND_HIGH", word >> 32)

    def feed(self, acts: np.ndarray, weights: np.ndarray) -> None:
        """Offer all beats, int8 each element, as one frame a stream."""
        self.acts.send_nowait(acts.astype(np.int8).tobytes())
        self.weights.send_nowait(weights.astype(np.int8).tobytes())

    async def packet(self) -> np.ndarray:
        """Return the rows of sums, int64 [rows, cols], up to the next tlast."""
        frame = await self.sums.recv()
        return np.frombuffer(bytes(frame.tdata), "<i4").reshape(-1, CFG.cols).astype(np.int64)


def operands(rng: np.random.Generator, tiles: list[Tile]) -> tuple[np.ndarray, np.ndarray]:
    return (rng.integers(-128, 128, (sum(tile.act_beats for tile in tiles), CFG.rows)),
            rng.integers(-128, 128, (sum(tile.weight_beats for tile in tiles), CFG.cols)))


@cocotb.test()
async def no_output_depends_on_an_input_within_a_cycle(dut):
    cocotb.start_soon(Clock(dut.aclk, 10, unit="ns").start())
    rng = np.random.default_rng(5)
    ports = {way: [dut[port["name"]] for port in FACTS["ports"]
                   if port["direction"] == way and port["name"] not in ("aclk", "aresetn")]
             for way in ("input", "output")}
    dut.aresetn.value = 0
    seen = set()
    for cycle in range(400):
        await RisingEdge(dut.aclk)
        await ReadOnly()
        before = [str(port.value) for port in ports["output"]]
        await FallingEdge(dut.aclk)
        dut.aresetn.value = int(cycle > 2)
        for port in ports["input"]:
            port.value = int(rng.integers(1 << min(len(port), 32)))
        dut.s_axil_wstrb.value = 15
        dut.s_axil_awaddr.value = int(rng.choice([OFFSET["COMMAND_HIGH"], OFFSET["PACKET"]]))
        await ReadOnly()
        assert [str(port.value) for port in ports["output"]] == before, cycle
        seen.update(enumerate(before))
    # Most outputs did change, so that there was something to see.
    handshakes = [at for at, port in enumerate(ports["output"]) if len(port) == 1]
    moved = [at for at in handshakes if (at, "0") in seen and (at, "1") in seen]
    assert len(moved) >= len(handshakes) - 2


@cocotb.test()
async def registers_hold_what_their_table_says(dut):
    bench = Bench(dut, seed=1, pause=0.4)
    await bench.reset()
    assert await bench.read("IDENTITY") == 0x53595354
    assert await bench.read("SIZE") == CFG.rows | CFG.cols << 16
    assert await bench.read("STATUS") == 1
    for name in ("COMMANDS", "ROWS", "PACKET", "COMMAND_LOW", "COMMAND_HIGH"):
        assert await bench.read(name) == 0, name
    for register in FACTS["registers"]:
        if register["access"] == "read":
            assert await bench.write(register["name"], 5) == AxiResp.SLVERR, register["name"]
    for name in ("PACKET", "COMMAND_LOW"):
        assert await bench.write(name, 0xDEAD_BEEF) == AxiResp.OKAY
        assert await bench.read(name) == 0xDEAD_BEEF


@cocotb.test()
async def accesses_without_a_register_or_a_strobe_are_refused(dut):
    bench = Bench(dut)
    await bench.reset()
    beyond = max(OFFSET.values()) + 4
    for address in (beyond, 0x800 + OFFSET["PACKET"]):
        answer = await bench.lite.read(address, 4)
        assert (answer.resp, answer.data) == (AxiResp.SLVERR, bytes(4))
        assert (await bench.lite.write(address, bytes(4))).resp == AxiResp.SLVERR
    assert (await bench.lite.write(OFFSET["PACKET"], bytes([7]))).resp == AxiResp.SLVERR
    assert await bench.read("PACKET") == 0


@cocotb.test()
@cocotb.parametrize(seed=range(4))
async def a_matmul_is_goldens_under_random_pauses(dut, seed):
    rng = np.random.default_rng(seed)
    bench = Bench(dut, seed, pause=0.5 if seed else 0.0)
    m, n, k = (int(size) for size in rng.integers(1, [2 * CFG.rows, 3 * CFG.cols, 2 * CFG.rows]))
    a, w = rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (k, n))
    works = list(matmul_tiles(CFG, m, n, k, ("ws", "os")[seed % 2]))
    rows = sum(work.tile.sum_beats for work in works)

    await bench.reset()
    assert await bench.write("PACKET", rows) == AxiResp.OKAY
    bench.feed(*lay_out(CFG, works, a, w))
    for work in works:
        while await bench.read("STATUS") == 0:
            pass
        assert await bench.command(work.tile) == AxiResp.OKAY
    sums = await bench.packet()
    assert np.array_equal(assemble(works, sums, m, n), matmul(a, w))
    await RisingEdge(dut.aclk)
    assert await bench.read("COMMANDS") == len(works)
    assert await bench.read("ROWS") == rows


@cocotb.test()
async def packets_have_as_many_rows_as_asked(dut):
    bench = Bench(dut, seed=3, pause=0.3)
    await bench.reset()
    tiles = [Tile(dataflow="ws", m=7, k=1)]
    acts, weights = operands(np.random.default_rng(3), tiles)
    assert await bench.write("PACKET", 3) == AxiResp.OKAY
    assert await bench.command(tiles[0]) == AxiResp.OKAY
    bench.feed(acts, weights)
    want = run(CFG, tiles, acts, weights)
    for start in (0, 3):
        assert np.array_equal(await bench.packet(), want[start : start + 3])
    # The seventh row opens a packet that nothing ends.
    while await bench.read("ROWS") < 7:
        pass
    assert bench.sums.empty()


@cocotb.test()
async def a_command_without_room_is_refused_and_has_no_effect(dut):
    bench = Bench(dut)
    await bench.reset()
    tiles = [Tile(dataflow="ws", m=2, k=1) for _ in range(3)]
    for tile in tiles:
        assert await bench.read("STATUS") == 1
        assert await bench.command(tile) == AxiResp.OKAY
    # One command waits for weights in the array, two in the queue.
    assert await bench.read("STATUS") == 0
    assert await bench.command(Tile(dataflow="ws", m=5, k=1)) == AxiResp.SLVERR
    acts, weights = operands(np.random.default_rng(4), tiles)
    await bench.write("PACKET", 6)
    bench.feed(acts, weights)
    assert np.array_equal(await bench.packet(), run(CFG, tiles, acts, weights))
    assert await bench.read("COMMANDS") == 3
    assert await bench.read("STATUS") == 1
