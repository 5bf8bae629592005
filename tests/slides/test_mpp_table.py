"""The user's mpp table."""

from __future__ import annotations

import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.slides import read_mpp_table


def _write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "mpp.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_ids_with_and_without_extension_extra_columns_and_a_byte_order_mark(tmp_path):
    text = " slide_id ,note, mpp\nTCGA-A.1.svs,x,0.25\n007,y, 0.5\n007,again,0.50\n"
    assert read_mpp_table(_write(tmp_path, text, "utf-8-sig")) == {"TCGA-A.1": 0.25, "007": 0.5}


def test_excel_s_semicolons_and_decimal_commas_and_other_forms_of_unicode(tmp_path):
    text = "slide_id;mpp\r\nTumo\u0308r.svs;0,25\r\n"
    assert read_mpp_table(_write(tmp_path, text, "utf-16")) == {"Tum\u00f6r": 0.25}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide_id,res\na,0.5\n", r"mpp\.csv lacks the column 'mpp' \(it has: slide_id, res\)"),
        ("slide,mpp\na,0.5\n", r"Rename it to 'slide_id'"),
        ("", r"is empty; it needs a header"),
        ("slide_id,mpp\na,0.5\nb,0\n", r"mpp\.csv, line 3: mpp of b is '0'"),
        ("slide_id,mpp\na,\n", r"line 2: mpp of a is ''"),
        ("slide_id,mpp\na\n", r"line 2: mpp of a is ''"),
        ("slide_id,mpp\na,NA\n", r"line 2: mpp of a is 'NA'"),
        ("slide_id,mpp\na,250\n", r"at most 100"),
        ("slide_id,mpp\n,0.5\n", r"line 2: slide_id is empty"),
        ("slide_id,mpp\na,0.5\na.svs,0.25\n", r"line 3: a\.svs has 0\.25 here and 0\.5 above"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_value(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_mpp_table(_write(tmp_path, text))


def test_unreadable_tables(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_mpp_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_mpp_table(_write(tmp_path, "slide_id,mpp\nMüller,0.5\n", "latin-1"))
