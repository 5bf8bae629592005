"""Composes the two density planes (haematoxylin, eosin) of a slide at full resolution."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from wsi_ncmi.synthesis.anatomy import Anatomy
from wsi_ncmi.synthesis.compartments import PITCH_UM, Compartments
from wsi_ncmi.synthesis.fields import draw_polygons
from wsi_ncmi.synthesis.textures import BLOCK_PX, PERIOD_PX, Palette

#: The outline of the tissue is drawn at half resolution and interpolated: an edge one pixel soft, at a
#: quarter of the cost.
_MASK_SCALE = 0.5


@dataclass
class Planes:
    """Densities in units of ``stain.OD_SCALE`` / 255; 0 is glass.

    Attributes:
        haematoxylin: uint8 (height, width).
        eosin: uint8 (height, width).
        mask: uint8 (height / 2, width / 2), 255 inside tissue, fat cells cut out.
    """

    haematoxylin: NDArray[np.uint8]
    eosin: NDArray[np.uint8]
    mask: NDArray[np.uint8]


def compose_planes(rng: np.random.Generator, anatomy: Anatomy, palette: Palette) -> Planes:
    """Lays base textures by compartment, cuts them to the tissue's outline and sets the nuclei.

    Args:
        rng: Source of randomness.
        anatomy: What lies where.
        palette: Textures and stamps at the slide's resolution.

    Returns:
        The planes; all zero on a slide without tissue.
    """
    frame = anatomy.frame
    shape = (frame.height_px, frame.width_px)
    mask = _mask(anatomy)
    planes = Planes(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), mask)
    if anatomy.compartments is None:
        return planes
    offsets = {name: rng.integers(0, PERIOD_PX, 2) for name in palette.atlas.eosin}
    base = _Base(anatomy, anatomy.compartments, palette, Image.fromarray(mask), offsets)
    for y in range(0, frame.height_px, BLOCK_PX):
        for x in range(0, frame.width_px, BLOCK_PX):
            base.fill(planes, x, y)
    _set_nuclei(rng, planes, anatomy, anatomy.compartments, palette)
    return planes


def _mask(anatomy: Anatomy) -> NDArray[np.uint8]:
    frame = anatomy.frame
    height, width = -(-frame.height_px // 2), -(-frame.width_px // 2)
    mask = draw_polygons(anatomy.tissue, width, height, _MASK_SCALE)
    if not anatomy.vacuoles:
        return mask
    image = Image.fromarray(mask)
    pen = ImageDraw.Draw(image)
    for hole in anatomy.vacuoles:
        x, y, r = hole.x * _MASK_SCALE, hole.y * _MASK_SCALE, hole.radius * _MASK_SCALE
        pen.ellipse((x - r, y - r, x + r, y + r), fill=0)
    return np.array(image)


class _Base:
    """Fills blocks of the planes with the base textures."""

    def __init__(
        self,
        anatomy: Anatomy,
        compartments: Compartments,
        palette: Palette,
        mask: Image.Image,
        offsets: dict[str, NDArray[np.int64]],
    ) -> None:
        self._cell = anatomy.frame.cell_px
        self._palette = palette
        self._mask = mask
        self._offsets = offsets
        self._weights = compartments.weights
        self._images = {name: Image.fromarray(weight) for name, weight in compartments.weights.items()}
        self._thickness = Image.fromarray(compartments.thickness)

    def fill(self, planes: Planes, x: int, y: int) -> None:
        target_h = planes.haematoxylin[y : y + BLOCK_PX, x : x + BLOCK_PX]
        height, width = target_h.shape
        low_x, low_y = int(x * _MASK_SCALE), int(y * _MASK_SCALE)
        half = planes.mask[low_y : low_y + BLOCK_PX // 2 + 1, low_x : low_x + BLOCK_PX // 2 + 1]
        if not half.any():
            return
        haematoxylin = self._texture(
            self._palette.atlas.haematoxylin["cortex"], "cortex", x, y, width, height
        )
        eosin = self._texture(self._palette.atlas.eosin["cortex"], "cortex", x, y, width, height)
        cell = self._cell
        rows = slice(max(y // cell - 1, 0), (y + height) // cell + 2)
        columns = slice(max(x // cell - 1, 0), (x + width) // cell + 2)
        for name, weight in self._weights.items():
            if not weight[rows, columns].any():
                continue
            opacity = _enlarge(self._images[name], x / cell, y / cell, width, height, cell)
            haematoxylin.paste(
                self._texture(self._palette.atlas.haematoxylin[name], name, x, y, width, height), mask=opacity
            )
            eosin.paste(
                self._texture(self._palette.atlas.eosin[name], name, x, y, width, height), mask=opacity
            )
        factor = _enlarge(self._thickness, x / cell, y / cell, width, height, cell)
        if not half.all():
            factor = ImageChops.multiply(factor, _enlarge(self._mask, x / 2, y / 2, width, height, 2))
        target_h[:] = np.asarray(ImageChops.multiply(haematoxylin, factor))
        planes.eosin[y : y + height, x : x + width] = np.asarray(ImageChops.multiply(eosin, factor))

    def _texture(
        self, plane: NDArray[np.uint8], name: str, x: int, y: int, width: int, height: int
    ) -> Image.Image:
        left, top = (
            (x + int(self._offsets[name][0])) % PERIOD_PX,
            (y + int(self._offsets[name][1])) % PERIOD_PX,
        )
        return Image.fromarray(plane[top : top + height, left : left + width])


def _enlarge(coarse: Image.Image, x: float, y: float, width: int, height: int, scale: int) -> Image.Image:
    """Interpolates a coarse map to the block at the coarse position (x, y), without a seam between blocks."""
    box = (x, y, min(x + width / scale, coarse.width), min(y + height / scale, coarse.height))
    return coarse.resize((width, height), Image.Resampling.BILINEAR, box=box)


def _set_nuclei(
    rng: np.random.Generator, planes: Planes, anatomy: Anatomy, compartments: Compartments, palette: Palette
) -> None:
    frame = anatomy.frame
    rows = np.flatnonzero(planes.mask.any(axis=1)) * 2
    columns = np.flatnonzero(planes.mask.any(axis=0)) * 2
    for kind, pitch_um in PITCH_UM.items():
        probability = compartments.nuclei[kind]
        if not probability.any():
            continue
        pitch = pitch_um / palette.mpp
        ys = np.arange(rows[0], rows[-1], pitch * 0.9)
        xs = np.arange(columns[0], columns[-1], pitch)
        grid_y = np.repeat(ys[:, None], len(xs), axis=1) + rng.normal(0, 0.24 * pitch, (len(ys), len(xs)))
        grid_x = xs[None, :] + rng.normal(0, 0.24 * pitch, (len(ys), len(xs)))
        grid_x[::2] += pitch / 2
        y, x = grid_y.ravel().astype(np.int64), grid_x.ravel().astype(np.int64)
        chance, variant = rng.random(y.size), rng.integers(0, len(palette.stamps[kind]), y.size)
        inside = (y >= 0) & (x >= 0) & (y < frame.height_px) & (x < frame.width_px)
        y, x, chance, variant = y[inside], x[inside], chance[inside], variant[inside]
        cell_y, cell_x = y // frame.cell_px, x // frame.cell_px
        taken = (chance < probability[cell_y, cell_x]) & (planes.mask[y // 2, x // 2] > 0)
        upright = compartments.upright[cell_y, cell_x][taken]
        for turned, stamps in (
            (False, palette.stamps[kind]),
            (True, palette.stamps.get(f"{kind}_v", palette.stamps[kind])),
        ):
            chosen = upright == turned
            _paste(planes.haematoxylin, y[taken][chosen], x[taken][chosen], variant[taken][chosen], stamps)


def _paste(
    plane: NDArray[np.uint8],
    y: NDArray[np.int64],
    x: NDArray[np.int64],
    variant: NDArray[np.int64],
    stamps: list[NDArray[np.uint8]],
) -> None:
    height, width = plane.shape
    maximum = np.maximum
    for top, left, which in zip(y.tolist(), x.tolist(), variant.tolist(), strict=True):
        stamp = stamps[which]
        rows, columns = stamp.shape
        top -= rows // 2
        left -= columns // 2
        # Tissue keeps clear of the picture's edge by more than half a nucleus; on tiny test slides it may
        # not.
        if top < 0 or left < 0 or top + rows > height or left + columns > width:
            continue
        place = plane[top : top + rows, left : left + columns]
        maximum(place, stamp, out=place)
