"""A cohort packed into one ``.npz``: ``features`` (ΣN, D), ``lengths``, ``slide_id``, optional columns."""

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path, check_inflation
from wsi_ncmi.core.leftovers import remove_leftovers
from wsi_ncmi.core.values import tidy
from wsi_ncmi.features.interchange.bag import TileBag, TileMetadata, check_coords
from wsi_ncmi.features.interchange.base import FeatureSet
from wsi_ncmi.features.storage import translate_os_errors

_REQUIRED = ("features", "lengths", "slide_id")
_TEXTS = ("label", "case_id", "centre")


class PackedSet(FeatureSet):
    """A packed file.

    Features stored without compression (``np.savez``) are compared with the archive's checksum and then
    memory-mapped, so that processes share the pages; compressed ones are inflated when the file is opened.

    Args:
        path: The file.
        compared: The process that opened it before has compared it with its checksum.

    Attributes:
        lengths: int64 (slides,).
        texts: The columns ``label``, ``case_id`` and ``centre`` that the file has: one text a slide.
        table: All features (ΣN, D).

    Raises:
        InputError: Not an archive, a key missing, or arrays that don't fit each other.
    """

    kind: ClassVar[str] = "packed"

    def __init__(self, path: Path, *, compared: bool = False) -> None:
        self.path, self._compared = path, compared
        arrays = self._read_small_arrays()
        self.slide_ids = tuple(str(s) for s in np.atleast_1d(arrays["slide_id"]))
        lengths = arrays["lengths"]
        if lengths.ndim != 1 or not np.issubdtype(lengths.dtype, np.integer) or (lengths < 0).any():
            raise InputError(f"{path}: 'lengths' must be a list of tile counts, whole numbers from 0.")
        self.lengths: NDArray[np.int64] = lengths.astype(np.int64)
        self.texts = {
            key: tuple(tidy(str(value)) for value in np.atleast_1d(arrays[key]))
            for key in _TEXTS
            if key in arrays
        }
        self._encoder = str(arrays["encoder"]) if "encoder" in arrays else ""
        self.level = str(arrays["level"]) if "level" in arrays else "tile"
        self._check_counts()
        self.table = self._array("features")
        if self.table.ndim != 2 or self.table.dtype.kind != "f":
            raise InputError(
                f"{path}: 'features' must be a floating-point table (tiles, dimensions), "
                f"found {self.table.dtype} of shape {self.table.shape}."
            )
        total = sum(lengths.tolist())  # of any size; numpy's sum would wrap around
        if total != self.table.shape[0]:
            raise InputError(
                f"{path}: 'lengths' sum to {total} tiles but 'features' has {self.table.shape[0]} rows; pack "
                "the file again."
            )
        self._coords = self._array("coords") if "coords" in self._keys else None
        if self._coords is not None and (
            self._coords.shape != (total, 2) or self._coords.dtype.kind not in "iu"
        ):
            raise InputError(
                f"{path}: 'coords' must be whole numbers ({total}, 2), one (x, y) for each tile."
            )
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._position = {s: i for i, s in enumerate(self.slide_ids)}

    def where(self, slide_id: str) -> Path:
        """See the base class."""
        return self.path

    def rows(self, slide_id: str) -> slice:
        """The rows of a slide in ``table``."""
        i = self._position[slide_id]
        return slice(int(self._starts[i]), int(self._starts[i + 1]))

    def header(self, slide_id: str) -> tuple[tuple[int, int], Mapping[str, Any]]:
        """See the base class."""
        return (int(self.lengths[self._position[slide_id]]), int(self.table.shape[1])), {}

    def features(self, slide_id: str) -> NDArray[Any]:
        """See the base class; a copy in memory."""
        return np.array(self.table[self.rows(slide_id)])

    def coordinates(self, slide_id: str) -> NDArray[np.int64] | None:
        """Coordinates of a slide's tiles (N, 2), or None where the file has none."""
        return None if self._coords is None else np.array(self._coords[self.rows(slide_id)], np.int64)

    def bag(self, slide_id: str) -> TileBag:
        """See the base class."""
        coords = self.coordinates(slide_id)
        if coords is not None:
            check_coords(coords, self.path)
        texts = {key: values[self._position[slide_id]] for key, values in self.texts.items()}
        metadata = TileMetadata(self._encoder, label=texts.get("label", ""), case_id=texts.get("case_id", ""))
        return TileBag(slide_id, self.features(slide_id), metadata, coords)

    def encoder(self) -> str:
        """See the base class."""
        return self._encoder

    def labels(self) -> Mapping[str, str]:
        """See the base class."""
        return dict(zip(self.slide_ids, self.texts.get("label", ()), strict=False))

    def _read_small_arrays(self) -> dict[str, NDArray[Any]]:
        with self._readable("it"), zipfile.ZipFile(self.path) as archive:
            self._keys = tuple(n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy"))
        missing = [key for key in _REQUIRED if key not in self._keys]
        if missing:
            raise InputError(
                f"{self.path} lacks {', '.join(map(repr, missing))} (it has: "
                f"{', '.join(self._keys)}); a packed file needs 'features', 'lengths' and "
                "'slide_id', and 'label' and 'case_id' for training."
            )
        wanted = ("lengths", "slide_id", "encoder", "level", *_TEXTS)
        return {key: self._array(key, mapped=False) for key in wanted if key in self._keys}

    def _check_counts(self) -> None:
        count = len(self.slide_ids)
        columns = {"lengths": len(self.lengths), **{key: len(values) for key, values in self.texts.items()}}
        for key, found in columns.items():
            if found != count:
                raise InputError(f"{self.path}: {key!r} has {found} entries but 'slide_id' has {count}.")
        if len(set(self.slide_ids)) != count:
            twice = next(s for i, s in enumerate(self.slide_ids) if s in self.slide_ids[:i])
            raise InputError(f"{self.path}: slide {twice!r} is there twice; slide ids must be unique.")
        if count == 0:
            raise InputError(f"{self.path} holds no slides.")

    def _array(self, name: str, *, mapped: bool = True) -> NDArray[Any]:
        with self._readable("the archive"):
            check_inflation(self.path)
        with self._readable(repr(name)):
            if mapped and not self._compared:
                with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as stream:
                    while stream.read(_PART):  # the checksum is compared at the end
                        pass
            return map_member(self.path, name, mapped=mapped)

    @contextlib.contextmanager
    def _readable(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # an unzipper on someone else's bytes can fail in any way
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self.path} can't be read as a packed .npz file: {what} is damaged ({reason})."
            ) from error


_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_PART = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)


def map_member(path: Path, name: str, *, mapped: bool = True) -> NDArray[Any]:
    """One array of an archive: a read-only memory map where it is stored without compression, else in memory.

    Args:
        path: The archive.
        name: The array.
        mapped: False reads it in any case, and compares it with the archive's checksum.

    Raises:
        ValueError: The array claims another size than its member has.
        Exception: Whatever zipfile and numpy raise over damaged bytes.
    """
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        with archive.open(member) as stream:
            shape, fortran, dtype = _READ_HEADER[np.lib.format.read_magic(stream)](stream)
            header_size = stream.tell()
            # Checked before memory is taken; the shape may be anything.
            claimed = math.prod(shape) * dtype.itemsize
            if dtype.hasobject or claimed != member.file_size - header_size:
                raise ValueError(f"{name!r} claims {shape} of {dtype} and has {member.file_size:,} bytes")
            order: Literal["C", "F"] = "F" if fortran else "C"
            # An empty array can't be mapped.
            if not mapped or not claimed or member.compress_type != zipfile.ZIP_STORED:
                flat = np.empty(claimed, np.uint8)
                for start in range(0, claimed, _PART):
                    part = stream.read(min(_PART, claimed - start))
                    flat[start : start + _PART] = np.frombuffer(part, np.uint8)
                return flat.view(dtype).reshape(shape, order=order) if claimed else np.empty(shape, dtype)
    # The local header before the data has its own name and extra field, whose lengths differ from those in
    # the central directory.
    with path.open("rb") as handle:
        handle.seek(member.header_offset + 26)
        name_size, extra_size = np.frombuffer(handle.read(4), dtype="<u2")
    start = member.header_offset + 30 + int(name_size) + int(extra_size) + header_size
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order=order)


@dataclass(frozen=True)
class PackedColumns:
    """Columns of a packed cohort.

    Attributes:
        slide_ids: Ids, in the order of the bags.
        lengths: Tiles of each slide.
        columns: Further columns, such as ``label``, ``case_id`` and ``centre``: one text a slide.
        encoder: Name of the encoder, or empty.
        level: What a row is a vector of: ``tile``, ``slide`` or ``patient``.
    """

    slide_ids: Sequence[str]
    lengths: Sequence[int]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    encoder: str = ""
    level: str = "tile"


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
        translate_os_errors(path),
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for name, values in texts.items():
            _write_array(archive, name, np.array([str(value) for value in values], dtype=np.str_))
        _write_array(archive, "lengths", np.asarray(columns.lengths, np.int64))
        if columns.encoder:
            _write_array(archive, "encoder", np.array(columns.encoder))
        if columns.level != "tile":
            _write_array(archive, "level", np.array(columns.level))
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
