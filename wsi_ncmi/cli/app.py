"""The command ``wsi-ncmi``: one file per verb, registered here."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from wsi_ncmi import __version__
from wsi_ncmi.cli import (
    audit,
    compare,
    config,
    convert,
    demo,
    doctor,
    encoders,
    evaluate,
    export,
    extract,
    grid,
    heatmap,
    inventory,
    losses,
    models,
    predict,
    run,
    search,
    split,
    synth,
    train,
    verify,
    view,
)
from wsi_ncmi.core.logging import FORMAT_VARIABLE

__all__ = ["app", "main"]


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


app = typer.Typer(
    name="wsi-ncmi",
    help="Whole-slide images to slide-level subtypes: exact tiles, cached features, MIL with the NCMI loss.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wsi-ncmi {__version__}")
        raise typer.Exit(0)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(
            "--log-format", envvar=FORMAT_VARIABLE, help="Log lines as text, or as one JSON object each."
        ),
    ] = None,
) -> None:
    """Whole-slide images to slide-level subtypes: exact tiles, cached embeddings, MIL with the NCMI loss."""
    if log_format is not None:
        os.environ[FORMAT_VARIABLE] = log_format.value  # worker processes inherit it


for _module in (
    demo, run, inventory, extract, verify, convert, split, audit, train, compare, grid, search, losses,
    evaluate, export, predict, heatmap, view, synth, doctor,
):  # fmt: skip
    app.command(_module.NAME)(_module.command)
app.add_typer(config.app, name="config")
app.add_typer(models.app, name="models")
app.add_typer(encoders.app, name="encoders")


def main() -> None:
    """Entry point of the console script."""
    app()
