"""Checkpoints of other codebases as models of this one, where the architecture is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.mil.foreign.importing import ForeignModel as ForeignModel
    from wsi_ncmi.mil.foreign.importing import import_checkpoint as import_checkpoint

__all__ = ["ForeignModel", "import_checkpoint"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "ForeignModel": "wsi_ncmi.mil.foreign.importing",
        "import_checkpoint": "wsi_ncmi.mil.foreign.importing",
    },
)
