"""``wsi-ncmi run``."""

from __future__ import annotations

from typing import Annotated

import typer

from wsi_ncmi.cli import extract, train
from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given, with_keys
from wsi_ncmi.core.errors import InputError

FLAGS = ConfigFlags(
    "wsi_ncmi.workflows.config.JobConfig",
    {"overwrite": Flag(), "allow_leak": Flag(), "known_failures": Flag(metavar="CSV")},
    one_of={"loss": "losses"},
)


def command(
    given: Given,
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="YAML file, or the name of a shipped configuration.",
            rich_help_panel="Input",
        ),
    ],
    variant: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Run only this variant; may be repeated.", rich_help_panel="Input"),
    ] = None,
) -> None:
    """Run the whole job of a cohort, from slides and labels to the report.

    Example: wsi-ncmi run camelyon17 --set slides=c17 --set labels=camelyon17:c17/stage_labels.csv
    """
    from wsi_ncmi.workflows import run_job
    from wsi_ncmi.workflows.config import find_config

    try:
        result = run_job(given.read(file=find_config(config)), given.progress, only=variant or ())
    except InputError as error:
        # The parts of the job name the flags of their own verbs.
        message = with_keys(str(error), (extract.FLAGS, train.FLAGS), FLAGS.names().values())
        raise InputError(message) from error
    given.finish(result)
