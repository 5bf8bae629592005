"""``wsi-ncmi evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, run_verb

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

NAME = "evaluate"


def command(
    predictions: Annotated[
        Path,
        typer.Argument(help="CSV with slide_id, p_<class>… and truth; or CLAM's or STAMP's predictions."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Output folder.")],
    labels: Annotated[str | None, typer.Option(help="Labels table that gives the truth.")] = None,
    group: Annotated[str | None, typer.Option(help="slide_id: each slide is a patient.")] = None,
    classes: Annotated[str | None, typer.Option(help="Names of CLAM's classes 0, 1, …: a,b,c.")] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", help="Predictions of another run on the same slides; may be repeated."),
    ] = None,
    resamples: Annotated[int | None, typer.Option(min=100, help="Bootstrap resamples (10,000).")] = None,
    figures: Annotated[
        str | None, typer.Option(help="Formats of the figures beside the report: png,svg (default) or none.")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate any predictions table: metrics with intervals and a report.

    Example: wsi-ncmi evaluate predictions.csv --labels labels.csv --out evaluation --against other.csv
    """

    def act(_: ProgressReporter) -> JobResult:
        from wsi_ncmi.workflows import evaluate, load_config

        formats = None if figures is None else [name for name in figures.split(",") if name != "none"]
        values = {"evaluation": {"resamples": resamples, "figures": formats}}
        return evaluate(
            predictions, out, labels=labels, group=group, classes=classes.split(",") if classes else None,
            against=against or (), options=load_config(None, (), values).evaluation,
        )  # fmt: skip

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
