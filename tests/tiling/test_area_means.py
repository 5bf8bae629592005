"""Area averaging against exact overlaps of pixels and cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.tiling import area
from wsi_ncmi.tiling.area import area_resample, block_mean


def slow_mean(
    region: np.ndarray, left: float, top: float, scale: tuple[float, float], size: int
) -> np.ndarray:
    """Every cell as a sum over all pixels, weighted by the area that they share; float64, not rounded."""
    shares = []
    for first, step, length in ((top, scale[1], region.shape[0]), (left, scale[0], region.shape[1])):
        cell, pixel = np.ogrid[:size, :length]
        start = first + cell * step
        shares.append(np.maximum(0, np.minimum(start + step, pixel + 1) - np.maximum(start, pixel)))
    sums = np.einsum("iy,jx,yxc->ijc", *shares, region)
    return sums / (shares[0].sum(1)[:, None] * shares[1].sum(1))[..., None]


@st.composite
def requests(
    draw: st.DrawFn, lowest: float = 1.0, largest: int = 7
) -> tuple[np.ndarray, float, float, tuple[float, float], int]:
    size = draw(st.integers(1, largest))
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
    exact = (2 * sums + scale**2) // (2 * scale**2)
    if scale != 6:  # where sums can be halves, and shares (1/36) are no exact float32
        np.testing.assert_array_equal(result, exact)
    assert np.abs(result.astype(int) - exact).max() <= 1


@given(st.sampled_from([2, 4, 8, 16]), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_blocks_are_averaged_into_a_part_of_an_array(factor: int, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Near values make halves frequent.
    whole = rng.integers(100, 104, (factor * height + 5, factor * width + 3, 3), dtype=np.uint8)
    part = whole[2 : 2 + factor * height, 1 : 1 + factor * width]
    out = np.zeros((height + 2, width + 2, 3), np.uint8)
    block_mean(part, factor, out[1:-1, 1:-1])
    sums = part.reshape(height, factor, width, factor, 3).sum(axis=(1, 3), dtype=np.int64)
    expected = np.pad((sums + factor**2 // 2) // factor**2, ((1, 1), (1, 1), (0, 0)))
    np.testing.assert_array_equal(out, expected)


@given(requests(lowest=0.3, largest=30))
@settings(max_examples=40, deadline=None)
def test_bands_change_no_bit(request) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(area, "_BAND_BYTES", 1)  # eight rows of cells
        narrow = area_resample(*request)
    np.testing.assert_array_equal(narrow, area_resample(*request))


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
