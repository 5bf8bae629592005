"""Labels, patient-safe splits, the leak audit and access to the bags."""

from __future__ import annotations

from wsi_ncmi.cohorts.cohort import Cohort, CohortRow, order_classes
from wsi_ncmi.cohorts.fold import PARTS, Fold, SplitOptions, Splits
from wsi_ncmi.cohorts.sources import BagSource, empty_bags, open_bag_source

__all__ = [
    "PARTS",
    "BagSource",
    "Cohort",
    "CohortRow",
    "Fold",
    "SplitOptions",
    "Splits",
    "empty_bags",
    "open_bag_source",
    "order_classes",
]
