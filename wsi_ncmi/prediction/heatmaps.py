"""Drawing the attention and evidence of a model, or of two, over a slide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.features.interchange.detection import open_feature_set
from wsi_ncmi.prediction.bundle import ModelBundle, load_model
from wsi_ncmi.prediction.config import HeatmapConfig
from wsi_ncmi.prediction.dicom_results import DicomSource, write_dicom_results
from wsi_ncmi.prediction.ensemble import check_features
from wsi_ncmi.prediction.tile_evidence import explained_tiles
from wsi_ncmi.reporting.heatmaps import (
    TileValues,
    heatmap_path,
    write_comparison,
    write_heatmaps,
    write_overlay,
    write_tiles_geojson,
)
from wsi_ncmi.slides import Slide, SlideRecord, open_slide

if TYPE_CHECKING:
    from wsi_ncmi.features.interchange.base import FeatureSet


@dataclass(frozen=True)
class ModelFeatures:
    """A model and the features that it takes."""

    bundle: ModelBundle
    features: FeatureSet

    @classmethod
    def open(cls, model: Path, features: Path) -> Self:
        """Loads the model and opens the features.

        Raises:
            InputError: One of them can't be read, or the model doesn't take the features.
        """
        found = cls(load_model(model), open_feature_set(features))
        if (level := found.features.level) != "tile":
            raise InputError(f"{features} holds one vector a {level}: there are no tiles to draw.")
        if identity := dict(getattr(open_bag_source(features), "identity", {})):
            check_features(found.bundle.ensemble, identity)
        return found


def draw_slide(
    config: HeatmapConfig,
    slide_id: str,
    record: SlideRecord | None,
    first: ModelFeatures,
    second: ModelFeatures | None = None,
) -> None:
    """Draws a slide as the config says, into its output folder.

    Args:
        config: Layers, scales and output folder.
        slide_id: The slide.
        record: The slide's entry in the inventory of ``config.slides``; None where it has none.
        first: The model and its features.
        second: The model to compare with.

    Raises:
        InputError: A model doesn't take the features.
        SlideError: The slide or its features can't be read, or don't belong together.
    """
    tiles, prediction = explained_tiles(first.bundle, first.features, slide_id)
    if tiles.mpp is None and record is not None and record.mpp_x is not None and record.mpp_y is not None:
        tiles = replace(tiles, mpp=(record.mpp_x, record.mpp_y))
    classes = (
        first.bundle.classes if config.classes == ("all",) else config.classes or (prediction.prediction,)
    )
    layers = [f"evidence {name}" for name in classes]
    if first.bundle.ensemble.has_attention:
        layers.insert(0, "attention")
    slide = None
    if config.slides is not None:
        if record is None:
            raise SlideError(f"{slide_id}: there is no such slide below {config.slides}.")
        slide = _open(record, config.slides, tiles)
    out, scales, origin = config.out, config.scales, (0, 0) if slide is None else slide.origin
    try:
        write_heatmaps(out, tiles, slide, layers=layers, scales=scales, top=config.top)
        if second is not None:
            other, _ = explained_tiles(second.bundle, second.features, slide_id)
            names = _names(config, first.bundle, second.bundle)
            write_comparison(out, tiles, other, slide, layers=layers, scales=scales, names=names)
    finally:
        if slide is not None:
            slide.close()
    if config.overlay:
        for name in layers:
            for scale in scales:
                path = heatmap_path(out, tiles, name, f"_{scale}.overlay.tif")
                write_overlay(path, tiles, name, scale, origin)
    if config.geojson:
        write_tiles_geojson(
            out / f"{slide_id}.geojson", tiles, coloured_by=layers[0], scale=scales[0], origin=origin
        )
    if config.dicom.write and record is not None and config.slides is not None:
        source = DicomSource.read(record.files(config.slides), with_patient=config.dicom.patient)
        write_dicom_results(out, source, tiles, prediction, first.bundle, with_map=config.dicom.map)


def _names(config: HeatmapConfig, first: ModelBundle, second: ModelBundle) -> tuple[str, str]:
    if first.name != second.name:
        return first.name, second.name
    assert config.compare is not None
    return f"{first.name} ({config.model.name})", f"{second.name} ({config.compare.name})"


def _open(record: SlideRecord, root: Path, tiles: TileValues) -> Slide:
    if record.problem:
        raise SlideError(record.problem)
    slide = open_slide(record.files(root))
    width, height = tiles.size_level0
    if (slide.width_px, slide.height_px) != (width, height):
        slide.close()
        raise SlideError(
            f"{record.slide_id}: the slide has {slide.width_px} × {slide.height_px} px, its features are of "
            f"one of {width} × {height} px; give the slides that they were made from."
        )
    return slide
