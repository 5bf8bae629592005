"""Whole-slide images: one interface, its readers, their resolution and the inventory of a folder."""

from __future__ import annotations

from wsi_ncmi._lazy import attach

_EXPORTS = {
    "Level": "wsi_ncmi.slides.base",
    "Slide": "wsi_ncmi.slides.base",
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
