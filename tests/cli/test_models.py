"""``wsi-ncmi models``."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.mil import list_models


def test_it_lists_every_model_with_paper_and_cost():
    result = CliRunner().invoke(app, ["models", "--json", "--in-features", "16", "--instances", "8"])
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows] == [info.name for info in list_models()]
    for row in rows:
        assert row["parameters"] > 0
        assert row["flops_per_instance"] > 0
        assert row["in_features"] == 16
        assert "arXiv" in row["paper"]
        assert row["attention"]


def test_text_and_quiet():
    text = CliRunner().invoke(app, ["models", "--in-features", "16", "--instances", "8"])
    assert text.exit_code == 0
    assert "clam_mb" in text.stdout
    assert "arXiv 2004.09666" in text.stdout
    quiet = CliRunner().invoke(app, ["models", "--quiet"])
    assert quiet.stdout.split() == [info.name for info in list_models()]
    assert CliRunner().invoke(app, ["models", "--classes", "1"]).exit_code == 2
