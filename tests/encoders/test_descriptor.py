from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.fft import dctn
from skimage.draw import disk
from skimage.filters import threshold_otsu

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.encoders.descriptor import DescriptorEncoder, describe_tile, descriptor_names
from wsi_ncmi.encoders.descriptor_nuclei import nuclear_measures, nuclear_measures_names, otsu_code
from wsi_ncmi.encoders.descriptor_planes import dct_energies, halve, pattern_histogram, separate_stains


def _value(vector, name, names=None):
    return float(vector[(names or descriptor_names()).index(name)])


def test_width_names_and_identity():
    encoder = load_encoder(EncoderConfig())
    assert isinstance(encoder, DescriptorEncoder)
    assert 64 <= encoder.info.embed_dim <= 256
    assert len(set(descriptor_names())) == encoder.info.embed_dim
    assert (encoder.info.name, encoder.info.weights_sha256, encoder.info.backend) == (
        "descriptor",
        "none",
        "numpy",
    )
    assert encoder.encode(np.zeros((0, 256, 256, 3), np.uint8)).shape == (0, encoder.info.embed_dim)


@settings(max_examples=25, deadline=None)
@given(
    tile=st.one_of(
        arrays(np.uint8, (32, 32, 3)),
        arrays(np.uint8, (40, 40, 3), elements=st.sampled_from([0, 255])),
        st.builds(
            lambda colour, px: np.full((px, px, 3), colour, np.uint8),
            st.tuples(*[st.integers(0, 255)] * 3),
            st.integers(32, 70),
        ),
    )
)
def test_finite_and_fit_for_float16_whatever_the_pixels(tile):
    vector = describe_tile(tile)
    assert np.isfinite(vector).all()
    assert np.abs(vector).max() < 100


def test_a_tile_is_described_alone(tiles):
    encoder = DescriptorEncoder()
    together = encoder.encode(tiles)
    for row, tile in zip(together, tiles, strict=True):
        assert np.array_equal(encoder.encode(tile[None])[0], row)


def test_blank_tile_has_no_tissue_and_no_nuclei():
    vector = describe_tile(np.full((64, 64, 3), 250, np.uint8))
    for name in ("tissue share", "haematoxylin mean", "nuclear share", "nuclei per 1000 px"):
        assert _value(vector, name) == pytest.approx(0, abs=1e-6)


def test_planes_are_those_of_ruifrok_and_johnston(tiles):
    tile = tiles[0].copy()
    tile[0, :16] = 255  # glass: white point 255
    tile[:8] = 255
    planes = separate_stains(tile).planes
    unit = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    density = -np.log((tile.astype(float) + 1) / 256)
    expected = density @ np.linalg.inv(unit)
    np.testing.assert_allclose(planes[:3], np.moveaxis(expected, -1, 0), atol=2e-4)


def test_white_point_takes_out_a_tint():
    rng = np.random.default_rng(1)
    tile = rng.integers(60, 200, (64, 64, 3)).astype(float)
    tile[:16] = 255
    tinted = tile * np.array([1.0, 0.95, 0.9])
    plain, corrected = (separate_stains(np.rint(each).astype(np.uint8)).planes for each in (tile, tinted))
    assert np.abs(plain - corrected)[:, 16:].mean() < 0.02


def test_patterns_equal_a_plain_loop(tiles):
    codes = tiles[0, ..., 0]
    # scikit-image's own puts the diagonal neighbours on a circle and counts ties as ones: written out instead.
    histogram = np.zeros(10)
    offsets = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
    for y in range(1, 63):
        for x in range(1, 63):
            bits = [int(codes[y + dy, x + dx] > codes[y, x]) for dy, dx in offsets]
            changes = sum(bits[i] != bits[i - 1] for i in range(8))
            histogram[sum(bits) if changes <= 2 else 9] += 1
    np.testing.assert_allclose(pattern_histogram(codes), histogram / histogram.sum(), atol=1e-12)
    assert pattern_histogram(np.full((20, 20), 7, np.uint8))[0] == 1


def test_dct_energies_equal_scipy():
    plane = np.random.default_rng(2).normal(size=(33, 40)).astype(np.float32)
    blocks = plane[:32].reshape(4, 8, 5, 8).transpose(0, 2, 1, 3)
    energy = (dctn(blocks, axes=(2, 3), norm="ortho") ** 2).mean(axis=(0, 1))
    rows, columns = np.triu_indices(8)
    expected = np.log10(1e-6 + (energy + energy.T)[rows, columns] / 2)[1:]
    np.testing.assert_allclose(dct_energies(plane), expected, atol=1e-4)


def test_texture_does_not_change_when_the_tile_is_turned():
    plane = np.random.default_rng(3).normal(size=(64, 64)).astype(np.float32)
    np.testing.assert_allclose(dct_energies(plane), dct_energies(np.ascontiguousarray(plane.T)), atol=1e-5)
    assert halve(np.arange(12, dtype=np.float32).reshape(3, 4)).tolist() == [[2.5, 4.5]]


@given(arrays(np.uint8, 64, elements=st.integers(0, 255)).filter(lambda codes: np.ptp(codes) > 0))
def test_otsu_equals_scikit_image(codes):
    histogram = np.bincount(codes, minlength=256)

    def variance(threshold):
        low, high = codes[codes <= threshold].astype(float), codes[codes > threshold].astype(float)
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    # Gaps of the histogram make several thresholds equally good.
    assert variance(otsu_code(histogram)) == pytest.approx(variance(threshold_otsu(hist=histogram)))


def test_nuclei_are_counted_and_measured():
    plane = np.full((128, 128), 0.05, np.float32)
    centres = [(20, 20), (20, 60), (60, 20), (100, 100), (60, 70)]
    for centre in centres:
        plane[disk(centre, 6.5)] = 1.0
    eosin = np.full_like(plane, 0.3)
    names = nuclear_measures_names()
    measures = nuclear_measures(plane, eosin)
    area = disk((0, 0), 6.5)[0].size
    assert _value(measures, "nuclei per 1000 px", names) == pytest.approx(1000 * 5 / 128**2)
    assert _value(measures, "log2 area mean", names) == pytest.approx(np.log2(area))
    assert _value(measures, "nuclear share", names) == pytest.approx(5 * area / 128**2)
    assert _value(measures, "nuclear eccentricity mean", names) < 0.05
    assert _value(measures, "nuclear fill mean", names) == pytest.approx(1, abs=0.02)
    assert _value(measures, "nuclear contrast", names) == pytest.approx(0.95, abs=1e-5)
    assert _value(measures, "nuclear eosin mean", names) == pytest.approx(0.3, abs=1e-6)
    plane[30:34, 90:120] = 1.0  # a rod
    assert _value(nuclear_measures(plane, eosin), "nuclear eccentricity mean", names) > 0.1


def test_small_or_rectangular_tiles_are_refused():
    encoder = DescriptorEncoder()
    with pytest.raises(InputError, match="at least 32 px, not 31 px"):
        encoder.encode(np.zeros((1, 31, 31, 3), np.uint8))
    with pytest.raises(ValueError, match="square"):
        encoder.encode(np.zeros((1, 64, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        encoder.encode(np.zeros((1, 64, 64, 3), np.float32))


@pytest.mark.real_data
def test_linear_probe_on_real_tissue(lung_probe):
    assert lung_probe(DescriptorEncoder()) > 0.88
