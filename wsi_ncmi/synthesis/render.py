"""Colours the planes tile by tile and writes the slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.synthesis.anatomy import Anatomy
from wsi_ncmi.synthesis.artefacts import Artefact
from wsi_ncmi.synthesis.centres import Centre
from wsi_ncmi.synthesis.effects import BorderLayer, PenLayer, apply_to_planes
from wsi_ncmi.synthesis.noise import coarse_noise
from wsi_ncmi.synthesis.palette import Palette
from wsi_ncmi.synthesis.planes import compose_planes
from wsi_ncmi.synthesis.pyramid import write_pyramid
from wsi_ncmi.synthesis.stain import stain_table, to_rgb

__all__ = ["render_slide"]

#: Grey levels between the brightest and the darkest part of the glass.
_SHADES = 4


def render_slide(
    path: Path,
    rng: np.random.Generator,
    anatomy: Anatomy,
    artefacts: tuple[Artefact, ...],
    centre: Centre,
    palette: Palette,
    *,
    with_mpp: bool = True,
) -> None:
    """Renders and writes one slide atomically.

    Args:
        path: The file to make.
        rng: Source of randomness.
        anatomy: What lies on the slide.
        artefacts: Pen marks, folds, blur, borders.
        centre: Stain, scanner and file layout; ``anatomy.frame.mpp`` decides the scale.
        palette: Textures and nuclei at the slide's resolution.
        with_mpp: False leaves every trace of the scale out of the file.
    """
    planes = compose_planes(rng, anatomy, palette)
    layers: list[PenLayer | BorderLayer] = []
    for artefact in artefacts:
        apply_to_planes(planes, artefact, anatomy.frame.mpp)
        if artefact.kind == "pen":
            layers.append(PenLayer(rng, artefact, anatomy.frame))
        elif artefact.kind == "border":
            layers.append(BorderLayer(rng, artefact))
    strength = rng.normal(1.0, 0.05, 2).clip(0.88, 1.12)
    tables = [stain_table(centre, strength[0], strength[1], darker) for darker in range(_SHADES)]
    glass = [_glass(centre, palette, darker) for darker in range(_SHADES)]
    size = centre.tile_px
    height, width = planes.eosin.shape
    rows, columns = -(-height // size), -(-width // size)
    shade = np.clip(_SHADES / 2 + coarse_noise(rng, rows, columns, 1500.0 / size), 0, _SHADES - 1).astype(int)

    def tile(x: int, y: int) -> NDArray[np.uint8] | None:
        darker = int(shade[y // size, x // size])
        h, e = (_cut(plane, x, y, size) for plane in (planes.haematoxylin, planes.eosin))
        covered = [layer for layer in layers if layer.touches(x, y, size)]
        empty = not e.any() and not h.any()
        if empty and not covered:
            return None if centre.layout == "bigtiff" else glass[darker]
        picture = glass[darker] if empty else to_rgb(tables[darker], h, e)
        if not empty:
            packed = picture.view(np.uint32)[..., 0]
            np.copyto(packed, glass[darker].view(np.uint32)[..., 0], where=(e == 0) & (h == 0))
        for layer in covered:
            picture = layer.over(picture, x, y)
        return picture

    write_pyramid(
        path,
        tile,
        anatomy.frame.mpp if with_mpp else None,
        layout=centre.layout,
        width_px=width,
        height_px=height,
        tile_px=size,
        magnification=centre.magnification if with_mpp else None,
        quality=centre.quality,
    )


def _glass(centre: Centre, palette: Palette, darker: int) -> NDArray[np.uint8]:
    """Empty glass with the camera's noise: uint8 (tile_px, tile_px, 4)."""
    size = centre.tile_px
    rgb = np.array(centre.white) - darker + palette.glass_noise[:size, :size]
    full = np.full((size, size, 4), 255, dtype=np.uint8)
    full[..., :3] = np.clip(np.rint(rgb), 0, 255)
    return full


def _cut(plane: NDArray[np.uint8], x: int, y: int, size: int) -> NDArray[np.uint8]:
    part = plane[y : y + size, x : x + size]
    if part.shape == (size, size):
        return part
    full = np.zeros((size, size), dtype=np.uint8)
    full[: part.shape[0], : part.shape[1]] = part
    return full
