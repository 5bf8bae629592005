"""What a split looks like: counts by class and centre in every part, and what is uneven about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from wsi_ncmi.cohorts.cohort import Cohort
from wsi_ncmi.cohorts.fold import PARTS, Fold, SplitConfig

__all__ = ["describe_splits"]


def describe_splits(
    folds: Sequence[Fold], cohort: Cohort, kind: str, options: SplitConfig | None
) -> dict[str, Any]:
    """Builds ``Splits.meta``.

    Returns:
        JSON-ready: ``kind``, ``labels_sha256``, ``options``, ``classes``, ``case_id_assumed``, ``counts``
        (a list over folds of part → ``slides``, ``patients``, ``classes``, ``centres``), ``imbalance``
        (``class`` and ``centre``: the largest deviation of a test part's count from an even share, in slides
        and as a fraction of that share) and ``warnings``.
    """
    counts = [{part: _count(cohort, fold.part(part)) for part in PARTS} for fold in folds]
    return {
        "kind": kind,
        "labels_sha256": cohort.sha256,
        "options": dataclasses.asdict(options) if options is not None else {},
        "classes": list(cohort.classes),
        "case_id_assumed": cohort.case_id_assumed,
        "counts": counts,
        "imbalance": {
            "class": _worst(counts, "classes", cohort.classes),
            "centre": _worst(counts, "centres", cohort.centres),
        },
        "warnings": _warnings(counts, cohort, by_centre=options is not None and options.group == "centre"),
    }


def _count(cohort: Cohort, slide_ids: Sequence[str]) -> dict[str, Any]:
    rows = [cohort.by_slide[s] for s in slide_ids]
    return {
        "slides": len(rows),
        "patients": len({row.case_id for row in rows}),
        "classes": {name: sum(row.label == name for row in rows) for name in cohort.classes},
        "centres": {name: sum(row.centre == name for row in rows) for name in cohort.centres},
    }


def _worst(counts: Sequence[dict[str, Any]], what: str, names: Sequence[str]) -> dict[str, Any] | None:
    worst: dict[str, Any] | None = None
    for name in names:
        in_tests = [count["test"][what][name] for count in counts]
        even = sum(in_tests) / len(in_tests)
        for k, found in enumerate(in_tests):
            relative = abs(found - even) / even if even else 0.0
            if worst is None or relative > worst["relative"]:
                worst = {"name": name, "fold": k, "slides": found, "even_share": even, "relative": relative}
    return worst


def _warnings(counts: Sequence[dict[str, Any]], cohort: Cohort, *, by_centre: bool) -> list[str]:
    found: list[str] = []
    if cohort.case_id_assumed:
        found.append("No patient ids: each slide was taken for a patient, so a patient may be in two parts.")
    for k, count in enumerate(counts):
        for part in PARTS:
            if not count[part]["slides"]:
                if part != "validation":
                    found.append(f"Fold {k} has no {part} slides.")
                continue
            missing = [name for name, n in count[part]["classes"].items() if n == 0]
            if missing:
                found.append(f"Fold {k}: class {', '.join(missing)} has no slide in the {part} part.")
    absent = [name for name in cohort.centres if _could_be_everywhere_but_is_not(name, counts, cohort)]
    if absent and not by_centre:
        found.append(f"Centre {', '.join(absent)} has no slide in the training or test part of some fold.")
    return found


def _could_be_everywhere_but_is_not(centre: str, counts: Sequence[dict[str, Any]], cohort: Cohort) -> bool:
    # A centre with fewer patients than test parts can't be in each; that isn't worth a warning.
    patients = len({row.case_id for row in cohort.rows if row.centre == centre})
    if patients < max(2, len(counts)):
        return False
    return any(count[part]["centres"][centre] == 0 for count in counts for part in ("train", "test"))
