from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics import evaluate_predictions, information_metrics
from wsi_ncmi.metrics.confusion import class_positions
from wsi_ncmi.metrics.information import InformationSums


def _kl(a, b):
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)


def _slow(p, y, form):
    present = sorted(set(y.tolist()))
    centroid = {c: p[y == c].mean(axis=0) for c in present}
    n = len(y)
    concentration = sum(_kl(p[i], centroid[y[i]]) for i in range(n)) / n
    if form == "pairwise":
        gap = sum(-(p[i] * np.log(p[k])).sum() for i in range(n) for k in range(n) if y[i] != y[k]) / n**2
    else:
        gap = sum(_kl(centroid[j], p[i]) for i in range(n) for j in present if j != y[i]) / n
        gap /= p.shape[1] - 1
    return concentration, gap


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(6, 25), st.sampled_from(["pairwise", "centroid"]))
def test_equals_a_slow_loop(seed, n, form):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(3), rng.integers(0, 3, n - 3)])
    p = rng.dirichlet(np.ones(3), n)
    p = (p + 1e-4) / (p + 1e-4).sum(1, keepdims=True)
    found = information_metrics(p, y, form)
    concentration, gap = _slow(p, y, form)
    assert found["cmi"] == pytest.approx(concentration, abs=1e-9)
    assert found["gamma"] == pytest.approx(gap)
    assert found["ncmi"] == pytest.approx(concentration / gap, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(2, 4), st.booleans())
def test_sums_equal_repeated_observations(seed, n, classes, extreme):
    rng = np.random.default_rng(seed)
    y, p = rng.integers(0, classes, n), rng.dirichlet(np.full(classes, 0.05 if extreme else 1.0), n)
    if extreme:
        p[0] = np.eye(classes)[0]
    weights = np.concatenate([np.ones((1, n), int), rng.integers(0, 3, (3, n))])
    weights[:, 0] += 1
    found = InformationSums(p, y, np.arange(n), n).values(weights.astype(float))
    for i, w in enumerate(weights):
        expected = information_metrics(np.repeat(p, w, axis=0), np.repeat(y, w))
        for name, value in expected.items():
            assert found[name][i] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), name


def test_better_separated_predictions_have_less_ncmi():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    values = [
        information_metrics(np.stack([rng.dirichlet(1 + sharp * np.eye(3)[c]) for c in y]), y)["ncmi"]
        for sharp in (0.0, 3.0, 30.0)
    ]
    assert values[0] > values[1] > values[2] > 0


def test_degenerate_inputs():
    certain = information_metrics(np.eye(2)[[0, 1, 0]], np.array([0, 1, 0]))
    assert certain["cmi"] == pytest.approx(0.0, abs=1e-12)
    assert math.isfinite(certain["gamma"])
    assert certain["gamma"] > 10
    alone = information_metrics(np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([1, 1]))
    assert alone["cmi"] > 0
    assert math.isnan(alone["gamma"])
    assert math.isnan(alone["ncmi"])
    with pytest.raises(InputError, match="NaN"):
        information_metrics(np.array([[math.nan, 0.5]]), np.array([0]))


def test_evaluation_reports_the_mean_over_seeds():
    import pandas as pd

    rng = np.random.default_rng(0)
    classes = ("a", "b")
    rows = []
    for seed in range(2):
        for i in range(20):
            p = rng.dirichlet(np.ones(2))
            rows.append((f"s{i}", f"p{i}", i % 2, seed, classes[i % 2], classes[p.argmax()], *p))
    df = pd.DataFrame(
        rows, columns=["slide_id", "case_id", "fold", "seed", "label", "prediction", "p_a", "p_b"]
    )
    content = evaluate_predictions(df, classes, resamples=5).to_json()
    by_seed = [
        information_metrics(part[["p_a", "p_b"]].to_numpy(), class_positions(part["label"].tolist(), classes))
        for _, part in df.groupby("seed")
    ]
    for name in ("cmi", "gamma", "ncmi"):
        assert content[name]["value"] == pytest.approx(np.mean([values[name] for values in by_seed]))
        assert content[name]["ci_low"] < content[name]["value"] < content[name]["ci_high"]
