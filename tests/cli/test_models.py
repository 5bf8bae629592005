"""``wsi-ncmi models``."""

from __future__ import annotations

import json

import numpy as np
import torch
from typer.testing import CliRunner

from tests.mil.peers import PeerClam
from wsi_ncmi.cli.app import app
from wsi_ncmi.mil import list_models
from wsi_ncmi.prediction.ensemble import load_ensemble


def test_it_lists_every_model_with_paper_and_cost():
    result = CliRunner().invoke(app, ["models", "--json", "--in-features", "16", "--instances", "8"])
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows] == [info.name for info in list_models()]
    for row in rows:
        if row["name"] != "linear":  # whose only map is the head's
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


def test_import_writes_a_model_that_predicts_as_the_peer(tmp_path):
    path, out = tmp_path / "s_0_checkpoint.pt", tmp_path / "model"
    torch.manual_seed(0)
    peer = PeerClam(5, 3, several=True)
    torch.save(peer.state_dict(), path)
    wrong = CliRunner().invoke(
        app, ["models", "import", str(path), "--class-names", "a,b", "--out", str(out)]
    )
    assert wrong.exit_code == 2
    assert "has 3 outputs but the class names are a, b" in wrong.stderr
    assert not out.exists()
    names = ["--class-names", "a, b,c", "--out", str(out)]
    done = CliRunner().invoke(app, ["models", "import", str(path), *names])
    assert done.exit_code == 0, done.stderr
    assert "s_0_checkpoint.pt is a clam_mb of 3 classes" in done.stdout
    ensemble = load_ensemble(out)
    bag = torch.randn(9, 5)
    answer = ensemble.predict(bag.numpy())
    assert ensemble.classes == ("a", "b", "c")
    expected = torch.softmax(peer(bag)[0].detach(), 0).numpy()
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
    again = CliRunner().invoke(app, ["models", "import", str(path), *names])
    assert again.exit_code == 2
    assert "holds a model already" in again.stderr
