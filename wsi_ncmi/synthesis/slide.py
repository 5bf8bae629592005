"""One synthetic slide: of a cohort's plan, or a small one for a test."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.synthesis.anatomy import Anatomy, Frame, draw_anatomy, frame_for_tissue
from wsi_ncmi.synthesis.artefacts import Artefact, BorderLayer, PenLayer, apply_to_planes, draw_artefact
from wsi_ncmi.synthesis.centres import CENTRES, Centre, stain_table, to_rgb
from wsi_ncmi.synthesis.fields import coarse_noise
from wsi_ncmi.synthesis.plan import DRAWN_DIAMETERS_MM, SlidePlan, circle_area_mm2, label_of_lesion_area
from wsi_ncmi.synthesis.planes import compose_planes
from wsi_ncmi.synthesis.pyramid import write_pyramid
from wsi_ncmi.synthesis.textures import Palette, palette_for
from wsi_ncmi.synthesis.truth import SlideTruth, write_truth

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


_EMPTY_MM = (0.9, 0.7)


def make_slide(plan: SlidePlan, slides: Path, truth: Path) -> SlideTruth:
    """Draws one slide of a cohort; the plan alone decides every byte.

    Args:
        plan: What to draw.
        slides: Existing folder for the slide.
        truth: Existing folder for its GeoJSON, which is written first: a slide never lacks its truth.

    Returns:
        The ground truth.
    """
    rng = np.random.default_rng(np.random.SeedSequence([plan.seed, plan.patient, plan.index]))
    centre = CENTRES[plan.centre]
    mpp = centre.mpp
    if plan.has_tissue:
        anatomy = _anatomy_with_label(rng, centre, plan.label)
    else:
        anatomy = Anatomy(Frame(round(_EMPTY_MM[0] * 1000 / mpp), round(_EMPTY_MM[1] * 1000 / mpp), mpp, ()))
    artefacts = (draw_artefact(rng, plan.artefact, anatomy),) if plan.artefact else ()
    result = SlideTruth(plan.slide_id, plan.label, anatomy, artefacts)
    write_truth(truth / f"{plan.slide_id}.geojson", result)
    render_slide(slides / plan.file_name, rng, anatomy, artefacts, centre, palette_for(plan.seed, mpp))
    return result


def _anatomy_with_label(rng: np.random.Generator, centre: Centre, label: str) -> Anatomy:
    """Draws tissue and lesion until the class of what was drawn is the class that was planned.

    Outlines are simplified and crumbs left out, so that an area can miss its aim by some percent; a second
    try is hardly ever needed.
    """
    while True:
        tissue_mm2 = centre.tissue_mm2 * float(rng.uniform(0.93, 1.10))
        lesion_mm2 = 0.0
        if label != "negative":
            lesion_mm2 = circle_area_mm2(float(rng.uniform(*DRAWN_DIAMETERS_MM[label])))
        frame = frame_for_tissue(rng, centre.mpp, tissue_mm2)
        anatomy = draw_anatomy(rng, frame, tissue_mm2=tissue_mm2, lesion_mm2=lesion_mm2)
        if label_of_lesion_area(anatomy.tumour_mm2) == label:
            return anatomy


def write_test_slide(
    path: Path,
    *,
    width_px: int = 1024,
    height_px: int = 1024,
    mpp: float | None = 0.5,
    format: Literal["svs", "bigtiff"] = "svs",  # noqa: A002 - the word that everybody uses
    seed: int = 0,
    tissue_share: float = 0.5,
    lesion_share: float = 0.0,
) -> SlideTruth:
    """Writes one small slide quickly (1024 × 1024 px in about 0.2 s), for the tests of other rooms.

    Args:
        path: The file to make; its folder must exist.
        width_px: Level-0 width.
        height_px: Level-0 height.
        mpp: Microns per pixel; None draws at 0.5 and writes no scale to the file.
        format: ``svs`` (Aperio, tiles of 256 px) or ``bigtiff`` (tiles of 256 px, absent background).
        seed: Same arguments, same bytes.
        tissue_share: Share of the picture covered by tissue, 0–0.7.
        lesion_share: Share of the tissue covered by tumour, 0–0.8.

    Returns:
        The ground truth (outlines in level-0 px); the label follows from the lesion's area.

    Raises:
        ValueError: A share is outside its range.
    """
    if not (0.0 <= tissue_share <= 0.7 and 0.0 <= lesion_share <= 0.8):
        raise ValueError("tissue_share must lie in 0–0.7 and lesion_share in 0–0.8.")
    scale = 0.5 if mpp is None else mpp
    rng = np.random.default_rng(np.random.SeedSequence([seed, width_px, height_px]))
    width_mm, height_mm = width_px * scale / 1000, height_px * scale / 1000
    frame = Frame(
        width_px, height_px, scale, ((width_mm / 2, height_mm / 2, width_mm * 0.46, height_mm * 0.46),)
    )
    anatomy = Anatomy(frame)
    if tissue_share > 0:
        tissue_mm2 = tissue_share * width_mm * height_mm
        anatomy = draw_anatomy(rng, frame, tissue_mm2=tissue_mm2, lesion_mm2=lesion_share * tissue_mm2)
    like = CENTRES[0] if format == "svs" else CENTRES[3]
    centre = replace(
        like, mpp=scale, tile_px=256, magnification=round(10 / scale) if format == "svs" else None
    )
    render_slide(path, rng, anatomy, (), centre, palette_for(0, scale), with_mpp=mpp is not None)
    return SlideTruth(path.stem, label_of_lesion_area(anatomy.tumour_mm2), anatomy)
