"""Layout and identity of feature files, and the difference of two identities in words."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, get_type_hints

from wsi_ncmi.core.files import parse_json
from wsi_ncmi.encoders import EncoderInfo
from wsi_ncmi.slides import SlideRecord
from wsi_ncmi.tiling import GridConfig
from wsi_ncmi.tissue import TissueConfig

__all__ = [
    "ARTIFACTS",
    "COORDS",
    "FEATURES",
    "Identity",
    "NONE",
    "READABLE_SCHEMAS",
    "FEATURES_SCHEMA",
    "TISSUE_FRACTION",
    "UNKNOWN",
    "canonical_json",
    "difference",
    "identity_from_attrs",
    "identity_of",
]

FEATURES_SCHEMA = "wsi-ncmi-features/2"
"""Name and version of the layout; a change that moves numbers or names raises the version.

Version 2 adds ``/artifacts`` and the attributes ``annotations``, ``stain``, ``decoding`` and
``n_artifact_tiles``: a program that knows version 1 alone would take tiles of other colours for its own.
"""

READABLE_SCHEMAS = ("wsi-ncmi-features/1", FEATURES_SCHEMA)
"""Layouts that are read. Version 1 knew no annotations and no stain normalisation; being of an earlier tissue
and grid code it is another identity all the same."""

FEATURES, COORDS, TISSUE_FRACTION = "features", "coords", "tissue_fraction"
ARTIFACTS = "artifacts"

FARTHEST = 2**40
"""No slide is as wide, in pixels or µm; what is computed from such numbers stays exact."""

NONE = "none"
"""Of an identity's fields that name something a job may go without."""

UNKNOWN = "unknown"
"""Stands in an imported file for every unknown text; unknown numbers are 0."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """Everything that changes the numbers of a feature file. Each field is a file attribute of that name.

    Attributes:
        schema: Layout and its version.
        slide_fingerprint: Content of the slide.
        mpp_level0_x: µm per level-0 pixel along x, as resolved.
        mpp_level0_y: The same along y.
        mpp_target: µm per pixel of the tiles.
        tile_px: Edge of a tile in pixels at ``mpp_target``.
        overlap_px: Pixels shared by neighbours.
        min_tissue: Least tissue share of a tile, 0 to 1.
        tissue_method: How tissue was found.
        tissue_parameters: Canonical JSON of its options.
        artifacts_rule: What happens to tiles with artefacts: ``keep``, or the canonical JSON of the rule and
            its thresholds.
        encoder: Full name.
        encoder_weights_sha256: Hash of its tensors.
        transform: What happens to pixels before it.
        precision: Arithmetic of the forward pass.
        backend: What computed it.
        annotations: SHA-256 of the annotations that changed the tissue; ``none`` without.
        stain: Canonical JSON of the stain normalisation; ``none`` without.
        decoding: ``exact``, or ``scaled`` where the JPEG decoder may reduce tiles itself.
    """

    schema: str
    slide_fingerprint: str
    mpp_level0_x: float
    mpp_level0_y: float
    mpp_target: float
    tile_px: int
    overlap_px: int
    min_tissue: float
    tissue_method: str
    tissue_parameters: str
    artifacts_rule: str
    encoder: str
    encoder_weights_sha256: str
    transform: str
    precision: str
    backend: str
    annotations: str = NONE
    stain: str = NONE
    decoding: str = "exact"


def identity_of(
    record: SlideRecord,
    tissue: TissueConfig,
    grid: GridConfig,
    encoder: EncoderInfo,
    *,
    artifacts_rule: str = "keep",
    annotations: str = NONE,
    stain: str = NONE,
) -> Identity:
    """The identity that a slide's feature file will have; the slide itself is not opened.

    Args:
        record: The slide.
        tissue: Tissue options.
        grid: Grid options.
        encoder: The encoder.
        artifacts_rule: What happens to tiles with artefacts, see :class:`Identity`.
        annotations: SHA-256 of the slide's annotations, or ``none``.
        stain: Canonical JSON of the stain normalisation, or ``none``.

    Raises:
        ValueError: The record has no resolution.
    """
    if record.mpp_x is None or record.mpp_y is None:
        raise ValueError(f"{record.slide_id} has no resolution")
    parameters = tissue.to_json()
    method = str(parameters.pop("method"))
    return Identity(
        schema=FEATURES_SCHEMA,
        slide_fingerprint=record.fingerprint,
        mpp_level0_x=float(record.mpp_x),
        mpp_level0_y=float(record.mpp_y),
        mpp_target=float(grid.target_mpp),
        tile_px=grid.edge_px,
        overlap_px=grid.overlap_px,
        min_tissue=float(grid.min_tissue),
        tissue_method=method,
        tissue_parameters=canonical_json(parameters),
        artifacts_rule=artifacts_rule,
        encoder=encoder.name,
        encoder_weights_sha256=encoder.weights_sha256,
        transform=encoder.transform,
        precision=encoder.precision,
        backend=encoder.backend,
        annotations=annotations,
        stain=stain,
        decoding="scaled" if grid.scaled_decoding else "exact",
    )


def identity_from_attrs(attrs: Mapping[str, Any]) -> Identity:
    """Reads an identity out of file attributes.

    Raises:
        KeyError: An attribute is missing.
        ValueError: One has the wrong type.
    """
    values: dict[str, Any] = {}
    kinds = get_type_hints(Identity)
    for field in dataclasses.fields(Identity):
        if field.default is not dataclasses.MISSING and field.name not in attrs:
            continue  # an older layout that knew nothing of it
        values[field.name] = kinds[field.name](attrs[field.name])
    return Identity(**values)


def canonical_json(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys and no spaces, so that equal settings are equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


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
    """Difference of two identities in words.

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
    return dict(parse_json(value)) if name in _PARAMETERS and str(value).startswith("{") else {}


def _named(settings: Mapping[str, Any], value: Any) -> Any:
    return settings.get("rule") or settings.get("method") or value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:12]}…"
