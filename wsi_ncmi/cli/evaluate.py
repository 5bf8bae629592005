"""``wsi-ncmi evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from wsi_ncmi.cli.common import check_there
from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

FLAGS = ConfigFlags(
    "wsi_ncmi.training.config.EvaluateConfig",
    {
        "predictions": Flag(
            argument=True,
            there=True,
            help="CSV with slide_id, label and p_<class>… (predict's with --labels); or CLAM's or STAMP's.",
        ),
        "out": Flag(required=True, folder=True),
        "labels": Flag(metavar="CSV|ADAPTER:FILE", there=True),
        "verdicts": Flag(metavar="CSV", there=True),
        "group": Flag(),
        "classes": Flag(metavar="A,B,…"),
        "order": Flag(metavar="A,B,…"),
        "evaluation.*": Flag(panel="Expert"),
    },
)


def command(
    given: Given,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            rich_help_panel="Input",
            metavar="FILE",
            help="Predictions of another run on the same slides; may be repeated.",
        ),
    ] = None,
) -> None:
    """Evaluate any predictions table: metrics with intervals and a report.

    Example: wsi-ncmi evaluate predictions.csv --labels labels.csv --out evaluation --against other.csv
    """
    config = given.read({"against": against})
    check_there(config.against, "--against")
    from wsi_ncmi.workflows import evaluate

    given.finish(evaluate(config))
