"""Tables as programs and people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.tables import read_table

WANTED = [{"id": "007", "said": "a, b"}, {"id": "b", "said": ""}]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ('id,said\n007,"a, b"\nb,\n', "utf-8"),
        ('id;said\r\n007;"a, b"\r\nb;\r\n', "utf-8-sig"),
        ("id\tsaid\n007\ta, b\nb\t\n", "utf-16"),
        ("\ufeffid\tsaid\n007\ta, b\nb\t\n", "utf-16-be"),
        ('sep=;\r\nid;said\r\n007;"a, b"\r\nb;\r\n', "utf-8-sig"),
        ("sep=|\nid|said\n007|a, b\n\nb|\n", "utf-8"),
        ('"id";"said"\r007;a, b\rb;\r', "utf-8"),
        (" id\u200b,\u00a0said \n 007\u2003,\u200b'a, b'\nb,\n".replace("'", '"').replace('\u200b"', '"'), "utf-8"),
    ],
)  # fmt: skip
def test_one_table_in_many_dresses(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode(encoding))
    assert [row.values for row in read_table(path).rows] == WANTED


def test_a_header_with_other_separators_inside_quotes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('id;"a,b,c,d"\n1;2\n')
    assert read_table(path).columns == ("id", "a,b,c,d")


def test_a_cell_may_hold_ends_of_lines_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('id,said\n1,"two\nlines"\n2,a\u2028b\x0cc\x85d\n3,x\n'.encode())
    table = read_table(path)
    assert [(row["id"], row["said"]) for row in table.rows] == [
        ("1", "two\nlines"),
        ("2", "a\u2028b\x0cc\x85d"),
        ("3", "x"),
    ]
    assert [row.line for row in table.rows] == [3, 4, 5]


def test_no_value_reads_as_empty_and_is_shown_in_complaints(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,said\n1,#N/A\n")
    table = read_table(path)
    row = table.rows[0]
    assert row["said"] == row["missing"] == ""
    assert row.no_values == " ('#N/A' means no value)"
    assert "value '#N/A': wrong" in str(table.problem(row, "said", "wrong"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("id,said\nMüller,x\n".encode("latin-1"), "not UTF-8 text"),
        ("id,said\n1,x\n".encode("utf-16-le"), "binary file"),
        (b"\xff\xfei", "not UTF-8 text"),
        (b"id,id\n1,2\n", "column 'id' twice"),
        ("id,id\u200b\n1,2\n".encode(), "column 'id' twice"),
    ],
)
def test_what_is_no_table(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_table(path)
