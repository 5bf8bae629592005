"""``wsi-ncmi losses``."""

from dataclasses import asdict, fields
from typing import Any

from wsi_ncmi.cli.common import say, say_json
from wsi_ncmi.cli.flags import PLAIN, Given

FLAGS = PLAIN


def command(given: Given) -> None:
    """List the losses with formula, paper and settings, and the presets of NCMI.

    Example: wsi-ncmi losses --json
    """
    rows = _rows()
    if given.as_json:
        say_json(rows)
        return
    for row in rows:
        if given.quiet:
            say(row["name"])
            continue
        say(f"{row['name']:<16} {row['summary']}")
        say(f"{'':<16} L = {row['formula']}")
        say(f"{'':<16} {row['paper']}")
        if row["settings"]:
            settings = ", ".join(f"{name} = {_shown(value)}" for name, value in row["settings"].items())
            say(f"{'':<16} settings: {settings}")
        for name, form in row["presets"].items():
            values = ", ".join(f"{key} = {_shown(value)}" for key, value in form.items())
            say(f"{'':<16} preset {name}: {values}")


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
