"""The limits of links between chips."""

from dataclasses import replace

import pytest

from machine.link import LinkConfig

LINK = LinkConfig(count=1, bytes_per_cycle=16, latency_cycles=5)


@pytest.mark.parametrize(("field", "least"), [
    ("count", 1), ("bytes_per_cycle", 1), ("latency_cycles", 0)])
def test_least_value_is_legal_and_one_less_is_not(field, least):
    assert getattr(replace(LINK, **{field: least}), field) == least
    with pytest.raises(ValueError, match=f"{field} must be at least {least}, not {least - 1}"):
        replace(LINK, **{field: least - 1})
