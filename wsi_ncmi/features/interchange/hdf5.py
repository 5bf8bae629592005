"""Guarded reading of other tools' HDF5 files."""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.files import check_regular
from wsi_ncmi.features.hdf5_io import check_heaps, own_table
from wsi_ncmi.features.interchange.bag import ExternalFileError, check_coords


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Opens a file to read; whatever its parser raises becomes one sentence.

    Raises:
        ExternalFileError: It is truncated, damaged or no HDF5.
    """
    try:
        check_regular(path)
        with h5py.File(path, "r") as handle:
            check_heaps(handle, path)
            yield handle
    except ExternalFileError:
        raise
    # What the parser raises over damaged bytes is not documented; all of it means the same here.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ExternalFileError(
            f"{path} can't be read ({reason}); it is truncated, half-written or no HDF5 file: make it again."
        ) from error


def table_of(group: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    """A dataset of features: floating point (N, D) with D > 0, perhaps in a batch of one (1, N, D).

    Raises:
        ExternalFileError: It is missing, leads to another file, or is of another shape or type.
    """
    found = _own(group, name, path)
    if found is None:
        have = ", ".join(sorted(group)) or "nothing"
        raise ExternalFileError(f"{path} has no table {name!r} (it has: {have}); it is no such feature file.")
    if found.ndim not in (2, 3) or found.shape[:-2] not in ((), (1,)) or found.shape[-1] == 0:
        raise ExternalFileError(
            f"{path}: {name!r} has the shape {found.shape}, not (tiles, dimensions): these are no tile "
            "features."
        )
    if found.dtype.kind != "f":
        raise ExternalFileError(f"{path}: {name!r} holds {found.dtype}, not floating-point numbers.")
    return found


def shape_of(table: h5py.Dataset) -> tuple[int, int]:
    """Tiles and dimensions of a dataset of features."""
    rows, width = table.shape[-2:]
    return int(rows), int(width)


def rows_of(table: h5py.Dataset) -> NDArray[Any]:
    """The features (N, D) of such a dataset."""
    rows: NDArray[Any] = table[()]
    return rows.reshape(table.shape[-2:])


def coords_of(group: h5py.Group, n_tiles: int, path: Path) -> NDArray[Any] | None:
    """The dataset ``coords`` (N, 2) as stored; None where there is none.

    Raises:
        ExternalFileError: It leads to another file, has another shape or type, or see ``check_coords``.
    """
    found = _own(group, "coords", path)
    if found is None:
        if group.id.links.exists(b"coords"):
            raise ExternalFileError(f"{path}: 'coords' is no table.")
        return None
    if found.dtype.kind not in "iuf" or found.shape not in ((n_tiles, 2), (1, n_tiles, 2)):
        raise ExternalFileError(
            f"{path}: 'coords' is {found.shape}, not ({n_tiles}, 2): one (x, y) for each feature row."
        )
    values: NDArray[Any] = found[()].reshape(n_tiles, 2)
    check_coords(values, path)
    return values


def _own(group: h5py.Group, name: str, path: Path) -> h5py.Dataset | None:
    try:
        return own_table(group, name)
    except ValueError as error:
        raise ExternalFileError(f"{path} was refused: {error}.") from error


def whole_pixels(coords: NDArray[Any], path: Path) -> NDArray[np.int64]:
    """Coordinates as whole pixels.

    Raises:
        ExternalFileError: They are fractions of pixels, so that they must be of another unit.
    """
    pixels: NDArray[np.int64] = np.rint(coords).astype(np.int64)
    if coords.dtype.kind == "f" and np.abs(pixels - coords).max(initial=0) > 1e-3:
        raise ExternalFileError(f"{path}: 'coords' are no whole pixels; they seem to be of another unit.")
    return pixels


def image_of(fill: Callable[[h5py.File], None]) -> bytes:
    """The bytes of a file that ``fill`` writes; the same every time, for h5py keeps no times."""
    image = io.BytesIO()
    with h5py.File(image, "w") as handle:
        fill(handle)
    return image.getvalue()
