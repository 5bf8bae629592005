"""A folder that 0.1.0 watched is watched on: its answers stay, and only what is new is predicted.

``watch_v0_1_0.zip`` was made by 0.1.0 (commit 2bc979b) with slide and bundle of ``v0_1_0.zip``, beside a file
``bad.svs`` that is no slide (pictures, contact sheet and report are left out of the archive):

    wsi-ncmi predict inbox --model bundle.zip --out watched --watch --settle 0 --interval 0.2 --until-idle 1
        --no-heatmaps
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from wsi_ncmi.extraction.config import ExecutionConfig
from wsi_ncmi.prediction import PredictConfig, WatchConfig, load_bundle
from wsi_ncmi.prediction.model_folder import list_bundles, promote_bundle
from wsi_ncmi.workflows.clean import CleanConfig, clean
from wsi_ncmi.workflows.watch import watch


@pytest.fixture
def old(tmp_path: Path) -> Path:
    here = Path(__file__)
    with zipfile.ZipFile(here.with_name("watch_v0_1_0.zip")) as archive:
        archive.extractall(tmp_path)
    with zipfile.ZipFile(here.with_name("v0_1_0.zip")) as archive:
        archive.extract("bundle.zip", tmp_path)
        (tmp_path / "inbox" / "s1.svs").write_bytes(archive.read("slides/s1.svs"))
    for name, seen in json.loads((tmp_path / "watched" / "watch.json").read_text())["slides"].items():
        changed_ns = int(seen["signature"].split()[0].split(":")[1])  # which archives don't keep
        os.utime(tmp_path / "inbox" / name, ns=(changed_ns, changed_ns))
    return tmp_path


def seen(out: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((out / "watch.json").read_text())["slides"]
    return found


def predictions(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "predictions.csv", dtype=str, keep_default_na=False).set_index("slide_id")


def test_a_watched_folder_of_0_1_0_goes_on(old: Path) -> None:
    out = old / "watched"
    answer, quarantine = (out / "slides" / "s1.json").read_bytes(), (out / "quarantine.csv").read_text()
    features, table = (out / "features/descriptor/s1.h5").read_bytes(), predictions(out)
    before = seen(out)
    config = PredictConfig(
        slides=old / "inbox", model=old / "bundle.zip", out=out, heatmaps=False,
        extraction=ExecutionConfig(workers=1), watch=WatchConfig(interval_s=0.1, settle_s=0, until_idle_s=0),
    )  # fmt: skip
    result = watch(config)
    # No slide was new; the tables are written from the answers that are there.
    pd.testing.assert_frame_equal(predictions(out)[table.columns], table)
    assert result.failures[0].startswith("bad.svs: bad.svs can't be opened as a slide")
    assert seen(out).keys() == before.keys()
    shutil.copy(old / "inbox" / "s1.svs", old / "inbox" / "s2.svs")
    watch(config)
    after = seen(out)
    assert {name: {**each, "slide_id": ""} for name, each in after.items() if name in before} == {
        name: {**each, "slide_id": ""} for name, each in before.items()
    }
    assert after["s2.svs"]["status"] == "done"
    assert (out / "slides" / "s1.json").read_bytes() == answer
    assert (out / "quarantine.csv").read_text() == quarantine
    assert (out / "features/descriptor/s1.h5").read_bytes() == features
    assert not (out / "history").exists()
    found = predictions(out)
    assert found.loc["s1", table.columns].to_dict() == table.loc["s1"].to_dict()
    p = f"p_{found.prediction['s1']}"
    assert float(found[p]["s2"]) == pytest.approx(float(found[p]["s1"]), rel=1e-4)


def test_bundles_and_outputs_of_0_1_0_are_managed(old: Path) -> None:
    bundle = promote_bundle(old / "bundle.zip")
    assert bundle.digest == json.loads((old / "watched" / "watch.json").read_text())["model"]
    assert (bundle.version, len(bundle.cohort_sha256)) == ("", 64)
    assert load_bundle(old / "current").digest == bundle.digest
    (row,) = list_bundles(old)
    assert (row["file"], row["current"], row["problem"]) == ("bundle.zip", True, "")
    notes = clean(CleanConfig(out=old / "watched", kinds=("temporary", "history"), yes=True)).notes
    assert notes[:2] == ("temporary: nothing that old.", "history: nothing that old.")
