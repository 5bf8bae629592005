"""The heatmap job: cached features and a model to pictures, overlays, GeoJSON and galleries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.core.errors import InputError, SlideError, WsiNcmiError
from wsi_ncmi.core.files import atomic_path, ensure_folder, path_safe
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.core.provenance import write_record
from wsi_ncmi.features.interchange.detection import open_feature_set
from wsi_ncmi.prediction import ModelBundle, check_features, load_model
from wsi_ncmi.reporting.heatmaps import TileValues, draw_comparison, write_overlay, write_tiles_geojson
from wsi_ncmi.reporting.heatmaps.picture import blank_slide, rank_correlation
from wsi_ncmi.reporting.heatmaps.scales import SCALES, check_scale
from wsi_ncmi.slides import SlideRecord, open_slide, take_inventory, thumbnail
from wsi_ncmi.workflows.explained_tiles import explained_tiles
from wsi_ncmi.workflows.heatmap_files import PICTURE_PX, save_picture, write_heatmaps
from wsi_ncmi.workflows.result import JobResult

if TYPE_CHECKING:
    from wsi_ncmi.features.interchange.base import FeatureSet

__all__ = ["HeatmapRequest", "make_heatmaps"]


@dataclass(frozen=True)
class HeatmapRequest:
    """What to draw.

    Attributes:
        features: Features of the slides, of any format that is read.
        model: Bundle or run folder.
        out: Output folder.
        slides: The slides themselves (folder or file); None draws on white and makes no gallery.
        compare: A second model, drawn beside the first.
        compare_features: Features for it; None = the same.
        only: Slide ids to draw; empty = all.
        classes: Classes whose evidence is drawn; empty = the predicted one, the word ``all`` = each.
        scales: ``percentile``, ``absolute`` or both.
        top: Tiles in the gallery; 0 = none.
        overlay: Write the multi-resolution overlay.
        geojson: Write the tiles for QuPath.
    """

    features: Path
    model: Path
    out: Path
    slides: Path | None = None
    compare: Path | None = None
    compare_features: Path | None = None
    only: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    scales: tuple[str, ...] = SCALES
    top: int = 16
    overlay: bool = True
    geojson: bool = True


@dataclass(frozen=True)
class _Source:
    """A model and the features that it takes."""

    bundle: ModelBundle
    features: FeatureSet

    @classmethod
    def open(cls, model: Path, features: Path) -> _Source:
        found = cls(load_model(model), open_feature_set(features))
        source = open_bag_source(features)
        if identity := dict(getattr(source, "identity", {})):
            check_features(found.bundle.ensemble, identity)
        return found


def make_heatmaps(request: HeatmapRequest, progress: ProgressReporter | None = None) -> JobResult:
    """Draws attention and evidence of every slide.

    Args:
        request: What.
        progress: Told about every slide.

    Returns:
        Path of ``heatmaps``; a failure for every slide that could not be drawn.

    Raises:
        InputError: Wrong input; nothing was started.
    """
    progress = progress or NullProgress()
    for scale in request.scales:
        check_scale(scale)
    first = _Source.open(request.model, request.features)
    second = None
    if request.compare is not None:
        second = _Source.open(request.compare, request.compare_features or request.features)
        if not set(first.bundle.classes) & set(second.bundle.classes):
            raise InputError(
                f"{first.bundle.name} and {second.bundle.name} have no class in common; compare "
                f"models of one task."
            )
    _check_classes(request, first.bundle)
    ids = _chosen(request, first.features.slide_ids)
    records: dict[str, SlideRecord] = {}
    if request.slides is not None:
        records = {record.slide_id: record for record in take_inventory(request.slides, progress=progress)}
        if not set(records) & set(ids):
            raise InputError(
                f"No slide below {request.slides} is named like a feature file (such as {ids[0]}); "
                f"give the folder "
                "that the features were made from."
            )
    out = ensure_folder(request.out)
    write_record(
        out / "heatmaps.json",
        config={
            "features": request.features,
            "model": request.model,
            "compare": request.compare,
            "scales": request.scales,
            "top": request.top,
        },
        model_digest=first.bundle.digest,
    )
    failures: list[str] = []
    with progress.task("heatmaps", len(ids), "slides") as task:
        for slide_id in ids:
            try:
                _draw(slide_id, request, first, second, records.get(slide_id), out)
            except WsiNcmiError as error:
                text = str(error)
                failures.append(text if text.startswith(slide_id) else f"{slide_id}: {text}")
            task.advance(1, slide_id)
    notes = [f"{len(ids) - len(failures)} slides drawn, {len(failures)} failed."]
    if request.slides is None:
        notes.append("Without --slides the maps are drawn on white and there is no gallery of tiles.")
    return JobResult({"heatmaps": out}, tuple(failures), tuple(notes))


def _draw(
    slide_id: str,
    request: HeatmapRequest,
    first: _Source,
    second: _Source | None,
    record: SlideRecord | None,
    out: Path,
) -> None:
    tiles, predicted = explained_tiles(first.bundle, first.features, slide_id)
    layers = ["attention", *_evidence_layers(request, first.bundle, predicted)]
    slide = None
    if request.slides is not None:
        if record is None:
            raise SlideError(f"{slide_id}: there is no such slide below {request.slides}.")
        slide = _open(record, request.slides, tiles)
    try:
        write_heatmaps(out, tiles, slide, layers=layers, scales=request.scales, top=request.top)
        if second is not None:
            picture = blank_slide(tiles.size_level0) if slide is None else thumbnail(slide, PICTURE_PX)
            _compare(slide_id, request, first, second, tiles, layers, picture, out)
    finally:
        if slide is not None:
            slide.close()
    mpp = (
        None
        if record is None or record.mpp_x is None or record.mpp_y is None
        else (record.mpp_x, record.mpp_y)
    )
    if request.overlay:
        for name in layers:
            for scale in request.scales:
                write_overlay(
                    out / f"{slide_id}_{path_safe(name)}_{scale}.overlay.tif", tiles, name, scale, mpp=mpp
                )
    if request.geojson:
        write_tiles_geojson(
            out / f"{slide_id}.geojson", tiles, coloured_by="attention", scale=request.scales[0]
        )


def _compare(
    slide_id: str,
    request: HeatmapRequest,
    first: _Source,
    second: _Source,
    tiles: TileValues,
    layers: list[str],
    picture: Any,
    out: Path,
) -> None:
    other, _ = explained_tiles(second.bundle, second.features, slide_id)
    names = _two_names(first.bundle, second.bundle, request)
    common = [name for name in layers if any(layer.name == name for layer in other.layers)]
    for name in common:
        for scale in request.scales:
            drawn = draw_comparison(picture, tiles, other, name, scale, names)
            save_picture(drawn, out / f"{slide_id}_{path_safe(name)}_{scale}.compare.png")
    correlations = {name: rank_correlation(tiles, other, name) for name in common}
    with atomic_path(out / f"{slide_id}.compare.json") as temporary:
        content = {"models": names, "rank_correlation": correlations}
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _two_names(first: ModelBundle, second: ModelBundle, request: HeatmapRequest) -> tuple[str, str]:
    if first.name != second.name:
        return first.name, second.name
    assert request.compare is not None
    return f"{first.name} ({request.model.name})", f"{second.name} ({request.compare.name})"


def _open(record: SlideRecord, root: Path, tiles: TileValues) -> Any:
    if record.problem:
        raise SlideError(record.problem)
    slide = open_slide(root if root.is_file() else root / record.path)
    if (slide.width_px, slide.height_px) != tiles.size_level0:
        slide.close()
        raise SlideError(
            f"{record.slide_id}: the slide has {slide.width_px} × {slide.height_px} px, its features "
            f"are of one of "
            f"{tiles.size_level0[0]} × {tiles.size_level0[1]} px; give the slides that they were made from."
        )
    return slide


def _evidence_layers(request: HeatmapRequest, bundle: ModelBundle, predicted: str) -> list[str]:
    if request.classes == ("all",):
        return [f"evidence {name}" for name in bundle.classes]
    return [f"evidence {name}" for name in request.classes or (predicted,)]


def _check_classes(request: HeatmapRequest, bundle: ModelBundle) -> None:
    if request.classes == ("all",):
        return
    unknown = [name for name in request.classes if name not in bundle.classes]
    if unknown:
        raise InputError(
            f"The model has no class {unknown[0]!r}; choose of {', '.join(bundle.classes)}, or all."
        )


def _chosen(request: HeatmapRequest, slide_ids: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [slide_id for slide_id in request.only if slide_id not in slide_ids]
    if unknown:
        raise InputError(f"{request.features} has no features of {unknown[0]!r}; check --only.")
    return request.only or slide_ids
