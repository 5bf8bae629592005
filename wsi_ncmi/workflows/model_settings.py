"""How new slides are to be cut and encoded: as the features were that a model was trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsi_ncmi.core.config import config_from
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.prediction import Ensemble
from wsi_ncmi.tiling import GridConfig
from wsi_ncmi.tissue import TissueConfig

__all__ = ["model_settings"]


def model_settings(
    ensemble: Ensemble, *, weights: Path | None = None, device: str = "auto"
) -> tuple[EncoderConfig, GridConfig, TissueConfig]:
    """The encoder, grid and tissue options of a model.

    Args:
        ensemble: The models.
        weights: Encoder weights, where it has any.
        device: Where the encoder runs.

    Raises:
        InputError: The model does not say what made its features, or says what this version does not know.
    """
    known = dict(ensemble.features)
    if known.get("joined"):
        raise InputError(
            f"The model {ensemble.name} was trained on the joined embeddings of {known.get('encoder')}; new "
            "slides are encoded with one encoder: train on one alone."
        )
    missing = [key for key in ("encoder", "mpp_target", "tile_px", "overlap_px") if known.get(key) is None]
    if missing:
        raise InputError(
            f"The model {ensemble.name} does not say which {missing[0]} its features had (it was trained on "
            "features that were not made by 'wsi-ncmi extract'), so new slides can't be encoded alike."
        )
    where = f"the model {ensemble.name}"
    encoder = config_from(
        EncoderConfig, {"name": known["encoder"], "weights": weights, "device": device}, where
    )
    if known.get("precision") in ("fp32", "bf16", "fp16"):
        encoder = replace(encoder, precision=known["precision"])
    grid: dict[str, Any] = {"mpp": known["mpp_target"], "tile_px": known["tile_px"]}
    grid["overlap_px"] = known["overlap_px"]
    grid["scaled_decoding"] = known.get("decoding") == "scaled"
    if known.get("min_tissue") is not None:
        grid["min_tissue"] = known["min_tissue"]
    try:
        tissue = json.loads(known["tissue_parameters"]) if known.get("tissue_parameters") else {}
    except (ValueError, TypeError) as error:
        raise InputError(
            f"The tissue settings of {where} can't be read ({error}); train it again."
        ) from error
    if known.get("tissue_method"):
        tissue["method"] = known["tissue_method"]
    return encoder, config_from(GridConfig, grid, where), config_from(TissueConfig, tissue, where)
