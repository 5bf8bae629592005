"""One look at a overview, for its tissue and its artefacts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides import LevelReader, Mpp, OpenLevel, Slide
from wsi_ncmi.tissue.artifacts import ArtifactMap, find_artifacts
from wsi_ncmi.tissue.config import ArtifactConfig, TissueConfig
from wsi_ncmi.tissue.mask import TissueMask
from wsi_ncmi.tissue.segmentation import find_tissue, slide_overview

__all__ = ["TissueAnalysis", "analyse_tissue"]


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class TissueAnalysis:
    """Tissue and artefacts of a slide.

    Attributes:
        mask: Its tissue.
        artifacts: Its pen marks, folds and borders.
        pixels: uint8 (H, W, 3), what was looked at: the whole overview, for its picture.
    """

    mask: TissueMask
    artifacts: ArtifactMap
    pixels: NDArray[np.uint8]


def analyse_tissue(
    slide: Slide,
    mpp: Mpp,
    tissue_options: TissueConfig,
    artifact_options: ArtifactConfig,
    open_level: OpenLevel = LevelReader,
) -> TissueAnalysis:
    """Finds tissue and artefacts of a slide from one overview, and folds from places read at high resolution.

    Args:
        slide: An open slide.
        mpp: Its resolution.
        tissue_options: Method and limits of the tissue mask.
        artifact_options: Thresholds of the artefact scores; the map itself doesn't depend on them.
        open_level: How places are read at high resolution: through the slide's reader, or faster
            (``wsi_ncmi.tiling.StoredRegions``).

    Returns:
        Both, at most as coarse as ``working_mpp``.

    Raises:
        SlideReadError: Nothing of the slide can be read.
    """
    overview = slide_overview(slide, mpp, tissue_options)
    mask, colours = find_tissue(overview, mpp, tissue_options)
    pixel_um = (overview.downsample_x * mpp.x, overview.downsample_y * mpp.y)
    artifacts = find_artifacts(slide, overview, colours, mask, pixel_um, open_level)
    return TissueAnalysis(mask, artifacts, overview.pixels)
