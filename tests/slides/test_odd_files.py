"""Names, kinds and contents of files that must cost themselves a row with its reason and nothing else."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import struct
import unicodedata

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.slides.dicom_slide import write_instance
from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides import open_slide, read_slides_csv, take_inventory, write_slides_csv
from wsi_ncmi.slides.discovery import find_slides
from wsi_ncmi.slides.identity import assign_slide_ids
from wsi_ncmi.slides.tiff_layout import read_tiff_layout

ODD_NAMES = {
    "back\\slash.svs": "holds a backslash",
    "carriage\rreturn.svs": "holds a control character",
    "line\nfeed.svs": "holds a control character",
    "bell\x07.svs": "holds a control character",
    "escape\x1b[31m.svs": "holds a control character",
    "next\x85line.svs": "holds a control character",
    "paragraph\u2029.svs": "holds a control character",
    os.fsdecode(b"caf\xe9.svs"): "is not valid UTF-8",
    "x" * 221 + ".svs": "has 221 bytes",
    "字" * 74 + ".svs": "has 222 bytes",
}


def test_names_that_results_can_not_bear_cost_themselves_a_row(tmp_path, svs):
    root = tmp_path / "s"
    (root / "sub\r").mkdir(parents=True)
    for name in (*ODD_NAMES, "sub\r/in.svs", "sound.svs", "x" * 220 + ".svs", "spaces and ünï.svs"):
        (root / name).symlink_to(svs)
    records = take_inventory(root)
    problems = sorted(record.problem for record in records if record.problem)
    assert len(problems) == len(ODD_NAMES) + 1
    for reason in ODD_NAMES.values():
        assert any(reason in problem for problem in problems)
    assert sum(not record.problem for record in records) == 3
    assert len({record.slide_id for record in records}) == len(records)
    write_slides_csv(records, tmp_path / "slides.csv")
    assert read_slides_csv(tmp_path / "slides.csv") == records
    with (tmp_path / "slides.csv").open(newline="", encoding="utf-8") as handle:
        assert len(list(csv.reader(handle))) == len(records) + 1
    for record in records:
        assert not set(record.slide_id) & set("\\/\r\n")
        assert len(record.slide_id.encode()) <= 220


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sets(
        st.binary(min_size=1, max_size=250).filter(lambda n: not set(n) & {0, 47} and n[:1] != b"."), min_size=1, max_size=6
    )
)  # fmt: skip
def test_any_names_give_ids_and_paths_of_their_own_that_can_be_shown(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("names")
    for name in names:
        (root / os.fsdecode(name + b".svs")).touch()
    slides = find_slides(root)
    ids = assign_slide_ids([slide.relative for slide in slides])
    assert len(ids) == len(set(ids)) == len(names)
    for slide, slide_id in zip(slides, ids, strict=True):
        shown = slide.relative + slide.problem + slide_id
        assert not [character for character in shown if unicodedata.category(character) in ("Cc", "Cs", "Zl")]
        (root / f".{slide_id}.geojson.1234567-01234567.partial").touch()


def special(kind, path):
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as listener:
            here = os.open(path.parent, os.O_RDONLY)
            listener.bind(f"/proc/self/fd/{here}/{path.name}")  # such addresses are short
            os.close(here)
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device"])
@pytest.mark.parametrize("name", ["x.svs", "x.dcm", "x.vms", "x.tif"])
def test_what_is_no_file_is_a_row_and_is_never_opened(tmp_path, svs, kind, name):
    special(kind, tmp_path / name)
    (tmp_path / "link.svs").symlink_to(tmp_path / name)
    shutil.copy(svs, tmp_path / "sound.svs")
    slides = {slide.relative: slide.problem for slide in find_slides(tmp_path)}
    assert slides[name] == f"{name} is {kind}, not a file; remove it."
    assert slides["link.svs"] == f"link.svs is {kind}, not a file; remove it."
    assert slides["sound.svs"] == ""
    assert find_slides(tmp_path / name)[0].problem == slides[name]
    with pytest.raises(SlideOpenError, match=f"is {kind}"):
        open_slide(tmp_path / name)


def test_a_pipe_among_the_files_of_a_slide_is_none_of_them(tmp_path):
    (tmp_path / "a.mrxs").write_text("x")
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "Data0000.dat")
    (tmp_path / "b.vms").write_text("[x]\nImageFile=p.jpg\n")
    os.mkfifo(tmp_path / "p.jpg")
    os.mkfifo(tmp_path / "IM0001")
    slides = {slide.relative: slide for slide in find_slides(tmp_path)}
    assert slides["a.mrxs"].companions == slides["b.vms"].companions == ()
    assert "IM0001" not in slides
    for name, pipe in (("a.mrxs", "Data0000.dat"), ("b.vms", "p.jpg")):
        told = f"{name} is read together with the files beside it, and {pipe} is a named pipe, "
        assert (
            slides[name].problem == find_slides(tmp_path / name)[0].problem == told + "not a file; remove it."
        )


@pytest.mark.parametrize("pipe", ["q.dcm", "IM0002", ".hidden", "notes.txt"])
def test_a_pipe_beside_a_dicom_slide_is_not_in_its_way(tmp_path, pipe):
    """OpenSlide opens every file of a DICOM slide's folder, and would wait at the pipe for ever."""
    pixels = np.full((64, 64, 3), 200, np.uint8)
    write_instance(tmp_path / "a.dcm", pixels, series="1.2.3", uid="1.2.3.1", mpp=0.5, edge=64)
    os.mkfifo(tmp_path / pipe)
    problems = {record.path: record.problem for record in take_inventory(tmp_path)}
    assert problems.pop("a.dcm") == ""
    assert set(problems) == ({"q.dcm"} & {pipe})


def shared_table(directories: int, tiles: int) -> bytes:
    """A TIFF whose directories all point at one table of tiles: each costs memory, the file is small."""
    table = struct.pack("<I", 8) * tiles
    start = 8 + len(table)
    tags = (
        (256, 4, 1, 64),
        (257, 4, 1, 64),
        (322, 4, 1, 64),
        (323, 4, 1, 64),
        (324, 4, tiles, 8),
        (325, 4, tiles, 8),
    )
    size = 2 + 12 * len(tags) + 4
    data = b"II*\0" + struct.pack("<I", start) + table
    for number in range(directories):
        following = start + (number + 1) * size if number + 1 < directories else 0
        data += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        data += struct.pack("<I", following)
    return data


def overlapping(count: int) -> bytes:
    """A TIFF whose sub-directories begin at every other byte of one blank area."""
    offsets = struct.pack(f"<{count}I", *range(40, 40 + 2 * count, 2))
    data = bytearray(b"II*\0" + struct.pack("<I", 200_000) + bytes(200_000 - 8))
    for place in range(40, 40 + 2 * count, 2):
        data[place : place + 2] = struct.pack("<H", 3000)
    data += struct.pack("<HHHII", 1, 330, 4, count, 200_018) + bytes(4) + offsets
    return bytes(data)


@pytest.mark.parametrize(
    "data", [shared_table(2000, 100_000), overlapping(2000)], ids=["tables", "directories"]
)
def test_directories_that_share_bytes_are_damage_and_cost_no_memory(tmp_path, data):
    import tracemalloc

    (tmp_path / "bomb.tif").write_bytes(data)
    tracemalloc.start()
    layout = read_tiff_layout(tmp_path / "bomb.tif")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "overlap" in layout.damage
    assert peak < 40 * len(data)
