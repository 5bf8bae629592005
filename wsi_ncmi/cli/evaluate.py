"""``wsi-ncmi evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, run_verb

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
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate any predictions table: metrics with intervals and a report.

    Example: wsi-ncmi evaluate predictions.csv --labels labels.csv --out evaluation
    """
    from wsi_ncmi.jobs import evaluate

    run_verb(
        lambda _: evaluate(
            predictions, out, labels=labels, group=group, classes=classes.split(",") if classes else None
        ),
        quiet=quiet, debug=debug, as_json=as_json,
    )  # fmt: skip
