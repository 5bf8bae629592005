"""``wsi-ncmi view``."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from wsi_ncmi.cli.common import Debug, Quiet, guarded

NAME = "view"


def command(
    slide: Annotated[Path, typer.Argument(help="One slide.")],
    features: Annotated[Path | None, typer.Option(help="Its features, file or folder.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Bundle or run whose attention and evidence are shown.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="QuPath or ASAP annotations, file or folder.")
    ] = None,
    default_mpp: Annotated[
        float | None, typer.Option(help="µm per pixel where the slide doesn't tell.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, open nothing.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Look at a slide in the browser: tiles, overlays, values; local, offline, until Ctrl-C.

    Example: wsi-ncmi view slide.svs --features predictions --model model.zip
    """
    from wsi_ncmi.workflows.viewing import ViewRequest, view

    def tell(url: str) -> None:
        typer.echo(url)
        if not quiet:
            typer.echo("Ctrl-C ends it; only this machine reaches it, and only with this address.", err=True)
        if not no_browser:
            webbrowser.open(url)

    def act(_: object) -> None:
        try:
            view(ViewRequest(slide, features, model, annotations, default_mpp, port), tell)
        except KeyboardInterrupt:
            return  # the way to end it

    guarded(act, quiet=quiet, debug=debug)
