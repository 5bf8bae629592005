"""One synthetic slide: of a cohort's plan, or a small one for a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from wsi_ncmi.synthesis.anatomy import Anatomy, draw_anatomy
from wsi_ncmi.synthesis.artefacts import draw_artefact
from wsi_ncmi.synthesis.centres import CENTRES, Centre
from wsi_ncmi.synthesis.classes import DRAWN_DIAMETERS_MM, circle_area_mm2, label_of_lesion_area
from wsi_ncmi.synthesis.frame import Frame, frame_for_tissue
from wsi_ncmi.synthesis.palette import palette_for
from wsi_ncmi.synthesis.plan import SlidePlan
from wsi_ncmi.synthesis.render import render_slide
from wsi_ncmi.synthesis.truth import SlideTruth, write_truth

__all__ = ["make_slide", "write_test_slide"]

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
