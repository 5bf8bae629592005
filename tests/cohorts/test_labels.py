from __future__ import annotations

import pytest

from wsi_ncmi.cohorts import order_classes, read_labels
from wsi_ncmi.core.errors import InputError


@pytest.fixture
def labels(tmp_path):
    def write(text: str, encoding: str = "utf-8"):
        path = tmp_path / "labels.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_ids_stay_strings_and_extensions_go(labels):
    cohort = read_labels(
        labels("slide_id,label,case_id,centre\n007,1,0042,3\nTCGA-1.2.svs,0,0043,\n"),
    )
    assert [(r.slide_id, r.case_id, r.label, r.centre) for r in cohort.rows] == [
        ("007", "0042", "1", "3"),
        ("TCGA-1.2", "0043", "0", ""),
    ]
    assert cohort.classes == ("0", "1")
    assert not cohort.case_id_assumed


@pytest.mark.parametrize("separator", [";", "\t"])
def test_byte_order_mark_separators_and_windows_line_ends(labels, separator):
    text = "slide_id,label,case_id\r\na,x,p1\r\n\r\nb,y,p2\r\n".replace(",", separator)
    cohort = read_labels(labels(text, encoding="utf-8-sig"))
    assert cohort.slide_ids == ("a", "b")


def test_a_patient_may_have_slides_of_different_classes(labels):
    cohort = read_labels(labels("slide_id,label,case_id\na,macro,p\nb,negative,p\n"))
    assert cohort.classes == ("negative", "macro")


def test_without_patients_the_user_must_say_so(labels):
    path = labels("slide_id,label,patient\na,x,p1\nb,y,p2\n")
    with pytest.raises(InputError, match=r"no column 'case_id'; did you mean 'patient'.*--group slide_id"):
        read_labels(path)
    cohort = read_labels(path, group="slide_id")
    assert cohort.case_id_assumed
    assert cohort.case_ids == ("a", "b")


def test_known_patients_are_kept_whatever_the_group(labels):
    cohort = read_labels(labels("slide_id,label,case_id\na,x,p\nb,y,p\n"), group="slide_id")
    assert cohort.case_ids == ("p",)
    assert not cohort.case_id_assumed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("slide_id,label,case_id\n", "no rows"),
        ("slide,label,case_id\na,x,p\n", r"lacks the column 'slide_id'.*did you mean 'slide'"),
        ("slide_id,lable,case_id\na,x,p\n", r"lacks the column 'label'.*did you mean 'lable'"),
        ("slide_id,label,case_id\na,x,p\nb,,q\n", r"row 3: the 'label' is empty"),
        ("slide_id,label,case_id\na,x,p\nb,nan,q\n", r"row 3: the 'label' is empty"),
        ("slide_id,label,case_id\na,x,p\n,y,q\n", r"row 3: the 'slide_id' is empty"),
        ("slide_id,label,case_id\na,x,p\nb,y,\n", r"row 3: the 'case_id' is empty"),
        (
            "slide_id,label,case_id\na,x,p\nb,y,q\na.svs,y,p\n",
            r"slide 'a' is in rows 2 and 4 with label 'x' and 'y'",
        ),
        ("slide_id,label,case_id\na,x,p\na,x,q\n", r"rows 2 and 3 with case_id 'p' and 'q'"),
        ("slide_id,label,case_id\na,x,p\nb,x,q\n", r"All 2 slides .* have the class 'x'"),
        ("slide_id,label,case_id\na,x,p,extra\n", r"row 2: 4 cells where the header has 3"),
        ("slide_id,label,label\na,x,p\n", r"the column 'label' twice"),
        ('slide_id,label,case_id\n"a,x,p\n', r"not a valid CSV"),
    ],
)
def test_faulty_tables_are_refused_with_the_place(labels, text, message):
    with pytest.raises(InputError, match=message):
        read_labels(labels(text))


def test_identical_repeats_are_dropped_and_said(labels):
    cohort = read_labels(labels("slide_id,label,case_id\na,x,p\nb,y,q\na,x,p\n"))
    assert cohort.slide_ids == ("a", "b")
    assert "1 row left out" in cohort.notes[0]


def test_two_files_that_differ_in_extension_are_two_slides(labels):
    cohort = read_labels(labels("slide_id,label,case_id\na.svs,x,p\na.tif,y,q\nb.svs,y,q\n"))
    assert cohort.slide_ids == ("a.svs", "a.tif", "b")


def test_unknown_class_of_the_task(labels):
    path = labels("slide_id,label,case_id\na,x,p\nb,z,q\n")
    with pytest.raises(InputError, match=r"row 3: the label 'z' of slide 'b' is not among .*\(y, x\)"):
        read_labels(path, classes=("y", "x"))
    assert read_labels(path, classes=("z", "y", "x")).classes == ("z", "y", "x")


def test_numbered_rows_are_suspected(labels):
    cohort = read_labels(labels("case_id,slide_id,label\npatient_0,a,x\npatient_1,b,y\n"))
    assert "count its rows" in cohort.notes[0]


def test_not_text(labels, tmp_path):
    path = tmp_path / "labels.xlsx"
    path.write_bytes(b"PK\x03\x04\xff\xfe\x00")
    with pytest.raises(InputError, match="save the table as 'CSV UTF-8'"):
        read_labels(path)
    with pytest.raises(InputError, match="can't be read"):
        read_labels(tmp_path / "missing.csv")
    with pytest.raises(InputError, match=r"Unknown labels adapter 'camelyon18'.*camelyon17"):
        read_labels("camelyon18:x.csv")


def test_hash_ignores_row_order_and_sees_every_change(labels):
    a = read_labels(labels("slide_id,label,case_id\na,x,p\nb,y,q\n"))
    b = read_labels(labels("slide_id,label,case_id\nb,y,q\na,x,p\n"))
    c = read_labels(labels("slide_id,label,case_id\nb,y,p\na,x,p\n"))
    assert a.sha256 == b.sha256 != c.sha256


def test_order_of_classes():
    assert order_classes(["macro", "itc", "negative"]) == ("negative", "itc", "macro")
    assert order_classes(["10", "9", "2"]) == ("2", "9", "10")
    assert order_classes(["LUSC", "LUAD"]) == ("LUAD", "LUSC")
