"""What artefacts do to the density planes (fold, blur) and to the colours (pen, border)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter
from shapely import affinity, box

from wsi_ncmi.synthesis.artefacts import BORDER_COLOURS, PEN_COLOURS, Artefact
from wsi_ncmi.synthesis.frame import Frame
from wsi_ncmi.synthesis.noise import coarse_noise
from wsi_ncmi.synthesis.outlines import draw_polygons
from wsi_ncmi.synthesis.planes import Planes

__all__ = ["BorderLayer", "PenLayer", "apply_to_planes"]


def apply_to_planes(planes: Planes, artefact: Artefact, mpp: float) -> None:
    """Folds or blurs the planes in place; pen marks and borders don't change them."""
    if artefact.kind in ("pen", "border"):
        return
    for polygon in artefact.polygons:
        sigma = artefact.strength / mpp if artefact.kind == "blur" else 1.0
        pad = int(4 * sigma) + 2
        x0, y0, x1, y1 = (int(v) for v in polygon.bounds)
        rows = slice(max(y0 - pad, 0), y1 + pad)
        columns = slice(max(x0 - pad, 0), x1 + pad)
        shape = planes.eosin[rows, columns].shape
        moved = affinity.translate(polygon, -columns.start, -rows.start)
        inside = Image.fromarray(draw_polygons([moved], shape[1], shape[0], 1.0))
        # Focus is lost gradually, a fold has an edge.
        inside = inside.filter(ImageFilter.BoxBlur(12.0 / mpp if artefact.kind == "blur" else 1))
        for plane in (planes.haematoxylin, planes.eosin):
            sharp = Image.fromarray(np.ascontiguousarray(plane[rows, columns]))
            changed = (
                sharp.filter(ImageFilter.GaussianBlur(sigma))
                if artefact.kind == "blur"
                else _doubled(sharp, artefact, mpp)
            )
            plane[rows, columns] = np.asarray(Image.composite(changed, sharp, inside))


def _doubled(layer: Image.Image, artefact: Artefact, mpp: float) -> Image.Image:
    # In a fold the section lies on itself: the upper layer is the neighbourhood, mirrored.
    upper = ImageChops.offset(layer.transpose(Image.Transpose.ROTATE_180), round(23 / mpp), round(11 / mpp))
    return ImageChops.add(layer, upper.point([round(v * artefact.strength) for v in range(256)]))


class PenLayer:
    """Ink over the finished picture, kept on a coarse grid."""

    def __init__(self, rng: np.random.Generator, artefact: Artefact, frame: Frame) -> None:
        rows, columns = frame.shape
        cell = frame.cell_px
        fine = draw_polygons(artefact.polygons, columns * 4, rows * 4, 4.0 / cell)
        share = np.asarray(Image.fromarray(fine).reduce(4), dtype=np.float32) / 255.0
        streaks = (
            1.0 + 0.10 * coarse_noise(rng, rows, columns, 12.0) + 0.04 * coarse_noise(rng, rows, columns, 2.0)
        )
        self._cell = cell
        self._opacity = np.clip(share * artefact.strength * streaks * 255, 0, 255).astype(np.uint8)
        self._image = Image.fromarray(self._opacity)
        self._ink = np.array(PEN_COLOURS[artefact.colour], dtype=np.float32)

    def touches(self, x: int, y: int, size: int) -> bool:
        """Whether any ink lies on the square of level-0 pixels at (x, y)."""
        c = self._cell
        return bool(
            self._opacity[
                max(y // c - 1, 0) : (y + size) // c + 2, max(x // c - 1, 0) : (x + size) // c + 2
            ].any()
        )

    def over(self, tile: NDArray[np.uint8], x: int, y: int) -> NDArray[np.uint8]:
        """A tile seen through the ink.

        Args:
            tile: uint8 (size, size, 3 or 4).
            x: Level-0 pixel of its corner.
            y: The same downwards.

        Returns:
            uint8 (size, size, 3).
        """
        size, c = tile.shape[0], self._cell
        # Beyond the coarse grid's edge (tiles overhang the slide) there is no ink.
        width = min(size, self._image.width * c - x)
        height = min(size, self._image.height * c - y)
        box = (x / c, y / c, (x + width) / c, (y + height) / c)
        opacity = self._image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        alpha = np.zeros((size, size, 1), dtype=np.float32)
        alpha[:height, :width, 0] = np.asarray(opacity, dtype=np.float32) / 255.0
        transmitted = 1.0 - alpha * (1.0 - self._ink)
        inked: NDArray[np.uint8] = (tile[..., :3] * transmitted + 0.5).astype(np.uint8)
        return inked


class BorderLayer:
    """What the scanner shows beside the picture, over everything else."""

    def __init__(self, rng: np.random.Generator, artefact: Artefact) -> None:
        self._polygons = artefact.polygons
        self._grey = BORDER_COLOURS[artefact.colour]
        self._noise = rng.normal(0.0, 1.5, (256, 256, 1)).astype(np.float32)

    def touches(self, x: int, y: int, size: int) -> bool:
        """Whether the border covers a part of the square of level-0 pixels at (x, y)."""
        square = box(x, y, x + size, y + size)
        return any(polygon.intersects(square) for polygon in self._polygons)

    def over(self, tile: NDArray[np.uint8], x: int, y: int) -> NDArray[np.uint8]:
        """A tile with the border over it: uint8 (size, size, 3), as :meth:`PenLayer.over`."""
        size = tile.shape[0]
        moved = [affinity.translate(polygon, -x, -y) for polygon in self._polygons]
        inside = draw_polygons(moved, size, size, 1.0) > 0
        noise = np.tile(self._noise, (-(-size // 256), -(-size // 256), 1))[:size, :size]
        grey = np.clip(np.rint(self._grey + noise), 0, 255).astype(np.uint8)
        covered: NDArray[np.uint8] = np.where(inside[..., None], grey, tile[..., :3])
        return covered
