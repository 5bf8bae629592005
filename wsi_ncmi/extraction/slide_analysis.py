"""Analysis of a slide: tissue, artefacts, and a thumbnail."""

import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import SlideError
from wsi_ncmi.extraction.execution.plan import can_use_gpu
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.schema import canonical_json
from wsi_ncmi.features.stain.density import tissue_colour
from wsi_ncmi.slides import Slide, thumbnail
from wsi_ncmi.tissue import ArtifactMap, TissueMask, analyse_tissue, apply_annotations, read_annotations

__all__ = ["SlideAnalysis", "analyse_slide"]

THUMBNAIL_PX = 1024
"""Longest side of the thumbnail of a slide."""

# An overview of at least this size makes the thumbnail; else the slide is small, and read again at this size.
_MIN_THUMBNAIL_PX = 512
_MAX_SHARED = 4


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class SlideAnalysis:
    """Analysis of a slide, whatever its tiles.

    Attributes:
        mask: Its tissue, as changed by annotations.
        artifacts: Its pen marks, folds and borders.
        thumbnail: uint8 (h, w, 3), the whole slide.
        remark: Remark for the ledger about annotations.
    """

    mask: TissueMask
    artifacts: ArtifactMap
    thumbnail: NDArray[np.uint8]
    remark: str = ""


def analyse_slide(task: SlideTask, slide: Slide) -> SlideAnalysis:
    """Analyses a slide, once for all sets of features that the job makes of it in this process.

    Args:
        task: What to do.
        slide: The open slide.

    Raises:
        SlideError: Nothing of the slide can be read, or its annotations changed since the job began.
        InputError: Its annotations can't be read.
    """
    return _analyse(task, slide) if task.n_sets == 1 else _SHARED.get(task, slide)


def _analyse(task: SlideTask, slide: Slide) -> SlideAnalysis:
    config = task.config
    device = config.encoder.device if can_use_gpu(config.encoder) else "cpu"
    seen = analyse_tissue(slide, task.mpp, config.tissue, config.artifacts, device)
    mask, remark = seen.mask, ""
    if task.annotations is not None:
        if task.annotations.path is None:
            remark = "it has no annotation file; its tissue is what was found automatically"
        else:
            if any(slide.origin) and task.record.scanned != slide.bounds:
                raise SlideError(
                    f"The inventory does not say where the scanned area of {task.record.path} begins, from "
                    "which QuPath counts its annotations; write it again with wsi-ncmi inventory."
                )
            drawn = read_annotations(task.annotations.path, slide.bounds)
            if drawn.sha256 != task.annotations.sha256:
                raise SlideError(
                    f"{task.annotations.path.name} was changed while the job ran; start the job again."
                )
            mask = apply_annotations(mask, drawn)
    if mask.mask.shape == seen.pixels.shape[:2] and (colour := tissue_colour(seen.pixels, mask.mask)):
        mask = replace(mask, parameters={**mask.parameters, "colour": colour})
    return SlideAnalysis(mask, seen.artifacts, _thumbnail(slide, seen.pixels), remark)


def _thumbnail(slide: Slide, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The slide at no more than ``THUMBNAIL_PX``, from what was read already where that will do."""
    from PIL import Image

    height, width = pixels.shape[:2]
    if max(height, width) < min(_MIN_THUMBNAIL_PX, max(slide.width_px, slide.height_px)):
        return thumbnail(slide, _MIN_THUMBNAIL_PX)
    scale = min(THUMBNAIL_PX, max(height, width)) / max(slide.width_px, slide.height_px)
    size = max(1, round(slide.width_px * scale)), max(1, round(slide.height_px * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


class _Shared:
    """Analyses that several tasks of this process wait for; the last one removes them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[str, Future[SlideAnalysis]] = OrderedDict()
        self._left: dict[str, int] = {}

    def get(self, task: SlideTask, slide: Slide) -> SlideAnalysis:
        key = _key(task)
        with self._lock:
            found = self._found.get(key)
            ours = found is None
            if found is None:
                found = self._found[key] = Future()
                self._left[key] = task.n_sets
                while (
                    len(self._found) > _MAX_SHARED
                ):  # tasks that were skipped or failed never come for theirs
                    self._forget(next(iter(self._found)))
            self._left[key] = self._left.get(key, 1) - 1
            if self._left[key] <= 0:
                self._forget(key)
        if ours:
            try:
                found.set_result(_analyse(task, slide))
            except BaseException as error:
                found.set_exception(error)
                with self._lock:
                    self._forget(key)
                raise
        return found.result()

    def _forget(self, key: str) -> None:
        self._found.pop(key, None)
        self._left.pop(key, None)


def _key(task: SlideTask) -> str:
    record = task.record
    return canonical_json(
        {
            "slide": [str(task.slide_path), record.fingerprint, record.mpp_x, record.mpp_y],
            "tissue": task.config.tissue.to_json(),
            "detectors": task.config.artifacts.detectors,
            "annotations": None if task.annotations is None else task.annotations.sha256,
        }
    )


_SHARED = _Shared()
