"""Forecast of the disk space that a job takes."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.files import existing_folder

if TYPE_CHECKING:
    from wsi_ncmi.encoders import EncoderInfo
    from wsi_ncmi.extraction.task import SlideTask

_LOG = logging.getLogger(__name__)
# Of a scan's area; biopsies have less, resections more. A cohort's own share is known only afterwards.
_TISSUE_SHARE = 1 / 3
# Coordinates, tissue share and artefact scores of a tile; features are two bytes a value.
_BYTES_OF_TILE = 16 + 2 + 8
# Thumbnail, outline, and HDF5's own tables.
_BYTES_OF_SLIDE = 300_000


@dataclass(frozen=True)
class Forecast:
    """What a job will write.

    Attributes:
        slides: Feature files to make, one a slide and set of features; those that are there don't count.
        likely: Bytes, if a third of every scan is tissue.
        most: Bytes, if all of it is.
    """

    slides: int
    likely: int
    most: int


def forecast(tasks: Iterable[SlideTask], encoder: EncoderInfo) -> Forecast:
    """Adds up what the slides of a job may take, from their sizes alone.

    Args:
        tasks: The job.
        encoder: Its encoder.
    """
    slides = likely = most = 0
    for task in tasks:
        record, grid = task.record, task.config.grid
        if record.problem or record.mpp_x is None or record.mpp_y is None:
            continue
        if task.feature_path(encoder.name).exists() and not task.config.overwrite:
            continue
        stride_um = (grid.edge_px - grid.overlap_px) * grid.target_mpp
        area_um2 = record.width_px * record.mpp_x * record.height_px * record.mpp_y
        tiles = area_um2 / stride_um**2
        each = encoder.embed_dim * 2 + _BYTES_OF_TILE
        slides += 1
        most += int(tiles * each) + _BYTES_OF_SLIDE
        likely += int(tiles * _TISSUE_SHARE * each) + _BYTES_OF_SLIDE
    return Forecast(slides, likely, most)


def check_space(tasks: Sequence[SlideTask], encoder: EncoderInfo, *, refuse: bool = True) -> Forecast:
    """Compares the forecast with the free space of the output's disk.

    Args:
        tasks: The job.
        encoder: Its encoder.
        refuse: Whether a job that most likely does not fit is an error; else it is a warning.

    Returns:
        The forecast.

    Raises:
        InputError: The job most likely does not fit.
    """
    found = forecast(tasks, encoder)
    if not tasks or not found.slides:
        return found
    out = tasks[0].out
    free = shutil.disk_usage(existing_folder(out)).free
    text = (
        f"the features of {counted(found.slides, 'slide')} will take about {_size(found.likely)} (at most "
        f"{_size(found.most)}), and {_size(free)} are free in {out}"
    )
    if found.likely > free and refuse:
        raise InputError(
            f"The disk is too small: {text}; free some, choose another --out, or continue regardless with "
            "--set extraction.check_space=false."
        )
    if found.most > free:
        _LOG.warning("The disk may become too small: %s.", text)
    else:
        _LOG.info("extract: %s.", text)
    return found


def _size(count: int) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
