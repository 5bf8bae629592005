"""Bags of feature folders and packed files, one HDF5 file a slide or one .npz."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import h5py
import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts.cohort import Cohort, cohort_of_columns
from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.files import check_regular
from wsi_ncmi.features.checksum_trailer import check_trailer
from wsi_ncmi.features.hdf5_io import check_heaps, own_table, read_rows
from wsi_ncmi.features.schema import UNKNOWN


@runtime_checkable
class BagSource(Protocol):
    """Read-only access to the tile embeddings of a cohort.

    Attributes:
        path: What was opened (the first where several are joined). A source can be pickled: another process
            opens the same files itself, no features travel along.
        slide_ids: Ids in a fixed order.
        width: Embedding dimensions D.
        lengths: int64 (slides,), tiles of each slide in the order of ``slide_ids``; 0 is possible.
        encoder: Full name of the encoder, ``""`` where the source doesn't say.
        level: What a row is a vector of: ``tile``, ``slide`` or ``patient``; ids are then those of patients.
    """

    path: Path
    slide_ids: tuple[str, ...]
    width: int
    lengths: NDArray[np.int64]
    encoder: str
    level: str

    def load(self, slide_id: str) -> NDArray[np.float16]:
        """Embeddings of one slide, float16 (N, D).

        Raises:
            InputError: Unknown slide, or the bag holds NaN or infinity.
        """

    def coordinates(self, slide_id: str) -> NDArray[np.int64] | None:
        """Level-0 pixel (x, y) of the tiles' top-left corners (N, 2), or None where they aren't known."""

    def embedded_cohort(self, group: str | None = None) -> Cohort | None:
        """The labels the source itself carries, or None; ``group="slide_id"``: each slide is a patient."""


def empty_bags(source: BagSource) -> tuple[str, ...]:
    """Slides of the source without a single tile: reported, never trained on."""
    return tuple(s for s, n in zip(source.slide_ids, source.lengths, strict=True) if n == 0)


def checked_bag(bag: NDArray[np.generic], slide_id: str, path: Path) -> NDArray[np.float16]:
    """Gives the bag as float16 after making sure that every number in it is finite."""
    from wsi_ncmi.features.hdf5_io import is_finite

    with np.errstate(over="ignore"):
        half = bag.astype(np.float16, copy=False)
    if not is_finite(half):
        raise InputError(
            f"The features of slide {slide_id!r} in {path} hold NaN, infinity or numbers beyond float16; "
            "extract the slide again."
        )
    return half


# Embeddings that differ in one of these live in different spaces or show tissue at different scales.
_IDENTITY = (
    "encoder",
    "encoder_weights_sha256",
    "transform",
    "precision",
    "mpp_target",
    "tile_px",
    "overlap_px",
    "stain",
    "level",
)
_DEFAULTS = {"stain": "none", "level": "tile"}  # files of an older layout don't say it
_CONTENT = ("slide_fingerprint", "sha256")
_HEADER = ("schema", "slide_id", "complete", "n_tiles", *_CONTENT, *_IDENTITY)
_SHOWN = 5


class FeatureFolder:
    """Bag source over ``<out>/features/<encoder>/*.h5``; see ``BagSource``.

    Attributes:
        identity: What all files share: encoder, weights, transform, precision, mpp, tile size, overlap.
        fingerprints: Slide id → content of the slide file, where it is known.
        content_hashes: Slide id → SHA-256 of features and coordinates, of slides with tiles.

    Raises:
        InputError: No files, several encoders, an incomplete or foreign file, or files of different identity.
    """

    def __init__(self, path: Path) -> None:
        self.path = find_feature_folder(path)
        self._files: dict[str, Path] = {}
        self._offsets: dict[str, int | None] = {}
        lengths: list[int] = []
        widths: dict[int, Path] = {}
        self.identity: dict[str, Any] = {}
        self.fingerprints: dict[str, str] = {}
        self.content_hashes: dict[str, str] = {}
        first: Path | None = None
        unusable: list[str] = []
        for file in sorted(self.path.glob("*.h5")):
            try:
                attrs, shape, offset = _read_header(file)
            except _UnusableFileError as problem:
                unusable.append(f"{file.name} ({problem})")
                continue
            slide_id = attrs["slide_id"]
            if slide_id in self._files:
                raise InputError(
                    f"{file} and {self._files[slide_id].name} both hold slide {slide_id!r}; remove one."
                )
            self._files[slide_id] = file
            self._offsets[slide_id] = offset
            if attrs.get("slide_fingerprint") not in (None, "", UNKNOWN):
                self.fingerprints[slide_id] = str(attrs["slide_fingerprint"])
            if shape[0] and attrs.get("sha256"):
                self.content_hashes[slide_id] = str(attrs["sha256"])
            lengths.append(shape[0])
            widths.setdefault(shape[1], file)
            identity = {key: attrs.get(key, _DEFAULTS.get(key)) for key in _IDENTITY}
            if first is None:
                first, self.identity = file, identity
            _check_same_identity(file, identity, first, self.identity)
        if unusable:
            shown = ", ".join(unusable[:_SHOWN]) + (" …" if len(unusable) > _SHOWN else "")
            raise InputError(
                f"{counted(len(unusable), 'feature file')} in {self.path} can't be used: {shown}; "
                f"run 'wsi-ncmi verify {self.path} --repair' and extract again."
            )
        if len(widths) > 1:
            (a, file_a), (b, file_b) = list(widths.items())[:2]
            raise InputError(
                f"{self.path}: {file_a.name} has embeddings of {a} dimensions and {file_b.name} of {b}."
            )
        self.slide_ids = tuple(self._files)
        self.lengths: NDArray[np.int64] = np.asarray(lengths, dtype=np.int64)
        self._rows = dict(zip(self.slide_ids, lengths, strict=True))
        self.width = next(iter(widths))
        self.encoder = str(self.identity.get("encoder") or "")
        self.level = str(self.identity["level"])
        if self.level == "tile":
            del self.identity["level"]  # as the records of models trained on tiles know it

    def load(self, slide_id: str) -> NDArray[np.float16]:
        """Embeddings of one slide, float16 (N, D), in memory of its own.

        Files in one piece are read without HDF5, at the speed of a plain read; a file is compared with its
        checksum once for each change of it.

        Raises:
            InputError: The slide is not known, or its file was damaged.
        """
        file = self._files.get(slide_id)
        if file is None:
            raise InputError(f"{self.path} has no features of slide {slide_id!r}.")
        offset = self._offsets[slide_id]
        try:
            check_trailer(file)
            if offset is not None:
                return read_rows(file, offset, (self._rows[slide_id], self.width))
            with h5py.File(file, "r") as handle:
                table = own_table(handle, "features")
                if table is None:
                    raise KeyError("it has no table 'features'")
                bag = table[()]
        except InputError:
            raise
        except Exception as error:  # what a parser raises over damaged bytes is not documented
            raise InputError(f"{file} can't be read ({error}); extract the slide again.") from error
        return checked_bag(bag, slide_id, file)

    def coordinates(self, slide_id: str) -> NDArray[np.int64] | None:
        """Places of a slide's tiles, int64 (N, 2)."""
        from wsi_ncmi.features.reader import open_features_file

        return open_features_file(self._files[slide_id]).coords

    def embedded_cohort(self, group: str | None = None) -> Cohort | None:
        """None: feature files carry no labels."""
        return None


def find_feature_folder(path: Path) -> Path:
    """Finds the one folder of ``.h5`` files in ``OUT``, ``OUT/features`` or ``OUT/features/<encoder>``.

    Raises:
        InputError: None, or several encoders to choose from.
    """
    if any(path.glob("*.h5")):
        return path
    root = path / "features" if (path / "features").is_dir() else path
    if any(root.glob("*.h5")):
        return root
    candidates = sorted(p for p in root.iterdir() if p.is_dir() and any(p.glob("*.h5")))
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise InputError(f"No feature files (*.h5) below {path}; run 'wsi-ncmi extract' first.")
    names = ", ".join(p.name for p in candidates)
    raise InputError(
        f"{root} holds features of several encoders ({names}); give one, such as {candidates[0]}."
    )


class _UnusableFileError(Exception):
    """Why a file can't serve as features."""


def _read_header(file: Path) -> tuple[dict[str, Any], tuple[int, int], int | None]:
    try:
        check_regular(file)
        with h5py.File(file, "r") as handle:
            check_heaps(handle, file)
            # Only what is needed: a cohort has thousands of files, each with some forty attributes.
            attrs = _attributes(handle.attrs)
            dataset = own_table(handle, "features")
            shape, kind = (None, "") if dataset is None else (dataset.shape, dataset.dtype.kind)
            plain = dataset is not None and dataset.chunks is None and dataset.dtype == np.dtype("<f2")
            # None also where there are no tiles: HDF5 has allocated nothing then.
            offset = dataset.id.get_offset() if dataset is not None and plain else None
    except ValueError as error:
        raise _UnusableFileError(" ".join(str(error).split())) from error
    except Exception as error:  # what a parser raises over damaged bytes is not documented
        raise _UnusableFileError("truncated or not HDF5") from error
    if "schema" not in attrs or not isinstance(attrs.get("slide_id"), str):
        raise _UnusableFileError("not written by wsi-ncmi")
    if not attrs.get("complete"):
        raise _UnusableFileError("not complete")
    if shape is None or len(shape) != 2 or kind != "f":
        raise _UnusableFileError("no table 'features'")
    if attrs.get("n_tiles") != shape[0]:
        raise _UnusableFileError(f"{shape[0]} rows where n_tiles says {attrs.get('n_tiles')}")
    if shape[0] and not shape[1]:
        raise _UnusableFileError("its embeddings have no dimensions")
    return attrs, (int(shape[0]), int(shape[1])), offset


def _attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in _HEADER:
        with contextlib.suppress(KeyError):  # asking first would look it up twice
            found[key] = _plain(given[key])
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value


def _check_same_identity(file: Path, found: dict[str, Any], first: Path, expected: dict[str, Any]) -> None:
    for key in _IDENTITY:
        if found[key] != expected[key]:
            raise InputError(
                f"{file.parent} mixes features of different identity: {key} is {expected[key]!r} in "
                f"{first.name} but {found[key]!r} in {file.name}; keep one kind in a folder or extract with "
                "--overwrite."
            )


class PackedBags:
    """Bag source over a packed ``.npz``; see ``BagSource``.

    Features stored without compression (``np.savez``) are compared with the archive's checksum and then
    memory-mapped, so that processes share the pages; compressed ones are inflated when the file is opened.

    Raises:
        InputError: Not an archive, a key missing, or arrays that don't fit each other.
    """

    def __init__(self, path: Path, compared: bool = False) -> None:
        from wsi_ncmi.features.interchange.packed import PackedSet

        self._set = PackedSet(path, compared=compared)
        self.path = path
        self.slide_ids = self._set.slide_ids
        self.lengths: NDArray[np.int64] = self._set.lengths
        self.width = int(self._set.table.shape[1])
        self.encoder = self._set.encoder()
        self.level = self._set.level

    def __reduce__(self) -> tuple[type[PackedBags], tuple[Path, bool]]:
        # Another process opens the file itself; a pickled memory map would carry all features along.
        return PackedBags, (self.path, True)

    def load(self, slide_id: str) -> NDArray[np.float16]:
        """Embeddings of one slide, float16 (N, D), a copy in memory."""
        try:
            bag = self._set.features(slide_id)
        except KeyError:
            raise InputError(f"{self.path} has no slide {slide_id!r}.") from None
        return checked_bag(bag, slide_id, self.path)

    def coordinates(self, slide_id: str) -> NDArray[np.int64] | None:
        """Places of a slide's tiles (N, 2), or None where the file has none."""
        return self._set.coordinates(slide_id)

    def embedded_cohort(self, group: str | None = None) -> Cohort | None:
        """The labels in the file, or None where it has no ``label``; see ``cohort_of_columns``."""
        texts = self._set.texts
        return cohort_of_columns(
            self.path, self.slide_ids, texts.get("label"), texts.get("case_id"), texts.get("centre"), group
        )
