"""The splitting job: a labels table to a splits file."""

from __future__ import annotations

from pathlib import Path

from wsi_ncmi.cohorts import SplitConfig, make_splits, official_splits, read_labels, write_splits
from wsi_ncmi.core.files import ensure_folder
from wsi_ncmi.workflows.result import JobResult

__all__ = ["split_labels"]


def split_labels(labels: str, out: Path, options: SplitConfig, *, official: bool = False) -> JobResult:
    """Makes folds and writes them.

    Args:
        labels: Labels table, or ``adapter:FILE``.
        out: Splits file.
        options: How to split.
        official: Take the split that the cohort ships.

    Returns:
        Path of ``splits``; sizes and imbalance as notes.

    Raises:
        InputError: Wrong labels, or no such split exists.
    """
    cohort = read_labels(labels, group="slide_id" if options.group == "slide_id" else None)
    splits = official_splits(cohort, options) if official else make_splits(cohort, options)
    ensure_folder(out.parent)
    write_splits(splits, out)
    sizes = (
        f"Fold {number}: {len(fold.train)} train, {len(fold.validation)} validation, {len(fold.test)} test."
        for number, fold in enumerate(splits.folds)
    )
    warnings = (str(text) for text in splits.meta.get("warnings", ()))
    return JobResult({"splits": out}, notes=(*cohort.notes, *sizes, *warnings))
