"""``wsi-ncmi split``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, run_verb

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

NAME = "split"


def command(
    labels: Annotated[str, typer.Argument(help="CSV, or ADAPTER:FILE such as camelyon17:stage_labels.csv.")],
    out: Annotated[Path, typer.Option("--out", help="Splits file (JSON) to write.")],
    folds: Annotated[int | None, typer.Option(help="Number of folds (5); 1 = one hold-out.")] = None,
    group: Annotated[
        str | None, typer.Option(help="case_id (patient), centre (site-preserved), or slide_id.")
    ] = None,
    stratify: Annotated[str | None, typer.Option(help="label, or label,centre.")] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of training patients for model choice (0.2).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed (0).")] = None,
    official: Annotated[bool, typer.Option("--official", help="The split that the cohort ships.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Make patient-safe folds.

    Example: wsi-ncmi split labels.csv --out splits.json --folds 5 --stratify label,centre
    """

    def act(_: ProgressReporter) -> JobResult:
        from wsi_ncmi.workflows import load_config
        from wsi_ncmi.workflows.splitting import split_labels

        config = load_config(
            None,
            (),
            {
                "split": {
                    "folds": folds, "group": group, "validation": validation, "seed": seed,
                    "stratify": stratify.split(",") if stratify else None,
                }
            },
        )  # fmt: skip
        return split_labels(labels, out, config.split, official=official)

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
