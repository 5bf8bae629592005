"""``wsi-ncmi search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli import training_flags as flags
from wsi_ncmi.cli.common import AsJson, Debug, Quiet, Settings, run_verb

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

NAME = "search"


def command(
    features: flags.Features,
    out: flags.RunOut,
    labels: flags.Labels = None,
    space: Annotated[
        Path | None, typer.Option(help="YAML: 'key: {low, high, log}' or 'key: [choices]' (rate, decay, …).")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials of each fold: the budget.")] = 30,
    minutes: Annotated[
        float | None, typer.Option(help="Begin no trial after this time; the same command resumes.")
    ] = None,
    trial_seeds: Annotated[int, typer.Option(min=1, help="Seeds of a trial, averaged.")] = 1,
    splits: flags.SplitsFile = None,
    model: Annotated[str | None, typer.Option(help="Aggregator (abmil = gated attention).")] = None,
    loss: Annotated[str, typer.Option(help="Loss, such as ncmi or ce.")] = "ncmi",
    folds: flags.Folds = None,
    seeds: flags.Seeds = None,
    epochs: flags.Epochs = None,
    group: flags.Group = None,
    bag: flags.Bag = None,
    workers: flags.Workers = None,
    setting: Settings = None,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Search settings on each fold's inner validation part, then train and test the fold with the best.

    Example: wsi-ncmi search --features tcga_rcc.npz --loss ce --trials 30 --out search
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.workflows.search import SearchRequest, search
        from wsi_ncmi.workflows.search.space import DEFAULT_SPACE, read_space

        values = flags.configuration(
            features=features, bag=bag, labels=labels, splits=splits, folds=folds, seeds=seeds, epochs=epochs,
            group=group, model=model, losses=[loss], workers=workers, out=out,
        )  # fmt: skip
        request = SearchRequest(
            values=values, out=out, overrides=tuple(setting or ()),
            space=DEFAULT_SPACE if space is None else read_space(space), trials=trials, minutes=minutes,
            trial_seeds=trial_seeds,
        )  # fmt: skip
        return search(request, progress)

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
