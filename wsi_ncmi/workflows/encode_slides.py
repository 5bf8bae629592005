"""Slide vectors from cached tile features: one file a slide, with the identity of the tiles in its own."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wsi_ncmi.core.config import configclass
from wsi_ncmi.core.config.keywords import takes_settings
from wsi_ncmi.core.errors import InputError, SlideError, counted
from wsi_ncmi.core.files import job_folder, sha256_file
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.core.provenance import write_record
from wsi_ncmi.encoders.slide_encoders import (
    FEATHER,
    SlideEncoder,
    check_tiles,
    mean_encoder,
    needs_of,
    open_zoo_slide_encoder,
    slide_vector,
)
from wsi_ncmi.encoders.weights_folder import find_weights_folder
from wsi_ncmi.workflows.result import JobResult

if TYPE_CHECKING:
    from wsi_ncmi.extraction.ledger import LedgerRow
    from wsi_ncmi.features import FeatureFile
    from wsi_ncmi.features.schema import Identity

_LOG = logging.getLogger(__name__)
_LEDGER = "slide_vectors.csv"  # ledger.csv beside it may be that of an extraction

TILES_ENCODED = ("encoder", "encoder_weights_sha256", "transform", "precision", "backend")
"""What of the tiles' identity a vector's own replaces, and keeps as ``tile_features``."""


@configclass
class EncodeSlidesConfig:
    """Tile features to encode, and the slide encoder.

    Attributes:
        features: Tile features by wsi-ncmi (those of other tools after ``convert --to wsi-ncmi``).
        out: Output folder; vectors go to ``features/<slide encoder>/``.
        encoder: Slide encoder: ``mean``, ``feather``, or ``lazyslide:KEY``.
        weights: Weights of ``feather``: the ``model.safetensors`` of MIL-Lab's pretrained ABMIL.
        weights_dir: Folder of encoder weights; the environment variable ``WSI_NCMI_WEIGHTS`` does the same.
        allow_other_grid: Take tiles of another resolution or size than the slide encoder was trained on.
        device: Where the slide encoder runs.
        overwrite: Replace vectors of another identity.
    """

    features: Path
    out: Path
    encoder: str = "mean"
    weights: Path | None = None
    weights_dir: Path | None = None
    allow_other_grid: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    overwrite: bool = False


@takes_settings("wsi_ncmi.workflows.encode_slides:EncodeSlidesConfig", "features", "out")
def encode_slides(config: EncodeSlidesConfig, progress: ProgressReporter | None = None) -> JobResult:
    """Encodes every slide; vectors of the same tiles and encoder that are there are kept.

    Args:
        config: What and how.
        progress: Told about every slide.

    Returns:
        Paths of ``features`` and ``ledger``; a failure for every slide that has no vector.

    Raises:
        InputError: Other features than the slide encoder takes, or its weights are not there; nothing was
            done.
        JobStoppedError: The output can't be written to any more.
    """
    from wsi_ncmi.cohorts.bag_sources import open_bag_source
    from wsi_ncmi.cohorts.bags import FeatureFolder
    from wsi_ncmi.extraction.ledger import LedgerRow, write_ledger
    from wsi_ncmi.features.paths import feature_folder, feature_path

    source = open_bag_source(config.features)
    if source.level != "tile":
        raise InputError(f"{source.path} holds one vector a {source.level} already.")
    if not isinstance(source, FeatureFolder):
        raise InputError(
            f"{config.features} holds features of another tool; bring them here first: wsi-ncmi convert "
            f"{config.features} --to wsi-ncmi --out DIR."
        )
    encoder = open_slide_encoder(config, source.identity, source.width)
    width = encoder.needs.embed_dim if encoder.needs else source.width
    out = job_folder(config.out)
    if feature_folder(out, encoder.name).resolve() == source.path.resolve():
        raise InputError(f"{out} holds the tile features in that place; give another --out.")
    rows: list[LedgerRow] = []
    try:
        with (progress or NullProgress()).task("encode slides", len(source.slide_ids), "slides") as task:
            for slide_id in source.slide_ids:
                began = time.monotonic()
                status: Literal["done", "skipped", "failed"] = "failed"
                tiles = 0
                try:
                    path = feature_path(out, encoder.name, slide_id)
                    status, tiles = _encode(
                        source, slide_id, encoder, width, path, overwrite=config.overwrite
                    )
                    reason = "" if tiles else "no tissue: the features hold no tile"
                except (InputError, SlideError) as error:
                    reason = str(error)
                seconds = time.monotonic() - began
                rows.append(LedgerRow(slide_id, f"{slide_id}.h5", status, reason, tiles, seconds=seconds))
                task.advance(1, note=slide_id)
    finally:
        if rows:
            write_ledger(rows, out / _LEDGER)
    folder = feature_folder(out, encoder.name)
    write_record(
        folder / "encoder.json",
        config={"encoder": encoder.name, "features": config.features},
        weights_sha256=encoder.weights_sha256,
        licence=encoder.licence,
        note=encoder.note,
    )
    failures = tuple(f"{row.slide_id}: {row.reason}" for row in rows if row.status == "failed")
    made, kept = (sum(row.status == status for row in rows) for status in ("done", "skipped"))
    note = f"{counted(made, 'vector')} of width {width} made, {kept} there already."
    notes = [note, *([f"Licence of {encoder.name}: {encoder.licence}."] if encoder.licence else [])]
    return JobResult({"features": folder, "ledger": out / _LEDGER}, failures, tuple(notes))


def open_slide_encoder(config: EncodeSlidesConfig, tiles: dict[str, Any], width: int) -> SlideEncoder:
    """The slide encoder, once the tiles are known to be its own.

    Args:
        config: Which, its weights and device.
        tiles: ``encoder``, ``mpp_target`` and ``tile_px`` of the features.
        width: Their width.

    Raises:
        InputError: No such encoder, other tiles than it takes, or its weights are not there.
    """
    if (config.encoder == "feather") != (config.weights is not None):
        raise InputError(
            "--weights FILE goes with the slide encoder feather: the model.safetensors of MIL-Lab's ABMIL."
        )
    if config.encoder == "mean":
        return mean_encoder(str(tiles.get("encoder") or ""))
    if config.encoder == "feather":
        assert config.weights is not None
        encoder = _feather(config.weights)
        assert encoder.needs is not None
        needs = encoder.needs
    else:
        needs, encoder = needs_of(config.encoder), None
    warning = check_tiles(config.encoder, needs, tiles, width, other_grid=config.allow_other_grid)
    if warning:
        _LOG.warning("%s", warning)
    return encoder or open_zoo_slide_encoder(
        config.encoder, find_weights_folder(config.weights_dir), _device(config.device)
    )


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: there is no GPU here; take cpu.")
    return name


def _feather(weights: Path) -> SlideEncoder:
    """MIL-Lab's pretrained ABMIL as our own: its slide vector is the attention's sum."""
    import torch

    from wsi_ncmi.mil import build_aggregator
    from wsi_ncmi.mil.external_checkpoints import read_tensors
    from wsi_ncmi.mil.external_models import translate

    found = translate(read_tensors(weights))
    if found.config.name not in ("abmil", "abmil_plain") or found.in_features not in FEATHER:
        raise InputError(
            f"{weights} is no FEATHER: an ABMIL on features of width {' or '.join(map(str, FEATHER))}."
        )
    aggregator = build_aggregator(found.config, found.in_features)
    aggregator.load_state_dict({**aggregator.state_dict(), **found.aggregator})
    aggregator.eval()

    def encode(features: torch.Tensor, _coords: torch.Tensor, _edge: float) -> torch.Tensor:
        with torch.inference_mode():
            vector: torch.Tensor = aggregator(features)[0]
            return vector

    needs = replace(FEATHER[found.in_features], embed_dim=aggregator.embedding_width)
    return SlideEncoder("feather", encode, needs, sha256_file(weights), "MIL-Lab ABMIL")


def _encode(
    source: Any, slide_id: str, encoder: SlideEncoder, width: int, path: Path, *, overwrite: bool
) -> tuple[Literal["done", "skipped"], int]:
    """Writes a slide's vector, or finds it there; the number of its tiles.

    Raises:
        InputError: The tile features are damaged, or a vector of another identity is there.
        SlideError: The slide encoder fails on them.
    """
    import numpy as np

    from wsi_ncmi.features import open_features_file, read_identity
    from wsi_ncmi.features.schema import difference
    from wsi_ncmi.features.writer import SlideAttributes, write_features

    tiles = open_features_file(source.path / f"{slide_id}.h5")
    identity = vector_identity(tiles.identity, encoder)
    origin = {
        **{key: getattr(tiles.identity, key) for key in TILES_ENCODED},
        "sha256": str(tiles.attrs["sha256"]),
    }
    there = read_identity(path)
    if there is not None and not overwrite:
        if (what := difference(there, identity)) or open_features_file(path).tile_features != origin:
            what = what or "the tiles' features are others"
            raise InputError(f"{path.name} is a vector of another identity ({what}); pass --overwrite.")
        return "skipped", tiles.n_tiles
    features = np.empty((0, width), np.float32)
    if tiles.n_tiles:
        features = slide_vector(encoder, source.load(slide_id), tiles.coords, _edge(tiles))[None]
        if features.shape != (1, width):
            raise SlideError(f"{encoder.name} gave a vector of shape {features.shape[1:]}, not ({width},).")
    path.parent.mkdir(parents=True, exist_ok=True)
    about, size = tiles.attrs, tiles.coords_attrs
    write_features(
        path,
        features=features,
        coords=np.zeros((len(features), 2), np.int64),
        tissue_fraction=np.ones(len(features), np.float16),
        identity=identity,
        slide=SlideAttributes(
            slide_id=slide_id,
            width_px=int(size.get("level0_width", 0)),
            height_px=int(size.get("level0_height", 0)),
            reader=str(about.get("reader", "")),
            mpp_source=str(about.get("mpp_source", "")),
            read_level=int(about.get("read_level", 0)),
            tile_size_level0=(
                float(about.get("tile_size_level0_x", 0)),
                float(about.get("tile_size_level0_y", 0)),
            ),
            encoder_weights_source=encoder.note,
            level="slide",
            tile_features=origin,
        ),
    )
    return "done", tiles.n_tiles


def vector_identity(tiles: Identity, encoder: SlideEncoder) -> Identity:
    """The identity of a vector: that of its tiles, with the slide encoder over their encoder."""
    from wsi_ncmi.features.schema import canonical_json

    of_tiles = {key: value for key, value in asdict(tiles).items() if key in TILES_ENCODED}
    return replace(
        tiles,
        encoder=encoder.name,
        encoder_weights_sha256=encoder.weights_sha256,
        transform=canonical_json({"tiles": of_tiles, "note": encoder.note}),
        precision="fp32",
        backend="torch",
    )


def _edge(tiles: FeatureFile) -> float:
    return float(tiles.attrs.get("tile_size_level0", 0) or 0)
