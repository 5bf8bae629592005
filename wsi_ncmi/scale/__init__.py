"""Running an extraction job over processes and nodes, within the limits that this process really has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.scale.engines import open_engine as open_engine
    from wsi_ncmi.scale.limits import affordable_workers as affordable_workers
    from wsi_ncmi.scale.limits import available_cores as available_cores
    from wsi_ncmi.scale.limits import memory_limit as memory_limit
    from wsi_ncmi.scale.limits import shared_memory as shared_memory
    from wsi_ncmi.scale.local import run_slides as run_slides

_EXPORTS = {
    "affordable_workers": "wsi_ncmi.scale.limits",
    "available_cores": "wsi_ncmi.scale.limits",
    "open_engine": "wsi_ncmi.scale.engines",
    "memory_limit": "wsi_ncmi.scale.limits",
    "shared_memory": "wsi_ncmi.scale.limits",
    "run_slides": "wsi_ncmi.scale.local",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
