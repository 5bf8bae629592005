"""Formats of feature files: detection by content, and the reader and writer of each."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import h5py

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import check_regular
from wsi_ncmi.features.hdf5_io import own_member
from wsi_ncmi.features.interchange.acmil import AcmilSet
from wsi_ncmi.features.interchange.base import FeatureSet, ImageWriter, SetWriter
from wsi_ncmi.features.interchange.clam import ClamSet, ClamWriter
from wsi_ncmi.features.interchange.native import NativeSet, NativeWriter
from wsi_ncmi.features.interchange.packed import PackedSet
from wsi_ncmi.features.interchange.stamp import StampSet, StampWriter
from wsi_ncmi.features.interchange.trident import TridentSet, TridentWriter
from wsi_ncmi.features.interchange.vectors import (
    EMBEDDING_FOLDERS,
    VectorSet,
    is_vector_file,
    vector_files,
)

KINDS = ("wsi-ncmi", "clam", "trident", "stamp", "packed")
"""Formats that can be written; the ACMIL family's one file a cohort is read too."""

_SETS: dict[str, Callable[[Path], FeatureSet]] = {
    "wsi-ncmi": NativeSet, "clam": ClamSet, "trident": TridentSet, "stamp": StampSet, "vectors": VectorSet,
}  # fmt: skip
_WRITERS: dict[str, type[ImageWriter]] = {"clam": ClamWriter, "trident": TridentWriter, "stamp": StampWriter}
_CLAM_FOLDERS = ("h5_files", "pt_files")
_PROBED = 20


def open_feature_set(path: Path) -> FeatureSet:
    """Opens features of any known format.

    Args:
        path: A packed ``.npz``; a cohort ``.h5`` of the ACMIL family; a folder of ours, CLAM (with
            ``h5_files`` or ``pt_files``), TRIDENT or STAMP, of vectors of slides or patients, or a folder
            above the only one of them.

    Raises:
        InputError: Nothing there, an unknown kind, or several folders to choose from.
    """
    if path.is_file() and path.suffix == ".npz":
        return PackedSet(path)
    if path.is_file() and path.suffix in (".h5", ".hdf5"):
        return AcmilSet(path)
    if path.is_dir():
        folder = resolve_folder(path)
        return _SETS[kind_of_folder(folder)](folder)
    if not path.exists():
        raise InputError(f"The features {path} don't exist; give a features folder or a packed .npz file.")
    raise InputError(f"{path} is neither a folder of feature files nor a packed .npz file.")


def writer_for(kind: str, out: Path, *, overwrite: bool, origin: str) -> SetWriter:
    """The writer of a format that has a file a slide.

    Raises:
        ValueError: There is none.
    """
    if kind == "wsi-ncmi":
        return NativeWriter(out, overwrite=overwrite, origin=origin)
    if kind in _WRITERS:
        return _WRITERS[kind](out, overwrite=overwrite)
    raise ValueError(f"no format {kind!r} is written a file a slide")


def resolve_folder(path: Path) -> Path:
    """The one folder at or below ``path`` that holds feature files (three levels down at most).

    Raises:
        InputError: None, or several to choose from.
    """
    # An output folder of ours: anything else in it (runs with checkpoints) is ignored.
    level = [path / "features"] if (path / "features").is_dir() else [path]
    for _ in range(4):
        found = [folder for folder in level if _holds_features(folder, tensors=folder == path)]
        if len(found) == 1:
            return found[0]
        if found:
            together = len({folder.parent for folder in found}) == 1
            names = ", ".join(f.name if together else str(f.relative_to(path)) for f in found)
            raise InputError(
                f"{path} holds features of several encoders ({names}); give one, such as {found[0]}."
            )
        level = [
            inside
            for folder in level
            for inside in sorted(folder.iterdir())
            if inside.is_dir() and not _is_apart(inside)
        ]
    raise InputError(f"No feature files (*.h5, *.pt) below {path}; run 'wsi-ncmi extract' first.")


def kind_of_folder(folder: Path) -> str:
    """The format of the files in a folder: ``wsi-ncmi``, ``clam``, ``trident``, ``stamp`` or ``vectors``."""
    for file in vector_files(folder)[:_PROBED]:  # the first readable one decides for all
        with contextlib.suppress(Exception):  # what a parser raises over damaged bytes is not documented
            if is_vector_file(file):
                return "vectors"
            break
    if folder.name in _CLAM_FOLDERS or _has_clam_folders(folder) or any(folder.glob("*.pt")):
        return "clam"
    files = sorted(file for file in folder.glob("*.h5") if not file.name.startswith("."))
    for file in files[:_PROBED]:  # the first readable one decides for all
        try:
            check_regular(file)
            with h5py.File(file, "r") as handle:
                if "schema" in handle.attrs:
                    return "wsi-ncmi"
                if handle.id.links.exists(b"feats"):
                    return "stamp"
                if (features := own_member(handle, "features")) is not None:
                    coords = own_member(handle, "coords")
                    named = "encoder" in features.attrs or folder.name.startswith("features_")
                    placed = coords is not None and "patch_size_level0" in coords.attrs
                    return "trident" if named or placed else "clam"
        except Exception:  # noqa: S112 (what a parser raises over damaged bytes is not documented)
            continue
    return "wsi-ncmi"


def _holds_features(folder: Path, *, tensors: bool) -> bool:
    # Tensors outside of pt_files/ count only in the folder that was given: elsewhere they may be checkpoints.
    if _has_clam_folders(folder) or any(not file.name.startswith(".") for file in folder.glob("*.h5")):
        return True
    # slide2vec keeps nothing but vectors in its folders.
    return (tensors or folder.name in EMBEDDING_FOLDERS) and any(
        file.suffix in (".pt", ".npy") or (file.suffix == ".npz" and is_vector_file(file))
        for file in vector_files(folder)
    )


def _has_clam_folders(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in _CLAM_FOLDERS)


def _is_apart(folder: Path) -> bool:
    # Coordinates without features, what verification set aside, and what is hidden.
    return folder.name in ("patches", "quarantine") or folder.name.startswith(".")
