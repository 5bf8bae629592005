"""Tile encoders: the weight-free descriptor, published presets, any frozen network, offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.encoders.base import Encoder as Encoder
    from wsi_ncmi.encoders.options import EncoderOptions as EncoderOptions
    from wsi_ncmi.encoders.registry import encoder_folder_name as encoder_folder_name
    from wsi_ncmi.encoders.registry import list_encoders as list_encoders
    from wsi_ncmi.encoders.registry import load_encoder as load_encoder

__all__ = [
    "Encoder",
    "EncoderOptions",
    "encoder_folder_name",
    "list_encoders",
    "load_encoder",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "Encoder": "wsi_ncmi.encoders.base",
        "EncoderOptions": "wsi_ncmi.encoders.options",
        "encoder_folder_name": "wsi_ncmi.encoders.registry",
        "list_encoders": "wsi_ncmi.encoders.registry",
        "load_encoder": "wsi_ncmi.encoders.registry",
    },
)
