"""``metrics.json`` against the models that document it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from wsi_ncmi.metrics import evaluate_predictions
from wsi_ncmi.metrics.metrics_file import MetricsFile, metrics_json_schema

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def table(classes, *, folds=3, centre=True, patients=24):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(len(classes)), 2 * patients)
    frame = pd.DataFrame(
        {
            "slide_id": [f"s{i}" for i in range(2 * patients)],
            "case_id": [f"p{i // 2}" for i in range(2 * patients)],
            "fold": [i // 2 % folds for i in range(2 * patients)],
            "seed": 0,
            "label": [classes[i % len(classes)] for i in range(2 * patients)],
            "prediction": [classes[k] for k in p.argmax(axis=1)],
        }
    )
    for k, name in enumerate(classes):
        frame[f"p_{name}"] = p[:, k]
    return frame.assign(centre=[f"c{i // 2 % 2}" for i in range(2 * patients)]) if centre else frame


@pytest.mark.parametrize(
    ("classes", "folds", "centre"),
    [(("a", "b", "c"), 3, True), (("negative", "itc", "micro", "macro"), 1, False), (("a", "b"), 2, True)],
)
def test_every_evaluation_is_as_documented(classes, folds, centre):
    frame = table(classes, folds=folds, centre=centre)
    content = json.loads(
        json.dumps(evaluate_predictions(frame, classes, resamples=50).to_json(), allow_nan=False)
    )
    read = MetricsFile.model_validate(content)
    assert read.macro_f1.value == content["macro_f1"]["value"]
    assert (read.staging is None) == ("itc" not in classes)
    MetricsFile.model_validate({"loss": "ncmi", **content, "losses": {"ncmi": content, "ce": content}})


def test_a_class_without_slides_is_as_documented():
    frame = table(("a", "b")).assign(p_c=0.0)
    content = evaluate_predictions(frame, ("a", "b", "c"), resamples=50).to_json()
    assert MetricsFile.model_validate(content).per_class["c"].auroc.value is None


def test_keys_that_nobody_documented_are_refused():
    content = evaluate_predictions(table(("a", "b")), ("a", "b"), resamples=50).to_json()
    with pytest.raises(ValidationError, match="surprise"):
        MetricsFile.model_validate({**content, "surprise": 1})
    with pytest.raises(ValidationError, match="macro_f1"):
        MetricsFile.model_validate({key: value for key, value in content.items() if key != "macro_f1"})


def test_the_schema_in_the_docs_is_the_one_in_force():
    written = json.loads((DOCS / "metrics.schema.json").read_text(encoding="utf-8"))
    assert written == metrics_json_schema()


def test_the_page_names_every_key():
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    schema = metrics_json_schema()
    keys = {key for part in (schema, *schema["$defs"].values()) for key in part["properties"]}
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


def test_rounding_makes_no_interval():
    """Alike probabilities: calibration error, Brier score and NCMI of resamples differ by their last bits."""
    frame = pd.DataFrame(
        [
            (f"s{i}", f"p{i}", 0, 0, "ABC"[i % 3], "ABC"[i % 3], *np.roll([0.9, 0.05, 0.05], i % 3))
            for i in range(18)
        ],
        columns=["slide_id", "case_id", "fold", "seed", "label", "prediction", "p_A", "p_B", "p_C"],
    )
    metrics = evaluate_predictions(frame, "ABC", resamples=200).metrics
    for name in ("ece", "brier", "nll", "cmi", "ncmi"):
        assert np.isnan(metrics[name].ci_low), name
        assert metrics[name].reason.startswith("interval not informative"), name
