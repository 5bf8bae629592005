"""The header of DICOM files: what is read, what is never read, damage and bounds."""

from __future__ import annotations

import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from tests.slides.dicom_slide import write_instance
from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides.dicom_header import (
    DEFLATED,
    IDENTIFYING,
    WHOLE_SLIDE_IMAGE,
    read_dicom,
    read_dicom_header,
)

SERIES = "1.2.840.77"


def save(path: Path, syntax: str = JPEGBaseline8Bit, **elements: object) -> Path:
    """Writes a header by pydicom, with a decoy: the series of another slide in a sequence before it."""
    other, item = Dataset(), Dataset()
    other.SeriesInstanceUID = "9.9.9"
    item.ReferencedInstanceSequence = Sequence([other])
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = WHOLE_SLIDE_IMAGE, "1.2.840.77.1"
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.ReferencedSeriesSequence = Sequence([item])
    data.PatientName, data.PatientID = "Doe^Jane", "MRN-1"
    data.SeriesInstanceUID, data.ContainerIdentifier = SERIES, "S24-1 A1"
    data.TotalPixelMatrixColumns = 512
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_what_tells_a_slide_is_read_and_nothing_of_the_patient(tmp_path: Path, syntax: str) -> None:
    header = read_dicom_header(save(tmp_path / "a", syntax))
    assert header is not None
    assert header["SeriesInstanceUID"] == SERIES
    assert header["ImageType"] == "ORIGINAL\\PRIMARY\\VOLUME\\NONE"
    assert header["ContainerIdentifier"] == "S24-1 A1"
    assert "Doe" not in str(header)
    assert "MRN" not in str(header)


def test_texts_are_read_in_their_character_set(tmp_path: Path) -> None:
    path = save(tmp_path / "a", SpecificCharacterSet="ISO_IR 192", ContainerIdentifier="Präparat Ü-1")
    assert (read_dicom_header(path) or {})["ContainerIdentifier"] == "Präparat Ü-1"


@pytest.mark.parametrize("content", [b"", b"DICM", b"\0" * 128 + b"DIC", b"x" * 4000])
def test_other_files_are_no_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert read_dicom_header(tmp_path / "a") is None


def answer(path: Path) -> dict[str, str]:
    """Its header; nothing where it is a damaged one, which is one sentence."""
    try:
        return read_dicom_header(path) or {}
    except SlideOpenError as error:
        text = str(error)
    assert text.startswith(f"{path.name} is a DICOM file with a damaged header (")
    assert text.endswith("; copy it again.")
    assert str(path.parent) not in text
    assert "\n" not in text
    return {}


def test_a_cut_header_is_a_damaged_one_or_lacks_what_was_cut(tmp_path: Path) -> None:
    whole = save(tmp_path / "a").read_bytes()
    series = whole.index(SERIES.encode())
    for length in range(133, series + len(SERIES) - 1):
        (tmp_path / "b").write_bytes(whole[:length])
        assert "SeriesInstanceUID" not in answer(tmp_path / "b")


def nested(depth: int) -> bytes:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return (struct.pack("<HH2sHI", 8, 0x1115, b"SQ", 0, 0xFFFFFFFF) + item) * depth


@pytest.mark.parametrize(
    "damage",
    [
        nested(4000),
        struct.pack("<HH2sHI", 8, 0x16, b"UT", 0, 0xFFFFFFF0),
        struct.pack("<HH2sHI", 9, 0x10, b"OB", 0, 0xFFFFFFFF) + bytes(3 << 20),
        struct.pack("<HH2sH", 8, 5, b"CS", 4) + b"\xff\xfe\0\\",
        struct.pack("<HH2sH", 8, 8, b"\0\1", 3),
    ],
    ids=["sequences without end", "a text of 4 GiB", "bytes without end", "character set", "kind"],
)
def test_hostile_headers_are_one_sentence_of_bounded_work(tmp_path: Path, damage: bytes) -> None:
    whole = save(tmp_path / "a").read_bytes()
    start = whole.index(struct.pack("<HH2s", 8, 8, b"CS"))
    (tmp_path / "b").write_bytes(whole[:start] + damage + whole[start:])
    assert "9.9.9" not in answer(tmp_path / "b").values()


def test_any_damage_is_an_answer_or_one_sentence(tmp_path: Path) -> None:
    whole = np.frombuffer(save(tmp_path / "a").read_bytes(), np.uint8)
    rng = np.random.default_rng(1)
    for _ in range(200):
        spoilt = whole.copy()
        spoilt[rng.integers(132, len(whole), 6)] = rng.integers(0, 256, 6)
        (tmp_path / "b").write_bytes(spoilt.tobytes())
        assert all(isinstance(value, str) for value in answer(tmp_path / "b").values())


def test_values_before_the_pixels_are_passed_over_without_reading_them(tmp_path: Path) -> None:
    """Twenty MiB of something before what is asked for, where one MiB may be read."""
    path = save(tmp_path / "a", ExplicitVRLittleEndian)
    whole = path.read_bytes()
    start = whole.index(struct.pack("<HH2s", 0x10, 0x10, b"PN"))
    large = struct.pack("<HH2sHI", 9, 0x1010, b"OB", 0, 20 << 20) + bytes(20 << 20)
    path.write_bytes(whole[:start] + large + whole[start:])
    assert (read_dicom_header(path) or {})["SeriesInstanceUID"] == SERIES


def test_a_deflated_object_is_never_inflated(tmp_path: Path) -> None:
    path = save(tmp_path / "a", DeflatedExplicitVRLittleEndian)
    header = read_dicom_header(path)
    assert header is not None
    assert header["TransferSyntaxUID"] == DEFLATED
    assert header["SOPClassUID"] == WHOLE_SLIDE_IMAGE
    assert "SeriesInstanceUID" not in header
    content = path.read_bytes()
    bomb = zlib.compressobj(9, wbits=-15)
    at = content.index(DEFLATED.encode()) + len(DEFLATED)
    path.write_bytes(content[:at] + bomb.compress(bytes(1 << 26)) + bomb.flush())
    assert "SeriesInstanceUID" not in answer(path)


def test_the_offset_of_the_pixels(tmp_path: Path) -> None:
    path = save(tmp_path / "a", ExplicitVRLittleEndian)
    length = path.stat().st_size
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 4) + b"abcd")
    read = read_dicom(path, ("TotalPixelMatrixColumns", "PixelData"))
    assert read is not None
    assert (read[0].TotalPixelMatrixColumns, read[1]) == (512, length)


@pytest.mark.real_data
def test_headers_of_real_objects_are_what_pydicom_reads(real_data: Path) -> None:
    import pydicom

    paths = sorted((real_data / "dicom").glob("*.dcm"))
    for path in paths:
        header = read_dicom_header(path)
        assert header is not None
        with warnings.catch_warnings(action="ignore"):
            reference = pydicom.dcmread(path, stop_before_pixels=True)
            for keyword in set(IDENTIFYING) - {"ImageType"}:
                assert header.get(keyword, "") == str(reference.get(keyword, "")), (path.name, keyword)
    assert len(paths) >= 11


@pytest.mark.parametrize("second", ["read_dicom_header(Path('a.dcm'))", "get_reader('dicom').is_available"])
def test_threads_that_read_while_the_parser_is_loaded_get_it_whole(tmp_path: Path, second: str) -> None:
    """One came while the package was half loaded, took up another module of it, and both got halves.

    Under load Python 3.11 at times takes two threads in one import for a deadlock, and lets one go on.
    """
    write_instance(tmp_path / "a.dcm", np.zeros((8, 8, 3), np.uint8), series="1.2.3", uid="1.2.3.1", mpp=0.5)
    code = f"""
import importlib._bootstrap, importlib.abc, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from wsi_ncmi.slides.dicom_header import read_dicom_header
from wsi_ncmi.slides.registry import get_reader

paused = threading.Event()


class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "pydicom.dataset" and not paused.is_set():
            paused.set()
            time.sleep(0.2)


lock = importlib._bootstrap._ModuleLock
acquire, loading = lock.acquire, []


def acquire_or_give_up(self):
    if self.name == "pydicom" and paused.is_set() and threading.get_ident() != loading[0]:
        raise importlib._bootstrap._DeadlockError
    return acquire(self)


lock.acquire = acquire_or_give_up


def read(number):
    if not number:
        loading.append(threading.get_ident())
        return read_dicom_header(Path("a.dcm"))
    assert paused.wait(20)
    return {second}


sys.meta_path.insert(0, Slow())
with ThreadPoolExecutor(2) as pool:
    assert all(pool.map(read, range(2)))
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
