"""``wsi-ncmi config init|show|schema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_ncmi.cli.common import say, say_json, say_lines
from wsi_ncmi.cli.flags import ConfigFlags, Given

app = typer.Typer(help="Write, show or describe configurations.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
@ConfigFlags(shared=("debug",)).command
def init(
    given: Given,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="YAML file to write.")] = Path(
        "job.yaml"
    ),
    base: Annotated[
        str | None, typer.Option("--from", metavar="NAME", help="Shipped configuration to start from.")
    ] = None,
) -> None:
    """Write a configuration that explains each key; those at their defaults are comments.

    Example: wsi-ncmi config init --from camelyon17 --out job.yaml
    """
    from wsi_ncmi.core.config import commented_yaml
    from wsi_ncmi.core.errors import InputError
    from wsi_ncmi.core.files import ensure_folder, write_text
    from wsi_ncmi.workflows.config import load_config

    if out.exists():
        raise InputError(f"{out} exists; remove it or choose another name with --out.")
    ensure_folder(out.parent)
    write_text(out, commented_yaml(load_config(base)))
    say(f"config: {out}")


@app.command()
@ConfigFlags(shared=("setting", "debug")).command
def show(
    given: Given,
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="YAML file or shipped name; none = the defaults.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show what is at its default too.")] = False,
) -> None:
    """Print what a configuration changes, --set applied.

    Example: wsi-ncmi config show demo --set training.epochs=5
    """
    from wsi_ncmi.core.config import to_yaml
    from wsi_ncmi.workflows.config import load_config

    say_lines(to_yaml(load_config(config, given.setting or ()), changed_only=not everything))


@app.command()
@ConfigFlags(shared=("debug",)).command
def schema(_: Given) -> None:
    """Print the JSON schema of the configuration (editors check YAML with it).

    Example: wsi-ncmi config schema > wsi-ncmi.schema.json
    """
    from wsi_ncmi.workflows.config import config_adapter

    say_json(config_adapter().json_schema(), indent=2)
