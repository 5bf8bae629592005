from __future__ import annotations

from collections import Counter

import pytest

from wsi_ncmi.cohorts import PARTS, Fold, Splits, find_leaks, read_labels
from wsi_ncmi.core.errors import InputError


def _write(tmp_path, text):
    path = tmp_path / "sheet.csv"
    path.write_text(text)
    return path


def test_camelyon17_centres_come_from_the_patient_number(tmp_path):
    path = _write(
        tmp_path,
        "patient,stage\npatient_019.zip,pN1\npatient_019_node_0.tif,macro\npatient_020.zip,pN0\npatient_020_node_4.tif,negative\n"
        "patient_060_node_0.tif,itc\n",
    )
    cohort = read_labels(f"camelyon17:{path}")
    assert [(r.slide_id, r.case_id, r.label, r.centre) for r in cohort.rows] == [
        ("patient_019_node_0", "patient_019", "macro", "0"),
        ("patient_020_node_4", "patient_020", "negative", "1"),
        ("patient_060_node_0", "patient_060", "itc", "3"),
    ]
    assert cohort.official_split["patient_060_node_0"] == "test"
    assert cohort.official_split["patient_020_node_4"] == "train"
    assert cohort.classes == ("negative", "itc", "micro", "macro")


@pytest.mark.parametrize(
    ("spec", "text", "message"),
    [
        ("camelyon17", "patient,stage\npatient_1.tif,macro\n", "neither patient_NNN.zip"),
        ("camelyon17", "patient,stage\npatient_001_node_0.tif,huge\n", "'huge'"),
        ("camelyon17", "patient,stage\npatient_001.zip,pN0\n", "no slides"),
        ("camelyon16", "slide_id,label\nfoo,1\n", "not a name like"),
        ("camelyon16", "slide_id,label\nnormal_001,1\n", "contradicts the name"),
        ("bracs", "slide_id,label,split_info\nBRACS_1,7,train\n", "neither 0–6"),
        ("bracs", "slide_id,label,split_info\nBRACS_1,1,dev\n", "not train, val or test"),
        ("tcga", "slide_id,label\nslide_1,x\n", "not a TCGA barcode"),
        (
            "tcga",
            "slide_id,label,case_id\nTCGA-83-5908-01Z,x,TCGA-83-0000\n",
            "not the patient TCGA-83-5908",
        ),
    ],
)
def test_foreign_rows_are_refused(tmp_path, spec, text, message):
    with pytest.raises(InputError, match=message):
        read_labels(f"{spec}:{_write(tmp_path, text)}", group="slide_id")


@pytest.mark.real_data
def test_real_camelyon17(real_data):
    cohort = read_labels(f"camelyon17:{real_data}/labels/camelyon17_stage_labels.csv")
    assert Counter(r.label for r in cohort.rows) == {"negative": 323, "itc": 35, "micro": 57, "macro": 85}
    assert len(cohort.case_ids) == 100
    assert Counter(r.centre for r in cohort.rows) == dict.fromkeys("01234", 100)
    assert Counter(cohort.official_split.values()) == {"train": 300, "test": 200}


@pytest.mark.real_data
def test_real_camelyon16_has_no_patients(real_data):
    spec = f"camelyon16:{real_data}/labels/camelyon16.csv"
    with pytest.raises(InputError, match="no reliable patient ids"):
        read_labels(spec)
    cohort = read_labels(spec, group="slide_id")
    assert cohort.case_id_assumed
    assert Counter(r.label for r in cohort.rows) == {"normal": 239, "tumor": 160}
    assert Counter(cohort.official_split.values()) == {"train": 270, "test": 129}


def test_bracs_patients_of_the_official_sheet(tmp_path):
    path = _write(
        tmp_path,
        "slide_id,label,split_info,Patient Id\nBRACS_1,0,train,7\nBRACS_2,4,val,7\nBRACS_3,6,test,8\n",
    )
    cohort = read_labels(f"bracs3:{path}?case_id=Patient Id")
    assert [(r.case_id, r.label) for r in cohort.rows] == [
        ("7", "benign"),
        ("7", "atypical"),
        ("8", "malignant"),
    ]
    assert not cohort.case_id_assumed
    parts = [Fold(*([s for s, p in cohort.official_split.items() if p == part] for part in PARTS))]
    assert ("patient", "7") in {(leak.kind, leak.what) for leak in find_leaks(Splits(tuple(parts)), cohort)}
    with pytest.raises(InputError, match="lacks the column 'patient'"):
        read_labels(f"bracs:{path}?case_id=patient")


@pytest.mark.real_data
def test_real_bracs(real_data):
    path = real_data / "labels" / "bracs.csv"
    with pytest.raises(InputError, match="row number"):
        read_labels(f"bracs7:{path}")
    seven = read_labels(f"bracs7:{path}", group="slide_id")
    three = read_labels(f"bracs3:{path}", group="slide_id")
    assert seven.classes == ("N", "PB", "UDH", "FEA", "ADH", "DCIS", "IC")
    assert three.classes == ("benign", "atypical", "malignant")
    assert Counter(seven.official_split.values()) == {"train": 395, "validation": 65, "test": 87}
    counts = Counter(r.label for r in seven.rows)
    assert Counter(r.label for r in three.rows)["atypical"] == counts["FEA"] + counts["ADH"]
    assert seven.notes


@pytest.mark.real_data
def test_real_tcga_lung(real_data):
    cohort = read_labels(f"tcga:{real_data}/labels/tcga_lung_slideflow.csv")
    assert len(cohort.rows) == len(cohort.case_ids) == 941
    row = cohort.by_slide["TCGA-83-5908-01Z-00-DX1.381c8f82-61a0-4e9d-982d-1ad0af7bead9"]
    assert (row.case_id, row.centre, row.label) == ("TCGA-83-5908", "83", "adenocarcinoma")


@pytest.mark.real_data
def test_real_clam_labels(real_data):
    path = real_data / "labels" / "clam_labels_example.csv"
    cohort = read_labels(f"clam:{path}")
    assert Counter(r.label for r in cohort.rows) == {"subtype_1": 250, "subtype_2": 150, "subtype_3": 100}
    assert cohort.rows == read_labels(path).rows
    assert len(cohort.case_ids) < len(cohort.rows) == 500
