"""Reporting items after TRIPOD+AI: filled where the run knows, left to the authors by name where not."""

from __future__ import annotations

from wsi_ncmi.reporting import FlowStep, render_summary
from wsi_ncmi.reporting.summary import AUTHORS, reporting_items


def items_of(data):
    return {item.number: item.text for item in reporting_items(data)}


def test_what_a_run_knows_is_filled_in(make):
    part = {"slides": 10, "patients": 5, "classes": {}, "centres": {}}
    data = make.report_input(
        title="RCC",
        splits={
            "kind": "k-fold",
            "options": {"group": "case_id", "stratify": ["label", "centre"], "validation": 0.2},
            "counts": [dict.fromkeys(("train", "validation", "test"), part)] * 5,
        },
        flow=(FlowStep("slides found", 50), FlowStep("used", 48, 24, {"no tissue": 2})),
        config={
            "model": {"name": "abmil"},
            "training": {"epochs": 20, "learning_rate": 5e-4, "weight_decay": 0.01, "selection": "macro_f1", "sampler": "shuffle"},
        },
        features={"encoder": "timm:resnet18", "encoder_weights_sha256": "ab" * 32, "mpp_target": 0.5, "tile_px": 256, "overlap_px": 0},
        hashes={"labels": "cd" * 32},
        provenance={"software": "wsi-ncmi 1"},
        leaks=(),
        compared={"patient": 48},
    )  # fmt: skip
    items = items_of(data)
    assert "48 slides of 24 patients, 3 classes" in items["1"]
    assert "2 centres (c0: 24 slides of 12 patients" in items["6a"]
    assert "2 slides: no tissue" in items["6b"]
    assert "256 px at 0.5 µm/px" in items["7"]
    assert "timm:resnet18 (weights SHA-256 abababababab…)" in items["9a–c"]
    assert items["12a"] == (
        "k-fold, 5 folds, grouped by patient, stratified by label and centre, 20 % of the training patients for "
        "validation"
    )
    assert "abmil, loss ncmi, AdamW, 20 epochs" in items["12c"]
    assert "macro-F1 over all classes" in items["12e"]
    assert "temperature" in items["12f"]
    assert "shuffle" in items["13"]
    assert "other folds" in items["15"]
    assert "no leak found" in items["16"]
    assert items["18f"] == "wsi-ncmi 1"
    assert items["20a"] == "50 slides found → 48 used"
    assert "Fold 0: training 10 slides of 5 patients" in items["21"]
    assert items["21"].endswith("…")
    assert f"{data.headline.metrics['macro_f1'].value:.3f}" in items["23a"]
    assert "c1: accuracy" in items["23b"]
    assert "Only 24 patients" in items["26"]
    for number in ("3a–c", "5b", "17", "18a–d", "19", "25", "27a–c"):
        assert items[number] == AUTHORS
    text = render_summary(data)
    assert all(f"| {number} |" in text for number in items)


def test_what_nobody_knows_is_left_to_the_authors(make):
    items = items_of(make.report_input(make.predictions(centre=False, seeds=1, folds=1)))
    for number in ("6a", "7", "9a–c", "12a", "12c", "12d", "16", "20a", "21", "22", "23b", "24"):
        assert items[number] == AUTHORS, number
    assert items["12f"] == "None"
    assert "the same slides" in items["15"]
