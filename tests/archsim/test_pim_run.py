"""Memory that computes in a run: what a program's instructions become, when, beside the host."""

import re
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

from archsim.bound import bound
from archsim.departures import departures
from archsim.energy import energy
from archsim.engine.simulate import simulate
from archsim.pim import PimChannel
from archsim.pim_check import first_violation
from machine.assembly import parse
from machine.errors import UserError
from machine.link import LinkConfig
from machine.load import read_machine
from machine.pim_macros import PimOp, attend_shape, logit_ops, logit_shape
from machine.program import Launch
from machine.verify import check

EXAMPLE = Path(__file__).parents[2] / "examples" / "programs" / "pim_attention.prog"
TINY = read_machine("tiny-pim")
SINGLE = read_machine("tiny-pim", ["pim.row_buffers=1"])
HEAD = "program p version 1\nneeds pim\n"
# A row of all banks is 1 KB in tiny-pim: 32 outputs of a column, 16 of two, four results a row.
WEIGHTS = "symbol W dram 0x1000 float16 [64,16] const\noperand w dram 0x1000 float16 [32,16]\n"
PLACES = """symbol V dram 0x8000 float16 [4,16] const
operand v dram 0x8000 float16 [16]
operand x scratchpad 0x0 float16 [16]
operand y scratchpad 0x100 float32 [32]
operand buffer pim_buffer 0x0 float16 [16]
operand latch pim_latch 0x0 float32 [32]
"""


def assemble(text):
    """Return the program of `text`: contiguous where an operand says no stride, symbols first."""
    lines = []
    for line in text.splitlines():
        found = re.match(r"operand .* \[([0-9,]+)\]", line)
        if found and " stride " not in line:
            sizes = [int(size) for size in found[1].split(",")]
            strides = ",".join(str(prod(sizes[n + 1 :])) for n in range(len(sizes)))
            line = f"{found[0]} stride [{strides}]{line[found.end():]}"
        lines.append(line)
    order = ("program", "needs", "chips", "token", "symbol", "operand")
    lines.sort(key=lambda line: next((n for n, word in enumerate(order)
                                      if line.startswith(word)), len(order)))
    return parse("\n".join(lines) + "\n")


def program(*streams, operands=WEIGHTS + PLACES, head=HEAD):
    """Return the program of streams ``queue: instruction; instruction``."""
    text = head + operands
    for stream in streams:
        queue, _, lines = stream.partition(":")
        text += f"stream chip0.{queue}\n"
        text += "".join(f"  {line.strip()}\n" for line in (*lines.split(";"), "halt"))
    return assemble(text)


def replayed(channel):
    """Return a channel that was told from the start what `channel` was told on the way."""
    again = PimChannel(channel.dram, channel.pim, ports=TINY.dma.count + 2)
    for op, cycle in zip(channel.ops, channel.op_cycles, strict=True):
        again.offer(op, cycle)
    for request, port in zip(channel.requests, channel.ports, strict=True):
        again.ask(request, port)
    while again.now < channel.now:
        again.advance(channel.now)
    return again


def request_program(dram, channels=1, tokens=512, heads=8, depth=128):
    """Attention of one request in channel 0, NeuPIMs' layout: a token a bank, an element a bank.

    Keys: chunk c, tile i in row ``100 + 16 c + i``; values of head h in rows ``200 + 4 h``;
    vectors in rows 0 and 1 of bank 0, those of the values all in row 0.
    """
    row, bank = 2**20, 2**15  # bytes from row to row, from bank to bank of a channel
    text = "program request version 1\nneeds pim\n"
    text += f"symbol ALL dram 0x0 float16 [{300 * row // 2}] state\n"
    text += "operand buffer pim_buffer 0x0 float16 [512]\n"
    text += f"operand v0 dram 0x0 float16 [512]\noperand v1 dram {row:#x} float16 [512]\n"
    for head in range(heads):
        chunk, place = divmod(head, 4)
        at = (100 + 16 * chunk) * row + place * depth * 2
        text += (f"operand k{head} dram {at:#x} float16 [32,{depth}] stride [{bank // 2},1] "
                 f"loop 0:{row // 2}\n")
        text += f"operand q{head} pim_buffer {place * depth * 2:#x} float16 [{depth}]\n"
        text += (f"operand s{head} pim_latch {head * 2048:#x} float32 [32] loop 0:32\n")
        text += (f"operand w{head} dram {(200 + 4 * head) * row:#x} float16 [{depth},{tokens}] "
                 f"stride [{bank // 2},1]\n")
        text += f"operand o{head} pim_latch {0x8000 + head * 512:#x} float32 [{depth}]\n"
    text += "stream chip0.pim0\n"
    for chunk in range(2):
        text += f"  pim_gwrite src=v{chunk} dst=buffer channels=0x1\n  loop 16\n"
        text += "  pim_header channels=0x1 dots=32 reads=4 rows=1\n"
        for head in range(4 * chunk, 4 * chunk + 4):
            text += f"  pim_gemv a=q{head} w=k{head} dst=s{head} channels=0x1\n"
        text += "  end\n"
    for head in range(heads):
        text += "  pim_gwrite src=v0 dst=buffer channels=0x1\n"
        text += "  pim_header channels=0x1\n"
        text += f"  pim_gemv a=buffer w=w{head} dst=o{head} channels=0x1\n"
    return assemble(text + "  halt\n")


def request_ops(dram, pim):
    """The same request by the formulas of `machine.pim_macros`."""
    keys = logit_shape(dram, pim, heads=8, depth=128, length=512)
    values = attend_shape(dram, pim, depth=128, length=512)
    ops = logit_ops(dram, pim, keys, [100 + 16 * c + i for i in range(16) for c in range(2)])
    for head in range(8):
        ops += logit_ops(dram, pim, values, [200 + 4 * head + i for i in range(4)])
    return ops


@pytest.mark.parametrize("buffers", [2, 1])
def test_one_request_through_a_program_is_the_request_given_to_a_channel(buffers):
    machine = read_machine("neupims", [f"pim.row_buffers={buffers}"])
    dram, pim = machine.dram, machine.pim
    written = request_program(dram)
    check(written, None, machine)
    result = simulate(written, machine)
    channel = result.pim[0][0]
    ops = request_ops(dram, pim)
    assert channel.ops == ops
    offered = PimChannel(dram, pim).run(ops, op_cycles=channel.op_cycles, until=channel.now)
    assert channel.device.trace == offered.trace
    assert channel.ops_done == offered.ops_done and channel.classes == offered.classes
    at_once = PimChannel(dram, pim).run(ops)
    counts = channel.counts()
    dots = sum(max(c.dots, 1) for c in channel.device.trace if c.command in ("DOT", "GEMV"))
    assert (counts["GWRITE"], dots, counts["GEMV"] + counts["READRES"]) == (10, 2048, 160)
    if buffers == 2:
        assert counts["GACT"] == 512
        # The source's 15,660 cycles: papers-core.md. The program's last result leaves the banks
        # some cycles behind the last command.
        assert abs(max(channel.ops_done) - 15_660) <= 0.02 * 15_660
    assert abs(max(channel.ops_done) - max(at_once.ops_done)) <= 0.01 * max(at_once.ops_done)
    assert first_violation(dram, pim, channel.device.trace, until=channel.now) is None
    assert result.ticks >= bound(written, machine).ticks == 2048 * pim.dot_cycles


@pytest.mark.parametrize("machine", [TINY, SINGLE], ids=["dual", "single"])
@pytest.mark.parametrize("length", [1, 19, 32])
def test_every_channel_of_the_example_obeys_the_rules_and_its_own_replay(machine, length):
    written = parse(EXAMPLE.read_text())
    launch = Launch({"length": length})
    result = simulate(written, machine, launch)
    for channel in result.pim[0]:
        assert first_violation(machine.dram, machine.pim, channel.device.trace,
                               until=channel.now) is None
        again = replayed(channel)
        assert again.device.trace == channel.device.trace
        assert again.host_done == channel.host_done
        assert sum(channel.classes.values()) == sum(channel.host_classes.values()) == channel.now
    for name, row in result.accounts.items():
        assert sum(row.values()) == result.ticks, name
    assert result.ticks >= bound(written, machine, launch).ticks


def test_a_gemv_takes_what_its_commands_take():
    # Queue: issue at 0, start at 1; bank 0's row 1 (0x1000 is row 2 of channel 0) must open.
    quiet = replace(TINY, dram=replace(TINY.dram, refresh="off"))
    t, pim = quiet.dram.timing, quiet.pim
    result = simulate(program("pim0: pim_gemv a=buffer w=w dst=latch channels=0x1"), quiet)
    # Two bank groups, a grouped activation each, tFAW apart; four results of a column each.
    first = 1 + t.faw_cycles + t.rcd_rd_cycles
    apart = pim.dot_cycles * (pim.fill_dots + 1)
    last = first + 3 * apart
    seen = last + apart - pim.dot_cycles + t.cl_cycles + quiet.dram.burst_cycles
    commands = [(c.cycle, c.command, c.row, c.column) for c in result.pim[0][0].device.trace]
    assert commands == [(1, "GACT", 2, -1), (31, "GACT", 2, -1)] + [
        (first + n * apart, "GEMV", 2, n) for n in range(4)]
    assert [e.completion for e in result.log.of("chip0.pim0")] == [seen]
    assert result.accounts["chip0.bank_units0"]["busy"] == 4 * pim.dot_cycles


def test_a_vector_of_a_buffer_is_written_to_a_row_and_copied():
    quiet = replace(TINY, dram=replace(TINY.dram, refresh="off"))
    t, dram = quiet.dram.timing, quiet.dram
    result = simulate(program("pim0: pim_gwrite src=x dst=buffer channels=0x3"), quiet)
    for channel in result.pim[0]:
        asked = channel.requests[0].cycle
        assert [(r.write, r.bank, r.row, r.column) for r in channel.requests] == [
            (True, 0, dram.rows - 1, 0)]
        # It enters, opens the row, is written; the copy begins behind the data, tWTR included.
        write = asked + 1 + t.rcd_wr_cycles
        copied = write + t.cwl_cycles + dram.burst_cycles + t.wtr_l_cycles
        assert [(c.cycle, c.command) for c in channel.device.trace] == [
            (asked + 1, "ACT"), (write, "WR"), (copied, "GWRITE")]
    assert [e.completion for e in result.log.of("chip0.pim0")] == [
        copied + quiet.pim.gwrite_cycles]


def test_results_leave_when_they_are_there_and_cross_to_the_buffer():
    lines = ("pim0: pim_gemv a=buffer w=w dst=latch channels=0x1; "
             "pim_readres src=latch dst=y channels=0x1")
    result = simulate(program(lines), TINY)
    gemv, read = result.log.of("chip0.pim0")
    # 128 bytes: 4 words of the crossbar and of the port behind its latency, then the last crosses.
    assert read.start == gemv.start + 1
    assert read.completion == gemv.completion + TINY.crossbar.latency_cycles + 4


def test_a_load_that_nothing_delays_comes_a_cycle_later_than_without_pim():
    lines = "dma0: load src=v dst=x"
    plain = replace(TINY, pim=None)
    beside = simulate(program(lines, head="program p version 1\n"), TINY)
    alone = simulate(program(lines, head="program p version 1\n",
                             operands=PLACES.split("operand y")[0]), plain)
    (with_pim,), (without,) = (r.log.of("chip0.dma0") for r in (beside, alone))
    assert with_pim.completion == without.completion + 1  # it enters the queue first


LOADS = "dma0: " + "; ".join(f"load src=host{n} dst=x" for n in range(4))
# In channel 0, in rows of the banks that the tile opens: row 16 on.
HOST = "symbol H dram 0x8800 float16 [4,1024] const\n" + "".join(
    f"operand host{n} dram {0x8800 + 0x800 * n:#x} float16 [16]\n" for n in range(4))


@pytest.mark.parametrize("machine", [TINY, SINGLE], ids=["dual", "single"])
def test_loads_beside_pim_are_delayed_and_the_books_say_why(machine):
    gemvs = ("pim0: loop 12; pim_header channels=0x1; "
             "pim_gemv a=buffer w=w dst=latch channels=0x1; fence; end")
    operands = WEIGHTS + PLACES + HOST
    alone = simulate(program(LOADS, operands=operands), machine)
    beside = simulate(program(LOADS, gemvs, operands=operands), machine)
    pim_alone = simulate(program(gemvs, operands=operands), machine)
    last = [max(e.completion for e in r.log.of("chip0.dma0")) for r in (alone, beside)]
    assert last[1] > last[0]
    assert alone.accounts["chip0.dram0"]["pim_conflict"] == 0
    assert beside.accounts["chip0.dram0"]["pim_conflict"] > 0
    conflicts = beside.accounts["chip0.bank_units0"]["row_conflict"]
    # The host's rows are in the way of PIM's only where both share a row buffer.
    assert (conflicts > 0) == (machine is SINGLE)
    assert pim_alone.accounts["chip0.bank_units0"]["row_conflict"] == 0
    for result in (alone, beside, pim_alone):
        assert first_violation(machine.dram, machine.pim, result.pim[0][0].device.trace) is None
        assert replayed(result.pim[0][0]).device.trace == result.pim[0][0].device.trace


def test_two_chips_compute_as_one_does():
    operands = ("operand w dram 0x1000 float16 [64,16]\n"
                "operand buffer pim_buffer 0x0 float16 [16]\n"
                "operand latch pim_latch 0x0 float32 [64]\n")
    line = "pim_gemv a=buffer w=w dst=latch channels=0x3"
    one = program(f"pim0: {line}", operands=operands)
    text = HEAD + "chips 2\n" + operands
    for chip in (0, 1):
        text += f"stream chip{chip}.pim0\n  {line}\n  halt\n"
    two = replace(TINY, chips=2, links=LinkConfig(count=1, bytes_per_cycle=16, latency_cycles=5))
    single, double = simulate(one, TINY), simulate(assemble(text), two)
    want = [e.completion for e in single.log.of("chip0.pim0")]
    for chip in (0, 1):
        assert [e.completion for e in double.log.of(f"chip{chip}.pim0")] == want
        for channel, other in zip(double.pim[chip], single.pim[0], strict=True):
            assert channel.device.trace == other.device.trace


@pytest.mark.parametrize("line, operand, sentence", [
    ("pim_gemv a=buffer w=w dst=latch channels=0x4", "",
     "chip0.pim0[0]: channels must be among those the queue drives, 0x3, not 0x4"),
    ("pim_header channels=0x1 units=0x3", "",
     "chip0.pim0[0]: units must be among the machine's 1 pim units, not 0x3"),
    ("pim_gemv a=buffer w=w dst=latch channels=0x2", "",
     "chip0.pim0[0]: channels must hold output 0 of w, which lies in channel 0, not 0x2"),
    ("pim_gemv a=buffer w=w dst=latch channels=0x1 mode=bank", "",
     "chip0.pim0[0]: mode must be all: every bank of a channel works at once, not 'bank'"),
    ("pim_gemv a=buffer w=w dst=latch channels=0x1 row_buffer=mem", "",
     "chip0.pim0[0]: row_buffer must be pim: the other is the host's, not 'mem'"),
    ("pim_gemv a=long w=bad dst=latch2 channels=0x1",
     ("operand bad dram 0x1040 float16 [2,48] stride [64,1]\n"
     "operand long pim_buffer 0x0 float16 [48]\noperand latch2 pim_latch 0x0 float32 [2]\n"),
     ("chip0.pim0[0]: columns of output 0 of w must lie in one row, not in bank 0 of channel 0 "
      "and, from column 2 on, bank 1 of channel 0: a row of a bank ends after 4 columns")),
    ("pim_gemv a=buffer w=same dst=latch2 channels=0x1",
     ("operand same dram 0x1000 float16 [2,16] stride [0,1]\n"
      "operand latch2 pim_latch 0x0 float32 [2]\n"),
     ("chip0.pim0[0]: outputs of w must lie in places of their own, not output 1 where another "
      "lies")),
    ("pim_gemv a=buffer w=odd dst=latch2 channels=0x1",
     ("operand odd dram 0x1010 float16 [2,16] stride [16,1]\n"
     "operand latch2 pim_latch 0x0 float32 [2]\n"),
     "chip0.pim0[0]: first byte of w must be a multiple of 32, a column of 16 float16, not 4112"),
    ("pim_gemv a=buffer w=slow dst=latch2 channels=0x1",
     ("operand slow dram 0x1000 float16 [2,16] stride [1,2]\n"
     "operand latch2 pim_latch 0x0 float32 [2]\n"),
     "chip0.pim0[0]: stride of w along its vector must be 1, not 2"),
    ("pim_gwrite src=wide dst=large channels=0x1",
     "operand wide scratchpad 0x0 float16 [80]\noperand large pim_buffer 0x0 float16 [80]\n",
     "chip0.pim0[0]: end of dst must be at most 128, the global buffer's bytes, not 160"),
    ("pim_gwrite src=v dst=buffer channels=0x3", "",
     "chip0.pim0[0]: channels must be 0x1, where src lies, not 0x3"),
    ("pim_gemv a=a8 w=w8 dst=latch channels=0x1",
     "operand w8 dram 0x1000 int8 [32,16]\noperand a8 pim_buffer 0x0 int8 [16]\n",
     "chip0.pim0[0]: format of w must be float16, the bank units', not 'int8'"),
    (("pim_header channels=0x1 dots=4 reads=5; pim_gemv a=buffer w=w dst=latch channels=0x1; "
     "pim_precharge channels=0x1"), "",
     ("chip0.pim0[2]: what follows in row 2 of channel 0 must be all that its header announced, "
     "1 results and 0 dot products are left")),
    ("pim_header channels=0x1 dots=4 reads=3; pim_gemv a=buffer w=w dst=latch channels=0x1", "",
     ("chip0.pim0[1]: results in row 2 of channel 0 must be those its header announced, not 1 "
     "results and 0 dot products more")),
    ("pim_readres src=latch dst=there channels=0x1", "operand there dram 0x1000 float32 [32]\n",
     "chip0.pim0[0]: there must lie in a buffer, not in dram"),
])
def test_what_the_memory_cannot_do_is_refused_with_its_numbers(line, operand, sentence):
    with pytest.raises(UserError) as error:
        simulate(program(f"pim0: {line}", operands=WEIGHTS + PLACES + operand), TINY)
    assert str(error.value).startswith(sentence), str(error.value)


def test_queues_have_their_own_channels_and_run_side_by_side():
    both = read_machine("tiny-pim", ["pim.queues=2"])
    line = "pim_gemv a=buffer w={} dst=latch channels={:#x} units={:#x}"
    operands = WEIGHTS + PLACES + "operand w1 dram 0x1400 float16 [32,16]\n"
    two = program("pim0: " + line.format("w", 1, 1), "pim1: " + line.format("w1", 2, 2),
                  operands=operands)
    one = program("pim0: " + line.format("w", 1, 1) + "; " + line.format("w1", 2, 1),
                  operands=operands)
    apart, together = simulate(two, both), simulate(one, TINY)
    first, second = (apart.log.of(f"chip0.pim{n}")[0] for n in (0, 1))
    assert first.completion == second.completion == together.log.of("chip0.pim0")[0].completion
    assert together.log.of("chip0.pim0")[1].start == first.start + 1
    for line_, sentence in (
        (line.format("w", 2, 1), "channels must be among those the queue drives, 0x1, not 0x2"),
        (line.format("w", 1, 3), ("units must be one: a PIM instruction drives one queue's "
                                 "channels, not '0x3'")),
    ):
        with pytest.raises(UserError) as error:
            simulate(program(f"pim0: {line_}", operands=operands), both)
        assert str(error.value) == f"chip0.pim0[0]: {sentence}"


def test_a_copy_longer_than_refresh_allows_is_refused_with_its_numbers():
    slow = read_machine("tiny-pim", ["pim.gwrite_cycles=3900"])
    with pytest.raises(UserError) as error:
        simulate(program("pim0: pim_gwrite src=v dst=buffer channels=0x1"), slow)
    assert str(error.value) == ("chip0.pim0[0]: cycles of GWRITE must be less than 3900 from "
                                "refresh to refresh, not 3933")


def test_a_tensor_larger_than_the_memory_is_refused_with_its_numbers():
    size = TINY.memory_bytes
    assert size == 2 * 8 * 32767 * 128  # the last row of every bank is kept for vectors
    text = program("pim0: nop", operands=f"symbol W dram {size - 1024:#x} int8 [1025] const\n")
    with pytest.raises(UserError, match=f"must end by {size:#x} in dram, not {size + 1:#x}"):
        check(text, None, TINY)
    with pytest.raises(ValueError, match=f"at most {size}, the memory's size, not {size + 32}"):
        simulate(program("dma0: load src=far dst=x", head="program p version 1\n",
                         operands=PLACES + f"operand far dram {size:#x} float16 [16]\n"), TINY)


def test_programs_with_pim_load_only_where_the_machine_has_it():
    written = parse(EXAMPLE.read_text())
    with pytest.raises(UserError, match="pim"):
        simulate(written, read_machine("tiny"), Launch({"length": 4}))
    with pytest.raises(UserError, match="pim"):
        check(written, Launch({"length": 4}), read_machine("tiny"))


def test_a_queue_that_nothing_can_serve_is_a_deadlock_named():
    # The header of one row buffer keeps the host out until its results have come; they never do.
    text = ("pim0: pim_header channels=0x1 dots=8 reads=8; "
            "pim_gemv a=buffer w=w dst=latch channels=0x1")
    load = "dma0: nop wait t:1; load src=host0 dst=x"
    operands = WEIGHTS + PLACES + HOST
    written = program(text + " signal t:1", load, operands=operands,
                      head=HEAD + "token t\n")
    with pytest.raises(UserError, match="program must not deadlock: channel 0 of chip 0 serves "
                                        "nothing more from cycle .* 0 of 1 served"):
        simulate(written, replace(SINGLE, dram=replace(SINGLE.dram, refresh="off")))


def test_energy_of_pim_is_the_ratio_of_the_hosts_commands():
    result = simulate(request_program(read_machine("neupims").dram), read_machine("neupims"))
    rows = {row.operation: row for row in energy(result) if row.component == "pim"}
    dram = result.machine.dram
    # papers-core.md: ACT 828 pJ, RD 804 pJ; G_ACT 4 ACT, COMP 4 RD, GWRITE 16 RD, READRES 1 RD.
    assert dram.activate_pj == pytest.approx(828) and dram.read_pj == pytest.approx(804)
    assert rows["grouped activation"].energy_pj == pytest.approx(512 * 4 * 828)
    assert rows["dot product"].energy_pj == pytest.approx(2048 * 4 * 804)
    assert rows["vector copy"].energy_pj == pytest.approx(10 * 16 * 804)
    assert rows["result read"].energy_pj == pytest.approx(160 * 804)
    assert rows["unit arithmetic"].energy_pj is None


def test_every_engine_and_the_vectors_have_a_port_of_their_own():
    result = simulate(parse(EXAMPLE.read_text()), TINY, Launch({"length": 19}))
    # Engines 0 and 1; engine 2 and the READs have nothing to do; vectors come behind those.
    vectors = TINY.dma.count + 1
    ports = [set(channel.ports) for channel in result.pim[0]]
    assert set.union(*ports) == {0, 1, vectors}
    for channel in result.pim[0]:
        staged = [port for request, port in zip(channel.requests, channel.ports, strict=True)
                  if request.row == TINY.dram.rows - 1]
        assert set(staged) == {vectors}


def test_bound_shares_a_product_of_several_channels_among_them():
    operands = ("operand w dram 0x1000 float16 [64,16]\n"
                "operand buffer pim_buffer 0x0 float16 [16]\n"
                "operand latch pim_latch 0x0 float32 [64]\n")
    both = program("pim0: pim_gemv a=buffer w=w dst=latch channels=0x3", operands=operands)
    # 64 outputs over 8 banks and two channels: 4 columns each, 2 cycles a dot product.
    assert bound(both, TINY).terms["chip0.pim"] == 8
    result = simulate(both, TINY)
    for number in (0, 1):
        assert result.accounts[f"chip0.bank_units{number}"]["busy"] == 8
    (row,) = [row for row in energy(result) if row.operation == "dot product"]
    # Four RD for 32 banks: here one for 8.
    assert row.energy_pj == pytest.approx(8 * TINY.dram.read_pj)


def test_units_that_add_otherwise_than_golden_are_named():
    gemv = program("pim0: pim_gemv a=buffer w=w dst=latch channels=0x1")
    assert departures(gemv, TINY) == {}
    wide = read_machine("tiny-pim", ["pim.unit.lanes=32"])
    assert departures(gemv, wide) == {
        "pim.unit": "pim_gemv adds columns of 16 products, the units of 32"}
    integer = read_machine("tiny-pim", ["pim.unit.format='int8'", "pim.unit.lanes=16"])
    assert departures(gemv, integer) == {
        "pim.unit": "pim_gemv adds in float32, the units in int32"}
    assert departures(program("pim0: pim_precharge"), wide) == {}


def test_counts_of_the_host_are_those_of_memory_without_pim():
    lines = ("dma0: load src=v dst=x; load src=v dst=x; load src=host0 dst=x; "
             "load src=host1 dst=x; store src=x dst=v")
    operands = PLACES.replace("const", "state").split("operand y")[0] + HOST
    timed = [simulate(program(lines, head="program p version 1\n", operands=operands), machine)
             for machine in (TINY, replace(TINY, pim=None))]
    ours, theirs = (result.dram[0] for result in timed)
    for name in ("activates", "reads", "writes", "refreshes", "row_hits", "busy_cycles"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.activates == 4 and ours.row_hits == 1
    # A rank is active from its first row on: a cycle later, as the requests are.
    late = timed[0].ticks - timed[1].ticks
    assert abs(ours.active_rank_cycles - theirs.active_rank_cycles) <= late
    energy_ = [(one.activate_pj, one.read_pj, one.write_pj) for one in
               (result.dram_energy[0] for result in timed)]
    assert energy_[0] == energy_[1]


def test_entries_are_those_a_hand_would_write():
    result = simulate(program(
        "pim0: pim_activate w=w channels=0x1; pim_gemv a=buffer w=w dst=latch channels=0x1; "
        "pim_precharge channels=0x1"), SINGLE)
    assert result.pim[0][0].ops == [
        PimOp("GACT", row=2),
        *(op for n in range(4) for op in (PimOp("DOT", row=2, column=n, slot=0, dots=1),
                                          PimOp("READRES", row=2))),
        PimOp("PIMPRE")]
