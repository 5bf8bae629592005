from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ncmi.features import hdf5_io as module
from wsi_ncmi.features.hdf5_io import is_finite, read_rows


def test_every_float16_is_judged_as_numpy_does():
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    judged = [is_finite(every[i : i + 1]) for i in range(65536)]
    np.testing.assert_array_equal(judged, np.isfinite(every))


@given(n=st.integers(0, 300), place=st.integers(0, 299), bits=st.integers(0, 65535))
def test_one_bad_value_is_found_wherever_it_stands(n, place, bits):
    values = np.linspace(-60000, 60000, n).astype(np.float16)
    if place < n:
        values.view(np.uint16)[place] = bits
    assert is_finite(values) == bool(np.isfinite(values).all())
    assert is_finite(values[::2]) == bool(np.isfinite(values[::2]).all())


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 5), (300, 64)])
def test_rows_are_read_as_written(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(module, "_PART", 1000)
    values = np.random.default_rng(0).normal(size=shape).astype("<f2")
    path = tmp_path / "x"
    path.write_bytes(b"header" + values.tobytes() + b"seal")
    found = read_rows(path, 6, shape)
    np.testing.assert_array_equal(found, values)
    assert found.flags.writeable
    assert found.dtype == np.float16


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 999, 1000, 2499])
def test_what_is_not_finite_is_refused(tmp_path, monkeypatch, bad, place):
    monkeypatch.setattr(module, "_PART", 1000)
    values = -np.ones((50, 50), "<f2")
    values.reshape(-1)[place] = bad
    path = tmp_path / "x"
    path.write_bytes(values.tobytes())
    with pytest.raises(ValueError, match="NaN or infinity"):
        read_rows(path, 0, (50, 50))


def test_a_file_that_ends_early_is_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\0" * 99)
    with pytest.raises(EOFError, match="ends in the middle"):
        read_rows(path, 0, (10, 5))
