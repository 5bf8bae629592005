"""``wsi-ncmi run``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli import extract
from wsi_ncmi.cli.common import AsJson, Debug, Quiet, Settings, run_verb
from wsi_ncmi.cli.flags import ConfigFlags, Flag, with_keys
from wsi_ncmi.core.errors import InputError

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

NAME = "run"
_OWN = ("--set", "--overwrite", "--allow-leak", "--variant")
_TRAINING = ConfigFlags(
    "wsi_ncmi.training.config.TrainConfig", {"split.group": Flag(), "split.folds": Flag(), "labels": Flag()}
)


def command(
    config: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped configuration.")],
    setting: Settings = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace features and runs of another configuration.")
    ] = False,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Train on a split that leaks; the report says so.")
    ] = False,
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="Run only this variant; may be repeated.")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole job of a cohort, from slides and labels to the report.

    Example: wsi-ncmi run camelyon17 --set slides=c17 --set labels=camelyon17:c17/stage_labels.csv
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.workflows import load_config, run_job

        try:
            given = {"overwrite": overwrite or None, "allow_leak": allow_leak or None}
            return run_job(load_config(config, setting or (), given), progress, only=variant or ())
        except InputError as error:
            # The parts of the job name the flags of their own verbs.
            raise InputError(with_keys(str(error), (extract.FLAGS, _TRAINING), _OWN)) from error

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
