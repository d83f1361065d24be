"""The attention of one decode step of GPT3-7B in NeuPIMs' memory, with one row buffer and with two.

Run it: ``python examples/pim_attention.py --host-share 0.02``. It prints the cycles of the step and
what the units of the banks did in them.
"""

import argparse
import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

import machine.dram
from archsim.pim_attention import decode_attention, random_lengths, round_robin
from machine.pim import PimConfig

# Ref: NeuPIMs (arXiv 2403.00579) and its artifact: 32 layers, 32 heads of 128, tensor parallel 4.
HEADS, DEPTH, LAYERS = 8, 128, 32


def preset(kind, name):
    """Return a part of a machine that comes with the package."""
    path = Path(machine.dram.__file__).parent / "presets" / f"{name}.toml"
    return TypeAdapter(kind).validate_json(json.dumps(tomllib.loads(path.read_text())))


def main(arguments=None):
    """Simulate the step with both numbers of row buffers and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256, help="requests")
    parser.add_argument("--seed", type=int, default=1, help="of the requests' lengths")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--host-share", type=float, default=0.02, help="of the peak bandwidth")
    asked = parser.parse_args(arguments)
    dram = preset(machine.dram.DramConfig, "dram/hbm2-neupims")
    pim = preset(PimConfig, "pim/neupims")
    dealt = round_robin(random_lengths(asked.batch, asked.seed), dram.channels)
    for buffers in (1, 2):
        step = decode_attention(dram, replace(pim, row_buffers=buffers), dealt, heads=HEADS,
                                depth=DEPTH, layers=asked.layers, host_share=asked.host_share)
        total = sum(step.classes.values())
        shares = {name: round(cycles / total, 3) for name, cycles in step.classes.items() if cycles}
        print(f"row buffers {buffers}: {step.cycles} cycles, {sum(step.counts.values())} commands, "
              f"{step.host_bursts} bursts of the host; {shares}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
