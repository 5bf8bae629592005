"""A folder as a table."""

from __future__ import annotations

import contextlib
import shutil

import pytest
from PIL import Image

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.slides import read_slides_csv, take_inventory, write_slides_csv
from wsi_ncmi.slides.identity import fingerprint


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, kit, svs, generic):
    """Sound, double, equally named, truncated, unreadable and resolution-less slides."""
    root = tmp_path_factory.mktemp("cohort")
    for folder in ("a", "b", "c"):
        (root / folder).mkdir()
    kit.write_svs(root / "a" / "same.svs", kit.texture(seed=1))
    kit.write_svs(root / "b" / "same.svs", kit.texture(seed=2))
    shutil.copy(svs, root / "a" / "first.svs")
    shutil.copy(svs, root / "c" / "copy of first.svs")
    (root / "c" / "link.svs").symlink_to(root / "a" / "first.svs")
    shutil.copy(generic, root / "c" / "generic.tif")
    kit.write_tiff(root / "c" / "no_mpp.tif")
    (root / "c" / "cut.svs").write_bytes(svs.read_bytes()[:150_000])
    (root / "c" / "text.svs").write_text("not a slide")
    Image.fromarray(kit.texture(60, 50)).save(root / "c" / "flat.png")
    return root


def test_every_file_is_a_row_and_every_problem_is_said(cohort):
    records = take_inventory(cohort)
    table = {record.slide_id: record for record in records}
    assert [record.path for record in records] == sorted(record.path for record in records)
    assert list(table) == [
        "first",
        "a__same",
        "b__same",
        "copy of first",
        "cut",
        "flat",
        "generic",
        "link",
        "no_mpp",
        "text",
    ]
    problems = {slide_id: record.problem for slide_id, record in table.items() if record.problem}
    assert list(problems) == ["cut", "flat", "no_mpp", "text"]
    assert "truncated" in problems["cut"]
    assert "does not say how many microns" in problems["flat"]
    assert "can't be opened as a slide" in problems["text"]
    assert not any(str(cohort) in problem for problem in problems.values())
    first = table["first"]
    assert (first.reader, first.vendor, first.width_px, first.height_px, first.n_levels) == (
        "openslide",
        "aperio",
        700,
        600,
        2,
    )
    assert (first.mpp_x, first.mpp_y, first.mpp_source) == (0.499, 0.499, "vendor")
    assert (table["generic"].mpp_x, table["generic"].mpp_y, table["generic"].mpp_source) == (
        0.25,
        0.5,
        "tiff",
    )
    assert (table["no_mpp"].mpp_x, table["no_mpp"].mpp_source, table["no_mpp"].width_px) == (None, "", 700)
    assert first.size_bytes == (cohort / "a" / "first.svs").stat().st_size


def test_copies_and_links_are_duplicates_but_equal_names_are_not(cohort):
    records = take_inventory(cohort)
    assert {record.slide_id: record.duplicate_of for record in records if record.duplicate_of} == {
        "copy of first": "first",
        "link": "first",
    }


def test_equal_fingerprints_alone_are_no_duplicates(tmp_path, svs):
    """A byte between the samples of the fingerprint: what says "duplicate" is the comparison of all bytes."""
    content = bytearray(svs.read_bytes())
    (tmp_path / "a.svs").write_bytes(content)
    for place in range(20_000, len(content), 997):
        content[place] ^= 1
        (tmp_path / "b.svs").write_bytes(content)
        if fingerprint(tmp_path / "b.svs") == fingerprint(tmp_path / "a.svs"):
            break
        content[place] ^= 1
    first, second = take_inventory(tmp_path)
    assert first.fingerprint == second.fingerprint
    assert (first.duplicate_of, second.duplicate_of) == ("", "")


def test_two_takes_are_equal(cohort):
    assert take_inventory(cohort) == take_inventory(cohort)


def test_table_and_default_fill_the_resolution(cohort, tmp_path, caplog):
    table = tmp_path / "mpp.csv"
    table.write_text("slide_id,mpp\nfirst.svs,0.33\na__same,0.44\nabsent,0.5\n")
    records = {record.slide_id: record for record in take_inventory(cohort, mpp_table=table, default_mpp=0.9)}
    found = {slide_id: (record.mpp_x, record.mpp_source) for slide_id, record in records.items()}
    assert found["first"] == (0.33, "table")
    assert found["a__same"] == (0.44, "table")
    assert found["b__same"] == (0.499, "vendor")
    assert found["no_mpp"] == found["flat"] == (0.9, "default")
    assert records["flat"].problem == records["no_mpp"].problem == ""
    assert "names 1 slides that are not here" in caplog.text
    assert "absent" in caplog.text


def test_a_table_that_names_two_slides_at_once_is_refused(cohort, tmp_path):
    (tmp_path / "mpp.csv").write_text("slide_id,mpp\nsame,0.33\n")
    with pytest.raises(
        InputError,
        match=r"mpp\.csv names same, but 2 slides carry that name; use their ids \(a__same, b__same\)",
    ):
        take_inventory(cohort, mpp_table=tmp_path / "mpp.csv")


@pytest.mark.parametrize("value", [0.0, -1.0, 1000.0, float("nan")])
def test_an_absurd_default_is_an_input_error(cohort, value):
    with pytest.raises(InputError, match="default"):
        take_inventory(cohort, default_mpp=value)


def test_one_file_is_an_inventory_of_one(svs):
    (record,) = take_inventory(svs)
    assert (record.slide_id, record.path, record.problem) == ("aperio", "aperio.svs", "")


def test_progress_hears_of_every_slide(cohort):
    heard = []

    class Reporter:
        @contextlib.contextmanager
        def task(self, description, total, unit=""):
            heard.append(total)
            yield self

        def advance(self, amount=1, note=""):
            heard.append(note)

    records = take_inventory(cohort, progress=Reporter())
    assert heard[0] == len(records)
    assert sorted(heard[1:]) == sorted(record.slide_id for record in records)


def test_a_copy_is_said_of_the_files_that_are_there_now(tmp_path, svs):
    """Of a slide that isn't opened again, too: the watch opens what arrived alone."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.svs").write_bytes(svs.read_bytes())
    records = take_inventory(tmp_path)
    assert [record.duplicate_of for record in records] == ["", "a"]
    (tmp_path / "a.svs").write_bytes(svs.read_bytes() + b"another slide now")
    earlier = {record.path: record for record in records}
    records = take_inventory(tmp_path, opened={"a"}, earlier=earlier)
    assert [record.duplicate_of for record in records] == ["", ""]


class _Opened:
    """Counts the slides that are opened."""

    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def task(self, description, total, unit=""):
        self.count = total
        yield self

    def advance(self, amount=1, note="", *, done_before=False):
        pass


def test_slides_that_nobody_wrote_to_stand_as_an_earlier_job_found_them(cohort, tmp_path):
    before = take_inventory(cohort)
    write_slides_csv(before, tmp_path / "slides.csv")
    earlier = {record.path: record for record in read_slides_csv(tmp_path / "slides.csv")}
    opened = _Opened()
    assert take_inventory(cohort, earlier=earlier, progress=opened) == before
    assert opened.count == sum(bool(record.problem) for record in before)
    # Another resolution, and a table that names a slide, are asked of the slide.
    (tmp_path / "mpp.csv").write_text("slide_id,mpp\nfirst,0.3\n")
    found = take_inventory(cohort, earlier=earlier, mpp_table=tmp_path / "mpp.csv", default_mpp=0.7)
    assert found == take_inventory(cohort, mpp_table=tmp_path / "mpp.csv", default_mpp=0.7)
    again = {record.path: record for record in found}
    assert take_inventory(cohort, earlier=again) == before


def test_a_copy_whose_original_is_gone_is_compared_anew(tmp_path, svs):
    for name in ("a.svs", "b.svs", "c.svs"):
        shutil.copy(svs, tmp_path / name)
    before = take_inventory(tmp_path)
    assert [record.duplicate_of for record in before] == ["", "a", "a"]
    (tmp_path / "a.svs").unlink()
    earlier = {record.path: record for record in before}
    assert [each.duplicate_of for each in take_inventory(tmp_path, earlier=earlier)] == ["", "b"]
    (tmp_path / "c.svs").write_bytes(svs.read_bytes())
    opened = _Opened()
    found = take_inventory(tmp_path, earlier={each.path: each for each in before}, progress=opened)
    assert opened.count == 1
    assert [each.duplicate_of for each in found] == ["", "b"]
