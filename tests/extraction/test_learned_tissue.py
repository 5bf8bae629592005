"""Tissue from a user's network through a whole job: identity, ledger, artefacts, the encoder's device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.extraction.conftest import with_config
from tests.tissue.test_learned import by, saved
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import Encoder, EncoderConfig
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.execution.plan import can_use_gpu
from wsi_ncmi.extraction.pipeline.pipeline import extract_slide
from wsi_ncmi.extraction.planning import with_mask_model
from wsi_ncmi.extraction.slide import prepare_slide
from wsi_ncmi.features import open_features_file
from wsi_ncmi.slides import open_slide
from wsi_ncmi.tiling import GridConfig
from wsi_ncmi.tissue import ArtifactConfig, TissueConfig
from wsi_ncmi.tissue.learned import check_mask_model
from wsi_ncmi.workflows import extract
from wsi_ncmi.workflows.view import open_view


def config(slides: Path, out: Path, tissue: TissueConfig, **changes) -> ExtractConfig:
    return ExtractConfig(
        slides=slides, out=out, tissue=tissue, grid=GridConfig(mpp=0.5, tile_px=64), **changes
    )


def test_a_job_with_a_model_knows_it_by_name_and_hash(slides: Path, tmp_path: Path) -> None:
    model = saved(tmp_path, mpp=4.0)
    job = config(slides / "slide_0.tif", tmp_path / "out", by(model))
    done = extract(job)
    assert not done.failures
    features = open_features_file(done.files["features"] / "slide_0.h5")
    assert len(features.coords) == 36  # 384² px of tissue in tiles of 64
    assert features.attrs["tissue_method"] == "model:m.pt"
    known = json.loads(features.attrs["tissue_parameters"])
    assert known["model_sha256"] == check_mask_model(by(model)).model_sha256
    for text in (json.dumps(dict(features.attrs), default=str), (tmp_path / "out" / "run.json").read_text()):
        assert str(tmp_path) not in text
    # Another JSON is another identity, told before any work.
    saved(tmp_path, mpp=2.0)
    with pytest.raises(InputError, match="model_sha256"):
        extract(job)


def test_a_wrong_model_is_told_before_any_slide(tmp_path: Path, slides: Path) -> None:
    with pytest.raises(InputError, match="There is no mask model nowhere"):
        extract(config(slides, tmp_path / "out", TissueConfig(method="model:nowhere.onnx")))
    assert not (tmp_path / "out").exists()


def test_models_are_looked_for_among_the_weights(tmp_path: Path, slides: Path, monkeypatch) -> None:
    (tmp_path / "weights").mkdir()
    model = saved(tmp_path / "weights", mpp=4.0)
    job = config(slides, tmp_path / "out", by(Path("m.pt")), weights_dir=tmp_path / "weights")
    assert with_mask_model(job).tissue.model_file == model
    monkeypatch.setenv("WSI_NCMI_WEIGHTS", str(tmp_path / "weights"))
    assert with_mask_model(replace(job, weights_dir=None)).tissue.model_file == model


def test_blur_of_the_model_is_not_measured_again(tasks, encoder: Encoder, tmp_path: Path) -> None:
    model = check_mask_model(by(saved(tmp_path, mpp=4.0, classes=["background", "blur", "tissue"])))
    task = with_config(tasks()[1], tissue=model)
    with open_slide(task.slide_path) as slide:
        prepared = prepare_slide(task, slide)
    before = prepared.artifact_filter.scores.copy()
    assert (before[:, 3] > 0.9).any()
    pixels = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
    prepared.artifact_filter.score(np.array([0]), pixels)
    np.testing.assert_array_equal(prepared.artifact_filter.scores, before)


@pytest.mark.parametrize(("classes", "reason"), [
    (["background", "fold", "tissue"], "all tiles are lost: 36 of 36 tiles were dropped for artefacts (fold 36)"),
    (["background", "pen", "tissue"], "no tissue found beside artefacts (share of the slide: pen 0.19)"),
])  # fmt: skip
def test_a_slide_emptied_by_artefacts_is_told(
    tasks, encoder: Encoder, tmp_path: Path, classes: list[str], reason: str
) -> None:
    model = check_mask_model(by(saved(tmp_path, mpp=4.0, classes=classes)))
    row = extract_slide(with_config(tasks()[1], tissue=model, artifacts=ArtifactConfig(rule="drop")), encoder)
    assert (row.status, row.tiles) == ("done", 0)
    assert reason in row.reason


@pytest.mark.parametrize(("settings", "device"), [
    ({"name": "descriptor"}, "cpu"), ({"name": "torchvision:resnet18", "device": "cpu"}, "cpu"),
    ({"name": "torchvision:resnet18"}, "auto"), ({"name": "torchvision:resnet18", "device": "cuda"}, "cuda"),
])  # fmt: skip
def test_models_run_where_the_encoder_runs(tasks, monkeypatch, settings: dict[str, str], device: str) -> None:
    from wsi_ncmi.extraction import slide_analysis

    asked = []

    def look(*arguments):
        asked.append(arguments[4])
        return real(*arguments[:4])

    real = slide_analysis.analyse_tissue
    monkeypatch.setattr(slide_analysis, "analyse_tissue", look)
    task = with_config(tasks()[0], encoder=EncoderConfig(**settings))
    with open_slide(task.slide_path) as slide:
        slide_analysis.analyse_slide(task, slide)
    assert asked == [device]
    assert can_use_gpu(task.config.encoder) == (device != "cpu")


def test_the_viewer_shows_what_the_model_sees(slides: Path, tmp_path: Path) -> None:
    from wsi_ncmi.prediction.config import ViewConfig
    from wsi_ncmi.workflows import view

    model = saved(tmp_path, mpp=4.0, classes=["background", "pen", "tissue"])
    for tissue, names in ((TissueConfig(), {"tissue"}), (by(model), {"pen"})):
        found = ViewConfig(slide=slides / "slide_0.tif", tissue=tissue)
        with open_slide(found.slide) as slide:
            shapes = view._data(found, slide).shapes
        assert {shape.name for shape in shapes if shape.polygons} == names
    with (
        pytest.raises(InputError, match="no mask model"),
        open_view(ViewConfig(slide=slides / "slide_0.tif", tissue=TissueConfig(method="model:nowhere.pt"))),
    ):
        pass
