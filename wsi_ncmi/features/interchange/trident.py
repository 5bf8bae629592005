"""TRIDENT: ``<mag>x_<px>px_<overlap>px_overlap/features_<encoder>/<name>.h5``.

Facts from mahmoodlab/TRIDENT (``trident/IO.py``: ``save_h5``, ``coords_to_h5``): ``features`` (N, D) with the
attribute ``encoder``, ``coords`` int64 (N, 2) with nine attributes; ``patch_size`` counts pixels at the
target magnification. Magnification stands for resolution there: 10 µm / mpp.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.encoders import encoder_folder_name
from wsi_ncmi.features.hdf5_io import python_value
from wsi_ncmi.features.interchange.bag import ExternalFileError, TileBag, TileMetadata
from wsi_ncmi.features.interchange.base import FolderSet, ImageWriter
from wsi_ncmi.features.interchange.hdf5 import (
    coords_of,
    image_of,
    opened,
    rows_of,
    shape_of,
    table_of,
    whole_pixels,
)

__all__ = ["JOB_FOLDER", "TridentSet", "TridentWriter"]

JOB_FOLDER = re.compile(r"^[0-9.]+x_[0-9]+px_[0-9]+px_overlap$")
_PREFIX = "features_"
_TOLD = ("patch_size", "target_magnification", "overlap")


class TridentSet(FolderSet):
    """One folder ``features_<encoder>`` of TRIDENT.

    Args:
        path: The folder.
    """

    kind: ClassVar[str] = "trident"

    def header(self, slide_id: str) -> tuple[tuple[int, int], Mapping[str, Any]]:
        """See the base class."""
        path = self.where(slide_id)
        with opened(path) as handle:
            table = table_of(handle, "features", path)
            coords = handle["coords"].attrs if "coords" in handle else {}
            told = {name: python_value(coords[name]) for name in _TOLD if name in coords}
            if "encoder" in table.attrs:
                told["encoder"] = python_value(table.attrs["encoder"])
        return shape_of(table), told

    def features(self, slide_id: str) -> NDArray[Any]:
        """See the base class."""
        path = self.where(slide_id)
        with opened(path) as handle:
            return rows_of(table_of(handle, "features", path))

    def encoder(self) -> str:
        """See the base class."""
        return self.path.name.removeprefix(_PREFIX) if self.path.name.startswith(_PREFIX) else ""

    def bag(self, slide_id: str) -> TileBag:
        """See the base class."""
        path = self.where(slide_id)
        with opened(path) as handle:
            table = table_of(handle, "features", path)
            features = rows_of(table)
            stored = coords_of(handle, len(features), path)
            encoder = str(python_value(table.attrs.get("encoder", ""))) or self.encoder()
            attrs = {} if stored is None else {k: python_value(v) for k, v in handle["coords"].attrs.items()}
            metadata = _metadata(attrs, encoder)
        coords = None if stored is None else whole_pixels(stored, path)
        return TileBag(slide_id, features, metadata, coords)


def _metadata(attrs: dict[str, Any], encoder: str) -> TileMetadata:
    def number(name: str) -> float | None:
        value = attrs.get(name)
        return float(value) if isinstance(value, int | float) and value > 0 else None

    level0, target = number("level0_magnification"), number("target_magnification")
    tile, edge = number("patch_size"), number("patch_size_level0")
    if tile and level0 and target:
        # The attribute is cut to a whole number; the fraction that it was cut from is exact.
        exact = tile * level0 / target
        edge = exact if edge is None or abs(exact - edge) <= 1 else edge
    width, height = number("level0_width"), number("level0_height")
    overlap = attrs.get("overlap")
    return TileMetadata(
        encoder=encoder,
        mpp_x=10 / level0 if level0 else None,
        mpp_y=10 / level0 if level0 else None,
        mpp_target=10 / target if target else None,
        tile_px=int(tile) if tile else None,
        overlap_px=int(overlap) if isinstance(overlap, int | float) else None,
        tile_width=edge,
        tile_height=edge,
        level0_size=(int(width), int(height)) if width and height else None,
    )


class TridentWriter(ImageWriter):
    """Writes features and ``patches/<name>_patches.h5``; what TRIDENT needs must be known."""

    kind: ClassVar[str] = "trident"

    def files(self, bag: TileBag) -> tuple[dict[Path, bytes], tuple[str, ...]]:
        """See the base class."""
        metadata, coords = bag.metadata, bag.coords
        if coords is None or not (
            metadata.tile_px and metadata.mpp_x and metadata.mpp_y and metadata.mpp_target
        ):
            raise ExternalFileError(
                f"{bag.slide_id}: TRIDENT's files tell coordinates, tile size and resolution, and not all of "
                "them are known here; give the slides' resolution with --default-mpp or --mpp-table, or "
                "convert to clam."
            )
        if not np.isfinite(bag.features).all():
            raise ExternalFileError(f"The features of {bag.slide_id} hold NaN or infinity; make them again.")
        level0 = magnification(
            float(np.sqrt(metadata.mpp_x * metadata.mpp_y))
            if metadata.mpp_x != metadata.mpp_y
            else metadata.mpp_x
        )
        target = magnification(metadata.mpp_target)
        edge = metadata.tile_width or metadata.tile_px * metadata.mpp_target / metadata.mpp_x
        size = metadata.level0_size or tuple(int(v) for v in np.ceil(coords.max(axis=0, initial=0) + edge))
        overlap = metadata.overlap_px or 0
        attrs = {
            "patch_size": metadata.tile_px,
            "patch_size_level0": round(edge),
            "level0_magnification": level0,
            "target_magnification": target,
            "overlap": overlap,
            "name": bag.slide_id,
            "savetodir": "",
            "level0_width": size[0],
            "level0_height": size[1],
        }
        # Their models take float32; every float16 is one.
        features = np.ascontiguousarray(bag.features, np.float32)
        encoder = metadata.encoder or "unknown"

        def fill(handle: h5py.File) -> None:
            write_coords(handle)
            width = features.shape[1]
            table = handle.create_dataset(
                "features", data=features, maxshape=(None, width), chunks=(512, width), dtype="<f4"
            )
            table.attrs["encoder"] = encoder

        def write_coords(handle: h5py.File) -> None:
            table = handle.create_dataset(
                "coords", data=coords, maxshape=(None, 2), chunks=(512, 2), dtype="<i8"
            )
            table.attrs.update(attrs)

        job = self.out / f"{target:g}x_{metadata.tile_px}px_{overlap}px_overlap"
        name = f"{bag.slide_id}.h5"
        contents = {
            job / f"{_PREFIX}{encoder_folder_name(encoder)}" / name: image_of(fill),
            job / "patches" / f"{bag.slide_id}_patches.h5": image_of(write_coords),
        }
        notes = (
            ()
            if metadata.level0_size
            else ("the slide's size is not known: the extent of its tiles stands for it",)
        )
        return contents, notes


def magnification(mpp: float) -> int | float:
    """10 µm / mpp; a whole one as an int, as TRIDENT writes it."""
    exact = 10.0 / mpp
    return round(exact) if abs(exact - round(exact)) < 1e-9 else exact
