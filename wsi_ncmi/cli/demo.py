"""``wsi-ncmi demo``."""

from typing import Annotated

import typer

from wsi_ncmi.cli.common import named_path
from wsi_ncmi.cli.flags import ConfigFlags, Given

FLAGS = ConfigFlags()


def command(
    given: Given, out: Annotated[str, typer.Option("--out", metavar="DIR", help="Output folder.")] = "demo"
) -> None:
    """Make a synthetic cohort and run the whole job on it, offline.

    Example: wsi-ncmi demo --out demo
    """
    from wsi_ncmi.workflows import run_demo

    folder = named_path(out, "--out")
    given.finish(run_demo(folder, given.progress, overrides=tuple(given.setting or ())))
