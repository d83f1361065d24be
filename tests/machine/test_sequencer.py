"""The limits of the sequencer."""

import pytest

from machine.sequencer import SequencerConfig


@pytest.mark.parametrize(("field", "low", "high", "what"), [
    ("tokens", 1, 65536, "from 1 to 65536"), ("token_bits", 1, 32, "from 1 to 32"),
    ("issue_cycles", 1, None, "at least 1"), ("control_cycles", 0, None, "at least 0"),
    ("token_latency_cycles", 0, None, "at least 0"), ("operand_cycles", 0, None, "at least 0"),
    ("long_cycles", 0, None, "at least 0")])
def test_limits_are_legal_and_beyond_them_is_not(field, low, high, what):
    for value in (low, high):
        if value is not None:
            assert getattr(SequencerConfig(**{field: value}), field) == value
    for value in (low - 1, None if high is None else high + 1):
        if value is not None:
            with pytest.raises(ValueError, match=f"{field} must be {what}, not {value}"):
                SequencerConfig(**{field: value})
