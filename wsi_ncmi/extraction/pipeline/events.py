"""Messages of a pipeline to the process that feeds it; picklable."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_ncmi.core.errors import WsiNcmiError
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.pipeline.config import Load

__all__ = ["Event", "Finished", "Paused", "Resumed", "SlotFree", "Started", "Stopped"]


@dataclass(frozen=True)
class SlotFree:
    """A reader is free: one more slide can be submitted, and its reading starts at once."""


@dataclass(frozen=True)
class Started:
    """The reading of a slide starts, and with it the time that it may take."""

    index: int


@dataclass(frozen=True)
class Paused:
    """A slide waits for others to be encoded or published, which is no fault of its own."""

    index: int


@dataclass(frozen=True)
class Resumed:
    """A slide that waited is worked on again."""

    index: int


@dataclass(frozen=True)
class Finished:
    """A slide has its row: published, skipped or failed."""

    index: int
    row: LedgerRow
    load: Load


@dataclass(frozen=True)
class Stopped:
    """No slide can be worked on any more, for example because the output is gone."""

    error: WsiNcmiError


Event = SlotFree | Started | Paused | Resumed | Finished | Stopped
