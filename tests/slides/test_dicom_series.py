"""DICOM objects of one slide: names that may be such, grouping over folders, the folder of links."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.slides.dicom_slide import write_instance
from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides import open_slide
from wsi_ncmi.slides.dicom_header import WHOLE_SLIDE_IMAGE
from wsi_ncmi.slides.dicom_series import Instance, LinkFolder, group_by_slide, may_be_dicom


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("a.dcm", True), ("A.DCM", True), ("IM000001", True), ("1.2.840.113619.2.55", True), ("DICOMDIR", True),
        ("a.dicom", True), ("I0001.001", True), ("scan.v2", True), ("a.svs", False), ("a.txt", False),
        ("a.JSON", False), ("a.h5", False), ("a.isyntax", False), ("a.svs.gz", False), ("a.xlsx", False),
        ("model.safetensors", False), ("Data0001.dat", False), ("x.tif", False), ("a.xml", False),
    ],
)  # fmt: skip
def test_names_that_leave_it_open_what_a_file_is(name: str, may: bool) -> None:
    assert may_be_dicom(name) is may


def instance(
    path: str, uid: str, size: int = 1, *, kind: str = "VOLUME", series: str = "1.1", **more: str
) -> Instance:
    header = {"SOPClassUID": WHOLE_SLIDE_IMAGE, "SeriesInstanceUID": series, "SOPInstanceUID": uid,
              "ImageType": f"ORIGINAL\\PRIMARY\\{kind}\\NONE", **more}  # fmt: skip
    return Instance(Path("/root") / path, path, size, header)


def grouped(*instances: Instance) -> tuple[list[list[str]], list[str]]:
    slides, left = group_by_slide(sorted(instances, key=lambda each: each.relative))
    return [[each.relative for each in slide] for slide in slides], [each.relative for each in left]


def test_a_series_over_several_folders_is_one_slide_the_finest_level_first() -> None:
    parts = instance("a/1", "1", 5), instance("b/2", "2", 90), instance("c/3", "3", 20)
    assert grouped(*parts, instance("b/x", "9", series="1.2")) == ([["b/2", "c/3", "a/1"], ["b/x"]], [])


def test_two_pyramids_of_a_series_are_two_slides() -> None:
    for what in ("PyramidUID", "FrameOfReferenceUID", "ContainerIdentifier"):
        parts = [
            instance(f"{n}{m}", f"{n}{m}", 9 - m, **{what: str(n)}) for n in range(2) for m in range(2)
        ]  # fmt: skip
        assert grouped(*parts, instance("label", "8", 99, kind="LABEL"))[0] == [["00", "01"], ["10", "11"]]


def test_label_overview_and_thumbnail_do_not_make_a_second_slide() -> None:
    """Labels have neither pyramid nor, of some makers, the frame of reference; thumbnails of others no pyramid."""
    parts = (
        instance("a", "1", 50, PyramidUID="7", FrameOfReferenceUID="5"), instance("b", "2", 40, PyramidUID="7"),
        instance("l", "3", kind="LABEL", FrameOfReferenceUID="6"), instance("o", "4", 60, kind="OVERVIEW"),
        instance("t", "5", kind="THUMBNAIL", FrameOfReferenceUID="5"),
    )  # fmt: skip
    slides, left = grouped(*parts)
    assert sorted(slides[0]) == ["a", "b", "l", "o", "t"]
    assert (len(slides), left) == (1, [])


def test_a_second_copy_is_a_slide_of_its_own_and_a_part_of_one_is_none() -> None:
    first = instance("a/1", "1", 9), instance("a/2", "2")
    copy = instance("b/1", "1", 9), instance("b/2", "2")
    assert grouped(*first, *copy) == ([["a/1", "a/2"], ["b/1", "b/2"]], [])
    assert grouped(*first, copy[1], instance("b/3", "3")) == ([["a/1", "a/2", "b/3"]], ["b/2"])


def write_series(folder: Path, names: tuple[str, ...], series: str = "1.2.7") -> np.ndarray:
    """A pyramid, a level a file."""
    pixels = np.random.default_rng(7).integers(0, 256, (40, 50, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        level = pixels[:: 1 << number, :: 1 << number].copy()
        write_instance(
            folder / name, level, series=series, uid=f"{series}.{number + 1}", mpp=0.25 * (1 << number)
        )
    return pixels


def links() -> list[str]:
    return [each.name for each in Path(tempfile.gettempdir()).glob("*wsi-ncmi-dicom*")]


def test_split_levels_are_read_through_links_that_are_gone_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    write_series(tmp_path, ("whole/a", "whole/b", "whole/c"))
    write_series(tmp_path, ("x/a", "y/b", "z/c"))
    files = tuple(tmp_path / name for name in ("x/a", "y/b", "z/c"))
    with open_slide(files) as slide, open_slide(tmp_path / "whole" / "a") as whole:
        assert slide.files == files
        assert slide.levels == whole.levels
        assert len(slide.levels) == 3
        assert len(links()) == 2
        for level in range(3):
            ours, theirs = (each.read_region(0, 0, level, 100, 90) for each in (slide, whole))
            np.testing.assert_array_equal(ours, theirs)
    assert links() == []
    (tmp_path / "x" / "a").write_bytes((tmp_path / "x" / "a").read_bytes()[:400])
    with pytest.raises(SlideOpenError):
        open_slide(files[:1])
    assert links() == []


def test_what_a_killed_process_left_is_taken_away_and_what_is_open_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = (
        "import sys, time; from pathlib import Path; from wsi_ncmi.slides.dicom_series import LinkFolder\n"
        "links = LinkFolder([Path('a')]); print('made', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"made\n"
        mine = LinkFolder([Path("b")])
        assert len(links()) == 2
        child.send_signal(signal.SIGKILL)
    LinkFolder([Path("c")]).close()
    assert links() == [mine.main.parent.name]
    mine.close()
    assert links() == []


def test_a_file_alone_is_opened_with_those_of_its_slide_and_no_other(tmp_path: Path) -> None:
    """OpenSlide opens all files of a folder; a pipe among them would never answer."""
    write_series(tmp_path, ("a.dcm", "IM2"))
    write_series(tmp_path, ("other.dcm",), series="1.2.8")
    os.mkfifo(tmp_path / "notes.txt")
    os.mkfifo(tmp_path / "IM3")
    with open_slide(tmp_path / "IM2") as slide:
        assert [file.name for file in slide.files] == ["IM2", "a.dcm"]
        assert len(slide.levels) == 2
