"""Annotations and stain on the way to the feature file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.extraction.conftest import GRID, with_config
from wsi_ncmi.core.errors import IdentityConflictError
from wsi_ncmi.encoders import Encoder
from wsi_ncmi.extraction.pipeline.pipeline import extract_slide
from wsi_ncmi.extraction.slide import prepare_slide
from wsi_ncmi.extraction.task import AnnotationFile, SlideTask
from wsi_ncmi.features import open_features_file, verify_file
from wsi_ncmi.features.stain import StainConfig, stain_target
from wsi_ncmi.slides import open_slide
from wsi_ncmi.tissue import read_annotations


def drawn(path: Path, name: str, left: int, top: int, right: int, bottom: int) -> AnnotationFile:
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return AnnotationFile(path, read_annotations(path).sha256)


def boxes(task: SlideTask) -> np.ndarray:
    return open_features_file(task.feature_path("descriptor")).coords


def test_an_edited_outline_replaces_the_tissue(tasks, encoder: Encoder, tmp_path: Path) -> None:
    # Tissue was found at 192…576 × 128…512; the person says it is glass left of x 640.
    task = replace(tasks()[1], annotations=drawn(tmp_path / "a.geojson", "tissue", 640, 256, 832, 384))
    row = extract_slide(task, encoder)
    assert row.status == "done"
    assert row.reason == "tissue is what was outlined by hand"
    expected = {(x, y) for y in (256, 320) for x in (640, 704, 768)}
    assert {tuple(corner) for corner in boxes(task).tolist()} == expected
    file = open_features_file(task.feature_path("descriptor"))
    assert file.attrs["annotations"] == task.annotations.sha256
    assert verify_file(file.path).ok


def test_an_excluded_area_has_no_tiles(tasks, encoder: Encoder, tmp_path: Path) -> None:
    task = replace(tasks()[1], annotations=drawn(tmp_path / "a.geojson", "exclude", 0, 0, 1024, 320))
    extract_slide(task, encoder)
    assert len(boxes(task)) > 5
    assert boxes(task)[:, 1].min() >= 256 + 1


def test_other_annotations_are_another_identity(tasks, encoder: Encoder, tmp_path: Path) -> None:
    task = tasks()[1]
    extract_slide(task, encoder)
    other = replace(task, annotations=drawn(tmp_path / "a.geojson", "exclude", 0, 0, 1024, 320))
    with pytest.raises(IdentityConflictError, match="set of annotations is another \\(none there"):
        extract_slide(other, encoder)
    assert extract_slide(replace(task, annotations=AnnotationFile()), encoder).status == "skipped"


def test_a_slide_without_a_file_is_done_as_usual_with_a_remark(tasks, encoder: Encoder) -> None:
    row = extract_slide(replace(tasks()[1], annotations=AnnotationFile()), encoder)
    assert row.status == "done"
    assert row.reason == "it has no annotation file; its tissue is what was found automatically"


def test_annotations_that_change_under_a_job_fail_the_slide(tasks, encoder: Encoder, tmp_path: Path) -> None:
    known = drawn(tmp_path / "a.geojson", "exclude", 0, 0, 1024, 320)
    drawn(tmp_path / "a.geojson", "exclude", 0, 0, 1024, 321)
    row = extract_slide(replace(tasks()[1], annotations=known), encoder)
    assert row.status == "failed"
    assert row.reason == "a.geojson was changed while the job ran; start the job again."
    (tmp_path / "a.geojson").write_text("{")
    row = extract_slide(replace(tasks()[1], annotations=known), encoder)
    assert row.status == "failed"
    assert "a.geojson can't be read" in row.reason


TARGET = stain_target(StainConfig(method="reinhard"))


def test_tiles_get_the_targets_stain_before_the_encoder(tasks, encoder: Encoder) -> None:
    task = replace(tasks()[1], stain=TARGET)
    row = extract_slide(task, encoder)
    assert row.status == "done", row.reason
    file = open_features_file(task.feature_path("descriptor"))
    assert file.attrs["stain"] == TARGET.identity
    assert json.loads(file.attrs["stain_found"])["source"]["method"] == "reinhard"
    # Independent: fit on the very tiles, change their colours, encode.
    with open_slide(task.slide_path) as slide:
        pixels = np.stack([slide.read_region(int(x), int(y), 0, 64, 64) for x, y in file.coords])
    expected = encoder.encode(TARGET.normaliser(pixels).apply(pixels)).astype(np.float16)
    np.testing.assert_array_equal(file.features, expected)
    plain = with_config(replace(task, stain=None), out=task.out / "plain")
    extract_slide(plain, encoder)
    plain_file = open_features_file(plain.feature_path("descriptor"))
    assert (plain_file.attrs["stain"], plain_file.attrs["stain_found"]) == ("none", "")
    assert not np.array_equal(plain_file.features, file.features)


def test_the_stain_is_part_of_the_identity_and_no_path_is_kept(
    tasks, encoder: Encoder, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    picture = tmp_path / "secret_reference.png"
    tissue = np.clip(np.array([180, 90, 150]) + rng.normal(0, 25, (128, 128, 3)), 0, 230).astype(np.uint8)
    Image.fromarray(tissue).save(picture)
    task = replace(tasks()[1], stain=stain_target(StainConfig(method="reinhard", reference=picture)))
    assert extract_slide(task, encoder).status == "done"
    content = task.feature_path("descriptor").read_bytes()
    assert b"secret_reference" not in content
    assert "sha256:" in open_features_file(task.feature_path("descriptor")).attrs["stain"]
    with pytest.raises(IdentityConflictError, match="the stain option target is sha256"):
        extract_slide(replace(task, stain=TARGET), encoder)


def test_a_slide_without_tissue_has_no_stain_to_measure(tasks, encoder: Encoder) -> None:
    row = extract_slide(replace(tasks()[0], stain=TARGET), encoder)
    assert (row.status, row.reason) == ("done", "no tissue found")


def test_a_stain_that_cannot_be_measured_fails_the_slide(tasks, encoder: Encoder, monkeypatch) -> None:
    task = replace(tasks()[1], stain=stain_target(StainConfig(method="macenko")))
    monkeypatch.setattr(
        "wsi_ncmi.tiling.reader.TileReader.read_into", lambda self, position, out: out.fill(250)
    )
    row = extract_slide(task, encoder)
    assert row.status == "failed"
    assert "stain can't be measured" in row.reason


def test_the_sample_of_large_tiles_is_thinned(tasks, monkeypatch) -> None:
    seen = []

    class Target:
        sample_tiles = 4

        def normaliser(self, sample):
            seen.append(sample.shape)

    task = with_config(replace(tasks()[1], stain=Target()), grid=GRID)
    monkeypatch.setattr("wsi_ncmi.extraction.slide._SAMPLE_PX", 24)
    with open_slide(task.slide_path) as slide:
        prepare_slide(task, slide)
    assert seen == [(4, 22, 22, 3)]
