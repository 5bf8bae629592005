"""Which files of a folder are slides."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.slides.discovery import find_slides


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def _names(root: Path) -> list[str]:
    return [slide.relative for slide in find_slides(root)]


def test_nested_mixed_formats_in_the_order_of_their_paths(tmp_path):
    _touch(
        tmp_path,
        "b/c/x.NDPI",
        "b/x.svs",
        "a.tif",
        "z/y.jpeg",
        "notes.txt",
        "labels.csv",
        "b/.hidden.svs",
        ".git/x.svs",
        "b/._x.svs",
    )
    assert _names(tmp_path) == ["a.tif", "b/c/x.NDPI", "b/x.svs", "z/y.jpeg"]


def test_loops_of_links_end_and_linked_folders_count_once(tmp_path):
    root = tmp_path / "root"
    _touch(root, "real/a.svs")
    _touch(tmp_path, "outside/deep/b.svs")
    (root / "again").symlink_to(root / "real")
    (root / "real" / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "elsewhere").symlink_to(tmp_path / "outside")
    assert _names(root) == ["elsewhere/deep/b.svs", "real/a.svs"]


def test_links_that_lead_nowhere_are_listed_with_the_problem(tmp_path):
    (tmp_path / "gone.svs").symlink_to(tmp_path / "nothing")
    (tmp_path / "round.svs").symlink_to(tmp_path / "round.svs")
    slides = find_slides(tmp_path)
    assert [slide.problem for slide in slides] == [
        "gone.svs is a link that leads nowhere; repair or remove it.",
        "round.svs is a link that leads nowhere; repair or remove it.",
    ]


def test_mrxs_and_its_folder_are_one_slide(tmp_path):
    _touch(
        tmp_path,
        "x.mrxs",
        "x/Slidedat.ini",
        "x/Index.dat",
        "x/Data0000.dat",
        "x/preview.jpg",
        "y/z.svs",
        "lost/Slidedat.ini",
        "lost/Data0000.dat",
    )
    slides = find_slides(tmp_path)
    assert [slide.relative for slide in slides] == ["lost/Slidedat.ini", "x.mrxs", "y/z.svs"]
    assert [path.name for path in slides[1].companions] == [
        "Data0000.dat",
        "Index.dat",
        "Slidedat.ini",
        "preview.jpg",
    ]
    assert slides[0].problem.startswith("lost holds MIRAX data without its file lost.mrxs")
    assert find_slides(tmp_path / "x.mrxs")[0].companions == slides[1].companions


def test_the_jpegs_of_a_vms_slide_are_not_slides(tmp_path):
    _touch(tmp_path, "s-1.jpg", "s-2.jpg", "s.opt", "other.jpg")
    (tmp_path / "s.vms").write_text(
        "[Virtual Microscope Specimen]\nImageFile=s-1.jpg\nImageFile(1,0)=s-2.jpg\nOptimisationFile=s.opt\n"
    )
    slides = find_slides(tmp_path)
    assert [slide.relative for slide in slides] == ["other.jpg", "s.vms"]
    assert [path.name for path in slides[1].companions] == ["s-1.jpg", "s-2.jpg", "s.opt"]


def test_pictures_of_a_slide_beside_it_are_not_slides(tmp_path):
    _touch(
        tmp_path,
        "x.svs",
        "x.jpg",
        "x_label.png",
        "x-macro.JPG",
        "x_thumbnail.png",
        "x_roi.png",
        "y.png",
        "sub/x.jpg",
    )
    assert _names(tmp_path) == ["sub/x.jpg", "x.svs", "x_roi.png", "y.png"]


def test_a_folder_that_can_not_be_listed_is_reported(tmp_path, monkeypatch):
    _touch(tmp_path, "a.svs", "locked/b.svs")
    honest = os.scandir

    def scandir(folder):  # root may list anything, so the system's answer to others is given by hand
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return honest(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    slides = find_slides(tmp_path)
    assert [(slide.relative, slide.problem) for slide in slides] == [
        ("a.svs", ""),
        ("locked", "The folder locked can't be listed (Permission denied); check its permissions."),
    ]
    with pytest.raises(InputError, match="can't be listed"):
        find_slides(tmp_path / "locked")


def test_names_that_are_not_utf8_are_reported(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.svs")).write_bytes(b"x")
    (slide,) = find_slides(tmp_path)
    assert slide.relative == "caf\\xe9.svs"
    assert "rename" in slide.problem


def test_a_root_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="give the folder that holds the slides"):
        find_slides(tmp_path / "none")
    assert find_slides(tmp_path) == ()


def _element(tag: tuple[int, int], kind: bytes, value: bytes, implicit: bool = False) -> bytes:
    head = struct.pack("<HH", *tag)
    if implicit:
        return head + struct.pack("<I", len(value)) + value
    if kind in (b"SQ", b"OB", b"UN"):
        return head + kind + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + kind + struct.pack("<H", len(value)) + value


def _dicom(uid: str, *, implicit=False, size=0, undefined=True) -> bytes:
    """A DICOM header after PS3.5 with a decoy: the series of a referenced slide inside a sequence."""
    syntax = b"1.2.840.10008.1.2\0" if implicit else b"1.2.840.10008.1.2.4.50"
    decoy = _element((0x20, 0xE), b"UI", b"9.9.9.9\0", implicit)
    if undefined:
        item = (
            struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + decoy + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
        )
        sequence = (
            struct.pack("<HH", 8, 0x1115) + (b"" if implicit else b"SQ\0\0") + struct.pack("<I", 0xFFFFFFFF)
        )
        sequence += item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    else:
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(decoy)) + decoy
        sequence = _element((8, 0x1115), b"SQ", item, implicit)
    text = uid.encode() + b"\0" * (len(uid) % 2)
    return (
        bytes(128) + b"DICM" + _element((2, 1), b"OB", b"\0\1") + _element((2, 0x10), b"UI", syntax)
        + _element((8, 8), b"CS", b"ORIGINAL", implicit) + sequence
        + _element((0x10, 0x10), b"PN", b"Doe^Jane", implicit) + _element((0x20, 0xE), b"UI", text, implicit)
        + _element((0x7FE0, 0x10), b"OB", bytes(size), implicit)
    )  # fmt: skip


def test_a_dicom_series_is_one_slide_represented_by_its_largest_file(tmp_path):
    for name, uid, size in (
        ("s/1.dcm", "1.2", 10),
        ("s/2.dcm", "1.2", 900),
        ("s/3.dcm", "1.2", 900),
        ("s/4.dcm", "1.3", 5),
        ("t/1.dcm", "1.2", 7),
    ):
        _touch(tmp_path, name)
        (tmp_path / name).write_bytes(_dicom(uid, size=size))
    _touch(tmp_path, "s/no.dcm")
    slides = find_slides(tmp_path)
    assert [(slide.relative, [path.name for path in slide.companions]) for slide in slides] == [
        ("s/2.dcm", ["3.dcm", "1.dcm", "1.dcm"]), ("s/4.dcm", []), ("s/no.dcm", []),
    ]  # fmt: skip
    assert slides[0].companions[2] == tmp_path / "t" / "1.dcm"
    assert find_slides(tmp_path / "s" / "1.dcm")[0].path == tmp_path / "s" / "2.dcm"
