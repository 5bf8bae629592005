"""Image recognition with any loss: image sets, networks, the recipe, one run (``fit_images``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach
from wsi_ncmi.vision.options import ImageDataOptions, NetworkOptions, RecipeOptions

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.vision.classifier import ImageClassifier as ImageClassifier
    from wsi_ncmi.vision.classifier import load_classifier as load_classifier
    from wsi_ncmi.vision.data.opening import open_images as open_images
    from wsi_ncmi.vision.data.parts import ImageData as ImageData
    from wsi_ncmi.vision.fitting import ImageRun as ImageRun
    from wsi_ncmi.vision.fitting import fit_images as fit_images
    from wsi_ncmi.vision.network import build_network as build_network
    from wsi_ncmi.vision.ranks import process_group as process_group

__all__ = [
    "ImageClassifier",
    "ImageData",
    "ImageDataOptions",
    "ImageRun",
    "NetworkOptions",
    "RecipeOptions",
    "build_network",
    "fit_images",
    "load_classifier",
    "open_images",
    "process_group",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "ImageClassifier": "wsi_ncmi.vision.classifier",
        "ImageData": "wsi_ncmi.vision.data.parts",
        "ImageRun": "wsi_ncmi.vision.fitting",
        "build_network": "wsi_ncmi.vision.network",
        "fit_images": "wsi_ncmi.vision.fitting",
        "load_classifier": "wsi_ncmi.vision.classifier",
        "open_images": "wsi_ncmi.vision.data.opening",
        "process_group": "wsi_ncmi.vision.ranks",
    },
)
