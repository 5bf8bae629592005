"""STAMP: ``<extractor>/<id>.h5`` with ``feats`` and coordinates in µm.

Facts from KatherLab/STAMP (``src/stamp/modeling/data.py``: ``get_coords``; ``src/stamp/preprocessing``).
Files of version 2 have ``tile_size_um`` (2.1 and later) or ``tile_size`` with ``unit = "um"`` (2.0); older
ones have coordinates in pixels of 256/224 µm, which their stride of 224 tells. The slide's own resolution is
in none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.encoders import encoder_folder_name
from wsi_ncmi.features.hdf5_io import python_value
from wsi_ncmi.features.interchange.bag import ExternalFileError, TileBag, TileMetadata, grid_step, to_half
from wsi_ncmi.features.interchange.base import FolderSet, ImageWriter
from wsi_ncmi.features.interchange.hdf5 import coords_of, image_of, opened, rows_of, shape_of, table_of

_FEATURES = "feats"
_TOLD = ("extractor", "unit", "tile_size_um", "tile_size", "tile_size_px")
_OLD_STRIDE_PX, _OLD_TILE_UM = 224, 256.0
# The layout with ``tile_size_um`` came with this version; older STAMP programs then refuse the file.
_LAYOUT_VERSION = "2.1.0"


class StampSet(FolderSet):
    """A folder of STAMP tile features.

    Args:
        path: The folder, such as ``<output>/<extractor>-<hash>``.
    """

    kind: ClassVar[str] = "stamp"

    def header(self, slide_id: str) -> tuple[tuple[int, int], Mapping[str, Any]]:
        """See the base class."""
        path = self.where(slide_id)
        with opened(path) as handle:
            shape = shape_of(_table(handle, path))
            told = {name: python_value(handle.attrs[name]) for name in _TOLD if name in handle.attrs}
        return shape, told

    def features(self, slide_id: str) -> NDArray[Any]:
        """See the base class."""
        path = self.where(slide_id)
        with opened(path) as handle:
            return rows_of(_table(handle, path))

    def bag(self, slide_id: str) -> TileBag:
        """See the base class."""
        path = self.where(slide_id)
        with opened(path) as handle:
            features = rows_of(_table(handle, path))
            stored = coords_of(handle, len(features), path)
            attrs = {name: python_value(value) for name, value in handle.attrs.items()}
            metadata = TileMetadata(encoder=str(attrs.get("extractor", "")))
            if stored is None:
                return TileBag(slide_id, features, metadata)
            coords_um, tile_um, tile_px = _in_um(stored, attrs, path)
        known = TileMetadata(
            encoder=metadata.encoder,
            tile_px=tile_px,
            tile_um=tile_um,
            mpp_target=tile_um / tile_px if tile_px else None,
            overlap_px=0,
        )
        return TileBag(slide_id, features, known, coords_um=coords_um)


def _table(handle: h5py.File, path: Path) -> h5py.Dataset:
    if (kind := str(python_value(handle.attrs.get("feat_type", "tile")))) != "tile":
        raise ExternalFileError(f"{path} holds features of a {kind}, not of tiles.")
    return table_of(handle, _FEATURES, path)


def _in_um(
    stored: NDArray[Any], attrs: dict[str, Any], path: Path
) -> tuple[NDArray[np.float64], float, int | None]:
    tile_px = int(attrs["tile_size_px"]) if attrs.get("tile_size_px") else None
    tile_um = attrs.get("tile_size_um") or (attrs.get("tile_size") if attrs.get("unit") == "um" else None)
    if tile_um:
        return stored.astype(np.float64), float(tile_um), tile_px
    stride = attrs.get("tile_size") or grid_step(stored)
    if stride is not None and round(float(stride)) == _OLD_STRIDE_PX:
        scale = _OLD_TILE_UM / _OLD_STRIDE_PX
        return stored.astype(np.float64) * scale, _OLD_TILE_UM, _OLD_STRIDE_PX
    raise ExternalFileError(
        f"{path}: the unit of its coordinates can't be told (no 'tile_size_um', and a stride of {stride} "
        "where old files have 224); make it again with a current STAMP."
    )


class StampWriter(ImageWriter):
    """Writes ``<encoder>/<id>.h5`` in the layout of STAMP 2.1; a slide without tiles has no file there."""

    kind: ClassVar[str] = "stamp"

    def files(self, bag: TileBag) -> tuple[dict[Path, bytes], tuple[str, ...]]:
        """See the base class."""
        metadata, coords_um = bag.metadata, bag.coords_um
        if coords_um is None and bag.coords is not None and metadata.mpp_x and metadata.mpp_y:
            coords_um = bag.coords * np.array([metadata.mpp_x, metadata.mpp_y])
        if coords_um is None or not (metadata.tile_px and metadata.edge_um):
            raise ExternalFileError(
                f"{bag.slide_id}: STAMP's files tell coordinates in µm and the size of tiles, and not all of "
                "that is known here; give the slides' resolution with --default-mpp or --mpp-table, or "
                "convert to clam."
            )
        if not len(bag.features):
            raise ExternalFileError(f"{bag.slide_id} has no tiles, and STAMP has no file for such a slide.")
        features, error = to_half(bag.features, Path(bag.slide_id))
        encoder = metadata.encoder or "unknown"

        def fill(handle: h5py.File) -> None:
            handle.create_dataset("coords", data=coords_um, dtype="<f4")
            handle.create_dataset(_FEATURES, data=features, dtype="<f2")
            handle.attrs.update(
                {
                    "stamp_version": _LAYOUT_VERSION,
                    "extractor": encoder,
                    "unit": "um",
                    "tile_size_um": float(metadata.edge_um or 0),
                    "tile_size_px": metadata.tile_px,
                    "code_hash": "unknown",
                    "feat_type": "tile",
                }
            )

        notes = (f"rounded to float16, relative error {error:.1e}",) if error else ()
        return {self.out / encoder_folder_name(encoder) / f"{bag.slide_id}.h5": image_of(fill)}, notes
