"""Modules beside the tests that several of them use."""

import importlib.util
import sys
from pathlib import Path

import pytest


def _module(name):
    """Return the module of the file `name` beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_module("front_end_bench")


@pytest.fixture(scope="session")
def timing_rules():
    """The rules of queues, tokens and control, in plain Python."""
    return _module("timing_rules")


@pytest.fixture(scope="session")
def random_program():
    """Return a function: of a seed, a random legal program."""
    return _module("random_programs").Maker
