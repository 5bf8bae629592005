"""From the slides of an inventory to the work on each: further resolutions, annotations, the target stain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.slides import SlideRecord
from wsi_ncmi.tiling import GridConfig

if TYPE_CHECKING:
    from wsi_ncmi.extraction.task import AnnotationFile, SlideTask
    from wsi_ncmi.features.stain import StainTarget
    from wsi_ncmi.workflows.extraction_request import ExtractionRequest

__all__ = ["annotated", "check_annotation_folder", "grids_of", "make_tasks"]


def grids_of(request: ExtractionRequest) -> dict[str, GridConfig]:
    """The grids of a job by the name of their set of features; the main set's name is empty.

    Raises:
        InputError: The same resolution is asked for twice.
    """
    from wsi_ncmi.features.paths import set_name

    grids = {"": request.grid}
    for mpp in request.further_mpp:
        name = set_name(mpp)
        if name in grids or name == set_name(request.grid.mpp):
            raise InputError(
                f"The resolution of {mpp:g} µm per pixel is asked for twice; name each --mpp once."
            )
        grids[name] = replace(request.grid, mpp=mpp)
    return grids


def make_tasks(
    request: ExtractionRequest, records: Sequence[SlideRecord], out: Path, stain: StainTarget | None
) -> list[SlideTask]:
    """The tasks of a job; those of one slide follow each other, so that its tissue is looked for once.

    Args:
        request: The job.
        records: Its slides.
        out: Output folder.
        stain: What colours are brought to.

    Raises:
        InputError: The request is wrong.
    """
    from wsi_ncmi.extraction.task import SlideTask

    grids = grids_of(request)
    root = request.slides if request.slides.is_dir() else request.slides.parent
    tasks = []
    for known in records:
        record, drawn = annotated(known, request.annotations)
        tasks += [
            SlideTask(
                record=record,
                root=root,
                out=out,
                tissue=request.tissue,
                grid=grid,
                overwrite=request.overwrite,
                artifacts=request.artifacts,
                annotations=drawn,
                stain=stain,
                features_set=name,
                n_sets=len(grids),
            )
            for name, grid in grids.items()
        ]
    return tasks


def check_annotation_folder(folder: Path | None, records: Sequence[SlideRecord]) -> None:
    """Refuses a folder in which nothing belongs to any slide: it is the wrong one.

    Raises:
        InputError: There is no such folder, or no file in it is named after a slide.
    """
    from wsi_ncmi.tissue.annotations import ANNOTATION_SUFFIXES

    if folder is None:
        return
    if not folder.is_dir():
        raise InputError(f"The annotation folder {folder} isn't there; check --annotations.")
    present = {path.name for path in folder.iterdir()}
    if not any(
        f"{record.slide_id}{suffix}" in present for record in records for suffix in ANNOTATION_SUFFIXES
    ):
        raise InputError(
            f"No file in {folder} is named after one of the {len(records)} slides, such as "
            f"{records[0].slide_id if records else 'SLIDE'}.geojson; check --annotations."
        )


def annotated(record: SlideRecord, folder: Path | None) -> tuple[SlideRecord, AnnotationFile | None]:
    """A slide with what a person drew on it.

    Args:
        record: The slide.
        folder: Folder of annotations; None where the job has none.

    Returns:
        The record, with a ``problem`` where its annotations can't be read, and its annotations (None without
        a folder).
    """
    from wsi_ncmi.extraction.task import AnnotationFile
    from wsi_ncmi.tissue import find_annotations, read_annotations

    if folder is None:
        return record, None
    try:
        path = find_annotations(folder, record.slide_id)
        if path is None:
            return record, AnnotationFile()
        return record, AnnotationFile(path, read_annotations(path).sha256)
    except InputError as error:
        return replace(record, problem=record.problem or str(error)), AnnotationFile()
