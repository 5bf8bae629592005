"""Where the identities of two feature files differ, in words."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from wsi_ncmi.features.schema import Identity

__all__ = ["difference"]

_WORDS = {
    "schema": "the file layout",
    "slide_fingerprint": "the slide's content",
    "mpp_level0_x": "the slide's resolution along x (µm per pixel)",
    "mpp_level0_y": "the slide's resolution along y (µm per pixel)",
    "mpp_target": "the tiles' resolution (µm per pixel)",
    "tile_px": "the tile size (px)",
    "overlap_px": "the overlap (px)",
    "min_tissue": "the least tissue share of a tile",
    "tissue_method": "the tissue method",
    "tissue_parameters": "the tissue options",
    "artifacts_rule": "the artefact rule",
    "encoder": "the encoder",
    "encoder_weights_sha256": "the encoder's weights",
    "transform": "the encoder's preprocessing",
    "precision": "the precision",
    "backend": "the backend",
    "annotations": "the slide's set of annotations",
    "stain": "the stain normalisation",
    "decoding": "the decoding",
}
_HASHES = ("slide_fingerprint", "encoder_weights_sha256", "annotations")
_PARAMETERS = {"tissue_parameters": "tissue", "artifacts_rule": "artefact", "stain": "stain"}
_SHOWN = 3
_LONGEST = 24


def difference(found: Identity, wanted: Identity) -> str:
    """Says in words where two identities differ.

    Args:
        found: Of the file that is there.
        wanted: Of the file that would be written.

    Returns:
        Empty when they are equal, else for example ``"the tile size (px) is 256 there, 224 here"``; at most
        three fields are spelled out.
    """
    names = [
        field.name
        for field in dataclasses.fields(Identity)
        if getattr(found, field.name) != getattr(wanted, field.name)
    ]
    parts = [_in_words(name, getattr(found, name), getattr(wanted, name)) for name in names[:_SHOWN]]
    if len(names) > _SHOWN:
        parts.append(f"{len(names) - _SHOWN} more differ")
    return "; ".join(parts)


def _in_words(name: str, found: Any, wanted: Any) -> str:
    if name in _HASHES:
        return f"{_WORDS[name]} is another ({_short(found)} there, {_short(wanted)} here)"
    there, here = _settings(name, found), _settings(name, wanted)
    if there and here:
        option = next(key for key in sorted({*there, *here}) if there.get(key) != here.get(key))
        what = f"the {_PARAMETERS[name]} option {option}"
        return f"{what} is {_short(there.get(option))} there, {_short(here.get(option))} here"
    return f"{_WORDS[name]} is {_named(there, found)} there, {_named(here, wanted)} here"


def _settings(name: str, value: Any) -> dict[str, Any]:
    """The settings in a field that holds canonical JSON; none in all others."""
    return dict(json.loads(value)) if name in _PARAMETERS and str(value).startswith("{") else {}


def _named(settings: Mapping[str, Any], value: Any) -> Any:
    return settings.get("rule") or settings.get("method") or value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:12]}…"
