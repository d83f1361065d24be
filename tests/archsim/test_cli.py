"""The command line: every mistake is its own one line and exit code 2; codes, streams, JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from archsim import cli
from archsim.agree import agree
from archsim.catalogue import catalogue, check_file
from archsim.doctor import diagnose
from archsim.job import make_phase, prepare_model, prepare_program, run_job
from archsim.output.report import outcome_json
from machine.load import preset_names
from machine.opcodes import Opcode
from mapping.families import FAMILIES, model_names

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "examples" / "programs"
GEMM = PROGRAMS / "gemm_tiny.prog"
TINY = (ROOT / "machine" / "presets" / "tiny.toml").read_text()
OPT = json.loads((ROOT / "mapping" / "models" / "opt-125m.json").read_text())
MODELS, FAMILY_NAMES = ", ".join(model_names()), ", ".join(sorted(FAMILIES))
ARRAY_KEYS = ("a_bits, acc_bits, acc_rows, clock, cols, count, dataflows, fidelity, kind, name, "
              "pe, rows, short_paths, w_bits")
RUN_TINY = "run --machine tiny --program {gemm}"
PARTS = ("dram.preset must be one of ddr4-2400r, ddr5-4800bn, gddr6-1350mv, hbm2-neupims, "
         "hbm3-6400, lpddr5-6400, not 'hbm9'")


@pytest.fixture
def command(capsys):
    """Run a command line in this process; return its exit code, stdout and stderr.

    Lines of progress, which only what takes long has, are left out of stderr.
    """

    def ran(*arguments):
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        told = [line for line in err.splitlines(keepends=True) if not line.endswith(" ...\n")]
        return stopped.value.code, out, "".join(told)

    return ran


@pytest.fixture
def refused(command, tmp_path):
    """Run a command that must be refused; return its one line and check that no file was made."""

    def ran(line, **names):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = command(*line.format(gemm=GEMM, tmp=tmp_path, **names).split(" "))
        assert (code, out) == (2, "")
        assert err.startswith("archsim: ") and err.count("\n") == 1, err
        assert sorted(tmp_path.rglob("*")) == before
        return err.removeprefix("archsim: ").rstrip("\n").replace(str(tmp_path), "TMP")

    return ran


# What of tiny's description is replaced, by what, and the sentence that follows.
WRONG_MACHINES = {
    "broken TOML": ("name = \"tiny\"", "name =",
                    "machine must be valid TOML: Invalid value (at line 3, column 7)"),
    "unknown key": ("rows = 8", "row = 8", (
        f"arrays.0.row must be a known key, one of {ARRAY_KEYS}; did you mean 'rows'?")),
    "text for a number": ("lanes = 8", 'lanes = "8"',
                          "vectors.0.lanes must be an integer, not '8'"),
    "fraction": ("rows = 8", "rows = 8.5", "arrays.0.rows must be an integer, not 8.5"),
    "number for text": ('name = "tiny"', "name = 5", "name must be a string, not 5"),
    "value too low": ("rows = 8", "rows = 0", "arrays.0.rows must be at least 1, not 0"),
    "missing key": ("lanes = 8\n", "", "vectors.0.lanes must be given"),
    "unknown word": ('["os", "ws"]', '["is"]',
                     "arrays.0.dataflows.0 must be one of 'ws' or 'os', not 'is'"),
    "table for a list": ("[[vectors]]", "[vectors]", ("vectors must be a list, not "
                         "{'name': 'vector', 'count': 1, 'lanes': 8, 'row_elements': 1024, "
                         "'fidelity': 'rtl'}")),
    "unknown part": ("hbm2-neupims", "hbm9", PARTS),
    "unknown clock": ("[dma]", '[dma]\nclock = "fast"',
                      "dma.clock must be one of core, dram, not 'fast'"),
    "clock twice": ('name = "dram"', 'name = "core"',
                    "clocks must be named differently, not ['core', 'core']"),
    "unknown client": ('clients = ["dma", "link"]', 'clients = ["dna"]',
                       ("scratchpad.ports.1.clients must be among array, vector, dma, link, pim, "
                       "not 'dna'")),
    "size that banks do not divide": (
        "bytes = 65536", "bytes = 65535",
        "scratchpad.bytes must be a multiple of 4 banks x 32 word_bytes, not 65535"),
    "chips without links": ('name = "tiny"', 'name = "tiny"\nchips = 2',
                            "links must be given for more than one chip, not None"),
    "more units than a mask holds": (
        "count = 3", "count = 33",
        "dma units must be at most 32, the bits of a unit mask, not 33"),
}


@pytest.mark.parametrize("kind", WRONG_MACHINES)
def test_wrong_machine_names_file_key_and_value(refused, tmp_path, kind):
    old, new, sentence = WRONG_MACHINES[kind]
    assert old in TINY
    (tmp_path / "my.toml").write_text(TINY.replace(old, new, 1))
    assert refused("check {tmp}/my.toml") == f"my.toml: {sentence}"


WRONG_OVERRIDES = {
    "arrays.0.rows": "--set must be key=value, as arrays.0.rows=64, not 'arrays.0.rows'",
    "=3": "--set must be key=value, as arrays.0.rows=64, not '=3'",
    "arrays.1.rows=4": "--set arrays.1.rows: index of arrays must be from 0 to 0, not '1'",
    "arrays.x.rows=4": "--set arrays.x.rows: index of arrays must be from 0 to 0, not 'x'",
    "arrays.0.rows.x=1": "--set arrays.0.rows.x: arrays.0.rows must be a table, not 8",
    "arrays.0.rowz=4": f"tiny.toml: arrays.0.rowz must be a known key, one of {ARRAY_KEYS}; did "
                       "you mean 'rows'?",
    "arrays.0.rows=many": "tiny.toml: arrays.0.rows must be an integer, not 'many'",
    "arrays.0=5": "tiny.toml: arrays.0 must be a table, not 5",
    "vectors=[]": "tiny.toml: vectors must be at least one vector unit, not ()",
    "clocks=[]": "tiny.toml: clocks must be at least one clock, not ()",
    "dram.preset=hbm9": f"tiny.toml: {PARTS}",
    "dram.refresh=never": "tiny.toml: dram.refresh must be one of 'all_bank_staggered' or 'off', "
                          "not 'never'",
}


@pytest.mark.parametrize("override", WRONG_OVERRIDES)
def test_wrong_override_names_key_and_value(refused, override):
    assert refused(f"{RUN_TINY} --set {override}") == WRONG_OVERRIDES[override]


# What becomes of opt-125m's config.json, and the sentence that follows.
WRONG_MODELS = {
    "unknown family": ({"model_type": "bart"}, (f"model_type must be one of {FAMILY_NAMES}, not "
                       "'bart'; did you mean 'bert'?; docs/new-model.md shows how to add one")),
    "no family": ({"model_type": None}, (f"model_type must be a word; known are {FAMILY_NAMES}; "
                  "docs/new-model.md shows how to add one")),
    "missing key": ({"ffn_dim": None}, "ffn_dim is missing"),
    "wrong type": ({"num_hidden_layers": "x"},
                   "num_hidden_layers must be an integer of at least 1, not 'x'"),
    "wrong value": ({"num_hidden_layers": -1},
                    "num_hidden_layers must be an integer of at least 1, not -1"),
    "unknown activation": ({"activation_function": "rely"},
                           ("activation_function must be one of gelu, gelu_new, gelu_pytorch_tanh, "
                           "relu, silu, swish, not 'rely'; did you mean 'relu'?")),
    "heads that do not divide": ({"num_attention_heads": 7},
                                 ("hidden_size must be a multiple of num_attention_heads (7), "
                                 "not 768")),
}


@pytest.mark.parametrize("kind", WRONG_MODELS)
def test_wrong_model_names_file_key_and_value(refused, tmp_path, kind):
    changes, sentence = WRONG_MODELS[kind]
    values = {key: value for key, value in (OPT | changes).items() if value is not None}
    (tmp_path / "my.json").write_text(json.dumps(values))
    assert refused("run --model {tmp}/my.json") == f"my.json: {sentence}"


WRONG_FILES = {
    "no.toml": (None, "TMP/no.toml: machine must be a preset's name or an existing file"),
    "folder.toml": ("", "TMP/folder.toml: machine must be a TOML file, not a folder"),
    "no.json": (None, "TMP/no.json: no such file"),
    "empty": ("", "TMP/empty/config.json: no such file"),
    "cut.json": (b"{", ("cut.json: must be JSON; line 1, column 2: Expecting property name "
                        "enclosed in double quotes")),
    "list.json": (b"[]", "list.json: must be a JSON object, not a list"),
    "twice.json": (b'{"a": 1, "a": 2}', "twice.json: key 'a' must be given once, not twice"),
    "bytes.json": (b"\xff", "bytes.json: must be JSON text in UTF-8"),
    "no.prog": (None, "TMP/no.prog: program must be a readable file: No such file or directory"),
    "folder.prog": ("", "TMP/folder.prog: program must be a readable file: Is a directory"),
    "bytes.prog": (b"\xff", "TMP/bytes.prog: program must be text in UTF-8"),
    "notes.txt": (b"", ("file must be a machine (.toml), a model (.json or a folder) or a program "
                       "(.prog), not 'TMP/notes.txt'")),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_file_that_cannot_be_read_is_named(refused, tmp_path, name):
    content, sentence = WRONG_FILES[name]
    if content == "":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    assert refused(f"check {{tmp}}/{name}") == sentence


# What of gemm_tiny is replaced, by what, and the sentence that follows; LINE is the line's number.
WRONG_PROGRAMS = {
    "first line": ("program gemm_tiny version 1", "needs systolic",
                   "g.prog:LINE: first line must be 'program NAME version 1', not 'needs'"),
    "version": ("version 1", "version 2", "g.prog:LINE: version must be 1, not 2"),
    "operand": ("src=a_dram", "src=a_drum", ("g.prog:LINE: operand must be one of a_dram, a_tile, "
                "c_dram, c_tile, w_dram, w_tile, not 'a_drum'; did you mean 'a_dram'?")),
    "token": ("wait free:1", "wait fee:1", ("g.prog:LINE: token must be one of done, free, full, "
              "not 'fee'; did you mean 'free'?")),
    "kind of symbol": ("[8,16] input", "[8,16] inputs",
                       ("g.prog:LINE: kind must be one of const, input, launch, output, scratch, "
                       "state, not 'inputs'; did you mean 'input'?")),
    "space": ("a_tile scratchpad", "a_tile scratchpat", (
        "g.prog:LINE: space must be one of accumulator, dram, pim_buffer, pim_latch, scratchpad, "
        "table, not 'scratchpat'; did you mean 'scratchpad'?")),
    "address": ("accumulator 0x0", "accumulator low",
                "g.prog:LINE: address must be an integer, not 'low'"),
    "count": ("loop 2", "loop -1", "g.prog:LINE: count must be 0 to 4294967295, not -1"),
    "opcode": ("  matmul ", "  matmol ", ("g.prog:LINE: opcode must be one of OPCODES, not "
               "'matmol'; did you mean 'matmul'?")),
    "loop without end": ("    end\n  end\n", "    end\n",
                         "gemm_tiny: chip0.dma0[0] `loop 2`: control: loop must have an end"),
}
# A scalar is written as an assignment, not by its name.
NAMED_OPCODES = ", ".join(sorted(op.name.lower() for op in Opcode if op is not Opcode.SCALAR))


@pytest.mark.parametrize("kind", WRONG_PROGRAMS)
def test_wrong_program_text_names_file_and_line(refused, tmp_path, kind):
    old, new, sentence = WRONG_PROGRAMS[kind]
    text = GEMM.read_text()
    assert old in text
    (tmp_path / "g.prog").write_text(text.replace(old, new, 1))
    line = text[: text.index(old)].count("\n") + 1
    expected = sentence.replace("LINE", str(line)).replace("OPCODES", NAMED_OPCODES)
    assert refused("check {tmp}/g.prog") == expected


def test_program_beyond_the_machine_is_refused(refused):
    said = refused("diff-exec " + str(PROGRAMS / "lut_w2a8.prog"))
    assert said == "program 'lut_w2a8' needs lut, which the machine lacks"
    said = refused("check " + str(PROGRAMS / "gemm_ws.prog"))
    assert said.startswith("gemm_ws: chip0.array0[4] `matmul a=a_buf acc=c_part w=w_part units=0x3")
    assert said.endswith("units: units must be below 1, the machine's array units, not 1")


def test_check_refuses_what_a_run_would(refused):
    program = str(PROGRAMS / "gemm_os.prog")
    sentence = "chip0.array0[3]: dataflow must be one of ws, not 'os'"
    assert refused(f"check {program} --machine npu-hbm2") == sentence
    assert refused(f"run --program {program} --machine npu-hbm2") == sentence
    assert check_file(program, "tiny")["is"] == "a program that tiny can run"


def test_program_that_waits_for_ever_is_refused(refused, tmp_path):
    text = GEMM.read_text()
    assert "token free 2" in text
    (tmp_path / "g.prog").write_text(text.replace("token free 2", "token free 0"))
    said = refused("check {tmp}/g.prog")
    assert said.startswith("gemm_tiny: chip0.dma0[") and "deadlock: " in said


WRONG_LAUNCHES = {
    "": "mlgru: launch: launch value 'steps' must be given",
    " --launch steps": "--launch must be name=integer or name=integer,integer,..., not 'steps'",
    " --launch steps=x": "--launch must be name=integer or name=integer,integer,..., not 'steps=x'",
    " --launch step=3": "mlgru: launch entry must be one of steps, not 'step'; did you mean "
                        "'steps'?",
    " --launch steps=3,4": "mlgru: launch entry steps must be one integer, not [3, 4]",
    " --launch steps=3 --launch steps=4": "--launch steps must be given once",
}


@pytest.mark.parametrize("launch", WRONG_LAUNCHES)
def test_wrong_launch_names_the_entry(refused, launch):
    said = refused(f"diff-exec {PROGRAMS / 'mlgru.prog'}{launch}")
    assert said == WRONG_LAUNCHES[launch]


WRONG_LINES = {
    "run": "--model or --program must be given",
    "bound": "--model or --program must be given",
    "run --model gpt2 --program {gemm}": "--model and --program must not be given together",
    "run --model gpt2 --launch a=1": "--launch must come with --program",
    "report nowhere": "nowhere: directory must be one that archsim run -o wrote",
    RUN_TINY + " --launch a=1": "gemm_tiny: --launch must not be given: the program has no launch "
                                "entries",
    RUN_TINY + " --formats W8A8KV8": "--formats must not come with --program, which does not use "
                                     "it",
    RUN_TINY + " --batch x": "--batch must not come with --program, which does not use it",
    RUN_TINY + " --seed 3": "--seed must not come with --program, which does not use it",
    "run --model gpt2 --text x.txt --kv 9": "--kv must not come with --text, which does not use it",
    "run --text x.txt": "--text must come with --model, the folder of a real model",
    "run --model opt-126m": f"model must be one of {MODELS}, not 'opt-126m'; did you mean "
                            "'opt-125m'?",
    "run --model gpt2 --machine tinny": f"machine must be one of {', '.join(preset_names())}, not "
                                        "'tinny'; did you mean 'tiny'?",
    "run --model gpt2 --phase decod": "--phase must be one of decode, encode, prefill, not "
                                      "'decod'; did you mean 'decode'?",
    "run --model gpt2 --phase encode": "--phase must be decode or prefill for the decoder gpt2, "
                                       "not 'encode'",
    "run --model bert-base-uncased": "--phase must be encode for the encoder bert-base-uncased, "
                                     "not 'decode'",
    "run --model gpt2 --batch 0": "--batch must be at least 1, not 0",
    "run --model gpt2 --batch 1.5": "--batch must be an integer, not '1.5'",
    "run --model gpt2 --tokens many": "--tokens must be an integer, not 'many'",
    "run --model gpt2 --kv -1": "--kv must be at least 1, not -1",
    "run --model gpt2 --kv 1025": "--kv must be at most 1024, the positions of gpt2, not 1025",
    "run --model gpt2 --phase prefill --tokens 1025": "--tokens must be at most 1024, the "
                                                      "positions of gpt2, not 1025",
    "run --model gpt2 --seed x": "--seed must be an integer, not 'x'",
    "run --model gpt2 --formats W8A8": "formats must be written like W8A8KV8, W16A16KV16 or "
                                       "Wmxfp4Abf16KVint8, not 'W8A8'",
    "run --model gpt2 --formats W9A8KV8": "bits in formats 'W9A8KV8' must be 2 to 8, 16 or 32, "
                                          "not 9",
    "diff-exec {gemm} --seed -1": "--seed must be at least 0, not -1",
    "rtl": "rtl: --output must be given",
    "rtl -o {tmp}/v --block systolik": "--block must be one of lut, pim, systolic, "
                                       "vector, not 'systolik'; did you mean 'systolic'?",
    "rtl -o {tmp}/v --wrap axi4": "--wrap must be one of axi, not 'axi4'; did you mean 'axi'?",
    "rtl -o /dev/null/v": "/dev/null/v: --output must be a directory that can be written: Not a "
                          "directory",
    RUN_TINY + " -o /dev/null/x": "/dev/null/x: --output must be writable: /dev/null is not a "
                                  "directory",
    "list formatz": "list must be one of blocks, formats, instructions, machines, models, "
                    "operations, not 'formatz'; did you mean 'formats'?",
    "chek tiny": "command must be one of area, bound, check, diff-exec, doctor, list, report, "
                 "reproduce, rtl, run, synth, not 'chek'; did you mean 'check'?",
    "list --jsn": "list: option must be one of --help, --json, not '--jsn'; did you mean "
                  "'--json'?",
    "check": "check: files must be given",
    "check opt-125n": f"name must be one of {', '.join(sorted([*model_names(), *preset_names()]))},"
                      " not 'opt-125n'; did you mean 'opt-125m'?",
}


@pytest.mark.parametrize("line", WRONG_LINES)
def test_wrong_command_line_says_what_must_be(refused, line):
    assert refused(line) == WRONG_LINES[line]


@pytest.mark.parametrize("option", ["Wfloat6A8KV8", "W8Aint9000KV8"])
def test_unknown_format_names_text_and_nearest(refused, option):
    said = refused(f"run --model gpt2 --formats {option}")
    assert said.startswith(f"formats '{option}': format must be one of ")
    assert "; did you mean " in said


def test_directory_with_other_files_is_not_replaced(refused, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "run.json").write_text("{}")
    (mine / "thesis.txt").write_text("x")
    said = refused(RUN_TINY + " -o {tmp}/mine")
    assert said == "TMP/mine: --output must be new, empty or an earlier run's directory"
    assert (mine / "thesis.txt").read_text() == "x"


def test_at_least_forty_kinds_of_mistake_are_listed():
    tables = (WRONG_MACHINES, WRONG_OVERRIDES, WRONG_MODELS, WRONG_FILES, WRONG_PROGRAMS,
              WRONG_LAUNCHES, WRONG_LINES)
    sentences = {str(row) for table in tables for row in table.values()}
    assert len(sentences) >= 40


def test_what_does_not_fit_is_a_record_on_stdout_and_exit_code_1(command):
    line = ("run", "--model", "opt-125m", "--machine", "tiny")
    code, out, err = command(*line)
    made = prepare_model("opt-125m", "tiny", make_phase("decode", 1, 512, 512))
    assert (code, out, err) == (1, made.sentence + "\n", "")
    code, out, _ = command(*line, "--json")
    assert code == 1
    assert json.loads(out) == {"does_not_fit": json.loads(json.dumps(made.to_dict()))}


def test_disagreement_is_exit_code_1(command, monkeypatch):
    found = {"agree": False, "sentence": "they part"}
    monkeypatch.setattr("archsim.agree.agree", lambda *_, **__: found)
    assert command("diff-exec", GEMM) == (1, "they part\n", "")


@pytest.mark.parametrize("where", ["archsim.job.run_job", "typer.main.get_group"])
def test_interrupt_is_exit_code_130_and_says_nothing(command, monkeypatch, where):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    assert command("run", "--program", GEMM, "--machine", "tiny") == (130, "", "")


def test_help_names_every_command(command):
    code, out, err = command()
    assert (code, err) == (0, "")
    for name in ("run", "bound", "rtl", "list", "check", "doctor", "diff-exec"):
        assert f"\n  {name} " in out


def test_json_of_run_and_bound_is_the_library_s(command):
    job = prepare_program(GEMM, "tiny")
    for name, only_bound in (("run", False), ("bound", True)):
        code, out, err = command(name, "--program", GEMM, "--machine", "tiny", "--json")
        outcome = outcome_json(run_job(job, only_bound=only_bound))
        assert (code, err) == (0, "")
        assert json.loads(out) == json.loads(json.dumps(outcome))


def test_json_of_the_other_commands_is_the_library_s(command):
    findings = [{"name": f.name, "present": f.present, "detail": f.detail, "purpose": f.purpose}
                for f in diagnose()]
    for arguments, expected in (
        (["list", "formats"], catalogue("formats")),
        (["check", "tiny", GEMM], [check_file("tiny"), check_file(str(GEMM))]),
        (["doctor"], findings),
        (["diff-exec", GEMM], agree(GEMM, "tiny")),
    ):
        code, out, err = command(*arguments, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out) == json.loads(json.dumps(expected))


def test_json_of_rtl_names_the_files_it_wrote(command, tmp_path):
    code, out, _ = command("rtl", "-o", tmp_path / "v", "--json")
    files = [Path(name) for name in json.loads(out)["files"]]
    assert code == 0
    assert sorted(files) == sorted((tmp_path / "v").iterdir())
    assert {file.suffix for file in files} == {".v", ".json"}


def executable(*arguments, **options):
    return subprocess.run([Path(sys.executable).parent / "archsim", *arguments],
                          capture_output=True, text=True, timeout=120, check=False, **options)


def test_executable_keeps_streams_and_codes_apart():
    wrong = executable("list", "formatz")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("archsim: list must be one of ")
    right = executable("list", "machines", "--json")
    assert right.returncode == 0
    assert [row["name"] for row in json.loads(right.stdout)] == preset_names()


def test_reader_that_leaves_early_gets_no_traceback():
    pipe = f"{Path(sys.executable).parent / 'archsim'} list formats --json | head -n 1"
    done = subprocess.run(pipe, shell=True, capture_output=True, text=True, timeout=120,
                          check=False)
    assert (done.stdout, done.stderr) == ("[\n", "")
