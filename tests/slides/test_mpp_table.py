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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide_id;mpp\na;0.5\n", r"mpp\.csv has the columns slide_id;mpp but needs slide_id and mpp"),
        ("slide,mpp\na,0.5\n", r"add slide_id"),
        ("", r"\(none\)"),
        ("slide_id,mpp\na,0.5\nb,0\n", r"mpp\.csv, line 3: mpp of b is '0'"),
        ("slide_id,mpp\na,\n", r"line 2: mpp of a is ''"),
        ("slide_id,mpp\na\n", r"line 2: mpp of a is ''"),
        ('slide_id,mpp\na,"0,5"\n', r"line 2: mpp of a is '0,5'"),
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
    with pytest.raises(InputError, match="can't be read"):
        read_mpp_table(_write(tmp_path, "slide_id,mpp\nMüller,0.5\n", "latin-1"))
