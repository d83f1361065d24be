"""Progress goes to stderr, and only of what takes long."""

import sys
import time

import pytest

from archsim.progress import progress


def test_short_run_says_nothing(capsys):
    with progress(60) as tell:
        tell("mapping")
    assert capsys.readouterr() == ("", "")


def test_long_run_tells_the_step_under_way_and_each_that_follows(capsys):
    with progress(0.05) as tell:
        tell("mapping")
        tell("simulating")
        time.sleep(0.5)
        tell("writing results")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "archsim: simulating ...\narchsim: writing results ...\n"


def test_error_passes_through():
    with pytest.raises(KeyError), progress(60):
        raise KeyError


def test_terminal_is_shown_the_step_and_left_clean(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress() as tell:
        tell("simulating")
        time.sleep(0.3)
    out, err = capsys.readouterr()
    assert out == ""
    assert "simulating ..." in err
