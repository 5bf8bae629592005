"""Values that are none, spellings of one class, patient or slide, and lists of what is left out."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from wsi_ncmi.cohorts import (
    Evidence,
    Fold,
    Splits,
    audit_labels,
    find_leaks,
    match_features,
    open_bag_source,
    read_any_splits,
    read_labels,
    write_splits,
)
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.workflows.audit import AuditConfig, audit

IDS = [f"{i:03}" for i in range(1, 9)]
LABELS = ["LUAD", "LUSC"] * 4
CASES = [f"p{i // 2:02}" for i in range(8)]


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def table(
    path: Path, ids: list[str] = IDS, labels: list[str] = LABELS, cases: list[str] = CASES, head: str = ""
) -> Path:
    rows = zip(ids, labels, cases, strict=True)
    lines = [head or "slide_id,label,case_id", *(",".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def packed(path: Path, ids: list[str] = IDS, **columns: list[str]) -> Path:
    texts = {key: np.array(values) for key, values in columns.items()}
    np.savez(
        path,
        features=np.ones((len(ids), 4), np.float16),
        lengths=np.ones(len(ids), int),
        slide_id=ids,
        **texts,
    )
    return path


@pytest.mark.parametrize("text", ["NA", "#N/A", "None", "-", "unknown", "Not Reported", "#REF!"])
@pytest.mark.parametrize("column", [1, 2])
def test_no_class_and_no_patient_stop_before_any_work(tmp_path: Path, text: str, column: int) -> None:
    columns = [LABELS.copy(), CASES.copy()]
    columns[column - 1][2] = text
    path = table(tmp_path / "l.csv", IDS, *columns)
    name = ("label", "case_id")[column - 1]
    with pytest.raises(InputError, match=rf"row 4: the '{name}' is empty .{text!r} means no value"):
        read_labels(path)
    # Said in a list, the slide is left out.
    (tmp_path / "out.txt").write_text("003\n")
    assert len(read_labels(f"{path}?exclude=out.txt").rows) == 7
    source = open_bag_source(packed(tmp_path / "f.npz", label=columns[0], case_id=columns[1]))
    with pytest.raises(InputError, match=rf"slide '003' has an empty '{name}' .{text!r} means no value"):
        source.embedded_cohort()


def test_no_value_in_the_tables_of_other_tools(tmp_path: Path) -> None:
    rows = [("TCGA-83-5908-01Z", "LUAD", "NA"), ("TCGA-83-5909-01Z", "LUSC", "not reported")]
    tcga = table(tmp_path / "t.csv", *map(list, zip(*rows, strict=True)), head="slide_id,label,patient")
    assert read_labels(f"tcga:{tcga}").case_ids == ("TCGA-83-5908", "TCGA-83-5909")
    flow = tmp_path / "flow.csv"
    flow.write_text("patient,slide,site,type\np1,s1,NA,a\np2,-,B,b\np3,s3,?,b\n")
    assert [(r.slide_id, r.centre) for r in read_labels(f"slideflow:{flow}").rows] == [
        ("s1", ""),
        ("p2", "B"),
        ("s3", ""),
    ]
    (tmp_path / "clini.csv").write_text("PATIENT,isMSIH\n1,MSIH\n2,#VALUE!\nNA,MSS\n4,MSS\n")
    (tmp_path / "slide.csv").write_text("PATIENT,FILENAME\n1,a.h5\n2,b.h5\nNA,c.h5\n4,d.h5\n")
    cohort = read_labels(f"stamp:{tmp_path}/clini.csv?slides=slide.csv&label=isMSIH")
    assert cohort.slide_ids == ("a", "d")
    assert len(cohort.notes) == 2
    (tmp_path / "cam.csv").write_text(
        "patient,stage\npatient_000_node_0.tif,N/A\npatient_001_node_0.tif,itc\n"
    )
    with pytest.raises(InputError, match="'N/A' means no value"):
        read_labels(f"camelyon17:{tmp_path}/cam.csv")
    (tmp_path / "splits_0.csv").write_text(",train,val,test\n0,001,003,NA\n1,002,nan,004\n")
    assert read_any_splits(tmp_path / "splits_0.csv").folds == (Fold(("001", "002"), ("003",), ("004",)),)
    (tmp_path / "plain.csv").write_text("slide_id,split\n001,train\n-,test\n")
    with pytest.raises(InputError, match="row 3, column 'slide_id', value '-'"):
        read_any_splits(tmp_path / "plain.csv")


@pytest.mark.parametrize("other", ["luad", "LU AD", "LU\u200bAD", "ＬＵＡＤ", "LU-AD"])
def test_classes_spelled_almost_alike_are_refused(tmp_path: Path, other: str) -> None:
    labels = LABELS.copy()
    labels[4] = other
    source = open_bag_source(packed(tmp_path / "f.npz", label=labels, case_id=CASES))
    path = table(tmp_path / "l.csv", labels=labels)
    with pytest.raises(InputError, match=r"row 6: the label .* and .LUAD. differ only in case"):
        read_labels(path)
    assert [f.kind for f in audit_labels(path).findings] == ["suspect_class"]
    with pytest.raises(InputError, match="zeros in front or invisible characters; spell them alike"):
        source.embedded_cohort()


@pytest.mark.parametrize("around", ["LUAD\u200b", "\u00a0LUAD", "LUAD\ufeff", nfd("LUAD")])
def test_blanks_around_and_the_form_of_unicode_are_no_difference(tmp_path: Path, around: str) -> None:
    labels = LABELS.copy()
    labels[4] = around
    assert read_labels(table(tmp_path / "l.csv", labels=labels)).classes == ("LUAD", "LUSC")
    source = open_bag_source(packed(tmp_path / "f.npz", label=labels, case_id=CASES))
    cohort = source.embedded_cohort()
    assert cohort is not None
    assert cohort.classes == ("LUAD", "LUSC")


@pytest.mark.parametrize("other", ["P00", "p0", "p_00", "p００", "p\u200b00"])
def test_patients_spelled_almost_alike_are_named_everywhere(tmp_path: Path, other: str) -> None:
    cases = [*CASES]
    cases[1] = other
    path = table(tmp_path / "l.csv", cases=cases)
    cohort = read_labels(path)
    assert len(cohort.case_ids) == 5
    assert "row 3: the case_id" in cohort.notes[0]
    assert "differ only in case" in cohort.notes[0]
    source = open_bag_source(packed(tmp_path / "f.npz", label=LABELS, case_id=cases))
    embedded = source.embedded_cohort()
    assert embedded is not None
    assert "the patients 'p00' and" in embedded.notes[0]
    apart = Splits((Fold(("001", "003", "004"), (), ("002", "005", "006")),))
    write_splits(apart, tmp_path / "s.json")
    result = audit(AuditConfig(splits=tmp_path / "s.json", labels=str(path)))
    assert [(f.kind, f.line) for f in result.rows] == [("suspect_id", 3)]
    assert [leak.detail for leak in result.leaks if leak.kind == "patient"] == [
        f"Fold 0: Patients {a} and {b} differ only in case, blanks, '_' or '-', zeros in front or invisible "
        "characters; are they one?"
        for a, b in [sorted((f"{other} (test)", "p00 (train)"))]
    ]
    together = Splits((Fold(("001", "002"), (), ("003", "004", "005", "006")),))
    assert not [leak for leak in find_leaks(together, cohort) if leak.kind == "patient"]


def test_forms_of_unicode_match_through_labels_features_splits_and_audit(tmp_path: Path) -> None:
    ids = [f"Tumör-{i}" for i in IDS]
    cases = [nfd(f"Müller{i // 2}") if i % 2 else f"Müller{i // 2}" for i in range(8)]
    mixed = [nfd(name) if i % 3 else name for i, name in enumerate(ids)]
    cohort = read_labels(table(tmp_path / "l.csv", mixed, cases=cases))
    assert cohort.slide_ids == tuple(ids)
    assert len(cohort.case_ids) == 4
    assert not cohort.notes
    source = open_bag_source(packed(tmp_path / "f.npz", [nfd(name) for name in ids]))
    match = match_features(cohort, source)
    assert match.cohort.slide_ids == source.slide_ids
    assert not match.unmatched
    # Splits of 0.1.0 have ids as the features spell them.
    write_splits(
        Splits((Fold(*(tuple(map(nfd, part)) for part in (ids[:4], (), ids[4:]))),)), tmp_path / "s.json"
    )
    restricted = read_any_splits(tmp_path / "s.json", cohort).restricted_to(match.cohort.slide_ids)
    assert restricted.folds[0].train == source.slide_ids[:4]
    evidence = Evidence(features={nfd(ids[0]): "same", ids[7]: "same"}).spelled_as(cohort.slide_ids)
    assert [leak.kind for leak in find_leaks(read_any_splits(tmp_path / "s.json", cohort), cohort, evidence=evidence)
            if leak.fatal] == ["content"]  # fmt: skip
    result = audit(
        AuditConfig(splits=tmp_path / "s.json", labels=str(tmp_path / "l.csv"), features=source.path)
    )
    assert not result.rows
    assert not [leak for leak in result.leaks if leak.kind == "unknown"]


def test_ids_that_differ_in_more_are_no_match_but_named(tmp_path: Path) -> None:
    source = open_bag_source(packed(tmp_path / "f.npz"))
    numbers = read_labels(table(tmp_path / "l.csv", [str(int(i)) for i in IDS]))
    with pytest.raises(InputError, match=r"'1' and '001' differ only in .* write the slide ids in one way"):
        match_features(numbers, source)
    some = read_labels(table(tmp_path / "l.csv", [i if int(i) < 6 else str(int(i)) for i in IDS]))
    match = match_features(some, source)
    assert "3 slides of the labels may be misspelled: '6' and '006' differ" in match.cohort.notes[0]
    assert "misspelled? There are features of '006'" in match.unmatched[-3].reason
    path = tmp_path / "splits_0.csv"
    path.write_text(",train,val,test\n0,1,3.0,4.0\n1,2,,\n")
    unknown = [leak.detail for leak in find_leaks(read_any_splits(path), some) if leak.kind == "unknown"]
    assert unknown[2].startswith("Fold 0: Slide 3.0 in validation has no label (but 003 has one")
    rows = audit_labels(tmp_path / "l.csv", known_slides=source.slide_ids).findings
    assert "there is no slide '6' ('006', which is there, and it differ" in rows[0].detail


@pytest.mark.parametrize("folder", ["LUAD/", "D:\\slides\\"])
def test_paths_in_the_labels_are_named(tmp_path: Path, folder: str) -> None:
    source = open_bag_source(packed(tmp_path / "f.npz"))
    labelled = read_labels(table(tmp_path / "l.csv", [f"{folder}{i}.svs" for i in IDS]))
    with pytest.raises(InputError, match="keep the files' names alone in the labels"):
        match_features(labelled, source)


HASHED = ["S12#7", "S12#8", "b;1", "c,2", "d e", "f.svs", "f.tif", "g"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("S12#7\n", "S12#8 b;1 c,2 d e f.svs f.tif g"),
        ("# all bad\nS12#7 # blurred, out; of focus\n", "S12#8 b;1 c,2 d e f.svs f.tif g"),
        ("b;1\nc,2\n", "S12#7 S12#8 d e f.svs f.tif g"),
        ('"b;1";pen\n"c,2",pen\n', "S12#7 S12#8 d e f.svs f.tif g"),
        ("slide_id;reason\nd e;blurred, twice\ng;\n", "S12#7 S12#8 b;1 c,2 f.svs f.tif"),
        ("g;blurred\nd e;pen\n", "S12#7 S12#8 b;1 c,2 f.svs f.tif"),
        ("g\tblurred\nd e\tpen\n", "S12#7 S12#8 b;1 c,2 f.svs f.tif"),
        ("sep=;\nreason;slide_id\nblurred;g\n", "S12#7 S12#8 b;1 c,2 d e f.svs f.tif"),
        ("case_id,slide_id\nS12,g\n", "S12#7 S12#8 b;1 c,2 d e f.svs f.tif"),
        ("f.svs\n", "S12#7 S12#8 b;1 c,2 d e f.tif g"),
        ("f\n", "S12#7 S12#8 b;1 c,2 d e g"),
        ("S12\n", "b;1 c,2 d e f.svs f.tif g"),
        ("\u00a0g\u200b\r\n", "S12#7 S12#8 b;1 c,2 d e f.svs f.tif"),
    ],
)
def test_lists_of_what_is_left_out(tmp_path: Path, text: str, kept: str) -> None:
    path = tmp_path / "l.csv"
    rows = [f'"{slide}",{"xy"[i % 2]},{"S12" if i < 2 else f"q{i}"}' for i, slide in enumerate(HASHED)]
    path.write_text("\n".join(["slide_id,label,case_id", *rows]) + "\n")
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "bad.csv").write_bytes(text.encode(encoding))
        assert " ".join(read_labels(f"{path}?exclude=bad.csv").slide_ids) == kept


def test_an_entry_that_is_almost_a_slide_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("3\nNA\n005\n")
    cohort = read_labels(f"{table(tmp_path / 'l.csv')}?exclude=bad.csv")
    assert cohort.notes[0] == "bad.csv leaves out 1 slide."
    assert (
        "1 entries of bad.csv name no slide here, for example '3' ('3' and '003' differ only"
        in cohort.notes[1]
    )
