"""Metrics of slide-level predictions, their intervals and comparisons."""

from __future__ import annotations

from wsi_ncmi.metrics.calibration import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)
from wsi_ncmi.metrics.classification import METRICS, class_table, classification_metrics
from wsi_ncmi.metrics.confusion import confusion_matrix

__all__ = [
    "METRICS",
    "apply_temperature",
    "class_table",
    "classification_metrics",
    "confusion_matrix",
    "expected_calibration_error",
    "fit_temperature",
    "reliability_bins",
]
