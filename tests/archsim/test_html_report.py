"""The page of a run: whole, self-contained, the same bytes again, and true to run.json."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from archsim.accounting import CLASSES
from archsim.job import prepare_program, run_job
from archsim.output.html_report import page, write_report
from archsim.output.plots import COLOURS, cycles_figure, energy_figure, operators_figure
from archsim.output.results import check_output, write_results
from machine.errors import UserError

GEMM = Path(__file__).parents[2] / "examples" / "programs" / "gemm_tiny.prog"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_results(run_job(prepare_program(GEMM, "tiny")), tmp_path_factory.mktemp("r") / "r")


@pytest.fixture
def run(directory):
    return json.loads((directory / "run.json").read_text())


def widths(axes) -> dict[str, list[float]]:
    """Return the widths of the bars of each label, top to bottom."""
    return {bars.get_label(): [bar.get_width() for bar in bars] for bars in axes.containers}


class Cells(HTMLParser):
    """The rows of every table of a page, as lists of texts."""

    def __init__(self, text: str):
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._inside = True

    def handle_endtag(self, tag):
        self._inside &= tag not in ("td", "th")

    def handle_data(self, data):
        if self._inside:
            self.rows[-1][-1] += data


def test_the_page_asks_for_nothing_outside_itself(directory):
    text = page(directory)
    assert "<script" not in text and "@import" not in text and "<link" not in text
    assert re.findall(r"""(?:src|href)=["']?(?!#)([^"' >]+)""", text) == []
    assert text.count("<svg") == 4 and text.count("</svg>") == 4


def test_the_same_directory_gives_the_same_page(directory):
    assert page(directory) == page(directory)


def test_the_page_holds_the_totals_and_every_part_of_the_energy(directory, run):
    rows = Cells(page(directory)).rows
    assert ["ticks", f"{run['totals']['ticks']:,} of 1000 ps"] in rows
    assert ["time / bound", f"{run['totals']['time_over_bound']:.3f}"] in rows
    for part in run["energy"]:
        shown = [row for row in rows if row[:3] == [part["component"], part["operation"],
                                                    part["kind"]]]
        wanted = part["energy_pj"]
        assert [row[4] for row in shown] == [
            wanted if wanted == "not modelled" else f"{wanted * 1e-6:,.3f}"]


def test_bars_of_cycles_are_the_shares_of_run_json_and_sum_to_all(run):
    figure = cycles_figure(run)
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    bars = widths(axes)
    at = names.index("dram x1")
    account = run["cycles"]["chip0.dram0"]
    for name in CLASSES:
        share = 100 * account[name] / run["totals"]["ticks"]
        assert bars.get(name.replace("_", " "), [0.0] * len(names))[at] == pytest.approx(share)
    for place in range(len(names)):
        assert sum(bar[place] for bar in bars.values()) == pytest.approx(100)


def test_bars_of_operators_are_the_charged_times(directory):
    with (directory / "layers.csv").open(newline="") as file:
        layers = list(csv.DictReader(file))
    (axes,) = operators_figure(layers).axes
    charged = sorted((float(row["charged_ps"]) * 1e-6 for row in layers), reverse=True)
    assert [bar.get_width() for bar in axes.containers[0]] == pytest.approx(charged)


def test_a_component_without_energy_says_not_modelled_and_draws_no_bar(run):
    (axes,) = energy_figure(run).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    said = {round(text.xy[1]): text.get_text().strip() for text in axes.texts}
    for place, name in enumerate(names):
        known = [r for r in run["energy"]
                 if r["component"] == name and r["energy_pj"] != "not modelled"]
        total = sum(bars[place] for bars in widths(axes).values())
        assert (place in said) == (not known)
        assert total == pytest.approx(1e-6 * sum(r["energy_pj"] for r in known))
    assert set(said.values()) == {"not modelled"}


def test_every_class_of_cycles_has_a_colour_of_its_own():
    assert set(COLOURS) == set(CLASSES)
    assert len(set(COLOURS.values())) == len(CLASSES)


def test_a_title_cannot_break_the_page(directory, tmp_path, run):
    odd = tmp_path / "odd"
    odd.mkdir()
    for file in directory.iterdir():
        (odd / file.name).write_bytes(file.read_bytes())
    (odd / "run.json").write_text(json.dumps(run | {"title": "<b>&"}))
    assert "<h1>&lt;b&gt;&amp;</h1>" in page(odd)


def test_a_directory_with_its_page_may_be_written_again(directory):
    assert write_report(directory) == directory / "report.html"
    check_output(directory)


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_another_directory_is_refused_in_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match="archsim run -o wrote|must be simulated"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
