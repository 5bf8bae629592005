"""``wsi-ncmi heatmap``."""

from __future__ import annotations

from typing import Annotated

import typer

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given
from wsi_ncmi.cli.predict import DICOM_FLAGS

FLAGS = ConfigFlags(
    "wsi_ncmi.prediction.config.HeatmapConfig",
    {
        "features": Flag(argument=True, there=True),
        "model": Flag(required=True, there=True),
        "out": Flag(required=True, folder=True),
        "slides": Flag(there=True, help="The slides; without them maps are drawn on white."),
        "compare": Flag(there=True),
        "compare_features": Flag(there=True, help="Its features, where they are others."),
        "classes": Flag(
            panel="Maps", help="Classes whose evidence is drawn: a,b or all (the predicted one)."
        ),
        "scale": Flag(panel="Maps"),
        "top": Flag(panel="Maps"),
        "overlay": Flag(name="--no-overlay", panel="Maps", help="No multi-resolution overlay.", sets=False),
        "geojson": Flag(name="--no-geojson", panel="Maps", help="No tiles for QuPath.", sets=False),
        **DICOM_FLAGS,
    },
)


def command(
    given: Given,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SLIDE_ID", help="Draw this slide only; may be repeated.", rich_help_panel="Input"
        ),
    ] = None,
) -> None:
    """Draw attention and per-class evidence from cached features: PNG, overlay, GeoJSON, top tiles.

    Example: wsi-ncmi heatmap out/features/descriptor --model model.zip --slides slides/ --out heatmaps
    """
    config = given.read({"only": only or None})
    from wsi_ncmi.workflows.heatmap import make_heatmaps

    given.finish(make_heatmaps(config, given.progress))
