"""Input of a report, and the cohort flow from the slides found to the slides used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from wsi_ncmi.cohorts import Unmatched
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics import Evaluation, PairedComparison
from wsi_ncmi.reporting.formatting import without_folders
from wsi_ncmi.reporting.slides import SlidePicture

if TYPE_CHECKING:
    import pandas as pd

_NO_FEATURES = "label without features"  # as ``wsi_ncmi.cohorts.match_features`` words it
_MAX_REASON = 110
_MAX_REASONS = 6


@dataclass(frozen=True)
class FlowStep:
    """One step of the cohort flow.

    Attributes:
        name: For example ``slides found``.
        slides: How many are left after this step.
        patients: How many patients they come from; None where not known.
        lost: Reason → slides that this step took out.
        beside: What → how many, for what never was a slide of this step (labels without a slide).
    """

    name: str
    slides: int
    patients: int | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    beside: Mapping[str, int] = field(default_factory=dict)


def cohort_flow(
    *,
    used_slides: int,
    used_patients: int | None = None,
    ledger: pd.DataFrame | None = None,
    unmatched: Iterable[Unmatched] = (),
) -> tuple[FlowStep, ...]:
    """Builds the flow from the extraction's ledger and the match of labels with features.

    Args:
        used_slides: Slides that were split and trained on.
        used_patients: Their patients.
        ledger: ``slide_id, status, reason, tiles``; None where features came ready.
        unmatched: Slides without label or without features (``MatchResult.unmatched``).

    Returns:
        Steps in order; the last is the slides used.
    """
    steps: list[FlowStep] = []
    unusable = [(str(item.slide_id), str(item.reason)) for item in unmatched]
    known: set[str] = set()
    if ledger is not None and len(ledger):
        status = ledger["status"].astype(str)
        failed = ledger[status == "failed"]
        pairs = zip(failed["reason"].fillna(""), failed["slide_id"], strict=True)
        reasons = Counter(_general(str(reason), str(slide_id)) for reason, slide_id in pairs)
        steps.append(FlowStep("slides found", len(ledger)))
        steps.append(FlowStep("features extracted", len(ledger) - len(failed), lost=_ordered(reasons)))
        known = set(ledger["slide_id"].astype(str))
        failed_ids = set(failed["slide_id"].astype(str))
        # A label whose slide failed was lost at the step before; a label without any slide never was one.
        unusable = [item for item in unusable if item[0] not in failed_ids]
    else:
        features = used_slides + sum(reason != _NO_FEATURES for _, reason in unusable)
        steps.append(FlowStep("slides with features", features))
    lost = Counter(reason for name, reason in unusable if name in known or reason != _NO_FEATURES)
    steps.append(FlowStep("used: labelled, with tissue", used_slides, used_patients, _ordered(lost)))
    absent = sum(reason == _NO_FEATURES and name not in known for name, reason in unusable)
    if absent:
        steps[0] = replace(steps[0], beside={"labels without a slide": absent})
    return tuple(steps)


def _general(reason: str, slide_id: str) -> str:
    """The reason without what is particular to one slide, so that equal causes are counted together."""
    text = " ".join(str(without_folders(reason)).split())
    # The slide as a path, a file name or an id, but not as a part of another word.
    if slide_id:
        text = re.sub(rf"(?:…/)?(?<!\w){re.escape(slide_id)}(?:\.\w+)?(?!\w)", "the slide", text)
    # What follows a semicolon is the remedy (or the next reader's complaint): the ledger has it in full.
    head = text.split("; ")[0].rstrip(".;: ")
    return shorten(head, _MAX_REASON, placeholder=" …") or "no reason given"


def _ordered(counts: Counter[str]) -> dict[str, int]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found = dict(ordered[:_MAX_REASONS])
    rest = sum(n for _, n in ordered[_MAX_REASONS:])
    return found | {"other reasons": rest} if rest else found


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
        without_attention: Why there are no pictures; empty where there can be.
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
    without_attention: str = ""
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
