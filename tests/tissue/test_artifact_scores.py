"""Counting of the artefact benchmark: which tiles are judged, and recall and precision from them."""

from __future__ import annotations

import numpy as np

from benchmarks.artifact_scores import KINDS, Tiles, recall_and_precision

PEN, FOLD, BORDER, BLUR = range(4)


def test_tiles_are_judged_by_their_kind() -> None:
    shares, scores = np.zeros((6, 4)), np.zeros((6, 4))
    tissue = np.array([1.0, 1.0, 1.0, 0.1, 0.1, 1.0])
    shares[0, FOLD], scores[0, FOLD] = 0.1, 0.1  # found at the very limit
    shares[1, FOLD], scores[1, PEN] = 0.2, 0.5  # taken for ink: missed as a fold, found as an artefact
    shares[2, BLUR], scores[2, BLUR] = 0.49, 0.9  # less than half of its tissue: falsely called
    shares[3, PEN], shares[3, BORDER], scores[3, BORDER] = 0.9, 0.5, 0.9  # little tissue: border alone
    scores[4, FOLD] = 0.9  # little tissue: not judged
    tiles = Tiles.of([{"shares": shares, "tissue": tissue, "scores": scores}], ["c"], 0.25)
    counts = {kind: tiles.counts(kind)[0].tolist() for kind in (*KINDS, "all")}
    assert counts == {
        "pen": [0, 1, 0], "fold": [2, 1, 1], "border": [1, 1, 1], "blur": [0, 1, 0], "all": [3, 4, 3],
    }  # fmt: skip
    assert recall_and_precision(np.array([3.0, 4.0, 3.0])) == (1.0, 0.75)
