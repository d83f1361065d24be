"""The table of measured gates: whole rows, each with its source."""

import pytest

from machine.area import SOURCE, TABLE, AreaRow, area_rows, area_table, write_area_table

FPGA = {"lut", "ff", "dsp", "carry", "bram"}
# What a row of each target has.
MEASURED = {
    "ecp5": FPGA, "ecp5-nodsp": FPGA, "xcup": FPGA, "xcup-nodsp": FPGA,
    "ecp5-85k": FPGA | {"fmax_mhz"}, "ecp5-85k-block": FPGA | {"fmax_mhz"},
    "osu018": {"cells", "area_um2", "delay_ps"}, "sky130": {"cells", "area_um2"},
}
OPTIONAL = {"energy_pj"}


def test_rows_are_whole_and_name_their_source():
    rows = area_rows(TABLE.read_text())
    assert rows
    for row in rows:
        numbers = {name for name in FPGA | {"cells", "area_um2", "delay_ps", "fmax_mhz"}
                   if getattr(row, name) is not None}
        assert numbers == MEASURED[row.target], row
        assert row.source == SOURCE == "measured by archsim synth"
        assert row.tool.startswith("yosys 0.") and len(row.rtlil) == 16
        assert row.parameters.split() == sorted(row.parameters.split())


def test_no_row_is_there_twice():
    assert len(area_table()) == len(area_rows(TABLE.read_text()))


def test_a_written_table_reads_back_the_same(tmp_path):
    rows = area_rows(TABLE.read_text())
    rows.append(AreaRow(design="new", target="ecp5", area_um2=1.5))
    write_area_table(rows, tmp_path / "area.csv")
    assert area_rows((tmp_path / "area.csv").read_text()) == rows
    assert list(tmp_path.iterdir()) == [tmp_path / "area.csv"]


def test_the_file_is_as_it_would_be_written(tmp_path):
    write_area_table(area_rows(TABLE.read_text()), tmp_path / "area.csv")
    assert (tmp_path / "area.csv").read_text() == TABLE.read_text()


@pytest.mark.parametrize("design", sorted({row.design for row in area_table().values()}))
def test_no_multiplier_blocks_where_none_are_allowed(design):
    for row in area_table().values():
        if row.design == design and row.target.endswith("-nodsp"):
            assert row.dsp == 0
