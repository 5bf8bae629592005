"""The hue of bars against that beside them, sample by sample."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wsi_ncmi.tissue.fold_windows import bar_contrasts
from wsi_ncmi.tissue.ridge_filter import DIRECTIONS, SIDE_UM


def test_hues_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(5)
    red, green = (rng.uniform(0.01, 0.8, (70, 90)).astype(np.float32) for _ in range(2))
    solid = rng.random((70, 90)) < 0.7
    y, x = rng.integers(0, 70, 60), rng.integers(0, 90, 60)
    direction = rng.integers(0, DIRECTIONS, 60).astype(np.uint8)
    found, sides = bar_contrasts(red, green, solid, (y, x), direction, (3.0, 2.5), 60.0, 7)
    hue = np.log(np.maximum(red, 0.02) / np.maximum(green, 0.02))

    def mean(i: int, side: float) -> float:
        angle = direction[i] * math.pi / DIRECTIONS
        values = []
        for along in np.linspace(-60.0, 60.0, 15):
            dx = np.rint((along * math.cos(angle) - side * math.sin(angle)) / 3.0)
            dy = np.rint((along * math.sin(angle) + side * math.cos(angle)) / 2.5)
            row, column = int(np.clip(y[i] + dy, 0, 69)), int(np.clip(x[i] + dx, 0, 89))
            if solid[row, column]:
                values.append(hue[row, column])
        return float(np.mean(values)) if values else 0.0

    expected = [
        max(abs(mean(i, 0.0) - mean(i, SIDE_UM)), abs(mean(i, 0.0) - mean(i, -SIDE_UM))) for i in range(60)
    ]
    assert found == pytest.approx(expected, abs=0.002)
    hue = np.log(np.maximum(green, 0.02))
    assert sides == pytest.approx([abs(mean(i, SIDE_UM) - mean(i, -SIDE_UM)) for i in range(60)], abs=0.002)


def test_a_side_without_tissue_says_nothing_of_its_density() -> None:
    green = np.full((80, 80), 0.3, np.float32)
    solid = np.zeros((80, 80), bool)
    solid[:45] = True
    middle = np.array([40]), np.array([40])
    along = np.zeros(1, np.uint8)  # along x: one side lies above, in the tissue, one below
    _, sides = bar_contrasts(green, green, solid, middle, along, (3.0, 3.0), 60.0, 7)
    assert sides == [0.0]


def test_no_place_no_hue() -> None:
    plane = np.ones((20, 20), np.float32)
    none = np.empty(0, np.int64)
    found = bar_contrasts(plane, plane, plane > 0, (none, none), none.astype(np.uint8), (3.0, 3.0), 60.0, 7)
    assert list(map(len, found)) == [0, 0]
