"""Metrics of slide-level predictions, their intervals and comparisons."""

from __future__ import annotations

from wsi_ncmi.metrics.calibration import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)
from wsi_ncmi.metrics.classification import METRICS, class_table, classification_metrics
from wsi_ncmi.metrics.comparison import PairedComparison, compare_paired, corrected_resampled_t_test
from wsi_ncmi.metrics.confusion import confusion_matrix
from wsi_ncmi.metrics.evaluate import evaluate_predictions, fold_metrics
from wsi_ncmi.metrics.evaluation import METRICS_SCHEMA, Estimate, Evaluation, Spread
from wsi_ncmi.metrics.information import information_metrics
from wsi_ncmi.metrics.predictions import check_predictions, classes_of, read_predictions
from wsi_ncmi.metrics.staging import STAGES, patient_stage, patient_stages, stage_kappa

__all__ = [
    "METRICS",
    "METRICS_SCHEMA",
    "STAGES",
    "Estimate",
    "Evaluation",
    "PairedComparison",
    "Spread",
    "apply_temperature",
    "check_predictions",
    "class_table",
    "classes_of",
    "classification_metrics",
    "compare_paired",
    "confusion_matrix",
    "corrected_resampled_t_test",
    "evaluate_predictions",
    "expected_calibration_error",
    "fit_temperature",
    "fold_metrics",
    "information_metrics",
    "patient_stage",
    "patient_stages",
    "read_predictions",
    "reliability_bins",
    "stage_kappa",
]
