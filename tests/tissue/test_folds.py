"""Folds of a plain picture: how much of it, what is none, and what can't be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import Polygon
from shapely.geometry import box as rectangle

from wsi_ncmi.core.errors import SlideReadError
from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.synthesis.fields import draw_polygons
from wsi_ncmi.tissue import ARTIFACT_KINDS, ArtifactConfig, TissueAnalysis, TissueConfig, analyse_tissue
from wsi_ncmi.tissue.high_res_reader import HighResReader

SIDE = 1200
MPP = 1.0
EOSIN, NUCLEI = np.array([0.10, 0.38, 0.19]), np.array([0.40, 0.42, 0.17])
FOLD = ARTIFACT_KINDS.index("fold")
STRIP = Polygon([(300, 200), (340, 200), (760, 1000), (720, 1000)])  # 35 µm wide, 900 µm long


def picture(folder: Path, density: np.ndarray) -> Path:
    """Eosin with a little grain on glass; in the strip the density is another."""
    rng = np.random.default_rng(1)
    grain = 1.0 + 0.12 * rng.normal(size=(SIDE // 4, SIDE // 4)).repeat(4, 0).repeat(4, 1)
    inside = draw_polygons([STRIP], SIDE, SIDE, 1.0) > 0
    od = np.where(inside[..., None], density, EOSIN) * grain[..., None]
    od[:60], od[-60:], od[:, :60], od[:, -60:] = 0.0, 0.0, 0.0, 0.0
    Image.fromarray((240 * 10.0**-od).clip(0, 255).astype(np.uint8)).save(folder / "plain.png")
    return folder / "plain.png"


def examined(path: Path) -> TissueAnalysis:
    with open_slide(path) as slide:
        return analyse_tissue(slide, Mpp(MPP, MPP, "table"), TissueConfig(), ArtifactConfig())


def test_the_area_of_a_fold_is_known_to_parts_of_a_pixel(tmp_path: Path) -> None:
    found = examined(picture(tmp_path, 2.0 * EOSIN)).artifacts
    boxes = np.array(
        [(x, y, x + 100.0, y + 100.0) for y in range(300, 900, 50) for x in range(100, 1000, 50)]
    )
    shares = np.array([rectangle(*one).intersection(STRIP).area for one in boxes]) / 100.0**2
    scores = found.scores_in(boxes)[:, FOLD]
    assert shares.max() > 0.3
    assert np.abs(scores - shares).max() < 0.05
    assert np.abs(scores.sum() / shares.sum() - 1.0) < 0.1


def test_a_dense_layer_of_another_hue_is_no_fold(tmp_path: Path) -> None:
    """As dense as the fold, but with the hue of nuclei: epithelium in stroma."""
    layer = NUCLEI * (2.0 * EOSIN[1] / NUCLEI[1])
    assert not examined(picture(tmp_path, layer)).artifacts.where("fold").any()


def test_a_little_denser_is_no_fold(tmp_path: Path) -> None:
    assert not examined(picture(tmp_path, 1.15 * EOSIN)).artifacts.where("fold").any()


def test_what_cannot_be_read_again_has_no_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The overview could be read, a place of it can't: no score is made up, and the slide goes on."""
    path = picture(tmp_path, 2.0 * EOSIN)
    honest = HighResReader.read

    def broken(self: HighResReader, rows: slice, columns: slice) -> np.ndarray:
        if rows.start < 60:
            raise SlideReadError("plain.png: this part can't be read.")
        return honest(self, rows, columns)

    monkeypatch.setattr(HighResReader, "read", broken)
    fold = examined(path).artifacts.where("fold")
    rows = np.flatnonzero(fold.any(axis=1))
    assert rows.size
    assert rows.min() >= 60


@pytest.mark.parametrize(("beside", "fold"), [(1.0, True), (1.5, False)])
def test_a_layer_between_two_tissues_is_no_fold(tmp_path: Path, beside: float, fold: bool) -> None:
    """Skin's horny layer lies between epithelium and loose keratin; a fold has the same tissue on both sides."""
    path = picture(tmp_path, 2.4 * EOSIN)
    pixels = np.asarray(Image.open(path)).astype(float) / 240.0
    left = np.arange(SIDE) < (300 + 420 * np.clip((np.arange(SIDE)[:, None] - 200) / 800, 0, 1))
    left &= draw_polygons([STRIP], SIDE, SIDE, 1.0) == 0
    pixels[left] = pixels[left] ** beside
    Image.fromarray((240 * pixels).clip(0, 255).astype(np.uint8)).save(path)
    assert examined(path).artifacts.where("fold").any() == fold
    with open_slide(path) as slide:
        earlier = analyse_tissue(slide, Mpp(MPP, MPP, "table"), TissueConfig(), ArtifactConfig(detectors=4))
    assert earlier.artifacts.where("fold").any()
