"""The scale arithmetic of the grid, for any resolution."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from wsi_ncmi.core.errors import SlideError, UpsampleError
from wsi_ncmi.slides import Level, Mpp
from wsi_ncmi.tiling import GridConfig, TileGrid


def pyramid(width: int, height: int, factors: tuple[int, ...] = (1,)) -> list[Level]:
    """Levels as scanners make them: sides rounded down, downsamples from the rounded sides."""
    sizes = [(max(1, width // f), max(1, height // f)) for f in factors]
    return [Level(w, h, width / w, height / h) for w, h in sizes]


@st.composite
def plans(draw: st.DrawFn, overlap: bool = True) -> tuple[list[Level], Mpp, GridConfig]:
    mpp_x = draw(st.floats(0.1, 2.0))
    mpp_y = mpp_x * draw(st.sampled_from([1.0, 1.0, 0.97, 1.003, 1.4]))
    target = max(mpp_x, mpp_y) * draw(st.floats(1.0, 20.0))
    tile = draw(st.sampled_from([16, 100, 224, 256, 512]))
    factors = draw(st.sampled_from([(1,), (1, 4, 16), (1, 2, 4, 8, 16, 32)]))
    levels = pyramid(draw(st.integers(64, 20_000)), draw(st.integers(64, 20_000)), factors)
    overlap_px = draw(st.integers(0, tile - 1)) if overlap and tile <= 100 else 0
    return levels, Mpp(mpp_x, mpp_y, "table"), GridConfig(mpp=target, tile_px=tile, overlap_px=overlap_px)


def corners(grid: TileGrid) -> np.ndarray:
    """Some tiles in raster order: the first two rows and the last one."""
    n = len(grid)
    few = np.unique(np.r_[0 : min(n, 2 * grid.n_columns), max(0, n - grid.n_columns) : n])
    return few.astype(np.int64)


@given(plans())
@settings(max_examples=250, deadline=None)
def test_source_boxes_have_the_field_of_view_that_was_asked_for(plan) -> None:
    levels, mpp, options = plan
    grid = TileGrid.plan(levels, mpp, options)
    asked_um = options.tile_px * options.mpp
    for side, micron in zip(grid.tile_size_level0, (mpp.x, mpp.y), strict=True):
        assert abs(side * micron / asked_um - 1.0) < 0.001
    stride_um = (options.tile_px - options.overlap_px) * options.mpp
    for step, micron in zip(grid.step_level0, (mpp.x, mpp.y), strict=True):
        assert abs(step * micron / stride_um - 1.0) < 0.001
    if len(grid):
        boxes = grid.boxes(corners(grid))
        sides = (boxes[:, 2:] - boxes[:, :2]) * (mpp.x, mpp.y)
        assert np.abs(sides / asked_um - 1.0).max() < 0.001


@given(plans())
@settings(max_examples=250, deadline=None)
def test_tiles_fill_the_slide_and_stay_inside(plan) -> None:
    levels, mpp, options = plan
    grid = TileGrid.plan(levels, mpp, options)
    width, height = levels[0].width_px, levels[0].height_px
    tile, step = grid.tile_size_level0, grid.step_level0
    assert len(grid) == grid.n_columns * grid.n_rows
    for count, length, side, stride in (
        (grid.n_columns, width, tile[0], step[0]),
        (grid.n_rows, height, tile[1], step[1]),
    ):
        if side > length + 1e-6:
            assert count == 0
            continue
        assert (count - 1) * stride + side <= length + 1e-5
        assert count * stride + side > length - 1e-5, "another tile would fit"
    if len(grid):
        indices = corners(grid)
        boxes, coords = grid.boxes(indices), grid.coords(indices)
        assert boxes.min() >= 0
        assert (boxes[:, 2:] <= np.array([width, height]) + 1e-5).all()
        assert coords.dtype == np.int64
        assert np.abs(coords - boxes[:, :2]).max() <= 0.5
        order = np.lexsort((coords[:, 0], coords[:, 1]))
        assert (order == np.arange(len(order))).all() or (step[0] < 1 or step[1] < 1)


@given(plans(overlap=False))
@settings(max_examples=200, deadline=None)
def test_without_overlap_neither_gap_nor_double_cover_reaches_a_pixel(plan) -> None:
    grid = TileGrid.plan(*plan)
    if len(grid) < 2:
        return
    columns = np.arange(grid.n_columns, dtype=np.int64)
    rows = np.arange(grid.n_rows, dtype=np.int64) * grid.n_columns
    for indices, axis in ((columns, 0), (rows, 1)):
        boxes, coords = grid.boxes(indices), grid.coords(indices)
        assert np.abs(boxes[1:, axis] - boxes[:-1, axis + 2]).max(initial=0) < 1e-6
        # The same with the rounded corners that are stored.
        gaps = np.diff(coords[:, axis]) - grid.tile_size_level0[axis]
        assert np.abs(gaps).max(initial=0) < 1.0


@given(plans())
@settings(max_examples=200, deadline=None)
def test_the_coarsest_level_that_is_fine_enough_is_read(plan) -> None:
    levels, mpp, options = plan
    grid = TileGrid.plan(levels, mpp, options)
    wanted = options.mpp / mpp.x, options.mpp / mpp.y
    good = [
        number
        for number, level in enumerate(levels)
        if level.downsample_x * 0.9995 <= wanted[0] and level.downsample_y * 0.9995 <= wanted[1]
    ]
    assert levels[grid.read_level].downsample_x == max(levels[n].downsample_x for n in good)
    assert grid.level == levels[grid.read_level]
    assert min(grid.reduction) >= 1.0


@given(plans())
@settings(max_examples=60, deadline=None)
def test_all_boxes_are_those_of_their_indices(plan) -> None:
    grid = TileGrid.plan(*plan)
    if 0 < len(grid) <= 20_000:
        indices = np.array([len(grid) - 1, 0, len(grid) // 2])
        np.testing.assert_array_equal(grid.boxes()[indices], grid.boxes(indices))
        np.testing.assert_array_equal(grid.coords()[indices], grid.coords(indices))


def plan(
    mpp: float, target: float, side: int = 5000, factors: tuple[int, ...] = (1, 4, 16), **more
) -> TileGrid:
    return TileGrid.plan(pyramid(side, side, factors), Mpp(mpp, mpp, "t"), GridConfig(mpp=target, **more))


def test_a_real_difference_of_two_permille_is_resampled() -> None:
    grid = plan(0.499, 0.5)
    assert grid.tile_size_level0[0] == pytest.approx(256 * 0.5 / 0.499, rel=1e-12)
    assert grid.reduction != (1.0, 1.0)


def test_a_difference_of_rounding_is_native() -> None:
    grid = plan(0.25002, 0.25)
    assert grid.tile_size_level0 == (256.0, 256.0)
    assert grid.reduction == (1.0, 1.0)


@pytest.mark.parametrize(("target", "level", "reduction"), [
    (0.25, 0, 1), (0.5, 0, 2), (0.99, 0, 3.96), (1.0, 1, 1), (1.5, 1, 1.5), (2.0, 1, 2), (4.0, 2, 1), (9.0, 2, 2.25),
])  # fmt: skip
def test_levels_of_an_aperio_slide(target: float, level: int, reduction: float) -> None:
    grid = plan(0.25, target, side=4096)
    assert grid.read_level == level
    assert grid.reduction == pytest.approx((reduction, reduction), rel=1e-12)


def test_both_axes_of_an_anisotropic_slide_are_met() -> None:
    grid = TileGrid.plan(pyramid(10_000, 10_000), Mpp(0.25, 0.5, "t"), GridConfig(mpp=0.5, tile_px=256))
    assert grid.tile_size_level0 == (512.0, 256.0)
    assert (grid.n_columns, grid.n_rows) == (19, 39)
    # The first axis alone would allow the second level; the other doesn't.
    levels = pyramid(10_000, 10_000, (1, 2))
    assert TileGrid.plan(levels, Mpp(0.25, 0.5, "t"), GridConfig(mpp=0.5)).read_level == 0


def test_upsampling_is_refused_unless_allowed() -> None:
    with pytest.raises(
        UpsampleError, match=r"0\.5 × 0\.5 µm per pixel, coarser than the target of 0\.25;.*--allow-upsample"
    ):
        plan(0.5, 0.25)
    grid = plan(0.5, 0.25, allow_upsample=True)
    assert grid.read_level == 0
    assert grid.tile_size_level0 == (128.0, 128.0)


def test_one_axis_that_is_too_coarse_is_enough_to_refuse() -> None:
    with pytest.raises(UpsampleError):
        TileGrid.plan(pyramid(5000, 5000), Mpp(0.25, 0.5, "t"), GridConfig(mpp=0.25))


@pytest.mark.parametrize(
    ("mpp", "refused"), [(0.2501, False), (0.25012, False), (0.25013, True), (0.252, True)]
)
def test_only_rounding_of_the_stated_resolution_is_no_upsampling(mpp: float, refused: bool) -> None:
    """Scanners write 0.2501 for 0.25; within half a permille pixels are taken as they are."""
    if refused:
        with pytest.raises(UpsampleError, match=rf"give --mpp {mpp:g} or more"):
            plan(mpp, 0.25)
        assert min(plan(mpp, mpp).reduction) == 1.0
    else:
        grid = plan(mpp, 0.25)
        assert grid.reduction == (1.0, 1.0)
        assert grid.tile_size_level0[0] * mpp == pytest.approx(64.0, rel=0.0005)


@given(st.floats(0.1, 2.0), st.floats(0.05, 40.0), st.sampled_from([(1,), (1, 4, 16), (1, 2, 4, 8)]))
@settings(max_examples=300, deadline=None)
def test_any_pair_of_resolutions_has_the_right_field_or_is_refused(
    mpp: float, target: float, factors: tuple[int, ...]
) -> None:
    levels = pyramid(9_973, 7_001, factors)
    options = GridConfig(mpp=target, tile_px=224)
    if target < mpp * (1 - 0.0005):
        with pytest.raises(UpsampleError):
            TileGrid.plan(levels, Mpp(mpp, mpp, "t"), options)
        options = GridConfig(mpp=target, tile_px=224, allow_upsample=True)
        assert TileGrid.plan(levels, Mpp(mpp, mpp, "t"), options).read_level == 0
    grid = TileGrid.plan(levels, Mpp(mpp, mpp, "t"), options)
    for side in grid.tile_size_level0:
        assert abs(side * mpp / (224 * target) - 1.0) < 0.001
    # Never enlarged from a coarser level: at least one pixel is read for each that is given.
    assert min(grid.reduction) >= min(1.0, target / mpp)


@given(plans())
@settings(max_examples=200, deadline=None)
def test_boxes_of_the_read_level_have_the_same_field(plan) -> None:
    """What is read, not only what is planned: the box in pixels of the level covers the tile's microns."""
    levels, mpp, options = plan
    grid = TileGrid.plan(levels, mpp, options)
    if len(grid):
        boxes = grid.level_boxes(corners(grid))
        down = np.array([grid.level.downsample_x * mpp.x, grid.level.downsample_y * mpp.y])
        asked = options.tile_px * options.mpp
        assert np.abs((boxes[:, 2:] - boxes[:, :2]) * down / asked - 1.0).max() < 0.001
        # A native grid's corners are moved to whole pixels of the level.
        shift = np.abs(
            boxes[:, :2] * [grid.level.downsample_x, grid.level.downsample_y]
            - grid.boxes(corners(grid))[:, :2]
        )
        assert shift.max() <= (0.5 * grid.level.downsample_x * 1.01 if grid.native else 1e-4)


def test_a_slide_smaller_than_a_tile_has_no_tiles() -> None:
    grid = plan(0.5, 0.5, side=255, factors=(1,))
    assert (grid.n_columns, grid.n_rows, len(grid)) == (0, 0, 0)
    assert grid.boxes().shape == (0, 4)
    assert grid.coords().shape == (0, 2)
    assert len(plan(0.5, 0.5, side=256, factors=(1,))) == 1
    assert len(TileGrid.plan(pyramid(5000, 200), Mpp(0.5, 0.5, "t"), GridConfig(mpp=0.5))) == 0


def test_overlap_moves_the_step_only() -> None:
    grid = plan(0.25, 0.5, side=4096, overlap_px=64)
    assert grid.tile_size_level0 == (512.0, 512.0)
    assert grid.step_level0 == (384.0, 384.0)
    assert grid.n_columns == (4096 - 512) // 384 + 1
    assert grid.coords(np.array([1])).tolist() == [[384, 0]]


def test_a_tile_too_large_to_be_read_is_refused_with_its_size() -> None:
    with pytest.raises(SlideError, match=r"covers .* px of the nearest level.*--tile-px"):
        plan(0.25, 8.0, side=200_000, factors=(1,), tile_px=1024)
    assert len(plan(0.25, 8.0, side=200_000, factors=(1, 4, 16, 32), tile_px=1024)) > 0


@pytest.mark.parametrize(
    "wrong",
    [{"overlap_px": 256}, {"overlap_px": -1}, {"mpp": 0.0}, {"tile_px": 8}, {"min_tissue": 1.1}, {"px": 2}],
)
def test_options_outside_their_limits_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GridConfig(**wrong)


@pytest.mark.parametrize(
    ("magnification", "mpp"), [(40, 0.25), (20, 0.5), (10, 1.0), (1.25, 8.0), (30, 1 / 3)]
)
def test_a_magnification_is_ten_microns_over_it(magnification: float, mpp: float) -> None:
    options = GridConfig(magnification=magnification, tile_px=224)
    assert options == GridConfig(mpp=mpp, tile_px=224)
    assert asdict(options) == asdict(GridConfig(mpp=mpp, tile_px=224))
    assert "magnification" not in asdict(options)
    assert replace(options, tile_px=256).mpp == mpp
    assert GridConfig(magnification=None, mpp=0.25).mpp == 0.25


def test_two_target_resolutions_are_refused_also_inside_a_configuration() -> None:
    with pytest.raises(ValidationError, match="'mpp' and 'magnification': both give the target resolution"):
        GridConfig(mpp=0.5, magnification=20)
    adapter = TypeAdapter(GridConfig)
    assert adapter.validate_python({"magnification": 40}).mpp == 0.25
    with pytest.raises(ValidationError, match="leave one of them out"):
        adapter.validate_python({"mpp": 0.25, "magnification": 40})
    for wrong in (0, -20, 500, "x", float("nan")):
        with pytest.raises(ValidationError):
            GridConfig(magnification=wrong)
    # What is written out can be read again.
    assert adapter.validate_python(adapter.dump_python(GridConfig(magnification=20))) == GridConfig(mpp=0.5)
