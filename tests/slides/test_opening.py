"""Files that are no slide, or half of one: one sentence, never white pixels."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsi_ncmi.core.errors import SlideError, SlideOpenError
from wsi_ncmi.slides import open_slide


def _refusal(path) -> str:
    with pytest.raises(SlideOpenError) as caught:
        open_slide(path)
    text = str(caught.value)
    assert text.startswith(path.name)
    assert str(path.parent) not in text
    assert "\n" not in text
    return text


def test_text_named_svs_gets_the_reason_of_each_reader(tmp_path):
    path = tmp_path / "notes.svs"
    path.write_text("these are notes, not a slide\n" * 40)
    text = _refusal(path)
    for reader in ("openslide: ", "tiffslide: ", "image: "):
        assert reader in text


def test_empty_missing_and_folder(tmp_path):
    (tmp_path / "empty.svs").touch()
    assert "is empty (0 bytes)" in _refusal(tmp_path / "empty.svs")
    assert "No such file or directory" in _refusal(tmp_path / "none.svs")
    (tmp_path / "folder.svs").mkdir()
    assert "is a folder" in _refusal(tmp_path / "folder.svs")


def test_unreadable_file_names_the_permission(tmp_path, svs, monkeypatch):
    path = tmp_path / "locked.svs"
    shutil.copy(svs, path)
    path.chmod(0)
    if os.geteuid() == 0:  # root may read anything, so the system's answer to others is given by hand
        import pathlib

        honest = pathlib.Path.open

        def refuse(self, *arguments, **more):
            if self == path:
                raise PermissionError(13, "Permission denied", str(self))
            return honest(self, *arguments, **more)

        monkeypatch.setattr(pathlib.Path, "open", refuse)
    assert "(Permission denied); check its name and permissions" in _refusal(path)


def test_a_reader_that_is_not_installed_is_named(tmp_path, monkeypatch):
    import dataclasses

    from wsi_ncmi.slides import opening

    readers = [
        dataclasses.replace(reader, unavailable=lambda: "the package x can't be loaded")
        for reader in opening.list_readers()
    ]
    monkeypatch.setattr("wsi_ncmi.slides.registry.list_readers", lambda: tuple(readers))
    (tmp_path / "a.svs").write_text("x")
    assert "openslide: the package x can't be loaded; tiffslide: the package x can't be loaded" in _refusal(
        tmp_path / "a.svs"
    )


@pytest.mark.parametrize("kind", ["svs", "generic"])
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 1.0, exclude_max=True))
def test_a_slide_cut_anywhere_is_refused_or_read_exactly(tmp_path, request, kind, share):
    whole = request.getfixturevalue(kind)
    data = whole.read_bytes()
    path = tmp_path / whole.name
    path.write_bytes(data[: int(len(data) * share)])
    try:
        slide = open_slide(path)
    except SlideError:
        return
    with slide, open_slide(whole) as reference:  # only the label or macro image was cut
        for level in range(len(reference.levels)):
            size = reference.levels[level].width_px, reference.levels[level].height_px
            np.testing.assert_array_equal(
                slide.read_region(0, 0, level, *size), reference.read_region(0, 0, level, *size)
            )


def test_a_cut_slide_says_how_many_tiles_are_missing(tmp_path, svs, kit):
    offsets, _ = kit.level0_table(svs)
    data = bytearray(svs.read_bytes())
    # The directory stays whole: the table of one tile points behind the end of the file.
    place = data.index(offsets[3].to_bytes(4, "little") + offsets[4].to_bytes(4, "little"))
    data[place : place + 4] = (len(data) + 5).to_bytes(4, "little")
    path = tmp_path / "cut.svs"
    path.write_bytes(data)
    assert f"1 of its {len(offsets)} stored tiles lie beyond its end at byte {len(data)}" in _refusal(path)
