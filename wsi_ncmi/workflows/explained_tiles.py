"""The tiles of a slide with what a model says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.errors import SlideError
from wsi_ncmi.features import FeatureFile
from wsi_ncmi.prediction import ModelBundle
from wsi_ncmi.reporting.heatmaps import TileValues
from wsi_ncmi.reporting.heatmaps.values import model_layers

if TYPE_CHECKING:
    from wsi_ncmi.features.interchange.base import FeatureSet

__all__ = ["explained_tiles", "tile_values_of"]


def tile_values_of(
    file: FeatureFile, attention: Any = None, evidence: Any = None, classes: tuple[str, ...] = ()
) -> TileValues:
    """The tiles of a feature file with a model's numbers (none where attention is None)."""
    places = file.coords_attrs
    return TileValues(
        slide_id=file.slide_id,
        coords=file.coords,
        tile_level0=(float(file.attrs["tile_size_level0_x"]), float(file.attrs["tile_size_level0_y"])),
        size_level0=(int(places["level0_width"]), int(places["level0_height"])),
        layers=() if attention is None else model_layers(attention, evidence, classes),
    )


def explained_tiles(bundle: ModelBundle, features: FeatureSet, slide_id: str) -> tuple[TileValues, str]:
    """The tiles of a slide with the model's attention and evidence, and its most probable class.

    Args:
        bundle: The model.
        features: The features.
        slide_id: The slide.

    Raises:
        InputError: Features that the model doesn't take.
        SlideError: The slide's features can't be read, say no places, or are none.
    """
    bag = features.bag(slide_id)
    facts = bag.facts
    if len(bag.features) == 0:
        raise SlideError(f"{slide_id}: it has no tiles, so there is nothing to draw.")
    if bag.coords is None or facts.tile_width is None:
        raise SlideError(f"{slide_id}: its features do not say where its tiles lie on the slide.")
    for name, here in (
        ("encoder", facts.encoder),
        ("mpp_target", facts.mpp_target),
        ("tile_px", facts.tile_px),
    ):
        wanted = bundle.features.get(name)
        if here and wanted is not None and here != wanted:
            raise SlideError(
                f"{slide_id}: its features have {name} {here!r}, the model {bundle.name} takes {wanted!r}."
            )
    answer = bundle.predict(bag.features, bag.coords)
    evidence = bundle.ensemble.tile_probabilities(bag.features)
    tile = (float(facts.tile_width), float(facts.tile_height or facts.tile_width))
    far = bag.coords.max(axis=0) + tile
    size = facts.level0_size or (int(far[0]), int(far[1]))
    values = TileValues(
        slide_id, bag.coords, tile, size, model_layers(answer.attention, evidence, bundle.classes)
    )
    return values, bundle.classes[int(answer.probabilities.argmax())]
