"""Metrics as plain functions of arrays, and their bootstrap intervals.

Labels are class numbers or class names; probabilities are (N, C), or (N,) of class 1 of two. Where a metric
is of decisions and gets probabilities, the decision is their argmax. All values are those of the reports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsi_ncmi.core.arguments import described, whole_number
from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.values import is_empty
from wsi_ncmi.metrics.calibration import brier_terms, calibration_gaps, nll_terms
from wsi_ncmi.metrics.classification import one_vs_rest_areas
from wsi_ncmi.metrics.confusion import (
    UNORDERED,
    Tally,
    check_probabilities,
    class_positions,
    class_ranks,
    confusion_terms,
)
from wsi_ncmi.metrics.resampling import draw_multiplicities, leave_one_out
from wsi_ncmi.metrics.results import Estimate, estimate

_Floats = NDArray[np.float64]
_Weighted = Callable[[_Floats], _Floats]
"""Slide weights (R, N) → the metric of each row, (R,)."""


def macro_f1(y_true: ArrayLike, y_pred: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """Mean of the classes' F1; the headline.

    Args:
        y_true: (N,) class numbers or names.
        y_pred: (N,) the same of the predictions, or probabilities (N, C).
        classes: All classes of the task, also those without a slide, whose F1 is 0; None = those that occur,
            or with probabilities 0 … C − 1.

    Raises:
        InputError: Labels that are no classes, or arrays that don't fit each other.

    Example:
        >>> macro_f1(["LUAD", "LUSC", "LUSC"], ["LUAD", "LUSC", "LUAD"])
        0.6666666666666666
    """
    return _value("macro_f1", y_true, y_pred, classes)


def weighted_f1(y_true: ArrayLike, y_pred: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """Mean of the classes' F1 weighted by their slides; arguments as of :func:`macro_f1`."""
    return _value("weighted_f1", y_true, y_pred, classes)


def micro_f1(y_true: ArrayLike, y_pred: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """F1 over all decisions, which is the accuracy; arguments as of :func:`macro_f1`."""
    return _value("micro_f1", y_true, y_pred, classes)


def accuracy(y_true: ArrayLike, y_pred: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """Share of right decisions; arguments as of :func:`macro_f1`."""
    return _value("accuracy", y_true, y_pred, classes)


def balanced_accuracy(y_true: ArrayLike, y_pred: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """Mean recall of the classes that have slides; arguments as of :func:`macro_f1`."""
    return _value("balanced_accuracy", y_true, y_pred, classes)


def mcc(y_true: ArrayLike, y_pred: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """Matthews' correlation, Gorodkin's R_K for several classes; arguments as of :func:`macro_f1`."""
    return _value("mcc", y_true, y_pred, classes)


def kappa(y_true: ArrayLike, y_pred: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """Cohen's kappa; arguments as of :func:`macro_f1`; NaN where all is one class."""
    return _value("kappa", y_true, y_pred, classes)


def kappa_linear(y_true: ArrayLike, y_pred: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """Kappa with linear weights; arguments as of :func:`macro_f1`.

    The order of the classes is that of ``classes``, or of their numbers; CAMELYON-17's is known.
    """
    return _value("kappa_linear", y_true, y_pred, classes)


def kappa_quadratic(y_true: ArrayLike, y_pred: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """Kappa with quadratic weights; arguments and order as of :func:`kappa_linear`."""
    return _value("kappa_quadratic", y_true, y_pred, classes)


def auroc(y_true: ArrayLike, probabilities: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """Area under the ROC curve, for several classes the mean of each against the rest.

    Args:
        y_true: (N,) class numbers or names.
        probabilities: (N, C), rows that sum to 1; or (N,) of class 1 of two.
        classes: The classes in the order of the columns; None = the names of a table's columns, numbers
            from 0, or sorted names.

    Returns:
        The area; NaN where a class has no slide, or all.

    Raises:
        InputError: As :func:`macro_f1`, or no probabilities.
    """
    return _value("auroc", y_true, probabilities, classes)


def auprc(y_true: ArrayLike, probabilities: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """Average precision, the mean of each class against the rest; arguments as of :func:`auroc`."""
    return _value("auprc", y_true, probabilities, classes)


def brier(y_true: ArrayLike, probabilities: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """Brier score over all classes, 0 to 2 (of two classes twice the one-sided score); as :func:`auroc`."""
    return _value("brier", y_true, probabilities, classes)


def nll(y_true: ArrayLike, probabilities: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """Mean negative log-likelihood in nats (log loss); arguments as of :func:`auroc`."""
    return _value("nll", y_true, probabilities, classes)


def ece(y_true: ArrayLike, probabilities: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
    """Expected calibration error over 15 equal bins of the confidence; arguments as of :func:`auroc`."""
    return _value("ece", y_true, probabilities, classes)


def bootstrap(
    metric: str | Callable[..., float],
    y_true: ArrayLike,
    y_pred: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    classes: Sequence[Any] | None = None,
) -> Estimate:
    """A metric with its 95 % intervals from drawing patients (or slides) with replacement.

    Args:
        metric: A function of this module or its name; or any ``f(y_true, y_pred) → float``, which is called
            for every resample.
        y_true: (N,) class numbers or names.
        y_pred: Predictions (N,), or probabilities (N, C).
        groups: (N,) the patient of each slide: slides of one patient are drawn together. None = each its own.
        resamples: How many draws.
        seed: Seed of the draws.
        classes: As of the metric.

    Returns:
        Its ``value``, ``ci_low`` and ``ci_high`` (percentile), ``bca_low`` and ``bca_high``, and the
        ``reason`` where one is undefined.

    Raises:
        InputError: As the metric, another number of groups, an unknown metric, or no resamples.

    Example:
        >>> found = bootstrap("accuracy", [0, 1, 1, 0], [0, 1, 0, 0], groups=["a", "b", "b", "c"])
        >>> found.value, found.ci_low, found.ci_high
        (0.75, 0.5, 1.0)
    """
    resamples = whole_number(resamples, "The number of resamples of the bootstrap", 1)
    if seed is not None:
        seed = whole_number(seed, "The seed of the bootstrap", 0)
    own = _FUNCTIONS.get(metric) if isinstance(metric, str) else metric
    if own is None or not callable(own):
        raise InputError(f"There is no metric {described(metric)}; choose one of {', '.join(_FUNCTIONS)}.")
    count = len(_array(y_true))
    named = np.arange(count) if groups is None else _array(groups)
    if named.shape != (count,):
        raise InputError(f"There are groups of shape {named.shape} for {count} slides; give one for each.")
    if missing := sum(is_empty(str(name)) for name in named.tolist()):
        raise InputError(
            f"{counted(missing, 'slide')} of {count} have no group; give each slide its patient."
        )
    names, group = np.unique(named.astype(str) if named.dtype == object else named, return_inverse=True)
    name = getattr(own, "__name__", "")
    if _FUNCTIONS.get(name) is own:
        weighted = _prepared(name, y_true, y_pred, classes)
    else:
        truth, second = _array(y_true), _array(y_pred)
        if len(second) != count or classes is not None:
            raise InputError(
                f"A metric of your own takes as many predictions as labels, got {described(truth)} and "
                f"{described(second)}, and no classes=."
            )
        weighted = partial(_repeated, own, truth, second)
    draws = draw_multiplicities(len(names), resamples, seed, max(count, 1))
    drawn = np.concatenate([weighted(multiplicities[:, group]) for multiplicities in draws])
    left_out = weighted(leave_one_out(len(names))[:, group])
    shares = len(names) if name in ("accuracy", "micro_f1") else None
    return estimate(float(weighted(np.ones((1, count)))[0]), drawn, left_out, "undefined here", shares)


def _repeated(
    metric: Callable[..., float], y_true: NDArray[Any], y_pred: NDArray[Any], w: _Floats
) -> _Floats:
    rows = (np.repeat(np.arange(len(y_true)), weights.astype(np.int64)) for weights in w)
    values = [metric(y_true[row], y_pred[row]) if len(row) else np.nan for row in rows]
    try:
        return np.array([float(value) for value in values])
    except (TypeError, ValueError) as error:
        raise InputError(f"A metric gives one number, got {described(values[0])}.") from error


def _value(name: str, y_true: ArrayLike, y_pred: ArrayLike, classes: Sequence[Any] | None) -> float:
    weighted = _prepared(name, y_true, y_pred, classes)
    return float(weighted(np.ones((1, len(_array(y_true)))))[0])


def _prepared(name: str, y_true: ArrayLike, y_pred: ArrayLike, classes: Sequence[Any] | None) -> _Weighted:
    """The metric of these slides as a function of their weights.

    Raises:
        InputError: See :func:`macro_f1` and :func:`auroc`.
    """
    truth, second = _array(y_true), _array(y_pred)
    if truth.ndim != 1 or second.ndim not in (1, 2) or len(second) != len(truth) or not len(truth):
        raise InputError(
            f"Labels are (N,) and predictions (N,) or (N, C), N at least 1; got {described(truth)} and "
            f"{described(second)}."
        )
    if name in _OF_PROBABILITIES:
        p = _probabilities(second, truth)
        names = _named(_classes_of(y_pred, classes), p.shape[1], truth)
        positions, p = class_positions(_labels(truth), names), check_probabilities(p, len(names))
        return partial(_OF_PROBABILITIES[name], positions, p)
    if second.ndim == 2:
        names = _named(_classes_of(y_pred, classes), second.shape[1], truth)
        predicted = check_probabilities(second, len(names)).argmax(axis=1)
    else:
        known = {*_labels(truth), *_labels(second)}
        numbered = truth.dtype.kind in "iub"
        if classes is None and numbered != (second.dtype.kind in "iub"):
            raise InputError(
                "Labels and predictions are numbers in one and names in the other; give both alike."
            )
        names = _distinct(classes) if classes is not None else sorted(known, key=int if numbered else None)
        predicted = class_positions(_labels(second), names)
    positions = class_positions(_labels(truth), names)
    ranks = None
    if name in ("kappa_linear", "kappa_quadratic"):
        ordered = classes is not None or truth.dtype.kind in "iub"
        ranks = np.arange(len(names)) if ordered else class_ranks(names)
        if ranks is None:
            raise InputError(
                f"{name} is {UNORDERED.split(' (')[0]}; give classes= from the least to the most."
            )
    return partial(_of_tally, name, confusion_terms(positions, predicted, len(names), ranks), ranks)


def _array(values: Any) -> NDArray[Any]:
    """An array of at least one dimension, also of a tensor with a gradient, on a GPU or in bfloat16."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() and values.itemsize == 2 else values
    try:
        return np.atleast_1d(np.asarray(values))
    except ValueError as error:
        raise InputError(
            "Labels and predictions are arrays; got a list of lists of several lengths."
        ) from error


def _labels(values: Any) -> list[str]:
    array = np.asarray(values)
    if array.dtype.kind == "b":
        array = array.astype(int)
    if array.dtype.kind in "iuU" or (array.dtype.kind == "O" and all(isinstance(v, str) for v in array)):
        return [str(value) for value in array.tolist()]
    raise InputError(f"Labels are class numbers or class names, got {described(array)}.")


def _distinct(classes: Any) -> list[str]:
    if not np.ndim(classes) or isinstance(classes, set):
        raise InputError(f"The classes are given in a list, in their order; got {described(classes)}.")
    names = _labels(classes)
    if len(set(names)) < len(names):
        raise InputError(f"The classes {', '.join(names)} hold one twice; give each once.")
    return names


def _classes_of(probabilities: Any, classes: Sequence[Any] | None) -> Sequence[Any] | None:
    """The classes, also those that the columns of a table are named by."""
    columns = [str(name) for name in getattr(probabilities, "columns", ())]
    if columns == [str(number) for number in range(len(columns))]:
        return classes
    if classes is not None and set(columns) == set(names := _distinct(classes)) and columns != names:
        raise InputError(
            f"The columns of the probabilities are {', '.join(columns)} and the classes {', '.join(names)}; "
            "give both in one order."
        )
    return columns if classes is None else classes


def _probabilities(second: NDArray[Any], truth: NDArray[Any]) -> _Floats:
    if second.dtype.kind != "f":
        raise InputError(
            f"This metric needs probabilities (N, C), or (N,) of class 1, got {described(second)}."
        )
    p = second.astype(np.float64)
    return np.stack([1 - p, p], axis=1) if p.ndim == 1 else p


def _named(classes: Sequence[Any] | None, count: int, truth: NDArray[Any]) -> list[str]:
    """The names of the columns of probabilities."""
    if classes is not None:
        names = _distinct(classes)
    elif truth.dtype.kind in "iub":
        return [str(number) for number in range(count)]
    else:
        names = sorted(set(_labels(truth)))
    if len(names) != count:
        raise InputError(
            f"The probabilities have {count} columns for {len(names)} classes ({', '.join(names)}); give "
            "classes= in the order of the columns."
        )
    return names


def _of_tally(name: str, terms: _Floats, ranks: NDArray[np.int64] | None, w: _Floats) -> _Floats:
    return Tally.of_sums(w @ terms, ranks).overall()[name]


def _macro(which: int, y: NDArray[np.int64], p: _Floats, w: _Floats) -> _Floats:
    return np.asarray(one_vs_rest_areas(y, p, w)[which].mean(axis=-1))


def _mean(terms: Callable[..., _Floats], y: NDArray[np.int64], p: _Floats, w: _Floats) -> _Floats:
    with np.errstate(invalid="ignore"):
        return np.asarray(w @ terms(y, p) / w.sum(axis=1))


def _calibration_error(y: NDArray[np.int64], p: _Floats, w: _Floats) -> _Floats:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(w @ calibration_gaps(y, p)).sum(axis=1) / w.sum(axis=1))


_OF_PROBABILITIES: dict[str, Callable[..., _Floats]] = {
    "auroc": partial(_macro, 0),
    "auprc": partial(_macro, 1),
    "brier": partial(_mean, brier_terms),
    "nll": partial(_mean, nll_terms),
    "ece": _calibration_error,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    function.__name__: function
    for function in (
        macro_f1, weighted_f1, micro_f1, accuracy, balanced_accuracy, mcc, kappa, kappa_linear,
        kappa_quadratic, auroc, auprc, brier, nll, ece,
    )
}  # fmt: skip
