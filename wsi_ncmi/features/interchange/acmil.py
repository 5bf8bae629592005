"""The ACMIL family: one HDF5 file a cohort, in it a group a slide with ``feat``, ``coords`` and its label."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.values import tidy
from wsi_ncmi.features.hdf5_io import own_member, python_value
from wsi_ncmi.features.interchange.bag import ExternalFileError, TileBag, TileMetadata
from wsi_ncmi.features.interchange.base import FeatureSet
from wsi_ncmi.features.interchange.hdf5 import coords_of, opened, rows_of, shape_of, table_of, whole_pixels

_FEATURES = "feat"


class AcmilSet(FeatureSet):
    """A cohort in one HDF5 file.

    Args:
        path: The file.

    Raises:
        InputError: It can't be read or holds no slides.
    """

    kind: ClassVar[str] = "acmil"

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with opened(path) as handle:
                self._labels: dict[str, str] = {}
                slide_ids = []
                for name in handle:
                    try:
                        group = own_member(handle, name)
                    except ValueError:  # refused when its turn comes
                        slide_ids.append(name)
                        continue
                    if isinstance(group, h5py.Group):
                        slide_ids.append(name)
                        if "label" in group.attrs:
                            self._labels[name] = tidy(str(python_value(group.attrs["label"])))
                self.slide_ids = tuple(sorted(slide_ids))
        except ExternalFileError as error:
            raise InputError(str(error)) from error
        if not self.slide_ids:
            raise InputError(f"{path} holds no slides: a cohort file has a group with 'feat' for each slide.")

    def where(self, slide_id: str) -> Path:
        """See the base class."""
        return self.path

    def header(self, slide_id: str) -> tuple[tuple[int, int], Mapping[str, Any]]:
        """See the base class."""
        with opened(self.path) as handle:
            return shape_of(table_of(_group(handle, slide_id), _FEATURES, self.path / slide_id)), {}

    def features(self, slide_id: str) -> NDArray[Any]:
        """See the base class."""
        with opened(self.path) as handle:
            return rows_of(table_of(_group(handle, slide_id), _FEATURES, self.path / slide_id))

    def bag(self, slide_id: str) -> TileBag:
        """See the base class."""
        place = self.path / slide_id
        with opened(self.path) as handle:
            features = rows_of(table_of(_group(handle, slide_id), _FEATURES, place))
            stored = coords_of(_group(handle, slide_id), len(features), place)
        coords = None if stored is None else whole_pixels(stored, place)
        return TileBag(slide_id, features, TileMetadata(label=self._labels.get(slide_id, "")), coords)

    def labels(self) -> Mapping[str, str]:
        """See the base class."""
        return self._labels


def _group(handle: h5py.File, slide_id: str) -> h5py.Group:
    group = own_member(handle, slide_id)
    if not isinstance(group, h5py.Group):
        raise KeyError(f"no group {slide_id!r}")
    return group
