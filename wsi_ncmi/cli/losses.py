"""``wsi-ncmi losses``."""

import json
from dataclasses import asdict, fields
from typing import Any

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, guarded


def command(quiet: Quiet = False, debug: Debug = False, as_json: AsJson = False) -> None:
    """List the losses with formula, paper and settings, and the presets of NCMI.

    Example: wsi-ncmi losses --json
    """
    rows = guarded(lambda _: _rows(), quiet=quiet, debug=debug)
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    for row in rows:
        if quiet:
            typer.echo(row["name"])
            continue
        typer.echo(f"{row['name']:<16} {row['summary']}")
        typer.echo(f"{'':<16} L = {row['formula']}")
        typer.echo(f"{'':<16} {row['paper']}")
        if row["settings"]:
            settings = ", ".join(f"{name} = {_shown(value)}" for name, value in row["settings"].items())
            typer.echo(f"{'':<16} settings: {settings}")
        for name, form in row["presets"].items():
            values = ", ".join(f"{key} = {_shown(value)}" for key, value in form.items())
            typer.echo(f"{'':<16} preset {name}: {values}")


def _rows() -> list[dict[str, Any]]:
    from wsi_ncmi.losses import PRESETS, list_losses

    return [
        {
            "name": loss.name,
            "summary": loss.summary,
            "formula": loss.formula,
            "paper": loss.paper,
            "settings": {field.name: field.default for field in fields(loss) if field.name != "name"},
            "presets": {name: asdict(form) for name, form in PRESETS.items()} if loss.name == "ncmi" else {},
        }
        for loss in list_losses()
    ]


def _shown(value: Any) -> str:
    return "as the preset" if value is None else str(value)
