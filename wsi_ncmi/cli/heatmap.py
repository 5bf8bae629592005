"""``wsi-ncmi heatmap``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, run_verb

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

NAME = "heatmap"


def command(
    features: Annotated[Path, typer.Argument(help="Features of the slides (ours, CLAM, TRIDENT or STAMP).")],
    model: Annotated[
        Path, typer.Option("--model", help="Bundle of export, or run folder (RUN, or RUN/LOSS).")
    ],
    out: Annotated[Path, typer.Option("--out", help="Output folder.")],
    slides: Annotated[
        Path | None, typer.Option(help="The slides; without them maps are drawn on white.")
    ] = None,
    compare: Annotated[Path | None, typer.Option(help="A second model, drawn beside the first.")] = None,
    compare_features: Annotated[
        Path | None, typer.Option(help="Its features, where they are others.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Draw this slide only; may be repeated.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Classes whose evidence is drawn: a,b or all (the predicted one).")
    ] = None,
    scale: Annotated[str, typer.Option(help="percentile, absolute or both.")] = "both",
    top: Annotated[int, typer.Option(help="Tiles in the gallery; 0 = no gallery.", min=0)] = 16,
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="No multi-resolution overlay.")] = False,
    no_geojson: Annotated[bool, typer.Option("--no-geojson", help="No tiles for QuPath.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Draw attention and per-class evidence from cached features: PNG, overlay, GeoJSON, top tiles.

    Example: wsi-ncmi heatmap out/features/descriptor --model model.zip --slides slides/ --out heatmaps
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.workflows import HeatmapRequest, make_heatmaps

        return make_heatmaps(
            HeatmapRequest(
                features=features, model=model, out=out, slides=slides, compare=compare,
                compare_features=compare_features, only=tuple(only or ()),
                classes=tuple(classes.split(",")) if classes else (),
                scales=("percentile", "absolute") if scale == "both" else (scale,), top=top,
                overlay=not no_overlay, geojson=not no_geojson,
            ),
            progress,
        )  # fmt: skip

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
