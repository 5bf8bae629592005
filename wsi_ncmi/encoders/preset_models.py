"""Presets as encoders: published networks with their own preprocessing, never without their weights."""

from __future__ import annotations

from pathlib import Path

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.architectures import TileNetwork, build_architecture, to_our_names
from wsi_ncmi.encoders.base import Encoder
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.encoders.network import Headless, NetworkEncoder, Preprocessing
from wsi_ncmi.encoders.presets import Preset, presets
from wsi_ncmi.encoders.weights import find_weights, load_state, load_strictly

__all__ = ["load_preset", "preprocessing_of"]


def preprocessing_of(preset: Preset) -> Preprocessing:
    """What happens to a tile before the network; the crop is the network's first step."""
    recipe = preset.recipe
    crop = f"centre crop {recipe.crop_px}; " if recipe.crop_px != recipe.resize_px else ""
    return Preprocessing(
        input_px=recipe.resize_px,
        interpolation=recipe.interpolation,
        mean=recipe.mean,
        std=recipe.std,
        note=f"{crop}pooling {preset.pooling}",
    )


def load_preset(key: str, config: EncoderConfig) -> Encoder:
    """Builds the encoder of a preset; see :func:`wsi_ncmi.encoders.load_encoder`."""
    preset = presets()[key]
    path = _weights_file(preset, config.weights)
    network = build_architecture(preset.architecture)
    state = to_our_names(preset.architecture.names, load_state(path), network)
    load_strictly(network, state, head=preset.architecture.left_over, path=path, name=key)
    tile_network = TileNetwork(network, preset.recipe.crop_px, preset.pooling)
    return NetworkEncoder(Headless(tile_network, (), preprocessing_of(preset)), path.name, config)


def _weights_file(preset: Preset, weights: Path | None) -> Path:
    # A preset without its weights would give features of a random network under a trusted name.
    if weights is None:
        raise InputError(
            f"The preset {preset.key} needs its weights: set WSI_NCMI_WEIGHTS or --weights, and get them by "
            f"wsi-ncmi encoders fetch {preset.weights_key} or import; {preset.access}"
        )
    try:
        return find_weights(Path(weights), preset.weights_key)
    except InputError as error:
        raise InputError(f"{error} {preset.access}") from error
