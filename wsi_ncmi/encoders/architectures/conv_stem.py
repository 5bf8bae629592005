"""The convolutional stem that CTransPath puts before a Swin transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

__all__ = ["ConvStem"]


class ConvStem(nn.Module):
    """Two strided 3 × 3 convolutions with batch norm, then 1 × 1 to the embedding (Wang et al. 2022, fig. 3).

    Takes the place of timm's patch embedding: its patches are 4 px, its output is channels last.

    Args:
        img_size: Edge of the input in pixels, or height and width.
        patch_size: Must be 4.
        in_chans: Channels of the input.
        embed_dim: Channels of the output, a multiple of 8.
        norm_layer: Makes the norm after the embedding; None for none.
        more: What else timm hands to a patch embedding; the sizes are checked by the network.

    Raises:
        ValueError: Another patch size, or ``embed_dim`` not a multiple of 8.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Callable[[int], nn.Module] | None = None,
        **more: Any,
    ) -> None:
        super().__init__()
        if patch_size != 4 or embed_dim % 8:
            raise ValueError(f"a stem has patches of 4 px and 8·k channels, not {patch_size} and {embed_dim}")
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.img_size = (height, width)
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (height // patch_size, width // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        layers: list[nn.Module] = []
        before = in_chans
        for after in (embed_dim // 8, embed_dim // 4):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after)]
            layers.append(nn.ReLU())
            before = after
        self.proj = nn.Sequential(*layers, nn.Conv2d(before, embed_dim, 1))
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps (n, 3, px, px) to (n, px / 4, px / 4, embed_dim)."""
        return cast("Tensor", self.norm(self.proj(pixels).permute(0, 2, 3, 1)))
