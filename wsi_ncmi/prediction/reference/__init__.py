"""What the training slides looked like, so that slides unlike them can be told."""

from __future__ import annotations

from wsi_ncmi.prediction.reference.fitting import SlideSample, fit_reference
from wsi_ncmi.prediction.reference.flags import Flag, SlideFacts
from wsi_ncmi.prediction.reference.reference import Reference

__all__ = ["Flag", "Reference", "SlideFacts", "SlideSample", "fit_reference"]
