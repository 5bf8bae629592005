"""Where an encoder's weights are looked for when none are named."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.config import EncoderConfig

__all__ = ["WEIGHTS_VARIABLE", "resolve_weights"]

WEIGHTS_VARIABLE = "WSI_NCMI_WEIGHTS"


def resolve_weights(encoder: EncoderConfig, weights_dir: Path | None) -> EncoderConfig:
    """Fills in the weights folder for an encoder that takes weights and was given none.

    ``weights_dir`` comes first, then the environment variable ``WSI_NCMI_WEIGHTS``; a folder without weights
    for this encoder is an error when it is loaded.
    """
    from wsi_ncmi.encoders.registry import takes_weights

    folder = weights_dir or (Path(os.environ[WEIGHTS_VARIABLE]) if os.environ.get(WEIGHTS_VARIABLE) else None)
    if encoder.weights is not None or folder is None or not takes_weights(encoder.name):
        return encoder
    if not folder.is_dir():
        raise InputError(f"The weights folder {folder} does not exist; make it or set another.")
    return replace(encoder, weights=folder)
