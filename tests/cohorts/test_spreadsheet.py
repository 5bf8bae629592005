"""Labels in workbooks."""

from __future__ import annotations

import datetime
import sys
import zipfile

import pytest
from openpyxl import Workbook

from wsi_ncmi.cohorts import audit_labels, read_labels
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.tables import read_table

HEADER = ("slide_id", "case_id", "label")


@pytest.fixture
def save(tmp_path):
    """Saves sheets (name → rows) as a workbook and returns its path."""

    def write(sheets, name="labels.xlsx", formats=()):
        book = Workbook()
        book.remove(book.active)
        for title, rows in sheets.items():
            sheet = book.create_sheet(title)
            for row in rows:
                sheet.append(row)
            for cell, number_format in formats:
                sheet[cell].number_format = number_format
        book.save(tmp_path / name)
        return tmp_path / name

    return write


def test_a_workbook_reads_as_the_same_csv(save, tmp_path):
    rows = [(f"s{i}.svs", f"p{i // 2}", "ab"[i % 2]) for i in range(6)]
    path = save({"labels": [HEADER, *rows], "notes": []})  # an empty sheet is none
    (tmp_path / "labels.csv").write_text("\n".join(",".join(row) for row in (HEADER, *rows)) + "\n")
    assert read_labels(path).rows == read_labels(tmp_path / "labels.csv").rows
    assert read_labels(f"csv:{path}?exclude={save_list(tmp_path)}").slide_ids == (
        "s1",
        "s2",
        "s3",
        "s4",
        "s5",
    )


def save_list(folder):
    (folder / "bad.txt").write_text("s0\n")
    return folder / "bad.txt"


def test_cells_become_the_text_that_is_shown(save):
    row = (7, 12.0, 0.25, True, datetime.date(2024, 2, 3), " x ", None, "007")
    path = save({"a": [tuple("abcdefgh"), (None,) * 8, row]}, formats=[("A3", "000")])
    table = read_table(path)
    assert [table.rows[0][name] for name in "abcdefgh"] == [
        "007", "12", "0.25", "True", "2024-02-03T00:00:00", "x", "", "007",
    ]  # fmt: skip
    assert table.rows[0].line == 3  # the empty row counts


def test_of_several_sheets_one_is_named(save):
    good = [HEADER, ("s1", "p1", "a"), ("s2", "p2", "b")]
    path = save({"readme": [("hello",)], "labels": good})
    with pytest.raises(InputError, match=r"several sheets \(readme, labels\); name one.*\?sheet=readme"):
        read_labels(path)
    assert read_labels(f"csv:{path}?sheet=labels").slide_ids == ("s1", "s2")
    assert audit_labels(f"csv:{path}?sheet=labels").passed
    with pytest.raises(InputError, match="no sheet 'x' with rows; it has: readme, labels"):
        read_labels(f"csv:{path}?sheet=x")
    with pytest.raises(InputError, match="row 3: the 'label' is empty"):
        read_labels(f"csv:{save({'l': [HEADER, ('s1', 'p1', 'a'), ('s2', 'p2', None)]})}")


def test_stamps_two_workbooks(save):
    clini = save({"c": [("PATIENT", "isMSIH"), ("p1", "MSI"), ("p2", "MSS")]}, "clini.xlsx")
    save(
        {"x": [("a",), ("b",)], "s": [("PATIENT", "FILENAME"), ("p1", "s1.h5"), ("p2", "s2.h5")]},
        "slide.xlsx",
    )
    cohort = read_labels(f"stamp:{clini}?slides=slide.xlsx&slides_sheet=s&label=isMSIH")
    assert [(row.slide_id, row.label) for row in cohort.rows] == [("s1", "MSI"), ("s2", "MSS")]


def test_what_is_no_workbook(save, tmp_path, monkeypatch):
    (tmp_path / "text.xlsx").write_text("slide_id,label\n")
    with zipfile.ZipFile(tmp_path / "other.xlsx", "w") as packed:
        packed.writestr("x", "y")
    for name in ("text.xlsx", "other.xlsx"):
        with pytest.raises(InputError, match="is no spreadsheet"):
            read_table(tmp_path / name)
    with pytest.raises(InputError, match="can't be read"):
        read_table(tmp_path / "absent.xlsx")
    with pytest.raises(InputError, match="is empty"):
        read_table(save({"a": []}))
    (tmp_path / "plain.csv").write_text("slide_id,label\ns1,a\n")
    with pytest.raises(InputError, match="is no workbook"):
        read_table(tmp_path / "plain.csv", "labels")
    path = save({"a": [HEADER, ("s1", "p1", "a")]})
    monkeypatch.setattr("wsi_ncmi.core.tables._MAX_BYTES", 100)
    with pytest.raises(InputError, match="unpacks to"):
        read_table(path)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"install openpyxl.*wsi-ncmi\[excel\]"):
        read_table(path)


@pytest.mark.parametrize("error", ["#N/A", "#REF!", "#DIV/0!", "#VALUE!", "#NAME?", "#NULL!", "#NUM!"])
def test_error_cells_are_no_values(save, error):
    rows = [(f"s{i}", f"p{i}", "ab"[i % 2], "c1") for i in range(4)]
    rows[2] = ("s2", "p2", error, "c1")
    path = save({"labels": [(*HEADER, "centre"), *rows]})
    with pytest.raises(InputError, match="row 4: the 'label' is empty"):
        read_labels(path)
    rows[2] = ("s2", "p2", "a", error)
    assert [row.centre for row in read_labels(save({"labels": [(*HEADER, "centre"), *rows]})).rows][2] == ""
