"""Loading a bundle, or a run folder as if it were one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.prediction.bundle.files import read_files
from wsi_ncmi.prediction.bundle.layout import MANIFEST, MEMBERS, REFERENCE, SCHEMA
from wsi_ncmi.prediction.bundle.model import ModelBundle
from wsi_ncmi.prediction.calibration import Calibration
from wsi_ncmi.prediction.ensemble import Ensemble, load_ensemble
from wsi_ncmi.prediction.reference import Reference
from wsi_ncmi.training.checkpoint import MODEL_JSON, MODEL_WEIGHTS, trained_from_bytes

__all__ = ["is_bundle", "load_bundle", "load_model"]

_REMEDY = "export the model again"
_VERSION = re.compile(r"wsi-ncmi-bundle/(\d+)")


def is_bundle(path: Path) -> bool:
    """Whether a path looks like a bundle rather than a run folder."""
    return path.is_file() or (path / MANIFEST).is_file()


def load_model(path: Path) -> ModelBundle:
    """Loads a bundle, or the models of a run folder (uncalibrated, without reference and threshold).

    Args:
        path: Bundle (folder or zip), ``RUN``, ``RUN/<loss>`` or ``RUN/fold_0/seed_0``.

    Raises:
        InputError: Nothing there that can be loaded.
    """
    path = Path(path)
    return load_bundle(path) if is_bundle(path) else ModelBundle(load_ensemble(path))


def load_bundle(path: Path) -> ModelBundle:
    """Loads a bundle. Weights are read as safetensors, everything else is JSON: no code in it is executed.

    Args:
        path: Folder or zip that ``export`` wrote.

    Raises:
        InputError: No bundle, one that was changed, is of a newer layout, or contradicts itself.
    """
    path = Path(path)
    files = read_files(path)
    manifest = _manifest(files, path)
    try:
        names = [str(name) for name in manifest["members"]]
        classes = tuple(str(name) for name in manifest["classes"])
        features = dict(manifest["features"])
        title = str(manifest["name"])
        calibration = Calibration.from_json(manifest["calibration"], str(path))
        summary, use, limits = dict(manifest["training"]), manifest["intended_use"], manifest["limits"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{MANIFEST} of {path} lacks or garbles {error}; {_REMEDY}.") from error
    if not names:
        raise InputError(f"{path} lists no model; {_REMEDY}.")
    members = []
    for name in names:
        description, weights = (files.get(f"{MEMBERS}/{name}/{file}") for file in (MODEL_JSON, MODEL_WEIGHTS))
        if description is None or weights is None:
            raise InputError(f"{path} lists the model {name} but lacks its files; {_REMEDY}.")
        member = trained_from_bytes(description, weights, f"{path}/{MEMBERS}/{name}")
        if member.classes != classes:
            raise InputError(
                f"{path} says that its classes are {', '.join(classes)}, but its model {name} was trained on "
                f"{', '.join(member.classes)}; {_REMEDY}."
            )
        if dict(member.config.get("encoder") or {}) != features:
            raise InputError(f"{path} and its model {name} name different encoders or grids; {_REMEDY}.")
        members.append(member)
    return ModelBundle(
        ensemble=Ensemble(tuple(members), classes, features, title),
        calibration=calibration,
        reference=_reference(manifest, files, path),
        summary=summary,
        intended_use=str(use),
        limits=str(limits),
    )


def _manifest(files: Mapping[str, bytes], path: Path) -> dict[str, Any]:
    try:
        manifest = dict(json.loads(files[MANIFEST]))
        schema = str(manifest["schema"])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{MANIFEST} of {path} can't be read ({error}); {_REMEDY}.") from error
    if schema != SCHEMA:
        match, own = _VERSION.fullmatch(schema), _VERSION.fullmatch(SCHEMA)
        newer = match is not None and own is not None and int(match[1]) > int(own[1])
        remedy = "update wsi-ncmi" if newer else _REMEDY
        raise InputError(f"{path} has the schema {schema!r} but this version reads {SCHEMA!r}; {remedy}.")
    return manifest


def _reference(manifest: Mapping[str, Any], files: Mapping[str, bytes], path: Path) -> Reference | None:
    bounds = manifest.get("reference")
    if bounds is None:
        return None
    try:
        tensors = load_arrays(files[REFERENCE])
    except (KeyError, SafetensorError, ValueError) as error:
        raise InputError(f"{REFERENCE} of {path} can't be read ({error}); {_REMEDY}.") from error
    return Reference.load(bounds, tensors, str(path))
