"""``wsi-ncmi view``."""

import contextlib
import webbrowser
from typing import Annotated

import typer

from wsi_ncmi.cli.common import say
from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

FLAGS = ConfigFlags(
    "wsi_ncmi.prediction.config.ViewConfig",
    {
        "slide": Flag(argument=True, there=True, metavar="SLIDE|PREDICTIONS"),
        "slides": Flag(there=True),
        "against": Flag(there=True),
        "features": Flag(there=True),
        "model": Flag(there=True),
        "annotations": Flag(there=True),
        "default_mpp": Flag(),
        "tissue.method": Flag(name="--tissue", metavar="METHOD"),
        "port": Flag(panel="Page"),
        "listen": Flag(panel="Page", metavar="ADDRESS"),
        "origin": Flag(panel="Page", metavar="URL"),
    },
    shared=("setting", "quiet", "debug"),
)


def command(
    given: Given,
    no_browser: Annotated[
        bool,
        typer.Option("--no-browser", help="Print the address, open nothing.", rich_help_panel="Page"),
    ] = False,
) -> None:
    """Look at a slide in the browser, or work through the answers of predict; local, offline, until Ctrl-C.

    Example: wsi-ncmi view predictions --slides new_slides
    """
    config = given.read()
    from wsi_ncmi.workflows.view import view

    def on_ready(url: str) -> None:
        say(url)
        if not given.quiet:
            who = "the reverse proxy" if config.origin else "this machine"
            say(f"Ctrl-C ends it; only {who} reaches it, and only with its token.", err=True)
        if not no_browser and not config.origin:
            webbrowser.open(url)

    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        view(config, on_ready)
