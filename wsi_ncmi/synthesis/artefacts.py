"""Pen marks, folds, blur and borders: their shapes, and what they do to planes and colours."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter
from shapely import LineString, Polygon, affinity, box, unary_union
from shapely.geometry.base import BaseGeometry

from wsi_ncmi.synthesis.anatomy import Anatomy, Frame
from wsi_ncmi.synthesis.fields import coarse_noise, draw_polygons, polygons_of
from wsi_ncmi.synthesis.planes import Planes

#: What the slides of a cohort may have; a border and red ink come only where a plan asks for them.
ARTEFACTS = ("pen", "fold", "blur")
#: Transmittance of the ink in R, G, B.
PEN_COLOURS = {
    "blue": (0.13, 0.25, 0.66),
    "green": (0.12, 0.50, 0.30),
    "black": (0.13, 0.13, 0.15),
    "red": (0.78, 0.12, 0.17),
}
_COHORT_INKS = ("black", "blue", "green")
#: Grey level of what the scanner writes where it has no picture, or sees beside the glass.
BORDER_COLOURS = {"black": 4, "grey": 172}
_TRIES = 40


@dataclass(frozen=True)
class Artefact:
    """One artefact of a slide.

    Attributes:
        kind: One of ``ARTEFACTS``, or ``border``.
        polygons: Where, in level-0 px.
        colour: Ink of a pen mark (a key of ``PEN_COLOURS``), colour of a border (of ``BORDER_COLOURS``),
            else "".
        strength: Blur: sigma in µm; fold: weight of the upper layer; pen: opacity.
    """

    kind: str
    polygons: tuple[Polygon, ...]
    colour: str = ""
    strength: float = 1.0


def draw_artefact(rng: np.random.Generator, kind: str, anatomy: Anatomy) -> Artefact:
    """Places an artefact on the tissue (a pen mark also beside it) and away from a small lesion.

    A macro-metastasis may be touched; itc and micro stay clear, so that the label can still be seen.

    Args:
        rng: Source of randomness.
        kind: One of ``ARTEFACTS`` or ``border``; ``pen:red`` and ``border:grey`` choose the colour too.
        anatomy: What lies on the slide; must have tissue.
    """
    kind, _, colour = kind.partition(":")
    if kind == "border":
        chosen = colour or str(rng.choice(sorted(BORDER_COLOURS)))
        return Artefact(kind, polygons_of(_border(rng, anatomy)), chosen)
    tissue = unary_union(list(anatomy.tissue))
    lesion = unary_union(list(anatomy.tumour)).buffer(40.0 / anatomy.frame.mpp)
    draw = {"pen": _pen, "fold": _fold, "blur": _blur}[kind]
    best: tuple[float, BaseGeometry] | None = None
    for _ in range(_TRIES):
        shape = draw(rng, anatomy, tissue)
        share = shape.intersection(tissue).area / tissue.area
        low, high = {"pen": (0.004, 0.05), "fold": (0.012, 0.05), "blur": (0.03, 0.14)}[kind]
        badness = shape.intersection(lesion).area / tissue.area + max(low - share, share - high, 0.0)
        if best is None or badness < best[0]:
            best = (badness, shape)
        if badness == 0.0:
            break
    assert best is not None
    polygons = polygons_of(best[1])
    if kind == "pen":
        drawn = str(rng.choice(_COHORT_INKS))
        return Artefact(kind, polygons, colour or drawn, float(rng.uniform(0.75, 0.95)))
    return Artefact(
        kind, polygons, strength=float(rng.uniform(2.4, 4.0) if kind == "blur" else rng.uniform(0.75, 1.0))
    )


def _curve(rng: np.random.Generator, start: np.ndarray, end: np.ndarray, bend: float) -> LineString:
    """A quadratic Bézier curve, bent sideways by ``bend`` of its length."""
    t = np.linspace(0, 1, 40)[:, None]
    normal = np.array([-(end - start)[1], (end - start)[0]])
    middle = (start + end) / 2 + normal * bend * rng.uniform(-1, 1)
    return LineString((1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end)


def _pen(rng: np.random.Generator, anatomy: Anatomy, tissue: BaseGeometry) -> BaseGeometry:
    frame = anatomy.frame
    size = np.array([frame.width_px, frame.height_px])
    # A stroke from one side of the picture to a neighbouring one cuts a corner, where there is least tissue.
    corner = rng.integers(0, 2, 2)
    reach = rng.uniform(0.25, 0.75, 2)
    start = np.array([abs(corner[0] - reach[0]), corner[1] + (0.5 - corner[1]) * 0.04]) * size
    end = np.array([corner[0] + (0.5 - corner[0]) * 0.04, abs(corner[1] - reach[1])]) * size
    stroke = _curve(rng, start, end, 0.25).buffer(rng.uniform(30.0, 60.0) / frame.mpp)
    edge = 3.0 / frame.mpp
    picture = Polygon([(edge, edge), (size[0] - edge, edge), tuple(size - edge), (edge, size[1] - edge)])
    return stroke.intersection(picture)


def _fold(rng: np.random.Generator, anatomy: Anatomy, tissue: BaseGeometry) -> BaseGeometry:
    piece = max(anatomy.tissue, key=lambda p: p.area)
    outline = piece.exterior
    first = rng.uniform(0, 1)
    ends = [
        np.array(outline.interpolate((first + d) % 1.0, normalized=True).coords[0])
        for d in (0, rng.uniform(0.15, 0.4))
    ]
    ribbon = _curve(rng, ends[0], ends[1], 0.15).buffer(rng.uniform(10.0, 20.0) / anatomy.frame.mpp)
    return ribbon.intersection(tissue)


def _blur(rng: np.random.Generator, anatomy: Anatomy, tissue: BaseGeometry) -> BaseGeometry:
    left, low, right, high = tissue.bounds
    radius = np.sqrt(tissue.area * rng.uniform(0.06, 0.12) / np.pi)
    centre = (rng.uniform(left, right), rng.uniform(low, high))
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    wave = 1 + 0.08 * np.cos(3 * t + rng.uniform(0, 6)) + 0.05 * np.cos(2 * t + rng.uniform(0, 6))
    circle = Polygon(np.column_stack([radius * wave * np.cos(t), radius * wave * np.sin(t)]))
    placed = affinity.translate(
        affinity.rotate(affinity.scale(circle, 1.25, 0.8), rng.uniform(0, 180)), *centre
    )
    return placed.intersection(tissue.buffer(10.0 / anatomy.frame.mpp))


def _border(rng: np.random.Generator, anatomy: Anatomy) -> BaseGeometry:
    """One or two sides of the picture, up to a slightly slanted line that may cut into the tissue."""
    frame = anatomy.frame
    width, height = float(frame.width_px), float(frame.height_px)
    strips = []
    for side in rng.permutation(4)[: rng.integers(1, 3)]:
        near, far = (rng.uniform(90.0, 330.0) / frame.mpp * rng.uniform(0.85, 1.0, 2)).tolist()
        strips.append(
            Polygon(
                [
                    [(0, 0), (near, 0), (far, height), (0, height)],
                    [(width - near, 0), (width, 0), (width, height), (width - far, height)],
                    [(0, 0), (width, 0), (width, far), (0, near)],
                    [(0, height - near), (width, height - far), (width, height), (0, height)],
                ][side]
            )
        )
    return unary_union(strips)


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
        """True if any ink lies on the square of level-0 pixels at (x, y)."""
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
    """Border that the scanner shows beside the picture, over everything else."""

    def __init__(self, rng: np.random.Generator, artefact: Artefact) -> None:
        self._polygons = artefact.polygons
        self._grey = BORDER_COLOURS[artefact.colour]
        self._noise = rng.normal(0.0, 1.5, (256, 256, 1)).astype(np.float32)

    def touches(self, x: int, y: int, size: int) -> bool:
        """True if the border covers a part of the square of level-0 pixels at (x, y)."""
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
