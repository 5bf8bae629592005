"""``wsi-ncmi convert`` and training straight from what other tools wrote."""

from __future__ import annotations

import json

import numpy as np
from typer.testing import CliRunner

from tests.features.interchange import makers
from wsi_ncmi.cli.app import app


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_help_has_an_example():
    code, out, _ = call("convert", "--help")
    assert code == 0
    assert "Example: wsi-ncmi convert" in " ".join(out.split())


def test_exit_codes_and_json(tmp_path):
    makers.trident(tmp_path / "features_x", "a")
    makers.trident(tmp_path / "features_x", "b.c")
    arguments = ("convert", tmp_path / "features_x", "--to", "clam", "--out", tmp_path / "o", "-q", "--json")
    code, out, _ = call(*arguments)
    assert code == 0
    told = json.loads(out)
    assert told["failures"] == []
    assert told["notes"][0] == "2 converted of 2 slides."
    assert sorted(p.name for p in (tmp_path / "o" / "pt_files").iterdir()) == ["a.pt", "b.c.pt"]
    (tmp_path / "features_x" / "b.c.h5").write_text("broken")
    code, out, _ = call(*arguments)
    assert code == 1
    assert "b.c.h5 can't be read" in json.loads(out)["failures"][0]
    code, _, err = call("convert", tmp_path / "features_x", "--to", "hipt", "--out", tmp_path / "p")
    assert code == 2
    assert "(--to hipt) is wrong: it is one of wsi-ncmi, clam" in err
    code, _, err = call("convert", tmp_path / "nowhere", "--to", "clam", "--out", tmp_path / "p")
    assert code == 2
    assert "nowhere" in err
    assert "Traceback" not in err


def trained(features, labels, out):
    code, stdout, err = call(
        "train", "--features", features, "--labels", labels, "--out", out,
        "--folds", 2, "--epochs", 3, "-q", "--workers", 1, "--set", "evaluation.figures=[]",
    )  # fmt: skip
    assert code == 0, err + stdout
    assert 0 <= json.loads((out / "metrics.json").read_text())["macro_f1"]["value"] <= 1
    return (out / "predictions.csv").read_text()


def test_training_on_what_other_tools_wrote(tmp_path):
    lines = ["slide_id,case_id,label"]
    for i in range(18):
        slide_id = f"TCGA-{i:02d}.A"
        makers.clam(tmp_path / "clam", slide_id, n=8 + i % 3, seed=i, dtype=np.float32)
        makers.stamp(tmp_path / "stamp", slide_id, n=8 + i % 3, seed=i)
        lines.append(f"{slide_id},p{i},{'xy'[i % 2]}")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(lines))
    imported = tmp_path / "imported"
    assert call("convert", tmp_path / "clam", "--to", "wsi-ncmi", "--out", imported, "-q")[0] == 0
    assert call("verify", imported, "-q")[0] == 0
    expected = trained(imported, labels, tmp_path / "run_imported")
    # CLAM's tensors alone are enough to train; the same features give the same predictions to the digit.
    for path in (tmp_path / "clam" / "h5_files").iterdir():
        path.unlink()
    assert trained(tmp_path / "clam", labels, tmp_path / "run_clam") == expected
    assert trained(tmp_path / "stamp", labels, tmp_path / "run_stamp") == expected
