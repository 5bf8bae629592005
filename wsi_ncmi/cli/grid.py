"""``wsi-ncmi grid``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli import training_flags as flags
from wsi_ncmi.cli.common import AsJson, Debug, Quiet, Settings, run_verb

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

NAME = "grid"


def command(
    features: Annotated[
        list[str],
        typer.Option(
            "--features",
            metavar="[NAME=]PATH[+PATH]",
            help="Features, once for each encoder; those of several encoders are joined with '+'.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the table and of all runs.")],
    models: Annotated[str, typer.Option(help="Aggregators, separated by commas.")] = "abmil",
    losses: Annotated[str, typer.Option(help="Losses, separated by commas.")] = "ncmi,ce",
    labels: flags.Labels = None,
    splits: flags.SplitsFile = None,
    folds: flags.Folds = None,
    seeds: flags.Seeds = 5,
    epochs: flags.Epochs = None,
    group: flags.Group = None,
    bag: flags.Bag = None,
    workers: flags.Workers = None,
    overwrite: flags.Overwrite = False,
    allow_leak: flags.AllowLeak = False,
    setting: Settings = None,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Train encoders x models x losses x folds x seeds; the same command resumes where it was stopped.

    Example: wsi-ncmi grid --features rcc=tcga_rcc.npz --models abmil,clam_sb --losses ncmi,ce --out grid
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.workflows.comparison import grid_configured

        values = flags.configuration(
            features=[], bag=bag, labels=labels, splits=splits, folds=folds, seeds=seeds, epochs=epochs,
            group=group, model=None, losses=losses.split(","), workers=workers, out=out,
        )  # fmt: skip
        return grid_configured(
            features, models.split(","), values, out, setting or (), progress,
            overwrite=overwrite, allow_leak=allow_leak,
        )  # fmt: skip

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
