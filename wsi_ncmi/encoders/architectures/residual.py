"""ResNet cut after its third stage."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

__all__ = ["ResidualTrunk"]


class ResidualTrunk(nn.Module):
    """The mean over the feature map of a ResNet's third stage: 1024 values of a ResNet-50 (CLAM's).

    The names of its tensors are those of the whole network.
    """

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3"):
            self.add_module(name, whole.get_submodule(name))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps (n, 3, px, px) to (n, channels)."""
        for module in self.children():
            pixels = cast("Tensor", module(pixels))
        return pixels.mean(dim=(2, 3))
