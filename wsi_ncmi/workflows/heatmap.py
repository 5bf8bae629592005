"""Heatmaps of cached features and a model: pictures, overlays, GeoJSON and galleries."""

from wsi_ncmi.core.errors import InputError, WsiNcmiError, counted
from wsi_ncmi.core.extras import require
from wsi_ncmi.core.files import job_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.core.provenance import write_record
from wsi_ncmi.prediction.config import HeatmapConfig
from wsi_ncmi.prediction.dicom_results import check_any_dicom, results_folder
from wsi_ncmi.prediction.heatmaps import ModelFeatures, draw_slide
from wsi_ncmi.slides import SlideIndex, SlideRecord, earlier_records, take_inventory
from wsi_ncmi.workflows.result import JobResult


def make_heatmaps(config: HeatmapConfig, progress: ProgressReporter | None = None) -> JobResult:
    """Draws attention and evidence of every slide.

    Args:
        config: Slides, models and form.
        progress: Shows every slide.

    Returns:
        Path of ``heatmaps`` and, where asked for, ``dicom``; a failure for every slide that could not be
        drawn.

    Raises:
        InputError: Wrong input; nothing was started.
    """
    progress = progress or NullProgress()
    if config.dicom.write and config.slides is not None:
        require(("dicom",), "--dicom")
        check_any_dicom(config.slides)
    first = ModelFeatures.open(config.model, config.features)
    second = None
    if config.compare is not None:
        second = ModelFeatures.open(config.compare, config.compare_features or config.features)
        if not set(first.bundle.classes) & set(second.bundle.classes):
            raise InputError(
                f"{first.bundle.name} and {second.bundle.name} have no class in common; compare models of "
                "one task."
            )
    _check_classes(config, first.bundle.classes)
    ids = _chosen(config, first.features.slide_ids)
    records: dict[str, SlideRecord] = {}
    if config.slides is not None:
        # As the extraction called them.
        before = earlier_records(config.features.parent / "slides.csv", config.slides)
        given = {path: record.slide_id for path, record in before.items()}
        found = take_inventory(config.slides, given=given, progress=progress)
        records = {record.slide_id: record for record in found}
        named = SlideIndex(records)
        records = {name: records[own] for name in ids if (own := named.spelled(name)) in records}
        if not records:
            raise InputError(
                f"No slide below {config.slides} is named like a feature file (such as {ids[0]}); give the "
                "folder that the features were made from."
            )
    out = job_folder(config.out)
    write_record(
        out / "heatmaps.json",
        config={
            "features": config.features,
            "model": config.model,
            "compare": config.compare,
            "scales": config.scales,
            "top": config.top,
        },
        model_digest=first.bundle.digest,
    )
    failures: list[str] = []
    with progress.task("heatmaps", len(ids), "slides") as task:
        for slide_id in ids:
            try:
                draw_slide(config, slide_id, records.get(slide_id), first, second)
            except WsiNcmiError as error:
                text = str(error)
                failures.append(text if text.startswith(slide_id) else f"{slide_id}: {text}")
            task.advance(1, slide_id)
    notes = [f"{counted(len(ids) - len(failures), 'slide')} drawn, {len(failures)} failed."]
    if config.slides is None:
        notes.append("Without --slides the maps are drawn on white and there is no gallery of tiles.")
    elif bare := [name for name in ids if name not in records]:
        notes.append(f"{counted(len(bare), 'slide')} not below {config.slides}, drawn on white: {bare[0]}, …")
    files = {"heatmaps": out}
    if config.dicom.write:
        files["dicom"], note = results_folder(out, config.dicom)
        notes.append(note)
    return JobResult(files, tuple(failures), tuple(notes))


def _check_classes(config: HeatmapConfig, classes: tuple[str, ...]) -> None:
    unknown = [name for name in config.classes if name not in classes]
    if unknown and config.classes != ("all",):
        raise InputError(f"The model has no class {unknown[0]!r}; choose of {', '.join(classes)}, or all.")


def _chosen(config: HeatmapConfig, slide_ids: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [slide_id for slide_id in config.only if slide_id not in slide_ids]
    if unknown:
        raise InputError(f"{config.features} has no features of {unknown[0]!r}; check --only.")
    return config.only or slide_ids
