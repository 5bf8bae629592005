"""``wsi-ncmi losses``."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.losses import PRESETS, list_losses


def test_it_lists_every_loss_with_formula_paper_and_settings():
    result = CliRunner().invoke(app, ["losses", "--json"])
    assert result.exit_code == 0
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert list(rows) == [info.name for info in list_losses()]
    assert all(row["formula"] and row["paper"] and row["summary"] for row in rows.values())
    assert rows["focal"]["settings"] == {"focal_gamma": 2.0}
    assert set(rows["ncmi"]["presets"]) == set(PRESETS)
    assert rows["ncmi"]["presets"]["paper"]["temperature"] == 0.2


def test_text_and_quiet():
    text = CliRunner().invoke(app, ["losses"])
    assert "arXiv 2601.02543" in text.stdout
    assert "preset paper:" in text.stdout
    quiet = CliRunner().invoke(app, ["losses", "-q"])
    assert quiet.stdout.split() == [info.name for info in list_losses()]
