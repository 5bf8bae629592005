"""Which DICOM files belong together: the series of a file, from its header alone.

A whole-slide series is one slide in several files (a level or a part of one each). Source: DICOM PS3.5,
sections 7.1 (data elements) and 7.5 (nested sequences). Only the element (0020,000E) is looked for; patient
elements are skipped by their length and label images are never decoded.
"""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ["series_uid"]

_HEADER_BYTES = 1 << 20
_SERIES = (0x0020, 0x000E)
_TRANSFER_SYNTAX = (0x0002, 0x0010)
_IMPLICIT = "1.2.840.10008.1.2"
_LONG_VALUES = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_UNDEFINED = 0xFFFFFFFF
_ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_MAX_DEPTH = 16


def series_uid(path: Path) -> str:
    """The SeriesInstanceUID of a little-endian DICOM file.

    Args:
        path: Any file.

    Returns:
        The UID, or an empty string when the file is no DICOM file or names no series in its first MiB.

    Raises:
        OSError: The file can't be read.
    """
    with path.open("rb") as handle:
        data = handle.read(_HEADER_BYTES)
    if data[128:132] != b"DICM":
        return ""
    try:
        return _find_series(data)
    except (struct.error, _MalformedError):
        return ""


class _MalformedError(Exception):
    """The header does not follow the standard."""


def _find_series(data: bytes) -> str:
    position, implicit = 132, False
    while position + 8 <= len(data):
        # The file meta group is always explicit; the transfer syntax in it rules what follows.
        group = struct.unpack_from("<H", data, position)[0]
        tag, start, length = _element(data, position, implicit=implicit and group != 2)
        if tag > _SERIES:
            return ""
        value = b"" if length == _UNDEFINED else data[start : start + length]
        if tag == _SERIES:
            return _text(value)
        if tag == _TRANSFER_SYNTAX:
            implicit = _text(value) == _IMPLICIT
        position = start + length if length != _UNDEFINED else _skip_sequence(data, start, implicit, 0)
    return ""


def _element(data: bytes, position: int, *, implicit: bool) -> tuple[tuple[int, int], int, int]:
    tag = struct.unpack_from("<HH", data, position)
    if implicit or tag[0] == 0xFFFE:
        return tag, position + 8, struct.unpack_from("<I", data, position + 4)[0]
    kind = data[position + 4 : position + 6]
    if kind in _LONG_VALUES:
        return tag, position + 12, struct.unpack_from("<I", data, position + 8)[0]
    return tag, position + 8, struct.unpack_from("<H", data, position + 6)[0]


def _skip_sequence(data: bytes, position: int, implicit: bool, depth: int) -> int:
    """The position behind a sequence or an item of undefined length."""
    if depth > _MAX_DEPTH:
        raise _MalformedError
    while position + 8 <= len(data):
        tag, start, length = _element(data, position, implicit=implicit)
        if tag in (_SEQUENCE_END, _ITEM_END):
            return start
        position = start + length
        if length == _UNDEFINED:
            position = _skip_sequence(data, start, implicit, depth + 1)
    raise _MalformedError


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")
