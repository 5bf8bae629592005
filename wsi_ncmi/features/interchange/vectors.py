"""Vectors of whole slides or patients: one file each, ``.h5``, ``.pt``, ``.npy`` or slide2vec's ``.npz``.

Facts from mahmoodlab/TRIDENT (``wsi_objects/WSI.py``: ``extract_slide_features``): folder
``slide_features_<encoder>``, ``features`` (D,), of a slide without tiles (0,), beside the ``coords`` of the
tiles with their attributes; from KatherLab/STAMP (``encoding/encoder/__init__.py``: ``_save_features_``):
``feats`` (D,), or (1, D), with the file attributes ``encoder``, ``precision`` and ``feat_type``, ``slide`` or
``patient``, and folders ``<encoder>-slide-<hash>`` and ``<encoder>-pat-<hash>``; from clemsgrs/slide2vec
(``artifacts.py``): ``slide_embeddings/<id>.pt`` and ``patient_embeddings/<id>.pt``, tensors (D,), or ``.npz``
with ``features``, and ``<id>.meta.json`` with ``encoder_name`` and ``artifact_type`` beside each.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import check_regular, parse_json
from wsi_ncmi.features.hdf5_io import own_member, own_table, python_value
from wsi_ncmi.features.interchange.bag import ExternalFileError, TileBag, TileMetadata
from wsi_ncmi.features.interchange.base import FeatureSet, bare_id
from wsi_ncmi.features.interchange.clam import read_tensor
from wsi_ncmi.features.interchange.hdf5 import opened
from wsi_ncmi.features.interchange.packed import map_member

SUFFIXES = (".h5", ".pt", ".npy", ".npz")
EMBEDDING_FOLDERS = ("slide_embeddings", "patient_embeddings")
"""slide2vec's folders, which hold nothing but tensors."""

_NAMES = ("features", "feats")
_META = ".meta.json"
_FOLDER = "slide_features_"
_TILES = ("patch_size", "target_magnification", "overlap")


class VectorSet(FeatureSet):
    """A folder of vectors, one a slide or patient; each is read as a bag of one.

    Args:
        path: The folder.

    Raises:
        InputError: Two files are of one slide, or there is none.
    """

    kind: ClassVar[str] = "vectors"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, Path] = {}
        for file in vector_files(path):
            slide_id = bare_id(file, file.suffix)
            if slide_id in self._files:
                other = self._files[slide_id].name
                raise InputError(f"{path} holds {slide_id!r} twice, in {other} and {file.name}; remove one.")
            self._files[slide_id] = file
        if not self._files:
            raise InputError(f"There are no vectors ({', '.join(SUFFIXES)}) in {path}.")
        self.slide_ids = tuple(sorted(self._files))
        self._told: Mapping[str, Any] = {}
        for slide_id in self.slide_ids:  # the first readable one tells for all; the survey compares the rest
            try:
                self._told = self.header(slide_id)[1]
                break
            except ExternalFileError:
                continue
        self.level = self._told.get("level", "slide")

    def where(self, slide_id: str) -> Path:
        """See the base class."""
        return self._files[slide_id]

    def header(self, slide_id: str) -> tuple[tuple[int, int], Mapping[str, Any]]:
        """See the base class; a slide without tiles has the shape (0, 0)."""
        vector, told = self._read(slide_id)
        return ((1, len(vector)) if len(vector) else (0, 0)), told

    def features(self, slide_id: str) -> NDArray[Any]:
        """See the base class."""
        vector, _ = self._read(slide_id)
        return vector.reshape(1, -1) if len(vector) else np.empty((0, 0), np.float16)

    def bag(self, slide_id: str) -> TileBag:
        """See the base class; no place belongs to it."""
        return TileBag(slide_id, self.features(slide_id), TileMetadata(encoder=self.encoder()))

    def encoder(self) -> str:
        """See the base class."""
        of_folder = self.path.name.removeprefix(_FOLDER) if self.path.name.startswith(_FOLDER) else ""
        return str(self._told.get("encoder", "")) or of_folder

    def _read(self, slide_id: str) -> tuple[NDArray[Any], dict[str, Any]]:
        """The vector, of length 0 where the slide has no tiles, and what the file tells of it."""
        path = self._files[slide_id]
        told: dict[str, Any] = {"level": "patient" if self.path.name == "patient_embeddings" else "slide"}
        if path.suffix == ".h5":
            with opened(path) as handle:
                values = _table(handle, path)
                attrs = {name: python_value(value) for name, value in handle.attrs.items()}
                told |= {name: attrs[name] for name in ("encoder", "precision") if name in attrs}
                told["level"] = str(attrs.get("feat_type", told["level"]))
                coords = own_member(handle, "coords")
                if coords is not None:
                    told |= {n: python_value(coords.attrs[n]) for n in _TILES if n in coords.attrs}
        else:
            values = _array(path)
            told |= _meta(path.with_name(slide_id + _META))
        if told["level"] not in ("slide", "patient"):
            raise ExternalFileError(f"{path} holds features of a {told['level']}, not of a slide or patient.")
        if values.dtype.kind != "f" or not (values.ndim == 1 or values.shape[:-1] == (1,)):
            raise ExternalFileError(
                f"{path} holds {values.dtype} of shape {values.shape}, not one floating-point vector (D,)."
            )
        return values.reshape(-1), told


def vector_files(folder: Path) -> list[Path]:
    """The files of a folder that can be vectors, sorted."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix in SUFFIXES and not file.name.startswith(".") and not file.is_dir()
    )


def is_vector_file(path: Path) -> bool:
    """Whether a file holds one vector; anything may be raised over one that can't be read."""
    if path.suffix in (".pt", ".npy", ".npz"):
        if path.suffix == ".npz" and not path.with_name(path.stem + _META).is_file():
            return False  # a packed cohort
        return _array(path, mapped=True).ndim == 1
    with opened(path) as handle:
        if "schema" in handle.attrs:
            return False
        found = next((table for name in _NAMES if (table := own_table(handle, name)) is not None), None)
        typed = python_value(handle.attrs.get("feat_type", "tile"))
        return found is not None and (found.ndim == 1 or typed in ("slide", "patient"))


def _table(handle: h5py.File, path: Path) -> NDArray[Any]:
    for name in _NAMES:
        if (found := own_table(handle, name)) is not None:
            if found.ndim == 0 or found.shape[:-1] not in ((), (1,)):
                raise ExternalFileError(
                    f"{path}: {name!r} has the shape {found.shape}, not that of one vector (D,)."
                )
            values: NDArray[Any] = found[()]
            return values
    raise ExternalFileError(f"{path} has no table 'features' or 'feats'; it is no file of a slide's vector.")


def _array(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    if path.suffix == ".pt":
        found: NDArray[Any] = read_tensor(path, mapped=mapped).numpy()
        return found
    try:
        check_regular(path)
        if path.suffix == ".npz":
            return map_member(path, "features", mapped=False)
        # Mapped, so that no memory is taken for numbers that a damaged file only claims to have.
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        return values if mapped else np.array(values)
    except Exception as error:  # what a parser raises over damaged bytes is not documented
        reason = " ".join(str(error).split())
        raise ExternalFileError(f"{path} can't be read ({reason}); make it again.") from error


def _meta(path: Path) -> dict[str, Any]:
    """What slide2vec's file beside a vector tells."""
    if not path.is_file():
        return {}
    try:
        content = dict(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise ExternalFileError(f"{path} can't be read ({error}).") from error
    level = str(content.get("artifact_type", "slide_embeddings")).removesuffix("_embeddings")
    told: dict[str, Any] = {"level": level}
    return told | ({"encoder": str(content["encoder_name"])} if content.get("encoder_name") else {})
