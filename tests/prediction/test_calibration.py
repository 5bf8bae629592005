"""Temperature and threshold: chosen on validation slides, held against brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.prediction.calibration import Calibration, fit_calibration, selective_table

CLASSES = ("a", "b", "c")


def table(slides: int, *, sharp: float, folds: int = 3, seeds: int = 2, seed: int = 0) -> pd.DataFrame:
    """Probabilities that are ``sharp`` times as extreme as the truth bears."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(slides, 3)) * 2
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = [CLASSES[rng.choice(3, p=p)] for p in honest]
    told = np.exp(logits * sharp) / np.exp(logits * sharp).sum(axis=1, keepdims=True)
    rows = [
        {"slide_id": f"s{i:04d}", "case_id": f"p{i // 2}", "fold": i % folds, "seed": s, "label": labels[i],
         **{f"p_{name}": told[i, k] for k, name in enumerate(CLASSES)}}
        for i in range(slides) for s in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_overconfidence_is_taken_back() -> None:
    frame = table(600, sharp=2.5)
    found = fit_calibration(frame, CLASSES, coverage=1)
    one = frame[frame["seed"] == 0]
    p = one[["p_a", "p_b", "p_c"]].to_numpy()

    def loss(t: float) -> float:
        q = p ** (1 / t)
        return log_loss(one["label"], q / q.sum(axis=1, keepdims=True), labels=list(CLASSES))

    best = minimize_scalar(loss, bounds=(0.5, 5), method="bounded").x
    assert found.temperature == pytest.approx(best, rel=1e-3)
    assert found.temperature == pytest.approx(2.5, rel=0.15)
    assert found.abstain_below == 0.0
    fresh = selective_table(table(600, sharp=2.5, seed=1), CLASSES, found)
    assert fresh["ece"] < fresh["ece_before"] / 2


def test_a_temperature_that_does_not_prove_itself_is_not_taken() -> None:
    taken = [fit_calibration(table(12, sharp=1.0, seed=s), CLASSES).temperature != 1 for s in range(30)]
    assert 0 < sum(taken) < 20  # by chance alone it would often look better on so few


def test_one_fold_is_parted_by_patients() -> None:
    found = fit_calibration(table(600, sharp=2.5, folds=1), CLASSES)
    assert found.temperature == pytest.approx(2.5, rel=0.15)
    assert "1 folds" in found.fitted_on


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95, 1.0])
def test_the_threshold_answers_the_share_that_was_asked_for(coverage: float) -> None:
    frame = table(300, sharp=1.5)
    found = fit_calibration(frame, CLASSES, coverage=coverage)
    calibrated = found.apply(frame[frame["seed"] == 0][["p_a", "p_b", "p_c"]].to_numpy())
    assert (calibrated.max(axis=1) >= found.abstain_below).mean() == pytest.approx(coverage, abs=1 / 300)
    # More is right where it answers than everywhere: it abstains from the unsure.
    told = selective_table(table(300, sharp=1.5, seed=2), CLASSES, found)
    assert told["accuracy_answered"] >= told["accuracy"]
    assert told["slides"] == 300


def test_seeds_are_averaged_before_anything_else() -> None:
    frame = table(60, sharp=1.0)
    other = frame.copy()
    columns = ["p_a", "p_b", "p_c"]
    other.loc[other["seed"] == 1, columns] = 1 / 3
    mean = frame.copy()
    mean[columns] = (frame[columns].to_numpy() + 1 / 3) / 2
    assert fit_calibration(other, CLASSES).abstain_below == pytest.approx(
        fit_calibration(mean, CLASSES).abstain_below
    )


def test_wrong_input_is_told() -> None:
    frame = table(12, sharp=1.0)
    with pytest.raises(InputError, match="coverage"):
        fit_calibration(frame, CLASSES, coverage=0)
    with pytest.raises(InputError, match="no validation slides"):
        fit_calibration(frame[:0], CLASSES)
    with pytest.raises(InputError, match="p_d"):
        fit_calibration(frame, (*CLASSES, "d"))


def test_calibration_goes_through_json() -> None:
    found = Calibration(1.7, 0.4, "some slides", 9)
    assert Calibration.from_json(found.to_json(), "x") == found
    np.testing.assert_array_equal(Calibration().apply(np.array([0.2, 0.8])), [0.2, 0.8])
