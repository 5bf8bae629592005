"""DICOM results: read back by highdicom and pydicom, checked by dciodvfy, stored on a server."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pynetdicom import AE, AllStoragePresentationContexts, evt

from tests.prediction.models import make_bundle, write_run
from tests.slides.dicom_slide import write_level
from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.mil import model_config
from wsi_ncmi.prediction import ModelBundle
from wsi_ncmi.prediction.dicom_results import (
    DicomSource,
    check_any_dicom,
    not_dicom,
    write_dicom_results,
)
from wsi_ncmi.prediction.dicom_results.codes import PRIVATE_CODES, class_code, plain_text, private_code
from wsi_ncmi.prediction.dicom_results.parametric_map import NO_TILE
from wsi_ncmi.prediction.dicom_results.report import RESEARCH_USE
from wsi_ncmi.prediction.ood import OodFlag
from wsi_ncmi.prediction.slide_prediction import SlidePrediction
from wsi_ncmi.reporting.heatmaps import TileValues, model_layers

SIZE, MPP, CLASSES = (1000, 600), 0.5, ("Adénome", "b\\c", "très longue " * 8)
PATIENT = {
    "PatientName": "Ängström^Åsa", "PatientID": "P-17", "PatientBirthDate": "19500102", "PatientSex": "F",
    "AccessionNumber": "ACC-4", "StudyID": "S-5", "StudyDate": "20240203", "StudyTime": "101112",
    "ReferringPhysicianName": "Doe^Jane", "ContainerIdentifier": "S24-1234-A1", "SpecificCharacterSet": "ISO_IR 100",
    "Manufacturer": "Scanners", "InstitutionName": "Hospital", "PatientAge": "074Y",
}  # fmt: skip


def write_slide(folder: Path, levels: int = 3, **tags: Any) -> Path:
    """A slide of grey levels, halved each; the first file."""
    folder.mkdir(parents=True, exist_ok=True)
    origin = pydicom.Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20.0, 40.0
    placed = {
        "FrameOfReferenceUID": "1.2.88", "PositionReferenceIndicator": "SLIDE_CORNER",
        "ImageOrientationSlide": [0, -1, 0, -1, 0, 0], "TotalPixelMatrixOriginSequence": [origin],
        "ContainerTypeCodeSequence": [highdicom.sr.CodedConcept("433466003", "SCT", "Microscope slide")],
        "IssuerOfTheContainerIdentifierSequence": [],
        "SpecimenDescriptionSequence": [highdicom.SpecimenDescription("S24-1234-A1", "1.2.99")], **PATIENT,
    }  # fmt: skip
    for level in range(levels):
        size = (-(-SIZE[0] >> level), -(-SIZE[1] >> level))
        tiles = -(-size[0] // 256) * -(-size[1] // 256)
        write_level(
            folder / f"{levels - level}.dcm", [bytes(256 * 256 * 3)] * tiles, size, 256, kind="none",
            series="1.2.77", uid=f"1.2.77.{level + 1}", mpp=MPP * 2**level, **(placed | tags),
        )  # fmt: skip
    return folder / f"{levels}.dcm"


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("dicom") / "slide")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    run = write_run(tmp_path_factory.mktemp("run") / "My model", folds=1, classes=CLASSES)
    return make_bundle(run, reference=False)


@pytest.fixture(scope="module")
def tiles() -> TileValues:
    """Rows of tiles of fractional size, that overlap no other, with a gap."""
    rng = np.random.default_rng(0)
    coords = np.array([(x, y) for y in (0, 129, 258) for x in (3, 131, 260, 871)], np.int64)
    values = model_layers(rng.dirichlet([1] * 12), rng.dirichlet([1] * 3, 12), CLASSES)
    return TileValues("slide", coords, (128.4, 128.6), SIZE, values, (MPP, MPP))


PREDICTION = SlidePrediction(
    "slide", CLASSES[0], "abstain", dict(zip(CLASSES, (0.5, 0.3, 0.2), strict=True)), 0.5, {}, 0.75, 12,
    (OodFlag("few_tiles", "12 tiles, the smallest training slide has 60", 2.5), OodFlag("stain", "its hue", 1.2)),
    1.25, "its largest probability 0.500 is below 0.600",
)  # fmt: skip


@pytest.fixture(scope="module")
def written(
    slide: Path, bundle: ModelBundle, tiles: TileValues, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("out")
    files = write_dicom_results(out, DicomSource.read(slide), tiles, PREDICTION, bundle, with_map=True)
    files |= {
        f"patient {kind}": path
        for kind, path in write_dicom_results(
            out, DicomSource.read(slide, with_patient=True), tiles, PREDICTION, bundle, with_map=True
        ).items()
    }
    return files


def read(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path)


def test_annotations_have_the_boxes_and_values_of_the_tiles(
    written: dict[str, Path], tiles: TileValues
) -> None:
    found = highdicom.ann.annread(written["DICOM annotations"])
    (group,) = found.get_annotation_groups()
    corners = np.stack(group.get_graphic_data(coordinate_type="2D"))
    boxes = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
    np.testing.assert_array_equal(boxes, tiles.boxes.astype(np.float32))
    np.testing.assert_array_equal(corners[:, 0], tiles.coords)  # pixels are exact
    names, values, units = group.get_measurements()
    np.testing.assert_array_equal(values.T, [layer.values for layer in tiles.layers])
    assert names == [private_code("attention"), *(class_code("e", name) for name in CLASSES)]
    assert set(units) == {codes.UCUM.NoUnits}
    assert found.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.77.1"  # level 0
    assert (found.AnnotationCoordinateType, found.PixelOriginInterpretation) == ("2D", "VOLUME")


def test_the_report_holds_the_answer(written: dict[str, Path], bundle: ModelBundle) -> None:
    found = highdicom.sr.srread(written["DICOM report"])
    (group,) = found.content.get_image_measurement_groups()
    numbers = {each.name.value: each.value for each in group.get_measurements()}
    for name, p in PREDICTION.probabilities.items():
        assert numbers[class_code("p", name).value] == p
    assert (numbers["agreement"], numbers["tiles"], numbers["ood_score"]) == (0.75, 12, 1.25)
    assert answers(group) == [
        ("prediction", class_code("c", CLASSES[0])),
        ("decision", private_code("abstain")),
        ("ood", private_code("few_tiles")),
        ("ood", private_code("stain")),
    ]
    texts = [item.TextValue for item in walk(found) if "TextValue" in item]
    for text in (
        PREDICTION.reason,
        *(flag.words for flag in PREDICTION.flags),
        RESEARCH_USE,
        bundle.name,
        bundle.limits,
    ):
        assert text in texts
    assert any(bundle.digest in text for text in texts)
    assert (found.CompletionFlag, found.PreliminaryFlag, found.VerificationFlag) == (
        "COMPLETE", "PRELIMINARY", "UNVERIFIED",
    )  # fmt: skip
    assert [uids[2] for uids in found.get_evidence()] == ["1.2.77.1"]
    # Else a reader such as dsr2html shows values without their names.
    shown = {each.value for each in found.iterall() if each.keyword == "ContinuityOfContent"}
    assert shown == {"SEPARATE"}


def answers(group: highdicom.sr.MeasurementsAndQualitativeEvaluations) -> list[tuple[str, Any]]:
    """Codes of the answer; highdicom counts the family of the algorithm among them."""
    found = [(each.name.value, each.value) for each in group.get_qualitative_evaluations()]
    return [each for each in found if each[0] != codes.DCM.AlgorithmFamily.value]


def walk(item: pydicom.Dataset) -> list[pydicom.Dataset]:
    return [item, *(below for each in item.get("ContentSequence", ()) for below in walk(each))]


def test_a_decided_answer_is_a_class(
    slide: Path, tiles: TileValues, bundle: ModelBundle, tmp_path: Path
) -> None:
    decided = replace(
        PREDICTION, decision=CLASSES[1], prediction=CLASSES[1], flags=(), reason="", ood_score=None
    )
    files = write_dicom_results(tmp_path, DicomSource.read(slide), tiles, decided, bundle)
    assert set(files) == {"DICOM annotations", "DICOM report"}
    found = highdicom.sr.srread(files["DICOM report"])
    (group,) = found.content.get_image_measurement_groups()
    code = class_code("c", CLASSES[1])
    assert answers(group) == [("prediction", code), ("decision", code)]
    assert answers(group)[0][1].meaning == "b/c"


def test_the_map_has_each_tiles_values_on_pixels_of_a_level(
    written: dict[str, Path], tiles: TileValues
) -> None:
    found = highdicom.imread(written["DICOM map"])
    raw = read(written["DICOM map"])
    # The smallest level has 32 px a tile of 128.
    assert (found.TotalPixelMatrixColumns, found.TotalPixelMatrixRows) == (250, 150)
    spacing = raw.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    assert spacing == [MPP * 4 / 1000] * 2
    assert raw.FrameOfReferenceUID == "1.2.88"
    frames = np.frombuffer(raw.FloatPixelData, np.float32).reshape(2, 150, 250)
    for frame, layer in zip(frames, (tiles.layers[0], tiles.layers[1]), strict=True):
        for (left, top, right, bottom), value in zip(tiles.boxes / 4, layer.values, strict=True):
            inside = frame[int(top) + 1 : int(bottom), int(left) + 1 : int(right)]
            np.testing.assert_allclose(inside, value, rtol=1e-6)
        assert frame[140, 240] == NO_TILE == frame[0, 120]
    mappings = [
        group.RealWorldValueMappingSequence[0].QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue
        for group in raw.PerFrameFunctionalGroupsSequence
    ]
    assert mappings == ["attention", class_code("e", CLASSES[0]).value]


def test_a_model_without_attention_shows_none(slide: Path, tiles: TileValues, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", folds=1, classes=CLASSES, model=model_config("linear"))
    bundle = make_bundle(run, reference=False)
    files = write_dicom_results(tmp_path, DicomSource.read(slide), tiles, PREDICTION, bundle, with_map=True)
    (group,) = highdicom.ann.annread(files["DICOM annotations"]).get_annotation_groups()
    assert group.get_measurements()[0] == [class_code("e", name) for name in CLASSES]
    assert read(files["DICOM map"]).NumberOfFrames == 1


def test_a_slide_without_a_small_level_has_no_map(
    tmp_path: Path, tiles: TileValues, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = DicomSource.read(write_slide(tmp_path / "slide", levels=1))
    monkeypatch.setattr("wsi_ncmi.prediction.dicom_results.parametric_map._MAX_PX", 1000 * 600 - 1)
    with pytest.raises(SlideError, match=r"1000 × 600 px.*leave --dicom-map out"):
        write_dicom_results(tmp_path, source, tiles, PREDICTION, bundle, with_map=True)
    kinds = {path.name for path in (tmp_path / "dicom").iterdir()}
    assert kinds == {"slide_annotations.dcm", "slide_report.dcm"}  # for these it does


def test_the_patient_is_copied_only_when_asked_for(written: dict[str, Path]) -> None:
    for kind in ("DICOM annotations", "DICOM report", "DICOM map"):
        without, with_patient = read(written[kind]), read(written[f"patient {kind}"])
        content = written[kind].read_bytes()
        for keyword, value in PATIENT.items():
            if keyword not in ("PatientSex", "SpecificCharacterSet", "Manufacturer"):
                assert value.encode() not in content
                assert value.encode("latin-1") not in content
            if keyword[:7] == "Patient" and keyword != "PatientAge":
                assert without[keyword].is_empty
        assert without.PatientIdentityRemoved == "YES"
        assert "PatientIdentityRemoved" not in with_patient
        for keyword in ("PatientID", "PatientBirthDate", "AccessionNumber", "StudyID", "StudyDate"):
            assert with_patient[keyword].value == PATIENT[keyword]
        assert str(with_patient.PatientName) == "Ängström^Åsa"
        assert with_patient.StudyInstanceUID == without.StudyInstanceUID == "1.2.9"
        # Other content is another object.
        assert with_patient.SOPInstanceUID != without.SOPInstanceUID
        assert written[kind].parent.name == "dicom"
        assert written[f"patient {kind}"].parent.name == "dicom-with-patient"


def test_a_repeated_run_gives_the_same_uids_and_bytes(
    slide: Path, tiles: TileValues, bundle: ModelBundle, tmp_path: Path, written: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    first = {}
    for day in (1, 2):
        monkeypatch.setattr(
            "wsi_ncmi.prediction.dicom_results.writing.datetime",
            type(
                "Then", (datetime,), {"now": classmethod(lambda cls, day=day: cls(2026, 1, day, 3, 4, 5, 6))}
            ),
        )
        files = write_dicom_results(
            tmp_path, DicomSource.read(slide), tiles, PREDICTION, bundle, with_map=True
        )
        content = {kind: path.read_bytes() for kind, path in files.items()}
        assert content == (first or content)
        first = first or content
    for kind, path in files.items():
        assert uids(read(path)) == uids(read(written[kind]))
    changed = replace(PREDICTION, reason="another")
    files = write_dicom_results(tmp_path, DicomSource.read(slide), tiles, changed, bundle)
    found = read(files["DICOM report"])
    assert found.ContentDate == "20260102"  # content that is new has its own date
    assert uids(found) == uids(read(written["DICOM report"]))
    other = replace(bundle, calibration=replace(bundle.calibration, temperature=3.0))
    files = write_dicom_results(tmp_path / "x", DicomSource.read(slide), tiles, PREDICTION, other)
    assert not set(uids(read(files["DICOM annotations"]))) & set(uids(read(written["DICOM annotations"])))


def uids(found: pydicom.Dataset) -> list[str]:
    """All UIDs that were made for an object."""
    return [str(each.value) for each in found.iterall() if each.VR == "UI" and str(each.value)[:5] == "2.25."]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy of dicom3tools isn't installed")
@pytest.mark.parametrize("kind", ["annotations", "report", "map"])
@pytest.mark.parametrize("who", ["", "patient "])
def test_dciodvfy_finds_no_error(written: dict[str, Path], kind: str, who: str) -> None:
    check(written[f"{who}DICOM {kind}"])


def check(path: Path) -> None:
    """Lets dciodvfy look for errors."""
    told = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr
    errors = {line for line in told.splitlines() if line.startswith("Error")}
    # Said of every object with 2D coordinates, as there is no such element: a fault of version 2022-06.
    errors -= {
        "Error - Only valid for AnnotationCoordinateType of 3D - attribute <CommonZCoordinateValue> = <>"
    }
    assert "CommonZCoordinateValue" not in {each.keyword for each in read(path).iterall()}
    assert not errors


def test_a_server_stores_them(written: dict[str, Path]) -> None:
    stored: dict[str, pydicom.Dataset] = {}

    def store(event: evt.Event) -> int:
        stored[event.dataset.SOPInstanceUID] = event.dataset
        return 0

    server = AE()
    server.supported_contexts = AllStoragePresentationContexts
    running = server.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        sender = AE()
        objects = [read(written[kind]) for kind in ("DICOM annotations", "DICOM report", "DICOM map")]
        for each in objects:
            sender.add_requested_context(each.SOPClassUID, each.file_meta.TransferSyntaxUID)
        association = sender.associate("127.0.0.1", running.socket.getsockname()[1])
        assert association.is_established
        assert [association.send_c_store(each).Status for each in objects] == [0, 0, 0]
        association.release()
    finally:
        running.shutdown()
    assert {uid: each.PatientID for uid, each in stored.items()} == {
        each.SOPInstanceUID: "" for each in objects
    }
    annotations = highdicom.ann.MicroscopyBulkSimpleAnnotations.from_dataset(
        stored[objects[0].SOPInstanceUID]
    )
    assert annotations.get_annotation_group(number=1).NumberOfAnnotations == 12


def test_several_instances_and_parts_of_level_0(
    tmp_path: Path, tiles: TileValues, bundle: ModelBundle
) -> None:
    slide = write_slide(tmp_path / "s", levels=1)
    frame = bytes(256 * 256 * 3)
    for number in (1, 2):
        write_level(
            slide.parent / f"part{number}", [frame] * 6, SIZE, 256, kind="none", series="1.2.77",
            uid="1.2.77.0", mpp=MPP, part=(number, 2, 6 * (number - 1)), FrameOfReferenceUID="1.2.88",
            ContainerIdentifier=PATIENT["ContainerIdentifier"],
        )  # fmt: skip
    write_level(
        slide.parent / "other.dcm", [frame] * 12, SIZE, 256, kind="none", series="1.2.78", uid="1.2.78.1"
    )
    (slide.parent / "damaged.dcm").write_bytes(slide.read_bytes()[:400])
    (slide.parent / "note.txt").write_text("no slide")
    source = DicomSource.read(slide)
    # References are to the whole of what is stored in parts.
    assert [image.SOPInstanceUID for image in source.full_size] == ["1.2.77.0", "1.2.77.1"]
    given = DicomSource.read((slide, slide.parent / "part2"))
    assert [image.SOPInstanceUID for image in given.levels] == ["1.2.77.0", "1.2.77.1"]
    files = write_dicom_results(tmp_path, source, tiles, PREDICTION, bundle)
    found = highdicom.sr.srread(files["DICOM report"])
    assert {uids[2] for uids in found.get_evidence()} == {"1.2.77.0", "1.2.77.1"}
    (group,) = found.content.get_image_measurement_groups()
    assert len(group.source_images) == 2
    references = read(files["DICOM annotations"]).ReferencedImageSequence
    assert [each.ReferencedSOPInstanceUID for each in references] == ["1.2.77.0"]


@pytest.mark.parametrize(
    "keyword", ["FrameOfReferenceUID", "StudyInstanceUID", "SharedFunctionalGroupsSequence"]
)
def test_a_slide_that_can_not_be_referred_to_is_refused(tmp_path: Path, keyword: str) -> None:
    with pytest.raises(SlideError, match=f"no DICOM objects: 1.dcm lacks {keyword}"):
        DicomSource.read(write_slide(tmp_path, levels=1, **{keyword: None}))


def test_a_header_that_the_standard_does_not_allow_is_told_without_the_patient(
    tmp_path: Path, tiles: TileValues, bundle: ModelBundle
) -> None:
    slide = write_slide(tmp_path, levels=1, PatientSex="WOMAN", ImageOrientationSlide=None)
    source = DicomSource.read(slide, with_patient=True)
    with pytest.raises(SlideError, match=r"no DICOM annotations: .* \(ValueError\)") as told:
        write_dicom_results(tmp_path, source, tiles, PREDICTION, bundle)
    assert "WOMAN" not in str(told.value)
    assert not list(tmp_path.glob("dicom*/*"))
    with pytest.raises(SlideError, match=r"no DICOM map: .*isn't as the standard has it \(.*\w"):
        write_dicom_results(tmp_path, DicomSource.read(slide), tiles, PREDICTION, bundle, with_map=True)


def test_a_slide_whose_tiles_have_places_gives_the_same_map(
    tmp_path: Path, tiles: TileValues, bundle: ModelBundle, written: dict[str, Path]
) -> None:
    source = DicomSource.read(write_slide(tmp_path, sparse=True))
    files = write_dicom_results(tmp_path, source, tiles, PREDICTION, bundle, with_map=True)
    assert read(files["DICOM map"]).FloatPixelData == read(written["DICOM map"]).FloatPixelData
    assert uids(read(files["DICOM map"])) == uids(read(written["DICOM map"]))


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["camelyon_multiframe_jpeg2000.dcm", "highdicom_sm_image.dcm"])
def test_real_slides_are_referred_to(real_data: Path, name: str, bundle: ModelBundle, tmp_path: Path) -> None:
    header = pydicom.dcmread(real_data / "dicom" / name, stop_before_pixels=True)
    size = int(header.TotalPixelMatrixColumns), int(header.TotalPixelMatrixRows)
    coords = np.array([(x, y) for y in range(0, 40, 10) for x in range(0, 40, 10)], np.int64)
    layers = model_layers(np.full(16, 1 / 16), np.full((16, 3), 1 / 3), CLASSES)
    tiles = TileValues("real", coords, (10, 10), size, layers)
    for with_patient in (False, True):
        source = DicomSource.read(real_data / "dicom" / name, with_patient=with_patient)
        out = tmp_path / str(with_patient)
        # The older converter left out what places a level on the slide.
        placed = "TotalPixelMatrixOriginSequence" in header
        with nullcontext() if placed else pytest.raises(SlideError, match="no DICOM map: "):
            write_dicom_results(out, source, tiles, PREDICTION, bundle, with_map=True)
        files = list(out.glob("*/*.dcm"))
        assert len(files) == 2 + placed
        for path in files:
            found = read(path)
            assert found.StudyInstanceUID == header.StudyInstanceUID
            assert found.PatientID == (header.get("PatientID") if with_patient else "")
            assert header.SOPInstanceUID.encode() in path.read_bytes()
            if shutil.which("dciodvfy"):
                check(path)


def test_tiles_of_another_slide_are_refused(
    slide: Path, tiles: TileValues, bundle: ModelBundle, tmp_path: Path
) -> None:
    other = replace(tiles, size_level0=(1000, 601))
    with pytest.raises(SlideError, match=r"1000 × 600 px, its features are of one of 1000 × 601 px"):
        write_dicom_results(tmp_path, DicomSource.read(slide), other, PREDICTION, bundle)


def test_what_is_no_dicom_slide_is_told(tmp_path: Path, slide: Path) -> None:
    (tmp_path / "a.svs").write_bytes(slide.read_bytes())  # its name rules it out
    (tmp_path / "b.dcm").write_text("no DICOM")
    assert not not_dicom(slide)
    assert "a.svs is no DICOM slide" in not_dicom(tmp_path / "a.svs")
    assert "b.dcm is no DICOM slide" in not_dicom(tmp_path / "b.dcm")
    with pytest.raises(SlideError, match=r"a\.svs is no DICOM slide"):
        DicomSource.read(tmp_path / "a.svs")
    with pytest.raises(InputError, match="has none"):
        check_any_dicom(tmp_path)
    check_any_dicom(slide.parent)
    label = write_slide(tmp_path / "label", levels=1, ImageType=["ORIGINAL", "PRIMARY", "LABEL", "NONE"])
    with pytest.raises(SlideError, match="no whole-slide microscopy image"):
        DicomSource.read(label)


def test_codes_are_short_and_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "dicom-codes.md").read_text()
    for value, meaning in PRIVATE_CODES.items():
        assert len(value) <= 16  # of a Short String
        assert f"| `{value}` | {meaning} |" in text
    names = [class_code(letter, name) for letter in "cpe" for name in CLASSES]
    assert len({name.value for name in names}) == 9
    assert all(len(name.value) <= 16 and len(name.meaning.encode()) <= 64 for name in names)
    assert plain_text("é\\b" * 30, 8) == "é/b…"
