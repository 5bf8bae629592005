"""Feature files of other tools: CLAM, TRIDENT, STAMP, the ACMIL family, and packed cohorts; both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.features.interchange.bag import ForeignFileError as ForeignFileError
    from wsi_ncmi.features.interchange.bag import TileBag as TileBag
    from wsi_ncmi.features.interchange.bag import TileFacts as TileFacts
    from wsi_ncmi.features.interchange.base import FeatureSet as FeatureSet
    from wsi_ncmi.features.interchange.base import SetWriter as SetWriter
    from wsi_ncmi.features.interchange.detection import open_feature_set as open_feature_set
    from wsi_ncmi.features.interchange.detection import writer_for as writer_for
    from wsi_ncmi.features.interchange.npz import PackedColumns as PackedColumns
    from wsi_ncmi.features.interchange.npz import map_member as map_member
    from wsi_ncmi.features.interchange.npz import write_packed as write_packed
    from wsi_ncmi.features.interchange.rounding import to_half as to_half

_EXPORTS = {
    "FeatureSet": "wsi_ncmi.features.interchange.base",
    "ForeignFileError": "wsi_ncmi.features.interchange.bag",
    "PackedColumns": "wsi_ncmi.features.interchange.npz",
    "SetWriter": "wsi_ncmi.features.interchange.base",
    "TileBag": "wsi_ncmi.features.interchange.bag",
    "TileFacts": "wsi_ncmi.features.interchange.bag",
    "map_member": "wsi_ncmi.features.interchange.npz",
    "open_feature_set": "wsi_ncmi.features.interchange.detection",
    "to_half": "wsi_ncmi.features.interchange.rounding",
    "write_packed": "wsi_ncmi.features.interchange.npz",
    "writer_for": "wsi_ncmi.features.interchange.detection",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
