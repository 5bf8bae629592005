"""Tiles of a slide with attention and evidence of a model, or with tissue fraction and artefact scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.features import open_features_file
from wsi_ncmi.features.interchange.detection import open_feature_set
from wsi_ncmi.prediction.bundle import ModelBundle
from wsi_ncmi.prediction.config import PredictConfig
from wsi_ncmi.prediction.ensemble import check_features
from wsi_ncmi.prediction.ood import SlideProperties, slide_properties
from wsi_ncmi.prediction.slide_prediction import SlidePrediction, predict_slide
from wsi_ncmi.reporting.heatmaps import TileLayer, TileValues, model_layers, tile_values

if TYPE_CHECKING:
    from wsi_ncmi.features.interchange.base import FeatureSet


_RULES = PredictConfig(slides=Path(), model=Path(), out=Path())  # when to abstain: as the bundle says


def explained_tiles(
    bundle: ModelBundle, features: FeatureSet, slide_id: str
) -> tuple[TileValues, SlidePrediction]:
    """The tiles of a slide with the model's attention and evidence, and its prediction by the bundle's rules.

    Args:
        bundle: The model.
        features: The features.
        slide_id: The slide.

    Raises:
        InputError: Features that the model doesn't take.
        SlideError: The slide's features can't be read, have no coordinates, or are none.
    """
    bag = features.bag(slide_id)
    metadata = bag.metadata
    if len(bag.features) == 0:
        raise SlideError(f"{slide_id}: it has no tiles, so there is nothing to draw.")
    if bag.coords is None or metadata.tile_width is None:
        raise _no_coords(slide_id)
    for name, here in (
        ("encoder", metadata.encoder),
        ("mpp_target", metadata.mpp_target),
        ("tile_px", metadata.tile_px),
    ):
        expected = bundle.features.get(name)
        if here and expected is not None and here != expected:
            raise SlideError(
                f"{slide_id}: its features have {name} {here!r}, the model {bundle.name} takes {expected!r}."
            )
    properties = SlideProperties()
    if features.kind == "wsi-ncmi":
        properties = slide_properties(open_features_file(features.where(slide_id)))
    prediction, output = predict_slide(bundle, slide_id, bag.features, properties, _RULES, bag.coords)
    evidence = bundle.ensemble.tile_probabilities(bag.features)
    tile = (float(metadata.tile_width), float(metadata.tile_height or metadata.tile_width))
    far = bag.coords.max(axis=0) + tile
    size = metadata.level0_size or (int(far[0]), int(far[1]))
    layers = model_layers(output.attention, evidence, bundle.classes)
    mpp = None if metadata.mpp_x is None or metadata.mpp_y is None else (metadata.mpp_x, metadata.mpp_y)
    return TileValues(slide_id, bag.coords, tile, size, layers, mpp), prediction


def viewed_tiles(
    features: Path, slide_id: str, bundle: ModelBundle | None
) -> tuple[TileValues, SlidePrediction | None]:
    """The tiles of a slide for the viewer, and the model's prediction.

    Args:
        features: Feature file of the slide, or folder of features of any format that is read.
        slide_id: The slide.
        bundle: The model; None shows tissue fraction and artefact scores, where the features have them.

    Raises:
        InputError: No features of the slide, or others than the model takes.
        SlideError: They can't be read or have no coordinates.
    """
    known = open_feature_set(features.parent if features.is_file() else features)
    if known.level != "tile":
        raise InputError(f"{features} holds one vector a {known.level}: there are no tiles to show.")
    if features.suffix in (".h5", ".pt") and features.is_file():
        slide_id = features.stem
    if slide_id not in known.slide_ids:
        raise InputError(f"{features} holds no features of {slide_id}; give those of this slide.")
    file = open_features_file(known.where(slide_id)) if known.kind == "wsi-ncmi" else None
    if bundle is not None:
        if file is not None:
            check_features(bundle.ensemble, dict(file.attrs))
        return explained_tiles(bundle, known, slide_id)
    if file is not None:
        tiles, scores = tile_values(file), file.artifacts.astype(np.float32)
        layers = (
            TileLayer("tissue fraction", file.tissue_fraction.astype(np.float32)),
            *(TileLayer(kind, scores[:, i].copy()) for i, kind in enumerate(file.artifact_kinds)),
        )
        return TileValues(tiles.slide_id, tiles.coords, tiles.tile_level0, tiles.size_level0, layers), None
    bag = known.bag(slide_id)
    if bag.coords is None or bag.metadata.tile_width is None or bag.metadata.level0_size is None:
        raise _no_coords(slide_id)
    tile = (bag.metadata.tile_width, bag.metadata.tile_height or bag.metadata.tile_width)
    covered = TileLayer("tiles", np.ones(len(bag.coords), np.float32))
    return TileValues(slide_id, bag.coords, tile, bag.metadata.level0_size, (covered,)), None


def _no_coords(slide_id: str) -> SlideError:
    return SlideError(f"{slide_id}: its features do not say where its tiles lie on the slide.")
