"""``wsi-ncmi view``."""

import webbrowser
from typing import Annotated

import typer

from wsi_ncmi.cli.common import say
from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

FLAGS = ConfigFlags(
    "wsi_ncmi.prediction.config.ViewConfig",
    {
        "slide": Flag(argument=True, there=True),
        "features": Flag(there=True),
        "model": Flag(there=True),
        "annotations": Flag(there=True),
        "default_mpp": Flag(),
        "tissue.method": Flag(name="--tissue", metavar="METHOD"),
        "port": Flag(panel="Page"),
    },
    result=False,
)


def command(
    given: Given,
    no_browser: Annotated[
        bool,
        typer.Option("--no-browser", help="Print the address, open nothing.", rich_help_panel="Page"),
    ] = False,
) -> None:
    """Look at a slide in the browser: tiles, overlays, values; local, offline, until Ctrl-C.

    Example: wsi-ncmi view slide.svs --features predictions --model model.zip
    """

    def on_ready(url: str) -> None:
        say(url)
        if not given.quiet:
            say("Ctrl-C ends it; only this machine reaches it, and only with this address.", err=True)
        if not no_browser:
            webbrowser.open(url)

    def act(_: object) -> None:
        config = given.read()
        from wsi_ncmi.workflows.view import view

        try:
            view(config, on_ready)
        except KeyboardInterrupt:
            return  # the way to end it

    given.guarded(act)
