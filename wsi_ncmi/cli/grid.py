"""``wsi-ncmi grid``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from wsi_ncmi.cli.common import check_there
from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given
from wsi_ncmi.cli.train import SHARED, run_name

FLAGS = ConfigFlags(
    "wsi_ncmi.training.config.SweepConfig",
    {
        "models": Flag(panel="Training", default=("abmil",), help="Aggregators, separated by commas."),
        "losses": Flag(panel="Training", default=("ncmi", "ce"), help="Losses, separated by commas."),
        **SHARED,
        "out": Flag(required=True, folder=True, help="Folder of the table and of all runs."),
        "seeds": Flag(panel="Training", default=5),
    },
    one_of={"loss": "losses"},
)


def command(
    given: Given,
    features: Annotated[
        list[str],
        typer.Option(
            "--features",
            metavar="[NAME=]PATH[+PATH]",
            help="Features, once for each encoder; those of several encoders are joined with '+'.",
            rich_help_panel="Input",
        ),
    ],
) -> None:
    """Train encoders x models x losses x folds x seeds; the same command resumes where it was stopped.

    Example: wsi-ncmi grid --features rcc=tcga_rcc.npz --models abmil,clam_sb --losses ncmi,ce --out grid
    """
    from wsi_ncmi.workflows.sweep import named_features, settings_of_models, sweep

    encoders = named_features(features)
    for paths in encoders.values():
        check_there(paths, "--features")
    settings = settings_of_models(given.values["models"], given.setting or ())
    more = {"name": run_name(given), "encoders": encoders}
    given.finish(sweep(replace(given, setting=settings).read(more), given.progress))
