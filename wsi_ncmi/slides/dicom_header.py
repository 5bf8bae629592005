"""The few elements of a DICOM file that tell what it is, read by pydicom within bounds.

Source: DICOM PS3.10, section 7.1 (preamble and file meta information); PS3.4, B.5 (classes of objects).
Elements that nobody asks for, such as those of the patient, are passed over; nothing is ever decompressed.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.core.errors import SlideOpenError, plain_reason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PATIENT = ("PatientID", "IssuerOfPatientID")
"""Keywords of the patient, read only where the user asks for pseudonyms."""

PSEUDONYM = "Pseudonym"
"""What stands in a header in their place."""

IDENTIFYING = (
    "SOPClassUID", "SOPInstanceUID", "ImageType", "PyramidUID", "StudyInstanceUID", "SeriesInstanceUID",
    "FrameOfReferenceUID", "ContainerIdentifier",
)  # fmt: skip
"""Keywords of what tells an object's kind, slide and place; none is of the patient."""

WHOLE_SLIDE_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""The class of whole-slide images, the only objects that are slides."""

DEFLATED = "1.2.840.10008.1.2.1.99"
"""The transfer syntax of objects that are compressed as a whole; only their file meta information is read."""

_PREAMBLE_BYTES, _MAGIC, _ELEMENT_BYTES = 128, b"DICM", 8
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_MOST_BYTES = 1 << 19
_LOADING = threading.Lock()
_PIXELS = 0x7FE0_0008  # of any kind: of float, of double, or of whole numbers


class _BoundedFile(io.BufferedReader):
    """A file of which only so many bytes are read: lengths in a damaged header say anything."""

    def __init__(self, file: io.FileIO, most_bytes: int) -> None:
        super().__init__(file)
        self._left = most_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= self._left:
            raise ValueError("its header is longer than a header is")
        self._left -= size
        content = super().read(size)
        if len(content) < size and (content or size != _ELEMENT_BYTES):  # else it may end before an element
            raise ValueError("it ends within its header")
        return content


def has_dicom_magic(path: Path) -> bool:
    """Whether a regular file begins as a DICOM file does; 132 bytes are read.

    Raises:
        OSError: The file can't be read.
    """
    with io.FileIO(path) as file:
        return _begins_as_dicom(file)


def _begins_as_dicom(file: io.FileIO) -> bool:
    return (file.read(_PREAMBLE_BYTES + len(_MAGIC)) or b"")[_PREAMBLE_BYTES:] == _MAGIC


def read_dicom(
    path: Path, keywords: Collection[str], most_bytes: int = _MOST_BYTES
) -> tuple[Dataset, int] | None:
    """Reads some elements of a file's first level, up to the last of them in the order of tags.

    Args:
        path: A regular file.
        keywords: What to read; further elements are passed over by their length.
        most_bytes: How much may be read for that.

    Returns:
        Those that it has, with the class and transfer syntax of its file meta information among them (of a
        deflated object these alone), and the offset of the element behind them; pixels are not read:
        ``PixelData`` among the keywords gives the offset of that element. None when it is no DICOM file.

    Raises:
        OSError: The file can't be read.
        SlideOpenError: The header is damaged.
    """
    with io.FileIO(path) as raw:
        if not _begins_as_dicom(raw):
            return None
        with _BoundedFile(raw, most_bytes) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return _read(file, keywords)
            except OSError:
                raise
            except Exception as error:  # whatever the parser stumbles over, such as sequences without end
                reason = plain_reason(error, path)
                raise SlideOpenError(
                    f"{path.name} is a DICOM file with a damaged header ({reason}); copy it again."
                ) from error


def load_pydicom() -> None:
    """Imports pydicom, whose modules import each other: threads that meet in it get halves.

    Raises:
        ImportError: It isn't installed.
    """
    with _LOADING:
        import pydicom  # noqa: F401


def _read(file: _BoundedFile, keywords: Collection[str]) -> tuple[Dataset, int]:
    load_pydicom()
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_dataset

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its warnings quote values
    tags = [tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None]
    end = min(max(tags) + 1, _PIXELS)
    meta = read_dataset(
        file, False, True, stop_when=lambda tag, *_: tag.group > 2, specific_tags=[0x0002_0002, 0x0002_0010]
    )
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if syntax == DEFLATED:
        return meta, file.tell()
    found = read_dataset(
        file, syntax == _IMPLICIT, syntax != _BIG_ENDIAN, stop_when=lambda tag, *_: tag >= end,
        specific_tags=tags,
    )  # fmt: skip
    offset = file.tell()
    found.update(meta)
    list(found)  # values are parsed when they are asked for
    return found, offset


def read_dicom_header(path: Path, keywords: Collection[str] = IDENTIFYING) -> dict[str, str] | None:
    r"""Reads elements of text as text: keyword → value, several values with ``\`` between them.

    Args:
        path: A regular file.
        keywords: What to read.

    Returns:
        Those that the file has; None when it is no DICOM file.

    Raises:
        OSError: The file can't be read.
        SlideOpenError: The header is damaged.
    """
    read = read_dicom(path, keywords)
    if read is None:
        return None
    texts = {}
    for element in read[0]:
        values = element.value if element.VM > 1 else [element.value]
        texts[element.keyword] = "\\".join(
            "" if value is None else str(value).strip("\0 ") for value in values
        )
    texts.setdefault("SOPClassUID", texts.get("MediaStorageSOPClassUID", ""))
    return texts


def is_other_object(header: dict[str, str]) -> bool:
    """Whether an object is something else than a whole-slide image: annotations, a report, a CT."""
    return header.get("SOPClassUID", "") not in ("", WHOLE_SLIDE_IMAGE)


def kind_of(header: dict[str, str]) -> str:
    """What an object is in DICOM's words, such as ``Microscopy Bulk Simple Annotations``."""
    from pydicom.uid import UID

    return str(UID(header.get("SOPClassUID", "")).name).removesuffix(" Storage")


def unread_object(name: str, header: dict[str, str]) -> str:
    """Why an object can't be a slide, in one sentence; empty where it can.

    Args:
        name: Its file's name.
        header: Of the object.
    """
    if is_other_object(header):
        return (
            f"{name} is DICOM, but no whole-slide image ({kind_of(header)}); give the image that it is about."
        )
    if header.get("TransferSyntaxUID") == DEFLATED:
        return (
            f"{name} is a DICOM image that is deflated as a whole; inflate it, for example with dcmconv +te."
        )
    return ""


def shows_label(header: dict[str, str]) -> bool:
    """Whether an image is that of the glass with its label, not of tissue."""
    return bool({"LABEL", "OVERVIEW"} & set(header.get("ImageType", "").upper().split("\\")))
