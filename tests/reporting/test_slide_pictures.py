"""Pictures in the report of a run: which slides, and whose attention."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.features.interchange import makers
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.core.config import config_from
from wsi_ncmi.features.thumbnails import thumbnail_comment
from wsi_ncmi.reporting import slides
from wsi_ncmi.training import TrainConfig, load_trained
from wsi_ncmi.training.runs import read_run_predictions
from wsi_ncmi.workflows import train

IDS = [f"s{i:02}" for i in range(16)]


def write_thumbnail(folder: Path, slide_id: str) -> None:
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(int(slide_id[1:])).integers(0, 255, (500, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f"{slide_id}.jpg", comment=thumbnail_comment(pixels))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An output folder with features, thumbnails of all but one slide, and a trained run in it."""
    out = tmp_path_factory.mktemp("out")
    folder = out / "features" / "enc"
    lines = ["slide_id,label,case_id"]
    for i, slide_id in enumerate(IDS):
        makers.ours(folder, slide_id, 8, i)
        with h5py.File(folder / f"{slide_id}.h5", "r+") as handle:
            handle.attrs["slide_fingerprint"] = f"f{i}"
        lines.append(f"{slide_id},{'ab'[i % 2]},p{i}")
        if i:
            write_thumbnail(out / "thumbnails", slide_id)
    (out / "labels.csv").write_text("\n".join(lines) + "\n")
    values = {
        "features": folder, "labels": str(out / "labels.csv"), "losses": ["ce"], "workers": 1, "seeds": 2,
        "training": {"epochs": 1}, "split": {"folds": 2}, "evaluation": {"figures": [], "resamples": 100},
    }  # fmt: skip
    train(config_from(TrainConfig, {**values, "out": out / "run"}, "the test"))
    return out, folder


def test_the_report_has_them(run: tuple[Path, Path]) -> None:
    out, _ = run
    report = (out / "run" / "report.html").read_text(encoding="utf-8")
    alts = re.findall(r'<img src="data:image/webp;base64,[^"]+" alt="([^"]+)"', report)
    assert alts
    shown = {re.search(r"s\d\d", alt)[0] for alt in alts}
    assert shown <= set(IDS[1:])
    listed = set(re.findall(r'class="id">(s\d\d)<', report))
    assert shown == listed - {"s00"}
    assert all("mean of 2 models" in alt for alt in alts[1::2])
    assert "the pooling weight" in report


def test_only_models_that_tested_a_slide_are_asked(run: tuple[Path, Path], monkeypatch) -> None:
    out, folder = run
    tested = read_run_predictions(out / "run" / "predictions.csv")
    asked: list[Path] = []
    monkeypatch.setattr(
        "wsi_ncmi.training.load_trained", lambda place: asked.append(place) or load_trained(place)
    )
    found = slides.pictures_of(["s01"], open_bag_source(folder), out / "run", tested)
    fold = int(tested.loc[tested["slide_id"] == "s01", "fold"].iloc[0])
    assert asked == [out / "run" / f"fold_{fold}" / f"seed_{seed}" for seed in (0, 1)]
    bag = open_bag_source(folder).load("s01")
    attention = np.mean([load_trained(place).predict(bag)[1] for place in asked], axis=0)
    top = np.sort(attention)[::-1][:1].sum() / attention.sum()
    assert f"holds {top:.0%} of" in found["s01"].sentence
    assert "8 tiles" in found["s01"].sentence


def test_what_has_no_picture(run: tuple[Path, Path], tmp_path: Path, monkeypatch) -> None:
    out, folder = run
    tested = read_run_predictions(out / "run" / "predictions.csv")
    source = open_bag_source(folder)
    assert slides.pictures_of(["s00", "elsewhere"], source, out / "run", tested) == {}
    monkeypatch.setattr(slides, "_MAX_BYTES", 1)
    assert slides.pictures_of(["s01", "s02"], source, out / "run", tested) == {}
    path = tmp_path / "bags.npz"
    np.savez(
        path,
        features=np.ones((2, 6), np.float16),
        lengths=np.array([1, 1], np.int32),
        slide_id=np.array(["s01", "s02"]),
    )
    assert slides.pictures_of(["s01"], open_bag_source(path), out / "run", tested) == {}
