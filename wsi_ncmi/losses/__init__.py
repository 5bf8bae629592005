"""NCMI and its rivals behind one interface (:class:`~wsi_ncmi.losses.base.Criterion`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach
from wsi_ncmi.losses.ncmi_form import PRESETS
from wsi_ncmi.losses.options import LossOptions
from wsi_ncmi.losses.registry import LossInfo, build_loss, list_losses

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.losses.base import Criterion as Criterion
    from wsi_ncmi.losses.base import LogitCriterion as LogitCriterion
    from wsi_ncmi.losses.cmi_constrained import CMIConstrained as CMIConstrained
    from wsi_ncmi.losses.cross_entropy import CrossEntropy as CrossEntropy
    from wsi_ncmi.losses.focal import FocalLoss as FocalLoss
    from wsi_ncmi.losses.label_smoothing import LabelSmoothing as LabelSmoothing
    from wsi_ncmi.losses.ncmi import NCMILoss as NCMILoss
    from wsi_ncmi.losses.orthogonal_projection import OrthogonalProjectionLoss as OrthogonalProjectionLoss
    from wsi_ncmi.losses.poly import Poly1Loss as Poly1Loss
    from wsi_ncmi.losses.square import SquareLoss as SquareLoss
    from wsi_ncmi.losses.supervised_contrastive import SupervisedContrastive as SupervisedContrastive
    from wsi_ncmi.losses.weighted_cross_entropy import WeightedCrossEntropy as WeightedCrossEntropy

__all__ = [
    "LossOptions",
    "LossInfo",
    "build_loss",
    "list_losses",
    "PRESETS",
    "Criterion",
    "LogitCriterion",
    "NCMILoss",
    "CrossEntropy",
    "WeightedCrossEntropy",
    "FocalLoss",
    "LabelSmoothing",
    "Poly1Loss",
    "SquareLoss",
    "SupervisedContrastive",
    "OrthogonalProjectionLoss",
    "CMIConstrained",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "Criterion": "wsi_ncmi.losses.base",
        "LogitCriterion": "wsi_ncmi.losses.base",
        "NCMILoss": "wsi_ncmi.losses.ncmi",
        "CrossEntropy": "wsi_ncmi.losses.cross_entropy",
        "WeightedCrossEntropy": "wsi_ncmi.losses.weighted_cross_entropy",
        "FocalLoss": "wsi_ncmi.losses.focal",
        "LabelSmoothing": "wsi_ncmi.losses.label_smoothing",
        "Poly1Loss": "wsi_ncmi.losses.poly",
        "SquareLoss": "wsi_ncmi.losses.square",
        "SupervisedContrastive": "wsi_ncmi.losses.supervised_contrastive",
        "OrthogonalProjectionLoss": "wsi_ncmi.losses.orthogonal_projection",
        "CMIConstrained": "wsi_ncmi.losses.cmi_constrained",
    },
)
