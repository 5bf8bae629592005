"""``wsi-ncmi run``."""

from __future__ import annotations

from typing import Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, Settings, run_verb

NAME = "run"


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
    from wsi_ncmi.workflows import load_config, run_job

    run_verb(
        lambda progress: run_job(
            load_config(config, setting or ()), progress, overwrite=overwrite, allow_leak=allow_leak,
            only=variant or (),
        ),
        quiet=quiet, debug=debug, as_json=as_json,
    )  # fmt: skip
