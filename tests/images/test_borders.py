import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fastkernel._images.borders import load, source_index


@given(
    length=st.integers(1, 7),
    start=st.integers(-20, 20),
    size=st.integers(0, 30),
    rule=st.sampled_from(sorted(naive.PAD_MODES)),
)
def test_index_maps_are_those_of_numpy_pad(length, start, size, rule):
    line = np.arange(1, length + 1)
    endless = np.pad(line, 60, naive.PAD_MODES[rule])
    index = source_index(start, start + size, length, rule)
    assert_array_equal(np.where(index < 0, 0, line[index]), endless[60 + start :][:size])


@pytest.mark.parametrize("rule", naive.PAD_MODES)
@pytest.mark.parametrize("origin", [(0, 0), (1, 2), (-3, -2), (4, 4), (-9, 1), (2, 9)])
def test_load_reads_the_endless_image(rule, origin, rng):
    image = rng.integers(1, 100, (5, 6)).astype(np.uint8)
    endless = np.pad(image, 20, naive.PAD_MODES[rule])
    out = np.full((3, 4), np.nan)
    load(image, origin, rule, out)
    assert_array_equal(out, endless[20 + origin[0] :, 20 + origin[1] :][:3, :4])
