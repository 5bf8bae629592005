"""Presets as encoders: published networks with their own preprocessing, never without their weights."""

from dataclasses import replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from wsi_ncmi.encoders.architectures import build_architecture
from wsi_ncmi.encoders.base import Encoder
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.encoders.encoder_files import needed_file
from wsi_ncmi.encoders.network import Headless, NetworkEncoder, Preprocessing
from wsi_ncmi.encoders.presets import Preset, presets
from wsi_ncmi.encoders.weights import load_strictly
from wsi_ncmi.encoders.weights_choice import choose_preset_weights


def preprocessing_of(preset: Preset) -> Preprocessing:
    """The preprocessing of a preset; the crop is the network's first step."""
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
    path = needed_file(config)
    network = build_architecture(preset.architecture)
    state, _ = choose_preset_weights(path, network, preset)
    load_strictly(network, state, head=(), path=path, name=key)
    tile_network = TileNetwork(network, preset.recipe.crop_px, preset.pooling)
    encoder = NetworkEncoder(Headless(tile_network, (), preprocessing_of(preset)), path.name, config)
    encoder.info = replace(encoder.info, licence=preset.licence)
    return encoder


class TileNetwork(nn.Module):
    """Crops the middle of a tile, runs the network, pools its tokens.

    Args:
        network: Maps (n, 3, crop_px, crop_px) to tokens (n, k, d) or to vectors (n, d).
        crop_px: Edge of the middle square that the network sees.
        pooling: ``class``, ``mean`` or ``both``: how tokens become one vector; vectors stay as they are.
    """

    def __init__(self, network: nn.Module, crop_px: int, pooling: Literal["class", "mean", "both"]) -> None:
        super().__init__()
        self.network = network
        self._crop_px = crop_px
        self._pooling = pooling
        # The class token and the registers come before the patches; registers are never part of the output.
        self._prefix = int(getattr(network, "num_prefix_tokens", 0))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps (n, 3, px, px) to (n, embed_dim)."""
        # torchvision's CenterCrop rounds the margin the same way; only even margins occur here.
        margin = (pixels.shape[-1] - self._crop_px) // 2
        if margin:
            end = margin + self._crop_px
            pixels = pixels[..., margin:end, margin:end].contiguous(memory_format=torch.channels_last)
        tokens = cast("Tensor", self.network(pixels))
        if tokens.ndim == 2:
            return tokens
        if self._pooling == "class":
            return tokens[:, 0]
        mean = tokens[:, self._prefix :].mean(dim=1)
        return mean if self._pooling == "mean" else torch.cat([tokens[:, 0], mean], dim=1)
