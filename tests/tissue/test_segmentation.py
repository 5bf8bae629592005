"""Tissue on small drawn slides whose truth is known, read through the real readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pydantic import ValidationError
from scipy import ndimage

from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.tissue import TissueConfig, TissueMask, mask_polygons, segment_tissue

METHODS = ("hed", "otsu", "threshold")
WIDTH, HEIGHT = 1000, 800
MPP = Mpp(4.0, 4.0, "table")  # 4 × 3.2 mm
GLASS = (244, 243, 245)
HAEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])
INKS = {"blue": (40, 60, 160), "green": (30, 140, 70), "black": (35, 35, 38)}


def glass(colour: tuple[int, int, int] = GLASS, seed: int = 0) -> np.ndarray:
    """Float (H, W, 3): glass with camera noise and a slow gradient of the lamp."""
    rng = np.random.default_rng(seed)
    lamp = np.linspace(-2, 2, WIDTH)[None, :, None]
    return np.array(colour) + lamp + rng.normal(0, 3, (HEIGHT, WIDTH, 3))


def discs(*places: tuple[int, int, int]) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.any([(x - cx) ** 2 + (y - cy) ** 2 < r**2 for cx, cy, r in places], axis=0)


def stain(picture: np.ndarray, where: np.ndarray, strength: float = 1.0, seed: int = 1) -> None:
    """Dyes a place with eosin and textured haematoxylin by Beer and Lambert's law."""
    rng = np.random.default_rng(seed)
    nuclei = ndimage.gaussian_filter(rng.random(where.shape), 2)
    nuclei = (nuclei > np.quantile(nuclei, 0.8))[..., None] * 0.45
    density = strength * ((0.1 + nuclei) * HAEMATOXYLIN + 0.16 * EOSIN)
    picture[where] *= (10**-density)[where]


def line(points: list[tuple[int, int]], thickness: int) -> np.ndarray:
    from PIL import Image, ImageDraw

    image = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(image).line(points, fill=1, width=thickness, joint="curve")
    return np.asarray(image)


@pytest.fixture
def segment(tmp_path: Path) -> Callable[..., TissueMask]:
    def run(picture: np.ndarray, mpp: Mpp = MPP, spoil: int | None = None, **options: object) -> TissueMask:
        path = tmp_path / "drawn.tif"
        tifffile.imwrite(
            path, np.rint(picture).clip(0, 255).astype(np.uint8), tile=(128, 128), photometric="rgb",
            compression="deflate" if spoil is not None else "jpeg", metadata=None,
        )  # fmt: skip
        if spoil is not None:
            with tifffile.TiffFile(path) as file:
                offset, size = file.pages[0].dataoffsets[spoil], file.pages[0].databytecounts[spoil]
            with path.open("r+b") as handle:
                handle.seek(offset)
                handle.write(b"\x5a" * size)
        with open_slide(path) as slide:
            return segment_tissue(slide, mpp, TissueConfig(**options))

    return run


def truth_of(where: np.ndarray, mask: TissueMask) -> np.ndarray:
    """The drawing at the mask's resolution: pixels covered by half or more."""
    height, width = mask.mask.shape
    y, x = np.indices((height, width)) + 0.5
    rows, columns = (y * mask.downsample_y).astype(int), (x * mask.downsample_x).astype(int)
    return where[rows.clip(0, HEIGHT - 1), columns.clip(0, WIDTH - 1)]


def overlap(mask: TissueMask, where: np.ndarray) -> float:
    truth = truth_of(where, mask)
    return float((mask.mask & truth).sum() / (mask.mask | truth).sum())


PIECES = discs((300, 300, 180), (700, 500, 150), (650, 130, 70))


@pytest.mark.parametrize("method", METHODS)
def test_stained_pieces_are_found(segment: Callable[..., TissueMask], method: str) -> None:
    picture = glass()
    stain(picture, PIECES)
    mask = segment(picture, method=method)
    assert overlap(mask, PIECES) >= 0.9
    assert len(mask_polygons(mask)) == 3
    assert (mask.method, mask.note) == (method, "")
    assert mask.parameters["loosened"] is False
    assert mask.area_mm2(MPP) == pytest.approx(PIECES.sum() * 16e-6, rel=0.1)
    assert json.loads(json.dumps(mask.parameters)) == mask.parameters


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("colour", [GLASS, (255, 255, 255), (238, 234, 226), (226, 221, 228)])
def test_empty_glass_has_no_tissue(
    segment: Callable[..., TissueMask], method: str, colour: tuple[int, int, int]
) -> None:
    mask = segment(glass(colour, seed=5), method=method)
    assert not mask.mask.any()
    assert mask.area_mm2(MPP) == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_dim_and_tinted_glass_changes_nothing(segment: Callable[..., TissueMask], method: str) -> None:
    picture = glass((226, 220, 212))
    stain(picture, PIECES)
    assert overlap(segment(picture, method=method), PIECES) >= 0.9


@pytest.mark.parametrize("colour", INKS)
def test_ink_is_no_tissue(segment: Callable[..., TissueMask], colour: str) -> None:
    ink = line([(60, 700), (400, 640), (560, 760), (940, 680)], 24) & ~PIECES
    rng = np.random.default_rng(2)
    picture = glass()
    picture[ink] = np.array(INKS[colour]) + rng.normal(0, 4, (ink.sum(), 3))
    alone = segment(picture)
    assert alone.mask.mean() < 0.01 * truth_of(ink, alone).mean()
    stain(picture, PIECES)
    beside = segment(picture)
    assert overlap(beside, PIECES) >= 0.9
    assert (beside.mask & truth_of(ink, beside)).sum() < 0.05 * truth_of(ink, beside).sum()


def test_much_ink_does_not_hide_pale_tissue(segment: Callable[..., TissueMask]) -> None:
    # Otsu over the ink as well would lift the threshold above the pale tissue.
    ink = line([(40, 720), (960, 720)], 130)
    picture = glass()
    picture[ink] = INKS["black"]
    stain(picture, PIECES, strength=0.3)
    assert overlap(segment(picture), PIECES) >= 0.9


@pytest.mark.parametrize("method", METHODS)
def test_black_borders_are_no_tissue(segment: Callable[..., TissueMask], method: str) -> None:
    picture = glass()
    picture[:, :60] = np.abs(np.random.default_rng(4).normal(3, 3, (HEIGHT, 60, 3)))
    stain(picture, PIECES)
    assert overlap(segment(picture, method=method), PIECES) >= 0.9


def test_faint_tissue_is_found_at_the_second_try(segment: Callable[..., TissueMask]) -> None:
    piece = discs((500, 400, 200))
    picture = glass()
    picture[piece] *= 10 ** -np.array([0.02, 0.048, 0.025])
    mask = segment(picture)
    assert overlap(mask, piece) >= 0.9
    assert mask.parameters["loosened"] is True
    assert mask.parameters["threshold_used"] == pytest.approx(0.6 * TissueConfig().min_density)
    assert "loosened" in mask.note


def test_there_is_no_second_try_where_tissue_was_found(segment: Callable[..., TissueMask]) -> None:
    picture = glass()
    faint = discs((800, 600, 100))
    stain(picture, discs((300, 300, 180)))
    picture[faint] *= 10 ** -np.array([0.02, 0.048, 0.025])
    mask = segment(picture)
    assert overlap(mask, discs((300, 300, 180))) >= 0.9
    assert mask.note == ""


@pytest.mark.parametrize("method", METHODS)
def test_places_that_cannot_be_read_count_as_tissue(segment: Callable[..., TissueMask], method: str) -> None:
    # Tile 20 of 8 × 7 covers x 512–640, y 256–384.
    mask = segment(glass(), spoil=20, method=method)
    truth = np.zeros((HEIGHT, WIDTH), bool)
    truth[256:384, 512:640] = True
    assert overlap(mask, truth) == 1.0
    assert "can't be read" in mask.note


def test_places_that_cannot_be_read_do_not_move_the_threshold(segment: Callable[..., TissueMask]) -> None:
    picture = glass()
    stain(picture, PIECES, strength=0.45)
    whole, spoilt = segment(picture), segment(picture, spoil=48)
    # JPEG, Deflate and a missing corner: the same threshold but for a bin of Otsu's histogram.
    assert spoilt.parameters["threshold_used"] == pytest.approx(whole.parameters["threshold_used"], abs=0.003)
    away = np.ones(whole.mask.shape, bool)
    away[370:, :70] = False  # tile 48 lies in the lower left corner
    assert (whole.mask != spoilt.mask)[away].mean() < 0.003


def test_specks_and_holes_are_judged_by_their_area(segment: Callable[..., TissueMask]) -> None:
    # At 4 µm per pixel a disc of radius r has 16 π r² µm².
    body = discs((300, 300, 200)) & ~discs((250, 250, 11), (350, 350, 40))
    picture = glass()
    stain(picture, body | discs((700, 200, 14), (700, 500, 40)))
    mask = segment(picture, min_object_um2=25_000, min_hole_um2=10_000)
    at = lambda x, y: bool(mask.mask[round(y / mask.downsample_y), round(x / mask.downsample_x)])  # noqa: E731
    assert not at(700, 200), "a speck of 10,000 µm² is left out"
    assert at(700, 500), "a piece of 80,000 µm² stays"
    assert at(250, 250), "a hole of 6,000 µm² is filled"
    assert not at(350, 350), "a hole of 80,000 µm² stays"


def test_a_slide_of_specks_alone_says_so(segment: Callable[..., TissueMask]) -> None:
    picture, where = glass(), discs((200, 200, 60))
    stain(picture, where)
    mask = segment(picture, min_object_um2=1_000_000)
    assert not mask.mask.any()
    assert "specks below 1e+06 µm² (tissue.min_object_um2)" in mask.note
    assert segment(glass(), min_object_um2=1_000_000).note == ""


def test_anisotropic_slides_are_masked_in_microns(segment: Callable[..., TissueMask]) -> None:
    picture = glass()
    stain(picture, PIECES)
    mask = segment(picture, mpp=Mpp(4.0, 2.0, "table"))
    assert mask.mask.shape == (200, 500)
    assert (mask.downsample_x, mask.downsample_y) == (2.0, 4.0)
    assert overlap(mask, PIECES) >= 0.9


def test_a_slide_coarser_than_the_working_resolution_keeps_its_pixels(
    segment: Callable[..., TissueMask],
) -> None:
    picture = glass()
    stain(picture, PIECES)
    mask = segment(picture, mpp=Mpp(20.0, 20.0, "table"))
    assert mask.mask.shape == (HEIGHT, WIDTH)
    assert overlap(mask, PIECES) >= 0.9


@pytest.mark.parametrize(
    "wrong", [{"method": "magic"}, {"working_mpp": 0.0}, {"threshold": 1.5}, {"smooth": 1}, {"smooth_um": -1}]
)
def test_options_outside_their_limits_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TissueConfig(**wrong)


@pytest.mark.real_data
@pytest.mark.parametrize("method", METHODS)
def test_the_real_slide(real_data: Path, method: str) -> None:
    with open_slide(real_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        mask = segment_tissue(slide, Mpp(0.499, 0.499, "vendor"), TissueConfig(method=method))
        assert 0.3 <= mask.mask.mean() <= 0.5
        assert mask.note == ""
        # The slide's upper left corner is glass and its densest part is tissue, by eye.
        pixels = slide.read_region(0, 0, 0, slide.width_px, slide.height_px)
    dark = ndimage.uniform_filter(pixels[..., 1].astype(float), 101)
    for row, column, expected in (
        (*np.unravel_index(dark.argmin(), dark.shape), 1.0),
        (*np.unravel_index(dark.argmax(), dark.shape), 0.0),
    ):
        box = np.array([[column - 25, row - 25, column + 25, row + 25]], float)
        assert mask.fraction_in(box)[0] == pytest.approx(expected)


def test_counts_growth_and_smoothing_are_those_of_the_plain_ways() -> None:
    """Bit by bit, as identities need it: numpy and scipy against what takes a fraction of their time."""
    from wsi_ncmi.tissue.colours import density, grey_counts, smooth
    from wsi_ncmi.tissue.connected_components import grown

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (61, 47, 3), dtype=np.uint8)
    chosen = rng.random((61, 47)) < 0.3
    for channel in range(3):
        plain = np.bincount(pixels[..., channel][chosen], minlength=256)
        np.testing.assert_array_equal(grey_counts(pixels, channel, chosen), plain)
    for seeds in (np.zeros((61, 47), bool), rng.random((61, 47)) < 0.01, np.eye(61, 47, dtype=bool)):
        expected = ndimage.binary_dilation(seeds, iterations=3)
        np.testing.assert_array_equal(grown(seeds, 3), expected)
        expected = ndimage.binary_dilation(seeds, np.ones((3, 3)))
        np.testing.assert_array_equal(grown(seeds, 1, diagonal=True), expected)
    white = np.array([241.0, 238.0, 244.0], np.float32)
    dense = density(pixels, chosen, white)
    for channel, glass in enumerate(white.astype(float)):
        table = np.maximum(-np.log10((np.arange(256) + 1.0) / (glass + 1.0)), 0.0).astype(np.float32)
        expected = np.where(chosen, table[pixels[..., channel]], np.float32(0.0))
        np.testing.assert_array_equal(dense[channel], expected)
    plane = dense[1]
    for sigma in ((1.0, 1.5), (0.0, 2.0), (20.0, 20.0)):
        expected = ndimage.gaussian_filter(plane.astype(np.float64), sigma, mode="reflect")
        np.testing.assert_allclose(smooth(plane, sigma), expected, atol=2e-6)
