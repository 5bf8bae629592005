"""Out-of-distribution slides: bounds that hold on new slides of the same kind, and what crosses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.prediction.models import COLOUR, sample
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.prediction.ood import GaussianModel, OodDetector, SlideProperties
from wsi_ncmi.prediction.ood_fitting import fit_ood_detector, sample_slide, tiles_a_slide

WIDTH = 24


@pytest.fixture(scope="module")
def detector() -> OodDetector:
    return fit_ood_detector(sample(i, WIDTH) for i in range(200))


def test_new_slides_of_the_same_kind_are_seldom_flagged(detector: OodDetector) -> None:
    flagged = 0
    for number in range(1000, 1300):
        slide = sample(number, WIDTH)
        flagged += bool(detector.flags(slide.tiles, slide.properties))
    # Two bounds at 1 % each, estimated from 200 slides.
    assert flagged / 300 < 0.06


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_shift_of_all_features_is_flagged(detector: OodDetector, shift: float) -> None:
    flags = {flag.name: flag for flag in detector.flags(sample(5, WIDTH, shift).tiles, SlideProperties())}
    assert flags["features"].score > 1
    assert detector.score(sample(5, WIDTH, shift).tiles) == flags["features"].score


def test_a_part_of_foreign_tiles_is_flagged(detector: OodDetector) -> None:
    tiles = sample(7, WIDTH).tiles.copy()
    tiles[::5] += 8  # a fifth of them
    flags = {flag.name: flag for flag in detector.flags(tiles, SlideProperties())}
    assert "20%" in flags["foreign_tiles"].words or "2" in flags["foreign_tiles"].words
    assert flags["foreign_tiles"].score > 1


def test_too_few_tiles(detector: OodDetector) -> None:
    assert "few_tiles" not in {f.name for f in detector.flags(sample(7, WIDTH).tiles[:30], SlideProperties())}
    flags = detector.flags(sample(7, WIDTH).tiles[:3], SlideProperties())
    assert "few_tiles" in {flag.name for flag in flags}
    assert any("3 tiles, the smallest training slide has 60" in flag.words for flag in flags)


@pytest.mark.parametrize(
    ("mpp", "flagged"), [(0.25, False), (0.5, False), (0.24, False), (0.2, True), (1.0, True), (None, False)]
)
def test_resolution_outside_of_the_training(detector: OodDetector, mpp: float | None, flagged: bool) -> None:
    names = {flag.name for flag in detector.flags(sample(7, WIDTH).tiles, SlideProperties(mpp))}
    assert ("resolution" in names) == flagged


@pytest.mark.parametrize("measure", sorted(COLOUR))
def test_stain_outside_of_the_training(detector: OodDetector, measure: str) -> None:
    tiles = sample(7, WIDTH).tiles
    assert not [f for f in detector.flags(tiles, SlideProperties(0.5, COLOUR)) if f.name == "stain"]
    (flag,) = [
        f for f in detector.flags(tiles, SlideProperties(0.5, {**COLOUR, measure: 2.0})) if f.name == "stain"
    ]
    assert "2.000" in flag.words
    assert flag.score > 1


def test_the_distance_is_that_of_a_full_gaussian_where_all_axes_are_kept() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) * 5 + 3
    model = GaussianModel.fit(rows, 10)
    assert model.components.shape[0] >= 3
    full = GaussianModel(model.mean, model.scale, np.eye(4, dtype=np.float32), np.ones(4, np.float32), 1.0)
    z = (rows - rows.mean(0)) / rows.std(0)
    inverse = np.linalg.inv(np.cov(z.T))
    expected = np.sqrt(np.einsum("ni,ij,nj->n", z, inverse, z) / 4)
    if model.components.shape[0] == 4:
        np.testing.assert_allclose(model.distances(rows), expected, rtol=1e-3)
    np.testing.assert_allclose(full.distances(rows), np.sqrt((z**2).sum(1) / 4), rtol=1e-3)
    assert np.sqrt((model.distances(rows) ** 2).mean()) == pytest.approx(1, rel=0.02)


def test_units_of_the_features_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 8))
    unit = np.array([1, 1e3, 1e-3, 5, 1, 1, 1, 1])
    new = rng.normal(size=(5, 8)) * 3
    np.testing.assert_allclose(
        GaussianModel.fit(rows, 4).distances(new),
        GaussianModel.fit(rows * unit, 4).distances(new * unit),
        rtol=1e-3,
    )


def test_features_that_never_vary_count_for_nothing() -> None:
    rows = np.random.default_rng(2).normal(size=(100, 5))
    rows[:, 2] = 7.0
    model = GaussianModel.fit(rows, 3)
    away = rows[:3].copy()
    away[:, 2] = 1000.0
    np.testing.assert_allclose(model.distances(away), model.distances(rows[:3]))


def test_tensors_keep_the_order_of_their_numbers(detector: OodDetector) -> None:
    # safetensors writes the bytes as they lie: an array in column order would come back scrambled.
    for tensor in detector.tensors().values():
        assert tensor.flags["C_CONTIGUOUS"]


def test_wrong_input_is_told(detector: OodDetector) -> None:
    with pytest.raises(InputError, match="10 slides"):
        fit_ood_detector(sample(i) for i in range(5))
    with pytest.raises(InputError, match="width 24"):
        detector.flags(sample(1, 6).tiles, SlideProperties())
    with pytest.raises(InputError, match="can't be read"):
        OodDetector.load({}, {}, "x")


@pytest.mark.real_data
def test_kidney_patients_are_seldom_flagged_and_lung_often(real_data: Path) -> None:
    """Statistics of a quarter of the kidney patients, on others and on lung; the same encoder made both."""
    kidney, lung = (
        open_bag_source(real_data / "tcga_bags" / f"tcga_{name}.npz") for name in ("rcc", "nsclc")
    )
    cohort = kidney.embedded_cohort()
    assert cohort is not None
    patient = {row.slide_id: row.case_id for row in cohort.rows}
    quarter = set(np.random.default_rng(0).permutation(sorted(set(patient.values())))[::4].tolist())
    train = [slide_id for slide_id in kidney.slide_ids if patient[slide_id] in quarter]
    detector = fit_ood_detector(
        sample_slide(patient[i], kidney.load(i), SlideProperties(), tiles_a_slide(len(train))) for i in train
    )
    held_out = [i for i in kidney.slide_ids if patient[i] not in quarter][::2]
    foreign = lung.slide_ids[::8]
    false_alarms = np.mean([bool(detector.flags(kidney.load(i), SlideProperties())) for i in held_out])
    found = np.mean([bool(detector.flags(lung.load(i), SlideProperties())) for i in foreign])
    assert false_alarms < 0.03
    assert found > 0.15
    a = [detector.score(kidney.load(i)) for i in held_out]
    b = [detector.score(lung.load(i)) for i in foreign]
    assert roc_auc_score([0] * len(a) + [1] * len(b), [*a, *b]) > 0.9
