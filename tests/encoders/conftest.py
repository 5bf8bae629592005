from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from wsi_ncmi.encoders.network import _warn_random


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    _warn_random.cache_clear()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def lung_probe(real_data):
    """Macro-F1 of a linear probe on real lung tiles, 5-fold by source tile, features as the cache keeps them."""
    with (real_data / "tiles" / "tiles.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    chosen = set(sorted({row["source_id"] for row in rows})[::3])  # a third of the sources, for speed
    rows = [row for row in rows if row["source_id"] in chosen]
    pixels = np.stack(
        [np.asarray(Image.open(real_data / "tiles" / row["file"]).convert("RGB")) for row in rows]
    )

    def probe(encoder) -> float:
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import f1_score
        from sklearn.model_selection import GroupKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        labels = np.array([row["label"] for row in rows])
        features = encoder.encode(pixels).astype(np.float16).astype(np.float32)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        sources = [row["source_id"] for row in rows]
        predicted = cross_val_predict(model, features, labels, groups=sources, cv=GroupKFold(5))
        return float(f1_score(labels, predicted, average="macro"))

    return probe
