"""Layout of one slide: its frame, tissue, fat, compartments and lesion.

No pixel of the slide is made here. All maps are on a coarse grid of cells of about 4 µm; outlines are
polygons in level-0 pixels, and what is rendered is the raster of these very polygons, so the ground truth
is exact.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from shapely import Polygon

from wsi_ncmi.synthesis.compartments import Compartments, draw_compartments
from wsi_ncmi.synthesis.fields import coarse_noise, level_polygons, threshold_for_area

__all__ = ["Anatomy", "Frame", "Vacuole", "distance_to_fat", "draw_anatomy", "draw_fat", "frame_for_tissue"]

_CELL_UM = 4.0
_MARGIN_MM = 0.11
_GAP_MM = 0.10


@dataclass(frozen=True)
class Frame:
    """Size and scale of a slide.

    Attributes:
        width_px: Level-0 width.
        height_px: Level-0 height.
        mpp: Microns per level-0 pixel.
        pieces: Ellipses (centre x, centre y, semi-axis x, semi-axis y) in mm around which tissue grows.
    """

    width_px: int
    height_px: int
    mpp: float
    pieces: tuple[tuple[float, float, float, float], ...]

    @property
    def cell_px(self) -> int:
        """Edge of a coarse cell in level-0 px."""
        return max(1, round(_CELL_UM / self.mpp))

    @property
    def cell_um(self) -> float:
        """Edge of a coarse cell in µm."""
        return self.cell_px * self.mpp

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the coarse grid, which covers the whole slide."""
        return -(-self.height_px // self.cell_px), -(-self.width_px // self.cell_px)


def frame_for_tissue(rng: np.random.Generator, mpp: float, tissue_mm2: float) -> Frame:
    """Chooses one or two pieces of tissue with this total area and the smallest slide around them."""
    shares = (1.0,) if rng.uniform() < 0.65 else (0.6, 0.4)
    aspect = float(rng.uniform(1.15, 1.5)) if len(shares) == 1 else float(rng.uniform(1.15, 1.4))
    sizes = []
    for share in shares:
        short = np.sqrt(tissue_mm2 * share / np.pi / aspect)
        # Two pieces stand upright side by side, one lies.
        sizes.append((short * aspect, short) if len(shares) == 1 else (short, short * aspect))
    margin = _MARGIN_MM
    height_mm = 2 * max(b for _, b in sizes) + 2 * margin
    pieces, x = [], margin
    for a, b in sizes:
        slack = height_mm / 2 - margin - b
        pieces.append((float(x + a), float(height_mm / 2 + rng.uniform(-slack, slack)), float(a), float(b)))
        x += 2 * a + _GAP_MM
    width_mm = x - _GAP_MM + margin
    return Frame(round(width_mm * 1000 / mpp), round(height_mm * 1000 / mpp), mpp, tuple(pieces))


FloatMap = NDArray[np.float32]


@dataclass(frozen=True)
class Vacuole:
    """One fat cell: a round hole in the tissue (level-0 px)."""

    x: float
    y: float
    radius: float


def draw_fat(
    rng: np.random.Generator, frame: Frame, depth_um: FloatMap, lesion: NDArray[np.bool_]
) -> tuple[Vacuole, ...]:
    """Fat cells in one or two clusters, together at most about 2.5 % of the tissue."""
    free = (depth_um > 30.0) & (depth_um < 260.0) & ~lesion
    candidates = np.argwhere(free)
    if len(candidates) < 200:
        return ()
    budget = 0.025 * float((depth_um > 0).sum()) * frame.cell_um**2 * rng.uniform(0.2, 1.0)
    seeds = candidates[rng.integers(len(candidates), size=int(rng.integers(1, 3)))]
    placed: list[tuple[float, float, float]] = []
    for _ in range(400):
        seed = seeds[rng.integers(len(seeds))] * frame.cell_um
        y, x = seed + rng.normal(0, 90.0, 2)
        radius = float(rng.uniform(13.0, 30.0))
        row, column = int(y / frame.cell_um), int(x / frame.cell_um)
        if not (0 <= row < frame.shape[0] and 0 <= column < frame.shape[1]):
            continue
        if lesion[row, column] or depth_um[row, column] < radius + 12.0:
            continue
        if all(np.hypot(y - v, x - u) > radius + r + 3.0 for u, v, r in placed):
            placed.append((float(x), float(y), radius))
            budget -= np.pi * radius**2
            if budget < 0:
                break
    return tuple(Vacuole(x / frame.mpp, y / frame.mpp, r / frame.mpp) for x, y, r in placed)


def distance_to_fat(frame: Frame, vacuoles: tuple[Vacuole, ...]) -> FloatMap:
    """Distance from the edge of the nearest fat cell in µm (negative inside); 99 far away."""
    distance = np.full(frame.shape, 99.0, dtype=np.float32)
    for fat in vacuoles:
        reach = fat.radius + 12.0 / frame.mpp
        rows = slice(max(int((fat.y - reach) / frame.cell_px), 0), int((fat.y + reach) / frame.cell_px) + 2)
        columns = slice(
            max(int((fat.x - reach) / frame.cell_px), 0), int((fat.x + reach) / frame.cell_px) + 2
        )
        part = distance[rows, columns]
        y = (np.arange(part.shape[0])[:, None] + rows.start + 0.5) * frame.cell_px - fat.y
        x = (np.arange(part.shape[1])[None, :] + columns.start + 0.5) * frame.cell_px - fat.x
        np.minimum(part, (np.hypot(x, y) - fat.radius) * frame.mpp, out=part)
    return distance


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
