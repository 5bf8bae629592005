"""The content of ``compare.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsi_ncmi.metrics import Evaluation, PairedComparison

__all__ = ["COMPARE_SCHEMA", "compare_json"]

COMPARE_SCHEMA = "wsi-ncmi/compare/1"


def compare_json(
    headline: str,
    comparisons: Mapping[str, PairedComparison],
    evaluations: Mapping[str, Evaluation],
) -> dict[str, Any]:
    """Paired differences in macro-F1, schema ``wsi-ncmi/compare/1``.

    Args:
        headline: Name of the run that the others are taken from.
        comparisons: Name of the other run → headline minus that run.
        evaluations: Name → evaluation, of all of them.

    Returns:
        ``schema, metric, headline``, ``macro_f1`` (name → ``{value, ci_low, …}``) and ``differences``, a list
        of ``{a, b, difference, ci_low, ci_high, t, p_value, wins, ties, losses}``.
    """
    return {
        "schema": COMPARE_SCHEMA,
        "metric": "macro_f1",
        "headline": headline,
        "macro_f1": {name: found.metrics["macro_f1"].to_json() for name, found in evaluations.items()},
        "differences": [
            {"a": headline, "b": other, **comparison.to_json()} for other, comparison in comparisons.items()
        ],
    }
