"""Everything a report is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics import Evaluation, PairedComparison
from wsi_ncmi.reporting.flow import FlowStep
from wsi_ncmi.reporting.paths import without_folders
from wsi_ncmi.reporting.pictures import SlidePicture

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ReportInput"]


@dataclass(frozen=True)
class ReportInput:
    """What a report shows; a part that is missing or empty leaves its section out.

    Attributes:
        title: Name of the job or cohort.
        predictions: ``slide_id, case_id, fold, seed, label, prediction, p_<class>…``, perhaps ``centre``;
            with a column ``loss`` where ``evaluations`` has several.
        evaluations: Name of the loss (or run) → its evaluation; the first is the headline. A single run that
            has no name may be called ``""``.
        curves: ``fold, seed, epoch, train_loss, val_loss, val_macro_f1, val_cmi, val_gamma…``, perhaps
            ``loss``.
        ledger: ``slide_id, status, reason, tiles…`` of the extraction.
        flow: From the slides found to the slides used, see :func:`cohort_flow`.
        splits: ``Splits.meta``: counts of every part of every fold, and its warnings.
        comparisons: Name of another loss → headline minus that loss, paired.
        leaks: Leaks that the audit found, as sentences; empty = clean, None = no audit was made.
        audit_remarks: What else it found that is no leak (a centre missing from a part), as sentences.
        config: The job's configuration.
        provenance: ``collect_provenance()``.
        hashes: What → hash of the data it stands for, for example ``labels`` → SHA-256.
        warnings: Sentences that must stand on top, beside those of evaluation and splits.
        pictures: Slide id → its pictures, for the slides of :func:`wsi_ncmi.reporting.best_and_worst`.
        compared: What the leak audit compared → of how many slides it was known.
        audit_notes: What the audit could not look at, in sentences.
        attention: What the attention of the pictures is; not every model's is a pooling weight.
        features: What made the features (encoder, resolution, …), by name; empty where they don't say.
    """

    title: str
    predictions: pd.DataFrame
    evaluations: Mapping[str, Evaluation]
    curves: pd.DataFrame | None = None
    ledger: pd.DataFrame | None = None
    flow: Sequence[FlowStep] = ()
    splits: Mapping[str, Any] | None = None
    comparisons: Mapping[str, PairedComparison] = field(default_factory=dict)
    leaks: Sequence[str] | None = None
    config: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    pictures: Mapping[str, SlidePicture] = field(default_factory=dict)
    compared: Mapping[str, int] = field(default_factory=dict)
    audit_remarks: Sequence[str] = ()
    audit_notes: Sequence[str] = ()
    attention: str = ""
    features: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.evaluations:
            raise InputError("A report needs at least one evaluation.")
        missing = [name for name in self.evaluations if self.predictions_of(name).empty]
        if missing:
            raise InputError(f"The predictions table has no rows of the loss {missing[0]!r}.")

    @property
    def headline_name(self) -> str:
        """Name of the loss that the headline is about."""
        return next(iter(self.evaluations))

    @property
    def headline(self) -> Evaluation:
        """Its evaluation."""
        return self.evaluations[self.headline_name]

    def predictions_of(self, name: str) -> pd.DataFrame:
        """Rows of one loss; all rows where the table does not tell losses apart."""
        if "loss" not in self.predictions.columns:
            return self.predictions
        if len(self.evaluations) == 1:
            mine = self.predictions[self.predictions["loss"].astype(str) == name]
            return self.predictions if mine.empty else mine
        return self.predictions[self.predictions["loss"].astype(str) == name]

    def all_warnings(self) -> tuple[str, ...]:
        """The caller's, then those of splits and evaluations, each once, without folder names."""
        found = [*self.warnings]
        found += (self.splits or {}).get("warnings", ())
        for name, evaluation in self.evaluations.items():
            for warning in evaluation.warnings:
                # What holds for every loss (few patients) is said once, not once a loss.
                everywhere = all(warning in other.warnings for other in self.evaluations.values())
                found.append(warning if everywhere or not name else f"{name}: {warning}")
        return tuple(dict.fromkeys(without_folders(str(warning)) for warning in found))
