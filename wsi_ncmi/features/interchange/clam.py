"""CLAM: ``h5_files/<id>.h5``, ``pt_files/<id>.pt``, and the tiles of ``patches/<id>.h5``.

Facts from mahmoodlab/CLAM (``dataset_modules/dataset_generic.py``, ``wsi_core/WholeSlideImage.py``): training
takes ``pt_files`` as bare float32 tensors (N, D), heatmaps take ``features`` and ``coords`` of ``h5_files``.
``patch_size`` counts pixels of the pyramid level ``patch_level``.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import check_inflation
from wsi_ncmi.features.hdf5_io import own_member, python_value
from wsi_ncmi.features.interchange.bag import ExternalFileError, TileBag, TileMetadata, to_half
from wsi_ncmi.features.interchange.base import FeatureSet, ImageWriter, bare_id
from wsi_ncmi.features.interchange.hdf5 import (
    coords_of,
    image_of,
    opened,
    rows_of,
    shape_of,
    table_of,
    whole_pixels,
)

if TYPE_CHECKING:
    import torch

_FEATURES = "features"


class ClamSet(FeatureSet):
    """A CLAM feature folder; HDF5 files are preferred where both kinds are there, for they have coordinates.

    Args:
        path: The folder with ``h5_files/`` or ``pt_files/``, or one of those two.

    Raises:
        InputError: There is no file in it.
    """

    kind: ClassVar[str] = "clam"

    def __init__(self, path: Path) -> None:
        self.path = path
        root = path.parent if path.name in ("h5_files", "pt_files") else path
        self._patches = root / "patches"
        self._files: dict[str, Path] = {}
        # Beside the folders of features lie checkpoints; without these folders the root holds the features.
        inside = [folder for name in ("pt_files", "h5_files") if (folder := root / name).is_dir()]
        folders = [path] if root != path else inside or [root]
        for folder in folders:
            for suffix in (".pt", ".h5"):
                found = sorted(folder.glob(f"*{suffix}")) if folder.is_dir() else []
                self._files.update(
                    {bare_id(file, suffix): file for file in found if not file.name.startswith(".")}
                )
        if not self._files:
            raise InputError(f"There are no feature files (*.h5, *.pt) of CLAM in {path}.")
        self.slide_ids = tuple(sorted(self._files))

    def where(self, slide_id: str) -> Path:
        """See the base class."""
        return self._files[slide_id]

    def header(self, slide_id: str) -> tuple[tuple[int, int], Mapping[str, Any]]:
        """See the base class."""
        path = self.where(slide_id)
        if path.suffix == ".pt":
            rows, width = _bag(path, mapped=True).shape
            return (int(rows), int(width)), {}
        with opened(path) as handle:
            return shape_of(table_of(handle, _FEATURES, path)), {}

    def features(self, slide_id: str) -> NDArray[Any]:
        """See the base class."""
        path = self.where(slide_id)
        if path.suffix == ".pt":
            values: NDArray[Any] = _bag(path).numpy()
            return values
        with opened(path) as handle:
            return rows_of(table_of(handle, _FEATURES, path))

    def bag(self, slide_id: str) -> TileBag:
        """See the base class."""
        path, features = self.where(slide_id), self.features(slide_id)
        coords, metadata = None, TileMetadata()
        if path.suffix == ".h5":
            with opened(path) as handle:
                stored = coords_of(handle, len(features), path)
            coords = None if stored is None else whole_pixels(stored, path)
            metadata = self._patch_metadata(slide_id)
        return TileBag(slide_id, features, metadata, coords)

    def _patch_metadata(self, slide_id: str) -> TileMetadata:
        path = self._patches / f"{slide_id}.h5"
        if not path.is_file():
            return TileMetadata()
        with opened(path) as handle:
            table = own_member(handle, "coords")
            if table is None:
                raise KeyError("it has no 'coords'")
            attrs = {name: python_value(value) for name, value in table.attrs.items()}
            size, down = int(attrs["patch_size"]), np.broadcast_to(np.asarray(attrs["downsample"], float), 2)
            width, height = (int(v) for v in attrs["level_dim"])
            if int(attrs["patch_level"]) > 0:  # the size is that of the patches' level
                width, height = round(width * down[0]), round(height * down[1])
            return TileMetadata(
                tile_px=size,
                tile_width=size * float(down[0]),
                tile_height=size * float(down[1]),
                level0_size=(width, height),
            )


class ClamWriter(ImageWriter):
    """Writes ``h5_files``, ``pt_files`` and, where tile and slide size are known, ``patches``."""

    kind: ClassVar[str] = "clam"

    def files(self, bag: TileBag) -> tuple[dict[Path, bytes], tuple[str, ...]]:
        """See the base class."""
        import torch

        name = bag.slide_id
        half_or_full = (
            bag.features if bag.features.dtype != np.float64 else to_half(bag.features, Path(name))[0]
        )
        features = np.ascontiguousarray(half_or_full, np.float32)
        if not np.isfinite(features).all():
            raise ExternalFileError(f"The features of {name} hold NaN or infinity; make them again.")
        tensor = io.BytesIO()
        torch.save(torch.from_numpy(features.copy()), tensor)
        contents: dict[Path, bytes] = {}
        coords, notes = bag.coords, []
        if coords is None:
            unit = " in pixels" if bag.coords_um is not None else ""
            notes.append(f"no coordinates{unit} are known: pt_files alone")
        else:
            small = np.abs(coords).max(initial=0) < 2**31
            stored = coords.astype(np.int32 if small else np.int64)

            def fill(handle: h5py.File) -> None:
                for key, data in ((_FEATURES, features), ("coords", stored)):
                    shape = (None, data.shape[1])
                    chunks = (32, data.shape[1])
                    handle.create_dataset(key, data=data, maxshape=shape, chunks=chunks)

            contents[self.out / "h5_files" / f"{name}.h5"] = image_of(fill)
        contents[self.out / "pt_files" / f"{name}.pt"] = tensor.getvalue()
        metadata = bag.metadata
        if coords is not None and metadata.tile_width and metadata.level0_size:
            contents[self.out / "patches" / f"{name}.h5"] = _patches(name, coords, metadata)
        elif coords is not None:
            notes.append("tile or slide size is not known: no patches/")
        return contents, tuple(notes)


def _patches(name: str, coords: NDArray[np.int64], metadata: TileMetadata) -> bytes:
    size = np.asarray(metadata.level0_size, np.int64)

    def fill(handle: h5py.File) -> None:
        table = handle.create_dataset("coords", data=coords, maxshape=(None, 2), chunks=(512, 2), dtype="<i8")
        # Tiles are said in pixels of level 0, where they are exact; CLAM knows no resampled tiles.
        table.attrs.update(
            {
                "patch_size": round(metadata.tile_width or 0),
                "patch_level": 0,
                "downsample": np.array([1.0, 1.0]),
                "downsampled_level_dim": size,
                "level_dim": size,
                "name": name,
                "save_path": "",
            }
        )

    return image_of(fill)


def _bag(path: Path, *, mapped: bool = False) -> torch.Tensor:
    loaded = read_tensor(path, mapped=mapped)
    if loaded.ndim == 3 and loaded.shape[0] == 1:  # a batch of one
        loaded = loaded[0]
    if loaded.ndim != 2 or loaded.shape[1] == 0:
        raise ExternalFileError(
            f"{path} holds a tensor of shape {tuple(loaded.shape)}, not (tiles, dimensions)."
        )
    return loaded


def read_tensor(path: Path, *, mapped: bool = False) -> torch.Tensor:
    """A file's one tensor, of any shape, float16, 32 or 64; nothing but numbers is unpickled.

    Args:
        path: A ``.pt`` file.
        mapped: Leave the numbers on disk, where the file can be mapped.

    Raises:
        ExternalFileError: It is damaged, or no dense tensor of floating-point numbers.
    """
    import torch

    try:
        mapped = mapped and zipfile.is_zipfile(path)  # files of torch before 1.6 can't be mapped
        check_inflation(path)
        with warnings.catch_warnings():
            # Of files that are no tensors; they are refused in a sentence below.
            warnings.simplefilter("ignore")
            # Never unpickles anything but tensors: the file comes from elsewhere.
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # an unpickler on someone else's bytes can fail in any way
        reason = " ".join(str(error).split())[:200]
        raise ExternalFileError(
            f"{path} can't be read as a tensor ({reason}); it is truncated or holds something else."
        ) from error
    if not isinstance(loaded, torch.Tensor):
        raise ExternalFileError(f"{path} holds a {type(loaded).__name__}, not a tensor (tiles, dimensions).")
    if loaded.is_meta or loaded.is_quantized or loaded.is_nested or loaded.layout != torch.strided:
        kind = "quantised" if loaded.is_quantized else "without numbers" if loaded.is_meta else "not dense"
        raise ExternalFileError(f"{path} holds a tensor that is {kind}; save it dense, in float32.")
    if not loaded.is_floating_point():
        raise ExternalFileError(f"{path} holds {loaded.dtype}, not floating-point numbers.")
    if loaded.untyped_storage().nbytes() < loaded.numel() * loaded.element_size():
        raise ExternalFileError(f"{path} claims {loaded.numel():,} numbers and holds fewer; make it again.")
    detached = loaded.detach().resolve_neg()
    return detached if detached.dtype in (torch.float16, torch.float32, torch.float64) else detached.float()
