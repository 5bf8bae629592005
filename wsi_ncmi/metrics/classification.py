"""Classification metrics of one set of predictions, each average named.

The headline is macro-F1 over all classes of the task (scikit-learn: ``average="macro", labels=classes,
zero_division=0``), never micro-F1, which is the accuracy.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics.calibration import brier_terms, expected_calibration_error, nll_terms
from wsi_ncmi.metrics.confusion import (
    CONFUSION_METRICS,
    check_probabilities,
    class_positions,
    confusion_matrix,
    confusion_metrics,
    per_class_metrics,
)
from wsi_ncmi.metrics.ranking import one_vs_rest_auroc, one_vs_rest_average_precision

METRICS = (*CONFUSION_METRICS, "auroc_macro_ovr", "auprc_macro", "brier", "nll", "ece")


def classification_metrics(
    y_true: Sequence[str] | NDArray[np.str_],
    probabilities: NDArray[np.floating],
    predictions: Sequence[str] | NDArray[np.str_],
    classes: Sequence[str],
) -> dict[str, float]:
    """Computes every metric of ``METRICS``.

    Args:
        y_true: (N,) class names.
        probabilities: (N, C) in the order of ``classes``; rows sum to 1 within 0.001. They are
            taken as they are: renormalising would break ties, and with them AUROC, by rounding.
        predictions: (N,) predicted class names; need not be the argmax (a calibrated decision may differ).
        classes: All classes of the task, in order (the order matters for the weighted kappas).

    Returns:
        Name → value. NaN where undefined: AUROC and AUPRC average over the classes with slides in and out of
        the class (every class of the task must qualify, else the macro average is NaN), kappa when truth and
        prediction are one and the same class.

    Raises:
        InputError: A class name outside ``classes``, a probability that is NaN, negative or doesn't sum to 1,
            or no slides.
    """
    truth, predicted = class_positions(y_true, classes), class_positions(predictions, classes)
    p = check_probabilities(probabilities, len(classes))
    if not len(truth) == len(predicted) == len(p):
        raise InputError(
            f"{len(truth)} labels, {len(predicted)} predictions and {len(p)} probability rows don't match."
        )
    matrix = confusion_matrix(truth, predicted, len(classes))
    values = {name: float(value) for name, value in confusion_metrics(matrix).items()}
    values["auroc_macro_ovr"] = float(one_vs_rest_auroc(truth, p).mean())
    values["auprc_macro"] = float(one_vs_rest_average_precision(truth, p).mean())
    values["brier"] = float(brier_terms(truth, p).mean())
    values["nll"] = float(nll_terms(truth, p).mean())
    values["ece"] = expected_calibration_error(truth, p)
    return values


def class_table(
    y_true: Sequence[str] | NDArray[np.str_],
    probabilities: NDArray[np.floating],
    predictions: Sequence[str] | NDArray[np.str_],
    classes: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1, support, AUROC and AUPRC: class → name → value (NaN = undefined)."""
    truth, predicted = class_positions(y_true, classes), class_positions(predictions, classes)
    p = check_probabilities(probabilities, len(classes))
    table = per_class_metrics(confusion_matrix(truth, predicted, len(classes)))
    table["auroc"] = one_vs_rest_auroc(truth, p)
    table["auprc"] = one_vs_rest_average_precision(truth, p)
    return {
        name: {metric: float(values[i]) for metric, values in table.items()} for i, name in enumerate(classes)
    }
