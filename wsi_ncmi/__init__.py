"""From a folder of whole-slide images to trustworthy slide-level subtypes.

Tissue tiles are cut at an exact resolution, a frozen encoder embeds them once into an HDF5 cache, and an
attention multiple-instance-learning aggregator trained with the NCMI loss predicts the subtype.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.losses.ncmi import NCMILoss as NCMILoss

__all__ = ["NCMILoss", "__version__"]

__version__ = "0.1.0"

__getattr__, __dir__ = attach(__name__, {"NCMILoss": "wsi_ncmi.losses.ncmi"})
