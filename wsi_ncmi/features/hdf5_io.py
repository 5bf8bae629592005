"""Reads HDF5: tables that lie in the file itself and no larger than it, embeddings fast, plain attributes."""

import contextlib
import math
import re
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.files import inflates_beyond_measure

# Read and checked in parts that stay in the processor's cache, so that checking doesn't fetch them again.
_PART = 1 << 19
_MAX_LINKS = 32
_INFINITE, _MINUS_INFINITE = 0x7C00, 0xFC00


def python_value(value: Any) -> Any:
    """An attribute as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value


def own_member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """A group or dataset of this very file; None where there is none of that name.

    Args:
        group: Where it is.
        name: Its name; soft links within the file are followed.

    Raises:
        ValueError: It is a link to another file, or one without an end.
    """
    at: Any = group
    path = _parts(name)
    for _ in range(_MAX_LINKS):
        if not path:
            return at if isinstance(at, h5py.Group | h5py.Dataset) else None
        part = path.pop(0).encode()
        # h5py's own questions (``in``, ``get``, ``items``) open what a link leads to.
        links = at.id.links if isinstance(at, h5py.Group) else None
        if links is None or not links.exists(part):
            return None
        kind = links.get_info(part).type
        if kind == h5py.h5l.TYPE_SOFT:
            target = links.get_val(part).decode("utf-8", "surrogateescape")
            at = at.file if target.startswith("/") else at
            path = _parts(target) + path
        elif kind == h5py.h5l.TYPE_HARD:
            at = at[part]
        else:
            raise ValueError(f"{name!r} is a link to another file")
    raise ValueError(f"{name!r} is a link without an end")


def own_table(group: h5py.Group, name: str) -> h5py.Dataset | None:
    """A dataset whose numbers are in this very file; None where there is no dataset of that name.

    HDF5 follows links, external storage and virtual datasets into any file that the user may read, and gives
    zeros for what is missing there or was never written.

    Args:
        group: Where it is.
        name: Its name.

    Raises:
        ValueError: It leads to another file, holds less than it claims, or would inflate beyond measure.
    """
    table = own_member(group, name)
    if not isinstance(table, h5py.Dataset):
        return None
    if table.external or table.is_virtual:
        raise ValueError(f"{name!r} takes its numbers from another file")
    claimed = math.prod(table.shape or ()) * table.dtype.itemsize
    stored = int(table.id.get_storage_size())
    unpacked = max(claimed, math.prod(table.chunks or (0,)) * table.dtype.itemsize)
    if claimed and not stored:
        raise ValueError(f"{name!r} was never written")
    if (table.chunks is None and claimed > stored) or inflates_beyond_measure(unpacked, stored):
        raise ValueError(f"{name!r} claims {unpacked:,} bytes and holds {stored:,}")
    return table


_HEAP = re.compile(rb"GCOL\x01\0\0\0")  # HDF5 File Format Specification 3.0, III.E
_HEAP_OBJECT = struct.Struct("<HHIQ")
_SEARCHED_BYTES = 1 << 18


def check_heaps(file: h5py.File, path: Path) -> None:
    """Refuses a heap of texts on which HDF5 would work without end: a free object without a size (zeros).

    Before attributes are read. Tables in one piece can't hold a heap; of what lies between them both ends are
    searched.

    Raises:
        ValueError: There is one.
    """
    taken = []
    for name in file:
        with contextlib.suppress(ValueError):  # told when it is used
            table = own_table(file, name)
            if table is not None and table.chunks is None and (start := table.id.get_offset()) is not None:
                taken.append((start, start + table.id.get_storage_size()))
    size, position = path.stat().st_size, 0
    with path.open("rb") as handle:
        for start, stop in [*sorted(taken), (size, size)]:
            for left in {position, max(position, start - _SEARCHED_BYTES)}:
                handle.seek(left)
                _check_heaps_in(handle.read(min(max(start - left, 0), _SEARCHED_BYTES)))
            position = max(position, stop)


def _check_heaps_in(data: bytes) -> None:
    for match in _HEAP.finditer(data):
        position = match.end() + 8
        stop = min(match.start() + int.from_bytes(data[match.end() : position], "little"), len(data))
        while position + _HEAP_OBJECT.size <= stop:
            number, _, _, length = _HEAP_OBJECT.unpack_from(data, position)
            if not number and not length:
                raise ValueError("its texts are damaged")
            position += _HEAP_OBJECT.size + -(-length // 8) * 8 if number else length


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def is_finite(values: NDArray[np.float16]) -> bool:
    """Tells whether every float16 is finite: no NaN, no infinity.

    Looks at the bits (an exponent of all ones), which is several times as fast as ``numpy.isfinite``.
    """
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint16)
    return all(_part_is_finite(flat[start : start + _PART]) for start in range(0, len(flat), _PART))


def read_rows(path: Path, offset: int, shape: tuple[int, int]) -> NDArray[np.float16]:
    """Reads a table of little-endian float16 that lies in one piece in a file.

    Args:
        path: The file.
        offset: Where it starts, bytes.
        shape: Rows and columns.

    Returns:
        float16 ``shape``, in memory of its own.

    Raises:
        OSError: The file can't be read.
        EOFError: It ends before the table does.
        ValueError: A value is NaN or infinity.
    """
    out = np.empty(shape, dtype="<f2")
    bits = out.reshape(-1).view(np.uint16)
    with path.open("rb", buffering=0) as handle:
        handle.seek(offset)
        for start in range(0, len(bits), _PART):
            part = bits[start : start + _PART]
            view = part.data.cast("B")
            while len(view):
                count = handle.readinto(view)
                if not count:
                    raise EOFError(f"{path} ends in the middle of its features")
                view = view[count:]
            if not _part_is_finite(part):
                raise ValueError(f"{path} holds NaN or infinity")
    return out


def _part_is_finite(bits: NDArray[np.uint16]) -> bool:
    # Seen as signed, what is positive and not finite lies above all else; seen as unsigned, what is negative
    # and not finite does.
    if not len(bits):
        return True
    return int(bits.view(np.int16).max()) < _INFINITE and int(bits.max()) < _MINUS_INFINITE
