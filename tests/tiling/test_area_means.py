"""Area averaging against exact overlaps of pixels and cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.tiling.area import area_resample


def slow_mean(
    region: np.ndarray, left: float, top: float, scale: tuple[float, float], size: int
) -> np.ndarray:
    """Every cell as a weighted sum over the pixels that it touches, in float64, not rounded."""
    height, width = region.shape[:2]
    result = np.zeros((size, size, 3))
    for i in range(size):
        for j in range(size):
            y0, y1 = top + i * scale[1], top + (i + 1) * scale[1]
            x0, x1 = left + j * scale[0], left + (j + 1) * scale[0]
            weight = 0.0
            for y in range(int(y0), min(height, int(np.ceil(y1)))):
                for x in range(int(x0), min(width, int(np.ceil(x1)))):
                    share = (min(y1, y + 1) - max(y0, y)) * (min(x1, x + 1) - max(x0, x))
                    result[i, j] += share * region[y, x]
                    weight += share
            result[i, j] /= weight
    return result


@st.composite
def requests(
    draw: st.DrawFn, lowest: float = 1.0
) -> tuple[np.ndarray, float, float, tuple[float, float], int]:
    size = draw(st.integers(1, 7))
    scale = draw(st.floats(lowest, 5.0)), draw(st.floats(lowest, 5.0))
    left, top = draw(st.floats(0, 1, exclude_max=True)), draw(st.floats(0, 1, exclude_max=True))
    width, height = (int(np.ceil(o + size * s - 1e-9)) for o, s in zip((left, top), scale, strict=True))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    region = rng.integers(0, 256, (max(1, height), max(1, width), 3), dtype=np.uint8)
    return region, left, top, scale, size


@given(requests())
@settings(max_examples=80, deadline=None)
def test_cells_are_the_mean_of_the_area_that_they_cover(request) -> None:
    result = area_resample(*request)
    assert result.dtype == np.uint8
    assert result.shape == (request[4], request[4], 3)
    # Rounding to the nearest, and the 10⁻⁶ px to which offsets are rounded for the cache of weights.
    assert np.abs(result - slow_mean(*request)).max() <= 0.51


@given(requests(lowest=0.1))
@settings(max_examples=60, deadline=None)
def test_upsampling_stays_between_the_pixels(request) -> None:
    region, left, top, scale, size = request
    result = area_resample(region, left, top, scale, size)
    assert np.abs(result - slow_mean(*request)).max() <= 0.51
    assert region.min() <= result.min() <= result.max() <= region.max()


@given(requests(lowest=0.1), st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_constant_regions_stay_constant(request, value: int) -> None:
    region, left, top, scale, size = request
    assert (area_resample(np.full_like(region, value), left, top, scale, size) == value).all()


@pytest.mark.parametrize("scale", [2, 3, 4, 5, 6, 8, 16])
def test_whole_ratios_are_the_integer_mean(scale: int) -> None:
    region = np.random.default_rng(scale).integers(0, 256, (9 * scale, 9 * scale, 3), dtype=np.uint8)
    sums = region.reshape(9, scale, 9, scale, 3).sum(axis=(1, 3), dtype=np.int64)
    result = area_resample(region, 0.0, 0.0, (float(scale), float(scale)), 9)
    if scale in (2, 4, 8, 16):
        np.testing.assert_array_equal(result, (2 * sums + scale**2) // (2 * scale**2))
    # Pillow multiplies with a truncated 1/n, which takes means just above one half down (5/9 at a ratio of 3).
    assert np.abs(result - sums / scale**2).max() < 0.56


@pytest.mark.parametrize("scale", [(2.0, 2.0), (4.0, 4.0), (2.0, 8.0), (3.0, 3.0), (5.0, 3.0)])
def test_the_fast_and_the_general_way_agree(scale: tuple[float, float]) -> None:
    size = 6
    width, height = int(size * scale[0]), int(size * scale[1])
    region = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    # One row and column more than needed sends the same request through the weights.
    longer = np.pad(region, ((0, 1), (0, 1), (0, 0)), mode="edge")
    fast, general = (area_resample(r, 0.0, 0.0, scale, size).astype(int) for r in (region, longer))
    # Powers of two are exact in float32; thirds may meet a tie on the other side.
    assert np.abs(fast - general).max() <= (0 if {*scale} <= {2.0, 4.0, 8.0} else 1)


def test_a_region_short_by_a_fraction_repeats_its_last_pixel() -> None:
    region = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    result = area_resample(region, 0.0, 0.0, (2.1, 2.1), 2)
    assert (
        np.abs(
            result - slow_mean(np.pad(region, ((0, 1), (0, 1), (0, 0)), mode="edge"), 0, 0, (2.1, 2.1), 2)
        ).max()
        <= 0.51
    )


def test_the_result_belongs_to_the_caller() -> None:
    region = np.zeros((8, 8, 3), np.uint8)
    result = area_resample(region, 0.3, 0.3, (1.5, 1.5), 4)
    assert result.flags.c_contiguous
    assert result.base is None or not np.shares_memory(result, region)
