"""Draws where everything lies on one slide: tissue, its compartments, lesion.

No pixel of the slide is made here. All maps are on a coarse grid of cells of about 4 µm; outlines are
polygons in level-0 pixels, and what is rendered is the raster of these very polygons, so the ground truth
is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from shapely import Polygon

from wsi_ncmi.synthesis.compartments import Compartments, draw_compartments
from wsi_ncmi.synthesis.fat import Vacuole, distance_to_fat, draw_fat
from wsi_ncmi.synthesis.frame import Frame
from wsi_ncmi.synthesis.noise import coarse_noise
from wsi_ncmi.synthesis.outlines import level_polygons, threshold_for_area

__all__ = ["Anatomy", "draw_anatomy"]

FloatMap = NDArray[np.float32]


@dataclass(frozen=True)
class Anatomy:
    """Everything that lies on a slide.

    Attributes:
        frame: Size and scale.
        tissue: Outlines of the tissue, fat cells included.
        tumour: Outlines of the lesion, inside the tissue.
        vacuoles: Fat cells.
        compartments: Share of each tissue and nucleus kind, per coarse cell; None on a slide without tissue.
    """

    frame: Frame
    tissue: tuple[Polygon, ...] = ()
    tumour: tuple[Polygon, ...] = ()
    vacuoles: tuple[Vacuole, ...] = ()
    compartments: Compartments | None = field(default=None, repr=False)

    @property
    def tissue_mm2(self) -> float:
        """Area inside the tissue outlines."""
        return float(sum(p.area for p in self.tissue)) * (self.frame.mpp / 1000) ** 2

    @property
    def tumour_mm2(self) -> float:
        """Area inside the lesion's outlines."""
        return float(sum(p.area for p in self.tumour)) * (self.frame.mpp / 1000) ** 2


def draw_anatomy(
    rng: np.random.Generator, frame: Frame, *, tissue_mm2: float, lesion_mm2: float = 0.0
) -> Anatomy:
    """Draws tissue of an exact area with a lesion of an exact area.

    Args:
        rng: Source of randomness.
        frame: The slide.
        tissue_mm2: Tissue area, mm² (within 1 %).
        lesion_mm2: Tumour area, mm² (within 3 %); 0 for none.

    Returns:
        Outlines and coarse maps.

    Raises:
        ValueError: The lesion doesn't fit into the tissue.
    """
    from scipy import ndimage

    cell_mm2 = (frame.cell_um / 1000) ** 2
    shape_field = _tissue_field(rng, frame)
    threshold = threshold_for_area(shape_field, tissue_mm2 / cell_mm2)
    tissue_mask = _without_crumbs(shape_field > threshold, 0.03 / cell_mm2)
    shape_field = np.where(tissue_mask, np.maximum(shape_field, threshold + 1e-3), shape_field)
    near = ndimage.binary_dilation(tissue_mask, iterations=2)
    shape_field = np.where(near, shape_field, np.minimum(shape_field, threshold - 1e-3))
    tissue = level_polygons(shape_field, threshold, frame.cell_px, min_area_px=50.0 / frame.mpp**2)
    depth_um = ndimage.distance_transform_edt(tissue_mask).astype(np.float32) * frame.cell_um
    tumour: tuple[Polygon, ...] = ()
    lesion_mask = np.zeros(frame.shape, dtype=bool)
    if lesion_mm2 > 0:
        lesion_field = _lesion_field(rng, frame, depth_um, lesion_mm2)
        if lesion_mm2 / cell_mm2 > np.isfinite(lesion_field).sum():
            raise ValueError(f"A lesion of {lesion_mm2} mm² doesn't fit into {tissue_mm2} mm² of tissue.")
        cut = threshold_for_area(lesion_field, lesion_mm2 / cell_mm2)
        finite = np.where(np.isfinite(lesion_field), lesion_field, cut - 1.0)
        holes = ndimage.binary_fill_holes(finite > cut) & (finite <= cut)
        finite = np.where(holes, cut + 1e-3, finite)
        tumour = level_polygons(
            finite, cut, frame.cell_px, min_area_px=0.04 * lesion_mm2 / (frame.mpp / 1000) ** 2, inside=tissue
        )
        lesion_mask = finite > cut
    vacuoles = draw_fat(rng, frame, depth_um, lesion_mask)
    compartments = draw_compartments(
        rng, frame.cell_um, depth_um, lesion_mask, distance_to_fat(frame, vacuoles), solid=lesion_mm2 < 0.02
    )
    return Anatomy(frame, tissue, tumour, vacuoles, compartments)


def _tissue_field(rng: np.random.Generator, frame: Frame) -> FloatMap:
    rows, columns = frame.shape
    to_mm = frame.cell_um / 1000
    y = (np.arange(rows, dtype=np.float32)[:, None] + 0.5) * to_mm
    x = (np.arange(columns, dtype=np.float32)[None, :] + 0.5) * to_mm
    result = np.full((rows, columns), -1.0, dtype=np.float32)
    for centre_x, centre_y, a, b in frame.pieces:
        u, v = (x - centre_x) / a, (y - centre_y) / b
        piece = (1.0 - np.sqrt(u**2 + v**2)) * min(a, b)
        # The hilum: a notch in the outline, as in a bean.
        angle = rng.uniform(0, 2 * np.pi)
        notch = ((u - np.cos(angle)) ** 2 + (v - np.sin(angle)) ** 2) / rng.uniform(0.02, 0.07)
        piece -= np.float32(rng.uniform(0.1, 0.35) * min(a, b)) * np.exp(-notch)
        result = np.maximum(result, piece.astype(np.float32))
    size = min(1.0, min(min(a, b) for *_, a, b in frame.pieces) / 0.5)
    for length_um, amplitude_mm in ((420.0, 0.040), (110.0, 0.007), (30.0, 0.003), (12.0, 0.0015)):
        result += np.float32(amplitude_mm * size) * coarse_noise(
            rng, rows, columns, length_um * size / frame.cell_um
        )
    edge = np.minimum(np.minimum(x, columns * to_mm - x), np.minimum(y, rows * to_mm - y))
    # Tissue ends before the edge of the picture, so that every outline is closed.
    return np.where(edge < 0.025, np.float32(-1.0), result).astype(np.float32)


def _without_crumbs(mask: NDArray[np.bool_], min_cells: float) -> NDArray[np.bool_]:
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    keep = sizes >= min(min_cells, sizes[1:].max())
    keep[0] = False
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(keep[labels])
    return filled


def _lesion_field(rng: np.random.Generator, frame: Frame, depth_um: FloatMap, lesion_mm2: float) -> FloatMap:
    """Higher = sooner tumour; −inf where tumour may not grow."""
    radius_um = float(np.sqrt(lesion_mm2 / np.pi)) * 1000
    # Metastases start in the subcapsular sinus; large ones have long left it.
    low, high = (25.0 + radius_um * 0.5, 70.0 + radius_um) if radius_um < 330 else (120.0, 1e9)
    candidates = np.argwhere((depth_um > low) & (depth_um < high))
    if len(candidates) == 0:
        candidates = np.argwhere(depth_um >= depth_um.max() * 0.8)
    rows, columns = frame.shape
    y = np.arange(rows, dtype=np.float32)[:, None]
    x = np.arange(columns, dtype=np.float32)[None, :]
    seed_y, seed_x = candidates[rng.integers(len(candidates))]
    distance = np.sqrt((y - seed_y) ** 2 + (x - seed_x) ** 2) * np.float32(frame.cell_um / radius_um)
    value = -distance
    for length, amplitude in ((0.9, 0.22), (0.35, 0.10), (0.15, 0.04)):
        value += np.float32(amplitude) * coarse_noise(
            rng, rows, columns, max(length * radius_um / frame.cell_um, 2.0)
        )
    return np.where(depth_um > 10.0, value, -np.inf).astype(np.float32)
