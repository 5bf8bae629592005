from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from wsi_ncmi.metrics import evaluate_predictions
from wsi_ncmi.reporting import ReportInput


def predictions(
    classes=("ADI", "TUM", "NORM"), *, patients=24, slides=2, seeds=2, folds=3, skill=1.5, centre=True
):
    """A predictions table as training leaves it."""
    rng = np.random.default_rng(7)
    n, c = patients * slides, len(classes)
    label = np.arange(n) // slides % c
    rows = []
    for seed in range(seeds):
        z = rng.normal(size=(n, c))
        z[np.arange(n), label] += skill
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        for i in range(n):
            patient = i // slides
            row = {"slide_id": f"s{i:03d}", "case_id": f"p{patient:02d}", "fold": patient % folds, "seed": seed,
                   "label": classes[label[i]], "prediction": classes[int(p[i].argmax())]}  # fmt: skip
            row |= {f"p_{name}": p[i, j] for j, name in enumerate(classes)}
            rows.append(row | ({"centre": f"c{patient % 2}"} if centre else {}))
    return pd.DataFrame(rows)


def curves(*, folds=2, seeds=2, epochs=6, loss=None):
    rows = [
        {"fold": fold, "seed": seed, "epoch": epoch, "train_loss": 1 / epoch, "val_loss": 1.2 / epoch,
         "val_macro_f1": 0.9 - 0.5 / epoch, "val_cmi": 0.3 / epoch, "val_gamma": 1.0 - 0.5 / epoch}
        | ({"loss": loss} if loss else {})
        for fold in range(folds) for seed in range(seeds) for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def report_input(frame=None, **more) -> ReportInput:
    """The least a report can be made from, and whatever is given beside it."""
    frame = predictions() if frame is None else frame
    classes = tuple(column[2:] for column in frame.columns if column.startswith("p_"))
    evaluation = evaluate_predictions(frame, classes, resamples=50)
    return ReportInput(**{"title": "Test", "predictions": frame, "evaluations": {"ncmi": evaluation}, **more})


@pytest.fixture(scope="session")
def make():
    """Builders of inputs, for tests that need their own."""

    class Make:
        predictions = staticmethod(predictions)
        curves = staticmethod(curves)
        report_input = staticmethod(report_input)

    return Make
