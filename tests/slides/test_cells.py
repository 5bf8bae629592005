"""Sums over cells whose edges lie anywhere in a block, against the overlap of every pixel with every cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.slides.overview import cell_sums


def overlaps(edges: np.ndarray, length: int) -> np.ndarray:
    pixel = np.arange(length)
    low, high = np.maximum(edges[:-1, None], pixel), np.minimum(edges[1:, None], pixel + 1)
    return np.clip(high - low, 0.0, None)


@settings(max_examples=60, deadline=None)
@given(
    first=st.tuples(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0)),
    side=st.tuples(st.floats(1.0, 4.0), st.floats(1.0, 4.0)),
    count=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_sums_are_those_of_all_overlaps(
    first: tuple[float, float], side: tuple[float, float], count: tuple[int, int]
) -> None:
    """Cells may begin inside the block, before it, and end behind it."""
    block = np.random.default_rng(0).integers(0, 256, (11, 13, 3), dtype=np.uint8)
    edges_y, edges_x = (first[i] + side[i] * np.arange(count[i] + 1) for i in range(2))
    expected = np.einsum("ay,yxc,bx->abc", overlaps(edges_y, 11), block.astype(float), overlaps(edges_x, 13))
    assert cell_sums(block, edges_y, edges_x) == pytest.approx(expected, rel=1e-4, abs=0.05)
