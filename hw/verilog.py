"""Verilog of a component, with its ports and parameters as JSON beside it."""

import dataclasses
import inspect
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amaranth.back import verilog
from amaranth.lib import data, wiring

from hw.axi import REGISTERS, SystolicAxi
from hw.lut import Lut, unit_of
from hw.pim_channel import PimChannel, read_layout
from hw.pim_check import Fault, fault_layout
from hw.pim_device import check_device, device_parts
from hw.pim_queue import Entry, command_layout, entry_layout, host_layout
from hw.qoq import QoqSystolic
from hw.systolic import Systolic, array_parts
from hw.vector import Vector
from hw.vector_lane import Lane
from machine.dram import DramConfig
from machine.errors import must_be, unknown
from machine.lut import COMMAND_FIELDS as LUT_COMMAND_FIELDS
from machine.lut import LutConfig
from machine.pim import PIM_COMMANDS, PimConfig, pim_rules
from machine.systolic import COMMAND_FIELDS, SystolicConfig
from machine.vector_core import COMMAND_FIELDS as VECTOR_COMMAND_FIELDS
from machine.vector_core import VectorCoreConfig
from machine.vector_programs import Code

__all__ = ["emit", "emit_lut", "emit_pim", "emit_systolic", "emit_vector", "members", "ports"]

MEMBER = re.compile(r"^(\w+) : (?:In|Out)\(.*\)$")


def members(component: type) -> dict[str, str]:
    """Return the meaning of each member that the docstring of `component` documents."""
    lines = inspect.cleandoc(component.__doc__ or "").splitlines()
    found: dict[str, list[str]] = {}
    name = ""
    for line in lines[lines.index("Members") + 2 :] if "Members" in lines else []:
        match = MEMBER.match(line)
        if match:
            name = match[1]
            found[name] = []
        elif line.startswith("    ") and name:
            found[name].append(line.strip())
        elif line.strip():
            break
    return {key: " ".join(text) for key, text in found.items()}


def ports(component: wiring.Component) -> list[dict[str, Any]]:
    """Return name, direction, width and meaning of each port of `component`'s Verilog module."""
    meaning = members(type(component))
    listed = [] if "aclk" in meaning else [
        {"name": "clk", "direction": "input", "width": 1, "meaning": "Clock; rising edge."},
        {"name": "rst", "direction": "input", "width": 1,
         "meaning": "Reset; synchronous, active high."},
    ]
    for path, member, value in component.signature.flatten(component):
        listed.append({
            "name": "__".join(map(str, path)),
            "direction": "input" if member.flow is wiring.In else "output",
            "width": len(value),
            "meaning": meaning[str(path[0])],
        })
    return listed


def emit(
    component: wiring.Component,
    name: str,
    directory: Path | str,
    *,
    parts: Sequence[tuple[str, wiring.Component]] = (),
    facts: dict[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write ``<name>.v`` and ``<name>.json`` into `directory` and return their paths.

    `parts` are the components, by module name, that `component` instantiates; each is emitted once,
    in front of it. `facts` (parameters, latency, ...) go into the JSON beside the ports. The bytes
    depend on nothing but the arguments. Raises ``OSError`` if `directory` cannot be written.
    """
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    text = "\n".join(
        verilog.convert(part, name=part_name, emit_src=False, strip_internal_attrs=True)
        for part_name, part in (*parts, (name, component))
    )
    record = {"module": name, "file": f"{name}.v", **(facts or {}), "ports": ports(component)}
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / f"{name}.v", folder / f"{name}.json"
    for path, content in zip(written, (text, json.dumps(record, indent=2) + "\n"), strict=True):
        path.with_name(path.name + ".part").write_text(content)
        path.with_name(path.name + ".part").replace(path)
    return written


def emit_systolic(
    cfg: SystolicConfig,
    directory: Path | str,
    *,
    wrap: str | None = None,
    name: str = "systolic",
) -> tuple[Path, Path]:
    """Write the Verilog and JSON of one array of `cfg` into `directory` and return their paths.

    The element and the column are emitted once and instantiated. `wrap` None gives the bare
    streams, ``"axi"`` AXI4-Lite control and AXI4-Stream data. Elements of kind ``qoq`` come with
    their decoder, and bare. Raises ``UserError`` for another wrap.
    """
    decoded = cfg.pe.kind == "qoq"
    if wrap not in (None, "axi"):
        raise unknown("wrap", str(wrap), ["axi"])
    if wrap is not None and decoded:
        raise must_be("wrap", "None for elements of kind qoq", wrap)
    facts: dict[str, Any] = {
        "parameters": dataclasses.asdict(cfg),
        "latency_cycles": cfg.latency_cycles,
        "command_fields": [
            {"name": field, "lowest_bit": low, "width": width}
            for field, low, width in COMMAND_FIELDS
        ],
    }
    parts = array_parts(cfg, name)
    if wrap is None:
        top = (QoqSystolic if decoded else Systolic)(cfg, library=name)
        return emit(top, name, directory, parts=parts, facts=facts)
    facts["registers"] = [register._asdict() for register in REGISTERS]
    return emit(SystolicAxi(cfg, library=name), name, directory, parts=parts, facts=facts)


def emit_lut(
    cfg: LutConfig, directory: Path | str, *, name: str = "lut"
) -> tuple[Path, Path]:
    """Write the Verilog and JSON of one lookup array of `cfg`, or of what it is compared with.

    The unit is emitted once and instantiated. Returns the paths.
    """
    facts: dict[str, Any] = {
        "parameters": dataclasses.asdict(cfg),
        "latency_cycles": cfg.latency_cycles,
        "command_fields": [
            {"name": field, "lowest_bit": low, "width": width}
            for field, low, width in LUT_COMMAND_FIELDS
        ],
    }
    parts = [(f"{name}_unit", unit_of(cfg)(cfg))]
    return emit(Lut(cfg, library=name), name, directory, parts=parts, facts=facts)


def emit_vector(
    cfg: VectorCoreConfig, directory: Path | str, *, name: str = "vector"
) -> tuple[Path, Path]:
    """Write the Verilog and JSON of one vector unit of `cfg` into `directory`; return their paths.

    The lane is emitted once and instantiated.
    """
    facts: dict[str, Any] = {
        "parameters": dataclasses.asdict(cfg),
        "output_cycles": cfg.output_cycles,
        "command_fields": [
            {"name": field, "lowest_bit": low, "width": width}
            for field, low, width in VECTOR_COMMAND_FIELDS
        ],
        "codes": {code.name.lower(): int(code) for code in Code},
    }
    return emit(Vector(cfg, library=name), name, directory,
                parts=[(f"{name}_lane", Lane(cfg))], facts=facts)


def emit_pim(
    dram: DramConfig, pim: PimConfig, directory: Path | str, *, name: str = "pim"
) -> tuple[Path, Path]:
    """Write the Verilog and JSON of one channel of `dram` that computes; return their paths.

    Its memory has all rows of `dram`: a channel for an FPGA is one of few rows. The cells of a
    bank, products, sums and the bank unit are emitted once and instantiated. Raises ``ValueError``
    for a channel without RTL.
    """
    check_device(dram, pim)
    layouts = {"i": entry_layout, "i_host": host_layout, "o_reads": read_layout,
               "o": command_layout, "o_fault": fault_layout}
    facts: dict[str, Any] = {
        "parameters": {"dram": dataclasses.asdict(dram), "pim": dataclasses.asdict(pim)},
        "latency_cycles": {"read": dram.hit_latency_cycles, "result": dram.hit_latency_cycles,
                           "unit": pim.unit.latency_cycles},
        "payloads": {port: _fields(layout(dram, pim)) for port, layout in layouts.items()},
        "codes": {"entries": {kind.name: int(kind) for kind in Entry},
                  "commands": {command: code for code, command in enumerate(PIM_COMMANDS)},
                  "faults": {str(kind.name): int(kind) for kind in Fault},
                  "rules": [f"{r.name}: {r.after} to {r.before}, {r.scope}"
                            for r in pim_rules(dram, pim)]},
    }
    return emit(PimChannel(dram, pim, library=name), name, directory,
                parts=device_parts(dram, pim, name), facts=facts)


def _fields(layout: data.StructLayout) -> list[dict[str, Any]]:
    return [{"name": name, "lowest_bit": part.offset, "width": part.width}
            for name, part in layout]
