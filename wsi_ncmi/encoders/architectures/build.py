"""From an architecture's description to the network."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from wsi_ncmi.encoders.architectures.coca_vision import CocaVision
from wsi_ncmi.encoders.architectures.conv_stem import ConvStem
from wsi_ncmi.encoders.architectures.residual import ResidualTrunk
from wsi_ncmi.encoders.presets import Architecture

__all__ = ["build_architecture"]

# Kinds without buffers outside their state dict: these can be built without memory and filled later.
_WITHOUT_MEMORY = ("vit", "coca_vision")


def build_architecture(architecture: Architecture, *, meta: bool | None = None) -> nn.Module:
    """Builds a network without its classifier; its tensors hold nothing of use yet.

    Args:
        architecture: The description.
        meta: Build on the ``meta`` device (no memory); by default wherever the weights can be put in later.

    Returns:
        The network; its state dict has the names that a file imported here has. A ``vit`` maps
        (n, 3, px, px) to tokens (n, prefix + patches, dim), any other to vectors (n, width).
    """
    if meta is None:
        meta = architecture.kind in _WITHOUT_MEMORY
    with torch.random.fork_rng(devices=[]), torch.device("meta" if meta else "cpu"):
        return _BUILDERS[architecture.kind](architecture)


def _timm(architecture: Architecture, **more: Any) -> nn.Module:
    import timm
    from timm.layers.mlp import SwiGLUPacked

    arguments: dict[str, Any] = {**architecture.arguments, **more}
    if architecture.swiglu:
        arguments |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    if architecture.norm_eps is not None:
        arguments["norm_layer"] = partial(nn.LayerNorm, eps=architecture.norm_eps)
    model: nn.Module = timm.create_model(architecture.name, pretrained=False, num_classes=0, **arguments)
    return model


def _vit(architecture: Architecture) -> nn.Module:
    # All tokens come out, normalised: pooling is the business of TileNetwork. Weights are put in later.
    return _timm(architecture, global_pool="", weight_init="skip")


def _conv_stem_swin(architecture: Architecture) -> nn.Module:
    return _timm(architecture, embed_layer=ConvStem)


def _resnet_trunk(architecture: Architecture) -> nn.Module:
    return ResidualTrunk(_timm(architecture))


def _coca_vision(architecture: Architecture) -> nn.Module:
    return CocaVision(_vit(architecture), width=512, heads=8)


_BUILDERS = {
    "vit": _vit,
    "resnet": _timm,
    "resnet_trunk": _resnet_trunk,
    "conv_stem_swin": _conv_stem_swin,
    "coca_vision": _coca_vision,
}
