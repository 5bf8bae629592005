"""The inventory of DICOM slides: ids, files in several folders, pseudonyms, and which files are opened."""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import os
import stat
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.slides.dicom_slide import write_instance
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.slides import SlideRecord, open_slide, read_slides_csv, take_inventory, write_slides_csv
from wsi_ncmi.slides.discovery import find_slides
from wsi_ncmi.slides.found import name_slides
from wsi_ncmi.slides.inventory import earlier_records
from wsi_ncmi.slides.pseudonyms import make_key, pseudonym, read_key


def add_slide(root: Path, *names: str, series: str = "1.2.7", **tags: str) -> None:
    """A slide of a level a file; the first has the finest."""
    pixels = (
        np.random.default_rng(len(series)).integers(0, 256, (16, 16, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    )
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        level = pixels[:: 1 << number, :: 1 << number].copy()
        write_instance(path, level, series=series, uid=f"{series}.{number + 1}", mpp=0.25 * (1 << number))
        data = pydicom.dcmread(path)
        for keyword, value in tags.items():
            setattr(data, keyword, value)
        data.save_as(path)


def ids(root: Path, dicom_id: str = "container", given: dict[str, str] | None = None) -> dict[str, str]:
    found = find_slides(root, remark=lambda _: None)
    return dict(zip([slide.relative for slide in found], name_slides(found, given, dicom_id), strict=True))


def test_slides_are_called_by_container_series_or_file(tmp_path: Path) -> None:
    add_slide(tmp_path, "a.dcm", series="1.2.1", ContainerIdentifier="S24-1 A1")
    add_slide(tmp_path, "b.dcm", series="1.2.2", ContainerIdentifier="S24/2:B*")
    add_slide(tmp_path, "c.dcm", series="1.2.3", ContainerIdentifier="twice")
    add_slide(tmp_path, "d.dcm", series="1.2.4", ContainerIdentifier="twice")
    add_slide(tmp_path, "IM0005", series="1.2.5", ContainerIdentifier="Unknown")
    add_slide(tmp_path, "f.dcm", series="1.2.6")
    (tmp_path / "S24-1 A1.txt").write_text("no slide")
    assert ids(tmp_path) == {
        "a.dcm": "S24-1 A1", "b.dcm": "S24_2_B_", "c.dcm": "1.2.3", "d.dcm": "1.2.4", "IM0005": "1.2.5",
        "f.dcm": "1.2.6",
    }  # fmt: skip
    assert ids(tmp_path, "series") == {f"{name}.dcm": f"1.2.{n}" for n, name in enumerate("abcd", 1)} | {
        "IM0005": "1.2.5", "f.dcm": "1.2.6",
    }  # fmt: skip
    assert list(ids(tmp_path, "file").values()) == ["IM0005", "a", "b", "c", "d", "f"]


def test_two_copies_of_a_series_share_container_and_series_and_are_called_by_their_files(
    tmp_path: Path,
) -> None:
    for folder in ("a", "b"):
        add_slide(tmp_path, f"{folder}/x.dcm", ContainerIdentifier="S1")
    assert list(ids(tmp_path).values()) == ["a__x", "b__x"]
    assert [record.duplicate_of for record in take_inventory(tmp_path)] == ["", "a__x"]


@pytest.mark.parametrize("earlier", ["1.2.7.1", "S24-1", "1.2.7"])
@pytest.mark.parametrize("now", ["container", "series", "file"])
def test_an_id_of_an_earlier_job_stays_whatever_it_is_made_of(tmp_path: Path, earlier: str, now: str) -> None:
    """0.1.0 called slides by their file, often the UID of an object: its features are found again."""
    add_slide(tmp_path, "1.2.7.1.dcm", ContainerIdentifier="S24-1")
    assert ids(tmp_path, now, {"1.2.7.1.dcm": earlier}) == {"1.2.7.1.dcm": earlier}
    assert ids(tmp_path, "container", {"1.2.7.1.dcm": "S24-2"}) == {"1.2.7.1.dcm": "S24-1"}


def test_the_id_of_a_slide_that_is_gone_is_not_given_again(tmp_path: Path) -> None:
    add_slide(tmp_path, "b.dcm", series="1.2.8", ContainerIdentifier="S24-1")
    assert ids(tmp_path, given={"gone.dcm": "S24-1"}) == {"b.dcm": "1.2.8"}


def test_a_slide_in_several_folders_is_one_record_that_opens_again(tmp_path: Path) -> None:
    root = tmp_path / "slides"
    add_slide(root, "x/1", "y/2", "y/deep/3", ContainerIdentifier="S1", StudyInstanceUID="1.9")
    add_slide(tmp_path / "one", "1", "2", "3", ContainerIdentifier="S1", StudyInstanceUID="1.9")
    (record,), (whole,) = take_inventory(root), take_inventory(tmp_path / "one")
    parts = sorted(("x/1", "y/2", "y/deep/3"), key=lambda name: -(root / name).stat().st_size)
    assert (record.problem, record.n_levels, record.path) == ("", 3, parts[0])
    assert (record.container_id, record.series_uid, record.study_uid) == ("S1", "1.2.7", "1.9")
    assert (record.slide_id, record.fingerprint, record.size_bytes) == (
        whole.slide_id, whole.fingerprint, whole.size_bytes,
    )  # fmt: skip
    table = tmp_path / "slides.csv"
    write_slides_csv([record], table)
    (again,) = read_slides_csv(table)
    assert again == record
    assert again.files(root) == tuple(root / name for name in parts)
    with open_slide(again.files(root)) as slide:
        assert len(slide.levels) == 3
    assert earlier_records(table, root) == {parts[0]: record}
    (root / "y" / "2").write_bytes(b"other")
    assert earlier_records(table, root) == {}


def test_records_of_earlier_versions_open_what_lies_in_the_folder(tmp_path: Path) -> None:
    add_slide(tmp_path, "1", "2")
    (record,) = take_inventory(tmp_path)
    old = SlideRecord(*[getattr(record, name) for name in list(SlideRecord.__dataclass_fields__)[:16]])
    assert old.files(tmp_path) == tmp_path / record.path
    with open_slide(old.files(tmp_path)) as slide:
        assert len(slide.levels) == 2


def test_damaged_and_deflated_objects_are_rows_of_one_sentence(tmp_path: Path) -> None:
    add_slide(tmp_path, "good.dcm", "cut.dcm", "IM4")
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "cut.dcm").read_bytes()[:300])
    data = pydicom.dcmread(tmp_path / "IM4")
    for keyword in ("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        data.pop(keyword, None)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "IM4")
    problems = {record.path: record.problem for record in take_inventory(tmp_path)}
    assert problems["good.dcm"] == ""
    assert problems["cut.dcm"].startswith("cut.dcm is a DICOM file with a damaged header (")
    assert problems["IM4"] == (
        "IM4 is a DICOM image that is deflated as a whole; inflate it, for example with dcmconv +te."
    )


def test_pseudonyms_are_keyed_hashes_and_nothing_else_of_the_patient(tmp_path: Path) -> None:
    root = tmp_path / "slides"
    patient = {"PatientName": "Doe^Jane", "PatientID": "MRN-77", "IssuerOfPatientID": "Clinic"}
    add_slide(root, "a.dcm", series="1.2.1", **patient)
    add_slide(root, "b.dcm", series="1.2.2", **patient)
    add_slide(root, "c.dcm", series="1.2.3", **{**patient, "IssuerOfPatientID": "Other"})
    add_slide(root, "d.dcm", series="1.2.4")
    make_key(tmp_path / "site.key")
    key = read_key(tmp_path / "site.key")
    records = take_inventory(root, patient_key=key)
    expected = hmac.new(key, b"MRN-77\0Clinic", hashlib.sha256).hexdigest()[:32]
    names = [record.case_id for record in records]
    assert names[:2] == [expected, expected]
    assert len(names[2]) == 32
    assert names[2] != expected
    assert names[3] == ""
    write_slides_csv(records, tmp_path / "slides.csv")
    text = (tmp_path / "slides.csv").read_text()
    assert expected in text
    assert not any(word in text for word in ("Doe", "MRN", "Clinic", key.decode()))
    assert [record.case_id for record in take_inventory(root)] == ["", "", "", ""]


def test_pseudonyms_under_another_key_are_others(tmp_path: Path) -> None:
    for name in ("1", "2"):
        make_key(tmp_path / name)
    keys = [read_key(tmp_path / name) for name in ("1", "2")]
    assert len({pseudonym(key, "MRN-77", "") for key in keys}) == 2
    assert pseudonym(keys[0], " MRN-77 ", "") == pseudonym(keys[0], "MRN-77", "")
    assert pseudonym(keys[0], "MRN-7", "7") != pseudonym(keys[0], "MRN-77", "")
    assert pseudonym(keys[0], "unknown", "x") == ""


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "site.key"
    with pytest.raises(InputError, match="make one, once for a site"):
        read_key(path)
    make_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = read_key(path)
    assert (len(key), caplog.text) == (64, "")
    with pytest.raises(InputError, match=r"There is a key .* already"):
        make_key(path)
    assert read_key(path) == key
    path.chmod(0o644)
    assert read_key(path) == key
    assert "chmod 600 site.key" in caplog.text
    for content in (b"", b"short", b"x" * 5000):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is no key of pseudonyms"):
            read_key(path)
    with pytest.raises(InputError, match="name another file"):
        make_key(tmp_path / "none" / "key")


class Opened:
    """Names of the files of folders that any process opens, as the kernel tells (inotify)."""

    def __init__(self, *folders: Path) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._handle = library.inotify_init1(os.O_NONBLOCK)
        for folder in folders:
            assert library.inotify_add_watch(self._handle, os.fsencode(folder), 0x20) > 0  # IN_OPEN

    def names(self) -> set[str]:
        found = set()
        content = os.read(self._handle, 1 << 20)
        while content:
            *_, length = struct.unpack_from("iIII", content)
            found.add(content[16 : 16 + length].rstrip(b"\0").decode())
            content = content[16 + length :]
        os.close(self._handle)
        return found - {""}  # the folder itself


def test_no_file_is_opened_that_its_name_rules_out(tmp_path: Path) -> None:
    add_slide(tmp_path, "IM1", "sub/1.2.840.1", "sub/level.dcm")
    others = (
        "notes.txt", "labels.csv", "x.json", "x.geojson", "x.xml", "thumb.svg", "x.h5", "x.pt", "x.xlsx", "x.log",
        "x.kfb", "x.svs.gz", "x.zip", "x.yaml", "x.qpdata", "x.docx",
    )  # fmt: skip
    for number, name in enumerate(others):
        (tmp_path / ("sub" if number % 2 else "") / name).write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "README").write_text("no slide")
    opened = Opened(tmp_path, tmp_path / "sub")
    records = take_inventory(tmp_path)
    assert [record.n_levels for record in records if not record.problem] == [3]
    assert opened.names() - {"sub"} == {"IM1", "1.2.840.1", "level.dcm", "README"}
