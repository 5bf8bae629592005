"""Writing a bundle: a folder or a zip that appears only when it is whole."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save as save_arrays

from wsi_ncmi import __version__
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import TEMPORARY_SUFFIX, atomic_path
from wsi_ncmi.prediction.bundle.files import sums_of
from wsi_ncmi.prediction.bundle.layout import CARD, MANIFEST, MEMBERS, REFERENCE, SCHEMA, SUMS
from wsi_ncmi.prediction.bundle.model import ModelBundle
from wsi_ncmi.training.checkpoint import MODEL_JSON, MODEL_WEIGHTS

__all__ = ["bundle_files", "write_bundle"]

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # zip's own zero: equal bundles are equal files


def bundle_files(
    bundle: ModelBundle,
    member_files: Mapping[str, tuple[bytes, bytes]],
    *,
    card: str,
    portable: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """The content of a bundle.

    Args:
        bundle: The model.
        member_files: Name of each member → its ``model.json`` and ``model.safetensors``, in the order of the
            ensemble.
        card: The model card, Markdown.
        portable: Further forms of the models by path below ``portable/``.

    Returns:
        Path below the bundle → content, ``SHA256SUMS`` included.
    """
    extra = {f"portable/{name}": content for name, content in (portable or {}).items()}
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "software": f"wsi-ncmi {__version__}",
        "name": bundle.name,
        "classes": list(bundle.classes),
        "features": dict(bundle.features),
        "members": list(member_files),
        "calibration": bundle.calibration.to_json(),
        "reference": None if bundle.reference is None else bundle.reference.to_json(),
        "training": dict(bundle.summary),
        "intended_use": bundle.intended_use,
        "limits": bundle.limits,
        "portable": sorted(extra),
    }
    files = {
        MANIFEST: (json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(),
        CARD: card.encode(),
        **extra,
    }
    for name, (description, weights) in member_files.items():
        files[f"{MEMBERS}/{name}/{MODEL_JSON}"] = description
        files[f"{MEMBERS}/{name}/{MODEL_WEIGHTS}"] = weights
    if bundle.reference is not None:
        files[REFERENCE] = save_arrays(bundle.reference.tensors())
    files[SUMS] = sums_of(files)
    return files


def write_bundle(path: Path, files: Mapping[str, bytes], *, overwrite: bool = False) -> None:
    """Writes the files of a bundle to a folder, or to a zip where the path ends in ``.zip``.

    Args:
        path: Where to.
        files: From :func:`bundle_files`.
        overwrite: Replace a bundle that is there.

    Raises:
        InputError: Something is there already, or the place can't be written to.
    """
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; choose another --out, or pass --overwrite.")
    if path.is_dir() and not (path / MANIFEST).is_file() and any(path.iterdir()):
        raise InputError(f"{path} is a folder of other things and won't be replaced; choose another --out.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".zip":
            _write_zip(path, files)
        else:
            _write_folder(path, files)
    except OSError as error:
        raise InputError(
            f"The bundle {path} can't be written ({error.strerror or error}); choose another --out."
        ) from error


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)


def _write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        for name, content in files.items():
            file = temporary / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(file) as partial:
                partial.write_bytes(content)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
