"""``wsi-ncmi config init|show|schema``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_ncmi.cli.common import Debug, Settings, guarded, say, say_json, say_lines

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter

app = typer.Typer(help="Write, show or describe configurations.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def init(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="YAML file to write.")] = Path(
        "job.yaml"
    ),
    base: Annotated[
        str | None, typer.Option("--from", metavar="NAME", help="Shipped configuration to start from.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a configuration that explains each key; those at their defaults are comments.

    Example: wsi-ncmi config init --from camelyon17 --out job.yaml
    """

    def act(_: ProgressReporter) -> None:
        from wsi_ncmi.core.config import commented_yaml
        from wsi_ncmi.core.errors import InputError
        from wsi_ncmi.core.files import ensure_folder, write_text
        from wsi_ncmi.workflows.config import load_config

        if out.exists():
            raise InputError(f"{out} exists; remove it or choose another name with --out.")
        ensure_folder(out.parent)
        write_text(out, commented_yaml(load_config(base)))

    guarded(act, quiet=False, debug=debug)
    say(f"config: {out}")


@app.command()
def show(
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="YAML file or shipped name; none = the defaults.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show what is at its default too.")] = False,
    setting: Settings = None,
    debug: Debug = False,
) -> None:
    """Print what a configuration changes, --set applied.

    Example: wsi-ncmi config show demo --set training.epochs=5
    """

    def act(_: ProgressReporter) -> str:
        from wsi_ncmi.core.config import to_yaml
        from wsi_ncmi.workflows.config import load_config

        return to_yaml(load_config(config, setting or ()), changed_only=not everything)

    say_lines(guarded(act, quiet=False, debug=debug))


@app.command()
def schema(debug: Debug = False) -> None:
    """Print the JSON schema of the configuration (editors check YAML with it).

    Example: wsi-ncmi config schema > wsi-ncmi.schema.json
    """

    def act(_: ProgressReporter) -> dict[str, Any]:
        from wsi_ncmi.workflows.config import config_adapter

        return config_adapter().json_schema()

    say_json(guarded(act, quiet=False, debug=debug), indent=2)
