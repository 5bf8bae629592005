"""What a feature file says about itself, and when two files are the same thing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Protocol

from wsi_ncmi.slides import SlideRecord
from wsi_ncmi.tiling import GridOptions
from wsi_ncmi.tissue import TissueOptions

__all__ = [
    "ARTIFACTS_RULE",
    "COORDS",
    "FEATURES",
    "SCHEMA",
    "TISSUE_FRACTION",
    "EncoderFacts",
    "EncoderSummary",
    "Identity",
    "canonical_json",
    "difference",
    "identity_from_attrs",
    "identity_of",
]

SCHEMA = "wsi-ncmi-features/1"
"""Name and version of the layout; a change that moves numbers or names raises the version."""

FEATURES, COORDS, TISSUE_FRACTION = "features", "coords", "tissue_fraction"

ARTIFACTS_RULE = "keep"
"""What happens to tiles with artefacts: they are kept."""


class EncoderFacts(Protocol):
    """What of an encoder decides its numbers; every ``Encoder`` has these."""

    @property
    def name(self) -> str:
        """Full name, for example ``torchvision:squeezenet1_1``."""

    @property
    def weights_sha256(self) -> str:
        """Hash of the tensors in use."""

    @property
    def weights_source(self) -> str:
        """Where the weights come from; for the record only, it decides nothing."""

    @property
    def transform(self) -> str:
        """Canonical text of what happens to pixels before the network."""

    @property
    def precision(self) -> str:
        """Arithmetic of the forward pass."""

    @property
    def backend(self) -> str:
        """What computes it."""


@dataclasses.dataclass(frozen=True)
class EncoderSummary:
    """The facts alone, to be sent between processes; see ``EncoderFacts``."""

    name: str
    weights_sha256: str
    weights_source: str
    transform: str
    precision: str
    backend: str

    @classmethod
    def of(cls, encoder: EncoderFacts) -> EncoderSummary:
        """Copies the facts of an encoder."""
        return cls(*(str(getattr(encoder, field.name)) for field in dataclasses.fields(cls)))


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
        artifacts_rule: What happens to tiles with artefacts.
        encoder: Full name.
        encoder_weights_sha256: Hash of its tensors.
        transform: What happens to pixels before it.
        precision: Arithmetic of the forward pass.
        backend: What computed it.
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
}
_HASHES = ("slide_fingerprint", "encoder_weights_sha256")
_SHOWN = 3


def identity_of(
    record: SlideRecord, tissue: TissueOptions, grid: GridOptions, encoder: EncoderFacts
) -> Identity:
    """The identity that a slide's feature file will have; the slide itself is not opened.

    Raises:
        ValueError: The record has no resolution.
    """
    if record.mpp_x is None or record.mpp_y is None:
        raise ValueError(f"{record.slide_id} has no resolution")
    parameters = dataclasses.asdict(tissue)
    method = str(parameters.pop("method"))
    return Identity(
        schema=SCHEMA,
        slide_fingerprint=record.fingerprint,
        mpp_level0_x=float(record.mpp_x),
        mpp_level0_y=float(record.mpp_y),
        mpp_target=float(grid.mpp),
        tile_px=grid.tile_px,
        overlap_px=grid.overlap_px,
        min_tissue=float(grid.min_tissue),
        tissue_method=method,
        tissue_parameters=canonical_json(parameters),
        artifacts_rule=ARTIFACTS_RULE,
        encoder=encoder.name,
        encoder_weights_sha256=encoder.weights_sha256,
        transform=encoder.transform,
        precision=encoder.precision,
        backend=encoder.backend,
    )


def identity_from_attrs(attrs: Mapping[str, Any]) -> Identity:
    """Reads an identity out of file attributes.

    Raises:
        KeyError: An attribute is missing.
        ValueError: One has the wrong type.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Identity):
        kind = {"str": str, "int": int, "float": float}[str(field.type)]
        values[field.name] = kind(attrs[field.name])
    return Identity(**values)


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
        return f"{_WORDS[name]} is another ({str(found)[:12]}… there, {str(wanted)[:12]}… here)"
    if name == "tissue_parameters":
        there, here = json.loads(found), json.loads(wanted)
        option = next(key for key in sorted({*there, *here}) if there.get(key) != here.get(key))
        return f"the tissue option {option} is {there.get(option)} there, {here.get(option)} here"
    return f"{_WORDS[name]} is {found} there, {wanted} here"


def canonical_json(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys and no spaces, so that equal settings are equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
