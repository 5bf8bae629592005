"""Archives of arrays (``.npz``) larger than memory: members mapped where they lie, written row by row."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.files import atomic_path
from wsi_ncmi.features.paths import remove_leftovers
from wsi_ncmi.features.storage import storing

__all__ = ["PackedColumns", "map_member", "write_packed"]

_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_EPOCH = (1980, 1, 1, 0, 0, 0)


def map_member(path: Path, name: str) -> NDArray[Any]:
    """One array of an archive: a read-only memory map where it is stored without compression, else inflated.

    Raises:
        OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError: It can't be read.
    """
    mappable = False
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        with archive.open(member) as stream:
            read_header = _READ_HEADER.get(np.lib.format.read_magic(stream))
            if member.compress_type == zipfile.ZIP_STORED and read_header is not None:
                shape, fortran, dtype = read_header(stream)
                header_size = stream.tell()
                # An empty array can't be mapped.
                mappable = not dtype.hasobject and int(np.prod(shape)) > 0
    if not mappable:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as loaded:
            inflated: NDArray[Any] = loaded[name]
            return inflated
    # The local header before the data has its own name and extra field, whose lengths differ from those in
    # the central directory.
    with path.open("rb") as handle:
        handle.seek(member.header_offset + 26)
        name_size, extra_size = np.frombuffer(handle.read(4), dtype="<u2")
    start = member.header_offset + 30 + int(name_size) + int(extra_size) + header_size
    order: Literal["C", "F"] = "F" if fortran else "C"
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order=order)


@dataclass(frozen=True)
class PackedColumns:
    """What a packed cohort tells of its slides.

    Attributes:
        slide_ids: Ids, in the order of the bags.
        lengths: Tiles of each slide.
        columns: Further columns, such as ``label``, ``case_id`` and ``centre``: one text a slide.
        encoder: Name of the encoder, or empty.
    """

    slide_ids: Sequence[str]
    lengths: Sequence[int]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    encoder: str = ""


def write_packed(
    path: Path,
    columns: PackedColumns,
    width: int,
    features: Callable[[str], NDArray[np.float16]],
    coords: Callable[[str], NDArray[np.int64]] | None = None,
) -> None:
    """Writes a cohort into one archive, a slide at a time: no more than one slide is in memory.

    Nothing is compressed, so that readers map the features; the same cohort gives the same bytes.

    Args:
        path: The file; it appears whole or not at all.
        columns: Ids, lengths and what else is known; ids must be unique.
        width: Dimensions D of the features.
        features: Gives the features of a slide, float16 (N, D), N as in ``lengths``.
        coords: Gives its coordinates, int64 (N, 2); None leaves them out.

    Raises:
        JobStoppedError: The disk is full or can't be written to.
        ValueError: A slide has another shape than was announced.
    """
    remove_leftovers(path)
    total = int(sum(columns.lengths))
    texts = {"slide_id": columns.slide_ids, **columns.columns}
    with (
        storing(path),
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for name, values in texts.items():
            _write_array(archive, name, np.array([str(value) for value in values], dtype=np.str_))
        _write_array(archive, "lengths", np.asarray(columns.lengths, np.int64))
        if columns.encoder:
            _write_array(archive, "encoder", np.array(columns.encoder))
        if coords is not None:
            _write_rows(archive, "coords", "<i8", (total, 2), columns, coords)
        _write_rows(archive, "features", "<f2", (total, width), columns, features)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
    member.external_attr = 0o644 << 16
    return member


def _write_array(archive: zipfile.ZipFile, name: str, values: NDArray[Any]) -> None:
    with archive.open(_member(name), "w", force_zip64=True) as stream:
        np.lib.format.write_array(stream, values, version=(1, 0), allow_pickle=False)


def _write_rows(
    archive: zipfile.ZipFile,
    name: str,
    dtype: str,
    shape: tuple[int, int],
    columns: PackedColumns,
    rows_of: Callable[[str], NDArray[Any]],
) -> None:
    with archive.open(_member(name), "w", force_zip64=True) as stream:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for slide_id, length in zip(columns.slide_ids, columns.lengths, strict=True):
            rows = rows_of(slide_id)
            if rows.shape != (length, shape[1]):
                raise ValueError(f"{name} of {slide_id} are {rows.shape}, not ({length}, {shape[1]})")
            stream.write(np.ascontiguousarray(rows, dtype).data.cast("B") if rows.size else b"")
