"""``wsi-ncmi predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, run_verb

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

NAME = "predict"


def command(
    slides: Annotated[Path, typer.Argument(help="Folder of slides, or one slide.")],
    model: Annotated[
        Path, typer.Option("--model", help="Bundle of export, or run folder (RUN, or RUN/LOSS).")
    ],
    out: Annotated[Path, typer.Option("--out", help="Output folder; features in it are reused.")],
    cache: Annotated[
        Path | None, typer.Option(help="Output folder of an extract whose features are reused and added to.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of the encoder, where it has any.")] = None,
    cases: Annotated[
        Path | None, typer.Option(help="CSV with slide_id,case_id: adds a prediction for each patient.")
    ] = None,
    abstain_below: Annotated[
        float | None, typer.Option(metavar="P", help="No answer below this probability (the bundle's own).")
    ] = None,
    unlike: Annotated[str, typer.Option(help="Slides unlike the training: abstain, or flag.")] = "abstain",
    scale: Annotated[str, typer.Option(help="Colours of heatmaps: percentile or absolute.")] = "percentile",
    top: Annotated[int, typer.Option(help="Tiles in each gallery; 0 = no gallery.", min=0)] = 12,
    no_heatmaps: Annotated[bool, typer.Option("--no-heatmaps", help="No pictures and slide pages.")] = False,
    no_geojson: Annotated[bool, typer.Option("--no-geojson", help="No tiles for QuPath.")] = False,
    mpp_table: Annotated[Path | None, typer.Option(help="CSV with slide_id,mpp.")] = None,
    default_mpp: Annotated[
        float | None, typer.Option(help="µm per pixel where nothing else gives it.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes (as the machine allows).")] = None,
    timeout_per_slide: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds a slide may take (with --watch 3600).")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    watch: Annotated[bool, typer.Option("--watch", help="Keep predicting what arrives in SLIDES.")] = False,
    interval: Annotated[float, typer.Option(metavar="S", help="--watch: seconds between two looks.")] = 10.0,
    settle: Annotated[
        float, typer.Option(metavar="S", help="--watch: seconds a file must rest before it is read.")
    ] = 30.0,
    until_idle: Annotated[
        float | None, typer.Option(metavar="S", help="--watch: end when nothing has come for so long.")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Predict new slides: features, ensemble, calibrated answer or abstention, flags, heatmaps, report.

    Example: wsi-ncmi predict new_slides/ --model model.zip --out predictions
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.core.errors import InputError
        from wsi_ncmi.prediction.answer import AnswerRules
        from wsi_ncmi.reporting.heatmaps.scales import check_scale
        from wsi_ncmi.workflows import Explanations, PredictionRequest, WatchConfig, load_config, predict
        from wsi_ncmi.workflows import watch as watch_folder

        config = load_config(
            None, (), {"extraction": {"workers": workers, "timeout_per_slide": timeout_per_slide}}
        )
        check_scale(scale)
        if unlike not in ("abstain", "flag"):
            raise InputError(f"--unlike is {unlike!r}; choose abstain or flag.")
        request = PredictionRequest(
            slides=slides, model=model, out=out, cache=cache, weights=weights, extraction=config.extraction,
            mpp_table=mpp_table, default_mpp=default_mpp, device=device, cases=cases,
            rules=AnswerRules(abstain_below, "flag" if unlike == "flag" else "abstain"),
            explanations=Explanations(
                heatmaps=not no_heatmaps, scale="absolute" if scale == "absolute" else "percentile",
                top=top, geojson=not no_geojson,
            ),
        )  # fmt: skip
        if watch:
            return watch_folder(request, WatchConfig(interval, settle, until_idle), progress)
        return predict(request, progress)

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
