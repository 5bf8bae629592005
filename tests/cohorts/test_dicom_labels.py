"""Labels of DICOM slides by container, series and study, with the patients of the inventory."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_ncmi.cohorts import read_labels
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.slides import SlideRecord, write_slides_csv


def record(slide_id: str, container: str, series: str, study: str, case: str = "") -> SlideRecord:
    return SlideRecord(
        slide_id=slide_id, path=f"{slide_id}.dcm", reader="openslide", vendor="dicom", width_px=1, height_px=1,
        n_levels=1, mpp_x=0.5, mpp_y=0.5, mpp_source="vendor", fingerprint="00", size_bytes=1,
        container_id=container, series_uid=series, study_uid=study, case_id=case,
    )  # fmt: skip


def labelled(
    folder: Path, text: str, *, cases: bool = True, settings: str = "", **more: str
) -> dict[str, tuple]:
    """Slide id → patient and class."""
    records = [
        record("S1", "S1", "1.1", "1.9", "p1"), record("1.2", "twice", "1.2", "1.9", "p1"),
        record("1.3", "twice", "1.3", "1.8", "p2"), record("S4", "S/4", "1.4", "1.7", "p3"),
    ]  # fmt: skip
    if not cases:
        records = [record(r.slide_id, r.container_id, r.series_uid, r.study_uid) for r in records]
    write_slides_csv(records, folder / "slides.csv")
    (folder / "labels.csv").write_text(text)
    cohort = read_labels(f"dicom:{folder / 'labels.csv'}?slides=slides.csv{settings}", **more)
    assert cohort.case_id_assumed == bool(more)
    return {row.slide_id: (row.case_id, row.label) for row in cohort.rows}


def test_rows_are_joined_by_container_series_or_study(tmp_path: Path) -> None:
    by_container = labelled(tmp_path, "container_id,label\nS1,a\nS/4,b\n")
    assert by_container == {"S1": ("p1", "a"), "S4": ("p3", "b")}
    assert labelled(tmp_path, "series_uid,label\n1.2,a\n1.3,b\n") == {"1.2": ("p1", "a"), "1.3": ("p2", "b")}
    assert labelled(tmp_path, "study_uid,label\n1.9,a\n1.8,b\n") == {
        "S1": ("p1", "a"), "1.2": ("p1", "a"), "1.3": ("p2", "b"),
    }  # fmt: skip
    settings = "&slide_id=barcode&label=type"
    assert labelled(tmp_path, "barcode,type\nS1,a\ntwice,b\n", settings=settings) == {
        "S1": ("p1", "a"), "1.2": ("p1", "b"), "1.3": ("p2", "b"),
    }  # fmt: skip


def test_patients_are_the_pseudonyms_unless_a_column_is_named(tmp_path: Path) -> None:
    text = "container_id,label,case_id\nS1,a,x\nS/4,b,y\n"
    assert labelled(tmp_path, text) == {"S1": ("p1", "a"), "S4": ("p3", "b")}
    assert labelled(tmp_path, text, settings="&case_id=case_id") == {"S1": ("x", "a"), "S4": ("y", "b")}
    assert labelled(tmp_path, text, cases=False) == {"S1": ("x", "a"), "S4": ("y", "b")}


def test_labels_without_patients_say_how_to_get_them(tmp_path: Path) -> None:
    text = "container_id,label\nS1,a\nS/4,b\n"
    with pytest.raises(InputError, match=r"slides\.csv no pseudonyms \(inventory --dicom-patients\)"):
        labelled(tmp_path, text, cases=False)
    assert set(labelled(tmp_path, text, cases=False, group="slide_id")) == {"S1", "S4"}


def test_rows_of_no_slide_are_counted(tmp_path: Path) -> None:
    labelled(tmp_path, "container_id,label\nS1,a\nS/4,b\n")
    (tmp_path / "labels.csv").write_text("container_id,label\nS1,a\nS/4,b\ns-1,a\nX9,b\n")
    cohort = read_labels(f"dicom:{tmp_path / 'labels.csv'}?slides=slides.csv")
    assert any(
        "2 rows of labels.csv name no slide of slides.csv ('s-1' there" in note for note in cohort.notes
    )


@pytest.mark.parametrize(
    ("settings", "text", "message"),
    [
        ("", "container_id,label\nS1,a\n", "need the inventory of these"),
        ("?slides=none.csv", "container_id,label\nS1,a\n", "There is no file none.csv"),
        ("?slides=slides.csv", "slide,label\nS1,a\n", "container_id"),
        (
            "?slides=slides.csv",
            "container_id,label\nX,a\n",
            "holds no slides that the adapter 'dicom' could use",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, settings: str, text: str, message: str) -> None:
    write_slides_csv([record("S1", "S1", "1.1", "1.9", "p1")], tmp_path / "slides.csv")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_labels(f"dicom:{tmp_path / 'labels.csv'}{settings}")


def test_an_inventory_without_dicom_slides_is_refused(tmp_path: Path) -> None:
    write_slides_csv([record("S1", "", "", "")], tmp_path / "slides.csv")
    (tmp_path / "labels.csv").write_text("container_id,label\nS1,a\n")
    with pytest.raises(InputError, match="knows no DICOM slides by container or series"):
        read_labels(f"dicom:{tmp_path / 'labels.csv'}?slides=slides.csv")
