"""Labels, patient-safe splits, the leak audit and access to the bags."""

from __future__ import annotations

from wsi_ncmi.cohorts.cohort import Cohort, CohortRow, order_classes
from wsi_ncmi.cohorts.fold import PARTS, Fold, SplitOptions, Splits
from wsi_ncmi.cohorts.foreign_splits import read_any_splits
from wsi_ncmi.cohorts.labels import ADAPTERS, read_labels
from wsi_ncmi.cohorts.leaks import Leak, find_leaks
from wsi_ncmi.cohorts.match import MatchResult, Unmatched, match_features
from wsi_ncmi.cohorts.sources import BagSource, empty_bags, open_bag_source
from wsi_ncmi.cohorts.splits import make_splits, official_splits
from wsi_ncmi.cohorts.splits_file import SPLITS_SCHEMA, read_splits, write_splits

__all__ = [
    "ADAPTERS",
    "PARTS",
    "SPLITS_SCHEMA",
    "BagSource",
    "Cohort",
    "CohortRow",
    "Fold",
    "Leak",
    "MatchResult",
    "SplitOptions",
    "Splits",
    "Unmatched",
    "empty_bags",
    "find_leaks",
    "make_splits",
    "match_features",
    "official_splits",
    "open_bag_source",
    "order_classes",
    "read_any_splits",
    "read_labels",
    "read_splits",
    "write_splits",
]
