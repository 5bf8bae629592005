from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wsi_ncmi.features.stain import StainFitError, StainNormaliser, fit_stain
from wsi_ncmi.features.stain.methods import MacenkoModel
from wsi_ncmi.synthesis.centres import CENTRES

# Published by torchstain (numpy and torch back ends): HERef and maxCRef.
PUBLISHED = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
PUBLISHED_STRENGTHS = np.array([1.9705, 1.0308])


def unit(vector):
    return np.array(vector) / np.linalg.norm(vector)


def tissue(h, e, seed=0, size=200, glass=0.3, strength=(1.5, 1.0)):
    """An image whose every pixel is a mixture of two stains, by Beer and Lambert, rounded to grey levels."""
    rng = np.random.default_rng(seed)
    c = np.minimum(rng.gamma(1.5, 0.3, (size * size, 2)) * strength + 0.15, 1.7)
    kind = rng.random(size * size)
    c[kind < 0.15, 1] = 0.0  # stroma without nuclei and nuclei without cytoplasm: the pure stains
    c[(kind >= 0.15) & (kind < 0.3), 0] = 0.0
    c[rng.random(size * size) < glass] = 0
    rgb = 240 * np.exp(-c @ np.array([unit(h), unit(e)])) - 1
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8).reshape(size, size, 3)


def slow_macenko(source, target):
    """The published algorithm with loops and its own decomposition, as an independent reference."""

    def measure(image):
        od = [[-np.log((int(v) + 1) / 240) for v in pixel] for pixel in image.reshape(-1, 3)]
        stained = np.array([p for p in od if 3 >= min(p) >= 0.15])
        _, _, rows = np.linalg.svd(stained, full_matrices=False)
        first, second = rows[0] * np.sign(rows[0].sum()), rows[1]
        angle = [np.arctan2(p @ second, p @ first) for p in stained]
        ends = [np.cos(a) * first + np.sin(a) * second for a in np.percentile(angle, [1, 99])]
        h, e = sorted(ends, key=lambda v: -v[0])
        solved = np.array(
            [
                np.linalg.lstsq(np.array([h, e]).T, np.array(p), rcond=None)[0]
                for p in od
                if sum(p) / 3 >= 0.15 and min(p) <= 3
            ]
        )
        return np.array([h, e]).T, np.percentile(solved, 99, axis=0)

    s, s_max = measure(source)
    t, t_max = measure(target)
    out = []
    for pixel in source.reshape(-1, 3):
        od = -np.log((pixel.astype(float) + 1) / 240)
        c = np.linalg.lstsq(s, od, rcond=None)[0] * t_max / s_max
        out.append(240 * np.exp(-(t @ c)) - 1)
    return s, s_max, np.clip(np.array(out), 0, 255).reshape(source.shape)


def test_fit_and_change_equal_a_slow_reference():
    a = tissue(CENTRES[0].haematoxylin, CENTRES[0].eosin, seed=1, size=48)
    b = tissue(CENTRES[2].haematoxylin, CENTRES[2].eosin, seed=2, size=48, strength=(1.0, 1.3))
    matrix, strengths, expected = slow_macenko(a, b)
    source, target = fit_stain(a, "macenko"), fit_stain(b, "macenko")
    assert isinstance(source, MacenkoModel)
    np.testing.assert_allclose(source.matrix, matrix, atol=1e-9)
    np.testing.assert_allclose(source.strengths, strengths, rtol=1e-9)
    found = StainNormaliser(source, target).apply(a)
    # To the nearest grey level, up to float32 at a tie.
    assert np.abs(found - expected).max() <= 0.5 + 1e-3
    assert (found != a).mean() > 0.5


def test_the_built_in_target_is_the_published_one():
    target = MacenkoModel.builtin()
    np.testing.assert_array_equal(target.matrix, PUBLISHED)
    np.testing.assert_array_equal(target.strengths, PUBLISHED_STRENGTHS)
    np.testing.assert_allclose(np.linalg.norm(target.matrix, axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("centre", CENTRES, ids=lambda centre: centre.name)
def test_known_stain_vectors_are_found(centre):
    model = fit_stain(tissue(centre.haematoxylin, centre.eosin), "macenko")
    for found, true in ((model.haematoxylin, centre.haematoxylin), (model.eosin, centre.eosin)):
        assert np.degrees(np.arccos(np.clip(unit(found) @ unit(true), -1, 1))) < 5


def test_an_image_at_the_target_stays_as_it_is():
    image = tissue(PUBLISHED[:, 0], PUBLISHED[:, 1])
    own = fit_stain(image, "macenko")
    assert np.abs(StainNormaliser(own, own).apply(image).astype(int) - image).max() <= 2
    # … and one made of the target's own vectors and strengths.
    target = MacenkoModel.builtin()
    scale = np.array(target.strengths) / np.array(own.strengths)
    density = -np.log((image.reshape(-1, 3) + 1) / 240) @ np.linalg.pinv(PUBLISHED.T) * scale
    at_target = np.clip(np.rint(240 * np.exp(-density @ PUBLISHED.T) - 1), 0, 255).astype(np.uint8)
    at_target = at_target.reshape(image.shape)
    change = StainNormaliser(fit_stain(at_target, "macenko"), target).apply(at_target).astype(int) - at_target
    assert np.abs(change).max() <= 2


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_black_borders_and_ink_count_for_nothing(method):
    image = tissue(CENTRES[0].haematoxylin, CENTRES[0].eosin)
    alone = fit_stain(image, method)
    black = np.random.default_rng(0).integers(0, 10, (120, 200, 3)).astype(np.uint8)
    assert fit_stain(np.concatenate([image, black]), method) == alone


def test_the_share_of_glass_changes_nothing_much():
    much = fit_stain(tissue(CENTRES[0].haematoxylin, CENTRES[0].eosin, glass=0.69), "macenko")
    little = fit_stain(tissue(CENTRES[0].haematoxylin, CENTRES[0].eosin, glass=0.0), "macenko")
    np.testing.assert_allclose(much.strengths, little.strengths, rtol=0.08)
    np.testing.assert_allclose(much.matrix, little.matrix, atol=0.02)


def angle_deg(a, b):
    return np.degrees(np.arccos(np.clip(unit(a) @ unit(b), -1, 1)))


def fitted(h, e, seed):
    """An image of two stains and their fit; None where they are too alike for one."""
    image = tissue(h, e, seed, size=96)
    try:
        return image, fit_stain(image, "macenko")
    except StainFitError:
        assert angle_deg(h, e) < 12
        return image, None


H = st.tuples(st.floats(0.5, 0.8), st.floats(0.5, 0.9), st.floats(0.2, 0.45))
E = st.tuples(st.floats(0.05, 0.25), st.floats(0.75, 0.99), st.floats(0.3, 0.6))
SEED = st.integers(0, 1000)
# Below it, pixels of eosin alone let so much red light through that the rule of dense pixels leaves them out.
DENSE_RED = 0.16


@settings(max_examples=25)
@given(H, E, SEED)
@example((0.5, 0.5, 0.203125), (0.0933889989056311, 0.75, 0.3046875), 149)
def test_any_two_stains_are_found(h, e, seed):
    _, model = fitted(h, e, seed)
    if model is not None:
        assert angle_deg(model.haematoxylin, h) < 0.5
        assert angle_deg(model.eosin, e) < (0.5 if unit(e)[0] >= DENSE_RED else 9)


@settings(max_examples=25)
@given(H, E, SEED)
@example((0.5, 0.5, 0.203125), (0.0933889989056311, 0.75, 0.3046875), 149)
def test_any_two_stains_come_to_the_target(h, e, seed):
    image, model = fitted(h, e, seed)
    if model is None:
        return
    target = MacenkoModel.builtin()
    # Every mixture of the stains as measured becomes that of the target's, to the rounding of grey levels.
    parts = np.stack(np.meshgrid(*[np.linspace(0, 1, 12)] * 2), -1).reshape(-1, 2)
    colours, wanted = (
        240 * np.exp(-(parts * each.strengths) @ each.matrix.T) - 1 for each in (model, target)
    )
    found = StainNormaliser(model, target).apply(np.clip(np.rint(colours), 0, 255).astype(np.uint8))
    np.testing.assert_allclose(found, np.clip(wanted, 0, 255), atol=3)
    # Measured again, it is the target's, if both fits see the same pixels.
    if unit(e)[0] >= DENSE_RED:
        again = fit_stain(StainNormaliser(model, target).apply(image), "macenko")
        np.testing.assert_allclose(again.matrix, target.matrix, atol=0.015)
        np.testing.assert_allclose(again.strengths, target.strengths, rtol=0.05)


def noisy(colour, seed=0):
    noise = np.random.default_rng(seed).integers(-1, 2, (128, 128, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((64, 64, 3), 245, np.uint8), "only 0 pixels"),
        (np.zeros((0, 64, 64, 3), np.uint8), "only 0 pixels"),
        (np.full((64, 64, 3), 120, np.uint8), "a single colour"),
        (np.zeros((64, 64, 3), np.uint8), "only 0 pixels"),
        (noisy((150, 90, 120)), "a single colour"),
        (tissue((0.3, 0.8, 0.5), (0.3, 0.8, 0.5)), "a single colour"),
        (np.repeat(np.arange(4096).reshape(64, 64, 1) % 200, 3, axis=2).astype(np.uint8), "a single colour"),
    ],
    ids=["glass", "no tiles", "constant", "black", "constant with noise", "one stain", "grey"],
)
def test_what_has_no_two_stains_is_refused(image, message):
    with pytest.raises(StainFitError, match=message):
        fit_stain(image, "macenko")


def test_a_stain_that_is_nearly_absent_is_refused():
    faint = tissue((0.65, 0.70, 0.29), (0.2, 0.9, 0.4), strength=(1.0, 1.0)).reshape(-1, 3)
    od = -np.log((faint + 1) / 240) @ np.linalg.pinv(
        np.array([unit((0.65, 0.70, 0.29)), unit((0.2, 0.9, 0.4))])
    )
    od[:, 1] *= 0.01
    od[:, 0] += 0.6
    rgb = 240 * np.exp(-od @ np.array([unit((0.65, 0.70, 0.29)), unit((0.2, 0.9, 0.4))])) - 1
    with pytest.raises(StainFitError, match=r"nearly absent|a single colour"):
        fit_stain(np.clip(np.rint(rgb), 0, 255).astype(np.uint8).reshape(1, -1, 3), "macenko")
