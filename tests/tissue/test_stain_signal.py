"""The picture that is thresholded, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_ncmi.slides import Overview
from wsi_ncmi.tissue import TissueConfig
from wsi_ncmi.tissue.colours import glass_colour, smooth_colours
from wsi_ncmi.tissue.segmentation import stain_signal as signal_of

GLASS, PINK, BLACK = (240, 235, 230), (200, 120, 180), (9, 2, 4)


def overview(unreadable: bool = False) -> Overview:
    """Glass with one pink and one black pixel, and perhaps an unreadable one."""
    pixels = np.full((30, 30, 3), GLASS, np.uint8)
    pixels[3, 4], pixels[5, 6] = PINK, BLACK
    readable = np.ones((30, 30), bool)
    if unreadable:
        pixels[20:, 10:] = 128
        readable[20:, 10:] = False
    return Overview(pixels, readable, 16.0, 16.0)


def stain_signal(
    overview: Overview, options: TissueConfig, pixel_um: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    sigma = options.smooth_um / pixel_um[1], options.smooth_um / pixel_um[0]
    white = glass_colour(overview)
    return signal_of(overview, smooth_colours(overview, white, sigma), white, options, sigma)


def options(method: str, smooth_um: float = 0.0) -> TissueConfig:
    return TissueConfig(method=method, smooth_um=smooth_um)


def test_density_is_the_absorption_of_green_relative_to_the_glass() -> None:
    signal, eligible = stain_signal(overview(), options("hed"), (8.0, 8.0))
    assert signal[3, 4] == pytest.approx(np.log10((235 + 1) / (120 + 1)), rel=1e-3)
    assert signal[0, 0] == 0.0
    assert eligible[3, 4]
    assert not eligible[5, 6], "black is no stain"


@pytest.mark.parametrize("method", ["otsu", "threshold"])
def test_saturation_is_that_of_the_balanced_colour(method: str) -> None:
    signal, eligible = stain_signal(overview(), options(method), (8.0, 8.0))
    assert signal[3, 4] == pytest.approx(1 - (120 / 235) / (200 / 240), rel=1e-3)
    assert signal[0, 0] == 0.0, "tinted glass has no saturation of its own"
    assert signal[5, 6] == 0.0, "what is black has no colour, only noise"
    assert eligible[3, 4]
    assert not eligible[5, 6]


@pytest.mark.parametrize("method", ["hed", "otsu", "threshold"])
def test_unreadable_places_have_no_signal_and_do_not_shade_their_surroundings(method: str) -> None:
    signal, _ = stain_signal(overview(unreadable=True), options(method, smooth_um=16.0), (8.0, 8.0))
    assert np.abs(signal[18:]).max() < 1e-3
    exact, _ = stain_signal(overview(unreadable=True), options(method), (8.0, 8.0))
    assert (exact[20:, 10:] == 0.0).all()


def test_smoothing_is_in_microns_on_both_axes() -> None:
    pixels = np.full((41, 41, 3), 240, np.uint8)
    pixels[20, 20] = (200, 120, 180)
    single = Overview(pixels, np.ones((41, 41), bool), 16.0, 8.0)
    # Sigma is one pixel across and two down: at one sigma both have fallen alike.
    smooth, _ = stain_signal(single, options("hed", smooth_um=8.0), (8.0, 4.0))
    assert smooth[22, 20] == pytest.approx(smooth[20, 21], rel=0.05)


def test_a_slide_without_glass_keeps_its_tissue() -> None:
    everywhere = Overview(np.full((20, 20, 3), PINK, np.uint8), np.ones((20, 20), bool), 16.0, 16.0)
    signal, _ = stain_signal(everywhere, options("hed"), (8.0, 8.0))
    assert signal.min() > 0.15
