"""``wsi-ncmi demo``."""

from typing import Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, Settings, named_path, run_verb


def command(
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Output folder.")] = "demo",
    setting: Settings = None,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Make a synthetic cohort and run the whole job on it, offline.

    Example: wsi-ncmi demo --out demo
    """
    from wsi_ncmi.workflows import run_demo

    run_verb(
        lambda progress: run_demo(named_path(out, "--out"), progress, overrides=tuple(setting or ())),
        quiet=quiet, debug=debug, as_json=as_json,
    )  # fmt: skip
