from __future__ import annotations

from pathlib import Path

import pytest

from wsi_ncmi.cohorts import read_labels
from wsi_ncmi.cohorts.labels import LabelsSpec, parse_spec
from wsi_ncmi.core.errors import InputError

TABLE = "slide,patient,kind,site\na,p1,x,1\nb,p2,y,2\nc,p3,y,1\n"


@pytest.fixture
def table(tmp_path):
    def write(text, name="labels.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("l.csv", LabelsSpec("csv", Path("l.csv"))),
        ("tcga:l.csv", LabelsSpec("tcga", Path("l.csv"))),
        (
            "stamp:c.csv?slides=s.csv&label=MSI",
            LabelsSpec("stamp", Path("c.csv"), {"slides": "s.csv", "label": "MSI"}),
        ),
        ("l.csv?exclude=x.txt", LabelsSpec("csv", Path("l.csv"), {"exclude": "x.txt"})),
    ],
)
def test_parts(text, expected):
    assert parse_spec(text) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("label", "not key=value"),
        ("label=a&label=b", "twice"),
        ("colour=red", "takes no setting 'colour'"),
        ("slide_id=slide&label=stage", "lacks the column 'stage'"),
        ("slide_id=slide&label=kind&case_id=person", "lacks the column 'person'"),
        ("slide_id=slide&label=kind&case_id=patient&exclude=nowhere.txt", "no file nowhere.txt"),
    ],
)
def test_wrong_settings(table, settings, message):
    with pytest.raises(InputError, match=message):
        read_labels(f"csv:{table(TABLE)}?{settings}")


@pytest.mark.parametrize(
    ("header", "advice"),
    [
        ("Slide,Diagnosis,Patient", "slide_id=Slide&label=Diagnosis&case_id=Patient"),
        ("slide_id,Diagnosis,Patient", "label=Diagnosis&case_id=Patient"),
        ("slide_id,label,Patient", "case_id=Patient"),
        ("image;class;case_id", "slide_id=image&label=class"),
    ],
)
def test_all_columns_of_other_names_are_told_at_once_with_what_to_say(tmp_path, header, advice):
    path = tmp_path / "labels.csv"
    rows = ["a,x,p1", "b,y,p2"]
    path.write_text("\n".join([header, *(r.replace(",", ";") if ";" in header else r for r in rows)]))
    with pytest.raises(InputError) as refused:
        read_labels(path)
    said = f"{path}?{advice}"
    assert f"'{said}'" in str(refused.value)
    assert all(f"'{pair.split('=')[0]}'" in str(refused.value) for pair in advice.split("&"))
    assert read_labels(said).slide_ids == ("a", "b")


def test_other_column_names(table):
    cohort = read_labels(f"{table(TABLE)}?slide_id=slide&label=kind&case_id=patient&centre=site")
    assert [(r.slide_id, r.case_id, r.label, r.centre) for r in cohort.rows][1] == ("b", "p2", "y", "2")


def test_exclusion_by_slide_or_patient(table):
    table("slide_id,reason\na.svs,blurred\np2,withdrew\nghost,\n", "bad.csv")
    text = "slide_id,label,case_id\na,x,p1\nb,y,p2\nb2,x,p2\nc,y,p3\nd,x,p4\n"
    cohort = read_labels(f"{table(text)}?exclude=bad.csv")
    assert cohort.slide_ids == ("c", "d")
    assert cohort.notes == (
        "bad.csv leaves out 3 slides.",
        "1 entries of bad.csv name no slide here, for example 'ghost'.",
    )
    table("# nothing\n", "bad.csv")
    with pytest.raises(InputError, match="names no slide"):
        read_labels(f"{table(text)}?exclude=bad.csv")


def test_camelyon17_with_an_exclusion_list(table):
    table("patient_020_node_0\n", "bad.txt")
    text = "patient,stage\npatient_000.zip,pN1\npatient_000_node_0.tif,macro\npatient_020_node_0.tif,itc\npatient_060_node_1.tif,negative\n"
    cohort = read_labels(f"camelyon17:{table(text)}?exclude=bad.txt")
    assert cohort.slide_ids == ("patient_000_node_0", "patient_060_node_1")
    assert "patient_020_node_0" not in cohort.official_split


def test_stamp_joins_its_two_tables(table):
    clini = table(
        "PATIENT,isMSIH,AGE,SITE\n007,MSIH,60,A\n008,nonMSIH,,B\n009,,70,A\n010,MSIH,1,B\n", "clini.csv"
    )
    table("PATIENT,FILENAME\n007,s1.h5\n007,s2.h5\n008,s3.svs\n009,s4.h5\n666,s5.h5\n", "slide.csv")
    cohort = read_labels(f"stamp:{clini}?slides=slide.csv&label=isMSIH&centre=SITE")
    assert [(r.slide_id, r.case_id, r.label, r.centre) for r in cohort.rows] == [
        ("s1", "007", "MSIH", "A"),
        ("s2", "007", "MSIH", "A"),
        ("s3", "008", "nonMSIH", "B"),
    ]
    assert cohort.notes == (
        "1 slides of slide.csv belong to no patient of clini.csv.",
        "1 slides have no value of 'isMSIH' in clini.csv and are left out.",
    )
    with pytest.raises(InputError, match=r"stamp:.*\?slides=SLIDE.csv&label=COLUMN"):
        read_labels(f"stamp:{clini}?label=isMSIH")
    table("PATIENT,FILE\n007,s1.h5\n", "slide.csv")
    with pytest.raises(InputError, match="lacks the column 'FILENAME'"):
        read_labels(f"stamp:{clini}?slides=slide.csv&label=isMSIH")
    twice = table("PATIENT,isMSIH\n007,MSIH\n007,nonMSIH\n", "clini.csv")
    table("PATIENT,FILENAME\n007,s1.h5\n", "slide.csv")
    with pytest.raises(InputError, match="row 3, column 'isMSIH', value 'nonMSIH': but 'MSIH' in row 2"):
        read_labels(f"stamp:{twice}?slides=slide.csv&label=isMSIH")


def test_slideflow_annotations(table):
    cohort = read_labels(
        f"slideflow:{table('patient,slide,site,her2' + chr(10) + 'p1,s1,A,neg' + chr(10) + 'p2,,B,pos' + chr(10))}"
    )
    assert [(r.slide_id, r.case_id, r.label, r.centre) for r in cohort.rows] == [
        ("s1", "p1", "neg", "A"),
        ("p2", "p2", "pos", "B"),
    ]
    two = table("patient,slide,her2,er\np1,s1,neg,pos\np2,s2,pos,pos\n")
    with pytest.raises(InputError, match=r"her2, er.*\?label=her2"):
        read_labels(f"slideflow:{two}")
    assert read_labels(f"slideflow:{two}?label=her2").classes == ("neg", "pos")
    with pytest.raises(InputError, match="no column of classes"):
        read_labels(f"slideflow:{table('patient,slide' + chr(10) + 'p,s' + chr(10))}")


@pytest.mark.real_data
def test_real_slideflow_annotations(real_data):
    cohort = read_labels(f"slideflow:{real_data}/labels/tcga_lung_slideflow.csv")
    tcga = read_labels(f"tcga:{real_data}/labels/tcga_lung_slideflow.csv")
    assert [(r.slide_id, r.case_id, r.label) for r in cohort.rows] == [
        (r.slide_id, r.case_id, r.label) for r in tcga.rows
    ]
    assert all(centre.startswith("Site-") for centre in cohort.centres)
