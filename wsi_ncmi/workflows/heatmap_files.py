"""The pictures of one slide's tile values on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.core.files import atomic_path, path_safe
from wsi_ncmi.reporting.heatmaps import TileValues, draw_gallery, draw_heatmap
from wsi_ncmi.reporting.heatmaps.picture import blank_slide
from wsi_ncmi.slides import Slide, thumbnail

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PICTURE_PX", "save_picture", "write_heatmaps"]

PICTURE_PX = 1024
"""Longest side of the slide in a picture."""


def write_heatmaps(
    folder: Path,
    tiles: TileValues,
    slide: Slide | None,
    *,
    layers: Sequence[str],
    scales: Sequence[str],
    top: int,
) -> dict[str, Path]:
    """Writes ``<slide_id>_<layer>_<scale>.png`` for each layer and scale, and the gallery of the first layer.

    Args:
        folder: Where to; it exists.
        tiles: Tiles and values.
        slide: The open slide; None draws on white, without gallery.
        layers: Names of layers.
        scales: ``percentile``, ``absolute`` or both.
        top: Tiles of the gallery; 0 = none.

    Returns:
        What it shows → file.

    Raises:
        SlideReadError: Nothing of the slide can be read.
        InputError: No such layer or scale.
    """
    picture = blank_slide(tiles.size_level0) if slide is None else thumbnail(slide, PICTURE_PX)
    files: dict[str, Path] = {}
    for name in layers:
        for scale in scales:
            path = folder / f"{tiles.slide_id}_{path_safe(name)}_{scale}.png"
            save_picture(draw_heatmap(picture, tiles, name, scale), path)
            files[name if len(scales) == 1 else f"{name} {scale}"] = path
    if slide is not None and top > 0:
        path = folder / f"{tiles.slide_id}_top_{path_safe(layers[0])}.jpg"
        save_picture(draw_gallery(slide, tiles, layers[0], top), path)
        files[f"top tiles by {layers[0]}"] = path
    return files


def save_picture(picture: Image.Image, path: Path) -> None:
    """Saves a PNG or JPEG, atomically."""
    with atomic_path(path) as temporary:
        if path.suffix == ".png":
            picture.save(temporary, format="PNG", compress_level=3)
        else:
            picture.save(temporary, format="JPEG", quality=90)
