"""``wsi-ncmi predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, run_verb

if TYPE_CHECKING:
    from wsi_ncmi.jobs import JobResult
    from wsi_ncmi.progress import ProgressReporter

NAME = "predict"


def command(
    slides: Annotated[Path, typer.Argument(help="Folder of slides, or one slide.")],
    model: Annotated[Path, typer.Option("--model", help="Run folder of train (RUN, or RUN/LOSS).")],
    out: Annotated[Path, typer.Option("--out", help="Output folder; features in it are reused.")],
    weights: Annotated[Path | None, typer.Option(help="Weights of the encoder, where it has any.")] = None,
    mpp_table: Annotated[Path | None, typer.Option(help="CSV with slide_id,mpp.")] = None,
    default_mpp: Annotated[
        float | None, typer.Option(help="µm per pixel where nothing else gives it.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes (as the machine allows).")] = None,
    timeout_per_slide: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds a slide may take.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Predict new slides with a trained run: extraction, ensemble of folds and seeds, attention.

    Example: wsi-ncmi predict new_slides/ --model run --out predictions
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.jobs import PredictionRequest, load_config, predict

        config = load_config(
            None, (), {"extraction": {"workers": workers, "timeout_per_slide": timeout_per_slide}}
        )
        return predict(
            PredictionRequest(
                slides=slides, model=model, out=out, weights=weights, extraction=config.extraction,
                mpp_table=mpp_table, default_mpp=default_mpp, device=device,
            ),
            progress,
        )  # fmt: skip

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
