from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.features.stain import (
    StainConfig,
    StainNormaliser,
    fit_stain,
    sample_positions,
    stain_target,
)
from wsi_ncmi.features.stain.density import MAX_PIXELS, sample_pixels
from wsi_ncmi.synthesis.centres import CENTRES

from .test_macenko import tissue

METHODS = ("macenko", "reinhard")
SLIDE = tissue(CENTRES[0].haematoxylin, CENTRES[0].eosin)


@pytest.mark.parametrize("method", METHODS)
def test_two_centres_come_together(method):
    """The measured figure: mean colours of tissue of five centres, before and after."""
    target = stain_target(StainConfig(method=method))
    before, after = [], []
    for i, centre in enumerate(CENTRES):
        strength = (1.5 * centre.haematoxylin_strength, centre.eosin_strength)
        image = tissue(centre.haematoxylin, centre.eosin, seed=i, strength=strength)
        shown = image.mean(axis=2) < 200
        before.append(image[shown].mean(axis=0))
        after.append(target.normaliser(image[None]).apply(image)[shown].mean(axis=0))
    apart = [np.linalg.norm(np.ptp(np.array(colours), axis=0)) for colours in (before, after)]
    assert apart[1] < (0.5 if method == "macenko" else 0.2) * apart[0], apart


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=30, deadline=None)
@given(pixels=hnp.arrays(np.uint8, st.tuples(st.integers(0, 40), st.just(3))), cut=st.integers(0, 40))
def test_a_colour_does_not_depend_on_its_company(method, pixels, cut):
    normaliser = stain_target(StainConfig(method=method)).normaliser(SLIDE[None])
    whole = normaliser.apply(pixels)
    assert whole.dtype == np.uint8
    parts = [normaliser.apply(part) for part in (pixels[:cut], pixels[cut:])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    alone = [normaliser.apply(pixel[None])[0] for pixel in pixels[:5]]
    np.testing.assert_array_equal(np.array(alone).reshape(-1, 3), whole[:5])


@pytest.mark.parametrize("method", METHODS)
def test_shapes_types_and_memory_order(method):
    normaliser = stain_target(StainConfig(method=method)).normaliser(SLIDE[None])
    tiles = np.stack([SLIDE] * 3)
    kept = tiles.copy()
    out = normaliser.apply(tiles)
    assert out.shape == tiles.shape
    np.testing.assert_array_equal(tiles, kept)
    np.testing.assert_array_equal(out[2], normaliser.apply(SLIDE))
    turned = np.asfortranarray(SLIDE)
    np.testing.assert_array_equal(normaliser.apply(turned), out[0])
    assert normaliser.apply(tiles[:0]).shape == (0, *SLIDE.shape)
    for wrong in (SLIDE.astype(np.float32), SLIDE[..., :2], SLIDE[0, 0]):
        with pytest.raises(ValueError, match="uint8"):
            normaliser.apply(wrong)


@pytest.mark.parametrize("method", METHODS)
def test_a_normaliser_travels_and_names_itself(method):
    normaliser = stain_target(StainConfig(method=method)).normaliser(SLIDE[None])
    again = pickle.loads(pickle.dumps(normaliser))
    assert again.identity == normaliser.identity
    np.testing.assert_array_equal(again.apply(SLIDE), normaliser.apply(SLIDE))
    told = json.loads(normaliser.identity)
    assert told["source"]["method"] == told["target"]["method"] == method
    assert fit_stain(SLIDE, method) == normaliser.source
    assert fit_stain(255 - SLIDE // 2, "reinhard") != normaliser.source


def test_methods_do_not_mix_and_unknown_ones_are_refused():
    with pytest.raises(ValueError, match="measured by macenko"):
        StainNormaliser(fit_stain(SLIDE, "macenko"), fit_stain(SLIDE, "reinhard"))
    with pytest.raises(ValueError, match="no stain normalisation 'vahadane'"):
        fit_stain(SLIDE, "vahadane")
    with pytest.raises(ValueError, match="uint8"):
        fit_stain(SLIDE.astype(float), "macenko")


def test_large_samples_are_thinned_evenly():
    tiles = np.zeros((40, 256, 256, 3), np.uint8)
    tiles[..., 1] = np.arange(256)[None, None, :]
    tiles[..., 0] = np.arange(40)[:, None, None]
    sample = sample_pixels(tiles)
    assert MAX_PIXELS / 2 < len(sample) <= MAX_PIXELS
    assert len(np.unique(sample[:, 0])) == 40
    assert len(np.unique(sample[:, 1])) == 256
    assert sample_pixels(tiles[0]).shape == (65536, 3)


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_sampled_tiles_are_spread_and_distinct(n_tiles, wanted):
    positions = sample_positions(n_tiles, wanted)
    assert len(positions) == min(n_tiles, wanted)
    if len(positions):
        assert positions[0] >= 0
        assert positions[-1] < n_tiles
        gaps = np.diff(np.concatenate([positions, [positions[0] + n_tiles]]))
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1 or n_tiles % len(positions)


def test_the_target_of_a_job(tmp_path):
    assert stain_target(StainConfig()) is None
    builtin = stain_target(StainConfig(method="macenko"))
    assert json.loads(builtin.identity)["target"] == "builtin"
    path = tmp_path / "reference.png"
    Image.fromarray(SLIDE).save(path)
    own = stain_target(StainConfig(method="macenko", reference=path))
    assert own.model == fit_stain(SLIDE, "macenko")
    told = json.loads(own.identity)
    assert told["target"].startswith("sha256:")
    assert len(told["target"]) == 7 + 64
    assert str(tmp_path) not in own.identity
    assert told["parameters"] == {"alpha": 1, "beta": 0.15, "black": 3, "strength": 99, "white": 240}
    assert sorted(told)[0] == "method"
    copy = tmp_path / "elsewhere.png"
    copy.write_bytes(path.read_bytes())
    assert stain_target(StainConfig(method="macenko", reference=copy)) == own
    identities = {own.identity, builtin.identity}
    identities.add(stain_target(StainConfig(method="reinhard")).identity)
    identities.add(stain_target(StainConfig(method="macenko", sample_tiles=8)).identity)
    assert len(identities) == 4
    change = own.normaliser(SLIDE[None]).apply(SLIDE).astype(int) - SLIDE
    assert np.abs(change).max() <= 2
    assert pickle.loads(pickle.dumps(own)) == own


def test_faulty_references(tmp_path):
    path = tmp_path / "reference.png"
    with pytest.raises(InputError, match=r"reference\.png can't be read as an image"):
        stain_target(StainConfig(method="macenko", reference=path))
    path.write_text("no image")
    with pytest.raises(InputError, match="can't be read as an image"):
        stain_target(StainConfig(method="macenko", reference=path))
    Image.fromarray(np.full((64, 64, 3), 250, np.uint8)).save(path)
    with pytest.raises(InputError, match=r"can't be used: only 0 pixels .*; give an image of tissue"):
        stain_target(StainConfig(method="macenko", reference=path))
    Image.new("1", (20_000, 6_000)).save(path)
    with pytest.raises(InputError, match="20000 × 6000 pixels"):
        stain_target(StainConfig(method="macenko", reference=path))


@pytest.mark.real_data
@pytest.mark.parametrize("method", METHODS)
def test_real_tiles(real_data, method):
    """Real tiles as one slide come near the target; light pixels, cut at white, keep them from meeting it."""
    files = sorted((real_data / "tiles").rglob("*.jp*g"))[::60]
    tiles = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    target = stain_target(StainConfig(method=method))
    normaliser = target.normaliser(tiles)
    again = fit_stain(normaliser.apply(tiles), method)
    if method == "macenko":
        for found, wanted in zip(again.matrix.T, target.model.matrix.T, strict=True):
            assert np.degrees(np.arccos(np.clip(found @ wanted, -1, 1))) < 8
        np.testing.assert_allclose(again.strengths, target.model.strengths, rtol=0.5)
    else:
        np.testing.assert_allclose(again.mean, target.model.mean, atol=0.2)
