"""``wsi-ncmi compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli import training_flags as flags
from wsi_ncmi.cli.common import AsJson, Debug, Quiet, Settings, run_verb

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

NAME = "compare"


def command(
    features: flags.Features,
    out: flags.RunOut,
    labels: flags.Labels = None,
    losses: Annotated[
        str, typer.Option(help="Losses; the first is compared with each other one.")
    ] = "ncmi,ce",
    splits: flags.SplitsFile = None,
    model: Annotated[str | None, typer.Option(help="Aggregator (abmil = gated attention).")] = None,
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
    """Compare losses on the same folds, seeds and initial weights, with paired statistics.

    Example: wsi-ncmi compare --features tcga_rcc.npz --losses ncmi,ce --out compare --seeds 5
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.workflows.comparison import train_configured

        values = flags.configuration(
            features=features, bag=bag, labels=labels, splits=splits, folds=folds, seeds=seeds, epochs=epochs,
            group=group, model=model, losses=losses.split(","), workers=workers, out=out,
        )  # fmt: skip
        return train_configured(
            values, out, setting or (), progress, overwrite=overwrite, allow_leak=allow_leak
        )

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
