"""What stands around a preset's network: the crop before it and the pooling after it."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

__all__ = ["TileNetwork"]


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
        # The class token and the registers stand before the patches; registers are never part of the output.
        self._prefix = int(getattr(network, "num_prefix_tokens", 0))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps (n, 3, px, px) to (n, width)."""
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
