"""Bags packed into one ``.npz``: ``features`` (ΣN, D), ``lengths``, ``label``, ``slide_id``, ``case_id``."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.cohorts.cohort import Cohort, CohortRow, order_classes
from wsi_ncmi.cohorts.sources import checked_bag
from wsi_ncmi.errors import InputError

__all__ = ["PackedBags"]

_REQUIRED = ("features", "lengths", "slide_id")


class PackedBags:
    """Bag source over a packed ``.npz``; see ``BagSource``.

    Features stored without compression (``np.savez``) are memory-mapped inside the archive, so opening costs
    nothing and processes share the pages; compressed ones are inflated once, when first needed.

    Raises:
        InputError: Not an archive, a key missing, or arrays that don't fit each other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.encoder = ""
        arrays = self._read_small_arrays()
        self.slide_ids: tuple[str, ...] = tuple(str(s) for s in arrays["slide_id"])
        lengths = arrays["lengths"]
        if lengths.ndim != 1 or not np.issubdtype(lengths.dtype, np.integer) or (lengths < 0).any():
            raise InputError(f"{path}: 'lengths' must be a list of tile counts, whole numbers from 0.")
        self.lengths: NDArray[np.int64] = lengths.astype(np.int64)
        self._labels = _strings(arrays.get("label"))
        self._cases = _strings(arrays.get("case_id"))
        self._centres = _strings(arrays.get("centre"))
        self._check_counts()
        self._features = self._open_features()
        if self._features.ndim != 2 or self._features.dtype.kind != "f":
            raise InputError(
                f"{path}: 'features' must be a floating-point table (tiles, dimensions), "
                f"found {self._features.dtype} of shape {self._features.shape}."
            )
        if int(self.lengths.sum()) != self._features.shape[0]:
            raise InputError(
                f"{path}: 'lengths' sum to {int(self.lengths.sum())} tiles but 'features' has "
                f"{self._features.shape[0]} rows; pack the file again."
            )
        self.width = int(self._features.shape[1])
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._position = {s: i for i, s in enumerate(self.slide_ids)}

    def __reduce__(self) -> tuple[type[PackedBags], tuple[Path]]:
        # Another process opens the file itself; a pickled memory map would carry all features along.
        return PackedBags, (self.path,)

    def load(self, slide_id: str) -> NDArray[np.float16]:
        """Embeddings of one slide, float16 (N, D), a copy in memory."""
        if slide_id not in self._position:
            raise InputError(f"{self.path} has no slide {slide_id!r}.")
        i = self._position[slide_id]
        bag = np.array(self._features[self._starts[i] : self._starts[i + 1]])
        return checked_bag(bag, slide_id, self.path)

    def embedded_cohort(self, group: str | None = None) -> Cohort | None:
        """The labels in the file, or None where it has no ``label``.

        Args:
            group: ``"slide_id"`` = the user says that each slide is a patient of its own; known patient ids
                are kept all the same, so that the leak audit can see what that does.

        Raises:
            InputError: Labels without ``case_id`` and without that word of the user, an empty label, or a
                single class.
        """
        if self._labels is None:
            return None
        if self._cases is None and group != "slide_id":
            raise InputError(
                f"{self.path} has no 'case_id': without patient ids a patient could be in training and test; "
                "add 'case_id', or say with --group slide_id that each slide is a patient of its own."
            )
        assumed = self._cases is None
        cases = self.slide_ids if self._cases is None else self._cases
        for column, values in (("label", self._labels), ("case_id", cases)):
            for slide_id, value in zip(self.slide_ids, values, strict=True):
                if not value:
                    raise InputError(f"{self.path}: slide {slide_id!r} has an empty {column!r}; fill it in.")
        classes = order_classes(self._labels)
        if len(classes) < 2:
            raise InputError(f"{self.path} holds only the class {classes[0]!r}; a task needs at least two.")
        centres = self._centres or ("",) * len(self.slide_ids)
        rows = zip(self.slide_ids, cases, self._labels, centres, strict=True)
        return Cohort(tuple(CohortRow(*row) for row in rows), classes, case_id_assumed=assumed)

    def _read_small_arrays(self) -> dict[str, NDArray[Any]]:
        try:
            # Opened here: numpy leaves its own handle open when the archive is broken.
            with self.path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
                missing = [key for key in _REQUIRED if key not in archive.files]
                if missing:
                    found = ", ".join(archive.files)
                    raise InputError(
                        f"{self.path} lacks {', '.join(map(repr, missing))} (it has: {found}); a packed file "
                        "needs 'features', 'lengths' and 'slide_id', and 'label' and 'case_id' for training."
                    )
                return {key: archive[key] for key in archive.files if key != "features"}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{self.path} can't be read as a packed .npz file ({error}).") from error

    def _check_counts(self) -> None:
        count = len(self.slide_ids)
        columns = {
            "lengths": len(self.lengths),
            "label": None if self._labels is None else len(self._labels),
            "case_id": None if self._cases is None else len(self._cases),
            "centre": None if self._centres is None else len(self._centres),
        }
        for key, found in columns.items():
            if found is not None and found != count:
                raise InputError(f"{self.path}: {key!r} has {found} entries but 'slide_id' has {count}.")
        if len(set(self.slide_ids)) != count:
            seen: set[str] = set()
            twice = next(s for s in self.slide_ids if s in seen or seen.add(s))  # type: ignore[func-returns-value]
            raise InputError(f"{self.path}: slide {twice!r} is there twice; slide ids must be unique.")
        if count == 0:
            raise InputError(f"{self.path} holds no slides.")

    def _open_features(self) -> NDArray[Any]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                member = archive.getinfo("features.npy")
                with archive.open(member) as stream:
                    version = np.lib.format.read_magic(stream)
                    read_header = {
                        (1, 0): np.lib.format.read_array_header_1_0,
                        (2, 0): np.lib.format.read_array_header_2_0,
                    }.get(version)
                    mappable = member.compress_type == zipfile.ZIP_STORED and read_header is not None
                    if mappable and read_header is not None:
                        shape, fortran, dtype = read_header(stream)
                        header_size = stream.tell()
            # An empty file can't be mapped.
            if mappable and not dtype.hasobject and int(np.prod(shape)) > 0:
                # The local header before the data has its own name and extra field, whose lengths differ
                # from those in the central directory.
                with self.path.open("rb") as handle:
                    handle.seek(member.header_offset + 26)
                    name_size, extra_size = np.frombuffer(handle.read(4), dtype="<u2")
                start = member.header_offset + 30 + int(name_size) + int(extra_size) + header_size
                order: Literal["C", "F"] = "F" if fortran else "C"
                return np.memmap(self.path, dtype=dtype, mode="r", offset=start, shape=shape, order=order)
            with np.load(self.path, allow_pickle=False) as loaded:
                inflated: NDArray[Any] = loaded["features"]
                return inflated
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{self.path}: 'features' can't be read ({error}).") from error


def _strings(array: NDArray[Any] | None) -> tuple[str, ...] | None:
    return None if array is None else tuple(str(value).strip() for value in array)
