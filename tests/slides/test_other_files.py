"""Slides of several files, files under another name, and files that this user may not read."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.slides.dicom_slide import write_instance
from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides import Slide, open_slide, take_inventory
from wsi_ncmi.slides.discovery import find_slides
from wsi_ncmi.slides.inspection import inspect_slide


def test_a_dicom_series_is_opened_whole_from_any_of_its_files(tmp_path, kit):
    pixels = kit.texture(500, 400)
    write_instance(tmp_path / "zz.dcm", pixels, series="1.2.77", uid="1.2.77.1", mpp=0.25)
    write_instance(tmp_path / "aa.dcm", pixels[::2, ::2].copy(), series="1.2.77", uid="1.2.77.2", mpp=0.5)
    (record,) = take_inventory(tmp_path)
    assert (record.path, record.reader, record.vendor, record.problem) == ("zz.dcm", "openslide", "dicom", "")
    assert (record.width_px, record.height_px, record.n_levels, record.mpp_x) == (500, 400, 2, 0.25)
    assert record.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    regions = []
    for name in ("zz.dcm", "aa.dcm"):
        with open_slide(tmp_path / name) as slide:
            regions.append(slide.read_region(0, 0, 0, 500, 400))
    np.testing.assert_array_equal(*regions)
    assert np.abs(regions[0].astype(int) - pixels).mean() < 6


def opened_or_refused(path: Path) -> Slide | None:
    try:
        return open_slide(path)
    except SlideOpenError as error:
        text = str(error)
    assert text.startswith(path.name)
    return None


@pytest.mark.parametrize("name", ["slide.png", "slide.mrxs", "slide.ndpi", "slide.dcm", "slide.tiff"])
def test_a_slide_under_another_name_is_read_by_its_content_or_refused(tmp_path, svs, name):
    path = tmp_path / name
    shutil.copy(svs, path)
    with open_slide(svs) as sound:
        expected = sound.read_region(0, 0, 0, 700, 600)
    slide = opened_or_refused(path)
    if slide is None:
        return
    with slide:
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 700, 600), expected)


@pytest.mark.parametrize("name", ["photo.svs", "photo.ndpi", "photo.mrxs", "photo.dcm", "photo.tif"])
def test_a_picture_named_as_a_slide_is_a_picture_or_refused(tmp_path, kit, name):
    Image.fromarray(kit.texture(90, 70)).save(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / name)
    slide = opened_or_refused(tmp_path / name)
    if slide is None:
        return
    with slide:
        assert slide.vendor == "image"
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 90, 70), kit.texture(90, 70))


@pytest.mark.parametrize("content", [b"not a slide " * 40, b"II*\0", b"\x89PNG\r\n\x1a\n", b"\0" * 5000])
def test_what_is_no_slide_gets_one_sentence_under_any_name(tmp_path, content):
    names = ["a.svs", "b.tif", "c.mrxs", "d.ndpi", "e.dcm", "f.png", "g.czi", "h.vms"]
    for name in names:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SlideOpenError) as caught:
            open_slide(tmp_path / name)
        assert str(caught.value).startswith(name)
        assert str(tmp_path) not in str(caught.value)
    records = take_inventory(tmp_path)
    assert sorted(record.path for record in records) == names
    assert all(record.problem for record in records)


def as_nobody(act: Callable[[], None]) -> None:
    """Runs something as a user without rights; root may read everything, so the child gives its rights away."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_files_and_folders_without_permission_are_rows_with_the_reason(svs):
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        root = Path(name)
        root.chmod(0o755)
        (root / "closed").mkdir()
        for file in ("locked.svs", "open.svs", "closed/inside.svs"):
            shutil.copy(svs, root / file)
            (root / file).chmod(0o644)
        (root / "locked.svs").chmod(0)
        (root / "closed").chmod(0)
        open_slide(svs).close()  # what is imported now need not be read by the child

        def act() -> None:
            found = {slide.relative: slide for slide in find_slides(root)}  # this user may not start Python
            ids = {"open": "open.svs", "locked": "locked.svs", "closed": "closed"}
            records = {name: inspect_slide(found[path], name, None, None) for name, path in ids.items()}
            assert records["open"].problem == ""
            assert (
                records["locked"].problem
                == "locked.svs can't be read (Permission denied); check its permissions."
            )
            assert records["closed"].problem == (
                "The folder closed can't be listed (Permission denied); check its permissions."
            )
            with pytest.raises(SlideOpenError, match=r"locked\.svs can't be read \(Permission denied\)"):
                open_slide(root / "locked.svs")

        as_nobody(act)
        (root / "closed").chmod(0o755)
