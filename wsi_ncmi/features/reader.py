"""Reads feature files: the header at once, rows when they are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import check_regular, parse_json
from wsi_ncmi.features.checksum_trailer import check_trailer, has_trailer
from wsi_ncmi.features.hdf5_io import check_heaps, own_table, python_value
from wsi_ncmi.features.schema import (
    ARTIFACTS,
    COORDS,
    FARTHEST,
    FEATURES,
    FEATURES_SCHEMA,
    READABLE_SCHEMAS,
    TISSUE_FRACTION,
    Identity,
    identity_from_attrs,
)


@dataclass(frozen=True, repr=False)
class FeatureFile:
    """One feature file. The arrays are read on first use and kept; nothing stays open.

    Before an array is given out the file is compared with its checksum, see ``check_trailer``; one that was
    damaged raises ``InputError``.

    Attributes:
        path: The file.
        attrs: File attributes as plain Python values.
        coords_attrs: Attributes of the coordinates (TRIDENT's names).
        n_tiles: Number of rows.
        width: Length of an embedding.
        offset: Where the features start in the file when they lie in one piece, else None.
        artifact_kinds: Names of the columns of ``artifacts``; empty where the file has no scores.
    """

    path: Path
    attrs: Mapping[str, Any]
    coords_attrs: Mapping[str, Any]
    n_tiles: int
    width: int
    offset: int | None = field(default=None, repr=False)
    artifact_kinds: tuple[str, ...] = ()

    def __repr__(self) -> str:
        grid = f"{self.attrs.get('tile_px')} px at {self.attrs.get('mpp_target')} µm per pixel"
        made = f"{self.attrs.get('encoder')}, {grid}"
        return f"<FeatureFile {self.path.name}: {self.n_tiles} tiles × {self.width} features; {made}>"

    @property
    def slide_id(self) -> str:
        """Id of the slide."""
        return str(self.attrs["slide_id"])

    @property
    def identity(self) -> Identity:
        """Identity: everything that the numbers depend on.

        Raises:
            InputError: The file lacks a part of it, or garbles it.
        """
        try:
            return identity_from_attrs(self.attrs)
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{self.path} lacks or garbles an attribute ({_one_line(error)}); extract the slide again."
            ) from error

    @property
    def tile_features(self) -> dict[str, str]:
        """Of a slide's vector: encoder and content of the tiles' features; empty for tiles."""
        return dict(parse_json(str(self.attrs.get("tile_features", "{}"))))

    @cached_property
    def features(self) -> NDArray[np.float16]:
        """float16 (N, D); a read-only memory map where the file allows, so that rows come as needed."""
        if self.offset is None:
            return self._dataset(FEATURES)
        check_trailer(self.path)
        return np.memmap(self.path, "<f2", mode="r", offset=self.offset, shape=(self.n_tiles, self.width))

    @cached_property
    def coords(self) -> NDArray[np.int64]:
        """int64 (N, 2): x and y of the tiles' top-left corners in level-0 pixels."""
        corners = self._dataset(COORDS)
        if len(corners) and (corners.min() < 0 or corners.max() >= FARTHEST):
            raise InputError(f"{self.path} holds a tile outside of any slide; extract the slide again.")
        return corners

    @cached_property
    def tissue_fraction(self) -> NDArray[np.float16]:
        """float16 (N,), 0 to 1."""
        return self._dataset(TISSUE_FRACTION)

    @cached_property
    def artifacts(self) -> NDArray[np.float16]:
        """float16 (N, k), 0 to 1: each tile's score for each of ``artifact_kinds``; k is 0 without scores."""
        if not self.artifact_kinds:
            return np.empty((self.n_tiles, 0), np.float16)
        return self._dataset(ARTIFACTS)

    @property
    def n_artifact_tiles(self) -> int:
        """Tiles that the artefact rule dropped (0 in files of version 1, which dropped none)."""
        return int(self.attrs.get("n_artifact_tiles", 0))

    def rows(self, indices: NDArray[np.int64]) -> NDArray[np.float16]:
        """Some embeddings in memory, float16 (n, D), in the order of ``indices``.

        Raises:
            IndexError: An index is outside of the file.
        """
        return np.asarray(self.features[np.asarray(indices, dtype=np.int64)])

    def _dataset(self, name: str) -> NDArray[Any]:
        try:
            check_trailer(self.path)
            with h5py.File(self.path, "r") as file:
                values: NDArray[Any] = _table(file, name)[()]
        except InputError:
            raise
        except Exception as error:  # as in open_features_file
            raise InputError(
                f"{name} of {self.path} can't be read ({error}); extract the slide again."
            ) from error
        return values


def open_features_file(path: Path) -> FeatureFile:
    """Reads the header of a feature file.

    Args:
        path: ``<slide_id>.h5``.

    Raises:
        InputError: It is not there, not a feature file of this program, or not complete.
    """
    remedy = "check it with 'wsi-ncmi verify' and extract the slide again"
    try:
        check_regular(path)
        with h5py.File(path, "r") as file:
            check_heaps(file, path)
            attrs = {name: python_value(value) for name, value in file.attrs.items()}
            if attrs.get("schema") not in READABLE_SCHEMAS:
                raise InputError(
                    f"{path} is no feature file that this version reads: its schema is "
                    f"{attrs.get('schema')!r}, not {FEATURES_SCHEMA!r}; update wsi-ncmi or extract the "
                    "slide again."
                )
            if not attrs.get("complete"):
                raise InputError(f"{path} was not finished; {remedy}.")
            if not isinstance(attrs.get("slide_id"), str):
                raise ValueError("it has no slide id")
            features, coords = _table(file, FEATURES), _table(file, COORDS)
            if features.ndim != 2 or coords.shape[1:] != (2,):
                raise ValueError(f"its tables are {features.shape} and {coords.shape}")
            if features.dtype.kind != "f" or coords.dtype.kind not in "iu":
                raise ValueError(f"its tables hold {features.dtype} and {coords.dtype}")
            n_tiles, width = features.shape
            if not n_tiles == len(coords) == attrs.get("n_tiles"):
                raise InputError(
                    f"{path} has {n_tiles} embeddings, {len(coords)} coordinates and says "
                    f"{attrs.get('n_tiles')} tiles; {remedy}."
                )
            if n_tiles and not width:
                raise ValueError("its embeddings have no dimensions")
            in_one_piece = features.chunks is None and features.dtype == np.dtype("<f2")
            return FeatureFile(
                path=path,
                attrs=MappingProxyType(attrs),
                coords_attrs=MappingProxyType(
                    {name: python_value(value) for name, value in coords.attrs.items()}
                ),
                n_tiles=int(n_tiles),
                width=int(width),
                # None also for a file of no tiles, where HDF5 has allocated nothing.
                offset=features.id.get_offset() if in_one_piece else None,
                artifact_kinds=_artifact_kinds(file, int(n_tiles)),
            )
    except FileNotFoundError as error:
        raise InputError(f"There is no feature file {path}; run 'wsi-ncmi extract' first.") from error
    except InputError:
        raise
    # What the parser raises over damaged bytes is not documented; all of it means the same here.
    except Exception as error:
        raise InputError(f"{path} can't be read as features ({_one_line(error)}); {remedy}.") from error


def read_identity(path: Path) -> Identity | None:
    """The identity of the feature file at ``path``; None where there is none that is whole by its ends.

    A file of another schema version has an identity too (with that version), a file that is not ours or is
    damaged in a visible way has none and may be written over.

    Raises:
        InputError: There is something that can't be read, and so can't be judged.
    """
    try:
        if not has_trailer(path):
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(
            f"{path.name} can't be read ({error.strerror}), so it is not written over; check its permissions."
        ) from error
    try:
        with h5py.File(path, "r") as file:
            check_heaps(file, path)
            attrs = {name: python_value(value) for name, value in file.attrs.items()}
        return identity_from_attrs(attrs) if attrs.get("complete") else None
    except Exception:  # as in open_features_file
        return None


def _table(file: h5py.File, name: str) -> h5py.Dataset:
    table = own_table(file, name)
    if table is None:
        raise KeyError(f"it has no table {name!r}")
    return table


def _artifact_kinds(file: h5py.File, n_tiles: int) -> tuple[str, ...]:
    scores = own_table(file, ARTIFACTS)
    if scores is None:
        return ()
    names = tuple(str(python_value(name)) for name in scores.attrs["names"])
    if scores.shape != (n_tiles, len(names)):
        raise ValueError(f"its artefact scores are {scores.shape}, not ({n_tiles}, {len(names)})")
    return names


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
