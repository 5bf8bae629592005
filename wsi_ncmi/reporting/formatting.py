"""Metric names and explanations, number formats, and paths without the folders of this machine."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from wsi_ncmi.metrics import Estimate
from wsi_ncmi.metrics.results import NOT_INFORMATIVE

NCMI_EVIDENCE = (
    "NCMI is ahead of cross-entropy where classes are uneven, labels are wrong or hospitals are new; it "
    "is level on full data of few classes and on rare lesions of new hospitals, and behind in image "
    "training (3 points after 20 epochs, 1 after 150)."
)
"""What the studies of the losses found; README and docs/explanation/ncmi.md say the same (tested)."""

# An absolute path of at least two names inside a sentence: /data/slides/a.svs, C:\slides\a.svs.
_POSIX = re.compile(r"(?<![\w.…/])/(?!/)(?:[^\s/'\"():;,]+/)+(?P<name>[^\s/'\"():;,]*)")
_WINDOWS = re.compile(r"\b[A-Za-z]:\\(?:[^\s\\'\":;,]+\\)*(?P<name>[^\s\\'\":;,]*)")


def without_folders(value: Any) -> Any:
    """Replaces absolute paths by ``…/name``, in text and inside mappings and sequences.

    Args:
        value: Text, path, mapping, sequence, or anything else (returned as it is).

    Returns:
        The same structure; paths become text, tuples become lists.
    """
    if isinstance(value, PurePath):
        return without_folders(str(value))
    if isinstance(value, str):
        whole = PureWindowsPath(value) if _WINDOWS.match(value) else PurePosixPath(value)
        # A value that is a path as a whole may hold blanks; the pattern for sentences would stop there.
        if whole.is_absolute() and "\n" not in value and ": " not in value:
            return f"…/{whole.name}" if whole.name else "…"
        return _WINDOWS.sub(r"…/\g<name>", _POSIX.sub(r"…/\g<name>", value))
    if isinstance(value, Mapping):
        return {str(key): without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [without_folders(item) for item in value]
    return value


@dataclass(frozen=True)
class MetricWords:
    """How a metric is named and read.

    Attributes:
        name: Name with its average.
        meaning: One clause.
        better: ``higher`` or ``lower``.
        unit_range: Whether 0 … 1 is its range, so that an interval bar makes sense.
    """

    name: str
    meaning: str
    better: str = "higher"
    unit_range: bool = True


METRIC_WORDS = {
    "macro_f1": MetricWords("Macro-F1", "unweighted mean of F1 over all classes of the task"),
    "balanced_accuracy": MetricWords("Balanced accuracy", "mean recall over the classes"),
    "auroc_macro_ovr": MetricWords("AUROC, macro", "one class against the rest, unweighted mean"),
    "auprc_macro": MetricWords("AUPRC, macro", "average precision, unweighted mean over classes"),
    "kappa": MetricWords("Cohen's kappa", "agreement beyond chance, each error alike"),
    "kappa_quadratic": MetricWords(
        "Cohen's kappa, quadratic", "agreement beyond chance, order of classes counts"
    ),
    "kappa_linear": MetricWords("Cohen's kappa, linear", "agreement beyond chance, order of classes counts"),
    "mcc": MetricWords("MCC", "correlation of truth and prediction, multiclass"),
    "weighted_f1": MetricWords("Weighted F1", "F1 weighted by class size"),
    "micro_f1": MetricWords("Micro-F1", "equal to accuracy; not the headline of this report"),
    "accuracy": MetricWords("Accuracy", "share of slides classified correctly"),
    "brier": MetricWords("Brier score", "squared error of the probabilities, 0–2", "lower", unit_range=False),
    "nll": MetricWords("Log loss", "negative log-likelihood, nats", "lower", unit_range=False),
    "ece": MetricWords("Calibration error", "mean gap of confidence and accuracy, 15 bins", "lower"),
    "ncmi": MetricWords("NCMI", "concentration over separation, CMI / Γ", "lower", unit_range=False),
    "cmi": MetricWords("CMI", "spread of the outputs within a class, nats", "lower", unit_range=False),
    "gamma": MetricWords("Γ", "separation of the outputs between classes, nats", unit_range=False),
}


def words_of(metric: str) -> MetricWords:
    """The words for a metric; one that is not known speaks for itself."""
    return METRIC_WORDS.get(metric) or MetricWords(metric.replace("_", " "), "", unit_range=False)


def number(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits, a true minus sign, and ``–`` for what is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "−")


def probability(value: float | None) -> str:
    """A probability with three digits, never rounded to 0 or 1, which are certainties."""
    if value is not None and 0.9995 <= value < 1:
        return "> 0.999"
    return "< 0.001" if value is not None and 0 < value < 0.0005 else number(value)


def percent(share: float | None) -> str:
    """A share as whole percent."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.0f} %"


def interval(estimate: Estimate, digits: int = 3) -> str:
    """``low–high`` of an estimate, ``interval not informative``, or empty where there is none."""
    if not (math.isfinite(estimate.ci_low) and math.isfinite(estimate.ci_high)):
        return NOT_INFORMATIVE if estimate.reason.startswith(NOT_INFORMATIVE) else ""
    separator = " to " if estimate.ci_low < 0 else "–"
    return f"{number(estimate.ci_low, digits)}{separator}{number(estimate.ci_high, digits)}"


def with_interval(estimate: Estimate, digits: int = 3) -> str:
    """``0.812 (0.75–0.87)``, without empty brackets."""
    bounds = interval(estimate, digits)
    return number(estimate.value, digits) + (f" ({bounds})" if bounds else "")


def confidence_interval(estimate: Estimate) -> str:
    """``95 % CI 0.75–0.87``, ``95 % interval not informative``, or empty."""
    bounds = interval(estimate)
    return f"95 % {bounds}" if bounds == NOT_INFORMATIVE else bounds and f"95 % CI {bounds}"


def count(amount: float, one: str, many: str | None = None) -> str:
    """``1 slide``, ``2 slides``, ``1,234 slides``."""
    return f"{amount:,.0f} {one if amount == 1 else many or one + 's'}"
