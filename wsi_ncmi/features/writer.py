"""Writes feature files, each whole or not at all."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from wsi_ncmi import __version__
from wsi_ncmi.core.errors import SlideError
from wsi_ncmi.core.files import atomic_path
from wsi_ncmi.features.checksum_trailer import make_trailer
from wsi_ncmi.features.schema import ARTIFACTS, COORDS, FEATURES, TISSUE_FRACTION, Identity, canonical_json
from wsi_ncmi.features.storage import translate_os_errors


@dataclass(frozen=True)
class SlideAttributes:
    """Attributes of a slide in its feature file, besides the identity.

    Attributes:
        slide_id: Id of the slide.
        width_px: Width of level 0 in pixels.
        height_px: Height of level 0 in pixels.
        reader: What read the pixels.
        mpp_source: Where the slide's resolution comes from.
        read_level: Pyramid level that tiles were read from.
        tile_size_level0: Width and height of a tile in level-0 pixels, exact.
        n_failed_reads: Tiles that could not be read and are not in the file.
        n_artifact_tiles: Tiles that the artefact rule dropped; they are not in the file.
        encoder_weights_source: Where the encoder's weights come from.
        encoder_licence: Licence of the encoder's weights.
        tissue_found: What the tissue method found on this slide, JSON-ready.
        stain_found: The slide's own stain and the one that its tiles were given, JSON; empty without.
        level: What a row is a vector of: ``tile`` or ``slide``.
        tile_features: Of a slide's vector: encoder and content of the tiles' features.
    """

    slide_id: str
    width_px: int
    height_px: int
    reader: str
    mpp_source: str
    read_level: int
    tile_size_level0: tuple[float, float]
    n_failed_reads: int = 0
    n_artifact_tiles: int = 0
    encoder_weights_source: str = ""
    encoder_licence: str = ""
    tissue_found: Mapping[str, Any] = field(default_factory=dict)
    stain_found: str = ""
    level: str = "tile"
    tile_features: Mapping[str, str] = field(default_factory=dict)


def to_float16(features: NDArray[np.floating[Any]], encoder: str) -> NDArray[np.float16]:
    """Rounds embeddings to float16.

    Raises:
        SlideError: A value is not finite, or beyond float16's range.
    """
    if not np.isfinite(features).all():
        raise SlideError(
            f"Encoder {encoder} gave values that are not finite; check its weights and precision."
        )
    with np.errstate(over="ignore"):
        rounded = features.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise SlideError(
            f"Encoder {encoder} gave a value of {np.abs(features).max():.4g}, beyond the 65504 that a "
            "float16 feature file can hold; use an encoder with normalised output."
        )
    return rounded


def content_sha256(features: NDArray[np.float16], coords: NDArray[np.int64]) -> str:
    """SHA-256 in hex over the little-endian bytes of features, then of coords, both row by row."""
    digest = hashlib.sha256(np.ascontiguousarray(features, "<f2").data)
    digest.update(np.ascontiguousarray(coords, "<i8").data)
    return digest.hexdigest()


def write_features(
    path: Path,
    *,
    features: NDArray[np.floating[Any]],
    coords: NDArray[np.int64],
    tissue_fraction: NDArray[np.float16],
    identity: Identity,
    slide: SlideAttributes,
    artifacts: NDArray[np.float16] | None = None,
    artifact_kinds: Sequence[str] = (),
) -> None:
    """Writes a feature file atomically; the same input gives the same bytes.

    The HDF5 image is made in memory (features are held there anyway), so that a full disk meets one plain
    write and not HDF5's cache, and the checksum trailer covers exactly what is written.

    Args:
        path: Final name, ``<slide_id>.h5``; its folder is there.
        features: (N, D), stored as float16; N may be 0.
        coords: int64 (N, 2), level-0 x and y of the tiles' top-left corners, raster order.
        tissue_fraction: (N,), 0 to 1.
        identity: Identity of the file.
        slide: Further metadata of the slide.
        artifacts: (N, k), 0 to 1, a score of each tile for each kind of artefact; None without scores.
        artifact_kinds: Names of the k kinds.

    Raises:
        SlideError: A feature is not finite or does not fit float16.
        JobStoppedError: The disk is full or can't be written to.
        ValueError: The shapes don't belong together.
    """
    if features.ndim != 2 or coords.shape != (len(features), 2) or tissue_fraction.shape != (len(features),):
        raise ValueError(
            f"features {features.shape}, coords {coords.shape} and tissue_fraction {tissue_fraction.shape} "
            "are not rows of the same tiles"
        )
    if artifacts is not None and artifacts.shape != (len(features), len(artifact_kinds)):
        raise ValueError(f"artifacts {artifacts.shape} are no {len(features)} rows of {artifact_kinds}")
    stored = to_float16(features, identity.encoder)
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file.create_dataset(FEATURES, data=stored, dtype="<f2")
        corners = file.create_dataset(COORDS, data=coords, dtype="<i8")
        corners.attrs.update(_coords_attrs(identity, slide))
        file.create_dataset(TISSUE_FRACTION, data=tissue_fraction, dtype="<f2")
        if artifacts is not None:
            scores = file.create_dataset(ARTIFACTS, data=artifacts, dtype="<f2")
            scores.attrs["names"] = list(artifact_kinds)
        file.attrs.update(_file_attrs(identity, slide, stored, coords))
        file.attrs["complete"] = True
    # The view is released before the image whatever happens: a failed write leaves both in its traceback's
    # cycle of references, and a collection that meets the image first can't free it (3.12: it crashes).
    with (
        image.getbuffer() as content,
        translate_os_errors(path),
        atomic_path(path) as temporary,
        temporary.open("wb") as handle,
    ):
        handle.write(content)
        handle.write(make_trailer(content))


def _file_attrs(
    identity: Identity, slide: SlideAttributes, features: NDArray[np.float16], coords: NDArray[np.int64]
) -> dict[str, Any]:
    width, height = slide.tile_size_level0
    of_slide = {"level": slide.level, "tile_features": canonical_json(slide.tile_features)}
    return {
        **(of_slide if slide.level != "tile" else {}),
        "software": f"wsi-ncmi {__version__}",
        **asdict(identity),
        "n_tiles": len(features),
        "n_failed_reads": slide.n_failed_reads,
        "n_artifact_tiles": slide.n_artifact_tiles,
        "sha256": content_sha256(features, coords),
        "slide_id": slide.slide_id,
        "reader": slide.reader,
        "mpp_level0": _mean(identity.mpp_level0_x, identity.mpp_level0_y),
        "mpp_source": slide.mpp_source,
        "read_level": slide.read_level,
        "tile_size_level0": _mean(width, height),
        "tile_size_level0_x": width,
        "tile_size_level0_y": height,
        "encoder_weights_source": slide.encoder_weights_source,
        "encoder_licence": slide.encoder_licence,
        "tissue_found": canonical_json(slide.tissue_found),
        "stain_found": slide.stain_found,
    }


def _coords_attrs(identity: Identity, slide: SlideAttributes) -> dict[str, Any]:
    """The nine attributes that TRIDENT's readers expect, under its names."""
    return {
        "patch_size": identity.tile_px,
        "patch_size_level0": round(_mean(*slide.tile_size_level0)),
        "level0_magnification": _magnification(_mean(identity.mpp_level0_x, identity.mpp_level0_y)),
        "target_magnification": _magnification(identity.mpp_target),
        "overlap": identity.overlap_px,
        "name": slide.slide_id,
        # TRIDENT writes an absolute path here; a path of one machine has no place in a file that travels.
        "savetodir": "",
        "level0_width": slide.width_px,
        "level0_height": slide.height_px,
    }


def _mean(x: float, y: float) -> float:
    """Geometric mean, and exactly the value itself where both axes are alike."""
    return x if x == y else float(np.sqrt(x * y))


def _magnification(mpp: float) -> int | float:
    """10 µm / mpp, exact rather than snapped; a whole one is an int, as TRIDENT writes it; 0 = unknown."""
    if not mpp:
        return 0
    exact = 10.0 / mpp
    return round(exact) if abs(exact - round(exact)) < 1e-9 else exact
