"""Machines from TOML: presets, parts, overrides; every description comes back as it was."""

import tomllib
from dataclasses import fields, is_dataclass, replace

import pytest
import tomli_w

from machine.errors import UserError
from machine.load import PRESETS, config_hash, preset_names, read_machine, resolved

TINY = (PRESETS / "tiny.toml").read_text()


@pytest.mark.parametrize("name", preset_names())
def test_resolved_preset_is_the_same_machine_in_full(name, tmp_path):
    machine = read_machine(name)
    path = tmp_path / "again.toml"
    path.write_text(tomli_w.dumps(resolved(machine)))
    assert read_machine(path) == machine
    assert config_hash(read_machine(path)) == config_hash(machine)


def test_npu_hbm2_is_the_published_machine():
    # casys-kaist/NeuPIMs @ f299af3, systolic_ws_128x128_dev.json and neupims.json.
    machine = read_machine("npu-hbm2")
    (array,), (vector,) = machine.arrays, machine.vectors
    assert (array.count, array.rows, array.cols, array.dataflows) == (8, 128, 128, ("ws",))
    assert (vector.count, vector.lanes) == (8, 128)
    assert (machine.scratchpad.bytes, machine.accumulator.bytes) == (2**20, 2**20)
    assert machine.dram.channels == 32
    assert [clock.hz for clock in machine.clocks] == [1e9, 1e9]


def test_every_preset_names_its_sources_or_says_assumed():
    for path in PRESETS.rglob("*.toml"):
        text = path.read_text()
        assert "assumed" in text or "Ref" in text, path.name


def test_keys_beside_a_part_win_over_the_part():
    part = tomllib.loads((PRESETS / "dram" / "hbm2-neupims.toml").read_text())
    assert part["channels"] == 32
    dram = read_machine("tiny").dram
    assert dram.channels == 1
    assert dram.timing.cl_cycles == part["timing"]["cl_cycles"]


def test_overrides_apply_in_order_and_keep_the_rest():
    machine = read_machine("tiny")
    changed = read_machine("tiny", ["arrays.0.rows=16", "name=big", "arrays.0.rows=32"])
    array = replace(machine.arrays[0], rows=32)
    assert changed == replace(machine, name="big", arrays=(array,))


def test_override_of_a_part_comes_before_overrides_of_its_keys():
    changed = read_machine("tiny", ["dram.channels=2", "dram.preset=ddr4-2400r"])
    alone = read_machine("tiny", ["dram.preset=ddr4-2400r"])
    assert changed.dram == replace(alone.dram, channels=2)
    assert alone.dram.timing != read_machine("tiny").dram.timing


@pytest.mark.parametrize(("text", "value"), [
    ('"4"', "4"), ("word", "word"), ("3 # x", 3)])
def test_override_is_a_toml_value_or_else_text(text, value):
    if isinstance(value, str):
        assert read_machine("tiny", [f"name={text}"]).name == value
    else:
        assert read_machine("tiny", [f"dma.count={text}"]).dma.count == value


def paths(machine, prefix=""):
    """Return the key of every number, word and list in a description."""
    for field in fields(machine):
        value, key = getattr(machine, field.name), f"{prefix}{field.name}"
        items = enumerate(value) if isinstance(value, tuple) else []
        if is_dataclass(value):
            yield from paths(value, f"{key}.")
        elif any(is_dataclass(v) for _, v in items):
            for i, v in enumerate(value):
                yield from paths(v, f"{key}.{i}.")
        elif isinstance(value, int | str) and not isinstance(value, bool):
            yield key, value


@pytest.mark.parametrize(("key", "value"), list(paths(read_machine("tiny"))))
def test_any_field_can_be_overridden(key, value):
    same = f'"{value}"' if isinstance(value, str) else value
    assert read_machine("tiny", [f"{key}={same}"]) == read_machine("tiny")
    # A value that the field cannot have is refused under its own key.
    with pytest.raises(UserError) as error:
        read_machine("tiny", [f"{key}=[]"])
    assert str(error.value).startswith(f"tiny.toml: {key} must be ")


def test_hash_changes_with_any_number_and_not_with_the_file(tmp_path):
    machine = read_machine("tiny")
    copy = tmp_path / "other.toml"
    copy.write_text("# the same\n" + TINY)
    assert config_hash(read_machine(copy)) == config_hash(machine)
    assert config_hash(replace(machine, name="x")) != config_hash(machine)
    assert len(config_hash(machine)) == 64


def test_unknown_key_deep_inside_names_its_place_and_neighbour(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text(TINY.replace('name = "compute", ', 'nme = "compute", ', 1))
    with pytest.raises(UserError, match=(
            r"^my\.toml: scratchpad\.ports\.0\.nme must be a known key, one of access, clients, "
            r"count, name; did you mean 'name'\?$")):
        read_machine(path)
