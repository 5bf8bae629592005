"""Dense places without a colour of H&E are told, because ink can't be told from a special stain by colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.tissue import ArtifactConfig, TissueConfig, analyse_tissue

SIDE = 512
HAEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)
BROWN = (0.27, 0.57, 0.78)
# First stain (in nuclei) and second stain, and their amounts (Ruifrok's vectors, and those of Fiji's plugin).
SPECIAL = {
    "masson": ((0.80, 0.59, 0.10), (0.10, 0.74, 0.66), 1.0, 0.2),
    "alcian blue": ((0.875, 0.458, 0.158), (0.55, 0.76, 0.34), 1.0, 0.2),
    "giemsa": ((0.83, 0.51, 0.22), (0.09, 0.95, 0.28), 1.0, 0.2),
    "methyl green": ((0.98, 0.14, 0.13), BROWN, 1.0, 0.2),
    "silver": ((0.577, 0.577, 0.577), (0.577, 0.577, 0.577), 1.0, 0.4),
    "prussian blue": ((0.85, 0.50, 0.12), (0.80, 0.55, 0.20), 0.8, 0.3),
    "brown alone": (BROWN, BROWN, 1.0, 0.3),
}
ORDINARY = {
    "h&e": (HAEMATOXYLIN, EOSIN, 0.6, 0.6),
    "pas": (HAEMATOXYLIN, (0.175, 0.972, 0.154), 0.4, 0.8),
    "fast red": (HAEMATOXYLIN, (0.21, 0.85, 0.48), 0.4, 0.6),
    "dab": (HAEMATOXYLIN, BROWN, 0.8, 0.3),
}


def drawn(stains: tuple[tuple[float, ...], tuple[float, ...], float, float], size: int = 300) -> np.ndarray:
    """A square of two stains on glass, by Beer and Lambert's law, with nuclei of the first one."""
    rng = np.random.default_rng(0)
    nuclei = ndimage.gaussian_filter(rng.random((size, size)), 2)
    amount = np.where(nuclei > np.quantile(nuclei, 0.6), 0.8, 0.25)[..., None]
    density = amount * stains[2] * np.array(stains[0]) + 0.3 * stains[3] * np.array(stains[1])
    picture = np.full((SIDE, SIDE, 3), 243.0) + rng.normal(0, 1.5, (SIDE, SIDE, 3))
    picture[60 : 60 + size, 60 : 60 + size] *= 10**-density
    return picture


def note(path: Path, picture: np.ndarray, method: str = "hed") -> str:
    tifffile.imwrite(
        path, picture.clip(0, 255).astype(np.uint8), tile=(256, 256), photometric="rgb", compression="deflate",
        metadata=None,
    )  # fmt: skip
    with open_slide(path) as slide:
        seen = analyse_tissue(slide, Mpp(4, 4, "table"), TissueConfig(method=method), ArtifactConfig())
    return seen.mask.note


@pytest.mark.parametrize("stain", SPECIAL)
def test_a_special_stain_is_told_with_the_remedy(stain: str, tmp_path: Path) -> None:
    found = note(tmp_path / "s.tif", drawn(SPECIAL[stain]))
    assert "has no colour of H&E and was left out" in found
    assert "--set tissue.method=otsu" in found
    assert "H&E" not in note(tmp_path / "s.tif", drawn(SPECIAL[stain]), "otsu")


@pytest.mark.parametrize("stain", ORDINARY)
def test_stains_that_are_found_say_nothing(stain: str, tmp_path: Path) -> None:
    assert note(tmp_path / "s.tif", drawn(ORDINARY[stain])) == ""


@pytest.mark.parametrize("colour", [(40, 60, 160), (30, 140, 70), (60, 60, 64)])
def test_a_pen_mark_beside_tissue_says_nothing(colour: tuple[int, int, int], tmp_path: Path) -> None:
    picture = drawn(ORDINARY["h&e"])
    picture[400:430, 40:480] = colour
    assert note(tmp_path / "s.tif", picture) == ""


@pytest.mark.parametrize("grey", [5, 150])
def test_a_border_of_the_scan_says_nothing(grey: int, tmp_path: Path) -> None:
    picture = drawn(ORDINARY["h&e"], 150)
    picture[:, 360:] = grey
    assert note(tmp_path / "s.tif", picture) == ""


def test_empty_glass_says_nothing(tmp_path: Path) -> None:
    assert note(tmp_path / "s.tif", drawn(ORDINARY["h&e"], 1)) == ""
