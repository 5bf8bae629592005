"""``wsi-ncmi convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, run_verb

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows.result import JobResult

NAME = "convert"


def command(
    features: Annotated[
        Path,
        typer.Argument(help="Features of wsi-ncmi, CLAM, TRIDENT or STAMP, a packed .npz, a cohort .h5."),
    ],
    to: Annotated[str, typer.Option("--to", help="wsi-ncmi, clam, trident, stamp or packed.")],
    out: Annotated[Path, typer.Option("--out", help="Output folder (packed: also a file FILE.npz).")],
    encoder: Annotated[str, typer.Option(help="Encoder's name where the files don't tell it.")] = "",
    default_mpp: Annotated[
        float | None,
        typer.Option(min=0.01, max=100, help="Slides' µm per pixel where the files don't tell it."),
    ] = None,
    mpp_table: Annotated[
        Path | None, typer.Option(help="CSV with slide_id,mpp; before --default-mpp.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Labels that go into a packed file.")] = None,
    group: Annotated[
        str | None, typer.Option(help="slide_id: each slide is a patient (labels without patients).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of other content.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Write features in another tool's format, or bring another tool's features here.

    Example: wsi-ncmi convert out/features/uni_v1 --to clam --out clam/
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.workflows.conversion import ConversionRequest, convert

        request = ConversionRequest(
            features, to, out, encoder, default_mpp, mpp_table, labels, group, overwrite
        )
        return convert(request, progress)

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
