"""Speed and memory: each task as seconds and as a ratio to one baseline measured in the same run.

The baseline is a pure-Python loop of a million integer additions, so that ratios of two machines
compare where seconds do not. Every task runs in a process of its own; goals are seconds on a
machine of two cores, and are shown, not enforced.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TASKS", "Task", "main"]

LLAMA = ("--model", "llama-2-7b", "--batch", "16", "--kv", "512")


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the table."""

    name: str
    run: Callable[[], float]  # seconds of what the name says
    goal_s: float


def seconds(action: Callable[[], object]) -> float:
    """Return how long `action` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def baseline() -> float:
    """Return the seconds of a million additions, the best of five."""

    def add() -> None:
        total = 0
        for number in range(1_000_000):
            total += number

    return min(seconds(add) for _ in range(5))


def importing() -> float:
    """Start Python and import the package, the best of five."""
    command = [sys.executable, "-c", "import archsim"]
    return min(seconds(lambda: subprocess.run(command, check=True)) for _ in range(5))


def decode_cold() -> float:
    """Run the command line with nothing compiled yet."""
    with tempfile.TemporaryDirectory() as cache:
        archsim = Path(sys.executable).with_name("archsim")
        command = ["env", f"NUMBA_CACHE_DIR={cache}", archsim, "run", *LLAMA]
        silent = {"check": True, "stdout": subprocess.DEVNULL}
        return seconds(lambda: subprocess.run(command, **silent))


def decode_warm() -> float:
    """Simulate a decode step of Llama-2-7B a second time, mapped already."""
    from archsim.job import make_phase, prepare_model, run_job

    job = prepare_model("llama-2-7b", "npu-hbm2", make_phase("decode", 16, 1, 512))
    run_job(job)
    return seconds(lambda: run_job(job))


def gemm_warm() -> float:
    """Simulate one product of 512 x 4096 x 11008 on one array of 128 x 128 a second time."""
    from archsim.engine.simulate import simulate
    from machine.load import read_machine
    from machine.program import Launch

    machine = read_machine("npu-hbm2", ["arrays.0.count=1"])
    program = gemm_program(machine, m=512, k=4096, n=11008)
    simulate(program, machine, Launch())
    return seconds(lambda: simulate(program, machine, Launch()))


def gemm_program(machine, *, m: int, k: int, n: int):
    """Return the program of one INT8 product with its scales, from DRAM to DRAM."""
    from machine.program import SymbolKind
    from mapping.builder import ProgramBuilder
    from mapping.gemm import GemmKernel, write_gemm
    from mapping.plan import Plan, Rows, Tensor
    from mapping.tiling import Gemm, find_tiling
    from mapping.transformer import CAPABILITIES

    builder = ProgramBuilder("gemm")
    plan = Plan(builder, machine)
    shape = Gemm(m, n, k, 8, 8, 16)
    tiling = find_tiling(shape, machine, plan.slots, name="gemm")
    blocks = (-(-n // tiling.n), -(-k // tiling.k), tiling.k, tiling.n)

    def tensor(name: str, kind: SymbolKind, sizes: tuple[int, ...], form: str) -> Tensor:
        return Tensor.of(builder.symbol(name, kind, sizes, form))

    kernel = GemmKernel(
        name="gemm", shape=shape, tiling=tiling, rows=Rows(m),
        a=tensor("a", SymbolKind.INPUT, (m, k), "int8"),
        a_scale=tensor("a.scale", SymbolKind.INPUT, (m,), "float32"),
        w=tensor("w", SymbolKind.CONST, blocks, "int8"),
        w_scale=tensor("w.scale", SymbolKind.CONST, (blocks[0] * tiling.n,), "float32"),
        out=tensor("c", SymbolKind.OUTPUT, (m, n), "float16"),
    )
    with plan.loop(1), builder.accounting("gemm", 0, 0):
        write_gemm(plan, kernel)
    return builder.build(CAPABILITIES)


def array_words(m: int, k: int, n: int):
    """Return a 16x16 array and the words of a random product's streams, all offered at once."""
    import numpy as np

    from golden.systolic import lay_out
    from hw.cxxrtl import pack_beats
    from hw.systolic import Systolic
    from machine.systolic import SystolicConfig, matmul_tiles, pack_tile

    cfg = SystolicConfig(rows=16, cols=16, acc_rows=64)
    works = list(matmul_tiles(cfg, m, n, k, "ws"))
    rng = np.random.default_rng(0)
    acts, weights = lay_out(
        cfg, works, rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (k, n)))
    commands = np.array([pack_tile(work.tile) for work in works], "<u8").view("<u4")
    words = {"i_commands": commands.reshape(-1, 2), "i_acts": pack_beats(acts, cfg.a_bits),
             "i_weights": pack_beats(weights, cfg.w_bits)}
    return Systolic(cfg), words, sum(work.tile.sum_beats for work in works)


def dram_rates(random: bool) -> tuple[float, float]:
    """Return commands and requests a second of DDR4-2400R behind queues, random or streaming."""
    import numpy as np

    from archsim.dram.controller import Controller
    from machine.dram import COMMANDS
    from machine.load import read_machine

    cfg, count = read_machine("tiny", ["dram.preset=ddr4-2400r"]).dram, 200_000
    rng, number = np.random.default_rng(0), np.arange(count)
    fields = np.zeros((count, 5), np.int64)
    fields[:, 0] = COMMANDS.index("RD")
    fields[:, 1] = rng.integers(0, 16, count) if random else number % 4 * 4 + number // 4 % 4
    fields[:, 2] = rng.integers(0, cfg.rows, count) if random else number // 2048
    fields[:, 3] = rng.integers(0, 128, count) if random else number // 16 % 128
    Controller(cfg).run_packed(fields[:100])
    controller = Controller(cfg)
    taken = seconds(lambda: controller.run_packed(fields))
    done = controller.counters()
    commands = done.activates + done.precharges + done.refreshes + done.reads + done.writes
    return commands / taken, count / taken


def pim_rates() -> dict[str, tuple[float, float]]:
    """Return commands a second of a long GEMV on NeuPIMs' channel with refresh, by row buffers.

    The second number counts the dot products within composites as commands.
    """
    import numpy as np

    from archsim.pim import PimChannel

    dram, pims = neupims()
    tiles, found = np.zeros((100_000, 4), np.int64), {}
    tiles[:, 1], tiles[:, 2], tiles[:, 3] = np.arange(len(tiles)) % 30_000, 4, 8
    tiles[::64, 2] = 0  # a vector to copy, every so often
    for name, pim in pims.items():
        PimChannel(dram, pim, record=False).finish()
        channel = PimChannel(dram, pim, record=False)
        channel.offer_tiles(tiles, 0)
        taken = seconds(channel.finish)
        counts = channel.counts()
        commands = sum(counts.values())
        found[name] = commands / taken, (commands + 8 * counts["GEMV"]) / taken
    return found


def neupims():
    """Return a channel of NeuPIMs and its PIM with one row buffer and with two."""
    import json
    import tomllib
    from dataclasses import replace

    from pydantic import TypeAdapter

    import machine.dram
    from machine.pim import PimConfig

    def read(kind: type, name: str):
        path = Path(machine.dram.__file__).parent / "presets" / f"{name}.toml"
        return TypeAdapter(kind).validate_json(json.dumps(tomllib.loads(path.read_text())))

    dual = read(PimConfig, "pim/neupims")
    return read(machine.dram.DramConfig, "dram/hbm2-neupims"), {
        "one": replace(dual, row_buffers=1), "two": dual}


def pim_attention() -> float:
    """Simulate the attention of a decode step of GPT3-7B, compiled before, on NeuPIMs' memory.

    256 requests on 32 channels, 8 each, of random lengths (seed 1); 8 heads of 128 a device (tensor
    parallel 4), 32 layers, two row buffers; the host reads 2 % of the peak beside it.
    """
    from archsim.pim_attention import decode_attention, random_lengths, round_robin

    dram, pims = neupims()
    dealt = round_robin(random_lengths(256, 1), dram.channels)
    decode_attention(dram, pims["two"], [[1]], heads=8, depth=128, layers=1)
    return seconds(lambda: decode_attention(
        dram, pims["two"], dealt, heads=8, depth=128, layers=32, host_share=0.02))


def compiled_rate() -> float:
    """Return the cycles a second of a 16x16 array through CXXRTL, compiled before."""
    import numpy as np

    from hw.cxxrtl import StreamSimulation

    array, words, rows = array_words(64, 512, 512)
    simulation = StreamSimulation(array)
    inputs = {name: (word, np.zeros(len(word), np.int64)) for name, word in words.items()}
    start = time.perf_counter()
    log = simulation.run(inputs, {"o_sums": np.zeros(rows, np.int64)})
    return int(log["o_sums"].cycles[-1] + 1) / (time.perf_counter() - start)


def interpreted_rate() -> float:
    """Return the cycles a second of the same array in Amaranth's simulator, a smaller product."""
    from amaranth.sim import Simulator

    from hw.stream import collect, drive

    array, words, rows = array_words(16, 32, 32)
    cycles: list[int] = []

    def source(name: str):
        values = [int.from_bytes(word.tobytes(), "little") for word in words[name]]

        async def bench(ctx):
            await drive(ctx, getattr(array, name), values, [0] * len(values))
        return bench

    async def sink(ctx):
        cycles.extend((await collect(ctx, array.o_sums, [0] * rows))[1])

    simulator = Simulator(array)
    simulator.add_clock(1e-6)
    for bench in (*map(source, words), sink):
        simulator.add_testbench(bench)
    start = time.perf_counter()
    simulator.run()
    return (cycles[-1] + 1) / (time.perf_counter() - start)


TASKS = (
    Task("import archsim, whole process", importing, 0.5),
    Task("Llama-2-7B decode step, whole process, cold", decode_cold, 10.0),
    Task("Llama-2-7B decode step, warm", decode_warm, 1.0),
    Task("GEMM 512x4096x11008 on 128x128, warm", gemm_warm, 0.05),
    Task("GPT3-7B batch 256 attention in PIM, warm", pim_attention, 1.0),
)


def measure(index: int) -> None:
    """Print the seconds and the peak memory, in MiB, of one task run in this process."""
    taken = TASKS[index].run()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(taken, max(own, children) / 1024)


def main() -> int:
    """Print the table; return 1 if a task failed."""
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
        return 0
    failed = False
    unit = baseline()
    print(f"baseline: a million additions in a Python loop: {unit * 1000:.1f} ms")
    print(f"{'task':45} {'seconds':>9} {'goal':>6} {'x baseline':>11} {'peak MiB':>9}")
    for index, task in enumerate(TASKS):
        done = subprocess.run(
            [sys.executable, __file__, str(index)], stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            print(f"{task.name:45} failed")
            failed = True
            continue
        taken, peak = map(float, done.stdout.split())
        print(f"{task.name:45} {taken:9.3f} {task.goal_s:6.2f} {taken / unit:11.1f} {peak:9.0f}")
    fast, slow = compiled_rate(), interpreted_rate()
    print(f"RTL in the loop, 16x16 array, cycles a second: {fast:,.0f} compiled, {slow:,.0f} in "
          f"Amaranth's simulator; ratio {fast / slow:.0f}, goal 100")
    (commands, _), (_, requests) = dram_rates(random=False), dram_rates(random=True)
    print(f"DRAM with queues: {commands:,.0f} commands a second streaming, goal 100,000,000; "
          f"{requests:,.0f} random requests a second, goal 10,000,000")
    for name, (rate, with_dots) in pim_rates().items():
        print(f"PIM GEMV, row buffers {name}: {rate:,.0f} commands a second, "
              f"{with_dots:,.0f} with the dot products of composites; goal 100,000,000")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
