"""Temperature and threshold: chosen on validation slides, held against brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import beta, norm
from sklearn.metrics import log_loss

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.prediction.calibration import Calibration, fit_calibration, selective_table, supported

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
        told = log_loss(one["label"], q / q.sum(axis=1, keepdims=True), labels=list(CLASSES), normalize=False)
        return told - norm.logpdf(np.log(t), scale=0.25)

    best = minimize_scalar(loss, bounds=(0.5, 5), method="bounded").x
    assert found.temperature == pytest.approx(best, rel=1e-3)
    assert found.temperature == pytest.approx(2.5, rel=0.15)
    assert found.abstain_below == 0.0
    assert found.slides == 600
    wrong = one["label"].to_numpy() != np.array(CLASSES)[p.argmax(axis=1)]
    assert found.errors == wrong.sum()
    fresh = selective_table(table(600, sharp=2.5, seed=1), CLASSES, found)
    assert fresh["ece"] < fresh["ece_before"] / 2


def test_a_temperature_that_does_not_prove_itself_is_not_taken() -> None:
    taken = [fit_calibration(table(12, sharp=1.0, seed=s), CLASSES).temperature != 1 for s in range(30)]
    assert not any(taken)
    taken = [fit_calibration(table(40, sharp=1.0, seed=s), CLASSES).temperature != 1 for s in range(30)]
    assert sum(taken) < 10  # by chance alone it would look better on half of them


def test_one_fold_is_parted_by_patients() -> None:
    found = fit_calibration(table(600, sharp=2.5, folds=1), CLASSES)
    assert found.temperature == pytest.approx(2.5, rel=0.15)
    assert "1 fold, " in found.fitted_on


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


def without_errors(slides: int, p: float, seeds: int = 1) -> pd.DataFrame:
    rest = (1 - p) / 2
    return pd.DataFrame(
        {"slide_id": f"s{i}", "case_id": f"p{i}", "fold": i % 3, "seed": s, "label": CLASSES[i % 3],
         **{f"p_{name}": p if k == i % 3 else rest for k, name in enumerate(CLASSES)}}
        for i in range(slides) for s in range(seeds)
    )  # fmt: skip


@pytest.mark.parametrize(("slides", "p"), [(2, 0.5), (15, 0.7), (15, 0.95), (15, 0.999999), (200, 0.6)])
def test_slides_without_an_error_bear_no_temperature(slides: int, p: float) -> None:
    frame = without_errors(slides, p)
    found = fit_calibration(frame, CLASSES)
    assert (found.temperature, found.slides, found.errors) == (1.0, slides, 0)
    # As many hits as there were errors: nor does a part without a single hit.
    turned = frame.assign(label=[CLASSES[(i + 1) % 3] for i in range(slides)])
    assert fit_calibration(turned, CLASSES).temperature == 1.0


@pytest.mark.parametrize("slides", [2, 15, 29])
def test_fewer_than_thirty_slides_bear_no_temperature(slides: int) -> None:
    for seed in range(5):
        frame = table(slides, sharp=20.0, folds=1, seeds=1, seed=seed)
        assert fit_calibration(frame, CLASSES).temperature == 1
    assert fit_calibration(table(60, sharp=20.0, folds=1, seeds=1), CLASSES).temperature > 2


def test_a_temperature_lies_between_one_and_what_the_model_needs() -> None:
    for slides, sharp in [(30, 0.05), (30, 1.0), (30, 20.0), (90, 0.1), (90, 10.0)]:
        for seed in range(5):
            found = fit_calibration(table(slides, sharp=sharp, folds=1, seeds=1, seed=seed), CLASSES)
            assert min(1.0, sharp) / 2 < found.temperature < max(1.0, sharp) * 2


def test_a_handful_of_errors_can_not_overrun_the_prior() -> None:
    # One unsure error among thirty: the likelihood alone would go far below 1/2.
    frame = without_errors(30, 0.8)
    frame.loc[0, "label"] = "b"
    found = fit_calibration(frame, CLASSES)
    assert 0.5 < found.temperature < 2
    assert found.errors == 1


def test_what_is_shown_is_what_the_validation_supports() -> None:
    found = fit_calibration(without_errors(18, 0.9), CLASSES)
    # Laplace: the mean of the posterior of 6 hits of 6 under a flat prior.
    assert found.supported == {name: pytest.approx(beta.mean(6 + 1, 1)) for name in CLASSES}
    assert found.shown(0.9999987, "a") == "> 87.5 %"
    assert found.shown(0.0000013, "a") == "< 12.5 %"
    assert found.shown(0.87, "a") == "87.0 %"
    assert Calibration(slides=15).shown(1.0, "x") == "> 94.1 %"  # 0.1.0 told slides alone
    assert Calibration().shown(0.9951, "x") == "> 99.0 %"
    never = Calibration(slides=10, errors=0, supported={"a": 0.9, "b": 0.5})
    assert never.shown(0.8, "b") == "> 50.0 %"
    many = Calibration(slides=10**6, errors=5, supported={"a": 0.999999})
    assert many.shown(1.0, "a") == "> 99.9 %"
    assert many.shown(0.9989, "a") == "99.9 %"
    assert many.shown(0.0, "a") == "< 0.1 %"


@pytest.mark.parametrize(
    ("wrong", "hits", "tries"),
    [
        ([0] * 20, 20, 20),
        ([0] * 19 + [1], 19, 20),  # all of them; down to the first error is the same
        ([0] * 10 + [1] + [0] * 9, 19, 20),
        ([1] + [0] * 19, 19, 20),  # the surest is wrong: all of them say more
        ([0] * 10 + [1] * 10, 10, 11),  # down to the first error
        ([1] * 20, 0, 1),
        ([], 0, 0),
    ],
)
def test_errors_lower_what_is_supported(wrong: list[int], hits: int, tries: int) -> None:
    n = len(wrong)
    order = np.random.default_rng(0).permutation(n)
    confidence = np.linspace(0.99, 0.6, n)[order]
    found = supported(np.arange(n).astype(str)[order], confidence, np.array(wrong, dtype=bool)[order])
    assert found >= beta.mean(hits + 1, tries - hits + 1) - 1e-12
    assert found == pytest.approx(
        max(beta.mean(n - sum(wrong) + 1, sum(wrong) + 1), beta.mean(hits + 1, tries - hits + 1))
    )


def test_a_patient_counts_once_however_many_slides_and_folds() -> None:
    frame = without_errors(6, 0.9)
    again = pd.concat([frame, frame.assign(fold=frame["fold"] + 3)]).assign(case_id="one")
    found = fit_calibration(again, CLASSES)
    assert (found.slides, found.supported) == (6, dict.fromkeys(CLASSES, 2 / 3))


def test_words_say_what_it_rests_on() -> None:
    words = fit_calibration(without_errors(15, 0.9), CLASSES).basis
    assert "15 validation slides, none of them wrong" in words
    assert "(a 85.7 %, b 85.7 %, c 85.7 %)" in words
    assert "No validation slides" in Calibration().basis
    assert Calibration(0.05, 0.9999987, "x", 15).threshold == "0.999998700"
    assert Calibration(1.0, 0.9, "x", 15).threshold == "0.900"


@pytest.mark.parametrize(
    ("temperature", "told"), [(0.05000037, True), (19.99998, True), (0.06, False), (1, False)]
)
def test_a_temperature_at_a_limit_of_0_1_0_is_named(temperature: float, told: bool) -> None:
    assert ("export the model again" in Calibration(temperature, 0.5, "x", 15).at_limit) == told
    assert not Calibration(temperature, 0.5, "x", 15, 3).at_limit  # this version knows no limits


def test_calibration_goes_through_json() -> None:
    found = Calibration(1.7, 0.4, "some slides", 9, 2, {"a": 0.75, "b": 0.8})
    assert Calibration.from_json(found.to_json(), "x") == found
    # A bundle of 0.1.0 keeps its form, of which the digest is made.
    old = {"temperature": 1.7, "abstain_below": 0.4, "fitted_on": "some slides", "slides": 9}
    assert Calibration.from_json(old, "x").to_json() == old
    assert Calibration.from_json({**old, "errors": 0, "supported": {}}, "x").errors == 0
    with pytest.raises(InputError, match="no readable calibration"):
        Calibration.from_json({**old, "slides": float("inf")}, "x")
    np.testing.assert_array_equal(Calibration().apply(np.array([0.2, 0.8])), [0.2, 0.8])
