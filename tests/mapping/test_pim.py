"""The scheduler's estimate of attention in memory."""

import pytest

from mapping.pim import attention_cycles

# GPT3-7B, tensor parallel over 4: 8 heads of 128. Derived from NeuPIMs' Algorithm 1.
VECTORS = {32: 7256, 80: 7992, 300: 10568, 512: 12776, 513: 19832, 1024: 25352, 2048: 50504}


@pytest.mark.parametrize("length, cycles", VECTORS.items())
def test_the_estimate_is_algorithm_1(length, cycles):
    assert attention_cycles(heads=8, depth=128, length=length) == cycles


def test_a_shorter_row_takes_more_vectors():
    # 1024 elements of keys in rows of 256: four vectors; values: two pieces of 256 tokens a head.
    got = attention_cycles(heads=8, depth=128, length=512, row_elements=256, banks=16)
    assert got == 4 * 100 + 4 * 32 * 184 + 16 * 100 + 16 * 8 * 184


def test_nothing_to_do_is_refused():
    with pytest.raises(ValueError, match="^length must be at least 1, not 0$"):
        attention_cycles(heads=8, depth=128, length=0)
