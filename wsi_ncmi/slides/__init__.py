"""Whole-slide images: one interface, its readers, their resolution and the inventory of a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.slides.base import Level as Level
    from wsi_ncmi.slides.base import Slide as Slide
    from wsi_ncmi.slides.inventory import take_inventory as take_inventory
    from wsi_ncmi.slides.level_reader import LevelPart as LevelPart
    from wsi_ncmi.slides.level_reader import LevelReader as LevelReader
    from wsi_ncmi.slides.level_reader import OpenLevel as OpenLevel
    from wsi_ncmi.slides.mpp import Mpp as Mpp
    from wsi_ncmi.slides.mpp import resolve_mpp as resolve_mpp
    from wsi_ncmi.slides.mpp_table import read_mpp_table as read_mpp_table
    from wsi_ncmi.slides.names import SLIDE_EXTENSIONS as SLIDE_EXTENSIONS
    from wsi_ncmi.slides.names import slide_id_of as slide_id_of
    from wsi_ncmi.slides.opening import open_slide as open_slide
    from wsi_ncmi.slides.overview import Overview as Overview
    from wsi_ncmi.slides.overview import read_overview as read_overview
    from wsi_ncmi.slides.overview import thumbnail as thumbnail
    from wsi_ncmi.slides.probe import probe_against_openslide as probe_against_openslide
    from wsi_ncmi.slides.records import SlideRecord as SlideRecord
    from wsi_ncmi.slides.records import read_slides_csv as read_slides_csv
    from wsi_ncmi.slides.records import write_slides_csv as write_slides_csv
    from wsi_ncmi.slides.registry import list_readers as list_readers

_EXPORTS = {
    "Level": "wsi_ncmi.slides.base",
    "Slide": "wsi_ncmi.slides.base",
    "LevelPart": "wsi_ncmi.slides.level_reader",
    "LevelReader": "wsi_ncmi.slides.level_reader",
    "OpenLevel": "wsi_ncmi.slides.level_reader",
    "Mpp": "wsi_ncmi.slides.mpp",
    "resolve_mpp": "wsi_ncmi.slides.mpp",
    "read_mpp_table": "wsi_ncmi.slides.mpp_table",
    "open_slide": "wsi_ncmi.slides.opening",
    "list_readers": "wsi_ncmi.slides.registry",
    "probe_against_openslide": "wsi_ncmi.slides.probe",
    "SLIDE_EXTENSIONS": "wsi_ncmi.slides.names",
    "slide_id_of": "wsi_ncmi.slides.names",
    "SlideRecord": "wsi_ncmi.slides.records",
    "read_slides_csv": "wsi_ncmi.slides.records",
    "write_slides_csv": "wsi_ncmi.slides.records",
    "take_inventory": "wsi_ncmi.slides.inventory",
    "Overview": "wsi_ncmi.slides.overview",
    "read_overview": "wsi_ncmi.slides.overview",
    "thumbnail": "wsi_ncmi.slides.overview",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
