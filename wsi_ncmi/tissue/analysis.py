"""Analysis of a slide's overview: its tissue, and the pen ink, folds and borders on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.slides import Mpp, Overview, Slide
from wsi_ncmi.tissue.artifacts import find_borders, find_ink
from wsi_ncmi.tissue.colours import Colours, glass_colour, smooth_colours
from wsi_ncmi.tissue.config import ARTIFACT_KINDS, DETECTORS, ArtifactConfig, TissueConfig
from wsi_ncmi.tissue.connected_components import grown, without_small
from wsi_ncmi.tissue.fold_windows import FINE_UM
from wsi_ncmi.tissue.folds import SHARE_STEPS, find_folds
from wsi_ncmi.tissue.high_res_reader import HighResReader
from wsi_ncmi.tissue.mask import TissueMask, integral, shares_under
from wsi_ncmi.tissue.segmentation import add_unreadable, find_tissue, other_colours_note, slide_overview

if TYPE_CHECKING:
    import shapely


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class ArtifactMap:
    """Artefacts seen on the overview; blur is seen on the tiles themselves, unless a mask model sees it.

    Attributes:
        bits: uint8 (H, W); bit k is set where kind k is, for folds in at least half of the pixel.
        downsample_x: Level-0 pixels per map pixel along x.
        downsample_y: The same along y.
        fold_shares: uint8 (H, W), how much of each pixel is under a fold, in steps of ``1 / fold_steps``;
            None where no more is known than ``bits``.
        fold_steps: Steps in a whole pixel.
        kinds: The kinds of this map, in the order of the scores.
    """

    bits: NDArray[np.uint8]
    downsample_x: float
    downsample_y: float
    fold_shares: NDArray[np.uint8] | None = None
    fold_steps: int = 1
    kinds: tuple[str, ...] = ARTIFACT_KINDS[:3]

    def where(self, kind: str) -> NDArray[np.bool_]:
        """Outlines of an artefact.

        Args:
            kind: One of :attr:`kinds`.

        Returns:
            bool (H, W).
        """
        found: NDArray[np.bool_] = (self.bits & np.uint8(1 << self.kinds.index(kind))) != 0
        return found

    def scores_in(self, boxes: NDArray[np.float64]) -> NDArray[np.float32]:
        """Share of each box under each kind of artefact, exact for boxes at any sub-pixel position.

        Args:
            boxes: float64 (N, 4) left, top, right, bottom in level-0 pixels; parts outside the slide have
                no artefact.

        Returns:
            float32 (N, kinds) in the order of :attr:`kinds`.
        """
        scores = np.zeros((len(boxes), len(self.kinds)), np.float32)
        for column, kind in enumerate(self.kinds):
            finer = self.fold_shares if kind == "fold" else None
            found = self.where(kind) if finer is None else finer
            if found.any():
                steps = 1 if finer is None else self.fold_steps
                table = integral(found)
                scores[:, column] = shares_under(table, self.downsample_x, self.downsample_y, boxes, steps)
        return scores

    def polygons(self) -> dict[str, list[shapely.Polygon]]:
        """Outlines in level-0 pixels per kind; kinds that were not found are left out."""
        from wsi_ncmi.tissue.mask import outline

        found = {kind: outline(self.where(kind), self.downsample_x, self.downsample_y) for kind in self.kinds}
        return {kind: polygons for kind, polygons in found.items() if polygons}


_RIM_PX = 3


def find_artifacts(
    slide: Slide,
    overview: Overview,
    colours: Colours,
    mask: TissueMask,
    pixel_um: tuple[float, float],
    detectors: int = DETECTORS,
) -> ArtifactMap:
    """Finds pen ink, folds and borders.

    Args:
        slide: The open slide; parts of it are read again at high resolution.
        overview: The overview.
        colours: Its smoothed densities.
        mask: Its tissue.
        pixel_um: Width and height of a pixel of the overview in µm.
        detectors: Version of the detectors.
    """
    pixel_um2 = pixel_um[0] * pixel_um[1]
    # Planes of a large slide have 22 MB each: none is kept longer than it is needed.
    border, rim = find_borders(colours, pixel_um2, detectors)
    eligible = overview.readable & ~rim
    bits = border.view(np.uint8) << np.uint8(2)
    del border, rim
    pen = find_ink(colours, eligible, pixel_um2, detectors)
    bits |= pen.view(np.uint8)
    eligible &= mask.mask
    # The rim of a mark is a little darker than the tissue, and as long and narrow as a fold.
    eligible &= ~grown(pen, _RIM_PX)
    del pen
    with HighResReader(slide, overview, pixel_um, FINE_UM) as high_res:
        folds = find_folds(colours, eligible, pixel_um, high_res, detectors)
    bits |= (folds >= SHARE_STEPS // 2).view(np.uint8) << np.uint8(1)
    return ArtifactMap(bits, overview.downsample_x, overview.downsample_y, folds, SHARE_STEPS)


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class TissueAnalysis:
    """Tissue and artefacts of a slide.

    Attributes:
        mask: Its tissue.
        artifacts: Its pen marks, folds and borders.
        pixels: uint8 (H, W, 3), the analysed overview, for its picture.
    """

    mask: TissueMask
    artifacts: ArtifactMap
    pixels: NDArray[np.uint8]


def analyse_tissue(
    slide: Slide,
    mpp: Mpp,
    tissue_options: TissueConfig,
    artifact_options: ArtifactConfig,
    device: str = "cpu",
) -> TissueAnalysis:
    """Finds tissue and artefacts of a slide from one overview, and folds from places read at high resolution.

    Args:
        slide: An open slide.
        mpp: Its resolution.
        tissue_options: Method and limits of the tissue mask.
        artifact_options: Version of the detectors; the map doesn't depend on the thresholds.
        device: Where a mask model in TorchScript runs: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        Both, at most as coarse as ``working_mpp``.

    Raises:
        SlideReadError: Nothing of the slide can be read.
        SlideError: It is coarser than the mask model's input.
        InputError: The mask model can't be used.
    """
    overview = slide_overview(slide, mpp, tissue_options)
    if tissue_options.model_file is not None:
        return _with_model(slide, mpp, overview, tissue_options, artifact_options, device)
    mask, colours = find_tissue(overview, mpp, tissue_options)
    pixel_um = (overview.downsample_x * mpp.x, overview.downsample_y * mpp.y)
    artifacts = find_artifacts(slide, overview, colours, mask, pixel_um, artifact_options.detectors)
    notes = [overview.note, mask.note]
    if tissue_options.method == "hed":
        eligible = overview.readable & ~artifacts.where("border")
        smallest = tissue_options.min_object_um2 / (pixel_um[0] * pixel_um[1])
        notes.append(other_colours_note(colours, eligible, mask.mask, smallest))
    mask = replace(mask, note="; ".join(text for text in notes if text))
    return TissueAnalysis(mask, artifacts, overview.pixels)


def segment_tissue(slide: Slide, mpp: Mpp, options: TissueConfig) -> TissueMask:
    """Finds the tissue of a slide.

    Where next to nothing is found the threshold is loosened once. Areas that can't be read count as tissue,
    so that their tiles end as failed reads in the ledger and not as glass. The mask's note says either.

    Args:
        slide: An open slide.
        mpp: Its resolution.
        options: Method and limits.

    Returns:
        The mask, at most as coarse as ``working_mpp``.

    Raises:
        SlideReadError: Nothing of the slide can be read.
        InputError: The mask model can't be used.
    """
    if options.model_file is not None:
        return analyse_tissue(slide, mpp, options, ArtifactConfig()).mask
    return find_tissue(slide_overview(slide, mpp, options), mpp, options)[0]


def _with_model(
    slide: Slide,
    mpp: Mpp,
    overview: Overview,
    options: TissueConfig,
    artifact_options: ArtifactConfig,
    device: str,
) -> TissueAnalysis:
    """Tissue by a mask model, and the artefacts that it has a class for; the detectors see the others."""
    from wsi_ncmi.tissue.learned import check_mask_model, find_classes, load_mask_model

    options = options if options.model_sha256 else check_mask_model(options)
    assert options.model_file is not None
    assert options.model_sha256 is not None
    model = load_mask_model(options.model_file, options.model_sha256, device)
    pixel_um = (overview.downsample_x * mpp.x, overview.downsample_y * mpp.y)
    sigma = options.smooth_um / pixel_um[1], options.smooth_um / pixel_um[0]
    colours = smooth_colours(overview, glass_colour(overview), sigma)
    seen = find_classes(slide, mpp, overview, colours.green, model, SHARE_STEPS)
    without_small(seen.tissue, options.min_object_um2 / (pixel_um[0] * pixel_um[1]))
    without_small(seen.tissue, options.min_hole_um2 / (pixel_um[0] * pixel_um[1]), value=False)
    note = "; ".join(add_unreadable(seen.tissue, overview.readable))
    settings = options.to_json()
    mask = TissueMask(
        seen.tissue, overview.downsample_x, overview.downsample_y, settings["method"], settings, note
    )
    bits, folds = seen.bits, seen.fold_shares
    if not set(ARTIFACT_KINDS[:3]) <= set(seen.told):
        others = find_artifacts(slide, overview, colours, mask, pixel_um, artifact_options.detectors)
        told = sum(1 << ARTIFACT_KINDS.index(kind) for kind in seen.told)
        bits = bits | (others.bits & np.uint8(0xFF ^ told))
        if "fold" not in seen.told and others.fold_shares is not None:
            folds = others.fold_shares
    kinds = ARTIFACT_KINDS if "blur" in seen.told else ARTIFACT_KINDS[:3]
    found = ArtifactMap(bits, overview.downsample_x, overview.downsample_y, folds, SHARE_STEPS, kinds)
    return TissueAnalysis(mask, found, overview.pixels)
