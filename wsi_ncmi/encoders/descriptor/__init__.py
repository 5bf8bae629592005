"""The weight-free H&E descriptor: stain statistics, texture and nuclear measures of a tile."""

from __future__ import annotations

from wsi_ncmi._lazy import attach

__all__ = ["DescriptorEncoder", "descriptor_names"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "DescriptorEncoder": "wsi_ncmi.encoders.descriptor.encoder",
        "descriptor_names": "wsi_ncmi.encoders.descriptor.encoder",
    },
)
