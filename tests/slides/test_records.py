"""slides.csv."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.values import printable
from wsi_ncmi.slides import SlideRecord, read_slides_csv, write_slides_csv

RECORD = SlideRecord(
    slide_id="007", path="a/007.svs", reader="openslide", vendor="aperio", width_px=10, height_px=20, n_levels=3,
    mpp_x=0.1 + 0.2, mpp_y=None, mpp_source="vendor", fingerprint="00ff", size_bytes=1 << 40,
    problem='one, "two"', duplicate_of="",
)  # fmt: skip


def test_golden_file(tmp_path):
    write_slides_csv([RECORD], tmp_path / "slides.csv")
    assert (tmp_path / "slides.csv").read_text() == (
        "slide_id,path,reader,vendor,width_px,height_px,n_levels,mpp_x,mpp_y,mpp_source,fingerprint,size_bytes,problem,duplicate_of,remark,bounds,"
        "container_id,series_uid,study_uid,case_id,companions,stamp\n"
        '007,a/007.svs,openslide,aperio,10,20,3,0.30000000000000004,,vendor,00ff,1099511627776,"one, ""two""",,,,,,,,,\n'
    )


text = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.builds(SlideRecord, **dict.fromkeys(("slide_id", "path", "reader", "vendor", "mpp_source", "fingerprint", "problem", "duplicate_of"), text),
                          **dict.fromkeys(("width_px", "height_px", "n_levels", "size_bytes"), st.integers(0, 1 << 62)),
                          mpp_x=st.none() | st.floats(0.01, 100), mpp_y=st.none() | st.floats(0.01, 100)),
                max_size=4, unique_by=lambda record: record.slide_id))  # fmt: skip
def test_what_is_written_comes_back(tmp_path, records):
    write_slides_csv(records, tmp_path / "slides.csv")
    # Ids come back as they were, whatever they hold; sentences for people can be shown.
    shown = [dataclasses.replace(each, problem=printable(each.problem)) for each in records]
    assert read_slides_csv(tmp_path / "slides.csv") == tuple(shown)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width_px", "width", "lacks the column width_px"),
        (",10,", ",ten,", r"slides\.csv, line 2: width_px is 'ten'"),
        (",\n", "\n", "the row ends before stamp"),
        (",10,", ",-10,", "width_px is '-10'"),
        ("0.30000000000000004", "nan", "mpp_x is 'nan'"),
        ("0.30000000000000004", "inf", "mpp_x is 'inf'"),
        ("vendor,00ff", "ven\0dor,00ff", "is a binary file"),
        ("aperio", '"aperio', "can't be read"),
    ],
)
def test_a_spoilt_table_is_named(tmp_path, old, new, message):
    path = tmp_path / "slides.csv"
    write_slides_csv([dataclasses.replace(RECORD, problem="")], path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        read_slides_csv(path)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv can't be read \(No such file"):
        read_slides_csv(tmp_path / "none.csv")


def test_a_table_of_0_1_without_remarks_is_read(tmp_path):
    write_slides_csv([RECORD], tmp_path / "slides.csv")
    text = (tmp_path / "slides.csv").read_text()
    (tmp_path / "slides.csv").write_text(text.replace(",remark", "").replace(",,\n", ",\n"))
    assert read_slides_csv(tmp_path / "slides.csv") == (RECORD,)


def test_a_slide_that_is_listed_twice_is_named(tmp_path):
    write_slides_csv([RECORD, dataclasses.replace(RECORD, path="b/007.svs")], tmp_path / "slides.csv")
    with pytest.raises(InputError, match=r"slides\.csv lists the slide 007 twice"):
        read_slides_csv(tmp_path / "slides.csv")
