"""``predict --dicom`` and ``heatmap --dicom`` on small slides."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydantic import ValidationError

from tests.slides.dicom_slide import cut, encode, write_level
from tests.workflows.conftest import tissue
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.extras import MissingPackageError
from wsi_ncmi.extraction.config import ExecutionConfig
from wsi_ncmi.features import open_features_file
from wsi_ncmi.prediction import load_bundle
from wsi_ncmi.prediction.config import DicomResultsConfig, HeatmapConfig, PredictConfig, WatchConfig
from wsi_ncmi.prediction.slide_records import SlideRecords, explanation_settings
from wsi_ncmi.workflows.heatmap import make_heatmaps
from wsi_ncmi.workflows.predict import predict
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.watch import watch

DICOM = DicomResultsConfig(write=True)


@pytest.fixture(scope="module")
def slides(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One slide that is DICOM, with a patient, and one that isn't."""
    folder = tmp_path_factory.mktemp("dicom") / "slides"
    folder.mkdir()
    shutil.copy(small_slides / "s0.svs", folder)
    frames = [encode(tile, "jpeg") for tile in cut(tissue(1), 128)]
    origin = pydicom.Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20.0, 40.0
    write_level(
        folder / "d1.dcm", frames, (640, 512), 128, kind="jpeg", mpp=0.5, FrameOfReferenceUID="1.2.88",
        ContainerIdentifier="d1", PatientID="P-17", ImageOrientationSlide=[0, -1, 0, -1, 0, 0],
        TotalPixelMatrixOriginSequence=[origin],
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def config(slides: Path, small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> PredictConfig:
    return PredictConfig(
        slides=slides, model=small_bundle, out=tmp_path_factory.mktemp("out") / "predictions",
        extraction=ExecutionConfig(workers=1), abstain_below=0.0, heatmaps=False, geojson=False, dicom=DICOM,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(config: PredictConfig) -> JobResult:
    return predict(config)


REFUSED = ("s0: no DICOM objects: s0.svs is no DICOM slide, so that there is no study to refer to",)


def test_predict_writes_objects_of_dicom_slides_and_tells_of_the_others(
    config: PredictConfig, done: JobResult
) -> None:
    assert done.failures == REFUSED
    assert any("without patient" in note for note in done.notes)
    files = sorted(done.files["dicom"].iterdir())
    assert [path.name for path in files] == ["d1_annotations.dcm", "d1_report.dcm"]
    features = open_features_file(done.files["features"] / "d1.h5")
    (group,) = highdicom.ann.annread(files[0]).get_annotation_groups()
    _, values, _ = group.get_measurements()
    attention = load_bundle(config.model).predict(features.features).attention
    np.testing.assert_allclose(values[:, 0], attention, rtol=1e-6)
    corners = np.stack(group.get_graphic_data(coordinate_type="2D"))
    np.testing.assert_array_equal(corners[:, 0], features.coords)
    np.testing.assert_array_equal(corners[:, 2] - corners[:, 0], 64)
    # A second run keeps them, and tells again what has none.
    before = {path: path.stat().st_mtime_ns for path in files}
    assert predict(config).failures == REFUSED
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_predict_copies_the_patient_into_a_folder_of_its_own(config: PredictConfig, done: JobResult) -> None:
    named = predict(replace(config, dicom=replace(DICOM, patient=True, map=True)))
    assert any("name the patients" in note for note in named.notes)
    files = sorted(named.files["dicom"].iterdir())
    assert [path.name for path in files] == ["d1_annotations.dcm", "d1_map.dcm", "d1_report.dcm"]
    assert {pydicom.dcmread(path).PatientID for path in files} == {"P-17"}
    assert {pydicom.dcmread(path).PatientID for path in done.files["dicom"].iterdir()} == {""}
    # An earlier answer is kept, but for what names the patient.
    records = SlideRecords(
        load_bundle(config.model), config, features=named.files["features"], slides=named.files["slides"],
        timed=lambda _: nullcontext(),
    )  # fmt: skip
    records.retire("d1")
    assert not any(path.exists() for path in files)
    (kept,) = (config.out / "history").rglob("*.json")
    assert b"P-17" not in b"".join(path.read_bytes() for path in kept.parents[1].rglob("*") if path.is_file())


def test_records_without_dicom_are_those_of_earlier_versions(config: PredictConfig, tmp_path: Path) -> None:
    assert "dicom" not in explanation_settings(replace(config, dicom=DicomResultsConfig()))
    assert explanation_settings(config)["dicom"] == {"write": True, "map": False, "patient": False}


def test_heatmap_writes_the_same_objects(config: PredictConfig, done: JobResult, tmp_path: Path) -> None:
    drawn = make_heatmaps(
        HeatmapConfig(
            features=done.files["features"], model=config.model, out=tmp_path / "maps", slides=config.slides,
            scale="percentile", top=0, overlay=False, geojson=False, dicom=DICOM,
        )
    )  # fmt: skip
    assert drawn.failures == REFUSED
    for kind in ("annotations", "report"):
        ours, theirs = (pydicom.dcmread(result.files["dicom"] / f"d1_{kind}.dcm") for result in (drawn, done))
        assert ours.SOPInstanceUID == theirs.SOPInstanceUID


def test_a_folder_without_dicom_is_refused_before_work(
    config: PredictConfig, small_slides: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"--dicom writes objects that refer to DICOM slides.*has none"):
        predict(replace(config, slides=small_slides, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="has none"):
        make_heatmaps(
            HeatmapConfig(
                features=tmp_path, model=config.model, out=tmp_path / "maps", slides=small_slides, dicom=DICOM
            )
        )


def test_a_missing_extra_is_named(config: PredictConfig, without: Callable[..., None]) -> None:
    without("highdicom")
    with pytest.raises(MissingPackageError, match=r"--dicom needs highdicom.*wsi-ncmi\[dicom\]"):
        predict(config)


def test_settings_that_have_no_effect_are_refused(tmp_path: Path) -> None:
    for name in ("map", "patient"):
        with pytest.raises(ValidationError, match="add --dicom"):
            DicomResultsConfig(**{name: True})
    with pytest.raises(ValidationError, match="give them with --slides"):
        HeatmapConfig(features=tmp_path, model=tmp_path, out=tmp_path, dicom=DICOM)


def test_a_watched_folder_predicts_what_is_no_dicom_and_tells_what_it_lacks(
    config: PredictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such slides stood in quarantine although they were predicted."""
    monkeypatch.setattr("wsi_ncmi.workflows.watch._TIMEOUT_S", None)  # no process of its own
    mixed = replace(config, out=tmp_path / "out", watch=WatchConfig(settle_s=0, until_idle_s=0))
    for _ in range(2):  # as after a restart
        result = watch(mixed, sleep=lambda _: None)
        assert result.failures == (REFUSED[0].replace("s0:", "s0.svs:"),)
        assert any("2 slides predicted, 0 in quarantine" in note for note in result.notes)
    assert "s0," in (mixed.out / "predictions.csv").read_text()
    assert (mixed.out / "quarantine.csv").read_text().splitlines() == ["slide_id,path,reason,utc"]
    assert (mixed.out / "dicom" / "d1_report.dcm").is_file()
