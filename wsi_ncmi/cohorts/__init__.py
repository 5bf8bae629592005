"""Labels, patient-safe splits, the leak audit and access to the bags."""

from __future__ import annotations

from wsi_ncmi.cohorts.cohort import Cohort, CohortRow, order_classes
from wsi_ncmi.cohorts.evidence import (
    Evidence,
    evidence_of_features,
    evidence_of_slides,
    evidence_of_source,
    evidence_of_thumbnails,
    merge_evidence,
)
from wsi_ncmi.cohorts.fold import PARTS, Fold, SplitOptions, Splits
from wsi_ncmi.cohorts.foreign_splits import read_any_splits
from wsi_ncmi.cohorts.joined import JoinedBags
from wsi_ncmi.cohorts.label_audit import LabelAudit, audit_labels
from wsi_ncmi.cohorts.labels import ADAPTERS, read_labels
from wsi_ncmi.cohorts.leaks import SHARED_KINDS, Leak, find_leaks
from wsi_ncmi.cohorts.lookalikes import Look, Lookalike, find_lookalikes, look_of
from wsi_ncmi.cohorts.match import MatchResult, Unmatched, match_features
from wsi_ncmi.cohorts.patients import PatientBags, patient_cohort, patient_splits, slide_splits
from wsi_ncmi.cohorts.rows import RowFinding
from wsi_ncmi.cohorts.sources import BagSource, empty_bags, open_bag_source
from wsi_ncmi.cohorts.splits import make_splits, official_splits
from wsi_ncmi.cohorts.splits_file import SPLITS_SCHEMA, read_splits, write_splits

__all__ = [
    "ADAPTERS",
    "BagSource",
    "Cohort",
    "CohortRow",
    "Evidence",
    "Fold",
    "JoinedBags",
    "LabelAudit",
    "Leak",
    "Look",
    "Lookalike",
    "MatchResult",
    "PARTS",
    "PatientBags",
    "RowFinding",
    "SHARED_KINDS",
    "SPLITS_SCHEMA",
    "SplitOptions",
    "Splits",
    "Unmatched",
    "audit_labels",
    "empty_bags",
    "evidence_of_features",
    "evidence_of_slides",
    "evidence_of_source",
    "evidence_of_thumbnails",
    "find_leaks",
    "find_lookalikes",
    "look_of",
    "make_splits",
    "match_features",
    "merge_evidence",
    "official_splits",
    "open_bag_source",
    "order_classes",
    "patient_cohort",
    "patient_splits",
    "read_any_splits",
    "read_labels",
    "read_splits",
    "slide_splits",
    "write_splits",
]
