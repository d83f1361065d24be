"""What does not fit is a record; its first lever makes it fit, a step less does not."""

from math import lcm

import pytest

from machine.chip import Machine
from machine.errors import UserError
from machine.load import read_machine
from mapping.families import model_of, read_model
from mapping.fit import WHOLE_BYTES, DoesNotFit, buffer_too_small, enlarged
from mapping.formats import parse_formats
from mapping.transformer import map_model
from mapping.workload import decode, prefill

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "hidden_act": "silu",
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
}
ONE_HEAD = LLAMA | {"num_attention_heads": 1, "num_key_value_heads": 1}
WIDE = LLAMA | {"hidden_size": 4096, "num_attention_heads": 256}
GPT2 = {
    "model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 1, "n_positions": 32,
    "vocab_size": 90, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
}

# What is short: the model's values, phase, overrides of the machine, the key of the record, and
# words of the operator.
SHORT = {
    "a row": (WIDE, decode(1, 8), [], "scratchpad.bytes", "embed, one row in activations"),
    "gains": (GPT2, decode(1, 8), [], "scratchpad.bytes", "attention_norm, gain and bias"),
    "a product's weights": (LLAMA, decode(1, 8), [
        "scratchpad.bytes=8192", "arrays.0.rows=64", "arrays.0.cols=128"], "scratchpad.bytes",
        "qkv"),
    "sums": (LLAMA, prefill(1, 8), ["accumulator.bytes=256"], "accumulator.bytes", "qkv"),
    "state": (ONE_HEAD | {"hidden_size": 256}, decode(1, 4096), ["accumulator.bytes=4096"],
              "accumulator.bytes", "attention, a piece of one row of scores (accumulator)"),
    "scores": (ONE_HEAD, decode(1, 4096), ["accumulator.bytes=256"], "accumulator.bytes",
               "attention, a piece of one row of scores (accumulator)"),
    "engines": (LLAMA, decode(1, 8), ["dma.count=2"], "dma.count", "every kernel"),
    "memory": (LLAMA | {"vocab_size": 2_000_000, "num_hidden_layers": 1}, decode(1, 8),
               ["dram.rows=1024"], "dram.channels", "weights and cache of"),
}


def mapped(values, phase, machine, formats="W8A8KV8"):
    return map_model(model_of(values, name="toy"), phase, machine, parse_formats(formats))


@pytest.mark.parametrize("case", SHORT)
def test_the_first_lever_makes_it_fit(case):
    values, phase, overrides, key, words = SHORT[case]
    found = mapped(values, phase, read_machine("tiny", overrides))
    assert isinstance(found, DoesNotFit), "it fits"
    assert found.resource == key and words in found.operator
    assert found.gap == found.demand - found.bound > 0
    lever = [word for word in found.levers[0].split() if word != "--set"]
    assert f"{key}=" in found.levers[0]
    after = mapped(values, phase, read_machine("tiny", [*overrides, *lever]))
    assert not isinstance(after, DoesNotFit), after.sentence


@pytest.mark.parametrize("case", [c for c in SHORT if c != "memory"])
def test_a_step_less_than_the_demand_does_not_fit(case):
    values, phase, overrides, key, words = SHORT[case]
    machine = read_machine("tiny", overrides)
    record = mapped(values, phase, machine)
    name = key.split(".")[0]
    buffer, step = getattr(machine, name), 1
    if name in WHOLE_BYTES:
        step = lcm(WHOLE_BYTES[name], buffer.banks * buffer.word_bytes)
    less = max(record.demand - step, record.bound)
    after = mapped(values, phase, read_machine("tiny", [*overrides, f"{key}={less}"]))
    assert isinstance(after, DoesNotFit)
    assert after.operator.split(" (")[0] == record.operator.split(" (")[0]


@pytest.mark.parametrize("case", SHORT)
def test_the_demand_alone_lifts_the_bound_it_names(case):
    values, phase, overrides, key, words = SHORT[case]
    record = mapped(values, phase, read_machine("tiny", overrides))
    after = mapped(values, phase, read_machine("tiny", [*overrides, f"{key}={record.demand}"]))
    if isinstance(after, DoesNotFit):
        assert (after.operator, after.resource) != (record.operator, record.resource)


def test_twice_the_channels_hold_what_half_of_them_do_not():
    values, phase, overrides, key, _ = SHORT["memory"]
    record = mapped(values, phase, read_machine("tiny", overrides))
    after = mapped(values, phase, read_machine(
        "tiny", [*overrides, f"{key}={record.demand // 2}"]))
    assert isinstance(after, DoesNotFit) and after.resource == key


def test_the_sentence_says_what_where_how_much_and_the_levers():
    record = DoesNotFit("qkv", "scratchpad.bytes", 4096, 1024, "bytes", ("--set a=1", "less"))
    assert record.sentence == (
        "qkv does not fit: scratchpad.bytes must be at least 4096 bytes, not 1024 (3072 more); "
        "--set a=1 or less")
    assert record.to_dict() == {
        "operator": "qkv", "resource": "scratchpad.bytes", "demand": 4096, "bound": 1024,
        "unit": "bytes", "levers": ("--set a=1", "less"), "gap": 3072}


def test_the_bound_lifted_is_the_one_the_record_names():
    machine = read_machine("tiny")
    for key, demand in (("scratchpad.bytes", 131072), ("dma.count", 4), ("dram.channels", 2)):
        lifted = enlarged(machine, DoesNotFit("x", key, demand, 0, "", ()))
        assert isinstance(lifted, Machine)
        assert lifted == read_machine("tiny", [f"{key}={demand}"]) != machine


def test_a_buffer_grows_in_whole_shares_and_words():
    machine = read_machine("npu-hbm2")
    pad = machine.scratchpad
    record = buffer_too_small("x", machine, "scratchpad", pad.bytes + 1, pad.bytes).record
    assert record.demand == pad.bytes + lcm(4096, pad.banks * pad.word_bytes)


@pytest.mark.parametrize("formats", ["W8A8KV4", "W8A16KV16", "W16A8KV8", "W16A16KV8", "W32A32KV32"])
def test_rejects_formats_the_kernels_do_not_write(formats):
    with pytest.raises(UserError) as caught:
        mapped(LLAMA, decode(1, 8), read_machine("tiny"), formats)
    assert str(caught.value) == ("--formats must be W2 to W8 with A8 and KV8 or KV16, or "
                                 f"W16A16KV16, not {formats!r}")


@pytest.mark.parametrize("phase, formats", [
    (decode(16, 512), "W16A16KV16"), (prefill(1, 512), "W16A16KV16"), (decode(2, 32768), "W8A8KV8"),
], ids=["decode", "prefill", "long"])
def test_a_real_model_is_mapped(phase, formats):
    found = map_model(read_model("llama-2-7b"), phase, read_machine("npu-hbm2"),
                      parse_formats(formats))
    assert not isinstance(found, DoesNotFit), found.sentence
