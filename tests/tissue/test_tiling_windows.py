"""Rectangles over a mask: all of it, nothing twice, and no more around than pays."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.tissue.folds import tiling_windows


@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(0, 20), st.integers(16, 64), st.floats(0, 0.2),
    st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_they_hold_all_that_is_set_and_nothing_twice(
    height: int, width: int, margin: int, most: int, share: float, seed: int
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    covered = np.zeros(mask.shape, np.int64)
    for rows, columns in tiling_windows(mask, margin, most):
        part = mask[rows, columns]
        assert max(part.shape) <= most
        assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()  # noqa: PT018
        covered[rows, columns] += 1
    assert covered.max() <= 1
    assert not (mask & (covered == 0)).any()


def test_far_pieces_are_looked_at_alone_and_near_ones_together() -> None:
    mask = np.zeros((256, 256), np.bool_)
    mask[10:20, 10:20] = mask[200:210, 220:230] = True
    assert sorted((r.start, c.start) for r, c in tiling_windows(mask, 17, 256)) == [(10, 10), (200, 220)]
    mask[:] = False
    mask[10:20, 10:20] = mask[14:24, 30:40] = True
    assert list(tiling_windows(mask, 17, 256)) == [(slice(10, 24), slice(10, 40))]
