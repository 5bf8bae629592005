from __future__ import annotations

import pytest

from wsi_ncmi.cohorts import audit_labels, read_labels
from wsi_ncmi.core.errors import InputError

FAULTY = """slide_id,label,case_id
a,x,p1
b,y,p2
a,x,p1
c,,p3
d,z,p4
b,x,p2
7.0,y,p5
e.svs,y,p6
"""


@pytest.fixture
def table(tmp_path):
    def write(text, name="labels.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_every_fault_has_a_row_of_its_own(table):
    path = table(FAULTY)
    audit = audit_labels(path, classes=("x", "y"), known_slides={"a", "b", "7.0", "e.svs", "stranger"})
    found = [(f.line, f.kind, f.slide_id, f.fatal) for f in audit.findings]
    assert found == [
        (4, "repeated", "a", False),
        (5, "empty", "c", True),
        (5, "without_slide", "c", False),
        (6, "unknown_class", "d", True),
        (6, "without_slide", "d", False),
        (7, "conflict", "b", True),
        (8, "suspect_id", "7.0", False),
        (0, "without_label", "stranger", False),
    ]
    assert all(f"row {f.line}" in f.detail for f in audit.findings if f.line and f.kind != "conflict")
    assert "rows 3 and 7 with label 'y' and 'x'" in audit.findings[5].detail
    assert audit.cohort.slide_ids == ("a", "b", "7.0", "e")
    assert not audit.passed
    # Training stops at the first of the fatal ones, in the same words.
    with pytest.raises(InputError) as error:
        read_labels(path, classes=("x", "y"))
    assert str(error.value).startswith(audit.findings[1].detail)


def test_a_sound_table_passes(table):
    path = table("slide_id,label,case_id\na,x,p1\nb.svs,y,p2\n")
    audit = audit_labels(path, known_slides={"a.tif", "b"})
    assert audit.passed
    assert audit.findings == ()
    assert audit.cohort == read_labels(path)


def test_rows_that_an_adapter_does_not_know(table):
    text = "patient,stage\npatient_000.zip,pN0\npatient_000_node_0.tif,negative\npatient_1.tif,macro\n"
    path = table(text + "patient_020_node_0.tif,itc\n")
    audit = audit_labels(f"camelyon17:{path}")
    assert [(f.line, f.kind, f.fatal) for f in audit.findings] == [(4, "format", True)]
    assert audit.cohort.slide_ids == ("patient_000_node_0", "patient_020_node_0")
    assert audit.cohort.by_slide["patient_020_node_0"].centre == "1"


def test_what_the_whole_table_lacks(table):
    without_patients = table("slide_id,label\na,x\nb,y\n")
    assert "without patient ids" in audit_labels(without_patients).problem
    assert audit_labels(without_patients, group="slide_id").passed
    assert "a task needs two" in audit_labels(table("slide_id,label,case_id\na,x,p\n")).problem
    with pytest.raises(InputError, match="lacks the column 'label'"):
        audit_labels(table("slide_id,case_id\na,p\n"))


def test_excluded_slides_are_no_fault(table):
    table("# bad focus\nb.svs\np4, folded\n", "bad.txt")
    path = table("slide_id,label,case_id\na,x,p1\nb,?,p2\nc,y,p3\nd,y,p4\n")
    audit = audit_labels(f"{path}?exclude=bad.txt", known_slides={"a", "c"})
    assert [(f.kind, f.slide_id) for f in audit.findings] == [("excluded", "b"), ("excluded", "d")]
    assert audit.passed
