"""``wsi-ncmi export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, run_verb

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

NAME = "export"


def command(
    run: Annotated[Path, typer.Argument(help="Run folder of train (RUN, or RUN/LOSS).")],
    out: Annotated[Path, typer.Option("--out", help="Folder, or a file that ends in .zip.")],
    features: Annotated[
        Path | None, typer.Option(help="Features of the training; default: those beside the run.")
    ] = None,
    without_reference: Annotated[
        bool, typer.Option("--without-reference", help="Leave out what flags slides unlike the training.")
    ] = False,
    coverage: Annotated[
        float, typer.Option(help="Share of validation slides to answer; 1 = always answer.")
    ] = 0.9,
    abstain_below: Annotated[
        float | None,
        typer.Option(metavar="P", help="No answer below this probability, in place of --coverage."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    intended_use: Annotated[str | None, typer.Option(help="What the model is for, for its card.")] = None,
    limits: Annotated[str | None, typer.Option(help="What the model is not for, for its card.")] = None,
    torchscript: Annotated[
        bool, typer.Option("--torchscript", help="Add TorchScript, compared first.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Add ONNX, compared first.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle that is there.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Export a run as a bundle: models, calibration, training statistics and model card in one place.

    Example: wsi-ncmi export run/ncmi --out model.zip
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.workflows import ExportRequest, export

        words = {"intended_use": intended_use, "limits": limits}
        return export(
            ExportRequest(
                run=run, out=out, features=features, reference=not without_reference, coverage=coverage,
                abstain_below=abstain_below, name=name, torchscript=torchscript, onnx=onnx,
                overwrite=overwrite,
                **{key: text for key, text in words.items() if text is not None},
            ),
            progress,
        )  # fmt: skip

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
