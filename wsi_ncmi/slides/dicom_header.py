"""The few elements of a DICOM file's header that tell what it is.

Source: DICOM PS3.5, sections 7.1 (data elements) and 7.5 (nested sequences); PS3.4, B.5 (classes of objects).
Elements of patients are skipped by their length; pixels are never decoded.
"""

import contextlib
import mmap
import struct
from pathlib import Path

CLASS, IMAGE_TYPE, SERIES = (0x0008, 0x0016), (0x0008, 0x0008), (0x0020, 0x000E)
"""Kind of the object (SOPClassUID), what it shows (ImageType), and its series (SeriesInstanceUID)."""

_HEADER_BYTES = 1 << 20
_TRANSFER_SYNTAX = (0x0002, 0x0010)
_IMPLICIT = "1.2.840.10008.1.2"
Buffer = bytes | mmap.mmap
_LONG_VALUES = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_UNDEFINED = 0xFFFFFFFF
_ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_MAX_DEPTH = 16
_STORAGE = "1.2.840.10008.5.1.4.1.1."
# Annotations, reports, segmentations, parametric maps, presentations, documents, and the index DICOMDIR.
_NO_IMAGES = (
    *(_STORAGE + part for part in ("91", "88", "66", "30", "11", "104", "67")),
    "1.2.840.10008.1.3.10",
)


def read_dicom_header(path: Path) -> dict[tuple[int, int], str] | None:
    """Reads :data:`CLASS`, :data:`IMAGE_TYPE` and :data:`SERIES` of a little-endian DICOM file.

    Args:
        path: A regular file.

    Returns:
        Those that its first MiB has; None when it is no DICOM file.

    Raises:
        OSError: The file can't be read.
    """
    with path.open("rb") as handle:
        data = handle.read(132)
        if data[128:132] != b"DICM":
            return None
        data += handle.read(_HEADER_BYTES - len(data))
    found: dict[tuple[int, int], str] = {}
    with contextlib.suppress(struct.error, MalformedError):
        _collect(data, found)
    return found


def holds_no_image(header: dict[tuple[int, int], str]) -> bool:
    """Whether an object of this header is no image but something about one, such as annotations."""
    return f"{header.get(CLASS, '')}.".startswith(tuple(f"{name}." for name in _NO_IMAGES))


def shows_label(header: dict[tuple[int, int], str]) -> bool:
    """Whether an image is that of the glass with its label, not of tissue."""
    return bool({"LABEL", "OVERVIEW"} & set(header.get(IMAGE_TYPE, "").upper().split("\\")))


class MalformedError(Exception):
    """The header does not follow the standard."""


def _collect(data: bytes, found: dict[tuple[int, int], str]) -> None:
    position, implicit = 132, False
    while position + 8 <= len(data):
        # The file meta group is always explicit; the transfer syntax in it rules what follows.
        group = struct.unpack_from("<H", data, position)[0]
        tag, start, length = element(data, position, implicit=implicit and group != 2)
        if tag > SERIES:
            return
        value = b"" if length == _UNDEFINED else data[start : start + length]
        if tag in (CLASS, IMAGE_TYPE, SERIES):
            found[tag] = _text(value)
        if tag == _TRANSFER_SYNTAX:
            implicit = _text(value) == _IMPLICIT
        position = start + length if length != _UNDEFINED else skip_sequence(data, start, implicit, 0)


def element(data: Buffer, position: int, *, implicit: bool) -> tuple[tuple[int, int], int, int]:
    """Tag of the element at a position, and where its value begins and how long it is."""
    tag = struct.unpack_from("<HH", data, position)
    if implicit or tag[0] == 0xFFFE:
        return tag, position + 8, struct.unpack_from("<I", data, position + 4)[0]
    kind = data[position + 4 : position + 6]
    if kind in _LONG_VALUES:
        return tag, position + 12, struct.unpack_from("<I", data, position + 8)[0]
    return tag, position + 8, struct.unpack_from("<H", data, position + 6)[0]


def skip_sequence(data: Buffer, position: int, implicit: bool, depth: int) -> int:
    """The position behind a sequence or an item of undefined length."""
    if depth > _MAX_DEPTH:
        raise MalformedError
    while position + 8 <= len(data):
        tag, start, length = element(data, position, implicit=implicit)
        if tag in (_SEQUENCE_END, _ITEM_END):
            return start
        position = start + length
        if length == _UNDEFINED:
            position = skip_sequence(data, start, implicit, depth + 1)
    raise MalformedError


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")
