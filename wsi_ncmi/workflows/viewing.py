"""The viewing job: one slide with its tile values, outlines and annotations as a local page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsi_ncmi.core.errors import InputError, MissingMppError, SlideError
from wsi_ncmi.features.interchange.detection import open_feature_set
from wsi_ncmi.prediction import check_features, load_model
from wsi_ncmi.reporting.heatmaps import TileLayer, TileValues
from wsi_ncmi.reporting.viewer import Shape, ViewerContent, ViewerServer
from wsi_ncmi.slides import Slide, open_slide, resolve_mpp, slide_id_of
from wsi_ncmi.tiling import StoredRegions
from wsi_ncmi.tissue import (
    ArtifactConfig,
    TissueConfig,
    analyse_tissue,
    find_annotations,
    mask_polygons,
    read_annotations,
    read_geojson,
)
from wsi_ncmi.workflows.explained_tiles import explained_tiles, tile_values_of

if TYPE_CHECKING:
    from wsi_ncmi.features import FeatureFile
    from wsi_ncmi.features.interchange.base import FeatureSet

__all__ = ["ViewRequest", "open_view", "view"]


@dataclass(frozen=True)
class ViewRequest:
    """What to show.

    Attributes:
        slide: The slide's file.
        features: Its features: a file or folder of any format that is read; None shows the slide alone.
        model: Bundle or run folder whose attention and evidence are shown; needs features.
        annotations: A QuPath or ASAP file, or the folder that holds the slide's.
        default_mpp: Resolution where the slide doesn't tell.
        port: Port; 0 takes a free one.
    """

    slide: Path
    features: Path | None = None
    model: Path | None = None
    annotations: Path | None = None
    default_mpp: float | None = None
    port: int = 0


def view(request: ViewRequest, tell: Callable[[str], None]) -> None:
    """Serves the page until interrupted.

    Args:
        request: What to show.
        tell: Called with the address once the page can be opened.

    Raises:
        InputError: Wrong input; nothing is served.
    """
    with open_view(request) as server:
        tell(server.url)
        server.serve_forever()


@contextmanager
def open_view(request: ViewRequest) -> Iterator[ViewerServer]:
    """The server of a slide, not yet serving; slide and server are closed at the end.

    Raises:
        InputError: Wrong input.
    """
    if request.slide.is_dir():
        raise InputError(f"{request.slide} is a folder; give one slide.")
    if request.model is not None and request.features is None:
        raise InputError(
            "A model needs the slide's features: give them with --features ('wsi-ncmi predict SLIDE "
            "--model MODEL "
            "--out DIR' makes them in DIR)."
        )
    try:
        slide = open_slide(request.slide)
    except SlideError as error:
        raise InputError(str(error)) from error
    with slide, ViewerServer(_content(request, slide), request.port) as server:
        yield server


def _content(request: ViewRequest, slide: Slide) -> ViewerContent:
    slide_id = slide_id_of(request.slide.name)
    facts = {
        "size": f"{slide.width_px} × {slide.height_px} px",
        "levels": str(len(slide.levels)),
        "reader": slide.reader,
    }
    notes: list[str] = []
    shapes: list[Shape] = []
    mpp = None
    try:
        found = resolve_mpp(slide, default_mpp=request.default_mpp)
        mpp = (found.x, found.y)
        facts["resolution"] = f"{found.mean:.4g} µm per pixel ({found.source})"
        seen = analyse_tissue(slide, found, TissueConfig(), ArtifactConfig(), StoredRegions)
        shapes.append(Shape("tissue", mask_polygons(seen.mask)))
        shapes += [Shape(kind, polygons) for kind, polygons in seen.artifacts.polygons().items()]
    except MissingMppError:
        notes.append("The slide doesn't tell its resolution, so no tissue and no artefacts were looked for.")
    except SlideError as error:
        notes.append(f"Tissue and artefacts can't be shown: {error}")
    tiles = None
    if request.features is not None:
        tiles, told = _tiles(request, slide, slide_id)
        facts |= told
        if (outline := _stored_outline(request.features, slide_id)) is not None:
            shapes = [outline, *(shape for shape in shapes if shape.name != "tissue")]
    if request.annotations is not None:
        shapes += _annotated(request.annotations, slide_id)
    return ViewerContent(slide_id, slide, mpp, tiles, tuple(shapes), facts, tuple(notes))


def _tiles(request: ViewRequest, slide: Slide, slide_id: str) -> tuple[TileValues, dict[str, str]]:
    assert request.features is not None
    folder = request.features.parent if request.features.is_file() else request.features
    known = open_feature_set(folder)
    if request.features.suffix in (".h5", ".pt") and request.features.is_file():
        slide_id = request.features.stem
    if slide_id not in known.slide_ids:
        raise InputError(f"{request.features} holds no features of {slide_id}; give those of this slide.")
    told = {}
    try:
        if request.model is None:
            tiles = _measured(known, slide_id)
        else:
            bundle = load_model(request.model)
            file = _own_file(known, slide_id)
            if file is not None:
                check_features(bundle.ensemble, dict(file.attrs))
            tiles, predicted = explained_tiles(bundle, known, slide_id)
            told = {"model": bundle.name, "most probable": predicted}
    except SlideError as error:
        raise InputError(str(error)) from error
    if tiles.size_level0 != (slide.width_px, slide.height_px):
        raise InputError(
            f"The features of {slide_id} are of a slide of {tiles.size_level0[0]} × "
            f"{tiles.size_level0[1]} px, this one "
            f"has {slide.width_px} × {slide.height_px}; give the features of this slide."
        )
    return tiles, {"tiles": str(len(tiles)), **told}


def _measured(known: FeatureSet, slide_id: str) -> TileValues:
    """Tissue share and artefact scores, where the features tell them."""
    file = _own_file(known, slide_id)
    if file is None:
        bag = known.bag(slide_id)
        if bag.coords is None or bag.facts.tile_width is None or bag.facts.level0_size is None:
            raise SlideError(f"{slide_id}: its features do not say where its tiles lie on the slide.")
        tile = (bag.facts.tile_width, bag.facts.tile_height or bag.facts.tile_width)
        covered = TileLayer("tiles", np.ones(len(bag.coords), np.float32))
        return TileValues(slide_id, bag.coords, tile, bag.facts.level0_size, (covered,))
    scores = file.artifacts.astype(np.float32)
    tiles = tile_values_of(file)
    layers = (
        TileLayer("tissue fraction", file.tissue_fraction.astype(np.float32)),
        *(TileLayer(kind, np.ascontiguousarray(scores[:, i])) for i, kind in enumerate(file.artifact_kinds)),
    )
    return TileValues(tiles.slide_id, tiles.coords, tiles.tile_level0, tiles.size_level0, layers)


def _own_file(known: FeatureSet, slide_id: str) -> FeatureFile | None:
    from wsi_ncmi.features import open_features_file

    return open_features_file(known.where(slide_id)) if known.kind == "wsi-ncmi" else None


def _stored_outline(features: Path, slide_id: str) -> Shape | None:
    """The outline that the extraction of these features kept."""
    for folder in (features, *features.resolve().parents[:3]):
        path = folder / "tissue" / f"{slide_id}.geojson"
        if path.is_file():
            return Shape("tissue", [area.polygon for area in read_geojson(path)])
    return None


def _annotated(annotations: Path, slide_id: str) -> list[Shape]:
    path = annotations if annotations.is_file() else find_annotations(annotations, slide_id)
    if path is None:
        raise InputError(f"{annotations} has no annotations of {slide_id}; check --annotations.")
    areas = read_annotations(path)
    names = sorted({area.name for area in areas})
    return [
        Shape(f"annotation {name}" if name else "annotations", [a.polygon for a in areas if a.name == name])
        for name in names
    ]
