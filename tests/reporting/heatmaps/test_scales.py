"""The two scales, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from tests.reporting.heatmaps.tiles import values
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.reporting.heatmaps import TileLayer, TileValues
from wsi_ncmi.reporting.heatmaps.values import COLOUR_TABLE, colours_of, scale_ticks, scale_title, scaled


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.7, 1.0]), min_size=1, max_size=30))
def test_percentiles_are_mid_ranks(numbers: list[float]) -> None:
    layer = TileLayer("x", np.array(numbers, np.float32))
    expected = (rankdata(layer.values) - 0.5) / len(numbers)
    np.testing.assert_allclose(scaled(layer, "percentile"), expected, atol=1e-6)


def test_absolute_attention_is_a_multiple_of_even_attention() -> None:
    multiples = np.array([1 / 64, 1 / 16, 0.25, 1, 4, 16, 64], np.float32)
    values_ = multiples / len(multiples)
    layer = TileLayer("attention", values_, "attention")
    np.testing.assert_allclose(scaled(layer, "absolute"), [0, 0, 0.25, 0.5, 0.75, 1, 1], atol=1e-6)
    # What stands at a tick is what is there.
    ticks = {words: place for place, words in scale_ticks(layer, "absolute")}
    assert ticks["1/4"] == 0.25
    assert ticks["1"] == 0.5


def test_absolute_evidence_is_the_probability() -> None:
    layer = TileLayer("evidence a", np.array([0, 0.3, 1], np.float32), "evidence")
    np.testing.assert_allclose(scaled(layer, "absolute"), [0, 0.3, 1], atol=1e-7)


def test_every_scale_is_named() -> None:
    for layer in values().layers:
        assert "percentile" in scale_title(layer, "percentile")
        assert "absolute" in scale_title(layer, "absolute")
        assert layer.name in scale_title(layer, "absolute")
        for scale in ("percentile", "absolute"):  # Pillow's own font draws boxes for other signs
            assert all(words.isascii() for _, words in scale_ticks(layer, scale))


def test_wrong_input_is_told() -> None:
    tiles = values()
    with pytest.raises(InputError, match="choose percentile or absolute"):
        scaled(tiles.layers[0], "log")
    with pytest.raises(InputError, match="choose one of attention, evidence a"):
        tiles.layer("evidence d")
    with pytest.raises(InputError, match="3 tiles but"):
        TileValues(
            "s", np.zeros((3, 2), np.int64), (1, 1), (9, 9), (TileLayer("x", np.zeros(2, np.float32)),)
        )
    with pytest.raises(InputError, match="size of the tiles"):
        TileValues("s", np.zeros((3, 2), np.int64), (0, 0), (9, 9))


def test_colours_rise_in_brightness() -> None:
    luminance = COLOUR_TABLE.astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) >= -0.5).all()
    np.testing.assert_array_equal(colours_of(np.array([0.0, 1.0, 2.0, -1.0])), COLOUR_TABLE[[0, 255, 255, 0]])
