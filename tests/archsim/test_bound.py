"""The bound: hand values; never above the simulated time; close to it where one thing saturates."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.accounting import CLASSES
from archsim.bound import bound, bound_of_workload, work_of
from archsim.engine.simulate import simulate
from machine.assembly import parse
from machine.buffer import PortConfig
from machine.link import LinkConfig
from machine.load import read_machine
from machine.program import Launch
from mapping.families import read_model
from mapping.formats import parse_formats
from mapping.operators import operators
from mapping.workload import decode

HEAD = """program t version 1
needs systolic vector
chips 1
launch some
token go
token back
"""


def test_terms_are_work_over_rate(machine):
    on = machine(arrays=2)
    program = parse(HEAD + """operand a scratchpad 0x0 int8 [20,16] stride [16,1]
operand w scratchpad 0x100 int8 [16,24] stride [24,1]
operand acc accumulator 0x0 int32 [20,24] stride [24,1]
operand v scratchpad 0x800 float32 [4,16] stride [16,1]
operand far dram 0x0 int8 [1000] stride [1]
operand near scratchpad 0x1000 int8 [1000] stride [1]
stream chip0.dma0
  load src=far dst=near
  halt
stream chip0.array0
  loop 3
    matmul a=a w=w acc=acc dataflow=ws units=0x3
  end
  halt
stream chip0.vector0
  vector vop=copy x=v y=v
  halt
""")
    found = bound(program, on)
    # 3 x 2 products of 20 x 24 x 16 on 2 x 64 elements.
    assert found.terms["chip0.arrays"] == 3 * 2 * 20 * 24 * 16 // 128
    assert found.terms["chip0.vectors"] == 64 // 8
    assert found.terms["chip0.dram"] == -(-1000 // 32)  # 16 bytes, twice a cycle
    assert found.terms["chip0.crossbar"] == -(-1000 // 32)
    # Activations of 320 bytes pass once for each of 3 strips of 8 columns; weights of 384 bytes.
    assert found.terms["chip0.scratchpad.array"] == -(-6 * (3 * 5 + 6) // 4)
    assert found.terms["chip0.accumulator.array"] == -(-6 * (20 * 24 * 4 // 64) // 4)
    assert found.terms["chip0.scratchpad.vector"] == -(-2 * 4 // 4)
    assert found.ticks == 3 * 2 * 20 * 24 * 16 // 128
    assert found.resource == "chip0.arrays"


def test_a_phase_is_bound_by_its_weights_and_its_cache():
    on, formats = read_machine("npu-hbm2"), parse_formats("W8A8KV8")
    model = read_model("llama-2-7b")
    found = bound_of_workload(operators(model, decode(16, 512)), formats, on)
    # Every parameter but the embedding, of which 16 rows; keys and values of 512 positions read
    # and one written, 32 layers, 16 sequences.
    weights = 6_738_415_616 - 32000 * 4096 + 16 * 4096
    cache = 2 * 16 * 32 * 4096 * (512 + 1)
    assert found.resource == "dram"
    assert found.ticks == -(-(weights + cache) // 1024)
    # 16 tokens by every matrix, and 512 keys and values by every query.
    matrices = 6_738_415_616 - 32000 * 4096 - 65 * 4096
    macs = 16 * matrices + 2 * 16 * 32 * 4096 * 512
    assert found.terms["arrays"] == -(-macs // (8 * 128 * 128))


def test_work_follows_loops_predicates_and_edges(machine):
    program = parse(HEAD + """operand v scratchpad 0x0 float32 [4,16] stride [16,1] edge 0:10-0*4 -
operand y scratchpad 0x0 float32 [4,16] stride [16,1] edge 0:10-0*4 -
stream chip0.vector0
  r1 = launch some
  loop 3
    vector vop=copy x=v y=y
    vector vop=copy x=v y=y if r1
  end
  halt
""".replace(" edge 0:10-0*4 -", " edge 0:10-0*4"))
    (none,) = work_of(program, machine(), Launch({"some": 0}))
    (both,) = work_of(program, machine(), Launch({"some": 1}))
    assert none.elements == 10 * 16  # 4 + 4 + 2 rows
    assert both.elements == 2 * 10 * 16


@st.composite
def programs(draw):
    """Legal programs of three queues that pass tokens round, with tiles of any size."""
    size = st.integers(1, 24)
    lines, bodies = [HEAD], {"dma0": "", "array0": "", "vector0": ""}
    for i in range(draw(st.integers(1, 4))):
        m, n, k = draw(size), draw(size), draw(size)
        lines.append(f"operand a{i} scratchpad 0x0 int8 [{m},{k}] stride [{k},1]\n"
                     f"operand w{i} scratchpad 0x400 int8 [{k},{n}] stride [{n},1]\n"
                     f"operand z{i} accumulator 0x0 int32 [{m},{n}] stride [{n},1]\n"
                     f"operand v{i} scratchpad 0x800 float32 [{m},{n}] stride [{n},1]\n"
                     f"operand d{i} dram {draw(st.integers(0, 9)) * 640} int8 [{m},{n}]"
                     f" stride [{draw(st.integers(n, 99))},1]\n")
        flow = draw(st.sampled_from(["os", "ws"]))
        vop = draw(st.sampled_from(["copy", "softmax", "silu", "reduce_sum", "add"]))
        y = f"v{i}"
        if vop == "reduce_sum":
            y = f"s{i}"
            lines.append(f"operand s{i} scratchpad 0x2000 float32 [{m},1] stride [1,1]\n")
        x1 = f" x1=v{i}" if vop == "add" else ""
        move = draw(st.sampled_from([f"load src=d{i} dst=w{i}s", f"store src=w{i}s dst=d{i}"]))
        lines.append(f"operand w{i}s scratchpad 0x400 int8 [{m},{n}] stride [{n},1]\n")
        loops = draw(st.integers(1, 3))
        tied = draw(st.booleans())
        wait, signal = (" wait go:1", " signal go:1") if tied else ("", "")
        for queue, body in (("dma0", move + signal),
                            ("array0", f"matmul a=a{i} w=w{i} acc=z{i} dataflow={flow}{wait}"),
                            ("vector0", f"vector vop={vop} x=v{i} y={y}{x1}")):
            bodies[queue] += f"loop {loops}\n{body}\nend\n"
    streams = "".join(f"stream chip0.{q}\n{body}halt\n" for q, body in bodies.items())
    return "".join(lines) + streams


@settings(max_examples=80, deadline=None)
@given(programs(), st.booleans())
def test_no_simulated_time_is_below_its_bound(machine, text, private):
    """And the books of every resource sum to the total, whatever the program."""
    on = machine() if private else read_machine("tiny")
    program = parse(text)
    result = simulate(program, on)
    assert result.ticks >= bound(program, on).ticks
    for name, account in result.accounts.items():
        assert tuple(account) == CLASSES
        assert sum(account.values()) == result.ticks, name
        assert min(account.values()) >= 0, name
    (known,), (work,) = work_of(program, on), result.work
    assert (known.macs(), known.elements, known.dram_bytes(), known.words()) == (
        work.macs(), work.elements, work.dram_bytes(), work.words())


def wide(on, **changes):
    """`on` with buffers so large and wide that they limit nothing."""
    return replace(on, **({
        name: replace(getattr(on, name), bytes=1 << 24, word_bytes=1 << 12)
        for name in ("scratchpad", "accumulator")
    } | changes))


def matmul(flow, m, n, k, times=1, arrays=1):
    """A product on every array, with operands of any size."""
    return HEAD + f"""operand a scratchpad 0x0 int8 [{m},{k}] stride [{k},1]
operand w scratchpad 0x0 int8 [{k},{n}] stride [{n},1]
operand acc accumulator 0x0 int32 [{m},{n}] stride [{n},1]
stream chip0.array0
  loop {times}
    matmul a=a w=w acc=acc dataflow={flow} units={(1 << arrays) - 1:#x}
  end
  halt
"""


def vector(vop, rows, width, times=1):
    return HEAD + f"""operand v scratchpad 0x0 float32 [{rows},{width}] stride [{width},1]
stream chip0.vector0
  loop {times}
    vector vop={vop} x=v y=v
  end
  halt
"""


def transfer(verb, size, times, units=1):
    src, dst = ("far", "near") if verb == "load" else ("near", "far")
    return HEAD + f"""operand far dram 0x0 int8 [{size}] stride [1] loop 0:{size} 7:{size * times}
operand near scratchpad 0x0 int8 [{size}] stride [1]
stream chip0.dma0
  loop {times}
    {verb} src={src} dst={dst} units={units:#x}
  end
  halt
"""


def message(size, times):
    text = transfer("load", 64, 1).split("stream")[0].replace("chips 1", "chips 2")
    text = text.replace("needs systolic", "needs link systolic")
    return text + f"""operand x scratchpad 0x0 int8 [{size}] stride [1]
stream chip0.link0
  loop {times}
    send src=x peer=1 tag=0
  end
  halt
stream chip1.link0
  loop {times}
    recv dst=x peer=0 tag=0
  end
  halt
"""


def saturating(machine):
    """Yield (what saturates, program, machine)."""
    free = wide(machine())
    yield "arrays", matmul("ws", 512, 64, 8), free
    yield "arrays", matmul("ws", 400, 64, 64), free
    yield "arrays", matmul("os", 64, 64, 512), free
    yield "arrays", matmul("os", 8, 8, 2000), free
    yield "arrays", matmul("ws", 64, 64, 64, times=10), free
    yield "arrays", matmul("ws", 512, 64, 64, arrays=4), wide(machine(arrays=4))
    yield "vectors", vector("copy", 64, 64), free
    yield "vectors", vector("relu", 64, 64, times=20), free
    yield "dram", transfer("load", 65536, 4), free
    yield "dram", transfer("store", 65536, 4), free
    yield "dram", transfer("load", 4096, 60), free
    slow = replace(free, crossbar=replace(free.crossbar, bytes_per_cycle=8))
    yield "crossbar", transfer("load", 16384, 2), slow
    yield "crossbar", transfer("load", 16384, 2, units=3), slow
    links = LinkConfig(count=1, bytes_per_cycle=8, latency_cycles=20)
    yield "links.out", message(8192, 2), replace(free, chips=2, links=links)
    ports = (PortConfig(name="all", clients=("array", "vector", "dma"), count=1),)
    one = replace(free, scratchpad=replace(free.scratchpad, ports=ports, word_bytes=4, banks=8))
    yield "scratchpad.all", vector("copy", 64, 64, times=2), one
    banks = replace(machine(vectors=2), scratchpad=replace(machine().scratchpad, banks=1,
                                                           word_bytes=4))
    text = vector("copy", 64, 64).replace("y=v", "y=v units=0x3")
    yield "scratchpad.banks", text, banks


def test_simulated_time_is_within_5_percent_of_the_bound_where_one_resource_saturates(machine):
    cases = list(saturating(machine))
    assert len(cases) >= 12
    for what, text, on in cases:
        program = parse(text)
        limit = bound(program, on)
        ticks = simulate(program, on).ticks
        assert limit.resource == f"chip0.{what}", (what, limit)
        assert limit.ticks <= ticks <= 1.05 * limit.ticks, (what, text, limit.ticks, ticks)


def test_refresh_comes_on_top_of_the_bound(machine):
    on = wide(machine())
    on = replace(on, dram=replace(on.dram, refresh="all_bank_staggered"))
    program = parse(transfer("load", 65536, 16))
    timing = on.dram.timing
    limit, ticks = bound(program, on).ticks, simulate(program, on).ticks
    # Ranks refresh in turn, and the one stream stands still for whichever it is in.
    share = on.dram.ranks * timing.rfc_cycles / timing.refi_cycles
    assert limit < ticks <= 1.05 * limit / (1 - share)


@pytest.mark.parametrize("arrays", [1, 2])
def test_bound_is_plain_data(machine, arrays):
    found = bound(parse(matmul("ws", 8, 8, 8, arrays=arrays)), machine(arrays=arrays)).to_dict()
    assert found["ticks"] == 8
    assert found["terms_ticks"]["chip0.arrays"] == 8
    assert found["resource"] == "chip0.arrays"
