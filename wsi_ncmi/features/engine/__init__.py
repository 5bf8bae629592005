"""The pipeline of one process: slides in, feature files out, the encoder busy all the while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.features.engine.engine import Engine as Engine
    from wsi_ncmi.features.engine.events import Event as Event
    from wsi_ncmi.features.engine.events import Finished as Finished
    from wsi_ncmi.features.engine.events import Hungry as Hungry
    from wsi_ncmi.features.engine.events import Paused as Paused
    from wsi_ncmi.features.engine.events import Resumed as Resumed
    from wsi_ncmi.features.engine.events import Started as Started
    from wsi_ncmi.features.engine.events import Stopped as Stopped
    from wsi_ncmi.features.engine.options import EngineOptions as EngineOptions
    from wsi_ncmi.features.engine.options import Load as Load

_EXPORTS = {
    "Engine": "wsi_ncmi.features.engine.engine",
    "EngineOptions": "wsi_ncmi.features.engine.options",
    "Event": "wsi_ncmi.features.engine.events",
    "Finished": "wsi_ncmi.features.engine.events",
    "Hungry": "wsi_ncmi.features.engine.events",
    "Load": "wsi_ncmi.features.engine.options",
    "Paused": "wsi_ncmi.features.engine.events",
    "Resumed": "wsi_ncmi.features.engine.events",
    "Started": "wsi_ncmi.features.engine.events",
    "Stopped": "wsi_ncmi.features.engine.events",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
