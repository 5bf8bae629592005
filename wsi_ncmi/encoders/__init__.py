"""Tile encoders: the weight-free descriptor and any frozen ``torchvision:`` or ``timm:`` network, offline."""

from __future__ import annotations

from wsi_ncmi._lazy import attach

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
