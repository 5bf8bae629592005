"""Image sets: CIFAR as published, arrays, mosaics, image folders and WebDataset shards."""

from __future__ import annotations

from wsi_ncmi.vision.data.opening import open_images
from wsi_ncmi.vision.data.parts import ArrayPart, ImageData, ImagePart, PicturePart

__all__ = ["ArrayPart", "ImageData", "ImagePart", "PicturePart", "open_images"]
