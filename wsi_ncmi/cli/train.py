"""``wsi-ncmi train``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli import training_flags as flags
from wsi_ncmi.cli.common import AsJson, Debug, Quiet, Settings, run_verb

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

NAME = "train"


def command(
    features: flags.Features,
    out: flags.RunOut,
    labels: flags.Labels = None,
    splits: flags.SplitsFile = None,
    model: Annotated[str | None, typer.Option(help="Aggregator (abmil = gated attention).")] = None,
    loss: Annotated[str, typer.Option(help="Loss, such as ncmi or ce.")] = "ncmi",
    folds: flags.Folds = None,
    seeds: flags.Seeds = None,
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
    """Train an aggregator on folds and seeds, and report out-of-fold macro-F1.

    Example: wsi-ncmi train --features out/features/descriptor --labels labels.csv --out run --loss ncmi
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.workflows.comparison import train_configured

        values = flags.configuration(
            features=features, bag=bag, labels=labels, splits=splits, folds=folds, seeds=seeds, epochs=epochs,
            group=group, model=model, losses=[loss], workers=workers, out=out,
        )  # fmt: skip
        return train_configured(
            values, out, setting or (), progress, overwrite=overwrite, allow_leak=allow_leak
        )

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
