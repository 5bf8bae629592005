"""Pen marks, folds, blur and borders: shapes here, their effect on the pixels in ``render``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from shapely import LineString, Polygon, affinity, unary_union
from shapely.geometry.base import BaseGeometry

from wsi_ncmi.synthesis.anatomy import Anatomy
from wsi_ncmi.synthesis.outlines import polygons_of

__all__ = ["ARTEFACTS", "BORDER_COLOURS", "PEN_COLOURS", "Artefact", "draw_artefact"]

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
