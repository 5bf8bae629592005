from __future__ import annotations

import numpy as np
import pytest

from wsi_ncmi.features.stain import StainFitError, StainNormaliser, fit_stain
from wsi_ncmi.features.stain.methods import ReinhardModel
from wsi_ncmi.synthesis.centres import CENTRES

from .test_macenko import noisy, tissue


def slow_lab(pixel):
    r, g, b = (max(int(v), 1) for v in pixel)
    long = 0.3811 * r + 0.5783 * g + 0.0402 * b
    medium = 0.1967 * r + 0.7244 * g + 0.0782 * b
    short = 0.0241 * r + 0.1288 * g + 0.8444 * b
    lo, me, sh = np.log(long), np.log(medium), np.log(short)
    return (lo + me + sh) / np.sqrt(3), (lo + me - 2 * sh) / np.sqrt(6), (lo - me) / np.sqrt(2)


def slow_rgb(l, a, b):  # noqa: E741
    l, a, b = l / np.sqrt(3), a / np.sqrt(6), b / np.sqrt(2)  # noqa: E741
    lms = np.exp([l + a + b, l + a - b, l - 2 * a])
    matrix = [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]]
    return np.linalg.solve(matrix, lms)


def slow_reinhard(source, target):
    def measure(image):
        od = [[-np.log((int(v) + 1) / 240) for v in p] for p in image.reshape(-1, 3)]
        pixels = [
            p for p, d in zip(image.reshape(-1, 3), od, strict=True) if sum(d) / 3 >= 0.15 and min(d) <= 3
        ]
        lab = np.array([slow_lab(p) for p in pixels])
        return lab.mean(axis=0), lab.std(axis=0)

    (s_mean, s_std), (t_mean, t_std) = measure(source), measure(target)
    out = [
        slow_rgb(*((np.array(slow_lab(p)) - s_mean) / s_std * t_std + t_mean)) for p in source.reshape(-1, 3)
    ]
    return s_mean, s_std, np.clip(out, 0, 255).reshape(source.shape)


def test_fit_and_change_equal_a_slow_reference():
    a = tissue(CENTRES[0].haematoxylin, CENTRES[0].eosin, seed=1, size=48)
    b = tissue(CENTRES[2].haematoxylin, CENTRES[2].eosin, seed=2, size=48, strength=(1.0, 1.3))
    mean, spread, expected = slow_reinhard(a, b)
    source, target = fit_stain(a, "reinhard"), fit_stain(b, "reinhard")
    np.testing.assert_allclose(source.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(source.spread, spread, rtol=1e-9)
    found = StainNormaliser(source, target).apply(a)
    assert np.abs(found - expected).max() <= 0.5 + 2e-3
    assert (found != a).mean() > 0.5


def test_an_image_at_the_target_stays_as_it_is():
    image = tissue((0.65, 0.70, 0.29), (0.2, 0.9, 0.4))
    image.reshape(-1, 3)[:256] = np.arange(256)[:, None]
    own = fit_stain(image, "reinhard")
    assert np.abs(StainNormaliser(own, own).apply(image).astype(int) - image).max() <= 1


def test_the_built_in_target_is_the_published_one():
    # HistomicsTK's documented colour standard (Amgad et al. 2019).
    target = ReinhardModel.builtin()
    assert target.mean == (8.74108109, -0.12440419, 0.0444982)
    assert target.spread == (0.6135447, 0.10989545, 0.0286032)


def test_tissue_comes_to_the_target_and_glass_does_not_count():
    much, little = (tissue((0.65, 0.70, 0.29), (0.2, 0.9, 0.4), glass=glass) for glass in (0.69, 0.0))
    a, b = fit_stain(much, "reinhard"), fit_stain(little, "reinhard")
    np.testing.assert_allclose(a.mean, b.mean, atol=0.02)
    target = fit_stain(tissue((0.563, 0.72, 0.406), (0.216, 0.801, 0.558)), "reinhard")
    again = fit_stain(StainNormaliser(a, target).apply(much), "reinhard")
    np.testing.assert_allclose(again.mean, target.mean, atol=0.02)
    np.testing.assert_allclose(again.spread, target.spread, rtol=0.05)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((64, 64, 3), 245, np.uint8), "only 0 pixels"),
        (np.full((64, 64, 3), 120, np.uint8), "no contrast or no colour"),
        (np.zeros((64, 64, 3), np.uint8), "only 0 pixels"),
        (noisy((150, 90, 120)), "no contrast or no colour"),
        (np.repeat(np.arange(4096).reshape(64, 64, 1) % 200, 3, axis=2).astype(np.uint8), "no contrast"),
    ],
    ids=["glass", "constant", "black", "constant with noise", "grey"],
)
def test_what_has_no_colours_is_refused(image, message):
    with pytest.raises(StainFitError, match=message):
        fit_stain(image, "reinhard")
