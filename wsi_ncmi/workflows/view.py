"""Viewing slides as local pages: one with values and outlines over its pixels, or all of a prediction job."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wsi_ncmi.core.errors import InputError, MissingMppError, SlideError
from wsi_ncmi.encoders.weights_folder import find_weights_folder
from wsi_ncmi.prediction.bundle import load_model
from wsi_ncmi.prediction.config import ViewConfig
from wsi_ncmi.prediction.tile_evidence import viewed_tiles
from wsi_ncmi.prediction.worklist import ANSWERS_FILE, Worklist
from wsi_ncmi.prediction.worklist_pages import WorklistPages, annotation_shapes
from wsi_ncmi.reporting.heatmaps import TileValues
from wsi_ncmi.reporting.viewer import Pages, Shape, SlidePages, ViewerData, ViewerServer
from wsi_ncmi.slides import Slide, open_slide, resolve_mpp, slide_id_of
from wsi_ncmi.tissue import (
    ArtifactConfig,
    analyse_tissue,
    find_annotations,
    mask_polygons,
    read_geojson,
)


def view(config: ViewConfig, on_ready: Callable[[str], None]) -> None:
    """Serves the page until interrupted.

    Args:
        config: Slide, features and model.
        on_ready: Called with the address once the page can be opened.

    Raises:
        InputError: Wrong input; nothing is served.
    """
    with open_view(config) as server:
        on_ready(server.url)
        server.serve_forever()


@contextmanager
def open_view(config: ViewConfig) -> Iterator[ViewerServer]:
    """The server of a slide or prediction job, not yet serving; everything is closed at the end.

    Raises:
        InputError: Wrong input.
    """
    if config.slide.is_dir():
        with _serving(config, _worklist(config)) as server:
            yield server
        return
    if config.slides is not None or config.against is not None:
        raise InputError(
            f"--slides and --against go with an output folder of predict; {config.slide} is one file."
        )
    if config.model is not None and config.features is None:
        raise InputError(
            "A model needs the slide's features: give them with --features ('wsi-ncmi predict SLIDE "
            "--model MODEL --out DIR' makes them in DIR)."
        )
    try:
        slide = open_slide(config.slide)
    except SlideError as error:
        raise InputError(str(error)) from error
    with slide, _serving(config, SlidePages(_data(config, slide))) as server:
        yield server


def _serving(config: ViewConfig, pages: Pages) -> ViewerServer:
    return ViewerServer(pages, config.port, config.listen, config.origin)


def _worklist(config: ViewConfig) -> WorklistPages:
    if not (config.slide / ANSWERS_FILE).is_file():
        raise InputError(
            f"{config.slide} is a folder without {ANSWERS_FILE}; give one slide, or an output folder of "
            "predict."
        )
    if config.model is not None:
        raise InputError(
            "An output folder has the values of its own model; leave out --model, or give --against another "
            "output folder."
        )
    worklist = Worklist(config.slide, config.features or config.slide, config.against)
    return WorklistPages(worklist, config.slides, config.annotations)


def _data(config: ViewConfig, slide: Slide) -> ViewerData:
    slide_id = slide_id_of(config.slide.name)
    facts = {
        "size": f"{slide.width_px} × {slide.height_px} px",
        "levels": str(len(slide.levels)),
        "reader": slide.reader,
    }
    if any(slide.origin):
        facts["QuPath counts from"] = "{}, {} px".format(*slide.origin)
    notes: list[str] = []
    shapes: list[Shape] = []
    mpp, tissue = None, config.tissue
    if tissue.model_file is not None:
        from wsi_ncmi.tissue.learned import check_mask_model

        tissue = check_mask_model(tissue, find_weights_folder(None))
    try:
        found = resolve_mpp(slide, default_mpp=config.default_mpp)
        mpp = (found.x, found.y)
        facts["resolution"] = f"{found.mean:.4g} µm per pixel ({found.source})"
        seen = analyse_tissue(slide, found, tissue, ArtifactConfig())
        shapes.append(Shape("tissue", mask_polygons(seen.mask)))
        shapes += [Shape(kind, polygons) for kind, polygons in seen.artifacts.polygons().items()]
    except MissingMppError:
        notes.append("The slide has no resolution, so no tissue and no artefacts were looked for.")
    except SlideError as error:
        notes.append(f"Tissue and artefacts can't be shown: {error}")
    tiles = None
    predicted: dict[str, str] = {}
    if config.features is not None:
        tiles, predicted = _tiles(config, slide, slide_id)
        facts["tiles"] = str(len(tiles))
        if (outline := _stored_outline(config.features, slide_id, slide)) is not None:
            shapes = [outline, *(shape for shape in shapes if shape.name != "tissue")]
    if config.annotations is not None:
        shapes += _annotated(config.annotations, slide_id, slide)
    return ViewerData(slide_id, slide, mpp, tiles, tuple(shapes), facts, tuple(notes), predicted)


def _tiles(config: ViewConfig, slide: Slide, slide_id: str) -> tuple[TileValues, dict[str, str]]:
    assert config.features is not None
    bundle = None if config.model is None else load_model(config.model)
    try:
        tiles, prediction = viewed_tiles(config.features, slide_id, bundle)
    except SlideError as error:
        raise InputError(str(error)) from error
    width, height = tiles.size_level0
    if (width, height) != (slide.width_px, slide.height_px):
        raise InputError(
            f"The features of {slide_id} are of a slide of {width} × {height} px, this one has "
            f"{slide.width_px} × {slide.height_px}; give the features of this slide."
        )
    if bundle is None or prediction is None:
        return tiles, {}
    top, say = prediction.prediction, bundle.calibration.shown
    shown = {name: say(p, top) for name, p in prediction.probabilities.items()}
    return tiles, {
        "decision": prediction.decision,
        "most probable": f"{top}, {shown[top]}",
        **{f"p({name})": text for name, text in shown.items()},
        "members agreeing": f"{100 * (prediction.agreement or 0):.0f} %",
        "flags": ", ".join(flag.name.replace("_", " ") for flag in prediction.flags)
        or ("none" if bundle.ood else "none possible: the model has no statistics of its training slides"),
        "model": bundle.name,
    } | ({"why no decision": prediction.reason} if prediction.reason else {})


def _stored_outline(features: Path, slide_id: str, slide: Slide) -> Shape | None:
    """The outline that the extraction of these features kept."""
    for folder in (features, *features.resolve().parents[:3]):
        path = folder / "tissue" / f"{slide_id}.geojson"
        if path.is_file():
            return Shape("tissue", [area.polygon for area in read_geojson(path, slide.bounds)])
    return None


def _annotated(annotations: Path, slide_id: str, slide: Slide) -> list[Shape]:
    path = annotations if annotations.is_file() else find_annotations(annotations, slide_id, slide.path.name)
    if path is None:
        raise InputError(f"{annotations} has no annotations of {slide_id}; check --annotations.")
    return annotation_shapes(path, slide)
