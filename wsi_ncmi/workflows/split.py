"""Splitting: a labels table to a splits file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import ensure_folder
from wsi_ncmi.workflows.result import JobResult

if TYPE_CHECKING:
    from wsi_ncmi.training import TrainConfig


def split(config: TrainConfig) -> JobResult:
    """Makes folds and writes them to ``config.out``.

    Args:
        config: ``labels``, and how to split.

    Returns:
        Path of ``splits``; sizes and imbalance as notes.

    Raises:
        InputError: Wrong labels, or no such split exists.
    """
    from wsi_ncmi.cohorts import make_splits, official_splits, read_labels, write_splits

    if config.labels is None:
        raise InputError("No labels were named; give a labels table.")
    cohort = read_labels(config.labels, group="slide_id" if config.split.group == "slide_id" else None)
    splits = (official_splits if config.official_split else make_splits)(cohort, config.split)
    ensure_folder(config.out.parent)
    write_splits(splits, config.out)
    sizes = (
        f"Fold {number}: {len(fold.train)} train, {len(fold.validation)} validation, {len(fold.test)} test."
        for number, fold in enumerate(splits.folds)
    )
    warnings = (str(text) for text in splits.meta.get("warnings", ()))
    return JobResult({"splits": config.out}, notes=(*cohort.notes, *sizes, *warnings))
